"""Novel-view synthesis: Rhodin, Salzmann, Fua, *Unsupervised Geometry-Aware Representation for 3D Human Pose*, 2018.

Written from the description alone (ECCV 2018, and Sec. 5 of Mitra et al.), not from its public code.

First, without labels, an encoder learns to make of an image an appearance vector and a cloud of 3D points, such that
a decoder, given the cloud turned by the relative rotation of two cameras, draws what the other camera sees. Appearance
is taken from another instant of the same person, so that it cannot hold the pose, and the other camera's background is
given, so that the cloud need not hold it. Then the encoder is frozen and a shallow network learns the pose from the
cloud with the few labels. Poses are in camera space and are scored there.

The paper says: 200 points, 128 numbers of appearance, a ResNet-50 encoder and a U-Net's decoder whose last layer sees
the background; L1 of pixels plus twice the L1 of early features of an ImageNet ResNet-18; the pose by an MLP
200×3 → 2048 → 2048 → pose with BatchNorm and dropout of one half, by mean squared error.

What had to be chosen:

* The encoder is the backbone of the other systems here, cloud and appearance linear in its map Ψ. Its BatchNorms keep
  their scale and shift, also where MCSS goes without.
* The decoder: a linear layer to a map of side 4, appearance beside it at every place, then for each doubling of the
  side a bilinear enlargement and two convolutions with GroupNorm and ReLU. Images are 64 px by default, the paper's
  128. What sees the background are two convolutions with a ReLU in between: a single one is linear in it, and could lay
  a person over what is behind, but not hide it.
* Differences may be squared instead of absolute (``differences``), as in the recipe `fast`: of a limb that is somewhere
  in an area, the best image in L1 is the background, and in the steps of a laptop nothing is learned beyond that.
* A share of the instants may be drawn from their own views (``own_share``), which teaches cloud and decoder what a
  shape is before they can turn it.
* The first stage takes as many steps as the second by default.
* The early features are those of the backbone's own first stages, as ImageNet left them, their L1 as a share of their
  mean size: backbones differ in scale, and the paper's factor of two fits ResNet-18's.
* A batch holds many instants of one person in the same clothes, two views of each; an instant's appearance comes from
  the next one in the batch, of another sequence as likely as not. The paper takes two instants of one sequence.
* No colours are changed in augmentation, for a decoder could not guess them. The paper mentions no augmentation here.
* Rotations are the cameras'; that a person at the border of the image is seen from a little aside is not made good.

What it needs that MCSS does not: the rotation of every camera, and its image of the empty scene.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mcss.data.batches import Batch
from mcss.models.decoders import START_SIDE, check_size, enlarging, start_map
from mcss.models.pose_network import OUTPUT_JOINTS, NetworkConfig, NetworkOutput, PoseEstimator
from mcss.skeletons import PoseFrame


@dataclass(frozen=True)
class SynthesisConfig:
    """What comes after the backbone; stored with every checkpoint."""

    points: int = 200
    """3D points of the cloud."""
    appearance: int = 128
    """Numbers that say what a person looks like."""
    drawn_size: int = 64
    """Side of the images that are drawn; a power of two. The paper's is 128."""
    width: int = 128
    """Channels of the decoder's first map; half as many after each doubling of its side, but 16 at least."""
    perception_stages: int = 2
    """Stages of the backbone whose features drawn and true images are compared by."""
    hidden: int = 2048
    """Width of the two hidden layers between cloud and pose."""
    dropout: float = 0.5
    """Of the hidden layers while training."""

    def __post_init__(self) -> None:
        check_size("drawn_size", self.drawn_size)
        for name in ("points", "appearance", "width", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")


@dataclass(frozen=True)
class NovelViewSettings:
    """What the representation is learned with, without labels."""

    instants: int = 16
    """Instants of one person in a step."""
    views: int = 2
    """Views of each; every one is drawn from the one before. With 1 it is drawn from itself: an autoencoder."""
    min_gap: float = 0.5
    """Seconds between two instants of one sequence in a step."""
    feature_weight: float = 2.0
    """Factor of the difference of features beside that of pixels; the paper's."""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    """Cloud, appearance and decoder."""
    differences: Literal["absolute", "squared"] = "absolute"
    """Of colours and features; the paper's are absolute."""
    own_share: float = 0.0
    """Share of the instants whose views are drawn from themselves, not from the one before."""

    def __post_init__(self) -> None:
        if not 0 <= self.own_share <= 1:
            raise ValueError(f"own_share: expected a share between 0 and 1, got {self.own_share}.")


@dataclass(frozen=True)
class RhodinECCV18Settings:
    """What both stages are trained with."""

    representation: NovelViewSettings = field(default_factory=NovelViewSettings)
    """The first stage."""
    representation_length: float = 1.0
    """Its steps, which see no labels and come on top, as a multiple of the second stage's."""
    pose_images: int = 22
    """Labelled images in a step of the second stage."""

    def __post_init__(self) -> None:
        if not self.representation_length > 0:
            raise ValueError(f"representation_length: expected more than 0, got {self.representation_length}.")


@dataclass(frozen=True)
class NovelViewLosses:
    """What one step of the first stage came to."""

    total: Tensor
    pixels: Tensor
    """Mean difference of normalised colours."""
    features: Tensor
    """Mean difference of early features, as a share of the mean size of the true ones."""


@dataclass(frozen=True)
class RegressionLosses:
    """What one step of a second stage came to that reads the pose off a frozen cloud."""

    total: Tensor
    pose: Tensor
    """Mean squared error of normalised coordinates."""


class Decoder(nn.Module):
    """Draws a person: cloud in the camera's frame, appearance and background to an image in normalised colours."""

    def __init__(self, config: SynthesisConfig) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Linear(config.points * 3, config.width * START_SIDE**2), nn.ReLU())
        self.blocks, channels = enlarging(config.width + config.appearance, config.width, config.drawn_size)
        self.last = nn.Sequential(
            nn.Conv2d(channels + 3, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, 3, kernel_size=3, padding=1),
        )

    def forward(
        self,
        cloud: Float[Tensor, "batch points 3"],
        appearance: Float[Tensor, "batch looks"],
        background: Float[Tensor, "batch 3 side side"],
    ) -> Float[Tensor, "batch 3 side side"]:
        """The image; the background enters the last layers alone."""
        shape = start_map(self.start(cloud.flatten(1)))
        looks = appearance[:, :, None, None].expand(-1, -1, START_SIDE, START_SIDE)
        drawn: Tensor = self.last(torch.cat([self.blocks(torch.cat([shape, looks], dim=1)), background], dim=1))
        return drawn


class NovelViewNetwork(PoseEstimator):
    """Backbone, cloud, appearance, decoder, and the shallow network from the cloud to the pose in camera space."""

    KIND = "novel-view"

    def __init__(self, config: NetworkConfig, synthesis: SynthesisConfig, weights: str = "random") -> None:
        super().__init__(config, weights, "camera")
        self.synthesis = synthesis
        if not 0 < synthesis.perception_stages <= len(self.backbone.stages):
            raise ValueError(
                f"perception_stages: {config.backbone} has {len(self.backbone.stages)} stages, "
                f"got {synthesis.perception_stages}."
            )
        self.perception = (
            copy.deepcopy(self.backbone.stages[: synthesis.perception_stages]).requires_grad_(False).eval()
        )
        flat = self.backbone.channels * self.feature_side() ** 2
        self.cloud_head = nn.Linear(flat, synthesis.points * 3)
        self.appearance_head = nn.Linear(flat, synthesis.appearance)
        self.decoder = Decoder(synthesis)
        self.pose_head = nn.Sequential(
            *_hidden(synthesis.points * 3, synthesis),
            *_hidden(synthesis.hidden, synthesis),
            nn.Linear(synthesis.hidden, OUTPUT_JOINTS * 3),
        )

    @property
    def architecture(self) -> dict[str, Any]:
        """The settings of all that comes after the backbone."""
        return asdict(self.synthesis)

    @classmethod
    def untrained(cls, config: NetworkConfig, frame: PoseFrame, architecture: Mapping[str, Any]) -> "NovelViewNetwork":
        """A network with random weights."""
        return cls(config, SynthesisConfig(**architecture))

    def train(self, mode: bool = True) -> "NovelViewNetwork":
        """Training mode, but for what stays as it is."""
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
        """The cloud as embedding and the normalised pose; with `rotations` and `backgrounds` each view drawn anew.

        Args:
            images: For the backbone.
            first: The stage of the backbone that they are fed to.
            shape: Instants and views of each.
            rotations: World to camera.
            backgrounds: Behind each image, normalised.
            own: Instants, the first ones, whose views are drawn from their own clouds.

        Returns:
            Poses, with an embedding that is the cloud in the camera's frame, made a unit vector (it is *not* the same
            in all views). Or images in the order of `images`, each drawn from another view and another instant's
            appearance.
        """
        psi = self.features(images, first).flatten(1)
        cloud = self.cloud_head(psi).reshape(len(psi), -1, 3)
        if rotations is None or backgrounds is None:
            return NetworkOutput(nn.functional.normalize(cloud.flatten(1), dim=1), self.pose_head(cloud.flatten(1)))
        appearance = self.appearance_head(psi)
        turned, looks = seen_from_the_next_view(
            cloud.reshape(*shape, -1, 3), appearance.reshape(*shape, -1), rotations.reshape(*shape, 3, 3)
        )
        turned = torch.cat([cloud.reshape_as(turned)[:own], turned[own:]])
        drawn: Tensor = self.decoder(turned.flatten(0, 1), looks.flatten(0, 1), backgrounds)
        return drawn

    def early_features(self, images: Float[Tensor, "batch 3 _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """What drawn and true images are compared by; has a gradient, but no weights to learn."""
        for stage in self.perception:
            images = stage(images)
        return images


def seen_from_the_next_view(
    cloud: Float[Tensor, "instants views points 3"],
    appearance: Float[Tensor, "instants views looks"],
    rotations: Float[Tensor, "instants views 3 3"],
) -> tuple[Float[Tensor, "instants views points 3"], Float[Tensor, "instants views looks"]]:
    """What each view is drawn from: the cloud of the view before it, turned, and that view's looks an instant later.

    Args:
        cloud: In the frame of the view's own camera.
        appearance: Of each image.
        rotations: World to camera. Only those from one camera to the other matter.
    """
    return turned_to_the_next_view(cloud, rotations), appearance.roll((1, 1), dims=(0, 1))


def turned_to_the_next_view(
    cloud: Float[Tensor, "instants views points 3"], rotations: Float[Tensor, "instants views 3 3"]
) -> Float[Tensor, "instants views points 3"]:
    """The cloud of the view before each, as each view's own camera sees it; see `seen_from_the_next_view`."""
    relative = rotations @ rotations.roll(1, dims=1).mT  # x_target = R_target R_sourceᵀ x_source
    return cloud.roll(1, dims=1) @ relative.mT


def mean_l1(drawn: Float[Tensor, "batch *shape"], true: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """Mean absolute difference of each image, or of its features."""
    return (drawn - true).abs().flatten(1).mean(dim=1)


def mean_squared(drawn: Float[Tensor, "batch *shape"], true: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """Mean squared difference of each image, of its features, or of the normalised coordinates of a pose."""
    return (drawn - true).square().flatten(1).mean(dim=1)


def novel_view_losses(
    settings: NovelViewSettings, network: NovelViewNetwork, drawn: Tensor, batch: Batch
) -> NovelViewLosses:
    """How far drawn images are from the true ones, in colours and in early features."""
    assert batch.unchanged is not None
    difference = mean_l1 if settings.differences == "absolute" else mean_squared
    pixels = difference(drawn, batch.unchanged).mean()
    with torch.no_grad():
        true = network.early_features(batch.unchanged)
        size = difference(true, torch.zeros_like(true)).mean().clamp(min=1e-6)
    features = difference(network.early_features(drawn), true).mean() / size
    return NovelViewLosses(
        total=pixels + settings.feature_weight * features, pixels=pixels.detach(), features=features.detach()
    )


def regression_losses(network: PoseEstimator, output: NetworkOutput, batch: Batch) -> RegressionLosses:
    """The error of the poses of the labelled images.

    Reference:
        Departure: coordinates in standard deviations of the labelled poses, as for every system here, not in mm.
    """
    pose = mean_squared(output.coordinates, network.normalised(batch.poses)).mean()
    return RegressionLosses(total=pose, pose=pose.detach())


def _hidden(inputs: int, config: SynthesisConfig) -> list[nn.Module]:
    return [nn.Linear(inputs, config.hidden), nn.BatchNorm1d(config.hidden), nn.ReLU(), nn.Dropout(config.dropout)]
