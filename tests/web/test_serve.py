"""`mcss serve` as visitors use it: the real command on a free port, over HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filming import Room, write_video
from test_uploads import LEFT_OUT, empty_png, image_bytes, video_with_a_damaged_image

from mcss.cli import main
from mcss.data.capture import Capture
from mcss.web.server import PAGE
from runs_for_tests import equipped_run
from server_for_tests import Served, gone, served

IMAGE = image_bytes(".jpg", (160, 120))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return equipped_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    room = Room(width=160, height=120, count=40)
    return write_video(tmp_path_factory.mktemp("clips") / "walk.mp4", room.images(), codec="h264").read_bytes()


@pytest.fixture(scope="module")
def server(run: Path, tiny_capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("server") / "tmp"
    limits = ["--upload-mb", "1", "--megapixels", "4", "--seconds", "3", "--waiting", "8", "--files", "8"]
    with served(place, "--run", str(run), "--capture", tiny_capture.uri, "--patience", "2", *limits) as found:
        yield found
        assert found.files() == []
    assert list(place.iterdir()) == [], "something is left behind"


def test_an_image_is_answered_with_its_pose_and_the_crop_that_the_model_saw(server: Served) -> None:
    status, found = server.send(IMAGE)
    assert (status, found["kind"], found["width"], found["height"]) == (200, "image", 160, 120)
    (frame,) = found["frames"]
    assert np.array(frame["pose"]).shape == (17, 3)
    assert np.array(frame["joints"]).shape == (17, 2)
    assert frame["error"] > 0
    assert frame["crop_box"] == [0.0, -0.1667, 1.0, 1.1667]
    for path in (f"/api/results/{found['id']}/image", f"/api/results/{found['id']}/crops/0"):
        status, data = server.ask(path)
        assert (status, data[:2]) == (200, b"\xff\xd8")
    assert server.ask(f"/api/results/{found['id']}/crops/1")[0] == 400
    _, boxed = server.send(IMAGE, "?box=0.25,0.25,0.5,0.5")
    assert boxed["frames"][0]["crop_box"] == pytest.approx([0.2125, 0.1167, 0.7875, 0.8833], abs=0.005)


def test_a_video_is_answered_frame_by_frame_and_can_be_compared(server: Served, walk: bytes) -> None:
    status, found = server.send(walk)
    assert (status, found["kind"], len(found["frames"])) == (200, "video", 20)
    assert [frame["time"] for frame in found["frames"]] == pytest.approx(np.arange(20) * 0.08, abs=0.002)
    status, same = server.ask(f"/api/comparison?first={found['id']}&second={found['id']}")
    assert status == 200
    assert same["pairs"] == [[i, i] for i in range(20)]
    assert max(same["apart"]) < 1
    assert len(same["angles"]) == 9
    _, image = server.send(IMAGE)
    status, answer = server.ask(f"/api/comparison?first={found['id']}&second={image['id']}")
    assert (status, answer["error"]) == (422, "video B: expected 8 images or more, got 1; choose a longer video")


def test_the_answer_says_what_of_a_damaged_video_is_left_out(server: Served, tmp_path: Path) -> None:
    status, found = server.send(video_with_a_damaged_image(tmp_path).read_bytes())
    assert (status, len(found["frames"]), found["notes"][0]) == (200, 20, LEFT_OUT)


def test_a_result_is_given_again_and_as_files_of_poses(server: Served, walk: bytes) -> None:
    _, found = server.send(walk)
    status, again = server.ask(f"/api/results/{found['id']}")
    assert (status, again) == (200, found)
    lines = server.ask(f"/api/results/{found['id']}/poses.csv")[1].decode().splitlines()
    assert len(lines) == 1 + 20
    assert server.ask(f"/api/results/{found['id']}/poses.bvh")[1].startswith(b"HIERARCHY")
    angles = server.ask(f"/api/results/{found['id']}/poses.angles")[1].decode().splitlines()
    assert angles[0].startswith("frame,time,left_knee,right_knee,")
    assert len(angles) == 1 + 20
    status, answer = server.ask(f"/api/results/{found['id']}/poses.exe")
    assert (status, answer["error"]) == (422, "poses: expected a file of json, csv, trc, bvh, npz, angles, got 'exe'.")
    assert server.ask("/api/results/nothere")[0] == 404


def test_movements_are_found_in_the_gallery(server: Served, walk: bytes) -> None:
    _, video = server.send(walk)
    status, answer = server.ask(f"/api/movements?result={video['id']}&since=0.2&until=1.2&count=3&not_subject=S2")
    assert (status, len(answer["found"])) == (200, 3)
    assert [hit["distance"] for hit in answer["found"]] == sorted(hit["distance"] for hit in answer["found"])
    for hit in answer["found"]:
        assert hit["subject"] != "S2"
        assert hit["until"] > hit["time"]
        assert hit["strip"][0] == hit["image"]
        shown = [server.ask(f"/api/gallery/{place}")[1] for place in hit["strip"]]
        assert len(shown) == 5
        assert len({(one["subject"], one["sequence"], one["view"]) for one in shown}) == 1
        assert [one["time"] for one in shown] == sorted(one["time"] for one in shown)
    status, on = server.ask(f"/api/movements?image={answer['found'][0]['image']}&around=0.3")
    assert status == 200
    assert on["found"]
    few = "there are too few images in this time for a movement; choose more of it"
    assert server.ask(f"/api/movements?result={video['id']}&since=0.2&until=0.3") == (422, {"error": few})
    status, answer = server.ask(f"/api/movements?result={video['id']}&since=x")
    assert (status, answer["error"]) == (400, "since: expected seconds from 0 on, got 'x'")


def test_neighbours_are_found_filtered_and_searched_on_from(server: Served) -> None:
    _, look = server.send(IMAGE)
    status, answer = server.ask(f"/api/neighbours?result={look['id']}&count=5&subject=S2&not_view=1")
    assert status == 200
    found = answer["found"]
    assert len(found) == 5
    assert {hit["subject"] for hit in found} == {"S2"}
    assert "1" not in {hit["view"] for hit in found}
    assert [hit["distance"] for hit in found] == sorted(hit["distance"] for hit in found)
    assert all(len(hit["others"]) == 3 for hit in found)
    place = found[0]["image"]
    status, shown = server.ask(f"/api/gallery/{place}")
    assert (status, shown["subject"], len(shown["others"])) == (200, "S2", 3)
    assert np.array(shown["true"]).shape == (17, 3)
    assert server.ask(f"/api/gallery/{place}/image")[1][:2] == b"\xff\xd8"
    _, on = server.ask(f"/api/neighbours?image={place}&count=4&not_subject=S2")
    assert "S2" not in {hit["subject"] for hit in on["found"]}
    _, none = server.ask("/api/neighbours?image=0&subject=nobody")
    assert none["found"] == []


HOSTILE = {
    "nothing": (b"", 415, "the file is empty"),
    "a page": (b"<!doctype html><script>alert(1)</script>", 415, "not a file that can be read"),
    "a program": (b"\x7fELF" + bytes(2000), 415, "not a file that can be read"),
    "a playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", 415, "not a file that can be read"),
    "a playlist in a video's clothes": (
        b"\0\0\0\x18ftypisom#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        422,
        "the video is damaged",
    ),
    "noise behind a JPEG's first bytes": (b"\xff\xd8\xff\xe0" + os.urandom(5000), 422, "the image is damaged"),
    "half an image's header": (IMAGE[:30], 422, "the image is damaged"),
    "a decompression bomb": (empty_png(15000, 15000), 422, "more than 4 million"),
    "a file that is too large": (IMAGE + bytes(1_000_000), 413, "larger than 1 MB"),
    "half a matroska": (b"\x1a\x45\xdf\xa3" + os.urandom(3000), 422, "the video is damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_a_message_and_the_next_visitor_is_served(server: Served, name: str) -> None:
    body, status, message = HOSTILE[name]
    came, answer = server.send(body)
    assert came == status, answer
    assert message in answer["error"]
    assert str(server.place) not in json.dumps(answer)
    assert server.send(IMAGE)[0] == 200
    assert server.files() == []


def test_a_video_that_is_too_long_is_refused(server: Served, tmp_path: Path) -> None:
    room = Room(width=64, height=48, count=120)
    status, answer = server.send(write_video(tmp_path / "long.mp4", room.images()).read_bytes())
    assert status == 422
    assert answer["error"] == (
        "the video is longer than 3 s; cut out the part that matters, or ask the person who runs this page to start "
        "it with a larger --seconds"
    )


@pytest.mark.parametrize("box", ["", "a,b", "0,0,0,0", "nan,0,1,1", "5,5,1,1", "0,0,1e9,1", "0,0,1,1,1"])
def test_invalid_boxes_are_refused(server: Served, box: str) -> None:
    status, answer = server.send(IMAGE, f"?box={box}")
    assert (status, "box" in answer["error"]) == (400, True)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/nothing", 404),
        ("/../../../../etc/passwd", 404),
        ("/%2e%2e/%2e%2e/server.py", 404),
        ("/..%2fserver.py", 404),
        ("/api/results/../../x/image", 404),
        ("/api/results/nobody/image", 404),
        ("/api/gallery/-1", 400),
        ("/api/gallery/999999999", 400),
        ("/api/gallery/%D9%A1", 400),
        ("/api/neighbours?result=nobody", 404),
        ("/api/neighbours?image=1&count=1000000", 400),
        ("/api/neighbours?image=1&subject=%27%20OR%201%3D1", 200),
        ("/api/comparison", 404),
    ],
)
def test_addresses_that_lead_nowhere_are_answered_politely(server: Served, path: str, status: int) -> None:
    came, answer = server.ask(path)
    assert came == status
    assert ("error" in answer) == (status != 200)


def test_the_page_contacts_no_other_host_and_no_other_page_may_use_it(server: Served) -> None:
    assert server.ask("/")[1].startswith(b"<!doctype html>")
    for name in ("index.html", *(path.name for path in PAGE.iterdir())):
        status, data = server.ask(f"/{name}")
        assert status == 200
        assert b"https://" not in data
        assert b"http://" not in data.replace(b"http://www.w3.org/2000/svg", b"")
    with socket.create_connection(tuple(server.host.split(":"))) as line:  # type: ignore[arg-type]
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head = b"".join(iter(lambda: line.recv(65536), b"")).partition(b"\r\n\r\n")[0].decode().lower()
    assert "content-security-policy: default-src 'self'" in head
    assert "x-content-type-options: nosniff" in head
    assert "server:" not in head
    status, answer = server.ask("/api/about", headers={"Host": "evil.example"})
    assert status == 421
    assert answer["error"].startswith(
        "this server does not answer to the name evil.example; start it with --allow-host"
    )
    status, answer = server.ask("/api/results", IMAGE, headers={"Origin": "http://evil.example"})
    assert (status, "own page" in answer["error"]) == (403, True)
    assert server.ask("/api/results", IMAGE, headers={"Origin": server.address})[0] == 200


def test_eight_visitors_at_once_are_all_served(server: Served, walk: bytes) -> None:
    bodies = [IMAGE, walk, empty_png(15000, 15000), IMAGE, b"x", walk, IMAGE, IMAGE]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(server.send, bodies))
    assert [status for status, _ in answers] == [200, 200, 422, 200, 415, 200, 200, 200]
    assert answers[1][1]["frames"] == answers[5][1]["frames"]
    assert server.ask("/api/queue") == (200, {"waiting": 0, "share": None})
    assert server.files() == []


def test_a_ninth_visitor_is_asked_to_come_back_and_a_silent_one_is_dropped(server: Served) -> None:
    begun = b"POST /api/results HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n\xff\xd8\xff"
    lines = [socket.create_connection(tuple(server.host.split(":")), timeout=60) for _ in range(8)]  # type: ignore[arg-type]
    try:
        for line in lines:
            line.sendall(begun)
        while server.ask("/api/queue")[1]["waiting"] < 8:
            pass
        status, answer = server.send(IMAGE)
        assert (status, answer["error"]) == (503, "there are too many visitors at the moment; try again in a minute")
        lines[0].close()  # one disconnects halfway
        for line in lines[1:]:
            said = line.recv(65536)
            assert said.startswith(b"HTTP/1.1 408")
            assert b"connection: close" in said.lower(), "or an endless body would be read to its end"
    finally:
        for line in lines:
            line.close()
    while server.ask("/api/queue")[1]["waiting"]:
        pass
    assert server.send(IMAGE)[0] == 200
    assert server.files() == []


def test_a_file_of_unknown_length_is_refused_at_its_end_and_an_endless_one_before(server: Served) -> None:
    begun = b"POST /api/results HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"40000\r\n" + b"\xff\xd8\xff" + bytes(0x40000 - 3) + b"\r\n"
    with socket.create_connection(tuple(server.host.split(":")), timeout=60) as line:  # type: ignore[arg-type]
        line.sendall(begun + 6 * chunk + b"0\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 413")
    with socket.create_connection(tuple(server.host.split(":")), timeout=60) as line:  # type: ignore[arg-type]
        line.sendall(begun)
        with pytest.raises(ConnectionError):
            line.sendall(1000 * chunk)  # 250 times the limit
    assert server.send(IMAGE)[0] == 200
    assert server.files() == []


def test_a_file_that_kills_the_worker_is_reported_and_another_worker_serves_the_next(server: Served) -> None:
    before = server.worker()
    os.kill(before, signal.SIGKILL)
    assert gone(before)
    status, answer = server.send(IMAGE)
    assert (status, "which has been started again" in answer["error"]) == (422, True)
    assert server.send(IMAGE)[0] == 200
    assert server.worker() != before


@pytest.mark.slow
def test_work_that_hangs_or_needs_too_much_memory_is_given_up(run: Path, tmp_path: Path) -> None:
    limits = ["--work-seconds", "5", "--memory-mb", "60"]
    with served(tmp_path / "tmp", "--run", str(run), *limits) as server:
        assert server.send(IMAGE)[0] == 200
        os.kill(server.worker(), signal.SIGSTOP)
        status, answer = server.send(IMAGE)
        assert (status, "took longer than 5 s" in answer["error"]) == (422, True)
        assert server.send(IMAGE)[0] == 200
        status, answer = server.send(empty_png(7000, 7000))  # allowed, but 150 MB when decoded
        assert status == 422, answer
        assert server.send(IMAGE)[0] == 200
        assert server.files() == []
        status, answer = server.ask("/api/neighbours?result=x")
        assert (status, "start the server with --index INDEX or --capture CAPTURE" in answer["error"]) == (404, True)
        with socket.create_connection(tuple(server.host.split(":"))) as line:  # type: ignore[arg-type]
            line.sendall(b"POST /api/results HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n\xff\xd8")
            while not server.files():
                pass
            worker = server.worker()
            server.process.kill()  # it cannot clean up, so its worker does
            assert gone(worker)
        assert list((tmp_path / "tmp").iterdir()) == []


def test_settings_that_make_no_sense_and_places_that_are_taken_are_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        main(["serve", "--run", str(run), "--port", str(taken.getsockname()[1])])
    assert "choose others with --host and --port" in " ".join(capsys.readouterr().err.split())
    for options, message in (
        (["--port", "99999"], "port: expected 0 to 65535, got 99999"),
        (["--index", str(tmp_path / "none")], "no index at"),
        (["--capture", str(tmp_path / "none")], "no capture at"),
    ):
        with pytest.raises(SystemExit):
            main(["serve", "--run", str(run), *options])
        assert message in " ".join(capsys.readouterr().err.split())


def test_without_the_packages_the_message_names_the_extra(run: Path) -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        f"from mcss.cli import main; main(['serve', '--run', {str(run)!r}, '--port', '0'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'mcss[serve]'" in done.stderr
