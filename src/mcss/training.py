"""Training: one loop for every method, readable from top to bottom, resumable at any step bit for bit."""

import copy
import dataclasses
import hashlib
import json
import math
import os
import platform
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

import mcss
from mcss.augmentation import AugmentationSettings, source_size
from mcss.backgrounds import BackgroundCrops
from mcss.batches import AugmentedPixels, BatchSource, DecodedPixels, DrawnPictures, ImageSource, prefetched
from mcss.captures import Capture
from mcss.checkpoints import (
    CHECKPOINT,
    CONFIG,
    METRICS,
    MODEL,
    CheckpointError,
    load_checkpoint,
    load_estimator,
    save_checkpoint,
    save_model,
)
from mcss.evaluation import (
    Evaluation,
    EvaluationSettings,
    evaluate_predictions,
    evaluated_instants,
    predict_split,
)
from mcss.features import cache_stages, default_cache
from mcss.files import write_json
from mcss.instants import Instants
from mcss.keypoints import LABELS, keypoints_of
from mcss.labels import LabelSpec, labelled_pictures
from mcss.memory import keep_freed_memory
from mcss.methods.mcss import MCSSSettings
from mcss.methods.rhodin_eccv18 import NovelViewSettings
from mcss.networks import NetworkConfig, PoseEstimator
from mcss.predict import CachedPredictor, NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress
from mcss.runlog import RunLog, rewind
from mcss.sampling import MetricPlan, MetricSettings, metric_plan, pose_plan
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative
from mcss.systems import (
    COMPARES_VIEWS,
    Method,
    frame_of,
    freezes_encoder,
    losses_of,
    method_name,
    needs_every_rotation,
    needs_initial,
    needs_labels,
    network_fits,
    network_of,
    output_of,
    points_of,
    pose_images_of,
    stages_of,
)

IDLE = ("capture", "checkpoint_every", "log_every")
"""Settings that decide nothing of what a run computes; the capture is told by its fingerprint."""

FIRST_STAGE = "first"
"""The folder within a run in which a method of two stages trains its first one."""

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
    """Start of the trunk: imagenet, random, a file, or the folder of another run, whose trunk is taken."""
    init: str | None = None
    """A run folder whose whole network is the start instead. A method of two stages then goes on from it with its
    second stage; else it trains the first one itself, in the folder ``first`` of its run."""
    frozen_stages: int = 0
    """First stages of the trunk that keep their weights (and BatchNorm statistics)."""
    frozen_statistics: bool = False
    """Keep the BatchNorm statistics of the whole trunk as they came with its weights. A batch of one subject then does
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
    """Steps between checkpoints."""
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
                "rotation, mirror: 2D joints are not turned or mirrored with their picture; set both to 0 "
                f"(they are {self.augmentation.rotation:g} and {self.augmentation.mirror:g})."
            )
        if frame_of(self.method) == "world" and self.augmentation.mirror:
            raise ValueError("mirror: not with poses in the world's frame, where a mirror has no place; set it to 0.")
        if self.variants and self.augmentation.mirror:
            raise ValueError("mirror: not with variants > 0, whose maps are shared by plain and mirrored labels.")
        if frame_of(self.method) == "camera" and (self.augmentation.rotation or self.augmentation.mirror):
            raise ValueError(
                f"rotation, mirror: a turned or mirrored picture shows another pose in camera space, where "
                f"{method_name(self.method)} predicts; set both to 0 (they are {self.augmentation.rotation:g} and "
                f"{self.augmentation.mirror:g})."
            )


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
        out: The run folder, see `mcss.checkpoints`.
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

    # What a capture may lack is found before any long work.
    instants = capture.instants(settings.split)
    views = settings.label_views or None
    pictures = labelled_pictures(instants, LabelSpec.parse(settings.labels), views)
    if needs_labels(settings.method) and not pictures.any():
        raise ValueError(
            f"labels: {method_name(settings.method)} cannot learn without labels, and {settings.labels!r} gives none; "
            "name a subject, or train mcss."
        )
    rotations = _rotations(settings.method, capture, instants, pictures)
    metric = _metric_plan(settings.method, instants)
    drawn = _drawn(settings, capture, instants, progress)
    points = _points(settings.method, capture, instants)

    start = None if settings.init is None else Path(settings.init)
    if first is not None:
        start = out / FIRST_STAGE
        if not (start / MODEL).exists():
            _train(fabric, first, start, (start / CONFIG).exists(), progress)
        fabric.barrier()
    torch.manual_seed(settings.seed)
    network = _network(settings, start)
    if pictures.any():
        network.set_pose_statistics(_labelled_poses(network.frame, instants, pictures, rotations))
    network = network.to(fabric.device).to(memory_format=torch.channels_last)
    with fabric.rank_zero_first():  # who computes the maps of frozen stages; the others then find them
        images = _images(settings, network, capture, instants, pictures, progress)
    source = _source(settings, instants, metric, pictures, images, rotations, drawn, points)
    validate = _validation(settings, network, capture, progress) if fabric.is_global_zero else None
    initial = _initial(settings.method, start, fabric)
    _fit(settings, out, digest, fabric, network, initial, source, validate, resume, progress)


def stages(settings: TrainSettings) -> tuple[TrainSettings | None, TrainSettings]:
    """The run that comes first, if the method has two stages and no ``init`` brings the first; and the run itself.

    Together they take the steps that were asked for. The first is a run like any other: it may be evaluated, and be the
    ``init`` of several others.
    """
    two = None if settings.init is not None else stages_of(settings.method)
    if two is None:
        return None, settings
    method, share = two
    steps = settings.optimiser.steps
    before = max(1, round(share * steps))
    if before >= steps:
        raise ValueError(f"steps: {method_name(settings.method)} has two stages and needs 2 or more, got {steps}.")
    labels = settings.labels if needs_labels(method) else "none"
    return (
        replace(settings, method=method, labels=labels, optimiser=replace(settings.optimiser, steps=before)),
        replace(settings, optimiser=replace(settings.optimiser, steps=steps - before)),
    )


def _fit(
    settings: TrainSettings,
    out: Path,
    digest: str,
    fabric: Fabric,
    network: PoseEstimator,
    initial: PoseEstimator | None,
    source: BatchSource,
    validate: "_Validation | None",
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
    if resume and (out / CHECKPOINT).exists():
        start = load_checkpoint(out / CHECKPOINT, network, average, optimiser, digest)
        seen = rewind(out / METRICS, start)
    model, optimiser = fabric.setup(network, optimiser)
    evaluated = average or network
    log = RunLog(out / METRICS, *seen, writes=fabric.is_global_zero)

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
            log.count(len(batch.images) * world)
            task.advance()
            if done % settings.log_every == 0 or last:
                if not math.isfinite(float(losses.total.detach())):
                    raise FloatingPointError(
                        f"step {done}: the loss is {float(losses.total.detach())}. Lower --lr (now {schedule.lr:g}), "
                        f"or resume from the checkpoint in {out} with another --precision."
                    )
                task.note(log.training(done, losses, schedule.rate(step)))
            if validate is not None and (done % settings.validate_every == 0 or last):
                log.validation(done, validate(evaluated), with_pose=source.pose is not None)
            if (done % settings.checkpoint_every == 0 or last) and fabric.is_global_zero:
                save_checkpoint(out / CHECKPOINT, done, network, average, optimiser, digest)
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
                "Leave --trunk away: the network of that run is gone on with."
            )
        if not network_fits(settings.method, network):
            raise CheckpointError(
                f"--init {start}: a {type(network).__name__} whose poses are {network.frame}; "
                f"{method_name(settings.method)} trains another kind, whose poses are {frame_of(settings.method)}. "
                "Start from a run of the same method, or leave --init away."
            )
    if settings.frozen_stages > len(network.trunk.stages):
        raise ValueError(
            f"frozen_stages: {settings.network.trunk} has {len(network.trunk.stages)} stages, "
            f"got {settings.frozen_stages}."
        )
    for stage in network.trunk.stages[: settings.frozen_stages]:
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


def _rotations(method: Method, capture: Capture, instants: Instants, pictures: np.ndarray) -> Tensor | None:
    """World to camera, of the pictures whose rotation the method needs; NaN for the others.

    Raises:
        CaptureError: It is unknown.
    """
    if frame_of(method) != "camera":
        return None
    needed = (instants.rows >= 0) if needs_every_rotation(method) else pictures
    rotations = np.full((*instants.rows.shape, 3, 3), np.nan, np.float32)
    rotations[needed] = capture.rotations(instants.rows[needed], method_name(method))
    return torch.from_numpy(rotations)


def _labelled_poses(frame: PoseFrame, instants: Instants, pictures: np.ndarray, rotations: Tensor | None) -> Tensor:
    """The poses that the statistics are taken of: one of each labelled instant, or in camera space of each picture."""
    if frame != "camera":
        poses = torch.from_numpy(instants.pose[pictures.any(axis=1)])
        return canonical_pose(poses) if frame == "canonical" else root_relative(poses)
    assert rotations is not None
    return camera_pose(torch.from_numpy(instants.pose[np.nonzero(pictures)[0]]), rotations[torch.from_numpy(pictures)])


def _freeze_statistics(network: PoseEstimator, stages: int | None) -> None:
    """Keep the BatchNorm statistics of the first `stages` of the trunk, or of all of them for None."""
    for stage in network.trunk.stages[:stages]:
        stage.eval()


def _images(
    settings: TrainSettings,
    network: PoseEstimator,
    capture: Capture,
    instants: Instants,
    labelled: np.ndarray,
    progress: Progress,
) -> ImageSource:
    size = settings.network.image_size
    if settings.variants:
        # All pictures of the split, labelled or not: runs of every method and seed then share the same file.
        return cache_stages(
            network.trunk.eval(), settings.frozen_stages, capture, instants.rows, size,
            settings.augmentation, settings.variants, default_cache(), progress,
        )  # fmt: skip
    rows = instants.rows if isinstance(settings.method, COMPARES_VIEWS) else np.where(labelled, instants.rows, -1)
    pixels = DecodedPixels.decode(capture, rows, source_size(capture.info.image_size, size), progress=progress)
    return AugmentedPixels(pixels, settings.augmentation, size)


def _source(
    settings: TrainSettings,
    instants: Instants,
    metric: MetricPlan | None,
    pictures: np.ndarray,
    images: ImageSource,
    rotations: Tensor | None,
    drawn: DrawnPictures | None,
    points: Tensor | None,
) -> BatchSource:
    method = settings.method
    labelled = pose_images_of(method)
    return BatchSource(
        instants=instants,
        images=images,
        seed=settings.seed,
        metric=metric,
        pose=pose_plan(pictures) if labelled and pictures.any() else None,
        pose_pictures=labelled,
        frame=frame_of(method),
        rotations=rotations,
        drawn=drawn,
        points=points,
    )


def _drawn(settings: TrainSettings, capture: Capture, instants: Instants, progress: Progress) -> DrawnPictures | None:
    """What a decoder is to draw, for methods that have one.

    Raises:
        CaptureError: The capture lacks backgrounds.
    """
    if not isinstance(settings.method, NovelViewSettings):
        return None
    size = settings.method.synthesis.picture_size
    backgrounds = BackgroundCrops.read(capture, instants, size, method_name(settings.method))
    return DrawnPictures(DecodedPixels.decode(capture, instants.rows, size, progress=progress), backgrounds)


def _points(method: Method, capture: Capture, instants: Instants) -> Tensor | None:
    """Normalised 2D joints of all pictures, for methods that learn from them; the second stage of one does not.

    Raises:
        ValueError: They cannot be had.
    """
    source = None if freezes_encoder(method) else points_of(method)
    return None if source is None else torch.from_numpy(keypoints_of(capture, instants, source, method_name(method)))


def _metric_plan(method: Method, instants: Instants) -> MetricPlan | None:
    if not isinstance(method, COMPARES_VIEWS):
        return None
    return metric_plan(instants, MetricSettings(method.instants, method.views, method.min_gap))


def cache_images(settings: TrainSettings, progress: Progress = NO_PROGRESS) -> None:
    """Compute what the frozen stages make of the pictures of a run, unless it is known already."""
    if not settings.variants:
        return
    capture = Capture.open(settings.capture)
    start = None if settings.init is None else Path(settings.init)
    network = _network(settings, start).to(memory_format=torch.channels_last)
    instants = capture.instants(settings.split)
    _images(settings, network, capture, instants, np.zeros(instants.rows.shape, bool), progress)
    _validation(settings, network, capture, progress)


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


@dataclass(frozen=True, eq=False)
class _Validation:
    """A point of the learning curve: the evaluation of some instants of the validation split."""

    predict: NetworkPredictor | CachedPredictor
    capture: Capture
    split: str
    settings: EvaluationSettings

    def __call__(self, network: PoseEstimator) -> Evaluation:
        predict = dataclasses.replace(self.predict, network=network)
        found = predict_split(predict, self.capture, self.split, self.settings)
        return evaluate_predictions(found, self.capture.fingerprint, self.split, self.settings)


def _validation(
    settings: TrainSettings, network: PoseEstimator, capture: Capture, progress: Progress
) -> _Validation | None:
    split = settings.validation
    if split is None or split not in capture.splits:
        return None
    evaluation = EvaluationSettings(
        max_instants=settings.validation_instants, max_queries=300, max_gallery=4 * settings.validation_instants
    )
    if network.frame == "camera":  # says so now, not at the first point of the curve
        rows = evaluated_instants(capture, split, evaluation).rows
        capture.rotations(rows[rows >= 0], f"scoring the split {split!r} in camera space")
    predict: NetworkPredictor | CachedPredictor = NetworkPredictor(network, capture)
    if settings.variants:
        rows = evaluated_instants(capture, split, evaluation).rows
        size, stages = settings.network.image_size, settings.frozen_stages
        folder = default_cache()
        maps = cache_stages(network.trunk.eval(), stages, capture, rows, size, None, 1, folder, progress)
        predict = CachedPredictor(network, maps)
    return _Validation(predict, capture, split, evaluation)


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


def begin_run(out: Path, settings: TrainSettings, capture: Capture, resume: bool) -> str:
    """Write ``config.json``, or check that it is this run's; returns the digest that ties a checkpoint to its run.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or one with other settings.
    """
    plain = {
        **asdict(settings),
        "method_name": method_name(settings.method),
        "capture_fingerprint": capture.fingerprint,
    }
    if listed := LabelSpec.parse(settings.labels).listed:  # the file may change while a run is stopped
        plain["label_instants"] = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    if (source := points_of(settings.method)) not in (None, LABELS) and Path(str(source)).is_file():
        plain["points_file"] = hashlib.sha256(Path(str(source)).read_bytes()).hexdigest()
    decisive = {key: value for key, value in plain.items() if key not in IDLE}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    path = out / CONFIG
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if not resume:
            raise CheckpointError(f"{out}: holds a run already. Add --resume to go on with it, or give another --out.")
        then, now = _with_later_settings(known, settings), json.loads(json.dumps(decisive))
        if other := sorted(key for key in now if then.get(key) != now[key]):
            raise CheckpointError(
                f"{out}: that run has other settings ({', '.join(other)}); see {path}. "
                "Resume with the same command, or give another --out."
            )
        return str(known["digest"])
    versions = {"mcss": mcss.__version__, "torch": torch.__version__, "python": platform.python_version()}
    write_json(path, {**plain, "digest": digest, "versions": versions, "machine": describe_machine()})
    return digest


def _with_later_settings(known: dict[str, Any], settings: Any) -> dict[str, Any]:
    """The settings of an older mcss, with those that came since at their defaults, as it was without them."""
    filled = dict(known)
    for field_ in fields(settings):
        name, value = field_.name, getattr(settings, field_.name)
        if name in filled and is_dataclass(value) and isinstance(filled[name], dict):
            filled[name] = _with_later_settings(filled[name], value)
        elif name not in filled and field_.default is not MISSING:
            filled[name] = json.loads(json.dumps(field_.default))
    return filled


def describe_machine() -> str:
    """Processors and accelerator, in a line for reports."""
    cores = os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()} {platform.machine()}, {cores} cores, {gpu}"
