"""A view as a folder of numbered images (``view/000001.jpg`` …) instead of a video."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

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


def numbers_of_sequence(folder: Path) -> list[int]:
    """Return the number in the name of each image of a folder, in order."""
    return list(_numbered(folder).values())


def times_of_sequence(folder: Path, rate: float) -> Float64[np.ndarray, " images"]:
    """Return the seconds of each image after the first one: a number that is missing is an image that was lost.

    Numbers of 13, 16 or 19 digits are the milli-, micro- or nanoseconds at which industrial cameras took their images.
    """
    numbers = numbers_of_sequence(folder)
    ticks = next((each for digits, each in _CLOCKS.items() if all(len(str(n)) == digits for n in numbers)), rate)
    return np.array([(number - numbers[0]) / ticks for number in numbers], np.float64)


_CLOCKS = {13: 1e3, 16: 1e6, 19: 1e9}
"""Ticks a second of clocks that count from 1970, by the digits of what they show."""


def _numbered(folder: Path) -> dict[Path, int]:
    """Return the images of a folder in order, each with its number; none if two share a number.

    The number is the last one in the name that differs from image to image.
    """
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[:1] != "."]
    digits = {path: [int(group) for group in re.findall(r"\d+", path.stem)] for path in images}
    digits = {path: numbers for path, numbers in digits.items() if numbers}
    for position in range(1, 1 + min(map(len, digits.values()), default=0)):
        number_of = {path: numbers[-position] for path, numbers in digits.items()}
        if len(set(number_of.values())) == len(number_of):
            return {path: number_of[path] for path in sorted(number_of, key=lambda path: number_of[path])}
    return {}
