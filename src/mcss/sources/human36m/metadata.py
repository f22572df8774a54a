"""``metadata.xml``: which file belongs to which action of which subject, and the cameras."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.transform import Rotation

from mcss.data.capture import Camera
from mcss.errors import SourceError

CAMERAS, SUBJECTS = 4, 11
"""The extrinsics are a block of cameras × subjects × 6."""

_HEADER = ("Action", "subaction")
_SAFE = re.compile(r"\w+( \w+)*")


@dataclass(frozen=True)
class Lens:
    """One camera as it stood for one subject, with the distortion of its lens."""

    name: str
    """The camera's id, such as ``54138969``."""
    angles: tuple[float, ...]
    """Radians: the rotation world→camera is Rx(a) · Ry(b) · Rz(c)."""
    position: tuple[float, ...]
    """Of the camera in the world, mm."""
    focal: tuple[float, float]
    centre: tuple[float, float]
    """Principal point, pixels."""
    distortion: tuple[float, ...]
    """k1 k2 p1 p2 k3, in OpenCV's order."""

    def camera(self) -> Camera:
        """The pinhole camera; what the lens bends is left out."""
        rotation = Rotation.from_euler("XYZ", self.angles).as_matrix()
        (fx, fy), (cx, cy) = self.focal, self.centre
        return Camera(rotation, -rotation @ self.position, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))

    def pixels(self, points: Float[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
        """Where world points in mm appear in the image, with distortion; NaN stays NaN, as what lies behind does."""
        camera = self.camera()
        seen = np.asarray(points, np.float64) @ camera.rotation.T + camera.translation
        found = np.full((len(seen), 2), np.nan)
        ahead = np.isfinite(seen).all(axis=1) & (seen[:, 2] > 1)
        if ahead.any():
            still, bent = np.zeros(3), np.array(self.distortion)
            found[ahead] = cv2.projectPoints(seen[ahead], still, still, camera.intrinsics, bent)[0][:, 0]
        return found


@dataclass(frozen=True)
class Take:
    """One sequence of one subject."""

    subject: str
    file: str
    """What its files begin with, such as ``Walking 1``; numbers mean different takes for different subjects."""
    action: str
    """By the set's list of actions: ``WalkingDog`` where files say ``WalkDog``."""
    index: tuple[int, int]
    """Numbers of action and sub-action, from 1."""


@dataclass(frozen=True)
class Metadata:
    """What ``metadata.xml`` says."""

    takes: tuple[Take, ...]
    """Of all subjects, without the ``_ALL`` files."""
    actions: tuple[str, ...]
    """Their names by number, less one."""
    lenses: Mapping[str, tuple[Lens, ...]]
    """Four for each subject."""


def read_metadata(path: Path) -> Metadata:
    """Read ``metadata.xml``.

    Raises:
        SourceError: It is missing, is no XML, or lacks something.
    """
    way_out = (
        "it comes with the set's code (Release-v1.2) and with Visualization; copy it there or name it with metadata"
    )
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected Human3.6M's metadata.xml: {way_out}")
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, UnicodeError, ValueError) as error:
        raise SourceError(f"{path}: expected XML, came something else or half of it ({error}): {way_out}") from error
    try:
        return Metadata(_takes(root), tuple(_texts(_element(root, "actionnames"))), _lenses(root))
    except (LookupError, TypeError, ValueError) as error:
        raise SourceError(f"{path}: expected Human3.6M's metadata, but {error}: {way_out}") from error


def _element(root: ElementTree.Element, name: str) -> ElementTree.Element:
    found = root.find(f".//{name}")
    if found is None:
        raise LookupError(f"the element <{name}> is missing")
    return found


def _texts(element: ElementTree.Element) -> list[str]:
    return [(child.text or "").strip() for child in element]


def _takes(root: ElementTree.Element) -> tuple[Take, ...]:
    actions = _texts(_element(root, "actionnames"))
    rows = [_texts(row) for row in _element(root, "mapping")]
    if not rows or tuple(rows[0][:2]) != _HEADER or not all(re.fullmatch(r"S\d+", name) for name in rows[0][2:]):
        raise LookupError("the first row of <mapping> is not Action, subaction, S1, …")
    subjects = rows[0][2:]
    takes = []
    for row in rows[1:]:
        if len(row) < 2 or not (row[0].isdecimal() and row[1].isdecimal()):
            continue  # the second header and the image sizes
        if len(row) != len(rows[0]) or not 1 <= int(row[0]) <= len(actions):
            raise LookupError(
                f"the row {', '.join(row)} of <mapping> does not fit {len(rows[0])} columns and <actionnames>"
            )
        for subject, file in zip(subjects, row[2:], strict=True):
            if not _SAFE.fullmatch(file):
                raise ValueError(f"{file!r} of {subject} in <mapping> is not the beginning of a file's name")
            if not file.startswith("_ALL"):
                takes.append(Take(subject, file, actions[int(row[0]) - 1], (int(row[0]), int(row[1]))))
    return tuple(takes)


def _lenses(root: ElementTree.Element) -> dict[str, tuple[Lens, ...]]:
    names = _texts(_element(_element(root, "dbcameras"), "index2id"))
    numbers = np.array((_element(root, "w0").text or "").strip(" \r\n\t[]").split(), np.float64)
    outside = CAMERAS * SUBJECTS * 6
    if len(numbers) != outside + CAMERAS * 9 or not np.isfinite(numbers).all():
        raise ValueError(f"<w0> has {len(numbers)} numbers instead of {outside + CAMERAS * 9} finite ones")
    if len(names) != CAMERAS or not all(name.isdecimal() for name in names):
        raise ValueError(f"<index2id> names {', '.join(names)} instead of {CAMERAS} cameras")
    extrinsics = numbers[:outside].reshape(CAMERAS, SUBJECTS, 6).tolist()
    intrinsics = numbers[outside:].reshape(CAMERAS, 9).tolist()
    lenses = {}
    for subject in range(SUBJECTS):
        lenses[f"S{subject + 1}"] = tuple(
            Lens(name, tuple(outer[subject][:3]), tuple(outer[subject][3:]), (fx, fy), (cx, cy), (k1, k2, p1, p2, k3))
            for name, outer, (fx, fy, cx, cy, k1, k2, k3, p1, p2) in zip(names, extrinsics, intrinsics, strict=True)
        )
    return lenses
