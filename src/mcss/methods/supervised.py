"""The supervised baseline: F, G and H trained with L_pose alone (Mitra et al., CVPR 2020, Sec. 5)."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from mcss.data.batches import Batch
from mcss.losses import pose_l1
from mcss.models.pose_network import NetworkOutput, PoseEstimator


@dataclass(frozen=True)
class SupervisedSettings:
    """What the baseline is trained with."""

    pose_images: int = 22
    """Labelled images in a step."""
    frame: Literal["canonical", "world"] = "canonical"
    """What the poses are turned to, see `mcss.methods.mcss`."""


@dataclass(frozen=True)
class SupervisedLosses:
    """What one step came to."""

    total: Tensor
    pose: Tensor


def losses(
    settings: SupervisedSettings, network: PoseEstimator, output: NetworkOutput, batch: Batch
) -> SupervisedLosses:
    """L_pose over the labelled images of a batch."""
    pose = pose_l1(output.coordinates, network.normalised(batch.poses)).mean()
    return SupervisedLosses(total=pose, pose=pose)
