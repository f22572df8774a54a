"""The numbers in the names of a view's images: by them images are in order, and what tools found in them is matched."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PureWindowsPath

import numpy as np

SLOWEST, FASTEST = 0.05, 500.0
"""Images per second between which the numbers in names may be times of a clock."""

_DATE = re.compile(
    r"(?<!\d)(20\d\d)([-_.]?)([01]\d)\2([0-3]\d)[-_T .]*([0-2]\d)([-_.:h]?)([0-5]\d)[-_.:m]?([0-5]\d)"
    r"(?:([-_.,s]?)(\d{1,9}))?(?!\d)"
)
"""20240101_120000_310000, 2024-01-01_12-00-00-310, 20240101120000310: a date, a time of day, a fraction of a second."""

_SECONDS = re.compile(r"(?<!\d)(1\d{9})([-_.])(\d{1,9})(?!\d)")
"""1700000000.310000: seconds since 1970 and their fraction."""

_HASH_OF_ROBOFLOW = re.compile(r"\.rf\.\w+$")
"""Roboflow names a copy of an image left_000003.jpg left_000003_jpg.rf.0a1b2c….jpg, with a hash of its content."""


def numbers_in_names(names: Sequence[str]) -> dict[str, int]:
    """Return the number of each image by its name; names without digits are left out.

    It is the last number in the name that differs from image to image, so that ``000003_cam2.jpg`` has the number 3.
    Names that hold the time of each image have the nanoseconds since 1970 for a number. The result is empty if no
    number tells all images apart.

    Args:
        names: Different file names, with or without folders before them.
    """
    stem_of = {name: _stem(name) for name in names}
    times = _times_in(list(stem_of.values()))
    if times is not None:
        return dict(zip(stem_of, times, strict=True))
    digits = {name: groups for name, stem in stem_of.items() if (groups := re.findall(r"\d+", stem))}
    for position in range(1, 1 + min(map(len, digits.values()), default=0)):
        numbers = [int(groups[-position]) for groups in digits.values()]
        if len(set(numbers)) == len(numbers):
            return dict(zip(digits, numbers, strict=True))
    return {}


def numbers_of_images(names: Sequence[str], others: Sequence[str] = ()) -> list[int]:
    """Return the number of the image of each name; names may come several times.

    Args:
        names: File names of images, or numbers.
        others: Names of further images of the view, which tell what differs from image to image.

    Raises:
        ValueError: A name has no number, or two images have the same one.
    """
    without = next((name for name in names if not re.search(r"\d", _stem(name))), None)
    if without is not None:
        raise ValueError(f"there is no number of an image in {without!r}")
    own = list(dict.fromkeys(names))
    found = numbers_in_names(list(dict.fromkeys((*own, *others)))) or numbers_in_names(own)
    if names and not found:
        raise ValueError(
            f"no number in the names tells all images apart ({names[0]!r} is the first); give each view a file of its "
            "own, and its images different numbers"
        )
    return [found[name] for name in names]


def _stem(name: str) -> str:
    return _HASH_OF_ROBOFLOW.sub("", PureWindowsPath(name).stem)


def _times_in(stems: Sequence[str]) -> list[int] | None:
    """Return the nanoseconds since 1970 that the names state; None if they do not, or if they cannot be true.

    A number behind a time of day may also count the images.
    """
    if not stems:
        return None
    for read in (_date_in, _seconds_in):
        found = [stated for stem in stems if (stated := read(stem)) is not None]
        if len(found) < len(stems):
            continue
        width = max(len(stated.fraction) for stated in found)
        if width in (1, 2) and not all(stated.point for stated in found):  # counts the images within a second
            continue
        # Without a decimal point, the fraction may be a number of milli-, micro- or nanoseconds without its zeros.
        times = [
            stated.seconds * 10**9
            + int(stated.fraction.ljust(9, "0") if stated.point else f"{stated.fraction:0>{width}}".ljust(9, "0"))
            for stated in found
        ]
        if len(set(times)) == len(times) and SLOWEST <= 1e9 / max(step_of(times), 1) <= FASTEST:
            return times
    return None


@dataclass(frozen=True)
class _Stated:
    """A time in a name."""

    seconds: int
    """Since 1970."""
    fraction: str
    """Digits of the fraction of a second; none if it is not stated."""
    point: bool
    """Whether a decimal point stands before it."""


def _date_in(stem: str) -> _Stated | None:
    match = _DATE.search(stem)
    if match is None:
        return None
    year, _, month, day, hour, _, minute, second, mark, fraction = match.groups()
    try:
        when = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    return _Stated(int(when.timestamp()), fraction or "", mark in (".", ","))


def _seconds_in(stem: str) -> _Stated | None:
    match = _SECONDS.search(stem)
    return None if match is None else _Stated(int(match[1]), match[3], match[2] == ".")


def step_of(numbers: Sequence[int]) -> float:
    """Return the median difference of numbers in order; 0 for fewer than two."""
    return float(np.median(np.diff(sorted(numbers)))) if len(numbers) > 1 else 0.0
