"""A trained network as a predictor: pictures of a capture to poses and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from mcss.augmentation import normalise
from mcss.captures import Capture, decode_jpeg
from mcss.checkpoints import load_model
from mcss.evaluation import Prediction
from mcss.features import CachedStages
from mcss.networks import PoseEstimator


def _prediction(network: PoseEstimator, images: Tensor, first: int) -> Prediction:
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
    """Predicts from the pictures themselves."""

    network: PoseEstimator
    capture: Capture

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Poses in mm, in the network's frame, and embeddings of some rows of the capture."""
        pixels = torch.from_numpy(self.capture.decode(rows, self.network.config.image_size))
        return _prediction(self.network, normalise(pixels.permute(0, 3, 1, 2)), first=0)


@dataclass(frozen=True, eq=False)
class CachedPredictor:
    """Predicts from cached maps of unchanged pictures (one variant each): quick, for learning curves."""

    network: PoseEstimator
    stages: CachedStages

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Poses in mm, in the network's frame, and embeddings of some rows of the capture."""
        images = self.stages.images(rows, np.random.default_rng(0), np.zeros(len(rows), bool))
        return _prediction(self.network, images, self.stages.first_stage)


def embedded(run: Path, crops: Sequence[bytes]) -> Float64[np.ndarray, "crops dim"]:
    """The embeddings that a trained run gives to JPEG crops of a person."""
    network = load_model(run)
    size, found = network.config.image_size, []
    for start in range(0, len(crops), 64):
        pictures = np.stack([decode_jpeg(crop) for crop in crops[start : start + 64]])
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
        if pixels.shape[-1] != size:
            pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="area")
        embedding = _prediction(network, normalise(pixels.round().to(torch.uint8)), first=0).embedding
        if embedding is None:
            raise ValueError(f"{run}: the network has no embedding (it predicts poses alone); give a run of mcss")
        found.append(embedding.double().numpy())
    return np.concatenate(found)
