"""Make labels of a capture from the landmarks of its views, without a calibration board and a capture system."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64

from mcss.calibration.footage import with_image_sizes
from mcss.calibration.rig import Rig
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.labels import write_poses
from mcss.errors import LandmarkError
from mcss.labelling.bodies import ONE_VIEW, bodies_of, cameras_of
from mcss.labelling.image_sizes import with_guessed_sizes
from mcss.landmarks.agreement import Agreement, agreement
from mcss.landmarks.detection import DetectionSettings, detect_landmarks
from mcss.landmarks.landmark_files import check_places, read_landmarks
from mcss.landmarks.view_landmarks import ViewLandmarks
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import LEFT_HIP, LIMBS, ROOT, canonical_pose, heading_valid
from mcss.smoothing import SmoothingSettings, smoothed

_NEIGHBOURS = 0.125
"""Seconds before and after an instant that tell whether its pose is a jump."""

_FEWEST_NEIGHBOURS = 4


@dataclass(frozen=True)
class LabelSettings:
    """How labels are made."""

    landmarks: Path | None = None
    """Landmarks to use in place of those that mcss finds: an .npz of an earlier --landmarks-out, or a .csv or .parquet
    of another detector (docs/label.md)."""
    min_confidence: float = 0.5
    """Leave out instants with a lower confidence, from 0 to 1."""
    max_jump: float = 60.0
    """Leave out instants whose joints are farther than this from where they are just before and after, in mm."""
    cameras: bool = True
    """Triangulate if cameras that stand still can be found from the person, or the capture has its cameras."""
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    """How poses are smoothed over time."""
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    """How landmarks are found."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1:
            raise ValueError(f"min_confidence: expected 0 to 1, got {self.min_confidence}.")
        if self.max_jump <= 0:
            raise ValueError(f"max_jump: expected millimetres above 0, got {self.max_jump}.")


@dataclass(frozen=True, eq=False)
class MadeLabels:
    """Poses that were made for some instants of a capture."""

    instants: Instants
    """The labelled instants, with these poses in place of the capture's."""
    confidence: Float64[np.ndarray, " n"]
    """How sure each pose is: the mean over the joints of arms and legs."""
    joint_confidence: Float64[np.ndarray, "n 17"]
    """From 0 to 1, by how far the views are apart."""
    landmarks: ViewLandmarks
    """What the labels were made of."""
    to_view: Float64[np.ndarray, "n views 3 3"]
    """From the axes of a pose to those of a view's camera, ``pose @ to_view``; NaN for a missing view."""
    how: str
    """How they were made, in words."""
    triangulated: bool
    """Whether cameras were known or found for all; poses lie in their room then, and are canonical otherwise."""
    candidates: int
    """Instants that were looked at."""
    unseen: int
    """Instants that were left out because no view shows all joints."""
    doubtful: int
    """Instants that were left out because of their confidence."""
    jumping: int
    """Instants that were left out because of a jump."""
    swapped: int
    """Images in which left and right were exchanged."""
    views_left_out: tuple[str, ...]
    """Views that do not show the same person at the same time as the others."""
    out_of_step: str
    """Which views are out of step, and by how much; empty if none is."""

    @property
    def poses(self) -> Float64[np.ndarray, "n 17 3"]:
        """Poses in mm, +Z up."""
        return self.instants.pose.astype(np.float64)

    def __len__(self) -> int:
        return len(self.instants)

    def warnings(self) -> list[str]:
        """What the user should know, a sentence each."""
        found = []
        if self.views_left_out:
            found.append(
                f"{', '.join(self.views_left_out)} does not show the same person at the same time as the other views "
                "and was left out; look at `mcss show`, follow another person with --click, or run `mcss sync`."
            )
        if self.out_of_step:
            found.append(f"Views seem to be out of step: {self.out_of_step}. Run `mcss sync`, and import again.")
        return found

    def summary(self) -> str:
        """Say in words what was made."""
        reasons = {"of low confidence": self.doubtful, "that jump": self.jumping, "without a whole body": self.unseen}
        out = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        swaps = f" Left and right were exchanged in {self.swapped:,} images." if self.swapped else ""
        return (
            f"Labelled {len(self):,} of {self.candidates:,} instants{f' (left out: {out})' if out else ''}; "
            f"confidence {np.median(self.confidence):.2f}. {self.how}.{swaps}"
        )

    def to_json(self) -> dict[str, Any]:
        """The result as plain values."""
        return {
            "labelled": len(self),
            "candidates": self.candidates,
            "doubtful": self.doubtful,
            "jumping": self.jumping,
            "unseen": self.unseen,
            "swapped_images": self.swapped,
            "confidence": round(float(np.median(self.confidence)), 4),
            "triangulated": self.triangulated,
            "how": self.how,
            "views_left_out": list(self.views_left_out),
            "out_of_step": self.out_of_step,
            "detector": self.landmarks.detector,
        }


def make_labels(
    capture: Capture,
    split: str | None = None,
    settings: LabelSettings = LabelSettings(),
    progress: Progress = NO_PROGRESS,
) -> MadeLabels:
    """Make labels for the instants of a capture: find landmarks in all views, fuse them, and leave out the doubtful.

    Args:
        capture: The capture; poses that it has are not looked at.
        split: A split of the capture, or None for all instants.
        settings: How labels are made.
        progress: Notified of the detection.

    Raises:
        CaptureError: There is no such split, or an image is broken.
        LandmarkError: The views do not agree, there is one view alone, or the given landmarks do not fit.
    """
    landmarks = landmarks_of(capture, split, settings, progress)
    return labels_of(landmarks, settings, cameras_of(capture, landmarks.instants))


def landmarks_of(
    capture: Capture, split: str | None, settings: LabelSettings, progress: Progress = NO_PROGRESS
) -> ViewLandmarks:
    """Return the landmarks that labels are made of: those of a file, or those found in the images.

    Raises:
        CaptureError: There is no such split, or an image is broken.
        LandmarkError: There is one view alone, or the given landmarks do not fit.
    """
    instants = capture.instants(split)
    _check_views(instants, settings)  # before minutes of work
    if settings.landmarks is not None:
        landmarks = read_landmarks(settings.landmarks, instants)
        check_places(settings.landmarks, landmarks, capture)
    else:
        landmarks = detect_landmarks(capture, instants, settings.detection, progress)
    return with_guessed_sizes(with_image_sizes(landmarks, capture), capture)


def labels_of(
    landmarks: ViewLandmarks, settings: LabelSettings = LabelSettings(), known: Rig | None = None
) -> MadeLabels:
    """Make labels from landmarks, as `make_labels` does.

    Args:
        landmarks: The landmarks of all views.
        settings: How labels are made.
        known: The cameras of the views, if they are known.

    Raises:
        LandmarkError: The views do not agree, there is one view alone, or no instant is left.
    """
    instants = landmarks.instants
    _check_views(instants, settings)
    agreed = agreement(landmarks)
    odd = _odd_views(agreed, landmarks)
    if odd:
        landmarks = _without(landmarks, odd)
    bodies = bodies_of(landmarks, find_cameras=settings.cameras, known=known if settings.cameras else None)
    joints = bodies.joints
    whole = np.isfinite(joints).all(axis=(1, 2))
    canonical = canonical_pose(torch.from_numpy(joints)).numpy()
    turned_back = np.swapaxes(_heading_turn(joints), -1, -2)[:, None] @ bodies.to_view
    to_view = np.where(bodies.in_room[:, None, None, None], bodies.to_view, turned_back)
    joints = np.where(bodies.in_room[:, None, None], joints, canonical)
    whole &= heading_valid(torch.from_numpy(np.nan_to_num(joints))).numpy()
    confidence = np.where(whole, bodies.confidence[:, list(LIMBS)].mean(axis=1), 0)
    trusted = whole & (confidence >= settings.min_confidence)
    jumps = trusted & (_jumps(canonical, instants, trusted) > settings.max_jump)
    kept = trusted & ~jumps
    if not kept.any():
        best = f"the highest is {confidence.max():.2f}" if whole.any() else "no view shows a whole body"
        raise LandmarkError(
            f"labels: none of the {len(instants):,} instants reaches the confidence {settings.min_confidence:g} "
            f"({best}): look at the images with `mcss show`; lower --min-confidence, film from more sides, or "
            "import looser crops with --margin"
        )
    poses = _smoothed(joints[kept], instants.take(kept), settings.smoothing)
    labelled = replace(
        instants.take(kept),
        pose=poses.astype(np.float32),
        heading_valid=heading_valid(torch.from_numpy(poses)).numpy(),
    )
    return MadeLabels(
        instants=labelled,
        confidence=confidence[kept],
        joint_confidence=bodies.confidence[kept],
        landmarks=landmarks.take(kept),
        to_view=to_view[kept],
        how=bodies.how,
        triangulated=bool(bodies.in_room[kept].all()),
        candidates=len(instants),
        unseen=int((~whole).sum()),
        doubtful=int((whole & ~trusted).sum()),
        jumping=int(jumps.sum()),
        swapped=bodies.swapped,
        views_left_out=odd,
        out_of_step=agreed.describe_lag(),
    )


def write_labels(path: Path, made: MadeLabels) -> None:
    """Write labels as a CSV that ``--labels @FILE.csv`` reads, completely or not at all."""
    write_poses(path, made.instants, made.poses, made.confidence)


def _check_views(instants: Instants, settings: LabelSettings) -> None:
    several = ((instants.rows >= 0).sum(axis=1) > 1).any()
    if not several and settings.min_confidence > ONE_VIEW:
        raise LandmarkError(
            "labels: every instant has one view, and a single view says little about depth; film with two cameras or "
            f"more, or take what one view says with --min-confidence 0 (its confidence is at most {ONE_VIEW:g})"
        )


def _odd_views(agreed: Agreement, landmarks: ViewLandmarks) -> tuple[str, ...]:
    """Return the views to leave out.

    Raises:
        LandmarkError: No two views agree.
    """
    odd = agreed.odd_views
    rest = [name for name in landmarks.views if name not in odd]
    if odd and len(rest) < 2:
        pairs = [(a, b) for a in range(len(agreed.views)) for b in range(a) if np.isfinite(agreed.distance[a, b])]
        nearest = min(agreed.distance[a, b] for a, b in pairs)
        lag = agreed.describe_lag()
        raise LandmarkError(
            f"labels: the views {', '.join(odd)} do not agree: turned onto each other, the nearest two are "
            f"{nearest:.0f} mm apart at the same instant and hardly farther at different ones. Do they show the same "
            f"person, at the same time, and the whole body? {f'Out of step: {lag}. ' if lag else ''}Look at them with "
            "`mcss show`; choose the person with `mcss import videos --click`, or run `mcss sync`, and import again"
        )
    return odd


def _without(landmarks: ViewLandmarks, views: tuple[str, ...]) -> ViewLandmarks:
    out = [landmarks.views.index(name) for name in views]
    image, world, visibility, presence = (
        part.copy() for part in (landmarks.image, landmarks.world, landmarks.visibility, landmarks.presence)
    )
    image[:, out] = world[:, out] = np.nan
    visibility[:, out] = presence[:, out] = 0
    return replace(landmarks, image=image, world=world, visibility=visibility, presence=presence)


def _jumps(
    poses: Float64[np.ndarray, "n 17 3"], instants: Instants, trusted: Bool[np.ndarray, " n"]
) -> Float64[np.ndarray, " n"]:
    """How far the joints of each pose are from their medians over the instants just before and after, in mm.

    0 where there are too few of these to tell.
    """
    jumps = np.zeros(len(poses))
    for own in instants.of_each_sequence():
        there = own[trusted[own]]
        time = instants.time[there]
        for i, at in enumerate(there):
            near = there[(np.abs(time - time[i]) <= _NEIGHBOURS) & (there != at)]
            if len(near) >= _FEWEST_NEIGHBOURS:
                middle = np.median(poses[near], axis=0)
                jumps[at] = np.linalg.norm(poses[at] - middle, axis=1).mean()
    return jumps


def _heading_turn(joints: Float64[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 3 3"]:
    """Return the rotations, ``joints @ rotation``, that make poses canonical."""
    hip = np.nan_to_num(joints[:, LEFT_HIP, :2] - joints[:, ROOT, :2])
    cos, sin = (hip / np.maximum(np.linalg.norm(hip, axis=1, keepdims=True), 1e-9)).T
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    return np.stack([np.stack(row, axis=1) for row in ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))], axis=1)


def _smoothed(
    poses: Float64[np.ndarray, "n 17 3"], instants: Instants, settings: SmoothingSettings
) -> Float64[np.ndarray, "n 17 3"]:
    result = poses.copy()
    for own in instants.of_each_sequence():
        at = own[np.argsort(instants.time[own], kind="stable")]
        result[at] = smoothed(poses[at], instants.time[at], settings)
    return result
