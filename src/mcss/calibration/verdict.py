"""Whether the cameras that were found can be relied on; judged without knowing the truth."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from mcss.calibration.body import HIPS, JOINTS, RIGID, bone_lengths
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import Sightings

Grade = Literal["good", "weak", "failed"]

GOOD_MM, WEAK_MM = 35.0, 50.0
"""Reprojection errors in mm, at the person, up to which cameras can be good, or weak at least."""

GOOD_BONES, WEAK_BONES = 0.12, 0.2
"""Variation of the bones' lengths, as a share, up to which cameras can be good, or weak at least."""

GOOD_SHARE, WEAK_SHARE = 0.8, 0.65
"""Share of a view's joints that agree with the others."""

GOOD_TURN, WEAK_TURN = 22.0, 35.0
"""Degrees between the person as a view's detector sees them in 3D, and as they stand in the room."""

AGREES_MM = 100.0
"""A joint agrees if it lies this near, in mm at the person."""

FACING = 30.0
"""Views that differ by less than so many degrees, seen from above, or lack so many to facing each other, are a weak
pair: depth, or left and right, rest on one of them."""

STILL_MM = 60.0
"""A person whose joints stay this near to their mean stands still."""

IN_PLACE = 0.05
"""The same as a share of the distance to the cameras, below which the person stays in one place: on rendered rigs,
rotations were then wrong by 4 to 10 degrees, without joints being worse."""

FEW = 10
"""Instants below which nothing can be relied on."""


@dataclass(frozen=True)
class Measures:
    """What the verdict rests on."""

    instants: int
    """Instants that two or more views saw."""
    reprojection_px: float
    """Median distance in pixels from where a camera sees a joint to where it should."""
    reprojection_mm: float
    """The same, in mm at the person's distance, for a person of the assumed stature."""
    by_view_mm: tuple[float, ...]
    by_joint_mm: tuple[float, ...]
    """In the order of `mcss.calibration.body.JOINTS`."""
    agreeing: tuple[float, ...]
    """Share of the joints of each view that agree with the others."""
    bones: float
    """How much the lengths of rigid bones vary, as a share: the median over bones of their usual deviation."""
    turn: tuple[float, ...]
    """Degrees by which the person in 3D, as a view's detector sees them, is turned against the person in the room."""
    widest: float
    """Angle in degrees between the two best views, seen from above; best is 90."""
    motion_mm: float
    """How far joints usually are from their mean place."""
    distance_mm: float
    """How far the cameras are from the person, on average."""


@dataclass(frozen=True)
class Verdict:
    """Good, weak or failed, and why."""

    grade: Grade
    reasons: tuple[str, ...]
    """What stands against the cameras, worst first; empty if nothing does."""
    measures: Measures
    misfits: tuple[str, ...] = ()
    """Those of the reasons that say how badly cameras and person fit together."""

    @property
    def text(self) -> str:
        """The verdict in a line."""
        return self.grade if not self.reasons else f"{self.grade}: {'; '.join(self.reasons)}"


def measured(
    rig: Rig,
    raw: Float64[np.ndarray, "n joints 3"],
    joints: Float64[np.ndarray, "n joints 3"],
    sightings: Sightings,
) -> Measures:
    """Measure how well cameras and person fit together.

    Args:
        rig: The cameras, in a room with +Z up and mm.
        raw: Joints triangulated from the pixels alone.
        joints: Joints solved with lengths of bones and the detector's depths.
        sightings: What was seen.
    """
    seen = rig.in_camera(joints)
    known = (sightings.weight > 0) & (sightings.seen.sum(axis=1) > 1)[:, None, None]
    pixels = np.linalg.norm(rig.project(joints) - sightings.pixels, axis=-1)
    known &= np.isfinite(pixels)
    at_person = np.where(known, pixels, np.nan) / rig.focal[None, :, None] * np.maximum(seen[..., 2], 1.0)
    near = (at_person < AGREES_MM).astype(np.float64)
    clear = known & (sightings.weight >= 0.5)
    lengths = bone_lengths(raw)[:, :RIGID]
    share = np.empty(lengths.shape)
    for person in np.unique(sightings.person):
        theirs = sightings.person == person
        share[theirs] = lengths[theirs] / np.maximum(np.median(lengths[theirs], axis=0), 1.0)
    spread = 1.4826 * np.median(np.abs(share - 1), axis=0)
    centred = joints - np.median(joints, axis=0)
    return Measures(
        instants=int((sightings.seen.sum(axis=1) > 1).sum()),
        reprojection_px=_median(pixels[known]),
        reprojection_mm=_median(at_person[known]),
        by_view_mm=tuple(_median(at_person[:, v][known[:, v]]) for v in range(len(rig))),
        by_joint_mm=tuple(_median(at_person[:, :, j][known[:, :, j]]) for j in range(len(JOINTS))),
        agreeing=tuple(float(near[:, v][clear[:, v]].mean()) if clear[:, v].any() else 0.0 for v in range(len(rig))),
        bones=float(np.median(spread)),
        turn=_turns(rig, joints, sightings),
        widest=best_angle(rig, joints),
        motion_mm=float(np.sqrt((centred**2).sum(axis=-1).mean())),
        distance_mm=float(np.linalg.norm(rig.positions - np.median(joints, axis=(0, 1)), axis=1).mean()),
    )


def judged(
    measures: Measures, views: tuple[str, ...], left_out: tuple[str, ...] = (), moving: tuple[str, ...] = ()
) -> Verdict:
    """Judge measured cameras.

    Args:
        measures: How well they fit.
        views: Their names.
        left_out: What is wrong with views that were left out, with which a verdict is weak at best.
        moving: What is wrong with views that were not left out, though they were moved: that fails.
    """
    failed: list[str] = list(moving)
    weak: list[str] = list(left_out)
    misfits: list[str] = []

    def check(value: float, good: float, least: float, text: str, above: bool = True) -> None:
        sign = 1.0 if above else -1.0
        if not sign * value <= sign * least:  # not a number is beyond every limit
            failed.append(text)
            misfits.append(text)
        elif not sign * value <= sign * good:
            weak.append(text)
            misfits.append(text)

    m = measures
    if m.instants < FEW:
        failed.append(f"only {m.instants} instants are seen by two or more views, expected {FEW} at least")
    text = f"joints lie {m.reprojection_mm:.0f} mm beside where the other views see them"
    check(m.reprojection_mm, GOOD_MM, WEAK_MM, text)
    check(m.bones, GOOD_BONES, WEAK_BONES, f"bone lengths vary by {100 * m.bones:.0f} %")
    for view, share in zip(views, m.agreeing, strict=True):
        text = f"{100 * (1 - share):.0f} % of the joints of {view} disagree with the other views"
        check(share, GOOD_SHARE, WEAK_SHARE, text, above=False)
    for view, turn in zip(views, m.turn, strict=True):
        text = f"the person in {view} is turned by {turn:.0f}° against the person in the room"
        check(turn, GOOD_TURN, WEAK_TURN, text)
    if m.widest < FACING:
        same = "the views look from almost the same or from opposite directions"
        weak.append(f"{same} (no two are between {FACING:.0f}° and {180 - FACING:.0f}° apart)")
    if m.motion_mm < STILL_MM:
        weak.append(f"the person hardly moves ({m.motion_mm:.0f} mm)")
    elif m.motion_mm < IN_PLACE * m.distance_mm:
        weak.append(
            f"the person stays in one place ({m.motion_mm:.0f} mm of movement, {m.distance_mm / 1000:.1f} m from the "
            "cameras): cameras may be turned some degrees too far and stand elsewhere to make up for it"
        )
    grade: Grade = "failed" if failed else "weak" if weak else "good"
    return Verdict(grade, tuple(failed + weak), measures, tuple(misfits))


def best_angle(rig: Rig, joints: Float64[np.ndarray, "n joints 3"]) -> float:
    """The angle in degrees, of two views seen from above the person, that is nearest to 90: from 0 to 90."""
    person = np.median(joints[:, HIPS].mean(axis=1), axis=0)
    toward = (rig.positions - person)[:, :2]
    toward = toward / np.maximum(np.linalg.norm(toward, axis=1, keepdims=True), 1e-9)
    sine = np.abs(toward[:, None, 0] * toward[None, :, 1] - toward[:, None, 1] * toward[None, :, 0])
    return float(np.degrees(np.arcsin(np.clip(sine.max(), 0, 1))))


def _turns(rig: Rig, joints: Float64[np.ndarray, "n joints 3"], sightings: Sightings) -> tuple[float, ...]:
    centred = joints - joints.mean(axis=1, keepdims=True)
    turns = []
    for v in range(len(rig)):
        known = (sightings.weight[:, v] > 0).all(axis=1)
        if not known.any():
            turns.append(180.0)
            continue
        body = sightings.world[known, v] - sightings.world[known, v].mean(axis=1, keepdims=True)
        there = centred[known] @ rig.rotation[v].T
        left, _, right = np.linalg.svd(np.swapaxes(body, 1, 2) @ there)
        flip = np.ones((len(left), 3))
        flip[:, 2] = np.sign(np.linalg.det(left @ right))
        trace = np.trace(left @ (flip[..., None] * right), axis1=1, axis2=2)
        turns.append(float(np.degrees(np.median(np.arccos(np.clip((trace - 1) / 2, -1, 1))))))
    return tuple(turns)


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("inf")
