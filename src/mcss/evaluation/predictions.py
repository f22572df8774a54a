"""The predictions for a split, the true poses beside them, and files that keep them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.labels import label_views
from mcss.evaluation.shared_predictor import SharedPredictor
from mcss.models.model_file import write_tensors
from mcss.models.prediction import Prediction, Predictor, predict_rows
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative


@dataclass(frozen=True, eq=False)
class MeanPose:
    """Predicts the mean of the labelled poses for every image."""

    pose: Float[Tensor, "17 3"]
    frame: PoseFrame = "canonical"
    """The coordinate frame of the pose."""

    @classmethod
    def of(cls, labelled: Instants) -> "MeanPose":
        """Average the canonical poses of the instants that have a pose and a heading.

        Raises:
            ValueError: No instant has a pose and a heading.
        """
        return cls(canonical_pose(cls._poses(labelled)).mean(0).float())

    @classmethod
    def in_cameras(cls, capture: Capture, labelled: Instants) -> "MeanPose":
        """Average the poses along the axes of the crops, over the images of these instants.

        Raises:
            ValueError: No instant has a pose and a heading.
            CaptureError: Cameras of the capture are unknown.
        """
        poses = cls._poses(labelled)
        rows = labelled.rows[labelled.heading_valid]
        instant, view = np.nonzero(rows >= 0)
        rotation = torch.from_numpy(capture.crop_rotations(rows[instant, view], "the mean pose in camera space"))
        return cls(camera_pose(poses[torch.from_numpy(instant)], rotation.double()).mean(0).float(), "camera")

    @staticmethod
    def _poses(labelled: Instants) -> Float[Tensor, "n 17 3"]:
        if not labelled.heading_valid.any():
            raise ValueError(
                f"mean pose: expected labelled instants with a heading, got none of "
                f"{len(labelled)}; choose other labels"
            )
        return torch.from_numpy(labelled.pose[labelled.heading_valid]).double()

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """The same pose for every row."""
        return Prediction(pose=self.pose.expand(len(rows), -1, -1), embedding=None, frame=self.frame)


@dataclass(frozen=True)
class EvaluationSettings:
    """How much of a split is evaluated, and how."""

    batch_size: int = 64
    """Images given to the predictor at a time."""
    max_instants: int | None = None
    """Evaluate at most this many instants, evenly spread over the split; all by default."""
    max_queries: int = 1000
    """Random queries drawn from the gallery, at most."""
    max_gallery: int = 4000
    """Images in the gallery, at most; whole instants are drawn at random until the next would exceed this."""
    views: tuple[str, ...] = ()
    """Evaluate images of these views only; all views by default."""
    tolerance: int = 0
    """Frames by which a retrieved image may differ from the query's instant and still count as the same; 2 suits real
    footage."""
    seed: int = 0
    """Seed of the random queries and gallery."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_queries", "max_gallery"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")
        if self.max_instants is not None and self.max_instants < 1:
            raise ValueError(f"max_instants: expected 1 or more, or none for all, got {self.max_instants}.")
        if self.tolerance < 0:
            raise ValueError(f"tolerance: expected 0 frames or more, got {self.tolerance}.")


@dataclass(frozen=True, eq=False)
class SplitPrediction:
    """What a system predicts for all evaluated images of a split, one entry per image."""

    instants: Instants
    instant: Int64[np.ndarray, " n"]
    """Index into `instants`."""
    view: Int64[np.ndarray, " n"]
    rows: Int64[np.ndarray, " n"]
    pose: Float[Tensor, "n 17 3"] | None
    embedding: Float[Tensor, "n dim"] | None
    rotation: Float[Tensor, "n 3 3"] | None = None
    """Rotations from the world to the crops, for poses in camera space; None for others."""
    frame: PoseFrame = "canonical"
    """The coordinate frame of `pose`."""

    def __len__(self) -> int:
        return len(self.rows)


def least_seen_split(capture: Capture) -> str:
    """Return the first split that has instants of validation, test and train: training saw least of that one."""
    instants, splits = capture.instants(), capture.splits
    names = [name for name in ("validation", "test", "train", *splits) if name in splits]
    return next((name for name in names if instants.selected(splits[name]).any()), "validation")


def evaluated_instants(capture: Capture, split: str, settings: EvaluationSettings) -> Instants:
    """The instants of a split that are evaluated: all of them, or at most `max_instants`, evenly spread."""
    instants = capture.instants(split)
    if settings.max_instants is None or settings.max_instants >= len(instants):
        return instants
    indices = np.linspace(0, len(instants) - 1, settings.max_instants)
    return instants.take(np.unique(indices.round().astype(np.int64)))


def predict_split(
    predict: Predictor | SharedPredictor,
    capture: Capture,
    split: str,
    settings: EvaluationSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> SplitPrediction:
    """Predict for every evaluated image of a split.

    Raises:
        CaptureError: There is no such split, or the poses are in camera space and a camera of the capture is unknown.
        ValueError: The split has no image of the views, or the predictor returned something malformed.
        ClusterError: The predictor's workers were lost, or there is no such cluster.
    """
    settings = settings or EvaluationSettings()
    instants = evaluated_instants(capture, split, settings)
    evaluated_views = np.zeros(len(instants.views), bool)
    evaluated_views[label_views(instants, settings.views or None, "views")] = True
    instant, view = np.nonzero((instants.rows >= 0) & evaluated_views)
    if not len(instant):
        raise ValueError(f"views: the split {split!r} has no image of the views {', '.join(settings.views)}.")
    rows = instants.rows[instant, view]

    with progress.task(f"Predicting {split}", len(rows)) as task:
        if isinstance(predict, SharedPredictor):
            prediction = _checked(predict.predict(rows, task), len(rows))
        else:
            own = predict

            def checked(batch: Int64[np.ndarray, " batch"]) -> Prediction:
                return _checked(own(batch), len(batch))

            prediction = Prediction.joined(predict_rows(checked, rows, task, settings.batch_size))
    rotation = None
    if prediction.frame == "camera":
        rotation = torch.from_numpy(capture.crop_rotations(rows, "scoring in camera space"))
    return SplitPrediction(
        instants=instants,
        instant=instant.astype(np.int64),
        view=view.astype(np.int64),
        rows=rows,
        pose=prediction.pose,
        embedding=prediction.embedding,
        rotation=rotation,
        frame=prediction.frame,
    )


def target_poses(instants: Instants) -> Float[Tensor, "n 17 3"]:
    """The true canonical poses in mm; NaN for instants without a pose or without a heading."""
    canonical = canonical_pose(torch.from_numpy(instants.pose).double()).float()
    return canonical.masked_fill(~torch.from_numpy(instants.heading_valid)[:, None, None], torch.nan)


def true_poses(predictions: SplitPrediction) -> Float[Tensor, "n 17 3"]:
    """The true pose in mm of each image, in the coordinate frame of the predictions; NaN as in `target_poses`."""
    instants, instant = predictions.instants, torch.from_numpy(predictions.instant)
    if predictions.frame == "canonical":
        return target_poses(instants)[instant]
    # Instants without a heading are left out in every frame, so that all systems are scored on the same images.
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


def write_predictions(path: Path, predictions: SplitPrediction, key: Mapping[str, str]) -> None:
    """Write predictions to a file, with the `key` under which `read_predictions` accepts them."""
    tensors = {
        name: value for name in ("pose", "embedding", "rotation") if (value := getattr(predictions, name)) is not None
    }
    tensors |= {name: torch.from_numpy(getattr(predictions, name)) for name in ("instant", "view")}
    write_tensors(path, tensors, {**key, "frame": predictions.frame})


def read_predictions(path: Path, instants: Instants, key: Mapping[str, str]) -> SplitPrediction | None:
    """Read what `write_predictions` wrote under the same key; None if the file is missing or has another key.

    Args:
        path: The file.
        instants: The instants that were evaluated; the key has to guarantee that they are the same.
        key: The key it was written with.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:  # truncated, by a full disk for example: it can be made again
        return None
    frame = about.pop("frame", "")
    if about != dict(key) or frame not in ("canonical", "camera", "world"):
        return None
    numbers: dict[str, np.ndarray] = {name: tensors[name].numpy() for name in ("instant", "view")}
    return SplitPrediction(
        instants=instants,
        **numbers,
        rows=instants.rows[numbers["instant"], numbers["view"]],  # they differ between builds of the same capture
        pose=tensors.get("pose"),
        embedding=tensors.get("embedding"),
        rotation=tensors.get("rotation"),
        frame=frame,
    )
