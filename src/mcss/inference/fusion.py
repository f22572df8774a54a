"""Fuse the poses predicted from the views of an instant; canonical poses are averaged without knowing the cameras."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64

from mcss.skeletons import canonical_pose

ROUNDS = 5
"""Rounds of reweighting."""

OUTLYING = 60.0
"""Distance in mm from the consensus beyond which a view's joint counts less."""


@dataclass(frozen=True, eq=False)
class FusedPoses:
    """One pose for each of n instants, from all of its views."""

    pose: Float64[np.ndarray, "n 17 3"]
    """Canonical, in mm."""
    embedding: Float64[np.ndarray, "n dim"]
    """Unit vectors."""
    weight: Float64[np.ndarray, "n views"]
    """The weight of each view, averaged over the joints; a row sums to 1."""
    spread: Float64[np.ndarray, " n"]
    """Distance in mm of the views from the fused pose: a weighted mean over views and joints."""


def fuse(
    pose: Float[np.ndarray, "n views 17 3"],
    embedding: Float[np.ndarray, "n views dim"],
    seen: Bool[np.ndarray, "n views"],
    error: Float[np.ndarray, "n views"] | None = None,
) -> FusedPoses:
    """Average the predictions of the views; every instant needs at least one view.

    A view has the weight 1 / error², where its expected error is known. Where a view puts a joint far from the others,
    that joint counts less (iteratively reweighted least squares, Huber), so that a view in which it is hidden does not
    spoil the mean.

    Args:
        pose: Canonical poses in mm; the values of missing views are ignored.
        embedding: Embeddings; the values of missing views are ignored.
        seen: Which views there are.
        error: The expected error of each view's pose in mm.
    """
    poses = np.where(seen[..., None, None], pose, 0.0).astype(np.float64)
    view_weight = seen.astype(np.float64)
    if error is not None:
        view_weight = view_weight / np.maximum(np.where(seen, error, 1.0), 1.0) ** 2
    view_weight /= view_weight.sum(axis=1, keepdims=True)
    weight = np.broadcast_to(view_weight[..., None], poses.shape[:3])  # n views joints
    mean = (weight[..., None] * poses).sum(axis=1)
    distance = np.zeros(poses.shape[:3])
    for _ in range(ROUNDS):
        distance = np.linalg.norm(poses - mean[:, None], axis=-1)
        weight = view_weight[..., None] * np.minimum(1.0, OUTLYING / np.maximum(distance, 1e-9))
        weight = weight / weight.sum(axis=1, keepdims=True)
        mean = (weight[..., None] * poses).sum(axis=1)
    mean_embedding = (view_weight[..., None] * np.where(seen[..., None], embedding, 0.0)).sum(axis=1)
    mean_embedding /= np.maximum(np.linalg.norm(mean_embedding, axis=1, keepdims=True), 1e-9)
    spread = (weight * distance)[..., 1:].sum(axis=1).mean(axis=1)
    canonical = canonical_pose(torch.from_numpy(mean)).numpy()
    return FusedPoses(canonical, mean_embedding, weight.mean(axis=2), spread)
