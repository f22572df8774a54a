"""How much of the range of brightness a camera uses, and whether it sees colours: dim rooms, haze, and night cameras.

Differences between a person and what is behind them are judged by fixed steps of brightness. Where a whole recording
spans only a part of the usual range, its images are stretched first, and where all pixels have one colour, as in green
night vision, they are taken as grey.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

USUAL, NARROW = 200.0, 120.0
"""The range of brightness (of 255) of usual recordings, and the one below which images are stretched to it."""

LARGEST_GAIN, LARGEST_NOISE = 8.0, 24.0
"""Images are stretched by no more than this factor, and no farther than until their noise is this large."""

NOISY = 6.0
"""From this noise on, stretched images are smoothed before they are compared."""

OFF_COLOUR, SHARE_OFF = 14.0, 0.01
"""A pixel of a usual recording differs at least this much from shades of a single colour if it has another one, and
the share of such pixels up to which a camera sees no colours."""

COARSE = 5
"""Every this many pixels across and down are examined, also for exposure before the scene is known."""


@dataclass(frozen=True)
class Contrast:
    """How the brightness of a recording is stretched to the usual range."""

    low: float = 0.0
    """The darkest brightness."""
    gain: float = 1.0
    tint: tuple[float, float, float] | None = None
    """The share of each channel in the brightness, if all pixels have one colour that is not grey; else None."""
    smooth: bool = False
    """Whether images are noisy, and to be smoothed."""

    def stretched(self, image: Float32[np.ndarray, "*#shape"]) -> Float32[np.ndarray, "*#shape"]:
        """Return brightness in the usual range."""
        return image if self.gain == 1 else np.asarray((image - self.low) * self.gain, np.float32)

    def restored(self, image: Float32[np.ndarray, "*#shape"]) -> Float32[np.ndarray, "*#shape"]:
        """Undo `stretched`."""
        return image if self.gain == 1 else np.asarray(image / self.gain + self.low, np.float32)

    def grey(self, image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """Return an image of a single colour as grey; others as they are."""
        if self.tint is None:
            return image
        return np.asarray(cv2.merge([cv2.transform(image, np.array([self.tint]))] * 3), np.uint8)


USUAL_CONTRAST = Contrast()
"""That of most recordings: images are taken as they are."""


def contrast_of(samples: Sequence[UInt8[np.ndarray, "height width 3"]]) -> Contrast:
    """Measure the contrast of a recording by images spread over it, in which the person may be."""
    plain = np.stack([image[::COARSE, ::COARSE] for image in samples]).astype(np.float32)
    smooth = np.stack([cv2.blur(image, (3, 3))[::COARSE, ::COARSE] for image in samples]).astype(np.float32)
    pixels = smooth.reshape(-1, 3)
    low, high = np.percentile(pixels.mean(axis=1), (0.1, 99.9)).tolist()
    tint = _tint(pixels, min(1.0, (high - low) / USUAL))
    if tint is not None:
        weights = np.array(tint, np.float32)
        plain, brightness = plain @ weights, pixels @ weights
        low, high = np.percentile(brightness, (0.1, 99.9)).tolist()
    if high - low >= NARROW:
        return Contrast(tint=tint)
    noise = 1.48 * float(np.median(np.abs(plain - np.median(plain, axis=0))))
    gain = min(USUAL / max(high - low, 1.0), LARGEST_GAIN, max(LARGEST_NOISE / max(noise, 1e-6), 1.0))
    return Contrast(low, gain, tint, noise * gain > NOISY)


def _tint(pixels: Float32[np.ndarray, "pixels 3"], scale: float) -> tuple[float, float, float] | None:
    """Return the shares of the channels in the brightness of pixels of one colour; None for several, or for grey."""
    colour = pixels.mean(axis=0) / max(float(pixels.mean(axis=0).max()), 1e-6)
    weights = colour / float(colour @ colour)
    off = np.abs(pixels - (pixels @ weights)[:, None] * colour).max(axis=1)
    if colour.min() > 0.95 or float((off > OFF_COLOUR * scale).mean()) > SHARE_OFF:
        return None
    red, green, blue = weights.tolist()
    return red, green, blue
