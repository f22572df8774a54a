"""One pose out of several views of an instant. In canonical space they can be averaged without knowing the cameras."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64

from mcss.skeletons import canonical_pose

ROUNDS = 5
"""Of reweighting."""

OUTLYING = 60.0
"""Millimetres from the consensus at which a view's joint begins to count less."""


@dataclass(frozen=True, eq=False)
class Fused:
    """The poses of some instants, each from all of its views."""

    pose: Float64[np.ndarray, "n 17 3"]
    """Canonical, mm."""
    embedding: Float64[np.ndarray, "n dim"]
    """Unit vectors."""
    weight: Float64[np.ndarray, "n views"]
    """What each view counted, a mean over joints; a row sums to 1."""
    spread: Float64[np.ndarray, " n"]
    """How far the views are from the fused pose, mm: a weighted mean over views and joints."""


def fused(
    pose: Float[np.ndarray, "n views 17 3"],
    embedding: Float[np.ndarray, "n views dim"],
    seen: Bool[np.ndarray, "n views"],
    error: Float[np.ndarray, "n views"] | None = None,
) -> Fused:
    """The weighted means of what the views say; every instant needs one view at least.

    A view counts by 1 / error², where its expected error is known. A joint for which a view is far from the
    others counts less there (iteratively reweighted, Huber): a view that sees it hidden does not spoil the mean.

    Args:
        pose: Canonical, mm; anything where a view is missing.
        embedding: Likewise.
        seen: Which views there are.
        error: Expected error of each view's pose in mm.
    """
    there = np.where(seen[..., None, None], pose, 0.0).astype(np.float64)
    trust = seen.astype(np.float64)
    if error is not None:
        trust = trust / np.maximum(np.where(seen, error, 1.0), 1.0) ** 2
    trust /= trust.sum(axis=1, keepdims=True)
    weight = np.broadcast_to(trust[..., None], there.shape[:3])  # n views joints
    mean = (weight[..., None] * there).sum(axis=1)
    away = np.zeros(there.shape[:3])
    for _ in range(ROUNDS):
        away = np.linalg.norm(there - mean[:, None], axis=-1)
        weight = trust[..., None] * np.minimum(1.0, OUTLYING / np.maximum(away, 1e-9))
        weight = weight / weight.sum(axis=1, keepdims=True)
        mean = (weight[..., None] * there).sum(axis=1)
    mixed = (trust[..., None] * np.where(seen[..., None], embedding, 0.0)).sum(axis=1)
    mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-9)
    spread = (weight * away)[..., 1:].sum(axis=1).mean(axis=1)
    upright = canonical_pose(torch.from_numpy(mean)).numpy()
    return Fused(upright, mixed, weight.mean(axis=2), spread)
