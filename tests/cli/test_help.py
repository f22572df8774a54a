"""Help and refusals of the command line, which come without loading torch and the other heavy packages."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from mcss.cli.stand_ins import HEAVY
from mcss.cli.verbs import all_verbs, first_paragraph

COLUMNS = 100

PRINT_ALL_HELP = """
import io, json, sys
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from mcss.cli import main
from mcss.cli.stand_ins import HEAVY, heavy_packages_replaced
from mcss.cli.verbs import SECTIONS

def commands(verbs, prefix=()):
    for name, entry in verbs.entries.items():
        yield (*prefix, name)
        if hasattr(entry, "entries"):
            yield from commands(entry, (*prefix, name))

def printed(command):
    text = io.StringIO()
    with redirect_stdout(text):
        try:
            main([*command, "--help"])
        except SystemExit as stopped:
            assert not stopped.code, command
    return text.getvalue()

def all_help():
    for module in SECTIONS.values():
        import_module(f"mcss.cli.{module}")
    app = import_module("mcss.cli.terminal").app
    return {" ".join(command): printed(command) for command in commands(app)}, app.summaries()

with heavy_packages_replaced() if sys.argv[1] == "replaced" else nullcontext():
    helps, summaries = all_help()
json.dump({"help": helps, "summaries": summaries, "heavy": sorted(HEAVY & set(sys.modules))}, sys.stdout)
"""

RUN = """
import sys
from mcss.cli import main
from mcss.cli.stand_ins import HEAVY
try:
    main(sys.argv[1:])
finally:
    print(*sorted(HEAVY & set(sys.modules)))
"""


def python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter."""
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@dataclass(frozen=True)
class AllHelp:
    """The help of every verb, the summaries of the verbs, and the heavy packages that are loaded afterwards."""

    help: dict[str, str]
    summaries: dict[str, str]
    heavy: list[str]


def all_help(packages: str) -> AllHelp:
    done = python(PRINT_ALL_HELP, packages)
    assert done.returncode == 0, done.stderr
    return AllHelp(**json.loads(done.stdout))


@pytest.fixture(scope="module")
def replaced() -> AllHelp:
    return all_help("replaced")


@pytest.fixture
def helps(replaced: AllHelp) -> dict[str, str]:
    return replaced.help


def refused(*args: str, code: int = 2) -> str:
    """Return the message of a command that is refused before anything heavy is loaded."""
    done = python(RUN, *args)
    assert done.returncode == code, done.stderr
    assert done.stdout.split() == []
    return " ".join(re.sub(r"[│╰╯╭╮─\s]+", " ", done.stderr).split())


def test_help_with_stand_ins_is_the_help_with_the_real_packages(replaced: AllHelp) -> None:
    real = all_help("real")
    assert "torch" in real.heavy
    assert replaced.heavy == []
    assert {"demo", "train", "train mcss", "import videos", "synthetic build", "export"} <= set(replaced.help)
    assert replaced.help == real.help


def test_the_summaries_in_the_source_are_those_of_the_verbs(replaced: AllHelp) -> None:
    assert {name: verb.summary for name, verb in all_verbs().items()} == {
        name: first_paragraph(text) for name, text in replaced.summaries.items()
    }


def test_help_names_values_by_what_they_are(helps: dict[str, str]) -> None:
    for command, text in helps.items():
        noise = re.findall(
            r"\{None|None\}|\bSTR\b|\bINT\b|\bFLOAT\b|default: (?:None|False|True)?\)|\{fixed\}|tyro|<class", text
        )
        assert not noise, (command, noise)


def test_options_are_spelt_with_hyphens(helps: dict[str, str]) -> None:
    for command, text in helps.items():
        options = re.findall(r"(?<![\w-])--[\w.-]+", text)
        assert options, command
        assert not [option for option in options if "_" in option], command


def test_help_fits_the_terminal(helps: dict[str, str]) -> None:
    for command, text in helps.items():
        assert max(map(len, text.splitlines())) <= COLUMNS, command


def test_help_of_a_verb_is_printed_without_heavy_packages() -> None:
    done = python(RUN, "train", "mcss", "--help")
    assert done.returncode == 0
    assert "--capture CAPTURE" in done.stdout
    assert done.stdout.splitlines()[-1] == ""


def test_heavy_packages_are_loaded_for_real_where_a_verb_runs(tiny_capture: object) -> None:
    done = python(RUN, "info", str(tiny_capture.uri))  # type: ignore[attr-defined]
    assert "S1, S2, S3" in done.stdout
    assert {"lance", "torch"} <= set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "mcss: unknown verb 'trian'. Did you mean train?"),
        (["train", "mcs"], "mcss train: unknown method 'mcs'. Did you mean mcss?"),
        (["train", "nothere"], "mcss train: unknown method 'nothere'. Available: mcss, supervised"),
        (["import", "human3.6m"], "mcss import: unknown source 'human3.6m'. Did you mean human36m?"),
        (["predict", "photo.jpg", "-o", "out", "--overlaz"], "--overlay, --no-overlay"),
        (["show", "s3://bucket/capture", "--instants", "many"], "--instants: expected a whole number, got 'many'"),
    ],
)
def test_a_misspelt_verb_or_option_is_refused_with_the_nearest(args: list[str], message: str) -> None:
    assert message in refused(*args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["predict", "nothere.jpg", "-o", "out"], "nothere.jpg: no such file or folder; expected an image, a video"),
        (["info", "nothere"], "no capture at nothere; check the path, or make one with"),
        (["equip", "nothere", "--capture", "c"], "nothere: no such file or folder; expected a run folder"),
        (["search", "nothere.jpg"], "nothere.jpg: no such image"),
        (["search", "row:1", "--index", "nothere"], "no index at nothere; create one with `mcss index CAPTURE -o"),
        (["serve", "--index", "nothere"], "no index at nothere; create one with `mcss index CAPTURE -o nothere`"),
    ],
)
def test_a_missing_file_is_reported_before_anything_heavy_is_loaded(args: list[str], message: str) -> None:
    assert message in refused(*args, code=1)


def test_a_name_that_would_steer_the_terminal_is_shown_without_doing_so() -> None:
    assert "no capture at \N{REPLACEMENT CHARACTER}[2Jgone;" in refused("info", "\x1b[2Jgone", code=1)


def test_a_method_is_found_with_hyphens_too() -> None:
    assert "usage: mcss train rhodin_cvpr18 " in python(RUN, "train", "rhodin-cvpr18", "--help").stdout


def test_the_package_is_a_command_and_shows_what_it_offers() -> None:
    done = subprocess.run([sys.executable, "-m", "mcss", "--version"], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"mcss \d+\.\d+\.\d+\n", done.stdout)
    assert {"load", "__version__"} <= set(python("import mcss; print(*dir(mcss))").stdout.split())


def test_a_reader_that_stops_early_is_no_error() -> None:
    command = f"{sys.executable} -m mcss show --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_what_is_replaced_is_not_needed_by_numpy() -> None:
    assert "numpy" not in HEAVY
