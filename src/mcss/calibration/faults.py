"""What is wrong with a view that does not agree with the others: its clock, its mirror, its stand, or its person."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int

from mcss.calibration.body import OTHER_SIDE
from mcss.calibration.placement import CLEAR, LEAST_POINTS, camera_before
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import Sightings
from mcss.calibration.verdict import AGREES_MM

SHIFTS = 2.0
"""Seconds by which a view is moved in time at most, to see whether it is out of step."""

BETTER = 0.2
"""An explanation must bring so much more of a view's joints into agreement, or half of those that do not agree."""

PARTS = 6
"""Stretches of a recording in which a camera is placed anew, to see whether it was moved."""

SURE = 0.75
"""Share of a view's joints that must agree once the view is explained; of somebody else, half agree by accident."""

FEW_TRIES = 200
"""Guesses for a camera before joints that other views agree on; fewer than for the first guess of all."""

MOVED = 3.0
"""Degrees, or per cent of the distance to the person, by which a camera that was moved stands elsewhere."""


@dataclass(frozen=True)
class Fault:
    """Why a view does not agree with the others."""

    view: str
    kind: str
    """moved, out of step, mirrored, or other: somebody else, another recording, or landmarks that are wrong."""
    text: str


def agreeing_share(
    rig: Rig, v: int, joints: Float64[np.ndarray, "n joints 3"], sightings: Sightings
) -> Float64[np.ndarray, " n"]:
    """The share of the clear joints of a view, by instant, that lie where they should; NaN where there are none."""
    pixels = rig.taken([v]).project(joints)[:, 0]
    depth = rig.in_camera(joints)[:, v, :, 2]
    away = np.linalg.norm(pixels - sightings.pixels[:, v], axis=-1) / rig.focal[v] * depth
    clear = sightings.weight[:, v] >= CLEAR
    near = np.where(np.isfinite(away), away, np.inf) < AGREES_MM
    return np.asarray((near & clear).sum(axis=1) / np.where(clear.any(axis=1), clear.sum(axis=1), np.nan))


def fault_of(
    rig: Rig,
    v: int,
    joints: Float64[np.ndarray, "n joints 3"],
    sightings: Sightings,
    time: Float64[np.ndarray, " n"],
    sequence: Int[np.ndarray, " n"],
    sequence_names: Sequence[str],
) -> Fault:
    """Find out why view `v` does not agree with joints that the other views give.

    Args:
        rig: The cameras; that of view `v` may be wrong.
        v: The view.
        joints: The person as the other views see them.
        sightings: What was seen.
        time: Seconds within the sequence.
        sequence: The sequence of each instant.
        sequence_names: Its name.
    """
    name = rig.views[v]
    rays = np.nan_to_num(rig.rays(sightings.pixels))[:, v]
    clear = sightings.weight[:, v] >= CLEAR
    share = camera_before(joints, rays, clear, FEW_TRIES)[2]
    wide = rays * [-1.0, 1.0]
    mirrored = camera_before(joints, wide[:, OTHER_SIDE], clear[:, OTHER_SIDE], FEW_TRIES)[2]
    shift, shifted = _best_shift(joints, rays, clear, time, sequence)
    change = _largest_change(joints, rays, clear)
    word = "later" if shift > 0 else "earlier"
    explanations = [
        (mirrored, "mirrored", f"{name} shows a mirrored image; mirror it back before the import"),
        (
            shifted,
            "out of step",
            f"{name} shows everything about {abs(shift):.1f} s {word} than the others; synchronise it with mcss sync",
        ),
    ]
    if change is not None:
        where = f"{sequence_names[change.at]} {time[change.at]:.1f} s"
        explanations.append((change.share, "moved", _moved_text(name, where, change.angle, change.way)))
    best, kind, text = max(explanations)
    if best >= SURE and best > share + min(BETTER, (1 - share) / 2):
        return Fault(name, kind, text)
    text = f"{name} does not show what the others show: it may follow somebody else, or be of another recording"
    return Fault(name, "other", text)


@dataclass(frozen=True)
class _Change:
    """The largest change of a camera's place from one stretch of a recording to the next."""

    share: float
    """Share of the joints that agree if the camera is placed anew in each stretch."""
    at: int
    """The first instant of the later stretch."""
    angle: float
    way: float


def _largest_change(
    joints: Float64[np.ndarray, "n joints 3"],
    rays: Float64[np.ndarray, "n joints 2"],
    clear: Bool[np.ndarray, "n joints"],
) -> _Change | None:
    """Place a camera anew in each stretch of the recording; None if it stands where it stood, as far as can be told."""
    stretches = [part for part in np.array_split(np.arange(len(joints)), PARTS) if clear[part].sum() >= LEAST_POINTS]
    placed = [camera_before(joints[part], rays[part], clear[part], FEW_TRIES) for part in stretches]
    changes = []
    for part, (turn, shift, _), (turn_before, shift_before, _) in zip(stretches[1:], placed[1:], placed, strict=False):
        changes.append((*_between(turn, shift, turn_before, shift_before), int(part[0])))
    if not changes:
        return None
    angle, way, at = max(changes, key=lambda change: max(change[:2]))
    return _Change(float(np.mean([p[2] for p in placed])), at, angle, way) if max(angle, way) > MOVED else None


def _between(
    turn: Float64[np.ndarray, "3 3"],
    shift: Float64[np.ndarray, " 3"],
    other_turn: Float64[np.ndarray, "3 3"],
    other_shift: Float64[np.ndarray, " 3"],
) -> tuple[float, float]:
    """Degrees between two places of a camera, and how far they are apart in per cent of the distance to the person."""
    angle = float(np.degrees(np.arccos(np.clip((np.trace(turn @ other_turn.T) - 1) / 2, -1, 1))))
    apart = float(np.linalg.norm(turn.T @ shift - other_turn.T @ other_shift))
    return angle, 100 * apart / max(float(np.linalg.norm(shift)), 1.0)


def _moved_text(name: str, where: str, angle: float, way: float) -> str:
    return (
        f"{name} stands elsewhere from about {where} on: {angle:.0f}° turned, and moved by {way:.0f} % of its "
        "distance; cut the recording there, and calibrate with --by-sequence"
    )


def _best_shift(
    joints: np.ndarray, rays: np.ndarray, clear: np.ndarray, time: np.ndarray, sequence: np.ndarray
) -> tuple[float, float]:
    """The shift in seconds with which most joints agree, positive if the view is late, and the share that agrees."""
    step = float(np.median(np.diff(np.unique(time)))) if len(np.unique(time)) > 1 else 1.0
    found = [(0.0, 0.0)]
    reach = min(int(SHIFTS / step), len(time) // 3)
    for images in np.unique(np.linspace(-reach, reach, 21).astype(int)):
        index = np.arange(len(time)) + images
        inside = (index >= 0) & (index < len(time))
        index = np.clip(index, 0, len(time) - 1)
        inside &= sequence[index] == sequence
        if images and inside.sum() > 10:
            use = clear[index] & inside[:, None]
            found.append((float(images * step), camera_before(joints, rays[index], use, FEW_TRIES)[2]))
    return max(found, key=lambda pair: pair[1])


def moved(
    rig: Rig,
    v: int,
    joints: Float64[np.ndarray, "n joints 3"],
    sightings: Sightings,
    time: Float64[np.ndarray, " n"],
    sequence_names: Sequence[str],
) -> Fault | None:
    """Whether a camera stands elsewhere in some stretches of the recording, and when that begins."""
    share = agreeing_share(rig, v, joints, sightings)
    rays = np.nan_to_num(rig.rays(sightings.pixels))[:, v]
    clear = sightings.weight[:, v] >= CLEAR
    for part in np.array_split(np.arange(len(joints)), PARTS):
        if len(part) < 5 or not np.isfinite(share[part]).any():
            continue
        now = float(np.nanmean(share[part]))
        if now + BETTER >= 1:
            continue
        turn, shift, _ = camera_before(joints[part], rays[part], clear[part], FEW_TRIES)
        there = replace(
            rig,
            rotation=np.concatenate([rig.rotation[:v], turn[None], rig.rotation[v + 1 :]]),
            translation=np.concatenate([rig.translation[:v], shift[None], rig.translation[v + 1 :]]),
        )
        again = agreeing_share(there, v, joints[part], sightings.take(part))
        angle, way = _between(turn, shift, rig.rotation[v], rig.translation[v])
        if np.isfinite(again).any() and np.nanmean(again) > now + BETTER and max(angle, way) > MOVED:
            where = f"{sequence_names[part[0]]} {time[part[0]]:.1f} s"
            return Fault(rig.views[v], "moved", _moved_text(rig.views[v], where, angle, way))
    return None
