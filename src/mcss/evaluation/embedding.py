"""How distances in the embedding go with distances of poses (Mitra et al., CVPR 2020, Sec. 6.2, Fig. 6)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.stats import rankdata
from torch import Tensor

from mcss.retrieval import EmbeddedImages, embedding_distances, in_chunks, pair_errors

BIN_MM = 20.0
"""Width of the bins of pose distance."""
FEWEST = 50
"""Pairs that a bin needs, or it is left out: the mean of a few says nothing."""


@dataclass(frozen=True)
class DistanceCurve:
    """Mean embedding distance by pose distance, over pairs of a kind."""

    name: str
    """``same view``, or ``different view``."""
    pairs: int
    rho: float
    """Spearman's rank correlation of the two distances."""
    pose_mm: tuple[float, ...]
    """PA-MPJPE in the middle of each bin."""
    mean: tuple[float, ...]
    """Of the embedding distances in it."""
    deviation: tuple[float, ...]
    counts: tuple[int, ...]


def random_queries(gallery: EmbeddedImages, per_subject: int, seed: int) -> Int64[np.ndarray, " queries"]:
    """Places of so many random labelled images of each subject, or of all where there are fewer."""
    labelled = ~gallery.pose.isnan().any(-1).any(-1).numpy()
    random, chosen = np.random.default_rng(seed), []
    for subject in np.unique(gallery.subject.numpy()):
        own = np.flatnonzero(labelled & (gallery.subject.numpy() == subject))
        chosen.append(np.sort(random.choice(own, min(per_subject, len(own)), replace=False)))
    return np.concatenate(chosen).astype(np.int64)


def distance_curves(gallery: EmbeddedImages, queries: Int64[np.ndarray, " queries"]) -> tuple[DistanceCurve, ...]:
    """The curves of pairs from the same view and from different views; an image is not paired with itself.

    Args:
        gallery: Labelled images.
        queries: Places of those that are paired with all others.

    Raises:
        ValueError: No pair is left.
    """
    apart: dict[str, list[Tensor]] = {"same view": [], "different view": []}
    poses: dict[str, list[Tensor]] = {"same view": [], "different view": []}
    asked = gallery.take(torch.from_numpy(queries))
    everybody, start = torch.arange(len(gallery)), 0
    for some in in_chunks(asked, gallery):
        own = torch.from_numpy(queries[start : start + len(some)])[:, None] == everybody
        start += len(some)
        distances = embedding_distances(some.embedding, gallery.embedding)
        errors = pair_errors(some, gallery)
        same = some.view[:, None] == gallery.view[None, :]
        for name, kind in (("same view", same & ~own), ("different view", ~same)):
            kept = kind & errors.isfinite()
            apart[name].append(distances[kept].float())
            poses[name].append(errors[kept].float())
    found = [_curve(name, torch.cat(poses[name]), torch.cat(apart[name])) for name in apart if apart[name]]
    curves = tuple(curve for curve in found if curve is not None)
    if not curves:
        raise ValueError("distance curves need labelled images to compare, there are fewer than two.")
    return curves


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Spearman's ρ: the correlation of ranks, equal values sharing their mean rank; NaN if all are equal."""
    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (a, b)]
    size = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return float((ranks[0] * ranks[1]).sum() / size) if size else float("nan")


def _curve(name: str, poses: Float[Tensor, " pairs"], apart: Float[Tensor, " pairs"]) -> DistanceCurve | None:
    if len(poses) < 2:
        return None
    place = (poses / BIN_MM).long()
    counts = place.bincount()
    enough = counts >= min(FEWEST, int(counts.max()))
    total = place.bincount(apart.double())
    squares = place.bincount(apart.double().square())
    mean = total[enough] / counts[enough]
    deviation = (squares[enough] / counts[enough] - mean.square()).clamp(min=0).sqrt()
    middle = (torch.arange(len(counts))[enough] + 0.5) * BIN_MM
    return DistanceCurve(
        name=name,
        pairs=len(poses),
        rho=spearman(poses.numpy(), apart.numpy()),
        pose_mm=_plain(middle),
        mean=_plain(mean),
        deviation=_plain(deviation),
        counts=tuple(counts[enough].tolist()),
    )


def _plain(values: Float[Tensor, " bins"]) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)
