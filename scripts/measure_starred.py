"""Measure what consistency is worth on a backbone that knows real people: baseline* and MCSS* on BlazePose's weights.

    python scripts/measure_starred.py CAPTURE [--out FOLDER] [--results FOLDER] [--page PAGE]

Both are trained with the recipe fast, but for the backbone, all of whose stages are frozen, and with the labels of one
subject. Each gets the same trials, of its number of steps, on the split validation; three seeds of its best are
measured on the split test. The star is the paper's: BlazePose's weights have learned from 2D and 3D labels of real
people. Every run is kept, and continues where it was stopped.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance, provenance
from mcss.evaluation.evaluate import evaluate
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments.tables import spread
from mcss.files import write_json
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.methods.supervised import Supervised
from mcss.models.model_file import MODEL, load_model
from mcss.models.prediction import NetworkPredictor
from mcss.progress import RichProgress
from mcss.training.loop import train
from mcss.training.settings import recipe
from write_table import write_between

METHODS: tuple[type[Method], ...] = (Supervised, MCSS)
STEPS = (250, 500, 1000, 2000, 4000, 8000)
SEEDS = (0, 1, 2)
LABELS = "S1"

_TRIALS = EvaluationSettings(max_instants=500)
_TEST = EvaluationSettings()


def main() -> None:
    """Read the command line, measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/starred"), help="folder of the runs")
    parser.add_argument("--results", type=Path, default=Path("docs/results"))
    parser.add_argument("--page", type=Path, default=Path("docs/reproduce.md"))
    options = parser.parse_args()
    capture = Capture.open(options.capture)
    rows = [row for method in METHODS for row in rows_of(capture, method, options.out)]
    command = f"python scripts/measure_starred.py {options.capture}"
    made = provenance(command, capture, {"recipe": "fast", "backbone": "blazepose", "labels": LABELS})
    write_json(options.results / "starred.json", {"rows": rows, **asdict(made)})
    write_between(options.page, "starred", table(rows, made))


def rows_of(capture: Capture, method: type[Method], out: Path) -> list[dict[str, Any]]:
    """Return the row of each seed at the number of steps that is best on validation subjects, and all trials."""
    trials = {steps: measured(capture, method, steps, 0, out, "validation") for steps in STEPS}
    best = min(trials, key=lambda steps: trials[steps]["n_mpjpe"])
    return [
        {
            "system": method.name,
            "labels": LABELS,
            "seed": seed,
            "steps": best,
            "trials": {str(steps): found["n_mpjpe"] for steps, found in trials.items()},
            **measured(capture, method, best, seed, out, "test"),
        }
        for seed in SEEDS
    ]


def measured(
    capture: Capture, method: type[Method], steps: int, seed: int, out: Path, split: str
) -> dict[str, float | None]:
    """Train a run, if it is not there, and return its errors in mm and hits on a split, which are kept beside it."""
    run = out / f"{method.name}-{steps}-seed{seed}"
    settings = recipe("fast", method, capture.uri)
    network = replace(settings.network, backbone="blazepose", image_size=capture.info.image_size)
    settings = replace(
        settings,
        network=network,
        weights="mediapipe",
        frozen_stages=6,
        variants=2,
        labels=LABELS,
        seed=seed,
        optimiser=replace(settings.optimiser, steps=steps),
        validation=None,
    )
    progress = RichProgress()
    if not (run / MODEL).exists():
        train(settings, run, (run / "config.json").exists(), progress=progress)
    kept = run / f"evaluation_{split}.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if known.get("capture") != capture.fingerprint:
        asked = _TEST if split == "test" else _TRIALS
        known = evaluate(NetworkPredictor(load_model(run), capture), capture, split, asked, progress).to_json()
        write_json(kept, known)
    poses, same = known["pose"]["over_poses"], known["retrieval"]["same_instant"]
    return {"n_mpjpe": poses["n_mpjpe"], "pa_mpjpe": poses["pa_mpjpe"], "hit_at_1": same["hit_at_1"]}


def table(rows: list[dict[str, Any]], made: Provenance) -> str:
    """Return the rows as a table for a page."""
    lines = ["| | steps | N-MPJPE, mm | PA-MPJPE, mm | same moment found first |", "|---|---|---|---|---|"]
    means = []
    for method in METHODS:
        own = [row for row in rows if row["system"] == method.name]
        hits = [row["hit_at_1"] for row in own]
        means.append(float(np.mean([row["n_mpjpe"] for row in own])))
        lines.append(
            f"| {method.title}* | {own[0]['steps']:,} | {spread([row['n_mpjpe'] for row in own])} | "
            f"{spread([row['pa_mpjpe'] for row in own])} | {np.mean(hits):.2f} ± {np.std(hits, ddof=1):.2f} |"
        )
    longest = [method.title for method in METHODS if _steps(rows, method) == STEPS[-1]]
    more = (
        f" Best at the most steps that were tried, and so perhaps not at its end: {', '.join(longest)}."
        if longest
        else ""
    )
    lines += [
        "",
        f"The N-MPJPE of MCSS* is {means[1] / means[0]:.3f} of the baseline's. Split test of the built-in synthetic "
        f"capture (`{made.capture[:12]}`), not Human3.6M; labels of {LABELS}; mean ± standard deviation over "
        f"{len(SEEDS)} seeds, steps chosen among {', '.join(f'{steps:,}' for steps in STEPS)} on the split "
        f"validation.{more} Written by `{made.command}` on {made.date} ({made.machine}).",
    ]
    return "\n".join(lines)


def _steps(rows: list[dict[str, Any]], method: type[Method]) -> int:
    return next(int(row["steps"]) for row in rows if row["system"] == method.name)


if __name__ == "__main__":
    main()
