"""The uncertainty head: the expected error of a predicted pose, from labelled instants near it in the embedding.

Where the neighbours are close and agree with each other and with the prediction, the error is likely to be small;
where they are far away, or show different poses, it is likely to be large. Three such features are turned into an
expected error in mm by weights that were fitted on people who were not in training.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

NEIGHBOURS = 10
"""Nearest labelled instants that the features are computed from."""

FEATURES = 4
"""Features of a prediction, the constant 1 among them; see `uncertainty_features`."""


@dataclass(frozen=True, eq=False)
class UncertaintyHead:
    """Labelled instants as the network embeds them, and weights that turn nearness to them into an expected error."""

    embedding: Float32[Tensor, "m dim"]
    """φ of the labelled instants: unit vectors."""
    pose: Float32[Tensor, "m 17 3"]
    """Canonical poses in mm."""
    weights: Float32[Tensor, " features"]
    """Weights of the `uncertainty_features`; the weighted sum is the expected MPJPE in mm."""
    limit: float
    """Nine of ten errors are below this many times the expected one."""

    def expected_error(
        self, embedding: Float[Tensor, "n dim"], pose: Float[Tensor, "n 17 3"]
    ) -> Float32[np.ndarray, " n"]:
        """The expected MPJPE of predicted canonical poses, in mm over 16 joints."""
        features = uncertainty_features(self.embedding, self.pose, embedding, pose)
        return np.asarray(features @ self.weights.numpy(), np.float32)


def uncertainty_features(
    known: Float[Tensor, "m dim"],
    known_pose: Float[Tensor, "m 17 3"],
    embedding: Float[Tensor, "n dim"],
    pose: Float[Tensor, "n 17 3"],
) -> Float32[np.ndarray, "n features"]:
    """Compute the constant 1 and three features of predictions that grow with uncertainty.

    They are the spread of the neighbours' poses about their mean, and the distance from that mean to the predicted
    pose, both in mm and averaged over the joints; and the mean distance to the neighbours in the embedding, times 100.

    Args:
        known: Embeddings of labelled instants.
        known_pose: Canonical poses of these instants in mm.
        embedding: Embeddings of the predictions.
        pose: Predicted canonical poses in mm.
    """
    distance, nearest = torch.cdist(embedding.float(), known.float()).topk(
        min(NEIGHBOURS, len(known)), largest=False, dim=1
    )
    neighbours = known_pose.float()[nearest][..., 1:, :]  # n k 16 3
    mean = neighbours.mean(dim=1)
    spread = (neighbours - mean[:, None]).norm(dim=-1).mean(dim=(1, 2))
    apart = (pose.float()[:, 1:] - mean).norm(dim=-1).mean(dim=1)
    features = torch.stack([torch.ones_like(spread), spread, apart, 100 * distance.mean(dim=1)], dim=1)
    return np.asarray(features.cpu().numpy(), np.float32)


def fit_uncertainty(
    known: Float[Tensor, "m dim"],
    known_pose: Float[Tensor, "m 17 3"],
    features: Float32[np.ndarray, "n features"],
    error: Float64[np.ndarray, " n"],
) -> UncertaintyHead:
    """Fit the weights of an uncertainty head to the true errors of predictions.

    No weight is negative: a larger feature never lowers the expected error.

    Args:
        known: Embeddings of the labelled instants.
        known_pose: Canonical poses of these instants in mm.
        features: Features of predictions for people who were not in training.
        error: MPJPE of these predictions in mm.
    """
    from scipy.optimize import nnls

    weights, _ = nnls(features.astype(float), error)
    expected = features @ weights
    limit = float(np.quantile(error / np.maximum(expected, 1.0), 0.9))
    return UncertaintyHead(known.float(), known_pose.float(), torch.from_numpy(weights.astype(np.float32)), limit)
