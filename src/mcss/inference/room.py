"""Predicted poses put into the room of a capture's cameras: which way the person faces there, and where they are."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64

from mcss.calibration.calibrate import triangulated, with_known_cameras
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import CalibrationError
from mcss.inference.pose_sequence import PoseSequence
from mcss.labelling.bodies import cameras_of
from mcss.labelling.joints import joints_of_landmarks
from mcss.landmarks.detection import detect_landmarks
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import LIMBS

LEAST_JOINTS = 6
"""Joints of arms and legs that must be triangulated for an instant to be placed by itself."""


def in_room(
    sequence: PoseSequence, capture: Capture, instants: Instants, progress: Progress = NO_PROGRESS
) -> PoseSequence:
    """Put fused poses into the room of the capture's cameras, where the shipped landmark network and they see them.

    Args:
        sequence: The predictions of all views of a sequence.
        capture: Holds the images and the cameras.
        instants: The instants of the sequence.
        progress: Notified of the detection.

    Raises:
        CalibrationError: The cameras are not known, or hardly any joint can be triangulated.
    """
    rig = cameras_of(capture, instants)
    if rig is None:
        raise CalibrationError(
            f"{sequence.name}: no two views of the capture at {capture.uri} have a camera, or one of them moves, so "
            "there is no room to put poses into; run mcss calibrate first, or leave --turned room out"
        )
    landmarks = detect_landmarks(capture, instants, progress=progress)
    landmarks = landmarks.of_views([landmarks.views.index(view) for view in rig.views])
    joints = joints_of_landmarks(triangulated(landmarks, with_known_cameras(landmarks, rig)).landmarks)
    try:
        room = placed_in_room(sequence.poses.pose.astype(np.float64), joints, instants.time)
    except CalibrationError as error:
        raise CalibrationError(f"{sequence.name}: {error}") from None
    return replace(sequence, room=room)


def placed_in_room(
    pose: Float[np.ndarray, "n 17 3"], joints: Float[np.ndarray, "n 17 3"], time: Float[np.ndarray, " n"]
) -> Float64[np.ndarray, "n 17 3"]:
    """Turn poses about the vertical, and move them, until arms and legs lie nearest to triangulated ones.

    Args:
        pose: Canonical, mm.
        joints: Triangulated in the room, mm, +Z up; NaN for gaps. Instants with few joints are placed between those
            before and after.
        time: Seconds, increasing.

    Raises:
        CalibrationError: No instant has joints enough.
    """
    limbs = list(LIMBS)
    known = np.isfinite(joints[:, limbs]).all(axis=-1)
    enough = np.flatnonzero(known.sum(axis=1) >= LEAST_JOINTS)
    if not len(enough):
        raise CalibrationError(f"no instant has {LEAST_JOINTS} joints of arms and legs that two views agree on")
    weight = (known / np.maximum(known.sum(axis=1, keepdims=True), 1))[..., None]
    target = np.nan_to_num(joints[:, limbs])
    own, there = (weight * pose[:, limbs]).sum(axis=1), (weight * target).sum(axis=1)
    a, b = pose[:, limbs, :2] - own[:, None, :2], target[..., :2] - there[:, None, :2]
    across = (weight[..., 0] * (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])).sum(axis=1)
    along = (weight[..., 0] * (a * b).sum(axis=-1)).sum(axis=1)
    heading = np.interp(time, time[enough], np.unwrap(np.arctan2(across, along)[enough]))
    cos, sin = np.cos(heading), np.sin(heading)

    def turned(points: Float64[np.ndarray, "n k 3"]) -> Float64[np.ndarray, "n k 3"]:
        x, y, z = np.moveaxis(points, -1, 0)
        return np.stack([cos[:, None] * x - sin[:, None] * y, sin[:, None] * x + cos[:, None] * y, z], axis=-1)

    shift = there - turned(own[:, None])[:, 0]
    path = np.stack([np.interp(time, time[enough], shift[enough, axis]) for axis in range(3)], axis=1)
    return np.asarray(turned(pose.astype(np.float64)) + path[:, None], np.float64)
