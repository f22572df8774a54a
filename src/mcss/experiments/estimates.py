"""How long training will take: from runs that were made before, or from a step that is tried."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mcss.data.batches import Batch
from mcss.experiments.runs import Cell, seconds_of
from mcss.methods.method import (
    COMPARES_VIEWS,
    freezes_encoder,
    losses_of,
    needs_initial,
    network_of,
    output_of,
    points_of,
    pose_images_of,
)
from mcss.methods.rhodin_eccv18 import NovelViewSettings
from mcss.training.memory import keep_freed_memory
from mcss.training.settings import TrainSettings, stages


@dataclass(frozen=True)
class Estimate:
    """What is left to train of a system."""

    system: str
    cells: int
    steps: int
    seconds_per_step: float
    """On one process; several beside each other take longer each."""
    known: bool
    """From finished runs; else from one step that was tried."""

    @property
    def hours(self) -> float:
        """Of all its steps, one after the other."""
        return self.steps * self.seconds_per_step / 3600


def estimates(waiting: Sequence[Cell], cells: Sequence[Cell], folder: Path) -> list[Estimate]:
    """How long cells will take, by system. Reading images and frozen stages, which is done once, is not in it.

    Args:
        waiting: Cells that are to be trained.
        cells: Others, whose pace tells that of those that wait.
        folder: Of all cells.
    """
    kinds: dict[tuple[str, str], list[Cell]] = {}
    for cell in waiting:
        kinds.setdefault((cell.system, cell.settings.network.backbone), []).append(cell)
    found = []
    for (system, backbone), own in kinds.items():
        alike = [c for c in cells if (c.system, c.settings.network.backbone) == (system, backbone)]
        done = [(c.settings.optimiser.steps, s) for c in alike if (s := seconds_of(c, folder)) and c not in waiting]
        steps = sum(cell.settings.optimiser.steps for cell in own)
        known = sum(s for _, s in done) / sum(n for n, _ in done) if done else None
        seconds = step_seconds(own[0].settings) if known is None else known
        found.append(Estimate(f"{system}, {backbone}", len(own), steps, seconds, bool(done)))
    return found


def step_seconds(settings: TrainSettings) -> float:
    """Seconds of a training step, tried on empty images; of both stages for each step that was asked for."""
    keep_freed_memory()
    first, second = stages(settings)
    runs = [second] if first is None else [first, second]
    return sum(run.optimiser.steps * _tried(run) for run in runs) / settings.optimiser.steps


def _tried(settings: TrainSettings) -> float:
    method, config, frozen = settings.method, settings.network, settings.frozen_stages
    network = network_of(method, config, "random").to(memory_format=torch.channels_last)
    network.backbone.stages[:frozen].requires_grad_(False)
    if freezes_encoder(method):
        network.freeze_encoder()
    batch = _empty_batch(settings, network.backbone(torch.zeros(2, 3, config.image_size, config.image_size), 0, frozen))
    initial = copy.deepcopy(network) if needs_initial(method) else None
    optimiser = torch.optim.AdamW([value for value in network.parameters() if value.requires_grad], lr=1e-9)
    network.train()
    started = 0.0
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        losses = losses_of(method, network, output_of(method, network, batch), batch, initial)
        optimiser.zero_grad()
        torch.autograd.backward(losses.total)
        optimiser.step()
    return time.perf_counter() - started


def _empty_batch(settings: TrainSettings, maps: torch.Tensor) -> Batch:
    """A batch as large as those of a run, of noise."""
    method = settings.method
    shape = (method.instants, method.views) if isinstance(method, COMPARES_VIEWS) else (0, 0)
    metric = shape[0] * shape[1]
    labelled = 0 if settings.labels == "none" else pose_images_of(method)
    count = metric + labelled
    cached = bool(settings.variants)
    side = (3, settings.network.image_size, settings.network.image_size)
    images = torch.randn(count, *(maps.shape[1:] if cached else side)).contiguous(memory_format=torch.channels_last)
    drawn = None
    if isinstance(method, NovelViewSettings):
        drawn = torch.randn(metric, 3, method.synthesis.drawn_size, method.synthesis.drawn_size)
    places = torch.zeros(count, dtype=torch.int64).numpy()
    points = torch.randn(count, 17, 2) if points_of(method) is not None else None
    return Batch(
        images=images,
        metric_shape=shape,
        instants=places,
        views=places,
        mirrored=places.astype(bool),
        poses=torch.randn(labelled, 17, 3),
        first_stage=settings.frozen_stages if cached else 0,
        rotations=torch.eye(3).expand(count, 3, 3),
        unchanged=drawn,
        backgrounds=drawn,
        points=points,
    )
