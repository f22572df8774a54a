"""Captures that are trained on beside the main one, with labels of their own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mcss.data.capture import Capture
from mcss.data.loading.batches import AugmentedPixels, BatchSource, ImageSource
from mcss.data.loading.joined_batches import JoinedBatches
from mcss.models.pose_network import PoseEstimator
from mcss.progress import Progress
from mcss.training.data import TrainingData, images_of
from mcss.training.settings import TrainSettings


@dataclass(frozen=True, eq=False)
class Beside:
    """A capture that is trained on beside the main one."""

    settings: TrainSettings
    """The settings of the run, for this capture."""
    capture: Capture
    data: TrainingData

    @classmethod
    def read(cls, settings: TrainSettings, address: str, progress: Progress) -> "Beside":
        """Read the split ``train`` of the capture at `address`, with all of its labels.

        Raises:
            CaptureError: There is no such capture or split, or it lacks what the method needs.
            ValueError: The capture does not allow the batch sizes.
        """
        capture = Capture.open(address)
        labelled = settings.method.pose_images and capture.instants("train").heading_valid.any()
        own = replace(
            settings,
            capture=address,
            labels="all" if labelled else "none",
            label_views=(),
            split="train",
            hold_out=0.0,
            beside=(),
        )
        return cls(own, capture, TrainingData.read(own, capture, progress))


def joined(
    main: BatchSource, beside: Sequence[Beside], settings: TrainSettings, network: PoseEstimator, progress: Progress
) -> BatchSource | JoinedBatches:
    """Return the batches of a run: those of its capture, joined with those of the captures beside it."""
    if not beside:
        return main
    sources = []
    for other in beside:
        data = other.data
        images = images_of(other.settings, network, other.capture, data.instants, data.labelled, progress)
        sources.append(data.source(other.settings, _on_processor(images)))
    return JoinedBatches(replace(main, images=_on_processor(main.images)), tuple(sources), settings.beside_share)


def _on_processor(images: ImageSource) -> ImageSource:
    """Augment images before they are joined with those of another capture, which may have another size."""
    return replace(images, on_device=False) if isinstance(images, AugmentedPixels) else images
