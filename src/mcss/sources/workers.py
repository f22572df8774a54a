"""Engines: what carries the parts of an import to those who work on them, on this machine or on a Ray cluster.

Any worker may die; the part that it had is then lost and said to be, and the others go on.
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

from mcss.errors import SourceError
from mcss.processes import end_with_parent, one_thread_each, processors

Item = TypeVar("Item")
Result = TypeVar("Result")

TICK = 0.5
"""Seconds between two looks at how far the processes have come."""


@dataclass(frozen=True)
class Ray:
    """A Ray cluster, whose machines all have mcss and see the original files and the capture under the same paths."""

    address: str = "auto"
    """``host:port`` of the cluster's head; ``auto`` is the cluster that this machine belongs to."""
    workers: int | None = None
    """Parts that are worked on at once; by default one per processor of the cluster."""


Workers = int | Ray | None
"""So many processes of this machine (1 works in this one), those of a cluster, or one process per processor."""


@dataclass(frozen=True)
class Lost:
    """In the place of a result: the worker was ended before it gave one."""

    why: str


class StoppedError(Exception):
    """The import is being stopped; whoever works on a part ends with this."""


@dataclass(frozen=True)
class Report:
    """Where a worker says that it goes on."""

    advance: Callable[[int], None] | None = None

    def __call__(self, steps: int) -> None:
        """Say that `steps` more are done; to be called often, as it is also where a worker is stopped.

        Raises:
            StoppedError: No more is wanted.
        """
        if _stop is not None and _stop.is_set():
            raise StoppedError
        if self.advance is not None:
            self.advance(steps)
        elif _steps is not None and steps:
            with _steps.get_lock():
                _steps.value += steps

    @property
    def heard(self) -> bool:
        """Whether anybody counts the steps as they are done."""
        return self.advance is not None or _steps is not None


Work = Callable[[Item, Report], Result]
"""What is done with an item: a function of a module, or a `functools.partial` of one."""


def results(
    work: Work[Item, Result], items: Sequence[Item], workers: Workers, advance: Callable[[int], None]
) -> Generator[tuple[Item, Result | Lost]]:
    """Each item with its result as it is done, in any order.

    Args:
        work: What is done with each.
        items: Taken in this order.
        workers: Who works on them.
        advance: Told of steps as they are done, where they can be counted.

    Raises:
        SourceError: There is no such cluster.
        ImportError: Ray is not installed.
        ValueError: Fewer than one process.
    """
    if isinstance(workers, Ray):
        yield from _on_ray(work, items, workers)
        return
    processes = min(checked(workers), len(items))
    if processes <= 1:
        yield from ((item, work(item, Report(advance))) for item in items)
        return
    left = list(items)
    while left:
        begun: list[Item] = []
        try:
            with closing(_in_processes(work, tuple(left), processes, begun, advance)) as found:
                for item, result in found:
                    left.remove(item)
                    yield item, result
        except BrokenProcessPool:
            # One of those that were under way ends its process; alone, each shows whether it is the one.
            for item in begun:
                left.remove(item)
                yield item, _alone(work, item, advance)


def checked(workers: Workers) -> int:
    """How many processes of this machine, or workers of a cluster (0: as many as it has processors).

    Raises:
        ValueError: Fewer than one.
    """
    count = (workers.workers or 0) if isinstance(workers, Ray) else processors() if workers is None else workers
    named = workers.workers if isinstance(workers, Ray) else workers
    if named is not None and named < 1:
        raise ValueError(f"processes must be at least 1, came {named}")
    return count


def _in_processes(
    work: Work[Item, Result],
    items: Sequence[Item],
    processes: int,
    begun: list[Item],
    advance: Callable[[int], None],
) -> Generator[tuple[Item, Result]]:
    """Each item as it is done; `begun` always holds those that are under way."""
    context = multiprocessing.get_context("spawn")
    stop, steps, told = context.Event(), context.Value("q", 0), 0
    queue = iter(items)
    running: dict[Future[Result], Item] = {}
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin_process, initargs=(stop, steps)) as pool:
        try:
            while True:
                while len(running) < processes and (item := next(queue, None)) is not None:
                    begun.append(item)
                    with one_thread_each():
                        running[pool.submit(work, item, Report())] = item
                if not running:
                    return
                done = wait(running, timeout=TICK, return_when=FIRST_COMPLETED).done
                advance(steps.value - told)
                told = steps.value
                for future in done:
                    result, item = future.result(), running.pop(future)
                    begun.remove(item)
                    yield item, result
        finally:
            stop.set()  # whoever leaves early does not wait for what is under way


def _alone(work: Work[Item, Result], item: Item, advance: Callable[[int], None]) -> Result | Lost:
    try:
        with closing(_in_processes(work, (item,), 1, [], advance)) as found:
            return next(found)[1]
    except BrokenProcessPool:
        return Lost(
            "the process that read it was ended from outside, for want of memory or by a damaged file that crashes the "
            "decoder: look at its files, or give the same command with fewer processes"
        )


_stop: Event | None = None
_steps: "Synchronized[int] | None" = None


def _begin_process(stop: Event, steps: "Synchronized[int]") -> None:
    global _stop, _steps
    _stop, _steps = stop, steps
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started it tells it when to stop
    cv2.setNumThreads(1)
    end_with_parent()


def load_ray() -> ModuleType:
    """Ray, which is an extra.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("--engine ray needs Ray: install it with `pip install 'mcss[ray]'`") from error
    return ray


def _on_ray(work: Work[Item, Result], items: Sequence[Item], cluster: Ray) -> Generator[tuple[Item, Result | Lost]]:
    """Each item as it is done by any machine of a cluster. Nothing is counted before an item is done."""
    limit = checked(cluster)
    ray = load_ray()
    own = not ray.is_initialized()
    if own:
        _connect(ray, cluster.address)
    try:
        limit = limit or max(1, int(ray.cluster_resources().get("CPU", 1)))
        # Not retried: what ends one worker may end the next, and the same command does it at leisure.
        remote = ray.remote(_on_a_worker).options(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")
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
                except ray.exceptions.RayError as error:
                    why = str(error).splitlines()[0].rstrip(".")
                    result = Lost(
                        f"the worker of the cluster that had it was lost ({why}): look at its files and at the "
                        "cluster, and give the same command again"
                    )
                del running[done[0]]
                yield item, result
        finally:
            for reference in running:
                ray.cancel(reference, force=True)
    finally:
        if own:
            ray.shutdown()


def _on_a_worker(work: Work[Item, Result], item: Item) -> Result:
    cv2.setNumThreads(1)
    return work(item, Report())


def _connect(ray: ModuleType, address: str) -> None:
    """Join a cluster.

    Raises:
        SourceError: There is none at the address.
    """
    host, _, port = address.rpartition(":")
    way = "start one with `ray start --head`, or give the address of its head (--ray-address HOST:PORT)"
    try:
        if host and port.isdigit():  # Ray itself would ask again and again for a minute
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(f"there is no Ray cluster at {address} ({why}); {way}") from error
