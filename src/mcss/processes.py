"""Processes: the threads, memory and files of this one, and worker processes that do not outlive the program."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

LEAST_FILES, USUAL_FILES = 64, 4096
"""How many files a command needs open at a time at least, with a few to spare, and how many it likes to have."""

LEAST_ADDRESSES = 1_500_000_000
"""Bytes of addresses that a command needs beyond those of the loaded packages: the smallest training takes 1.2 GB, most
of it for the stacks and heaps of threads, which are never filled."""

LEAST_MEMORY = 300_000_000
"""Bytes of memory that a command needs beyond those of the loaded packages."""

_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def processors() -> int:
    """Return the number of processors that this process may use; all of the machine's if the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory() -> int:
    """Return the bytes of memory that are free for this process; 4 GB where the system does not say."""
    free = [4_000_000_000]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")] or free
    except OSError:  # not Linux
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            free = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2]
    group = Path("/sys/fs/cgroup")  # a container may be allowed less than the machine has
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        if limit != "max":
            free.append(max(0, int(limit) - int(used["anon"]) - int(used.get("shmem", 0))))
    except (OSError, KeyError, ValueError):
        pass
    addresses = free_addresses()
    return min(free if addresses is None else [*free, addresses])


def free_addresses() -> int | None:
    """Return the bytes of addresses that this process may still take; None without a limit."""
    if resource is None:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:  # not Linux
        taken = 0
    return max(0, limit - taken)


def check_limits() -> None:
    """Look, before any work, whether the system leaves this process enough memory and files for the smallest work.

    Libraries written in Rust end the process where they get no memory, and some lose their words where they can open no
    file. The number of files is raised to `USUAL_FILES`, as far as the system lets it.

    Raises:
        OSError: There is too little of one; the message says how much there is, how much is needed, and the way out.
    """
    again = "then run the same command again"
    addresses = free_addresses()
    if addresses is not None and addresses < LEAST_ADDRESSES:
        raise OSError(
            f"There is too little memory: a limit leaves this process {addresses / 1e6:,.0f} MB of addresses, expected "
            f"{LEAST_ADDRESSES / 1e6:,.0f} MB at least. Allow more (`ulimit -v unlimited`), {again}"
        )
    if (memory := available_memory()) < LEAST_MEMORY:
        raise OSError(
            f"There is too little memory: {memory / 1e6:,.0f} MB are free, expected {LEAST_MEMORY / 1e6:,.0f} MB at "
            f"least. Close other programs, or allow the container more, {again}"
        )
    if (files := _allowed_files()) < LEAST_FILES:
        raise OSError(
            f"There are too few file handles: this process may have {files} files open, expected {LEAST_FILES} at "
            f"least. Allow more (`ulimit -n {USUAL_FILES}`), {again}"
        )


def _allowed_files() -> int:
    """Return how many files this process may have open, after raising that number to what is usual."""
    if resource is None:
        return USUAL_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= USUAL_FILES:
        return USUAL_FILES
    most = USUAL_FILES if hard == resource.RLIM_INFINITY else min(hard, USUAL_FILES)
    with contextlib.suppress(OSError, ValueError):  # a system that allows less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def is_running(process: int) -> bool:
    """Return whether there is a process with this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextlib.contextmanager
def starting_workers() -> Iterator[None]:
    """Let processes that are started within this context use one thread each, and leave Ctrl-C to this process.

    They would compete otherwise, and show a traceback each if they were stopped while they are being started.
    """
    with environment(dict.fromkeys(_ONE_THREAD, "1")):
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            yield
            return
        resource_tracker.ensure_running()  # or it would be started with the first worker, and unblock the signal
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within this context and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def end_with_parent() -> None:
    """Let this worker process end when its parent does, even if the parent is killed and cannot stop its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # in glibc's malloc.h
_LARGEST_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next tensors; has no effect with other C libraries.

    By default, memory for every tensor larger than a few megabytes is mapped again, and its pages are cleared by the
    kernel, at every step. Without that, the frozen stages of EfficientNet-Lite0 run twice as fast on a CPU.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_M_TRIM_THRESHOLD, _LARGEST_KEPT)
