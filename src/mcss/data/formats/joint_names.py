"""Finding the 17 joints among the points of a label file, by their usual names or by the user's mapping."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.errors import SourceError
from mcss.skeletons import JOINTS

JointMapping = Mapping[str, str | Sequence[str]]
"""The point of each mapped joint of `JOINTS`, or several points whose mean it is."""

COMMON = 0.8
"""If this share of the names begins with the same word, it says nothing about the joint."""

_SIDED = {
    "Hip": ("upleg", "upperleg", "thigh", "hip", "hipjoint", "hjc"),
    "Knee": ("knee", "leg", "lowerleg", "lowleg", "shin", "calf", "kjc"),
    "Foot": ("ankle", "foot", "ajc"),
    "Shoulder": ("arm", "upperarm", "uparm", "uarm", "shoulder", "sjc"),
    "Elbow": ("elbow", "forearm", "lowerarm", "lowarm", "farm", "ejc"),
    "Wrist": ("wrist", "hand", "wjc"),
}
"""Names of the points of each side, the best first; those of bones stand for the joint at which the bone begins."""

_AFTER = {"Hip": ("knee", "kjc"), "Shoulder": ("elbow", "ejc")}
"""Names of the next joint of the limb. A file that has one of them names joints: its thigh or upper arm is a marker on
the limb. In a file that names bones, LHipJoint lies in the pelvis and LeftShoulder is a collar bone (BVH, Motive)."""

_HEAD_TOPS = ("headtop", "topofhead", "headend", "headnub", "headsite", "vertex")

_MIDLINE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Hip": (("RHip", "LHip"), ("hip",), ("midhip",), ("pelvis",), ("hips",)),
    "Thorax": (("thorax",), ("neckbase",), ("neck",), ("upperneck",), ("RShoulder", "LShoulder")),
    "Spine": (("spine1",), ("spine",), ("Hip", "Thorax")),
    "Head": (*((name,) for name in _HEAD_TOPS), ("head",)),
    "Neck": (("nose",), ("necknose",), ("head",), ("Thorax", "Head")),
}
"""Choices for each joint on the midline, the best first; names that begin with a capital are joints found before."""


@dataclass(frozen=True)
class JointSource:
    """Where one of the 17 joints comes from: a weighted mean of points of the file."""

    points: tuple[int, ...]
    """Indices of the points in the file."""
    weights: tuple[float, ...]
    made: bool
    """Whether the joint is computed from several points because the file has no such point."""


def joints_of(path: Path, names: Sequence[str], mapping: JointMapping | None = None) -> tuple[JointSource, ...]:
    """Find the points of a file that make up each of `JOINTS`.

    A file that names all 17 joints as mcss does, in capitals or not, perhaps after a subject's name and a colon, is
    used as it is. In other files, names such as ``LHip``, ``left_hip``, ``LeftUpLeg``, ``thigh_l`` and
    ``mixamorig:LeftUpLeg`` are understood. The pelvis is the mean of the hips; ``Neck`` is the base of the neck, which
    mcss calls Thorax; and ``Nose`` (or else ``Head``, below the end of the head) is what mcss calls Neck. The top of a
    head that has ears but no top is computed from them.

    Args:
        path: The file, for messages.
        names: Names of the file's points.
        mapping: The user's mapping; joints that it leaves out are looked for.

    Raises:
        SourceError: A joint is not found, or the mapping names something that does not exist.
    """
    mapping = mapping or {}
    _check(path, names, mapping)
    plain_names = [name.rpartition(":")[2].strip().casefold() for name in names]
    if not mapping and all(plain_names.count(joint.casefold()) == 1 for joint in JOINTS):
        return tuple(_mean([_point(plain_names.index(joint.casefold()))]) for joint in JOINTS)
    known = _Names(path, names)
    sources = {
        joint: _mean([_point(names.index(point)) for point in ([value] if isinstance(value, str) else value)])
        for joint, value in mapping.items()
    }
    for side, words in (("R", ("r", "right")), ("L", ("l", "left"))):
        for part, names_of_part in _SIDED.items():
            named = any(known.has(text) for after in _AFTER.get(part, ()) for text in _spellings(after, words))
            aliases = (part.lower(), *names_of_part) if named else names_of_part
            spellings = (text for alias in aliases for text in _spellings(alias, words))
            if side + part not in sources and (hit := next(filter(known.has, spellings), None)):
                sources[side + part] = _mean([point for point in (known.point(hit),) if point])
    for joint, choices in _MIDLINE.items():
        for choice in choices if joint not in sources else ():
            if joint == "Neck" and choice == ("head",) and known.has("head") and sources["Head"] == known.point("head"):
                continue  # the only point of the head is used for its top already
            parts = [sources.get(word) if word[0].isupper() else known.point(word) for word in choice]
            if all(parts):
                sources[joint] = _mean([part for part in parts if part])
                break
    if "Head" not in sources and (top := _head_above_ears(known, sources)):
        sources["Head"] = top
    absent = [joint for joint in JOINTS if joint not in sources]
    if absent:
        raise SourceError(
            f"{path}: found no point for {', '.join(absent)}; the file has {_some(names)}. Name them in a mapping file "
            f'(--poses.joints), such as joints.toml with the line {absent[0]} = "name in the file" or a list of '
            "names, whose mean is used"
        )
    return tuple(sources[joint] for joint in JOINTS)


def _spellings(name: str, sides: Sequence[str]) -> list[str]:
    return [text for side in sides for text in (side + name, name + side)]


def _head_above_ears(known: "_Names", sources: Mapping[str, JointSource]) -> JointSource | None:
    """Return the top of the head from ears, nose and shoulders; None without them.

    It is as far above the ears as they are above the chin, times 0.8; the chin lies at 0.7 of the way from the middle
    of the shoulders to the middle of the face (as `mcss.models.landmark_teacher` assumes too).
    """
    ears, nose = (known.point("leftear"), known.point("rightear")), known.point("nose")
    shoulders = sources.get("LShoulder"), sources.get("RShoulder")
    if nose is None or None in (*ears, *shoulders):
        return None
    parts = ((ears[0], 0.76), (ears[1], 0.76), (shoulders[0], -0.12), (shoulders[1], -0.12), (nose, -0.28))
    points = tuple(point for part, _ in parts if part for point in part.points)
    weights = tuple(share * weight for part, weight in parts if part for share in part.weights)
    return JointSource(points, weights, made=True)


def joint_positions(
    points: Float64[np.ndarray, "samples names 3"], joints: Sequence[JointSource]
) -> Float64[np.ndarray, "samples 17 3"]:
    """The 17 joints in the file's own unit and axes; NaN if one of their points is missing."""
    return np.stack([np.tensordot(points[:, list(j.points)], j.weights, axes=(1, 0)) for j in joints], axis=1)


def _check(path: Path, names: Sequence[str], mapping: JointMapping) -> None:
    unknown = [joint for joint in mapping if joint not in JOINTS]
    if unknown:
        raise SourceError(f"the mapping names {', '.join(unknown)}; expected joints of mcss: {', '.join(JOINTS)}")
    for joint, value in mapping.items():
        points = [value] if isinstance(value, str) else list(value)
        if not points:
            raise SourceError(f"the mapping names no point for {joint}; name one or several of {_some(names)}")
        for point in points:
            if point not in names:
                raise SourceError(
                    f"{path}: there is no point {point!r}, which the mapping names for {joint}; there "
                    f"are {_some(names)}"
                )


def _point(index: int) -> JointSource:
    return JointSource((index,), (1.0,), made=False)


def _mean(parts: Sequence[JointSource]) -> JointSource:
    points = tuple(point for part in parts for point in part.points)
    weights = tuple(weight / len(parts) for part in parts for weight in part.weights)
    return JointSource(points, weights, made=len(parts) > 1)


class _Names:
    """The points of a file by their plain names."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._path, self._names = path, names
        self._indices: dict[str, list[int]] = {}
        for index, name in enumerate(_without_common_word(names)):
            self._indices.setdefault(_plain(name), []).append(index)

    def has(self, plain: str) -> bool:
        return plain in self._indices

    def point(self, plain: str) -> JointSource | None:
        indices = self._indices.get(plain, [])
        if len(indices) > 1:
            names = " and ".join(repr(self._names[index]) for index in indices)
            raise SourceError(
                f"{self._path}: the points {names} could be the same joint "
                "(are there two people?); leave one out of the file, or name each joint's point in a mapping file "
                "(--poses.joints)"
            )
        return _point(indices[0]) if indices else None


def _without_common_word(names: Sequence[str]) -> list[str]:
    """Leave out the first word of the names if nearly all begin with it, such as ``Bip01`` or a subject's name."""
    words = [match[1] if (match := re.match(r"([^\s_:.\-]+[\s_:.\-]+)\S", name)) else "" for name in names]
    common = max(dict.fromkeys(words), key=words.count)
    if len(names) < 4 or words.count(common) < COMMON * len(names):
        return list(names)
    return [name.removeprefix(common) for name in names]


def _plain(name: str) -> str:
    """The lower-case letters and digits of a name, without a prefix such as ``mixamorig:``."""
    return re.sub(r"[^a-z0-9]", "", name.rpartition(":")[2].lower())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
