"""What a run trains on: the batches of its capture, with everything that its method needs."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants, ends_of_sequences, evenly_spread
from mcss.data.labels import Labels, labelled_images, with_label_poses
from mcss.data.loading.augmentation import source_size
from mcss.data.loading.batches import AugmentedPixels, BatchSource, Extras, ImageSource, camera_rotations
from mcss.data.loading.decoding import ProcessorDecoder, decoder_for
from mcss.data.loading.pixels import StreamedPixels, pixels_of
from mcss.data.loading.sampling import MetricPlan, metric_plan, pose_plan
from mcss.models.pose_network import PoseEstimator
from mcss.processes import processors
from mcss.progress import Progress, say
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative
from mcss.training.feature_cache import FrozenStages, cache_stages
from mcss.training.settings import TrainSettings

MOST_WORKERS = 16
"""Batches that are made at a time for a GPU, at most; a batch of 88 images at 256 px takes 17 MB."""


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The instants of a run, and what its method needs to know about them besides their images."""

    instants: Instants
    labelled: Bool[np.ndarray, "instants views"]
    """Images whose pose is used."""
    metric: MetricPlan | None
    """How several views are sampled; None for methods that see labelled images alone."""
    rotations: Float32[Tensor, "instants views 3 3"] | None
    """World to crop, NaN for images without labels; None for methods whose poses are not in camera space."""
    extras: Extras | None
    """What the method alone learns from."""

    @classmethod
    def read(
        cls, settings: TrainSettings, capture: Capture, progress: Progress, few: bool = False, devices: int = 1
    ) -> "TrainingData":
        """Read the split that is trained on.

        Args:
            settings: The run's settings.
            capture: Where the images are.
            progress: Notified of reading.
            few: Read what the method alone learns from (`extras`) for a few instants of each sequence, to find out
                whether the capture has it; such data cannot be trained on.
            devices: Devices that train together.

        Raises:
            CaptureError: The capture lacks a split, or cameras or backgrounds that the method needs.
            ValueError: The capture does not allow the labels, batch sizes or 2D joints.
        """
        method = settings.method
        instants = capture.instants(settings.split)
        labels = Labels.parse(settings.labels)
        instants = with_label_poses(instants, labels)
        labelled = labelled_images(instants, labels, settings.label_views or None)
        if settings.hold_out:  # with the labels that lie there
            trained = ~ends_of_sequences(instants, settings.hold_out)
            instants, labelled = instants.take(trained), labelled[trained]
        if method.needs_labels and not labelled.any():
            raise ValueError(
                f"labels: {method.name} cannot learn without labels, and {settings.labels!r} gives none; "
                "name a subject, or train mcss."
            )
        in_cameras, views = method.frame == "camera", method.multi_view
        return cls(
            instants=instants,
            labelled=labelled,
            metric=None if views is None else metric_plan(instants, views, devices if method.gathers else 1),
            extras=method.extras(capture, _few_of_each_sequence(instants) if few else instants, progress),
            rotations=camera_rotations(capture, instants, labelled, method.name) if in_cameras else None,
        )

    def labelled_poses(self, frame: PoseFrame) -> Float32[Tensor, "poses 17 3"]:
        """Return the poses whose statistics normalise targets: one per labelled instant, or image in camera space."""
        if frame != "camera":
            poses = torch.from_numpy(self.instants.pose[self.labelled.any(axis=1)])
            return canonical_pose(poses) if frame == "canonical" else root_relative(poses)
        assert self.rotations is not None
        poses = torch.from_numpy(self.instants.pose[np.nonzero(self.labelled)[0]])
        return camera_pose(poses, self.rotations[torch.from_numpy(self.labelled)])

    def source(self, settings: TrainSettings, images: ImageSource) -> BatchSource:
        """Return the batches of a run."""
        method = settings.method
        return BatchSource(
            instants=self.instants,
            images=images,
            seed=settings.seed,
            metric=self.metric,
            pose=pose_plan(self.labelled) if method.pose_images and self.labelled.any() else None,
            pose_images=method.pose_images,
            mirror=settings.augmentation.mirror,
            frame=method.frame,
            rotations=self.rotations,
            extras=self.extras,
            workers=_workers(images),
        )


def _few_of_each_sequence(instants: Instants) -> Instants:
    """Return at most four instants of each sequence, evenly spread."""
    chosen: list[int] = []
    for own in instants.of_each_sequence():
        chosen += own[evenly_spread(len(own), 4)].tolist()
    return instants.take(np.array(sorted(chosen), np.int64))


def images_of(
    settings: TrainSettings,
    network: PoseEstimator,
    capture: Capture,
    instants: Instants,
    labelled: Bool[np.ndarray, "instants views"],
    progress: Progress,
) -> ImageSource:
    """Return the network's inputs: images augmented anew at every step, or feature maps of its frozen stages.

    Args:
        settings: The run's settings.
        network: The network whose frozen stages are computed.
        capture: Where the images are.
        instants: The instants of the split.
        labelled: Images with a label; methods that do not compare views read no others.
        progress: Notified of reading and computing.
    """
    size = settings.network.image_size
    if settings.variants:
        # All images of the split, labelled or not: runs of every method and seed then share the same file.
        frozen = FrozenStages(settings.frozen_stages, size, settings.augmentation, settings.variants)
        return cache_stages(network.backbone.eval(), frozen, capture, instants.rows, progress=progress)
    rows = instants.rows if settings.method.multi_view is not None else np.where(labelled, instants.rows, -1)
    if capture.info.image_size < size:
        say(
            progress,
            f"The images of {capture.uri} are {capture.info.image_size} pixels wide and the network takes {size}: they "
            f"are enlarged. Import the footage with --size {size} or more, or train with --image-size "
            f"{capture.info.image_size}.",
        )
    device, source = next(network.parameters()).device, source_size(capture.info.image_size, size)
    on_device, decoder = device.type == "cuda", decoder_for(capture, source, device)
    pixels = pixels_of(capture, rows, source, decoder, progress)
    if on_device and isinstance(pixels, StreamedPixels) and isinstance(decoder, ProcessorDecoder):
        # A worker for each of several batches instead, see `_workers`.
        pixels = replace(pixels, decoder=replace(decoder, threads=1))
    return AugmentedPixels(pixels, settings.augmentation, size, on_device=on_device)


def _workers(images: ImageSource) -> int:
    """Return how many batches to make at a time: one beside a CPU, which has the network to compute, else several."""
    if not (isinstance(images, AugmentedPixels) and images.on_device):
        return 1
    return max(2, min(MOST_WORKERS, processors() // max(1, torch.cuda.device_count())))
