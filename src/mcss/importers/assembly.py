"""Assembly: parts of a data set, each still in its original files, become sequences of a capture.

Any number of processes; rows go to the disk as they are made, so that the length of a sequence costs no memory. A
sequence is added to the capture at once or not at all, and one that fails is told at the end and tried
again by the next call.
"""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2

from mcss.captures import Capture, CaptureError, CaptureInfo, CaptureWriter, Frame
from mcss.frames import frames_table
from mcss.importers import ImportProblem
from mcss.instants import natural_order
from mcss.processes import end_with_parent, one_thread_each, processors
from mcss.progress import NO_PROGRESS, Progress
from mcss.tables import write_pieces

PIECE_BYTES = 32_000_000
"""A process holds so many bytes of pictures before it writes them."""

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

    def frames(self, note: Note) -> Iterator[Frame]:
        """Its rows, the views of an instant one after the other; reads the original files.

        Raises:
            ImportProblem: A file is not as expected. Nothing of the part is then kept.
        """


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


def assemble(
    parts: Sequence[Part],
    out: str | Path,
    info: CaptureInfo,
    progress: Progress = NO_PROGRESS,
    *,
    processes: int | None = None,
    problems: Sequence[str] = (),
    expected: Mapping[str, int] | None = None,
) -> Assembled:
    """Make a capture of the parts, or carry on one that was stopped at any moment.

    Args:
        parts: What to import; their order decides what is begun first.
        out: The capture.
        info: What is true of it.
        progress: Counts pictures, a sequence at a time.
        processes: How many to work with; by default one per processor, 1 works in this process.
        problems: What is missing already before any part is begun; told with the others.
        expected: Sequences of each subject that the set should have; by default as many as there are parts.

    Raises:
        ImportProblem: Not one part could be imported; says why for each.
        CaptureError: Another capture is at `out`, or it cannot be written.
        ValueError: Fewer than one process.
    """
    processes = processors() if processes is None else processes
    if processes < 1:
        raise ValueError(f"processes must be at least 1, came {processes}")
    found = list(problems)
    if not parts:
        raise ImportProblem("\n".join([*found, f"nothing could be imported into {out}: there is not one sequence"]))
    writer = CaptureWriter.open(out, info=info)
    kept = [part for part in parts if (part.subject, part.sequence) in writer.done()]
    todo = [part for part in parts if (part.subject, part.sequence) not in writer.done()]
    imported: list[str] = []
    notes: list[str] = []
    total, done = sum(part.images for part in parts), sum(part.images for part in kept)
    try:
        outcomes = _outcomes(todo, writer.uri, info.image_size, processes)
        with progress.task("Importing sequences", total, done) as task, closing(outcomes):
            for part, outcome in outcomes:
                if outcome.problem is None:
                    writer.append_pieces(part.subject, part.sequence, outcome.pieces)
                    imported.append(_name(part))
                    notes += outcome.notes
                else:
                    found.append(outcome.problem)
                task.note(_name(part) + (f" · {len(found)} failed" if found else ""))
                task.advance(part.images)
    finally:
        writer.sweep()
    if not writer.done():
        raise ImportProblem("\n".join([*found, f"nothing could be imported into {out}"]))
    capture = writer.finish(progress)
    counts = _counts(capture, parts, expected or {})
    return Assembled(capture, tuple(imported), tuple(map(_name, kept)), tuple(found), tuple(notes), counts)


def _name(part: Part) -> str:
    return f"{part.subject}/{part.sequence}"


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


def _outcomes(parts: Sequence[Part], place: str, image_size: int, processes: int) -> Generator[tuple[Part, _Outcome]]:
    """Each part as it is done, in any order."""
    processes = min(processes, len(parts))
    if processes <= 1:
        yield from ((part, _made(part, place, image_size)) for part in parts)
        return
    left = list(parts)
    while left:
        begun: list[Part] = []
        try:
            with closing(_in_processes(tuple(left), place, image_size, processes, begun)) as outcomes:
                for part, outcome in outcomes:
                    left.remove(part)
                    yield part, outcome
        except BrokenProcessPool:
            # One of those that were under way ends its process; alone, each shows whether it is the one.
            for part in begun:
                left.remove(part)
                yield part, _made_alone(part, place, image_size)


def _in_processes(
    parts: Sequence[Part], place: str, image_size: int, processes: int, begun: list[Part]
) -> Generator[tuple[Part, _Outcome]]:
    """Each part as it is done; `begun` always holds those that are under way."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    queue = iter(parts)
    running: dict[Future[_Outcome], Part] = {}
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_process, initargs=(stop,)) as pool:
        try:
            while True:
                while len(running) < processes and (part := next(queue, None)) is not None:
                    begun.append(part)
                    with one_thread_each():
                        running[pool.submit(_made, part, place, image_size)] = part
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    outcome, part = future.result(), running.pop(future)
                    begun.remove(part)
                    yield part, outcome
        finally:
            stop.set()  # whoever leaves early does not wait for the sequences under way


def _made_alone(part: Part, place: str, image_size: int) -> _Outcome:
    try:
        with closing(_in_processes((part,), place, image_size, 1, [])) as outcomes:
            return next(outcomes)[1]
    except BrokenProcessPool:
        return _Outcome(
            problem=f"{_name(part)}: the process that read it was ended from outside, for want of memory or by a "
            "damaged file that crashes the decoder: look at its files, or give the same command with fewer processes"
        )


_stop: Event | None = None


def _begin_process(stop: Event) -> None:
    global _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started it tells it when to stop
    cv2.setNumThreads(1)
    end_with_parent()


class _StoppedError(Exception):
    """The import is being stopped."""


def _made(part: Part, place: str, image_size: int) -> _Outcome:
    """Write the rows of a part beside the capture.

    Raises:
        CaptureError: The disk is full: no other part will fare better.
    """
    notes: list[str] = []
    pieces: list[Any] = []
    tables = _tables(part, image_size, notes.append)
    while True:
        try:
            table = next(tables, None)
        except _StoppedError:
            return _Outcome(problem=f"{_name(part)}: stopped")
        except (ImportProblem, CaptureError) as problem:
            return _Outcome(problem=str(problem))
        except Exception as error:
            return _Outcome(problem=f"{_name(part)}: {type(error).__name__} that mcss did not foresee: {error}")
        if table is None:
            break
        pieces += write_pieces(place, table)
    if not pieces:
        return _Outcome(problem=f"{_name(part)}: there is not one picture in it; look at its files")
    return _Outcome(tuple(pieces), tuple(notes))


def _tables(part: Part, image_size: int, note: Note) -> Iterator[Any]:
    """The rows of a part in tables of about `PIECE_BYTES`."""
    seen: set[tuple[int, str]] = set()
    batch: list[Frame] = []
    size = 0
    for frame in part.frames(note):
        if _stop is not None and _stop.is_set():
            raise _StoppedError
        if (frame.subject, frame.sequence) != (part.subject, part.sequence) or (frame.frame, frame.view) in seen:
            raise CaptureError(
                f"{_name(part)} gave {frame.subject}/{frame.sequence} frame {frame.frame} view {frame.view}: expected "
                "rows of its own sequence, each view of a frame once"
            )
        seen.add((frame.frame, frame.view))
        batch.append(frame)
        size += len(frame.image)
        if size >= PIECE_BYTES:
            yield frames_table(batch, image_size)
            batch, size = [], 0
    if batch:
        yield frames_table(batch, image_size)
