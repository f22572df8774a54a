"""MCSS: L_cnstr on unlabelled views and L_pose on a few labels, trained jointly (Mitra et al., CVPR 2020)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mcss.data.loading.batches import Batch
from mcss.data.loading.sampling import MetricSettings
from mcss.losses import (
    fused_views,
    hardest_negative,
    multiview_contrastive,
    multiview_infonce,
    pair_distances,
    pose_l1,
)
from mcss.methods.method import Information, Losses, Method, Reference, Sweep, Teacher
from mcss.methods.recipe import RecipeName
from mcss.methods.supervised import Supervised
from mcss.models.pose_network import NetworkOutput, PoseEstimator

TRUSTED = 160.0
"""MPJPE in mm, against the label of an image, below which BlazePose's landmarks are a target beside the label."""


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
    pose_loss: Literal["sum", "mean"] = "sum"
    """L_pose is the ``sum`` over the 48 normalised coordinates, the norm that the paper prints, or their ``mean``, with
    which L_cnstr weighs 48 times as much."""
    pose_images: int = 22
    """Labelled images in a step."""
    teacher: Reference = "none"
    """Network whose poses are further targets; not in the paper. Those of the ``average`` of the weights so far, or of
    the ``initial`` network that training starts from, are averaged over the views of each unlabelled instant, which
    holds the pose head while L_cnstr moves the embedding. Those of BlazePose's own ``landmarks`` are taken image by
    image, where they agree with a label: what it knows of real people then outlives training on rendered ones."""
    teacher_weight: float = 1.0
    """Weight of the distance to the teacher's poses relative to L_pose."""
    gather: bool = False
    """With several devices: all show the same person in a step, and each compares its images with those of the others,
    as one device with a batch as large would. Otherwise each compares its own."""
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
    def reference(self) -> Reference:
        """The teacher."""
        return self.teacher

    @property
    def gathers(self) -> bool:
        """As set."""
        return self.gather

    @property
    def multi_view(self) -> MetricSettings:
        """Every step compares views."""
        return MetricSettings(self.instants, self.views, self.min_gap)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "MCSS":
        """Return the paper's settings, or those for small batches; docs/method.md ablates the difference."""
        match recipe:
            case "paper" | "paper+aug":
                return cls()
            case "fast":
                return cls(metric_loss="infonce", instants=32, views=4, metric_weight=5.0)

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "MCSSLosses":
        """Return L_cnstr + L_pose of a batch, and the distance to the teacher's poses where there is one."""
        target = None if reference is None else taught_poses(self, reference, batch)
        return losses(self, network, model(batch.images, batch.first_stage), batch, target)

    @property
    def sweep(self) -> Sweep:
        """Tuning varies the metric weight."""
        return Sweep.around("metric weight", self.metric_weight)

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
    taught: Tensor | None
    """Distance to the teacher's poses; None without a teacher."""
    positive_distance: Tensor
    """Mean distance of the first two views of an instant."""
    negative_distance: Tensor
    """Mean distance of the hardest negative beyond β, over the pairs that have one; NaN if none has."""
    without_negative: Tensor
    """Share of the pairs that have no negative beyond β, which Eq. 2 does not push apart; 1 after a collapse."""


@dataclass(frozen=True, eq=False)
class Taught:
    """A teacher's poses of the images of a batch."""

    poses: Float[Tensor, "images 17 3"]
    """In mm; of the unlabelled images, or of all."""
    trusted: Bool[Tensor, " images"]
    """Which of them are targets."""


def taught_poses(settings: MCSS, teacher: Teacher, batch: Batch) -> Taught:
    """Return the teacher's poses: averaged over the views of unlabelled instants, or image by image."""
    instants, views = batch.metric_shape
    unlabelled = instants * views
    if isinstance(teacher, nn.Module):
        teacher.eval()
    with torch.no_grad():
        if settings.teacher == "landmarks":
            poses = teacher.poses(batch.images, batch.first_stage)
            trusted = torch.ones(len(poses), dtype=torch.bool, device=poses.device)
            error = (poses[unlabelled:] - batch.poses)[:, 1:].norm(dim=-1).mean(dim=-1)
            trusted[unlabelled:] = error < TRUSTED
            return Taught(poses, trusted)
        poses = teacher.poses(batch.images[:unlabelled], batch.first_stage)
        fused = fused_views(poses.reshape(instants, views, -1, 3)).repeat_interleave(views, dim=0)
        return Taught(fused, torch.ones(unlabelled, dtype=torch.bool, device=fused.device))


def losses(
    settings: MCSS,
    network: PoseEstimator,
    output: NetworkOutput,
    batch: Batch,
    target: Taught | None = None,
) -> MCSSLosses:
    """Return L_cnstr + L_pose of a batch, and the distances within and between instants.

    Args:
        settings: The method's settings.
        network: The network that is trained.
        output: What it predicts for all images of the batch.
        batch: The batch.
        target: The teacher's poses; None without a teacher.
    """
    instants, views = batch.metric_shape
    embedding = output.embedding[: instants * views].reshape(instants, views, -1)
    devices = _devices() if settings.gather else 1
    if devices > 1:
        embedding = _with_others(embedding, devices)
    anchor, positive = embedding[:, 0], embedding[:, 1]
    match settings.metric_loss:
        case "contrastive":
            metric = multiview_contrastive(anchor, positive, settings.alpha, settings.beta).mean()
        case "infonce":
            metric = multiview_infonce(embedding, settings.temperature).mean()
    # The others' embeddings are constants here, and gradients are averaged over the devices: times their number, the
    # gradient is that of one device that sees all of them.
    total = settings.metric_weight * (metric + (devices - 1) * (metric - metric.detach()))
    pose = None
    if len(batch.poses):
        pose = pose_l1(output.coordinates[instants * views :], network.normalised(batch.poses)).mean()
        if settings.pose_loss == "mean":
            pose = pose / output.coordinates.shape[-1]
        total = total + pose
    taught = None
    if target is not None and target.trusted.any():
        predicted = output.coordinates[: len(target.poses)][target.trusted]
        taught = pose_l1(predicted, network.normalised(target.poses[target.trusted])).mean()
        total = total + settings.teacher_weight * taught
    with torch.no_grad():
        distances = pair_distances(anchor.float(), positive.float())
        negative = hardest_negative(distances, settings.beta)
    return MCSSLosses(
        total=total,
        metric=metric.detach(),
        pose=None if pose is None else pose.detach(),
        taught=None if taught is None else taught.detach(),
        positive_distance=distances.diagonal().mean(),
        negative_distance=negative[negative.isfinite()].mean(),
        without_negative=negative.isinf().float().mean(),
    )


def _devices() -> int:
    """Return the number of devices that train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _with_others(
    embedding: Float[Tensor, "instants views dim"], devices: int
) -> Float[Tensor, "all_instants views dim"]:
    """Return the embeddings of all devices in their order; only those of this one have a gradient."""
    parts = [torch.empty_like(embedding) for _ in range(devices)]
    torch.distributed.all_gather(parts, embedding.detach().contiguous())
    parts[torch.distributed.get_rank()] = embedding
    return torch.cat(parts)
