"""Captures that two processes write, whose files are damaged, or whose names lead elsewhere."""

import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import lance
import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from mcss.data import storage
from mcss.data.capture import Capture
from mcss.data.schema import Frame
from mcss.data.storage import WritingLock, why_not_written
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError

HOLDER = """
import sys
from captures_for_tests import INFO, stick_part
from mcss.data.writer import CaptureWriter
writer = CaptureWriter.open(sys.argv[1], info=INFO)
writer.append(stick_part(0, 0, instants=1))
print("holds it", flush=True)
sys.stdin.read()
"""


def test_a_second_process_that_writes_the_same_capture_is_refused_and_a_killed_one_holds_nothing(
    tmp_path: Path,
) -> None:
    out = tmp_path / "capture"
    command = [sys.executable, "-c", HOLDER, str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"holds it\n"
        with pytest.raises(CaptureError, match=rf"is being written by another process \({holder.pid}\): wait until"):
            CaptureWriter.open(out, info=INFO)
        holder.send_signal(signal.SIGKILL)
    second = CaptureWriter.open(out, info=INFO)
    assert second.done() == {("S1", "Walking 1")}
    second.append(stick_part(0, 1, instants=1))
    second.finish()
    assert sorted(path.name for path in out.iterdir()) == ["frames.lance"]


def test_without_a_lock_a_part_that_another_has_added_is_not_added_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WritingLock, "take", lambda _: None)  # as in an object store
    one, two = (CaptureWriter.open(tmp_path / "c", info=INFO) for _ in range(2))
    one.append(stick_part(0, 0, instants=1))
    two.append(stick_part(0, 1, instants=1))
    with pytest.raises(CaptureError, match="S1/Walking 1 is in the capture at"):
        two.append(stick_part(0, 0, instants=1))
    with pytest.raises(CaptureError, match=r"another process added S1/Waving 1 to the capture at .* same time"):
        one.append(stick_part(0, 1, instants=1))
    assert len(CaptureWriter.open(tmp_path / "c", info=INFO).finish()) == 8


def test_two_commits_of_one_part_at_the_same_moment_leave_none_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WritingLock, "take", lambda _: None)
    one, two = (CaptureWriter.open(tmp_path / "c", info=INFO) for _ in range(2))
    monkeypatch.setattr(storage, "rows_of", lambda *_: 0)  # the second looks before the first commits
    commit = lance.LanceDataset.commit

    def first_the_other(*args: object, **named: object) -> object:
        monkeypatch.setattr(lance.LanceDataset, "commit", commit)
        one.append(stick_part(0, 0, instants=1))
        monkeypatch.undo()
        return commit(*args, **named)

    monkeypatch.setattr(lance.LanceDataset, "commit", first_the_other)
    with pytest.raises(CaptureError, match="another process was adding S1/Walking 1"):
        two.append(stick_part(0, 0, instants=1))
    assert CaptureWriter.open(tmp_path / "c", info=INFO).done() == frozenset()


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", ".", "", "C:x", "a\\b", "a\nb", "a\x9bb", "x" * 201])
@pytest.mark.parametrize("column", ["subject", "sequence", "view"])
def test_names_that_lead_out_of_a_folder_are_neither_written_nor_read(
    name: str, column: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames: list[Frame] = [replace(frame, **{column: name}) for frame in stick_part(0, 0, instants=1)[:1]]  # type: ignore[arg-type]
    with pytest.raises(CaptureError, match="expected names of subjects, sequences and views of 1 to 200 bytes"):
        CaptureWriter.open(tmp_path / "refused", info=INFO).append(frames)
    monkeypatch.setattr("mcss.data.schema.unsafe_name", lambda _: False)  # another program would write them
    other = CaptureWriter.open(tmp_path / "other", info=INFO)
    other.append(frames)
    capture = other.finish()
    with pytest.raises(CaptureError, match="which could lead out of the folder of results"):
        capture.instants()


def used(folder: Path) -> None:
    """Read all of a capture."""
    capture = Capture.open(folder)
    rows = np.arange(len(capture))
    capture.instants()
    capture.decode(rows)
    capture.cameras(rows)
    capture.boxes(rows)
    assert capture.background("1") is not None


def test_damaged_files_of_a_capture_end_in_its_own_error(tmp_path: Path) -> None:
    out = tmp_path / "capture"
    made = CaptureWriter.open(out, info=INFO)
    part = stick_part(0, 0, instants=2)
    made.append(part)
    made.add_backgrounds({"1": part[0].image})
    made.finish()
    used(out)
    rng = np.random.default_rng(0)
    refused = 0
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for _ in range(4):
            at, length = int(rng.integers(len(whole))), int(rng.integers(1, 40))
            for damaged in (
                whole[:at],
                whole[:at] + bytes(length) + whole[at + length :],
                whole[:at] + rng.bytes(length) + whole[at + length :],
            ):
                path.write_bytes(damaged)
                with suppress(CaptureError):
                    used(out)
                    refused -= 1
                refused += 1
        path.write_bytes(whole)
    used(out)
    assert refused > 20


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mcss.schema_version", "two"),
        ("mcss.skeleton", "["),
        ("mcss.splits", "[" * 100_000),
        ("mcss.splits", "[]"),
        ("mcss.settings", "{"),
        ("mcss.image_size", "²"),
        ("mcss.looks", "1"),
    ],
)
def test_damaged_metadata_end_in_the_error_of_the_capture(key: str, value: str, tmp_path: Path) -> None:
    made = CaptureWriter.open(tmp_path / "c", info=INFO)
    made.append(stick_part(0, 0, instants=1))
    made.finish()
    lance.dataset(str(tmp_path / "c" / "frames.lance")).update_schema_metadata({key: value})
    with pytest.raises(CaptureError, match=r"the capture at .*c cannot be read \("):
        Capture.open(tmp_path / "c")


def test_a_full_disk_is_called_so_wherever_lance_says_it() -> None:
    buried = OSError("LanceError(IO): Generic LocalFileSystem error: No space left on device (os error 28), lance.rs:1")
    assert why_not_written(buried) == "No space left on device"
    assert why_not_written(RuntimeError("LanceError(IO): (os error 27)")) == "File too large"
    assert why_not_written(OSError(5, "Input/output error")) == "OSError: [Errno 5] Input/output error"
