"""Choose which instants to label: those that best cover the poses of a capture, by greedy k-center."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.loading.augmentation import normalise
from mcss.evaluation.predictions import target_poses
from mcss.models.backbones import build_backbone
from mcss.models.model_file import load_model
from mcss.models.prediction import NetworkPredictor, predict_rows
from mcss.progress import NO_PROGRESS, Progress

FeatureSpace = Literal["embedding", "imagenet", "pose"]

_Features = Callable[[Int64[np.ndarray, " batch"]], Float[np.ndarray, "batch dim"]]
"""Computes one feature vector for each row of a capture."""

_IMAGENET_SIZE = 96
"""Side in pixels of the images that ImageNet features are computed from."""


@dataclass(frozen=True)
class SelectSettings:
    """Which instants to choose from, and how their distance is measured."""

    budget: int = 200
    """Number of instants to choose."""
    run: str | None = None
    """A run folder of `mcss train`, whose embedding measures how alike instants are. The run itself needs no labels."""
    by: FeatureSpace | None = None
    """embedding (of the run), imagenet (features of EfficientNet-Lite0) or pose (existing labels). By default the
    embedding if there is a run, otherwise imagenet."""
    weights: str = "imagenet"
    """Backbone weights for imagenet: imagenet, random, or a file."""
    split: str = "train"
    """The split to choose from."""
    subjects: tuple[str, ...] = ()
    """Choose only instants of these subjects; all subjects by default."""
    candidates: int = 5000
    """Largest number of instants that are considered, evenly spread over the split."""

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ValueError(f"budget: expected 1 instant or more, got {self.budget}.")
        if self.candidates < self.budget:
            raise ValueError(
                f"candidates: expected at least the budget of {self.budget}, got {self.candidates}; raise it."
            )
        if self.space == "embedding" and self.run is None:
            raise ValueError("by: the embedding is that of a run; name one with --run, or choose imagenet or pose.")
        if self.space != "embedding" and self.run is not None:
            raise ValueError(f"run: not used when instants are chosen by {self.space}; leave --run or --by out.")

    @property
    def space(self) -> FeatureSpace:
        """The feature space in which distances are measured."""
        return self.by or ("imagenet" if self.run is None else "embedding")


@dataclass(frozen=True, eq=False)
class LabelSelection:
    """The chosen instants, most useful first: the first k of them are the choice for a budget of k."""

    instants: Instants
    radius: Float[np.ndarray, " budget"]
    """After each choice, the distance from the worst covered instant to the nearest chosen one."""
    space: FeatureSpace
    candidates: int
    """Instants that were considered."""
    posed: int
    """Considered instants that already have a pose."""


def select_instants(capture: Capture, settings: SelectSettings, progress: Progress = NO_PROGRESS) -> LabelSelection:
    """Choose instants of a capture; the same inputs give the same choice.

    Raises:
        CaptureError: There is no such split.
        ValueError: There is no such subject, or there are fewer instants than the budget.
    """
    instants = _candidates(capture, settings)
    features = _instant_features(capture, instants, settings, progress)
    chosen, radius = k_center(features, settings.budget)
    posed = int(np.isfinite(instants.pose).all(axis=(1, 2)).sum())
    return LabelSelection(instants.take(chosen), radius, settings.space, len(instants), posed)


def k_center(
    features: Float[np.ndarray, "n dim"], budget: int
) -> tuple[Int64[np.ndarray, " budget"], Float[np.ndarray, " budget"]]:
    """Greedy k-center: choose the point nearest to the mean, then always the point farthest from those chosen.

    Returns the chosen positions, and the radius after each choice, which is at most twice the best possible. Ties go
    to the first point.

    Raises:
        ValueError: The budget exceeds the number of points, or features are not finite.

    Reference:
        Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Example:
        >>> k_center(np.array([[0.0], [1.0], [5.0], [9.0]]), 3)
        (array([2, 0, 3]), array([5., 4., 1.]))
    """
    if not 1 <= budget <= len(features):
        raise ValueError(f"budget: expected 1 to {len(features)}, the number of instants, got {budget}.")
    if not np.isfinite(features).all():
        raise ValueError("features: expected finite numbers, got NaN or infinity; has the network diverged?")
    points = features.astype(np.float64)
    chosen = np.empty(budget, np.int64)
    radius = np.empty(budget)
    chosen[0] = np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))
    nearest = np.full(len(points), np.inf)
    taken = np.zeros(len(points), bool)
    for k in range(budget):
        if k:
            chosen[k] = np.argmax(np.where(taken, -1.0, nearest))
        taken[chosen[k]] = True
        nearest = np.minimum(nearest, ((points - points[chosen[k]]) ** 2).sum(axis=1))
        radius[k] = np.sqrt(nearest.max())
    return chosen, radius


def _candidates(capture: Capture, settings: SelectSettings) -> Instants:
    instants = capture.instants(settings.split)
    if settings.subjects:
        present = instants.present_subjects()
        for name in settings.subjects:
            if name not in present:
                raise ValueError(
                    f"subjects: there is no {name!r} in the split {settings.split}; there are {', '.join(present)}"
                )
        wanted = [instants.subjects.index(name) for name in settings.subjects]
        instants = instants.take(np.isin(instants.subject, wanted))
    if settings.space == "pose":
        instants = instants.take(instants.heading_valid)
    if len(instants) < settings.budget:
        raise ValueError(
            f"budget: expected at most {len(instants)}, the number of instants to choose from"
            + (" that have a pose with a heading" if settings.space == "pose" else "")
            + f", got {settings.budget}; lower it, or choose another split or other subjects"
        )
    spread = np.linspace(0, len(instants) - 1, min(settings.candidates, len(instants)))
    return instants.take(spread.round().astype(np.int64))


def _instant_features(
    capture: Capture, instants: Instants, settings: SelectSettings, progress: Progress
) -> Float[np.ndarray, "n dim"]:
    match settings.space:
        case "pose":
            poses: Float[np.ndarray, "n dim"] = target_poses(instants).flatten(1).numpy()
            return poses
        case "embedding":
            assert settings.run is not None
            features = _embedding_features(NetworkPredictor(load_model(Path(settings.run)), capture))
        case "imagenet":
            features = _imagenet_features(capture, settings.weights)
    return _mean_over_views(instants, features, progress)


def _embedding_features(predict: NetworkPredictor) -> _Features:
    def features(rows: Int64[np.ndarray, " batch"]) -> Float[np.ndarray, "batch dim"]:
        embedding = predict(rows).embedding
        assert embedding is not None
        return np.asarray(embedding.numpy())

    return features


def _imagenet_features(capture: Capture, weights: str) -> _Features:
    backbone = build_backbone("tf_efficientnet_lite0", weights, batchnorm_affine=True).eval()

    def features(rows: Int64[np.ndarray, " batch"]) -> Float[np.ndarray, "batch dim"]:
        pixels = torch.from_numpy(capture.decode(rows, _IMAGENET_SIZE)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            pooled = backbone(normalise(pixels)).mean(dim=(2, 3))
            return np.asarray(torch.nn.functional.normalize(pooled, dim=1).numpy())

    return features


def _mean_over_views(instants: Instants, features: _Features, progress: Progress) -> Float[np.ndarray, "n dim"]:
    """Average the features of each instant over its views."""
    instant, view = np.nonzero(instants.rows >= 0)
    rows = instants.rows[instant, view]
    with progress.task("Computing features", len(rows)) as task:
        per_image = np.concatenate(predict_rows(features, rows, task))
    total = np.zeros((len(instants), per_image.shape[1]))
    np.add.at(total, instant, per_image)
    return total / np.bincount(instant, minlength=len(instants))[:, None]
