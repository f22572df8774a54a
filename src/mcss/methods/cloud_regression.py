"""Methods of two stages: a latent cloud of 3D points is learned without labels, then the pose is read off it.

The second stage is the same for both (Rhodin et al., ECCV 2018; Chen et al., CVPR 2019): the encoder is frozen, and a
shallow network learns the pose from the cloud with the few labels, in camera space.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from jaxtyping import Float
from torch import Tensor

from mcss.data.loading.batches import Batch
from mcss.data.loading.sampling import MetricSettings
from mcss.methods.method import Information, Losses, Method, Sweep, Teacher
from mcss.models.pose_network import NetworkConfig, NetworkOutput, PoseEstimator
from mcss.skeletons import PoseFrame

LONGEST = 8.0
"""Tuning tries no longer first stage than this: in the recipe `fast` it then sees more images than MCSS does."""


class CloudRepresentation(Method):
    """A first stage, which draws what other views see and sees no 3D labels."""

    needs_labels: ClassVar[bool] = False

    instants: int
    views: int
    min_gap: float

    @property
    def frame(self) -> PoseFrame:
        """Clouds are along the axes of each camera."""
        return "camera"

    @property
    def multi_view(self) -> MetricSettings:
        """Every step draws views."""
        return MetricSettings(self.instants, self.views, self.min_gap)

    def autoencoder(self) -> "CloudRepresentation":
        """Return the stage that draws each view from itself, with as many images in a step."""
        return cast(CloudRepresentation, replace(cast(Any, self), views=1, instants=self.instants * self.views))


@dataclass(frozen=True)
class CloudRegression(Method):
    """A method whose own stage reads the pose off the frozen cloud."""

    freezes_encoder: ClassVar[bool] = True

    representation: CloudRepresentation
    """The first stage."""
    representation_length: float = 1.0
    """Steps of the first stage as a multiple of the second's. They see no labels and come on top."""
    pose_images: int = 22
    """Labelled images in a step of the second stage."""

    def __post_init__(self) -> None:
        if not self.representation_length > 0:
            raise ValueError(f"representation_length: expected more than 0, got {self.representation_length}.")

    @property
    def frame(self) -> PoseFrame:
        """Poses are along the axes of each camera."""
        return "camera"

    @property
    def information(self) -> Information:
        """Labels, and what the representation learns from."""
        return self.representation.information | Information(labels=True)

    @property
    def first_stage(self) -> CloudRepresentation:
        """The representation."""
        return self.representation

    def stage_steps(self, steps: int) -> tuple[int, int]:
        """The first stage sees no labels, so its steps come on top."""
        return max(1, round(self.representation_length * steps)), steps

    def build(self, config: NetworkConfig, weights: str) -> PoseEstimator:
        """Return a new network, the representation's."""
        return self.representation.build(config, weights)

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "RegressionLosses":
        """Return the error of the poses read off the cloud."""
        return regression_losses(network, model(batch.images, batch.first_stage), batch)

    @property
    def sweep(self) -> Sweep:
        """Tuning varies the length of the first stage, up to `LONGEST`."""
        name, own = "length of the representation", self.representation_length
        return Sweep(name, (own, own / 2, own / 4)) if 2 * own > LONGEST else Sweep.around(name, own)

    def swept(self, value: float) -> "CloudRegression":
        """Return the method with a first stage of another length."""
        return replace(self, representation_length=value)

    def without_views(self) -> tuple[Method, str]:
        """Return the method with an autoencoder as its first stage."""
        return replace(self, representation=self.representation.autoencoder()), "each view drawn from itself"


@dataclass(frozen=True)
class RegressionLosses(Losses):
    """The losses of one step of a second stage that reads the pose off a frozen cloud."""

    pose: Tensor
    """Mean squared error of normalised coordinates."""


def mean_squared(drawn: Float[Tensor, "batch *shape"], true: Float[Tensor, "batch *shape"]) -> Float[Tensor, " batch"]:
    """Return the mean squared difference of each image, of its features, or of the normalised coordinates of a pose."""
    return (drawn - true).square().flatten(1).mean(dim=1)


def regression_losses(network: PoseEstimator, output: NetworkOutput, batch: Batch) -> RegressionLosses:
    """Return the error of the poses of the labelled images.

    Reference:
        Departure: coordinates in standard deviations of the labelled poses, as for every method here, not in mm.
    """
    pose = mean_squared(output.coordinates, network.normalised(batch.poses)).mean()
    return RegressionLosses(total=pose, pose=pose.detach())
