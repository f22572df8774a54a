"""Training: one loop for every method, readable from top to bottom, resumable at any step bit for bit."""

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric

from mcss.data.batches import BatchSource, prefetched
from mcss.data.capture import Capture
from mcss.errors import CheckpointError
from mcss.methods.method import (
    Method,
    frame_of,
    freezes_encoder,
    load_estimator,
    losses_of,
    method_name,
    needs_initial,
    network_fits,
    network_of,
    output_of,
)
from mcss.models.model_file import CHECKPOINT, MODEL, save_model
from mcss.models.pose_network import PoseEstimator
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import CONFIG, METRICS, load_checkpoint, save_checkpoint
from mcss.training.data import TrainingData, images_of
from mcss.training.memory import keep_freed_memory
from mcss.training.metrics_log import RunLog, rewind
from mcss.training.runs import FIRST_STAGE, begin_run
from mcss.training.settings import TrainSettings, stages
from mcss.training.validation import LearningCurve, learning_curve

CHECKPOINT_SECONDS = 120.0
"""After so long a checkpoint is due, however few steps were done: so much is lost at most when a run is stopped."""


@dataclass(frozen=True)
class Machine:
    """Where to compute, in Fabric's words."""

    accelerator: str = "auto"
    """cpu, cuda, mps or auto."""
    devices: int = 1
    """Devices of this machine."""
    nodes: int = 1
    """Machines."""

    def fabric(self, precision: str) -> Fabric:
        """A Fabric for these devices."""
        several = self.devices * self.nodes > 1
        return Fabric(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.nodes,
            # Without labels the pose head is without a gradient.
            strategy="ddp_find_unused_parameters_true" if several else "auto",
            precision=precision,  # type: ignore[arg-type]
        )


def train(
    settings: TrainSettings,
    out: Path,
    resume: bool = False,
    machine: Machine | None = None,
    progress: Progress = NO_PROGRESS,
) -> Path:
    """Train as `settings` say and leave a run folder; returns it.

    Args:
        settings: What to compute.
        out: The run folder, see `mcss.training.checkpoints`.
        resume: Go on with the run that `out` holds; the result is bit-identical to an uninterrupted run.
        machine: Where to compute.
        progress: Told of every step.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or one with other settings.
        ValueError: Labels, batch sizes or splits that the capture does not allow.
    """
    keep_freed_memory()
    fabric = (machine or Machine()).fabric(settings.precision)
    fabric.launch()
    _train(fabric, settings, out, resume, progress)
    return out


def _train(fabric: Fabric, settings: TrainSettings, out: Path, resume: bool, progress: Progress) -> None:
    """Prepare a run, with its first stage where there are two, and run the loop."""
    capture = Capture.open(settings.capture)
    digest = _begun(fabric, out, settings, capture, resume)
    first, settings = stages(settings)

    data = TrainingData.read(settings, capture, progress)
    start = None if settings.init is None else Path(settings.init)
    if first is not None:
        start = out / FIRST_STAGE
        if not (start / MODEL).exists():
            _train(fabric, first, start, (start / CONFIG).exists(), progress)
        fabric.barrier()
    torch.manual_seed(settings.seed)
    network = _network(settings, start)
    if data.labelled.any():
        network.set_pose_statistics(data.labelled_poses(network.frame))
    network = network.to(fabric.device).to(memory_format=torch.channels_last)
    with fabric.rank_zero_first():  # who computes the maps of frozen stages; the others then find them
        images = images_of(settings, network, capture, data.instants, data.labelled, progress)
    source = data.source(settings, images)
    validate = learning_curve(settings, network, capture, progress) if fabric.is_global_zero else None
    initial = _initial(settings.method, start, fabric)
    _fit(settings, out, digest, fabric, network, initial, source, validate, resume, progress)


def _fit(
    settings: TrainSettings,
    out: Path,
    digest: str,
    fabric: Fabric,
    network: PoseEstimator,
    initial: PoseEstimator | None,
    source: BatchSource,
    validate: LearningCurve | None,
    resume: bool,
    progress: Progress,
) -> None:
    """The loop."""
    schedule, world = settings.optimiser, fabric.world_size
    parameters = [value for value in network.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(
        parameters, lr=schedule.lr, betas=schedule.betas, weight_decay=schedule.weight_decay, fused=False, foreach=True
    )
    average = _copy(network) if schedule.average else None
    start, seen = 0, (0, 0.0)
    if resume:
        if (out / CHECKPOINT).exists():
            start = load_checkpoint(out / CHECKPOINT, network, average, optimiser, digest)
        seen = rewind(out / METRICS, start)
    model, optimiser = fabric.setup(network, optimiser)
    evaluated = average or network
    log = RunLog(out / METRICS, *seen, writes=fabric.is_global_zero)
    saved = time.monotonic()

    with progress.task(f"Training {out.name}", schedule.steps, start) as task:
        for step, batch in zip(
            range(start, schedule.steps),
            prefetched(source, range(start * world + fabric.global_rank, schedule.steps * world, world)),
            strict=True,
        ):
            network.train()
            _freeze_statistics(network, None if settings.frozen_statistics else settings.frozen_stages)
            torch.manual_seed(_step_seed(settings.seed, step * world + fabric.global_rank))  # dropout's
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step)
            batch = batch.to(fabric.device)
            output = output_of(settings.method, model, batch)
            losses = losses_of(settings.method, network, output, batch, initial)
            optimiser.zero_grad()
            fabric.backward(losses.total)
            optimiser.step()
            if average is not None:
                _update_average(average, network, schedule.average, step)

            done = step + 1
            last = done == schedule.steps
            looked = done % settings.log_every == 0 or last
            log.count(len(batch.images) * world)
            task.advance()
            if looked:
                if not math.isfinite(float(losses.total.detach())):
                    raise FloatingPointError(
                        f"step {done}: the loss is {float(losses.total.detach())}. Lower --lr (now {schedule.lr:g}), "
                        f"or resume from the checkpoint in {out} with another --precision."
                    )
                task.note(log.training(done, losses, schedule.rate(step)))
            if validate is not None and (done % settings.validate_every == 0 or last):
                log.validation(done, validate(evaluated), with_pose=source.pose is not None)
            late = looked and time.monotonic() - saved > CHECKPOINT_SECONDS  # a loss that was looked at is finite
            if (done % settings.checkpoint_every == 0 or last or late) and fabric.is_global_zero:
                save_checkpoint(out / CHECKPOINT, done, network, average, optimiser, digest)
                saved = time.monotonic()
    fabric.barrier()
    if fabric.is_global_zero:
        save_model(out / MODEL, evaluated, {"config": (out / CONFIG).read_text(encoding="utf-8")})


def _network(settings: TrainSettings, start: Path | None) -> PoseEstimator:
    """The network of a run, its weights those of the run `start` where there is one."""
    if start is None:
        network = network_of(settings.method, settings.network, settings.weights)
    else:
        network = load_estimator(start)
        if network.config != settings.network:
            raise CheckpointError(
                f"--init {start}: its network is {network.config}, this run's {settings.network}. "
                "Leave --backbone away: the network of that run is gone on with."
            )
        if not network_fits(settings.method, network):
            raise CheckpointError(
                f"--init {start}: a {type(network).__name__} whose poses are {network.frame}; "
                f"{method_name(settings.method)} trains another kind, whose poses are {frame_of(settings.method)}. "
                "Start from a run of the same method, or leave --init away."
            )
    if settings.frozen_stages > len(network.backbone.stages):
        raise ValueError(
            f"frozen_stages: {settings.network.backbone} has {len(network.backbone.stages)} stages, "
            f"got {settings.frozen_stages}."
        )
    for stage in network.backbone.stages[: settings.frozen_stages]:
        stage.requires_grad_(False)
    if freezes_encoder(settings.method):
        network.freeze_encoder()
    return network


def _initial(method: Method, start: Path | None, fabric: Fabric) -> PoseEstimator | None:
    """The network of the first stage, as it was when it had been trained; None for methods that do not look back."""
    if start is None or not needs_initial(method):
        return None
    initial = load_estimator(start).requires_grad_(False)
    return initial.to(fabric.device).to(memory_format=torch.channels_last)


def _freeze_statistics(network: PoseEstimator, stages: int | None) -> None:
    """Keep the BatchNorm statistics of the first `stages` of the backbone, or of all of them for None."""
    for stage in network.backbone.stages[:stages]:
        stage.eval()


def cache_images(settings: TrainSettings, progress: Progress = NO_PROGRESS) -> None:
    """Compute what the frozen stages make of the images of a run, unless it is known already."""
    if not settings.variants:
        return
    capture = Capture.open(settings.capture)
    start = None if settings.init is None else Path(settings.init)
    network = _network(settings, start).to(memory_format=torch.channels_last)
    instants = capture.instants(settings.split)
    images_of(settings, network, capture, instants, np.zeros(instants.rows.shape, bool), progress)
    learning_curve(settings, network, capture, progress)


def _copy(network: PoseEstimator) -> PoseEstimator:
    average = copy.deepcopy(network)
    return average.requires_grad_(False).eval()


@torch.no_grad()
def _update_average(average: PoseEstimator, network: PoseEstimator, decay: float, step: int) -> None:
    """Exponential average of weights and BatchNorm statistics; young averages forget faster."""
    weight = 1 - min(decay, (step + 1) / (step + 10))
    own, new = average.state_dict(), network.state_dict()
    floating = [key for key in own if own[key].is_floating_point()]
    torch._foreach_lerp_([own[key] for key in floating], [new[key] for key in floating], weight)


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def _begun(fabric: Fabric, out: Path, settings: TrainSettings, capture: Capture, resume: bool) -> str:
    """`begin_run` by one process for all; an error reaches all of them, so that none is left waiting."""
    digest, problem = "", ""
    if fabric.is_global_zero:
        try:
            digest = begin_run(out, settings, capture, resume)
        except CheckpointError as error:
            problem = str(error)
    digest, problem = fabric.broadcast((digest, problem))
    if problem:
        raise CheckpointError(problem)
    return digest
