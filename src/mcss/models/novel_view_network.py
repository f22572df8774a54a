"""Novel-view synthesis: a network that draws what another camera sees, from a cloud of 3D points.

See `mcss.methods.rhodin_eccv18` for how it is trained and where it departs from the paper.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcss.models.decoders import START_SIDE, check_size, enlarging, start_map
from mcss.models.pose_network import EMBEDDING_CONFIG, OUTPUT_JOINTS, NetworkConfig, NetworkOutput, PoseEstimator
from mcss.skeletons import PoseFrame


@dataclass(frozen=True)
class SynthesisConfig:
    """The network after the backbone; stored with every checkpoint."""

    cloud_points: int = 200
    """3D points in the cloud."""
    appearance: int = 128
    """Length of the vector that describes a person's appearance."""
    drawn_size: int = 64
    """Side of the drawn images in pixels, a power of two. The paper's is 128."""
    width: int = 128
    """Channels of the decoder's first map; half as many after each doubling of its side, but at least 16."""
    perception_stages: int = 3
    """First stages of the backbone; the features after each of them compare drawn and true images."""
    hidden: int = 2048
    """Width of the two hidden layers between cloud and pose."""
    hidden_dropout: float = 0.5
    """Dropout of the hidden layers while training."""

    def __post_init__(self) -> None:
        check_size("drawn_size", self.drawn_size)
        for name in ("cloud_points", "appearance", "width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")


class Decoder(nn.Module):
    """Draws a person in normalised colours, from a cloud in the camera's frame, an appearance and a background."""

    def __init__(self, config: SynthesisConfig) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Linear(config.cloud_points * 3, config.width * START_SIDE**2), nn.ReLU())
        self.blocks, channels = enlarging(config.width + config.appearance, config.width, config.drawn_size)
        self.last = nn.Sequential(
            nn.Conv2d(channels + 3, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 3, kernel_size=3, padding=1),
        )

    def forward(
        self,
        cloud: Float[Tensor, "batch points 3"],
        appearance: Float[Tensor, "batch numbers"],
        background: Float[Tensor, "batch 3 side side"],
    ) -> Float[Tensor, "batch 3 side side"]:
        """Return the image; the background enters the last layers alone."""
        shape = start_map(self.start(cloud.flatten(1)))
        everywhere = appearance[:, :, None, None].expand(-1, -1, START_SIDE, START_SIDE)
        drawn: Tensor = self.last(torch.cat([self.blocks(torch.cat([shape, everywhere], dim=1)), background], dim=1))
        return drawn


class NovelViewNetwork(PoseEstimator):
    """Backbone, cloud, appearance, decoder, and a shallow network from the cloud to the pose in camera space."""

    KIND = "novel-view"
    UNUSED_CONFIG = EMBEDDING_CONFIG
    ARCHITECTURE = SynthesisConfig

    def __init__(self, config: NetworkConfig, synthesis: SynthesisConfig, weights: str = "random") -> None:
        super().__init__(config, weights, "camera")
        self.synthesis = synthesis
        if not 0 < synthesis.perception_stages <= len(self.backbone.stages):
            raise ValueError(
                f"perception_stages: expected 1 to {len(self.backbone.stages)}, the stages of {config.backbone}, "
                f"got {synthesis.perception_stages}."
            )
        self.perception = (
            copy.deepcopy(self.backbone.stages[: synthesis.perception_stages]).requires_grad_(False).eval()
        )
        flat = self.backbone.channels * self.feature_side() ** 2
        self.cloud_head = nn.Linear(flat, synthesis.cloud_points * 3)
        self.appearance_head = nn.Linear(flat, synthesis.appearance)
        self.decoder = Decoder(synthesis)
        self.pose_head = nn.Sequential(
            *_hidden(synthesis.cloud_points * 3, synthesis),
            *_hidden(synthesis.hidden, synthesis),
            nn.Linear(synthesis.hidden, OUTPUT_JOINTS * 3),
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings of everything after the backbone."""
        return asdict(self.synthesis)

    @classmethod
    def untrained(cls, config: NetworkConfig, frame: PoseFrame, architecture: Mapping[str, Any]) -> "NovelViewNetwork":
        """Return a network with random weights."""
        return cls(config, SynthesisConfig(**architecture))

    def train(self, mode: bool = True) -> "NovelViewNetwork":
        """Set training mode, except for the perception stages, which never change."""
        super().train(mode)
        self.perception.eval()
        return self

    def forward(
        self,
        images: Float[Tensor, "batch _ _ _"],
        first: int = 0,
        shape: tuple[int, int] = (0, 0),
        rotations: Float[Tensor, "batch 3 3"] | None = None,
        backgrounds: Float[Tensor, "batch 3 side side"] | None = None,
        own: int = 0,
    ) -> NetworkOutput | Tensor:
        """Predict the normalised pose with the cloud as embedding, or draw each view anew.

        Args:
            images: Input of the backbone.
            first: The backbone stage that they are fed to.
            shape: Instants and views of each.
            rotations: World to crop; together with `backgrounds` they ask for drawn images.
            backgrounds: The scene behind the person in each image, normalised.
            own: Number of instants, the first ones, whose views are drawn from their own clouds.

        Returns:
            Poses, with the cloud in the camera's frame as a unit vector for an embedding (which is *not* the same in
            all views). Or images in the order of `images`, each drawn from another view's cloud and another instant's
            appearance.
        """
        psi = self.features(images, first).flatten(1)
        cloud = self.cloud_head(psi).reshape(len(psi), -1, 3)
        if rotations is None or backgrounds is None:
            return NetworkOutput(nn.functional.normalize(cloud.flatten(1), dim=1), self.pose_head(cloud.flatten(1)))
        appearance = self.appearance_head(psi)
        turned, swapped = seen_from_the_next_view(
            cloud.reshape(*shape, -1, 3), appearance.reshape(*shape, -1), rotations.reshape(*shape, 3, 3)
        )
        turned = torch.cat([cloud.reshape_as(turned)[:own], turned[own:]])
        drawn: Tensor = self.decoder(turned.flatten(0, 1), swapped.flatten(0, 1), backgrounds)
        return drawn

    def early_features(self, images: Float[Tensor, "batch 3 _ _"]) -> list[Float[Tensor, "batch _ _ _"]]:
        """Return the features that compare drawn and true images; they have a gradient, but no weights to learn."""
        maps = []
        for stage in self.perception:
            images = stage(images)
            maps.append(images)
        return maps


def seen_from_the_next_view(
    cloud: Float[Tensor, "instants views points 3"],
    appearance: Float[Tensor, "instants views numbers"],
    rotations: Float[Tensor, "instants views 3 3"],
) -> tuple[Float[Tensor, "instants views points 3"], Float[Tensor, "instants views numbers"]]:
    """Return what each view is drawn from: the rotated cloud of the view before, and its look an instant before.

    Args:
        cloud: Points in the frame of the view's own camera.
        appearance: The appearance vector of each image.
        rotations: World to crop. Only those from one crop to another matter.
    """
    return turned_to_the_next_view(cloud, rotations), appearance.roll((1, 1), dims=(0, 1))


def turned_to_the_next_view(
    cloud: Float[Tensor, "instants views points 3"], rotations: Float[Tensor, "instants views 3 3"]
) -> Float[Tensor, "instants views points 3"]:
    """Return the cloud of the view before each, as each view's own camera sees it; see `seen_from_the_next_view`."""
    relative = rotations @ rotations.roll(1, dims=1).mT  # x_target = R_target R_sourceᵀ x_source
    return cloud.roll(1, dims=1) @ relative.mT


def _hidden(inputs: int, config: SynthesisConfig) -> list[nn.Module]:
    return [
        nn.Linear(inputs, config.hidden),
        nn.ReLU(),
        nn.BatchNorm1d(config.hidden),
        nn.Dropout(config.hidden_dropout),
    ]
