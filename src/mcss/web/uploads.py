"""Open uploaded files safely: determine what they are from their content, and enforce the limits.

Names, endings and the length stated in a header are not trusted. The size of an image is read before it is decoded. A
video is decoded once, image by image within the limits, into a small copy, and only the copy is used.
"""

import warnings
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import PIL.Image
from PIL import UnidentifiedImageError

from mcss.errors import ImageError, SourceError
from mcss.images import Image, decode_image, scaled_down
from mcss.inference.overlays import write_video
from mcss.video.reading.container import decoded, load_av, video_stream
from mcss.video.reading.display import Display, Picture
from mcss.video.spool import ImageSpool
from mcss.web.limits import Limits

MediaKind = Literal["image", "video"]

LONG_SIDE = 720
"""Longer side in pixels of the copy of a video."""

STEP = 1 / 15
"""Smallest time in seconds between two images of the copy of a video."""

_IMAGES = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_CONTAINERS = {"mp4": b"ftyp", "matroska": b"\x1a\x45\xdf\xa3", "avi": b"RIFF"}
_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "h263"})
_EXPECTED = "expected an image (JPEG, PNG, WebP, BMP, TIFF) or a video (MP4, MOV, WebM, MKV, AVI)"


class UploadError(ValueError):
    """An uploaded file cannot be used; the message is for the visitor who sent it."""


def kind_of(head: bytes) -> MediaKind:
    """Determine what a file is from its first bytes.

    Args:
        head: At least the first 16 bytes.

    Raises:
        UploadError: The file is neither an image nor a video of a supported format.
    """
    if not head:
        raise UploadError("the file is empty (0 bytes); choose another")
    if container_of(head) is not None:
        return "video"
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0", b"MM\0*")
    if head.startswith(starts) or (head.startswith(b"RIFF") and head[8:12] == b"WEBP"):
        return "image"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypavif"):
        raise UploadError("HEIC and AVIF images cannot be read here; save the image as JPEG and choose that")
    raise UploadError(f"this is not a file that can be read here; {_EXPECTED}")


def container_of(head: bytes) -> str | None:
    """FFmpeg's name of a video's container, from its first bytes; None if it is not a supported one."""
    if head[4:8] == b"ftyp" and head[8:12] not in (b"heic", b"heix", b"mif1", b"avif"):
        return "mp4"
    if head.startswith(_CONTAINERS["matroska"]):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    return None


def read_upload(path: Path, limits: Limits) -> Image:
    """Read an uploaded image, upright and in RGB, scaled down if it is large.

    Raises:
        UploadError: The image is damaged, or has too many pixels.
    """
    data = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about Pillow's own, higher limit
            with _header(path) as header:
                width, height = header.size
    except PIL.Image.DecompressionBombError:
        raise UploadError(f"the image has more than {limits.megapixels:g} million pixels; make it smaller") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise UploadError("the image is damaged or cut off; save or copy it again") from error
    if width * height > limits.megapixels * 1e6:
        raise UploadError(
            f"the image has {width}×{height} pixels, more than {limits.megapixels:g} million; make it smaller"
        )
    try:
        return scaled_down(decode_image(data, "the image"), 2 * LONG_SIDE)
    except ImageError as error:
        raise UploadError(str(error)) from error


def _header(path: Path) -> Any:
    return PIL.Image.open(path, formats=_IMAGES)


def copy_video(path: Path, copy: Path, limits: Limits) -> tuple[str, ...]:
    """Copy a video, as far as it can be decoded, to a small MP4 without sound, at most 15 images per second.

    Returns:
        Notes for the visitor on what could not be decoded.

    Raises:
        UploadError: The video is damaged, of an unsupported format, too long, or too large.
    """
    av = load_av()
    with path.open("rb") as file:
        container = container_of(file.read(16))
    times: list[float] = []
    notes: list[str] = []
    with closing(ImageSpool()) as spool:
        try:
            # Naming the demuxer keeps a file from passing for a playlist, which could make FFmpeg open other files.
            options = {"protocol_whitelist": "file"}
            with av.open(str(path), format=container, options=options, metadata_errors="replace") as opened:
                lost = _collect(opened, limits, spool, times)
            if lost:
                notes.append(f"the video is damaged: images that cannot be decoded ({lost}) are left out")
        except av.error.FFmpegError as error:
            if not len(spool):
                raise UploadError("the video is damaged or cut off; save or copy it again") from error
            notes.append(f"the video is damaged: what comes after {times[-1] - times[0]:.1f} s cannot be read")
        if not len(spool):
            raise UploadError("none of the video's images can be decoded; save or copy it again")
        write_video(copy, (spool[i] for i in range(len(spool))), np.array(times) - times[0])
    return tuple(notes)


def _collect(container: Any, limits: Limits, spool: ImageSpool, times: list[float]) -> int:
    """Decode the images of a video within the limits; returns how many packets of it cannot be decoded."""
    if not container.streams.video:
        raise UploadError("the file contains only sound, no video")
    stream = video_stream(container, Path("the video"))
    display = Display(Path("the video"), stream)
    codec = "something unknown" if stream.codec_context is None else stream.codec_context.codec.canonical_name
    if codec not in _CODECS:
        raise UploadError(f"the video is coded as {codec}, which cannot be read here; save it as MP4 (H.264)")
    if stream.width * stream.height > limits.megapixels * 1e6:
        raise UploadError(
            f"the video has images of {stream.width}×{stream.height} pixels, more than {limits.megapixels:g} "
            "million; make it smaller"
        )
    too_long = UploadError(
        f"the video is longer than {limits.seconds:g} s; cut out the part that matters, or ask the person who runs "
        "this page to start it with a larger --seconds"
    )
    stated = container.duration
    if stated is not None and stated > (limits.seconds + 0.5) * 1e6:
        raise too_long
    rate = float(stream.average_rate or 25)
    lost: list[int] = []
    for number, frame in enumerate(decoded(container, stream, lost)):
        time = float(frame.pts * frame.time_base) if frame.pts is not None else number / rate
        if number > 240 * limits.seconds or (times and time - times[0] > limits.seconds + 0.5):
            raise too_long
        if times and time - times[-1] < 0.9 * STEP:
            continue
        if frame.width * frame.height > limits.megapixels * 1e6:  # the size may change within a video
            raise UploadError(f"the video has images of more than {limits.megapixels:g} million pixels")
        try:
            image = _small(display.picture(frame, number))
        except SourceError as error:
            raise UploadError(str(error)) from error
        spool.append(image)
        times.append(time)
    return len(lost)


def _small(picture: Picture) -> Image:
    """Return an image of a video as it is shown, scaled down, with even sides."""
    image = picture.rgb(LONG_SIDE)
    height, width = (max(16, side) for side in image.shape[:2])
    if (height, width) != image.shape[:2]:
        image = np.asarray(cv2.resize(image, (width, height)), np.uint8)
    return np.ascontiguousarray(image[: height // 2 * 2, : width // 2 * 2])
