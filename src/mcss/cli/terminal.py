"""What all verbs share: the console, tables, common arguments, results as JSON files."""

import json as jsonlib
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import arg

from mcss.cli.arguments import Verbs, existing
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.files import folder_bytes, write_json
from mcss.models.model import Model, load, on_real_footage
from mcss.models.run_names import SHIPPED, is_elsewhere
from mcss.workers import Ray, Workers

console = Console()
console.soft_wrap = not console.is_terminal  # whole lines in files and pipes

app = Verbs()
"""All verbs. The module of each section adds its own."""

JsonFile = Annotated[Path | None, arg(metavar="FILE")]
"""The option `--json` of every verb; `-` is the standard output."""

STANDARD_OUTPUT = Path("-")

_given: list[str] = []
"""The words of the command that runs at the moment, without `mcss`."""


def begin(args: Sequence[str], verb: Callable[[], None]) -> None:
    """Note which command runs; with `--json -` everything but the JSON goes to the standard error stream."""
    _given[:] = args
    console.stderr = getattr(verb, "keywords", {}).get("json") == STANDARD_OUTPUT


def command_line() -> str:
    """Return the command that runs at the moment with every option that was given, as a user types it."""
    return shlex.join(["mcss", *_given])


CaptureAddress = Annotated[
    str, existing(str, "no capture at {path}; check the path, or make one with `mcss synthetic build` or `mcss import`")
]
"""An argument that names a capture: a folder, or an address in an object store."""

IndexAddress = Annotated[str, existing(str, "no index at {path}; create one with `mcss index CAPTURE -o {path}`")]
"""An argument that names an index: a folder, or an address in an object store."""

RunPath = Annotated[
    Path,
    existing(
        Path,
        "{path}: no such file or folder; expected a run folder of `mcss train`, a model file, shipped, or hf:USER/NAME",
        is_elsewhere,
    ),
]
"""An argument that names a trained model, see `mcss.models.run_names`."""


@dataclass(frozen=True)
class WorkerOptions:
    """Which processes do the work: some of this machine, or those of a Ray cluster."""

    processes: int | None = None
    """Number of processes, by default one per processor."""
    engine: Literal["processes", "ray"] = "processes"
    """Use processes of this machine, or the machines of a Ray cluster (needs the extra `ray`)."""
    ray_address: str = "auto"
    """Address of the head of the Ray cluster, HOST:PORT; auto is the cluster that this machine belongs to."""

    @property
    def chosen(self) -> Workers:
        """The workers as the library takes them."""
        return Ray(self.ray_address, self.processes) if self.engine == "ray" else self.processes


@dataclass(frozen=True)
class PredictionWorkers(WorkerOptions):
    """Which processes predict: this one, some of this machine, or those of a Ray cluster."""

    processes: int | None = None
    """Number of processes that predict; by default this one alone, with a thread for every processor. On a cluster, by
    default one for every processor of it."""

    @property
    def chosen(self) -> Workers:
        """The workers as the library takes them."""
        return 1 if self.engine == "processes" and self.processes is None else super().chosen


def load_model(run: Path | str | None) -> Model:
    """Load a trained model, by default the shipped weights; with these, note how accurate they are."""
    model = load(run)
    if model.source == SHIPPED:
        console.print(
            f"[yellow]Note[/] Using the weights shipped with mcss. {on_real_footage()} `mcss adapt` makes them better "
            "on your own footage: docs/adapt.md.",
            highlight=False,
        )
    return model


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table."""
    table = Table(*columns, title=title, title_justify="left", header_style="bold", title_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table, soft_wrap=False)


def finish(result: Any, json: Path | None) -> None:
    """Write the result of a verb to the file of its option `--json`, if there is one."""
    if json == STANDARD_OUTPUT:
        print(jsonlib.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
    elif json is not None:
        write_json(json, result)
        console.print(f"Result written to {json}", soft_wrap=True)


def _about(capture: Capture) -> dict[str, Any]:
    instants = capture.instants()
    rate, seconds = _timing(instants)
    return {
        "capture": capture.uri,
        "fingerprint": capture.fingerprint,
        "importer": capture.info.importer,
        "licence": capture.info.licence,
        "image_size": capture.info.image_size,
        "images": len(capture),
        "frame_rate": rate,
        "seconds": seconds,
        "bytes": None if "://" in capture.uri else folder_bytes(Path(capture.uri)),
        "subjects": list(instants.subjects),
        "actions": list(instants.actions),
        "views": list(capture.views),
        "labelled_instants": int(instants.heading_valid.sum()),
        "splits": {name: int(instants.selected(picks).sum()) for name, picks in capture.splits.items()},
    }


def _timing(instants: Instants) -> tuple[float | None, float]:
    """The usual number of instants per second, and the seconds of all sequences together."""
    order = np.lexsort((instants.time, instants.sequence, instants.subject))
    subject, sequence, time = instants.subject[order], instants.sequence[order], instants.time[order]
    steps = np.diff(time)[(np.diff(subject) == 0) & (np.diff(sequence) == 0)]
    if not len(steps) or not np.median(steps) > 0:
        return None, 0.0
    step = float(np.median(steps))
    return round(1 / step, 3), round(float(steps.sum()) + step * (len(time) - len(steps)), 2)


def show_capture(capture: Capture) -> dict[str, Any]:
    """Print what a capture holds, and return it for `finish`."""
    about = _about(capture)
    shown = {
        **about,
        "image_size": f"{capture.info.image_size} × {capture.info.image_size} px",
        "frame_rate": "–" if about["frame_rate"] is None else f"{about['frame_rate']:g} instants per second",
        "seconds": _duration(about["seconds"]),
        "bytes": "–" if about["bytes"] is None else f"{about['bytes'] / 1e6:,.0f} MB",
        "splits": ", ".join(f"{name} {number:,}" for name, number in about["splits"].items()),
    }
    names = {"seconds": "duration", "bytes": "size on disk", "splits": "splits, in instants"}
    rows = [(names.get(key, key.replace("_", " ")), _text(value)) for key, value in shown.items()]
    show_table("Capture", ("property", "value"), rows)
    return about


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s, all sequences together" if minutes else f"{seconds:.1f} s, all sequences together"


def _text(value: Any) -> str:
    match value:
        case list():
            return ", ".join(map(str, value))
        case int():
            return f"{value:,}"
        case _:
            return str(value)
