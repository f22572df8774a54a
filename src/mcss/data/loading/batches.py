"""Batches: what a training step consumes, made from the images of a capture."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.loading.augmentation import AugmentationSettings, augment, degraded, mirrored_canonical
from mcss.data.loading.device_augmentation import Changes, UnchangedImages, changed, drawn_changes
from mcss.data.loading.pixels import Pixels
from mcss.data.loading.sampling import MetricPlan, PosePlan, generator, metric_batch, pose_batch
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative


@runtime_checkable
class ImageSource(Protocol):
    """Where the images of a batch come from: augmented images, or feature maps that frozen stages computed of them."""

    @property
    def first_stage(self) -> int:
        """The backbone stage that the images are fed to; 0 for images."""

    def images(
        self, rows: Int64[np.ndarray, " n"], rng: np.random.Generator, mirror: Bool[np.ndarray, " n"]
    ) -> Float[Tensor, "n channels side side"] | UnchangedImages:
        """Return network inputs for some rows of the capture; those under `mirror` are mirrored."""


@dataclass(frozen=True, eq=False)
class AugmentedPixels:
    """Images, augmented and normalised."""

    pixels: Pixels
    augmentation: AugmentationSettings
    size: int | None = None
    """Width and height of the network's input; None keeps the size of the pixels."""
    first_stage: int = 0
    on_device: bool = False
    """Leave the augmentation to the device that `Batch.to` moves the images to, for GPUs."""

    def images(
        self, rows: Int64[np.ndarray, " n"], rng: np.random.Generator, mirror: Bool[np.ndarray, " n"]
    ) -> Float[Tensor, "n 3 size size"] | UnchangedImages:
        """Return the images of some rows as the network takes them."""
        pixels = self.pixels.take(rows)
        if not self.on_device:
            return augment(pixels.cpu(), self.augmentation, rng, self.size, mirror)
        if self.augmentation.low_resolution or self.augmentation.compression:
            pixels = degraded(pixels.cpu(), self.augmentation, rng)
        height, width = pixels.shape[-2:]
        changes = drawn_changes(self.augmentation, rng, len(pixels), (height, width), self.size or height, mirror)
        waits = pixels.device.type == "cpu" and torch.cuda.is_available()
        return UnchangedImages(pixels.pin_memory() if waits else pixels, changes)


Extra = tuple[Tensor, ...]
"""What one method alone learns from in a step: a `NamedTuple` of its own, a row per unlabelled image."""


@runtime_checkable
class Extras(Protocol):
    """Makes the `Extra` of any step, for one method."""

    def of(self, instants: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]) -> Extra:
        """Return what belongs to some images, given by the instants and views that they show."""


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step consumes: unlabelled images of several views first, then labelled ones."""

    images: Shaped[Tensor, "images channels _ _"]
    """Network inputs, channels_last: the p views of the first metric instant, of the second …, then the labelled. With
    `changes`, pixels from which `to` makes them."""
    metric_shape: tuple[int, int]
    """Instants k and views p of each; they are the first k·p images. (0, 0) without a metric batch."""
    poses: Float[Tensor, "labelled 17 3"]
    """Target poses of the last images in mm, in the coordinate frame of the source."""
    first_stage: int
    """The backbone stage that the images are fed to; 0 for images."""
    extra: Extra | None = None
    """What the method alone learns from; None for most methods."""
    changes: Changes | None = None
    """How the images are still to be augmented; None if they are."""

    def to(self, device: torch.device) -> "Batch":
        """Return the same batch with its tensors on a device, its images augmented."""
        extra = self.extra
        if extra is not None:
            extra = type(extra)(*(tensor.to(device) for tensor in extra))  # a NamedTuple
        images = self.images.to(device, non_blocking=True)
        if self.changes is not None:
            images = changed(images, self.changes)
        return replace(self, images=images, poses=self.poses.to(device), extra=extra, changes=None)


@dataclass(frozen=True, eq=False)
class Selection:
    """Which images a step sees: those of the metric batch, then the labelled ones."""

    instants: Int64[np.ndarray, " images"]
    """Which instant each image shows."""
    views: Int64[np.ndarray, " images"]
    mirrored: Bool[np.ndarray, " images"]
    """Which images are mirrored, with their poses."""
    metric_shape: tuple[int, int]
    """Instants and views of each; (0, 0) without a metric batch."""
    rng: np.random.Generator
    """Random numbers for the augmentation of these images."""


@dataclass(frozen=True, eq=False)
class BatchSource:
    """Makes the batch of any step: a pure function of the fields and the step."""

    instants: Instants
    images: ImageSource
    seed: int
    metric: MetricPlan | None = None
    """None for training on labels alone."""
    pose: PosePlan | None = None
    """None for training without labels."""
    pose_images: int = 22
    """Labelled images in a batch."""
    mirror: float = 0.0
    """Share of instants shown mirrored, see `AugmentationSettings`."""
    frame: PoseFrame = "canonical"
    """The coordinate frame of the target poses."""
    rotations: Float[Tensor, "n views 3 3"] | None = None
    """World to crop, of every labelled image; needed in camera space alone."""
    extras: Extras | None = None
    """For methods that learn from more than images and 3D labels."""
    workers: int = 1
    """Batches that `prefetched` makes at a time; they do not change what a batch holds."""

    def __post_init__(self) -> None:
        if self.metric is None and self.pose is None:
            raise ValueError("a batch needs a metric plan, a pose plan, or both")
        if self.frame != "canonical" and self.mirror:
            raise ValueError(
                f"mirror: expected 0 with poses in the {self.frame} frame, got {self.mirror:g}; only canonical poses "
                "can be mirrored with their images."
            )
        if self.frame == "camera" and self.pose is not None and self.rotations is None:
            raise ValueError("rotations: poses in camera space need those of the labelled images' cameras, got None.")

    def selection(self, step: int) -> Selection:
        """Return which images the batch of step `step` holds."""
        instants, views, shape = np.empty(0, np.int64), np.empty(0, np.int64), (0, 0)
        if self.metric:
            metric = metric_batch(self.metric, self.seed, step)
            shape = (metric.views.shape[0], metric.views.shape[1])
            instants, views = np.repeat(metric.instants, shape[1]), metric.views.reshape(-1)
        labelled = 0
        if self.pose:
            chosen = pose_batch(self.pose, self.pose_images, self.seed, step)
            labelled = len(chosen.instants)
            instants, views = np.concatenate([instants, chosen.instants]), np.concatenate([views, chosen.views])
        rng = generator(self.seed, "augmentation", step)
        flips = np.repeat(rng.random(shape[0]) < self.mirror, shape[1])  # all views of an instant or none
        mirrored = np.concatenate([flips, rng.random(labelled) < self.mirror])
        return Selection(instants, views, mirrored, shape, rng)

    def batch(self, step: int) -> Batch:
        """Return the batch of step `step`."""
        chosen = self.selection(step)
        instants, views = chosen.instants, chosen.views
        metric, labelled = np.split(np.arange(len(instants)), [chosen.metric_shape[0] * chosen.metric_shape[1]])
        images = self.images.images(self.instants.rows[instants, views], chosen.rng, chosen.mirrored)
        return Batch(
            images=images.pixels if isinstance(images, UnchangedImages) else images,
            changes=images.changes if isinstance(images, UnchangedImages) else None,
            metric_shape=chosen.metric_shape,
            poses=self._poses(instants[labelled], views[labelled], chosen.mirrored[labelled]),
            first_stage=self.images.first_stage,
            extra=None if self.extras is None else self.extras.of(instants[metric], views[metric]),
        )

    def _poses(
        self, instants: Int64[np.ndarray, " b"], views: Int64[np.ndarray, " b"], mirrored: Bool[np.ndarray, " b"]
    ) -> Float[Tensor, "b 17 3"]:
        world = torch.from_numpy(self.instants.pose[instants])
        match self.frame:
            case "camera":
                return world if self.rotations is None else camera_pose(world, self.rotations[instants, views])
            case "world":
                return root_relative(world)
            case "canonical":
                poses = canonical_pose(world)
                return torch.where(torch.from_numpy(mirrored)[:, None, None], mirrored_canonical(poses), poses)


def camera_rotations(
    capture: Capture, instants: Instants, needed: Bool[np.ndarray, "n views"], purpose: str
) -> Float32[Tensor, "n views 3 3"]:
    """Return the rotations from the world to the crops of the images that need one; NaN for the others.

    Args:
        capture: Where the cameras are.
        instants: Instants of the capture.
        needed: Which images need a rotation.
        purpose: What needs them, for the message.

    Raises:
        CaptureError: A camera is unknown.
    """
    rotations = np.full((*instants.rows.shape, 3, 3), np.nan, np.float32)
    rotations[needed] = capture.crop_rotations(instants.rows[needed], purpose)
    return torch.from_numpy(rotations)


@runtime_checkable
class StepBatches(Protocol):
    """Makes the batch of any step."""

    @property
    def workers(self) -> int:
        """Batches that `prefetched` makes at a time."""

    def batch(self, step: int) -> Batch:
        """Return the batch of step `step`."""


def prefetched(source: StepBatches, steps: Iterable[int]) -> Iterator[Batch]:
    """Yield the batches of `steps` in order, preparing the next ones in the background.

    As many are prepared at a time as `source` has workers, and one more waits: decoding and warping leave Python's
    lock to others.
    """
    with ThreadPoolExecutor(source.workers, thread_name_prefix="batches") as background:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in steps:
                waiting.append(background.submit(source.batch, step))
                if len(waiting) > source.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for batch in waiting:
                batch.cancel()
