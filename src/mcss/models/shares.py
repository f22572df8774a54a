"""Shares of a capture's rows, for which the workers of this machine or of a cluster predict with a stored model."""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mcss.data.capture import Capture
from mcss.errors import CaptureError, CheckpointError, ClusterError
from mcss.models.model_file import MODEL
from mcss.models.prediction import Result
from mcss.progress import Task
from mcss.workers import Lost, Ray, Report, Work, Workers, results

SHARE = 1024
"""Rows in a share: seconds of work, and no more is lost when a worker is killed."""


@dataclass(frozen=True)
class Stored:
    """A capture and a model as every worker finds them on its machine; they are checked to be the same there."""

    capture: str
    fingerprint: str
    model: Path
    digest: str

    @classmethod
    def of(cls, capture: Capture, model: Path) -> "Stored":
        """Describe a capture and a run folder or model file, for workers on other machines as well."""
        uri = capture.uri if "://" in capture.uri else str(Path(capture.uri).absolute())
        return cls(uri, capture.fingerprint, model.absolute(), _digest(model))

    def opened_capture(self) -> Capture:
        """Open the capture.

        Raises:
            CaptureError: It is missing on this machine, or another one.
        """
        capture = Capture.open(self.capture)
        if capture.fingerprint != self.fingerprint:
            raise CaptureError(
                f"the capture at {self.capture} is not the same on all machines: {capture.fingerprint} here, "
                f"{self.fingerprint} where the work began; copy it, or put it where all machines reach it"
            )
        return capture

    def checked_model(self) -> Path:
        """Return the path of the model.

        Raises:
            CheckpointError: It is missing on this machine, or another one.
        """
        if _digest(self.model) != self.digest:
            raise CheckpointError(
                f"{self.model}: is not the same on all machines; copy it, or put it where all machines reach it"
            )
        return self.model


@dataclass(frozen=True, eq=False)
class Share:
    """Some rows of a capture."""

    start: int
    """Position of the first among all rows that are asked for."""
    rows: Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class Reported:
    """A task whose steps a worker reports."""

    report: Report

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more are done."""
        self.report(steps)

    def note(self, text: str) -> None:
        """Show nothing, since a worker shows nothing."""


def shared_out(
    work: Work[Share, Result],
    rows: Int64[np.ndarray, " n"],
    workers: Workers,
    task: Task,
    size: int = SHARE,
) -> Iterator[tuple[Share, Result]]:
    """Yield every share of some rows with its result as soon as it is done, in any order.

    Args:
        work: The work on a share; a module's function or a `functools.partial` of one.
        rows: Rows of a capture.
        workers: Processes or a cluster.
        task: Advanced by the rows that are done, as `Reported` reports them.
        size: Rows in a share.

    Raises:
        ClusterError: A share ended its worker twice, after all others are done; or there is no such cluster.
    """
    shares = [Share(start, rows[start : start + size]) for start in range(0, len(rows), size)]
    lost: list[tuple[Share, str]] = []
    with closing(results(work, shares, workers, task.advance)) as done:
        for share, result in done:
            if isinstance(result, Lost):
                lost.append((share, result.reason))
            else:
                if isinstance(workers, Ray):  # whose workers cannot report what they do
                    task.advance(len(share.rows))
                yield share, result
    if lost:
        count = sum(len(share.rows) for share, _ in lost)
        raise ClusterError(
            f"{count:,} of {len(rows):,} images were not processed, from row {lost[0][0].rows[0]} on: {lost[0][1]}. "
            "What was finished is kept: run the same command again"
        )


def _digest(model: Path) -> str:
    path = model / MODEL if model.is_dir() else model
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{model}: there is no model that can be read ({error.strerror})") from error
