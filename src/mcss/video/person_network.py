"""BlazePose's person detector as a network: from an image to scores and points of people at fixed anchors.

The layers and weights are those of ``pose_detection.tflite`` from the wheel mediapipe 0.10.21 (Apache-2.0):
MobileNetV2's blocks, a feature pyramid, and two heads on each of three maps. A head reads the map with pixels moved
from channels to places, twice as large, and halves it again.

Reference:
    Bazarevsky et al., BlazePose: On-device Real-time Body Pose Tracking, 2020. Anchors: MediaPipe's graph
    ``pose_detection_cpu``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from torch import Tensor, cat, nn

from mcss.mobilenet import Convolution, InvertedResidual

SIDE = 224
"""Side in pixels of the network's square image."""

WEIGHTS = Path(__file__).with_name("person_network.safetensors")
"""The weights, as `scripts/convert_blazepose.py` writes them; in half precision."""

_VALUES = 12
"""Values per anchor: a box of the face, then x and y of four points."""


class RawDetections(NamedTuple):
    """What the network says about every anchor."""

    logits: Float[Tensor, "batch anchors"]
    """Log-odds that a person is there."""
    hips: Float[Tensor, "batch anchors 2"]
    """The middle of the hips, in pixels of the network's image from the anchor."""
    reach: Float[Tensor, "batch anchors 2"]
    """A point on the circle around the hips that contains the whole body, in the same units."""


class _Residual(nn.Module):
    """A depthwise and a pointwise convolution beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            Convolution(channels, channels, 3, depthwise=True, relu=False), Convolution(channels, channels, relu=False)
        )

    def forward(self, maps: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """The maps of the next layer."""
        return nn.functional.relu6(maps + self.layers(maps))


class _Merge(nn.Module):
    """A map of the encoder joined with the coarser map of the pyramid."""

    def __init__(self, coarse: int, outputs: int) -> None:
        super().__init__()
        self.reduce = Convolution(coarse, outputs)
        self.layers = nn.Sequential(_Residual(outputs), _Residual(outputs))

    def forward(
        self, lateral: Float[Tensor, "batch channels h w"], coarse: Float[Tensor, "batch _ _ _"]
    ) -> Float[Tensor, "batch channels h w"]:
        """The map of the pyramid at the size of `lateral`."""
        larger = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
        merged: Tensor = self.layers(lateral + self.reduce(larger))
        return merged


def _head(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        Convolution(channels // 4, channels // 4, 3, 2, depthwise=True, relu=False),
        Convolution(channels // 4, outputs, relu=False),
    )


def _lateral(channels: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(Convolution(channels, channels, 3, depthwise=True, relu=False), Convolution(channels, outputs))


_GRIDS = ((8, 2, 96), (16, 2, 192), (32, 6, 1152))
"""Stride in pixels, anchors per cell, and channels of the map, of each of the three grids."""


class PersonNetwork(nn.Module):
    """The detector's network; the order of its layers is the order in which the original computes them."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            Convolution(3, 24, 3, 2),
            Convolution(24, 24, 3, depthwise=True),
            Convolution(24, 16, relu=False),
            InvertedResidual(16, 64, 24, 3, 2),
            InvertedResidual(24, 144, 24, 3),
            InvertedResidual(24, 144, 40, 5, 2),
            InvertedResidual(40, 240, 40, 5),
        )
        self.fine_lateral = _lateral(40, 96)
        self.middle = nn.Sequential(
            InvertedResidual(40, 240, 80, 3, 2),
            *(InvertedResidual(80, 480, 80, 3) for _ in range(2)),
            InvertedResidual(80, 480, 112, 5),
            *(InvertedResidual(112, 672, 112, 5) for _ in range(2)),
        )
        self.middle_lateral = _lateral(112, 192)
        self.coarse = nn.Sequential(
            InvertedResidual(112, 672, 192, 5, 2),
            *(InvertedResidual(192, 1152, 192, 5) for _ in range(3)),
            Convolution(192, 1152),
            Convolution(1152, 1152, 3, depthwise=True),
        )
        self.middle_merge = _Merge(1152, 192)
        self.fine_merge = _Merge(192, 96)
        self.logits = nn.ModuleList(_head(channels, each) for _, each, channels in _GRIDS)
        self.values = nn.ModuleList(_head(channels, each * _VALUES) for _, each, channels in _GRIDS)

    def forward(self, images: Float[Tensor, "batch 3 224 224"]) -> RawDetections:
        """Look for people in RGB images from -1 to 1."""
        fine = self.fine(images)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.middle_merge(self.middle_lateral(middle), coarse)
        fine = self.fine_merge(self.fine_lateral(fine), middle)
        spread = [_channels_to_places(maps) for maps in (fine, middle, coarse)]
        logits = cat(list(_by_anchor(self.logits, spread, 1)), dim=1)[..., 0]
        values = cat(list(_by_anchor(self.values, spread, _VALUES)), dim=1)
        return RawDetections(logits, values[..., 4:6], values[..., 6:8])


def _channels_to_places(maps: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch _ _ _"]:
    """TensorFlow's depth_to_space with blocks of 2: the first quarter of the channels is the upper left place."""
    batch, channels, height, width = maps.shape
    blocks = maps.reshape(batch, 2, 2, channels // 4, height, width)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(batch, channels // 4, 2 * height, 2 * width)


def _by_anchor(heads: nn.ModuleList, maps: list[Tensor], values: int) -> Iterator[Float[Tensor, "batch _ values"]]:
    """What each head says, by anchor: row by row, and in a cell one anchor after the other."""
    for head, its_map in zip(heads, maps, strict=True):
        found = head(its_map)
        yield found.permute(0, 2, 3, 1).reshape(len(found), -1, values)


def anchors() -> Float32[np.ndarray, "anchors 2"]:
    """The places that the network's points are relative to, x and y in pixels of its image: the middles of cells."""
    places = []
    for stride, each, _ in _GRIDS:
        y, x = np.indices((SIDE // stride, SIDE // stride))
        middle = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) * stride
        places.append(np.repeat(middle, each, axis=0))
    return np.concatenate(places).astype(np.float32)
