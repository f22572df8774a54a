"""Example images for reports: predictions beside the true poses, and queries with what is retrieved."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from mcss import metrics
from mcss.data.capture import Capture
from mcss.evaluation.evaluate import gallery_of
from mcss.evaluation.predictions import SplitPrediction, target_poses, true_poses
from mcss.retrieval import (
    POSE_HIT,
    embedding_distances,
    nearest,
    other_subjects,
    other_views,
    pair_errors,
    same_instant,
)
from mcss.skeletons import ROOT, canonical_pose


@dataclass(frozen=True, eq=False)
class PredictedPose:
    """A system's prediction for one image."""

    pose: Float[np.ndarray, "17 3"]
    """Pose in mm, rotated like the true canonical pose over which it is drawn, whatever frame it is scored in."""
    n_mpjpe: float | None
    """None without a label."""
    pa_mpjpe: float | None


@dataclass(frozen=True, eq=False)
class PoseExample:
    """One image, its true pose and what each system predicts."""

    image: bytes
    caption: str
    true: Float[np.ndarray, "17 3"] | None
    """None without a label."""
    predicted: Mapping[str, PredictedPose]
    """Predictions by system."""


@dataclass(frozen=True)
class Neighbour:
    """An image that was retrieved."""

    image: bytes
    caption: str
    pa_mpjpe: float | None
    """PA-MPJPE to the query's pose in mm; None if one of the two has no label."""
    correct: bool
    """Whether it shows the query's pose (normalised Procrustes error ≤ 0.1) or, without labels, its instant."""
    same_instant: bool


@dataclass(frozen=True)
class RetrievalExample:
    """One query and the nearest images of other views by each system."""

    image: bytes
    caption: str
    neighbours: Mapping[str, tuple[Neighbour, ...]]
    """Neighbours by system, nearest first."""


def pick_rows(predictions: SplitPrediction, count: int) -> Int64[np.ndarray, " count"]:
    """Choose rows evenly from the lowest to the highest pose error, so that no system is flattered.

    Without predicted poses or without labels, the rows are evenly spread over the split.
    """
    ranked = np.arange(len(predictions))
    scored = np.flatnonzero(predictions.instants.heading_valid[predictions.instant])
    if predictions.pose is not None and len(scored):
        target = true_poses(predictions)[scored]
        errors = metrics.n_mpjpe(predictions.pose[scored][:, 1:], target[:, 1:]).numpy()
        ranked = scored[np.argsort(errors, kind="stable")]
    chosen = ranked[np.linspace(0, len(ranked) - 1, count + 2).round().astype(int)[1:-1]]
    rows: Int64[np.ndarray, " count"] = predictions.rows[chosen]
    return rows


def pose_examples(
    capture: Capture, systems: Mapping[str, SplitPrediction], rows: Int[np.ndarray, " n"]
) -> list[PoseExample]:
    """Collect what each system predicts for some rows; all must have predicted the same split.

    Without labels there are only canonical poses to draw, so systems that predict others are left out.
    """
    first = next(iter(systems.values()))
    indices = _indices_of(first, rows)
    targets = target_poses(first.instants)[first.instant[indices]]
    true_in_frame = {name: true_poses(predictions)[indices] for name, predictions in systems.items()}
    examples = []
    for n, (index, image) in enumerate(zip(indices, capture.images(rows), strict=True)):
        predicted = {}
        for name, predictions in systems.items():
            labelled = bool(targets[n].isfinite().all())
            if predictions.pose is None or (not labelled and predictions.frame != "canonical"):
                continue
            pose, true = predictions.pose[index][None], true_in_frame[name][n][None]
            predicted[name] = PredictedPose(
                pose=_beside_true_pose(predictions, int(index)).numpy(),
                n_mpjpe=metrics.n_mpjpe(pose[:, 1:], true[:, 1:]).item() if labelled else None,
                pa_mpjpe=metrics.pa_mpjpe(pose[:, 1:], true[:, 1:]).item() if labelled else None,
            )
        true_pose = targets[n].numpy() if targets[n].isfinite().all() else None
        examples.append(PoseExample(image, _caption(first, int(index)), true_pose, predicted))
    return examples


def retrieval_examples(
    capture: Capture,
    systems: Mapping[str, SplitPrediction],
    rows: Int[np.ndarray, " n"],
    *,
    cross_subject: bool = False,
    neighbours: int = 5,
    tolerance: int = 0,
) -> list[RetrievalExample]:
    """Retrieve the nearest images of other views (with `cross_subject`, of other people) in the whole split."""
    neighbours_of: list[dict[str, tuple[Neighbour, ...]]] = [{} for _ in rows]
    for name, predictions in systems.items():
        gallery = gallery_of(predictions)
        queries = gallery.take(torch.from_numpy(_indices_of(predictions, rows)))
        allowed = other_views(queries, gallery)
        if cross_subject:
            allowed &= other_subjects(queries, gallery)
        near = nearest(embedding_distances(queries.embedding, gallery.embedding), allowed, neighbours)
        for q in range(len(rows)):
            query, entries = queries.take(torch.tensor([q])), gallery.take(near[q])
            errors = pair_errors(query, entries)[0]
            instant = same_instant(query, entries, tolerance)[0]
            labelled = errors.isfinite()
            correct = torch.where(labelled, errors <= POSE_HIT * metrics.torso_length(query.pose), instant)
            images = capture.images(predictions.rows[near[q].numpy()])
            neighbours_of[q][name] = tuple(
                Neighbour(
                    image=image,
                    caption=_caption(predictions, int(near[q, k])),
                    pa_mpjpe=float(errors[k]) if labelled[k] else None,
                    correct=bool(correct[k]),
                    same_instant=bool(instant[k]),
                )
                for k, image in enumerate(images)
            )
    first = next(iter(systems.values()))
    captions = [_caption(first, int(index)) for index in _indices_of(first, rows)]
    return [
        RetrievalExample(image, caption, by_system)
        for image, caption, by_system in zip(capture.images(rows), captions, neighbours_of, strict=True)
    ]


def _beside_true_pose(predictions: SplitPrediction, index: int) -> Float[Tensor, "17 3"]:
    """Rotate a predicted pose like the true canonical pose, so that a wrong heading stays visible."""
    assert predictions.pose is not None
    if predictions.frame == "canonical":
        return predictions.pose[index]
    true = torch.from_numpy(predictions.instants.pose[predictions.instant[index]])
    rotation = torch.eye(3) if predictions.rotation is None else predictions.rotation[index]
    upright = predictions.pose[index] @ rotation + true[ROOT]
    return canonical_pose(torch.cat([true, upright]))[len(true) :]


def _indices_of(predictions: SplitPrediction, rows: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The index in the predictions of each row of the capture."""
    index_of = {int(row): i for i, row in enumerate(predictions.rows)}
    missing = [int(row) for row in rows if int(row) not in index_of]
    if missing:
        raise ValueError(f"rows: no predictions for rows {missing[:5]}; pick rows of the split that was predicted.")
    return np.array([index_of[int(row)] for row in rows], np.int64)


def _caption(predictions: SplitPrediction, index: int) -> str:
    instants, i = predictions.instants, predictions.instant[index]
    return (
        f"{instants.subjects[instants.subject[i]]} · {instants.sequences[instants.sequence[i]]} · "
        f"{instants.time[i]:.1f} s · view {instants.views[predictions.view[index]]}"
    )
