"""The body of each instant from all of its views: triangulated with cameras, or turned onto each other without."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.calibration.calibrate import Calibration, calibrate, triangulated, with_known_cameras
from mcss.calibration.rig import Rig
from mcss.data.cameras import Cameras
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import CalibrationError
from mcss.labelling.joints import joints_of_landmarks, values_of_landmarks
from mcss.landmarks.turning import LEAST_VISIBLE, FusedLandmarks, fuse_views
from mcss.landmarks.view_landmarks import ViewLandmarks

ONE_VIEW = 0.3
"""Confidence of a joint that one view alone tells, if it is fully visible."""

_DOUBTFUL = 80.0
"""Views that are this far from their mean, in mm, leave a confidence of exp(-1)."""


@dataclass(frozen=True, eq=False)
class Bodies:
    """One body for each of n instants."""

    joints: Float64[np.ndarray, "n 17 3"]
    """mm, +Z up; NaN for gaps."""
    confidence: Float64[np.ndarray, "n 17"]
    """From 0 to 1; 0 for gaps."""
    to_view: Float64[np.ndarray, "n views 3 3"]
    """From the axes of the joints to those of a view's camera, ``joints @ to_view``; NaN for a missing view."""
    how: str
    """How they were made, in words."""
    in_room: Bool[np.ndarray, " n"]
    """Whether the joints lie in a room that the instants of a sequence share; otherwise the body has its own axes."""
    swapped: int
    """Images in which left and right were exchanged, as far as they were counted."""


def bodies_of(landmarks: ViewLandmarks, *, find_cameras: bool, known: Rig | None = None) -> Bodies:
    """Return the bodies, triangulated where cameras are known, or can be found and relied on.

    Args:
        landmarks: Landmarks of views that show the same person.
        find_cameras: Find cameras that stand still, if they are not known.
        known: The cameras.
    """
    found = _cameras(landmarks, find_cameras, known)
    if found is not None and found.verdict.grade != "failed":
        return _triangulated(landmarks, found, "Cameras are known" if known else "Cameras were found from the person")
    if find_cameras and known is None and len(sequences := landmarks.instants.of_each_sequence()) > 1:
        # Cameras may have been moved between sequences.
        return _joined([bodies_of(landmarks.take(at), find_cameras=True) for at in sequences], sequences)
    return _turned(landmarks, "" if found is None else f", since cameras cannot be relied on ({found.verdict.text})")


def _cameras(landmarks: ViewLandmarks, find: bool, known: Rig | None) -> Calibration | None:
    """The cameras with a verdict; None if there are none to judge."""
    seen = np.flatnonzero(landmarks.seen.any(axis=0)).tolist()
    index = [v for v in seen if known is None or landmarks.views[v] in known.views]
    views = landmarks.of_views(index)
    if len(views.views) < 2 or not np.isfinite(views.image).any():
        return None
    try:
        if known is not None:
            return with_known_cameras(views, known)
        return calibrate(views) if find and np.isfinite(views.image_size).all() else None
    except CalibrationError:
        return None


def _joined(parts: Sequence[Bodies], at: Sequence[Int64[np.ndarray, " k"]]) -> Bodies:
    """Put the bodies of the sequences where their instants are."""
    order = np.argsort(np.concatenate(at), kind="stable")

    def whole(name: str) -> Any:
        return np.concatenate([getattr(part, name) for part in parts])[order]

    placed = sum(bool(part.in_room.all()) for part in parts)
    some = f"Cameras were found from the person in {placed} of {len(parts)} sequences, which were triangulated"
    rest = f"in the other{'s' if len(parts) - placed > 1 else ''} the views were turned onto each other"
    return Bodies(
        joints=whole("joints"),
        confidence=whole("confidence"),
        to_view=whole("to_view"),
        how=parts[0].how if not placed else some if placed == len(parts) else f"{some}; {rest}",
        in_room=whole("in_room"),
        swapped=sum(part.swapped for part in parts),
    )


def cameras_of(capture: Capture, instants: Instants) -> Rig | None:
    """Return the cameras that a capture knows, of two views or more; None if one of them moves, or there are fewer."""
    first: dict[str, Cameras] = {}
    for v, view in enumerate(instants.views):
        rows = instants.rows[instants.rows[:, v] >= 0, v]
        cameras = capture.cameras(rows)
        parts = (cameras.rotation, cameras.translation, cameras.intrinsics)
        if not len(rows) or all(np.isnan(part).all() for part in parts):
            continue  # a view that was left out, since it does not agree with the others
        if not all(np.isfinite(part).all() and np.ptp(part, axis=0).max() < 1e-3 for part in parts):
            return None
        first[view] = cameras
    if len(first) < 2:
        return None
    return Rig(
        views=tuple(first),
        rotation=np.stack([cameras.rotation[0] for cameras in first.values()]).astype(np.float64),
        translation=np.stack([cameras.translation[0] for cameras in first.values()]).astype(np.float64),
        intrinsics=np.stack([cameras.intrinsics[0] for cameras in first.values()]).astype(np.float64),
        distortion=np.zeros((len(first), 5)),
        image_size=np.full((len(first), 2), np.nan),
    )


def _triangulated(landmarks: ViewLandmarks, found: Calibration, cameras: str) -> Bodies:
    placed = triangulated(landmarks, found)
    to_view = np.full((*landmarks.seen.shape, 3, 3), np.nan)
    for camera, view in enumerate(found.views):
        to_view[:, landmarks.views.index(view)] = found.cameras.rotation[camera].T
    measures = found.verdict.measures
    return Bodies(
        joints=joints_of_landmarks(placed.landmarks),
        confidence=values_of_landmarks(placed.confidence),
        to_view=np.where(landmarks.seen[..., None, None], to_view, np.nan),
        how=(
            f"{cameras}: {len(found.views)} views were triangulated, and joints lie "
            f"{measures.reprojection_mm:.0f} mm beside where the views see them"
        ),
        in_room=np.ones(len(landmarks), bool),
        swapped=0,
    )


def _turned(landmarks: ViewLandmarks, why: str) -> Bodies:
    fused = fuse_views(landmarks)
    views = int(landmarks.seen.any(axis=0).sum())
    together = (
        f"{views} views were turned onto each other and lie {np.nanmedian(fused.distance):.0f} mm from their mean{why}"
    )
    alone = "One view alone says where joints are, which is far less sure than two"
    return Bodies(
        joints=joints_of_landmarks(fused.points),
        confidence=joint_confidence(landmarks, fused),
        to_view=np.swapaxes(fused.rotation, -1, -2),
        how=together if views > 1 else alone,
        in_room=np.zeros(len(landmarks), bool),
        swapped=int(fused.swapped.sum()),
    )


def joint_confidence(landmarks: ViewLandmarks, fused: FusedLandmarks) -> Float64[np.ndarray, "n 17"]:
    """How sure each joint is, from 0 to 1, by how far the views are from their mean; 0 where no view has the joint.

    A joint that one view alone tells is believed as far as it is visible, and never more than `ONE_VIEW`.
    """
    known = np.isfinite(fused.distance)
    weight = np.clip(landmarks.visibility, LEAST_VISIBLE, 1) * known
    count = known.sum(axis=1)
    distance = (np.nan_to_num(fused.distance) * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-9)
    # Few views lie near to their mean for no other reason than that they are few.
    distance = distance * np.sqrt(count / np.maximum(count - 1, 1))
    together = np.exp(-np.square(distance / _DOUBTFUL))
    alone = ONE_VIEW * landmarks.visibility.max(axis=1)
    return values_of_landmarks(np.where(count > 1, together, np.where(count == 1, alone, 0)).astype(np.float64))
