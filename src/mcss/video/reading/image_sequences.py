"""A view as a folder of numbered images (``view/000001.jpg`` …) instead of a video."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.data.image_names import FASTEST, numbers_in_names, step_of
from mcss.errors import ImageError, SourceError
from mcss.images import IMAGE_SUFFIXES, Image, read_image

FEWEST = 8
"""A folder with fewer numbered images is not taken for a view."""

RATE = 25.0
"""Images per second, if nothing else is stated."""

_CLOCKS = {13: 1e3, 16: 1e6, 19: 1e9}
"""Ticks a second of clocks that count from 1970, by the digits of what they show."""

_OTHER_CLOCKS = (1e6, 1e9, 1e3, 1e7)
"""Ticks a second of clocks that count from when a machine was started, the usual ones first; 1e7 is Windows's."""

_NO_COUNTER = 1000
"""Numbers that differ by this much from image to image are those of a clock."""


@dataclass(frozen=True)
class Numbering:
    """The numbers in the names of a folder's images, in order."""

    paths: tuple[Path, ...]
    numbers: tuple[int, ...]
    ticks: float | None
    """How much the numbers rise in a second if they are a clock's; None if they count images."""


def is_image_sequence(folder: Path) -> bool:
    """Whether a path is a folder of numbered images."""
    return folder.is_dir() and (found := numbering_of(folder)) is not None and len(found.paths) >= FEWEST


def images_of_sequence(folder: Path) -> Iterator[Image]:
    """Yield the images of a folder in order, upright.

    Raises:
        SourceError: One cannot be read.
    """
    numbering = numbering_of(folder)
    for path in () if numbering is None else numbering.paths:
        try:
            yield read_image(path)
        except ImageError as error:
            raise SourceError(str(error)) from error


def numbers_of_sequence(folder: Path) -> list[int]:
    """Return the number in the name of each image of a folder, in order."""
    numbering = numbering_of(folder)
    return [] if numbering is None else list(numbering.numbers)


def times_of_sequence(folder: Path, rate: float) -> tuple[float, Float64[np.ndarray, " images"]]:
    """Return the time of a folder's first image on the clock of its numbers, and the seconds of each after that.

    A number that is missing is an image that was lost. Numbers may be times: a date with a time of day, seconds since
    1970, or ticks of a clock.

    Args:
        folder: The folder.
        rate: Images per second of numbers that count images.
    """
    numbering = numbering_of(folder)
    assert numbering is not None
    ticks, first = numbering.ticks or rate, numbering.numbers[0]
    return first / ticks, np.array([(number - first) / ticks for number in numbering.numbers], np.float64)


def is_timed_by_names(folder: Path) -> bool:
    """Whether the numbers of a folder's images are times, and not a count."""
    numbering = numbering_of(folder)
    return numbering is not None and numbering.ticks is not None


def not_numbered(folder: Path) -> str | None:
    """Say why a folder of images is not a view; None if it is one, or no folder of images."""
    images = _images(folder) if folder.is_dir() else []
    if len(images) < FEWEST or numbering_of(folder) is not None:
        return None
    seen: dict[tuple[int, ...], Path] = {}
    for path in images:
        digits = _groups(path)
        if digits in seen:
            pair = f"{seen[digits].name} and {path.name} have the same number"
            return f"{folder}: {pair}; leave one image of each instant, and give each view a folder of its own"
        seen[digits] = path
    return f"{folder}: expected images that are numbered in order, got names such as {images[0].name}"


def numbering_of(folder: Path) -> Numbering | None:
    """Return the images of a folder in order, each with its number (`numbers_in_names`); None if two share a number."""
    images = _images(folder)
    found = numbers_in_names([path.name for path in images])
    if not found:
        return None
    images = [path for path in images if path.name in found]
    numbers = _unrolled([found[path.name] for path in images])
    return _ordered(images, numbers, _ticks(numbers))


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[:1] != ".")


def _groups(path: Path) -> tuple[int, ...]:
    return tuple(int(group) for group in re.findall(r"\d+", path.stem))


def _ordered(paths: Sequence[Path], numbers: Sequence[int], ticks: float | None) -> Numbering:
    pairs = sorted(zip(numbers, paths, strict=True))
    return Numbering(tuple(path for _, path in pairs), tuple(number for number, _ in pairs), ticks)


def _unrolled(numbers: list[int]) -> list[int]:
    """Count on where a camera has begun anew at 0 or 1 after its largest number, such as 9999."""
    least, most = min(numbers), max(numbers)
    present = np.unique(numbers)
    gaps = np.diff(present)
    turns = least <= 1 and str(most) == "9" * len(str(most)) and len(gaps) > 0 and gaps.max() > (most - least) / 2
    if not turns:
        return numbers
    last = int(present[gaps.argmax()])
    return [number + most + 1 - least if number <= last else number for number in numbers]


def _ticks(numbers: Sequence[int]) -> float | None:
    """Return how many units of the numbers a second has, if they are those of a clock."""
    for digits, ticks in _CLOCKS.items():
        if all(len(str(number)) == digits for number in numbers):
            return ticks
    step = step_of(numbers)
    if step < _NO_COUNTER:
        return None
    return next((ticks for ticks in _OTHER_CLOCKS if 5 <= ticks / step <= FASTEST), None)
