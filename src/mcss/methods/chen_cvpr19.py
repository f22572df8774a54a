"""Skeleton-map synthesis: Chen et al., *Weakly-Supervised Discovery of Geometry-Aware Representation*, CVPR 2019.

First, without 3D labels, an encoder learns to make of a drawing of the 2D skeleton a cloud of 3D points, such that a
decoder, given the cloud turned by the relative rotation of two cameras, draws the skeleton that the other camera sees;
and the turned cloud is to be the one that is found in that other view. Then all of that is frozen and a shallow network
learns the pose from the cloud with the few labels. Poses are in camera space and are scored there.

The paper, which has no public code, says: 2D joints by a detector that was trained on 2D labels; skeleton maps drawn
from them, so that looks and background need no modelling; an encoder and a decoder whose latent is a point set that is
rotated; an L2 loss of the drawn map; representation consistency, the latent of one view turned against that of the
other, in both directions; two fully connected layers from the latent to the pose.

What had to be chosen:

* The detector is the backbone of the other systems here with one linear layer that gives the points, learned in the
  first stage from the 2D labels of all training images. The paper's is a stacked hourglass, trained elsewhere. No
  gradient flows from the maps into it, as if it had been trained before.
* Points are normalised (`mcss.data.keypoints`): a map has the hip in its middle and shows everybody equally large, so
  that images may be shifted and zoomed. What a skeleton's place and size in the image tell of its pose is not used.
* A map has a channel for each bone, 32 px; its L2 is taken as a share of the mean square of the true maps, and the
  consistency as a share of the variance of the clouds, which neither a small cloud can buy nor one that is the same for
  all images (points straight above the hip look alike to all cameras that stand upright).
* The pose is read off the cloud in deviations of its coordinates (BatchNorm without scale and shift), whatever its
  units.
* The first stage takes as many steps as the second by default.
* 200 points as in Rhodin et al. (ECCV 2018), whose sampling and turning of views this shares; the number of the paper,
  the widths of its networks and the weights of its losses are not known.
* The views of an instant form a ring, each drawn from the one before and its cloud compared with that one's.
* Rotations are the cameras'.

What it needs that MCSS does not: the rotation of every camera, and 2D joints of all training images, of the labels or
of a detector.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from mcss.data.batches import Batch
from mcss.data.keypoints import BONES, LABELS, skeleton_maps
from mcss.methods.points2d import mean_of_known, point_error
from mcss.methods.rhodin_eccv18 import mean_squared, turned_to_the_next_view
from mcss.models.decoders import START_SIDE, check_size, convolution, enlarging, start_map
from mcss.models.pose_network import OUTPUT_JOINTS, NetworkConfig, NetworkOutput, PoseEstimator
from mcss.skeletons import PoseFrame


@dataclass(frozen=True)
class SkeletonMapConfig:
    """What comes after the backbone; stored with every checkpoint."""

    points: int = 200
    """3D points of the cloud."""
    map_size: int = 32
    """Side of the skeleton maps; a power of two."""
    bone_width: float = 0.15
    """Standard deviation of a drawn bone, in units of the points (their root mean square distance from the hip)."""
    width: int = 128
    """Channels of the smallest map of encoder and decoder."""
    hidden: int = 1024
    """Width of the hidden layer between cloud and pose."""

    def __post_init__(self) -> None:
        check_size("map_size", self.map_size)
        for name in ("points", "width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")
        if not self.bone_width > 0:
            raise ValueError(f"bone_width: expected a width above 0, got {self.bone_width}.")


@dataclass(frozen=True)
class SkeletonMapSettings:
    """What the representation is learned with, without 3D labels."""

    points: str = LABELS
    """Where 2D joints come from: labels (seen by the cameras), or a CSV or Parquet file of a detector's."""
    instants: int = 16
    """Instants of one person in a step."""
    views: int = 4
    """Views of each; every one is drawn from the one before. With 1 it is drawn from itself: an autoencoder."""
    min_gap: float = 0.5
    """Seconds between two instants of one sequence in a step."""
    consistency_weight: float = 1.0
    """Factor of the difference of turned clouds beside that of maps; the paper's is not known."""
    maps: SkeletonMapConfig = field(default_factory=SkeletonMapConfig)
    """Maps, cloud and decoder."""

    def __post_init__(self) -> None:
        if not self.consistency_weight >= 0:
            raise ValueError(f"consistency_weight: expected 0 or more, got {self.consistency_weight}.")


@dataclass(frozen=True)
class ChenCVPR19Settings:
    """What both stages are trained with."""

    representation: SkeletonMapSettings = field(default_factory=SkeletonMapSettings)
    """The first stage."""
    representation_length: float = 1.0
    """Its steps, which see no labels and come on top, as a multiple of the second stage's."""
    pose_images: int = 22
    """Labelled images in a step of the second stage."""

    def __post_init__(self) -> None:
        if not self.representation_length > 0:
            raise ValueError(f"representation_length: expected more than 0, got {self.representation_length}.")


@dataclass(frozen=True)
class SkeletonMapLosses:
    """What one step of the first stage came to."""

    total: Tensor
    points: Tensor
    """Mean L1 of the detected points, in their units."""
    maps: Tensor
    """Mean squared error of the drawn maps, as a share of the mean square of the true ones."""
    consistency: Tensor
    """Mean squared difference of the turned clouds, as a share of their variance over the batch."""


class SkeletonMapOutput(NamedTuple):
    """What the network says of several views in the first stage (no dataclass: see `NetworkOutput`)."""

    points: Float[Tensor, "batch 16 2"]
    """Detected joints without the hip, normalised."""
    cloud: Float[Tensor, "batch points 3"]
    """In the frame of each view's own camera."""
    turned: Float[Tensor, "batch points 3"]
    """The cloud of the view before, as this view's camera would see it."""
    drawn: Float[Tensor, "batch 16 side side"]
    """The skeleton map of each view, drawn from `turned`."""


class SkeletonMapNetwork(PoseEstimator):
    """Backbone, 2D joints, encoder of skeleton maps, decoder, and the shallow network from the cloud to the pose."""

    KIND = "skeleton-map"

    def __init__(self, config: NetworkConfig, maps: SkeletonMapConfig, weights: str = "random") -> None:
        super().__init__(config, weights, "camera")
        self.maps = maps
        self.point_head = nn.Linear(self.backbone.channels * self.feature_side() ** 2, OUTPUT_JOINTS * 2)
        self.encoder = nn.Sequential(*_shrinking(len(BONES), maps))
        self.decoder_start = nn.Sequential(nn.Linear(maps.points * 3, maps.width * START_SIDE**2), nn.ReLU())
        blocks, channels = enlarging(maps.width, maps.width, maps.map_size)
        self.decoder = nn.Sequential(blocks, nn.Conv2d(channels, len(BONES), kernel_size=3, padding=1))
        self.pose_head = nn.Sequential(
            nn.BatchNorm1d(maps.points * 3, affine=False),
            nn.Linear(maps.points * 3, maps.hidden),
            nn.ReLU(),
            nn.Linear(maps.hidden, OUTPUT_JOINTS * 3),
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings of all that comes after the backbone."""
        return asdict(self.maps)

    @classmethod
    def untrained(
        cls, config: NetworkConfig, frame: PoseFrame, architecture: Mapping[str, Any]
    ) -> "SkeletonMapNetwork":
        """A network with random weights."""
        return cls(config, SkeletonMapConfig(**architecture))

    def forward(
        self,
        images: Float[Tensor, "batch _ _ _"],
        first: int = 0,
        shape: tuple[int, int] = (0, 0),
        rotations: Float[Tensor, "batch 3 3"] | None = None,
    ) -> NetworkOutput | SkeletonMapOutput:
        """The cloud as embedding and the normalised pose; with `rotations` the skeleton of each view drawn anew.

        Args:
            images: For the backbone.
            first: The stage of the backbone that they are fed to.
            shape: Instants and views of each.
            rotations: World to camera.
        """
        points = self.point_head(self.features(images, first).flatten(1)).reshape(len(images), -1, 2)
        cloud = self.encoder(self.drawing(points.detach())).reshape(len(images), -1, 3)
        if rotations is None:
            flat = cloud.flatten(1)
            return NetworkOutput(nn.functional.normalize(flat, dim=1), self.pose_head(flat))
        turned = turned_to_the_next_view(cloud.reshape(*shape, -1, 3), rotations.reshape(*shape, 3, 3)).flatten(0, 1)
        start = start_map(self.decoder_start(turned.flatten(1)))
        return SkeletonMapOutput(points, cloud, turned, self.decoder(start))

    def drawing(self, points: Float[Tensor, "batch 16 2"]) -> Float[Tensor, "batch 16 side side"]:
        """The skeleton map of points without their hip."""
        whole = nn.functional.pad(points, (0, 0, 1, 0))
        return skeleton_maps(whole, self.maps.map_size, width=self.maps.bone_width)


def map_error(
    drawn: Float[Tensor, "batch bones side side"],
    true: Float[Tensor, "batch bones side side"],
    known: Float[Tensor, "batch bones"],
) -> Float[Tensor, " batch"]:
    """Mean squared difference of the bones that are known; 0 for an image without any."""
    squared = (drawn - true).square().mean(dim=(2, 3)) * known
    return squared.sum(dim=1) / known.sum(dim=1).clamp(min=1)


def representation_losses(
    settings: SkeletonMapSettings, network: SkeletonMapNetwork, output: SkeletonMapOutput, batch: Batch
) -> SkeletonMapLosses:
    """How far detected points, drawn maps and turned clouds are from what they should be."""
    assert batch.points is not None
    points = mean_of_known(point_error(output.points, batch.points), batch.points)
    true = skeleton_maps(batch.points, network.maps.map_size, width=network.maps.bone_width)
    known = batch.points[:, list(BONES)].isfinite().all(dim=-1).all(dim=-1).to(true.dtype)
    maps = mean_of_known(map_error(output.drawn, true, known), batch.points)
    maps = maps / (true.square().mean(dim=(2, 3)) * known).sum().div(known.sum().clamp(min=1)).clamp(min=1e-6)
    variance = (output.cloud - output.cloud.mean(dim=0)).square().mean().clamp(min=1e-9)
    consistency = mean_squared(output.turned.flatten(1), output.cloud.flatten(1)).mean() / variance
    return SkeletonMapLosses(
        total=points + maps + settings.consistency_weight * consistency,
        points=points.detach(),
        maps=maps.detach(),
        consistency=consistency.detach(),
    )


def _shrinking(inputs: int, maps: SkeletonMapConfig) -> list[nn.Module]:
    """From a skeleton map to the coordinates of a cloud."""
    layers: list[nn.Module] = []
    side = maps.map_size
    while side > START_SIDE:
        side //= 2
        channels = max(16, maps.width * START_SIDE // side)
        layers += convolution(inputs, channels, stride=2)
        inputs = channels
    return [*layers, nn.Flatten(), nn.Linear(inputs * START_SIDE**2, maps.points * 3)]
