"""What a run trains on: the batches of its capture, with all that its method asks of them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from mcss.data.augmentation import source_size
from mcss.data.backgrounds import BackgroundCrops
from mcss.data.batches import AugmentedPixels, BatchSource, DecodedPixels, DrawnImages, ImageSource
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.keypoints import keypoints_of
from mcss.data.labels import LabelSpec, labelled_images
from mcss.data.sampling import MetricPlan, MetricSettings, metric_plan, pose_plan
from mcss.methods.method import (
    COMPARES_VIEWS,
    Method,
    frame_of,
    freezes_encoder,
    method_name,
    needs_every_rotation,
    needs_labels,
    points_of,
    pose_images_of,
)
from mcss.methods.rhodin_eccv18 import NovelViewSettings
from mcss.models.pose_network import PoseEstimator
from mcss.progress import Progress
from mcss.skeletons import PoseFrame, camera_pose, canonical_pose, root_relative
from mcss.training.feature_cache import cache_stages, default_cache
from mcss.training.settings import TrainSettings


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The instants of a run, and what its method asks to know of them beside their images."""

    instants: Instants
    labelled: Bool[np.ndarray, "instants views"]
    """Images whose pose is used."""
    metric: MetricPlan | None
    """How views are compared; None for methods that do not."""
    rotations: Float32[Tensor, "instants views 3 3"] | None
    """World to camera, NaN where it is not needed; None for methods whose poses are not in camera space."""
    drawn: DrawnImages | None
    """What a decoder is to draw; None without one."""
    points: Float32[Tensor, "instants views 17 2"] | None
    """Normalised 2D joints; None for methods that do not learn from them."""

    @classmethod
    def read(cls, settings: TrainSettings, capture: Capture, progress: Progress) -> "TrainingData":
        """Of the split that is trained on; what the capture lacks is found here, before any long work.

        Raises:
            CaptureError: It lacks a split, cameras or backgrounds that the method needs.
            ValueError: Labels, batch sizes or 2D joints that it does not allow.
        """
        method = settings.method
        instants = capture.instants(settings.split)
        labelled = labelled_images(instants, LabelSpec.parse(settings.labels), settings.label_views or None)
        if needs_labels(method) and not labelled.any():
            raise ValueError(
                f"labels: {method_name(method)} cannot learn without labels, and {settings.labels!r} gives none; "
                "name a subject, or train mcss."
            )
        return cls(
            instants=instants,
            labelled=labelled,
            rotations=_rotations(method, capture, instants, labelled),
            metric=_metric_plan(method, instants),
            drawn=_drawn(method, capture, instants, progress),
            points=_points(method, capture, instants),
        )

    def labelled_poses(self, frame: PoseFrame) -> Float32[Tensor, "poses 17 3"]:
        """What the statistics of poses are taken of: each labelled instant once, or in camera space each image."""
        if frame != "camera":
            poses = torch.from_numpy(self.instants.pose[self.labelled.any(axis=1)])
            return canonical_pose(poses) if frame == "canonical" else root_relative(poses)
        assert self.rotations is not None
        poses = torch.from_numpy(self.instants.pose[np.nonzero(self.labelled)[0]])
        return camera_pose(poses, self.rotations[torch.from_numpy(self.labelled)])

    def source(self, settings: TrainSettings, images: ImageSource) -> BatchSource:
        """The batches of a run."""
        count = pose_images_of(settings.method)
        return BatchSource(
            instants=self.instants,
            images=images,
            seed=settings.seed,
            metric=self.metric,
            pose=pose_plan(self.labelled) if count and self.labelled.any() else None,
            pose_images=count,
            frame=frame_of(settings.method),
            rotations=self.rotations,
            drawn=self.drawn,
            points=self.points,
        )


def images_of(
    settings: TrainSettings,
    network: PoseEstimator,
    capture: Capture,
    instants: Instants,
    labelled: Bool[np.ndarray, "instants views"],
    progress: Progress,
) -> ImageSource:
    """The images as the network takes them: augmented anew at every step, or maps of its frozen stages.

    Args:
        settings: Of the run.
        network: Whose frozen stages are computed.
        capture: Where the images are.
        instants: Of the split.
        labelled: Images with a label; methods that do not compare views read no others.
        progress: Told of reading and computing.
    """
    size = settings.network.image_size
    if settings.variants:
        # All images of the split, labelled or not: runs of every method and seed then share the same file.
        return cache_stages(
            network.backbone.eval(), settings.frozen_stages, capture, instants.rows, size,
            settings.augmentation, settings.variants, default_cache(), progress,
        )  # fmt: skip
    rows = instants.rows if isinstance(settings.method, COMPARES_VIEWS) else np.where(labelled, instants.rows, -1)
    pixels = DecodedPixels.decode(capture, rows, source_size(capture.info.image_size, size), progress=progress)
    return AugmentedPixels(pixels, settings.augmentation, size)


def _rotations(method: Method, capture: Capture, instants: Instants, labelled: np.ndarray) -> Tensor | None:
    if frame_of(method) != "camera":
        return None
    needed = (instants.rows >= 0) if needs_every_rotation(method) else labelled
    rotations = np.full((*instants.rows.shape, 3, 3), np.nan, np.float32)
    rotations[needed] = capture.rotations(instants.rows[needed], method_name(method))
    return torch.from_numpy(rotations)


def _drawn(method: Method, capture: Capture, instants: Instants, progress: Progress) -> DrawnImages | None:
    if not isinstance(method, NovelViewSettings):
        return None
    size = method.synthesis.drawn_size
    backgrounds = BackgroundCrops.read(capture, instants, size, method_name(method))
    return DrawnImages(DecodedPixels.decode(capture, instants.rows, size, progress=progress), backgrounds)


def _points(method: Method, capture: Capture, instants: Instants) -> Tensor | None:
    # The second stage of a method that learns from 2D joints does not.
    source = None if freezes_encoder(method) else points_of(method)
    return None if source is None else torch.from_numpy(keypoints_of(capture, instants, source, method_name(method)))


def _metric_plan(method: Method, instants: Instants) -> MetricPlan | None:
    if not isinstance(method, COMPARES_VIEWS):
        return None
    return metric_plan(instants, MetricSettings(method.instants, method.views, method.min_gap))
