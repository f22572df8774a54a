"""``metadata.xml`` of Human3.6M: which file shows which action of which subject, and the cameras."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from mcss.errors import SourceError, damage_as
from mcss.sources.distorted_camera import DistortedCamera

CAMERAS, SUBJECTS = 4, 11

_HEADER = ("Action", "subaction")
_SAFE = re.compile(r"\w+( \w+)*")


@dataclass(frozen=True)
class ListedSequence:
    """One sequence of one subject, as ``metadata.xml`` lists it."""

    subject: str
    file: str
    """Beginning of the names of its files, such as ``Walking 1``; the same number may mean different performances of
    different subjects."""
    action: str
    """The action by the data set's list: ``WalkingDog`` where files are called ``WalkDog``."""
    index: tuple[int, int]
    """Numbers of action and sub-action, from 1."""


@dataclass(frozen=True)
class Metadata:
    """The contents of ``metadata.xml``."""

    sequences: tuple[ListedSequence, ...]
    """The sequences of all subjects, without the ``_ALL`` files."""
    actions: tuple[str, ...]
    """Names of the actions; action number 1 is the first."""
    cameras: Mapping[str, tuple[DistortedCamera, ...]]
    """The four cameras as they stood for each subject."""


def read_metadata(path: Path) -> Metadata:
    """Read ``metadata.xml``.

    Raises:
        SourceError: The file is missing, is not XML, or lacks something.
    """
    way_out = "it comes with the data set's code (Release-v1.2); copy it there, or give its path (--metadata)"
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected Human3.6M's metadata.xml: {way_out}")
    with damage_as(
        SourceError, lambda why: f"{path}: expected XML, got something else or half of it ({why}): {way_out}"
    ):
        root = ElementTree.parse(path).getroot()
    with damage_as(SourceError, lambda why: f"{path}: expected Human3.6M's metadata, but {why}: {way_out}"):
        return Metadata(_sequences(root), tuple(_texts(_element(root, "actionnames"))), _cameras(root))


def _element(root: ElementTree.Element, name: str) -> ElementTree.Element:
    element = root.find(f".//{name}")
    if element is None:
        raise LookupError(f"the element <{name}> is missing")
    return element


def _texts(element: ElementTree.Element) -> list[str]:
    return [(child.text or "").strip() for child in element]


def _sequences(root: ElementTree.Element) -> tuple[ListedSequence, ...]:
    actions = _texts(_element(root, "actionnames"))
    rows = [_texts(row) for row in _element(root, "mapping")]
    if not rows or tuple(rows[0][:2]) != _HEADER or not all(re.fullmatch(r"S\d+", name) for name in rows[0][2:]):
        raise LookupError("the first row of <mapping> is not Action, subaction, S1, …")
    subjects = rows[0][2:]
    sequences = []
    for row in rows[1:]:
        if len(row) < 2 or not (row[0].isdecimal() and row[1].isdecimal()):
            continue  # the second header, and the image sizes
        if len(row) != len(rows[0]) or not 1 <= int(row[0]) <= len(actions):
            raise LookupError(
                f"the row {', '.join(row)} of <mapping> does not fit {len(rows[0])} columns and <actionnames>"
            )
        for subject, file in zip(subjects, row[2:], strict=True):
            if not _SAFE.fullmatch(file):
                raise ValueError(f"{file!r} of {subject} in <mapping> is not the beginning of a file's name")
            if not file.startswith("_ALL"):
                index = (int(row[0]), int(row[1]))
                sequences.append(ListedSequence(subject, file, actions[index[0] - 1], index))
    return tuple(sequences)


def _cameras(root: ElementTree.Element) -> dict[str, tuple[DistortedCamera, ...]]:
    """Read the cameras of every subject.

    ``<w0>`` has six numbers for each camera and subject (the angles a, b, c of the rotation Rx(a) · Ry(b) · Rz(c) from
    world to camera, and the position in mm), then nine for each camera (fx fy cx cy k1 k2 k3 p1 p2).
    """
    names = _texts(_element(_element(root, "dbcameras"), "index2id"))
    numbers = np.array((_element(root, "w0").text or "").strip(" \r\n\t[]").split(), np.float64)
    extrinsic_count = CAMERAS * SUBJECTS * 6
    if len(numbers) != extrinsic_count + CAMERAS * 9 or not np.isfinite(numbers).all():
        raise ValueError(f"<w0> has {len(numbers)} numbers instead of {extrinsic_count + CAMERAS * 9} finite ones")
    if len(names) != CAMERAS or not all(name.isdecimal() for name in names):
        raise ValueError(f"<index2id> names {', '.join(names)} instead of {CAMERAS} cameras")
    extrinsics = numbers[:extrinsic_count].reshape(CAMERAS, SUBJECTS, 6)
    intrinsics = numbers[extrinsic_count:].reshape(CAMERAS, 9)
    return {
        f"S{subject + 1}": tuple(
            _camera(name, extrinsic[subject], intrinsic)
            for name, extrinsic, intrinsic in zip(names, extrinsics, intrinsics, strict=True)
        )
        for subject in range(SUBJECTS)
    }


def _camera(name: str, extrinsic: Float64[np.ndarray, "6"], intrinsic: Float64[np.ndarray, "9"]) -> DistortedCamera:
    rotation = Rotation.from_euler("XYZ", extrinsic[:3]).as_matrix()
    fx, fy, cx, cy, k1, k2, k3, p1, p2 = intrinsic.tolist()
    return DistortedCamera(
        name=name,
        rotation=rotation,
        translation=-rotation @ extrinsic[3:],
        intrinsics=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]),
        distortion=np.array([k1, k2, p1, p2, k3]),
    )
