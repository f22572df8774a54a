"""A view as a folder of numbered images (``view/000001.jpg`` …) instead of a video."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.data.instants import natural_order
from mcss.errors import ImageError, SourceError
from mcss.images import IMAGE_SUFFIXES, Image, read_image

FEWEST = 8
"""A folder with fewer numbered images is not taken for a view."""

RATE = 25.0
"""Images per second, if nothing else is stated."""


def is_image_sequence(folder: Path) -> bool:
    """Whether a path is a folder of numbered images and of no other folders or videos."""
    return folder.is_dir() and len(_numbered(folder)) >= FEWEST


def images_of_sequence(folder: Path) -> Iterator[Image]:
    """Yield the images of a folder in order, upright.

    Raises:
        SourceError: One cannot be read.
    """
    for path in _numbered(folder):
        try:
            yield read_image(path)
        except ImageError as error:
            raise SourceError(str(error)) from error


def times_of_sequence(folder: Path, rate: float) -> Float64[np.ndarray, " images"]:
    """Return the seconds of each image after the first one: a number that is missing is an image that was lost."""
    numbers = np.array(list(_numbered(folder).values()), np.float64)
    return np.asarray((numbers - numbers[0]) / rate, np.float64)


def _numbered(folder: Path) -> dict[Path, int]:
    """Return the images of a folder in order with the last number in their names; none if two share a number."""
    numbers: dict[Path, int] = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural_order(p.name)):
        digits = re.findall(r"\d+", path.stem)
        if path.suffix.lower() in IMAGE_SUFFIXES and digits and not path.name.startswith("."):
            numbers[path] = int(digits[-1])
    in_order = sorted(numbers, key=lambda path: numbers[path])
    return {path: numbers[path] for path in in_order} if len(set(numbers.values())) == len(numbers) else {}
