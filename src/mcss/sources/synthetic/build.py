"""Builds the synthetic capture with several processes; see `mcss.sources.synthetic.scenes` for what it holds."""

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
from mcss.processes import end_with_parent, one_thread_each, processors
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.synthetic.performances import ACTIONS, NEW_ACTIONS
from mcss.sources.synthetic.scenes import RENDERER, Scene, SyntheticSettings, make_scenes, sequence_names, subject_name

__all__ = ["SyntheticSettings", "build", "capture_info"]

_LICENCE = "CC0-1.0 for the people and places; see NOTICE of mcss for the motion"

Job = tuple[SyntheticSettings, int, str, frozenset[str]]


def build(
    out: str | Path,
    settings: SyntheticSettings | None = None,
    progress: Progress = NO_PROGRESS,
    *,
    processes: int | None = None,
) -> Capture:
    """Make the capture at `out`, or carry on one that was stopped at any moment.

    The same settings give the same capture, whatever the number of processes and stops; on another processor, up to
    rounding.

    Args:
        out: Folder or object-store prefix of the capture.
        settings: What it shall be like.
        progress: Told of every sequence.
        processes: How many to work with; by default as many as there are processors.

    Raises:
        CaptureError: Another capture is there, or it cannot be written.
        ValueError: Fewer than one process.
    """
    settings = settings or SyntheticSettings()
    processes = processors() if processes is None else processes
    if processes < 1:
        raise ValueError(f"processes must be at least 1, came {processes}")
    writer = CaptureWriter.open(out, info=capture_info(settings))
    done = writer.done()
    jobs: list[Job] = []
    total = left = 0
    for subject in range(settings.subjects):
        for action in settings.actions(subject):
            names = sequence_names(action, settings.takes)
            missing = frozenset(name for name in names if (subject_name(subject), name) not in done)
            total, left = total + len(names), left + len(missing)
            if missing:
                jobs.append((settings, subject, action, missing))
    with progress.task("Rendering sequences", total, total - left) as task:
        for scenes in _in_processes(jobs, min(processes, len(jobs))):
            for scene in scenes:
                writer.add_backgrounds(scene.backgrounds, scene.stage)
                writer.append(scene.frames)
                task.advance()
    return writer.finish(progress)


def capture_info(settings: SyntheticSettings) -> CaptureInfo:
    """Splits and settings of the capture that `build` makes."""
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
    looks = (
        tuple(f"* {take}" for take in range(1, settings.takes + 1)) if settings.outfits > 1 < settings.takes else ("*",)
    )
    return CaptureInfo("synthetic", _LICENCE, settings.size, splits, {**asdict(settings), "renderer": RENDERER}, looks)


def _in_processes(jobs: list[Job], processes: int) -> Iterator[list[Scene]]:
    if processes <= 1:
        yield from (make_scenes(*job) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")
    queue = iter(jobs)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_process) as pool:
        running: deque[Future[list[Scene]]] = deque()
        try:
            with one_thread_each():
                # Twice as many jobs again as processes wait, so that none is idle behind a long one.
                for job in islice(queue, 3 * processes):
                    running.append(pool.submit(make_scenes, *job))
            while running:
                yield running.popleft().result()  # in order: the table is the same whenever and wherever it is built
                following = next(queue, None)
                if following is not None:
                    running.append(pool.submit(make_scenes, *following))
        except BrokenProcessPool as error:
            raise CaptureError(
                "a rendering process was ended from outside, most likely for want of memory (each takes about 1 GB): "
                "run the same command with fewer processes; finished sequences are kept"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begin_process() -> None:
    cv2.setNumThreads(1)
    end_with_parent()
