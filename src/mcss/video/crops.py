"""Square crops of a video around given boxes, for importers of sets that come with annotations."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from mcss.errors import SourceError
from mcss.video.decoding import Image, images_at
from mcss.video.people import crop_squares, cut_out, filled

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in source pixels."""


def check_crop_settings(every: int, size: int, quality: int, margin: float) -> None:
    """Refuse settings of crops that make no sense.

    Raises:
        ValueError: Names all four and what is expected of them.
    """
    if every < 1 or size < 16 or not 1 <= quality <= 100 or not 1 <= margin <= 4:
        raise ValueError(
            "expected every ≥ 1, size ≥ 16, quality 1–100 and margin 1–4, came "
            f"every {every}, size {size}, quality {quality}, margin {margin}"
        )


def joint_boxes(path: Path, pixels: Float64[np.ndarray, "t joints 2"]) -> Float64[np.ndarray, "t 4"]:
    """x0, y0, x1, y1 around all joints of each frame; gaps are filled.

    Raises:
        SourceError: Not one frame has finite joints; names `path`.
    """
    boxes = np.concatenate([pixels.min(axis=1), pixels.max(axis=1)], axis=1)
    if not np.isfinite(boxes).all(axis=1).any():
        raise SourceError(f"{path}: not one frame has finite 2D joints; unpack this sequence again")
    return filled(boxes)


def crops(
    path: Path, boxes: Float64[np.ndarray, "n 4"], rate: float, margin: float, size: int, every: int
) -> Iterator[tuple[Image, Box]]:
    """The crop of every `every`-th image of a video, from the first; see `crops_at`."""
    return crops_at(path, boxes, np.arange(len(boxes)) * every, rate, margin, size)


def crops_at(
    path: Path,
    boxes: Float64[np.ndarray, "n 4"],
    numbers: Int64[np.ndarray, " n"],
    rate: float,
    margin: float,
    size: int,
) -> Iterator[tuple[Image, Box]]:
    """The crops of some images and where they are, as long as there are boxes and images.

    Args:
        path: A video.
        boxes: One for each image that is taken, without gaps.
        numbers: Of the images that are taken, from 0 and in order; one may come several times.
        rate: Boxes a second.
        margin: Side of the crop over the longer side of the box.
        size: Of the crops, pixels.

    Raises:
        SourceError: The video is missing, empty, or cannot be opened.
    """
    if not path.is_file() or path.stat().st_size == 0:
        what = "the file is empty (0 bytes)" if path.is_file() else "no such file"
        raise SourceError(f"{path}: {what}; unpack this sequence again, or leave the camera out (cameras)")
    squares: Int64[np.ndarray, "n 4"] | None = None
    for index, image in enumerate(images_at(path, numbers)):
        if squares is None:
            squares = crop_squares(boxes, rate, margin, image.shape[1], image.shape[0])
        yield cut_out(image, squares[index], size), corners(squares[index])


def corners(square: Int64[np.ndarray, " 4"]) -> Box:
    """A square as a capture's box."""
    x0, y0, x1, y1 = map(float, square)
    return x0, y0, x1, y1
