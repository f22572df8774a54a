"""BVH motion files: joint angles, turned into the joints' places by forward kinematics."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from scipy.spatial.transform import Rotation

from mcss.data.formats.trajectories import Trajectories, trajectories
from mcss.errors import SourceError

_POSITIONS = ("Xposition", "Yposition", "Zposition")
_ROTATIONS = ("Xrotation", "Yrotation", "Zrotation")

MAX_JOINTS = 1000
"""More joints than any body has: the file is damaged."""


@dataclass
class _Joint:
    name: str
    parent: int
    offset: Float64[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3))
    channels: tuple[str, ...] = ()


def read_bvh(path: Path) -> Trajectories:
    """The joints of a BVH file, and the ends of its limbs as ``NAME_end``, NAME being the joint that they end.

    A joint that has position channels is where these say, not where its OFFSET says. BVH states no unit
    and no up axis.

    Raises:
        SourceError: The file is no BVH, is cut short, or has values that are no numbers.
    """
    try:
        words = iter(path.read_text(encoding="utf-8-sig", errors="strict").split())
        joints = _hierarchy(words)
        count, seconds, values = _motion(words)
    except (StopIteration, ValueError, IndexError) as error:
        reason = "it ends in the middle" if isinstance(error, StopIteration) else str(error)
        raise SourceError(
            f"{path}: cannot be read as BVH ({reason}); expected HIERARCHY with ROOT, JOINT and End Site, then MOTION "
            "with Frames, Frame Time and a line of numbers for each frame: export it again"
        ) from error
    channels = sum(len(joint.channels) for joint in joints)
    if len(values) != count * channels:
        raise SourceError(
            f"{path}: expected {count} frames of {channels} numbers, came {len(values)} numbers; the file was cut "
            "short or its header is wrong: export it again"
        )
    points = _places(joints, values.reshape(count, channels))
    return trajectories(path, [joint.name for joint in joints], points, np.arange(count) * seconds)


def _hierarchy(words: Iterator[str]) -> list[_Joint]:
    if (word := next(words)) != "HIERARCHY":
        raise ValueError(f"it starts with {word[:20]!r}")
    joints: list[_Joint] = []
    open_joints: list[int] = []
    for word in words:
        match word:
            case "ROOT" | "JOINT":
                joints.append(_Joint(next(words), open_joints[-1] if open_joints else -1))
            case "End":
                next(words)  # "Site"
                joints.append(_Joint(joints[open_joints[-1]].name + "_end", open_joints[-1]))
            case "{":
                open_joints.append(len(joints) - 1)
            case "}":
                open_joints.pop()
            case "OFFSET":
                joints[open_joints[-1]].offset = np.array([float(next(words)) for _ in range(3)])
            case "CHANNELS":
                count = int(next(words))
                names = [next(words) for _ in range(count)]
                joints[open_joints[-1]].channels = tuple(names)
            case "MOTION":
                break
            case _:
                raise ValueError(f"{word[:20]!r} is no keyword")
        if len(joints) > MAX_JOINTS:
            raise ValueError(f"more than {MAX_JOINTS} joints")
    if not joints or open_joints:
        raise ValueError("its joints do not end" if joints else "it has no joints")
    odd = {c for joint in joints for c in joint.channels} - {*_POSITIONS, *_ROTATIONS}
    if odd:
        raise ValueError(f"the channel {min(odd)!r} is neither a position nor a rotation about X, Y or Z")
    return joints


def _motion(words: Iterator[str]) -> tuple[int, float, Float64[np.ndarray, " values"]]:
    if (word := next(words)) != "Frames:":
        raise ValueError(f"expected 'Frames:' after MOTION, came {word[:20]!r}")
    count = int(next(words))
    if (word := f"{next(words)} {next(words)}") != "Frame Time:":
        raise ValueError(f"expected 'Frame Time:', came {word[:20]!r}")
    seconds = float(next(words))
    if count < 1 or not (math.isfinite(seconds) and seconds > 0):
        raise ValueError(f"expected at least one frame and a positive frame time, came {count} and {seconds}")
    return count, seconds, np.array([float(word) for word in words], np.float64)


def _places(
    joints: list[_Joint], values: Float64[np.ndarray, "frames channels"]
) -> Float64[np.ndarray, "frames joints 3"]:
    """World place of every joint: p = p_parent + R_parent·offset; R = R_parent·R_1·R_2·R_3 in the channels' order."""
    places = np.empty((len(values), len(joints), 3))
    turns: list[Rotation] = []
    at = 0
    for k, joint in enumerate(joints):
        local = np.broadcast_to(joint.offset, (len(values), 3)).copy()
        turn = turns[joint.parent] if joint.parent >= 0 else Rotation.identity(len(values))
        if joint.parent >= 0:
            parent, above = places[:, joint.parent], turn
        else:
            parent, above = np.zeros((len(values), 3)), turn
        for channel in joint.channels:
            column = values[:, at]
            at += 1
            if channel in _POSITIONS:
                local[:, _POSITIONS.index(channel)] = column
            else:
                turn = turn * Rotation.from_euler(channel[0].lower(), column[:, None], degrees=True)
        places[:, k] = parent + above.apply(local)
        turns.append(turn)
    return places
