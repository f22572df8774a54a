"""Measure the benefit of selecting labels: N-MPJPE with selected against random labels.

    python scripts/measure_selection.py CAPTURE [--out FOLDER] [--results FOLDER] [--page PAGE]

The procedure is that of a laboratory: MCSS is trained without any label, its embedding selects instants of the split
train as `mcss select` does, and as many instants are drawn at random. The same network is then trained briefly with
either as labels and measured on the split test. The selection is deterministic and so the same for all seeds; seeds
differ in what is drawn and in the training. Every run is kept, and continues where it was stopped. selection.json,
its figure and the table in the page are written at the end.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mcss.data.capture import Capture
from mcss.data.labels import write_instants
from mcss.data.provenance import Provenance, provenance
from mcss.evaluation.evaluate import evaluate
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments.tables import spread
from mcss.files import write_json
from mcss.inference.label_selection import SelectSettings, select_instants
from mcss.methods.mcss import MCSS
from mcss.models.model_file import MODEL, load_model
from mcss.models.prediction import NetworkPredictor
from mcss.progress import Progress, RichProgress
from mcss.training.parallel import Job, train_all
from mcss.training.settings import recipe
from mcss.viz.plots import Line, line_figure, write_figure
from mcss.viz.style import MARKS, PALETTE
from write_table import write_between

Way = Literal["selected", "random"]

SEEDS = (0, 1, 2)
BUDGETS = (25, 100)
WAYS: tuple[Way, ...] = ("selected", "random")
INSTANTS = 8
"""In a step of the runs with labels, where the recipe has 32: the embedding has been learned, it is to be kept."""

EVALUATION = EvaluationSettings(max_instants=500)


def job(capture: Capture, labels: str, seed: int, steps: int, out: Path, init: Path | None = None) -> Job:
    """Return a run of MCSS by the recipe fast; one that continues another takes fewer unlabelled instants per step."""
    settings = recipe("fast", MCSS, capture.uri)
    optimiser = replace(settings.optimiser, steps=steps)
    settings = replace(settings, labels=labels, seed=seed, optimiser=optimiser, validate_every=steps)
    if init is not None:
        assert isinstance(settings.method, MCSS)
        settings = replace(settings, init=str(init), method=replace(settings.method, instants=INSTANTS))
    return Job(settings, out)


def write_list(capture: Capture, unlabelled: Path, way: Way, budget: int, seed: int, path: Path) -> None:
    """Write the list of instants that a budget labels."""
    match way:
        case "selected":
            chosen = select_instants(capture, SelectSettings(budget=budget, run=str(unlabelled)), RichProgress())
            write_instants(path, chosen.instants)
        case "random":
            train = capture.instants("train")
            usable = np.flatnonzero(train.heading_valid)
            drawn = np.random.default_rng([seed, budget]).choice(usable, budget, replace=False)
            write_instants(path, train.take(np.sort(drawn)))


def measured(capture: Capture, run: Path, progress: Progress) -> float:
    """Return the N-MPJPE in mm of a run on the split test, which is kept beside the run."""
    path = run / "evaluation_test.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.get("capture") != capture.fingerprint:
        known = evaluate(NetworkPredictor(load_model(run), capture), capture, "test", EVALUATION, progress).to_json()
        write_json(path, known)
    return float(known["pose"]["over_poses"]["n_mpjpe"])


def rows_of(values: dict[Way, dict[int, list[float]]]) -> list[dict[str, Any]]:
    """Return a row per budget and selection: N-MPJPE of each seed, their mean and standard deviation."""
    return [
        {
            "budget": budget,
            "labels": way,
            "n_mpjpe": found,
            "mean": statistics.fmean(found),
            "deviation": statistics.stdev(found) if len(found) > 1 else None,
        }
        for way, budgets in values.items()
        for budget, found in budgets.items()
    ]


def table_of(values: dict[Way, dict[int, list[float]]], made: Provenance) -> str:
    """Return the rows as a table for a page."""
    seeds = {len(found) for budgets in values.values() for found in budgets.values()}
    lines = ["| labelled instants | selected | random |", "|---|---|---|"]
    lines += [
        f"| {budget} | {spread(values['selected'][budget])} | {spread(values['random'][budget])} |"
        for budget in values["random"]
    ]
    lines += [
        "",
        f"N-MPJPE on the split test, mm; built-in synthetic capture (`{made.capture[:12]}`), not Human3.6M; "
        f"mean ± standard deviation over {min(seeds)} seeds. Written by `{made.command}` on {made.date} "
        f"({made.machine}).",
    ]
    return "\n".join(lines)


def write_results(values: dict[Way, dict[int, list[float]]], made: Provenance, folder: Path, page: Path) -> None:
    """Write selection.json, its figure, and the table in the page."""
    write_json(folder / "selection.json", {"rows": rows_of(values), **asdict(made)})
    lines = []
    for way, colour, mark in zip(WAYS, PALETTE, MARKS, strict=False):
        found = values[way]
        deviations = [statistics.stdev(v) if len(v) > 1 else float("nan") for v in found.values()]
        y = [statistics.fmean(v) for v in found.values()]
        lines.append(Line(way, range(len(found)), y, colour, deviations, mark=mark))
    figure = line_figure(
        lines, x_label="labelled instants", y_label="N-MPJPE, mm", x_ticks=list(range(len(values["random"]))),
        tick_labels=[str(budget) for budget in values["random"]],
    )  # fmt: skip
    write_figure(folder / "selection", figure)
    write_between(page, "selection", table_of(values, made))


def measure(
    capture: Capture, out: Path, budgets: Sequence[int], seeds: Sequence[int], steps: tuple[int, int], processes: int
) -> dict[Way, dict[int, list[float]]]:
    """N-MPJPE of every seed, by the way of choosing and the budget.

    Args:
        capture: To train and measure on.
        out: Folder of the runs.
        budgets: Labelled instants.
        seeds: Of the runs with labels.
        steps: Of the run without labels, and of each that goes on from it with some.
        processes: Runs beside each other.
    """
    progress = RichProgress()
    unlabelled = job(capture, "none", 0, steps[0], out / "unlabelled")
    if not (unlabelled.out / MODEL).exists():
        train_all([unlabelled], 1, progress)
    jobs: dict[tuple[Way, int], list[Job]] = {}
    for budget in budgets:
        for way in WAYS:
            for seed in seeds:
                name = f"selected-{budget}" if way == "selected" else f"random-{budget}-seed{seed}"
                listed = out / "lists" / f"{name}.csv"
                if not listed.exists():
                    write_list(capture, unlabelled.out, way, budget, seed, listed)
                run = out / f"{way}-{budget}-seed{seed}"
                jobs.setdefault((way, budget), []).append(
                    job(capture, f"@{listed}", seed, steps[1], run, unlabelled.out)
                )
    waiting = [one for own in jobs.values() for one in own if not (one.out / MODEL).exists()]
    train_all(waiting, processes, progress)
    return {
        way: {budget: [measured(capture, one.out, progress) for one in jobs[way, budget]] for budget in budgets}
        for way in WAYS
    }


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/selection"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/looking.md"))
    parser.add_argument("--budgets", type=int, nargs="+", default=BUDGETS)
    parser.add_argument("--unlabelled-steps", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200, help="of each run with labels")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    capture = Capture.open(options.capture)
    steps = options.unlabelled_steps, options.steps
    values = measure(capture, options.out, options.budgets, SEEDS, steps, options.processes)
    command = (
        f"python scripts/measure_selection.py {options.capture} --budgets {' '.join(map(str, options.budgets))} "
        f"--unlabelled-steps {options.unlabelled_steps} --steps {options.steps}"
    )
    made = provenance(command, capture, {"steps without labels": str(steps[0]), "steps with labels": str(steps[1])})
    write_results(values, made, options.results, options.page)


if __name__ == "__main__":
    main()
