"""Whether the views of a capture run in step, from what moves in their images or from where labels are seen.

A lag is counted in instants and is positive if a view runs behind: it shows at ``t + lag`` what it should at ``t``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from mcss.data.doctor.checks import CASES, Case, Check, unchecked
from mcss.data.doctor.examine import ExaminedCapture
from mcss.data.doctor.images import BANDS

MOVED_MM = 200.0
"""Distance that the joints of a band move together from instant to instant for motion that is clearly seen."""

SHORTEST = 12
"""The number of instants that a sequence must have to be checked."""


@dataclass(frozen=True)
class SyncLimits:
    """When views count as out of step."""

    longest_lag: int = 10
    """Longest lag in instants that is looked for."""
    certainty: float = 3.5
    """Standard deviations by which another lag must agree better than none."""
    agreement: float = 0.5
    """Correlation that the other lag must reach at least."""


@dataclass(frozen=True)
class Lag:
    """The lag at which a view agrees best with the others."""

    view: int
    lag: int
    correlation: float
    at_zero: float
    """Correlation without a lag."""
    certainty: float
    """Standard deviations by which the lag agrees better than none."""

    def out_of_step(self, limits: SyncLimits) -> bool:
        """Whether this is certain enough to be a fault."""
        return self.lag != 0 and self.certainty >= limits.certainty and self.correlation >= limits.agreement


def check_sync(
    examined: ExaminedCapture, without: Bool[np.ndarray, " n"], limits: SyncLimits
) -> tuple[Check, Bool[np.ndarray, "n views"]]:
    """Check sequences with cameras and poses by where labels are seen, and the others by what moves.

    Args:
        examined: The capture.
        without: Instants whose labels are known to be wrong.
        limits: When views count as out of step.

    Returns:
        The check, and the images of views that are out of step.
    """
    instants = examined.instants
    bad = np.zeros(instants.rows.shape, bool)
    if len(instants.views) < 2:
        return unchecked("sync", "one view alone"), bad
    cases: list[Case] = []
    doubts: list[str] = []
    unlabelled: dict[int, list[Int64[np.ndarray, " k"]]] = {}
    parts = [np.flatnonzero(examined.part == number) for number in np.unique(examined.part)]
    parts = [members for members in parts if len(members) >= SHORTEST]
    for members in parts:
        use = examined.known[members] & ~without[members, None]
        if use.sum(axis=0).min() >= SHORTEST:
            cases += _check_by_projection(examined, members, use, bad, limits)
        else:
            unlabelled.setdefault(int(instants.subject[members[0]]), []).append(members)
    for of_subject in unlabelled.values():
        more_cases, more_doubts = _check_by_motion(examined, of_subject, bad, limits)
        cases += more_cases
        doubts += more_doubts
    if not parts:
        return unchecked("sync", f"no sequence of {SHORTEST} instants"), bad
    looked = f"{len(parts):,} sequence{'s' * (len(parts) != 1)}, {len(instants.views)} views"
    if cases:
        text = "views do not run in step: shift them by these offsets and import them again"
        return Check("sync", looked, len(cases), "fault", text, tuple(cases[:CASES])), bad
    if doubts:
        return Check("sync", looked, 0, "note", "too little moves to be certain: " + "; ".join(doubts)), bad
    return Check("sync", looked, 0, "ok", ""), bad


def check_label_times(examined: ExaminedCapture, without: Bool[np.ndarray, " n"], limits: SyncLimits) -> Check:
    """Check that labels move when the images do, in sequences whose cameras are not known.

    How much moves in each band from head to foot is compared, as between views; with cameras, `check_sync` compares
    where labels are seen.
    """
    instants = examined.instants
    labelled = np.zeros(len(instants), bool)
    labelled[examined.labelled] = True
    parts = []
    for number in np.unique(examined.part):
        members = np.flatnonzero((examined.part == number) & labelled & ~without)
        if len(members) > SHORTEST and not examined.known[members].any():
            parts.append(members)
    if not parts and examined.known.any():
        return Check("labels in time", "where cameras see them (sync)", 0, "ok", "")
    if not parts:
        return unchecked("labels in time", "no sequence with enough labels")
    signals = []
    for members in parts:
        seen = _nanmean_views(np.log(examined.facts.motion[members[1:]] + 0.1))
        moved = np.log(_moved(instants.pose[members].astype(np.float64)) / MOVED_MM + 0.1)
        signals.append(_standardised(np.stack([moved, seen], axis=1)))
    lag = _lag_of(signals, 0, [1], limits)
    looked = f"{len(parts):,} sequence{'s' * (len(parts) != 1)}"
    if not lag.out_of_step(limits):
        return Check("labels in time", looked, 0, "ok", "")
    step = float(np.median(np.diff(instants.time[parts[0]])))
    side, sign = ("late", -1) if lag.lag > 0 else ("early", 1)
    text = (
        f"labels move {abs(lag.lag)} instants ({abs(lag.lag) * step:.2f} s) too {side} (motion agrees "
        f"{lag.correlation:.2f} then, {lag.at_zero:.2f} as it is); add {sign * abs(lag.lag) * step:+.2f} s to "
        "--poses.offset and import again"
    )
    middle = int(parts[0][len(parts[0]) // 2])
    return Check("labels in time", looked, len(parts), "fault", text, (Case(text, examined.rows(middle)),))


def _nanmean_views(motion: Float[np.ndarray, "n views bands"]) -> Float[np.ndarray, "n bands"]:
    """The mean over views, 0 where no view is known."""
    known = np.isfinite(motion)
    total = np.where(known, motion, 0).sum(axis=1)
    mean: Float[np.ndarray, "n bands"] = total / np.maximum(known.sum(axis=1), 1)
    return mean


def _moved(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "m bands"]:
    """How far joints move from instant to instant in each band of the body, from head to foot, in mm."""
    height = pose[1:, :, 2]
    low, high = height.min(axis=1, keepdims=True), height.max(axis=1, keepdims=True)
    band = ((high - height) / np.maximum(high - low, 1.0) * BANDS).astype(int).clip(0, BANDS - 1)
    step = np.linalg.norm(np.diff(pose, axis=0), axis=2)
    moved: Float[np.ndarray, "m bands"] = np.stack([np.where(band == b, step, 0).sum(axis=1) for b in range(BANDS)], 1)
    return moved


def motion_lags(parts: Sequence[Float[np.ndarray, "_ views bands"]], limits: SyncLimits) -> list[Lag]:
    """The lag of each view against the mean of the others, from motion energies of several sequences.

    The view that is most certainly out of step is found first and left out of the means for the others.

    Args:
        parts: Motion energies between successive instants, a row each, of sequences with at least 12 rows (others are
            ignored). NaN if a view is missing.
        limits: When views count as out of step.
    """
    signals = [_standardised(np.log(part + 0.1)) for part in parts if len(part) >= 12]
    remaining = list(range(signals[0].shape[1])) if signals else []
    settled: list[Lag] = []
    while len(remaining) >= 2:
        lags = [_lag_of(signals, view, [other for other in remaining if other != view], limits) for view in remaining]
        worst = max(lags, key=lambda lag: lag.certainty if lag.out_of_step(limits) else 0.0)
        if not worst.out_of_step(limits):
            return sorted(settled + lags, key=lambda lag: lag.view)
        settled.append(worst)
        remaining.remove(worst.view)
    return sorted(settled, key=lambda lag: lag.view)


def projection_lag(
    middle: Float[np.ndarray, "n 2"], boxes: Float[np.ndarray, "n 4"], limits: SyncLimits
) -> tuple[int, float, float]:
    """The lag at which labels, as a camera sees them, move with its crops.

    A lag of 0 is kept unless another lag at least halves a distance that is above 0.03.

    Args:
        middle: Middle of the labelled person in source pixels at each instant of a sequence; NaN without label.
        boxes: Crop boxes; NaN if the view is missing.
        limits: States the longest lag.

    Returns:
        The lag, and the median distance between labels and crops (in sides of a crop) at this lag and at 0.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.nanmedian(boxes[:, 2] - boxes[:, 0]) if np.isfinite(boxes).any() else np.nan
    longest = min(limits.longest_lag, len(middle) // 3)
    distances = np.full(2 * longest + 1, np.inf)
    for i, lag in enumerate(range(-longest, longest + 1)):
        offset = _shifted(centre, lag) - _shifted(middle, -lag)
        offset = offset[np.isfinite(offset).all(axis=1)]
        if len(offset) >= 8:
            # A person need not be in the middle of the crop: a constant offset is not a fault.
            distances[i] = np.median(np.linalg.norm(offset - np.median(offset, axis=0), axis=1)) / side
    best, at_zero = int(np.argmin(distances)), float(distances[longest])
    if np.isfinite(at_zero) and at_zero > 0.03 and distances[best] < 0.5 * at_zero:
        return best - longest, float(distances[best]), at_zero
    return 0, at_zero, at_zero


def _check_by_projection(
    examined: ExaminedCapture,
    members: Int64[np.ndarray, " k"],
    use: Bool[np.ndarray, "k views"],
    bad: Bool[np.ndarray, "n views"],
    limits: SyncLimits,
) -> list[Case]:
    """Views of one sequence whose crops move as its labels do at another time; marks them in `bad`."""
    cases = []
    for view in range(use.shape[1]):
        middle = np.where(use[:, view, None], _middle(examined.projected[members, view]), np.nan)
        lag, _, at_zero = projection_lag(middle, examined.boxes[members, view], limits)
        if lag:
            bad[members, view] = True
            cases.append(_case(examined, members, view, lag, f"labels are seen {at_zero:.0%} of a crop away"))
    return cases


def _check_by_motion(
    examined: ExaminedCapture,
    parts: Sequence[Int64[np.ndarray, " _"]],
    bad: Bool[np.ndarray, "n views"],
    limits: SyncLimits,
) -> tuple[list[Case], list[str]]:
    """Views of one person that move at another time than the others, in all sequences or in one; marks them in `bad`.

    Returns:
        The cases, and if there are none, the views that may be out of step.
    """

    def check(group: Sequence[Int64[np.ndarray, " _"]]) -> tuple[list[Case], list[Lag]]:
        lags = motion_lags([examined.facts.motion[members[1:]] for members in group], limits)
        late = [lag for lag in lags if lag.out_of_step(limits)]
        for lag in late:
            bad[np.concatenate(group), lag.view] = True
        why = "motion agrees {0.correlation:.2f} then, {0.at_zero:.2f} without"
        return [_case(examined, group[0], lag.view, lag.lag, why.format(lag)) for lag in late], lags

    cases, lags = check(parts)  # all sequences together are more certain than each alone
    if not cases and len(parts) > 1:
        cases = [case for members in parts for case in check([members])[0]]
    return cases, [] if cases else _doubts(examined, lags)


def _case(examined: ExaminedCapture, members: Int64[np.ndarray, " k"], view: int, lag: int, why: str) -> Case:
    step = float(np.median(np.diff(examined.instants.time[members])))
    side = "behind" if lag > 0 else "ahead"
    middle = int(members[len(members) // 2])
    name = f"{examined.instants.describe(middle).split(' frame')[0]} view {examined.instants.views[view]}"
    return Case(f"{name} runs {abs(lag)} instants ({abs(lag) * step:.2f} s) {side}: {why}", examined.rows(middle))


def _doubts(examined: ExaminedCapture, lags: Sequence[Lag]) -> list[str]:
    views = examined.instants.views
    return [
        f"view {views[lag.view]} agrees best {abs(lag.lag)} instants {'behind' if lag.lag > 0 else 'ahead'} "
        f"({lag.correlation:.2f}, in step {lag.at_zero:.2f})"
        for lag in lags
        if lag.lag and lag.correlation - lag.at_zero > 0.05
    ]


def _middle(joints: Float32[np.ndarray, "k 17 2"]) -> Float32[np.ndarray, "k 2"]:
    """The middle of the joints' extent in source pixels; NaN if no joint is seen."""
    middle: Float32[np.ndarray, "k 2"] = (np.fmin.reduce(joints, axis=1) + np.fmax.reduce(joints, axis=1)) / 2
    return middle


def _lag_of(
    signals: Sequence[Float[np.ndarray, "_ views bands"]], view: int, others: list[int], limits: SyncLimits
) -> Lag:
    shortest = min(len(signal) for signal in signals)
    longest = min(limits.longest_lag, shortest // 3)
    total, weights = np.zeros(2 * longest + 1), 0.0
    for signal in signals:
        of_view, mean = np.nan_to_num(signal[:, view]), np.nan_to_num(signal[:, others]).mean(axis=1)
        weight = max(_independent_samples(of_view, mean) - 3.0, 1.0)
        curve = [_correlation(_shifted(of_view, lag), _shifted(mean, -lag)) for lag in range(-longest, longest + 1)]
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
    """The values without the first `lag`, or without the last ones for a negative lag."""
    return values[lag:] if lag >= 0 else values[:lag]


def _standardised(signal: Float[np.ndarray, "n views bands"]) -> Float[np.ndarray, "n views bands"]:
    standardised: Float[np.ndarray, "n views bands"] = (signal - _nanmean(signal)) / (_deviation(signal) + 1e-6)
    return standardised


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


def _independent_samples(a: Float[np.ndarray, "n bands"], b: Float[np.ndarray, "n bands"]) -> float:
    """The number of independent samples that two smooth signals are worth (Bartlett)."""
    n, extra = len(a), 0.0
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    powers = (a * a).sum() * (b * b).sum() + 1e-12
    for lag in range(1, n // 3):
        both = (a[lag:] * a[:-lag]).sum() * (b[lag:] * b[:-lag]).sum() / powers
        extra += max(0.0, float(both)) * (1 - lag / n)
    return max(4.0, n / (1 + 2 * extra))
