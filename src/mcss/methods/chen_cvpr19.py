"""Skeleton-map synthesis: Chen et al., *Weakly-Supervised Discovery of Geometry-Aware Representation*, CVPR 2019.

First, without 3D labels, an encoder learns to turn a drawing of the 2D skeleton into a cloud of 3D points, such that a
decoder draws the skeleton that another camera sees, given the cloud rotated by the relative rotation of the two
cameras; and the rotated cloud must equal the one encoded from that other view. Then all of that is frozen and a shallow
network learns the pose from the cloud with the few labels. Poses are in camera space and are scored there.

The paper has no public code. It describes 2D joints found by a detector that was trained on 2D labels; skeleton maps
drawn from them, so that appearance and background need no modelling; an encoder and a decoder whose latent is a point
set that is rotated; an L2 loss of the drawn map; representation consistency, the rotated latent of one view against
that of the other, in both directions; and two fully connected layers from the latent to the pose.

Choices of this implementation:

* The detector is the backbone of the other methods here with one linear layer that gives the points, learned in the
  first stage from the 2D labels of all training images. The paper's is a stacked hourglass, trained elsewhere. No
  gradient flows from the maps into it, as if it had been trained before.
* Points are normalised (`mcss.data.keypoints`): a map has the hip in its middle and shows everybody at the same size,
  so that images may be shifted and zoomed. What a skeleton's position and size in the image say about its pose is not
  used.
* A map has a channel for each bone and 32 px. Its L2 is relative to the mean square of the true maps, and consistency
  is relative to the variance of the clouds, so that neither a small cloud nor one that is the same for all images is
  rewarded (points straight above the hip look alike to all cameras that stand upright).
* The pose is read off the cloud in standard deviations of its coordinates (BatchNorm without scale and shift), whatever
  its units.
* The first stage takes as many steps as the second by default.
* 200 points as in Rhodin et al. (ECCV 2018), whose sampling and rotation of views this shares. The paper's number, the
  widths of its networks and the weights of its losses are not known.
* The views of an instant form a ring: each is drawn from the one before, and its cloud is compared with that one's.
* Rotations are those of the crops, whose z runs along the viewing ray.

It needs what MCSS does not: the rotation of every camera, and 2D joints of all training images, from the labels or from
a detector.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.keypoints import BONES, LABELS, keypoints_of, skeleton_maps
from mcss.data.loading.batches import Batch, camera_rotations
from mcss.methods.cloud_regression import CloudRegression, CloudRepresentation, mean_squared
from mcss.methods.method import Information, Losses, Teacher
from mcss.methods.points2d import FIXED_ORIENTATION, mean_of_known, point_error, point_files
from mcss.methods.recipe import RecipeName
from mcss.models.pose_network import NetworkConfig, PoseEstimator
from mcss.models.skeleton_map_network import SkeletonMapConfig, SkeletonMapNetwork, SkeletonMapOutput
from mcss.progress import Progress, say


class SeenSkeletons(NamedTuple):
    """The 2D joints of the images of a step, and their cameras."""

    points: Float[Tensor, "images 17 2"]
    """Normalised, see `mcss.data.keypoints`; NaN where unknown."""
    rotations: Float[Tensor, "images 3 3"]
    """World to crop, along whose viewing ray z runs."""


@dataclass(frozen=True, eq=False)
class AllSeenSkeletons:
    """The 2D joints of all training images, and their cameras."""

    points: Float[Tensor, "instants views 17 2"]
    rotations: Float[Tensor, "instants views 3 3"]

    def of(self, instants: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]) -> SeenSkeletons:
        """Return joints and cameras of some images."""
        return SeenSkeletons(self.points[instants, views], self.rotations[instants, views])


@dataclass(frozen=True)
class SkeletonMapSynthesis(CloudRepresentation):
    """The first stage: the representation is learned, without 3D labels."""

    name: ClassVar[str] = "chen_cvpr19_representation"
    title: ClassVar[str] = "Chen et al., CVPR 2019, representation"
    summary: ClassVar[str] = "The first stage of chen_cvpr19: draw the skeletons that other views see."
    network: ClassVar[type[PoseEstimator]] = SkeletonMapNetwork

    points: str = LABELS
    """Where 2D joints come from: ``labels`` projects the 3D labels into the cameras; or a detector's CSV or Parquet
    file with the columns subject,sequence,frame,view,joint,x,y, in pixels of the source images."""
    instants: int = 16
    """Instants of one person in a step; fewer for short footage."""
    views: int = 4
    """Views of each instant, or all if the capture has fewer; every one is drawn from the one before. 1 makes it an
    autoencoder, which draws each view from itself."""
    min_gap: float = 0.5
    """Least seconds between two instants of one sequence in a step; less for short footage."""
    consistency_weight: float = 1.0
    """Weight of the difference of rotated clouds relative to that of maps; the paper's is not known."""
    maps: SkeletonMapConfig = field(default_factory=SkeletonMapConfig)
    """Maps, cloud and decoder."""

    def __post_init__(self) -> None:
        if not self.consistency_weight >= 0:
            raise ValueError(f"consistency_weight: expected 0 or more, got {self.consistency_weight}.")

    @property
    def information(self) -> Information:
        """2D joints; an autoencoder learns nothing from other views."""
        return Information(views=self.views > 1, rotations=self.views > 1, points=True)

    @property
    def fixed_orientation(self) -> str:
        """Joints stay where they are in the image."""
        return FIXED_ORIENTATION

    @property
    def files(self) -> tuple[Path, ...]:
        """The detector's file."""
        return point_files(self.points)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "SkeletonMapSynthesis":
        """Return the same settings for every recipe."""
        return cls()

    def build(self, config: NetworkConfig, weights: str) -> SkeletonMapNetwork:
        """Return a new network."""
        return SkeletonMapNetwork(config, self.maps, weights)

    def extras(self, capture: Capture, instants: Instants, progress: Progress) -> AllSeenSkeletons:
        """Read the cameras' rotations and the 2D joints."""
        rotations = camera_rotations(capture, instants, instants.rows >= 0, self.name)
        points = keypoints_of(capture, instants, self.points, self.name, partial(say, progress))
        return AllSeenSkeletons(torch.from_numpy(points), rotations)

    def blank_extra(self, images: int) -> SeenSkeletons:
        """Return random joints and rotations that turn nothing."""
        return SeenSkeletons(torch.randn(images, 17, 2), torch.eye(3).expand(images, 3, 3))

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "SkeletonMapLosses":
        """Draw the skeleton of every view from another one and return the differences."""
        assert isinstance(network, SkeletonMapNetwork)
        assert isinstance(batch.extra, SeenSkeletons)
        output = model(batch.images, batch.first_stage, batch.metric_shape, batch.extra.rotations)
        return representation_losses(self, network, output, batch.extra.points)


@dataclass(frozen=True)
class ChenCVPR19(CloudRegression):
    """Skeleton-map synthesis and its settings; its own stage reads the pose off the frozen cloud."""

    name: ClassVar[str] = "chen_cvpr19"
    title: ClassVar[str] = "Chen et al., CVPR 2019"
    summary: ClassVar[str] = (
        "Skeleton-map synthesis (Chen et al., CVPR 2019): a cloud of 3D points from 2D joints, then the pose."
    )
    details: ClassVar[str] = (
        "It needs the cameras' rotations and 2D joints of all training images, and predicts in camera space. The "
        "folder `first` of a run holds the representation; pass it to --init to learn it once for several choices of "
        "labels."
    )
    network: ClassVar[type[PoseEstimator]] = SkeletonMapNetwork

    representation: SkeletonMapSynthesis = field(default_factory=SkeletonMapSynthesis)
    """The first stage."""

    @property
    def fixed_orientation(self) -> str:
        """Both stages see the same images."""
        return FIXED_ORIENTATION

    @property
    def files(self) -> tuple[Path, ...]:
        """The detector's file."""
        return self.representation.files

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "ChenCVPR19":
        """Return the same settings for every recipe."""
        return cls()


@dataclass(frozen=True)
class SkeletonMapLosses(Losses):
    """The losses of one step of the first stage."""

    points: Tensor
    """Mean L1 of the detected points, in their units."""
    maps: Tensor
    """Mean squared error of the drawn maps, relative to the mean square of the true ones."""
    consistency: Tensor
    """Mean squared difference of the rotated clouds, relative to their variance over the batch."""


def map_error(
    drawn: Float[Tensor, "batch bones side side"],
    true: Float[Tensor, "batch bones side side"],
    known: Float[Tensor, "batch bones"],
) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of the known bones; 0 for an image without any."""
    squared = (drawn - true).square().mean(dim=(2, 3)) * known
    return squared.sum(dim=1) / known.sum(dim=1).clamp(min=1)


def representation_losses(
    settings: SkeletonMapSynthesis,
    network: SkeletonMapNetwork,
    output: SkeletonMapOutput,
    points: Float[Tensor, "batch 17 2"],
) -> SkeletonMapLosses:
    """Return how far detected points, drawn maps and rotated clouds are from the true ones."""
    detection = mean_of_known(point_error(output.points, points), points)
    true = skeleton_maps(points, network.maps.map_size, width=network.maps.bone_width)
    known = points[:, list(BONES)].isfinite().all(dim=-1).all(dim=-1).to(true.dtype)
    maps = mean_of_known(map_error(output.drawn, true, known), points)
    maps = maps / (true.square().mean(dim=(2, 3)) * known).sum().div(known.sum().clamp(min=1)).clamp(min=1e-6)
    variance = (output.cloud - output.cloud.mean(dim=0)).square().mean().clamp(min=1e-9)
    consistency = mean_squared(output.turned.flatten(1), output.cloud.flatten(1)).mean() / variance
    return SkeletonMapLosses(
        total=detection + maps + settings.consistency_weight * consistency,
        points=detection.detach(),
        maps=maps.detach(),
        consistency=consistency.detach(),
    )
