"""Files of 3D labels, read as named points through time whatever their format.

No such file is trusted: nothing in it is executed (no pickles), and no name in it becomes a path.
"""

from pathlib import Path

from mcss.data.formats.bvh import read_bvh
from mcss.data.formats.c3d import read_c3d
from mcss.data.formats.csv import read_csv
from mcss.data.formats.deeplabcut import read_deeplabcut_poses
from mcss.data.formats.npy import read_npy
from mcss.data.formats.npz import read_npz
from mcss.data.formats.trajectories import Trajectories
from mcss.data.formats.trc import read_trc
from mcss.errors import SourceError, damage_as

READERS = {
    ".c3d": read_c3d,
    ".trc": read_trc,
    ".bvh": read_bvh,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".npz": read_npz,
    ".npy": read_npy,
    ".h5": read_deeplabcut_poses,
}

POSE_SUFFIXES = tuple(READERS)


def read_pose_file(path: Path) -> Trajectories:
    """Read the points of a label file; its suffix says in which format.

    Raises:
        SourceError: The file is missing, empty, or not in the format that its suffix names.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected 3D labels ({', '.join(POSE_SUFFIXES)})")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); export it again, or remove it")
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise SourceError(
            f"{path}: 3D labels cannot be read from {suffix or 'a file without a suffix'}; expected one of "
            + ", ".join(POSE_SUFFIXES)
        )
    with damage_as(
        SourceError,
        lambda why: f"{path}: cannot be read as {suffix[1:].upper()} ({why}); export it again, or remove it",
    ):
        return READERS[suffix](path)
