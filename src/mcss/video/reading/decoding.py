"""Video files: their properties, and their images one after the other."""

import itertools
import math
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from mcss.errors import SourceError
from mcss.images import Image
from mcss.video.reading.chapters import chapters_of
from mcss.video.reading.container import decoded, load_av, opened, unreadable
from mcss.video.reading.display import Display, Picture
from mcss.video.reading.image_sequences import RATE, images_of_sequence, is_image_sequence, times_of_sequence
from mcss.video.reading.scan import Scan, scanned
from mcss.video.reading.stamps import EVEN, is_even, nearest, rate_of_stamps

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".ts", ".3gp", ".3g2"}
    | {".mxf", ".flv", ".ogv", ".vob", ".dv", ".mod", ".tod"}
)

ROUNDED_OFF = 1e-6
"""Two times that differ by no more than this many seconds are the same."""


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
    stamped: bool = True
    """Whether decoded images bear their time stamps, and not those of other images."""
    interlaced: bool = False
    """Whether its images are pairs of fields that were taken one after the other."""
    mirrored: bool = False
    """Whether the file says that its images are shown mirrored, so that left and right are exchanged."""
    filmed_at: float | None = None
    """Images per second at which a phone says that it filmed; the file may show them more slowly."""

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
    parts = [scanned(part) for part in chapters_of(path)]
    count, keyframe_count = sum(len(part.stamps) for part in parts), sum(part.keyframes for part in parts)
    first = next(decoded_frames(path), None)
    if first is None or not count:
        raise SourceError(f"{path}: no image can be decoded; the file is damaged: copy it again, or remove it")
    origins, seconds = _joined_times(parts)
    rate = parts[0].rate if seconds is None else rate_of_stamps(seconds, parts[0].rates)
    if not (math.isfinite(rate) and rate > 0):
        raise SourceError(f"{path}: the file does not state its frame rate; convert it to mp4, or remove it")
    width, height = first.size
    even = seconds is None or is_even(seconds, rate)
    return VideoFile(
        path,
        width,
        height,
        rate,
        count,
        even,
        keyframe_count,
        seconds,
        origins,
        stamped=all(part.stamped for part in parts),
        interlaced=bool(first.frame.interlaced_frame),
        mirrored=first.orientation.mirrors,
        filmed_at=parts[0].filmed_at,
    )


def _check_not_empty(path: Path) -> None:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a video")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); copy or unpack it again, or remove it")


def _joined_times(parts: Sequence[Scan]) -> tuple[tuple[float, ...], Float64[np.ndarray, " images"] | None]:
    """Return what the clock of each file shows at the take's first image, and the times of all images after it.

    There are no times (None) if those of any file cannot be used.
    """
    origins: list[float] = []
    joined: list[Float64[np.ndarray, " images"] | None] = []
    begins = 0.0
    for part in parts:
        seconds = part.times()
        own = part.begins + np.arange(len(part.stamps)) / max(part.rate, 1e-3) if seconds is None else seconds
        if not len(own):
            return (0.0,) * len(parts), None
        origins.append(float(own[0]) - begins)
        joined.append(None if seconds is None else seconds - own[0] + begins)
        step = float(np.median(np.diff(own))) if len(own) > 1 else 1 / max(next(iter(part.rates), 25.0), 1e-3)
        begins += float(own[-1] - own[0]) + step
    usable = [seconds for seconds in joined if seconds is not None]
    return tuple(origins), np.concatenate(usable) if len(usable) == len(parts) else None


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
            with opened(file) as (_, stream):
                count += int(stream.frames)
        return count
    except av.error.FFmpegError as error:
        raise unreadable(path, error) from error


def images(path: Path, long_side: int | None = None, every: int = 1) -> Iterator[Image]:
    """Yield the images of a video in order, upright, in RGB; one at a time, so that long videos need no more memory.

    Images that cannot be decoded are passed over: compare the number of images with `VideoFile.count`.

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


def decoded_times(video: VideoFile) -> Float64[np.ndarray, " images"]:
    """Return the time of each image that can be decoded, as in `VideoFile.seconds`; takes as long as decoding.

    Raises:
        SourceError: The file cannot be opened at all.
    """
    numbers = np.array([picture.number for picture in pictures_of(video)], np.int64)
    inside = numbers.clip(max=video.count - 1)
    return np.asarray(video.seconds[inside] + (numbers - inside) / video.rate, np.float64)


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
    with opened(path) as (container, stream):
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
    """Yield the images of a video in order; those that cannot be decoded are passed over.

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
        with opened(file) as (container, stream):
            stream.thread_type = "AUTO"
            shown = Display(file, stream) if shown is None else shown.continued(file, stream)
            with suppress(av.error.FFmpegError):  # the file ends where it cannot be read further
                for frame in decoded(container, stream):
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
        if video.stamps is not None and video.stamped and stamp is not None:
            at = float(stamp * picture.frame.time_base) - video.origins[picture.part]
            if following >= len(video.stamps) or abs(video.stamps[following] - at) > ROUNDED_OFF:
                here = int(nearest(video.stamps, np.array([at]))[0])
                if abs(video.stamps[here] - at) < EVEN / video.rate and here > number:
                    following = here
        number = following
        yield picture if picture.number == number else replace(picture, number=number)


def start_time(path: Path) -> float:
    """Return the time stamp of a video's first image in seconds, on the clock of its sound's time stamps."""
    picture = next(decoded_frames(path), None)
    if picture is None or picture.frame.pts is None:
        return 0.0
    return float(picture.frame.pts * picture.frame.time_base)
