"""Named points through time, as a file of 3D labels holds them: in its own unit, axes and names."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64

from mcss.errors import SourceError

Clock = Literal["own", "video", "images"]
"""What times count: seconds from the first sample, which belongs to the first image of the videos (``own``); seconds
from that image (``video``); or numbers of images, from 0 (``images``)."""

ROOT_NAMES = frozenset({"hip", "hips", "pelvis", "root", "midhip", "mid_hip"})
"""Names of points to which poses may be relative, in lower case."""


_UNLABELLED = re.compile(r"\*.*|un(labell?ed|named|known|identified)[\s_\-]*\d*", re.IGNORECASE)
"""What programs call points that belong to no marker of the model."""

_IN_THE_WORLD = re.compile(r"world[\s_.\-]+(?P<before>.+)|(?P<after>.+?)[\s_.\-]+world", re.IGNORECASE)
"""How tables of MediaPipe name a point in metres: ``nose_world``, beside ``nose`` as shares of the image."""

_WHOLE_BODY = 12
"""Points of this many joints, those of arms and legs, are a pose."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """The points of one label file. They are not poses yet: see `mcss.sources.videos.pose_labels`."""

    path: Path
    names: tuple[str, ...]
    points: Float64[np.ndarray, "samples names 3"]
    """In the file's own unit and axes; NaN where a point is missing."""
    times: Float64[np.ndarray, " samples"] | None
    """Time of each sample by the file's `clock`; None if the file does not state its rate."""
    unit: str | None = None
    """The unit that the file states, such as ``mm`` or ``m``; None if it states none."""
    up: str | None = None
    """The up axis that the file states, such as ``+y``, or ``±y`` if only the axis; None if it states none."""
    clock: Clock = "own"
    notes: tuple[str, ...] = ()
    """What is unusual about the file."""

    def __len__(self) -> int:
        return len(self.points)


def trajectories(
    path: Path,
    names: Sequence[str],
    points: Float64[np.ndarray, "samples names 3"],
    times: Float64[np.ndarray, " samples"] | None,
    unit: str | None = None,
    up: str | None = None,
    clock: Clock = "own",
    notes: Sequence[str] = (),
    zero_is_missing: bool = True,
) -> Trajectories:
    """Check the contents of a file; points at exactly (0, 0, 0) become missing, as many programs write them so.

    Points that nobody named (``*1``, ``Unlabeled``) are left out if they share a name, and so are landmarks of an image
    (``nose``) beside those in the world (``nose_world``).

    A pelvis that lies there in every sample, within the body, is the root of poses that are relative to it.

    Args:
        path: The file, for messages.
        names: Names of the points.
        points: Their places; NaN where one is missing.
        times: Time of each sample.
        unit: The unit that the file states.
        up: The up axis that the file states.
        clock: What the times count.
        notes: What is unusual about the file.
        zero_is_missing: Whether a point at (0, 0, 0) may be one that was lost.

    Raises:
        SourceError: There are no samples, a name comes twice, times go backwards, or no point is finite.
    """
    if not len(points) or not names:
        raise SourceError(f"{path}: expected 3D points, got {len(points)} samples of {len(names)} points")
    unnamed = [names.count(name) > 1 and _UNLABELLED.fullmatch(name.rpartition(":")[2]) is not None for name in names]
    if any(unnamed):
        names = [name for name, left_out in zip(names, unnamed, strict=True) if not left_out]
        points = points[:, ~np.array(unnamed)]
    names, points, world_note = _in_the_world(names, points)
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise SourceError(f"{path}: the point {repeated!r} comes twice; expected each name once: rename one of them")
    if times is not None and not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        late = int(np.argmin(np.isfinite(times[1:]) & (np.diff(times) > 0)))
        raise SourceError(
            f"{path}: expected times that grow from sample to sample, got {times[late]:g} and then "
            f"{times[late + 1]:g} (samples {late} and {late + 1}, counted from 0); sort or correct them"
        )
    missing = ~np.isfinite(points).all(axis=-1)
    if zero_is_missing:
        zero = (points == 0).all(axis=-1)
        zero[:, [k for k, name in enumerate(names) if _is_root(name, k, zero, points)]] = False
        missing |= zero
    if missing.all():
        raise SourceError(f"{path}: not one point of its {len(points)} samples is known (NaN or 0 everywhere)")
    known = np.where(missing[..., None], np.nan, points)
    return Trajectories(path, tuple(names), known, times, unit, up, clock, (*notes, *world_note))


def late_start(frame: float, seconds: float) -> list[str]:
    """Return a note if the first sample is not the first one of the take, which programs number 0 or 1.

    Args:
        frame: Number of the first sample.
        seconds: Time of the first sample in the take.
    """
    if not frame > 1:
        return []
    return [
        f"its first sample is frame {frame:.0f}, at {seconds:.4g} s of the take, and is taken as the first image; if "
        f"the videos begin with the take, give --poses.offset {seconds:.4g}"
    ]


def _in_the_world(
    names: Sequence[str], points: Float64[np.ndarray, "samples names 3"]
) -> tuple[Sequence[str], Float64[np.ndarray, "samples names_in_the_world 3"], list[str]]:
    """Return the points in the world alone, by their own names, and a note; all points if no body is among them."""
    matches = [_IN_THE_WORLD.fullmatch(name) for name in names]
    own_names = [match["before"] or match["after"] for match in matches if match]
    if len(own_names) < _WHOLE_BODY:
        return names, points, []
    left_out = len(names) - len(own_names)
    note = f"of its points, those in the world ({own_names[0]} …) are used, and {left_out} others left out"
    return own_names, points[:, [match is not None for match in matches]], [note] if left_out else []


def _is_root(
    name: str,
    index: int,
    zero: Bool[np.ndarray, "samples names"],
    points: Float64[np.ndarray, "samples names 3"],
) -> bool:
    """Whether a point is the root of poses relative to it: always at the origin, which lies within the body."""
    if name.rpartition(":")[2].strip().lower() not in ROOT_NAMES or not zero[:, index].all():
        return False
    others = np.where((zero | ~np.isfinite(points).all(axis=-1))[..., None], np.nan, points)
    complete = others[np.isfinite(others).all(axis=-1).sum(axis=1) >= 4]
    if not len(complete):
        return False
    inside = (np.nanmin(complete, axis=1) < 0) & (np.nanmax(complete, axis=1) > 0)
    return bool((inside.sum(axis=1) >= 2).mean() > 0.9)


def read_text(path: Path, lenient: bool = False) -> str:
    """Read a text file in UTF-8, or in UTF-16 if it begins with a byte-order mark.

    Args:
        path: The file.
        lenient: Replace other bytes, for files in which only names of no importance may hold some.

    Raises:
        SourceError: The bytes are not UTF-8.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if data[1:40:2] and not any(data[1:40:2]):  # UTF-16 without the mark, as some programs on Windows write it
        encoding = "utf-16-le"
    try:
        text = data.decode(encoding, errors="replace" if lenient else "strict")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: expected text in UTF-8, got other bytes ({error}); save it as UTF-8") from error
    # A program that writes the ends of lines itself, into a file that Windows adds them to, ends lines with CR CR LF.
    return text.replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def to_number(cell: str, path: Path, line: int, decimal_comma: bool = False) -> float:
    """Convert a cell to a number; NaN if it is empty, or one of the words for nothing (``N/A``, ``-nan(ind)``).

    Of a comma and a point in one number the last is the decimal one. A comma alone is a decimal one where
    `decimal_comma` says so, and where it is the only one (in quotes, as it separates the cells).

    Raises:
        SourceError: The cell holds something else.
    """
    try:
        return float(cell)
    except ValueError:
        text = cell.strip()
    if text.lower() in _NOTHING:
        return math.nan
    comma, point = text.rfind(","), text.rfind(".")
    if comma > point and (decimal_comma or text.count(",") == 1):
        text = text.replace(".", "").replace(",", ".")
    elif 0 <= comma < point:
        text = text.replace(",", "")
    try:
        return float(text)
    except ValueError:
        raise SourceError(f"{path} line {line}: expected a number, got {cell[:40]!r}; correct the line") from None


_NOTHING = frozenset(
    {"", "-", "--", "na", "n/a", "#n/a", "null", "none", "missing", "nan(ind)", "-nan(ind)", "nan(snan)"}
    | {"1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind", "1.#qnan0", "-1.#ind00", "1.#inf", "-1.#inf"}
)
"""What programs write for a number that is not known, in lower case."""
