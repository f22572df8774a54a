"""Depthwise convolution with a fast weight gradient for small maps on a CPU.

PyTorch's CPU gradient of a 5×5 depthwise weight on a 4×4 map takes eight times as long as the rest of that layer: 107
ms for 88 images of 1,152 channels, against 15 ms here (`benchmarks/depthwise.py`). The values are the same up to the
order of summation.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

LARGEST_SIDE = 4
"""Largest side of the map for which the sum over offsets below is faster than PyTorch's gradient."""


class _SmallDepthwise(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any, images: Float[Tensor, "n c h w"], weight: Float[Tensor, "c 1 k k"]
    ) -> Float[Tensor, "n c h w"]:
        ctx.save_for_backward(images, weight)
        return nn.functional.conv2d(images, weight, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, weight = ctx.saved_tensors
        gradient = gradients[0]
        half = weight.shape[-1] // 2
        for_images = None
        if ctx.needs_input_grad[0]:
            for_images = nn.functional.conv2d(gradient, weight.flip(2, 3), padding=half, groups=len(weight))
        x, g = images.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
        for_weight = weight.new_zeros(2 * half + 1, 2 * half + 1, len(weight))
        for dy in range(-half, half + 1):
            for dx in range(-half, half + 1):
                rows, columns = _overlap(dy, x.shape[1]), _overlap(dx, x.shape[2])
                shifted, unshifted = x[:, rows[0], columns[0]], g[:, rows[1], columns[1]]
                for_weight[dy + half, dx + half] = (shifted * unshifted).sum((0, 1, 2))
        return for_images, for_weight.permute(2, 0, 1)[:, None]


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Return where an axis shifted by `shift` and the axis itself overlap, in coordinates of each."""
    return slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size - max(shift, 0))


class Depthwise(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps the size; it differs from `nn.Conv2d` in speed alone."""

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Apply the convolution."""
        if self.training and images.device.type == "cpu" and max(images.shape[2:]) <= LARGEST_SIDE:
            maps: Tensor = _SmallDepthwise.apply(images, self.weight)
            return maps if self.bias is None else maps + self.bias[:, None, None]
        return super().forward(images)


def speed_up_depthwise(net: nn.Module) -> None:
    """Make every depthwise convolution of `net` that keeps the size a `Depthwise`."""
    for module in net.modules():
        if (
            type(module) is nn.Conv2d
            and module.groups == module.in_channels == module.out_channels > 1
            and module.stride == (1, 1)
            and module.kernel_size[0] == module.kernel_size[1] == 2 * int(module.padding[0]) + 1
        ):
            module.__class__ = Depthwise
