"""The settings of a training run, and the two runs that a method of two stages takes."""

from dataclasses import dataclass, field, fields, replace
from typing import Literal

from mcss.data.loading.augmentation import AugmentationSettings
from mcss.methods.method import Method
from mcss.methods.recipe import RECIPES, OptimiserSettings, RecipeName
from mcss.models.pose_network import NetworkConfig

IDLE = ("capture", "checkpoint_every", "log_every")
"""Settings that do not change what a run computes; the capture is identified by its fingerprint."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that determines what a run computes; written to its ``config.json``."""

    capture: str
    """Folder or object-store address of the capture to train on."""
    method: Method
    """The method and its own settings."""
    labels: str = "S1"
    """Whose 3D poses are used: S1; S1:0.1 (10 %, evenly spread); S1,S5; all; none; or @FILE.csv, a list of instants
    such as `mcss select` writes."""
    label_views: tuple[str, ...] = ()
    """Use the labels of these views alone, such as 1,2,3; all views by default."""
    split: str = "train"
    """Split whose images are trained on."""
    hold_out: float = 0.0
    """Share of each sequence, at its end, that is kept from training."""
    beside: tuple[str, ...] = ()
    """Further captures to train on, with all of their labels: views from one capture, labels from another."""
    beside_share: float = 0.5
    """Share of the steps, and of the labelled images in a step, that the captures beside get."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The network."""
    weights: str = "imagenet"
    """Start of the backbone: imagenet, mediapipe (for blazepose), random, a .safetensors or .pth file, or a run folder
    (such as one of points2d), whose backbone is taken."""
    init: str | None = None
    """Run folder whose whole network is the start, to go on with other data or labels. A method of two stages then goes
    on with its second stage; otherwise it first trains the first one, in the folder `first` of its run."""
    frozen_stages: int = 0
    """First backbone stages that keep their weights and BatchNorm statistics; 0 trains all of them, slower."""
    frozen_statistics: bool = False
    """Keep the BatchNorm statistics of the whole backbone as they came with its weights. A batch of one subject then
    cannot hide from the network what sets that subject apart."""
    variants: int = 0
    """Augmentations of each image for which frozen stages are computed once and kept, more for small captures; 0
    computes them anew at every step."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """Adam and its learning rate schedule."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """Random changes of the images."""
    validation: str | None = "validation"
    """Split for the learning curve; none is drawn where the capture lacks it."""
    validate_every: int = 500
    """Steps between points of the learning curve."""
    validation_instants: int = 250
    """Instants evaluated for each point of the learning curve."""
    keep: Literal["last", "best"] = "last"
    """Which weights are saved: those after the last step, or the ``best``, which are those of the point of the learning
    curve with the least N-MPJPE; without labels or a learning curve, the last."""
    checkpoint_every: int = 500
    """Steps between checkpoints; where steps are slow, one is also written every two minutes."""
    log_every: int = 25
    """Steps between lines of ``metrics.jsonl``."""
    precision: Precision = "32-true"
    """Floating-point precision, by Lightning Fabric's names."""
    seed: int = 0
    """Seed of initial weights, batches and augmentation."""

    def __post_init__(self) -> None:
        rotation, mirror = self.augmentation.rotation, self.augmentation.mirror
        if not 0 <= self.hold_out < 1:
            raise ValueError(f"hold_out: expected a share of at least 0 and below 1, got {self.hold_out:g}.")
        if not 0 < self.beside_share < 1:
            raise ValueError(f"beside_share: expected a share between 0 and 1, got {self.beside_share:g}.")
        if self.method.reference == "average" and not self.optimiser.average:
            raise ValueError(
                "teacher: expected a moving average of the weights for the teacher average, got average = 0. Set "
                "average to 0.99, or take the teacher initial."
            )
        if self.beside and self.method.gathers:
            raise ValueError(
                "gather: expected off with captures beside, since devices then take images of different captures."
            )
        if self.variants and not self.frozen_stages:
            raise ValueError(
                f"variants: expected 0 without frozen stages, got {self.variants}; only frozen stages can be computed "
                "once. Set frozen_stages, too."
            )
        if (reason := self.method.fixed_orientation) is not None and (rotation or mirror):
            raise ValueError(f"rotation, mirror: expected 0 for both, got {rotation:g} and {mirror:g}; {reason}.")
        if self.method.frame == "world" and mirror:
            raise ValueError(
                f"mirror: expected 0 with poses in the world frame, got {mirror:g}; a mirrored room is another room."
            )
        if self.variants == 1 and mirror:
            raise ValueError(
                f"variants: expected 0, or 2 or more, with mirror = {mirror:g}, got 1; half of the variants show an "
                "image mirrored. Set variants to 2, or mirror to 0."
            )


def recipe(name: RecipeName, method: type[Method], capture: str) -> TrainSettings:
    """Return the settings of a method in a recipe, to be changed with `dataclasses.replace`.

    All methods get the same network, weights, schedule and number of labelled images in a step, and the same
    augmentation as far as their poses and losses allow (`Method.adapted`).
    """
    own = method.in_recipe(name)
    shared = own.adapted(RECIPES[name])
    return TrainSettings(
        capture=capture,
        method=own,
        labels="S1" if own.pose_images else "none",
        **{each.name: getattr(shared, each.name) for each in fields(shared)},
    )


def stages(settings: TrainSettings) -> tuple[TrainSettings | None, TrainSettings]:
    """Return the settings of the first stage and of the run itself.

    There is no first stage for a method that has one stage, or where ``init`` names a run to go on from.

    Stages with labels share the given number of steps, so that every method sees as many labelled images; a first stage
    without labels comes on top. The first stage is a run like any other: it may be evaluated, and be the ``init`` of
    several others.
    """
    method = None if settings.init is not None else settings.method.first_stage
    if method is None:
        return None, settings
    before, after = settings.method.stage_steps(settings.optimiser.steps)
    labels = settings.labels if method.needs_labels else "none"
    return (
        replace(settings, method=method, labels=labels, optimiser=replace(settings.optimiser, steps=before)),
        replace(settings, optimiser=replace(settings.optimiser, steps=after)),
    )
