"""Keypoints as one array without names, as FreeMoCap and many scripts write them."""

from pathlib import Path

import numpy as np

from mcss.data.formats.keypoint_layouts import LAYOUTS, names_by_count
from mcss.data.formats.trajectories import Trajectories, trajectories
from mcss.errors import SourceError


def read_npy(path: Path) -> Trajectories:
    """Read an array (images, points, 3); the number of points tells whose order of keypoints it is.

    Each sample is one image of the videos, in order.

    Raises:
        SourceError: The file is not NPY, holds a pickle, or has another shape.
    """
    try:
        points = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        what = "it holds Python objects (a pickle)" if "pickle" in str(error).lower() else str(error)
        raise SourceError(f"{path}: cannot be read as NPY ({what}); save it again with numpy.save") from error
    names = names_by_count(points.shape[1]) if points.ndim == 3 else None
    if points.ndim != 3 or points.shape[2] != 3 or names is None or points.dtype.kind not in "fiu":
        raise SourceError(
            f"{path}: expected numbers in the shape (images, points, 3), got {points.dtype} {points.shape}; the "
            f"numbers of points that are understood are {LAYOUTS}: save others as NPZ with poses and names"
        )
    note = f"its {points.shape[1]} points are taken as {names[0]}, {names[1]} …, and each sample as one image"
    values = np.asarray(points[:, : len(names)], np.float64)
    return trajectories(path, names, values, np.arange(len(values), dtype=np.float64), clock="images", notes=[note])
