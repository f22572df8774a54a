"""What the packets of a video file say about its images: time stamps, keyframes and rates. Nothing is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from mcss.video.reading.container import load_av, opened, unreadable

MOST_REORDERED = 64
"""Number of images by which the order of a file may differ from that in which its images are shown."""

MOST_SHARED = 0.1
"""Share of the images that may have the same time stamp as another one."""

LEAP = 20
"""A recording that would last this many times as long at its usual rate has a clock that leaps."""

SAME = 0.05
"""A stated rate counts if it differs by less than this share from the usual step of a clock that is not used."""


@dataclass(frozen=True, eq=False)
class Scan:
    """What one file of a take holds."""

    stamps: Sequence[int | None]
    """The time stamp of each image, in the file's order."""
    decoded_at: Sequence[int | None]
    """The time stamp at which each image is to be decoded, in the same order."""
    tick: float
    """Seconds that a stamp counts."""
    keyframes: int
    rates: Sequence[float]
    """Images per second that the file states, the best first."""
    stamped: bool
    """Whether decoded images bear the stamps of their packets. AVI states none, so that a decoder that reorders images
    hands them out in the wrong order."""
    filmed_at: float | None
    """Images per second at which a phone says that it filmed what the file shows more slowly."""

    @property
    def step(self) -> float | None:
        """The usual seconds between two images, whatever the clock does between others; None if nothing says so."""
        known = [stamp for stamp in self.decoded_at if stamp is not None] or [s for s in self.stamps if s is not None]
        steps = np.diff(np.array(known, np.float64)) * self.tick
        return float(np.median(steps[steps > 0])) if (steps > 0).any() else None

    @property
    def rate(self) -> float:
        """Images per second where stamps are of no use: a stated rate that fits their usual step, or that step's."""
        step = self.step
        if step is None:
            return next(iter(self.rates), 0.0)
        best = min(self.rates, key=lambda rate: abs(rate * step - 1), default=1 / step)
        return best if abs(best * step - 1) < SAME else 1 / step

    def times(self) -> Float64[np.ndarray, " images"] | None:
        """Return the seconds of all images, on the file's clock, in the order in which they are shown.

        A few images that share a stamp, as a container that counts in milliseconds may write them, lie evenly between
        their neighbours. There are no usable times (None) if images lack a stamp or many share one, if the clock starts
        again or is set back in the middle, or if it leaps.
        """
        if not self.tick or None in self.stamps or not self.stamps:
            return None
        ticks = np.array(self.stamps, np.float64)
        order = np.argsort(ticks, kind="stable")
        seconds = ticks[order] * self.tick
        own, places = np.unique(seconds, return_index=True)
        if len(own) < (1 - MOST_SHARED) * len(seconds) or len(own) < min(len(seconds), 2):
            return None
        if len(own) < len(seconds):
            own, places = np.append(own, own[-1] + np.median(np.diff(own))), np.append(places, len(seconds))
            seconds = np.interp(np.arange(len(seconds)), places, own)
        if np.abs(order - np.arange(len(order))).max() > MOST_REORDERED or self._set_back():
            return None
        steps = np.diff(seconds)
        if len(steps) and seconds[-1] - seconds[0] > LEAP * len(steps) * np.median(steps):
            return None
        return np.asarray(seconds, np.float64)

    @property
    def begins(self) -> float:
        """Seconds that the file's clock shows at its first image."""
        known = [stamp for stamp in self.stamps[:MOST_REORDERED] if stamp is not None]
        if not known:
            return 0.0
        return float((known[0] if self._set_back() else min(known)) * self.tick)

    def _set_back(self) -> bool:
        """Whether the clock is set back on the way: images are never decoded in a falling order of time."""
        known = np.array([stamp for stamp in self.decoded_at if stamp is not None], np.float64)
        return bool((np.diff(known) < 0).any())


def scanned(path: Path) -> Scan:
    """Read the packets of a video file.

    Raises:
        SourceError: The file is no video, or was cut off so that its index is lost.
    """
    av = load_av()
    stamps: list[int | None] = []
    decoded_at: list[int | None] = []
    keyframe_count = 0
    try:
        with opened(path) as (container, stream):
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts)
                    decoded_at.append(packet.dts)
                    keyframe_count += packet.is_keyframe
            rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
            tick, stamped = float(stream.time_base or 0), not container.format.name.startswith("avi")
            filmed_at = _filmed_at(container.metadata)
        return Scan(stamps, decoded_at, tick, keyframe_count, rates, stamped or _in_order(path), filmed_at)
    except av.error.FFmpegError as error:
        raise unreadable(path, error) from error


def _in_order(path: Path) -> bool:
    """Whether the stamps of the first decoded images increase."""
    av = load_av()
    with opened(path) as (container, stream):
        try:
            stamps = [frame.pts for frame in islice(container.decode(stream), MOST_REORDERED)]
        except av.error.FFmpegError:
            return True
    known = [stamp for stamp in stamps if stamp is not None]
    return all(a < b for a, b in pairwise(known))


def _filmed_at(metadata: Any) -> float | None:
    """Return the rate at which a phone with Android filmed a slow-motion video."""
    try:
        return float(metadata["com.android.capture.fps"])
    except (KeyError, ValueError):
        return None
