"""Two videos of the same movement, laid beside each other in time by pose, and where they differ."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64


@dataclass(frozen=True, eq=False)
class Comparison:
    """Pairs of frames that show the same part of the movement, in order."""

    first: Int64[np.ndarray, " pairs"]
    """Frames of the one video."""
    second: Int64[np.ndarray, " pairs"]
    """Frames of the other."""
    apart: Float64[np.ndarray, "pairs 17"]
    """Distances of the joints of the canonical poses, mm."""


def compared(
    first: Float32[np.ndarray, "n dim"],
    second: Float32[np.ndarray, "m dim"],
    first_pose: Float32[np.ndarray, "n 17 3"],
    second_pose: Float32[np.ndarray, "m 17 3"],
) -> Comparison:
    """Compare two takes: their embeddings decide which frames belong together (dynamic time warping).

    Args:
        first: Embeddings of the frames of one video.
        second: Of the other.
        first_pose: Canonical poses of the one, mm.
        second_pose: Of the other.
    """
    cost = np.linalg.norm(first[:, None] - second[None], axis=2).astype(np.float64)
    total = np.full((len(first) + 1, len(second) + 1), np.inf)
    total[0, 0] = 0
    for i in range(len(first)):
        for j in range(len(second)):
            total[i + 1, j + 1] = cost[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    i, j = len(first) - 1, len(second) - 1
    path = [(i, j)]
    while i or j:
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min((pair for pair in before if min(pair) >= 0), key=lambda pair: total[pair[0] + 1, pair[1] + 1])
        path.append((i, j))
    one, other = np.array(path[::-1], np.int64).T
    apart = np.linalg.norm(first_pose[one].astype(np.float64) - second_pose[other], axis=2)
    return Comparison(one, other, apart)
