"""Poses as BVH motion: one skeleton with fixed bones, moved by joint angles.

Written for programs that animate: centimetres, +Y up, canonical poses facing +Z. Where several bones leave a joint,
each begins with a joint of its own at the same place (as in the files of CMU's motion capture), so that every bone can
point wherever the pose has it. How a bone is turned about itself is not known from joints; it keeps the turn of the
bone that it hangs on.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64
from scipy.spatial.transform import Rotation

from mcss.files import write_text
from mcss.skeletons import JOINTS, PARENTS

BRANCHES = {
    "RHip": "RHipJoint",
    "LHip": "LHipJoint",
    "Spine": "LowerBack",
    "Neck": "NeckBase",
    "LShoulder": "LCollar",
    "RShoulder": "RCollar",
}
"""The joints of zero length before the joints that share their parent with others."""

_CM = 0.1
_ORDER: Literal["ZXY"] = "ZXY"
_TIP_CM = 8.0
"""Of the limbs beyond their last joint."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """Bones of fixed length in a rest pose, the T of animators."""

    offsets: Float64[np.ndarray, "17 3"]
    """From each joint's parent to it, in cm and the file's axes; zero for the root."""

    def lengths(self) -> Float64[np.ndarray, " 17"]:
        """Of the bones that end in each joint, cm."""
        return np.asarray(np.linalg.norm(self.offsets, axis=1), np.float64)


_REST = {
    "RHip": (-1, 0, 0), "LHip": (1, 0, 0), "RKnee": (0, -1, 0), "LKnee": (0, -1, 0), "RFoot": (0, -1, 0),
    "LFoot": (0, -1, 0), "Spine": (0, 1, 0), "Thorax": (0, 1, 0), "Neck": (0, 1, 0), "Head": (0, 1, 0),
    "LShoulder": (1, 0, 0), "LElbow": (1, 0, 0), "LWrist": (1, 0, 0),
    "RShoulder": (-1, 0, 0), "RElbow": (-1, 0, 0), "RWrist": (-1, 0, 0),
}  # fmt: skip


def y_up(pose: Float[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
    """Points with +Z up and -Y ahead as points with +Y up and +Z ahead; the unit stays."""
    return np.stack([pose[..., 0], pose[..., 2], -pose[..., 1]], axis=-1).astype(np.float64)


def skeleton_of(pose: Float[np.ndarray, "n 17 3"]) -> Skeleton:
    """The skeleton whose bones have the median length that they have in some poses (mm)."""
    offsets = np.zeros((len(JOINTS), 3))
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            length = float(np.median(np.linalg.norm(pose[:, joint] - pose[:, parent], axis=-1))) * _CM
            offsets[joint] = np.array(_REST[JOINTS[joint]], float) * max(length, 0.1)
    return Skeleton(offsets)


def with_fixed_bones(pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 3"]:
    """The poses with the bones that `write_bvh` gives them: each points as it did and has its median length."""
    lengths = skeleton_of(pose).lengths() / _CM
    fixed = np.zeros(pose.shape)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            fixed[:, joint] = fixed[:, parent] + lengths[joint] * _direction(pose[:, joint] - pose[:, parent])
    return fixed


def write_bvh(path: Path, pose: Float[np.ndarray, "n 17 3"], rate: float) -> None:
    """Write poses through time.

    Args:
        path: The file.
        pose: Root-relative, mm, +Z up; bones may change their length, in the file they have the median one.
        rate: Poses a second.
    """
    skeleton = skeleton_of(pose)
    turns = _turns(y_up(pose), skeleton)
    columns = [np.zeros((len(pose), 3))]
    columns += [_angles(turn) for turn in turns]
    values = np.concatenate(columns, axis=1)
    lines = ["HIERARCHY", *_hierarchy(skeleton), "MOTION", f"Frames: {len(pose)}", f"Frame Time: {1 / rate:.8f}"]
    lines += [" ".join(f"{value:.6f}" for value in row) for row in values]
    write_text(path, "\n".join(lines) + "\n")


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(PARENTS) if parent == joint]


def _joints() -> Iterator[tuple[str, int, int | None]]:
    """In the file's order: name, the joint at whose place it is, the one its bone points to (None at a limb's end)."""

    def below(joint: int) -> Iterator[tuple[str, int, int | None]]:
        children = _children(joint)
        single = children[0] if len(children) == 1 else None
        yield JOINTS[joint], joint, single
        for child in children:
            if single is None:
                yield BRANCHES[JOINTS[child]], joint, child
            yield from below(child)

    yield from below(0)


def _hierarchy(skeleton: Skeleton) -> list[str]:
    lines: list[str] = []

    def write(name: str, offset: Float64[np.ndarray, " 3"], depth: int) -> None:
        pad = "  " * depth
        positions = "" if depth else "Xposition Yposition Zposition "
        kind = "JOINT" if depth else "ROOT"
        place = " ".join(f"{value:.6f}" for value in offset)
        rotations = " ".join(f"{axis}rotation" for axis in _ORDER)
        lines.extend([f"{pad}{kind} {name}", f"{pad}{{", f"{pad}  OFFSET {place}"])
        lines.append(f"{pad}  CHANNELS {3 if depth else 6} {positions}{rotations}")

    def below(joint: int, depth: int) -> None:
        write(JOINTS[joint], skeleton.offsets[joint], depth)
        children, pad = _children(joint), "  " * depth
        for child in children:
            if len(children) == 1:
                below(child, depth + 1)
            else:
                write(BRANCHES[JOINTS[child]], np.zeros(3), depth + 1)
                below(child, depth + 2)
                lines.append(f"{pad}  }}")
        if not children:
            tip = " ".join(f"{value:.6f}" for value in _TIP_CM * np.array(_REST[JOINTS[joint]], float))
            lines.extend([f"{pad}  End Site", f"{pad}  {{", f"{pad}    OFFSET {tip}", f"{pad}  }}"])
        lines.append(f"{pad}}}")

    below(0, 0)
    return lines


def _turns(pose: Float64[np.ndarray, "n 17 3"], skeleton: Skeleton) -> list[Rotation]:
    """The rotation of every joint of the file relative to the one above it."""
    count = len(pose)
    whole: dict[str, Rotation] = {}  # relative to the world, by name
    turns: list[Rotation] = []
    for name, joint, target in _joints():
        above = whole[_above(name)] if name != JOINTS[0] else Rotation.identity(count)
        if name == JOINTS[0]:
            turn = _pelvis(pose)
        elif target is None:
            turn = above
        else:
            turn = _swing(
                above.apply(_direction(skeleton.offsets[target])), _direction(pose[:, target] - pose[:, joint])
            )
            turn = turn * above
        whole[name] = turn
        turns.append(above.inv() * turn)
    return turns


def _above(name: str) -> str:
    """The joint of the file that another hangs on."""
    for child, branch in BRANCHES.items():
        if name == branch:
            return JOINTS[PARENTS[JOINTS.index(child)]]
    return BRANCHES.get(name, JOINTS[PARENTS[JOINTS.index(name)]])


def _pelvis(pose: Float64[np.ndarray, "n 17 3"]) -> Rotation:
    """The turn of the root: its left to the left hip, its up as near to the spine as that allows."""
    left = _direction(pose[:, JOINTS.index("LHip")] - pose[:, JOINTS.index("RHip")])
    spine = pose[:, JOINTS.index("Spine")] - pose[:, 0]
    up = _direction(spine - (spine * left).sum(axis=1, keepdims=True) * left)
    return Rotation.from_matrix(np.stack([left, up, np.cross(left, up)], axis=-1))


def _swing(start: Float64[np.ndarray, "n 3"], end: Float64[np.ndarray, "n 3"]) -> Rotation:
    """The smallest rotations that turn unit vectors into others."""
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis, axis=1, keepdims=True)
    cosine = (start * end).sum(axis=1, keepdims=True)
    # Opposite vectors: any axis across them does.
    across = np.cross(start, np.where(np.abs(start[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]]))
    axis = np.where(sine > 1e-9, axis / np.maximum(sine, 1e-12), _direction(across))
    return Rotation.from_rotvec(axis * np.arctan2(sine, cosine))


def _direction(vectors: Float[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(np.where(length > 1e-9, vectors / np.maximum(length, 1e-12), [0.0, 1.0, 0.0]), np.float64)


def _angles(turn: Rotation) -> Float64[np.ndarray, "n 3"]:
    """Euler angles in degrees in the order of the channels, without jumps of a whole turn from frame to frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # at the poles one of the angles is free; scipy picks one
        angles = turn.as_euler(_ORDER)
    return np.asarray(np.degrees(np.unwrap(angles, axis=0)), np.float64)
