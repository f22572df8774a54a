"""How much later one recording of the same sound starts than another, and how certain that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from mcss.video.sync.sound import QUIET, RATE, Sound, peak

COARSE = 100
"""Samples per second of the loudness by which recordings are first matched."""

CANDIDATES = 8
"""Number of lags that each way of comparing two whole recordings proposes."""

APART = 0.1
"""Seconds by which proposed lags differ at least."""

WINDOW = 1.0
"""Seconds of sound that are compared at a time for the exact lag."""

MOST_WINDOWS = 60
"""Number of windows in which a proposed lag is tested at most."""

REACH = 0.25
"""Seconds by which the lag of a window may differ from the proposed one: clocks drift, and loudness is coarse."""

TOLERANCE = 0.003
"""Seconds by which the lags of windows may differ and still agree."""

ELSEWHERE = 0.02
"""Lags at least this many seconds away from a match count as alternatives to it; nearer ones are reflections."""

SURE = 6.0
"""A match in a window counts from this many standard deviations on. Noise reaches 4 to 5 in the thousands of lags of a
window, and 6 in about one of 100 000 windows."""

CHANCE = 5.0
"""Standard deviations that chance may reach, against which a match that counts is held."""

WHOLE = 130.0
"""Seconds of both recordings together up to which the phase of the whole proposes lags: in longer ones clocks drift."""

DRIFT_NEEDS = 20.0
"""Seconds that the measurements must span for the pace of a clock to be estimated."""

MAX_DRIFT = 2e-3
"""A pace that differs more than this from 1 is a mistake, not a clock's."""


@dataclass(frozen=True, eq=False)
class SoundLag:
    """How much later a second recording starts than a first one, measured in the windows that agree."""

    at: Float64[np.ndarray, " windows"]
    """The middle of each window in seconds of the first recording."""
    lag: Float64[np.ndarray, " windows"]
    """Seconds by which the second recording starts later according to each window."""
    confidence: float
    """0 to 1: how clearly and how often windows match, and how few of them match as well at another lag."""


def sound_lag(a: Sound, b: Sound, reach: float | None) -> SoundLag | None:
    """Match two recordings of the same sound; returns None if they have nothing in common.

    Whole recordings propose lags, and the generalised cross-correlation with phase transform (GCC-PHAT) of short
    windows tests them: sound that is shared gives matches that noise does not reach, always at the same lag. Windows
    without a match say nothing, so one clap in a quiet minute is enough. Sound that repeats itself matches at several
    lags, and then none of them is certain.

    Sound takes 3 ms per metre: a camera 5 m farther from the source records it 15 ms later.

    Args:
        a: The first recording.
        b: The second recording.
        reach: The largest lag in seconds; None considers all at which something overlaps.

    Reference:
        Knapp and Carter, "The generalized correlation method for estimation of time delay", 1976.
    """
    if a.silent or b.silent:
        return None
    longest = max(len(a.samples), len(b.samples)) / RATE
    reach = longest if reach is None else min(reach, longest)
    rises = _rise(a), _rise(b)
    tested = (_matched(a, b, shift, *_eventful(*rises, shift)) for shift in _proposed_shifts(a, b, rises, reach))
    found = [_consensus(windows) for windows in tested if windows.clarity.any()]
    if not found:
        return None
    best = max(found, key=lambda candidate: candidate.evidence * candidate.share)
    rivalry = max((_rivalry(a, b, other, best) for other in found if other is not best), default=0.0)
    certain = 1 - (1 - best.share / 2) ** best.events  # a single sound may be like another one, several are not
    agree, windows = best.agree, best.windows
    return SoundLag(windows.at[agree], windows.lag[agree], certain * max(1 - rivalry, 0.0))


@dataclass(frozen=True, eq=False)
class _Windows:
    """Where windows of two recordings match, near a proposed lag."""

    shift: int
    """The proposed lag in samples: sample t + shift of the first recording is sample t of the second one."""
    length: int
    """Number of samples in each window."""
    begins: Int64[np.ndarray, " windows"]
    """The sample of the first recording at which each window begins."""
    lag: Float64[np.ndarray, " windows"]
    """Seconds at which each window matches best."""
    clarity: Float64[np.ndarray, " windows"]
    """How far (0 to 1) that match exceeds the window's second-best, and chance; 0 if it may be chance."""

    @property
    def at(self) -> Float64[np.ndarray, " windows"]:
        """The middle of each window in seconds of the first recording."""
        return np.asarray((self.begins + self.length / 2) / RATE, np.float64)


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A lag, and the windows that agree on it."""

    windows: _Windows
    agree: Bool[np.ndarray, " windows"]
    start: float
    """The lag in seconds at the first recording's start."""
    drift: float
    """Seconds by which the lag grows per second, as one of the clocks runs slow."""

    def lag(self, at: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the lag at times of the first recording, all in seconds."""
        return np.asarray(self.start + self.drift * at, np.float64)

    @property
    def evidence(self) -> float:
        """The clarity of all windows that agree."""
        return float(self.windows.clarity[self.agree].sum())

    @property
    def share(self) -> float:
        """The evidence (0 to 1) per window that matches anywhere."""
        return self.evidence / int((self.windows.clarity > 0).sum())

    @property
    def events(self) -> int:
        """Number of windows that agree and begin at least half a window apart, so that they show different sounds."""
        count, free = 0, -np.inf
        for begin in self.windows.begins[self.agree].tolist():
            if begin >= free:
                count, free = count + 1, begin + self.windows.length // 2
        return count


def _proposed_shifts(a: Sound, b: Sound, rises: Sequence[Float32[np.ndarray, " _"]], reach: float) -> list[int]:
    """Return lags in samples at which loudness agrees, or the phase of all that was recorded."""
    proposals = []
    for share in (99, 100):  # so that one bang does not outweigh everything else, or because it is what both heard
        x, y = (np.minimum(rise, np.percentile(rise, share)) for rise in rises)
        proposals.append(_peaks(_correlation(x, y, round(reach * COARSE), False), COARSE))
    if len(a.samples) + len(b.samples) <= WHOLE * RATE:
        x, y = (sound.samples.astype(np.float32) for sound in (a, b))
        proposals.append(_peaks(_correlation(x, y, round(reach * RATE), True), RATE))
    shifts: list[int] = []
    for shift in (round(lag * RATE) for lags in proposals for lag in lags):
        if all(abs(shift - other) >= APART * RATE / 2 for other in shifts):
            shifts.append(shift)
    return shifts


def _rise(sound: Sound) -> Float32[np.ndarray, " n"]:
    """Return how quickly the sound gets louder, `COARSE` times a second."""
    step = RATE // COARSE
    count = len(sound.samples) // step
    level = np.sqrt(np.square(sound.samples[: count * step].astype(np.float32)).reshape(count, step).mean(axis=1))
    return np.asarray(np.maximum(np.diff(level, prepend=level[:1]), 0), np.float32)


def _correlation(
    a: Float32[np.ndarray, "*windows n"], b: Float32[np.ndarray, "*windows m"], most: int, whiten: bool
) -> Float32[np.ndarray, "*windows lags"]:
    """Correlate signals at lags of -most to most samples, by their phase alone if they are to be whitened."""
    size = -(-(max(a.shape[-1], b.shape[-1]) + most) // 1024) * 1024  # a size whose transform is fast
    x, y = (signal - signal.mean(axis=-1, keepdims=True) for signal in (a, b))
    cross = np.fft.rfft(x, size) * np.fft.rfft(y, size).conj()
    if whiten:
        strength = np.abs(cross)
        cross /= strength + 1e-2 * np.median(strength, axis=-1, keepdims=True) + 1e-9
    match = np.fft.irfft(cross, size)
    return np.asarray(np.concatenate([match[..., -most:], match[..., : most + 1]], axis=-1), np.float32)


def _peaks(match: Float32[np.ndarray, " lags"], rate: int) -> list[float]:
    """Return the lags in seconds of the highest values of a correlation, given its lags per second."""
    match, near, lags = match.copy(), round(APART * rate), []
    for _ in range(CANDIDATES):
        best = int(match.argmax())
        if match[best] <= 0:
            break
        lags.append((best - len(match) // 2) / rate)
        match[max(best - near, 0) : best + near + 1] = 0
    return lags


def _eventful(
    a: Float32[np.ndarray, " n"], b: Float32[np.ndarray, " m"], shift: int
) -> tuple[Int64[np.ndarray, " windows"], int]:
    """Spread windows over the overlap at a lag in samples, each around where both recordings get louder.

    Args:
        a: How quickly the first recording gets louder, `COARSE` times a second.
        b: How quickly the second one does.
        shift: The lag in samples.

    Returns:
        The sample of the first recording at which each window begins, and their length in samples.
    """
    step = RATE // COARSE
    late = round(shift / step)
    first, last = max(late, 0), min(len(a), len(b) + late)
    length = min(round(WINDOW * COARSE), last - first - 1) * step
    if length < RATE // 4:
        return np.zeros(0, np.int64), 0
    louder = a[first:last] * b[first - late : last - late]
    cells = np.array_split(np.arange(first, last), min(MOST_WINDOWS, round(2 * (last - first) / COARSE)))
    middles = np.array([cell[louder[cell - first].argmax()] for cell in cells], np.int64) * step
    begins = (middles - length // 2).clip(max(shift, 0), max(shift, 0) + (last - first - 1) * step - length)
    kept: list[int] = []
    for begin in np.unique(begins).tolist():
        if not kept or begin >= kept[-1] + length // 4:
            kept.append(begin)
    return np.array(kept, np.int64), length


def _matched(a: Sound, b: Sound, shift: int, begins: Int64[np.ndarray, " windows"], length: int) -> _Windows:
    """Find where windows of two recordings match best, at most `REACH` from a lag in samples."""
    parts = [
        [sound.samples[begin : begin + length] for begin in (begins - moved).tolist()]
        for sound, moved in ((a, 0), (b, shift))
    ]
    live = np.array([peak(x) >= QUIET <= peak(y) for x, y in zip(*parts, strict=True)], bool)
    if not live.any():
        return _Windows(shift, length, begins[live], np.zeros(0), np.zeros(0))
    taper = np.hanning(length + 2)[1:-1].astype(np.float32)  # without it, the ends of a hum match at every lag
    x, y = (np.stack([p for p, sounds in zip(part, live, strict=True) if sounds]).astype(np.float32) for part in parts)
    most = min(round(REACH * RATE), length // 2)
    x, y = (taper * (signal - signal.mean(axis=1, keepdims=True)) for signal in (x, y))
    match = _correlation(x, y, most, True)
    best = match[:, 1:-1].argmax(axis=1) + 1
    rows = np.arange(len(match))
    left, height, right = (match[rows, best + k].astype(np.float64) for k in (-1, 0, 1))
    fraction = 0.5 * (left - right) / np.minimum(left - 2 * height + right, -1e-9)
    away = np.abs(np.arange(2 * most + 1) - best[:, None])
    around = (away > 0.001 * RATE) & (away < 0.015 * RATE)  # two short sounds match by chance while both last
    spread = np.sqrt((np.where(around, match, 0) ** 2).sum(axis=1) / around.sum(axis=1))
    spread = np.maximum(spread, match.std(axis=1)).astype(np.float64)
    second = np.where(away < ELSEWHERE * RATE, 0, match).max(axis=1)
    clarity = 1 - np.maximum(second, CHANCE * spread) / np.maximum(height, 1e-9)
    clarity = np.where(height >= SURE * spread, clarity, 0).clip(0, 1)
    return _Windows(shift, length, begins[live], (shift + best - most + fraction) / RATE, clarity)


def _consensus(windows: _Windows) -> _Candidate:
    """Find the lag, constant or drifting, on which windows with the most evidence agree."""
    counted = np.flatnonzero(windows.clarity)
    at, lag = windows.at[counted], windows.lag[counted]
    i, j = np.triu_indices(len(counted), 1)
    slopes = (lag[j] - lag[i]) / (at[j] - at[i])  # a line through any two windows
    drifts = np.abs(slopes) <= MAX_DRIFT
    slopes = np.concatenate([np.zeros(len(counted)), slopes[drifts]])
    starts = np.concatenate([lag, lag[i[drifts]]]) - slopes * np.concatenate([at, at[i[drifts]]])
    agreeing = np.abs(lag - (starts[:, None] + slopes[:, None] * at)) < TOLERANCE
    best = int((agreeing * windows.clarity[counted]).sum(axis=1).argmax())
    agree = np.zeros(len(windows.lag), bool)
    agree[counted] = agreeing[best]
    return _Candidate(windows, agree, float(starts[best]), float(slopes[best]))


def _rivalry(a: Sound, b: Sound, other: _Candidate, best: _Candidate) -> float:
    """Return how much evidence another lag has, relative to the best one: on the whole, and where both overlap.

    At a lag that is wrong by one period, less of a sound that repeats itself overlaps, but what does matches as well.
    """
    windows = best.windows
    apart = other.agree & (np.abs(other.windows.lag - best.lag(other.windows.at)) > ELSEWHERE)
    overall = float(other.windows.clarity[apart].sum())
    if overall == 0:
        return 0.0  # it is the same lag
    first, last = max(other.windows.shift, 0), min(len(a.samples), len(b.samples) + other.windows.shift)
    shared = best.agree & (windows.begins >= first) & (windows.begins + windows.length <= last)
    there = _matched(a, b, other.windows.shift, windows.begins[shared], windows.length)
    again = float(there.clarity[np.abs(there.lag - other.lag(there.at)) < TOLERANCE].sum())
    possible = max(float(windows.clarity[shared].sum()), best.evidence / 2)
    return max(overall / best.evidence, again / possible)


def robust_line(times: Float64[np.ndarray, " n"], lags: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the slope and the value at 0 of the line through most of the points (Theil–Sen)."""
    from scipy.stats import theilslopes  # slow to import

    slope = float(theilslopes(lags, times).slope)
    return slope, float(np.median(lags - slope * times))


def start_and_pace(times: Float64[np.ndarray, " n"], lags: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Fit a clock to the lags measured at times on its own scale: common time = start + pace · own time."""
    if len(times) < 4 or np.ptp(times) < DRIFT_NEEDS:
        return float(np.median(lags)), 1.0
    slope, start = robust_line(times, lags)
    return (start, 1.0 + slope) if abs(slope) < MAX_DRIFT else (float(np.median(lags)), 1.0)
