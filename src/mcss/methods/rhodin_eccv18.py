"""Novel-view synthesis: Rhodin, Salzmann, Fua, *Unsupervised Geometry-Aware Representation for 3D Human Pose*, 2018.

Written from the description (ECCV 2018, and Sec. 5 of Mitra et al.).

First, without labels, an encoder learns to turn an image into an appearance vector and a cloud of 3D points, such that
a decoder draws what another camera sees, given the cloud rotated by the relative rotation of the two cameras.
Appearance is taken from another instant of the same person, so that it cannot encode the pose, and the background of
the other camera is given, so that the cloud need not encode it. Then the encoder is frozen and a shallow network learns
the pose from the cloud with the few labels. Poses are in camera space and are scored there.

From the paper: 200 points, 128 numbers of appearance, a ResNet-50 encoder and a U-Net's decoder whose last layer sees
the background; L1 of pixels plus twice the L1 of early features of an ImageNet ResNet-18; the pose by an MLP
200×3 → 2048 → 2048 → pose with BatchNorm and dropout of one half, by mean squared error.

From its public code, read for facts alone: features are compared at three depths, averaged; the two views of an instant
are shuffled, so that half of them are drawn from themselves; in the MLP, ReLU comes before BatchNorm; and cameras are
turned so that they look at the person (here `mcss.data.cameras.Cameras.crop_rotations`).

Choices of this implementation:

* The encoder is the backbone of the other methods here; cloud and appearance are linear in its feature map Ψ. Its
  BatchNorms keep their scale and shift, also where MCSS goes without.
* The decoder is a linear layer to a map of side 4 with the appearance at every position, then for each doubling of the
  side a bilinear enlargement and two convolutions with GroupNorm and ReLU. Images are 64 px by default, the paper's
  128. Two convolutions with a ReLU in between see the background: a single one is linear in it, and could draw a person
  over what is behind, but not hide it.
* Differences may be squared instead of absolute (``differences``), as in the recipe `fast`: for a limb that is
  somewhere in an area, the image with the least L1 error is the background, and in the few steps that a laptop affords
  nothing is learned beyond that.
* The first stage takes as many steps as the second by default.
* The early features are those of the backbone's own first stages with ImageNet weights, the L1 of each relative to its
  mean size: backbones differ in scale, and the paper's factor of two fits ResNet-18's.
* A batch holds many instants of one person in the same clothes, two views of each; an instant's appearance comes from
  the one before it in the batch, of another sequence as likely as not. The paper takes two instants of one sequence.
* Augmentation changes no colours, since a decoder could not guess them; in the second stage, whose network goes on from
  the first, neither. The paper mentions no augmentation here.

It needs what MCSS does not: the rotation of every camera, and its image of the empty scene.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mcss.data.backgrounds import BackgroundCrops
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.loading.augmentation import normalise
from mcss.data.loading.batches import Batch, camera_rotations
from mcss.data.loading.pixels import Pixels, pixels_of
from mcss.methods.cloud_regression import CloudRegression, CloudRepresentation, mean_squared
from mcss.methods.method import Information, Losses, Teacher
from mcss.methods.recipe import Recipe, RecipeName
from mcss.models.novel_view_network import NovelViewNetwork, SynthesisConfig
from mcss.models.pose_network import NetworkConfig, PoseEstimator
from mcss.progress import Progress

_COLOURS = ("brightness", "contrast", "saturation", "hue", "channel_gain", "grey")
"""Changes of colour, which no decoder could guess."""


class DrawnViews(NamedTuple):
    """What the decoder is to draw in a step, and from which cameras."""

    images: Float[Tensor, "images 3 side side"]
    """The images without augmentation, normalised."""
    backgrounds: Float[Tensor, "images 3 side side"]
    """The scene behind the person in each image, normalised."""
    rotations: Float[Tensor, "images 3 3"]
    """World to crop, along whose viewing ray z runs."""


@dataclass(frozen=True, eq=False)
class AllDrawnViews:
    """What the decoder is to draw of all training images."""

    instants: Instants
    pixels: Pixels
    backgrounds: BackgroundCrops
    rotations: Float[Tensor, "instants views 3 3"]
    """World to crop; NaN where there is no image."""

    def of(self, instants: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]) -> DrawnViews:
        """Return what is to be drawn for some images."""
        return DrawnViews(
            normalise(self.pixels.take(self.instants.rows[instants, views])),
            normalise(self.backgrounds.take(instants, views)),
            self.rotations[instants, views],
        )


@dataclass(frozen=True)
class NovelViewSynthesis(CloudRepresentation):
    """The first stage: the representation is learned, without labels."""

    name: ClassVar[str] = "rhodin_eccv18_representation"
    title: ClassVar[str] = "Rhodin et al., ECCV 2018, representation"
    summary: ClassVar[str] = "The first stage of rhodin_eccv18: draw other views."
    network: ClassVar[type[PoseEstimator]] = NovelViewNetwork

    instants: int = 16
    """Instants of one person in a step; fewer for short footage."""
    views: int = 2
    """Views of each instant, or all if the capture has fewer; every one is drawn from the one before. 1 makes it an
    autoencoder, which draws each view from itself."""
    min_gap: float = 0.5
    """Least seconds between two instants of one sequence in a step; less for short footage."""
    feature_weight: float = 2.0
    """Weight of the difference of features relative to that of pixels; the default is the paper's."""
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    """Cloud, appearance and decoder."""
    differences: Literal["absolute", "squared"] = "absolute"
    """How colours and features are compared; the paper takes ``absolute`` differences."""
    own_share: float = 0.5
    """Share of the instants whose views are drawn from themselves, not from the one before."""

    def __post_init__(self) -> None:
        if not 0 <= self.own_share <= 1:
            raise ValueError(f"own_share: expected a share between 0 and 1, got {self.own_share}.")

    @property
    def information(self) -> Information:
        """An autoencoder learns nothing from other views."""
        return Information(views=self.views > 1, rotations=self.views > 1, backgrounds=True)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "NovelViewSynthesis":
        """Return the paper's settings, or those for small images and batches."""
        match recipe:
            case "paper" | "paper+aug":
                return cls(instants=33, synthesis=SynthesisConfig(drawn_size=128))
            case "fast":
                return cls(synthesis=SynthesisConfig(drawn_size=32), differences="squared")

    def build(self, config: NetworkConfig, weights: str) -> "NovelViewNetwork":
        """Return a new network."""
        return NovelViewNetwork(config, self.synthesis, weights)

    def extras(self, capture: Capture, instants: Instants, progress: Progress) -> AllDrawnViews:
        """Read rotations and backgrounds, and the images at the size at which they are drawn."""
        rotations = camera_rotations(capture, instants, instants.rows >= 0, self.name)
        size = self.synthesis.drawn_size
        backgrounds = BackgroundCrops.read(capture, instants, size, self.name)
        pixels = pixels_of(capture, instants.rows, size, progress=progress)
        return AllDrawnViews(instants, pixels, backgrounds, rotations)

    def blank_extra(self, images: int) -> DrawnViews:
        """Return noise to draw."""
        noise = torch.randn(images, 3, self.synthesis.drawn_size, self.synthesis.drawn_size)
        return DrawnViews(noise, noise, torch.eye(3).expand(images, 3, 3))

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "NovelViewLosses":
        """Draw every view from another one and return the differences."""
        assert isinstance(network, NovelViewNetwork)
        assert isinstance(batch.extra, DrawnViews)
        true = batch.extra
        own = round(self.own_share * batch.metric_shape[0])
        drawn = model(batch.images, batch.first_stage, batch.metric_shape, true.rotations, true.backgrounds, own)
        return novel_view_losses(self, network, drawn, true.images)


@dataclass(frozen=True)
class RhodinECCV18(CloudRegression):
    """Novel-view synthesis and its settings; its own stage reads the pose off the frozen cloud."""

    name: ClassVar[str] = "rhodin_eccv18"
    title: ClassVar[str] = "Rhodin et al., ECCV 2018"
    summary: ClassVar[str] = (
        "Novel-view synthesis (Rhodin et al., ECCV 2018): a cloud of 3D points without labels, then the pose."
    )
    details: ClassVar[str] = (
        "It needs the cameras' rotations and images of the empty scene, and predicts in camera space. The folder "
        "`first` of a run holds the representation; pass it to --init to learn it once for several choices of labels."
    )
    network: ClassVar[type[PoseEstimator]] = NovelViewNetwork

    representation: NovelViewSynthesis = field(default_factory=NovelViewSynthesis)
    """The first stage."""

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "RhodinECCV18":
        """Return the paper's settings; small images and batches take as many more steps."""
        representation = NovelViewSynthesis.in_recipe(recipe)
        match recipe:
            case "paper" | "paper+aug":
                return cls(representation)
            case "fast":
                return cls(representation, representation_length=8.0)

    def adapted(self, recipe: Recipe) -> Recipe:
        """Keep BatchNorm's scale and shift, and colours as they are."""
        recipe = super().adapted(recipe)
        return replace(
            recipe,
            network=replace(recipe.network, batchnorm_affine=True),
            augmentation=replace(recipe.augmentation, **dict.fromkeys(_COLOURS, 0.0)),
        )


@dataclass(frozen=True)
class NovelViewLosses(Losses):
    """The losses of one step of the first stage."""

    pixels: Tensor
    """Mean difference of normalised colours."""
    features: Tensor
    """Mean difference of early features, relative to the mean size of the true ones, over all depths."""


def mean_l1(drawn: Float[Tensor, "batch *shape"], true: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """Return the mean absolute difference of each image, or of its features."""
    return (drawn - true).abs().flatten(1).mean(dim=1)


def novel_view_losses(
    settings: NovelViewSynthesis,
    network: NovelViewNetwork,
    drawn: Float[Tensor, "batch 3 side side"],
    true: Float[Tensor, "batch 3 side side"],
) -> NovelViewLosses:
    """Return how far drawn images are from the true ones, in colours and in early features."""
    difference = mean_l1 if settings.differences == "absolute" else mean_squared
    pixels = difference(drawn, true).mean()
    with torch.no_grad():
        expected = network.early_features(true)
    features = torch.stack(
        [
            _relative(difference, ours, theirs)
            for ours, theirs in zip(network.early_features(drawn), expected, strict=True)
        ]
    ).mean()
    return NovelViewLosses(
        total=pixels + settings.feature_weight * features, pixels=pixels.detach(), features=features.detach()
    )


def _relative(
    difference: Callable[[Tensor, Tensor], Tensor],
    drawn: Float[Tensor, "batch channels side side"],
    true: Float[Tensor, "batch channels side side"],
) -> Float[Tensor, ""]:
    """Return the mean difference of two feature maps as a share of the mean size of the true one."""
    size = difference(true, torch.zeros_like(true)).mean().clamp(min=1e-6)
    return difference(drawn, true).mean() / size
