"""Video files: their properties, and their images one after the other."""

import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.errors import SourceError
from mcss.images import Image
from mcss.video.reading.chapters import chapters_of
from mcss.video.reading.container import load_av, open_container, unreadable, video_stream
from mcss.video.reading.display import Display, Picture
from mcss.video.reading.image_sequences import RATE, images_of_sequence, is_image_sequence, times_of_sequence
from mcss.video.reading.stamps import EVEN, is_even, nearest, rate_of_stamps

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".ts", ".3gp", ".3g2"}
    | {".mxf", ".flv", ".ogv", ".vob", ".dv", ".mod", ".tod"}
)

MOST_REORDERED = 64
"""Number of images by which the order of a file may differ from that in which its images are shown."""

ROUNDED_OFF = 1e-6
"""Two times that differ by no more than this many seconds are the same."""

MOST_SHARED = 0.1
"""Share of the images that may have the same time stamp as another one."""

LEAP = 20
"""A recording that would last this many times as long at its usual rate has a clock that leaps."""


@dataclass(frozen=True)
class VideoFile:
    """A video file as its container describes it; only the first image has been decoded."""

    path: Path
    width: int
    """Width of the displayed image in pixels: upright, with square pixels (`mcss.video.reading.display`)."""
    height: int
    """Height of the displayed image in pixels."""
    rate: float
    """Images per second: one over the median step of the time stamps."""
    count: int
    """Number of images in the container; decoding a damaged file may yield fewer."""
    evenly_timed: bool
    """Whether image i was taken at i / `rate` seconds, by the time stamps."""
    keyframes: int = 0
    """Number of images that can be decoded without those before them."""
    stamps: Float64[np.ndarray, " images"] | None = field(default=None, compare=False, repr=False)
    """Seconds of each image after the first one; None if the container has no usable time stamps."""
    origins: tuple[float, ...] = (0.0,)
    """For each file of the take (`mcss.video.reading.chapters`), its time stamp at the first image of the take."""
    interlaced: bool = False
    """Whether its images are pairs of fields that were taken one after the other."""
    mirrored: bool = False
    """Whether the file says that its images are shown mirrored, so that left and right are exchanged."""

    @property
    def name(self) -> str:
        """The view's name: the file's name without its suffix, composed (NFC) however the file system spells it."""
        return unicodedata.normalize("NFC", self.path.name if self.path.is_dir() else self.path.stem)

    @property
    def seconds(self) -> Float64[np.ndarray, " images"]:
        """The time of each image in seconds after the first one."""
        if self.stamps is None or self.evenly_timed:
            return np.arange(self.count, dtype=np.float64) / self.rate
        return self.stamps

    def image_at(self, seconds: float) -> int:
        """Return the number of the image nearest to a time; past the end, the number that it would have."""
        if self.evenly_timed or not 0 <= seconds <= self.seconds[-1] + 0.5 / self.rate:
            return round(seconds * self.rate) if self.evenly_timed else self.count
        return int(nearest(self.seconds, np.array([seconds]))[0])


def probe(path: Path, image_rate: float = RATE) -> VideoFile:
    """Read the properties of a video file.

    Args:
        path: The first file of a take, or a folder of numbered images.
        image_rate: Images per second of such a folder.

    Raises:
        SourceError: The file is missing, empty, not a video, or was cut off so that its index is lost.
    """
    if is_image_sequence(path):
        height, width = next(images_of_sequence(path)).shape[:2]
        origin, times = times_of_sequence(path, image_rate)
        rate = rate_of_stamps(times, [image_rate])
        return VideoFile(path, width, height, rate, len(times), is_even(times, rate), stamps=times, origins=(origin,))
    _check_not_empty(path)
    parts = [_scanned(part) for part in chapters_of(path)]
    count, keyframe_count = sum(len(part.stamps) for part in parts), sum(part.keyframes for part in parts)
    rates = parts[0].rates
    first = next(decoded_frames(path), None)
    if first is None or not count:
        raise SourceError(f"{path}: no image can be decoded; the file is damaged: copy it again, or remove it")
    origins, seconds = _joined_times(parts)
    rate = rate_of_stamps(np.zeros(0) if seconds is None else seconds, rates)
    if not (math.isfinite(rate) and rate > 0):
        raise SourceError(f"{path}: the file does not state its frame rate; convert it to mp4, or remove it")
    width, height = first.size
    even = seconds is None or is_even(seconds, rate)
    mirrored = first.orientation.mirrors
    interlaced = bool(first.frame.interlaced_frame)
    return VideoFile(path, width, height, rate, count, even, keyframe_count, seconds, origins, interlaced, mirrored)


def _check_not_empty(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a video")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); copy or unpack it again, or remove it")


@dataclass(frozen=True, eq=False)
class _Scan:
    """What one file of a take holds."""

    stamps: Sequence[int | None]
    """The time stamp of each image, in the file's order."""
    tick: float
    """Seconds that a stamp counts."""
    keyframes: int
    rates: Sequence[float]
    """Images per second that the file states, the best first."""


def _scanned(path: Path) -> _Scan:
    av = load_av()
    stamps: list[int | None] = []
    keyframe_count = 0
    try:
        with _opened(path) as (container, stream):
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts)
                    keyframe_count += packet.is_keyframe
            rates = [float(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
            return _Scan(stamps, float(stream.time_base or 0), keyframe_count, rates)
    except av.error.FFmpegError as error:
        raise unreadable(path, error) from error


def _joined_times(parts: Sequence[_Scan]) -> tuple[tuple[float, ...], Float64[np.ndarray, " images"] | None]:
    """Return what the clock of each file shows at the take's first image, and the times of all images after it."""
    origins: list[float] = []
    joined: list[Float64[np.ndarray, " images"]] = []
    begins = 0.0
    for part in parts:
        origin, seconds = _times(part.stamps, part.tick)
        if seconds is None:
            return (0.0,) * len(parts), None
        origins.append(origin - begins)
        joined.append(seconds + begins)
        step = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / max(next(iter(part.rates), 25.0), 1e-3)
        begins = float(joined[-1][-1]) + step
    return tuple(origins), np.concatenate(joined)


def _times(stamps: Sequence[int | None], tick: float) -> tuple[float, Float64[np.ndarray, " images"] | None]:
    """Return the time of a video's first image, and those of all images after it in the order in which they are shown.

    A few images that share a stamp, as a container that counts in milliseconds may write them, lie evenly between their
    neighbours. There are no usable times (None) if images lack a stamp or many share one, if the clock starts again in
    the middle, or if it leaps.
    """
    if not tick or None in stamps or not stamps:
        return 0.0, None
    ticks = np.array(stamps, np.float64)
    order = np.argsort(ticks, kind="stable")
    seconds = (ticks[order] - ticks[order[0]]) * tick
    own, places = np.unique(seconds, return_index=True)
    if len(own) < (1 - MOST_SHARED) * len(seconds) or len(own) < min(len(seconds), 2):
        return 0.0, None
    if len(own) < len(seconds):
        own, places = np.append(own, own[-1] + np.median(np.diff(own))), np.append(places, len(seconds))
        seconds = np.interp(np.arange(len(seconds)), places, own)
    steps = np.diff(seconds)
    restarts = np.abs(order - np.arange(len(order))).max() > MOST_REORDERED
    if restarts or (len(steps) and seconds[-1] > LEAP * len(steps) * np.median(steps)):
        return 0.0, None
    return float(ticks[order[0]] * tick), np.asarray(seconds, np.float64)


def stated_count(path: Path) -> int:
    """Return the number of images that the header of a video states, without reading the file; 0 if it states none.

    Raises:
        SourceError: The file is missing, empty, not a video, or was cut off so that its index is lost.
    """
    av = load_av()
    _check_not_empty(path)
    try:
        count = 0
        for file in chapters_of(path):
            with _opened(file) as (_, stream):
                count += int(stream.frames)
        return count
    except av.error.FFmpegError as error:
        raise unreadable(path, error) from error


def images(path: Path, long_side: int | None = None, every: int = 1) -> Iterator[Image]:
    """Yield the images of a video in order, upright, in RGB; one at a time, so that long videos need no more memory.

    A damaged file ends where it can no longer be decoded: compare the number of images with `VideoFile.count`.

    Args:
        path: A video file.
        long_side: Scale images down so that their longer side has this many pixels; None keeps their size.
        every: Yield every n-th image, from the first on; the others are only decoded.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    for index, picture in enumerate(decoded_frames(path)):
        if index % every == 0:
            yield picture.rgb(long_side)


def images_at(path: Path, numbers: Int64[np.ndarray, " n"]) -> Iterator[Image]:
    """Yield some images of a video, upright, in RGB; fewer if the video ends before them.

    Args:
        path: A video file.
        numbers: Numbers of the images, from 0 and in order; a number may occur several times.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    wanted = iter(numbers.tolist())
    number = next(wanted, None)
    if number is None:
        return
    for index, picture in enumerate(decoded_frames(path)):
        if index < number:
            continue
        image = picture.rgb()
        while number == index:
            yield image
            number = next(wanted, None)
        if number is None:
            return


def times_of(path: Path) -> Float64[np.ndarray, " images"]:
    """Return the time of each image that can be decoded, in seconds after the first; takes as long as decoding.

    Times are the container's time stamps, so that variable frame rates are kept, or evenly spaced if it has none.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    frames = (picture.frame for picture in decoded_frames(path))
    stamps = [None if frame.pts is None else float(frame.pts * frame.time_base) for frame in frames]
    seconds = np.array([np.nan if stamp is None else stamp for stamp in stamps], np.float64)
    if len(seconds) and np.isfinite(seconds).all() and (np.diff(seconds) > 0).all():
        return np.asarray(seconds - seconds[0], np.float64)
    return np.arange(len(seconds), dtype=np.float64) / probe(path).rate


def decoded_count(path: Path) -> int:
    """Return the number of images that can be decoded; takes as long as decoding the video.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    return sum(1 for _ in decoded_frames(path))


def keyframes(path: Path, count: int) -> Iterator[Picture]:
    """Yield up to `count` keyframes spread over a video, decoding nothing else; their numbers are not known (-1).

    Raises:
        SourceError: The file cannot be opened at all.
    """
    files = chapters_of(path)
    for file in files:
        yield from _keyframes(file, -(-count // len(files)))


def _keyframes(path: Path, count: int) -> Iterator[Picture]:
    av = load_av()
    with _opened(path) as (container, stream):
        decoder, display = stream.codec_context, Display(path, stream)
        seen = set()
        for position in (np.arange(count) + 0.5) / count:
            try:
                container.seek((stream.start_time or 0) + int(position * (stream.duration or 0)), stream=stream)
                packet = next((packet for packet in container.demux(stream) if packet.is_keyframe), None)
                if packet is None or packet.pts is None or packet.pts in seen:
                    continue
                seen.add(packet.pts)
                # Without being flushed the decoder holds an image back until it has seen those that follow it.
                frames = decoder.decode(packet) or decoder.decode(None)
            except av.error.FFmpegError:
                continue
            yield from (display.picture(frame, -1) for frame in frames[:1])


def decoded_frames(path: Path) -> Iterator[Picture]:
    """Yield the images of a video in order; a damaged file ends where it cannot be decoded further.

    Raises:
        SourceError: The file cannot be opened at all, or the shape of its images changes.
    """
    av = load_av()
    if is_image_sequence(path):
        display = Display(path, None)
        for i, image in enumerate(images_of_sequence(path)):
            yield display.picture(av.VideoFrame.from_ndarray(image, format="rgb24"), i)
        return
    number = itertools.count()
    shown: Display | None = None
    for part, file in enumerate(chapters_of(path)):
        with _opened(file) as (container, stream):
            stream.thread_type = "AUTO"
            shown = Display(file, stream) if shown is None else shown.continued(file, stream)
            frames = container.decode(stream)
            while True:
                try:
                    frame = next(frames, None)
                except av.error.FFmpegError:
                    frame = None
                if frame is None:
                    break
                yield shown.picture(frame, next(number), part)


def pictures_of(video: VideoFile) -> Iterator[Picture]:
    """Yield the images of a video, numbered by their time stamps: one that cannot be decoded leaves a gap.

    Raises:
        SourceError: The file cannot be opened at all, or the shape of its images changes.
    """
    number = -1
    for picture in decoded_frames(video.path):
        stamp = picture.frame.pts
        following = number + 1
        if video.stamps is not None and stamp is not None:
            at = float(stamp * picture.frame.time_base) - video.origins[picture.part]
            if following >= len(video.stamps) or abs(video.stamps[following] - at) > ROUNDED_OFF:
                here = int(nearest(video.stamps, np.array([at]))[0])
                if abs(video.stamps[here] - at) < EVEN / video.rate and here > number:
                    following = here
        number = following
        yield picture if picture.number == number else replace(picture, number=number)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and yield its container and its video stream."""
    container = open_container(path)
    with container:
        yield container, video_stream(container, path)


def start_time(path: Path) -> float:
    """Return the time stamp of a video's first image in seconds, on the clock of its sound's time stamps."""
    picture = next(decoded_frames(path), None)
    if picture is None or picture.frame.pts is None:
        return 0.0
    return float(picture.frame.pts * picture.frame.time_base)
