"""The person in the room: joints from all views, how sure they are, and smoothing that does not lag."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int

from mcss.calibration.adjustment import AdjustmentSettings, from_rays, with_joints
from mcss.calibration.body import USED
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import MIN_CONFIDENCE, Sightings
from mcss.landmarks.view_landmarks import ViewLandmarks

BATCH = 400
"""Instants that are solved at once, which bounds the memory."""

LEAST_CONFIDENCE = 0.04
"""Joints of lower confidence are gaps: fewer than two views see them, or no two agree about them."""

ROUNDS = 4
"""Rounds of reweighting of landmarks that are not joints."""


@dataclass(frozen=True, eq=False)
class RoomPoses:
    """All landmarks of the person in the room, one body for each of n instants; NaN where there is a gap."""

    landmarks: Float64[np.ndarray, "n 33 3"]
    """mm, +Z up."""
    confidence: Float64[np.ndarray, "n 33"]
    """From 0 to 1: visibility times agreement of the second surest view."""


def second_surest(certainty: Float[np.ndarray, "n views joints"]) -> Float64[np.ndarray, "n joints"]:
    """How sure the second surest view is of each joint; 0 where fewer than two views are."""
    if certainty.shape[1] < 2:
        return np.zeros((len(certainty), certainty.shape[2]))
    return np.asarray(np.sort(certainty, axis=1)[:, -2], np.float64)


def solved_joints(
    rig: Rig, sightings: Sightings, settings: AdjustmentSettings
) -> tuple[Float64[np.ndarray, "n joints 3"], Float64[np.ndarray, "n views joints"]]:
    """The joints of every instant, all with the same lengths of bones; and how well each view agrees, from 0 to 1."""
    count = len(sightings)
    some = np.linspace(0, count - 1, min(count, BATCH)).astype(int)
    first = with_joints(rig, sightings.take(some), settings).scene
    usual = np.tile(np.median(first.lengths, axis=0), (count, 1))
    for name in np.unique(sightings.person[some]):
        usual[sightings.person == name] = first.lengths[sightings.person[some] == name][0]
    joints, agreement = np.zeros((*sightings.weight[:, 0].shape, 3)), np.zeros(sightings.weight.shape)
    for start in range(0, count, BATCH):
        part = np.arange(start, min(start + BATCH, count))
        found = with_joints(rig, sightings.take(part), settings, usual[part])
        joints[part], agreement[part] = found.scene.joints, found.agreement
    return joints, agreement


def room_poses(
    landmarks: ViewLandmarks,
    rig: Rig,
    joints: Float64[np.ndarray, "n joints 3"],
    certainty: Float64[np.ndarray, "n views joints"],
) -> RoomPoses:
    """All landmarks of the person in the room.

    Joints (`mcss.calibration.body.JOINTS`) were solved together, with the lengths of bones and the detector's depths;
    the others, in the face and on the hands, are the points nearest to their rays.

    Args:
        landmarks: What the detector found.
        rig: The cameras in the room, in the order of the views.
        joints: The joints, of `solved_joints`.
        certainty: How sure each view is of each joint, from 0 to 1: visibility times agreement.
    """
    everywhere, confidence = _others(landmarks, rig)
    everywhere[:, USED] = joints
    confidence[:, USED] = second_surest(certainty)
    gaps = confidence < LEAST_CONFIDENCE
    everywhere[gaps] = np.nan
    return RoomPoses(everywhere, np.where(gaps, 0.0, confidence))


def _others(landmarks: ViewLandmarks, rig: Rig) -> tuple[Float64[np.ndarray, "n 33 3"], Float64[np.ndarray, "n 33"]]:
    rays = rig.rays(np.asarray(landmarks.image, np.float64))
    known = np.isfinite(rays).all(axis=-1)
    visibility = np.nan_to_num(landmarks.visibility.astype(np.float64))
    weight = np.where(known, np.clip(visibility, MIN_CONFIDENCE, 1), 0.0)
    rays = np.nan_to_num(rays)
    points, agreement = from_rays(rig, rays, weight), np.ones(weight.shape)
    for _ in range(ROUNDS):
        seen = rig.in_camera(points)
        with np.errstate(invalid="ignore", divide="ignore"):
            away = np.linalg.norm(seen[..., :2] / seen[..., 2:] - rays, axis=-1) * seen[..., 2]
        agreement = np.where(seen[..., 2] > 1, 1 / (1 + (away / 75) ** 2), 0.0)
        points = from_rays(rig, rays, weight * agreement)
    return points, second_surest(weight * agreement)


def smoothed(
    points: Float[np.ndarray, "n joints 3"],
    confidence: Float[np.ndarray, "n joints"],
    time: Float[np.ndarray, " n"],
    sequence: Int[np.ndarray, " n"],
    seconds: float,
) -> Float64[np.ndarray, "n joints 3"]:
    """Average points over time with a Gaussian window, centred, so that nothing lags; gaps stay gaps.

    Args:
        points: mm; NaN for gaps.
        confidence: How much each point counts.
        time: Seconds, from the start of its sequence.
        sequence: The sequence that each instant belongs to; sequences are smoothed by themselves.
        seconds: Standard deviation of the window; 0 leaves the points as they are.
    """
    result = np.array(points, np.float64)
    if seconds <= 0:
        return result
    for name in np.unique(sequence):
        rows = np.flatnonzero(sequence == name)
        rows = rows[np.argsort(time[rows], kind="stable")]
        for place, row in enumerate(rows):
            near = rows[max(0, place - 50) : place + 51]
            window = np.exp(-(((time[near] - time[row]) / seconds) ** 2) / 2)
            known = np.isfinite(points[near]).all(axis=-1)
            weight = window[:, None] * np.where(known, confidence[near] + 1e-6, 0.0)
            total = weight.sum(axis=0)
            mean = (weight[..., None] * np.nan_to_num(points[near])).sum(axis=0) / np.maximum(total, 1e-12)[:, None]
            result[row] = np.where(np.isfinite(points[row]), mean, np.nan)
    return result
