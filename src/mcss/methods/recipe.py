"""Recipes: what all methods are trained with under a name, each with what it costs and what to expect of it.

``paper``
    The paper's training, for a GPU: ResNet-18 with ImageNet weights and no BatchNorm affine, 224 px, Eq. 2 on 33 pairs
    beside 22 labelled images, Adam 1e-3, ×0.1 at half time, images as they are. ``mcss train mcss --recipe paper
    --steps 189000`` is 40 epochs of Human3.6M's 312,000 training images, 66 a step. Expect Table 1 on Human3.6M; not
    yet measured with this code.
``paper+aug``
    The same with the random changes of images that ``fast`` has too, in their default amounts. The paper mentions none.
``fast``
    For a laptop: EfficientNet-Lite0 at 96 px whose first five stages are frozen and computed once, all views of an
    instant as positives, an average of the weights, of which those are kept that are best on the validation subjects.
    ``mcss train mcss --capture C`` takes minutes on two cores; the README has the results. docs/method.md explains and
    ablates every departure.

A method's own settings under each name are in its own file (`mcss.methods.method.Method.in_recipe`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mcss.data.loading.augmentation import NO_CHANGES, AugmentationSettings
from mcss.models.pose_network import NetworkConfig

RecipeName = Literal["fast", "paper", "paper+aug"]


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam and its learning rate schedule; the defaults are the paper's (Sec. 4)."""

    steps: int = 20_000
    """Optimiser steps. The paper trains for 40 epochs."""
    lr: float = 1e-3
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Adam's β₁ and β₂, as printed in the paper."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW); the paper mentions none."""
    schedule: Literal["halves", "cosine"] = "halves"
    """``halves``: ×0.1 after half of the steps, the paper's epoch 20 of 40. ``cosine``: down to 0."""
    warmup: int = 0
    """Steps over which the learning rate rises from 0. Not in the paper."""
    average: float = 0.0
    """Decay of the moving average of the weights that is evaluated and saved; 0 takes the last weights, as in the
    paper."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps: expected 1 or more, got {self.steps}.")
        if not self.lr > 0:
            raise ValueError(f"lr: expected a rate above 0, got {self.lr}.")
        if not 0 <= self.average < 1:
            raise ValueError(f"average: expected a decay of at least 0 and below 1, got {self.average}.")

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        rate = self.lr * min(1.0, (step + 1) / self.warmup) if self.warmup else self.lr
        match self.schedule:
            case "halves":
                return rate * 0.1 if 2 * step >= self.steps else rate
            case "cosine":
                return rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass(frozen=True)
class Recipe:
    """What all methods share, so that a comparison is one of methods."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    frozen_stages: int = 0
    variants: int = 0
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    validate_every: int = 500
    keep: Literal["last", "best"] = "last"


RECIPES: Mapping[RecipeName, Recipe] = {
    "paper": Recipe(augmentation=NO_CHANGES),
    "paper+aug": Recipe(),
    "fast": Recipe(
        network=NetworkConfig(
            backbone="tf_efficientnet_lite0",
            batchnorm_affine=True,
            embedding_norm=True,
            scaled_embedding=True,
            head_hidden=512,
            image_size=96,
        ),
        frozen_stages=5,
        variants=4,
        augmentation=AugmentationSettings(
            brightness=0.4, contrast=0.4, saturation=0.6, hue=180.0, channel_gain=0.2, grey=0.2
        ),
        optimiser=OptimiserSettings(steps=1000, lr=2e-3, schedule="cosine", warmup=50, average=0.998),
        validate_every=100,
        keep="best",
    ),
}
