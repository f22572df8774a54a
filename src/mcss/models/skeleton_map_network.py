"""Skeleton-map synthesis: a network that draws the 2D skeleton that another camera sees, from a cloud of 3D points.

See `mcss.methods.chen_cvpr19` for how it is trained and where it departs from the paper.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from mcss.data.keypoints import BONES, skeleton_maps
from mcss.models.decoders import START_SIDE, check_size, convolution, enlarging, start_map
from mcss.models.novel_view_network import turned_to_the_next_view
from mcss.models.pose_network import EMBEDDING_CONFIG, OUTPUT_JOINTS, NetworkConfig, NetworkOutput, PoseEstimator
from mcss.skeletons import PoseFrame


@dataclass(frozen=True)
class SkeletonMapConfig:
    """The network after the backbone; stored with every checkpoint."""

    cloud_points: int = 200
    """3D points in the cloud."""
    map_size: int = 32
    """Side of the skeleton maps in pixels; a power of two."""
    bone_width: float = 0.15
    """Standard deviation of a drawn bone, in units of the points (their root mean square distance from the hip)."""
    width: int = 128
    """Channels of the smallest map of encoder and decoder."""
    hidden: int = 1024
    """Width of the hidden layer between cloud and pose."""

    def __post_init__(self) -> None:
        check_size("map_size", self.map_size)
        for name in ("cloud_points", "width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")
        if not self.bone_width > 0:
            raise ValueError(f"bone_width: expected a width above 0, got {self.bone_width}.")


class SkeletonMapOutput(NamedTuple):
    """What the network predicts for several views in the first stage (not a dataclass: see `NetworkOutput`)."""

    points: Float[Tensor, "batch 16 2"]
    """Detected joints without the hip, normalised."""
    cloud: Float[Tensor, "batch points 3"]
    """Points in the frame of each view's own camera."""
    turned: Float[Tensor, "batch points 3"]
    """The cloud of the view before, as this view's camera would see it."""
    drawn: Float[Tensor, "batch 16 side side"]
    """The skeleton map of each view, drawn from `turned`."""


class SkeletonMapNetwork(PoseEstimator):
    """Backbone, 2D joints, encoder of skeleton maps, decoder, and a shallow network from the cloud to the pose."""

    KIND = "skeleton-map"
    UNUSED_CONFIG = EMBEDDING_CONFIG
    ARCHITECTURE = SkeletonMapConfig

    def __init__(self, config: NetworkConfig, maps: SkeletonMapConfig, weights: str = "random") -> None:
        super().__init__(config, weights, "camera")
        self.maps = maps
        self.point_head = nn.Linear(self.backbone.channels * self.feature_side() ** 2, OUTPUT_JOINTS * 2)
        self.encoder = nn.Sequential(*_shrinking(len(BONES), maps))
        self.decoder_start = nn.Sequential(nn.Linear(maps.cloud_points * 3, maps.width * START_SIDE**2), nn.ReLU())
        blocks, channels = enlarging(maps.width, maps.width, maps.map_size)
        self.decoder = nn.Sequential(blocks, nn.Conv2d(channels, len(BONES), kernel_size=3, padding=1))
        self.pose_head = nn.Sequential(
            nn.BatchNorm1d(maps.cloud_points * 3, affine=False),
            nn.Linear(maps.cloud_points * 3, maps.hidden),
            nn.ReLU(),
            nn.Linear(maps.hidden, OUTPUT_JOINTS * 3),
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings of everything after the backbone."""
        return asdict(self.maps)

    @classmethod
    def untrained(
        cls, config: NetworkConfig, frame: PoseFrame, architecture: Mapping[str, Any]
    ) -> "SkeletonMapNetwork":
        """Return a network with random weights."""
        return cls(config, SkeletonMapConfig(**architecture))

    def forward(
        self,
        images: Float[Tensor, "batch _ _ _"],
        first: int = 0,
        shape: tuple[int, int] = (0, 0),
        rotations: Float[Tensor, "batch 3 3"] | None = None,
    ) -> NetworkOutput | SkeletonMapOutput:
        """Predict the normalised pose with the cloud as embedding, or draw the skeleton of each view anew.

        Args:
            images: Input of the backbone.
            first: The backbone stage that they are fed to.
            shape: Instants and views of each.
            rotations: World to crop; they ask for drawn skeletons.
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
        """Return the skeleton maps of points without their hip."""
        whole = nn.functional.pad(points, (0, 0, 1, 0))
        return skeleton_maps(whole, self.maps.map_size, width=self.maps.bone_width)


def _shrinking(inputs: int, maps: SkeletonMapConfig) -> list[nn.Module]:
    """Return layers from a skeleton map to the coordinates of a cloud."""
    layers: list[nn.Module] = []
    side = maps.map_size
    while side > START_SIDE:
        side //= 2
        channels = max(16, maps.width * START_SIDE // side)
        layers += convolution(inputs, channels, stride=2)
        inputs = channels
    return [*layers, nn.Flatten(), nn.Linear(inputs * START_SIDE**2, maps.cloud_points * 3)]
