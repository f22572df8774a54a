"""From the images of a capture to what a training step consumes."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, UInt8
from torch import Tensor

from mcss.data.augmentation import AugmentationSettings, augment, mirrored_canonical, normalise
from mcss.data.backgrounds import BackgroundCrops
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.sampling import MetricPlan, PosePlan, generator, metric_batch, pose_batch
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative

_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class DecodedPixels:
    """Decoded images of a capture in memory."""

    pixels: UInt8[Tensor, "n 3 size size"]
    """RGB, in the channels_last memory format."""
    place: Int64[np.ndarray, " rows"]
    """Where each row of the capture stands in `pixels`; -1 if it was not decoded."""

    @classmethod
    def decode(
        cls,
        capture: Capture,
        rows: Int[np.ndarray, "..."],
        size: int | None = None,
        budget_gb: float = 4.0,
        threads: int = 2,
        progress: Progress = NO_PROGRESS,
    ) -> "DecodedPixels":
        """Decode some rows, each once.

        Args:
            capture: Where the images are.
            rows: Row numbers such as `Instants.rows`; -1 (a missing view) is passed over.
            size: Width and height to scale to; None for those of the capture.
            budget_gb: Most memory (10⁹ bytes) that the images may take.
            threads: Images decoded at a time.
            progress: Told of every image.

        Raises:
            ValueError: The images need more memory than the budget.
            CaptureError: A broken image, by name.
        """
        size = size or capture.info.image_size
        rows = np.unique(rows[rows >= 0])
        need = len(rows) * 3 * size * size / 1e9
        if need > budget_gb:
            fits = int((budget_gb * 1e9 / max(len(rows), 1) / 3) ** 0.5) // 16 * 16
            raise ValueError(
                f"memory: {len(rows):,} images of {size}×{size} pixels need {need:.1f} GB, the budget is "
                f"{budget_gb:g} GB; raise the budget, decode each batch anew (StreamedPixels)"
                + (f", or choose a size of at most {fits}" if fits else "")
            )
        pixels = torch.empty((len(rows), size, size, 3), dtype=torch.uint8)
        with progress.task("Decoding images", len(rows)) as task:
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                pixels[start : start + len(chunk)] = torch.from_numpy(capture.decode(chunk, size, threads))
                task.advance(len(chunk))
        place = np.full(len(capture), -1, np.int64)
        place[rows] = np.arange(len(rows))
        return cls(pixels=pixels.permute(0, 3, 1, 2), place=place)

    def take(self, rows: Int[np.ndarray, " n"]) -> UInt8[Tensor, "n 3 size size"]:
        """The images of some rows of the capture.

        Raises:
            ValueError: A row that was not decoded.
        """
        places = self.place[rows]
        if (rows < 0).any() or (places < 0).any():
            absent = int(rows[(rows < 0) | (places < 0)][0])
            raise ValueError(f"row {absent} of the capture was not decoded; decode all rows that are used")
        # As numpy, colours last as they lie in memory: twenty times as fast as indexing the tensor.
        return torch.from_numpy(self.pixels.permute(0, 2, 3, 1).numpy()[places]).permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class StreamedPixels:
    """Images of a capture that are read and decoded whenever they are asked for: for what memory cannot hold."""

    capture: Capture
    size: int | None = None
    threads: int = 2

    def take(self, rows: Int[np.ndarray, " n"]) -> UInt8[Tensor, "n 3 size size"]:
        """The images of some rows of the capture."""
        return torch.from_numpy(self.capture.decode(rows, self.size, self.threads)).permute(0, 3, 1, 2)


@runtime_checkable
class ImageSource(Protocol):
    """Where the images of a batch come from: augmented images, or maps that frozen stages made of them."""

    @property
    def first_stage(self) -> int:
        """The stage of the backbone that the images are fed to; 0 for images."""

    def images(
        self, rows: Int[np.ndarray, " n"], rng: np.random.Generator, mirror: Bool[np.ndarray, " n"]
    ) -> Float[Tensor, "n channels side side"]:
        """Network inputs for some rows of the capture; those under `mirror` as in a mirror."""


@dataclass(frozen=True, eq=False)
class AugmentedPixels:
    """Images, randomly changed and normalised."""

    pixels: DecodedPixels | StreamedPixels
    augmentation: AugmentationSettings
    size: int | None = None
    """Width and height of the images; None for that of the pixels."""
    first_stage: int = 0

    def images(
        self, rows: Int[np.ndarray, " n"], rng: np.random.Generator, mirror: Bool[np.ndarray, " n"]
    ) -> Float[Tensor, "n 3 size size"]:
        """The images of some rows as the network takes them."""
        return augment(self.pixels.take(rows), self.augmentation, rng, self.size, mirror)


@dataclass(frozen=True, eq=False)
class Batch:
    """What one training step consumes: metric images first, then labelled ones."""

    images: Float[Tensor, "images channels size size"]
    """Network inputs, channels_last: the p views of the first metric instant, of the second …, then the labelled."""
    metric_shape: tuple[int, int]
    """Instants k and views p of each; the first k·p images. (0, 0) without a metric batch."""
    instants: Int64[np.ndarray, " images"]
    """Which instant each image shows."""
    views: Int64[np.ndarray, " images"]
    mirrored: Bool[np.ndarray, " images"]
    """Which images were mirrored."""
    poses: Float[Tensor, "labelled 17 3"]
    """Targets of the last images in mm: poses in the source's frame (of the mirrored person where mirrored)."""

    first_stage: int
    """The stage of the backbone that the images are fed to; 0 for images."""
    rotations: Float[Tensor, "images 3 3"] | None = None
    """World to camera, of every image; NaN where unknown. None for methods that know no cameras."""
    unchanged: Float[Tensor, "drawn 3 side side"] | None = None
    """The metric images without augmentation, normalised: what a decoder is to draw. None where nothing is drawn."""
    backgrounds: Float[Tensor, "drawn 3 side side"] | None = None
    """What stands behind the person in each of them, normalised."""

    points: Float[Tensor, "images 17 2"] | None = None
    """Normalised 2D joints of every image (see `mcss.data.keypoints`); NaN where unknown. None for methods without."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on a device."""
        return replace(
            self,
            images=self.images.to(device),
            poses=self.poses.to(device),
            rotations=None if self.rotations is None else self.rotations.to(device),
            unchanged=None if self.unchanged is None else self.unchanged.to(device),
            backgrounds=None if self.backgrounds is None else self.backgrounds.to(device),
            points=None if self.points is None else self.points.to(device),
        )


@dataclass(frozen=True, eq=False)
class DrawnImages:
    """What a decoder is to draw, and what it is told of the scene."""

    pixels: DecodedPixels | StreamedPixels
    backgrounds: BackgroundCrops


@dataclass(frozen=True, eq=False)
class BatchSource:
    """Makes the batch of any step: a pure function of what it is given here and the step."""

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
    """Share of instants shown as in a mirror, see `AugmentationSettings`."""
    targets: Float[Tensor, "n 17 3"] | None = None
    """What the pose of each instant is to be in mm; None for the pose in `frame`."""
    frame: PoseFrame = "canonical"
    """What the poses are turned to."""
    rotations: Float[Tensor, "n views 3 3"] | None = None
    """World to camera, of every image that needs one; NaN for others."""
    drawn: DrawnImages | None = None
    """For methods that draw the metric images."""
    points: Float[Tensor, "n views 17 2"] | None = None
    """Normalised 2D joints of every image, for methods that learn from them; NaN where unknown."""

    def __post_init__(self) -> None:
        if self.metric is None and self.pose is None:
            raise ValueError("a batch needs a metric plan, a pose plan, or both")
        if (self.targets is not None or self.frame != "canonical") and self.mirror:
            raise ValueError(
                "mirror: only canonical poses can be mirrored with their images; set it to 0 with other targets"
            )
        if self.frame == "camera" and self.rotations is None:
            raise ValueError("rotations: poses in camera space need those of the cameras; give them, see rotations")

    def batch(self, step: int) -> Batch:
        """The batch of step `step`."""
        instants, views, shape = np.empty(0, np.int64), np.empty(0, np.int64), (0, 0)
        if self.metric:
            drawn = metric_batch(self.metric, self.seed, step)
            shape = (drawn.views.shape[0], drawn.views.shape[1])
            instants, views = np.repeat(drawn.instants, shape[1]), drawn.views.reshape(-1)
        labelled = np.empty(0, np.int64)
        if self.pose:
            chosen = pose_batch(self.pose, self.pose_images, self.seed, step)
            labelled = chosen.instants
            instants, views = np.concatenate([instants, labelled]), np.concatenate([views, chosen.views])
        rng = generator(self.seed, "augmentation", step)
        scene, count, rows = self.drawn, len(instants) - len(labelled), self.instants.rows[instants, views]
        share = self.mirror
        flips = np.repeat(rng.random(shape[0]) < share, shape[1])  # all views of an instant or none
        mirror = np.concatenate([flips, rng.random(len(labelled)) < share])
        return Batch(
            images=self.images.images(rows, rng, mirror),
            metric_shape=shape,
            instants=instants,
            views=views,
            mirrored=mirror,
            poses=self._poses(labelled, views[len(flips) :], mirror[len(flips) :]),
            first_stage=self.images.first_stage,
            rotations=None if self.rotations is None else self.rotations[instants, views],
            unchanged=None if scene is None else normalise(scene.pixels.take(rows[:count])),
            backgrounds=None if scene is None else normalise(scene.backgrounds.take(instants[:count], views[:count])),
            points=None if self.points is None else self.points[instants, views],
        )

    def _poses(
        self, labelled: Int64[np.ndarray, " b"], views: Int64[np.ndarray, " b"], mirror: Bool[np.ndarray, " b"]
    ) -> Float[Tensor, "b 17 3"]:
        if self.targets is not None:
            return self.targets[torch.from_numpy(labelled)]
        world = torch.from_numpy(self.instants.pose[labelled])
        if self.frame == "camera":
            assert self.rotations is not None
            return camera_pose(world, self.rotations[labelled, views])
        if self.frame == "world":
            return root_relative(world)
        poses = canonical_pose(world)
        return torch.where(torch.from_numpy(mirror)[:, None, None], mirrored_canonical(poses), poses)


def prefetched(source: BatchSource, steps: Iterable[int]) -> Iterator[Batch]:
    """The batches of `steps` in order; one is made in the background while another is used."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as background:
        waiting: deque[Future[Batch]] = deque()
        for step in steps:
            waiting.append(background.submit(source.batch, step))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
