"""What a system predicts for rows of a capture, and the one loop that asks it batch by batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.loading.augmentation import normalise
from mcss.models.pose_network import PoseEstimator
from mcss.processes import keep_freed_memory
from mcss.progress import Task
from mcss.skeletons import PoseFrame

BATCH_SIZE = 64
"""Images that a network is given at a time."""

Result = TypeVar("Result")


def images_at_a_time(size: int, device: torch.device) -> int:
    """Return how many images of a side in pixels to give a network at a time.

    A CPU takes few large ones: the maps of more do not fit in its cache, which doubles the time.
    """
    return BATCH_SIZE if device.type != "cpu" or size <= 128 else max(1, 4 * 256**2 // size**2)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a system predicts for some images, on the CPU in float32; None for what it does not predict."""

    pose: Float[Tensor, "batch 17 3"] | None
    """Poses in mm with the root at the origin."""
    embedding: Float[Tensor, "batch dim"] | None
    frame: PoseFrame = "canonical"
    """The coordinate frame of the poses, in which they are scored (see `mcss.skeletons`)."""

    @classmethod
    def joined(cls, parts: "Sequence[Prediction]") -> "Prediction":
        """Concatenate the predictions of one system; at least one."""
        poses = [part.pose for part in parts if part.pose is not None]
        embeddings = [part.embedding for part in parts if part.embedding is not None]
        return cls(
            torch.cat(poses).float() if poses else None,
            torch.cat(embeddings).float() if embeddings else None,
            parts[0].frame,
        )


@runtime_checkable
class Predictor(Protocol):
    """Anything that can be evaluated: it turns images, given as rows of a capture, into a `Prediction`.

    A predictor reads the images itself (`Capture.images` or `Capture.decode`), at the size and from the cache it needs.
    """

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Predict for some rows, in their order."""


@dataclass(frozen=True, eq=False)
class NetworkPredictor:
    """Predicts from the images of a capture with a trained network of any method."""

    network: PoseEstimator
    capture: Capture

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Predict poses in mm, in the network's coordinate frame, and embeddings."""
        pixels = torch.from_numpy(self.capture.decode(rows, self.network.config.image_size))
        return predict_images(self.network, normalise(pixels.permute(0, 3, 1, 2)))


def fastest_device() -> torch.device:
    """The first GPU of this machine, or its processors."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predict_images(network: PoseEstimator, images: Tensor, first_stage: int = 0) -> Prediction:
    """Predict from normalised images, or from the maps that stage `first_stage` of the backbone takes."""
    device = next(network.parameters()).device
    network.eval()
    few = BATCH_SIZE if first_stage else images_at_a_time(images.shape[-1], device)
    poses, embeddings = [], []
    with torch.inference_mode():
        for part in torch.split(images, few):
            output = network(part.to(device), first_stage)
            poses.append(network.denormalised(output.coordinates))
            embeddings.append(output.embedding)
    # Clones made outside inference mode, so that callers may compute with them.
    return Prediction(
        pose=torch.cat(poses).float().cpu().clone(),
        embedding=torch.cat(embeddings).float().cpu().clone(),
        frame=network.frame,
    )


def predict_rows(
    predict: Callable[[Int64[np.ndarray, " batch"]], Result],
    rows: Int64[np.ndarray, " n"],
    task: Task | None = None,
    batch_size: int = BATCH_SIZE,
) -> list[Result]:
    """Predict for any number of rows, a batch at a time; one result per batch, to be joined.

    Args:
        predict: Called with each batch of rows; without any rows, called once with none.
        rows: Rows of a capture.
        task: Advanced by every image.
        batch_size: Images in a batch.
    """
    keep_freed_memory()
    results = []
    for start in range(0, max(len(rows), 1), batch_size):
        batch = rows[start : start + batch_size]
        results.append(predict(batch))
        if task is not None:
            task.advance(len(batch))
    return results
