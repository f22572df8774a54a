"""Dynamic time warping of sequences of embeddings: find a movement in a longer sequence, and align two sequences.

A path assigns one image of the sequence to every image of the query, at half to twice the query's pace. Each step
advances by one image in both, by one image of the query and two of the sequence (one is skipped), or by two images of
the query and one of the sequence (which both are assigned to). The cost of a path is the mean distance over the query's
images, so that the costs of long and short queries are comparable.

Reference:
    Sakoe and Chiba, 1978: their asymmetric slope constraint P = 1; Müller, "Information Retrieval for Music and
    Motion", 2007, ch. 4.4, for free ends.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8

from mcss.compilation import compiled

SLOWEST, FASTEST = 0.5, 2.0
"""Smallest and largest number of images of the sequence for one of the query."""


@dataclass(frozen=True)
class Stretch:
    """A stretch of a sequence in which a query occurs."""

    start: int
    stop: int
    """The image after the last."""
    cost: float
    """Mean distance over the query's images."""


def occurrences(
    query: Float[np.ndarray, "m dim"], sequence: Float[np.ndarray, "n dim"], top: int = 1, most_shared: float = 0.5
) -> list[Stretch]:
    """Find the stretches of a sequence that best show a query's movement, best first.

    Args:
        query: Embeddings at the pace of the sequence.
        sequence: Embeddings in order of time.
        top: Number of stretches.
        most_shared: Largest part of the shorter of two stretches that they may share.
    """
    if not len(query) or not len(sequence):
        return []
    total, begin, _ = _warped(_distances(query, sequence), free=True)
    cost, first = total[-1] / len(query), begin[-1]
    stretches: list[Stretch] = []
    for end in np.argsort(cost, kind="stable").tolist():
        if len(stretches) == top or not np.isfinite(cost[end]):
            break
        candidate = Stretch(int(first[end]), end + 1, float(cost[end]))
        if all(_shared(candidate, other) <= most_shared for other in stretches):
            stretches.append(candidate)
    return stretches


def path_between(
    query: Float[np.ndarray, "m dim"], sequence: Float[np.ndarray, "n dim"], *, free: bool = True
) -> tuple[Int64[np.ndarray, " m"], float]:
    """Find the image of the sequence that each image of the query is aligned to, and the cost of this path.

    Args:
        query: Embeddings at the pace of the sequence.
        sequence: Embeddings in order of time.
        free: Let the query begin and end anywhere in the sequence; otherwise the first images of both are aligned, and
            so are the last.

    Raises:
        ValueError: The lengths are too different for any path.
    """
    total, _, step = _warped(_distances(query, sequence), free=free)
    end = int(total[-1].argmin()) if free else len(sequence) - 1
    if not len(query) or not np.isfinite(total[-1, end]):
        raise ValueError(
            f"{len(query)} and {len(sequence)} images cannot be aligned: one movement would be more than {FASTEST:g} "
            "times as fast as the other; cut both to the same movement"
        )
    path = np.empty(len(query), np.int64)
    i, j = len(query) - 1, end
    while i >= 0:
        path[i] = j
        match step[i, j]:
            case 1:
                i, j = i - 1, j - 1
            case 2:
                i, j = i - 1, j - 2
            case 3:
                path[i - 1] = j
                i, j = i - 2, j - 1
            case _:
                break
    return path, float(total[-1, end] / len(query))


def at_pace(time: Float64[np.ndarray, " n"], step: float) -> Int64[np.ndarray, " m"]:
    """Select the images nearest in time to every `step` seconds."""
    wanted = np.arange(time[0], time[-1] + step / 2, step) if step > 0 and len(time) > 1 else time[:1]
    after = np.searchsorted(time, wanted).clip(1, max(1, len(time) - 1))
    before = after - 1
    after = np.minimum(after, len(time) - 1)
    return np.where(wanted - time[before] <= time[after] - wanted, before, after).astype(np.int64)


def pace(time: Float64[np.ndarray, " n"]) -> float:
    """Median time from one image to the next in seconds; 0 for fewer than two images."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 0.0


def _distances(query: Float[np.ndarray, "m dim"], sequence: Float[np.ndarray, "n dim"]) -> Float64[np.ndarray, "m n"]:
    a, b = query.astype(np.float64), sequence.astype(np.float64)
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _shared(a: Stretch, b: Stretch) -> float:
    return (min(a.stop, b.stop) - max(a.start, b.start)) / min(a.stop - a.start, b.stop - b.start)


@compiled
def _warped(
    distance: Float64[np.ndarray, "m n"], free: bool
) -> tuple[Float64[np.ndarray, "m n"], Int64[np.ndarray, "m n"], UInt8[np.ndarray, "m n"]]:
    """For each pair of images, the least total distance of a path that ends there, its beginning and its last step."""
    m, n = distance.shape
    total = np.full((m, n), np.inf)
    begin = np.zeros((m, n), np.int64)
    step = np.zeros((m, n), np.uint8)
    for j in range(n if free else min(n, 1)):
        total[0, j], begin[0, j] = distance[0, j], j
    for i in range(1, m):
        for j in range(1, n):
            least, kind, a, b = total[i - 1, j - 1], 1, i - 1, j - 1
            if j > 1 and total[i - 1, j - 2] < least:
                least, kind, a, b = total[i - 1, j - 2], 2, i - 1, j - 2
            if i > 1 and total[i - 2, j - 1] + distance[i - 1, j] < least:
                least, kind, a, b = total[i - 2, j - 1] + distance[i - 1, j], 3, i - 2, j - 1
            if least < np.inf:
                total[i, j], begin[i, j], step[i, j] = least + distance[i, j], begin[a, b], kind
    return total, begin, step
