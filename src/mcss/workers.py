"""Workers: the processes of this machine, or a Ray cluster, among which independent items of work are divided.

If a worker dies, the item it was working on is tried once more. If that ends a worker too, it is reported as lost, and
the others go on.
"""

import multiprocessing
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from types import ModuleType
from typing import Any, TypeVar

import cv2

from mcss.errors import ClusterError
from mcss.processes import end_with_parent, processors, starting_workers

Item = TypeVar("Item")
Result = TypeVar("Result")

TICK = 0.5
"""Seconds between two reports of how far the processes have come."""


@dataclass(frozen=True)
class Ray:
    """A Ray cluster whose machines all have mcss, and the files that are read and written at the same paths."""

    address: str = "auto"
    """``host:port`` of the cluster's head node; ``auto`` is the cluster that this machine belongs to."""
    workers: int | None = None
    """Number of items worked on at the same time; by default one per processor of the cluster."""


Workers = int | Ray | None
"""A number of processes of this machine (1 works in this process), a cluster, or one process per processor (None)."""


@dataclass(frozen=True)
class Lost:
    """What stands in place of a result if the worker was ended before it returned one."""

    reason: str


class StoppedError(Exception):
    """The work is being stopped; raised in the workers."""


@dataclass(frozen=True)
class Report:
    """Receives the progress of a worker."""

    advance: Callable[[int], None] | None = None

    def __call__(self, steps: int) -> None:
        """Report that `steps` more are done. Call it often: this is also where a worker is stopped.

        Raises:
            StoppedError: The work is being stopped.
        """
        if _stop is not None and _stop.is_set():
            raise StoppedError
        if self.advance is not None:
            self.advance(steps)
        elif _steps is not None and steps:
            with _steps.get_lock():
                _steps.value += steps

    @property
    def is_counted(self) -> bool:
        """Whether steps are counted as they are reported."""
        return self.advance is not None or _steps is not None


Work = Callable[[Item, Report], Result]
"""The work on an item: a module's function, or a `functools.partial` of one, so that it can be pickled."""


def results(
    work: Work[Item, Result], items: Sequence[Item], workers: Workers, advance: Callable[[int], None]
) -> Generator[tuple[Item, Result | Lost]]:
    """Yield each item with its result as soon as it is done, in any order.

    Args:
        work: The work on one item.
        items: The items, begun in this order.
        workers: Processes or a cluster.
        advance: Receives the number of steps done since the last call, where they can be counted.

    Raises:
        ClusterError: There is no such cluster.
        ImportError: Ray is not installed.
        ValueError: Fewer than one process.
    """
    if isinstance(workers, Ray):
        yield from _on_ray(work, items, workers)
        return
    processes = min(checked_worker_count(workers), len(items))
    if processes <= 1:
        yield from ((item, work(item, Report(advance))) for item in items)
        return
    remaining = list(items)
    while remaining:
        in_progress: list[Item] = []
        try:
            with closing(_in_processes(work, tuple(remaining), processes, in_progress, advance)) as finished:
                for item, result in finished:
                    remaining.remove(item)
                    yield item, result
        except BrokenProcessPool:
            # One of the items in progress ends its process. Repeating each alone shows which one it is.
            for item in in_progress:
                remaining.remove(item)
                yield item, _alone(work, item, advance)


def checked_worker_count(workers: Workers) -> int:
    """Return the number of processes, or of workers of a cluster (0 for one per processor of the cluster).

    Raises:
        ValueError: Fewer than one.
    """
    count = workers.workers if isinstance(workers, Ray) else workers
    if count is not None and count < 1:
        raise ValueError(f"processes: expected at least 1, got {count}")
    if isinstance(workers, Ray):
        return count or 0
    return processors() if count is None else count


def _in_processes(
    work: Work[Item, Result],
    items: Sequence[Item],
    processes: int,
    in_progress: list[Item],
    advance: Callable[[int], None],
) -> Generator[tuple[Item, Result]]:
    """Yield each item as soon as it is done; `in_progress` always holds the items that have been begun."""
    context = multiprocessing.get_context("spawn")
    stop, steps, reported_steps = context.Event(), context.Value("q", 0), 0
    queue = iter(items)
    running: dict[Future[Result], Item] = {}
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_process, initargs=(stop, steps)) as pool:
        try:
            while True:
                while len(running) < processes and (item := next(queue, None)) is not None:
                    in_progress.append(item)
                    with starting_workers():
                        running[pool.submit(work, item, Report())] = item
                if not running:
                    return
                done = wait(running, timeout=TICK, return_when=FIRST_COMPLETED).done
                advance(steps.value - reported_steps)
                reported_steps = steps.value
                for future in done:
                    result, item = future.result(), running.pop(future)
                    in_progress.remove(item)
                    yield item, result
        finally:
            stop.set()  # a caller that leaves early does not wait for the items in progress


def _alone(work: Work[Item, Result], item: Item, advance: Callable[[int], None]) -> Result | Lost:
    try:
        with closing(_in_processes(work, (item,), 1, [], advance)) as finished:
            return next(finished)[1]
    except BrokenProcessPool:
        return Lost(
            "the process that worked on it was killed, because memory ran out or a damaged file crashed the decoder: "
            "check its files, or run the same command with fewer processes"
        )


_stop: Event | None = None
_steps: "Synchronized[int] | None" = None


def _begin_process(stop: Event, steps: "Synchronized[int]") -> None:
    global _stop, _steps
    _stop, _steps = stop, steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides when to stop
    cv2.setNumThreads(1)
    end_with_parent()


def load_ray() -> ModuleType:
    """Import Ray, which is an optional dependency.

    Raises:
        ImportError: Ray is not installed; the message names the extra.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: install it with `pip install 'mcss[ray]'`") from error
    return ray


def _on_ray(work: Work[Item, Result], items: Sequence[Item], cluster: Ray) -> Generator[tuple[Item, Result | Lost]]:
    """Yield each item as soon as a machine of the cluster has done it; no steps are counted before that."""
    limit = checked_worker_count(cluster)
    ray = load_ray()
    connect = not ray.is_initialized()
    if connect:
        _connect(ray, cluster.address)
    try:
        limit = limit or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # Tried once more: what kills two workers would kill the next. Running the command again tries it again.
        remote = ray.remote(_on_a_worker).options(num_cpus=1, max_retries=1, scheduling_strategy="SPREAD")
        queue = iter(items)
        running: dict[Any, Item] = {}
        try:
            while True:
                while len(running) < limit and (item := next(queue, None)) is not None:
                    running[remote.remote(work, item)] = item
                if not running:
                    return
                done, _ = ray.wait(list(running), num_returns=1)
                item = running[done[0]]
                try:
                    result = ray.get(done[0])
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                except ray.exceptions.RayError as error:
                    reason = str(error).splitlines()[0].rstrip(".")
                    result = Lost(
                        f"the cluster lost the worker that worked on it ({reason}): check its files and the cluster, "
                        "and run the same command again"
                    )
                del running[done[0]]
                yield item, result
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
    finally:
        if connect:
            ray.shutdown()


def _on_a_worker(work: Work[Item, Result], item: Item) -> Result:
    cv2.setNumThreads(1)
    return work(item, Report())


def _connect(ray: ModuleType, address: str) -> None:
    """Join a cluster.

    Raises:
        ClusterError: There is no cluster at the address.
    """
    host, _, port = address.rpartition(":")
    way_out = "start one with `ray start --head`, or give the address of its head (--ray-address HOST:PORT)"
    try:
        if host and port.isdigit():  # Ray itself would try for a minute
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ClusterError(f"there is no Ray cluster at {address} ({reason}); {way_out}") from error
