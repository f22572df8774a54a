"""Video files: what they are, and their images one after the other."""

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
class Footage:
    """One video file as its container describes it; nothing is decoded for this but the first image."""

    path: Path
    width: int
    """Of the upright image: a phone's rotation mark is applied."""
    height: int
    rate: float
    """Images per second."""
    count: int
    """Images in the container; a damaged file may give fewer when decoded."""
    steady: bool
    """Whether the time stamps are evenly spaced (to one and a half images), as synchronised cameras' are."""
    keys: int = 0
    """Images among them that can be decoded without those before."""

    @property
    def name(self) -> str:
        """The view: the file's name without its ending."""
        return self.path.stem


def probe(path: Path) -> Footage:
    """Read what a video file is.

    Raises:
        SourceError: It is missing, empty, no video, or cut off so that its index is lost.
    """
    av = load_av()
    _see_that_it_holds_something(path)
    stamps: list[int] = []
    count = keys = 0
    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container, path)
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    count += 1
                    keys += packet.is_keyframe
                    if packet.pts is not None:
                        stamps.append(packet.pts)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            tick = float(stream.time_base or 0)
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    first = next(images(path), None)
    if first is None or not count:
        raise SourceError(f"{path}: not one image can be decoded; the file is damaged: copy it again, or remove it")
    if not (math.isfinite(rate) and rate > 0):
        raise SourceError(f"{path}: the file does not state its frame rate; write it anew as mp4, or remove it")
    height, width = first.shape[:2]
    return Footage(path, width, height, rate, count, _steady(np.array(stamps, np.float64) * tick, rate), keys)


def _see_that_it_holds_something(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a video")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); copy or unpack it again, or remove it")


def _steady(seconds: Float64[np.ndarray, " images"], rate: float) -> bool:
    if not len(seconds):  # the container has no time stamps: its images follow each other evenly
        return True
    late = np.sort(seconds) - seconds.min() - np.arange(len(seconds)) / rate
    return bool(np.abs(late).max() <= 1.5 / rate)


def stated_count(path: Path) -> int:
    """Images that the header of a video states, without reading it through; 0 if it does not.

    Raises:
        SourceError: It is missing, empty, no video, or cut off so that its index is lost.
    """
    av = load_av()
    _see_that_it_holds_something(path)
    try:
        with av.open(str(path)) as container:
            return int(_video_stream(container, path).frames)
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error


def images(path: Path, long_side: int | None = None, every: int = 1) -> Iterator[Image]:
    """The images of a video in order, upright, in RGB; one at a time, so that length costs no memory.

    A damaged file ends where it can no longer be decoded: compare the number of images with `Footage.count`.

    Args:
        path: A video file.
        long_side: Scale images down so that the longer side has this many pixels; None keeps them as they are.
        every: Give only every so many-th image, from the first on; the others cost no more than their decoding.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    for index, frame in enumerate(decoded(path)):
        if index % every == 0:
            yield _upright_rgb(frame, long_side)


def images_at(path: Path, numbers: Int64[np.ndarray, " n"]) -> Iterator[Image]:
    """Some images of a video, upright, in RGB; fewer if it ends before them.

    Args:
        path: A video file.
        numbers: Which ones, from 0 and in order; one may come several times.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    wanted = iter(numbers.tolist())
    number = next(wanted, None)
    if number is None:
        return
    for index, frame in enumerate(decoded(path)):
        if index < number:
            continue
        image = _upright_rgb(frame, None)
        while number == index:
            yield image
            number = next(wanted, None)
        if number is None:
            return


def times_of(path: Path) -> Float64[np.ndarray, " images"]:
    """When each image that can be decoded is shown, in seconds from the first; takes as long as decoding them.

    By the container's time stamps, so that variable frame rates are kept; evenly spaced where it has none.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    stamps = [None if frame.pts is None else float(frame.pts * frame.time_base) for frame in decoded(path)]
    seconds = np.array([np.nan if stamp is None else stamp for stamp in stamps], np.float64)
    if len(seconds) and np.isfinite(seconds).all() and (np.diff(seconds) > 0).all():
        return np.asarray(seconds - seconds[0], np.float64)
    return np.arange(len(seconds), dtype=np.float64) / probe(path).rate


def decoded_count(path: Path) -> int:
    """Images of a video that can be decoded; takes as long as decoding it.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    return sum(1 for _ in decoded(path))


def key_images(path: Path, count: int) -> Iterator[Any]:
    """Up to `count` images spread over a video, as PyAV's frames; only those are decoded that stand for themselves.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    av = load_av()
    with _opened(path) as (container, stream):
        decoder = stream.codec_context
        seen = set()
        for part in (np.arange(count) + 0.5) / count:
            try:
                at = (stream.start_time or 0) + int(part * (stream.duration or 0))
                container.seek(at, stream=stream)
                key = next((packet for packet in container.demux(stream) if packet.is_keyframe), None)
                if key is None or key.pts is None or key.pts in seen:
                    continue
                seen.add(key.pts)
                # Left to itself the decoder holds an image back until it has seen those that follow it.
                frames = decoder.decode(key) or decoder.decode(None)
            except av.error.FFmpegError:
                continue
            yield from frames[:1]


def decoded(path: Path) -> Iterator[Any]:
    """The images of a video in order, as PyAV's frames; a damaged file ends where it can no longer be decoded.

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
    """A video's container and its video stream."""
    av = load_av()
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    with container:
        yield container, _video_stream(container, path)


def start_of(path: Path) -> float:
    """The time stamp of a video's first image in seconds, from which its sound's stamps are to be counted."""
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
    quarter_turns = round(frame.rotation / 90) % 4  # the container's mark: degrees counter-clockwise
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def _video_stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise SourceError(f"{path}: there is no video in the file (sound only?); remove it from the folder")
    return container.streams.video[0]


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path}: cannot be read as a video ({error}); the file is damaged or was cut off before the camera "
        "finished it: copy it again, repair it, or remove it"
    )


def load_av() -> ModuleType:
    """PyAV, which is an extra.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        import av
        import av.error
    except ImportError as error:
        raise ImportError("reading videos needs PyAV: install it with `pip install 'mcss[video]'`") from error
    return av
