"""The sound of videos: how much later one recording of the same sound starts than another."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int16

from mcss.video.reading.chapters import chapters_of
from mcss.video.reading.container import load_av, open_container
from mcss.video.reading.decoding import VideoFile

RATE = 16_000
"""Samples per second to which sound is resampled."""

COARSE = 100
"""Samples per second of the loudness by which recordings are first matched."""

WINDOW = 4.0
"""Seconds of sound that are compared at a time for the exact lag."""

GAP = 0.02
"""Seconds by which a piece of sound may stand off the end of the one before it without leaving a gap."""

MOST_CHANNELS = 4
"""Number of channels of a camera that are compared with those of another one."""

TOLERANCE = 0.003
"""Seconds by which the lags of windows may differ and still agree."""


@dataclass(frozen=True, eq=False)
class Sound:
    """What a camera recorded, on the clock of its images."""

    samples: Int16[np.ndarray, " n"]
    """Mono, at `RATE` samples per second; sample 0 was recorded at the time of the first image."""

    @property
    def silent(self) -> bool:
        """Whether there is too little sound to be matched."""
        return len(self.samples) < RATE // 4 or float(np.abs(self.samples.astype(np.int32)).max()) < 16


def sounds_of(video: VideoFile) -> list[Sound]:
    """Decode everything that a camera recorded: the mean of the channels of each track, and each channel alone.

    A wireless microphone may be on one channel, and the sound that all cameras heard on another, or on a second track.
    Every decoded piece lies at its time stamp, so lost packets leave a gap and do not move what follows. Silent
    channels, and those that repeat one before them, are left out.
    """
    sounds: list[Sound] = []
    for samples in _channels(video):
        sound = Sound(samples)
        if not sound.silent and not any(_alike(samples, other.samples) for other in sounds):
            sounds.append(sound)
    return sounds[:MOST_CHANNELS]


def _channels(video: VideoFile) -> Iterator[Int16[np.ndarray, " n"]]:
    """Yield the sound of each track, mixed and by channel, on the clock of the video's images."""
    if video.path.is_dir():  # a sequence of images
        return
    files = chapters_of(video.path)
    with open_container(files[0]) as container:
        tracks = len(container.streams.audio)
    for track in range(tracks):
        placed = zip(files, video.origins, strict=False)
        pieces = [piece for file, origin in placed for piece in _pieces(file, track, origin)]
        if not pieces:
            continue
        length = max(start + part.shape[1] for start, part in pieces)
        joined = np.zeros((pieces[0][1].shape[0], max(length, 0)), np.int16)
        for start, part in pieces:
            if len(part) != len(joined):
                continue  # the number of channels changes
            skipped = max(-start, 0)  # recorded before the first image
            part = part[:, skipped:]
            joined[:, start + skipped : start + skipped + part.shape[1]] = part
        if len(joined) > 1:
            yield joined.astype(np.int32).mean(axis=0).astype(np.int16)
        yield from joined


def _pieces(path: Path, track: int, origin: float) -> list[tuple[int, Int16[np.ndarray, "ch n"]]]:
    """Decode a track into pieces without gaps: each with the sample of the video's clock at which it starts."""
    av = load_av()
    pieces: list[tuple[int, Int16[np.ndarray, "ch n"]]] = []
    collected: list[Int16[np.ndarray, "ch n"]] = []
    start, expected = 0.0, None
    resampler: Any = None

    def finish() -> None:
        if resampler is not None:
            collected.extend(map(_planar, resampler.resample(None)))
        if collected:
            pieces.append((round((start - origin) * RATE), np.concatenate(collected, axis=1)))
        collected.clear()

    try:
        with open_container(path) as container:
            for frame in container.decode(container.streams.audio[track]):
                at = float(frame.pts * frame.time_base) if frame.pts is not None else expected or origin
                if expected is None or abs(at - expected) > GAP:
                    finish()
                    resampler = av.AudioResampler(format="s16p", rate=RATE)
                    start = expected = at
                collected += map(_planar, resampler.resample(frame))
                expected += frame.samples / frame.sample_rate
    except av.error.FFmpegError:
        pass  # what was decoded before the damage is used
    finish()
    return pieces


def _planar(frame: Any) -> Int16[np.ndarray, "ch n"]:
    return np.asarray(frame.to_ndarray(), np.int16)


def _alike(a: Int16[np.ndarray, " n"], b: Int16[np.ndarray, " m"]) -> bool:
    """Whether two channels hold the same sound, but for its loudness."""
    length = min(len(a), len(b))
    x, y = a[:length:7].astype(np.float64), b[:length:7].astype(np.float64)
    scale = np.sqrt((x * x).sum() * (y * y).sum())
    return bool(scale > 0 and abs((x * y).sum()) > 0.995 * scale)


@dataclass(frozen=True, eq=False)
class SoundLag:
    """How much later a second recording starts than a first one, measured in several windows."""

    at: Float64[np.ndarray, " windows"]
    """The middle of each window in seconds of the first recording."""
    lag: Float64[np.ndarray, " windows"]
    """Seconds by which the second recording starts later according to each window."""
    confidence: float
    """Share of the windows that agree, times how clearly the best match stands out."""


def sound_lag(a: Sound, b: Sound, reach: float | None) -> SoundLag | None:
    """Match two recordings of the same sound; returns None if they have nothing in common.

    The loudness gives a coarse lag, the generalised cross-correlation with phase transform (GCC-PHAT) of short windows
    the exact one. Sound takes 3 ms per metre: a camera 5 m farther from the source records it 15 ms later.

    Args:
        a: The first recording.
        b: The second recording.
        reach: The largest lag in seconds; None considers all at which something overlaps.

    Reference:
        Knapp and Carter, "The generalized correlation method for estimation of time delay", 1976.
    """
    if a.silent or b.silent:
        return None
    reach = max(len(a.samples), len(b.samples)) / RATE if reach is None else reach
    coarse, distinctness = _coarse_lag(_loudness(a), _loudness(b), reach)
    x, y = a.samples, b.samples
    shift = round(coarse * RATE)  # a[t + shift] is b[t]
    first, last = max(shift, 0), min(len(x), len(y) + shift)
    length = min(round(WINDOW * RATE), last - first)
    if length < RATE // 4:
        return None
    window_times, window_lags = [], []
    window_count = max(1, min(60, 2 * (last - first) // length - 1))
    for begin in np.linspace(first, last - length, window_count).astype(int).tolist():
        part_a = x[begin : begin + length].astype(np.float32)
        part_b = y[begin - shift : begin - shift + length].astype(np.float32)
        if min(np.abs(part_a).max(), np.abs(part_b).max()) < 16:
            continue
        window_times.append((begin + length / 2) / RATE)
        window_lags.append(coarse + _phase_lag(part_a, part_b, 0.25))
    if not window_times:
        return None
    times, lags = np.array(window_times), np.array(window_lags)
    expected = np.full(len(lags), np.median(lags))
    if len(lags) >= 4:  # clocks may drift
        slope, start = robust_line(times, lags)
        expected = start + slope * times
    agreeing = float((np.abs(lags - expected) < TOLERANCE).mean())
    return SoundLag(times, lags, agreeing * distinctness)


def _loudness(sound: Sound) -> Float32[np.ndarray, " n"]:
    """Return how quickly the sound gets louder, `COARSE` times a second."""
    step = RATE // COARSE
    count = len(sound.samples) // step
    level = np.sqrt(np.square(sound.samples[: count * step].astype(np.float32)).reshape(count, step).mean(axis=1))
    rise = np.maximum(np.diff(level, prepend=level[:1]), 0)
    lost = level == 0  # a gap, after which sound is not louder than before it
    rise[lost | np.roll(lost, 1) | np.roll(lost, 2)] = 0
    rise = np.minimum(rise, np.percentile(rise, 99))  # so that one bang does not outweigh everything else
    return np.asarray(rise - rise.mean(), np.float32)


def _coarse_lag(a: Float32[np.ndarray, " n"], b: Float32[np.ndarray, " m"], reach: float) -> tuple[float, float]:
    """Return the lag in seconds at which loudness agrees best, and how far (0 to 1) it exceeds the second-best."""
    size = 1 << int(np.ceil(np.log2(len(a) + len(b))))
    match = np.fft.irfft(np.fft.rfft(a, size) * np.fft.rfft(b, size).conj(), size)
    most = min(round(reach * COARSE), size // 2 - 1)
    match = np.concatenate([match[-most:], match[: most + 1]])
    best = int(match.argmax())
    apart = np.abs(np.arange(len(match)) - best) > COARSE // 10
    second = max(float(match[apart].max()), 0.0) if apart.any() else 0.0
    return (best - most) / COARSE, float(np.clip(1 - second / max(float(match[best]), 1e-12), 0, 1))


def _phase_lag(a: Float32[np.ndarray, " n"], b: Float32[np.ndarray, " n"], reach: float) -> float:
    """Return the lag in seconds derived from the phase alone, to a fraction of a sample."""
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


def robust_line(times: Float64[np.ndarray, " n"], lags: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Return the slope and the value at 0 of the line through most of the points (Theil–Sen)."""
    from scipy.stats import theilslopes  # slow to import

    slope = float(theilslopes(lags, times).slope)
    return slope, float(np.median(lags - slope * times))


DRIFT_NEEDS = 20.0
"""Seconds that the measurements must span for the pace of a clock to be estimated."""

MAX_DRIFT = 2e-3
"""A pace that differs more than this from 1 is a mistake, not a clock's."""


def start_and_pace(times: Float64[np.ndarray, " n"], lags: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """Fit a clock to the lags measured at times on its own scale: common time = start + pace · own time."""
    if len(times) < 4 or np.ptp(times) < DRIFT_NEEDS:
        return float(np.median(lags)), 1.0
    slope, start = robust_line(times, lags)
    return (start, 1.0 + slope) if abs(slope) < MAX_DRIFT else (float(np.median(lags)), 1.0)
