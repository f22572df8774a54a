"""Multi-view consistency: Rhodin et al., *Learning Monocular 3D Human Pose Estimation from Multi-view Images*, 2018.

A network is first trained on the labels. Training then continues with unlabelled views: the poses predicted for one
instant must agree once they are turned into a common frame, and must not drift away from what the first network
predicts. Poses are in camera space (`mcss.skeletons.camera_pose`) and are scored there.

The paper has no public code. It describes a pose loss on the labelled set; a consistency loss between views, with
rotations that are known or solved by Procrustes; and a regulariser against drift from the initial predictions, without
which consistency has trivial solutions.

Choices of this implementation:

* Network, crops, labels and L_pose are those of the other methods here, in camera space. The paper's poses come from a
  ResNet-50, in part pretrained on 2D labels (the starred row of Table 1 of Mitra et al.); here 2D
  pretraining is a row of its own.
* The common pose is the mean of the views. Both consistency and drift are squared distances in units of one standard
  deviation, that of all coordinates of the labelled poses, since separate units for x, y and z would not survive a
  rotation.
* Drift is measured on the augmented images that the network itself sees.
* With ``rotations="procrustes"`` each view of each instant is turned onto the first view of it, and the rotation is
  held fixed in the gradient. The cameras may move.

It needs what MCSS does not: the cameras' rotations, for the labels in camera space and, unless they are solved by
Procrustes, for the unlabelled views.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.loading.batches import Batch, camera_rotations
from mcss.data.loading.sampling import MetricSettings
from mcss.losses import pose_l1
from mcss.methods.method import Information, Losses, Method, Reference, Sweep, Teacher
from mcss.methods.recipe import RecipeName
from mcss.methods.supervised import PoseLosses, pose_losses
from mcss.models.pose_network import NetworkOutput, PoseEstimator
from mcss.progress import Progress
from mcss.skeletons import PoseFrame


class ViewRotations(NamedTuple):
    """The camera rotations of the unlabelled images of a step."""

    rotations: Float[Tensor, "images 3 3"]
    """World to crop, along whose viewing ray z runs."""


@dataclass(frozen=True, eq=False)
class AllViewRotations:
    """The camera rotations of all training images."""

    rotations: Float[Tensor, "instants views 3 3"]
    """World to crop; NaN where there is no image."""

    def of(self, instants: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]) -> ViewRotations:
        """Return the rotations of some images."""
        return ViewRotations(self.rotations[instants, views])


@dataclass(frozen=True)
class InitialTraining(Method):
    """The first stage: L_pose alone, in camera space."""

    name: ClassVar[str] = "rhodin_cvpr18_initial"
    title: ClassVar[str] = "Rhodin et al., CVPR 2018, before consistency"
    summary: ClassVar[str] = "The first stage of rhodin_cvpr18: labels alone."

    pose_images: int = 22
    """Labelled images in a step."""

    @property
    def frame(self) -> PoseFrame:
        """Poses are along the axes of each camera."""
        return "camera"

    @property
    def information(self) -> Information:
        """Labels alone."""
        return Information(labels=True)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "InitialTraining":
        """Return the same settings for every recipe."""
        return cls()

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> PoseLosses:
        """Return L_pose of a batch."""
        return pose_losses(network, model(batch.images, batch.first_stage), batch)


@dataclass(frozen=True)
class RhodinCVPR18(Method):
    """Multi-view consistency and its settings."""

    name: ClassVar[str] = "rhodin_cvpr18"
    title: ClassVar[str] = "Rhodin et al., CVPR 2018"
    summary: ClassVar[str] = (
        "Multi-view consistency (Rhodin et al., CVPR 2018): labels first, then views that must agree."
    )
    details: ClassVar[str] = (
        "It needs the cameras' rotations and predicts in camera space. The folder `first` of a run holds the initial "
        "network; pass it to --init to train it once for several runs."
    )

    rotations: Literal["cameras", "procrustes"] = "cameras"
    """Rotations between unlabelled views: known from the ``cameras``, or solved in every step by ``procrustes``."""
    instants: int = 16
    """Instants of one subject in a step; fewer for short footage."""
    views: int = 4
    """Views of each instant, or all if the capture has fewer."""
    min_gap: float = 0.5
    """Least seconds between two instants of one sequence in a step; less for short footage."""
    consistency_weight: float = 1.0
    """Weight of the disagreement of the views; the paper's is not known."""
    drift_weight: float = 0.1
    """Weight of the drift from the initial network; the paper's is not known."""
    pose_images: int = 22
    """Labelled images in a step."""
    initial_share: float = 0.5
    """Share of the steps in which the initial network is trained on the labels alone."""

    def __post_init__(self) -> None:
        for name in ("consistency_weight", "drift_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}.")
        if self.views < 2:
            raise ValueError(f"views: expected 2 or more, which can agree, got {self.views}.")
        if not 0 < self.initial_share < 1:
            raise ValueError(f"initial_share: expected a share between 0 and 1, got {self.initial_share}.")

    @property
    def frame(self) -> PoseFrame:
        """Poses are along the axes of each camera."""
        return "camera"

    @property
    def information(self) -> Information:
        """Labels; without weight on consistency, other views say nothing."""
        views = self.consistency_weight > 0
        return Information(labels=True, views=views, rotations=views and self.rotations == "cameras")

    @property
    def multi_view(self) -> MetricSettings:
        """Every step compares views."""
        return MetricSettings(self.instants, self.views, self.min_gap)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "RhodinCVPR18":
        """Return settings with as many images in a step as MCSS has.

        In `fast`, consistency weighs half as much, as the validation subject of the built-in capture preferred.
        """
        match recipe:
            case "paper" | "paper+aug":
                return cls(instants=33, views=2)
            case "fast":
                return cls(instants=32, views=4, consistency_weight=0.5)

    @property
    def reference(self) -> Reference:
        """The initial network, from which the trained one must not drift away."""
        return "initial"

    @property
    def first_stage(self) -> InitialTraining:
        """The initial network."""
        return InitialTraining(self.pose_images)

    def stage_steps(self, steps: int) -> tuple[int, int]:
        """Both stages see labels, so they share the steps."""
        first = max(1, round(self.initial_share * steps))
        if first >= steps:
            raise ValueError(f"steps: expected 2 or more for the two stages of {self.name}, got {steps}.")
        return first, steps - first

    def extras(self, capture: Capture, instants: Instants, progress: Progress) -> AllViewRotations | None:
        """Read the cameras' rotations, unless they are solved."""
        if self.rotations == "procrustes":
            return None
        return AllViewRotations(camera_rotations(capture, instants, instants.rows >= 0, self.name))

    def blank_extra(self, images: int) -> ViewRotations | None:
        """Return rotations that turn nothing."""
        return None if self.rotations == "procrustes" else ViewRotations(torch.eye(3).expand(images, 3, 3))

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "RhodinCVPR18Losses":
        """Return L_pose, disagreement and drift of a batch."""
        assert reference is not None
        output = model(batch.images, batch.first_stage)
        with torch.no_grad():
            poses = reference.poses(batch.images[: math.prod(batch.metric_shape)], batch.first_stage)
        return losses(self, network, output, batch, poses)

    @property
    def sweep(self) -> Sweep:
        """Tuning varies the weight of consistency."""
        return Sweep.around("consistency weight", self.consistency_weight)

    def swept(self, value: float) -> "RhodinCVPR18":
        """Return the method with another weight of consistency."""
        return replace(self, consistency_weight=value)

    def without_views(self) -> tuple[Method, str]:
        """Return the method without consistency, and so without need of a regulariser."""
        return replace(self, consistency_weight=0.0, drift_weight=0.0), "views need not agree"


@dataclass(frozen=True)
class RhodinCVPR18Losses(Losses):
    """The losses of one step; consistency and drift are sums of squares over 48 coordinates, in deviations."""

    consistency: Tensor
    drift: Tensor
    pose: Tensor


def view_disagreement(
    poses: Float[Tensor, "instants views joints 3"], rotations: Float[Tensor, "instants views 3 3"]
) -> Float[Tensor, "instants views"]:
    """Return the squared distance, summed over joints, of each view's pose from the views' mean in the common frame.

    Args:
        poses: Root-relative, along the axes of each camera.
        rotations: From the common frame to each camera; which frame that is does not matter.
    """
    common = poses @ rotations
    return (common - common.mean(dim=1, keepdim=True)).square().sum(dim=(2, 3))


@torch.no_grad()
def aligning_rotations(poses: Float[Tensor, "instants views joints 3"]) -> Float[Tensor, "instants views 3 3"]:
    """Return rotations from the first view's frame to each view's that bring its pose closest to the first view's.

    The rotations are about the root, without scale or reflection, and carry no gradient. They estimate how the cameras
    are rotated to each other where this was not measured.

    Reference:
        Kabsch, Acta Cryst. 1976, the orthogonal Procrustes problem among proper rotations.
    """
    u, _, vt = torch.linalg.svd(poses.mT @ poses[:, :1])
    proper = torch.ones(u.shape[:-1], dtype=u.dtype, device=u.device)
    proper[..., 2] = (torch.linalg.det(u) * torch.linalg.det(vt)).sign()
    rotations: Tensor = u @ (proper[..., None] * vt)
    return rotations


def losses(
    settings: RhodinCVPR18, network: PoseEstimator, output: NetworkOutput, batch: Batch, initial: Tensor
) -> RhodinCVPR18Losses:
    """Return L_pose of the labelled images, and disagreement and drift of the others.

    Args:
        settings: The weights.
        network: The network whose statistics turn coordinates into mm.
        output: What it predicts for the batch.
        batch: Unlabelled images of several views, then labelled ones.
        initial: Poses in mm that the initial network predicts for the unlabelled images, (k·p, 17, 3).
    """
    instants, views = batch.metric_shape
    count = instants * views
    unit = network.pose_std.square().mean().sqrt()
    poses = network.denormalised(output.coordinates[:count].float())[:, 1:] / unit
    drift = (poses - initial[:, 1:] / unit).square().sum(dim=(1, 2)).mean()
    by_view = poses.reshape(instants, views, -1, 3)
    if settings.rotations == "procrustes":
        rotations = aligning_rotations(by_view)
    else:
        assert isinstance(batch.extra, ViewRotations)
        rotations = batch.extra.rotations.reshape(instants, views, 3, 3)
    consistency = view_disagreement(by_view, rotations).mean()
    pose = pose_l1(output.coordinates[count:], network.normalised(batch.poses)).mean()
    return RhodinCVPR18Losses(
        total=pose + settings.consistency_weight * consistency + settings.drift_weight * drift,
        consistency=consistency.detach(),
        drift=drift.detach(),
        pose=pose.detach(),
    )
