"""The comparisons of the paper, run cell by cell: what was finished is kept, so that they may be stopped at any time.

A cell is one system with one choice of labels and one seed. Its folder is a run folder (see `mcss.checkpoints`) with
``evaluation_<split>.json`` beside the weights.
"""

import datetime
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

import mcss
from mcss.captures import Capture
from mcss.checkpoints import CONFIG, METRICS, MODEL, load_model
from mcss.evaluation import (
    Evaluation,
    EvaluationSettings,
    MeanPose,
    evaluate,
    evaluate_predictions,
    predict_split,
)
from mcss.examples import pick_rows, pose_examples, retrieval_examples
from mcss.files import write_json, write_text
from mcss.labels import LabelSpec, select_labels
from mcss.predict import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress
from mcss.recipes import MethodName, recipe
from mcss.report import Provenance, SystemResult, comparison_report, history_of, report_rows, run_report
from mcss.runlog import read_metrics
from mcss.synthetic.build import build
from mcss.synthetic.scenes import SyntheticSettings
from mcss.training import Machine, describe_machine, train

SystemName = Literal["mean_pose", "supervised", "mcss"]


@dataclass(frozen=True)
class Cell:
    """One system, one choice of labels, one seed."""

    system: SystemName
    labels: str
    seed: int = 0

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.system}-{self.labels.replace(':', '@').replace(',', '+')}-seed{self.seed}"


LEARNING_RATES = (3e-4, 1e-3)
"""Tried for each system on the validation subject."""

RATES: dict[SystemName, float] = {"supervised": 1e-3, "mcss": 1e-3}
"""What `choose_learning_rate` found on the default capture; used by the demonstration."""


@dataclass(frozen=True)
class Budget:
    """What every cell of a comparison gets."""

    steps: int
    """Optimiser steps; both systems see the same number of labelled images."""
    learning_rates: Mapping[SystemName, float]
    """By system; see `choose_learning_rate`."""
    evaluation: EvaluationSettings = field(default_factory=lambda: EvaluationSettings(max_instants=1000))
    """How much of a split is looked at."""


_SYSTEMS: tuple[MethodName, ...] = ("supervised", "mcss")

MAIN_CELLS = (
    *(Cell(system, "S1", seed) for seed in range(3) for system in _SYSTEMS),
    *(Cell("supervised", "all", seed) for seed in range(3)),
    *(Cell(system, f"S1:{share}", seed) for seed in range(3) for share in (0.1, 0.05) for system in _SYSTEMS),
)
"""The main comparison in the order in which it is run: the most telling first."""


def run_cell(
    cell: Cell,
    capture: Capture,
    folder: Path,
    budget: Budget,
    splits: Sequence[str] = ("test",),
    machine: Machine | None = None,
    progress: Progress = NO_PROGRESS,
) -> dict[str, SystemResult]:
    """Train and evaluate one cell, or read what an earlier call made of it; by split."""
    run = folder / cell.name
    if cell.system != "mean_pose" and not (run / MODEL).exists():
        settings = recipe("fast", cell.system, capture.uri)
        optimiser = replace(settings.optimiser, steps=budget.steps, lr=budget.learning_rates[cell.system])
        settings = replace(settings, labels=cell.labels, seed=cell.seed, optimiser=optimiser)
        train(settings, run, resume=True, machine=machine, progress=progress)
    history = history_of(read_metrics(run / METRICS))
    found = {}
    for split in splits:
        evaluation = _evaluated(cell, capture, run, split, budget.evaluation, progress)
        seed = None if cell.system == "mean_pose" else cell.seed
        found[split] = SystemResult(cell.system, cell.labels, seed, evaluation, history)
    return found


def _evaluated(
    cell: Cell, capture: Capture, run: Path, split: str, settings: EvaluationSettings, progress: Progress
) -> Evaluation:
    path = run / f"evaluation_{split}.json"
    if path.exists():
        known = Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
        if known.capture == capture.fingerprint and known.settings == settings:
            return known
    if cell.system == "mean_pose":
        instants = capture.instants("train")
        labelled = select_labels(instants, LabelSpec.parse(cell.labels))
        evaluation = evaluate(MeanPose.of(instants.take(labelled)), capture, split, settings, progress)
    else:
        evaluation = evaluate(NetworkPredictor(load_model(run), capture), capture, split, settings, progress)
    write_json(path, evaluation.to_json())
    return evaluation


def choose_learning_rate(
    system: MethodName,
    rates: Iterable[float],
    capture: Capture,
    folder: Path,
    steps: int,
    machine: Machine | None = None,
    progress: Progress = NO_PROGRESS,
) -> tuple[float, dict[float, float]]:
    """The rate with the lowest N-MPJPE on the validation subject with S1's labels, and that of every rate in mm."""
    scores = {}
    for rate in rates:
        settings = recipe("fast", system, capture.uri)
        settings = replace(settings, optimiser=replace(settings.optimiser, steps=steps, lr=rate))
        run = folder / f"{system}-lr{rate:g}"
        if not (run / MODEL).exists():
            train(settings, run, resume=True, machine=machine, progress=progress)
        curve = [line["validation"]["n_mpjpe"] for line in read_metrics(run / METRICS) if "validation" in line]
        scores[rate] = curve[-1]
    return min(scores, key=scores.__getitem__), scores


def evaluate_run(
    run: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    out: Path,
    command: str,
    progress: Progress = NO_PROGRESS,
) -> SystemResult:
    """Measure one run and leave ``report.json`` and ``report.html`` in `out`."""
    network = load_model(run)
    config = json.loads((run / CONFIG).read_text(encoding="utf-8"))
    predictions = predict_split(NetworkPredictor(network, capture), capture, split, settings, progress)
    evaluation = evaluate_predictions(predictions, capture.fingerprint, split, settings)
    history = history_of(read_metrics(run / METRICS))
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


def provenance(command: str, capture: Capture, settings: Mapping[str, str]) -> Provenance:
    """How figures came about: command, capture, date, machine and versions."""
    return Provenance(
        command=command,
        capture=capture.fingerprint,
        capture_name=capture.uri,
        synthetic=capture.info.importer == "synthetic",
        date=datetime.date.today().isoformat(),
        machine=describe_machine(),
        versions={"mcss": mcss.__version__, "torch": str(torch.__version__)},
        settings=dict(settings),
    )


def _compared(
    out: Path,
    cells: Sequence[Cell],
    capture: Capture,
    runs: Path,
    budget: Budget,
    made: Provenance,
    progress: Progress,
) -> dict[str, Any]:
    """Run the cells and write ``report.json``, ``report.html`` and ``table.md`` after each: stop whenever you like."""
    splits = [split for split in ("test", "new-motion") if split in capture.splits]
    by_split: dict[str, list[SystemResult]] = {split: [] for split in splits}
    rows: dict[str, Any] = {}
    for cell in cells:
        for split, result in run_cell(cell, capture, runs, budget, splits, progress=progress).items():
            by_split[split].append(result)
        rows = report_rows(by_split["test"], made)
        write_json(out / "report.json", rows)
        write_text(out / "table.md", markdown_table(by_split, made) + "\n")
    shown: dict[str, Path] = {system: runs / Cell(system, "S1").name for system in _SYSTEMS}
    predicted = {
        name: predict_split(
            NetworkPredictor(load_model(run), capture), capture, "test", EvaluationSettings(max_instants=300), progress
        )
        for name, run in shown.items()
    }
    chosen = pick_rows(predicted["mcss"], 8)
    page = comparison_report(
        by_split["test"],
        made,
        poses=pose_examples(capture, predicted, chosen),
        retrieved=retrieval_examples(capture, predicted, chosen[2:5], cross_subject=True),
    )
    write_text(out / "report.html", page)
    return rows


@dataclass(frozen=True)
class DemoPlan:
    """How much the demonstration does; the defaults fit 30 minutes on two processors."""

    instants: int = 800
    """Frames of each subject."""
    steps: int = 1000
    """Optimiser steps of both systems."""
    seed: int = 0
    """Of training; the capture's is 0."""


def run_demo(out: Path, plan: DemoPlan, progress: Progress = NO_PROGRESS) -> dict[str, Any]:
    """Build the synthetic capture, train both systems with S1's labels, compare them; ``report.html`` in `out`."""
    capture = build(out / "capture", SyntheticSettings(instants=plan.instants), progress)
    budget = Budget(plan.steps, RATES, EvaluationSettings(max_instants=500))
    cells = [Cell("mean_pose", "S1"), *(Cell(system, "S1", plan.seed) for system in _SYSTEMS)]
    made = provenance(f"mcss demo --out {out}", capture, {"steps": str(plan.steps)})
    return _compared(out, cells, capture, out / "runs", budget, made, progress)


@dataclass(frozen=True)
class ExperimentPlan:
    """How much the main comparison does."""

    steps: int = 2000
    """Optimiser steps of every cell."""


def run_experiment(uri: str, out: Path, plan: ExperimentPlan, progress: Progress = NO_PROGRESS) -> dict[str, Any]:
    """The main comparison (`MAIN_CELLS`); ``table.md``, ``report.json`` and ``report.html`` in `out`."""
    capture = Capture.open(uri)
    rates: dict[SystemName, float] = {}
    for system in _SYSTEMS:
        rates[system], scores = choose_learning_rate(
            system, LEARNING_RATES, capture, out / "learning_rates", plan.steps, progress=progress
        )
        write_json(out / f"learning_rates_{system}.json", {f"{rate:g}": mm for rate, mm in scores.items()})
    made = provenance(f"mcss experiment --capture {uri} --out {out}", capture, {"steps": str(plan.steps)})
    cells = [Cell("mean_pose", "S1"), *MAIN_CELLS]
    return _compared(out, cells, capture, out / "cells", Budget(plan.steps, rates), made, progress)


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
            _spread([p.n_mpjpe for p in poses]),
            _spread([p.mpjpe for p in poses]),
            _spread([p.pa_mpjpe for p in poses]),
            _spread(above),
            _spread(hits, digits=2),
            _spread([e.pose.over_poses.n_mpjpe for e in new if e.pose]),
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


def _spread(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean
