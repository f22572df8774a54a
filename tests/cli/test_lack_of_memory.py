from pathlib import Path

import pytest

import mcss.cli
from mcss.processes import LEAST_ADDRESSES, LEAST_FILES, LEAST_MEMORY


class PanicError(BaseException):
    """An error like those of libraries written in Rust, which is no `Exception`."""


def wrapped(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
        RuntimeError("could not create a primitive"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        wrapped(Exception("a pass of the exporter failed"), wrapped(RuntimeError("inlining"), MemoryError())),
        PanicError("std::bad_alloc"),
    ],
)
def test_too_little_memory_is_said_in_words(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise error

    def needs_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(mcss.cli, "_run", fails)
    monkeypatch.setattr("rich.console.Console.print", needs_memory)
    with pytest.raises(SystemExit) as stop:
        mcss.cli.main(["train"])
    assert stop.value.code == 1
    assert "There is too little memory. Finished work is kept" in capsys.readouterr().err


def test_a_package_that_memory_is_too_short_for_is_not_called_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        try:
            raise ImportError("_lancedb.abi3.so: failed to map segment from shared object")
        except ImportError as error:
            raise ImportError("searching needs LanceDB: install it with `pip install 'mcss[search]'`") from error

    monkeypatch.setattr(mcss.cli, "_run", fails)
    with pytest.raises(SystemExit):
        mcss.cli.main(["train"])
    assert "There is too little memory." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(24, "Too many open files", "images.lance"), "Too many open files: 'images.lance'"),
        (
            ValueError("images.lance: Too many open files (os error 24)"),
            "images.lance: Too many open files (os error 24)",
        ),
        (
            wrapped(ImportError("install LanceDB"), OSError(24, "Too many open files", "lancedb")),
            "open files: 'lancedb'",
        ),
        (
            wrapped(AttributeError("half a module"), OSError(24, "Too many open files")),
            "[Errno 24] Too many open files",
        ),
        (PanicError('Os { code: 24, message: "Too many open files" }'), "Error Too many open files"),
    ],
)
def test_too_few_file_handles_are_said_with_the_way_out(
    error: BaseException, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr(mcss.cli, "_run", fails)
    with pytest.raises(SystemExit) as stop:
        mcss.cli.main(["train"])
    assert stop.value.code == 1
    assert f"{said}. Allow more (`ulimit -n 4096`) or use fewer processes" in capsys.readouterr().err


def test_an_error_that_came_while_memory_was_short_keeps_its_own_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise ValueError("model.safetensors: damaged; copy it again") from MemoryError()

    monkeypatch.setattr(mcss.cli, "_run", fails)
    with pytest.raises(SystemExit):
        mcss.cli.main(["train"])
    assert "model.safetensors: damaged; copy it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lacks", "amount", "said"),
    [
        ("free_addresses", LEAST_ADDRESSES - 10**6, "1,499 MB of addresses, expected 1,500 MB at least. Allow more"),
        ("available_memory", LEAST_MEMORY - 10**6, "299 MB are free, expected 300 MB at least. Close other programs"),
        (
            "_allowed_files",
            LEAST_FILES - 1,
            "may have 63 files open, expected 64 at least. Allow more (`ulimit -n 4096`)",
        ),
    ],
)
def test_a_command_does_not_begin_with_less_than_it_needs(
    lacks: str,
    amount: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(f"mcss.processes.{lacks}", lambda: amount)
    with pytest.raises(SystemExit) as stop:
        mcss.cli.main(["train", "mcss", "--capture", str(tmp_path), "--show-config"])
    assert stop.value.code == 1
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_other_errors_of_the_program_itself_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("a fault of mcss")

    monkeypatch.setattr(mcss.cli, "_run", fails)
    with pytest.raises(RuntimeError, match="a fault of mcss"):
        mcss.cli.main(["train"])
