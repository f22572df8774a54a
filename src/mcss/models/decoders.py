"""Decoders: layers that draw, from a small map to a large one, by bilinear enlargement and convolutions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

START_SIDE = 4
"""Side of the first map of a decoder."""

_GROUP = 8
"""Channels in each group of GroupNorm."""


def enlarging(inputs: int, width: int, size: int) -> tuple[nn.Sequential, int]:
    """Return blocks from a map of side `START_SIDE` to one of side `size`, and the channels of the result.

    Each doubling of the side has two convolutions (see `convolution`) and half the channels, but at least 16.

    Args:
        inputs: Channels of the first map.
        width: Twice the channels after the first doubling.
        size: A power of two, see `check_size`.
    """
    blocks: list[nn.Module] = []
    channels, side = width, START_SIDE
    while side < size:
        channels, side = max(16, channels // 2), side * 2
        blocks += [
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            *convolution(inputs, channels),
            *convolution(channels, channels),
        ]
        inputs = channels
    return nn.Sequential(*blocks), channels


def start_map(numbers: Float[Tensor, "batch numbers"]) -> Float[Tensor, "batch channels 4 4"]:
    """Return numbers as the first map of a decoder, channels_last, which convolutions keep and are faster in."""
    shaped = numbers.reshape(len(numbers), -1, START_SIDE, START_SIDE)
    return shaped.contiguous(memory_format=torch.channels_last)


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """Return a 3×3 convolution with GroupNorm and ReLU.

    BatchNorm would remove what is the same in a whole batch, such as the colours to draw with: a batch shows one person
    in one outfit.
    """
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return [layer, nn.GroupNorm(max(1, outputs // _GROUP), outputs), nn.ReLU()]


def check_size(name: str, size: int) -> None:
    """Check that `enlarging` can draw at this size.

    Raises:
        ValueError: It cannot; the message names the setting.
    """
    if size < 2 * START_SIDE or size & (size - 1):
        raise ValueError(f"{name}: expected a power of two, 8 or more, got {size}.")
