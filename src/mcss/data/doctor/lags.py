"""Whether the views of a capture run in step, from what moves in their images or from where the labels are seen.

A lag is counted in instants and positive where a view runs behind: it shows at ``t + lag`` what it should at ``t``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

BANDS = 4
"""Horizontal bands of an image whose motion is told apart: what is high or low is so for all cameras alike."""


@dataclass(frozen=True)
class SyncLimits:
    """When views count as out of step."""

    longest_lag: int = 10
    """Instants by which a view may be off; a longer lag is not looked for."""
    certainty: float = 3.5
    """Standard deviations by which another lag must agree better than none."""
    agreement: float = 0.5
    """Correlation that the other lag must reach at least."""


@dataclass(frozen=True)
class Lag:
    """The lag at which a view agrees best."""

    view: int
    lag: int
    correlation: float
    at_zero: float
    certainty: float
    """Standard deviations by which it is better than no lag."""

    def out_of_step(self, limits: SyncLimits) -> bool:
        """Whether this is certain enough to be a fault."""
        return self.lag != 0 and self.certainty >= limits.certainty and self.correlation >= limits.agreement


def motion_lags(parts: Sequence[Float[np.ndarray, "_ views bands"]], limits: SyncLimits) -> list[Lag]:
    """The lag of each view against the mean of the others, from motion energies of several sequences.

    The view that is most certainly out of step is found first and left out of the means for the others.

    Args:
        parts: Motion energies between successive instants, a row each; a sequence of at least 12. NaN where a view
            is missing.
        limits: What counts as out of step.
    """
    signals = [_standard(np.log(part + 0.1)) for part in parts if len(part) >= 12]
    left = list(range(signals[0].shape[1])) if signals else []
    found: list[Lag] = []
    while len(left) >= 2:
        lags = [_lag_of(signals, view, [other for other in left if other != view], limits) for view in left]
        worst = max(lags, key=lambda lag: lag.certainty if lag.out_of_step(limits) else 0.0)
        if not worst.out_of_step(limits):
            return sorted(found + lags, key=lambda lag: lag.view)
        found.append(worst)
        left.remove(worst.view)
    return sorted(found, key=lambda lag: lag.view)


def projection_lag(
    seen: Float[np.ndarray, "n 2"], boxes: Float[np.ndarray, "n 4"], limits: SyncLimits
) -> tuple[int, float, float]:
    """The lag at which labels, as a camera sees them, move with its crops; and how far they are off then and at 0.

    Distances are medians in shares of the crop's side. A lag of 0 is kept unless another at least halves a distance
    that is above 0.03.

    Args:
        seen: Middle of the labelled person in source pixels at each instant of a sequence; NaN without label.
        boxes: The crops; NaN where the view is missing.
        limits: The longest lag.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.nanmedian(boxes[:, 2] - boxes[:, 0]) if np.isfinite(boxes).any() else np.nan
    longest = min(limits.longest_lag, len(seen) // 3)
    off = np.full(2 * longest + 1, np.inf)
    for place, lag in enumerate(range(-longest, longest + 1)):
        shown, labelled = _shifted(middle, lag), _shifted(seen, -lag)
        away = shown - labelled
        away = away[np.isfinite(away).all(axis=1)]
        if len(away) >= 8:
            # A person need not be in the middle of the crop: what stays the same is no fault.
            off[place] = np.median(np.linalg.norm(away - np.median(away, axis=0), axis=1)) / side
    best, none = int(np.argmin(off)), float(off[longest])
    if np.isfinite(none) and none > 0.03 and off[best] < 0.5 * none:
        return best - longest, float(off[best]), none
    return 0, none, none


def _lag_of(
    signals: Sequence[Float[np.ndarray, "_ views bands"]], view: int, others: list[int], limits: SyncLimits
) -> Lag:
    shortest = min(len(signal) for signal in signals)
    longest = min(limits.longest_lag, shortest // 3)
    total, weights = np.zeros(2 * longest + 1), 0.0
    for signal in signals:
        own, mean = signal[:, view], np.nan_to_num(signal[:, others]).mean(axis=1)
        own = np.nan_to_num(own)
        weight = max(_independent(own, mean) - 3.0, 1.0)
        curve = [_correlation(_shifted(own, lag), _shifted(mean, -lag)) for lag in range(-longest, longest + 1)]
        total += weight * np.arctanh(np.clip(curve, -0.99, 0.99))
        weights += weight
    fisher = total / weights
    best = int(np.argmax(fisher))
    return Lag(
        view=view,
        lag=best - longest,
        correlation=float(np.tanh(fisher[best])),
        at_zero=float(np.tanh(fisher[longest])),
        certainty=float((fisher[best] - fisher[longest]) * np.sqrt(weights / 2)),
    )


def _shifted(values: Float[np.ndarray, "n ..."], lag: int) -> Float[np.ndarray, "m ..."]:
    """What is left of `values` when the first `lag`, or for a negative lag the last, are left away."""
    return values[lag:] if lag >= 0 else values[:lag]


def _standard(signal: Float[np.ndarray, "n views bands"]) -> Float[np.ndarray, "n views bands"]:
    standard: Float[np.ndarray, "n views bands"] = (signal - _nanmean(signal)) / (_deviation(signal) + 1e-6)
    return standard


def _nanmean(signal: Float[np.ndarray, "n views bands"]) -> Float[np.ndarray, "views bands"]:
    known = np.isfinite(signal)
    mean: Float[np.ndarray, "views bands"] = np.where(known, signal, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean


def _deviation(signal: Float[np.ndarray, "n views bands"]) -> Float[np.ndarray, "views bands"]:
    deviation: Float[np.ndarray, "views bands"] = np.sqrt(_nanmean((signal - _nanmean(signal)) ** 2))
    return deviation


def _correlation(a: Float[np.ndarray, "n bands"], b: Float[np.ndarray, "n bands"]) -> float:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))


def _independent(a: Float[np.ndarray, "n bands"], b: Float[np.ndarray, "n bands"]) -> float:
    """How many independent samples two smooth signals come to (Bartlett)."""
    n, extra = len(a), 0.0
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    powers = (a * a).sum() * (b * b).sum() + 1e-12
    for lag in range(1, n // 3):
        both = (a[lag:] * a[:-lag]).sum() * (b[lag:] * b[:-lag]).sum() / powers
        extra += max(0.0, float(both)) * (1 - lag / n)
    return max(4.0, n / (1 + 2 * extra))
