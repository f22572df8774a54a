"""What is wrong with a view that does not agree with the others: its clock, its mirror, its stand, or its person."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Int

from mcss.calibration.body import OTHER_SIDE
from mcss.calibration.placement import CLEAR, camera_before
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import Sightings
from mcss.calibration.verdict import AGREES_MM

SHIFTS = 2.0
"""Seconds by which a view is moved in time at most, to see whether it is out of step."""

BETTER = 0.2
"""An explanation must bring so much more of a view's joints into agreement."""

PARTS = 6
"""Stretches of a recording in which a camera is placed anew, to see whether it was moved."""

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
) -> Fault:
    """Find out why view `v` does not agree with joints that the other views give.

    Args:
        rig: The cameras; that of view `v` may be wrong.
        v: The view.
        joints: The person as the other views see them.
        sightings: What was seen.
        time: Seconds within the sequence.
        sequence: The sequence of each instant.
    """
    name = rig.views[v]
    rays = np.nan_to_num(rig.rays(sightings.pixels))[:, v]
    clear = sightings.weight[:, v] >= CLEAR
    share = camera_before(joints, rays, clear)[2]

    wide = rays * [-1.0, 1.0]
    mirrored = camera_before(joints, wide[:, OTHER_SIDE], clear[:, OTHER_SIDE])[2]
    if mirrored > share + BETTER:
        return Fault(name, "mirrored", f"{name} shows a mirrored image; mirror it back before the import")

    shift, best = _best_shift(joints, rays, clear, time, sequence)
    if best > share + BETTER:
        word = "later" if shift > 0 else "earlier"
        text = f"{name} shows everything about {abs(shift):.1f} s {word} than the others; synchronise it with mcss sync"
        return Fault(name, "out of step", text)
    text = f"{name} does not show what the others show: it may follow somebody else, or be of another recording"
    return Fault(name, "other", text)


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
            found.append((float(images * step), camera_before(joints, rays[index], use)[2]))
    return max(found, key=lambda pair: pair[1])


def moved(
    rig: Rig,
    v: int,
    joints: Float64[np.ndarray, "n joints 3"],
    sightings: Sightings,
    time: Float64[np.ndarray, " n"],
    sequence_names: list[str],
) -> Fault | None:
    """Whether a camera stands elsewhere in some stretches of the recording, and when that begins."""
    share = agreeing_share(rig, v, joints, sightings)
    rays = np.nan_to_num(rig.rays(sightings.pixels))[:, v]
    clear = sightings.weight[:, v] >= CLEAR
    for part in np.array_split(np.arange(len(joints)), PARTS):
        if len(part) < 5 or not np.isfinite(share[part]).any():
            continue
        now = float(np.nanmean(share[part]))
        turn, shift, _ = camera_before(joints[part], rays[part], clear[part])
        there = replace(
            rig,
            rotation=np.concatenate([rig.rotation[:v], turn[None], rig.rotation[v + 1 :]]),
            translation=np.concatenate([rig.translation[:v], shift[None], rig.translation[v + 1 :]]),
        )
        again = agreeing_share(there, v, joints[part], sightings.take(part))
        angle = np.degrees(np.arccos(np.clip((np.trace(turn @ rig.rotation[v].T) - 1) / 2, -1, 1)))
        way = 100 * np.linalg.norm(there.positions[v] - rig.positions[v]) / max(float(np.linalg.norm(shift)), 1.0)
        if np.isfinite(again).any() and np.nanmean(again) > now + BETTER and max(angle, way) > MOVED:
            where = f"{sequence_names[part[0]]} {time[part[0]]:.1f} s"
            text = f"{rig.views[v]} stands elsewhere about {where}: {angle:.0f}° turned and {way:.0f} % of its distance"
            return Fault(rig.views[v], "moved", f"{text} moved; calibrate the stretches by themselves")
    return None
