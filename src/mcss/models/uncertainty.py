"""How far a predicted pose may be off: judged by labelled instants that lie near it in the embedding.

Where neighbours are near and show one pose, the network is on known ground; where they are far, or show different
poses, or another one than the network predicts, it is not. Three such signs are turned into an expected error in mm
by weights that were fitted on people who were not in training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

NEIGHBOURS = 10
"""So many of the nearest are asked."""

SIGNS = 4
"""What `signs` makes of a prediction, the constant 1 among them."""


@dataclass(frozen=True, eq=False)
class ReferencePoses:
    """Labelled instants, as a model sees them, and what the nearness to them says of its errors."""

    embedding: Float32[Tensor, "m dim"]
    """φ: unit vectors."""
    pose: Float32[Tensor, "m 17 3"]
    """Canonical poses in mm."""
    weights: Float32[Tensor, " signs"]
    """Of the signs, see `signs`; their sum is the expected MPJPE in mm."""
    limit: float
    """Nine errors of ten are below this many times the expected one."""

    def expected_error(
        self, embedding: Float[Tensor, "n dim"], pose: Float[Tensor, "n 17 3"]
    ) -> Float32[np.ndarray, " n"]:
        """The expected MPJPE of predicted canonical poses, in mm over 16 joints."""
        found = signs(self.embedding, self.pose, embedding, pose) @ self.weights.numpy()
        return np.asarray(found, np.float32)


def signs(
    known: Float[Tensor, "m dim"],
    poses: Float[Tensor, "m 17 3"],
    embedding: Float[Tensor, "n dim"],
    pose: Float[Tensor, "n 17 3"],
) -> Float32[np.ndarray, "n signs"]:
    """What the nearest of the known instants say of predictions: 1, and three signs that grow with uncertainty.

    These are the spread of the neighbours' poses about their mean and the distance from that mean to the predicted
    pose, both in mm, means over the joints; and the mean distance to the neighbours in the embedding, in tenths of mm.

    Args:
        known: Embeddings of labelled instants.
        poses: Their canonical poses in mm.
        embedding: Of the predictions.
        pose: Predicted, canonical, mm.
    """
    distance, nearest = torch.cdist(embedding.float(), known.float()).topk(
        min(NEIGHBOURS, len(known)), largest=False, dim=1
    )
    shown = poses.float()[nearest][..., 1:, :]  # n k 16 3
    mean = shown.mean(dim=1)
    spread = (shown - mean[:, None]).norm(dim=-1).mean(dim=(1, 2))
    apart = (pose.float()[:, 1:] - mean).norm(dim=-1).mean(dim=1)
    found = torch.stack([torch.ones_like(spread), spread, apart, 100 * distance.mean(dim=1)], dim=1)
    return np.asarray(found.cpu().numpy(), np.float32)


def fitted(
    known: Float[Tensor, "m dim"],
    poses: Float[Tensor, "m 17 3"],
    found: Float32[np.ndarray, "n signs"],
    error: Float64[np.ndarray, " n"],
) -> ReferencePoses:
    """A reference set whose weights make the signs of some predictions fit their true errors best.

    No weight is negative: more doubt never means less error.

    Args:
        known: Embeddings of the labelled instants.
        poses: Their canonical poses in mm.
        found: The signs of predictions for people who were not in training.
        error: Their MPJPE in mm.
    """
    from scipy.optimize import nnls

    weights, _ = nnls(found.astype(float), error)
    expected = found @ weights
    limit = float(np.quantile(error / np.maximum(expected, 1.0), 0.9))
    return ReferencePoses(known.float(), poses.float(), torch.from_numpy(weights.astype(np.float32)), limit)
