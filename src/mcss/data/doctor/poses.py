"""Faults of 3D labels: impossible bones, sides exchanged, jumps. Arrays in, arrays out; nothing is read or shown."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mcss.skeletons import JOINTS, MIRROR, PARENTS, ROOT

_BONES = np.array(PARENTS[1:])
_LEGS = [[JOINTS.index(side + joint) for joint in ("Hip", "Knee", "Foot")] for side in "LR"]
_PAIRS = np.array([(j - 1, MIRROR[j] - 1) for j, name in enumerate(JOINTS) if name.startswith("L")])
"""Left and right bones, as places in `bone_lengths`."""


@dataclass(frozen=True)
class LabelLimits:
    """What a person cannot do."""

    bone_change: float = 0.2
    """Share by which a bone may differ from its median over the person."""
    bone_change_mm: float = 30.0
    """And the millimetres that it must differ by as well."""
    root_speed: float = 15.0
    """Metres per second of the pelvis; sprinters reach 12."""
    joint_speed: float = 25.0
    """Metres per second of any joint as seen from the pelvis."""
    acceleration: float = 60.0
    """Metres per second², mean of all joints; 100 mm of noise are allowed on top."""
    longest_gap: float = 0.25
    """Seconds between two labels that may be compared with each other."""


def bone_lengths(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "n 16"]:
    """Lengths in mm from every joint but the root to its parent."""
    lengths: Float[np.ndarray, "n 16"] = np.linalg.norm(pose[:, 1:] - pose[:, _BONES], axis=-1)
    return lengths


def body_heights(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, " n"]:
    """Length in mm of a body along its bones from head to ankle: the torso and the mean of both legs."""
    bones = bone_lengths(pose)
    torso = bones[:, [JOINTS.index(j) - 1 for j in ("Spine", "Thorax", "Neck", "Head")]].sum(axis=1)
    legs = bones[:, [joint - 1 for leg in _LEGS for joint in leg[1:]]].sum(axis=1) / 2
    heights: Float[np.ndarray, " n"] = torso + legs
    return heights


def bone_changes(
    pose: Float[np.ndarray, "n 17 3"], person: Int[np.ndarray, " n"], limits: LabelLimits
) -> Float[np.ndarray, "n 16"]:
    """By what share each bone differs from its median over the same person; 0 where it may."""
    lengths = bone_lengths(pose)
    changes = np.zeros_like(lengths)
    for one in np.unique(person):
        own = person == one
        usual = np.median(lengths[own], axis=0)
        away = lengths[own] - usual
        share = away / np.maximum(usual, 1.0)
        impossible = (np.abs(share) > limits.bone_change) & (np.abs(away) > limits.bone_change_mm)
        changes[own] = np.where(impossible, share, 0.0)
    return changes


def uneven_bones(pose: Float[np.ndarray, "n 17 3"], limits: LabelLimits) -> list[tuple[str, float]]:
    """Limbs of one person whose left and right bones differ too much in their median: name of the left joint, share."""
    usual = np.median(bone_lengths(pose), axis=0)
    left, right = usual[_PAIRS[:, 0]], usual[_PAIRS[:, 1]]
    share = left / np.maximum(right, 1.0) - 1
    wrong = (np.abs(share) > limits.bone_change) & (np.abs(left - right) > limits.bone_change_mm)
    return [(JOINTS[_PAIRS[i, 0] + 1], float(share[i])) for i in np.flatnonzero(wrong)]


def exchanged_sides(
    pose: Float[np.ndarray, "n 17 3"],
    time: Float[np.ndarray, " n"],
    part: Int[np.ndarray, " n"],
    limits: LabelLimits,
) -> Bool[np.ndarray, " n"]:
    """Which poses have left and right exchanged.

    Where a pose fits the one before it far better with its sides exchanged, one of the two is wrong: the fewer of a
    stretch are. A whole part is wrong where knees bend backwards on the whole: its labels, or its coordinates
    (one axis mirrored), are those of a person in a mirror.

    Args:
        pose: Labels in order of part and time, without NaN.
        time: Seconds.
        part: Number of the sequence that each belongs to.
        limits: How far apart in time neighbours may be.
    """
    follows = _follows(time, part, limits)
    bodies = pose - pose[:, ROOT : ROOT + 1]
    direct = np.linalg.norm(bodies[1:] - bodies[:-1], axis=-1).mean(axis=-1)
    crossed = np.linalg.norm(bodies[1:][:, list(MIRROR)] - bodies[:-1], axis=-1).mean(axis=-1)
    turns = np.zeros(len(pose), bool)
    turns[1:] = follows & (direct > 60.0) & (crossed < 0.6 * direct)
    wrong = np.zeros(len(pose), bool)
    starts = np.flatnonzero(~np.r_[False, follows])
    for start, stop in zip(starts, [*starts[1:], len(pose)], strict=True):
        state = np.cumsum(turns[start:stop]) % 2 == 1
        wrong[start:stop] = state if state.mean() <= 0.5 else ~state
    knees = knee_directions(pose) * np.where(wrong, -1, 1)
    for one in np.unique(part):
        own = part == one
        if knees[own].mean() < -20.0:
            wrong[own] = ~wrong[own]
    return wrong


def knee_directions(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, " n"]:
    """Millimetres by which the knees stand before the line from hip to ankle, mean of both; negative: behind it."""
    left = pose[:, _LEGS[0][0]] - pose[:, _LEGS[1][0]]
    up = pose[:, JOINTS.index("Thorax")] - pose[:, ROOT]
    ahead = np.cross(left, up)
    ahead /= np.maximum(np.linalg.norm(ahead, axis=-1, keepdims=True), 1e-6)
    bent = [pose[:, knee] - (pose[:, hip] + pose[:, foot]) / 2 for hip, knee, foot in _LEGS]
    found: Float[np.ndarray, " n"] = sum((b * ahead).sum(axis=-1) for b in bent) / 2
    return found


def jumps(
    pose: Float[np.ndarray, "n 17 3"],
    time: Float[np.ndarray, " n"],
    part: Int[np.ndarray, " n"],
    limits: LabelLimits,
) -> Float[np.ndarray, " n"]:
    """How many times as far as possible each pose is from its neighbours; 0 where it is possible.

    A pose is first held against the middle of those before and after it (which finds a single one that is off),
    then against the one before it.

    Args:
        pose: Labels in order of part and time, without NaN, their sides right.
        time: Seconds.
        part: Number of the sequence that each belongs to.
        limits: Of speed and acceleration.
    """
    excess = np.zeros(len(pose))
    if len(pose) >= 3:
        follows = _follows(time, part, limits)
        step = np.maximum(time[1:] - time[:-1], 1e-6)
        share = (step[:-1] / (step[:-1] + step[1:]))[:, None, None]
        away = pose[1:-1] - ((1 - share) * pose[:-2] + share * pose[2:])
        allowed = 100.0 + 500.0 * limits.acceleration * step[:-1] * step[1:]
        off = np.zeros(len(pose))
        off[1:-1] = np.where(follows[:-1] & follows[1:], np.linalg.norm(away, axis=-1).mean(axis=-1) / allowed, 0)
        highest = (off >= np.r_[0, off[:-1]]) & (off > np.r_[off[1:], 0])
        excess = np.where((off > 1) & highest, off, 0.0)
    rest = np.flatnonzero(excess == 0)
    if len(rest) >= 2:
        body = pose[rest]
        follows = _follows(time[rest], part[rest], limits)
        seconds = np.maximum(np.diff(time[rest]), 1e-6)
        root = np.linalg.norm(np.diff(body[:, ROOT], axis=0), axis=-1) / seconds / 1000
        inner = np.diff(body - body[:, ROOT : ROOT + 1], axis=0)
        joints = np.linalg.norm(inner, axis=-1).max(axis=-1) / seconds / 1000
        speed = np.maximum(root / limits.root_speed, joints / limits.joint_speed)
        excess[rest[1:]] = np.where(follows & (speed > 1), speed, 0.0)
    return excess


def _follows(
    time: Float[np.ndarray, " n"], part: Int[np.ndarray, " n"], limits: LabelLimits
) -> Bool[np.ndarray, " pairs"]:
    """Whether each label but the first comes soon enough after the one before it to be compared."""
    gap = np.diff(time)
    follows: Bool[np.ndarray, " pairs"] = (part[1:] == part[:-1]) & (gap > 0) & (gap <= limits.longest_gap)
    return follows
