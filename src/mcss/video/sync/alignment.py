"""Which offsets between views make their signals agree best: every pair of views has its say.

A pair's `Agreement` says how well two signals agree at every lag. The offsets are those at which the agreements of all
pairs sum to the most, so that a pair that is undecided, or wrong, is overruled by the others (cycle consistency).
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
"""Views that share so much of their motion's variance are as alike as views from two sides can be expected to be."""

BEAM = 64
"""So many sets of offsets are followed at a time."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well two views agree for each lag, which is how much later (in samples) the second one starts."""

    score: Float64[np.ndarray, " lags"]
    """At lags −L … L: the logarithm of how much likelier the overlap is if the views show the same motion; `NOWHERE`
    where too little overlaps."""
    shared: Float64[np.ndarray, " lags"] | None = None
    """The share of the motion's variance that both have in common at each lag, as the evidence has it; None: all."""

    @property
    def reach(self) -> int:
        """L."""
        return len(self.score) // 2

    def at(self, lag: Float64[np.ndarray, "*lags"]) -> Float64[np.ndarray, "*lags"]:
        """The score at lags, rounded to samples."""
        index = np.rint(lag).astype(int)
        inside = np.abs(index) <= self.reach
        found: Float64[np.ndarray, "*lags"] = np.where(
            inside, self.score[index.clip(-self.reach, self.reach) + self.reach], NOWHERE
        )
        return found

    def shared_at(self, lag: float) -> float:
        """`shared` at a lag, rounded to samples; 0 beyond the last."""
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
    """Compare two motion profiles at every lag, whatever the directions of "up" are in which they agree.

    For each two directions the correlation ρ of n overlapping samples makes them (1 − ρ²)^(−n/2) times as likely as
    if they had nothing in common (ρ > 0; else 1 time). The mean over all directions, which are not known, is the
    evidence for a lag; to take the best directions at each lag instead lets the offset jump from one pair of them to
    another. Its logarithm is weighted by the share that overlaps: at a large lag little is left that could disagree.

    Args:
        a: The first view's profile.
        b: The second view's, with as many samples a second.
        reach: The largest lag, in samples.
        least: The share of the shorter view that must overlap.
    """
    n, m = a.shape[1], b.shape[1]
    size = 1 << int(np.ceil(np.log2(n + m)))
    lags = np.arange(-reach, reach + 1)
    start, stop = np.maximum(lags, 0), np.minimum(n, m + lags)  # of the overlap, in a
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
    likelier = np.zeros((len(a) * len(b), len(lags)))
    for k, (i, j) in enumerate(itertools.product(range(len(a)), range(len(b)))):
        together = np.fft.irfft((spectrum_a[i] * spectrum_b[j].conj()).sum(axis=1), size)[lags % size]
        together -= (sum_a[i] * sum_b[j]).sum(axis=1) / overlap
        scale = np.sqrt(np.maximum(energy_a[i] * energy_b[j], 0))
        correlation = np.where(scale > 1e-9, together / np.maximum(scale, 1e-9), 0).clip(0, 0.99)
        likelier[k] = -0.5 * overlap * np.log(1 - correlation**2)
    weight = overlap / min(n, m)
    score[enough] = logsumexp(likelier * weight, axis=0) - np.log(len(likelier))
    shared = np.zeros(2 * reach + 1)
    shared[enough] = 1 - np.exp(-2 * score[enough].clip(0) / (overlap * weight))
    return Agreement(score, shared)


@dataclass(frozen=True, eq=False)
class Offsets:
    """Where each view starts, in samples after the first one, and how sure that is."""

    start: Float64[np.ndarray, " views"]
    confidence: Float64[np.ndarray, " views"]
    """0 to 1 for each view: how much better its place is than the second-best, times the motion it shares there."""

    def around(
        self, pairs: Mapping[tuple[int, int], Agreement], v: int, rate: float
    ) -> tuple[Float64[np.ndarray, " lags"], Float64[np.ndarray, " lags"]]:
        """Offsets of view v in seconds, and how well the other views, where they are, agree with each."""
        reach = max((a.reach for a in pairs.values()), default=0)
        lags = self.start[v] + np.arange(-reach, reach + 1, dtype=np.float64)
        agreed = _total(pairs, self.start, v, lags)
        looked = agreed > agreed.min() if len(agreed) else np.zeros(0, bool)  # not where views hardly overlap
        return lags[looked] / rate, agreed[looked]


def offsets(
    pairs: Mapping[tuple[int, int], Agreement],
    views: int,
    elsewhere: float,
    known: Mapping[int, float] | None = None,
) -> Offsets:
    """The offsets that all pairs together agree on best, to a fraction of a sample.

    Args:
        pairs: The agreement of each pair i < j that can be compared.
        views: How many there are.
        elsewhere: What lies this many samples from the best place counts as another place.
        known: Offsets that are known from elsewhere and stay as they are; view 0 at 0 if None.
    """
    known = dict(known or {0: 0.0})
    start = np.zeros(views)
    start[list(known)] = list(known.values())
    free = [v for v in range(views) if v not in known]
    found = _searched(pairs, start, free)
    curves = {pair: CubicSpline(np.arange(-a.reach, a.reach + 1), a.score) for pair, a in pairs.items()}
    for _ in range(6):
        for v in free:
            near = found[v] + np.arange(-1, 1.001, 0.02)
            others = [u for u in range(views) if u != v]
            total = sum((_spline(curves, u, v, near - found[u]) for u in others), np.zeros(len(near)))
            found[v] = near[int(total.argmax())]
    confidence = np.array([_confidence(pairs, found, v, elsewhere) for v in range(views)])
    return Offsets(found, confidence)


def _total(
    pairs: Mapping[tuple[int, int], Agreement],
    start: Float64[np.ndarray, " views"],
    v: int,
    at: Float64[np.ndarray, " lags"],
) -> Float64[np.ndarray, " lags"]:
    """How well view v agrees with all others if it starts at each of `at`."""
    others = (_score(pairs, u, v, at - start[u]) for u in range(len(start)) if u != v)
    return np.asarray(sum(others, np.zeros(len(at))), np.float64)


def _score(pairs: Mapping[tuple[int, int], Agreement], u: int, v: int, lag: np.ndarray) -> np.ndarray:
    """How well view v fits, starting `lag` after view u."""
    if (u, v) in pairs:
        return pairs[u, v].at(lag)
    return pairs[v, u].at(-lag) if (v, u) in pairs else np.zeros(np.shape(lag))


def _spline(curves: Mapping[tuple[int, int], CubicSpline], u: int, v: int, lag: np.ndarray) -> np.ndarray:
    if (u, v) in curves:
        return np.asarray(curves[u, v](lag))
    return np.asarray(curves[v, u](-lag)) if (v, u) in curves else np.zeros(np.shape(lag))


def _searched(
    pairs: Mapping[tuple[int, int], Agreement], start: Float64[np.ndarray, " views"], free: Sequence[int]
) -> Float64[np.ndarray, " views"]:
    """Beam search over whole samples, one view after the other, then each view once more given all others."""
    reach = max((a.reach for a in pairs.values()), default=0)
    lags = np.arange(-2 * reach, 2 * reach + 1, dtype=np.float64)
    placed = [v for v in range(len(start)) if v not in free]
    beam = [(0.0, start.copy())]
    for v in free:
        grown = []
        for total, at in beam:
            scores = sum((_score(pairs, u, v, lags - at[u]) for u in placed), np.zeros(len(lags)))
            padded = np.pad(scores, 1, constant_values=-np.inf)
            peaks = np.flatnonzero((scores >= padded[:-2]) & (scores >= padded[2:]))
            for peak in peaks[np.argsort(-scores[peaks])][:8].tolist():
                placed_here = at.copy()
                placed_here[v] = lags[peak]
                grown.append((total + float(scores[peak]), placed_here))
        beam = sorted(grown, key=lambda state: -state[0])[:BEAM]
        placed.append(v)
    best = beam[0][1]
    for _ in range(4):
        for v in free:
            best[v] = lags[int(_total(pairs, best, v, lags).argmax())]
    return best


def _confidence(
    pairs: Mapping[tuple[int, int], Agreement], found: Float64[np.ndarray, " views"], v: int, elsewhere: float
) -> float:
    """How much better view v's place is than any other, as a share of it, times what it shares with the others there.

    Views that show other motions fit somewhere too, and may fit there alone.
    """
    reach = max((a.reach for a in pairs.values()), default=0)
    shift = np.arange(-reach, reach + 1, dtype=np.float64)
    scores = _total(pairs, found, v, found[v] + shift)
    here = float(scores[reach])
    far = scores[np.abs(shift) > elsewhere]
    second = max(float(far.max()), 0.0) if len(far) else 0.0
    shared = [pair.shared_at(found[j] - found[i]) for (i, j), pair in pairs.items() if v in (i, j)]
    return float(np.clip(1 - second / here, 0, 1) * min(np.mean(shared) / ALIKE, 1)) if here > 0 else 0.0
