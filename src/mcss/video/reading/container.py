"""Opening video files, and which of their streams shows the scene."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mcss.errors import SourceError


def open_container(path: Path) -> Any:
    """Open a file with PyAV.

    The path is made absolute, because FFmpeg takes what stands before a colon in a relative path for a protocol. Text
    in the file that is not UTF-8 is of no interest here.

    Raises:
        SourceError: The file cannot be opened.
    """
    av = load_av()
    try:
        return av.open(str(path.absolute()), metadata_errors="replace")
    except (av.error.FFmpegError, UnicodeError) as error:
        raise unreadable(path, error) from error


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and yield its container and its video stream.

    Raises:
        SourceError: The file cannot be opened, or contains no video.
    """
    container = open_container(path)
    with container:
        yield container, video_stream(container, path)


def decoded(container: Any, stream: Any, lost: list[int] | None = None) -> Iterator[Any]:
    """Yield the frames of a stream; a packet that cannot be decoded is passed over, and its size goes to `lost`.

    Raises:
        av.error.FFmpegError: The container cannot be read further.
    """
    damaged = load_av().error.FFmpegError
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except damaged:
            if lost is not None:
                lost.append(packet.size)
            continue
        yield from frames


def video_stream(container: Any, path: Path) -> Any:
    """Return the stream that shows the scene: not the cover picture or the thumbnails that some cameras add."""
    attached, thumbnails = 0x400, 0x800  # FFmpeg's dispositions
    streams = container.streams.video
    if not streams:
        raise SourceError(f"{path}: the file contains no video (sound only?); remove it from the folder")

    def worth(stream: Any) -> tuple[bool, bool, bool, int]:
        disposition = int(stream.disposition)
        moving = not disposition & (attached | thumbnails) and stream.frames != 1
        size = stream.width * stream.height if stream.codec_context is not None else 0
        return stream.codec_context is not None, moving, bool(disposition & 1), size

    return max(streams, key=worth)  # of equals, the first


def unreadable(path: Path, error: Exception) -> SourceError:
    """Return the error of a file that is no video, or a damaged one."""
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
