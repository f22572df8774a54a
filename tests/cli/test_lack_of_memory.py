import pytest

import mcss.cli


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
        RuntimeError("could not create a primitive"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_too_little_memory_is_said_in_words(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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


def test_too_few_file_handles_are_said_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> None:
        raise OSError(24, "Too many open files", "images.lance")

    monkeypatch.setattr(mcss.cli, "_run", fails)
    with pytest.raises(SystemExit):
        mcss.cli.main(["train"])
    said = capsys.readouterr().err
    assert "Too many open files: 'images.lance'. Allow more (`ulimit -n 4096`) or use fewer processes" in said


def test_other_errors_of_the_program_itself_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("a fault of mcss")

    monkeypatch.setattr(mcss.cli, "_run", fails)
    with pytest.raises(RuntimeError, match="a fault of mcss"):
        mcss.cli.main(["train"])
