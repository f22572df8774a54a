"""Image files and arrays of any common kind as upright RGB pixels, and square crops of them."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import UInt8

from mcss.errors import ImageError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

MOST_PIXELS = 150_000_000
"""Larger images are refused: they would take a gigabyte of memory and show a person no better."""

Image = UInt8[np.ndarray, "height width 3"]

OfAnySize = UInt8[np.ndarray, "_ _ 3"]
"""An image among others of other sizes."""


def read_image(path: Path) -> Image:
    """An image file as RGB: the camera's rotation mark (EXIF) applied, 16 bits scaled to 8, transparency on grey.

    Raises:
        ImageError: It is missing, empty, damaged, no image, or too large.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); expected an image") from error
    return decode_image(data, str(path))


def decode_image(data: bytes, name: str) -> Image:
    """The bytes of an image file as RGB, see `read_image`.

    Args:
        data: JPEG, PNG, WebP, BMP or TIFF.
        name: What to call it in messages.

    Raises:
        ImageError: As there.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes); copy it again")
    try:
        # Both flags are needed: UNCHANGED keeps transparency and depth but leaves the rotation mark alone.
        upright = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        plain = None
        if upright is not None and upright.size <= 3 * MOST_PIXELS:
            plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # more pixels than OpenCV decodes
        raise ImageError(f"{name}: cannot be decoded ({error.err}); save it anew, smaller") from error
    if upright is None:
        raise ImageError(f"{name}: no image that can be read, or a damaged one; expected JPEG, PNG, WebP, BMP or TIFF")
    if upright.size > 3 * MOST_PIXELS:
        raise ImageError(
            f"{name}: {upright.shape[1]}×{upright.shape[0]} pixels, expected at most {MOST_PIXELS // 10**6} million; "
            "save it anew, smaller"
        )
    if plain is not None and plain.ndim == 3 and plain.shape[2] == 4 and plain.shape[:2] == upright.shape[:2]:
        return as_rgb(cv2.cvtColor(plain, cv2.COLOR_BGRA2RGBA), name)
    return as_rgb(cv2.cvtColor(upright, cv2.COLOR_BGR2RGB), name)


def as_rgb(array: Any, name: str = "the image") -> Image:
    """An array as 8-bit RGB: grey is repeated, 16 bits are scaled, transparent pixels are laid on mid-grey.

    Args:
        array: height×width, or height×width×channels with 1, 3 (RGB) or 4 (RGBA) of them; uint8 or uint16.
        name: What to call it in messages.

    Raises:
        ImageError: Another shape or type, or an empty image.
    """
    if not isinstance(array, np.ndarray) or array.dtype not in (np.uint8, np.uint16):
        came = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ImageError(f"{name}: expected an array of uint8 or uint16, came {came}; floats in 0..1: × 255 first")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ImageError(f"{name}: expected height×width×3 (RGB), or 1 or 4 channels, came shape {array.shape}")
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.shape[2] == 4:
        share = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * share + 128 * (255 - share)) // 255).astype(np.uint8)
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)
