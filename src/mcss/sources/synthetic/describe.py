"""How well a capture's labels cover its test poses: what there is to gain, before anything is trained."""

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
"""The headings of `Coverage.table`; distances are MPJPE in mm, canonical space, 16 joints."""


@dataclass(frozen=True)
class Distances:
    """Mean distances of poses, MPJPE in mm over 16 joints in canonical space; not the error of any method.

    Attributes:
        nearest_labelled: To the nearest labelled pose: what a perfect look-up among the labels leaves.
        nearest_training: To the nearest pose of any training subject, labelled or not.
        mean_pose: To the mean of the labelled poses: what a predictor that never looks leaves.
    """

    nearest_labelled: float
    nearest_training: float
    mean_pose: float


@dataclass(frozen=True)
class Oracle:
    """Mean PA-MPJPE in mm (17 joints) to the K most similar other poses of the split.

    The gallery has every instant once and leaves out the query; a gallery of images has it once a view.

    Attributes:
        k: How many poses are averaged.
        anybody: The poses may be the query's own subject's.
        others: They must not; None where the split has one subject.
    """

    k: int
    anybody: float
    others: float | None


@dataclass(frozen=True)
class ActionCoverage:
    """Counts and distances of one action of one split.

    Attributes:
        action: Its name.
        instants, images: How many there are.
        distances: None for the training split, and where no instant has a usable pose.
    """

    action: str
    instants: int
    images: int
    distances: Distances | None


@dataclass(frozen=True)
class SplitCoverage:
    """Counts, distances and oracle of one split; see `ActionCoverage` for the actions.

    Attributes:
        poses: How many poses the distances and the oracle are means of (see `describe`).
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
    """What `describe` found.

    Attributes:
        labels: The labels that count as known.
        labelled: How many instants they are.
        splits: In the capture's order.
    """

    labels: str
    labelled: int
    splits: tuple[SplitCoverage, ...]

    def table(self) -> list[tuple[str, ...]]:
        """Rows of text under `COLUMNS`: each split's actions, then the whole split as "all"."""
        return [row for split in self.splits for row in _rows(split)]

    def oracle_table(self) -> list[tuple[str, ...]]:
        """Rows (split, K, PA-MPJPE to anybody's poses, to other subjects' poses) of text."""
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


def describe(capture: Capture, labels: str = "S1", max_poses: int = 1000, progress: Progress = NO_PROGRESS) -> Coverage:
    """Measure how well the labels of the split "train" cover each other split.

    Args:
        capture: A finished capture with a split "train" and poses.
        labels: Which labels count as known, as `labels.Labels` reads it.
        max_poses: Of a larger split so many poses, evenly spread, are compared; the references and the counts
            are complete.
        progress: Told after each split.

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
            instants = capture.instants(name)
            splits.append(_split_coverage(name, instants, labelled, training, max_poses))
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
    """Canonical poses in mm without the root, which is zero."""
    poses = canonical_pose(torch.from_numpy(instants.pose))
    return poses[:, [joint for joint in range(poses.shape[1]) if joint != ROOT]]


def _to_nearest(poses: Float[Tensor, "n joints 3"], references: Float[Tensor, "m joints 3"]) -> Float[Tensor, " n"]:
    """Each pose's MPJPE to the nearest reference."""
    # Over chunks of poses, so that the distances of some hundred thousand pairs are held at a time.
    chunk = max(1, 200_000 // len(references))
    found = [(part[:, None] - references).norm(dim=-1).mean(-1).amin(1) for part in torch.split(poses, chunk)]
    return torch.cat(found) if found else poses.new_zeros(0)


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
        own = score(anybody, k)
        if own is not None:
            scores.append(Oracle(k=k, anybody=own, others=score(others, k)))
    return tuple(scores)
