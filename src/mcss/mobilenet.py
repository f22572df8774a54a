"""Blocks of MobileNetV2 with BatchNorm folded into the convolutions, as the networks of MediaPipe have them.

Reference:
    Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018.
"""

from jaxtyping import Float
from torch import Tensor, nn


class Convolution(nn.Sequential):
    """A convolution with bias and half a kernel of padding, followed by ReLU6 or by nothing."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, depthwise: bool = False, relu: bool = True
    ) -> None:
        groups = inputs if depthwise else 1
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        super().__init__(convolution, nn.ReLU6() if relu else nn.Identity())


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and projection; with a shortcut where the shape stays the same."""

    def __init__(self, inputs: int, expanded: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Convolution(inputs, expanded),
            Convolution(expanded, expanded, kernel, stride, depthwise=True),
            Convolution(expanded, outputs, relu=False),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, maps: Float[Tensor, "batch _ height width"]) -> Float[Tensor, "batch _ _ _"]:
        """The maps of the next layer."""
        projected: Tensor = self.body(maps)
        return maps + projected if self.shortcut else projected
