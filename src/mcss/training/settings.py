"""What decides a training run: its settings, and the two runs that a method of two stages takes."""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from mcss.data.augmentation import AugmentationSettings
from mcss.methods.mcss import MCSSSettings
from mcss.methods.method import Method, first_stage_of, frame_of, method_name, needs_labels, points_of, steps_of_stages
from mcss.models.pose_network import NetworkConfig

IDLE = ("capture", "checkpoint_every", "log_every")
"""Settings that decide nothing of what a run computes; the capture is told by its fingerprint."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam and its schedule; the defaults are the paper's (Sec. 4)."""

    steps: int = 20_000
    """Optimiser steps. The paper trains for 40 epochs."""
    lr: float = 1e-3
    """Learning rate at its highest."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's, as printed in the paper."""
    weight_decay: float = 0.0
    """Decoupled (AdamW); the paper names none."""
    schedule: Literal["halves", "cosine"] = "halves"
    """``halves``: ×0.1 after half of the steps, the paper's epoch 20 of 40. ``cosine``: down to 0."""
    warmup: int = 0
    """Steps over which the rate rises from 0. Not in the paper."""
    average: float = 0.0
    """Decay of the average of weights that is evaluated and saved; 0: the last weights, as in the paper."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: expected 1 or more, got {self.steps}.")
        if not self.lr > 0:
            raise ValueError(f"lr: expected a rate above 0, got {self.lr}.")
        if not 0 <= self.average < 1:
            raise ValueError(f"average: expected a decay in 0..1, got {self.average}.")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        rate = self.lr * min(1.0, (step + 1) / self.warmup) if self.warmup else self.lr
        match self.schedule:
            case "halves":
                return rate * 0.1 if 2 * step >= self.steps else rate
            case "cosine":
                return rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides what a run computes; written to its ``config.json``."""

    capture: str
    """The capture to train on."""
    labels: str = "S1"
    """Subjects whose poses are used: S1, S1:0.1 (evenly spread), S1,S5, all, none, or
    @FILE.csv, a list of instants."""
    label_views: tuple[str, ...] = ()
    """Use labels of these views only; none given: all views."""
    split: str = "train"
    """The split whose images are trained on."""
    method: Method = field(default_factory=MCSSSettings)
    """What is learned from the images."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """F, G and H."""
    weights: str = "imagenet"
    """Start of the backbone: imagenet, random, a file, or the folder of another run, whose backbone is taken."""
    init: str | None = None
    """A run folder whose whole network is the start instead. A method of two stages then goes on from it with its
    second stage; else it trains the first one itself, in the folder ``first`` of its run."""
    frozen_stages: int = 0
    """First stages of the backbone that keep their weights (and BatchNorm statistics)."""
    frozen_statistics: bool = False
    """Keep the BatchNorm statistics of the whole backbone as they came with its weights. A batch of one subject then
    not hide from the network what sets that subject apart."""
    variants: int = 0
    """Augmentations of each image for which frozen stages are computed once and kept; 0: anew at every step."""
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    """Adam and its schedule."""
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """Random changes of the images."""
    validation: str | None = "validation"
    """Split for the learning curve, where the capture has it."""
    validate_every: int = 500
    """Steps between points of the learning curve."""
    validation_instants: int = 250
    """Instants looked at for a point of the learning curve."""
    checkpoint_every: int = 500
    """Steps between checkpoints, which also come every two minutes where steps are slow."""
    log_every: int = 25
    """Steps between lines of ``metrics.jsonl``."""
    precision: Precision = "32-true"
    """Arithmetic, as Fabric names it."""
    seed: int = 0
    """Decides initial weights, batches and augmentations."""

    def __post_init__(self) -> None:
        if self.variants and not self.frozen_stages:
            raise ValueError("variants: only frozen stages can be computed once; set frozen_stages, or variants to 0.")
        if points_of(self.method) is not None and (self.augmentation.rotation or self.augmentation.mirror):
            raise ValueError(
                "rotation, mirror: 2D joints are not turned or mirrored with their image; set both to 0 "
                f"(they are {self.augmentation.rotation:g} and {self.augmentation.mirror:g})."
            )
        if frame_of(self.method) == "world" and self.augmentation.mirror:
            raise ValueError("mirror: not with poses in the world's frame, where a mirror has no place; set it to 0.")
        if self.variants and self.augmentation.mirror:
            raise ValueError("mirror: not with variants > 0, whose maps are shared by plain and mirrored labels.")
        if frame_of(self.method) == "camera" and (self.augmentation.rotation or self.augmentation.mirror):
            raise ValueError(
                f"rotation, mirror: a turned or mirrored image shows another pose in camera space, where "
                f"{method_name(self.method)} predicts; set both to 0 (they are {self.augmentation.rotation:g} and "
                f"{self.augmentation.mirror:g})."
            )


def stages(settings: TrainSettings) -> tuple[TrainSettings | None, TrainSettings]:
    """The run that comes first, if the method has two stages and no ``init`` brings the first; and the run itself.

    Stages with labels take the steps that were asked for, so that every system sees as many labelled images; a first
    one without labels comes on top. The first is a run like any other: it may be evaluated, and be the ``init`` of
    several others.
    """
    method = None if settings.init is not None else first_stage_of(settings.method)
    if method is None:
        return None, settings
    before, after = steps_of_stages(settings.method, settings.optimiser.steps)
    labels = settings.labels if needs_labels(method) else "none"
    return (
        replace(settings, method=method, labels=labels, optimiser=replace(settings.optimiser, steps=before)),
        replace(settings, optimiser=replace(settings.optimiser, steps=after)),
    )
