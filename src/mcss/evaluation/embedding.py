"""How distances in the embedding relate to distances of poses (Mitra et al., CVPR 2020, Sec. 6.2, Fig. 6)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.stats import rankdata
from torch import Tensor

from mcss.retrieval import EmbeddedImages, embedding_distances, in_chunks, pair_errors
from mcss.skeletons import canonical_pose

BIN_MM = 20.0
"""Width of the bins of pose distance."""

NEAR = 0.1
"""Share of the pairs that count as near, those with the least difference of poses."""

FEWEST_PAIRS = 50
"""Pairs that a bin needs; bins with fewer are left out, since the mean of a few pairs is noise."""


@dataclass(frozen=True)
class DistanceCurve:
    """Mean embedding distance by pose distance, over pairs of one kind."""

    name: str
    """``same view``, or ``different view``."""
    pairs: int
    rho: float | None
    """Spearman's rank correlation of the two distances; None if either is the same for all pairs."""
    rho_near: float | None
    """The same over the near pairs alone (`NEAR`)."""
    pose_mm: tuple[float, ...]
    """Difference of the poses at the centre of each bin."""
    mean: tuple[float, ...]
    """Mean embedding distance in each bin."""
    deviation: tuple[float, ...]
    """Standard deviation of the embedding distances in each bin."""
    counts: tuple[int, ...]
    """Pairs in each bin."""


def random_queries(gallery: EmbeddedImages, per_subject: int, seed: int) -> Int64[np.ndarray, " queries"]:
    """Indices of `per_subject` random labelled images of each subject, or of all its images if it has fewer."""
    labelled = ~gallery.pose.isnan().any(-1).any(-1).numpy()
    random, chosen = np.random.default_rng(seed), []
    for subject in np.unique(gallery.subject.numpy()):
        images = np.flatnonzero(labelled & (gallery.subject.numpy() == subject))
        chosen.append(np.sort(random.choice(images, min(per_subject, len(images)), replace=False)))
    return np.concatenate(chosen).astype(np.int64)


def distance_curves(
    gallery: EmbeddedImages, queries: Int64[np.ndarray, " queries"], within_subject: bool = False
) -> tuple[DistanceCurve, ...]:
    """Compute the curves of pairs from the same view and from different views; no image is paired with itself.

    Args:
        gallery: Labelled images.
        queries: Indices of the images that are paired with all others.
        within_subject: Pair images of the same subject alone and measure poses by the MPJPE between the canonical
            poses, as in the paper; otherwise everybody's, by PA-MPJPE.

    Raises:
        ValueError: There are no two labelled images.
    """
    apart: dict[str, list[Tensor]] = {"same view": [], "different view": []}
    poses: dict[str, list[Tensor]] = {"same view": [], "different view": []}
    indices, start = torch.arange(len(gallery)), 0
    for chunk in in_chunks(gallery.take(torch.from_numpy(queries)), gallery):
        itself = torch.from_numpy(queries[start : start + len(chunk)])[:, None] == indices
        start += len(chunk)
        distances = embedding_distances(chunk.embedding, gallery.embedding)
        errors = canonical_errors(chunk, gallery) if within_subject else pair_errors(chunk, gallery)
        if within_subject:
            itself |= chunk.subject[:, None] != gallery.subject[None, :]
        same = chunk.view[:, None] == gallery.view[None, :]
        for name, kind in (("same view", same & ~itself), ("different view", ~same & ~itself)):
            kept = kind & errors.isfinite()
            apart[name].append(distances[kept].float())
            poses[name].append(errors[kept].float())
    possible = [_curve(name, torch.cat(poses[name]), torch.cat(apart[name])) for name in apart if apart[name]]
    curves = tuple(curve for curve in possible if curve is not None)
    if not curves:
        raise ValueError("distance curves: expected at least two labelled images to compare, got fewer.")
    return curves


def canonical_errors(queries: EmbeddedImages, gallery: EmbeddedImages) -> Float[Tensor, "queries gallery"]:
    """MPJPE in mm between the canonical poses of all pairs, over the 16 joints without the root."""
    one, other = (canonical_pose(images.pose.double())[:, 1:] for images in (queries, gallery))
    total = torch.zeros(len(one), len(other), dtype=torch.float64)
    for joint in range(one.shape[1]):
        total += torch.cdist(one[:, joint], other[:, joint], compute_mode="donot_use_mm_for_euclid_dist")
    return total / one.shape[1]


def spearman(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float | None:
    """Spearman's ρ, the correlation of ranks; equal values share their mean rank. None if all are equal."""
    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (a, b)]
    size = float(np.sqrt(np.square(ranks[0]).sum() * np.square(ranks[1]).sum()))
    return float((ranks[0] * ranks[1]).sum() / size) if size else None


def _curve(name: str, poses: Float[Tensor, " pairs"], apart: Float[Tensor, " pairs"]) -> DistanceCurve | None:
    if len(poses) < 2:
        return None
    bins = (poses / BIN_MM).long()
    counts = bins.bincount()
    enough = counts >= min(FEWEST_PAIRS, int(counts.max()))
    total = bins.bincount(apart.double())
    squares = bins.bincount(apart.double().square())
    mean = total[enough] / counts[enough]
    deviation = (squares[enough] / counts[enough] - mean.square()).clamp(min=0).sqrt()
    near = poses.argsort(stable=True)[: max(2, round(NEAR * len(poses)))]
    centre = (torch.arange(len(counts))[enough] + 0.5) * BIN_MM
    return DistanceCurve(
        name=name,
        pairs=len(poses),
        rho=spearman(poses.numpy(), apart.numpy()),
        rho_near=spearman(poses[near].numpy(), apart[near].numpy()),
        pose_mm=_plain(centre),
        mean=_plain(mean),
        deviation=_plain(deviation),
        counts=tuple(counts[enough].tolist()),
    )


def _plain(values: Float[Tensor, " bins"]) -> tuple[float, ...]:
    return tuple(round(float(v), 6) for v in values)
