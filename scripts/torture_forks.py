"""Start mcss commands as copies of a process that has loaded the packages already, so that accidents hit their work.

Most of the seconds of a small command go into loading PyTorch and Lance. `Forks` starts this file as a program, which
loads every module of mcss and what these import, and makes a copy of itself for each command.
"""

import contextlib
import json
import os
import pkgutil
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

ALSO = (
    *("onnx", "onnx.reference", "onnxscript", "networkx", "torch.onnx", "torch.onnx._internal.exporter._core"),
    *("torch._dynamo", "torch._functorch.aot_autograd", "torch.export._trace"),
    *("matplotlib.pyplot", "lance_namespace", "pydantic"),
)
"""What modules of mcss import within functions; not LanceDB and ONNX Runtime, whose threads a copy would lack."""


TICK = 0.02
"""Seconds between two looks at a command that is to be killed."""

PATIENCE = 5.0
"""How many seconds may pass for a second of processor time; other programs may be busy, and some commands wait."""


def processor_time(process: int) -> float:
    """Return the seconds of processor time that a process has taken; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Order:
    """A command, and what hinders it."""

    arguments: Sequence[str]
    """What follows `mcss`."""
    variables: dict[str, str]
    """Of its environment."""
    processors: int | None = None
    """How many of the processors it may use; by default it starts a process on each of them for some work."""
    handles: int | None = None
    """Files that it may have open at a time."""
    memory: int | None = None
    """Bytes of addresses that it may take beyond those of the packages."""
    file_bytes: int | None = None
    """Size of the largest file that it may write."""
    writers: int = 1
    """How many times it is started at once."""
    logs: list[str] = field(default_factory=list)


class Forks:
    """A process with all packages, of which each command gets a copy."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "ignore", __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._read()

    def run(
        self, order: Order, after: float | None = None, by: int = signal.SIGKILL
    ) -> tuple[list[int], list[str], float]:
        """Run a command, and send it a signal after some seconds, if it has not ended by then.

        Args:
            order: The command.
            after: Seconds of processor time, or `PATIENCE` times as many by the clock; None to let it end.
            by: SIGINT reaches its workers as well, as it does from a terminal.

        Returns:
            Its exit code, negative for a signal, and what it said, once for each writer, and its processor time.
        """
        assert self._process.stdin is not None
        with tempfile.TemporaryDirectory(prefix="mcss-torture-") as folder:
            order.logs[:] = [f"{folder}/{number}" for number in range(order.writers)]
            self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
            self._process.stdin.flush()
            begun, processes = time.monotonic(), [self._read() for _ in order.logs]
            while after is not None and not select.select([self._process.stdout], [], [], TICK)[0]:
                if processor_time(processes[0]) > after or time.monotonic() - begun > PATIENCE * after:
                    for process in processes:
                        with contextlib.suppress(ProcessLookupError):  # it has just ended
                            (os.killpg if by == signal.SIGINT else os.kill)(process, by)
                    break
            ends = [(self._read(), self._read()) for _ in order.logs]
            said = [Path(log).read_text(errors="replace") for log in order.logs]
            return [code for code, _ in ends], said, max(milliseconds for _, milliseconds in ends) / 1000

    def _read(self) -> int:
        assert self._process.stdout is not None
        line = b""
        while not line.endswith(b"\n"):  # unbuffered, so that `select` sees what is left
            piece = os.read(self._process.stdout.fileno(), 1)
            if not piece:
                raise RuntimeError("the process that starts commands has ended")
            line += piece
        return int(line)


def serve() -> None:
    """Load the packages, and start the commands that the standard input names, one order after another."""
    import mcss

    names = [module.name for module in pkgutil.walk_packages(mcss.__path__, "mcss.") if "__main__" not in module.name]
    for name in (*names, *ALSO):
        try:
            import_module(name)
        except ImportError:  # an extra that is not installed
            continue
    report = os.dup(1)
    os.write(report, b"0\n")
    while line := sys.stdin.readline():
        order = json.loads(line)
        children = []
        for log in order["logs"]:
            children.append(os.fork())
            if not children[-1]:
                os.close(report)
                _become(order, log)
                return
        os.write(report, "".join(f"{child}\n" for child in children).encode())
        for child in children:
            _, status, used = os.wait4(child, 0)
            milliseconds = 1000 * (used.ru_utime + used.ru_stime)
            os.write(report, f"{os.waitstatus_to_exitcode(status)}\n{milliseconds:.0f}\n".encode())


def _become(order: dict[str, Any], log: str) -> None:
    """Run a command in this process."""
    from mcss.cli import main

    os.setsid()
    os.environ.update(order["variables"])
    tempfile.tempdir = None
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream, number in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
        os.dup2(stream, number)
    if order["processors"] is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: order["processors"]])
    if order["memory"] is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        order["memory"] += used
    for name, limit in (("handles", "NOFILE"), ("memory", "AS"), ("file_bytes", "FSIZE")):
        if order[name] is not None:
            resource.setrlimit(getattr(resource, f"RLIMIT_{limit}"), (order[name], order[name]))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python does when it starts
    sys.argv = ["mcss", *order["arguments"]]
    main(order["arguments"])


if __name__ == "__main__":
    serve()
