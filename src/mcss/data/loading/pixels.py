"""Images of a capture for training: decoded once and kept where memory allows, else decoded for every batch.

Which of the two is chosen by `pixels_of`. Processes that train on the same images share one copy (`shared_images`).
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from jaxtyping import Int, Int64, UInt8
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.loading.decoding import Decoder, ProcessorDecoder
from mcss.files import one_at_a_time, reserve
from mcss.processes import available_memory, environment, is_running
from mcss.progress import NO_PROGRESS, Progress, say

MEMORY = "MCSS_MEMORY_GB"
"""The environment variable with the memory (10⁹ bytes) that decoded images may take, for all worker processes."""

SHARED = "MCSS_SHARED_IMAGES"
"""The environment variable with the folder in which processes share decoded images."""

_CHUNK = 1024
_FOLDER = "mcss-images"
_PROCESSORS = ProcessorDecoder()


@dataclass(frozen=True, eq=False)
class DecodedPixels:
    """Decoded images of a capture in memory."""

    pixels: UInt8[Tensor, "n 3 size size"]
    """RGB, in the channels_last memory format."""
    index_of: Int64[np.ndarray, " rows"]
    """Index in `pixels` of each row of the capture; -1 if it was not decoded."""

    @classmethod
    def decode(
        cls,
        capture: Capture,
        rows: Int[np.ndarray, "..."],
        size: int | None = None,
        decoder: Decoder = _PROCESSORS,
        progress: Progress = NO_PROGRESS,
    ) -> "DecodedPixels":
        """Decode some rows, each once; processes within `shared_images` decode them once for all.

        Args:
            capture: Where the images are.
            rows: Row numbers such as `Instants.rows`; -1 (a missing view) is skipped.
            size: Width and height to scale to; None keeps the capture's.
            decoder: Who decodes them.
            progress: Notified of every image.

        Raises:
            CaptureError: An image is broken; the message names it.
        """
        size = size or capture.info.image_size
        rows = np.unique(rows[rows >= 0])
        shape = (len(rows), size, size, 3)
        folder = os.environ.get(SHARED)
        if folder is None or not len(rows) or not Path(folder).is_dir():
            pixels = np.empty(shape, np.uint8)
            _fill(pixels, capture, rows, size, decoder, progress)
        else:
            pixels = _shared(Path(folder), shape, capture, rows, size, decoder, progress)
        index_of = np.full(len(capture), -1, np.int64)
        index_of[rows] = np.arange(len(rows))
        decoded = cls(pixels=torch.from_numpy(pixels).permute(0, 3, 1, 2), index_of=index_of)
        _kept.add(decoded)
        return decoded

    def take(self, rows: Int[np.ndarray, " n"]) -> UInt8[Tensor, "n 3 size size"]:
        """Return the images of some rows of the capture.

        Raises:
            ValueError: A row was not decoded.
        """
        indices = self.index_of[rows]
        if (rows < 0).any() or (indices < 0).any():
            absent = int(rows[(rows < 0) | (indices < 0)][0])
            raise ValueError(f"row {absent} of the capture was not decoded; decode all rows that are used")
        # As numpy, colours last as they lie in memory: twenty times as fast as indexing the tensor.
        return torch.from_numpy(self.pixels.permute(0, 2, 3, 1).numpy()[indices]).permute(0, 3, 1, 2)


@dataclass(frozen=True, eq=False)
class StreamedPixels:
    """Images of a capture that are read and decoded for every batch, where memory cannot hold them all."""

    capture: Capture
    size: int | None = None
    decoder: Decoder = _PROCESSORS

    def take(self, rows: Int[np.ndarray, " n"]) -> UInt8[Tensor, "n 3 size size"]:
        """Return the images of some rows of the capture, on the device of the decoder."""
        return self.decoder.decode(self.capture, rows, self.size or self.capture.info.image_size)


Pixels = DecodedPixels | StreamedPixels

_kept: WeakSet[DecodedPixels] = WeakSet()
"""Decoded images that are in use, which count against `limited_memory`."""


def pixels_of(
    capture: Capture,
    rows: Int[np.ndarray, "..."],
    size: int | None = None,
    decoder: Decoder = _PROCESSORS,
    progress: Progress = NO_PROGRESS,
) -> Pixels:
    """Return the images of some rows, decoded once if they fit into `image_memory`, else decoded for every batch.

    A line of the progress says so where they do not fit.

    Args:
        capture: Where the images are.
        rows: Row numbers such as `Instants.rows`; -1 (a missing view) is skipped.
        size: Width and height to scale to; None keeps the capture's.
        decoder: Who decodes them.
        progress: Notified of every image that is decoded now.

    Raises:
        CaptureError: An image is broken; the message names it.
    """
    size = size or capture.info.image_size
    count = len(np.unique(rows[rows >= 0]))
    need, allowed = count * 3 * size * size, image_memory()
    what = f"{count:,} images of {size}×{size} pixels need {need / 1e9:.1f} GB"
    if need <= allowed:
        try:
            return DecodedPixels.decode(capture, rows, size, decoder, progress)
        except _NoRoomError as error:
            say(progress, f"{what}, which {error} does not have, so every step decodes its own.")
    else:
        say(
            progress,
            f"{what} of memory and may take {allowed / 1e9:.1f} (--memory-gb), so every step decodes its own.",
        )
    return StreamedPixels(capture, size, decoder)


def image_memory() -> int:
    """Return the bytes that decoded images may take: those allowed by `limited_memory`, or half of what is free."""
    stated = os.environ.get(MEMORY)
    if stated is None:
        return available_memory() // 2
    return max(0, int(float(stated) * 1e9) - sum(decoded.pixels.nbytes for decoded in _kept))


@contextmanager
def limited_memory(gb: float | None) -> Iterator[None]:
    """Let decoded images take at most so much memory (10⁹ bytes), in this process and those that it starts.

    Args:
        gb: None for half of what is free.

    Raises:
        ValueError: Less than nothing.
    """
    if gb is not None and not gb >= 0:
        raise ValueError(f"memory_gb: expected 0 (decode images anew for every step) or more, got {gb:g}.")
    with environment({} if gb is None else {MEMORY: f"{gb:g}"}):
        yield


@contextmanager
def shared_images(processes: int) -> Iterator[None]:
    """Let the processes that are started within this context share decoded images, where there are several.

    They lie in files that are mapped into memory: in the system's shared memory where there is one, else in the folder
    for temporary files. They are removed at the end.
    """
    if processes < 2 or SHARED in os.environ or os.name != "posix":
        yield
        return
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() and shutil.disk_usage(memory).free > image_memory() else None
    _remove_leftovers(parent or Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}-{os.getpid()}-", dir=parent))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(environment({SHARED: str(folder)}))
        yield


def _remove_leftovers(parent: Path) -> None:
    """Remove the images of programs that were killed."""
    for folder in parent.glob(f"{_FOLDER}-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not is_running(int(owner)) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def _fill(
    pixels: UInt8[np.ndarray, "n size size 3"],
    capture: Capture,
    rows: Int64[np.ndarray, " n"],
    size: int,
    decoder: Decoder,
    progress: Progress,
) -> None:
    with progress.task("Decoding images", len(rows)) as task:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            pixels[start : start + len(chunk)] = decoder.decode(capture, chunk, size).permute(0, 2, 3, 1).cpu().numpy()
            task.advance(len(chunk))


class _NoRoomError(OSError):
    """There is no room for shared images; names the folder."""


def _shared(
    folder: Path,
    shape: tuple[int, int, int, int],
    capture: Capture,
    rows: Int64[np.ndarray, " n"],
    size: int,
    decoder: Decoder,
    progress: Progress,
) -> UInt8[np.ndarray, "n size size 3"]:
    """Map the images that another process has decoded, or decode them for all; the others wait meanwhile.

    The lock of a process that dies is free again, and the next one decodes anew.

    Raises:
        _NoRoomError: There is no room for them.
    """
    key = hashlib.sha256(
        f"{capture.uri} {capture.fingerprint} {size} {decoder.name}".encode() + rows.tobytes()
    ).hexdigest()[:20]
    path = folder / f"{key}.u8"
    with one_at_a_time(folder / f"{key}.lock"):
        if not path.exists():
            temporary = folder / f"{key}.part"
            try:
                reserve(temporary, int(np.prod(shape)))
            except OSError as error:
                raise _NoRoomError(str(folder)) from error
            pixels = np.memmap(temporary, np.uint8, "r+", shape=shape)
            _fill(pixels, capture, rows, size, decoder, progress)
            temporary.rename(path)
    # "c" for a writable view, which torch asks for; nothing writes to it.
    return np.memmap(path, np.uint8, "c", shape=shape)
