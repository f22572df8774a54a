"""Which instants to label: those that cover what people do best, by greedy k-center."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64

from mcss.data.augmentation import normalise
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.evaluation.predictions import target_poses
from mcss.models.backbones import build_backbone
from mcss.models.model_file import load_model
from mcss.models.prediction import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress

Space = Literal["embedding", "imagenet", "pose"]

_Seen = Callable[[Int64[np.ndarray, " batch"]], Float[np.ndarray, "batch dim"]]
"""Rows of the capture to a feature each."""

_BATCH = 64
_IMAGENET_SIZE = 96


@dataclass(frozen=True)
class SelectSettings:
    """What to choose from, and by what."""

    budget: int = 200
    """Instants to choose."""
    run: str | None = None
    """A run folder of `mcss train`, whose embedding says which instants are alike; it needs no labels itself."""
    by: Space | None = None
    """embedding (of the run), imagenet (features of EfficientNet-Lite0) or pose (labels that are there already). By
    default the embedding where a run is given, else imagenet."""
    weights: str = "imagenet"
    """Of the backbone for imagenet: imagenet, random, or a file."""
    split: str = "train"
    """The split to choose from."""
    subjects: tuple[str, ...] = ()
    """Only of these subjects; all by default."""
    candidates: int = 5000
    """At most this many instants, evenly spread, are looked at."""

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
    def space(self) -> Space:
        """Where distances are measured."""
        return self.by or ("imagenet" if self.run is None else "embedding")


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen instants, the most needed first: the first k of them are what a budget of k would have chosen."""

    instants: Instants
    radius: Float[np.ndarray, " budget"]
    """After each choice: how far the worst covered instant is from the nearest chosen one."""
    space: Space
    candidates: int
    posed: int
    """Candidates that have a pose already."""


def select_instants(capture: Capture, settings: SelectSettings, progress: Progress = NO_PROGRESS) -> Selection:
    """Choose instants of a capture; the same inputs give the same choice.

    Raises:
        CaptureError: No such split.
        ValueError: A subject that is not there, or fewer instants than the budget.
    """
    instants = _candidates(capture, settings)
    features = _features(capture, instants, settings, progress)
    chosen, radius = k_center(features, settings.budget)
    posed = int(np.isfinite(instants.pose).all(axis=(1, 2)).sum())
    return Selection(instants.take(chosen), radius, settings.space, len(instants), posed)


def k_center(
    features: Float[np.ndarray, "n dim"], budget: int
) -> tuple[Int64[np.ndarray, " budget"], Float[np.ndarray, " budget"]]:
    """Greedy k-center: each choice is what lies farthest from all chosen before; and the radius after each.

    The first is the one nearest to the mean. The radius is at most twice that of the best possible choice. Of equals
    the first is taken.

    Raises:
        ValueError: More are asked for than there are, or features that are not finite.

    Reference:
        Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Example:
        >>> k_center(np.array([[0.0], [1.0], [5.0], [9.0]]), 3)
        (array([2, 0, 3]), array([5., 4., 1.]))
    """
    if not 1 <= budget <= len(features):
        raise ValueError(f"budget: expected 1 to {len(features)}, the instants that there are, got {budget}.")
    if not np.isfinite(features).all():
        raise ValueError("features: expected finite numbers; NaN or infinite ones came. Has the network diverged?")
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
        for name in settings.subjects:
            if name not in instants.present_subjects():
                there = ", ".join(instants.present_subjects())
                raise ValueError(f"subjects: there is no {name!r} in the split {settings.split}; there are {there}")
        wanted = [instants.subjects.index(name) for name in settings.subjects]
        instants = instants.take(np.isin(instants.subject, wanted))
    if settings.space == "pose":
        instants = instants.take(instants.heading_valid)
    if len(instants) < settings.budget:
        raise ValueError(
            f"budget: {settings.budget} instants were asked for, but there are {len(instants)} to choose from"
            + (" that have a pose with a heading" if settings.space == "pose" else "")
            + "; ask for fewer, or choose another split or other subjects"
        )
    places = np.linspace(0, len(instants) - 1, min(settings.candidates, len(instants))).round().astype(np.int64)
    return instants.take(places)


def _features(
    capture: Capture, instants: Instants, settings: SelectSettings, progress: Progress
) -> Float[np.ndarray, "n dim"]:
    match settings.space:
        case "pose":
            poses: Float[np.ndarray, "n dim"] = target_poses(instants).flatten(1).numpy()
            return poses
        case "embedding":
            assert settings.run is not None
            predict = NetworkPredictor(load_model(Path(settings.run)), capture)
            return _over_views(instants, lambda rows: _embedded(predict, rows), progress)
        case "imagenet":
            backbone = build_backbone("tf_efficientnet_lite0", settings.weights, batchnorm_affine=True).eval()

            def seen(rows: Int64[np.ndarray, " batch"]) -> Float[np.ndarray, "batch dim"]:
                pixels = torch.from_numpy(capture.decode(rows, _IMAGENET_SIZE)).permute(0, 3, 1, 2)
                with torch.inference_mode():
                    found = torch.nn.functional.normalize(backbone(normalise(pixels)).mean(dim=(2, 3)), dim=1)
                return np.asarray(found.numpy())

            return _over_views(instants, seen, progress)


def _embedded(predict: NetworkPredictor, rows: Int64[np.ndarray, " batch"]) -> Float[np.ndarray, "batch dim"]:
    embedding = predict(rows).embedding
    assert embedding is not None
    return np.asarray(embedding.numpy())


def _over_views(instants: Instants, seen: _Seen, progress: Progress) -> Float[np.ndarray, "n dim"]:
    """The mean over the views that there are of what `seen` makes of each image."""
    instant, view = np.nonzero(instants.rows >= 0)
    rows = instants.rows[instant, view]
    total: Float[np.ndarray, "n dim"] | None = None
    with progress.task("Looking at images", len(rows)) as task:
        for start in range(0, len(rows), _BATCH):
            batch = slice(start, start + _BATCH)
            found = seen(rows[batch])
            if total is None:
                total = np.zeros((len(instants), found.shape[1]))
            np.add.at(total, instant[batch], found)
            task.advance(len(found))
    assert total is not None, "every instant has an image"
    return total / np.bincount(instant, minlength=len(instants))[:, None]
