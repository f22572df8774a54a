"""`mcss --help`, which is printed without loading the verbs."""

import inspect
import re
from importlib import import_module

import pytest

import mcss
from mcss.cli import main
from mcss.cli.verbs import VERBS

GROUPS = ("synthetic", "import", "train")
"""Verbs that have subcommands; their help comes from the table."""


def first_paragraph(docstring: str | None) -> str:
    """Return the first paragraph in one line."""
    return re.sub(r"\s+", " ", inspect.cleandoc(docstring or "").split("\n\n")[0])


@pytest.mark.parametrize("name", [name for name in VERBS if name not in GROUPS])
def test_a_verb_is_summarised_as_in_its_own_help(name: str) -> None:
    function = getattr(import_module(f"mcss.cli.{VERBS[name].module}"), name)
    assert VERBS[name].summary == first_paragraph(function.__doc__)


@pytest.mark.parametrize("args", [[], ["-h"], ["--help"]])
def test_without_a_verb_all_are_listed(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(args)
    words = capsys.readouterr().out.split()
    assert set(VERBS) <= set(words)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"mcss {mcss.__version__}\n"


def test_an_unknown_verb_is_an_error_that_names_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["trian"])
    assert stopped.value.code == 2
    told = re.sub(r"[│╰╯─\s]+", " ", "".join(capsys.readouterr()))
    listed = re.search(r"Available subcommands: ((?:\w+, )*\w+)", told)
    assert listed is not None
    assert set(listed[1].split(", ")) == set(VERBS)


def test_a_shell_can_complete_all_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    told = capsys.readouterr().out
    assert all(name in told for name in VERBS)
