"""The sound of videos, on the clock of their images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int16

from mcss.video.reading.chapters import chapters_of
from mcss.video.reading.container import load_av, open_container
from mcss.video.reading.decoding import VideoFile

RATE = 16_000
"""Samples per second to which sound is resampled."""

QUIET = 16
"""Sound whose samples all stay below this (of 32768) is silence."""

GAP = 0.02
"""Seconds by which a piece of sound may stand off the end of the one before it without leaving a gap."""

LEAP = 0.2
"""Seconds by which a clock that is set back, or leaps, is put right."""

MOST_CHANNELS = 12
"""Number of channels of a camera that are compared with those of another one, mixes included."""

LONGER = 60.0
"""Seconds by which sound may outlast twice the video; a time stamp beyond that is a mistake."""


@dataclass(frozen=True, eq=False)
class Sound:
    """What a camera recorded, on the clock of its images."""

    samples: Int16[np.ndarray, " n"]
    """Mono, at `RATE` samples per second; sample 0 was recorded at the time of the first image."""

    @property
    def silent(self) -> bool:
        """Whether there is too little sound to be matched."""
        return len(self.samples) < RATE // 4 or peak(self.samples) < QUIET


def sounds_of(video: VideoFile) -> list[Sound]:
    """Decode everything that a camera recorded: the mean of the channels of each track, and each channel alone.

    A wireless microphone may be on one channel, and the sound that all cameras heard on another, or on a second track.
    Every decoded piece lies at its time stamp, so lost packets leave a gap and do not move what follows. Silent
    channels, and those that repeat one before them, are left out, and so are all beyond the first `MOST_CHANNELS`.
    """
    sounds: list[Sound] = []
    for samples in _channels(video):
        sound = Sound(samples)
        if not sound.silent and not any(_alike(samples, other.samples) for other in sounds):
            sounds.append(sound)
        if len(sounds) == MOST_CHANNELS:
            break
    return sounds


def _channels(video: VideoFile) -> Iterator[Int16[np.ndarray, " n"]]:
    """Yield the sound of each track, mixed and by channel, on the clock of the video's images."""
    if video.path.is_dir():  # a sequence of images
        return
    files = chapters_of(video.path)
    with open_container(files[0]) as container:
        tracks = len(container.streams.audio)
    latest = round((2 * float(video.seconds[-1]) + LONGER) * RATE)
    for track in range(tracks):
        placed = zip(files, video.origins, strict=False)
        leaps = video.stamps is None
        pieces = [piece for file, origin in placed for piece in _pieces(file, track, origin, leaps)]
        pieces = [(start, part[:, : latest - start]) for start, part in pieces if start < latest]
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


def _pieces(path: Path, track: int, origin: float, leaps: bool) -> list[tuple[int, Int16[np.ndarray, "ch n"]]]:
    """Decode a track into pieces without gaps: each with the sample of the video's clock at which it starts.

    A damaged packet is a gap; what follows it is used.

    Args:
        path: The video.
        track: The number of the track.
        origin: Seconds that the file's clock shows at the video's first image.
        leaps: Whether that clock leaps or is set back, so that images are taken as evenly timed; so is the sound then.
    """
    av = load_av()
    pieces: list[tuple[int, Int16[np.ndarray, "ch n"]]] = []
    collected: list[Int16[np.ndarray, "ch n"]] = []
    start, expected, moved = 0.0, None, 0.0
    resampler: Any = None

    def finish() -> None:
        if resampler is not None:
            collected.extend(map(_planar, resampler.resample(None)))
        if collected:
            pieces.append((round((start - origin) * RATE), np.concatenate(collected, axis=1)))
        collected.clear()

    try:
        with open_container(path) as container:
            for packet in container.demux(container.streams.audio[track]):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    expected = None
                    continue
                for frame in frames:
                    at = float(frame.pts * frame.time_base) - moved if frame.pts is not None else expected or origin
                    if leaps and expected is not None and abs(at - expected) > LEAP:
                        at, moved = expected, moved + at - expected
                    if expected is None or abs(at - expected) > GAP:
                        finish()
                        resampler = av.AudioResampler(format="s16p", rate=RATE)
                        start = expected = at
                    collected += map(_planar, resampler.resample(frame))
                    expected += frame.samples / frame.sample_rate
    except av.error.FFmpegError:
        pass  # the file cannot be read further
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


def peak(samples: Int16[np.ndarray, " n"]) -> int:
    """Return the largest absolute value of some samples."""
    return int(np.abs(samples.astype(np.int32)).max())
