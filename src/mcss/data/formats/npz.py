"""Poses as arrays of an NPZ file."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from mcss.data.formats.trajectories import Clock, Trajectories, trajectories
from mcss.errors import SourceError
from mcss.files import checked_member, replacing
from mcss.skeletons import JOINTS

_ARRAYS = ("poses", "names", "rate", "times", "units", "up")
"""The arrays that are read; others are ignored."""


def read_npz(path: Path) -> Trajectories:
    """Read ``poses`` (samples, points, 3) and ``names``; ``rate`` or ``times``, ``units`` and ``up`` are optional.

    ``times`` are seconds from the first image of the videos; with ``rate`` the first sample is the first image.

    Raises:
        SourceError: The file is not NPZ, an array is missing or of another shape, or it holds a pickle.
    """
    arrays = _arrays(path)
    absent = [name for name in ("poses", "names") if name not in arrays]
    if absent:
        raise SourceError(
            f"{path}: the array(s) {', '.join(absent)} are missing; expected poses (samples, points, 3) and names, "
            f"got {', '.join(sorted(arrays)) or 'nothing'}"
        )
    points, names = arrays["poses"], [str(name) for name in np.ravel(arrays["names"])]
    if points.ndim != 3 or points.shape[1:] != (len(names), 3) or points.dtype.kind not in "fiu":
        raise SourceError(
            f"{path}: expected poses of numbers in the shape (samples, {len(names)}, 3), as there are {len(names)} "
            f"names, got {points.dtype} {points.shape}"
        )

    def text(name: str) -> str | None:
        return str(np.ravel(arrays[name])[0]).lower() if name in arrays and arrays[name].size else None

    times = None
    if "times" in arrays:
        times = arrays["times"].astype(np.float64) if arrays["times"].dtype.kind in "fiu" else np.empty(0)
        if times.shape != (len(points),):
            raise SourceError(f"{path}: expected {len(points)} times in seconds, got the shape {times.shape}")
    elif "rate" in arrays:
        try:
            rate = float(np.ravel(arrays["rate"])[0])
        except (ValueError, IndexError):
            rate = 0.0
        if not (math.isfinite(rate) and rate > 0):
            raise SourceError(f"{path}: expected a positive rate (samples per second), got {arrays['rate']}")
        times = np.arange(len(points)) / rate
    clock: Clock = "video" if "times" in arrays else "own"
    return trajectories(path, names, points.astype(np.float64), times, text("units"), text("up"), clock)


def write_npz(
    path: Path,
    pose: Float[np.ndarray, "n 17 3"],
    times: Float64[np.ndarray, " n"],
    more: Mapping[str, np.ndarray],
) -> None:
    """Write poses as `read_npz` reads them, and further arrays beside them.

    Args:
        path: The file.
        pose: mm, +Z up.
        times: Seconds from the first image.
        more: Other arrays by name.
    """
    arrays: dict[str, Any] = {
        "poses": pose.astype(np.float32),
        "names": np.array(JOINTS),
        "times": times,
        "units": np.array("mm"),
        "up": np.array("+z"),
        **more,
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            for member in archive.zip.infolist():
                checked_member(member)
            return {name: archive[name] for name in archive.files if name in _ARRAYS}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        if "pickle" in str(error):
            raise SourceError(
                f"{path}: it holds Python objects (a pickle), which could run a program when read; expected arrays of "
                "numbers and text: save each array with a plain dtype, not dtype=object"
            ) from error
        raise SourceError(f"{path}: cannot be read as NPZ ({error}); save it again with numpy.savez") from error
