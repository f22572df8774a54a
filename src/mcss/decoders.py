"""Networks that draw: from a small map to a large one, by bilinear enlargement and convolutions."""

from torch import nn

START_SIDE = 4
"""Side of the map that drawing starts from."""


def enlarging(inputs: int, width: int, size: int) -> tuple[nn.Sequential, int]:
    """Blocks that take a map of side `START_SIDE` to one of side `size`, and the channels of the result.

    Each doubling of the side has two convolutions with BatchNorm and ReLU, and half the channels, but 16 at least.

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


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A 3×3 convolution with BatchNorm and ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def check_size(name: str, size: int) -> None:
    """Whether `enlarging` can draw at this size.

    Raises:
        ValueError: It cannot; names the setting.
    """
    if size < 2 * START_SIDE or size & (size - 1):
        raise ValueError(f"{name}: expected a power of two, 8 or more, got {size}.")
