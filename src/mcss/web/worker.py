"""The process that opens what visitors send. It has the model, little memory and little time, and may die.

The server itself never decodes a file of a stranger's. Should one crash a decoder, exhaust its memory or keep it busy
for ever, this process ends, the visitor is told, and another takes its place. What comes back is JSON and bytes,
nothing that runs.
"""

import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np

from mcss.inference.locate import Rectangle
from mcss.models.model import load
from mcss.video.detectors import DetectorName, person_detector
from mcss.web.analysis import Answer, Refused, answer
from mcss.web.limits import MEGABYTE, Limits

_START_SECONDS = 180.0


@dataclass(frozen=True)
class Means:
    """What the process works with."""

    run: Path | None
    """A run folder or model file; None for the weights shipped with mcss."""
    find: DetectorName | None = None
    """A detector of people."""
    detector_weights: Path | None = None
    """A file of its weights."""


class WorkError(RuntimeError):
    """The work on a file was not brought to an end."""


class Worker:
    """One process, one file at a time."""

    def __init__(self, means: Means, folder: Path, limits: Limits) -> None:
        self.limits = limits
        self._means = means
        self._folder = folder
        self._turn = threading.Lock()
        self._closed = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._ready = False
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_work, args=(other, self._means, self._folder, self.limits), daemon=True, name="mcss serve, files"
        )
        self._process.start()
        other.close()

    def wait_until_ready(self) -> None:
        """Return when the model is loaded.

        Raises:
            WorkError: It cannot be.
        """
        if not self._ready:
            try:
                if not self._pipe.poll(_START_SECONDS) or self._pipe.recv_bytes() != b"ready":
                    raise EOFError
            except (EOFError, OSError) as error:
                raise WorkError("the process that works on files does not start; the server's log says why") from error
            self._ready = True

    def look(self, path: Path, kind: str, box: Rectangle | None) -> Answer:
        """Find the person in a file, and their poses. Waits for its turn.

        Raises:
            ValueError: The file cannot be used; the message is for whoever sent it.
            WorkError: The process died over it, or took too long.
        """
        with self._turn:
            try:
                self.wait_until_ready()
                self._pipe.send_bytes(json.dumps({"path": str(path), "kind": kind, "box": box}).encode())
                if not self._pipe.poll(self.limits.work_seconds):
                    raise WorkError(
                        f"the work on this file took longer than {self.limits.work_seconds:g} s and was given up; "
                        "send a shorter or smaller one"
                    )
                about = json.loads(self._pipe.recv_bytes())
                if "error" in about:
                    raise ValueError(about["error"])
                dim = about.pop("dim")
                embedding = np.frombuffer(self._pipe.recv_bytes(), np.float32).reshape(-1, dim)
                image = self._pipe.recv_bytes()
                return Answer(about, embedding, [self._pipe.recv_bytes() for _ in about["frames"]], image)
            except (EOFError, OSError) as error:
                self._replace()
                raise WorkError(
                    "this file stopped the program that opens files, which has been started again; it is damaged, or "
                    "needs more memory than is allowed: save it anew, smaller"
                ) from error
            except WorkError:
                self._replace()
                raise

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
        """End the process, whatever it does."""
        self._closed = True
        self._process.kill()
        with self._turn:
            self._tidy()


def _work(pipe: Connection, means: Means, folder: Path, limits: Limits) -> None:
    """What the process does: files in, answers out, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's; it ends this process
    threading.Thread(target=_end_with_server, args=(folder,), daemon=True).start()
    tempfile.tempdir = str(folder)
    model = load(means.run)
    finder = None if means.find is None else person_detector(means.find, means.detector_weights)
    model.predict(np.zeros((64, 64, 3), np.uint8))
    _confine(limits)
    pipe.send_bytes(b"ready")
    while True:
        try:
            job = json.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        box = None if job["box"] is None else (job["box"][0], job["box"][1], job["box"][2], job["box"][3])
        try:
            found = answer(model, Path(job["path"]), job["kind"], box, limits, finder)
        except Refused as error:
            pipe.send_bytes(json.dumps({"error": str(error)}).encode())
            continue
        pipe.send_bytes(json.dumps({**found.about, "dim": found.embedding.shape[1]}, allow_nan=False).encode())
        pipe.send_bytes(np.ascontiguousarray(found.embedding, np.float32).tobytes())
        for data in (found.image, *found.crops):
            pipe.send_bytes(data)


def _end_with_server(folder: Path) -> None:
    """End when the server does; one that was killed leaves it to this process to clean up."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _confine(limits: Limits) -> None:
    """Limit this process's memory, the files that it writes, and leave no image of it on the disk if it crashes."""
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
