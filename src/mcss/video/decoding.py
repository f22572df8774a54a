"""Video files: their properties, and their images one after the other."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.errors import SourceError
from mcss.images import Image

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv"})


@dataclass(frozen=True)
class VideoFile:
    """A video file as its container describes it; only the first image has been decoded."""

    path: Path
    width: int
    """Width of the upright image in pixels: the rotation that a phone records is applied."""
    height: int
    """Height of the upright image in pixels."""
    rate: float
    """Images per second."""
    count: int
    """Number of images in the container; decoding a damaged file may yield fewer."""
    evenly_timed: bool
    """Whether the time stamps are evenly spaced (to one and a half images), as those of synchronised cameras are."""
    keyframes: int = 0
    """Number of images that can be decoded without those before them."""

    @property
    def name(self) -> str:
        """The view's name: the file's name without its suffix."""
        return self.path.stem


def probe(path: Path) -> VideoFile:
    """Read the properties of a video file.

    Raises:
        SourceError: The file is missing, empty, not a video, or was cut off so that its index is lost.
    """
    av = load_av()
    _check_not_empty(path)
    stamps: list[int] = []
    count = keyframe_count = 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    count += 1
                    keyframe_count += packet.is_keyframe
                    if packet.pts is not None:
                        stamps.append(packet.pts)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            tick = float(stream.time_base or 0)
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    first = next(images(path), None)
    if first is None or not count:
        raise SourceError(f"{path}: no image can be decoded; the file is damaged: copy it again, or remove it")
    if not (math.isfinite(rate) and rate > 0):
        raise SourceError(f"{path}: the file does not state its frame rate; convert it to mp4, or remove it")
    height, width = first.shape[:2]
    return VideoFile(
        path, width, height, rate, count, _evenly_timed(np.array(stamps, np.float64) * tick, rate), keyframe_count
    )


def _check_not_empty(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a video")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); copy or unpack it again, or remove it")


def _evenly_timed(seconds: Float64[np.ndarray, " images"], rate: float) -> bool:
    if not len(seconds):  # a container without time stamps: its images are evenly spaced
        return True
    delay = np.sort(seconds) - seconds.min() - np.arange(len(seconds)) / rate
    return bool(np.abs(delay).max() <= 1.5 / rate)


def stated_count(path: Path) -> int:
    """Return the number of images that the header of a video states, without reading the file; 0 if it states none.

    Raises:
        SourceError: The file is missing, empty, not a video, or was cut off so that its index is lost.
    """
    av = load_av()
    _check_not_empty(path)
    try:
        with av.open(str(path)) as container:
            return int(_video_stream(container, path).frames)
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error


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
    for index, frame in enumerate(decoded_frames(path)):
        if index % every == 0:
            yield _upright_rgb(frame, long_side)


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
    for index, frame in enumerate(decoded_frames(path)):
        if index < number:
            continue
        image = _upright_rgb(frame, None)
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
    stamps = [None if frame.pts is None else float(frame.pts * frame.time_base) for frame in decoded_frames(path)]
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


def keyframes(path: Path, count: int) -> Iterator[Any]:
    """Yield up to `count` keyframes spread over a video, as PyAV's frames, decoding nothing else.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    av = load_av()
    with _opened(path) as (container, stream):
        decoder = stream.codec_context
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
            yield from frames[:1]


def decoded_frames(path: Path) -> Iterator[Any]:
    """Yield the images of a video in order, as PyAV's frames; a damaged file ends where it cannot be decoded further.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    av = load_av()
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        frames = container.decode(stream)
        while True:
            try:
                frame = next(frames, None)
            except av.error.FFmpegError:
                return
            if frame is None:
                return
            yield frame


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and yield its container and its video stream."""
    av = load_av()
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    with container:
        yield container, _video_stream(container, path)


def start_time(path: Path) -> float:
    """Return the time stamp of a video's first image in seconds, on the clock of its sound's time stamps."""
    av = load_av()
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            first = next(container.decode(stream), None)
            return float(first.pts * first.time_base) if first is not None and first.pts is not None else 0.0
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error


def _upright_rgb(frame: Any, long_side: int | None) -> Image:
    if long_side is not None and max(frame.width, frame.height) > long_side:
        scale = long_side / max(frame.width, frame.height)
        width, height = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
        frame = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    image: Image = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4  # the container states degrees counter-clockwise
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise SourceError(f"{path}: the file contains no video (sound only?); remove it from the folder")
    return container.streams.video[0]


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path}: cannot be read as a video ({error}); the file is damaged or was cut off before the camera "
        "finished it: copy it again, repair it, or remove it"
    )


def load_av() -> ModuleType:
    """Import PyAV, which is an optional dependency.

    Raises:
        ImportError: PyAV is not installed; the message names the extra.
    """
    try:
        import av
        import av.error
    except ImportError as error:
        raise ImportError("reading videos needs PyAV: install it with `pip install 'mcss[video]'`") from error
    return av
