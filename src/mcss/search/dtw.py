"""Time warping of sequences of embeddings: where a movement occurs in a longer sequence, and how two run in step.

A path gives every image of the query one image of the track, at half to twice its pace: it goes on by one image
of both, by one of the query and two of the track (one is passed over), or by two of the query and one of the track
(which both are given). What it costs is the mean distance over the query's images, so that costs of long and short
queries compare.

Reference:
    Sakoe and Chiba, 1978, whose slope constraint P = 1 this is, asymmetric; Müller, "Information Retrieval for Music
    and Motion", 2007, ch. 4.4, for free ends.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8

from mcss.compilation import compiled

SLOWEST, FASTEST = 0.5, 2.0
"""Images of the track to one of the query, at the least and at the most."""


@dataclass(frozen=True)
class Stretch:
    """Where a query occurs in a track."""

    start: int
    stop: int
    """The image after the last."""
    cost: float
    """Mean distance over the query's images."""


def occurrences(
    query: Float[np.ndarray, "m dim"], track: Float[np.ndarray, "n dim"], top: int = 1, most_shared: float = 0.5
) -> list[Stretch]:
    """The best stretches of a track that show a query's movement, best first.

    Args:
        query: Embeddings at the pace of the track.
        track: Embeddings in order of time.
        top: How many.
        most_shared: Two of them share at most this part of the shorter one.
    """
    if not len(query) or not len(track):
        return []
    total, begin, _ = _warped(_distances(query, track), free=True)
    last, first = total[-1] / len(query), begin[-1]
    found: list[Stretch] = []
    for end in np.argsort(last, kind="stable").tolist():
        if len(found) == top or not np.isfinite(last[end]):
            break
        new = Stretch(int(first[end]), end + 1, float(last[end]))
        if all(_shared(new, other) <= most_shared for other in found):
            found.append(new)
    return found


def path_between(
    query: Float[np.ndarray, "m dim"], track: Float[np.ndarray, "n dim"], *, free: bool = True
) -> tuple[Int64[np.ndarray, " m"], float]:
    """The image of the track that each image of the query runs in step with, and the cost of the best path.

    Args:
        query: Embeddings at the pace of the track.
        track: Embeddings in order of time.
        free: The query may begin and end anywhere in the track; otherwise their first images and their last belong
            together.

    Raises:
        ValueError: The lengths are too different for any path.
    """
    total, _, step = _warped(_distances(query, track), free=free)
    end = int(total[-1].argmin()) if free else len(track) - 1
    if not len(query) or not np.isfinite(total[-1, end]):
        raise ValueError(
            f"{len(query)} and {len(track)} images cannot run in step: one would be more than {FASTEST:g} times "
            "as fast as the other; cut them to the same movement"
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
    """Which images show what was seen every `step` seconds: the nearest in time."""
    wanted = np.arange(time[0], time[-1] + step / 2, step) if step > 0 and len(time) > 1 else time[:1]
    after = np.searchsorted(time, wanted).clip(1, max(1, len(time) - 1))
    before = after - 1
    after = np.minimum(after, len(time) - 1)
    return np.where(wanted - time[before] <= time[after] - wanted, before, after).astype(np.int64)


def pace(time: Float64[np.ndarray, " n"]) -> float:
    """Seconds from an image to the next, the median; 0 for fewer than two."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 0.0


def _distances(query: Float[np.ndarray, "m dim"], track: Float[np.ndarray, "n dim"]) -> Float64[np.ndarray, "m n"]:
    a, b = query.astype(np.float64), track.astype(np.float64)
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.sqrt(np.maximum(squared, 0.0)))


def _shared(a: Stretch, b: Stretch) -> float:
    return (min(a.stop, b.stop) - max(a.start, b.start)) / min(a.stop - a.start, b.stop - b.start)


@compiled
def _warped(
    distance: Float64[np.ndarray, "m n"], free: bool
) -> tuple[Float64[np.ndarray, "m n"], Int64[np.ndarray, "m n"], UInt8[np.ndarray, "m n"]]:
    """For each pair the least sum of distances of a path that ends there, where it began, and its last step."""
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
