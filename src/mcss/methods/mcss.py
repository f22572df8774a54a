"""MCSS: L_cnstr on unlabelled views and L_pose on a few labels, trained jointly (Mitra et al., CVPR 2020)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from mcss.data.batches import Batch
from mcss.data.sampling import MetricSettings
from mcss.losses import hardest_negative, multiview_contrastive, multiview_infonce, pair_distances, pose_l1
from mcss.methods.method import Information, Losses, Method, Sweep
from mcss.methods.recipe import RecipeName
from mcss.methods.supervised import Supervised
from mcss.models.pose_network import NetworkOutput, PoseEstimator


@dataclass(frozen=True)
class MCSS(Method):
    """MCSS and its settings; the defaults are the paper's."""

    name: ClassVar[str] = "mcss"
    title: ClassVar[str] = "MCSS"
    summary: ClassVar[str] = "MCSS: unlabelled synchronised views of everybody, 3D labels of a few people or of nobody."
    needs_labels: ClassVar[bool] = False

    metric_loss: Literal["contrastive", "infonce"] = "contrastive"
    """``contrastive``: Eq. 2 of the paper. ``infonce``: cross-entropy over all other images of the batch."""
    instants: int = 33
    """Instants of one subject in a step; fewer for short footage."""
    views: int = 2
    """Views of each instant, or all if the capture has fewer; 2 are the paper's anchor and positive, more need
    ``infonce``."""
    min_gap: float = 0.5
    """Least seconds between two instants of one sequence in a step; less for short footage. The paper gives no
    number."""
    alpha: float = 0.6
    """Margin α of the ``contrastive`` loss."""
    beta: float = 0.3
    """Least embedding distance β of a negative in the ``contrastive`` loss."""
    temperature: float = 0.1
    """Temperature of the ``infonce`` loss."""
    metric_weight: float = 1.0
    """Weight of the metric loss relative to L_pose; the paper's sum has none."""
    pose_images: int = 22
    """Labelled images in a step."""
    frame: Literal["canonical", "world"] = "canonical"
    """Coordinate frame of the predicted poses: ``canonical`` turns every pose to face a fixed way, ``world`` keeps its
    heading in the room (the "global" pose of Table 2)."""

    def __post_init__(self) -> None:
        if self.metric_loss == "contrastive" and self.views != 2:
            raise ValueError(
                f"views: expected 2, the paper's anchor and positive, got {self.views}. "
                "Set metric_loss to infonce for more."
            )
        if self.views < 2:
            raise ValueError(f"views: expected 2 or more, since a positive is another view, got {self.views}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature: expected a value above 0, got {self.temperature}.")

    @property
    def information(self) -> Information:
        """Labels, and which images show the same instant."""
        return Information(labels=True, views=True)

    @property
    def multi_view(self) -> MetricSettings:
        """Every step compares views."""
        return MetricSettings(self.instants, self.views, self.min_gap)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "MCSS":
        """Return the paper's settings, or those for small batches; docs/method.md ablates the difference."""
        match recipe:
            case "paper":
                return cls()
            case "fast":
                return cls(metric_loss="infonce", instants=32, views=4, metric_weight=5.0)

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, initial: PoseEstimator | None
    ) -> "MCSSLosses":
        """Return L_cnstr + L_pose of a batch."""
        return losses(self, network, model(batch.images, batch.first_stage), batch)

    @property
    def sweep(self) -> Sweep:
        """Tuning tries half of the metric weight, too."""
        return Sweep("metric weight", (self.metric_weight, self.metric_weight / 2))

    def swept(self, value: float) -> "MCSS":
        """Return the method with another metric weight."""
        return replace(self, metric_weight=value)

    def without_views(self) -> tuple[Method, str]:
        """Without L_cnstr, MCSS is the supervised baseline."""
        return Supervised(self.pose_images, self.frame), "MCSS without L_cnstr"


@dataclass(frozen=True)
class MCSSLosses(Losses):
    """The losses of one step; the distances show whether the embedding separates poses or collapses."""

    metric: Tensor
    pose: Tensor | None
    """None without labels."""
    positive_distance: Tensor
    """Mean distance of the first two views of an instant."""
    negative_distance: Tensor
    """Mean distance of the hardest negative beyond β, over the pairs that have one; NaN if none has."""


def losses(settings: MCSS, network: PoseEstimator, output: NetworkOutput, batch: Batch) -> MCSSLosses:
    """Return L_cnstr + L_pose of a batch, and the distances within and between instants."""
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
    return MCSSLosses(
        total=total,
        metric=metric.detach(),
        pose=None if pose is None else pose.detach(),
        positive_distance=distances.diagonal().mean(),
        negative_distance=negative[negative.isfinite()].mean(),
    )
