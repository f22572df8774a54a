"""Which points of a label file are the 17 joints: by their usual names, or as the user's mapping says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.errors import SourceError
from mcss.skeletons import JOINTS

JointMapping = Mapping[str, str | Sequence[str]]
"""For a joint of `JOINTS` the point that it is, or several whose mean it is."""

_SIDED = {
    "Hip": ("upleg", "upperleg", "thigh", "hip", "hipjoint", "hjc"),  # BVH's LHipJoint lies in the pelvis
    "Knee": ("knee", "leg", "lowerleg", "lowleg", "shin", "calf", "kjc"),
    "Foot": ("ankle", "foot", "ajc"),
    "Shoulder": ("arm", "upperarm", "uparm", "shoulder", "sjc"),  # BVH's LeftShoulder is a collar bone
    "Elbow": ("elbow", "forearm", "lowerarm", "lowarm", "ejc"),
    "Wrist": ("wrist", "hand", "wjc"),
}

_HEAD_TOPS = ("headtop", "topofhead", "headend", "headnub", "headsite", "vertex")

_MIDLINE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Hip": (("RHip", "LHip"), ("hip",), ("midhip",), ("pelvis",), ("hips",)),
    "Thorax": (("thorax",), ("neckbase",), ("neck",), ("upperneck",), ("RShoulder", "LShoulder")),
    "Spine": (("spine1",), ("spine",), ("Hip", "Thorax")),
    "Head": (*((name,) for name in _HEAD_TOPS), ("head",)),
    "Neck": (("nose",), ("necknose",), ("head",), ("Thorax", "Head")),
}
"""What to take for a joint on the midline, the best first; a capital letter means a joint found before."""


@dataclass(frozen=True)
class Joint:
    """Where one of the 17 joints comes from: a weighted mean of points of the file."""

    points: tuple[int, ...]
    weights: tuple[float, ...]
    made: bool
    """Whether it is put together from others because the file has no such point."""


def joints_of(path: Path, names: Sequence[str], mapping: JointMapping | None = None) -> tuple[Joint, ...]:
    """For each of `JOINTS` the points of a file that it is the mean of.

    A file that names all 17 as mcss does is taken as it is. Otherwise: ``LHip``, ``left_hip``, ``LeftUpLeg``,
    ``thigh_l``, ``mixamorig:LeftUpLeg`` and the like; the pelvis is the mean of the hips; ``Neck`` is the base of the
    neck, which mcss calls Thorax, and ``Nose`` (else ``Head``, below the end of the head) is what it calls Neck.

    Args:
        path: For messages.
        names: Of the file's points.
        mapping: What the user says; joints it leaves out are looked for.

    Raises:
        SourceError: Joints that are not found, or a mapping of something that is not there.
    """
    mapping = mapping or {}
    _check(path, names, mapping)
    if not mapping and set(JOINTS) <= set(names):
        return tuple(_mean([_point(names.index(joint))]) for joint in JOINTS)
    known = _Names(path, names)
    found = {
        joint: _mean([_point(names.index(point)) for point in ([value] if isinstance(value, str) else value)])
        for joint, value in mapping.items()
    }
    for side, words in (("R", ("r", "right")), ("L", ("l", "left"))):
        for part, aliases in _SIDED.items():
            spellings = (text for alias in aliases for word in words for text in (word + alias, alias + word))
            if side + part not in found and (hit := next(filter(known.has, spellings), None)):
                found[side + part] = _mean([point for point in (known.point(hit),) if point])
    for joint, choices in _MIDLINE.items():
        for choice in choices if joint not in found else ():
            if joint == "Neck" and choice == ("head",) and known.has("head") and found["Head"] == known.point("head"):
                continue  # the head's only point stands for its top already
            parts = [found.get(word) if word[0].isupper() else known.point(word) for word in choice]
            if all(parts):
                found[joint] = _mean([part for part in parts if part])
                break
    absent = [joint for joint in JOINTS if joint not in found]
    if absent:
        raise SourceError(
            f"{path}: no point is known as {', '.join(absent)}; it has {_some(names)}. Name them in a mapping file "
            f'(setting poses.joints), such as joints.toml with the line {absent[0]} = "the file\'s name" or a list of '
            "names, whose mean is taken"
        )
    return tuple(found[joint] for joint in JOINTS)


def joint_places(
    points: Float64[np.ndarray, "samples names 3"], joints: Sequence[Joint]
) -> Float64[np.ndarray, "samples 17 3"]:
    """The 17 joints in the file's own unit and axes; NaN where one of their points is missing."""
    return np.stack([np.tensordot(points[:, list(j.points)], j.weights, axes=(1, 0)) for j in joints], axis=1)


def _check(path: Path, names: Sequence[str], mapping: JointMapping) -> None:
    odd = [joint for joint in mapping if joint not in JOINTS]
    if odd:
        raise SourceError(f"the mapping names {', '.join(odd)}; expected joints of mcss: {', '.join(JOINTS)}")
    for joint, value in mapping.items():
        points = [value] if isinstance(value, str) else list(value)
        if not points:
            raise SourceError(f"the mapping gives no point for {joint}; name one or several of {_some(names)}")
        for point in points:
            if point not in names:
                raise SourceError(
                    f"{path}: there is no point {point!r}, which the mapping gives for {joint}; there "
                    f"are {_some(names)}"
                )


def _point(at: int) -> Joint:
    return Joint((at,), (1.0,), made=False)


def _mean(parts: Sequence[Joint]) -> Joint:
    points = tuple(point for part in parts for point in part.points)
    weights = tuple(weight / len(parts) for part in parts for weight in part.weights)
    return Joint(points, weights, made=len(parts) > 1)


class _Names:
    """The points of a file by their plain names."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._at: dict[str, list[int]] = {}
        for at, name in enumerate(names):
            self._at.setdefault(_plain(name), []).append(at)

    def has(self, plain: str) -> bool:
        return plain in self._at

    def point(self, plain: str) -> Joint | None:
        at = self._at.get(plain, [])
        if len(at) > 1:
            raise SourceError(
                f"{self._path}: the points {' and '.join(repr(self._names[k]) for k in at)} could be the same joint "
                "(are there two people?); leave one out of the file, or name each joint's point in a mapping file "
                "(setting poses.joints)"
            )
        return _point(at[0]) if at else None


def _plain(name: str) -> str:
    """Lower-case letters and digits alone, without a prefix such as ``mixamorig:``."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(":")[2].lower())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
