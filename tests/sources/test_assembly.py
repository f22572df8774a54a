import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mcss.data.capture import Capture
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.errors import CaptureError, SourceError
from mcss.sources import assembly
from mcss.sources.assembly import ImportResult, Note, SubjectCount, assemble

INFO = CaptureInfo("drawn", "CC0-1.0", 16, {"train": (Selector(subjects=("S1", "S2")),)})
SEQUENCES = ("Sitting", "Walking", "Waving")


@dataclass(frozen=True)
class DrawnPart:
    """Two views of grey images; `fault` says what goes wrong halfway."""

    subject: str
    sequence: str
    images: int = 12
    fault: str = ""

    def frames(self, note: Note) -> Iterator[Frame]:
        note(f"{self.sequence}: drawn")
        for index in range(self.images):
            if index == self.images // 2:
                self._fail()
            yield drawn(self.subject, self.sequence, index // 2, ("a", "b")[index % 2])

    def _fail(self) -> None:
        match self.fault:
            case "file":
                raise SourceError(f"{self.sequence}.mp4: expected a video, came a song; copy it again")
            case "bug":
                raise ZeroDivisionError("float division by zero")
            case "memory":
                raise MemoryError
            case "full":
                raise OSError(errno.ENOSPC, f"{self.sequence}.jpg could not be written (No space left on device)")
            case "crash":
                os._exit(11)


def drawn(subject: str, sequence: str, frame: int, view: str, size: int = 16) -> Frame:
    image = np.full((size, size, 3), 10 * frame % 250, np.uint8)
    jpeg = cv2.imencode(".jpg", image)[1].tobytes()
    return Frame(subject, sequence, sequence, frame, frame / 25, view, jpeg, (0.0, 0.0, 16.0, 16.0))


def parts(**faults: str) -> list[DrawnPart]:
    """Three sequences of two subjects; `S1_Walking="file"` damages one."""
    return [
        DrawnPart(subject, sequence, fault=faults.get(f"{subject}_{sequence}", ""))
        for subject in ("S1", "S2")
        for sequence in SEQUENCES
    ]


def data_files(capture: Path) -> int:
    return len(list((capture / "frames.lance" / "data").iterdir()))


def test_parts_become_sequences_and_are_counted(tmp_path: Path) -> None:
    done = assemble(parts(), tmp_path / "capture", INFO, processes=1)
    assert done.imported == tuple(f"{s}/{q}" for s in ("S1", "S2") for q in SEQUENCES)
    assert (done.kept, done.problems, len(done.notes)) == ((), (), 6)
    assert done.counts == (SubjectCount("S1", 3, 3, 36, 36), SubjectCount("S2", 3, 3, 36, 36))
    assert len(done.capture) == 72
    assert (done.capture.instants("train").rows >= 0).all()


@pytest.mark.slow
def test_several_processes_give_the_same_capture_and_a_crash_in_one_costs_one_sequence(tmp_path: Path) -> None:
    whole = assemble(parts(), tmp_path / "one", INFO, processes=1)
    spoilt = assemble(parts(S1_Walking="crash", S2_Waving="file"), tmp_path / "two", INFO, processes=2)
    assert len(spoilt.imported) == 4
    assert [count.sequences for count in spoilt.counts] == [2, 2]
    crash, file = sorted(spoilt.problems)
    assert crash.startswith("S1/Walking: the process that worked on it was killed")
    assert file == "Waving.mp4: expected a video, came a song; copy it again"
    mended = assemble(parts(), tmp_path / "two", INFO, processes=2)
    assert sorted(mended.imported) == ["S1/Walking", "S2/Waving"]
    assert mended.capture.fingerprint == whole.capture.fingerprint


def test_a_part_that_fails_leaves_nothing_behind_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "PIECE_BYTES", 1)  # writes every row at once
    faults = {"S1_Sitting": "file", "S2_Walking": "bug", "S2_Waving": "memory"}
    done = assemble(parts(**faults), tmp_path / "capture", INFO, processes=1)
    assert done.problems == (
        "Sitting.mp4: expected a video, came a song; copy it again",
        "S2/Walking: unexpected ZeroDivisionError: float division by zero",
        "S2/Waving: too little memory; run the same command again with fewer processes",
    )
    assert len(done.capture) == data_files(tmp_path / "capture") == 3 * 12
    assert [(c.sequences, c.expected_sequences, c.images) for c in done.counts] == [(2, 3, 24), (1, 3, 12)]


class StopAfter:
    """A progress display that interrupts the import after some sequences."""

    def __init__(self, sequences: int) -> None:
        self.left = sequences

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator["StopAfter"]:
        yield self

    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("processes", [1, 2])
def test_a_stopped_import_continues_to_the_same_capture(tmp_path: Path, processes: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        assemble(parts(), tmp_path / "capture", INFO, StopAfter(2), processes=processes)
    assert data_files(tmp_path / "capture") == 2
    with pytest.raises(CaptureError, match=r"unfinished \(2 sequences so far\)"):
        Capture.open(tmp_path / "capture")
    rest = assemble(parts(), tmp_path / "capture", INFO, processes=1)
    assert (len(rest.kept), len(rest.imported)) == (2, 4)
    whole = assemble(parts(), tmp_path / "whole", INFO, processes=1)
    assert rest.capture.fingerprint == whole.capture.fingerprint


ENDLESS = """
import signal
import sys
from dataclasses import dataclass, replace
sys.path.insert(0, {tests!r})
from test_assembly import INFO, DrawnPart, assemble, drawn

@dataclass(frozen=True)
class Endless(DrawnPart):
    def frames(self, note):
        for frame in range(10**9):
            if frame == 20:
                open({started!r}, "a").write("x")
            yield drawn(self.subject, self.sequence, frame, "a")

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what starts the tests may ignore it
    parts = [DrawnPart("S1", "Short"), Endless("S1", "Endless"), Endless("S1", "Too")]
    assemble(parts, {out!r}, INFO, processes=2)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_program_that_is_interrupted_or_killed_ends_with_its_processes_and_keeps_what_was_finished(
    tmp_path: Path, how: signal.Signals
) -> None:
    started, out = tmp_path / "started", tmp_path / "capture"
    script = ENDLESS.format(tests=str(Path(__file__).parent), started=str(started), out=str(out))
    (tmp_path / "program.py").write_text(script)
    command = [sys.executable, str(tmp_path / "program.py")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, text=True) as program:
        while (not started.exists() or len(started.read_text()) < 2) and program.poll() is None:
            pass
        os.killpg(program.pid, how) if how == signal.SIGINT else program.send_signal(how)
        assert program.stderr is not None
        errors = program.stderr.read()  # ends when the last process has ended
    assert errors.count("KeyboardInterrupt\n") == (1 if how == signal.SIGINT else 0)
    rest = assemble([DrawnPart("S1", "Short")], out, INFO, processes=1)
    assert rest.kept == ("S1/Short",)
    assert data_files(out) == 1


def test_a_part_that_gives_rows_of_another_or_a_wrong_size_or_none_is_named(tmp_path: Path) -> None:
    class Odd(DrawnPart):
        def frames(self, note: Note) -> Iterator[Frame]:
            match self.sequence:
                case "other":
                    yield drawn("S9", "other", 0, "a")
                case "twice":
                    yield drawn("S1", "twice", 0, "a")
                    yield drawn("S1", "twice", 0, "a")
                case "size":
                    yield drawn("S1", "size", 0, "a", size=20)
                case _:
                    return

    odd = [Odd("S1", name) for name in ("other", "twice", "size", "none")]
    with pytest.raises(SourceError) as raised:
        assemble(odd, tmp_path / "capture", INFO, processes=1, problems=["S7: the folder is missing"])
    lines = str(raised.value).splitlines()
    assert lines[0] == "S7: the folder is missing"
    assert lines[1].startswith("S1/other: expected rows of this sequence in order of their frames")
    assert lines[1].endswith("got S9/other frame 0 view a")
    assert lines[2].startswith("S1/twice: expected rows of this sequence")
    assert lines[2].endswith("got S1/twice frame 0 view a")
    assert "expected a JPEG of 16×16 pixels, got 20×20" in lines[3]
    assert lines[4] == "S1/none: it contains no image; check its files"
    assert lines[5].startswith("nothing could be imported into")


def test_an_import_that_gave_nothing_may_be_begun_anew_with_other_settings(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nothing could be imported"):
        assemble([DrawnPart("S1", "Walking", fault="file")], tmp_path / "capture", INFO, processes=1)
    other = replace(INFO, settings={"boxes": "joints"})
    assert assemble(parts()[:1], tmp_path / "capture", other, processes=1).capture.info == other
    with pytest.raises(CaptureError, match="begun with other settings"):
        assemble(parts(), tmp_path / "capture", INFO, processes=1)


def test_subjects_of_the_set_that_are_missing_are_counted(tmp_path: Path) -> None:
    done: ImportResult = assemble(parts()[:2], tmp_path / "c", INFO, processes=1, expected={"S1": 3, "S8": 3})
    assert done.counts == (SubjectCount("S1", 2, 3, 24, 24), SubjectCount("S8", 0, 3, 0, 0))


def test_a_full_disk_ends_the_import_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("mcss.data.storage.write_fragments", full)
    with pytest.raises(CaptureError, match=r"\(No space left on device\)\. What was written before stays: make room"):
        assemble(parts(), tmp_path / "capture", INFO, processes=1)


def test_a_disk_that_fills_up_beside_the_capture_ends_the_import_too(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"Walking\.jpg could not be written \(No space left on device\)"):
        assemble(parts(S1_Walking="full"), tmp_path / "capture", INFO, processes=1)
    mended = assemble(parts(), tmp_path / "capture", INFO, processes=1)
    assert mended.kept == ("S1/Sitting",)
    assert len(mended.capture) == 72


def test_no_parts_or_no_processes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is not one sequence"):
        assemble([], tmp_path / "capture", INFO)
    with pytest.raises(ValueError, match="processes: expected at least 1, got 0"):
        assemble(parts(), tmp_path / "capture", INFO, processes=0)
    assert not (tmp_path / "capture").exists()
