"""The offsets between views at which the signals of all pairs of views agree best.

A pair's `Agreement` measures how well two signals agree at every lag. The offsets maximise the sum of the agreements of
all pairs, so that a pair that is undecided, or wrong, is overruled by the others (cycle consistency).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp

NOWHERE = -3.0
"""The agreement at lags at which two views hardly overlap."""

ALIKE = 0.5
"""Share of the motion's variance that views from two sides can be expected to have in common at best."""

BEAM = 64
"""Number of sets of offsets that the beam search keeps."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well two views agree at each lag: the number of samples by which the second one starts later."""

    score: Float64[np.ndarray, " lags"]
    """Scores at lags −L … L: the logarithm of how much likelier the overlap is if the views show the same motion than
    if they do not; `NOWHERE` where too little overlaps."""
    shared: Float64[np.ndarray, " lags"] | None = None
    """Estimated share of the motion's variance that both have in common at each lag; None stands for all of it."""

    @property
    def reach(self) -> int:
        """The largest lag L."""
        return len(self.score) // 2

    def at(self, lag: Float64[np.ndarray, "*lags"]) -> Float64[np.ndarray, "*lags"]:
        """Return the score at lags, rounded to samples."""
        index = np.rint(lag).astype(int)
        inside = np.abs(index) <= self.reach
        clipped = index.clip(-self.reach, self.reach) + self.reach
        return np.asarray(np.where(inside, self.score[clipped], NOWHERE), np.float64)

    def shared_at(self, lag: float) -> float:
        """Return `shared` at a lag, rounded to samples; 0 beyond the largest lag."""
        index = round(lag) + self.reach
        if self.shared is None:
            return 1.0
        return float(self.shared[index]) if 0 <= index < len(self.shared) else 0.0


def agreement(
    a: Float64[np.ndarray, "rolls n heights"],
    b: Float64[np.ndarray, "rolls m heights"],
    reach: int,
    least: float,
) -> Agreement:
    """Compare two motion profiles at every lag, in all pairs of directions of "up".

    For a pair of directions, the correlation ρ of n overlapping samples makes them (1 − ρ²)^(−n/2) times as likely as
    if they had nothing in common (if ρ > 0, otherwise equally likely). The true directions are unknown, so the mean
    over all pairs is the evidence for a lag; taking the best pair at each lag instead would let the offset jump from
    one pair to another. The evidence's logarithm is weighted by the share that overlaps, because at a large lag little
    is left that could disagree.

    Args:
        a: The first view's profile.
        b: The second view's profile, with as many samples per second.
        reach: The largest lag, in samples.
        least: The share of the shorter view that must overlap.
    """
    n, m = a.shape[1], b.shape[1]
    size = 1 << int(np.ceil(np.log2(n + m)))
    lags = np.arange(-reach, reach + 1)
    start, stop = np.maximum(lags, 0), np.minimum(n, m + lags)  # of the overlap, counted in samples of a
    overlap = np.maximum(stop - start, 0)
    enough = overlap >= max(8, least * min(n, m))
    lags, start, stop, overlap = lags[enough], start[enough], stop[enough], overlap[enough]
    score = np.full(2 * reach + 1, NOWHERE)
    if not len(lags):
        return Agreement(score)

    def sums(x: Float64[np.ndarray, "rolls n heights"], first: np.ndarray, last: np.ndarray) -> np.ndarray:
        total = np.concatenate([np.zeros_like(x[:, :1]), np.cumsum(x, axis=1)], axis=1)
        return np.asarray(total[:, last] - total[:, first])

    sum_a, sum_b = sums(a, start, stop), sums(b, start - lags, stop - lags)
    energy_a = (sums(a * a, start, stop) - sum_a**2 / overlap[:, None]).sum(axis=2)
    energy_b = (sums(b * b, start - lags, stop - lags) - sum_b**2 / overlap[:, None]).sum(axis=2)
    spectrum_a, spectrum_b = np.fft.rfft(a, size, axis=1), np.fft.rfft(b, size, axis=1)
    log_likelihoods = np.zeros((len(a) * len(b), len(lags)))
    for k, (i, j) in enumerate(itertools.product(range(len(a)), range(len(b)))):
        covariance = np.fft.irfft((spectrum_a[i] * spectrum_b[j].conj()).sum(axis=1), size)[lags % size]
        covariance -= (sum_a[i] * sum_b[j]).sum(axis=1) / overlap
        scale = np.sqrt(np.maximum(energy_a[i] * energy_b[j], 0))
        correlation = np.where(scale > 1e-9, covariance / np.maximum(scale, 1e-9), 0).clip(0, 0.99)
        log_likelihoods[k] = -0.5 * overlap * np.log(1 - correlation**2)
    weight = overlap / min(n, m)
    score[enough] = logsumexp(log_likelihoods * weight, axis=0) - np.log(len(log_likelihoods))
    shared = np.zeros(2 * reach + 1)
    shared[enough] = 1 - np.exp(-2 * score[enough].clip(0) / (overlap * weight))
    return Agreement(score, shared)


@dataclass(frozen=True, eq=False)
class AgreementCurve:
    """How well the other views agree with each offset of a view."""

    offsets: Float64[np.ndarray, " n"]
    """Seconds."""
    agreement: Float64[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Offsets:
    """When each view starts, in samples after the first one, and the confidence in it."""

    start: Float64[np.ndarray, " views"]
    confidence: Float64[np.ndarray, " views"]
    """0 to 1 for each view: how much better its offset is than the second-best, times the motion that it shares."""

    def curve(self, pairs: Mapping[tuple[int, int], Agreement], v: int, rate: float) -> AgreementCurve:
        """Return how well the other views, at their offsets, agree with each offset of view v."""
        reach = max((a.reach for a in pairs.values()), default=0)
        lags = self.start[v] + np.arange(-reach, reach + 1, dtype=np.float64)
        scores = _total(pairs, self.start, v, lags)
        overlapping = scores > scores.min() if len(scores) else np.zeros(0, bool)  # not where views hardly overlap
        return AgreementCurve(lags[overlapping] / rate, scores[overlapping])


def offsets(
    pairs: Mapping[tuple[int, int], Agreement],
    views: int,
    elsewhere: float,
    known: Mapping[int, float] | None = None,
) -> Offsets:
    """Find the offsets on which all pairs together agree best, to a fraction of a sample.

    Args:
        pairs: The agreement of each pair i < j that can be compared.
        views: The number of views.
        elsewhere: Offsets at least this many samples away from the best one count as alternatives to it.
        known: Offsets that are already known and kept; None fixes view 0 at 0.
    """
    known = dict(known or {0: 0.0})
    start = np.zeros(views)
    start[list(known)] = list(known.values())
    free = [v for v in range(views) if v not in known]
    best = _beam_search(pairs, start, free)
    curves = {pair: CubicSpline(np.arange(-a.reach, a.reach + 1), a.score) for pair, a in pairs.items()}
    for _ in range(6):
        for v in free:
            near = best[v] + np.arange(-1, 1.001, 0.02)
            others = [u for u in range(views) if u != v]
            total = sum((_spline(curves, u, v, near - best[u]) for u in others), np.zeros(len(near)))
            best[v] = near[int(total.argmax())]
    confidence = np.array([_confidence(pairs, best, v, elsewhere) for v in range(views)])
    return Offsets(best, confidence)


def _total(
    pairs: Mapping[tuple[int, int], Agreement],
    start: Float64[np.ndarray, " views"],
    v: int,
    at: Float64[np.ndarray, " lags"],
) -> Float64[np.ndarray, " lags"]:
    """Return how well view v agrees with all others if it starts at each of `at`."""
    others = (_score(pairs, u, v, at - start[u]) for u in range(len(start)) if u != v)
    return np.asarray(sum(others, np.zeros(len(at))), np.float64)


def _score(pairs: Mapping[tuple[int, int], Agreement], u: int, v: int, lag: np.ndarray) -> np.ndarray:
    """Return how well view v agrees with view u if it starts `lag` after it."""
    if (u, v) in pairs:
        return pairs[u, v].at(lag)
    return pairs[v, u].at(-lag) if (v, u) in pairs else np.zeros(np.shape(lag))


def _spline(curves: Mapping[tuple[int, int], CubicSpline], u: int, v: int, lag: np.ndarray) -> np.ndarray:
    if (u, v) in curves:
        return np.asarray(curves[u, v](lag))
    return np.asarray(curves[v, u](-lag)) if (v, u) in curves else np.zeros(np.shape(lag))


def _beam_search(
    pairs: Mapping[tuple[int, int], Agreement], start: Float64[np.ndarray, " views"], free: Sequence[int]
) -> Float64[np.ndarray, " views"]:
    """Search whole samples, one view after the other, then adjust each view again given all others."""
    reach = max((a.reach for a in pairs.values()), default=0)
    lags = np.arange(-2 * reach, 2 * reach + 1, dtype=np.float64)
    fixed = [v for v in range(len(start)) if v not in free]
    beam = [(0.0, start.copy())]
    for v in free:
        extended = []
        for total, offsets_so_far in beam:
            scores = sum((_score(pairs, u, v, lags - offsets_so_far[u]) for u in fixed), np.zeros(len(lags)))
            padded = np.pad(scores, 1, constant_values=-np.inf)
            peaks = np.flatnonzero((scores >= padded[:-2]) & (scores >= padded[2:]))
            for peak in peaks[np.argsort(-scores[peaks])][:8].tolist():
                candidate = offsets_so_far.copy()
                candidate[v] = lags[peak]
                extended.append((total + float(scores[peak]), candidate))
        beam = sorted(extended, key=lambda state: -state[0])[:BEAM]
        fixed.append(v)
    best = beam[0][1]
    for _ in range(4):
        for v in free:
            best[v] = lags[int(_total(pairs, best, v, lags).argmax())]
    return best


def _confidence(
    pairs: Mapping[tuple[int, int], Agreement], start: Float64[np.ndarray, " views"], v: int, elsewhere: float
) -> float:
    """Return by what share view v's score exceeds the second-best, times what it shares with the others.

    The second factor is needed because views of different motions agree best somewhere too, and maybe only there.
    """
    reach = max((a.reach for a in pairs.values()), default=0)
    shift = np.arange(-reach, reach + 1, dtype=np.float64)
    scores = _total(pairs, start, v, start[v] + shift)
    best = float(scores[reach])
    alternatives = scores[np.abs(shift) > elsewhere]
    second = max(float(alternatives.max()), 0.0) if len(alternatives) else 0.0
    shared = [pair.shared_at(start[j] - start[i]) for (i, j), pair in pairs.items() if v in (i, j)]
    return float(np.clip(1 - second / best, 0, 1) * min(np.mean(shared) / ALIKE, 1)) if best > 0 else 0.0
