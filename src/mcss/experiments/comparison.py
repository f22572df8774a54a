"""The main comparison and the demonstration: MCSS against the baseline, cell by cell (see `mcss.experiments.runs`)."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance, provenance
from mcss.evaluation.evaluate import evaluate_predictions
from mcss.evaluation.examples import pick_rows, pose_examples, retrieval_examples
from mcss.evaluation.predictions import EvaluationSettings, SplitPrediction, predict_split
from mcss.evaluation.report import SystemResult, comparison_report, history_of, report_rows, run_report
from mcss.experiments.runs import Cell, cell_predictions, cell_result, mean_pose_result, train_cells
from mcss.experiments.tuning import Budget, tuned
from mcss.files import write_json, write_text
from mcss.models.model_file import MODEL, read_model
from mcss.models.prediction import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.synthetic.build import build
from mcss.sources.synthetic.scenes import SyntheticSettings
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import read_metrics
from mcss.training.recipes import MethodName

_SYSTEMS: tuple[MethodName, ...] = ("mcss", "supervised")

SEEDS = (0, 1, 2)


def main_cells(capture: Capture, budget: Budget, labels: str = "S1") -> list[list[Cell]]:
    """The main comparison, in groups that are run one after the other: the most telling first."""

    def group(systems: Sequence[MethodName], own: str) -> list[Cell]:
        return [budget.cell(system, capture, own, seed) for system in systems for seed in SEEDS]

    return [
        group(_SYSTEMS, labels),  # long ones first
        group(("supervised",), "all"),
        *(group(_SYSTEMS, f"{labels}:{share}") for share in (0.1, 0.05)),
    ]


def evaluate_run(
    run: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    out: Path,
    command: str,
    progress: Progress = NO_PROGRESS,
) -> SystemResult:
    """Measure one run, or a model file, and leave ``report.json`` and ``report.html`` in `out`."""
    model = read_model(run)
    config = json.loads(model.about["config"])
    predictions = predict_split(NetworkPredictor(model.network, capture), capture, split, settings, progress)
    evaluation = evaluate_predictions(predictions, capture.fingerprint, split, settings)
    history = history_of(read_metrics(run / METRICS) if run.is_dir() else [])
    result = SystemResult(config["method_name"], config["labels"], config["seed"], evaluation, history)
    rows = pick_rows(predictions, 8)
    named = {result.system: predictions}
    made = provenance(command, capture, {"run": str(run)})
    page = run_report(
        result,
        made,
        poses=pose_examples(capture, named, rows) if evaluation.pose else (),
        retrieved=retrieval_examples(capture, named, rows[:4], tolerance=settings.tolerance),
    )
    write_json(out / "report.json", report_rows([result], made))
    write_text(out / "report.html", page)
    return result


def _compared(
    out: Path,
    groups: Sequence[Sequence[Cell]],
    capture: Capture,
    runs: Path,
    budget: Budget,
    made: Provenance,
    progress: Progress,
) -> dict[str, Any]:
    """Run the cells group by group; ``report.json``, ``report.html`` and ``table.md`` are written after each group."""
    splits = [split for split in ("test", "new-motion") if split in capture.splits]
    labels = groups[0][0].settings.labels
    looked = budget.evaluation
    by_split = {split: [mean_pose_result(capture, labels, split, looked)] for split in splits}
    rows: dict[str, Any] = {}
    for group in groups:
        train_cells(group, runs, budget.processes, progress)
        for split in splits:
            by_split[split] += [cell_result(cell, runs, capture, split, looked, progress) for cell in group]
        rows = report_rows(by_split["test"], made)
        write_json(out / "report.json", rows)
        write_text(out / "table.md", markdown_table(by_split, made) + "\n")
        write_text(out / "report.html", _page(by_split["test"], groups, capture, runs, made, progress))
    return rows


def _page(
    results: Sequence[SystemResult],
    groups: Sequence[Sequence[Cell]],
    capture: Capture,
    runs: Path,
    made: Provenance,
    progress: Progress,
) -> str:
    """The report, with images of what one run of each system says, of the first group in which both have weights."""
    for group in groups:  # weights are missing where cells were finished elsewhere: figures were kept, they were not
        shown = {cell.system: cell for cell in reversed(group) if (runs / cell.name / MODEL).exists()}
        if all(system in shown for system in _SYSTEMS):
            break
    else:
        return comparison_report(results, made)
    few = EvaluationSettings(max_instants=300)
    predicted: dict[str, SplitPrediction] = {
        system: cell_predictions(shown[system], runs, capture, "test", few, progress)
        for system in ("supervised", "mcss")
    }
    chosen = pick_rows(predicted["mcss"], 8)
    return comparison_report(
        results,
        made,
        poses=pose_examples(capture, predicted, chosen),
        retrieved=retrieval_examples(capture, predicted, chosen[2:5], cross_subject=True),
        shown=shown["mcss"].settings.labels,
    )


@dataclass(frozen=True)
class DemoPlan:
    """How much the demonstration does; the defaults are meant for less than 30 minutes on two processors."""

    instants: int = 800
    """Frames of each subject."""
    steps: int = 600
    """Optimiser steps of both systems."""
    seed: int = 0
    """Of training; the capture's is 0."""


def run_demo(out: Path, plan: DemoPlan, progress: Progress = NO_PROGRESS) -> dict[str, Any]:
    """Build the synthetic capture, train both systems with S1's labels, compare them; ``report.html`` in `out`."""
    capture = build(out / "capture", SyntheticSettings(instants=plan.instants), progress)
    budget = Budget(plan.steps)
    cells = [budget.cell(system, capture, "S1", plan.seed) for system in ("supervised", "mcss")]
    made = provenance(f"mcss demo --out {out}", capture, {"steps": str(plan.steps)})
    return _compared(out, [cells], capture, out / "runs", budget, made, progress)


@dataclass(frozen=True)
class ExperimentPlan:
    """How much the main comparison does."""

    steps: int = 1000
    """Optimiser steps of every cell."""
    processes: int = 2
    """Runs that are trained beside each other."""
    choose: bool = True
    """First try learning rates and numbers of steps for the baseline on the validation subject; else it takes the
    recipe's."""


def run_experiment(uri: str, out: Path, plan: ExperimentPlan, progress: Progress = NO_PROGRESS) -> dict[str, Any]:
    """The main comparison (`main_cells`); ``table.md``, ``report.json`` and ``report.html`` in `out`."""
    capture = Capture.open(uri)
    budget = Budget(plan.steps, processes=plan.processes)
    if plan.choose:
        budget, trials = tuned(["supervised"], capture, out / "cells", budget, "S1", progress=progress)
        write_json(out / "baseline.json", trials["supervised"])
    command = f"mcss experiment --capture {uri} --out {out} --steps {plan.steps}"
    about = {"steps": str(plan.steps)}
    for system in ("supervised", "mcss"):
        optimiser = budget.settings(system, capture, "S1").optimiser
        about[f"{system}, S1"] = f"{optimiser.steps} steps, learning rate {optimiser.lr:g}"
    made = provenance(command + ("" if plan.choose else " --no-choose"), capture, about)
    return _compared(out, main_cells(capture, budget), capture, out / "cells", budget, made, progress)


def markdown_table(by_split: Mapping[str, Sequence[SystemResult]], made: Provenance) -> str:
    """The table of the README: a row per system and labels, mean ± standard deviation over seeds, in mm."""
    lines = [
        "| system | labels | seeds | N-MPJPE | MPJPE | PA-MPJPE | retrieval above oracle, K=10, cross-subject | Hit@1 |"
        " N-MPJPE, new motion |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, str], list[int]] = {}
    test = by_split["test"]
    for index, result in enumerate(test):
        groups.setdefault((result.system, result.labels), []).append(index)
    for (system, labels), places in groups.items():
        own = [test[place].evaluation for place in places]
        new = [by_split["new-motion"][place].evaluation for place in places] if "new-motion" in by_split else []
        poses = [e.pose.over_poses for e in own if e.pose]
        retrieved = [e.retrieval for e in own if e.retrieval]
        cross = [r.cross_subject for r in retrieved if r.cross_subject]
        above = [score.above_oracle for c in cross for score in c.scores if score.k == 10]
        hits = [r.same_instant.hit_at_1 for r in retrieved if r.same_instant]
        cells = [
            spread([p.n_mpjpe for p in poses]),
            spread([p.mpjpe for p in poses]),
            spread([p.pa_mpjpe for p in poses]),
            spread(above),
            spread(hits, digits=2),
            spread([e.pose.over_poses.n_mpjpe for e in new if e.pose]),
        ]
        lines.append(f"| {NAMES[system]} | {labels} | {len(places)} | {' | '.join(cells)} |")
    versions = ", ".join(f"{key} {value}" for key, value in made.versions.items())
    lines += [
        "",
        f"Built-in synthetic capture (`{made.capture[:12]}`), not Human3.6M; mm, 16 joints, mean ± standard deviation "
        f"over seeds. Written by `{made.command}` on {made.date} ({made.machine}, {versions}).",
    ]
    return "\n".join(lines)


NAMES = {"mean_pose": "mean pose", "supervised": "supervised baseline", "mcss": "**MCSS**"}


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation, as tables show it."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
