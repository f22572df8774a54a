"""The changes of `mcss.data.loading.augmentation`, made on a GPU: images go there as bytes and are changed there.

What happens to each image is drawn on the CPU from the numbers of the step, so that it depends on seed and step alone.
Warps and colours are the very same; blur, noise and hidden rectangles have the same distribution, but differ in
detail from those on the CPU, whose noise is drawn pixel by pixel.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
from torch import Tensor
from torch.nn import functional

from mcss.data.loading.augmentation import AugmentationSettings, drawn_colours, drawn_warps


@dataclass(frozen=True, eq=False)
class Changes:
    """What happens to each image of a batch, on its way from pixels to the network's input."""

    size: int
    """Width and height of the result."""
    warps: Float64[np.ndarray, "n 2 3"]
    """From pixels of the result to pixels of the source."""
    colours: Float32[np.ndarray, "n 3 4"]
    """From RGB in 0..255 to changed and normalised colours."""
    sigma: Float64[np.ndarray, " n"]
    """Standard deviation of the blur in pixels of the result; 0 for none."""
    noise: Float64[np.ndarray, " n"]
    """Standard deviation of the noise, after normalisation; 0 for none."""
    hidden: Int64[np.ndarray, "n 4"]
    """Top, bottom, left and right of the hidden rectangle; all 0 for none."""
    fill: Float64[np.ndarray, "n 3"]
    """Its colour, after normalisation."""
    seed: int
    """Seed of the noise."""


@dataclass(frozen=True, eq=False)
class UnchangedImages:
    """Images as they were decoded, and what is to happen to them where they are used."""

    pixels: UInt8[Tensor, "n 3 height width"]
    changes: Changes


def drawn_changes(
    settings: AugmentationSettings,
    rng: np.random.Generator,
    count: int,
    source: tuple[int, int],
    size: int,
    mirror: Bool[np.ndarray, " n"] | None = None,
) -> Changes:
    """Draw the changes of a batch, in the order in which `mcss.data.loading.augmentation.augment` draws them.

    Args:
        settings: What to change and how much.
        rng: Random numbers of the step.
        count: Number of images.
        source: Height and width of the images.
        size: Width and height of the result.
        mirror: Which images to mirror; None for none.
    """
    warps = drawn_warps(settings, rng, count, source, size, mirror)
    colours = drawn_colours(settings, rng, count)
    blurred = np.less(rng.random(count), settings.blur)
    noisy = np.less(rng.random(count), settings.noise)
    covered = np.less(rng.random(count), settings.cutout)
    sigma, noise = np.zeros(count), np.zeros(count)
    hidden, fill = np.zeros((count, 4), np.int64), np.zeros((count, 3))
    for n in range(count):
        if blurred[n]:
            sigma[n] = rng.uniform(0.004, 0.012) * size
        if noisy[n]:
            noise[n] = rng.uniform(0.05, 0.3)
        if covered[n]:
            extent = rng.uniform(0.1, 0.4, 2) * size
            top, left = (rng.random(2) * (size - extent)).astype(int)
            hidden[n] = top, top + int(extent[0]), left, left + int(extent[1])
            fill[n] = rng.uniform(-2, 2, 3)
    return Changes(size, warps, colours, sigma, noise, hidden, fill, int(rng.integers(1 << 62)))


def changed(pixels: UInt8[Tensor, "n 3 height width"], changes: Changes) -> Float[Tensor, "n 3 size size"]:
    """Make the changes on the device where the pixels are; the result is in the channels_last memory format."""
    device, size = pixels.device, changes.size

    def here(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device, non_blocking=True)

    images = functional.grid_sample(
        pixels.float(),
        _grid(here(changes.warps), size, pixels.shape[-2], pixels.shape[-1]),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    blurred = np.flatnonzero(changes.sigma)
    if len(blurred):
        index = torch.from_numpy(blurred).to(device)
        images[index] = _blurred(images[index], here(changes.sigma[blurred]), float(changes.sigma.max()))
    colours = here(changes.colours)
    out = torch.einsum("nij,njhw->nihw", colours[:, :, :3], images) + colours[:, :, 3, None, None]
    noisy = np.flatnonzero(changes.noise)
    if len(noisy):
        numbers = torch.Generator(device).manual_seed(changes.seed)
        noise = torch.randn(len(noisy), 3, size, size, generator=numbers, device=device)
        out[torch.from_numpy(noisy).to(device)] += here(changes.noise[noisy])[:, None, None, None] * noise
    if changes.hidden.any():
        top, bottom, left, right = here(changes.hidden).T[:, :, None]
        pixel = torch.arange(size, device=device)
        rows, columns = (pixel >= top) & (pixel < bottom), (pixel >= left) & (pixel < right)
        inside = rows[:, None, :, None] & columns[:, None, None, :]
        out = torch.where(inside, here(changes.fill)[:, :, None, None], out)
    return out.contiguous(memory_format=torch.channels_last)


def _grid(warps: Float[Tensor, "n 2 3"], size: int, height: int, width: int) -> Float[Tensor, "n size size 2"]:
    """Return where each pixel of the result lies in the source, from -1 to 1 over the source's borders."""
    pixel = torch.arange(size, device=warps.device, dtype=warps.dtype)
    y, x = torch.meshgrid(pixel, pixel, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1)
    source = torch.einsum("nij,hwj->nhwi", warps, places)
    extent = torch.tensor([width, height], device=warps.device)
    return (2 * source + 1) / extent - 1


def _blurred(
    images: Float[Tensor, "n 3 size size"], sigma: Float[Tensor, " n"], largest: float
) -> Float[Tensor, "n 3 size size"]:
    """Blur each image by a Gaussian of its own; the kernel reaches as far as OpenCV's does for 8-bit images."""
    radius = max(1, round(3 * largest))
    offset = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None]).square())
    kernel = kernel / kernel.sum(1, keepdim=True)
    count, channels, size = images.shape[0], images.shape[1], images.shape[2]
    weights = kernel.repeat_interleave(channels, 0)
    flat = functional.pad(images.reshape(1, count * channels, size, size), (radius,) * 4, mode="reflect")
    flat = functional.conv2d(flat, weights[:, None, None, :], groups=count * channels)
    flat = functional.conv2d(flat, weights[:, None, :, None], groups=count * channels)
    return flat.reshape(count, channels, size, size)
