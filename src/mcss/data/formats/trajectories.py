"""Named points through time, as a file of 3D labels holds them: in its own unit, axes and names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from mcss.errors import SourceError

Clock = Literal["own", "video", "images"]
"""What times are: seconds from the first sample, which belongs to the first image of the videos; seconds from that
image; or numbers of images, from 0."""


@dataclass(frozen=True, eq=False)
class Trajectories:
    """The points of one label file. Not poses yet: see `mcss.sources.videos.pose_labels`."""

    path: Path
    names: tuple[str, ...]
    points: Float64[np.ndarray, "samples names 3"]
    """In the file's own unit and axes; NaN where a point is missing."""
    times: Float64[np.ndarray, " samples"] | None
    """Of the samples, by the file's `clock`; None if the file does not state its rate."""
    unit: str | None = None
    """What the file says of its unit, such as ``mm`` or ``m``; None if nothing."""
    up: str | None = None
    """What the file says of its up axis, such as ``+y``; None if nothing."""
    clock: Clock = "own"

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
) -> Trajectories:
    """What was read of a file, checked; a point at exactly (0, 0, 0) counts as missing, as programs write it so.

    Raises:
        SourceError: There are no samples, a name comes twice, times go backwards, or no point is finite.
    """
    if not len(points) or not names:
        raise SourceError(f"{path}: expected 3D points, came {len(points)} samples of {len(names)} points")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SourceError(f"{path}: the point {twice!r} comes twice; expected each name once: rename one of them")
    if times is not None and not (np.isfinite(times).all() and (np.diff(times) > 0).all()):
        late = int(np.argmin(np.isfinite(times[1:]) & (np.diff(times) > 0)))
        raise SourceError(
            f"{path}: expected times that grow from sample to sample, came {times[late]:g} and then "
            f"{times[late + 1]:g} (samples {late} and {late + 1}, from 0); sort or mend them"
        )
    missing = ~np.isfinite(points).all(axis=-1) | (points == 0).all(axis=-1)
    if missing.all():
        raise SourceError(f"{path}: not one point of its {len(points)} samples is known (NaN or 0 everywhere)")
    known = np.where(missing[..., None], np.nan, points)
    return Trajectories(path, tuple(names), known, times, unit, up, clock)
