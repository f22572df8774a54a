"""Pose retrieval: a matrix of distances in, scores out.

Axis words: ``queries`` × ``gallery`` pairs. The matrix `allowed` says which gallery entries each query may find. Among
entries of equal distance, the one that comes first in the gallery is nearer.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import comb

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mcss.metrics import pairwise_pa_mpjpe, torso_length
from mcss.progress import NO_PROGRESS, Progress, say

KS = (1, 2, 5, 10, 20)
"""The numbers of neighbours for which scores are reported."""

CHUNK_PAIRS = 16_000_000
"""Number of pairs that are scored together: about a gigabyte, whatever the size of the test set."""

TOLD_BEFOREHAND = 120.0
"""A comparison that will take longer than this many seconds says so when it begins."""

Scores = tuple[Tensor, ...]
"""Values of some queries, a row each."""

POSE_HIT = 0.1
"""Normalised Procrustes error up to which a neighbour counts as showing the query's pose."""


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
    """Whether a relevant entry is among the k nearest allowed entries of each query.

    Raises:
        ValueError: A query has fewer than k allowed entries, or an allowed distance is not a number.
    """
    return relevant.gather(1, nearest(distances, allowed, k)).any(-1)


def chance_at_k(
    relevant: Bool[Tensor, "queries gallery"], allowed: Bool[Tensor, "queries gallery"], k: int
) -> Float[Tensor, "queries"]:
    """The chance level of `hit_at_k`: the probability that k allowed entries drawn at random hold a relevant one."""
    counts = zip(allowed.sum(1).tolist(), (relevant & allowed).sum(1).tolist(), strict=True)
    return torch.tensor([1 - comb(n - m, k) / max(1, comb(n, k)) for n, m in counts], dtype=torch.float64)


def nearest(
    distances: Float[Tensor, "queries gallery"], allowed: Bool[Tensor, "queries gallery"], k: int
) -> Int[Tensor, "queries {k}"]:
    """Indices of the k nearest allowed gallery entries of each query, nearest first, ties in gallery order.

    Raises:
        ValueError: A query has fewer than k allowed entries, or an allowed distance is not a number.
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
    # The k-th smallest distance is found without sorting the gallery; ties with it are filled up in gallery order.
    farthest = ranked.topk(k, dim=1, largest=False).values[:, -1:]
    nearer, tied = ranked < farthest, ranked == farthest
    missing = k - nearer.sum(1, keepdim=True)
    chosen = nearer | (tied & (tied.cumsum(1, dtype=torch.int32) <= missing))
    indices = chosen.nonzero()[:, 1].reshape(len(ranked), k)
    order = ranked.gather(1, indices).sort(dim=1, stable=True).indices
    return indices.gather(1, order)


@dataclass(frozen=True, eq=False)
class EmbeddedImages:
    """Embeddings of images and what retrieval needs to know about them, one entry per image.

    `subject`, `sequence` and `view` are indices into lists of names.
    """

    embedding: Float[Tensor, "n dim"]
    pose: Float[Tensor, "n 17 3"]
    """mm, in any coordinate frame; NaN if unlabelled."""
    instant: Int[Tensor, " n"]
    """Number of the instant (multi-view frame); all its views share it."""
    subject: Int[Tensor, " n"]
    sequence: Int[Tensor, " n"]
    """Unique across subjects."""
    frame: Int[Tensor, " n"]
    view: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.view)

    def take(self, index: Int[Tensor, " m"]) -> "EmbeddedImages":
        """The images at `index`, in its order."""
        return EmbeddedImages(
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
    """Mean over the queries in mm."""
    oracle: float
    """What a perfect ranking reaches on this gallery, in mm."""
    pose_hit: float
    """Share of queries (0 to 1) that have a neighbour with a normalised Procrustes error of at most 0.1 among the k."""
    pose_hit_oracle: float
    """The same share for a perfect ranking."""

    @property
    def above_oracle(self) -> float:
        """The paper's number "relative to the Oracle", in mm."""
        return self.mean_pa_mpjpe - self.oracle


@dataclass(frozen=True)
class PoseRetrieval:
    """Retrieval of similar poses from other views."""

    queries: int
    gallery: int
    random: float
    """Mean PA-MPJPE over all allowed entries in mm, which a random ranking reaches for every K."""
    scores: tuple[ScoreAtK, ...]
    """Scores for each K for which every query has enough allowed entries."""


@dataclass(frozen=True)
class InstantRetrieval:
    """Retrieval of images of the same instant from other views."""

    queries: int
    gallery: int
    tolerance: int
    """Number of frames by which a retrieved image of the same sequence may be off."""
    hit_at_1: float
    hit_at_5: float
    chance_at_1: float
    chance_at_5: float


def embedding_distances(
    queries: Float[Tensor, "queries dim"], gallery: Float[Tensor, "gallery dim"]
) -> Float[Tensor, "queries gallery"]:
    """Euclidean distances, without the matrix-product shortcut, which loses the precision of small ones."""
    return torch.cdist(queries.double(), gallery.double(), compute_mode="donot_use_mm_for_euclid_dist")


def other_views(queries: EmbeddedImages, gallery: EmbeddedImages) -> Bool[Tensor, "queries gallery"]:
    """Pairs from two different views: a query never finds its own view (case 1 of the paper)."""
    return queries.view[:, None] != gallery.view[None, :]


def other_subjects(queries: EmbeddedImages, gallery: EmbeddedImages) -> Bool[Tensor, "queries gallery"]:
    """Pairs of two different subjects (with `other_views`: case 2 of the paper, "cross")."""
    return queries.subject[:, None] != gallery.subject[None, :]


def same_instant(
    queries: EmbeddedImages, gallery: EmbeddedImages, tolerance: int = 0
) -> Bool[Tensor, "queries gallery"]:
    """Pairs from the same sequence that are at most `tolerance` frames apart."""
    same_sequence = queries.sequence[:, None] == gallery.sequence[None, :]
    return same_sequence & ((queries.frame[:, None] - gallery.frame[None, :]).abs() <= tolerance)


def pair_errors(queries: EmbeddedImages, gallery: EmbeddedImages) -> Float[Tensor, "queries gallery"]:
    """PA-MPJPE in mm of all pairs, over the 16 joints without the root; computed once per pair of instants."""
    _, first_query, query = np.unique(queries.instant.numpy(), return_index=True, return_inverse=True)
    _, first_entry, entry = np.unique(gallery.instant.numpy(), return_index=True, return_inverse=True)
    errors = pairwise_pa_mpjpe(queries.pose[first_query, 1:], gallery.pose[first_entry, 1:])
    return errors[query][:, entry]


def in_chunks(queries: EmbeddedImages, gallery: EmbeddedImages, pairs: int = CHUNK_PAIRS) -> Iterator[EmbeddedImages]:
    """Split the queries into chunks that have at most `pairs` pairs with the gallery, but at least one query."""
    step = max(1, pairs // max(1, len(gallery)))
    for start in range(0, len(queries), step):
        yield queries.take(torch.arange(start, min(start + step, len(queries))))


def allowed_pairs(
    queries: EmbeddedImages, gallery: EmbeddedImages, cross_subject: bool
) -> Bool[Tensor, "queries gallery"]:
    """The pairs that count: those of `other_views` and, with `cross_subject`, of `other_subjects`."""
    allowed = other_views(queries, gallery)
    if cross_subject:
        allowed &= other_subjects(queries, gallery)
    return allowed


def retrieve_poses(
    queries: EmbeddedImages,
    gallery: EmbeddedImages,
    *,
    cross_subject: bool,
    ks: Sequence[int] = KS,
    pairs: int = CHUNK_PAIRS,
    workers: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> PoseRetrieval | None:
    """Score the retrieval of similar poses; None if some query has no allowed entry.

    Args:
        queries: Labelled images.
        gallery: Labelled images.
        cross_subject: Whether to leave out the query's own subject as well as its own view (case 2).
        ks: Numbers of neighbours; those for which some query has too few allowed entries are left out.
        pairs: Number of pairs that are scored together; it bounds memory and does not change the result.
        workers: Threads over which the queries are spread, by default as many as torch uses.
        progress: Notified of every query, and told beforehand how long a long comparison will take.
    """
    _, kinds = np.unique(torch.stack([queries.view, queries.subject]).numpy(), axis=1, return_index=True)
    counts = allowed_pairs(queries.take(torch.from_numpy(kinds)), gallery, cross_subject).sum(1)
    ks = [k for k in ks if len(counts) and k <= int(counts.min())]
    if not ks:
        return None

    def scored(chunk: EmbeddedImages) -> Scores:  # errors of what is found, of the best, and the mean of all
        allowed = allowed_pairs(chunk, gallery, cross_subject)
        neighbours = nearest(embedding_distances(chunk.embedding, gallery.embedding), allowed, max(ks))
        errors = pair_errors(chunk, gallery)
        found = errors.gather(1, neighbours)
        closest = errors.gather(1, nearest(errors, allowed, max(ks)))
        return found, closest, errors.masked_fill_(~allowed, 0).sum(1).div(allowed.sum(1))

    retrieved_errors, best_errors, random = _spread(scored, queries, gallery, pairs, workers, progress)
    same_pose = POSE_HIT * torso_length(queries.pose)[:, None]
    return PoseRetrieval(
        queries=len(queries),
        gallery=len(gallery),
        random=float(random.mean()),
        scores=tuple(
            ScoreAtK(
                k=k,
                mean_pa_mpjpe=float(retrieved_errors[:, :k].mean(-1).mean()),
                oracle=float(best_errors[:, :k].mean(-1).mean()),
                pose_hit=float((retrieved_errors[:, :k] <= same_pose).any(-1).double().mean()),
                pose_hit_oracle=float((best_errors[:, :k] <= same_pose).any(-1).double().mean()),
            )
            for k in ks
        ),
    )


def _spread(
    scored: Callable[[EmbeddedImages], Scores],
    queries: EmbeddedImages,
    gallery: EmbeddedImages,
    pairs: int,
    workers: int | None,
    progress: Progress,
) -> Scores:
    """Return the scores of all queries, computed by several threads: torch leaves Python's lock to others."""
    workers = workers or torch.get_num_threads()
    chunks, started = list(in_chunks(queries, gallery, max(1, pairs // workers))), time.perf_counter()
    with progress.task("Comparing images", len(queries)) as task:
        results = [scored(chunks[0])]
        task.advance(len(chunks[0]))
        rounds = -(-(len(chunks) - 1) // workers)
        seconds = (time.perf_counter() - started) * rounds
        if seconds > TOLD_BEFOREHAND:
            say(
                progress,
                f"Comparing {len(queries):,} queries with {len(gallery):,} images takes about {seconds / 3600:.1f} h; "
                "--max-queries and --max-gallery make it less.",
            )
        with ThreadPoolExecutor(workers, "retrieval") as pool:
            for chunk, scores in zip(chunks[1:], pool.map(scored, chunks[1:]), strict=True):
                task.advance(len(chunk))
                results.append(scores)
    return tuple(torch.cat(values) for values in zip(*results, strict=True))


def retrieve_instants(
    queries: EmbeddedImages,
    gallery: EmbeddedImages,
    tolerance: int = 0,
    pairs: int = CHUNK_PAIRS,
    workers: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> InstantRetrieval | None:
    """Score how often the nearest images of other views show the query's instant; this needs no labels.

    Queries whose instant no other view in the gallery shows are left out; None if no query remains.

    Args:
        queries: Images.
        gallery: Images.
        tolerance: Number of frames by which a retrieved image of the same sequence may be off.
        pairs: Number of pairs that are scored together; it bounds memory and does not change the result.
        workers: Threads over which the queries are spread, by default as many as torch uses.
        progress: Notified of every query, and told beforehand how long a long comparison will take.
    """

    def scored(chunk: EmbeddedImages) -> Scores:
        allowed = other_views(chunk, gallery)
        relevant = same_instant(chunk, gallery, tolerance)
        answerable = (relevant & allowed).any(1) & (allowed.sum(1) >= 5)
        if not answerable.any():
            return (torch.empty(0, 4, dtype=torch.float64),)
        allowed, relevant = allowed[answerable], relevant[answerable]
        neighbours = nearest(embedding_distances(chunk.embedding[answerable], gallery.embedding), allowed, 5)
        hits = relevant.gather(1, neighbours).double()
        chances = [chance_at_k(relevant, allowed, k) for k in (1, 5)]
        return (torch.stack([hits[:, 0], hits.amax(1), *chances], dim=1),)

    if not len(queries):
        return None
    (scores,) = _spread(scored, queries, gallery, pairs, workers, progress)
    if not len(scores):
        return None
    hit_at_1, hit_at_5, chance_at_1, chance_at_5 = scores.mean(0).tolist()
    return InstantRetrieval(
        queries=len(scores),
        gallery=len(gallery),
        tolerance=tolerance,
        hit_at_1=hit_at_1,
        hit_at_5=hit_at_5,
        chance_at_1=chance_at_1,
        chance_at_5=chance_at_5,
    )
