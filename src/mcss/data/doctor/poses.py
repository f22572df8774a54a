"""Faults of 3D labels: impossible bones, exchanged sides, and jumps. Arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mcss.skeletons import JOINTS, MIRROR, ROOT, bone_lengths, knee_bends

_PAIRS = np.array([(j - 1, MIRROR[j] - 1) for j, name in enumerate(JOINTS) if name.startswith("L")])
"""The left and right bone of each limb, as indices into `bone_lengths`."""


@dataclass(frozen=True)
class LabelLimits:
    """What a person cannot do, so that a 3D label which shows it counts as a fault."""

    bone_change: float = 0.2
    """Share by which a bone may differ from its median length over the person."""
    bone_change_mm: float = 30.0
    """Millimetres by which a bone must differ as well to count as a fault."""
    root_speed: float = 15.0
    """Highest speed of the pelvis in metres per second; sprinters reach 12."""
    joint_speed: float = 25.0
    """Highest speed of any joint relative to the pelvis in metres per second."""
    acceleration: float = 60.0
    """Highest mean acceleration of all joints in metres per second²; 100 mm of noise are allowed on top."""
    longest_gap: float = 0.25
    """Longest time in seconds between two labels that are compared with each other."""


def bone_changes(
    pose: Float[np.ndarray, "n 17 3"], person: Int[np.ndarray, " n"], limits: LabelLimits
) -> Float[np.ndarray, "n 16"]:
    """The share by which each bone differs from its median over the same person; 0 if it differs less than allowed."""
    lengths = bone_lengths(pose)
    changes = np.zeros_like(lengths)
    for number in np.unique(person):
        members = person == number
        median = np.median(lengths[members], axis=0)
        difference = lengths[members] - median
        share = difference / np.maximum(median, 1.0)
        impossible = (np.abs(share) > limits.bone_change) & (np.abs(difference) > limits.bone_change_mm)
        changes[members] = np.where(impossible, share, 0.0)
    return changes


def uneven_bones(pose: Float[np.ndarray, "n 17 3"], limits: LabelLimits) -> list[tuple[str, float]]:
    """Limbs of one person whose left bone differs too much from the right one in its median length.

    Returns:
        The name of the left joint and the share by which its bone is longer than the right one.
    """
    median = np.median(bone_lengths(pose), axis=0)
    left, right = median[_PAIRS[:, 0]], median[_PAIRS[:, 1]]
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

    If a pose fits the one before it far better with its sides exchanged, one of the two is wrong; within a stretch of
    neighbouring labels the minority is taken to be wrong. A whole part is wrong if its knees bend backwards on average:
    its labels, or its coordinates (one axis mirrored), are those of a mirrored person.

    Args:
        pose: Labels in order of part and time, without NaN.
        time: Seconds.
        part: Number of the sequence that each label belongs to.
        limits: States how far apart in time neighbours may be.
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
    knees = knee_bends(pose).mean(axis=1) * np.where(wrong, -1, 1)
    for number in np.unique(part):
        members = part == number
        if knees[members].mean() < -20.0:
            wrong[members] = ~wrong[members]
    return wrong


def jumps(
    pose: Float[np.ndarray, "n 17 3"],
    time: Float[np.ndarray, " n"],
    part: Int[np.ndarray, " n"],
    limits: LabelLimits,
) -> Float[np.ndarray, " n"]:
    """How many times farther each pose is from its neighbours than a person can move; 0 if it is possible.

    A pose is first compared with the interpolation of the poses before and after it, which finds single poses that are
    off, and then with the pose before it.

    Args:
        pose: Labels in order of part and time, without NaN, with their sides right.
        time: Seconds.
        part: Number of the sequence that each label belongs to.
        limits: States the highest speeds and the highest acceleration.
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
    """Whether each label but the first is close enough in time to the label before it for a comparison."""
    gap = np.diff(time)
    follows: Bool[np.ndarray, " pairs"] = (part[1:] == part[:-1]) & (gap > 0) & (gap <= limits.longest_gap)
    return follows
