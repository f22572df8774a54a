"""Besiege `mcss serve` on this computer with hostile requests and slow visitors: docs/results/siege.json.

The server must go on, answer others within the time that an image takes, keep no file of a visitor, and hold no more
connections and memory than before. The requests follow from the seed.

python scripts/siege.py --requests 1000
"""

import argparse
import http.client
import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mcss.files import write_json

ROOT = Path(__file__).parents[1]
ENDED = "ended"
HEADERS = (
    ("Host", "evil.example"), ("Host", "127.0.0.1\0"), ("Origin", "http://evil.example"), ("Content-Length", "-1"),
    ("Content-Length", "99999999999999999999"), ("Transfer-Encoding", "chunked"), ("X", "y" * 20_000),
    ("Range", "bytes=0-,0-,0-"), ("Cookie", "=" * 4000), ("Upgrade", "websocket"), ("Expect", "100-continue"),
)  # fmt: skip
PATHS = (
    "/", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%5c..%5cx", "//etc/passwd", "/api/results/../../x/image",
    "/api/results/0/image", "/api/results/0/crops/-1", "/api/results/0/crops/99999999999999999999", "/api/gallery/0",
    "/api/comparison?first=a&second=b", "/api/neighbours?result=x&count=99999", "/api/neighbours?image=²", "/%00",
    "/api/results?box=nan,nan,nan,nan", "/api/results?box=1e999,0,0,0", "/api/about", "/api/queue", "/" + "a" * 5000,
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "")


def photograph() -> bytes:
    """A picture of nobody."""
    return bytes(cv2.imencode(".jpg", np.full((200, 200, 3), 90, np.uint8))[1].tobytes())


def hostile(chance: random.Random, picture: bytes) -> bytes:
    """The bytes of a request that no browser sends."""
    match chance.randrange(5):
        case 0:
            return chance.randbytes(chance.randrange(1, 5000))
        case 1:
            at = chance.randrange(len(picture))
            body = picture[:at] + chance.randbytes(20) + picture[at + 20 :]
        case 2:
            kinds = (
                b"\x89PNG\r\n\x1a\n",
                b"\0\0\0\x18ftypmp42",
                b"\x1a\x45\xdf\xa3",
                b"RIFF\0\0\0\0AVI ",
                b"II*\0",
                b"BM",
            )
            body = chance.choice(kinds) + chance.randbytes(chance.randrange(3000))
        case _:
            body = chance.randbytes(chance.choice((0, 0, 10, 1000)))
    lines = [f"{chance.choice(METHODS)} {chance.choice(PATHS)} HTTP/1.1", f"Content-Length: {len(body)}"]
    lines += ["Host: 127.0.0.1"] * chance.choice((0, 1, 1, 1, 2))
    lines += [": ".join(chance.choice(HEADERS)) for _ in range(chance.randrange(3))]
    if chance.random() < 0.5:
        lines[0] = "POST /api/results HTTP/1.1"
    whole = "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + body
    return whole if chance.random() < 0.8 else whole[: chance.randrange(1, len(whole))]


def send(port: int, data: bytes, patience: float) -> str:
    """Send bytes and return the status of the answer, or how the connection ended."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(200)
            found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
            return found[1].decode() if found else ENDED
    except TimeoutError:
        return "no answer"
    except OSError:
        return ENDED


def ask(port: int, path: str, body: bytes | None = None, source: str = "127.0.0.1") -> tuple[int, float]:
    """Ask as a browser would; returns status and seconds."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300, source_address=(source, 0))
    try:
        connection.request("GET" if body is None else "POST", path, body)
        return connection.getresponse().status, time.monotonic() - begun
    finally:
        connection.close()


def held(process: int) -> tuple[int, float]:
    """Open files, and megabytes of memory, of the server."""
    status = Path(f"/proc/{process}/status").read_text()
    memory = int(re.search(r"VmRSS:\s+(\d+)", status)[1])  # type: ignore[index]
    return len(list(Path(f"/proc/{process}/fd").iterdir())), memory / 1000


def main() -> None:
    """Start a server, besiege it, and write what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--slow", type=int, default=230, help="connections that send half a header and wait")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "siege.json")
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mcss-siege-") as place:
        command = [str(Path(sys.executable).with_name("mcss")), "serve", "--port", "0", "--find", "whole"]
        environment = {**os.environ, "TMPDIR": place, "COLUMNS": "200"}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as server:
            assert server.stdout is not None
            said = ""
            for line in server.stdout:
                said += line
                if found := re.search(r"http://[\w.]+:(\d+)", line):
                    break
            else:
                raise SystemExit(f"the server does not start: {said}")
            port = int(found[1])
            try:
                result = besiege(port, server, Path(place), given, time.monotonic() + 60 * given.minutes)
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(60)
        result["files_left"] = len(list(Path(place).iterdir()))
    print(result)
    write_json(given.out, result)


def besiege(
    port: int, server: "subprocess.Popen[str]", place: Path, given: argparse.Namespace, end: float
) -> dict[str, Any]:
    """Send all requests, with slow visitors in between, and ask as others would."""
    picture, chance = photograph(), random.Random(given.seed)
    alone = ask(port, "/api/results", picture)
    files, memory = held(server.pid)
    answers: Counter[str] = Counter()
    others: list[tuple[int, float]] = []
    sent = 0
    while sent < given.requests and time.monotonic() < end:
        answers[send(port, hostile(chance, picture), 150)] += 1
        sent += 1
        if sent % 100 == 0:
            others.append(ask(port, "/api/about"))
    slow = []
    for _ in range(given.slow):
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
        connection.sendall(b"POST /api/results HTTP/1.1\r\nHost: 127")
        slow.append(connection)
    during = [ask(port, path, body, "127.0.0.2") for path, body in (("/api/about", None), ("/api/results", picture))]
    given_up = 0
    for connection in slow:  # the server closes them at its deadline
        try:
            given_up += not connection.recv(1)
        except OSError:
            given_up += 1
        connection.close()
    after = ask(port, "/api/results", picture)
    files_after, memory_after = held(server.pid)
    return {
        "seed": given.seed,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "requests": sent,
        "slow_visitors": len(slow),
        "given_up": given_up,
        "crashes": int(server.poll() is not None),
        "answers": dict(sorted(answers.items())),
        "server_errors": sum(count for status, count in answers.items() if status.startswith("5") and status != "503"),
        "others_asked": len(others) + len(during) + 1,
        "others_served": sum(status == 200 for status, _ in [*others, *during, after]),
        "seconds_alone": round(alone[1], 2),
        "seconds_during": round(during[1][1], 2),
        "open_files": [files, files_after],
        "memory_mb": [round(memory), round(memory_after)],
        "visitors_files": len(list(next(place.iterdir()).glob("[!.]*"))),  # besides the lock
    }


if __name__ == "__main__":
    main()
