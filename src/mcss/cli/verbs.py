"""The verbs of the command line by section, read from the source text of this package.

A verb is a function with the decorator `@app.command` in the module of its section, and the first paragraph of its
docstring is its summary in `mcss --help`. A group of verbs, such as `mcss train`, states its name and summary where it
is made: `app.group(train_app, name="train", word="METHOD", help="…")`. Both are found here without importing those
modules, since what they need, from torch to the renderer, takes seconds to load; reading them takes ten milliseconds.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from inspect import cleandoc
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.markup import escape
from rich.table import Table

DESCRIPTION = (
    "3D human pose and view-invariant pose search from synchronised, uncalibrated, unlabelled multi-view video and a "
    "few 3D labels."
)

SECTIONS: Mapping[str, str] = {
    "Start": "start",
    "Making captures": "importing",
    "Captures": "captures",
    "Cameras without a board": "calibrating",
    "Labels without a capture system": "labelling",
    "Training": "training",
    "Adapting to your footage": "adapting",
    "Measuring": "measuring",
    "Using a model": "using",
    "Searching by pose": "searching",
    "Sharing": "publishing",
}
"""The sections of `mcss --help` in order, each with the module of this package that has its verbs."""


@dataclass(frozen=True)
class Verb:
    """A verb as `mcss --help` lists it."""

    name: str
    module: str
    """The module of this package that defines it."""
    summary: str


@cache
def all_verbs() -> dict[str, Verb]:
    """Return all verbs by name, in the order of `mcss --help`."""
    return {verb.name: verb for module in SECTIONS.values() for verb in _verbs_of(module)}


def _verbs_of(module: str) -> Iterator[Verb]:
    source = Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name, decorator_list=[decorator]) if ast.unparse(decorator) == "app.command":
                yield Verb(name, module, first_paragraph(ast.get_docstring(node) or ""))
            case ast.Expr(ast.Call(func=function, keywords=keywords)) if ast.unparse(function) == "app.group":
                words = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
                yield Verb(words["name"], module, words["help"])


def first_paragraph(docstring: str) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join(cleandoc(docstring).split("\n\n")[0].split())


class UnknownVerbError(ValueError):
    """A word stands where a verb is expected; the message names the nearest verb and all there are."""

    def __init__(self, prog: str, kind: str, word: str, known: Iterable[str]) -> None:
        nearest = get_close_matches(word, known, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        super().__init__(f"{prog}: unknown {kind} {word!r}.{hint} Available: {', '.join(known)}.")


def show_overview(console: Console) -> None:
    """Print the text of `mcss --help`."""
    table = _table()
    for title, module in SECTIONS.items():
        table.add_row(f"[bold default]{title}[/]", "")
        listed = [verb for verb in all_verbs().values() if verb.module == module]
        for verb in listed:
            table.add_row(f"  {verb.name}", escape(verb.summary), end_section=verb is listed[-1])
    last = (
        "[bold]mcss VERB --help[/] explains a verb, [bold]mcss --version[/] prints the version. "
        "Start with [bold]mcss demo[/]."
    )
    console.print(Group("usage: [bold]mcss[/] VERB …", "", DESCRIPTION, "", table, "", last), highlight=False)


def show_group(console: Console, prog: str, word: str, help: str, summaries: Mapping[str, str]) -> None:
    """Print the help of a group of verbs; `word` stands for one of them, such as METHOD."""
    table = _table()
    for name, text in summaries.items():
        table.add_row(f"  {name}", escape(first_paragraph(text)))
    usage, last = f"usage: [bold]{prog}[/] {word} …", f"[bold]{prog} {word} --help[/] explains a {word.lower()}."
    console.print(Group(usage, "", help, "", table, "", last), highlight=False)


def _table() -> Table:
    table = Table(box=SIMPLE_HEAD, show_header=False, show_edge=False, padding=(0, 1))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column()
    return table
