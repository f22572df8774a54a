"""The measures of a split: errors of predicted poses, and retrieval across views."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

import mcss
from mcss import metrics
from mcss.data.capture import Capture
from mcss.evaluation.predictions import EvaluationSettings, SplitPrediction, predict_split, true_poses
from mcss.models.prediction import Predictor
from mcss.progress import NO_PROGRESS, Progress
from mcss.retrieval import (
    KS,
    EmbeddedImages,
    InstantRetrieval,
    PoseRetrieval,
    ScoreAtK,
    retrieve_instants,
    retrieve_poses,
)
from mcss.skeletons import LIMBS, PoseFrame


@dataclass(frozen=True)
class PoseScores:
    """Means of the pose measures, in mm unless stated otherwise. See `mcss.metrics` for 16 and 17 joints."""

    mpjpe: float
    n_mpjpe: float
    pa_mpjpe: float
    mpjpe_17: float
    n_mpjpe_17: float
    pa_mpjpe_17: float
    pck: float
    """Share (0 to 1) of the 16 joints with an error below 150 mm."""
    auc: float
    """Mean of that share over the thresholds 0, 5, … 150 mm."""
    angle: float
    """Mean error of the joint angles in degrees."""

    @classmethod
    def mean(cls, scores: "Sequence[PoseScores]") -> "PoseScores":
        """Average several scores, each with the same weight."""
        return cls(*np.mean([dataclasses.astuple(s) for s in scores], axis=0).tolist())


@dataclass(frozen=True)
class LimbScores:
    """Measures over the 12 joints of arms and legs (`mcss.skeletons.LIMBS`), in mm."""

    pa_mpjpe: float
    """For comparison with landmark detectors, which share no other joints with the 17."""


@dataclass(frozen=True)
class PoseEvaluation:
    """The pose measures of a split."""

    images: int
    frame: PoseFrame
    """The coordinate frame of the poses. Only PA-MPJPE and joint angles are the same quantity in all frames."""
    over_poses: PoseScores
    """Means over images."""
    over_actions: PoseScores
    """Means over the means of each action."""
    actions: Mapping[str, PoseScores]
    action_images: Mapping[str, int]
    limbs: LimbScores | None
    """Means over images; None in files that were written before this measure existed."""


@dataclass(frozen=True)
class RetrievalEvaluation:
    """Retrieval over a split; the gallery never holds the query's own view."""

    all_subjects: PoseRetrieval | None
    """Case 1 of the paper: anybody may be retrieved. None without labels or with only one view."""
    cross_subject: PoseRetrieval | None
    """Case 2: the query's own subject is left out. None with only one subject."""
    same_instant: InstantRetrieval | None
    """None if no instant is seen by two views."""


@dataclass(frozen=True)
class Evaluation:
    """All measures of a split. The same inputs give the same numbers."""

    version: str
    capture: str
    """Fingerprint of the capture."""
    split: str
    instants: int
    images: int
    without_heading: int
    """Labelled instants that are left out of the pose measures, because their canonical pose is undefined."""
    settings: EvaluationSettings
    pose: PoseEvaluation | None
    """None for systems that predict no pose, and for captures without labels."""
    retrieval: RetrievalEvaluation | None
    """None for systems without an embedding."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`, with "above_oracle" beside each Mean-PA-MPJPE@K."""
        plain = dataclasses.asdict(self)
        for case in ("all_subjects", "cross_subject"):
            scores = ((plain["retrieval"] or {}).get(case) or {}).get("scores", ())
            for score in scores:
                score["above_oracle"] = score["mean_pa_mpjpe"] - score["oracle"]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Evaluation":
        """Read what `to_json` returned."""
        pose, retrieval = plain["pose"], plain["retrieval"]
        return cls(
            **{f: plain[f] for f in ("version", "capture", "split", "instants", "images", "without_heading")},
            settings=EvaluationSettings(**{**plain["settings"], "views": tuple(plain["settings"].get("views", ()))}),
            pose=None if pose is None else _pose_evaluation(pose),
            retrieval=None if retrieval is None else _retrieval_evaluation(retrieval),
        )


def evaluate(
    predict: Predictor,
    capture: Capture,
    split: str,
    settings: EvaluationSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Evaluation:
    """Measure a predictor on one split of a capture.

    Raises:
        CaptureError: There is no such split.
        ValueError: The predictor returned something malformed.
    """
    settings = settings or EvaluationSettings()
    predictions = predict_split(predict, capture, split, settings, progress)
    return evaluate_predictions(predictions, capture.fingerprint, split, settings, progress)


def evaluate_predictions(
    predictions: SplitPrediction,
    fingerprint: str,
    split: str,
    settings: EvaluationSettings,
    progress: Progress = NO_PROGRESS,
) -> Evaluation:
    """Measure the predictions of a split.

    Args:
        predictions: What a system predicts for the split.
        fingerprint: Fingerprint of the capture.
        split: Name of the split.
        settings: How the split is evaluated; they have to be those that the predictions were made with.
        progress: Notified of every query of the retrieval.
    """
    instants = predictions.instants
    labelled = ~np.isnan(instants.pose).any(axis=(1, 2))
    return Evaluation(
        version=mcss.__version__,
        capture=fingerprint,
        split=split,
        instants=len(instants),
        images=len(predictions),
        without_heading=int((labelled & ~instants.heading_valid).sum()),
        settings=settings,
        pose=_evaluate_poses(predictions),
        retrieval=_evaluate_retrieval(predictions, settings, progress),
    )


def gallery_of(predictions: SplitPrediction) -> EmbeddedImages:
    """Convert predictions to the images that `mcss.retrieval` works with.

    Raises:
        ValueError: The predictions have no embeddings.
    """
    if predictions.embedding is None:
        raise ValueError(
            "retrieval: expected a system with an embedding, got one without; evaluate a run of mcss or supervised."
        )
    instants, instant = predictions.instants, predictions.instant
    sequence = instants.subject * len(instants.sequences) + instants.sequence
    return EmbeddedImages(
        embedding=predictions.embedding,
        pose=torch.from_numpy(instants.pose[instant]),
        instant=torch.from_numpy(instant),
        subject=torch.from_numpy(instants.subject[instant]),
        sequence=torch.from_numpy(sequence[instant]),
        frame=torch.from_numpy(instants.frame[instant]),
        view=torch.from_numpy(predictions.view),
    )


def _evaluate_poses(predictions: SplitPrediction) -> PoseEvaluation | None:
    instants = predictions.instants
    scored = torch.from_numpy(instants.heading_valid[predictions.instant])
    if predictions.pose is None or not scored.any():
        return None
    instant = predictions.instant[scored.numpy()]
    pred, target = predictions.pose[scored], true_poses(predictions)[scored]
    body, true_body = pred[:, 1:], target[:, 1:]
    measures = torch.stack(
        [  # in the order of PoseScores
            metrics.mpjpe(body, true_body),
            metrics.n_mpjpe(body, true_body),
            metrics.pa_mpjpe(body, true_body),
            metrics.mpjpe(pred, target),
            metrics.n_mpjpe(pred, target),
            metrics.pa_mpjpe(pred, target),
            metrics.pck(body, true_body),
            metrics.auc(body, true_body),
            metrics.angle_error(pred, target),
        ]
    )
    action = torch.from_numpy(instants.action[instant])
    actions = {
        name: PoseScores(*measures[:, action == index].mean(1).tolist())
        for index, name in enumerate(instants.actions)
        if (action == index).any()
    }
    return PoseEvaluation(
        images=len(instant),
        frame=predictions.frame,
        over_poses=PoseScores(*measures.mean(1).tolist()),
        over_actions=PoseScores.mean(list(actions.values())),
        actions=actions,
        action_images={name: int((action == instants.actions.index(name)).sum()) for name in actions},
        limbs=LimbScores(float(metrics.pa_mpjpe(pred[:, LIMBS], target[:, LIMBS]).mean())),
    )


def _evaluate_retrieval(
    predictions: SplitPrediction, settings: EvaluationSettings, progress: Progress
) -> RetrievalEvaluation | None:
    if predictions.embedding is None:
        return None
    random = np.random.default_rng(np.random.SeedSequence([settings.seed, len(predictions)]))
    everything = gallery_of(predictions)
    gallery = everything.take(whole_instants(everything.instant, settings.max_gallery, random))
    queries = gallery.take(_random_subset(torch.arange(len(gallery)), settings.max_queries, random))
    labelled = gallery.take((~gallery.pose.isnan().any(-1).any(-1)).nonzero()[:, 0])
    labelled_queries = queries.take((~queries.pose.isnan().any(-1).any(-1)).nonzero()[:, 0])
    return RetrievalEvaluation(
        all_subjects=retrieve_poses(labelled_queries, labelled, cross_subject=False, ks=KS, progress=progress),
        cross_subject=retrieve_poses(labelled_queries, labelled, cross_subject=True, ks=KS, progress=progress),
        same_instant=retrieve_instants(queries, gallery, settings.tolerance, progress=progress),
    )


def whole_instants(instant: Int[Tensor, " n"], at_most: int, random: np.random.Generator) -> Int[Tensor, " m"]:
    """Indices of all images of random instants, as many instants as give at most `at_most` images.

    Args:
        instant: The instant of each image.
        at_most: Most images; the first instant is taken in any case.
        random: Draws the instants.
    """
    if len(instant) <= at_most:
        return torch.arange(len(instant))
    order = random.permutation(int(instant.max()) + 1)
    images = np.bincount(instant.numpy(), minlength=len(order))[order].cumsum()
    chosen = np.zeros(len(order), bool)
    chosen[order[: max(1, int((images <= at_most).sum()))]] = True
    return torch.from_numpy(np.flatnonzero(chosen[instant.numpy()]))


def _random_subset(indices: Int[Tensor, " n"], at_most: int, random: np.random.Generator) -> Int[Tensor, " m"]:
    if len(indices) <= at_most:
        return indices
    return indices[torch.from_numpy(np.sort(random.choice(len(indices), at_most, replace=False)))]


def _pose_evaluation(plain: Mapping[str, Any]) -> PoseEvaluation:
    return PoseEvaluation(
        images=plain["images"],
        frame=plain.get("frame", "canonical"),  # older files do not state it
        over_poses=PoseScores(**plain["over_poses"]),
        over_actions=PoseScores(**plain["over_actions"]),
        actions={name: PoseScores(**scores) for name, scores in plain["actions"].items()},
        action_images=dict(plain["action_images"]),
        limbs=LimbScores(**plain["limbs"]) if plain.get("limbs") else None,
    )


def _retrieval_evaluation(plain: Mapping[str, Any]) -> RetrievalEvaluation:
    def case(value: Mapping[str, Any] | None) -> PoseRetrieval | None:
        if value is None:
            return None
        known = [f.name for f in dataclasses.fields(ScoreAtK)]
        scores = tuple(ScoreAtK(**{name: s[name] for name in known}) for s in value["scores"])
        return PoseRetrieval(**{**value, "scores": scores})

    instant = plain["same_instant"]
    return RetrievalEvaluation(
        all_subjects=case(plain["all_subjects"]),
        cross_subject=case(plain["cross_subject"]),
        same_instant=None if instant is None else InstantRetrieval(**instant),
    )
