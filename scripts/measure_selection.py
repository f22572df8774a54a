"""Measure what choosing labels is worth: N-MPJPE with selected against random labels, to docs/results/selection.json.

    python scripts/measure_selection.py CAPTURE [--out FOLDER] [--json FILE]

For each seed MCSS is trained without any label; its embedding chooses instants of the split train as `mcss select`
does, and as many are drawn at random. MCSS is then trained with either as labels and measured on the split test. Every
run is a cell: finished ones are kept, begun ones go on, and the JSON is written after each budget.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mcss.captures import Capture
from mcss.checkpoints import MODEL, load_model
from mcss.evaluation import evaluate
from mcss.files import write_json
from mcss.labels import write_instants
from mcss.parallel import Job, train_all
from mcss.predict import NetworkPredictor
from mcss.predictions import EvaluationSettings
from mcss.progress import Progress, RichProgress
from mcss.provenance import provenance
from mcss.recipes import recipe
from mcss.selection import SelectSettings, select_instants

SEEDS = (0, 1, 2)
BUDGETS = (25, 50, 100)
WAYS = ("selected", "random")
EVALUATION = EvaluationSettings(max_instants=500)


def job(capture: Capture, labels: str, seed: int, steps: int, out: Path) -> Job:
    """A run of MCSS by the recipe fast."""
    settings = recipe("fast", "mcss", capture.uri)
    optimiser = replace(settings.optimiser, steps=steps)
    return Job(replace(settings, labels=labels, seed=seed, optimiser=optimiser, validate_every=steps), out)


def write_lists(capture: Capture, out: Path, budget: int, seed: int, progress: Progress) -> dict[str, Path]:
    """The lists of a budget and seed by how they were chosen; those that are there are kept."""
    lists = {way: out / "lists" / f"{way}-{budget}-seed{seed}.csv" for way in WAYS}
    if not lists["selected"].exists():
        settings = SelectSettings(budget=budget, run=str(out / f"unlabelled-seed{seed}"))
        write_instants(lists["selected"], select_instants(capture, settings, progress).instants)
    if not lists["random"].exists():
        train = capture.instants("train")
        usable = np.flatnonzero(train.heading_valid)
        drawn = np.random.default_rng([seed, budget]).choice(usable, budget, replace=False)
        write_instants(lists["random"], train.take(np.sort(drawn)))
    return lists


def measured(capture: Capture, run: Path, progress: Progress) -> float:
    """N-MPJPE in mm of a run on the split test; kept beside it."""
    path = run / "evaluation_test.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = evaluate(NetworkPredictor(load_model(run), capture), capture, "test", EVALUATION, progress)
        known = found.to_json()
        write_json(path, known)
    return float(known["pose"]["over_poses"]["n_mpjpe"])


def summary(values: dict[str, dict[int, list[float]]]) -> list[dict[str, Any]]:
    """A row per budget and way of choosing: N-MPJPE of each seed, their mean and standard deviation."""
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


def measure(
    capture: Capture,
    out: Path,
    path: Path,
    *,
    budgets: Sequence[int] = BUDGETS,
    seeds: Sequence[int] = SEEDS,
    steps: int = 1000,
    processes: int = 2,
    command: str = "",
    progress: Progress,
) -> None:
    """Everything, budget by budget."""
    unlabelled = [job(capture, "none", seed, steps, out / f"unlabelled-seed{seed}") for seed in seeds]
    train_all([one for one in unlabelled if not (one.out / MODEL).exists()], processes, progress)
    values: dict[str, dict[int, list[float]]] = {way: {} for way in WAYS}
    for budget in budgets:
        jobs: dict[str, list[Job]] = {way: [] for way in WAYS}
        for seed in seeds:
            for way, listed in write_lists(capture, out, budget, seed, progress).items():
                jobs[way].append(job(capture, f"@{listed}", seed, steps, out / f"{way}-{budget}-seed{seed}"))
        train_all([one for own in jobs.values() for one in own if not (one.out / MODEL).exists()], processes, progress)
        for way, own in jobs.items():
            values[way][budget] = [measured(capture, one.out, progress) for one in own]
        made = provenance(command, capture, {})
        write_json(
            path,
            {
                "rows": summary(values),
                "seeds": list(seeds),
                "steps": steps,
                "command": command,
                "capture": capture.fingerprint,
                "date": made.date,
                "machine": made.machine,
                "versions": dict(made.versions),
            },
        )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/selection"))
    parser.add_argument("--json", type=Path, default=Path("docs/results/selection.json"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    command = f"python scripts/measure_selection.py {options.capture} --steps {options.steps}"
    measure(
        Capture.open(options.capture),
        options.out,
        options.json,
        steps=options.steps,
        processes=options.processes,
        command=command,
        progress=RichProgress(),
    )


if __name__ == "__main__":
    main()
