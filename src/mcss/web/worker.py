"""The process that opens uploaded files, with limited memory and time.

The server itself never decodes an uploaded file. If one crashes a decoder, exhausts the memory or hangs, only this
process ends: the visitor gets an error, and another process takes its place. It returns JSON and bytes, nothing that
could be executed.
"""

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mcss.inference.locate import BoundingBox, Finders
from mcss.models.model import Model, load
from mcss.video.detectors import DetectorName
from mcss.web.analysis import AnalysisResult, RejectedFileError, StoppedError, analyse
from mcss.web.limits import MEGABYTE, Limits
from mcss.web.uploads import MediaKind

_START_SECONDS = 180.0
"""Longest time for loading the model."""

_ENDING_SECONDS = 60.0
"""Longest time for removing the folder of a server that has been killed."""

REPORT_SECONDS = 0.25
"""Shortest time between two reports of how far the work on a file is."""


@dataclass(frozen=True)
class WorkerSettings:
    """The model and the detector that the process uses."""

    run: Path | str | None
    """A run folder or model file; None for the weights shipped with mcss."""
    find: DetectorName | Literal["whole"] | None = None
    """How people are found; see `mcss.inference.locate.Finders`."""
    detector_weights: Path | None = None
    """A file of the detector's weights."""


class WorkError(RuntimeError):
    """Processing a file did not finish."""


class _Reports:
    """Sends how far the work on a file is to the server, and hears from it whether to stop."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._last = 0.0
        self.done, self.total = 0, 1

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator["_Reports"]:
        """Begin the work on a file."""
        self.done, self.total = done, max(total, 1)
        yield self

    def advance(self, steps: int = 1) -> None:
        """Report that more steps are done.

        Raises:
            StoppedError: The server says so.
        """
        self.done += steps
        now = time.monotonic()
        if now - self._last < REPORT_SECONDS:
            return
        self._last = now
        if self._pipe.poll():
            self._pipe.recv_bytes()
            raise StoppedError
        self._pipe.send_bytes(json.dumps({"share": round(min(1.0, self.done / self.total), 3)}).encode())

    def note(self, text: str) -> None:
        """Discard a text."""


class Worker:
    """One process, which takes one file at a time."""

    def __init__(self, settings: WorkerSettings, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self._settings = settings
        self._folder = folder
        self.share: float | None = None
        """How much of the file in work is done, from 0 to 1, as far as is known."""
        self._unwanted = threading.Event()
        self._turn = threading.Lock()
        self._closed = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready = False
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(other, self._settings, self._folder, self.limits), daemon=True, name="mcss serve, files"
        )
        self._process.start()
        other.close()

    def wait_until_ready(self) -> None:
        """Wait until the model is loaded.

        Raises:
            WorkError: The process does not start.
        """
        if not self._ready:
            try:
                if not self._pipe.poll(_START_SECONDS) or self._pipe.recv_bytes() != b"ready":
                    raise EOFError
            except (EOFError, OSError) as error:
                raise WorkError("the process that opens files does not start; the server's log says why") from error
            self._ready = True

    def analyse(self, path: Path, kind: MediaKind, box: BoundingBox | None) -> AnalysisResult:
        """Analyse a file in the process, once earlier files are finished; see `mcss.web.analysis.analyse`.

        Raises:
            ValueError: The file cannot be used; the message is for the visitor who sent it.
            WorkError: The process died, or took too long.
            StoppedError: `cancel` was called meanwhile.
        """
        with self._turn:
            self.share = None
            self._unwanted.clear()
            try:
                self.wait_until_ready()
                self._pipe.send_bytes(json.dumps({"path": str(path), "kind": kind, "box": box}).encode())
                about = self._answer()
                if "error" in about:
                    raise ValueError(about["error"])
                if "cancelled" in about:
                    raise StoppedError
                dim = about.pop("dim")
                embedding = np.frombuffer(self._pipe.recv_bytes(), np.float32).reshape(-1, dim)
                image = self._pipe.recv_bytes()
                return AnalysisResult(about, embedding, [self._pipe.recv_bytes() for _ in about["frames"]], image)
            except (EOFError, OSError) as error:
                self._replace()
                raise WorkError(
                    "this file crashed the program that opens files, which has been started again; the file is damaged "
                    "or needs more memory than is allowed: save it again, smaller"
                ) from error
            except WorkError:
                self._replace()
                raise

    def cancel(self) -> None:
        """Stop the work on the present file at its next report."""
        self._unwanted.set()

    def _answer(self) -> dict[str, Any]:
        """Wait for what comes of a file, and note how far the work is.

        Raises:
            WorkError: It took too long.
        """
        told, end = False, time.monotonic() + self.limits.work_seconds
        while time.monotonic() < end:
            if self._unwanted.is_set() and not told:
                self._pipe.send_bytes(b'{"cancel": true}')
                told = True
            if self._pipe.poll(REPORT_SECONDS):
                about: dict[str, Any] = json.loads(self._pipe.recv_bytes())
                if "share" not in about:
                    return about
                self.share = about["share"]
        raise WorkError(
            f"processing this file took longer than {self.limits.work_seconds:g} s and was stopped; "
            "send a shorter or smaller one"
        )

    def _replace(self) -> None:
        self._process.kill()
        if not self._closed:
            self._tidy()
            self._start()

    def _tidy(self) -> None:
        self._process.join()
        self._process.close()
        self._pipe.close()

    def close(self) -> None:
        """End the process, even in the middle of a file."""
        self._closed = True
        self._process.kill()
        with self._turn:
            self._tidy()


def _work(pipe: Connection, settings: WorkerSettings, folder: Path, limits: Limits) -> None:
    """Run in the process: analyse files until the server ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    ending = threading.Thread(target=_end_with_server, args=(folder,), daemon=True)
    ending.start()
    tempfile.tempdir = str(folder)
    model = load(settings.run)
    finders = Finders.named(settings.find, settings.detector_weights)
    blank = np.zeros((64, 64, 3), np.uint8)
    model.predict(blank)
    if finders.image is not None:
        finders.image.detect([blank])
    _confine(limits)
    try:
        pipe.send_bytes(b"ready")
        while True:
            _analyse_next(pipe, model, finders, limits)
    except (EOFError, ConnectionError):  # the server has been killed
        ending.join(_ENDING_SECONDS)


def _analyse_next(pipe: Connection, model: Model, finders: Finders, limits: Limits) -> None:
    """Wait for a file, analyse it and send what comes of it.

    Raises:
        EOFError: The server has ended.
        ConnectionError: The server has ended while it was sent something.
    """
    job = json.loads(pipe.recv_bytes())
    if "cancel" in job:  # of work that had ended already
        return
    tempfile.tempdir = str(Path(job["path"]).parent)  # of this job, and removed with it
    box = None if job["box"] is None else (job["box"][0], job["box"][1], job["box"][2], job["box"][3])
    try:
        result = analyse(model, Path(job["path"]), job["kind"], box, limits, finders, _Reports(pipe))
    except StoppedError:
        pipe.send_bytes(b'{"cancelled": true}')
        return
    except RejectedFileError as error:
        pipe.send_bytes(json.dumps({"error": str(error)}).encode())
        return
    pipe.send_bytes(json.dumps({**result.about, "dim": result.embedding.shape[1]}, allow_nan=False).encode())
    pipe.send_bytes(np.ascontiguousarray(result.embedding, np.float32).tobytes())
    for data in (result.image, *result.crops):
        pipe.send_bytes(data)


def _end_with_server(folder: Path) -> None:
    """End when the server does, and remove its folder, which a server that was killed leaves behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _confine(limits: Limits) -> None:
    """Limit the memory of this process and the size of its files, and write no core dump if it crashes."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = max(20 * limits.upload_bytes, 1_000 * MEGABYTE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    if Path("/proc/self/statm").exists():
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        most = used + limits.memory_mb * MEGABYTE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
