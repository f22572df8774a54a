"""Images to be looked at: predictions beside the truth, queries with what they find."""

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
    """A system's answer to one image."""

    pose: Float[np.ndarray, "17 3"]
    """In mm, to be drawn over the true canonical pose: turned with it, whatever frame it is scored in."""
    n_mpjpe: float
    pa_mpjpe: float


@dataclass(frozen=True, eq=False)
class PoseExample:
    """One image, the true pose and what each system says."""

    image: bytes
    caption: str
    true: Float[np.ndarray, "17 3"]
    predicted: Mapping[str, PredictedPose]
    """By system."""


@dataclass(frozen=True)
class Neighbour:
    """An image that was found."""

    image: bytes
    caption: str
    pa_mpjpe: float | None
    """To the query's pose; None where one of the two has no label."""
    right: bool
    """It shows the query's pose (normalised Procrustes error ≤ 0.1) or, without labels, its instant."""
    same_instant: bool


@dataclass(frozen=True)
class RetrievalExample:
    """One query and the nearest images of other views by each system."""

    image: bytes
    caption: str
    found: Mapping[str, tuple[Neighbour, ...]]
    """By system, nearest first."""


def pick_rows(predictions: SplitPrediction, count: int) -> Int64[np.ndarray, " count"]:
    """Rows whose errors are spread evenly from the best to the worst: nobody is flattered.

    Without a pose or without labels, rows that are spread evenly over the split.
    """
    places = np.arange(len(predictions))
    scored = np.flatnonzero(predictions.instants.heading_valid[predictions.instant])
    if predictions.pose is not None and len(scored):
        target = true_poses(predictions)[scored]
        errors = metrics.n_mpjpe(predictions.pose[scored][:, 1:], target[:, 1:]).numpy()
        places = scored[np.argsort(errors, kind="stable")]
    chosen = places[np.linspace(0, len(places) - 1, count + 2).round().astype(int)[1:-1]]
    rows: Int64[np.ndarray, " count"] = predictions.rows[chosen]
    return rows


def pose_examples(
    capture: Capture, systems: Mapping[str, SplitPrediction], rows: Int[np.ndarray, " n"]
) -> list[PoseExample]:
    """What each system says of some rows; all of them must have predicted the same split and have labels."""
    first = next(iter(systems.values()))
    places = _places(first, rows)
    targets = target_poses(first.instants)[first.instant[places]]
    scored = {name: true_poses(predictions)[places] for name, predictions in systems.items()}
    examples = []
    for n, (place, image) in enumerate(zip(places, capture.images(rows), strict=True)):
        predicted = {}
        for name, predictions in systems.items():
            if predictions.pose is None:
                continue
            pose, true = predictions.pose[place][None], scored[name][n][None]
            predicted[name] = PredictedPose(
                pose=_drawn(predictions, int(place)).numpy(),
                n_mpjpe=metrics.n_mpjpe(pose[:, 1:], true[:, 1:]).item(),
                pa_mpjpe=metrics.pa_mpjpe(pose[:, 1:], true[:, 1:]).item(),
            )
        examples.append(PoseExample(image, _caption(first, int(place)), targets[n].numpy(), predicted))
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
    """The nearest images of other views (with `cross_subject`: of other people too) in the whole split."""
    found: list[dict[str, tuple[Neighbour, ...]]] = [{} for _ in rows]
    for name, predictions in systems.items():
        gallery = gallery_of(predictions)
        queries = gallery.take(torch.from_numpy(_places(predictions, rows)))
        allowed = other_views(queries, gallery)
        if cross_subject:
            allowed &= other_subjects(queries, gallery)
        near = nearest(embedding_distances(queries.embedding, gallery.embedding), allowed, neighbours)
        for q in range(len(rows)):
            query, entries = queries.take(torch.tensor([q])), gallery.take(near[q])
            errors = pair_errors(query, entries)[0]
            instant = same_instant(query, entries, tolerance)[0]
            labelled = errors.isfinite()
            right = torch.where(labelled, errors <= POSE_HIT * metrics.torso_length(query.pose), instant)
            images = capture.images(predictions.rows[near[q].numpy()])
            found[q][name] = tuple(
                Neighbour(
                    image=image,
                    caption=_caption(predictions, int(near[q, k])),
                    pa_mpjpe=float(errors[k]) if labelled[k] else None,
                    right=bool(right[k]),
                    same_instant=bool(instant[k]),
                )
                for k, image in enumerate(images)
            )
    first = next(iter(systems.values()))
    captions = [_caption(first, int(place)) for place in _places(first, rows)]
    return [
        RetrievalExample(image, caption, by_system)
        for image, caption, by_system in zip(capture.images(rows), captions, found, strict=True)
    ]


def _drawn(predictions: SplitPrediction, place: int) -> Float[Tensor, "17 3"]:
    """A predicted pose as it lies beside the true canonical pose; a wrong heading stays visible."""
    assert predictions.pose is not None
    if predictions.frame == "canonical":
        return predictions.pose[place]
    true = torch.from_numpy(predictions.instants.pose[predictions.instant[place]])
    turn = torch.eye(3) if predictions.rotation is None else predictions.rotation[place]
    upright = predictions.pose[place] @ turn + true[ROOT]
    return canonical_pose(torch.cat([true, upright]))[len(true) :]


def _places(predictions: SplitPrediction, rows: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    place = {int(row): i for i, row in enumerate(predictions.rows)}
    missing = [int(row) for row in rows if int(row) not in place]
    if missing:
        raise ValueError(f"rows: no predictions for rows {missing[:5]}; pick rows of the split that was predicted.")
    return np.array([place[int(row)] for row in rows], np.int64)


def _caption(predictions: SplitPrediction, place: int) -> str:
    instants, i = predictions.instants, predictions.instant[place]
    return (
        f"{instants.subjects[instants.subject[i]]} · {instants.sequences[instants.sequence[i]]} · "
        f"{instants.time[i]:.1f} s · view {instants.views[predictions.view[place]]}"
    )
