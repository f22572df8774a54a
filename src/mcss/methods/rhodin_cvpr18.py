"""Multi-view consistency: Rhodin et al., *Learning Monocular 3D Human Pose Estimation from Multi-view Images*, 2018.

A network that was first trained on the labels goes on with unlabelled views: its poses of one instant are to agree once
they are turned into a common frame, and are not to drift away from what the first network says. Poses are in camera
space (`mcss.skeletons.camera_pose`) and are scored there.

The paper, which has no public code, says: a pose loss on the labelled set, a consistency loss between views, with
rotations that are known or solved by Procrustes, and a regulariser against drift from the initial predictions; without
the latter consistency has trivial solutions.

What had to be chosen:

* Network, crops, labels and L_pose are those of the other systems here, in camera space. The paper's poses come from a
  ResNet-50, in part pretrained on 2D labels (the starred row of Table 1 of Mitra et al.); here is no 2D pretraining.
* The common pose is the mean of the views. Both consistency and drift are squared distances in units of one deviation,
  that of all coordinates of the labelled poses, since separate units for x, y and z would not survive a rotation.
* The drift is taken on the augmented images that the network itself sees.
* With ``rotations="procrustes"`` each view of each instant is turned onto the first view of it, and the rotation is
  held fixed in the gradient. Nothing is assumed of cameras that stand still.

What it needs that MCSS does not: the cameras' rotations, for the labels in camera space and, unless Procrustes is
asked, for the unlabelled views.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mcss.data.batches import Batch
from mcss.losses import pose_l1
from mcss.models.pose_network import NetworkOutput, PoseEstimator


@dataclass(frozen=True)
class InitialSettings:
    """What the initial network is trained with: L_pose alone, in camera space."""

    pose_images: int = 22
    """Labelled images in a step."""


@dataclass(frozen=True)
class RhodinCVPR18Settings:
    """What multi-view consistency is trained with."""

    rotations: Literal["cameras", "procrustes"] = "cameras"
    """Of the unlabelled views: known, or solved anew in every step."""
    instants: int = 16
    """Instants of one subject in a step."""
    views: int = 4
    """Views of each instant."""
    min_gap: float = 0.5
    """Seconds between two instants of one sequence in a step."""
    consistency_weight: float = 1.0
    """Factor of the disagreement of the views; the paper's is not known."""
    drift_weight: float = 0.1
    """Factor of the drift; the paper's is not known."""
    pose_images: int = 22
    """Labelled images in a step."""
    initial_share: float = 0.5
    """Share of the steps in which the initial network is trained on the labels alone."""

    def __post_init__(self) -> None:
        for name in ("consistency_weight", "drift_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}.")
        if self.views < 2:
            raise ValueError(f"views: at least 2 can agree, got {self.views}.")
        if not 0 < self.initial_share < 1:
            raise ValueError(f"initial_share: expected a share between 0 and 1, got {self.initial_share}.")


@dataclass(frozen=True)
class InitialLosses:
    """What one step of the initial network came to."""

    total: Tensor
    pose: Tensor


@dataclass(frozen=True)
class RhodinCVPR18Losses:
    """What one step came to; consistency and drift are sums of squares over 48 coordinates, in deviations."""

    total: Tensor
    consistency: Tensor
    drift: Tensor
    pose: Tensor


def view_disagreement(
    poses: Float[Tensor, "instants views joints 3"], rotations: Float[Tensor, "instants views 3 3"]
) -> Float[Tensor, "instants views"]:
    """Squared distance, summed over joints, of each view's pose from the mean of all views in the common frame.

    Args:
        poses: Root-relative, along the axes of each camera.
        rotations: From the common frame to each camera; which frame that is does not matter.
    """
    common = poses @ rotations
    return (common - common.mean(dim=1, keepdim=True)).square().sum(dim=(2, 3))


@torch.no_grad()
def aligning_rotations(poses: Float[Tensor, "instants views joints 3"]) -> Float[Tensor, "instants views 3 3"]:
    """Rotations from the first view's frame to each view's, by which its pose comes nearest to the first view's.

    About the root, without scale or reflection; no gradient. The answer to "how do the cameras stand to each other?"
    where nobody has measured it.

    Reference:
        Kabsch, Acta Cryst. 1976, the orthogonal Procrustes problem among proper rotations.
    """
    u, _, vt = torch.linalg.svd(poses.mT @ poses[:, :1])
    proper = torch.ones(u.shape[:-1], dtype=u.dtype, device=u.device)
    proper[..., 2] = (torch.linalg.det(u) * torch.linalg.det(vt)).sign()
    rotations: Tensor = u @ (proper[..., None] * vt)
    return rotations


def initial_losses(
    settings: InitialSettings, network: PoseEstimator, output: NetworkOutput, batch: Batch
) -> InitialLosses:
    """L_pose over the labelled images of a batch."""
    pose = pose_l1(output.coordinates, network.normalised(batch.poses)).mean()
    return InitialLosses(total=pose, pose=pose.detach())


def losses(
    settings: RhodinCVPR18Settings, network: PoseEstimator, output: NetworkOutput, batch: Batch, initial: Tensor
) -> RhodinCVPR18Losses:
    """L_pose of the labelled images, disagreement and drift of the others.

    Args:
        settings: The weights.
        network: Whose statistics turn coordinates into mm.
        output: What it says of the batch.
        batch: Metric images and labelled ones.
        initial: Poses in mm that the initial network sees in the metric images, (k·p, 17, 3).
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
        assert batch.rotations is not None
        rotations = batch.rotations[:count].reshape(instants, views, 3, 3)
    consistency = view_disagreement(by_view, rotations).mean()
    pose = pose_l1(output.coordinates[count:], network.normalised(batch.poses)).mean()
    return RhodinCVPR18Losses(
        total=pose + settings.consistency_weight * consistency + settings.drift_weight * drift,
        consistency=consistency.detach(),
        drift=drift.detach(),
        pose=pose.detach(),
    )
