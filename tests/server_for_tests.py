"""A real server in a separate process, and an HTTP client for it."""

import http.client
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Served:
    """A running `mcss serve`."""

    address: str
    process: subprocess.Popen[str]
    place: Path
    """Its folder for temporary files, in which it makes a folder of its own."""

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")

    def ask(
        self, path: str, body: bytes | None = None, method: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Send a request; return the status, and the body as JSON or bytes."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            response = connection.getresponse()
            data = response.read()
            if response.headers.get_content_type() == "application/json":
                return response.status, json.loads(data)
            return response.status, data
        finally:
            connection.close()

    def send(self, body: bytes, query: str = "") -> tuple[int, Any]:
        return self.ask(f"/api/results{query}", body)

    @property
    def folder(self) -> Path:
        (found,) = self.place.iterdir()
        return found

    def files(self) -> list[str]:
        """Return what lies in the server's folder besides the lock that says whose it is."""
        return sorted(path.name for path in self.folder.iterdir() if path.name != ".lock")

    def worker(self) -> int:
        """Return the id of the process that opens files."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        # The server's other child is multiprocessing's resource tracker; children are listed per thread.
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            children += (task / "children").read_text().split()
        for child in children:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise AssertionError("no worker")


@contextmanager
def served(place: Path, *options: str) -> Iterator[Served]:
    """Run `mcss serve` on a free port until the block ends."""
    place.mkdir()
    command = [str(Path(sys.executable).with_name("mcss")), "serve", "--port", "0", *options]
    environment = {**os.environ, "TMPDIR": str(place), "COLUMNS": "200"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        said = ""
        try:
            for line in process.stdout:
                said += line
                if found := re.search(r"http://[\w.]+:\d+", line):
                    yield Served(found[0], process, place)
                    return
            raise AssertionError(said)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def gone(pid: int, seconds: float = 60) -> bool:
    """Wait until a process that is not a child has ended."""
    handle = os.pidfd_open(pid)
    try:
        return bool(select.select([handle], [], [], seconds)[0])
    finally:
        os.close(handle)
