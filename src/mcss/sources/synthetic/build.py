"""Building the synthetic capture with several processes; `mcss.sources.synthetic.sequences` renders its contents."""

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import cv2

from mcss.data.capture import Capture
from mcss.data.schema import CaptureInfo, Selector
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.processes import end_with_parent, processors, starting_workers
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.synthetic.performances import ACTIONS, NEW_ACTIONS
from mcss.sources.synthetic.sequences import (
    RENDERER,
    RenderedSequence,
    SyntheticSettings,
    render_sequences,
    sequence_names,
    subject_name,
)

_LICENCE = "CC0-1.0 for the people and places; see NOTICE of mcss for the motion"

Job = tuple[SyntheticSettings, int, str, frozenset[str]]
"""Arguments of `render_sequences`."""


def build(
    out: str | Path,
    settings: SyntheticSettings | None = None,
    progress: Progress = NO_PROGRESS,
    *,
    processes: int | None = None,
) -> Capture:
    """Make the synthetic capture, or resume a build that was stopped at any moment.

    The same settings give the same capture, however many processes render it and however often the build was stopped;
    on another processor they give the same capture up to rounding.

    Args:
        out: Folder or object-store address of the capture.
        settings: Contents of the capture.
        progress: Counts sequences.
        processes: Number of processes; by default one per processor.

    Raises:
        CaptureError: Another capture is at `out`, or it cannot be written.
        ValueError: Fewer than one process.
    """
    settings = settings or SyntheticSettings()
    processes = processors() if processes is None else processes
    if processes < 1:
        raise ValueError(f"processes: expected at least 1, got {processes}")
    writer = CaptureWriter.open(out, info=capture_info(settings))
    done = writer.done()
    jobs: list[Job] = []
    total = remaining = 0
    for subject in range(settings.subjects):
        for action in settings.actions(subject):
            names = sequence_names(action, settings.takes)
            missing = frozenset(name for name in names if (subject_name(subject), name) not in done)
            total, remaining = total + len(names), remaining + len(missing)
            if missing:
                jobs.append((settings, subject, action, missing))
    with progress.task("Rendering sequences", total, total - remaining) as task:
        for sequences in _in_processes(jobs, min(processes, len(jobs))):
            for sequence in sequences:
                writer.add_backgrounds(sequence.backgrounds, sequence.stage)
                writer.append(sequence.frames)
                task.advance()
    return writer.finish(progress)


def capture_info(settings: SyntheticSettings) -> CaptureInfo:
    """Return what `build` states about the capture: licence, splits, settings and outfits."""
    names = [subject_name(subject) for subject in range(settings.subjects)]
    test = names[-settings.test_subjects :]
    validation = names[-settings.test_subjects - 1 : -settings.test_subjects]
    train = names[: -settings.test_subjects - 1]
    shared = tuple(f"{action} *" for action in ACTIONS)
    splits = {
        "train": (Selector(tuple(train), shared),),
        "validation": (Selector(tuple(validation), shared),),
        "test": (Selector(tuple(test), shared),),
    }
    if settings.new_motion:
        splits["new-motion"] = (Selector(tuple(test), tuple(f"{action} *" for action in NEW_ACTIONS)),)
    outfits = (
        tuple(f"* {take}" for take in range(1, settings.takes + 1)) if settings.outfits > 1 < settings.takes else ("*",)
    )
    recorded = {**asdict(settings), "renderer": RENDERER}
    return CaptureInfo("synthetic", _LICENCE, settings.size, splits, recorded, outfits)


def _in_processes(jobs: list[Job], processes: int) -> Iterator[list[RenderedSequence]]:
    if processes <= 1:
        yield from (render_sequences(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    queue = iter(jobs)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_process) as pool:
        running: deque[Future[list[RenderedSequence]]] = deque()
        try:
            with starting_workers():
                # Three jobs per process are submitted, so that no process is idle while a long job is awaited.
                for job in islice(queue, 3 * processes):
                    running.append(pool.submit(render_sequences, *job))
            while running:
                yield running.popleft().result()  # in order, so that the table does not depend on which job ends first
                following = next(queue, None)
                if following is not None:
                    running.append(pool.submit(render_sequences, *following))
        except BrokenProcessPool as error:
            raise CaptureError(
                "a rendering process was killed, most likely because memory ran out (each needs about 1 GB): run the "
                "same command with fewer processes; finished sequences are kept"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin_process() -> None:
    cv2.setNumThreads(1)
    end_with_parent()
