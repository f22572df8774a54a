"""BlazePose's landmark network as a backbone: trained on photographs of real people, with its own landmark heads.

The layers and weights are those of ``pose_landmark_full.tflite`` from the wheel mediapipe 0.10.21 (Apache-2.0), without
its decoder for heat maps and segmentation. BatchNorm is folded into the convolutions there, so none is left here.

Reference:
    Bazarevsky et al., BlazePose: On-device Real-time Body Pose Tracking, 2020; the weights' model card, MediaPipe.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcss.mobilenet import Convolution, InvertedResidual
from mcss.weights import load_strictly, read_weights

IMAGE_SIZE = 256
"""Side in pixels of the images that the network was trained on; its landmark heads accept no other."""

LANDMARKS = 39
"""33 body landmarks and 6 auxiliary points, of which the first two describe the crop that the network expects."""


class _Residual(nn.Module):
    """A depthwise and a pointwise convolution beside a shortcut, which is max-pooled where the stride is 2."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        # "Same" padding of an even map at stride 2 adds a row below and a column on the right, and none before.
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.Identity()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, 0 if stride == 2 else 1, groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, maps: Float[Tensor, "batch channels _ _"]) -> Float[Tensor, "batch channels _ _"]:
        """The maps of the next layer."""
        if self.depthwise.stride[0] == 2 and maps.shape[-1] % 2:
            maps = nn.functional.pad(maps, (0, 1, 0, 1))
        convolved = self.pointwise(nn.functional.relu6(self.depthwise(self.pad(maps))))
        return nn.functional.relu6(self.pool(maps) + convolved)


class _Stem(nn.Module):
    """Undoes the package's normalisation, since the network expects RGB in 0..1, and makes the first map."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(3, 1, 1), persistent=False)
        self.layers = nn.Sequential(
            Convolution(3, 24, 3, 2), Convolution(24, 24, 3, depthwise=True), Convolution(24, 16, relu=False)
        )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 16 _ _"]:
        """The first map, half as large as the images."""
        maps: Tensor = self.layers(images * self.std + self.mean)
        return maps


LAST_SCALE = 4.0
"""Factor of the map that landmarks are read from, whose values are a fifth of those of the encoder's mean beside it (on
rendered people). Of nearly the same size, both are learned from alike."""


class _LandmarkStage(nn.Module):
    """From the last map of the encoder to the map that landmarks are read from, with the encoder's mean beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Convolution(864, 864, 3, depthwise=True),
            Convolution(864, 288),
            _Residual(288, 2),
            *(_Residual(288) for _ in range(4)),
            _Residual(288, 2),
            *(_Residual(288) for _ in range(5)),
        )

    def forward(self, maps: Float[Tensor, "batch 864 _ _"]) -> Float[Tensor, "batch 1152 _ _"]:
        """288 channels for the landmark heads, and the mean of each of the encoder's 864 channels at every place."""
        last: Tensor = self.layers(maps)
        mean = maps.mean(dim=(2, 3), keepdim=True).expand(-1, -1, *last.shape[-2:])
        return torch.cat([LAST_SCALE * last, mean], dim=1)


CHANNELS = 288 + 864
"""Channels of the last map: those of the landmark heads, and the mean of the encoder's map."""


def blazepose_stages(mean: tuple[float, float, float], std: tuple[float, float, float]) -> list[nn.Module]:
    """The stages in order, with random weights; the maps have 1/2, 1/4, 1/8, 1/16, 1/32 and 1/128 of the image's side.

    Args:
        mean: RGB mean that images have been normalised by.
        std: RGB standard deviation that images have been normalised by.
    """
    return [
        _Stem(mean, std),
        nn.Sequential(InvertedResidual(16, 64, 24, 3, 2), InvertedResidual(24, 144, 24, 3)),
        nn.Sequential(InvertedResidual(24, 144, 32, 5, 2), InvertedResidual(32, 192, 32, 5)),
        nn.Sequential(
            InvertedResidual(32, 192, 64, 3, 2),
            *(InvertedResidual(64, 384, 64, 3) for _ in range(2)),
            InvertedResidual(64, 384, 88, 5),
            *(InvertedResidual(88, 528, 88, 5) for _ in range(2)),
        ),
        nn.Sequential(
            InvertedResidual(88, 528, 144, 5, 2),
            *(InvertedResidual(144, 864, 144, 5) for _ in range(3)),
            Convolution(144, 864),
            Convolution(864, 864, 3, depthwise=True),
        ),
        _LandmarkStage(),
    ]


class Landmarks(NamedTuple):
    """What the landmark heads find in a batch of crops."""

    image: Float[Tensor, "batch 33 3"]
    """x and y in pixels of the network's image, and a depth of the same scale relative to the hips."""
    world: Float[Tensor, "batch 33 3"]
    """Millimetres, along the camera's axes (x right, y down, z away), the middle of the hips at the origin."""
    visibility: Float[Tensor, "batch 33"]
    """Probability that a landmark lies within the image and is not hidden."""
    presence: Float[Tensor, " batch"]
    """Probability that the crop shows a person."""
    alignment: Float[Tensor, "batch 2 2"]
    """Pixels: the middle of the hips, and a point above it on the circle that encloses the person."""


class LandmarkHeads(nn.Module):
    """BlazePose's own heads on the last map of the backbone, for images of `IMAGE_SIZE` pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(288, LANDMARKS * 5, 2)
        self.world = nn.Conv2d(288, LANDMARKS * 3, 2)
        self.presence = nn.Conv2d(288, 1, 2)

    def forward(self, maps: Float[Tensor, "batch channels 2 2"]) -> Landmarks:
        """The landmarks of crops from the last map of their stages."""
        maps = maps[:, :288] / LAST_SCALE
        image = self.image(maps).reshape(-1, LANDMARKS, 5)
        world = self.world(maps).reshape(-1, LANDMARKS, 3)
        return Landmarks(
            image[:, :33, :3],
            world[:, :33] * 1000,
            torch.sigmoid(image[:, :33, 3]),
            torch.sigmoid(self.presence(maps)).flatten(),
            image[:, 33:35, :2],
        )


WEIGHTS = Path(__file__).with_name("blazepose.safetensors")
"""The weights of the backbone and of its heads, as `scripts/convert_blazepose.py` writes them; in half precision."""


def load_landmark_heads() -> LandmarkHeads:
    """Load BlazePose's own heads, which belong on a backbone with the same weights, in evaluation mode."""
    heads = LandmarkHeads()
    state = {key.removeprefix("heads."): value for key, value in shipped_weights("heads.").items()}
    load_strictly(heads, state, source=WEIGHTS.name, name="blazepose's landmark heads")
    return heads.eval()


def shipped_weights(part: str) -> dict[str, Tensor]:
    """Return the weights whose names begin with `part`, ``stages.`` or ``heads.``, in single precision."""
    return {key: value.float() for key, value in read_weights(WEIGHTS).items() if key.startswith(part)}
