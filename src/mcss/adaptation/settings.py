"""What `mcss adapt` computes, and the training settings that follow from the footage."""

from dataclasses import dataclass

import numpy as np

from mcss.data.instants import Instants
from mcss.data.loading.augmentation import AugmentationSettings
from mcss.data.loading.sampling import MetricSettings, metric_plan
from mcss.methods.mcss import MCSS
from mcss.methods.recipe import OptimiserSettings
from mcss.models.pose_network import NetworkConfig
from mcss.training.settings import TrainSettings

MADE = "made"
"""The labels that `mcss label` makes of the footage."""

_FROZEN = {"blazepose": 6, "tf_efficientnet_lite0": 5, "resnet18": 3, "resnet34": 3, "resnet50": 3}
"""First backbone stages that keep their weights, by backbone; of other backbones the first half. BlazePose's, which has
learned from many real people, keeps all: its heads alone learn footage as well, many times as fast."""

_MANY = 20
"""Labelled instants from which labels alone say where joints are."""

_GAPS = (0.5, 0.25, 0.1, 0.05, 0.0)
"""Least seconds between two instants of a step; the first that leaves enough instants is taken."""


@dataclass(frozen=True)
class AdaptSettings:
    """How a model is adapted to footage."""

    labels: str = MADE
    """3D poses to train on. made: what `mcss label` makes of this footage by itself, from the views together. none: no
    labels; what the views together say at the start holds the poses. Or your own: @FILE.csv, S1, S1:0.1, all."""
    beside: tuple[str, ...] = ()
    """Captures with labels to train on beside the footage, such as rendered people, so that the model keeps what it
    knows of other people and poses."""
    split: str = "train"
    """Split of the footage that is used; the test split is not looked at."""
    steps: int = 600
    """Most optimiser steps; training ends earlier where the held-out instants gain nothing more."""
    views: int = 0
    """Views of each instant in a step; 0 takes as many as the capture has, up to four."""
    consistency: float = 20.0
    """Weight of L_cnstr relative to L_pose: more finds the same moment in other views more often, less gives better
    poses."""
    lr: float = 5e-4
    """Peak learning rate."""
    variants: int = 4
    """Augmentations of each image for which the frozen stages are computed once; half of them are mirrored."""
    hold_out: float = 0.15
    """Share of each sequence, at its end, that is kept from training and decides when to stop."""
    seed: int = 0
    """Seed of batches and augmentation."""

    def __post_init__(self) -> None:
        if not 0 < self.hold_out <= 0.5:
            raise ValueError(f"hold_out: expected a share above 0 and at most 0.5, got {self.hold_out:g}.")
        if self.views == 1 or self.views < 0:
            raise ValueError(f"views: expected 0 for all, or 2 or more, got {self.views}; one view has no other.")
        if self.steps < 1:
            raise ValueError(f"steps: expected 1 or more, got {self.steps}.")
        if self.variants < 2:
            raise ValueError(f"variants: expected 2 or more, since half of them are mirrored, got {self.variants}.")

    def training(
        self,
        network: NetworkConfig,
        start: str,
        capture: str,
        labels: str,
        batch: MetricSettings,
        stages: int,
        labelled: int,
    ) -> TrainSettings:
        """Return the settings of the training.

        Args:
            network: The network that is adapted.
            start: The run or model file that it comes from.
            capture: The footage.
            labels: The label budget, as `TrainSettings` takes it.
            batch: How many instants and views a step compares, see `batch_of`.
            stages: Stages of the network's backbone.
            labelled: Instants that have a label; if these are few, the others are left to the teacher.
        """
        unlabelled = labels == "none"
        method = MCSS(
            metric_loss="infonce",
            instants=batch.instants,
            views=batch.views,
            min_gap=batch.min_gap,
            temperature=0.2,
            metric_weight=self.consistency,
            pose_images=32,
            teacher="initial" if labelled < _MANY else "none",
            teacher_weight=2.0 if unlabelled else 0.5,
        )
        frozen = _FROZEN.get(network.backbone, stages // 2)
        return TrainSettings(
            capture=capture,
            method=method,
            labels=labels,
            split=self.split,
            hold_out=self.hold_out,
            beside=self.beside,
            beside_share=0.25,
            network=network,
            init=start,
            frozen_stages=frozen,
            variants=self.variants if frozen else 0,
            optimiser=OptimiserSettings(
                steps=self.steps, lr=self.lr, schedule="cosine", warmup=20, average=0.98, weight_decay=0.01
            ),
            augmentation=AUGMENTATION,
            validation=None,
            validate_every=max(1, min(100, self.steps // 4)),
            checkpoint_every=max(1, min(50, self.steps // 4)),
            log_every=10,
            seed=self.seed,
        )


AUGMENTATION = AugmentationSettings(
    scale=0.25,
    shift=0.06,
    rotation=12.0,
    saturation=0.4,
    hue=25.0,
    channel_gain=0.2,
    grey=0.15,
    blur=0.2,
    noise=0.15,
    low_resolution=0.1,
    mirror=0.5,
)
"""Changes of images of one's own footage, whose colours and tightness are those that the model is to work on."""


def batch_of(instants: Instants, views: int) -> MetricSettings:
    """Return how many instants and views a step compares, as far as the footage goes.

    Args:
        instants: The instants that are trained on.
        views: Views of each instant; 0 for as many as there are, up to four.

    Raises:
        ValueError: Instants have one view only, or there are too few.
    """
    seen = (instants.rows >= 0).sum(axis=1)
    most = int(seen.max(initial=0))
    if most < 2:
        raise ValueError(
            "views: adapting compares views, and no instant of this capture has two. Import two or more synchronised "
            "videos of the same person; with one camera, train on labels: `mcss train supervised`."
        )
    wanted = min(views or 4, most)
    people = np.unique(np.stack([instants.subject, instants.outfit]), axis=1).T
    fewest = min(int(((instants.subject == s) & (instants.outfit == o) & (seen >= 2)).sum()) for s, o in people)
    for count in (16, 8):
        for gap in _GAPS:
            settings = MetricSettings(count, wanted, gap)
            if fewest >= count and _fits(instants, settings):
                return settings
    raise ValueError(
        f"instants: adapting compares at least 8 instants of a person, each in two views, and the footage has "
        f"{fewest} to train on. Import more of it, or at a higher --rate."
    )


def _fits(instants: Instants, settings: MetricSettings) -> bool:
    try:
        metric_plan(instants, settings)
    except ValueError:
        return False
    return True
