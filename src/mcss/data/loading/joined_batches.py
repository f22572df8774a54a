"""Batches of several captures in one training: one's own footage, and others beside it with labels of their own."""

from dataclasses import dataclass, replace

import torch

from mcss.data.loading.batches import Batch, BatchSource
from mcss.data.loading.sampling import PosePlan


@dataclass(frozen=True, eq=False)
class JoinedBatches:
    """Makes the batches of a capture and of others beside it; a pure function of the fields and the step.

    The unlabelled images of a step are all of one capture, since a step compares instants of one person. The labelled
    images come from both: in the given share from the captures beside, or all from where there are labels.
    """

    main: BatchSource
    beside: tuple[BatchSource, ...]
    share: float
    """Share of the steps whose unlabelled images come from beside, and of the labelled images."""

    @property
    def pose(self) -> PosePlan | None:
        """The labelled images of the first source that has any; None without labels."""
        return next((source.pose for source in (self.main, *self.beside) if source.pose is not None), None)

    @property
    def workers(self) -> int:
        """Batches that `prefetched` makes at a time."""
        return self.main.workers

    def batch(self, step: int) -> Batch:
        """Return the batch of step `step`."""
        turns = int((step + 1) * self.share)
        turn = turns > int(step * self.share)  # spread evenly over the steps
        other = self.beside[(turns if turn else step) % len(self.beside)]
        labelled = self.main.pose_images
        if other.pose is None:
            beside = 0
        elif self.main.pose is None:
            beside = labelled
        else:
            beside = round(self.share * labelled)
        parts = [
            _part(self.main, step, metric=not turn, labelled=labelled - beside),
            _part(other, step, metric=turn, labelled=beside),
        ]
        return _joined([part for part in parts if part is not None])


def _part(source: BatchSource, step: int, metric: bool, labelled: int) -> Batch | None:
    """Return what one source gives to a step; None if that is nothing."""
    plan = source.metric if metric else None
    pose = source.pose if labelled else None
    if plan is None and pose is None:
        return None
    return replace(source, metric=plan, pose=pose, pose_images=labelled).batch(step)


def _joined(parts: list[Batch]) -> Batch:
    """Put the unlabelled images of one part first, then the labelled ones of all."""
    counts = [part.metric_shape[0] * part.metric_shape[1] for part in parts]
    compared = [part for part, count in zip(parts, counts, strict=True) if count]
    images = [part.images[:count] for part, count in zip(parts, counts, strict=True)]
    images += [part.images[count:] for part, count in zip(parts, counts, strict=True)]
    return Batch(
        images=torch.cat(images).contiguous(memory_format=torch.channels_last),
        metric_shape=compared[0].metric_shape if compared else (0, 0),
        poses=torch.cat([part.poses for part in parts]),
        first_stage=parts[0].first_stage,
        extra=compared[0].extra if compared else None,
    )
