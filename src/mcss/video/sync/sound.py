"""The sound of videos, and how much later one recording of the same sound starts than another."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int16

from mcss.video.decoding import load_av, start_of

RATE = 16_000
"""Samples per second that sound is brought to."""

COARSE = 100
"""Samples per second of the loudness by which recordings are matched at first."""

WINDOW = 4.0
"""Seconds of sound that are compared at a time for the exact lag."""

AGREE = 0.003
"""Seconds by which windows may differ and still say the same."""


@dataclass(frozen=True, eq=False)
class Sound:
    """What a camera heard, on the clock of its images."""

    samples: Int16[np.ndarray, " n"]
    """Mono, `RATE` a second; sample 0 belongs to the time of the first image."""

    @property
    def silent(self) -> bool:
        """Whether there is nothing that could be matched."""
        return len(self.samples) < RATE // 4 or float(np.abs(self.samples.astype(np.int32)).max()) < 16


def sound_of(path: Path) -> Sound | None:
    """Decode the sound of a video; None if it has none, or none that can be decoded."""
    av = load_av()
    pieces: list[Int16[np.ndarray, " n"]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return None
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            start: float | None = None
            for frame in container.decode(stream):
                if start is None and frame.pts is not None:
                    start = float(frame.pts * frame.time_base)
                pieces += [_samples(out) for out in resampler.resample(frame)]
            pieces += [_samples(out) for out in resampler.resample(None)]
    except av.error.FFmpegError:
        if not pieces:
            return None
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    late = round(((start or 0.0) - start_of(path)) * RATE)  # microphones may start before or after the images
    return Sound(np.pad(samples, (late, 0)) if late > 0 else samples[-late:])


def _samples(frame: Any) -> Int16[np.ndarray, " n"]:
    return np.asarray(frame.to_ndarray(), np.int16).reshape(-1)


@dataclass(frozen=True, eq=False)
class SoundLag:
    """How a second recording lies to a first one."""

    at: Float64[np.ndarray, " windows"]
    """Seconds of the first recording, the middle of each window."""
    lag: Float64[np.ndarray, " windows"]
    """Seconds by which the second recording starts later, as each window has it."""
    confidence: float
    """Share of the windows that agree, times how clearly the best match stands out."""


def sound_lag(a: Sound, b: Sound, reach: float) -> SoundLag | None:
    """Match two recordings of the same sound; None if they have nothing in common.

    The loudness finds the place, generalised cross-correlation with phase transform (GCC-PHAT) of short windows the
    exact lag. Sound needs 3 ms for every metre: a camera that stands 5 m further away hears 15 ms later.

    Args:
        a: The first recording.
        b: The second one.
        reach: The largest lag in seconds.

    Reference:
        Knapp and Carter, "The generalized correlation method for estimation of time delay", 1976.
    """
    if a.silent or b.silent:
        return None
    coarse, clear = _coarse_lag(_loudness(a), _loudness(b), reach)
    x, y = a.samples, b.samples
    shift = round(coarse * RATE)  # a[t + shift] is b[t]
    first, last = max(shift, 0), min(len(x), len(y) + shift)
    length = min(round(WINDOW * RATE), last - first)
    if length < RATE // 4:
        return None
    at, lag = [], []
    for begin in (
        np.linspace(first, last - length, max(1, min(60, 2 * (last - first) // length - 1))).astype(int).tolist()
    ):
        part_a = x[begin : begin + length].astype(np.float32)
        part_b = y[begin - shift : begin - shift + length].astype(np.float32)
        if min(np.abs(part_a).max(), np.abs(part_b).max()) < 16:
            continue
        at.append((begin + length / 2) / RATE)
        lag.append(coarse + _phase_lag(part_a, part_b, 0.25))
    if not at:
        return None
    times, lags = np.array(at), np.array(lag)
    line = np.median(lags) if len(lags) < 4 else _line(times, lags)
    agree = float((np.abs(lags - line) < AGREE).mean())
    return SoundLag(times, lags, agree * clear)


def _loudness(sound: Sound) -> Float32[np.ndarray, " n"]:
    """How suddenly it gets louder, `COARSE` times a second."""
    step = RATE // COARSE
    count = len(sound.samples) // step
    level = np.sqrt(np.square(sound.samples[: count * step].astype(np.float32)).reshape(count, step).mean(axis=1))
    rise = np.maximum(np.diff(level, prepend=level[:1]), 0)
    rise = np.minimum(rise, np.percentile(rise, 99))  # one bang is not to outweigh everything else
    return np.asarray(rise - rise.mean(), np.float32)


def _coarse_lag(a: Float32[np.ndarray, " n"], b: Float32[np.ndarray, " m"], reach: float) -> tuple[float, float]:
    """The lag in seconds at which loudness agrees best, and how far (0 to 1) it stands above the second-best."""
    size = 1 << int(np.ceil(np.log2(len(a) + len(b))))
    match = np.fft.irfft(np.fft.rfft(a, size) * np.fft.rfft(b, size).conj(), size)
    most = min(round(reach * COARSE), size // 2 - 1)
    match = np.concatenate([match[-most:], match[: most + 1]])
    best = int(match.argmax())
    apart = np.abs(np.arange(len(match)) - best) > COARSE // 10
    second = max(float(match[apart].max()), 0.0) if apart.any() else 0.0
    return (best - most) / COARSE, float(np.clip(1 - second / max(float(match[best]), 1e-12), 0, 1))


def _phase_lag(a: Float32[np.ndarray, " n"], b: Float32[np.ndarray, " n"], reach: float) -> float:
    """The lag in seconds by the phase alone, to a fraction of a sample."""
    size = 1 << int(np.ceil(np.log2(2 * len(a))))
    cross = np.fft.rfft(a - a.mean(), size) * np.fft.rfft(b - b.mean(), size).conj()
    weight = np.abs(cross)
    match = np.fft.irfft(cross / (weight + 1e-3 * weight.max() + 1e-9), size)
    most = min(round(reach * RATE), size // 2 - 1)
    match = np.concatenate([match[-most:], match[: most + 1]])
    best = int(match[1:-1].argmax()) + 1
    left, here, right = match[best - 1 : best + 2]
    bend = left - 2 * here + right
    return float((best - most + (0.5 * (left - right) / bend if bend < 0 else 0.0)) / RATE)


def _line(at: Float64[np.ndarray, " n"], lag: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    slope, start = robust_line(at, lag)
    return np.asarray(start + slope * at, np.float64)


def robust_line(at: Float64[np.ndarray, " n"], lag: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Slope and value at 0 of the line through most of the points (Theil–Sen)."""
    i, j = np.triu_indices(len(at), 1)
    apart = at[j] - at[i]
    slope = float(np.median((lag[j] - lag[i])[apart > 0] / apart[apart > 0])) if (apart > 0).any() else 0.0
    return slope, float(np.median(lag - slope * at))
