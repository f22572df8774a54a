"""Visitors who send slowly, hold many connections, or come by another name; and workers that die."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mcss.web.analysis import StoppedError
from mcss.web.handlers import PageHandlers
from mcss.web.limits import Limits
from mcss.web.requests import RequestError, chunks
from mcss.web.server import OriginGuard
from mcss.web.worker import WorkError, WorkerSettings

uvicorn = pytest.importorskip("uvicorn")


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def listening(limits: Limits) -> Iterator[tuple[str, int]]:
    """A server with nothing behind its connections."""
    from mcss.web.connections import protocol_of

    server = uvicorn.Server(
        uvicorn.Config(hello, http=protocol_of(limits), ws="none", lifespan="off", log_level="error")
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            server.should_exit = True
            thread.join()


def answer(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while not received.endswith(b"ok") and (more := connection.recv(1000)):
        received += more
    return received


def test_half_a_header_is_given_up_however_often_another_byte_comes() -> None:
    with listening(Limits(header_seconds=0.3)) as place, socket.create_connection(place, timeout=30) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        slow.sendall(b"X")
        assert slow.recv(1) == b""  # closed by the server; without a deadline this would wait for ever
        with socket.create_connection(place, timeout=30) as other:
            assert answer(other).endswith(b"ok")
            other.sendall(b"GET / HT")
            assert other.recv(1) == b""


def test_one_address_cannot_take_all_places() -> None:
    with listening(Limits(connections=2)) as place:
        held = [socket.create_connection(place, timeout=30) for _ in range(2)]
        assert answer(held[0]).endswith(b"ok")
        assert answer(held[1]).endswith(b"ok")
        with socket.create_connection(place, timeout=30) as third, suppress(ConnectionError):
            assert not answer(third)
        with socket.create_connection(place, timeout=30, source_address=("127.0.0.2", 0)) as other:
            assert answer(other).endswith(b"ok")
        for connection in held:
            connection.close()


def request(stream: AsyncIterator[bytes], address: str = "10.0.0.1") -> Any:
    async def is_disconnected() -> bool:
        return False

    return SimpleNamespace(
        stream=lambda: stream,
        client=SimpleNamespace(host=address),
        query_params={},
        is_disconnected=is_disconnected,
    )


async def drops() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0)


async def photograph() -> AsyncIterator[bytes]:
    yield b"\xff\xd8\xff" + bytes(100)


def test_a_file_that_trickles_in_is_given_up() -> None:
    async def received() -> None:
        async for _ in chunks(request(drops()), Limits(upload_seconds=0.05)):
            pass

    with pytest.raises(RequestError, match=r"the file did not arrive within 0\.05 s; send a smaller one") as error:
        asyncio.run(received())
    assert error.value.status == 408


def handlers(folder: Path, worker: Any, limits: Limits) -> PageHandlers:
    made = PageHandlers("model", WorkerSettings(None), None, limits, lambda _: None)
    made.folder, made.worker, made.turn = folder, worker, asyncio.Lock()
    return made


class DyingWorker:
    def analyse(self, path: Path, kind: str, box: object) -> object:
        path.with_name(f"{path.name}.copy.mp4").write_bytes(b"a picture of somebody")
        raise WorkError("this file crashed the program that opens files")


def test_what_a_dying_worker_left_of_a_file_is_removed(tmp_path: Path) -> None:
    async def sent() -> PageHandlers:
        page = handlers(tmp_path, DyingWorker(), Limits())
        with pytest.raises(RequestError, match="crashed the program"):
            await page.analyse(request(photograph()))
        return page

    page = asyncio.run(sent())
    assert list(tmp_path.iterdir()) == []
    assert (page.waiting, dict(page.places)) == (0, {})


class PatientWorker:
    """Works until it is told to stop."""

    share = 0.25

    def __init__(self) -> None:
        self.told = threading.Event()

    def analyse(self, path: Path, kind: str, box: object) -> object:
        assert self.told.wait(60)
        raise StoppedError

    def cancel(self) -> None:
        self.told.set()


def test_a_visitor_sees_how_far_the_work_is_and_stops_it_by_leaving(tmp_path: Path) -> None:
    shares: list[Any] = []

    async def sent() -> None:
        worker = PatientWorker()
        page = handlers(tmp_path, worker, Limits())
        one = request(photograph())
        one.query_params = {"job": "mine"}

        async def leaves() -> bool:
            for job in ("mine", "another"):
                answered = await page.queue(SimpleNamespace(query_params={"job": job}))  # type: ignore[arg-type]
                shares.append(json.loads(bytes(answered.body))["share"])
            return len(shares) > 2

        one.is_disconnected = leaves
        with pytest.raises(RequestError, match="the visitor has disconnected"):
            await page.analyse(one)
        assert worker.told.is_set()
        assert page.in_work is None

    asyncio.run(sent())
    assert shares[:4] == [0.25, None, 0.25, None]


def test_the_files_of_one_address_leave_places_for_others(tmp_path: Path) -> None:
    async def sent() -> None:
        page = handlers(tmp_path, DyingWorker(), Limits(files=2))
        page.waiting, page.places["10.0.0.1"] = 2, 2
        with pytest.raises(RequestError, match="2 of your files are being processed; wait for one of them") as error:
            await page.analyse(request(photograph()))
        assert error.value.status == 503
        with pytest.raises(RequestError, match="crashed the program"):  # another address comes as far as the worker
            await page.analyse(request(photograph(), "10.0.0.2"))

    asyncio.run(sent())


@pytest.mark.parametrize(
    ("host", "allowed", "name", "answers"),
    [
        ("127.0.0.1", (), "localhost:7860", True),
        ("127.0.0.1", (), "evil.example:7860", False),
        ("127.0.0.1", ("Pose.Lab",), "pose.lab", True),
        ("0.0.0.0", (), "192.168.1.5:7860", True),
        ("0.0.0.0", (), "[::1]:7860", True),
        ("0.0.0.0", (), f"{socket.gethostname()}:7860", True),
        ("0.0.0.0", (), "evil.example", False),
        ("0.0.0.0", ("evil.example",), "evil.example", True),
    ],
)
def test_a_server_answers_only_to_its_own_names(host: str, allowed: tuple[str, ...], name: str, answers: bool) -> None:
    sent: list[Any] = []

    async def ask() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "headers": [(b"host", name.encode())], "path": "/"}
        await OriginGuard(hello, host, allowed)(scope, None, send)

    asyncio.run(ask())
    assert sent[0]["status"] == (200 if answers else 421)
    assert answers or b"--allow-host" in sent[1]["body"]
