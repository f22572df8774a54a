"""Readers of the annotations of Human3.6M: poses in CDF or VideoPose3D's npz, boxes in MAT v7.3."""

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mcss.data.formats.hdf5 import opened_hdf5
from mcss.errors import SourceError, damage_as
from mcss.files import checked_member
from mcss.skeletons import HUMAN36M_32
from mcss.sources.pickles import load_arrays, number_array
from mcss.sources.rows import check_height

JOINTS_32 = 32
"""Number of joints in the data set's own skeleton, of which `mcss.skeletons.HUMAN36M_32` are used."""

MOST_PIXELS = 30_000_000
"""Pixels of a mask; the cameras' images have one million."""

SILHOUETTE = 1.2
"""Size of a person divided by that of the box around all 32 joints, which lie within the body. Chosen for mcss."""

Poses = Float64[np.ndarray, "t 32 3"]
"""World mm, +Z up; NaN where the file has no number."""


def read_poses(path: Path) -> Poses:
    """Read the poses of a sequence from its ``D3_Positions`` CDF.

    Raises:
        SourceError: The file is missing, empty, not a CDF, cut short, or holds something else.
    """
    cdflib = _load_cdflib()
    way_out = "unpack Poses_D3_Positions of this subject again"
    _check_not_empty(path, "the D3_Positions of a sequence", way_out)
    with damage_as(
        SourceError,
        lambda why: (
            f"{path}: expected a CDF with the variable Pose, got something that cannot be read ({why}): {way_out}"
        ),
    ):
        pose = np.asarray(cdflib.CDF(path).varget("Pose"), np.float64)
    if pose.ndim not in (2, 3) or pose.shape[-1] != 3 * JOINTS_32 or (pose.ndim == 3 and len(pose) != 1):
        raise SourceError(
            f"{path}: expected Pose with 1 × T × {3 * JOINTS_32} numbers, got {' × '.join(map(str, pose.shape))}; "
            "use D3_Positions, not D2_Positions or angles"
        )
    poses = pose.reshape(-1, JOINTS_32, 3)
    check_height(str(path), poses[:, HUMAN36M_32])
    return poses


def mask_boxes(path: Path, wanted: Sequence[int]) -> tuple[Float64[np.ndarray, "n 4"], int, tuple[int, int] | None]:
    """Read the bounding boxes of some of the ``ground_truth_bb`` masks of a view.

    Args:
        path: MAT v7.3 with ``Masks``, a cell of 0/1 images.
        wanted: Numbers of the masks, ascending; those beyond the end of the file are left out.

    Returns:
        x0, y0, x1, y1 of each mask (x1 and y1 are the first pixels outside), NaN where a mask is empty; the number of
        masks in the file; their height and width.

    Raises:
        SourceError: The file is missing, empty, not MAT v7.3, cut short, or holds something else.
    """
    way_out = "unpack Segments_mat_gt_bb of this subject again, or take boxes from the joints (--boxes joints)"
    _check_not_empty(path, "the ground-truth boxes of a view", way_out)
    size: tuple[int, int] | None = None
    with (
        damage_as(
            SourceError,
            lambda why: (
                f"{path}: expected a MAT file of version 7.3 with the cell Masks, got something unreadable "
                f"({why}): {way_out}"
            ),
        ),
        opened_hdf5(path) as file,
    ):
        cells = file.values("Masks").ravel()
        available = [index for index in wanted if index < len(cells)]
        boxes = np.full((len(available), 4), np.nan)
        for row, index in enumerate(available):
            mask = file.values(cells[index], MOST_PIXELS)  # transposed, since MATLAB stores columns
            if mask.ndim != 2 or min(mask.shape) < 2:
                continue
            size = (mask.shape[1], mask.shape[0])
            columns, rows = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            if len(columns):
                boxes[row] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes, len(cells), size


@lru_cache(maxsize=1)
def read_videopose3d(path: Path) -> dict[tuple[str, str], Poses]:
    """Read the poses of every (subject, sequence) of VideoPose3D's ``data_3d_h36m.npz`` in mm (the file has metres).

    The file is a pickle within an npz; only arrays, dictionaries and text are loaded from it.

    Raises:
        SourceError: The file is missing, empty, cut short, or holds something else.
    """
    _check_not_empty(path, "VideoPose3D's data_3d_h36m.npz", "make it again with VideoPose3D's prepare_data_h36m.py")
    with damage_as(
        SourceError,
        lambda why: (
            f"{path}: expected VideoPose3D's data_3d_h36m.npz with positions_3d by subject and sequence, got "
            f"something that cannot be read ({why}); make it again with its prepare_data_h36m.py"
        ),
    ):
        with zipfile.ZipFile(path) as archive, archive.open("positions_3d.npy") as file:
            size = checked_member(archive.getinfo("positions_3d.npy")).file_size
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            table = load_arrays(file, size).item()
        arrays = {(str(s), str(name)): array for s, by_name in table.items() for name, array in by_name.items()}
        if sum(array.nbytes for array in arrays.values()) > size:
            raise ValueError("it states the same array for many sequences")
        sequences = {key: number_array(array) * 1000 for key, array in arrays.items()}
    for (subject, name), poses in sequences.items():
        if poses.ndim != 3 or poses.shape[1:] != (JOINTS_32, 3):
            raise SourceError(
                f"{path} ({subject}/{name}): expected T × {JOINTS_32} × 3 numbers, got "
                f"{' × '.join(map(str, poses.shape))}; use the file from before joints are removed"
            )
        check_height(f"{path} ({subject}/{name})", poses[:, HUMAN36M_32])
    return sequences


def _check_not_empty(path: Path, what: str, way_out: str) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected {what}: {way_out}")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); expected {what}: {way_out}")


def _load_cdflib() -> Any:
    """Import cdflib, which is an optional dependency."""
    try:
        import cdflib
    except ImportError as error:
        raise ImportError(
            "reading Human3.6M's poses needs cdflib: install it with `pip install 'mcss[datasets]'`"
        ) from error
    return cdflib
