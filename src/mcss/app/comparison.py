"""Two videos of the same movement, laid beside each other in time by pose, and where they differ."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from mcss.warping import path_between


class ComparisonError(ValueError):
    """Two videos cannot be laid beside each other; the message says why."""


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

    Raises:
        ComparisonError: One is more than twice as long as the other.
    """
    # The path needs a picture of the track for each of the query, so the longer one is the query.
    swapped = len(first) < len(second)
    query, track = (second, first) if swapped else (first, second)
    try:
        path, _ = path_between(query, track, free=True)
    except ValueError as error:
        raise ComparisonError(
            f"the two videos have {len(first)} and {len(second)} pictures, too different to show the same movement; "
            "cut them to the same movement"
        ) from error
    along = np.arange(len(query), dtype=np.int64)
    one, other = (path, along) if swapped else (along, path)
    apart = np.linalg.norm(first_pose[one].astype(np.float64) - second_pose[other], axis=2)
    return Comparison(one, other, apart)
