"""The overview `mcss --help`, which is written without loading the verbs, and the verbs that it lists."""

import re

import pytest

import mcss
from mcss.cli import main
from mcss.cli.verbs import all_verbs


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_without_a_verb_all_are_listed(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    words = capsys.readouterr().out.split()
    assert set(all_verbs()) <= set(words)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"mcss {mcss.__version__}\n"


def test_an_unknown_verb_is_an_error_that_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 2
    message = " ".join(capsys.readouterr().err.split())
    listed = re.search(r"Available: ((?:\w+, )*\w+)", message)
    assert listed is not None
    assert set(listed[1].split(", ")) == set(all_verbs())


@pytest.mark.parametrize(("args", "code"), [(["train"], 2), (["train", "--help"], 0)])
def test_a_group_lists_its_verbs(args: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == code
    assert {"METHOD", "mcss", "supervised", "rhodin_eccv18"} <= set(capsys.readouterr().out.split())


def test_a_shell_can_complete_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    text = capsys.readouterr().out
    assert all(name in text for name in all_verbs())
