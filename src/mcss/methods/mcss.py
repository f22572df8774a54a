"""MCSS: L_cnstr on unlabelled views and L_pose on a few labels, trained jointly (Mitra et al., CVPR 2020)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mcss.data.batches import Batch
from mcss.losses import hardest_negative, multiview_contrastive, multiview_infonce, pair_distances, pose_l1
from mcss.models.pose_network import NetworkOutput, PoseEstimator


@dataclass(frozen=True)
class MCSSSettings:
    """What MCSS is trained with; the defaults are the paper's."""

    metric_loss: Literal["contrastive", "infonce"] = "contrastive"
    """``contrastive``: Eq. 2 of the paper. ``infonce``: cross-entropy over all other images of the batch."""
    instants: int = 33
    """Instants of one subject in a step."""
    views: int = 2
    """Views of each instant; 2 are the paper's anchor and positive, more need ``infonce``."""
    min_gap: float = 0.5
    """Seconds between two instants of one sequence in a step; the paper gives no number."""
    alpha: float = 0.6
    """Margin of ``contrastive``."""
    beta: float = 0.3
    """Smallest distance of a negative in ``contrastive``."""
    temperature: float = 0.1
    """Of ``infonce``."""
    metric_weight: float = 1.0
    """Factor of the metric loss beside L_pose; the paper's sum has none."""
    pose_images: int = 22
    """Labelled images in a step."""
    frame: Literal["canonical", "world"] = "canonical"
    """What the poses are turned to. ``world`` leaves them as the room has them: Table 2's "global" pose."""

    def __post_init__(self) -> None:
        if self.metric_loss == "contrastive" and self.views != 2:
            raise ValueError(
                f"views: the paper's loss takes an anchor and a positive, 2 views; got {self.views}. "
                "Set metric_loss to infonce for more."
            )
        if self.views < 2:
            raise ValueError(f"views: a positive needs at least 2 views, got {self.views}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a value above 0, got {self.temperature}.")


@dataclass(frozen=True)
class MCSSLosses:
    """What one step came to; the distances tell whether the embedding holds or collapses."""

    total: Tensor
    metric: Tensor
    pose: Tensor | None
    """None without labels."""
    positive_distance: Tensor
    """Mean distance of the first two views of an instant."""
    negative_distance: Tensor
    """Mean distance of the hardest negative beyond β, over the pairs that have one; NaN if none has."""
    without_negative: Tensor
    """Share of pairs that have no negative beyond β."""


def losses(settings: MCSSSettings, network: PoseEstimator, output: NetworkOutput, batch: Batch) -> MCSSLosses:
    """L_cnstr + L_pose of a batch, and how its distances stand."""
    instants, views = batch.metric_shape
    embedding = output.embedding[: instants * views].reshape(instants, views, -1)
    anchor, positive = embedding[:, 0], embedding[:, 1]
    match settings.metric_loss:
        case "contrastive":
            metric = multiview_contrastive(anchor, positive, settings.alpha, settings.beta).mean()
        case "infonce":
            metric = multiview_infonce(embedding, settings.temperature).mean()
    total = settings.metric_weight * metric
    pose = None
    if len(batch.poses):
        pose = pose_l1(output.coordinates[instants * views :], network.normalised(batch.poses)).mean()
        total = total + pose
    with torch.no_grad():
        distances = pair_distances(anchor.float(), positive.float())
        negative = hardest_negative(distances, settings.beta)
        found = negative.isfinite()
    return MCSSLosses(
        total=total,
        metric=metric.detach(),
        pose=None if pose is None else pose.detach(),
        positive_distance=distances.diagonal().mean(),
        negative_distance=negative[found].mean(),
        without_negative=(~found).float().mean(),
    )
