"""Poses and boxes of Human3.6M in their original formats: CDF, MAT v7.3, and VideoPose3D's npz."""

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mcss.errors import SourceError
from mcss.sources.hdf5 import load_h5py
from mcss.sources.human36m.metadata import Lens
from mcss.sources.pickles import load_arrays

JOINTS_32 = 32
"""Joints of the set's own skeleton, of which `mcss.skeletons.HUMAN36M_32` are used."""

SILHOUETTE = 1.2
"""A person is so much larger than the box of all 32 joints, which lie within the body. A choice of mcss."""

PERSON_MM = (500.0, 2500.0)
"""The longest side of a person's box, crouched or upright with arms raised."""

Poses = Float64[np.ndarray, "t 32 3"]
"""World mm, +Z up; NaN where the file has no number."""


def read_poses(path: Path) -> Poses:
    """The poses of a take from its ``D3_Positions`` CDF.

    Raises:
        SourceError: The file is missing, empty, no CDF, cut short, or holds something else.
    """
    cdflib = _cdflib()
    way_out = "unpack Poses_D3_Positions of this subject again"
    _present(path, "the D3_Positions of a take", way_out)
    try:
        pose = np.asarray(cdflib.CDF(path).varget("Pose"), np.float64)
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise SourceError(
            f"{path}: expected a CDF with the variable Pose, which cannot be read ({type(error).__name__}: {error}): "
            f"{way_out}"
        ) from error
    if pose.ndim not in (2, 3) or pose.shape[-1] != 3 * JOINTS_32 or (pose.ndim == 3 and len(pose) != 1):
        raise SourceError(
            f"{path}: expected Pose with 1 × T × {3 * JOINTS_32} numbers, came {' × '.join(map(str, pose.shape))}; "
            "use D3_Positions, not D2_Positions or angles"
        )
    return checked(pose.reshape(-1, JOINTS_32, 3), path)


def checked(poses: Float64[np.ndarray, "t joints 3"], path: Path, name: str = "") -> Float64[np.ndarray, "t joints 3"]:
    """The poses, if they are those of a person in mm.

    Raises:
        SourceError: There are none, not one is finite, or they are in another unit.
    """
    where = f"{path}{f' ({name})' if name else ''}"
    finite = poses[np.isfinite(poses).all(axis=(1, 2))]
    if not len(finite):
        raise SourceError(f"{where}: not one of its {len(poses)} poses is finite; copy the file again")
    side = float(np.median((finite.max(axis=1) - finite.min(axis=1)).max(axis=1)))
    low, high = PERSON_MM
    if not low <= side <= high:
        raise SourceError(
            f"{where}: expected world millimetres, in which a person measures {low:.0f} to {high:.0f}, "
            f"came {side:.4g}; use the files as released, not converted ones"
        )
    return poses


def mask_boxes(path: Path, wanted: Sequence[int]) -> tuple[Float64[np.ndarray, "n 4"], int, tuple[int, int] | None]:
    """The bounding rectangles of some of the ``ground_truth_bb`` masks of a view.

    Args:
        path: MAT v7.3 with ``Masks``, a cell of 0/1 images.
        wanted: Images, in order; the reading stops where the file ends.

    Returns:
        x0, y0, x1, y1 of each (x1 and y1 the first pixels outside), NaN where a mask is empty; how many masks the
        file has; their height and width.

    Raises:
        SourceError: The file is missing, empty, no MAT v7.3, cut short, or holds something else.
    """
    h5py = load_h5py()
    way_out = "unpack Segments_mat_gt_bb of this subject again, or take boxes from the joints (setting boxes: joints)"
    _present(path, "the ground-truth boxes of a view", way_out)
    size: tuple[int, int] | None = None
    try:
        with h5py.File(path, "r") as file:
            cells = file["Masks"][()].ravel()
            there = [index for index in wanted if index < len(cells)]
            boxes = np.full((len(there), 4), np.nan)
            for place, index in enumerate(there):
                mask = np.asarray(file[cells[index]][()])  # transposed, since MATLAB stores columns
                if mask.ndim != 2 or min(mask.shape) < 2:
                    continue
                size = (mask.shape[1], mask.shape[0])
                columns, rows = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
                if len(columns):
                    boxes[place] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            return boxes, len(cells), size
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise SourceError(
            f"{path}: expected a MAT file of version 7.3 with the cell Masks, which cannot be read "
            f"({type(error).__name__}: {error}): {way_out}"
        ) from error


def joint_boxes(lens: Lens, poses: Poses) -> Float64[np.ndarray, "t 4"]:
    """Boxes around all 32 joints as the camera sees them, larger by `SILHOUETTE`; NaN where a pose is not finite."""
    pixels = lens.pixels(poses.reshape(-1, 3)).reshape(-1, JOINTS_32, 2)
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    centre, half = (low + high) / 2, SILHOUETTE * (high - low) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


@lru_cache(maxsize=1)
def read_videopose3d(path: Path) -> dict[tuple[str, str], Poses]:
    """The poses of every (subject, take) of VideoPose3D's ``data_3d_h36m.npz``, in mm (the file has metres).

    The file is a pickle within an npz; nothing but arrays, dictionaries and text is loaded from it.

    Raises:
        SourceError: The file is missing, empty, cut short, or holds something else.
    """
    _present(path, "VideoPose3D's data_3d_h36m.npz", "make it again with VideoPose3D's prepare_data_h36m.py")
    try:
        with zipfile.ZipFile(path) as archive, archive.open("positions_3d.npy") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            table = load_arrays(file).item()
        found = {
            (str(subject), str(name)): np.asarray(positions, np.float64) * 1000
            for subject, takes in table.items()
            for name, positions in takes.items()
        }
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise SourceError(
            f"{path}: expected VideoPose3D's data_3d_h36m.npz with positions_3d by subject and take, which cannot be "
            f"read ({type(error).__name__}: {error}); make it again with its prepare_data_h36m.py"
        ) from error
    for (subject, name), poses in found.items():
        if poses.ndim != 3 or poses.shape[1:] != (JOINTS_32, 3):
            raise SourceError(
                f"{path} ({subject}/{name}): expected T × {JOINTS_32} × 3 numbers, came "
                f"{' × '.join(map(str, poses.shape))}; use the file before joints are removed"
            )
        checked(poses, path, f"{subject}/{name}")
    return found


def _present(path: Path, what: str, way_out: str) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected {what}: {way_out}")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); expected {what}: {way_out}")


def _cdflib() -> Any:
    try:
        import cdflib
    except ImportError as error:
        raise ImportError(
            "reading Human3.6M's poses needs cdflib: install it with `pip install 'mcss[datasets]'`"
        ) from error
    return cdflib
