"""How long training will take: from runs that are finished, or from a step that is tried."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mcss.data.loading.batches import Batch
from mcss.experiments.runs import Cell, seconds_of
from mcss.processes import keep_freed_memory
from mcss.training.loop import adamw
from mcss.training.machine import Machine
from mcss.training.settings import TrainSettings, stages


@dataclass(frozen=True)
class Estimate:
    """What is left to train of a system."""

    system: str
    """Method and backbone."""
    cells: int
    steps: int
    """Optimiser steps of all cells together."""
    seconds_per_step: float
    """On one process; processes that run in parallel take longer each."""
    known: bool
    """Measured in finished runs; otherwise in one step that was tried."""
    gigabytes: float
    """Disk (10⁹ bytes) for the networks and checkpoints of all cells."""

    @property
    def hours(self) -> float:
        """Hours for all steps, one after the other."""
        return self.steps * self.seconds_per_step / 3600


def estimates(waiting: Sequence[Cell], cells: Sequence[Cell], folder: Path) -> list[Estimate]:
    """How long cells will take, by system; reading images and computing frozen stages, done once, is left out.

    Args:
        waiting: Cells that are to be trained.
        cells: Other cells, whose speed is taken if they have the same method and backbone.
        folder: Folder of all cells.
    """
    by_kind: dict[tuple[str, str], list[Cell]] = {}
    for cell in waiting:
        by_kind.setdefault(_kind(cell), []).append(cell)
    result = []
    for kind, left in by_kind.items():
        finished = [
            (cell.settings.optimiser.steps, seconds)
            for cell in cells
            if _kind(cell) == kind and cell not in waiting and (seconds := seconds_of(cell, folder))
        ]
        if finished:
            seconds_per_step = sum(seconds for _, seconds in finished) / sum(steps for steps, _ in finished)
        else:
            seconds_per_step = step_seconds(left[0].settings)
        steps = sum(cell.settings.optimiser.steps for cell in left)
        disk = len(left) * run_bytes(left[0].settings) / 1e9
        result.append(Estimate(", ".join(kind), len(left), steps, seconds_per_step, bool(finished), disk))
    return result


def _kind(cell: Cell) -> tuple[str, str]:
    return cell.system, cell.settings.network.backbone


def run_bytes(settings: TrainSettings) -> int:
    """Bytes of a finished run: the network of each stage, and its checkpoint with two moments of what is trained."""
    total = 0
    for stage in stages(settings):
        if stage is not None:
            network = stage.method.build(stage.network, "random")
            network.backbone.stages[: stage.frozen_stages].requires_grad_(False)
            size = sum(value.nbytes for value in network.state_dict().values())
            trained = sum(value.nbytes for value in network.parameters() if value.requires_grad)
            total += (3 if stage.optimiser.average else 2) * size + 2 * trained
    return total


def step_seconds(settings: TrainSettings) -> float:
    """Seconds of a training step, tried on noise; both stages count, for each step of the settings."""
    keep_freed_memory()
    runs = [run for run in stages(settings) if run is not None]
    return sum(run.optimiser.steps * _timed_step(run) for run in runs) / settings.optimiser.steps


def _timed_step(settings: TrainSettings) -> float:
    method, config, frozen = settings.method, settings.network, settings.frozen_stages
    fabric = Machine().fabric(settings.precision, Path())
    network = method.build(config, "random").to(memory_format=torch.channels_last)
    network.backbone.stages[:frozen].requires_grad_(False)
    if method.freezes_encoder:
        network.freeze_encoder()
    maps = network.backbone(torch.zeros(2, 3, config.image_size, config.image_size), 0, frozen)
    batch = _noise_batch(settings, maps.shape[1:]).to(fabric.device)
    reference = None if method.reference == "none" else copy.deepcopy(network).to(fabric.device)
    trained = [value for value in network.parameters() if value.requires_grad]
    optimiser = adamw(trained, replace(settings.optimiser, lr=1e-9), fabric.device)
    network.train()
    model, optimiser = fabric.setup(network, optimiser)
    started = 0.0
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        losses = method.step(model, network, batch, reference)
        optimiser.zero_grad()
        fabric.backward(losses.total)
        optimiser.step()
        float(losses.total.detach())  # waits for a GPU
    seconds = time.perf_counter() - started
    del network, model, optimiser, reference, trained, batch, losses
    torch.cuda.empty_cache()  # for the processes that train on this GPU while this one waits
    return seconds


def _noise_batch(settings: TrainSettings, map_shape: torch.Size) -> Batch:
    """A batch of noise, as large as those of a run.

    Args:
        settings: The run's.
        map_shape: Channels, height and width of what the frozen stages compute of an image.
    """
    method = settings.method
    shape = (0, 0) if method.multi_view is None else (method.multi_view.instants, method.multi_view.views)
    unlabelled = shape[0] * shape[1]
    labelled = 0 if settings.labels == "none" else method.pose_images
    cached = bool(settings.variants)
    size = settings.network.image_size
    images = torch.randn(unlabelled + labelled, *(map_shape if cached else (3, size, size)))
    return Batch(
        images=images.contiguous(memory_format=torch.channels_last),
        metric_shape=shape,
        poses=torch.randn(labelled, 17, 3),
        first_stage=settings.frozen_stages if cached else 0,
        extra=method.blank_extra(unlabelled),
    )
