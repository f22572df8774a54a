"""Several runs in parallel, each in a process with its share of the processors.

Two runs with one thread each train a third faster together than one after the other with two threads: the layers of
small feature maps gain little from a second thread.
"""

import multiprocessing
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch

from mcss.data.capture import Capture
from mcss.data.loading.pixels import shared_images
from mcss.processes import end_with_parent
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import CONFIG, METRICS
from mcss.training.loop import cache_images, train
from mcss.training.metrics_log import read_metrics
from mcss.training.runs import FIRST_STAGE, check_run
from mcss.training.settings import TrainSettings, stages

_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """A run to train or to resume."""

    settings: TrainSettings
    out: Path


@dataclass(frozen=True)
class Share:
    """The runs of a list that one machine trains, of several that share a folder."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Parse a text such as ``1/4``, the second of four machines.

        Raises:
            ValueError: The text is something else.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise ValueError(f"share: expected I/N with I from 0 to N - 1, such as 0/4, got {text!r}.")
        return cls(int(index), int(count))

    def of(self, names: Iterable[str]) -> set[str]:
        """Return the names that are this machine's; every machine has to give the same ones in the same order."""
        return set(list(dict.fromkeys(names))[self.index :: self.count])


def train_all(jobs: Sequence[Job], processes: int, progress: Progress = NO_PROGRESS) -> dict[str, Exception]:
    """Train all jobs, `processes` at a time; each resumes from its last checkpoint.

    The feature maps of frozen stages are computed first, by this process alone; decoded images are shared. Ctrl-C and
    SIGTERM end all processes, which leave their checkpoints.

    Returns:
        The errors of the runs that failed, by the names of their folders; the others are trained to their end.
    """
    failures: dict[str, Exception] = {}
    for job in jobs:
        try:
            cache_images(job.settings, progress)
        except Exception as error:
            failures[job.out.name] = error
    jobs = [job for job in jobs if job.out.name not in failures]
    if processes < 2 or len(jobs) < 2:
        for job in jobs:
            try:
                train(job.settings, job.out, resume=True, progress=progress)
            except Exception as error:
                failures[job.out.name] = error
        return failures
    with shared_images(min(processes, len(jobs))):
        while jobs:
            suspects, jobs = _in_processes(jobs, processes, progress, failures)
            for job in suspects:  # alone, which shows whose process it was that died
                if any(_in_processes([job], 1, progress, failures)):
                    failures[job.out.name] = ValueError(
                        f"{job.out}: the process that trained it was killed, most likely because memory ran out. "
                        "Its checkpoint is kept; run the same command again with fewer --processes or a smaller "
                        "--memory-gb."
                    )
    return failures


def _in_processes(
    jobs: Sequence[Job], processes: int, progress: Progress, failures: dict[str, Exception]
) -> tuple[list[Job], list[Job]]:
    """Train jobs in processes of their own, and add errors to `failures`.

    Returns:
        The jobs that were being trained when a process died, and those that were still waiting then.
    """
    threads = max(1, torch.get_num_threads() // processes)
    spawn = multiprocessing.get_context("spawn")
    gpus = visible_gpus()
    turns = spawn.SimpleQueue()
    for number in range(processes):
        turns.put(gpus[number % len(gpus)] if gpus else "")
    steps = [_steps_of_both(job.out) for job in jobs]
    total = sum(stage.optimiser.steps for job in jobs for stage in stages(job.settings) if stage is not None)
    broken: list[Job] = []
    running: set[str] = set()
    with (
        progress.task(f"Training {len(jobs)} runs", total, sum(steps)) as task,
        ProcessPoolExecutor(
            min(processes, len(jobs)), spawn, initializer=_prepare_process, initargs=(threads, turns)
        ) as pool,
    ):
        futures: list[Future[Path]] = [pool.submit(train, job.settings, job.out, True) for job in jobs]
        try:
            while not all(future.done() for future in futures):
                time.sleep(_POLL_SECONDS)
                for index, job in enumerate(jobs):
                    now = max(_steps_of_both(job.out), steps[index])
                    task.advance(now - steps[index])
                    steps[index] = now
                if under_way := [job.out.name for job, f in zip(jobs, futures, strict=True) if f.running()]:
                    running = set(under_way)
                task.note(", ".join(under_way))
        except BaseException:  # SIGTERM reaches this process alone, which would wait for all runs
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        for job, future in zip(jobs, futures, strict=True):
            match future.exception():
                case BrokenProcessPool():
                    broken.append(job)
                case Exception() as error:
                    failures[job.out.name] = error
                case BaseException() as stop:  # Ctrl-C
                    raise stop
    suspects = [job for job in broken if job.out.name in running] or broken
    return suspects, [job for job in broken if job not in suspects]


def unfinished(jobs: Sequence[Job], capture: Capture) -> list[Job]:
    """Return the jobs whose learning curve has not reached its end, whether or not there are weights.

    Raises:
        CheckpointError: A folder holds a run with other settings or of another capture.
    """
    waiting = []
    for job in jobs:
        if (job.out / CONFIG).exists():
            check_run(job.out, job.settings, capture, resume=True)
        lines = read_metrics(job.out / METRICS)
        if not lines or "validation" not in lines[-1] or lines[-1]["step"] < stages(job.settings)[1].optimiser.steps:
            waiting.append(job)
    return waiting


def _steps(run: Path) -> int:
    lines = read_metrics(run / METRICS)
    return int(lines[-1]["step"]) if lines else 0


def _steps_of_both(run: Path) -> int:
    return _steps(run / FIRST_STAGE) + _steps(run)


def visible_gpus() -> list[str]:
    """The CUDA devices that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    return [name.strip() for name in named.split(",") if name.strip()]


def _prepare_process(threads: int, gpus: "multiprocessing.SimpleQueue[str]") -> None:
    """Give a process its share of the processors, and one GPU: they take turns where processes outnumber GPUs."""
    end_with_parent()
    torch.set_num_threads(threads)
    if gpu := gpus.get():
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before CUDA is first used here
