"""2D pretraining: a network that tells where the joints lie in an image, of 2D labels or a detector's points alone.

Not a system of its own: what its backbone has learned is the start of another run (``--weights RUN``). The starred rows
of Table 1 of Mitra et al. (CVPR 2020) are of networks that were first trained on 2D labels, a ResNet-50 on MPII and LSP
by Rhodin et al. (CVPR 2018). Here the images are those of the capture itself, of everybody in the training split.

H's coordinates are trained, x and y of each joint against its normalised point (`mcss.data.keypoints`); z stays
untrained.

What it needs that MCSS does not: 2D joints of all training images.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mcss.data.batches import Batch
from mcss.data.keypoints import LABELS
from mcss.models.pose_network import OUTPUT_JOINTS, NetworkOutput


@dataclass(frozen=True)
class Points2DSettings:
    """What the network is trained with."""

    points: str = LABELS
    """Where 2D joints come from: labels, or a CSV or Parquet file."""
    instants: int = 32
    """Instants of one subject in a step."""
    views: int = 2
    """Views of each."""
    min_gap: float = 0.5
    """Seconds between two instants of one sequence in a step."""


@dataclass(frozen=True)
class Points2DLosses:
    """What one step came to."""

    total: Tensor
    points: Tensor
    """Mean L1 of a coordinate, in units of the points."""


def point_error(predicted: Float[Tensor, "batch 16 2"], points: Float[Tensor, "batch 17 2"]) -> Float[Tensor, " batch"]:
    """Mean absolute difference in the coordinates of the joints that are known; 0 for an image without any."""
    true = points[:, 1:]
    known = true.isfinite()
    difference = (predicted - true.nan_to_num()).abs() * known
    return difference.flatten(1).sum(dim=1) / known.flatten(1).sum(dim=1).clamp(min=1)


def losses(settings: Points2DSettings, output: NetworkOutput, batch: Batch) -> Points2DLosses:
    """The error of x and y of the predicted coordinates."""
    assert batch.points is not None
    predicted = output.coordinates.reshape(-1, OUTPUT_JOINTS, 3)[..., :2]
    error = mean_of_known(point_error(predicted, batch.points), batch.points)
    return Points2DLosses(total=error, points=error.detach())


def mean_of_known(values: Float[Tensor, " batch"], points: Float[Tensor, "batch 17 2"]) -> Tensor:
    """The mean over the images that have any points."""
    known = points.isfinite().flatten(1).any(dim=1)
    return torch.where(known, values, torch.zeros_like(values)).sum() / known.sum().clamp(min=1)
