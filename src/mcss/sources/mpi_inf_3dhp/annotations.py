"""Readers of the annotations of MPI-INF-3DHP: MAT v5 and v7.3, and ``camera.calibration``."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.data.cameras import Camera, are_rotations
from mcss.data.formats.hdf5 import opened_hdf5
from mcss.errors import SourceError, damage_as
from mcss.skeletons import JOINTS

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
"""The data set's name of each joint of mcss."""

CAMERAS = 14


@dataclass(frozen=True, eq=False)
class Annotation:
    """The joints that ``annot.mat`` has for some cameras, by the number of the camera."""

    pixels: Mapping[int, Float64[np.ndarray, "t 28 2"]]
    """Joints in pixels of the camera's image."""
    own: Mapping[int, Float64[np.ndarray, "t 28 3"]]
    """Joints of the person's own skeleton, mm in the camera's space."""
    universal: Mapping[int, Float64[np.ndarray, "t 28 3"]]
    """Joints of the data set's universal skeleton, mm in the camera's space."""

    def __len__(self) -> int:
        return len(next(iter(self.own.values())))


@dataclass(frozen=True, eq=False)
class TestAnnotation:
    """The joints that ``annot_data.mat`` has for one sequence of the test set."""

    pixels: Float64[np.ndarray, "t 17 2"]
    own: Float64[np.ndarray, "t 17 3"]
    """Joints of the person's own skeleton, mm in the camera's space."""
    universal: Float64[np.ndarray, "t 17 3"]
    """Joints of the data set's universal skeleton, mm in the camera's space."""
    valid: Bool[np.ndarray, " t"]
    activity: Int64[np.ndarray, " t"]


def seventeen(names: tuple[str, ...]) -> list[int]:
    """Return the index of each joint of mcss among the data set's names."""
    return [names.index(NAMES[joint]) for joint in JOINTS]


def read_annotation(path: Path, cameras: tuple[int, ...]) -> Annotation:
    """Read the joints of some cameras from ``annot.mat`` (MAT v5, as released, or v7.3).

    Raises:
        SourceError: The file is missing, empty, not a MAT file, cut short, or holds something else.
    """
    cells = _variables(path, ("annot2", "annot3", "univ_annot3"))
    tables: dict[str, dict[int, Any]] = {}
    for name, columns in (("annot2", 56), ("annot3", 84), ("univ_annot3", 84)):
        values = cells[name]
        if not isinstance(values, list) or len(values) <= max(cameras):
            got = f"{len(values)} cells" if isinstance(values, list) else "no cell array"
            raise SourceError(f"{path}: expected {name} to be a cell of {CAMERAS} cameras, got {got}; {_WAY_OUT}")
        for camera in cameras:
            table = values[camera]
            if table.ndim != 2 or table.shape[1] != columns or not len(table):
                raise SourceError(
                    f"{path}: expected {name} of camera {camera} to be T × {columns} numbers, got "
                    f"{' × '.join(map(str, table.shape))}; {_WAY_OUT}"
                )
        tables[name] = {camera: values[camera].reshape(len(values[camera]), 28, -1) for camera in cameras}
    lengths = {len(table) for each in tables.values() for table in each.values()}
    if len(lengths) > 1:
        raise SourceError(
            f"{path}: expected the same number of frames of every camera, got "
            f"{', '.join(map(str, sorted(lengths)))}; {_WAY_OUT}"
        )
    return Annotation(tables["annot2"], tables["annot3"], tables["univ_annot3"])


def read_test_annotation(path: Path) -> TestAnnotation:
    """Read the joints of a sequence of the test set from ``annot_data.mat`` (MAT v7.3, as released, or v5).

    Raises:
        SourceError: The file is missing, empty, not a MAT file, cut short, or holds something else.
    """
    names = ("annot2", "annot3", "univ_annot3", "valid_frame", "activity_annotation")
    arrays = _variables(path, names)
    joints = {}
    for name, numbers in (("annot2", 2), ("annot3", 3), ("univ_annot3", 3)):
        array = np.asarray(arrays[name], np.float64)
        if array.ndim == 4 and array.shape[:3] == (numbers, 17, 1):  # MATLAB's own order of dimensions
            array = array.transpose(3, 2, 1, 0)
        if array.ndim != 4 or array.shape[1:] != (1, 17, numbers) or not len(array):
            raise SourceError(
                f"{path}: expected {name} to be T × 1 × 17 × {numbers} numbers, got "
                f"{' × '.join(map(str, array.shape))}; {_WAY_OUT}"
            )
        joints[name] = array[:, 0]
    flags = [np.ravel(np.asarray(arrays[name], np.float64)) for name in names[3:]]
    lengths = {len(array) for array in [*joints.values(), *flags]}
    if len(lengths) > 1:
        raise SourceError(f"{path}: expected arrays of one length, got {sorted(lengths)}; {_WAY_OUT}")
    return TestAnnotation(
        joints["annot2"],
        joints["annot3"],
        joints["univ_annot3"],
        valid=flags[0] > 0,
        activity=np.nan_to_num(flags[1]).astype(np.int64),
    )


def read_calibration(path: Path) -> dict[int, Camera]:
    """Read the cameras of ``camera.calibration`` by number; x_camera = rotation · x_world + translation, mm.

    Raises:
        SourceError: The file is missing, cut short, or a matrix is not as expected.
    """
    _check_not_empty(path)
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
            if not are_rotations(rotation):
                raise SourceError(f"{path} line {line}: expected a rotation in camera {number}'s extrinsic; {_WAY_OUT}")
            cameras[number] = Camera(rotation, extrinsic[:3, 3], intrinsic[:3, :3])
    if not cameras:
        raise SourceError(
            f"{path}: expected cameras, each with the lines name, intrinsic and extrinsic, got none; {_WAY_OUT}"
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
            f"{path} line {line}: expected 16 numbers after {key}, got {' '.join(words)[:60]!r}; {_WAY_OUT}"
        )
    return np.array(values).reshape(4, 4)


def _check_not_empty(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; {_WAY_OUT}")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); {_WAY_OUT}")


def _variables(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Read variables of a MAT file: arrays, and cells as lists of arrays, in MATLAB's own order of dimensions."""
    _check_not_empty(path)
    with path.open("rb") as file:
        start = file.read(8)
    with damage_as(
        SourceError,
        lambda why: f"{path}: expected a MAT file, got something that cannot be read ({why}); {_WAY_OUT}",
    ):
        is_hdf5 = start.startswith((b"MATLAB 7", b"\x89HDF"))
        variables = _from_hdf5(path, names) if is_hdf5 else _from_v5(path, names)
    missing = [name for name in names if name not in variables]
    if missing:
        raise SourceError(
            f"{path}: expected the variables {', '.join(names)}, but {', '.join(missing)} are missing; {_WAY_OUT}"
        )
    return variables


def _from_v5(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    from scipy.io import loadmat

    table = loadmat(str(path), variable_names=list(names))
    variables: dict[str, Any] = {}
    for name in names:
        if name in table:
            value = table[name]
            cell = value.dtype == object
            variables[name] = (
                [np.asarray(v, np.float64) for v in value.ravel()] if cell else np.asarray(value, np.float64)
            )
    return variables


def _from_hdf5(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    with opened_hdf5(path) as file:
        for name in names:
            if name in file:
                value = file.values(name)
                if value.dtype == object:  # a cell: references to its arrays, transposed like everything
                    variables[name] = [np.asarray(file.values(at), np.float64).T for at in value.ravel()]
                else:
                    variables[name] = value.T
    return variables
