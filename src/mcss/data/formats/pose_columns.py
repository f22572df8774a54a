"""What the columns of a table of poses mean: a clock, or a coordinate of a named point, as programs spell them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Axis = Literal["x", "y", "z"]

_TIMES = frozenset({"time", "times", "timestamp", "timestamps", "t", "seconds", "sec", "elapsedtime"})
_FRAMES = frozenset(
    {"frame", "frames", "framenumber", "framenum", "frameno", "frameid", "frameindex", "frameidx", "fnum"}
    | {"imagenumber", "unnamed"}
)
_SECONDS = {"ms": 1e-3, "msec": 1e-3, "milliseconds": 1e-3, "us": 1e-6, "µs": 1e-6, "microseconds": 1e-6, "ns": 1e-9}
_POINT_NAMES = frozenset(
    {"joint", "keypoint", "marker", "bodypart", "landmark", "point", "name", "label"}
    | {"jointname", "keypointname", "markername", "landmarkname", "pointname"}
)
_PEOPLE = re.compile(
    r"(person|people|subject|individual|individuals|actor|performer|player|track|body|skeleton)(id|idx|index|name|no)?"
)


@dataclass(frozen=True)
class ClockColumn:
    """A column that says when each line was recorded."""

    kind: Literal["time", "frame"]
    """Seconds, or the number of an image."""
    scale: float = 1.0
    """What a 1 in it stands for: seconds, or images."""


@dataclass(frozen=True)
class CoordinateColumn:
    """A column with one coordinate of a point."""

    name: str
    axis: str
    """``x``, ``y`` or ``z``."""
    unit: str | None
    """What stands in brackets behind it, such as ``mm``."""

    @property
    def plain(self) -> str:
        """``NAME.x``."""
        return f"{self.name}.{self.axis}"


def clock_column(cell: str) -> ClockColumn | None:
    """Return what a column counts, such as ``Time (ms)``, ``timestamp``, ``Frame Number`` or ``fnum``; else None."""
    words = re.findall(r"[a-zµ]+", cell.lower())
    scale = 1.0
    if len(words) > 1 and words[-1] in ("s", "sec", "seconds", *_SECONDS):
        scale = _SECONDS.get(words.pop(), 1.0)
    word = "".join(words)
    if word in _TIMES:
        return ClockColumn("time", scale)
    return ClockColumn("frame") if word in _FRAMES else None


def coordinate_columns(header: Sequence[str]) -> list[CoordinateColumn | None]:
    """Return for each column the coordinate that it holds: ``NAME.x``, ``NAME_X``, ``NAME X (mm)`` or ``X_NAME``."""
    found = [_coordinate(cell, r"(?P<name>.*\S)\s*[._ :\-]\s*(?P<axis>[xyz])") for cell in header]
    if not any(found):
        found = [_coordinate(cell, r"(?P<axis>[xyz])\s*[._ :\-]\s*(?P<name>\S.*)") for cell in header]
    return found


def _coordinate(cell: str, spelling: str) -> CoordinateColumn | None:
    bracketed = re.fullmatch(r"(.*?)[\s_]*[(\[]([^()\[\]]*)[)\]]", cell.strip())
    plain, unit = (bracketed[1], bracketed[2].strip().lower()) if bracketed else (cell.strip(), None)
    match = re.fullmatch(spelling, plain, re.IGNORECASE)
    return None if match is None else CoordinateColumn(match["name"], match["axis"].lower(), unit)


def is_axis(cell: str, axis: Axis) -> bool:
    """Whether a column holds a coordinate of the point that its line names: ``x``, or ``X (mm)``."""
    return re.sub(r"[\s_]*[(\[].*[)\]]$", "", cell.strip().lower()) == axis


def names_people(cell: str) -> bool:
    """Whether a column says whose point its line holds, such as ``person_id``."""
    return _PEOPLE.fullmatch(re.sub(r"[^a-z]", "", cell.lower())) is not None


def names_points(cell: str) -> bool:
    """Whether a column of a table with a line per point holds the point's name."""
    return re.sub(r"[^a-z]", "", cell.lower()) in _POINT_NAMES
