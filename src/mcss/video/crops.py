"""Crops of people in videos whose bounding boxes are known, and the settings that all crops share."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from mcss.errors import SourceError
from mcss.images import AnySizeImage, Image, cut_out, decode_jpeg, encode_jpeg
from mcss.video.boxes import interpolated_boxes, steady_crop_boxes
from mcss.video.reading.decoding import images_at


@dataclass(frozen=True)
class CropSettings:
    """Which frames are taken, and how people are cropped from them."""

    size: int = 256
    """Width and height of the crops in pixels."""
    margin: float = 1.15
    """Side of the crop box divided by the longer side of the person's bounding box."""
    quality: int = 90
    """JPEG quality of the crops, 1 to 100."""
    every: int = 1
    """Take every n-th frame."""
    max_missing: int = 5
    """Number of images that may be missing at the end of a video; more is an error."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.size < 16 or not 1 <= self.quality <= 100 or not 1 <= self.margin <= 4:
            raise ValueError(
                "expected every ≥ 1, size ≥ 16, quality 1–100 and margin 1–4, got "
                f"every {self.every}, size {self.size}, quality {self.quality}, margin {self.margin}"
            )
        if self.max_missing < 0:
            raise ValueError(f"expected max_missing ≥ 0, got {self.max_missing}")


@dataclass(frozen=True, eq=False)
class Crop:
    """A square cut out of an image."""

    pixels: AnySizeImage
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the source image."""

    def encoded(self, quality: int) -> bytes:
        """Return the crop as JPEG."""
        return encode_jpeg(self.pixels, quality)


@dataclass(frozen=True, eq=False)
class EncodedCrop:
    """A crop that was kept as JPEG."""

    data: bytes
    quality: int
    """That of the JPEG, 1 to 100."""
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the source image."""

    @property
    def pixels(self) -> AnySizeImage:
        """The decoded crop."""
        return decode_jpeg(self.data)

    def encoded(self, quality: int) -> bytes:
        """Return the crop as JPEG; only another quality than its own needs encoding."""
        return self.data if quality == self.quality else encode_jpeg(self.pixels, quality)


def joint_boxes(pixels: Float64[np.ndarray, "t joints 2"], scale: float = 1.0) -> Float64[np.ndarray, "t 4"]:
    """Return x0, y0, x1, y1 around all joints of each frame, scaled about the centre; NaN where a joint is unknown."""
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    border = (scale - 1) / 2 * (high - low)
    return np.concatenate([low - border, high + border], axis=1)


def without_gaps(path: Path, boxes: Float64[np.ndarray, "t 4"]) -> Float64[np.ndarray, "t 4"]:
    """Interpolate the boxes that are unknown (NaN) in time.

    Raises:
        SourceError: No box is known; names `path`.
    """
    if not np.isfinite(boxes).all(axis=1).any():
        raise SourceError(f"{path}: the person's position is not known in any frame; unpack this sequence again")
    return interpolated_boxes(boxes)


def crops_at(
    path: Path,
    boxes: Float64[np.ndarray, "n 4"],
    image_numbers: Int64[np.ndarray, " n"],
    rate: float,
    settings: CropSettings,
    look: Callable[[int, Image], bool] = lambda number, image: True,
) -> Iterator[Crop | None]:
    """Crop the person from some images of a video, as long as there are boxes and images.

    Args:
        path: A video.
        boxes: The person's bounding box in each of these images, without gaps.
        image_numbers: The images, from 0 and in order; a number may occur several times.
        rate: Boxes per second.
        settings: Size and margin of the crops.
        look: Called with the position and the whole image before it is cropped; the crop of an image for which it
            returns False is None.

    Raises:
        SourceError: The video is missing, empty, or cannot be opened.
    """
    if not path.is_file() or path.stat().st_size == 0:
        what = "the file is empty (0 bytes)" if path.is_file() else "no such file"
        raise SourceError(f"{path}: {what}; unpack this sequence again, or leave the camera out (--cameras)")
    crop_boxes: Int64[np.ndarray, "n 4"] | None = None
    for index, image in enumerate(images_at(path, image_numbers)):
        if crop_boxes is None:
            crop_boxes = steady_crop_boxes(boxes, rate, settings.margin, image.shape[1], image.shape[0])
        yield crop_of(path, image, crop_boxes[index], settings.size) if look(index, image) else None


def crop_of(path: Path, image: Image, crop_box: Int64[np.ndarray, " 4"], size: int) -> Crop:
    """Cut a square out of an image and scale it to `size` pixels.

    Raises:
        SourceError: The square lies outside the image; names `path`.
    """
    x0, y0, x1, y1 = crop_box.tolist()
    height, width = image.shape[:2]
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise SourceError(
            f"{path}: the person's crop box {x0},{y0},{x1},{y1} lies outside the {width}×{height} pixels of the image; "
            "use images, boxes and cameras of the same sequence and release, neither scaled nor cropped"
        )
    return Crop(cut_out(image, crop_box, size), (float(x0), float(y0), float(x1), float(y1)))
