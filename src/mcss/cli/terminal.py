"""What all verbs share: the console, tables, common arguments, results as JSON files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import arg

from mcss.cli.arguments import Verbs, existing
from mcss.data.capture import Capture
from mcss.files import write_json
from mcss.models.model import Model, load, on_real_footage

console = Console()

app = Verbs()
"""All verbs. The module of each section adds its own."""

JsonFile = Annotated[Path | None, arg(metavar="FILE")]
"""The option `--json` of every verb."""

CaptureAddress = Annotated[
    str, existing(str, "no capture at {path}; check the path, or make one with `mcss synthetic build` or `mcss import`")
]
"""An argument that names a capture: a folder, or an address in an object store."""

RunPath = Annotated[
    Path, existing(Path, "{path}: no such file or folder; expected a run folder of `mcss train`, or a model file")
]
"""An argument that names a trained model."""


def load_model(run: Path | None) -> Model:
    """Load a trained model; without one the shipped weights, with a note on how accurate they are."""
    model = load(run)
    if run is None:
        console.print(
            f"[yellow]Note[/] Using the weights shipped with mcss, which were trained on rendered people. "
            f"{on_real_footage()} Train on your own footage before you rely on them: docs/real_footage.md.",
            highlight=False,
        )
    return model


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left", header_style="bold", title_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def finish(result: Any, json: Path | None) -> None:
    """Write the result of a verb to the file of its option `--json`, if there is one."""
    if json is not None:
        write_json(json, result)
        console.print(f"Result written to {json}")


def _about(capture: Capture) -> dict[str, Any]:
    instants = capture.instants()
    return {
        "capture": capture.uri,
        "fingerprint": capture.fingerprint,
        "importer": capture.info.importer,
        "licence": capture.info.licence,
        "image_size": capture.info.image_size,
        "images": len(capture),
        "subjects": list(instants.subjects),
        "actions": list(instants.actions),
        "views": list(capture.views),
        "labelled_instants": int(instants.heading_valid.sum()),
        "splits": {name: int(instants.selected(picks).sum()) for name, picks in capture.splits.items()},
    }


def show_capture(capture: Capture) -> dict[str, Any]:
    """Print what a capture holds, and return it for `finish`."""
    about = _about(capture)
    rows = [(key.replace("_", " "), _text(value)) for key, value in about.items()]
    show_table("Capture", ("", ""), rows)
    return about


def _text(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{key} {number:,}" for key, number in value.items())
        case list():
            return ", ".join(map(str, value))
        case int():
            return f"{value:,}"
        case _:
            return str(value)
