"""Whether the views of a capture show the same person at the same time, told by how well their landmarks agree."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.data.instants import evenly_spread
from mcss.landmarks.turning import BODY, LEAST_VISIBLE, procrustes
from mcss.landmarks.view_landmarks import ViewLandmarks

FEWEST = 8
"""Instants that two views need in common before anything is said about them."""

NEAR = 120.0
"""Views that are this near to each other, in mm, agree in any case: perhaps the person hardly moves."""

BY_CHANCE = 0.8
"""Views agree if they are nearer to each other than this share of the distance between different moments."""

_APART = 1.0
"""Seconds between two moments that count as different."""

_MOST = 300
"""Instants that are looked at."""

_LARGEST_LAG = 2.0
"""Seconds by which one view is shifted against another to find out whether they are out of step."""

_CLEARLY = 0.92
"""Two views are said to be out of step if shifting brings them to this share of their distance, or nearer."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far each two views are apart after turning one onto the other, as medians in mm over the instants."""

    views: tuple[str, ...]
    distance: Float64[np.ndarray, "views views"]
    """At the same instant; NaN for views that have too few instants in common."""
    by_chance: Float64[np.ndarray, "views views"]
    """Between different moments of the same sequence; NaN if there are none."""
    lag: Float64[np.ndarray, "views views"]
    """Seconds by which the second view has to be taken later to agree best with the first; 0 if it is in step."""

    @property
    def agreeing(self) -> Bool[np.ndarray, "views views"]:
        """Pairs of views that show the same person at the same time as far as can be told."""
        with np.errstate(invalid="ignore"):
            agreeing: Bool[np.ndarray, "views views"] = (self.distance <= NEAR) | (
                self.distance <= BY_CHANCE * self.by_chance
            )
        return agreeing

    @property
    def odd_views(self) -> tuple[str, ...]:
        """Views that agree with none of the others, though there are instants to compare."""
        compared = np.isfinite(self.distance)
        odd = compared.any(axis=1) & ~self.agreeing.any(axis=1)
        return tuple(name for name, is_odd in zip(self.views, odd, strict=True) if is_odd)

    def describe_lag(self) -> str:
        """Name the views that are out of step, and by how much; empty if none is."""
        pairs = [(a, b) for a in range(len(self.views)) for b in range(a + 1, len(self.views)) if self.lag[a, b]]
        return "; ".join(
            f"{self.views[b]} agrees best with {self.views[a]} when it is taken {abs(self.lag[a, b]):.2f} s "
            f"{'later' if self.lag[a, b] > 0 else 'earlier'}"
            for a, b in pairs
        )


def agreement(landmarks: ViewLandmarks) -> Agreement:
    """Compare the views of a capture pair by pair; seconds of work for any number of instants."""
    count = len(landmarks.views)
    distance, by_chance = np.full((2, count, count), np.nan)
    lag = np.zeros((count, count))
    pairs = _Pairs(landmarks)
    for a in range(count):
        for b in range(a + 1, count):
            both = np.flatnonzero(landmarks.seen[:, a] & landmarks.seen[:, b])
            if len(both) < FEWEST:
                continue
            first, second = pairs.moments_apart()
            distance[a, b] = distance[b, a] = pairs.median(a, b, both, both)
            by_chance[a, b] = by_chance[b, a] = pairs.median(a, b, first, second)
            lag[a, b] = pairs.lag(a, b, by_chance[a, b])
            lag[b, a] = -lag[a, b]
    return Agreement(landmarks.views, distance, by_chance, lag)


class _Pairs:
    """Distances between two views at the same or at different instants."""

    def __init__(self, landmarks: ViewLandmarks) -> None:
        body = list(BODY)
        known = np.isfinite(landmarks.world).all(axis=3)
        self._points = np.where(known[..., None], landmarks.world, 0.0)[:, :, body].astype(np.float64)
        self._weight = (np.clip(landmarks.visibility, LEAST_VISIBLE, 1) * known)[:, :, body].astype(np.float64)
        self._instants, self._seen = landmarks.instants, landmarks.seen
        keys = self._instants.subject * (self._instants.sequence.max(initial=0) + 1) + self._instants.sequence
        self._key = keys
        steps = np.diff(self._instants.time)[np.diff(keys) == 0]
        self.step = float(np.median(steps)) if len(steps) else 0.0

    def median(self, a: int, b: int, first: Int64[np.ndarray, " k"], second: Int64[np.ndarray, " k"]) -> float:
        """Median distance of view `a` at some instants from view `b` at others; NaN if there are too few."""
        seen = self._seen[first, a] & self._seen[second, b]
        first, second = first[seen], second[seen]
        if len(first) < FEWEST:
            return float("nan")
        few = evenly_spread(len(first), _MOST)
        first, second = first[few], second[few]
        both = self._weight[first, a] * self._weight[second, b]
        rotation, shift = procrustes(self._points[first, a], self._points[second, b], both)
        squares = np.square(self._points[first, a] @ rotation + shift - self._points[second, b]).sum(axis=2)
        return float(np.median(np.sqrt((squares * both).sum(axis=1) / np.maximum(both.sum(axis=1), 1e-9))))

    def moments_apart(self) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
        """Pairs of different moments of the same sequence."""
        random = np.random.default_rng(0)
        n = len(self._key)
        first, second = random.integers(0, n, (2, 20 * _MOST))
        time = self._instants.time
        apart = (self._key[first] == self._key[second]) & (np.abs(time[first] - time[second]) >= _APART)
        return first[apart][:_MOST], second[apart][:_MOST]

    def lag(self, a: int, b: int, by_chance: float) -> float:
        """Seconds by which `b` has to be taken later to agree with `a`; 0 if shifting does not clearly help."""
        if not self.step:
            return 0.0
        n, largest = len(self._key), max(1, round(_LARGEST_LAG / self.step))
        distances = {}
        for shift in range(-largest, largest + 1, max(1, largest // 25)):
            first = np.arange(max(0, -shift), min(n, n - shift))
            same = self._key[first] == self._key[first + shift]
            distances[shift] = self.median(a, b, first[same], first[same] + shift)
        known = {shift: value for shift, value in distances.items() if np.isfinite(value)}
        if 0 not in known:
            return 0.0
        best = min(known, key=lambda shift: known[shift])
        # A best lag at the very end of what was tried is a trend and not a match.
        within = min(known) < best < max(known)
        helps = within and known[best] < _CLEARLY * known[0] and known[best] <= BY_CHANCE * by_chance
        return best * self.step if helps else 0.0
