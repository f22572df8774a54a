"""Random changes of images that leave the pose what it is, and the normalisation that networks expect.

All of it runs on the CPU beside training: one affine warp and one colour matrix an image, by OpenCV, which is
two to five times as fast there as `torch.nn.functional.grid_sample` and leaves torch's threads to the network.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor

from mcss.skeletons import canonical_pose, mirrored

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of RGB in 0..1; what all backbones of this package were trained with."""
IMAGENET_STD = (0.229, 0.224, 0.225)

_LUMA = np.array([0.299, 0.587, 0.114])
_GREY = np.full(3, 128.0)


@dataclass(frozen=True)
class AugmentationSettings:
    """How much images are changed. Amounts are half-widths of uniform ranges; 0 switches a change off."""

    scale: float = 0.12
    """The person is shown up to this much larger or smaller (0.12: 0.88 to 1.12 times)."""
    shift: float = 0.05
    """Moved by up to this share of the image in either direction."""
    rotation: float = 8.0
    """Turned by up to so many degrees in the image: as a camera that is not quite level."""
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 18.0
    """Degrees by which colours turn about grey."""
    channel_gain: float = 0.1
    """Each of red, green and blue is multiplied by up to this much more or less: as another white balance."""
    grey: float = 0.1
    """Share of images without colour."""
    blur: float = 0.1
    """Share of images that are blurred."""
    noise: float = 0.1
    """Share of images with sensor noise."""
    cutout: float = 0.3
    """Share of images in which a rectangle is hidden."""
    mirror: float = 0.0
    """Share of instants (not images) shown as in a mirror. It makes left-handed people of right-handed ones: all
    views of an instant and its label must be mirrored together (see `mirrored_canonical`). Off by default."""

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"{name}: expected a value in 0..{most:g}, came {value}")


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
    "mirror": 1.0,
}

NO_AUGMENTATION = AugmentationSettings(**dict.fromkeys(_LIMITS, 0.0))
"""Leaves images as they are."""


def normalise(pixels: UInt8[Tensor, "n 3 size size"]) -> Float[Tensor, "n 3 size size"]:
    """Images as the backbones expect them, unchanged: for evaluation. Keeps the memory format."""
    mean = torch.tensor(IMAGENET_MEAN, device=pixels.device).view(3, 1, 1) * 255
    std = torch.tensor(IMAGENET_STD, device=pixels.device).view(3, 1, 1) * 255
    return (pixels.float() - mean) / std


def source_size(stored: int, size: int) -> int:
    """At what width to keep images, stored `stored` pixels wide, from which `augment` makes `size`.

    Larger than the result where possible: turning and zooming blurs an image that has its final size already, and a
    network that learned from blurred images is at a loss with the sharp ones of evaluation. But not so large that
    `augment`, which does not smooth, would alias.
    """
    return min(stored, size * 3 // 2)


def augment(
    pixels: UInt8[Tensor, "n 3 height width"],
    settings: AugmentationSettings,
    rng: np.random.Generator,
    size: int | None = None,
    mirror: Bool[np.ndarray, " n"] | None = None,
) -> Float[Tensor, "n 3 size size"]:
    """Randomly changed, normalised images in the channels_last memory format.

    Colours are not clipped after the colour matrix. The same `rng` state gives the same result on the same machine,
    however many threads there are.

    Args:
        pixels: RGB on the CPU; fastest in the channels_last memory format, as `mcss.data.batches` keeps it.
        settings: What is changed and how much.
        rng: Where randomness comes from; `mcss.data.sampling.generator` makes one for a step.
        size: Width and height of the result; None for the height of `pixels`. There is no smoothing before
            shrinking, so keep the store no larger than about 1.5 × this.
        mirror: Which images are mirrored; None for none. ``settings.mirror`` is for the caller, who knows which
            images belong together.
    """
    images = pixels.permute(0, 2, 3, 1).contiguous().numpy()
    count, height, width, _ = images.shape
    size = size or height
    warps = _warps(settings, rng, count, (height, width), size, mirror)
    colours = _colours(settings, rng, count)
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


def mirrored_canonical(pose: Float[Tensor, "*batch 17 3"]) -> Float[Tensor, "*batch 17 3"]:
    """The canonical pose of a mirrored image, from the canonical pose of the image itself.

    Which way the mirror stood does not matter, as the canonical pose has no heading. Exchanging the sides turns the
    heading round to where the old right hip is mirrored to; with the pelvis midway between the hips that is +X again.

    Args:
        pose: Canonical, any unit.
    """
    return canonical_pose(mirrored(pose, axis=0))


def _warps(
    settings: AugmentationSettings,
    rng: np.random.Generator,
    count: int,
    source: tuple[int, int],
    size: int,
    mirror: Bool[np.ndarray, " n"] | None,
) -> Float[np.ndarray, "n 2 3"]:
    """For each image the matrix that takes pixels of the result to pixels of the source."""
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


def _colours(settings: AugmentationSettings, rng: np.random.Generator, count: int) -> Float32[np.ndarray, "n 3 4"]:
    """For each image the matrix from RGB in 0..255 to changed and normalised colours."""
    brightness = rng.uniform(1 - settings.brightness, 1 + settings.brightness, (count, 1, 1))
    contrast = rng.uniform(1 - settings.contrast, 1 + settings.contrast, (count, 1, 1))
    saturation = rng.uniform(1 - settings.saturation, 1 + settings.saturation, (count, 1, 1))
    saturation[rng.random(count) < settings.grey] = 0
    hue = np.radians(rng.uniform(-settings.hue, settings.hue, (count, 1, 1)))
    gain = rng.uniform(1 - settings.channel_gain, 1 + settings.channel_gain, (count, 3, 1))

    # Hue turns colours about the grey axis (Rodrigues), saturation draws them to their luma, contrast to mid-grey.
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
