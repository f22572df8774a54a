"""Training: one loop for every method, readable from top to bottom, resumable at any step bit for bit."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from lightning_fabric import Fabric
from timm.utils.model_ema import ModelEmaV3

from mcss.data.capture import Capture
from mcss.data.loading.batches import BatchSource, prefetched
from mcss.data.loading.joined_batches import JoinedBatches
from mcss.data.loading.pixels import limited_memory, shared_images
from mcss.errors import CheckpointError, reason
from mcss.labelling.teacher import LandmarkTeacher
from mcss.methods.method import Teacher
from mcss.methods.recipe import OptimiserSettings
from mcss.methods.registry import load_estimator
from mcss.models.blazepose import IMAGE_SIZE
from mcss.models.model_file import CHECKPOINT, MODEL, save_model
from mcss.models.pose_network import NeighbourHead, PoseEstimator
from mcss.processes import keep_freed_memory
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.beside import Beside, joined
from mcss.training.best import BestWeights
from mcss.training.checkpoints import CONFIG, METRICS, load_checkpoint, save_checkpoint
from mcss.training.data import TrainingData, images_of
from mcss.training.divergence import FiniteLosses
from mcss.training.machine import Machine
from mcss.training.metrics_log import RunLog, rewind
from mcss.training.runs import FIRST_STAGE, check_run, write_config
from mcss.training.settings import TrainSettings, stages
from mcss.training.validation import LearningCurve, learning_curve

CHECKPOINT_SECONDS = 120.0
"""A checkpoint is due after this time, however few steps were done: no more is lost when a run is stopped."""


@runtime_checkable
class Watch(Protocol):
    """Looks at the network while it is trained, and may end the training."""

    def __call__(self, step: int, network: PoseEstimator) -> bool:
        """Look at the network (or the average of its weights) after `step` steps; return whether to stop.

        It is called at every point of the learning curve.
        """


@dataclass(frozen=True, eq=False)
class Run:
    """A run that is ready for the loop."""

    settings: TrainSettings
    out: Path
    """The run folder."""
    digest: str
    """Identifies the settings and the capture, so that no other run's checkpoint is resumed."""
    network: PoseEstimator
    reference: Teacher | None
    """The network that steps compare with, unless it is the average of the weights; None for most methods."""
    source: BatchSource | JoinedBatches
    validate: LearningCurve | None
    """None where the capture lacks the split, and in all processes but the first."""
    watch: Watch | None
    compiled: bool
    """Whether torch.compile compiles the network."""
    is_first: bool
    """Whether this is the first of two stages."""


def train(
    settings: TrainSettings,
    out: Path,
    resume: bool = False,
    machine: Machine | None = None,
    progress: Progress = NO_PROGRESS,
    watch: Watch | None = None,
) -> Path:
    """Train with some settings, leave a run folder and return it.

    Nothing is written if the run is refused.

    Args:
        settings: What to compute.
        out: The run folder, see `mcss.training.checkpoints`.
        resume: Go on with the run in `out`; the result is bit-identical to an uninterrupted run.
        machine: Where to compute.
        progress: Notified of every step.
        watch: Looks at the network now and then, and may end the training early; for a single process.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or a run with other settings.
        ValueError: The capture does not allow the labels, batch sizes or splits, or the device has too little memory.
        ConnectionError: Another process that trains with this one has ended.
    """
    keep_freed_memory()
    machine = machine or Machine()
    with limited_memory(machine.memory_gb), shared_images(machine.devices):
        fabric = machine.fabric(settings.precision, out)
        fabric.launch()
        try:
            _train(fabric, settings, out, resume, progress, machine.compile, watch)
        except torch.OutOfMemoryError as error:
            raise ValueError(
                f"{fabric.device}: its memory does not suffice for a step of {settings.method.name} at "
                f"{settings.network.image_size} pixels ({str(error).splitlines()[0]}). Take fewer --instants and "
                "--pose-images, a smaller --image-size, or --precision bf16-mixed."
            ) from error
        except RuntimeError as error:
            if not _is_lost_process(error):
                raise
            raise ConnectionError(
                f"{out}: one of the {fabric.world_size} processes that train together has ended ({reason(error)}). If "
                "it said why, see there; else it was killed, perhaps because memory ran out. The last checkpoint is "
                "kept: run the same command with --resume."
            ) from error
    return out


def _is_lost_process(error: RuntimeError) -> bool:
    """Whether the backend of a distributed training (Gloo, NCCL or the store) has lost another process."""
    words = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "remote worker")
    return isinstance(error, torch.distributed.DistError) or any(word in str(error).lower() for word in words)


def _train(
    fabric: Fabric,
    settings: TrainSettings,
    out: Path,
    resume: bool,
    progress: Progress,
    compiled: bool = False,
    watch: Watch | None = None,
    is_first: bool = False,
) -> None:
    """Prepare a run, with its first stage where there are two, and run the loop."""
    capture, whole = Capture.open(settings.capture), settings
    digest = _checked(fabric, out, whole, capture, resume)
    first, settings = stages(settings)

    data = TrainingData.read(settings, capture, progress, devices=fabric.world_size)
    start = None if settings.init is None else Path(settings.init)
    if first is not None:
        start = out / FIRST_STAGE
        if not (start / MODEL).exists():
            _train(fabric, first, start, (start / CONFIG).exists(), progress, compiled, is_first=True)
        fabric.barrier()
    torch.manual_seed(settings.seed)
    network = _network(settings, start)
    beside = tuple(Beside.read(settings, address, progress) for address in settings.beside)
    if not (start is not None and network.has_pose_statistics):  # the pose head that goes on was trained with its own
        labelled = [each for each in (data, *(other.data for other in beside)) if each.labelled.any()]
        if labelled:
            network.set_pose_statistics(torch.cat([each.labelled_poses(network.frame) for each in labelled]))
    network = network.to(fabric.device).to(memory_format=torch.channels_last)
    with fabric.rank_zero_first():  # computes the maps of frozen stages, which the other processes then find
        images = images_of(settings, network, capture, data.instants, data.labelled, progress)
    source = joined(data.source(settings, images), beside, settings, network, progress)
    if start is not None:
        network.standardise(source.batch(step).to(fabric.device) for step in range(16))
    validate = learning_curve(settings, network, capture, progress) if fabric.is_global_zero else None
    reference = _reference(settings, start, fabric)
    if fabric.is_global_zero:
        write_config(out, whole, capture)
    run = Run(settings, out, digest, network, reference, source, validate, watch, compiled, is_first)
    _fit(run, fabric, resume, progress)


def _fit(run: Run, fabric: Fabric, resume: bool, progress: Progress) -> None:
    """Run the training loop."""
    settings, method, network, out = run.settings, run.settings.method, run.network, run.out
    schedule, world = settings.optimiser, fabric.world_size
    parameters = [value for value in network.parameters() if value.requires_grad]
    optimiser = adamw(parameters, schedule, fabric.device)
    average = _average(network, schedule.average) if schedule.average else None
    evaluated = network if average is None else average.module
    start, seen = 0, (0, 0.0)
    if resume:
        if (out / CHECKPOINT).exists():
            kept = None if average is None else evaluated
            start = load_checkpoint(out / CHECKPOINT, network, kept, optimiser, run.digest, fabric.strategy.precision)
        seen = rewind(out / METRICS, start)
    trained: torch.nn.Module = torch.compile(network) if run.compiled else network  # type: ignore[assignment]
    model, optimiser = fabric.setup(trained, optimiser)
    log = RunLog(out / METRICS, *seen, writes=fabric.is_global_zero, also=_also(fabric, run.is_first))
    saved = time.monotonic()
    advice = f"Lower --lr (now {schedule.lr:g}), or resume from the checkpoint in {out} with another --precision."
    finite = FiniteLosses(run.source, out, advice)

    reference: Teacher | None = evaluated if method.reference == "average" else run.reference
    # Without labels, the pose head is not trained: its errors say nothing about the weights.
    has_curve = run.validate is not None and run.source.pose is not None
    best = BestWeights(out) if settings.keep == "best" and has_curve else None

    with progress.task(f"Training {out.name}", schedule.steps, start) as task:
        for step, batch in zip(
            range(start, schedule.steps),
            log.awaited(
                prefetched(run.source, range(start * world + fabric.global_rank, schedule.steps * world, world))
            ),
            strict=True,
        ):
            network.train()
            _freeze_statistics(network, None if settings.frozen_statistics else settings.frozen_stages)
            number = step * world + fabric.global_rank  # of the batch, which no other process has
            torch.manual_seed(_step_seed(settings.seed, number))  # for dropout
            for group in optimiser.param_groups:
                group["lr"] = schedule.rate(step)
            losses = method.step(model, network, batch.to(fabric.device), reference)
            optimiser.zero_grad()
            fabric.backward(losses.total)
            optimiser.step()
            if average is not None:
                average.update(network, step + 2)  # counts from 1, and takes its first step as a copy

            done = step + 1
            last = done == schedule.steps
            logged = done % settings.log_every == 0 or last
            log.count(len(batch.images) * world)
            task.advance()
            late = logged and time.monotonic() - saved > CHECKPOINT_SECONDS
            saves = fabric.is_global_zero and (done % settings.checkpoint_every == 0 or last or late)
            finite.see(number, losses.total)
            if logged or saves:
                finite.check(number, parameters if saves else ())
            if logged:
                task.note(log.training(done, losses, schedule.rate(step)))
            if run.validate is not None and (done % settings.validate_every == 0 or last):
                evaluation = run.validate(evaluated)
                if best is not None and evaluation.pose is not None:
                    saves |= best.see(evaluation.pose.over_poses.n_mpjpe, evaluated)
                log.validation(done, evaluation, with_pose=run.source.pose is not None)
            stopped = run.watch is not None and (done % settings.validate_every == 0 or last)
            stopped = stopped and run.watch is not None and run.watch(done, evaluated)
            if saves:
                kept = None if average is None else evaluated
                scaling = fabric.strategy.precision
                save_checkpoint(out / CHECKPOINT, done, network, kept, optimiser, run.digest, scaling)
                saved = time.monotonic()
            if stopped:
                break
    fabric.barrier()
    if fabric.is_global_zero:
        if best is not None:
            best.restore(evaluated)
        save_model(out / MODEL, evaluated, {"config": (out / CONFIG).read_text(encoding="utf-8")})


def _also(fabric: Fabric, is_first: bool) -> Callable[[dict[str, Any], int], None]:
    """Return where the numbers of the log also go; those of the first of two stages have names of their own."""
    if not is_first:
        return fabric.log_dict
    return lambda numbers, step: fabric.log_dict({f"{FIRST_STAGE}/{name}": n for name, n in numbers.items()}, step)


def adamw(
    parameters: Sequence[torch.nn.Parameter], schedule: OptimiserSettings, device: torch.device
) -> torch.optim.AdamW:
    """Return the optimiser of a run, which passes over all weights once in a step where the device can."""
    fused = device.type in ("cuda", "cpu")
    return torch.optim.AdamW(
        parameters,
        lr=schedule.lr,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
        fused=fused,
        foreach=not fused,
    )


def _network(settings: TrainSettings, start: Path | None) -> PoseEstimator:
    """Return the network of a run, with the weights of the run `start` where there is one."""
    method = settings.method
    if start is None:
        network = method.build(settings.network, settings.weights)
    else:
        network = load_estimator(start)
        if network.config != settings.network:
            raise CheckpointError(
                f"--init {start}: expected the network of this run, {settings.network}, got {network.config}. "
                "Leave --backbone out: training goes on with the network of that run."
            )
        if isinstance(network.pose_head, NeighbourHead):
            raise CheckpointError(
                f"--init {start}: its poses are read off labelled ones, so there is no pose head to train. Start from "
                "the run that `mcss remember` was given."
            )
        if not method.fits(network):
            raise CheckpointError(
                f"--init {start}: expected a {method.network.__name__} whose poses are {method.frame}, which "
                f"{method.name} trains, got a {type(network).__name__} whose poses are {network.frame}. Start from a "
                "run of the same method, or leave --init out."
            )
    if settings.frozen_stages > len(network.backbone.stages):
        raise ValueError(
            f"frozen_stages: expected at most {len(network.backbone.stages)}, the stages of "
            f"{settings.network.backbone}, got {settings.frozen_stages}."
        )
    for stage in network.backbone.stages[: settings.frozen_stages]:
        stage.requires_grad_(False)
    if method.freezes_encoder:
        network.freeze_encoder()
    return network


def _reference(settings: TrainSettings, start: Path | None, fabric: Fabric) -> Teacher | None:
    """Return the network that steps compare with, unless it is the average of the weights; None for most methods."""
    if settings.method.reference == "landmarks":
        return _landmark_teacher(settings, fabric)
    if settings.method.reference != "initial":
        return None
    if start is None:
        raise ValueError("teacher: the teacher initial is the network that training starts from; name it with --init.")
    initial = load_estimator(start).requires_grad_(False)
    return initial.to(fabric.device).to(memory_format=torch.channels_last)


def _landmark_teacher(settings: TrainSettings, fabric: Fabric) -> LandmarkTeacher:
    """Return BlazePose with its own heads, which takes the same inputs as a network that keeps its first stages."""
    network, first = settings.network, settings.frozen_stages if settings.variants else 0
    if (network.backbone, network.image_size) != ("blazepose", IMAGE_SIZE):
        raise ValueError(
            f"teacher: BlazePose's landmarks need --backbone blazepose at --image-size {IMAGE_SIZE}, got "
            f"{network.backbone} at {network.image_size}."
        )
    if first and settings.weights != "mediapipe" and settings.init is None:
        raise ValueError(f"teacher: BlazePose's landmarks need --weights mediapipe, got {settings.weights}.")
    teacher = LandmarkTeacher().requires_grad_(False).eval()
    return teacher.to(fabric.device).to(memory_format=torch.channels_last)


def _freeze_statistics(network: PoseEstimator, stages: int | None) -> None:
    """Keep the BatchNorm statistics of the first `stages` of the backbone, or of all of them for None."""
    for stage in network.backbone.stages[:stages]:
        stage.eval()


def cache_images(settings: TrainSettings, progress: Progress = NO_PROGRESS) -> None:
    """Compute the frozen stages of a run's images, unless they are cached already."""
    if not settings.variants:
        return
    capture = Capture.open(settings.capture)
    start = None if settings.init is None else Path(settings.init)
    network = _network(settings, start).to(memory_format=torch.channels_last)
    instants = capture.instants(settings.split)
    images_of(settings, network, capture, instants, np.zeros(instants.rows.shape, bool), progress)
    learning_curve(settings, network, capture, progress)


def _average(network: PoseEstimator, decay: float) -> ModelEmaV3:
    """Return a moving average of weights and BatchNorm statistics; young averages forget faster.

    Its decay in step n, counted from 0, is the lesser of `decay` and (n + 1) / (n + 10).
    """
    average = ModelEmaV3(network, decay, use_warmup=True, warmup_gamma=9.0, warmup_power=1.0)
    average.requires_grad_(False)
    return average


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def _checked(fabric: Fabric, out: Path, settings: TrainSettings, capture: Capture, resume: bool) -> str:
    """Call `check_run` in one process for all; where it raises, the others end, too, and leave the words to it."""
    digest, problem = "", ""
    if fabric.is_global_zero:
        try:
            digest = check_run(out, settings, capture, resume)
        except CheckpointError as error:
            problem = str(error)
    digest, problem = fabric.broadcast((digest, problem))
    if problem and not fabric.is_global_zero:
        raise SystemExit(1)
    if problem:
        raise CheckpointError(problem)
    return digest
