"""How well a capture's labels cover its test poses, which bounds what a method can gain before anything is trained."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.labels import Labels, select_labels
from mcss.metrics import pairwise_pa_mpjpe
from mcss.progress import NO_PROGRESS, Progress
from mcss.retrieval import mean_pa_mpjpe_at_k
from mcss.skeletons import ROOT, canonical_pose

TRAIN = "train"
ORACLE_K = (1, 10)

COLUMNS = (
    "split",
    "action",
    "instants",
    "images",
    "nearest labelled pose",
    "nearest training pose",
    "mean labelled pose",
)
"""Column titles of `Coverage.table`; distances are MPJPE in mm between canonical poses, over 16 joints."""


@dataclass(frozen=True)
class Distances:
    """Mean distances of poses, MPJPE in mm between canonical poses over 16 joints; not the error of any method.

    Attributes:
        nearest_labelled: Distance to the nearest labelled pose, the error of a perfect look-up among the labels.
        nearest_training: Distance to the nearest pose of any training subject, labelled or not.
        mean_pose: Distance to the mean of the labelled poses, the error of a predictor that ignores the image.
    """

    nearest_labelled: float
    nearest_training: float
    mean_pose: float


@dataclass(frozen=True)
class Oracle:
    """Mean PA-MPJPE in mm (17 joints) to the K most similar other poses of the split.

    The gallery holds every instant once, without the query; a gallery of images would hold it once per view.

    Attributes:
        k: Number of poses that are averaged.
        anybody: The value if poses of the query's own subject are allowed.
        others: The value if they are not; None if the split has one subject.
    """

    k: int
    anybody: float
    others: float | None


@dataclass(frozen=True)
class ActionCoverage:
    """Counts and distances of one action of one split.

    Attributes:
        action: Name of the action.
        instants, images: Number of instants and of images.
        distances: None for the training split, and if no instant has a usable pose.
    """

    action: str
    instants: int
    images: int
    distances: Distances | None


@dataclass(frozen=True)
class SplitCoverage:
    """Counts, distances and oracle of one split, and of each of its actions.

    Attributes:
        poses: Number of poses over which the distances and the oracle are averaged (see `measure_coverage`).
    """

    split: str
    subjects: tuple[str, ...]
    instants: int
    images: int
    poses: int
    distances: Distances | None
    oracle: tuple[Oracle, ...]
    actions: tuple[ActionCoverage, ...]


@dataclass(frozen=True)
class Coverage:
    """How well labels cover each split of a capture.

    Attributes:
        labels: The labels that count as known, as `mcss train --labels` takes them.
        labelled: Number of labelled instants.
        splits: The splits, in the capture's order.
    """

    labels: str
    labelled: int
    splits: tuple[SplitCoverage, ...]

    def table(self) -> list[tuple[str, ...]]:
        """Return rows of text for `COLUMNS`: each split's actions, then the whole split as "all"."""
        return [row for split in self.splits for row in _rows(split)]

    def oracle_table(self) -> list[tuple[str, ...]]:
        """Return rows of text: split, K, PA-MPJPE to poses of anybody, and to poses of other subjects."""
        return [
            (split.split, str(o.k), f"{o.anybody:.1f}", "–" if o.others is None else f"{o.others:.1f}")
            for split in self.splits
            for o in split.oracle
        ]


def _rows(split: SplitCoverage) -> Iterator[tuple[str, ...]]:
    whole = ActionCoverage("all", split.instants, split.images, split.distances)
    for part in (*split.actions, whole):
        d = part.distances
        values = (d.nearest_labelled, d.nearest_training, d.mean_pose) if d else ()
        numbers = [f"{value:.1f}" for value in values] or ["–"] * 3
        yield (split.split, part.action, str(part.instants), str(part.images), *numbers)


def measure_coverage(
    capture: Capture, labels: str = "S1", max_poses: int = 1000, progress: Progress = NO_PROGRESS
) -> Coverage:
    """Measure how well the labels of the split "train" cover each other split.

    Args:
        capture: A finished capture with a split "train" and poses.
        labels: Which labels count as known, as `labels.Labels` reads it.
        max_poses: Number of poses of a split that are compared; they are evenly spread. The references and the counts
            are always complete.
        progress: Counts splits.

    Raises:
        CaptureError: There is no split "train".
        ValueError: The labels select nothing.
    """
    if max_poses < 1:
        raise ValueError(f"max_poses must be at least 1, got {max_poses}")
    train = capture.instants(TRAIN)
    known = select_labels(train, Labels.parse(labels))
    if not known.any():
        raise ValueError(f"labels {labels!r} select no instant with a pose; choose others, for example 'all'")
    training = _canonical(train.take(train.heading_valid))
    labelled = _canonical(train.take(known))
    splits = []
    with progress.task("Measuring coverage", len(capture.splits)) as task:
        for name in capture.splits:
            splits.append(_split_coverage(name, capture.instants(name), labelled, training, max_poses))
            task.advance()
    return Coverage(labels=labels, labelled=int(known.sum()), splits=tuple(splits))


def _split_coverage(
    name: str,
    instants: Instants,
    labelled: Float[Tensor, "labelled 16 3"],
    training: Float[Tensor, "training 16 3"],
    max_poses: int,
) -> SplitCoverage:
    usable = np.flatnonzero(instants.heading_valid)
    chosen = usable[np.unique(np.linspace(0, len(usable) - 1, min(max_poses, len(usable))).astype(int))]
    chosen = chosen[:0] if name == TRAIN else chosen
    sample = instants.take(chosen)
    poses = _canonical(sample)
    to_labelled, to_training = _to_nearest(poses, labelled), _to_nearest(poses, training)
    to_mean = (poses - labelled.mean(0)).norm(dim=-1).mean(-1)

    def distances(rows: Bool[np.ndarray, " sample"]) -> Distances | None:
        picked = torch.from_numpy(rows)
        if not rows.any():
            return None
        return Distances(
            nearest_labelled=float(to_labelled[picked].mean()),
            nearest_training=float(to_training[picked].mean()),
            mean_pose=float(to_mean[picked].mean()),
        )

    return SplitCoverage(
        split=name,
        subjects=instants.present_subjects(),
        instants=len(instants),
        images=int((instants.rows >= 0).sum()),
        poses=len(sample),
        distances=distances(np.ones(len(sample), dtype=bool)),
        oracle=_oracle(sample),
        actions=tuple(
            ActionCoverage(
                action=instants.actions[action],
                instants=int((instants.action == action).sum()),
                images=int((instants.rows[instants.action == action] >= 0).sum()),
                distances=distances(sample.action == action),
            )
            for action in np.unique(instants.action)
        ),
    )


def _canonical(instants: Instants) -> Float[Tensor, "n 16 3"]:
    """Return canonical poses in mm without the root, which is zero."""
    poses = canonical_pose(torch.from_numpy(instants.pose))
    return poses[:, [joint for joint in range(poses.shape[1]) if joint != ROOT]]


def _to_nearest(poses: Float[Tensor, "n joints 3"], references: Float[Tensor, "m joints 3"]) -> Float[Tensor, " n"]:
    """Return the MPJPE of each pose to its nearest reference."""
    # In chunks, so that only some hundred thousand distances are held at a time.
    chunk = max(1, 200_000 // len(references))
    nearest = [(part[:, None] - references).norm(dim=-1).mean(-1).amin(1) for part in torch.split(poses, chunk)]
    return torch.cat(nearest) if nearest else poses.new_zeros(0)


def _oracle(sample: Instants) -> tuple[Oracle, ...]:
    if len(sample) < 2:
        return ()
    poses = torch.from_numpy(sample.pose)
    errors = pairwise_pa_mpjpe(poses, poses)
    anybody = ~torch.eye(len(sample), dtype=torch.bool)
    subject = torch.from_numpy(sample.subject)
    others = subject[:, None] != subject

    def score(allowed: Bool[Tensor, "n n"], k: int) -> float | None:
        if int(allowed.sum(1).min()) < k:
            return None
        return float(mean_pa_mpjpe_at_k(errors, errors, allowed, k).mean())

    scores = []
    for k in ORACLE_K:
        of_anybody = score(anybody, k)
        if of_anybody is not None:
            scores.append(Oracle(k=k, anybody=of_anybody, others=score(others, k)))
    return tuple(scores)
