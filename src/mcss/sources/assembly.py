"""Assembly of a capture from sequences that are still in their original files.

Any number of processes or machines do the work (`mcss.workers`). Rows are written to the disk as they are made,
so long sequences need no more memory than short ones. A sequence is added to the capture completely or not at all; one
that fails is reported at the end, and the next call tries it again.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mcss.data.capture import Capture
from mcss.data.instants import natural_order
from mcss.data.schema import CaptureInfo, Frame, frames_table
from mcss.data.storage import write_pieces
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError, MCSSError, SourceError
from mcss.files import FULL
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.scenes import Background
from mcss.workers import Lost, Report, StoppedError, Workers, checked_worker_count, results

PIECE_BYTES = 32_000_000
"""Bytes of images that a process holds before it writes them."""

Note = Callable[[str], None]
"""Receives a remark for the user: the file, what is unusual about it, and what was done."""


@runtime_checkable
class SourceSequence(Protocol):
    """One sequence of one subject in its original files: a frozen dataclass that can be pickled."""

    @property
    def subject(self) -> str:
        """Name of the subject in the capture."""

    @property
    def sequence(self) -> str:
        """Name of the sequence in the capture, unique within the subject."""

    @property
    def images(self) -> int:
        """Number of rows that the annotation or the files promise, at least 1."""

    def frames(self, note: Note) -> Iterator[Frame | Background | int]:
        """Read the original files and yield the rows in order of their frames, all views of a frame together.

        The empty scene of a view may come anywhere among them. A number between the rows reports that many steps of
        other work (`SearchedSequence`). Work can be stopped at every row and number, so a long search without steps to
        report yields 0 from time to time.

        Raises:
            SourceError: A file is not as expected. No row of the sequence is then kept.
        """


@runtime_checkable
class SearchedSequence(SourceSequence, Protocol):
    """A sequence whose images have to be searched before there are rows."""

    @property
    def steps(self) -> int:
        """Number of rows and of steps of other work together."""


@dataclass(frozen=True)
class SubjectCount:
    """How much of a subject is in a capture, and how much its original files or the data set's description promise."""

    subject: str
    sequences: int
    expected_sequences: int
    images: int
    expected_images: int


@dataclass(frozen=True)
class ImportResult:
    """What an import did."""

    capture: Capture
    imported: tuple[str, ...]
    """Sequences (``subject/sequence``) that this call wrote."""
    kept: tuple[str, ...]
    """Sequences that an earlier call wrote."""
    problems: tuple[str, ...]
    """Why the other sequences are missing; the next call tries them again."""
    notes: tuple[str, ...]
    """What is unusual about the sequences that this call wrote."""
    counts: tuple[SubjectCount, ...]


@dataclass(frozen=True)
class _Outcome:
    """What a process returns for a sequence, whose rows stay on the disk."""

    pieces: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None
    backgrounds: tuple[Background, ...] = ()
    reported_steps: int = 0
    """Steps that the progress has already counted."""


def assemble(
    sequences: Sequence[SourceSequence],
    out: str | Path,
    info: CaptureInfo,
    progress: Progress = NO_PROGRESS,
    *,
    processes: Workers = None,
    problems: Sequence[str] = (),
    expected: Mapping[str, int] | None = None,
) -> ImportResult:
    """Make a capture of sequences, or resume an import that was stopped at any moment.

    Args:
        sequences: What to import; their order decides which are begun first.
        out: Folder or object-store address of the capture.
        info: What is true of the whole capture.
        progress: Counts images.
        processes: Number of processes (1 works in this one), or a cluster; by default one process per processor.
        problems: What is known to be missing; reported together with what fails now.
        expected: Number of sequences that each subject should have; by default the number in `sequences`.

    Raises:
        SourceError: No sequence could be imported; the message gives all reasons.
        ClusterError: There is no such cluster.
        CaptureError: Another capture is at `out`, or it cannot be written.
        ValueError: Fewer than one process.
    """
    checked_worker_count(processes)
    failures = list(problems)
    if not sequences:
        raise SourceError("\n".join([*failures, f"nothing could be imported into {out}: there is not one sequence"]))
    writer = CaptureWriter.open(out, info=info)
    finished = writer.done()
    kept = [sequence for sequence in sequences if (sequence.subject, sequence.sequence) in finished]
    remaining = [sequence for sequence in sequences if (sequence.subject, sequence.sequence) not in finished]
    imported: list[str] = []
    notes: list[str] = []
    work = partial(_write_rows, uri=writer.uri, image_size=info.image_size)
    try:
        with (
            progress.task("Importing sequences", sum(map(_steps, sequences)), sum(map(_steps, kept))) as task,
            closing(results(work, remaining, processes, task.advance)) as outcomes,
        ):
            for sequence, outcome in outcomes:
                if isinstance(outcome, Lost):
                    outcome = _Outcome(problem=f"{_name(sequence)}: {outcome.reason}")
                if outcome.problem is None:
                    scenes = {background.view: background.image for background in outcome.backgrounds}
                    writer.add_backgrounds(scenes, _name(sequence))
                    writer.append_pieces(sequence.subject, sequence.sequence, outcome.pieces)
                    imported.append(_name(sequence))
                    notes += outcome.notes
                else:
                    failures.append(outcome.problem)
                task.note(_name(sequence) + (f" · {len(failures)} failed" if failures else ""))
                task.advance(max(_steps(sequence) - outcome.reported_steps, 0))
    finally:
        writer.sweep()
    if not writer.done():
        raise SourceError("\n".join([*failures, f"nothing could be imported into {out}"]))
    capture = writer.finish(progress)
    counts = _counts(capture, sequences, expected or {})
    return ImportResult(capture, tuple(imported), tuple(map(_name, kept)), tuple(failures), tuple(notes), counts)


def _name(sequence: SourceSequence) -> str:
    return f"{sequence.subject}/{sequence.sequence}"


def _steps(sequence: SourceSequence) -> int:
    return sequence.steps if isinstance(sequence, SearchedSequence) else sequence.images


def _counts(
    capture: Capture, sequences: Sequence[SourceSequence], expected: Mapping[str, int]
) -> tuple[SubjectCount, ...]:
    instants = capture.instants()
    counts = []
    for subject in sorted({sequence.subject for sequence in sequences} | set(expected), key=natural_order):
        in_source = [sequence for sequence in sequences if sequence.subject == subject]
        index = instants.subjects.index(subject) if subject in instants.subjects else -1
        in_capture = instants.take(instants.subject == index)
        counts.append(
            SubjectCount(
                subject,
                len(set(in_capture.sequence.tolist())),
                expected.get(subject, len(in_source)),
                int((in_capture.rows >= 0).sum()),
                sum(sequence.images for sequence in in_source),
            )
        )
    return tuple(counts)


def _write_rows(sequence: SourceSequence, report: Report, *, uri: str, image_size: int) -> _Outcome:
    """Write the rows of a sequence beside the capture.

    Raises:
        CaptureError: The disk is full, so no other sequence could be written either.
    """
    notes: list[str] = []
    pieces: list[Any] = []
    backgrounds: list[Background] = []
    reported_steps = 0

    def count(steps: int) -> None:
        nonlocal reported_steps
        report(steps)
        reported_steps += steps if report.is_counted else 0

    problem = None
    with closing(_tables(sequence, image_size, notes.append, count, backgrounds)) as tables:
        while True:
            try:
                table = next(tables, None)
            except StoppedError:
                problem = f"{_name(sequence)}: stopped"
            except MCSSError as error:
                problem = str(error)
            except (KeyboardInterrupt, SystemExit, GeneratorExit):
                raise
            except BaseException as error:  # libraries written in Rust raise errors that are no Exception
                if isinstance(error, OSError) and error.errno in FULL:  # as the next sequences would
                    raise
                problem = f"{_name(sequence)}: unexpected {type(error).__name__}: {error}"
                if isinstance(error, MemoryError):
                    problem = f"{_name(sequence)}: too little memory; run the same command again with fewer processes"
            if problem is not None:
                return _Outcome(problem=problem, reported_steps=reported_steps)
            if table is None:
                break
            pieces += write_pieces(uri, table)
    if not pieces:
        problem = f"{_name(sequence)}: it contains no image; check its files"
        return _Outcome(problem=problem, reported_steps=reported_steps)
    return _Outcome(tuple(pieces), tuple(notes), None, tuple(backgrounds), reported_steps)


def _tables(
    sequence: SourceSequence,
    image_size: int,
    note: Note,
    count: Callable[[int], None],
    backgrounds: list[Background],
) -> Generator[Any]:
    """Yield the rows of a sequence in tables of about `PIECE_BYTES`; its empty scenes go to `backgrounds`."""
    latest_frame, views = -(1 << 40), set[str]()
    batch: list[Frame] = []
    size = 0
    for frame in sequence.frames(note):
        if isinstance(frame, int):
            count(frame)
            continue
        if isinstance(frame, Background):
            backgrounds.append(frame)
            continue
        count(1)
        if frame.frame > latest_frame:
            latest_frame, views = frame.frame, set()
        belongs = (frame.subject, frame.sequence) == (sequence.subject, sequence.sequence)
        if not belongs or frame.frame < latest_frame or frame.view in views:
            raise CaptureError(
                f"{_name(sequence)}: expected rows of this sequence in order of their frames, each view of a frame "
                f"once, got {frame.subject}/{frame.sequence} frame {frame.frame} view {frame.view}"
            )
        views.add(frame.view)
        batch.append(frame)
        size += len(frame.image)
        if size >= PIECE_BYTES:
            yield frames_table(batch, image_size)
            batch, size = [], 0
    if batch:
        yield frames_table(batch, image_size)
