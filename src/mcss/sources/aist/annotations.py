"""Readers of the annotations of AIST++: joints in pickles, cameras in JSON, lists of sequences."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float64

from mcss.data.formats.joint_names import JointSource, joint_positions
from mcss.data.formats.keypoint_layouts import COCO
from mcss.errors import SourceError, damage_as
from mcss.skeletons import JOINTS
from mcss.sources.distorted_camera import DistortedCamera
from mcss.sources.pickles import load_arrays, number_array

VIEWS = ("c01", "c02", "c03", "c04", "c05", "c06", "c07", "c08", "c09")

GENRES = {
    "BR": "Break",
    "PO": "Pop",
    "LO": "Lock",
    "MH": "Middle Hip-hop",
    "LH": "LA-style Hip-hop",
    "HO": "House",
    "WA": "Waack",
    "KR": "Krump",
    "JS": "Street Jazz",
    "JB": "Ballet Jazz",
}
"""Dance genres by the second and third letter of a sequence's name."""

CM = 10.0
"""Millimetres per unit of the data set. Its calibration program starts the cameras 500 units from the centre, at a
height of 180."""

UP: Final = "y"
"""The world's up axis. The calibration program starts every camera upright with the rotation diag(1, −1, −1) · Ry, so
the image's y, which grows downwards, is −Y (processing/run_estimate_camera.py, init_env_cameras)."""

EARS_TO_TOP = 0.54
"""Distance from the ears to the top of the head, divided by the distance from the shoulders' height to the ears. In a
standing person the shoulders are at 0.818 and eyes and ears at 0.936 of the stature (Drillis and Contini, "Body segment
parameters", 1966)."""

_HIPS = {"left_hip": 0.5, "right_hip": 0.5}
_SHOULDERS = {"left_shoulder": 0.5, "right_shoulder": 0.5}

COMPOSED_JOINTS: Mapping[str, Mapping[str, float]] = {
    "Hip": _HIPS,
    "Spine": {name: 0.5 * weight for name, weight in (_HIPS | _SHOULDERS).items()},
    "Thorax": _SHOULDERS,
    "Neck": {"nose": 1.0},
    "Head": dict.fromkeys(("left_ear", "right_ear"), (1 + EARS_TO_TOP) * 0.5)
    | {name: -EARS_TO_TOP * weight for name, weight in _SHOULDERS.items()},
}
"""Joints that COCO lacks, as weighted means of joints that it has. All are approximations: the pelvis is the midpoint
of the hips; the thorax is the midpoint of the shoulders, which is lower than the base of the neck when the arms hang
and higher when they are raised; the spine is the midpoint of both, so it never bends; Neck (Human3.6M's Neck/Nose) is
the nose; the top of the head lies beyond the ears on the line from the thorax, wherever the head is turned."""

_NAME = re.compile(r"g([A-Z]{2})_s[A-Z]{2}_cAll_(d\d+)_m[A-Z]{2}\d+_ch\d+")
_SETTING = re.compile(r"[\w-]+")


def genre(name: str) -> str:
    """Return the genre that a sequence's name states, such as ``Break``."""
    match = _NAME.fullmatch(name)
    return GENRES.get(match[1], match[1]) if match else name


def dancer(name: str) -> str:
    """Return the dancer that a sequence's name states, such as ``d04``."""
    match = _NAME.fullmatch(name)
    return match[2] if match else name


def read_names(path: Path) -> tuple[str, ...]:
    """Read a list of sequences, one per line; an empty file lists none.

    Raises:
        SourceError: The file is missing, or a line is not the name of a sequence.
    """
    names = []
    for line, text in enumerate(_text(path).splitlines(), start=1):
        name = text.strip().removesuffix(".pkl").removesuffix(".json")
        if not name:
            continue
        if not _NAME.fullmatch(name):
            raise SourceError(
                f"{path} line {line}: expected the name of a sequence such as gBR_sBM_cAll_d04_mBR0_ch01, got "
                f"{text[:80]!r}; unpack the annotations (fullset.zip) again"
            )
        names.append(name)
    return tuple(names)


def read_mapping(path: Path) -> dict[str, str]:
    """Read the camera setting of every sequence from ``cameras/mapping.txt``.

    Raises:
        SourceError: The file is missing or empty, or a line is not as expected.
    """
    mapping = {}
    for line, text in enumerate(_text(path).splitlines(), start=1):
        cells = text.split()
        if not cells:
            continue
        if len(cells) != 2 or not _NAME.fullmatch(cells[0]) or not _SETTING.fullmatch(cells[1]):
            raise SourceError(
                f"{path} line {line}: expected a sequence and its setting (gBR_sBM_cAll_d04_mBR0_ch01 setting1), got "
                f"{text[:80]!r}; unpack the cameras (cameras.zip) again"
            )
        mapping[cells[0]] = cells[1]
    if not mapping:
        raise SourceError(f"{path}: expected lines of a sequence and its setting, got none; unpack cameras.zip again")
    return mapping


def read_cameras(path: Path) -> dict[str, DistortedCamera]:
    """Read the cameras of a setting by name from JSON (name, size, matrix, rotation, translation, distortions).

    Raises:
        SourceError: The file is missing, is not JSON, or a camera is not as expected.
    """
    text = _text(path)
    with damage_as(
        SourceError,
        lambda why: (
            f"{path}: expected a JSON list of cameras with name, size, matrix, rotation, translation and "
            f"distortions, got something unreadable ({why}); unpack the cameras (cameras.zip) again"
        ),
    ):
        cameras = {}
        for entry in json.loads(text):
            matrix = np.array(entry["matrix"], np.float64).reshape(3, 3)
            vector = np.array(entry["rotation"], np.float64).reshape(3)
            translation = np.array(entry["translation"], np.float64).reshape(3) * CM
            distortion = np.array(entry["distortions"], np.float64).ravel()
            if not all(np.isfinite(v).all() for v in (matrix, vector, translation, distortion)):
                raise ValueError("a number is not finite")
            width, height = (int(v) for v in entry["size"])
            rotation = np.asarray(cv2.Rodrigues(vector)[0], np.float64)
            name = str(entry["name"])
            cameras[name] = DistortedCamera(name, rotation, translation, matrix, distortion, (width, height))
    return cameras


def read_joints(path: Path, smooth: bool) -> Float64[np.ndarray, "t 17 3"]:
    """Read the 17 COCO joints at 60 frames per second, in the data set's unit and axes; NaN where unknown.

    Only numpy arrays are loaded from the pickle.

    Args:
        path: ``keypoints3d/gBR_….pkl``.
        smooth: Read ``keypoints3d_optim`` instead of ``keypoints3d``.

    Raises:
        SourceError: The file is missing, empty, cut short, or holds something else.
    """
    key = "keypoints3d_optim" if smooth else "keypoints3d"
    if not path.is_file() or path.stat().st_size == 0:
        what = "the file is empty (0 bytes)" if path.is_file() else "no such file"
        raise SourceError(f"{path}: {what}; unpack the joints (keypoints3d.zip) again")
    with (
        damage_as(
            SourceError,
            lambda why: (
                f"{path}: expected a pickle of the array {key}, got something that cannot be read ({why}); "
                "unpack the joints (keypoints3d.zip) again"
            ),
        ),
        path.open("rb") as file,
    ):
        joints = number_array(load_arrays(file, path.stat().st_size)[key])
    if joints.ndim != 3 or joints.shape[1:] != (len(COCO), 3) or not len(joints):
        raise SourceError(
            f"{path}: expected {key} with N × 17 × 3 numbers, got {' × '.join(map(str, joints.shape))}; use the "
            "release's keypoints3d, not keypoints2d or motions"
        )
    if not np.isfinite(joints).all(axis=(1, 2)).any():
        raise SourceError(f"{path}: none of its {len(joints)} poses is complete; unpack keypoints3d.zip again")
    return joints


def seventeen(points: Float64[np.ndarray, "t coco 3"]) -> Float64[np.ndarray, "t 17 3"]:
    """Return the joints of mcss, composing those that COCO lacks (`COMPOSED_JOINTS`); unit and axes stay."""
    joints = []
    for name in JOINTS:
        side = {"L": "left_", "R": "right_"}.get(name[0], "")
        weights = COMPOSED_JOINTS.get(name) or {side + name[1:].lower().replace("foot", "ankle"): 1.0}
        joints.append(
            JointSource(tuple(map(COCO.index, weights)), tuple(weights.values()), made=name in COMPOSED_JOINTS)
        )
    return joint_positions(points, joints)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        what = "no such file" if not path.exists() else f"it cannot be read as text ({error})"
        raise SourceError(f"{path}: {what}; unpack the annotations of AIST++ (fullset.zip) again") from error
