"""All verbs of the command line: what they do in a line, and the module of this package that has them.

`mcss --help` is written from this alone, and `mcss VERB` loads that one module: what the others need, from Fabric to
the renderer, takes seconds to load.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table


@dataclass(frozen=True)
class Verb:
    """One of them."""

    module: str
    summary: str
    """The first paragraph of its docstring."""


DESCRIPTION = (
    "3D human pose and view-invariant pose search from synchronised, uncalibrated, unlabelled multi-view video and a "
    "few 3D labels."
)

SECTIONS: Mapping[str, Mapping[str, Verb]] = {
    "Start": {
        "demo": Verb(
            "measuring",
            "The main job: build the capture, train the baseline and MCSS with one subject's labels, compare, report.",
        ),
    },
    "Captures": {
        "synthetic": Verb("synthetic", "The built-in multi-view capture."),
        "sync": Verb(
            "footage",
            "Find the offsets between cameras that were started by hand; writes sync.json, which import applies, and "
            "sync.png.",
        ),
        "import": Verb("footage", "Make a capture of one's own footage or of a data set."),
        "info": Verb("captures", "Say what a capture holds: people, actions, views, labels, splits."),
        "doctor": Verb(
            "captures",
            "Look for faults in a capture: views out of step, impossible poses, bad images … Exit status 1 if there "
            "are any.",
        ),
        "show": Verb(
            "captures",
            "Show some instants: a contact sheet (rows are instants, columns are views), or a 3D view to turn about.",
        ),
        "select": Verb(
            "captures",
            "Choose the instants that are most worth a label: a CSV for `mcss train --labels @FILE.csv`, and their "
            "images.",
        ),
    },
    "Training": {
        "train": Verb("training", "Train MCSS, or a system that it is compared with."),
        "equip": Verb(
            "training",
            "Add to a trained model what `mcss predict` uses beside the network: headings and places, expected errors.",
        ),
    },
    "Measuring": {
        "evaluate": Verb(
            "measuring",
            "Measure a trained run on a split: pose errors, cross-view retrieval, images; report.json and report.html.",
        ),
        "experiment": Verb(
            "measuring",
            "The main comparison with three seeds, cell by cell; finished cells are kept. Writes the README's table.",
        ),
        "ablation": Verb(
            "measuring",
            "What each departure of the recipe fast is worth: one taken back at a time, on the validation subject.",
        ),
        "reproduce": Verb(
            "measuring",
            "The paper's tables and figures on a capture, ours beside the paper's; what was finished before is kept.",
        ),
    },
    "Using a model": {
        "predict": Verb(
            "predicting",
            "3D poses and embeddings of people in images and videos, with a trained model. Exit status 1 if any "
            "failed.",
        ),
        "index": Verb(
            "searching",
            "Put the embeddings of all images of a capture into an index for `mcss search`; goes on after any stop.",
        ),
        "search": Verb(
            "searching",
            "Find images of the same pose, in all views and of all people, or stretches that show the same movement.",
        ),
        "compare": Verb(
            "searching",
            "Put two videos of one movement in step by pose, and show where they differ: angles, joints, pairs of "
            "images.",
        ),
        "serve": Verb(
            "serving",
            "A web page: drop an image or a video, see the pose in 3D, and search by it. Asks nothing of the network.",
        ),
        "export": Verb(
            "deployment",
            "Write a trained network as one file for ONNX Runtime or OpenVINO, if it computes the same as the "
            "original.",
        ),
    },
}
"""As `mcss --help` shows them."""

VERBS: Mapping[str, Verb] = {name: verb for section in SECTIONS.values() for name, verb in section.items()}


def show_overview(console: Console) -> None:
    """Print what `mcss --help` says."""
    table = Table(box=SIMPLE_HEAD, show_header=False, show_edge=False, padding=(0, 1))
    table.add_column(style="bold cyan", no_wrap=True)
    table.add_column()
    for title, verbs in SECTIONS.items():
        table.add_row(f"[bold default]{title}[/]", "")
        for number, (name, verb) in enumerate(verbs.items()):
            table.add_row(f"  {name}", verb.summary, end_section=number == len(verbs) - 1)
    parts = (
        "usage: [bold]mcss[/] VERB …",
        "",
        DESCRIPTION,
        "",
        table,
        "",
        "[bold]mcss VERB --help[/] tells all of one; [bold]mcss --version[/] which mcss this is. Begin with "
        "[bold]mcss demo[/].",
    )
    console.print(Group(*parts), highlight=False)
