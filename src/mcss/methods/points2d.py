"""2D pretraining: a network that locates joints in an image, learned from 2D labels or a detector's output alone.

It is not compared with the other methods: its backbone is where another run starts (``--weights RUN``). The starred
rows of Table 1 of Mitra et al. (CVPR 2020) are networks that were first trained on 2D labels; Rhodin et al. (CVPR
2018) trained a ResNet-50 on MPII and LSP. Here the images are those of the capture itself, of everybody in the
training split.

H's coordinates are trained: x and y of each joint against its normalised point (`mcss.data.keypoints`); z stays
untrained.

It needs what MCSS does not: 2D joints of all training images.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.keypoints import LABELS, keypoints_of
from mcss.data.loading.batches import Batch
from mcss.data.loading.sampling import MetricSettings
from mcss.methods.method import Information, Losses, Method, Teacher
from mcss.methods.recipe import RecipeName
from mcss.models.pose_network import OUTPUT_JOINTS, NetworkOutput, PoseEstimator
from mcss.progress import Progress, say
from mcss.skeletons import PoseFrame

FIXED_ORIENTATION = "2D joints are not rotated or mirrored with their image"


class JointPoints(NamedTuple):
    """The 2D joints of the images of a step."""

    points: Float[Tensor, "images 17 2"]
    """Normalised, see `mcss.data.keypoints`; NaN where unknown."""


@dataclass(frozen=True, eq=False)
class AllJointPoints:
    """The 2D joints of all training images."""

    points: Float[Tensor, "instants views 17 2"]

    @classmethod
    def read(
        cls, capture: Capture, instants: Instants, source: str, purpose: str, progress: Progress
    ) -> "AllJointPoints":
        """Read them from `source`, see `mcss.data.keypoints.keypoints_of`."""
        return cls(torch.from_numpy(keypoints_of(capture, instants, source, purpose, partial(say, progress))))

    def of(self, instants: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]) -> JointPoints:
        """Return the joints of some images."""
        return JointPoints(self.points[instants, views])


@dataclass(frozen=True)
class Points2D(Method):
    """2D pretraining and its settings."""

    name: ClassVar[str] = "points2d"
    title: ClassVar[str] = "2D pretraining"
    summary: ClassVar[str] = "Pretrain a backbone on 2D joints; give the run to --weights of another training."
    details: ClassVar[str] = "It does not predict 3D poses, and uses no 3D labels."
    predicts_poses: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    points: str = LABELS
    """Where 2D joints come from: ``labels`` projects the 3D labels into the cameras; or a detector's CSV or Parquet
    file with the columns subject,sequence,frame,view,joint,x,y, in pixels of the source images."""
    instants: int = 32
    """Instants of one subject in a step; fewer for short footage."""
    views: int = 2
    """Views of each instant, or all if the capture has fewer."""
    min_gap: float = 0.5
    """Least seconds between two instants of one sequence in a step; less for short footage."""

    @property
    def frame(self) -> PoseFrame:
        """Poses are not predicted, so that any coordinate frame will do."""
        return "canonical"

    @property
    def information(self) -> Information:
        """2D joints alone."""
        return Information(points=True)

    @property
    def multi_view(self) -> MetricSettings:
        """Views are not compared: this is how images are chosen."""
        return MetricSettings(self.instants, self.views, self.min_gap)

    @property
    def fixed_orientation(self) -> str:
        """Joints stay where they are in the image."""
        return FIXED_ORIENTATION

    @property
    def files(self) -> tuple[Path, ...]:
        """The detector's file."""
        return point_files(self.points)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "Points2D":
        """Return settings with as many images in a step as MCSS has."""
        match recipe:
            case "paper" | "paper+aug":
                return cls(instants=33)
            case "fast":
                return cls(views=4)

    def extras(self, capture: Capture, instants: Instants, progress: Progress) -> AllJointPoints:
        """Read the 2D joints."""
        return AllJointPoints.read(capture, instants, self.points, self.name, progress)

    def blank_extra(self, images: int) -> JointPoints:
        """Return random joints."""
        return JointPoints(torch.randn(images, 17, 2))

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "Points2DLosses":
        """Return the error of the located joints."""
        assert isinstance(batch.extra, JointPoints)
        return point_losses(model(batch.images, batch.first_stage), batch.extra.points)


@dataclass(frozen=True)
class Points2DLosses(Losses):
    """The losses of one step."""

    points: Tensor
    """Mean L1 of a coordinate, in units of the points."""


def point_files(source: str) -> tuple[Path, ...]:
    """Return the file that 2D joints come from, if it is one."""
    return () if source == LABELS else (Path(source),)


def point_error(predicted: Float[Tensor, "batch 16 2"], points: Float[Tensor, "batch 17 2"]) -> Float[Tensor, " batch"]:
    """Return the mean absolute difference of the coordinates of the known joints; 0 for an image without any."""
    true = points[:, 1:]
    known = true.isfinite()
    difference = (predicted - true.nan_to_num()).abs() * known
    return difference.flatten(1).sum(dim=1) / known.flatten(1).sum(dim=1).clamp(min=1)


def point_losses(output: NetworkOutput, points: Float[Tensor, "batch 17 2"]) -> Points2DLosses:
    """Return the error of x and y of the predicted coordinates."""
    predicted = output.coordinates.reshape(-1, OUTPUT_JOINTS, 3)[..., :2]
    error = mean_of_known(point_error(predicted, points), points)
    return Points2DLosses(total=error, points=error.detach())


def mean_of_known(values: Float[Tensor, " batch"], points: Float[Tensor, "batch 17 2"]) -> Tensor:
    """Return the mean over the images that have any points."""
    known = points.isfinite().flatten(1).any(dim=1)
    return torch.where(known, values, torch.zeros_like(values)).sum() / known.sum().clamp(min=1)
