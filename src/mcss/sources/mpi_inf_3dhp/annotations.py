"""Annotations of MPI-INF-3DHP in their original formats: MAT v5 and v7.3, and ``camera.calibration``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.data.capture import Camera
from mcss.errors import SourceError
from mcss.skeletons import JOINTS
from mcss.sources.hdf5 import load_h5py

JOINTS_28 = (
    "spine3",
    "spine4",
    "spine2",
    "spine",
    "pelvis",
    "neck",
    "head",
    "head_top",
    "left_clavicle",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "left_hand",
    "right_clavicle",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "right_hand",
    "left_hip",
    "left_knee",
    "left_ankle",
    "left_foot",
    "left_toe",
    "right_hip",
    "right_knee",
    "right_ankle",
    "right_foot",
    "right_toe",
)
"""The joints of ``annot.mat``, in order."""

TEST_JOINTS_17 = (
    "head_top",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "pelvis",
    "spine",
    "head",
)
"""The joints of the test set's ``annot_data.mat``, in order."""

_LIMBS = {"Hip": "hip", "Knee": "knee", "Foot": "ankle", "Shoulder": "shoulder", "Elbow": "elbow", "Wrist": "wrist"}

NAMES = {"Hip": "pelvis", "Spine": "spine", "Thorax": "neck", "Neck": "head", "Head": "head_top"} | {
    side[0].upper() + part: f"{side}_{name}" for side in ("left", "right") for part, name in _LIMBS.items()
}
"""What the set calls each joint of mcss."""

CAMERAS = 14


@dataclass(frozen=True, eq=False)
class Annotation:
    """What ``annot.mat`` says of some cameras."""

    pixels: Mapping[int, Float64[np.ndarray, "t 28 2"]]
    """By camera, in pixels."""
    own: Mapping[int, Float64[np.ndarray, "t 28 3"]]
    """By camera, mm in its own space."""
    universal: Mapping[int, Float64[np.ndarray, "t 28 3"]]
    """The same on the set's universal skeleton."""

    def __len__(self) -> int:
        return len(next(iter(self.own.values())))


@dataclass(frozen=True, eq=False)
class TestAnnotation:
    """What ``annot_data.mat`` of one sequence of the test set says."""

    pixels: Float64[np.ndarray, "t 17 2"]
    own: Float64[np.ndarray, "t 17 3"]
    """mm in the camera's space."""
    universal: Float64[np.ndarray, "t 17 3"]
    valid: Bool[np.ndarray, " t"]
    activity: Int64[np.ndarray, " t"]


def seventeen(names: tuple[str, ...]) -> list[int]:
    """Where each joint of mcss stands among the names of the set."""
    return [names.index(NAMES[joint]) for joint in JOINTS]


def read_annotation(path: Path, cameras: tuple[int, ...]) -> Annotation:
    """The joints that some cameras see, from ``annot.mat`` (MAT v5, as released, or v7.3).

    Raises:
        SourceError: The file is missing, empty, no MAT, cut short, or holds something else.
    """
    cells = _variables(path, ("annot2", "annot3", "univ_annot3"))
    tables: dict[str, dict[int, Any]] = {}
    for name, columns in (("annot2", 56), ("annot3", 84), ("univ_annot3", 84)):
        values = cells[name]
        if not isinstance(values, list) or len(values) <= max(cameras):
            came = f"{len(values)} cells" if isinstance(values, list) else "no cell array"
            raise SourceError(f"{path}: expected {name} to be a cell of {CAMERAS} cameras, came {came}; {_WAY_OUT}")
        for camera in cameras:
            table = values[camera]
            if table.ndim != 2 or table.shape[1] != columns or not len(table):
                raise SourceError(
                    f"{path}: expected {name} of camera {camera} to be T × {columns} numbers, came "
                    f"{' × '.join(map(str, table.shape))}; {_WAY_OUT}"
                )
        tables[name] = {camera: values[camera].reshape(len(values[camera]), 28, -1) for camera in cameras}
    lengths = {len(table) for each in tables.values() for table in each.values()}
    if len(lengths) > 1:
        raise SourceError(
            f"{path}: expected as many frames of every camera, came {', '.join(map(str, sorted(lengths)))}; {_WAY_OUT}"
        )
    return Annotation(tables["annot2"], tables["annot3"], tables["univ_annot3"])


def read_test_annotation(path: Path) -> TestAnnotation:
    """The joints of a sequence of the test set, from ``annot_data.mat`` (MAT v7.3, as released, or v5).

    Raises:
        SourceError: The file is missing, empty, no MAT, cut short, or holds something else.
    """
    names = ("annot2", "annot3", "univ_annot3", "valid_frame", "activity_annotation")
    arrays = _variables(path, names)
    found = {}
    for name, numbers in (("annot2", 2), ("annot3", 3), ("univ_annot3", 3)):
        array = np.asarray(arrays[name], np.float64)
        if array.ndim == 4 and array.shape[:3] == (numbers, 17, 1):  # MATLAB's own order of dimensions
            array = array.transpose(3, 2, 1, 0)
        if array.ndim != 4 or array.shape[1:] != (1, 17, numbers) or not len(array):
            raise SourceError(
                f"{path}: expected {name} to be T × 1 × 17 × {numbers} numbers, came "
                f"{' × '.join(map(str, array.shape))}; {_WAY_OUT}"
            )
        found[name] = array[:, 0]
    flags = [np.ravel(np.asarray(arrays[name], np.float64)) for name in names[3:]]
    lengths = {len(array) for array in [*found.values(), *flags]}
    if len(lengths) > 1:
        raise SourceError(f"{path}: expected arrays of one length, came {sorted(lengths)}; {_WAY_OUT}")
    return TestAnnotation(
        found["annot2"], found["annot3"], found["univ_annot3"], flags[0] > 0, np.nan_to_num(flags[1]).astype(np.int64)
    )


def read_calibration(path: Path) -> dict[int, Camera]:
    """The cameras of ``camera.calibration`` by number; x_camera = rotation · x_world + translation, mm.

    Raises:
        SourceError: The file is missing, cut short, or a matrix is not as expected.
    """
    _present(path)
    cameras: dict[int, Camera] = {}
    number: int | None = None
    intrinsic: Float64[np.ndarray, "4 4"] | None = None
    for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        key, *words = text.split() or [""]
        if key == "name" and words and words[0].isdigit():
            number, intrinsic = int(words[0]), None
        elif key == "intrinsic":
            intrinsic = _matrix(words, path, line, key)
        elif key == "extrinsic" and number is not None and intrinsic is not None:
            extrinsic = _matrix(words, path, line, key)
            rotation = extrinsic[:3, :3]
            if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
                raise SourceError(f"{path} line {line}: expected a rotation in camera {number}'s extrinsic; {_WAY_OUT}")
            cameras[number] = Camera(rotation, extrinsic[:3, 3], intrinsic[:3, :3])
    if not cameras:
        raise SourceError(
            f"{path}: expected cameras, each with the lines name, intrinsic and extrinsic, came none; {_WAY_OUT}"
        )
    return cameras


_WAY_OUT = "unpack this sequence again"


def _matrix(words: list[str], path: Path, line: int, key: str) -> Float64[np.ndarray, "4 4"]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != 16 or not all(map(math.isfinite, values)):
        raise SourceError(
            f"{path} line {line}: expected 16 numbers after {key}, came {' '.join(words)[:60]!r}; {_WAY_OUT}"
        )
    return np.array(values).reshape(4, 4)


def _present(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; {_WAY_OUT}")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); {_WAY_OUT}")


def _variables(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Arrays of a MAT file by name, and cells as lists of arrays, in MATLAB's own order of dimensions."""
    _present(path)
    with path.open("rb") as file:
        start = file.read(8)
    try:
        found = _from_hdf5(path, names) if start.startswith((b"MATLAB 7", b"\x89HDF")) else _from_v5(path, names)
    except ImportError:
        raise
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise SourceError(
            f"{path}: expected a MAT file, which cannot be read ({type(error).__name__}: {error}); {_WAY_OUT}"
        ) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise SourceError(
            f"{path}: expected the variables {', '.join(names)}, {', '.join(missing)} missing; {_WAY_OUT}"
        )
    return found


def _from_v5(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy.io import loadmat

    table = loadmat(str(path), variable_names=list(names))
    found: dict[str, Any] = {}
    for name in names:
        if name in table:
            value = table[name]
            cell = value.dtype == object
            found[name] = [np.asarray(v, np.float64) for v in value.ravel()] if cell else np.asarray(value, np.float64)
    return found


def _from_hdf5(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    h5py = load_h5py()
    found: dict[str, Any] = {}
    with h5py.File(path, "r") as file:
        for name in names:
            if name in file:
                value = file[name][()]
                cell = value.dtype == object  # a cell: references to its arrays, transposed like everything
                found[name] = [np.asarray(file[at][()], np.float64).T for at in value.ravel()] if cell else value.T
    return found
