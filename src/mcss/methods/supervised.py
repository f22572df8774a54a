"""The supervised baseline: F, G and H trained with L_pose alone (Mitra et al., CVPR 2020, Sec. 5)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import Tensor

from mcss.data.loading.batches import Batch
from mcss.losses import pose_l1
from mcss.methods.method import Information, Losses, Method, Sweep, Teacher
from mcss.methods.recipe import OptimiserSettings, RecipeName
from mcss.models.pose_network import NetworkOutput, PoseEstimator


@dataclass(frozen=True)
class Supervised(Method):
    """The baseline and its settings."""

    name: ClassVar[str] = "supervised"
    title: ClassVar[str] = "Supervised baseline"
    summary: ClassVar[str] = "The baseline: the same network, trained on the labelled images alone."

    pose_images: int = 22
    """Labelled images in a step."""
    frame: Literal["canonical", "world"] = "canonical"
    """Coordinate frame of the predicted poses: ``canonical`` turns every pose to face a fixed way, ``world`` keeps its
    heading in the room."""

    @property
    def information(self) -> Information:
        """Labels alone."""
        return Information(labels=True)

    @classmethod
    def in_recipe(cls, recipe: RecipeName) -> "Supervised":
        """Return the same settings for every recipe."""
        return cls()

    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> "PoseLosses":
        """Return L_pose of a batch."""
        return pose_losses(network, model(batch.images, batch.first_stage), batch)

    @property
    def sweep(self) -> Sweep:
        """Tuning varies the decay of the weights, since the baseline soon learns one person's labels by heart."""
        return Sweep("weight decay", (0.0, 0.3, 1.0))

    def swept_optimiser(self, value: float, optimiser: OptimiserSettings) -> OptimiserSettings:
        """Return the optimiser's settings with another weight decay."""
        return replace(optimiser, weight_decay=value)


@dataclass(frozen=True)
class PoseLosses(Losses):
    """The losses of one step on labelled images alone."""

    pose: Tensor


def pose_losses(network: PoseEstimator, output: NetworkOutput, batch: Batch) -> PoseLosses:
    """Return L_pose over the labelled images of a batch."""
    pose = pose_l1(output.coordinates, network.normalised(batch.poses)).mean()
    return PoseLosses(total=pose, pose=pose.detach())
