"""BVH motion files: one skeleton with bones of fixed length, moved by joint angles.

Files are written for animation programs: centimetres, +Y up, canonical poses facing +Z. Where several bones leave a
joint, each begins with a joint of its own at the same place (as in the files of CMU's motion capture), so that every
bone can point wherever it does in the pose. Joint positions do not determine how a bone is turned about its own axis;
it keeps the turn of its parent bone.
"""

import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.transform import Rotation

from mcss.data.formats.trajectories import Trajectories, read_text, trajectories
from mcss.errors import SourceError
from mcss.files import write_text
from mcss.skeletons import JOINTS, PARENTS, bone_lengths

_POSITIONS = ("Xposition", "Yposition", "Zposition")
_ROTATIONS = ("Xrotation", "Yrotation", "Zrotation")

_CHANNELS = {channel.lower(): channel for channel in (*_POSITIONS, *_ROTATIONS)}

MAX_JOINTS = 1000
"""A file with more joints than this is damaged: no body has as many."""

BRANCHES = {
    "RHip": "RHipJoint",
    "LHip": "LHipJoint",
    "Spine": "LowerBack",
    "Neck": "NeckBase",
    "LShoulder": "LCollar",
    "RShoulder": "RCollar",
}
"""The joints of zero length that are written before joints which share their parent with others."""

_CM = 0.1
_ORDER: Literal["ZXY"] = "ZXY"

_TIP_CM = 8.0
"""Length of a limb beyond its last joint."""

_T_POSE = {
    "RHip": (-1, 0, 0), "LHip": (1, 0, 0), "RKnee": (0, -1, 0), "LKnee": (0, -1, 0), "RFoot": (0, -1, 0),
    "LFoot": (0, -1, 0), "Spine": (0, 1, 0), "Thorax": (0, 1, 0), "Neck": (0, 1, 0), "Head": (0, 1, 0),
    "LShoulder": (1, 0, 0), "LElbow": (1, 0, 0), "LWrist": (1, 0, 0),
    "RShoulder": (-1, 0, 0), "RElbow": (-1, 0, 0), "RWrist": (-1, 0, 0),
}  # fmt: skip
"""Where each bone points in the rest pose."""


@dataclass
class _BvhJoint:
    name: str
    parent: int
    offset: Float64[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    channels: tuple[str, ...] = ()


def read_bvh(path: Path) -> Trajectories:
    """Read the positions of the joints of a BVH file, by forward kinematics.

    The end of a limb is called ``NAME_end`` after the joint before it, and a second one there ``NAME_end2``. A joint
    that has position channels is placed by them and not by its OFFSET. BVH states no unit and no up axis.

    Raises:
        SourceError: The file is not BVH, is cut short, or has values that are not numbers.
    """
    try:
        words = _words(read_text(path))
        joints = _read_hierarchy(words)
        count, seconds, values = _read_motion(words)
    except (StopIteration, ValueError, IndexError) as error:
        reason = "it ends in the middle" if isinstance(error, StopIteration) else str(error)
        raise SourceError(
            f"{path}: cannot be read as BVH ({reason}); expected HIERARCHY with ROOT, JOINT and End Site, then MOTION "
            "with Frames, Frame Time and a line of numbers for each frame: export it again"
        ) from error
    channels = sum(len(joint.channels) for joint in joints)
    notes = []
    if channels and len(values) > count * channels and len(values) % channels == 0:
        stated, count = count, len(values) // channels
        notes.append(f"its header states {stated} frames, it has {count}; all are read")
    if not channels or len(values) != count * channels:  # without channels any number of frames would fit
        raise SourceError(
            f"{path}: expected {count} frames of {channels} numbers, got {len(values)} numbers; the file was cut "
            "short or its header is wrong: export it again"
        )
    points = _forward_kinematics(joints, values.reshape(count, channels))
    names = [joint.name for joint in joints]
    return trajectories(path, names, points, np.arange(count) * seconds, notes=notes, zero_is_missing=False)


def write_bvh(path: Path, pose: Float[np.ndarray, "n 17 3"], rate: float) -> None:
    """Write poses through time; a BVH has no start time, so the first one is at 0 s.

    Args:
        path: The file.
        pose: mm, +Z up, with the path of the root or without it; bones whose length varies have their median length in
            the file.
        rate: Poses per second.
    """
    offsets = rest_offsets(pose)
    columns = [y_up(pose[:, 0]) * _CM + 0.0]
    columns += [_euler_angles(turn) for turn in _local_rotations(y_up(pose), offsets)]
    values = np.concatenate(columns, axis=1)
    lines = ["HIERARCHY", *_hierarchy_lines(offsets), "MOTION", f"Frames: {len(pose)}", f"Frame Time: {1 / rate:.8f}"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in values]
    write_text(path, "\n".join(lines) + "\n")


def y_up(pose: Float[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
    """Convert points with +Z up and -Y ahead to +Y up and +Z ahead; the unit stays."""
    return np.stack([pose[..., 0], pose[..., 2], -pose[..., 1]], axis=-1).astype(np.float64)


def rest_offsets(pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "17 3"]:
    """Offsets in cm from each joint's parent to it in the rest pose, +Y up, with the median bone lengths of `pose`."""
    offsets = np.zeros((len(JOINTS), 3))
    median = np.median(bone_lengths(pose), axis=0) * _CM
    for joint in range(1, len(JOINTS)):
        offsets[joint] = np.array(_T_POSE[JOINTS[joint]], float) * max(float(median[joint - 1]), 0.1)
    return offsets


def with_fixed_bones(pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 3"]:
    """The poses (mm) as `write_bvh` writes them: each bone keeps its direction and gets its median length."""
    lengths = np.linalg.norm(rest_offsets(pose), axis=1) / _CM
    fixed = np.zeros(pose.shape)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            fixed[:, joint] = fixed[:, parent] + lengths[joint] * _unit(pose[:, joint] - pose[:, parent])
    return fixed


def _words(text: str) -> Iterator[str]:
    """Split a file into words; the name of a joint runs to the end of its line, or to the brace there.

    Some programs write decimal commas where the language of the computer does, keywords in other capitals, or no space
    after a colon.
    """
    for line in text.split("\n"):
        kind = line.split(maxsplit=1)
        stated = re.fullmatch(r"\s*(frames|frame\s+time)\s*:(.*)", line, re.IGNORECASE)
        if stated:
            yield from ["Frames:"] if stated[1].lower() == "frames" else ["Frame", "Time:"]
            yield from stated[2].replace(",", ".").split()
        elif len(kind) == 2 and kind[0].upper() in ("ROOT", "JOINT", "END"):
            name, brace, rest = kind[1].partition("{")
            yield kind[0]
            yield name.strip()  # of an end: Site, and perhaps a name, which is not needed
            yield from [brace] * bool(brace) + rest.split()
        else:
            yield from line.replace(",", ".").split()


def _read_hierarchy(words: Iterator[str]) -> list[_BvhJoint]:
    if (word := next(words)).upper() != "HIERARCHY":
        raise ValueError(f"it starts with {word[:20]!r}")
    joints: list[_BvhJoint] = []
    open_joints: list[int] = []
    for word in words:
        match word.upper():
            case "ROOT" | "JOINT":
                joints.append(_BvhJoint(next(words), open_joints[-1] if open_joints else -1))
            case "END":
                next(words)  # "Site"
                name = joints[open_joints[-1]].name + "_end"
                ends = sum(joint.parent == open_joints[-1] and joint.name.startswith(name) for joint in joints)
                joints.append(_BvhJoint(f"{name}{ends + 1}" if ends else name, open_joints[-1]))
            case "{":
                open_joints.append(len(joints) - 1)
            case "}":
                open_joints.pop()
            case "OFFSET":
                joints[open_joints[-1]].offset = np.array([float(next(words)) for _ in range(3)])
            case "CHANNELS":
                count = int(next(words))
                names = [next(words) for _ in range(count)]
                joints[open_joints[-1]].channels = tuple(_CHANNELS.get(name.lower(), name) for name in names)
            case "MOTION":
                break
            case _:
                raise ValueError(f"{word[:20]!r} is not a keyword")
        if len(joints) > MAX_JOINTS:
            raise ValueError(f"more than {MAX_JOINTS} joints")
    if not joints or open_joints:
        raise ValueError("its joints do not end" if joints else "it has no joints")
    unknown = {c for joint in joints for c in joint.channels} - {*_POSITIONS, *_ROTATIONS}
    if unknown:
        raise ValueError(f"the channel {min(unknown)!r} is neither a position nor a rotation about X, Y or Z")
    return joints


def _read_motion(words: Iterator[str]) -> tuple[int, float, Float64[np.ndarray, " values"]]:
    """Number of frames, seconds per frame, and the values of all channels of all frames."""
    if (word := next(words)) != "Frames:":
        raise ValueError(f"expected 'Frames:' after MOTION, got {word[:20]!r}")
    count = int(next(words))
    if (word := f"{next(words)} {next(words)}") != "Frame Time:":
        raise ValueError(f"expected 'Frame Time:', got {word[:20]!r}")
    seconds = float(next(words))
    if count < 1 or not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"expected at least one frame and a positive frame time, got {count} and {seconds}")
    return count, seconds, np.array([float(word) for word in words], np.float64)


def _forward_kinematics(
    joints: list[_BvhJoint], values: Float64[np.ndarray, "frames channels"]
) -> Float64[np.ndarray, "frames joints 3"]:
    """World positions: p = p_parent + R_parent·offset; R = R_parent·R_1·R_2·R_3 in the order of the channels."""
    positions = np.empty((len(values), len(joints), 3))
    rotations: list[Rotation] = []
    column = 0
    for k, joint in enumerate(joints):
        offset = np.broadcast_to(joint.offset, (len(values), 3)).copy()
        if joint.parent >= 0:
            parent, above = positions[:, joint.parent], rotations[joint.parent]
        else:
            parent, above = np.zeros((len(values), 3)), Rotation.identity(len(values))
        rotation = above
        for channel in joint.channels:
            value = values[:, column]
            column += 1
            if channel in _POSITIONS:
                offset[:, _POSITIONS.index(channel)] = value
            else:
                rotation = rotation * Rotation.from_euler(channel[0].lower(), value[:, None], degrees=True)
        positions[:, k] = parent + above.apply(offset)
        rotations.append(rotation)
    return positions


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(PARENTS) if parent == joint]


def _written_joints() -> Iterator[tuple[str, int, int | None]]:
    """The joints in the order of the file.

    Yields the name, the joint at whose place it is, and the joint that its bone points to (None at the end of a limb).
    """

    def below(joint: int) -> Iterator[tuple[str, int, int | None]]:
        children = _children(joint)
        single = children[0] if len(children) == 1 else None
        yield JOINTS[joint], joint, single
        for child in children:
            if single is None:
                yield BRANCHES[JOINTS[child]], joint, child
            yield from below(child)

    yield from below(0)


def _hierarchy_lines(offsets: Float64[np.ndarray, "17 3"]) -> list[str]:
    lines: list[str] = []

    def write(name: str, offset: Float64[np.ndarray, " 3"], depth: int) -> None:
        pad = "  " * depth
        positions = "" if depth else "Xposition Yposition Zposition "
        kind = "JOINT" if depth else "ROOT"
        numbers = " ".join(f"{value:.6f}" for value in offset)
        rotations = " ".join(f"{axis}rotation" for axis in _ORDER)
        lines.extend([f"{pad}{kind} {name}", f"{pad}{{", f"{pad}  OFFSET {numbers}"])
        lines.append(f"{pad}  CHANNELS {3 if depth else 6} {positions}{rotations}")

    def below(joint: int, depth: int) -> None:
        write(JOINTS[joint], offsets[joint], depth)
        children, pad = _children(joint), "  " * depth
        for child in children:
            if len(children) == 1:
                below(child, depth + 1)
            else:
                write(BRANCHES[JOINTS[child]], np.zeros(3), depth + 1)
                below(child, depth + 2)
                lines.append(f"{pad}  }}")
        if not children:
            tip = " ".join(f"{value:.6f}" for value in _TIP_CM * np.array(_T_POSE[JOINTS[joint]], float))
            lines.extend([f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET {tip}", f"{pad}  }}"])
        lines.append(f"{pad}}}")

    below(0, 0)
    return lines


def _local_rotations(pose: Float64[np.ndarray, "n 17 3"], offsets: Float64[np.ndarray, "17 3"]) -> list[Rotation]:
    """The rotation of every joint of the file relative to its parent in the file."""
    world: dict[str, Rotation] = {}
    local: list[Rotation] = []
    for name, joint, target in _written_joints():
        above = world[_written_parent(name)] if name != JOINTS[0] else Rotation.identity(len(pose))
        if name == JOINTS[0]:
            rotation = _pelvis_rotation(pose)
        elif target is None:
            rotation = above
        else:
            swing = _swing(above.apply(_unit(offsets[target])), _unit(pose[:, target] - pose[:, joint]))
            rotation = swing * above
        world[name] = rotation
        local.append(above.inv() * rotation)
    return local


def _written_parent(name: str) -> str:
    """The parent of a joint in the file."""
    for child, branch in BRANCHES.items():
        if name == branch:
            return JOINTS[PARENTS[JOINTS.index(child)]]
    return BRANCHES.get(name, JOINTS[PARENTS[JOINTS.index(name)]])


def _pelvis_rotation(pose: Float64[np.ndarray, "n 17 3"]) -> Rotation:
    """The rotation of the root: its left points to the left hip, its up as close to the spine as that allows."""
    left = _unit(pose[:, JOINTS.index("LHip")] - pose[:, JOINTS.index("RHip")])
    spine = pose[:, JOINTS.index("Spine")] - pose[:, 0]
    up = _unit(spine - (spine * left).sum(axis=1, keepdims=True) * left)
    return Rotation.from_matrix(np.stack([left, up, np.cross(left, up)], axis=-1))


def _swing(start: Float64[np.ndarray, "n 3"], end: Float64[np.ndarray, "n 3"]) -> Rotation:
    """The smallest rotations that turn the unit vectors `start` into `end`."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    cosine = (start * end).sum(axis=1, keepdims=True)
    # Opposite vectors can be turned about any axis that is perpendicular to them.
    across = np.cross(start, np.where(np.abs(start[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    axis = np.where(sine > 1e-9, axis / np.maximum(sine, 1e-12), _unit(across))
    return Rotation.from_rotvec(axis * np.arctan2(sine, cosine))


def _unit(vectors: Float[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
    """Vectors of length 1; +Y for vectors without length."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.where(length > 1e-9, vectors / np.maximum(length, 1e-12), [0.0, 1.0, 0.0]), np.float64)


def _euler_angles(rotation: Rotation) -> Float64[np.ndarray, "n 3"]:
    """Euler angles in degrees in the order of the channels, without jumps of a whole turn from frame to frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at the poles one of the angles is free; scipy picks one
        angles = rotation.as_euler(_ORDER)
    return np.asarray(np.degrees(np.unwrap(angles, axis=0)), np.float64)
