"""Pose retrieval: a matrix of distances in, scores out.

Axis words: ``queries`` × ``gallery`` pairs. Who may be found by whom is a matrix of its own, `allowed`. Among equal
distances the entry that stands first in the gallery comes first.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mcss.metrics import pairwise_pa_mpjpe, torso_length

KS = (1, 2, 5, 10, 20)
"""The numbers of neighbours that are reported."""

CHUNK_PAIRS = 16_000_000
"""Pairs of queries and gallery that are looked at at a time; about a gigabyte, whatever the size of the test set."""

POSE_HIT = 0.1
"""Normalised Procrustes error up to which a neighbour shows the query's pose."""


def mean_pa_mpjpe_at_k(
    distances: Float[Tensor, "queries gallery"],
    pa_mpjpe: Float[Tensor, "queries gallery"],
    allowed: Bool[Tensor, "queries gallery"],
    k: int,
) -> Float[Tensor, "queries"]:
    """Mean PA-MPJPE in mm between each query and its k nearest allowed gallery entries.

    The oracle is the same function with `pa_mpjpe` as the distances: no embedding can do better.

    Raises:
        ValueError: A query has fewer than k allowed entries, or an allowed distance is not a number.

    Reference:
        Mitra et al., CVPR 2020, Sec. 6.1 (Mean-PA-MPJPE@K).

    Example:
        >>> far, error = torch.tensor([[0.3, 0.1, 0.2]]), torch.tensor([[40.0, 90.0, 50.0]])
        >>> everyone = torch.ones(1, 3, dtype=torch.bool)
        >>> mean_pa_mpjpe_at_k(far, error, everyone, k=2).tolist()
        [70.0]
        >>> mean_pa_mpjpe_at_k(error, error, everyone, k=2).tolist()
        [45.0]
    """
    return pa_mpjpe.gather(1, nearest(distances, allowed, k)).mean(-1)


def hit_at_k(
    distances: Float[Tensor, "queries gallery"],
    relevant: Bool[Tensor, "queries gallery"],
    allowed: Bool[Tensor, "queries gallery"],
    k: int,
) -> Bool[Tensor, "queries"]:
    """Whether a relevant entry is among each query's k nearest allowed ones.

    Raises:
        ValueError: As `mean_pa_mpjpe_at_k`.
    """
    return relevant.gather(1, nearest(distances, allowed, k)).any(-1)


def chance_at_k(
    relevant: Bool[Tensor, "queries gallery"], allowed: Bool[Tensor, "queries gallery"], k: int
) -> Float[Tensor, "queries"]:
    """How likely k allowed entries drawn without a look hold a relevant one: the chance level of `hit_at_k`."""
    counts = zip(allowed.sum(1).tolist(), (relevant & allowed).sum(1).tolist(), strict=True)
    return torch.tensor([1 - comb(n - m, k) / max(1, comb(n, k)) for n, m in counts], dtype=torch.float64)


def nearest(
    distances: Float[Tensor, "queries gallery"], allowed: Bool[Tensor, "queries gallery"], k: int
) -> Int[Tensor, "queries {k}"]:
    """Places in the gallery of each query's k nearest allowed entries, nearest first, ties in gallery order.

    Raises:
        ValueError: As `mean_pa_mpjpe_at_k`.
    """
    if k < 1:
        raise ValueError(f"k: expected 1 or more neighbours, got {k}.")
    counts = allowed.sum(1)
    if len(counts) and int(counts.min()) < k:
        query = int(counts.argmin())
        raise ValueError(
            f"k={k}: query {query} has only {int(counts[query])} allowed gallery entries, expected at least {k}; "
            "ask for fewer neighbours or use a larger gallery."
        )
    ranked = distances.masked_fill(~allowed, torch.inf)
    if not torch.equal(ranked.isfinite(), allowed):
        raise ValueError("distances: expected finite numbers wherever `allowed`, got NaN or infinity.")
    # The k-th smallest is found without sorting the gallery; of those as far as it, the first in gallery order count.
    farthest = ranked.topk(k, dim=1, largest=False).values[:, -1:]
    nearer, level = ranked < farthest, ranked == farthest
    wanted = k - nearer.sum(1, keepdim=True)
    chosen = nearer | (level & (level.cumsum(1, dtype=torch.int32) <= wanted))
    places = chosen.nonzero()[:, 1].reshape(len(ranked), k)
    order = ranked.gather(1, places).sort(dim=1, stable=True).indices
    return places.gather(1, order)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images with what retrieval needs to know of them, one entry per image; indices are into lists of names."""

    embedding: Float[Tensor, "n dim"]
    pose: Float[Tensor, "n 17 3"]
    """Any frame of reference, mm; NaN where unlabelled."""
    instant: Int[Tensor, " n"]
    """The same for all views of an instant."""
    subject: Int[Tensor, " n"]
    sequence: Int[Tensor, " n"]
    """Unique over subjects."""
    frame: Int[Tensor, " n"]
    view: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.view)

    def take(self, index: Int[Tensor, " m"]) -> "Gallery":
        """Some of the images, in the order of `index`."""
        return Gallery(
            embedding=self.embedding[index],
            pose=self.pose[index],
            instant=self.instant[index],
            subject=self.subject[index],
            sequence=self.sequence[index],
            frame=self.frame[index],
            view=self.view[index],
        )


@dataclass(frozen=True)
class ScoreAtK:
    """Mean-PA-MPJPE@K and the share of queries with a neighbour of the same pose."""

    k: int
    mean_pa_mpjpe: float
    """mm, mean over the queries."""
    oracle: float
    """mm: what a perfect ranking reaches on this gallery."""
    pose_hit: float
    """Share of queries (0 to 1) with a normalised Procrustes error of at most 0.1 among the k."""
    pose_hit_oracle: float

    @property
    def above_oracle(self) -> float:
        """mm: the paper's figure "relative to the Oracle"."""
        return self.mean_pa_mpjpe - self.oracle


@dataclass(frozen=True)
class PoseRetrieval:
    """Retrieval of like poses from other views."""

    queries: int
    gallery: int
    random: float
    """mm: mean PA-MPJPE over all allowed entries, what a ranking by chance gives for every K."""
    scores: tuple[ScoreAtK, ...]
    """Only for the K that every query has allowed entries for."""


@dataclass(frozen=True)
class InstantRetrieval:
    """Whether images of the same instant from other views are found."""

    queries: int
    gallery: int
    tolerance: int
    """Frames by which a found image of the same sequence may be off."""
    hit_at_1: float
    hit_at_5: float
    chance_at_1: float
    chance_at_5: float


def embedding_distances(
    queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "gallery dim"]
) -> Float[Tensor, "queries gallery"]:
    """Euclidean distances, without the matrix-product shortcut that would blur small ones."""
    return torch.cdist(queries.double(), gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")


def other_views(queries: Gallery, gallery: Gallery) -> Bool[Tensor, "queries gallery"]:
    """Pairs from two different views: the gallery never holds the query's own (case 1 of the paper)."""
    return queries.view[:, None] != gallery.view[None, :]


def other_subjects(queries: Gallery, gallery: Gallery) -> Bool[Tensor, "queries gallery"]:
    """Pairs of two different subjects (with `other_views`: case 2 of the paper, "cross")."""
    return queries.subject[:, None] != gallery.subject[None, :]


def same_instant(queries: Gallery, gallery: Gallery, tolerance: int = 0) -> Bool[Tensor, "queries gallery"]:
    """Pairs from the same sequence that are at most `tolerance` frames apart."""
    same_sequence = queries.sequence[:, None] == gallery.sequence[None, :]
    return same_sequence & ((queries.frame[:, None] - gallery.frame[None, :]).abs() <= tolerance)


def pair_errors(queries: Gallery, gallery: Gallery) -> Float[Tensor, "queries gallery"]:
    """PA-MPJPE in mm, over the 16 joints without the root, of all pairs; worked out once per pair of instants."""
    _, first_query, query = np.unique(queries.instant.numpy(), return_index=True, return_inverse=True)
    _, first_entry, entry = np.unique(gallery.instant.numpy(), return_index=True, return_inverse=True)
    errors = pairwise_pa_mpjpe(queries.pose[first_query, 1:], gallery.pose[first_entry, 1:])
    return errors[query][:, entry]


def in_chunks(queries: Gallery, gallery: Gallery, pairs: int = CHUNK_PAIRS) -> Iterator[Gallery]:
    """The queries, so many at a time that all their pairs with the gallery are at most `pairs`; one at least."""
    step = max(1, pairs // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        yield queries.take(torch.arange(start, min(start + step, len(queries))))


def allowed_pairs(queries: Gallery, gallery: Gallery, cross_subject: bool) -> Bool[Tensor, "queries gallery"]:
    """Who may be found by whom: `other_views`, with `cross_subject` `other_subjects` too."""
    allowed = other_views(queries, gallery)
    if cross_subject:
        allowed &= other_subjects(queries, gallery)
    return allowed


def retrieve_poses(
    queries: Gallery, gallery: Gallery, *, cross_subject: bool, ks: Sequence[int] = KS, pairs: int = CHUNK_PAIRS
) -> PoseRetrieval | None:
    """Score retrieval of like poses; None where some query has nobody to be compared with.

    Args:
        queries: Labelled images.
        gallery: Labelled images.
        cross_subject: Leave the query's own subject out of the gallery as well as its view (case 2).
        ks: Numbers of neighbours; those that some query has too few allowed entries for are left out.
        pairs: Of queries and gallery that are looked at at a time; bounds memory, does not change the result.
    """
    counts = [allowed_pairs(some, gallery, cross_subject).sum(1) for some in in_chunks(queries, gallery, pairs)]
    fewest = int(torch.cat(counts).min()) if counts else 0
    ks = [k for k in ks if k <= fewest]
    if not ks:
        return None
    found_parts, best_parts, random_parts = [], [], []
    for some in in_chunks(queries, gallery, pairs):
        allowed = allowed_pairs(some, gallery, cross_subject)
        found = nearest(embedding_distances(some.embedding, gallery.embedding), allowed, max(ks))
        errors = pair_errors(some, gallery)
        found_parts.append(errors.gather(1, found))
        best_parts.append(errors.gather(1, nearest(errors, allowed, max(ks))))
        random_parts.append(errors.masked_fill_(~allowed, 0).sum(1).div(allowed.sum(1)))
    found_errors, best_errors = torch.cat(found_parts), torch.cat(best_parts)
    same_pose = POSE_HIT * torso_length(queries.pose)[:, None]
    return PoseRetrieval(
        queries=len(queries),
        gallery=len(gallery),
        random=float(torch.cat(random_parts).mean()),
        scores=tuple(
            ScoreAtK(
                k=k,
                mean_pa_mpjpe=float(found_errors[:, :k].mean(-1).mean()),
                oracle=float(best_errors[:, :k].mean(-1).mean()),
                pose_hit=float((found_errors[:, :k] <= same_pose).any(-1).double().mean()),
                pose_hit_oracle=float((best_errors[:, :k] <= same_pose).any(-1).double().mean()),
            )
            for k in ks
        ),
    )


def retrieve_instants(
    queries: Gallery, gallery: Gallery, tolerance: int = 0, pairs: int = CHUNK_PAIRS
) -> InstantRetrieval | None:
    """Score how often the nearest images of other views show the query's instant. Needs no labels.

    Queries whose instant nobody else in the gallery shows are left out; None where that leaves nothing.
    """
    parts = []
    for some in in_chunks(queries, gallery, pairs):
        allowed = other_views(some, gallery)
        relevant = same_instant(some, gallery, tolerance)
        answerable = (relevant & allowed).any(1) & (allowed.sum(1) >= 5)
        if not answerable.any():
            continue
        allowed, relevant = allowed[answerable], relevant[answerable]
        near = nearest(embedding_distances(some.embedding[answerable], gallery.embedding), allowed, 5)
        hits = relevant.gather(1, near).double()
        chances = [chance_at_k(relevant, allowed, k) for k in (1, 5)]
        parts.append(torch.stack([hits[:, 0], hits.amax(1), *chances]))
    if not parts:
        return None
    found = torch.cat(parts, dim=1)
    hit_at_1, hit_at_5, chance_at_1, chance_at_5 = found.mean(1).tolist()
    return InstantRetrieval(
        queries=found.shape[1],
        gallery=len(gallery),
        tolerance=tolerance,
        hit_at_1=hit_at_1,
        hit_at_5=hit_at_5,
        chance_at_1=chance_at_1,
        chance_at_5=chance_at_5,
    )
