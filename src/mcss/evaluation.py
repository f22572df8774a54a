"""A predictor and a capture in, all measures of a split out."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

import mcss
from mcss import metrics
from mcss.captures import Capture
from mcss.instants import Instants
from mcss.labels import label_views
from mcss.progress import NO_PROGRESS, Progress
from mcss.retrieval import (
    KS,
    Gallery,
    InstantRetrieval,
    PoseRetrieval,
    ScoreAtK,
    retrieve_instants,
    retrieve_poses,
)
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a system says of a batch of pictures; None for what it does not have."""

    pose: Float[Tensor, "batch 17 3"] | None
    """Pose in mm, the root at zero."""
    embedding: Float[Tensor, "batch dim"] | None
    frame: PoseFrame = "canonical"
    """What the pose is turned to; it is scored in that frame (see `mcss.skeletons`)."""


@runtime_checkable
class Predictor(Protocol):
    """Anything that can be evaluated: pictures, given as rows of a capture, to a `Prediction`.

    It reads the pictures itself (`Capture.images` or `Capture.decode`), at the size and from the cache that suit it.
    """

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Predict for some rows, in their order, on the CPU in float32."""


@dataclass(frozen=True, eq=False)
class MeanPose:
    """The predictor that has not looked: the mean of the labelled canonical poses, whatever the picture."""

    pose: Float[Tensor, "17 3"]

    @classmethod
    def of(cls, labelled: Instants) -> "MeanPose":
        """The mean over the instants that have a pose and a heading.

        Raises:
            ValueError: No instant has.
        """
        if not labelled.heading_valid.any():
            raise ValueError(
                f"the mean pose needs labels: none of the {len(labelled)} instants has a pose with a heading; "
                "choose other labels"
            )
        poses = torch.from_numpy(labelled.pose[labelled.heading_valid])
        return cls(canonical_pose(poses.double()).mean(0).float())

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """The same pose for every row."""
        return Prediction(pose=self.pose.expand(len(rows), -1, -1), embedding=None)


@dataclass(frozen=True)
class EvaluationSettings:
    """How much of a split is looked at, and how."""

    batch_size: int = 64
    """Pictures given to the predictor at a time."""
    max_instants: int | None = None
    """Use at most this many instants, evenly spread over the split; all by default."""
    max_queries: int = 1000
    """Retrieval: queries drawn from the gallery."""
    max_gallery: int = 4000
    """Retrieval: pictures in the gallery; whole instants are drawn until the next would exceed this."""
    views: tuple[str, ...] = ()
    """Pictures of these views only; none given: all views."""
    tolerance: int = 0
    """Same-instant retrieval: frames by which a found picture may be off (2 for real footage)."""
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


@dataclass(frozen=True)
class PoseScores:
    """Means of the pose measures: mm, except where it says otherwise. See `mcss.metrics` for 16 and 17 joints."""

    mpjpe: float
    n_mpjpe: float
    pa_mpjpe: float
    mpjpe_17: float
    n_mpjpe_17: float
    pa_mpjpe_17: float
    pck: float
    """Share (0 to 1) of the 16 joints nearer than 150 mm."""
    auc: float
    """Mean share (0 to 1) over 0, 5, … 150 mm, 16 joints."""
    angle: float
    """Degrees."""

    @classmethod
    def mean(cls, scores: "Sequence[PoseScores]") -> "PoseScores":
        """The plain mean of several."""
        return cls(*np.mean([dataclasses.astuple(s) for s in scores], axis=0).tolist())


@dataclass(frozen=True)
class PoseEvaluation:
    """The pose measures of a split."""

    images: int
    frame: PoseFrame
    """What the poses were turned to. Only PA-MPJPE and joint angles are the same quantity in both frames."""
    over_poses: PoseScores
    """Every picture counts the same."""
    over_actions: PoseScores
    """Every action counts the same."""
    actions: Mapping[str, PoseScores]
    action_images: Mapping[str, int]


@dataclass(frozen=True)
class RetrievalEvaluation:
    """Retrieval over a split; the gallery never holds the query's own view."""

    all_subjects: PoseRetrieval | None
    """Case 1 of the paper. None without labels or with one view only."""
    cross_subject: PoseRetrieval | None
    """Case 2: nor the query's own subject. None with one subject only."""
    same_instant: InstantRetrieval | None
    """None where no instant is seen by two views."""


@dataclass(frozen=True)
class Evaluation:
    """All that was measured. The same inputs give the same numbers."""

    version: str
    capture: str
    """Fingerprint."""
    split: str
    instants: int
    images: int
    without_heading: int
    """Labelled instants left out of the pose measures, since their canonical pose is undefined."""
    settings: EvaluationSettings
    pose: PoseEvaluation | None
    """None for systems without a pose head, and for captures without labels."""
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
        """The inverse of `to_json`."""
        pose, retrieval = plain["pose"], plain["retrieval"]
        return cls(
            **{f: plain[f] for f in ("version", "capture", "split", "instants", "images", "without_heading")},
            settings=EvaluationSettings(**{**plain["settings"], "views": tuple(plain["settings"].get("views", ()))}),
            pose=None if pose is None else _pose_evaluation(pose),
            retrieval=None if retrieval is None else _retrieval_evaluation(retrieval),
        )


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions for all pictures of a split, one entry per picture."""

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


def evaluate(
    predict: Predictor,
    capture: Capture,
    split: str,
    settings: EvaluationSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> Evaluation:
    """Measure a predictor on one split of a capture.

    Raises:
        CaptureError: No such split.
        ValueError: What the predictor returned is not as promised.
    """
    settings = settings or EvaluationSettings()
    predictions = predict_split(predict, capture, split, settings, progress)
    return evaluate_predictions(predictions, capture.fingerprint, split, settings)


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
    """Predict for every picture of a split, or of as many of its instants as the settings allow.

    Raises:
        CaptureError: No such split; or the poses are in camera space, and the capture does not know its cameras.
    """
    settings = settings or EvaluationSettings()
    instants = evaluated_instants(capture, split, settings)
    looked_at = np.zeros(len(instants.views), bool)
    looked_at[label_views(instants, settings.views or None, "views")] = True
    instant, view = np.nonzero((instants.rows >= 0) & looked_at)
    if not len(instant):
        raise ValueError(f"views: the split {split!r} has no picture of the views {', '.join(settings.views)}.")
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


def evaluate_predictions(
    predictions: Predictions, fingerprint: str, split: str, settings: EvaluationSettings
) -> Evaluation:
    """Measure predictions that were made before."""
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
        retrieval=_evaluate_retrieval(predictions, settings),
    )


def target_poses(instants: Instants) -> Float[Tensor, "n 17 3"]:
    """Canonical poses in mm; NaN for instants without a pose or without a heading."""
    canonical = canonical_pose(torch.from_numpy(instants.pose).double()).float()
    return canonical.masked_fill(~torch.from_numpy(instants.heading_valid)[:, None, None], torch.nan)


def true_poses(predictions: Predictions) -> Float[Tensor, "n 17 3"]:
    """The pose in mm that each picture shows, in the frame of the predictions; NaN as in `target_poses`."""
    instants, instant = predictions.instants, torch.from_numpy(predictions.instant)
    if predictions.frame == "canonical":
        return target_poses(instants)[instant]
    # Those without a heading are left out here too, so that all systems are scored on the same pictures.
    scored = torch.from_numpy(instants.heading_valid)[instant]
    world = torch.from_numpy(instants.pose)[instant].double()
    if predictions.frame == "world":
        poses = root_relative(world).float()
    else:
        assert predictions.rotation is not None
        poses = camera_pose(world, predictions.rotation.double()).float()
    return poses.masked_fill(~scored[:, None, None], torch.nan)


def gallery_of(predictions: Predictions) -> Gallery:
    """The pictures as retrieval sees them.

    Raises:
        ValueError: There are no embeddings.
    """
    if predictions.embedding is None:
        raise ValueError("retrieval needs embeddings, and this predictor gives none; evaluate one that does.")
    instants, instant = predictions.instants, predictions.instant
    sequence = instants.subject * len(instants.sequences) + instants.sequence
    return Gallery(
        embedding=predictions.embedding,
        pose=torch.from_numpy(instants.pose[instant]),
        instant=torch.from_numpy(instant),
        subject=torch.from_numpy(instants.subject[instant]),
        sequence=torch.from_numpy(sequence[instant]),
        frame=torch.from_numpy(instants.frame[instant]),
        view=torch.from_numpy(predictions.view),
    )


def _evaluate_poses(predictions: Predictions) -> PoseEvaluation | None:
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
    )


def _evaluate_retrieval(predictions: Predictions, settings: EvaluationSettings) -> RetrievalEvaluation | None:
    if predictions.embedding is None:
        return None
    random = np.random.default_rng(np.random.SeedSequence([settings.seed, len(predictions)]))
    everything = gallery_of(predictions)
    gallery = everything.take(whole_instants(everything.instant, settings.max_gallery, random))
    queries = gallery.take(_drawn(torch.arange(len(gallery)), settings.max_queries, random))
    labelled = gallery.take((~gallery.pose.isnan().any(-1).any(-1)).nonzero()[:, 0])
    asked = queries.take((~queries.pose.isnan().any(-1).any(-1)).nonzero()[:, 0])
    return RetrievalEvaluation(
        all_subjects=retrieve_poses(asked, labelled, cross_subject=False, ks=KS),
        cross_subject=retrieve_poses(asked, labelled, cross_subject=True, ks=KS),
        same_instant=retrieve_instants(queries, gallery, settings.tolerance),
    )


def whole_instants(instant: Int[Tensor, " n"], at_most: int, random: np.random.Generator) -> Int[Tensor, " m"]:
    """Places of all pictures of instants drawn until the next would make more than `at_most` pictures."""
    if len(instant) <= at_most:
        return torch.arange(len(instant))
    order = random.permutation(int(instant.max()) + 1)
    pictures = np.bincount(instant.numpy(), minlength=len(order))[order].cumsum()
    chosen = np.zeros(len(order), bool)
    chosen[order[: max(1, int((pictures <= at_most).sum()))]] = True
    return torch.from_numpy(np.flatnonzero(chosen[instant.numpy()]))


def _drawn(places: Int[Tensor, " n"], at_most: int, random: np.random.Generator) -> Int[Tensor, " m"]:
    if len(places) <= at_most:
        return places
    return places[torch.from_numpy(np.sort(random.choice(len(places), at_most, replace=False)))]


def _checked(prediction: Prediction, count: int) -> Prediction:
    for name in ("pose", "embedding"):
        value: Tensor | None = getattr(prediction, name)
        if value is None:
            continue
        if len(value) != count:
            raise ValueError(f"predictor: expected {name}s for {count} rows, got {len(value)}; return one per row.")
        if not value.isfinite().all():
            raise ValueError(
                f"predictor: the {name} of {int((~value.isfinite()).flatten(1).any(1).sum())} of {count} pictures is "
                "NaN or infinite; the network has diverged, use an earlier checkpoint or a lower learning rate."
            )
    return prediction


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    present = [part.detach().float().cpu() for part in parts if part is not None]
    return torch.cat(present) if present else None


def _pose_evaluation(plain: Mapping[str, Any]) -> PoseEvaluation:
    return PoseEvaluation(
        images=plain["images"],
        frame=plain.get("frame", "canonical"),  # of before there were others
        over_poses=PoseScores(**plain["over_poses"]),
        over_actions=PoseScores(**plain["over_actions"]),
        actions={name: PoseScores(**scores) for name, scores in plain["actions"].items()},
        action_images=dict(plain["action_images"]),
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
