"""Time the gradient of a depthwise convolution on a small map: PyTorch's on the CPU against `mcss.models.depthwise`.

    python benchmarks/depthwise.py [--json FILE]

The layer is that of EfficientNet-Lite0's last stages at 128 px: 5×5 on 4×4 maps of 1,152 channels. Forward and backward
passes of both alternate, and the median of each is reported.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from mcss.models.depthwise import Depthwise


def seconds(layer: nn.Module, images: torch.Tensor) -> float:
    layer.zero_grad(set_to_none=True)
    start = time.perf_counter()
    layer(images).square().mean().backward()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=88)
    parser.add_argument("--channels", type=int, default=1152)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    shape = (options.images, options.channels, 4, 4)
    images = torch.randn(shape).to(memory_format=torch.channels_last).requires_grad_()
    channels = options.channels
    layers = {
        kind.__name__: kind(channels, channels, 5, padding=2, groups=channels, bias=False).to(
            memory_format=torch.channels_last
        )
        for kind in (nn.Conv2d, Depthwise)
    }
    times: dict[str, list[float]] = {name: [] for name in layers}
    for _ in range(options.rounds + 1):
        for name, layer in layers.items():
            times[name].append(seconds(layer, images))
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:10s} {1000 * median:7.1f} ms forward and backward")
    print(f"ratio      {medians['Conv2d'] / medians['Depthwise']:7.2f}")
    if options.json:
        figures = {**medians, "images": options.images, "channels": channels, "threads": torch.get_num_threads()}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
