"""Encoding, decoding and cropping of images: upright RGB pixels in memory, JPEG or PNG on disk."""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Int64, Shaped, UInt8

from mcss.errors import ImageError
from mcss.files import replacing

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""File name endings of the images that `read_image` decodes."""

WRITTEN_SUFFIXES = (".jpg", ".jpeg", ".png")
"""File name endings that `write_image` accepts."""

DISPLAY_QUALITY = 88
"""JPEG quality of images that are made to be looked at, not to be learned from."""

MOST_PIXELS = 150_000_000
"""Larger images are refused: they would take a gigabyte of memory and show a person no better."""

Image = UInt8[np.ndarray, "height width 3"]
"""Upright RGB pixels."""

AnySizeImage = UInt8[np.ndarray, "_ _ 3"]
"""Upright RGB pixels whose size may differ from that of the other images in a signature."""

GreyImage = UInt8[np.ndarray, "_ _"]


def read_image(path: Path) -> Image:
    """Read an image file as upright RGB.

    The EXIF orientation is applied, 16-bit images are scaled to 8 bits, and transparent pixels are blended with grey.

    Raises:
        ImageError: The file is missing, empty, damaged, not an image, or too large.
    """
    return decode_image(_file_bytes(path), str(path))


def decode_image(data: bytes, name: str) -> Image:
    """Decode the bytes of an image file as upright RGB, like `read_image`.

    Args:
        data: JPEG, PNG, WebP, BMP or TIFF.
        name: The image's name in error messages.

    Raises:
        ImageError: The data are empty, damaged, not an image, or the image is too large.
    """
    if not data:
        raise ImageError(f"{name}: the file is empty (0 bytes); copy it again")
    array = np.frombuffer(data, np.uint8)
    try:
        # IMREAD_UNCHANGED keeps transparency but ignores the EXIF orientation, which is applied below; images that may
        # have an alpha channel (not JPEG) are decoded in both ways.
        upright = cv2.imdecode(array, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        with_alpha = None
        if upright is not None and upright.size <= 3 * MOST_PIXELS and not data.startswith(b"\xff\xd8"):
            with_alpha = cv2.imdecode(array, cv2.IMREAD_UNCHANGED)
    except cv2.error as error:  # more pixels than OpenCV decodes
        raise ImageError(f"{name}: cannot be decoded ({error.err}); save it again at a smaller size") from error
    if upright is None:
        raise ImageError(f"{name}: {_other_kind(data)}")
    if upright.size > 3 * MOST_PIXELS:
        raise ImageError(
            f"{name}: expected at most {MOST_PIXELS // 10**6} million pixels, got "
            f"{upright.shape[1]}×{upright.shape[0]}; save it again at a smaller size"
        )
    if with_alpha is not None and with_alpha.ndim == 3 and with_alpha.shape[2] == 4:
        turned = _turned_upright(cv2.cvtColor(with_alpha, cv2.COLOR_BGRA2RGBA), _exif_orientation(data))
        if turned.shape[:2] == upright.shape[:2]:
            return as_rgb(turned, name)
    return as_rgb(cv2.cvtColor(upright, cv2.COLOR_BGR2RGB), name)


def _exif_orientation(data: bytes) -> int:
    """Return the EXIF orientation (1 to 8) of a PNG, WebP or TIFF; 1 if it states none."""
    for mark in (b"", b"eXIf", b"EXIF"):  # TIFF itself, the chunk of PNG, and that of WebP (after its length)
        at = data.find(mark) + len(mark)
        at += 4 if mark == b"EXIF" else 0
        head = data[at : at + 4] if mark in data else b""
        order: Literal["little", "big"] = "little" if head == b"II*\0" else "big"
        if head not in (b"II*\0", b"MM\0*"):
            continue
        table = at + int.from_bytes(data[at + 4 : at + 8], order)
        for entry in range(table + 2, table + 2 + 12 * int.from_bytes(data[table : table + 2], order), 12):
            if int.from_bytes(data[entry : entry + 2], order) == 0x0112:
                orientation = int.from_bytes(data[entry + 8 : entry + 10], order)
                return orientation if 1 <= orientation <= 8 else 1
    return 1


def _turned_upright(pixels: Shaped[np.ndarray, "_ _ 4"], orientation: int) -> Shaped[np.ndarray, "_ _ 4"]:
    """Turn stored pixels upright as an EXIF orientation says."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    mirrored_x, mirrored_y = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    return pixels[:: -1 if mirrored_y else 1, :: -1 if mirrored_x else 1]


def _other_kind(data: bytes) -> str:
    """Say what a file is that cannot be decoded as an image, as far as its first bytes tell."""
    if data[4:8] == b"ftyp" and data[8:12] in (b"heic", b"heix", b"mif1", b"heif", b"avif"):
        return "an image in HEIC or AVIF, which cannot be read; save it as JPEG"
    video = data[4:8] == b"ftyp" or data.startswith(b"\x1aE\xdf\xa3") or (data[:4], data[8:12]) == (b"RIFF", b"AVI ")
    if video:
        return "this is a video, and an image is expected; `mcss predict VIDEO` and `mcss.predict_video` take videos"
    return "not a readable image, or a damaged one; expected JPEG, PNG, WebP, BMP or TIFF"


def as_rgb(array: Any, name: str = "the image") -> Image:
    """Convert an array to 8-bit RGB.

    Grey is repeated in all channels, 16 bits are scaled to 8 (12, as industrial cameras write them, where no pixel has
    more), and transparent pixels are blended with mid-grey.

    Args:
        array: height×width, or height×width×channels with 1, 3 (RGB) or 4 (RGBA) channels; uint8 or uint16.
        name: The image's name in error messages.

    Raises:
        ImageError: The array has another shape or type, or is empty.
    """
    if not isinstance(array, np.ndarray) or array.dtype not in (np.uint8, np.uint16):
        got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ImageError(f"{name}: expected an array of uint8 or uint16, got {got}; multiply floats in 0..1 by 255")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ImageError(f"{name}: expected height×width×3 (RGB), or 1 or 4 channels, got shape {array.shape}")
    if array.dtype == np.uint16:
        array = (array >> (4 if array.max() < 1 << 12 else 8)).astype(np.uint8)
    if array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * alpha + 128 * (255 - alpha)) // 255).astype(np.uint8)
    if array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)


def read_grey_image(path: Path) -> GreyImage:
    """Read an image file as brightness alone.

    Raises:
        ImageError: The file is missing, or not an image.
    """
    data = _file_bytes(path)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    if pixels is None:
        raise ImageError(f"{path}: not a readable image, or a damaged one; copy it again")
    return np.asarray(pixels, np.uint8)


def write_image(path: Path, image: Image) -> None:
    """Write RGB pixels as a .jpg or .png file, completely or not at all.

    Raises:
        ValueError: The name ends in something else.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise ValueError(f"out: {path} should end in .jpg or .png; choose one of them.")
    with replacing(path) as temporary:
        temporary.write_bytes(encode_png(image) if suffix == ".png" else encode_jpeg(image))


def encode_jpeg(image: AnySizeImage | GreyImage, quality: int = DISPLAY_QUALITY, colour_in_full: bool = False) -> bytes:
    """Encode RGB or grey pixels as JPEG.

    Args:
        image: RGB or grey pixels.
        quality: 1 to 100.
        colour_in_full: Keep colour at full resolution (4:4:4) instead of half.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if colour_in_full:
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encoded(".jpg", image, options)


def encode_png(image: AnySizeImage) -> bytes:
    """Encode RGB pixels as PNG, without loss."""
    return _encoded(".png", image, [])


def _encoded(suffix: str, image: AnySizeImage | GreyImage, options: list[int]) -> bytes:
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    encoded, data = cv2.imencode(suffix, pixels, options)
    assert encoded
    return data.tobytes()


def decode_jpeg(data: bytes) -> Image:
    """Decode a JPEG as RGB.

    Raises:
        ImageError: The data are not a JPEG, or a broken one.
    """
    if jpeg_size(data) is None:
        raise ImageError(f"{len(data)} bytes that are not a complete JPEG")
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ImageError(f"a JPEG of {len(data)} bytes that cannot be decoded")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def decode_grey_jpeg(data: bytes | memoryview) -> GreyImage:
    """Decode a grey JPEG of our own making."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels is not None
    return np.asarray(pixels, np.uint8)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that a complete JPEG states; None if it is not a JPEG or was cut off."""
    if data[:2] != b"\xff\xd8" or b"\xff\xd9" not in data[-32:]:
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame, of any coding
            height, width = data[at + 5 : at + 7], data[at + 7 : at + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def cut_out(image: Image, crop_box: Int64[np.ndarray, " 4"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Cut a square out of an image and scale it to `size` pixels; outside the image its border is repeated.

    Args:
        image: RGB pixels.
        crop_box: x0, y0, x1, y1 in pixels.
        size: Side of the crop in pixels.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (int(v) for v in crop_box)
    inside = image[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
    outside = (max(-y0, 0), max(y1 - height, 0), max(-x0, 0), max(x1 - width, 0))
    if any(outside):
        inside = np.asarray(cv2.copyMakeBorder(inside, *outside, borderType=cv2.BORDER_REPLICATE), np.uint8)
    interpolation = cv2.INTER_AREA if x1 - x0 > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(inside, (size, size), interpolation=interpolation), np.uint8)


def scaled_down(image: Image, long_side: int) -> AnySizeImage:
    """Scale an image down until its longer side has at most `long_side` pixels."""
    scale = long_side / max(image.shape[:2])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror}); expected an image") from error
