"""A trained network as a predictor: images of a capture to poses and embeddings."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from mcss.data.augmentation import normalise
from mcss.data.capture import Capture
from mcss.evaluation.predictions import Prediction
from mcss.models.pose_network import PoseEstimator


def prediction_of(network: PoseEstimator, images: Tensor, first: int) -> Prediction:
    """Poses and embeddings of images, or of what stage `first` of the backbone takes."""
    device = next(network.parameters()).device
    network.eval()
    with torch.inference_mode():
        output = network(images.to(device), first)
        pose = network.denormalised(output.coordinates)
    # Out of inference mode, so that callers may do arithmetic with them.
    return Prediction(
        pose=pose.float().cpu().clone(), embedding=output.embedding.float().cpu().clone(), frame=network.frame
    )


@dataclass(frozen=True, eq=False)
class NetworkPredictor:
    """Predicts from the images themselves."""

    network: PoseEstimator
    capture: Capture

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Poses in mm, in the network's frame, and embeddings of some rows of the capture."""
        pixels = torch.from_numpy(self.capture.decode(rows, self.network.config.image_size))
        return prediction_of(self.network, normalise(pixels.permute(0, 3, 1, 2)), first=0)
