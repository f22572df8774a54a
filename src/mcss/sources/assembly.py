"""Assembly: parts of a data set, each still in its original files, become sequences of a capture.

Any number of processes or of machines (`mcss.sources.workers`); rows go to the disk as they are made, so that the
length of a sequence costs no memory. A sequence is added to the capture at once or not at all, and one that fails is
told at the end and tried again by the next call.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mcss.data.capture import Capture, CaptureInfo, CaptureWriter, Frame
from mcss.data.instants import natural_order
from mcss.data.schema import frames_table
from mcss.data.storage import write_pieces
from mcss.errors import CaptureError, SourceError
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.workers import Lost, Report, StoppedError, Workers, checked, results

PIECE_BYTES = 32_000_000
"""A process holds so many bytes of images before it writes them."""

Note = Callable[[str], None]
"""Takes what is worth a look: the file, what is unusual about it and what was done."""


@runtime_checkable
class Part(Protocol):
    """One sequence of one subject in its original files: a frozen dataclass that can be pickled."""

    @property
    def subject(self) -> str:
        """As it will be called in the capture."""

    @property
    def sequence(self) -> str:
        """As it will be called in the capture; unique within the subject."""

    @property
    def images(self) -> int:
        """Rows that are expected of it, at least 1."""

    def frames(self, note: Note) -> Iterator[Frame | int]:
        """Its rows in order of their frames, all views of one together; reads the original files.

        A number in between says that so many steps of other work are done (`Stepping`), or with 0 only that the work
        goes on: it can be stopped there.

        Raises:
            SourceError: A file is not as expected. Nothing of the part is then kept.
        """


@runtime_checkable
class Stepping(Part, Protocol):
    """A part with much to do before it has rows."""

    @property
    def steps(self) -> int:
        """Its rows and the steps of other work."""


@dataclass(frozen=True)
class SubjectCount:
    """What there is of a subject, and what its original files (or the set's description) promise."""

    subject: str
    sequences: int
    expected_sequences: int
    images: int
    expected_images: int


@dataclass(frozen=True)
class Assembled:
    """What an import did."""

    capture: Capture
    imported: tuple[str, ...]
    """Sequences (``subject/sequence``) written by this call."""
    kept: tuple[str, ...]
    """Sequences that an earlier call had written."""
    problems: tuple[str, ...]
    """Why other sequences are not there; the same call tries them again."""
    notes: tuple[str, ...]
    """What is worth a look about those that are; not kept from earlier calls."""
    counts: tuple[SubjectCount, ...]


@dataclass(frozen=True)
class _Outcome:
    """What a process gives back of a part: its rows stay on the disk."""

    pieces: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str | None = None
    told: int = 0
    """Steps that were counted already."""


def assemble(
    parts: Sequence[Part],
    out: str | Path,
    info: CaptureInfo,
    progress: Progress = NO_PROGRESS,
    *,
    processes: Workers = None,
    problems: Sequence[str] = (),
    expected: Mapping[str, int] | None = None,
) -> Assembled:
    """Make a capture of the parts, or carry on one that was stopped at any moment.

    Args:
        parts: What to import; their order decides what is begun first.
        out: The capture.
        info: What is true of it.
        progress: Counts images.
        processes: How many to work with; by default one per processor, 1 works in this process. Or a cluster.
        problems: What is missing already before any part is begun; told with the others.
        expected: Sequences of each subject that the set should have; by default as many as there are parts.

    Raises:
        SourceError: Not one part could be imported; says why for each. Or there is no such cluster.
        CaptureError: Another capture is at `out`, or it cannot be written.
        ValueError: Fewer than one process.
    """
    checked(processes)
    found = list(problems)
    if not parts:
        raise SourceError("\n".join([*found, f"nothing could be imported into {out}: there is not one sequence"]))
    writer = CaptureWriter.open(out, info=info)
    kept = [part for part in parts if (part.subject, part.sequence) in writer.done()]
    todo = [part for part in parts if (part.subject, part.sequence) not in writer.done()]
    imported: list[str] = []
    notes: list[str] = []
    total, done = sum(map(_steps, parts)), sum(map(_steps, kept))
    work = partial(_made, place=writer.uri, image_size=info.image_size)
    try:
        with (
            progress.task("Importing sequences", total, done) as task,
            closing(results(work, todo, processes, task.advance)) as outcomes,
        ):
            for part, outcome in outcomes:
                if isinstance(outcome, Lost):
                    outcome = _Outcome(problem=f"{_name(part)}: {outcome.why}")
                if outcome.problem is None:
                    writer.append_pieces(part.subject, part.sequence, outcome.pieces)
                    imported.append(_name(part))
                    notes += outcome.notes
                else:
                    found.append(outcome.problem)
                task.note(_name(part) + (f" · {len(found)} failed" if found else ""))
                task.advance(max(_steps(part) - outcome.told, 0))
    finally:
        writer.sweep()
    if not writer.done():
        raise SourceError("\n".join([*found, f"nothing could be imported into {out}"]))
    capture = writer.finish(progress)
    counts = _counts(capture, parts, expected or {})
    return Assembled(capture, tuple(imported), tuple(map(_name, kept)), tuple(found), tuple(notes), counts)


def _name(part: Part) -> str:
    return f"{part.subject}/{part.sequence}"


def _steps(part: Part) -> int:
    return part.steps if isinstance(part, Stepping) else part.images


def _counts(capture: Capture, parts: Sequence[Part], expected: Mapping[str, int]) -> tuple[SubjectCount, ...]:
    instants = capture.instants()
    counts = []
    for subject in sorted({part.subject for part in parts} | set(expected), key=natural_order):
        own = [part for part in parts if part.subject == subject]
        there = instants.take(instants.subject == _index(instants.subjects, subject))
        counts.append(
            SubjectCount(
                subject,
                len(set(there.sequence.tolist())),
                expected.get(subject, len(own)),
                int((there.rows >= 0).sum()),
                sum(part.images for part in own),
            )
        )
    return tuple(counts)


def _index(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else -1


def _made(part: Part, report: Report, *, place: str, image_size: int) -> _Outcome:
    """Write the rows of a part beside the capture.

    Raises:
        CaptureError: The disk is full: no other part will fare better.
    """
    notes: list[str] = []
    pieces: list[Any] = []
    told = 0

    def count(steps: int) -> None:
        nonlocal told
        report(steps)
        told += steps if report.heard else 0

    problem = None
    with closing(_tables(part, image_size, notes.append, count)) as tables:
        while True:
            try:
                table = next(tables, None)
            except StoppedError:
                problem = f"{_name(part)}: stopped"
            except (SourceError, CaptureError) as error:
                problem = str(error)
            except Exception as error:
                problem = f"{_name(part)}: {type(error).__name__} that mcss did not foresee: {error}"
            if problem is not None:
                return _Outcome(problem=problem, told=told)
            if table is None:
                break
            pieces += write_pieces(place, table)
    if not pieces:
        return _Outcome(problem=f"{_name(part)}: there is not one image in it; look at its files", told=told)
    return _Outcome(tuple(pieces), tuple(notes), told=told)


def _tables(part: Part, image_size: int, note: Note, count: Callable[[int], None]) -> Generator[Any]:
    """The rows of a part in tables of about `PIECE_BYTES`."""
    latest, views = -(1 << 40), set[str]()
    batch: list[Frame] = []
    size = 0
    for frame in part.frames(note):
        if isinstance(frame, int):
            count(frame)
            continue
        count(1)
        if frame.frame > latest:
            latest, views = frame.frame, set()
        own = (frame.subject, frame.sequence) == (part.subject, part.sequence)
        if not own or frame.frame < latest or frame.view in views:
            raise CaptureError(
                f"{_name(part)} gave {frame.subject}/{frame.sequence} frame {frame.frame} view {frame.view}: expected "
                "rows of its own sequence in order of their frames, each view of a frame once"
            )
        views.add(frame.view)
        batch.append(frame)
        size += len(frame.image)
        if size >= PIECE_BYTES:
            yield frames_table(batch, image_size)
            batch, size = [], 0
    if batch:
        yield frames_table(batch, image_size)
