"""Random changes of images that keep the pose, and the normalisation that networks expect.

`augment` runs on the CPU beside training: one affine warp and one colour matrix per image, by OpenCV, which is two to
five times as fast there as `torch.nn.functional.grid_sample` and leaves torch's threads to the network. On a GPU,
`mcss.data.loading.device_augmentation` makes the same changes.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from mcss.skeletons import canonical_pose, mirrored

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of RGB in 0..1 that all backbones of this package were trained with."""
IMAGENET_STD = (0.229, 0.224, 0.225)

_LUMA = np.array([0.299, 0.587, 0.114])
_GREY = np.full(3, 128.0)


@dataclass(frozen=True)
class AugmentationSettings:
    """How much images are changed. Amounts are half-widths of uniform ranges; 0 turns a change off."""

    scale: float = 0.12
    """Show the person up to this much larger or smaller (0.12 gives 0.88 to 1.12 times); more for a model that is to
    meet looser and tighter crops."""
    shift: float = 0.05
    """Move the image by up to this share of its size in either direction."""
    rotation: float = 8.0
    """Rotate the image by up to this many degrees either way; more for cameras that are not level."""
    brightness: float = 0.3
    """Multiply the brightness by up to this much more or less."""
    contrast: float = 0.3
    """Multiply the contrast by up to this much more or less."""
    saturation: float = 0.3
    """Multiply the saturation by up to this much more or less."""
    hue: float = 18.0
    """Rotate colours about grey by up to this many degrees."""
    channel_gain: float = 0.1
    """Multiply red, green and blue each by up to this much more or less, like another white balance."""
    grey: float = 0.1
    """Share of images shown without colour."""
    blur: float = 0.1
    """Share of images that are blurred."""
    noise: float = 0.1
    """Share of images that get sensor noise."""
    cutout: float = 0.3
    """Share of images in which a rectangle is hidden."""
    low_resolution: float = 0.0
    """Share of images that are shrunk to a fifth to two thirds of their size and enlarged again: distant people."""
    compression: float = 0.0
    """Share of images that are compressed as JPEG of quality 15 to 80, which leaves blocks like those of videos."""
    mirror: float = 0.0
    """Share of instants whose images, in all views, and poses are mirrored, which turns right-handed people into
    left-handed ones; with canonical poses only."""

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{name}: expected a value in 0..{most:g}, got {value}.")


_LIMITS = {
    "scale": 0.9,
    "shift": 0.5,
    "rotation": 180.0,
    "brightness": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 180.0,
    "channel_gain": 1.0,
    "grey": 1.0,
    "blur": 1.0,
    "noise": 1.0,
    "cutout": 1.0,
    "low_resolution": 1.0,
    "compression": 1.0,
    "mirror": 1.0,
}

NO_CHANGES = AugmentationSettings(**dict.fromkeys(_LIMITS, 0.0))
"""Leaves images as they are."""


def normalise(pixels: UInt8[Tensor, "n 3 size size"]) -> Float[Tensor, "n 3 size size"]:
    """Normalise images as the backbones expect them, without augmentation. Keeps the memory format."""
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(3, 1, 1) * 255
    return (pixels.float() - mean) / std


def unnormalised(images: Float[Tensor, "n 3 size size"]) -> UInt8[np.ndarray, "n size size 3"]:
    """Turn normalised images, such as drawn ones, into pixels; what is too dark or too bright is clipped."""
    mean, std = (torch.tensor(values).view(3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    pixels = (images.cpu() * std + mean).round().clamp(0, 255).byte()
    return np.asarray(pixels.permute(0, 2, 3, 1).numpy())


def source_size(stored: int, size: int) -> int:
    """Return the width at which to keep images, stored `stored` pixels wide, from which `augment` makes `size`.

    It is larger than the result where possible: rotating and zooming blurs an image that has its final size already,
    and a network that learned from blurred images does worse on the sharp ones of evaluation. But it is not so large
    that `augment`, which does not smooth, would alias.
    """
    return min(stored, size * 3 // 2)


def augment(
    pixels: UInt8[Tensor, "n 3 height width"],
    settings: AugmentationSettings,
    rng: np.random.Generator,
    size: int | None = None,
    mirror: Bool[np.ndarray, " n"] | None = None,
) -> Float[Tensor, "n 3 size size"]:
    """Change images at random and normalise them; the result is in the channels_last memory format.

    Colours are not clipped after the colour matrix. The same `rng` state gives the same result on the same machine,
    whatever the number of threads.

    Args:
        pixels: RGB on the CPU; fastest in the channels_last memory format, as `mcss.data.loading.batches` keeps it.
        settings: What to change and how much.
        rng: Random numbers; `mcss.data.loading.sampling.generator` makes them for a step.
        size: Width and height of the result; None for the height of `pixels`. Images are not smoothed before
            shrinking, so keep `pixels` no larger than about 1.5 × this.
        mirror: Which images to mirror; None for none. ``settings.mirror`` is for the caller, which knows which images
            belong together.
    """
    images = degraded(pixels, settings, rng).permute(0, 2, 3, 1).contiguous().numpy()
    count, height, width, _ = images.shape
    size = size or height
    warps = drawn_warps(settings, rng, count, (height, width), size, mirror)
    colours = drawn_colours(settings, rng, count)
    blurred = np.less(rng.random(count), settings.blur)
    noisy = np.less(rng.random(count), settings.noise)
    hidden = np.less(rng.random(count), settings.cutout)
    out = np.empty((count, size, size, 3), np.float32)
    warped = np.empty((size, size, 3), np.uint8)
    for n in range(count):
        cv2.warpAffine(
            images[n],
            warps[n],
            (size, size),
            dst=warped,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if blurred[n]:
            sigma = rng.uniform(0.004, 0.012) * size
            cv2.GaussianBlur(warped, (0, 0), sigma, dst=warped)
        cv2.transform(warped.astype(np.float32), colours[n], dst=out[n])
        if noisy[n]:
            out[n] += rng.uniform(0.05, 0.3) * rng.standard_normal(out[n].shape, np.float32)
        if hidden[n]:
            extent = rng.uniform(0.1, 0.4, 2) * size
            top, left = (rng.random(2) * (size - extent)).astype(int)
            bottom, right = (top + int(extent[0]), left + int(extent[1]))
            out[n, top:bottom, left:right] = rng.uniform(-2, 2, 3)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def degraded(
    pixels: UInt8[Tensor, "n 3 height width"], settings: AugmentationSettings, rng: np.random.Generator
) -> UInt8[Tensor, "n 3 height width"]:
    """Take detail away from some images, as distance and compression do."""
    if not (settings.low_resolution or settings.compression):
        return pixels
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy().copy()
    for n, image in enumerate(images):
        side = image.shape[0]
        if rng.random() < settings.low_resolution:
            small = max(8, round(side * rng.uniform(0.2, 0.67)))
            shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
            images[n] = cv2.resize(shrunk, (image.shape[1], side), interpolation=cv2.INTER_LINEAR)
        if rng.random() < settings.compression:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 81))]
            images[n] = cv2.imdecode(cv2.imencode(".jpg", images[n], quality)[1], cv2.IMREAD_UNCHANGED)
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def mirrored_canonical(pose: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch 17 3"]:
    """Return the canonical pose of a mirrored image, given the canonical pose of the image itself.

    The orientation of the mirror does not matter, since a canonical pose has no heading. Exchanging the sides turns the
    heading to where the old right hip is mirrored to; with the pelvis midway between the hips that is +X again.

    Args:
        pose: A canonical pose in any unit.
    """
    return canonical_pose(mirrored(pose, axis=0))


def drawn_warps(
    settings: AugmentationSettings,
    rng: np.random.Generator,
    count: int,
    source: tuple[int, int],
    size: int,
    mirror: Bool[np.ndarray, " n"] | None,
) -> Float[np.ndarray, "n 2 3"]:
    """Return for each image the matrix that maps pixels of the result to pixels of the source."""
    height, width = source
    zoom = rng.uniform(1 - settings.scale, 1 + settings.scale, count)
    angle = np.radians(rng.uniform(-settings.rotation, settings.rotation, count))
    shift = rng.uniform(-settings.shift, settings.shift, (count, 2)) * (width, height)
    cos, sin = np.cos(angle) * height / size / zoom, np.sin(angle) * height / size / zoom
    linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    if mirror is not None:
        linear[mirror, :, 0] *= -1
    # Pixel centres lie at +0.5; the middle of the result shows the middle of the source, moved by the shift.
    middle = np.array([width, height]) / 2 - 0.5 + shift
    return np.concatenate([linear, (middle - linear.sum(-1) * (size - 1) / 2)[..., None]], -1)


def drawn_colours(settings: AugmentationSettings, rng: np.random.Generator, count: int) -> Float32[np.ndarray, "n 3 4"]:
    """Return for each image the matrix from RGB in 0..255 to changed and normalised colours."""
    brightness = rng.uniform(1 - settings.brightness, 1 + settings.brightness, (count, 1, 1))
    contrast = rng.uniform(1 - settings.contrast, 1 + settings.contrast, (count, 1, 1))
    saturation = rng.uniform(1 - settings.saturation, 1 + settings.saturation, (count, 1, 1))
    saturation[rng.random(count) < settings.grey] = 0
    hue = np.radians(rng.uniform(-settings.hue, settings.hue, (count, 1, 1)))
    gain = rng.uniform(1 - settings.channel_gain, 1 + settings.channel_gain, (count, 3, 1))

    # Hue rotates colours about the grey axis (Rodrigues), saturation scales them about luma, contrast about mid-grey.
    axis = np.ones((3, 3)) / 3
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turned = np.cos(hue) * np.eye(3) + (1 - np.cos(hue)) * axis + np.sin(hue) * cross
    luma = np.broadcast_to(_LUMA, (3, 3))
    linear = (saturation * np.eye(3) + (1 - saturation) * luma) @ turned
    linear = gain * brightness * contrast * linear
    offset = gain[..., 0] * brightness[..., 0] * (1 - contrast[..., 0]) * _GREY
    mean, std = np.array(IMAGENET_MEAN) * 255, np.array(IMAGENET_STD) * 255
    return np.concatenate([linear, (offset - mean)[..., None]], -1).astype(np.float32) / std.astype(np.float32).reshape(
        3, 1
    )
