import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mcss.files import replacing, temporary_folder, write_json, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from mcss.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of the new")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@contextmanager
def disk_space(size: int) -> Iterator[None]:
    """Limit the size of every file to `size` bytes, as on a disk that is nearly full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_file_is_written_into_folders_that_were_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_text(path, "µ")
    assert path.read_text(encoding="utf-8") == "µ"
    assert names(path.parent) == ["b.txt"]


def test_json_is_readable_and_refuses_what_json_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"name": "Ängström", "values": [1, None]})
    assert "Ängström" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, float("nan"))
    assert "Ängström" in path.read_text(encoding="utf-8")


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_an_exception_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def interrupted() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["kept.txt"]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with disk_space(1000), pytest.raises(OSError, match=r"kept\.txt could not be written") as error:
        write_text(path, "x" * 100_000)
    assert "run the same command again" in str(error.value)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["kept.txt"]


def test_a_disk_that_fills_up_while_flushing_is_met_before_the_old_file_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_text(path, "new")
    assert error.value.errno == errno.ENOSPC
    assert path.read_text() == "old"
    assert names(tmp_path) == ["kept.txt"]


def test_a_folder_that_cannot_be_made_names_the_file_that_was_to_go_there(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder is wanted")
    with pytest.raises(OSError, match=r"taken/new\.txt could not be written"):
        write_text(tmp_path / "taken" / "new.txt", "x")


def test_what_a_killed_process_left_is_gone_after_the_next_writing(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert names(tmp_path) == [".kept.txt.part"]
    write_text(path, "new")
    assert names(tmp_path) == ["kept.txt"]
    assert path.read_text() == "new"


def test_two_writers_of_one_file_do_not_write_into_each_other(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    with replacing(path) as first:
        first.write_text("first")
        write_text(path, "second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert names(tmp_path) == ["kept.txt"]


def test_a_writer_that_is_done_leaves_the_next_ones_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept.txt"
    replace = Path.replace

    def replaced_and_begun_again(own: Path, target: Path) -> Path:
        result = replace(own, target)
        own.write_text("the next writer's")
        return result

    monkeypatch.setattr(Path, "replace", replaced_and_begun_again)
    write_text(path, "first")
    assert sorted(names(tmp_path)) == [".kept.txt.part", "kept.txt"]


def test_an_error_of_a_file_that_is_read_is_not_blamed_on_the_one_that_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "kept.txt"):
        (tmp_path / "folder" / "source.txt").read_text()
    assert "kept.txt" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_who_may_read_a_file_is_what_the_user_has_set(mask: int, mode: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "a.txt", "x")
        with replacing(tmp_path / "b.txt") as first:
            write_text(tmp_path / "b.txt", "x")
            assert (tmp_path / "b.txt").stat().st_mode & 0o777 == mode
            first.write_text("y")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == mode


def test_a_link_where_the_temporary_file_would_be_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("not ours")
    (tmp_path / ".kept.txt.part").symlink_to(tmp_path / "other.txt")
    write_text(tmp_path / "kept.txt", "new")
    assert (tmp_path / "other.txt").read_text() == "not ours"


TEMPORARY = """
import signal
import sys
import mcss.cli
from mcss.files import temporary_folder

def predict(_):
    with temporary_folder("mcss-test") as folder:
        (folder / "picture.jpg").write_bytes(b"somebody")
        print(folder, flush=True)
        sys.stdin.read()

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
mcss.cli._run = predict
mcss.cli.main(["predict"])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_temporary_pictures_go_with_the_program_or_with_the_next_one(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", TEMPORARY]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert sorted(names(folder)) == [".lock", "picture.jpg"]
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with temporary_folder("mcss-test"):  # a program that runs keeps its own
            assert folder.is_dir()
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in said
    assert folder.is_dir() == (number == signal.SIGKILL)
    with temporary_folder("mcss-test"):
        assert not folder.exists()
    assert names(tmp_path) == []


def test_a_temporary_folder_that_could_not_be_removed_goes_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder("mcss-test") as folder:
        (folder / "capture").mkdir()
        (folder / "capture" / "image.jpg").write_bytes(b"somebody")
        monkeypatch.setattr("os.scandir", fails)
        monkeypatch.setattr("os.listdir", fails)
    monkeypatch.undo()
    assert sorted(names(folder)) == [".lock", "capture"]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with temporary_folder("mcss-test"):
        assert not folder.exists()
    assert names(tmp_path) == []


def test_a_temporary_folder_without_a_lock_for_lack_of_handles_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Path) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("mcss.files.locked", fails)
    with pytest.raises(OSError, match="Too many open files"), temporary_folder("mcss-test"):
        pass
    assert names(tmp_path) == []
