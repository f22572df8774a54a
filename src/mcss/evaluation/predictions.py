"""What a system says of the images of a split, and what is true of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.labels import label_views
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a system says of a batch of images; None for what it does not have."""

    pose: Float[Tensor, "batch 17 3"] | None
    """Pose in mm, the root at zero."""
    embedding: Float[Tensor, "batch dim"] | None
    frame: PoseFrame = "canonical"
    """What the pose is turned to; it is scored in that frame (see `mcss.skeletons`)."""


@runtime_checkable
class Predictor(Protocol):
    """Anything that can be evaluated: images, given as rows of a capture, to a `Prediction`.

    It reads the images itself (`Capture.images` or `Capture.decode`), at the size and from the cache that suit it.
    """

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Predict for some rows, in their order, on the CPU in float32."""


@dataclass(frozen=True, eq=False)
class MeanPose:
    """The predictor that has not looked: the mean of the labelled poses, whatever the image."""

    pose: Float[Tensor, "17 3"]
    frame: PoseFrame = "canonical"
    """What the pose is turned to."""

    @classmethod
    def of(cls, labelled: Instants) -> "MeanPose":
        """The mean canonical pose over the instants that have a pose and a heading.

        Raises:
            ValueError: No instant has.
        """
        return cls(canonical_pose(cls._poses(labelled)).mean(0).float())

    @classmethod
    def in_cameras(cls, capture: Capture, labelled: Instants) -> "MeanPose":
        """The mean along the axes of the camera, over the images of these instants.

        Raises:
            ValueError: No instant has a pose and a heading.
            CaptureError: The capture does not know its cameras.
        """
        poses = cls._poses(labelled)
        rows = labelled.rows[labelled.heading_valid]
        instant, view = np.nonzero(rows >= 0)
        rotation = torch.from_numpy(capture.rotations(rows[instant, view], "the mean pose in camera space"))
        return cls(camera_pose(poses[torch.from_numpy(instant)], rotation.double()).mean(0).float(), "camera")

    @staticmethod
    def _poses(labelled: Instants) -> Float[Tensor, "n 17 3"]:
        if not labelled.heading_valid.any():
            raise ValueError(
                f"the mean pose needs labels: none of the {len(labelled)} instants has a pose with a heading; "
                "choose other labels"
            )
        return torch.from_numpy(labelled.pose[labelled.heading_valid]).double()

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """The same pose for every row."""
        return Prediction(pose=self.pose.expand(len(rows), -1, -1), embedding=None, frame=self.frame)


@dataclass(frozen=True)
class EvaluationSettings:
    """How much of a split is looked at, and how."""

    batch_size: int = 64
    """Images given to the predictor at a time."""
    max_instants: int | None = None
    """Use at most this many instants, evenly spread over the split; all by default."""
    max_queries: int = 1000
    """Retrieval: queries drawn from the gallery."""
    max_gallery: int = 4000
    """Retrieval: images in the gallery; whole instants are drawn until the next would exceed this."""
    views: tuple[str, ...] = ()
    """Images of these views only; none given: all views."""
    tolerance: int = 0
    """Same-instant retrieval: frames by which a found image may be off (2 for real footage)."""
    seed: int = 0
    """Of the draws above."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_queries", "max_gallery"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")
        if self.max_instants is not None and self.max_instants < 1:
            raise ValueError(f"max_instants: expected 1 or more, or none for all, got {self.max_instants}.")
        if self.tolerance < 0:
            raise ValueError(f"tolerance: expected 0 frames or more, got {self.tolerance}.")


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for all images of a split, one entry per image."""

    instants: Instants
    instant: Int64[np.ndarray, " n"]
    """Index into `instants`."""
    view: Int64[np.ndarray, " n"]
    rows: Int64[np.ndarray, " n"]
    pose: Float[Tensor, "n 17 3"] | None
    embedding: Float[Tensor, "n dim"] | None
    rotation: Float[Tensor, "n 3 3"] | None = None
    """World to camera, for poses in camera space; None for others."""
    frame: PoseFrame = "canonical"
    """What `pose` is turned to."""

    def __len__(self) -> int:
        return len(self.rows)


def evaluated_instants(capture: Capture, split: str, settings: EvaluationSettings) -> Instants:
    """The instants of a split that the settings look at: all, or so many evenly spread ones."""
    instants = capture.instants(split)
    if settings.max_instants is None or settings.max_instants >= len(instants):
        return instants
    places = np.linspace(0, len(instants) - 1, settings.max_instants)
    return instants.take(np.unique(places.round().astype(np.int64)))


def predict_split(
    predict: Predictor,
    capture: Capture,
    split: str,
    settings: EvaluationSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Predictions:
    """Predict for every image of a split, or of as many of its instants as the settings allow.

    Raises:
        CaptureError: No such split; or the poses are in camera space, and the capture does not know its cameras.
    """
    settings = settings or EvaluationSettings()
    instants = evaluated_instants(capture, split, settings)
    looked_at = np.zeros(len(instants.views), bool)
    looked_at[label_views(instants, settings.views or None, "views")] = True
    instant, view = np.nonzero((instants.rows >= 0) & looked_at)
    if not len(instant):
        raise ValueError(f"views: the split {split!r} has no image of the views {', '.join(settings.views)}.")
    rows = instants.rows[instant, view]
    parts = []
    with progress.task(f"Predicting {split}", len(rows)) as task:
        for start in range(0, len(rows), settings.batch_size):
            batch = rows[start : start + settings.batch_size]
            parts.append(_checked(predict(batch), len(batch)))
            task.advance(len(batch))
    rotation = None
    if parts[0].frame == "camera":
        rotation = torch.from_numpy(capture.rotations(rows, "scoring in camera space"))
    return Predictions(
        instants=instants,
        instant=instant.astype(np.int64),
        view=view.astype(np.int64),
        rows=rows,
        pose=_joined([part.pose for part in parts]),
        embedding=_joined([part.embedding for part in parts]),
        rotation=rotation,
        frame=parts[0].frame,
    )


def target_poses(instants: Instants) -> Float[Tensor, "n 17 3"]:
    """Canonical poses in mm; NaN for instants without a pose or without a heading."""
    canonical = canonical_pose(torch.from_numpy(instants.pose).double()).float()
    return canonical.masked_fill(~torch.from_numpy(instants.heading_valid)[:, None, None], torch.nan)


def true_poses(predictions: Predictions) -> Float[Tensor, "n 17 3"]:
    """The pose in mm that each image shows, in the frame of the predictions; NaN as in `target_poses`."""
    instants, instant = predictions.instants, torch.from_numpy(predictions.instant)
    if predictions.frame == "canonical":
        return target_poses(instants)[instant]
    # Those without a heading are left out here too, so that all systems are scored on the same images.
    scored = torch.from_numpy(instants.heading_valid)[instant]
    world = torch.from_numpy(instants.pose)[instant].double()
    if predictions.frame == "world":
        poses = root_relative(world).float()
    else:
        assert predictions.rotation is not None
        poses = camera_pose(world, predictions.rotation.double()).float()
    return poses.masked_fill(~scored[:, None, None], torch.nan)


def _checked(prediction: Prediction, count: int) -> Prediction:
    for name in ("pose", "embedding"):
        value: Tensor | None = getattr(prediction, name)
        if value is None:
            continue
        if len(value) != count:
            raise ValueError(f"predictor: expected {name}s for {count} rows, got {len(value)}; return one per row.")
        if not value.isfinite().all():
            raise ValueError(
                f"predictor: the {name} of {int((~value.isfinite()).flatten(1).any(1).sum())} of {count} images is "
                "NaN or infinite; the network has diverged, use an earlier checkpoint or a lower learning rate."
            )
    return prediction


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part.detach().float().cpu() for part in parts if part is not None]
    return torch.cat(present) if present else None
