"""Annotations of AIST++ in their original formats: joints in pickles, cameras in JSON, lists of names."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from jaxtyping import Float64

from mcss.data.capture import Camera
from mcss.data.formats.joint_names import Joint, joint_places
from mcss.data.formats.units import turned
from mcss.errors import SourceError
from mcss.skeletons import JOINTS
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
"""What the second and third letter of a name mean."""

CM = 10.0
"""Millimetres in the set's unit. Its program for the cameras starts them 500 units from the middle and 180 high."""

UP: Final = "y"
"""The world's up axis: the same program starts every camera upright with rotation diag(1, −1, −1) · Ry, so that the
image's y, which grows downwards, is −Y (processing/run_estimate_camera.py, init_env_cameras)."""

COCO = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
"""The set's 17 joints, in order."""

EARS_TO_TOP = 0.54
"""From the ears to the top of the head, over the distance from the shoulders' height to the ears: standing, shoulders
are at 0.818, eyes and ears at 0.936 of the stature (Drillis and Contini, "Body segment parameters", 1966)."""

_HIPS = {"left_hip": 0.5, "right_hip": 0.5}
_SHOULDERS = {"left_shoulder": 0.5, "right_shoulder": 0.5}

MADE: Mapping[str, Mapping[str, float]] = {
    "Hip": _HIPS,
    "Spine": {name: 0.5 * weight for name, weight in (_HIPS | _SHOULDERS).items()},
    "Thorax": _SHOULDERS,
    "Neck": {"nose": 1.0},
    "Head": dict.fromkeys(("left_ear", "right_ear"), (1 + EARS_TO_TOP) * 0.5)
    | {name: -EARS_TO_TOP * weight for name, weight in _SHOULDERS.items()},
}
"""Joints that COCO does not have, as weighted means of some that it has. All are approximations: the pelvis is the
middle of the hips and the thorax that of the shoulders, which is lower than the base of the neck when arms hang and
higher when they are raised; the spine, the middle of both, does not bend; Neck (Human3.6M's Neck/Nose) is the nose; the
top of the head lies beyond the ears on the line from the thorax, wherever the head is turned to."""

_NAME = re.compile(r"g([A-Z]{2})_s[A-Z]{2}_cAll_(d\d+)_m[A-Z]{2}\d+_ch\d+")
_SETTING = re.compile(r"[\w-]+")


def genre(name: str) -> str:
    """The genre that a sequence's name says, such as ``Break``."""
    found = _NAME.fullmatch(name)
    return GENRES.get(found[1], found[1]) if found else name


def dancer(name: str) -> str:
    """The dancer that a sequence's name says, such as ``d04``."""
    found = _NAME.fullmatch(name)
    return found[2] if found else name


@dataclass(frozen=True, eq=False)
class Lens:
    """One camera of a setting, with the distortion that a capture's cameras do not have."""

    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, " 3"]
    """mm."""
    intrinsics: Float64[np.ndarray, "3 3"]
    distortion: Float64[np.ndarray, " coefficients"]
    """As OpenCV has them."""
    width: int
    height: int

    def camera(self) -> Camera:
        """It as a pinhole, in the world turned to +Z up."""
        return turned(Camera(self.rotation, self.translation, self.intrinsics), UP)

    def pixels(self, world: Float64[np.ndarray, "n joints 3"]) -> Float64[np.ndarray, "n joints 2"]:
        """Where places of the set's own world, in mm, are in the image; NaN behind the camera, or if unknown."""
        own = world.reshape(-1, 3) @ self.rotation.T + self.translation
        seen = np.isfinite(own).all(axis=1) & (own[:, 2] > 1)
        pixels = np.full((len(own), 2), np.nan)
        if seen.any():
            still = np.zeros(3)
            pixels[seen] = cv2.projectPoints(own[seen], still, still, self.intrinsics, self.distortion)[0][:, 0]
        return pixels.reshape(*world.shape[:2], 2)


def read_names(path: Path) -> tuple[str, ...]:
    """Sequences that a file of the release lists, one a line; an empty file has none.

    Raises:
        SourceError: The file is missing, or a line is no sequence of the set.
    """
    names = []
    for line, text in enumerate(_text(path).splitlines(), start=1):
        name = text.strip().removesuffix(".pkl").removesuffix(".json")
        if not name:
            continue
        if not _NAME.fullmatch(name):
            raise SourceError(
                f"{path} line {line}: expected the name of a sequence such as gBR_sBM_cAll_d04_mBR0_ch01, came "
                f"{text[:80]!r}; unpack the annotations (fullset.zip) again"
            )
        names.append(name)
    return tuple(names)


def read_mapping(path: Path) -> dict[str, str]:
    """The setting of cameras of every sequence, from ``cameras/mapping.txt``.

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
                f"{path} line {line}: expected a sequence and its setting (gBR_sBM_cAll_d04_mBR0_ch01 setting1), came "
                f"{text[:80]!r}; unpack the cameras (cameras.zip) again"
            )
        mapping[cells[0]] = cells[1]
    if not mapping:
        raise SourceError(f"{path}: expected lines of a sequence and its setting, came none; unpack cameras.zip again")
    return mapping


def read_lenses(path: Path) -> dict[str, Lens]:
    """The cameras of a setting by name, from its JSON (name, size, matrix, rotation, translation, distortions).

    Raises:
        SourceError: The file is missing, is no JSON, or a camera is not as expected.
    """
    text = _text(path)
    try:
        lenses = {}
        for entry in json.loads(text):
            matrix = np.array(entry["matrix"], np.float64).reshape(3, 3)
            vector = np.array(entry["rotation"], np.float64).reshape(3)
            translation = np.array(entry["translation"], np.float64).reshape(3) * CM
            distortion = np.array(entry["distortions"], np.float64).ravel()
            if not all(np.isfinite(v).all() for v in (matrix, vector, translation, distortion)):
                raise ValueError("a number is not finite")
            width, height = (int(v) for v in entry["size"])
            rotation = np.asarray(cv2.Rodrigues(vector)[0], np.float64)
            lenses[str(entry["name"])] = Lens(rotation, translation, matrix, distortion, width, height)
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path}: expected a JSON list of cameras with name, size, matrix, rotation, translation and distortions, "
            f"which cannot be read ({type(error).__name__}: {error}); unpack the cameras (cameras.zip) again"
        ) from error
    return lenses


def read_joints(path: Path, smooth: bool) -> Float64[np.ndarray, "t 17 3"]:
    """The set's 17 joints at 60 a second, in its own unit and axes; NaN where it has none.

    Nothing but numpy arrays is taken from the pickle.

    Args:
        path: ``keypoints3d/gBR_….pkl``.
        smooth: ``keypoints3d_optim`` instead of ``keypoints3d``.

    Raises:
        SourceError: The file is missing, empty, cut short, or holds something else.
    """
    key = "keypoints3d_optim" if smooth else "keypoints3d"
    if not path.is_file() or path.stat().st_size == 0:
        what = "the file is empty (0 bytes)" if path.is_file() else "no such file"
        raise SourceError(f"{path}: {what}; unpack the joints (keypoints3d.zip) again")
    try:
        with path.open("rb") as file:
            joints = number_array(load_arrays(file)[key])
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise SourceError(
            f"{path}: expected a pickle of the array {key}, which cannot be read ({type(error).__name__}: {error}); "
            "unpack the joints (keypoints3d.zip) again"
        ) from error
    if joints.ndim != 3 or joints.shape[1:] != (len(COCO), 3) or not len(joints):
        raise SourceError(
            f"{path}: expected {key} with N × 17 × 3 numbers, came {' × '.join(map(str, joints.shape))}; use the "
            "release's keypoints3d, not keypoints2d or motions"
        )
    if not np.isfinite(joints).all(axis=(1, 2)).any():
        raise SourceError(f"{path}: not one of its {len(joints)} poses is whole; unpack keypoints3d.zip again")
    return joints


def seventeen(points: Float64[np.ndarray, "t coco 3"]) -> Float64[np.ndarray, "t 17 3"]:
    """The joints of mcss from those of COCO, those it does not have as in `MADE`; unit and axes stay."""
    joints = []
    for name in JOINTS:
        side = {"L": "left_", "R": "right_"}.get(name[0], "")
        mean = MADE.get(name) or {side + name[1:].lower().replace("foot", "ankle"): 1.0}
        joints.append(Joint(tuple(map(COCO.index, mean)), tuple(mean.values()), made=name in MADE))
    return joint_places(points, joints)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        what = "no such file" if not path.exists() else f"it cannot be read as text ({error})"
        raise SourceError(f"{path}: {what}; unpack the annotations of AIST++ (fullset.zip) again") from error
