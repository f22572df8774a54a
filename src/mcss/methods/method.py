"""What a method is: one frozen dataclass, in a file of its own, that answers for itself.

To add a method, write its file beside this one and add its class to `mcss.methods.registry.METHODS`. The command line,
training, resuming, tables and estimates ask the class; none of them knows a method by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.loading.batches import Batch, Extra, Extras
from mcss.data.loading.sampling import MetricSettings
from mcss.methods.recipe import OptimiserSettings, Recipe, RecipeName
from mcss.models.pose_network import NetworkConfig, PoseEstimator, PoseNetwork
from mcss.progress import Progress
from mcss.skeletons import PoseFrame

Reference = Literal["none", "initial", "average", "landmarks"]
"""Another network that a step compares with: none; the ``initial`` one, as the first stage or the run --init left it;
the moving ``average`` of the weights so far; or BlazePose with its own ``landmarks``, for the backbone blazepose."""


@runtime_checkable
class Teacher(Protocol):
    """Anything that predicts poses from the inputs of a step."""

    def poses(self, images: Float[Tensor, "batch _ _ _"], first: int = 0) -> Float[Tensor, "batch 17 3"]:
        """Return poses in mm of images, or of what stage `first` of the backbone takes."""


@dataclass(frozen=True)
class Losses:
    """The losses of one step; a method adds its own terms, None for those that a batch lacks."""

    total: Tensor
    """The loss that is minimised."""


@dataclass(frozen=True)
class Information:
    """What a method learns from, besides images."""

    labels: bool = False
    """3D poses of the labelled people."""
    views: bool = False
    """Which unlabelled images show the same instant."""
    rotations: bool = False
    """Camera rotations, beyond those of the labelled images."""
    backgrounds: bool = False
    """Images of the empty scene."""
    points: bool = False
    """2D joints of all training images."""

    def __or__(self, other: "Information") -> "Information":
        """Return what two stages learn from together."""
        return Information(**{name: value or getattr(other, name) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Sweep:
    """The one setting, besides the learning rate, that tuning tries with three values."""

    name: str
    """Its name in words, for reports."""
    values: tuple[float, float, float]
    """The recipe's own value first."""

    @classmethod
    def around(cls, name: str, own: float) -> "Sweep":
        """Try the recipe's own value, half of it and twice as much."""
        return cls(name, (own, own / 2, own * 2))


class Method(ABC):
    """A method, or one stage of it, with its settings.

    Subclasses are frozen dataclasses whose fields are the settings that `mcss train METHOD --help` shows. A method of
    two stages has a method as its `first_stage`, which is a run of its own.
    """

    name: ClassVar[str]
    """The name in commands, settings and folders, such as ``rhodin_cvpr18``."""
    title: ClassVar[str]
    """The name in tables and reports."""
    summary: ClassVar[str]
    """What `mcss train --help` says about it, in a line."""
    details: ClassVar[str] = ""
    """What `mcss train METHOD --help` says after the summary."""
    network: ClassVar[type[PoseEstimator]] = PoseNetwork
    """The kind of network that it trains."""
    predicts_poses: ClassVar[bool] = True
    """Whether the trained network predicts 3D poses, so that tables compare it with others."""
    needs_labels: ClassVar[bool] = True
    """Whether there is nothing to learn without 3D labels."""
    freezes_encoder: ClassVar[bool] = False
    """Whether only the pose head is trained, on what the first stage has learned."""

    @property
    @abstractmethod
    def frame(self) -> PoseFrame:
        """The coordinate frame in which poses are predicted and scored."""

    @property
    @abstractmethod
    def information(self) -> Information:
        """What the method, both stages together, learns from."""

    @property
    def pose_images(self) -> int:
        """Labelled images in a step; 0 for a method that sees no 3D labels."""
        return 0

    @property
    def multi_view(self) -> MetricSettings | None:
        """How many instants and views of each a step takes; None for a method that sees labelled images alone."""
        return None

    @property
    def gathers(self) -> bool:
        """Whether several devices show the same person in a step and compare their images with each other's."""
        return False

    @property
    def reference(self) -> Reference:
        """Which other network a step compares with."""
        return "none"

    @property
    def fixed_orientation(self) -> str | None:
        """Why images must not be rotated or mirrored; None if they may be."""
        if self.frame == "camera":
            return f"a rotated or mirrored image shows another pose in camera space, where {self.name} predicts"
        return None

    @property
    def files(self) -> tuple[Path, ...]:
        """Files named in the settings whose contents the result depends on."""
        return ()

    @classmethod
    @abstractmethod
    def in_recipe(cls, recipe: RecipeName) -> "Method":
        """Return the method with the settings it has in a recipe."""

    def adapted(self, recipe: Recipe) -> Recipe:
        """Return a recipe that all methods share with this method's changes."""
        if self.fixed_orientation is None:
            return recipe
        return replace(recipe, augmentation=replace(recipe.augmentation, rotation=0.0))

    @property
    def first_stage(self) -> "Method | None":
        """What is trained first in a method of two stages; None for a method of one."""
        return None

    def stage_steps(self, steps: int) -> tuple[int, int]:
        """Return the steps of both stages, given the `steps` in which labelled images are seen.

        Raises:
            ValueError: Too few steps for two stages that both need labels.
        """
        return 0, steps

    def build(self, config: NetworkConfig, weights: str) -> PoseEstimator:
        """Return a new network; `weights` are those of its backbone, see `mcss.models.backbones.build_backbone`."""
        return PoseNetwork(config, weights, self.frame)

    def fits(self, network: PoseEstimator) -> bool:
        """Return whether a network is of the kind that the method trains."""
        return isinstance(network, self.network) and network.frame == self.frame

    def extras(self, capture: Capture, instants: Instants, progress: Progress) -> Extras | None:
        """Return what steps need besides images and 3D labels; None if nothing.

        Raises:
            CaptureError: The capture lacks it.
            ValueError: A file that the settings name lacks it.
        """
        return None

    def blank_extra(self, images: int) -> Extra | None:
        """Return noise in place of what `extras` gives for a step, so that a step can be timed without data."""
        return None

    @abstractmethod
    def step(
        self, model: Callable[..., Any], network: PoseEstimator, batch: Batch, reference: Teacher | None
    ) -> Losses:
        """Run the network on a batch and return the losses.

        Args:
            model: The network to call, wrapped where several devices train together.
            network: The network itself.
            batch: Unlabelled images of several views, labelled images, or both.
            reference: Another network to compare with, see the property `reference`.
        """

    @property
    def sweep(self) -> Sweep | None:
        """What tuning tries besides the learning rate; None for a method that no table compares."""
        return None

    def swept(self, value: float) -> "Method":
        """Return the method with a value of its `sweep`."""
        return self

    def swept_optimiser(self, value: float, optimiser: OptimiserSettings) -> OptimiserSettings:
        """Return the optimiser's settings with a value of the `sweep`."""
        return optimiser

    def without_views(self) -> "tuple[Method, str] | None":
        """Return the method without its signal from other views, and in words what it lacks.

        None for a method without such a signal. If the result is another method, a comparison trains it with the
        settings that it chose for that method.
        """
        return None
