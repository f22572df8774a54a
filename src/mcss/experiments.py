"""The comparisons of the paper, run cell by cell: what was finished is kept, so that they may be stopped at any time.

A cell is one system with one choice of labels and one seed. Its folder is a run folder (see `mcss.checkpoints`) with
``evaluation_<split>.json`` beside the weights.
"""

import datetime
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

import mcss
from mcss.captures import Capture
from mcss.checkpoints import CONFIG, METRICS, MODEL, load_estimator, load_model
from mcss.evaluation import (
    Evaluation,
    EvaluationSettings,
    MeanPose,
    Predictions,
    evaluate,
    evaluate_predictions,
    predict_split,
)
from mcss.examples import pick_rows, pose_examples, retrieval_examples
from mcss.files import write_json, write_text
from mcss.labels import LabelSpec, select_labels
from mcss.parallel import Job, train_all, unfinished
from mcss.predict import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress
from mcss.recipes import MethodName, recipe
from mcss.report import Provenance, SystemResult, comparison_report, history_of, report_rows, run_report
from mcss.runlog import last_validation, read_metrics
from mcss.synthetic.build import build
from mcss.synthetic.scenes import SyntheticSettings
from mcss.training import TrainSettings, begin_run, describe_machine

TrainedName = Literal["supervised", "mcss"]
SystemName = Literal["mean_pose"] | TrainedName


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


BASELINE_TRIALS = tuple((rate, share) for share in (0.25, 1.0) for rate in (5e-4, 1e-3, 2e-3))
"""Learning rates and shares of the steps that are tried for the baseline on the validation subject: it soon overfits
one person's labels, and shall not be shown at its worst. MCSS takes its recipe's rate and all steps."""


@dataclass(frozen=True)
class Budget:
    """What every cell of a comparison gets."""

    steps: int
    """Optimiser steps of a run. Both systems see as many labelled images in each."""
    baseline: tuple[float, float] | None = None
    """Learning rate, and share of the steps, of the baseline; None for the recipe's and all. See `choose_baseline`."""
    processes: int = 1
    """Runs that are trained beside each other."""
    evaluation: EvaluationSettings = field(default_factory=lambda: EvaluationSettings(max_instants=500))
    """How much of a split is looked at."""

    def settings(self, system: MethodName, capture: Capture, labels: str, seed: int = 0) -> TrainSettings:
        """Of a run of a system."""
        settings = recipe("fast", system, capture.uri)
        rate, steps = settings.optimiser.lr, self.steps
        if system == "supervised" and self.baseline is not None:
            rate, share = self.baseline
            # With everybody's labels the baseline goes on improving: it marks how much there is to gain.
            steps = steps if labels == "all" else round(share * steps)
        return replace(settings, labels=labels, seed=seed, optimiser=replace(settings.optimiser, steps=steps, lr=rate))


_SYSTEMS: tuple[TrainedName, ...] = ("supervised", "mcss")

_SEEDS = (0, 1, 2)

MAIN_CELLS: tuple[tuple[Cell, ...], ...] = (
    tuple(Cell(system, "S1", seed) for system in ("mcss", "supervised") for seed in _SEEDS),  # long ones first
    tuple(Cell("supervised", "all", seed) for seed in _SEEDS),
    *(
        tuple(Cell(system, f"S1:{share}", seed) for system in ("mcss", "supervised") for seed in _SEEDS)
        for share in (0.1, 0.05)
    ),
)
"""The main comparison, in groups that are run one after the other: the most telling first."""


def train_cells(
    cells: Sequence[Cell], capture: Capture, folder: Path, budget: Budget, progress: Progress = NO_PROGRESS
) -> None:
    """Train those cells that are not finished; what was begun goes on."""
    jobs = []
    for cell in cells:
        if cell.system == "mean_pose":
            continue
        settings = budget.settings(cell.system, capture, cell.labels, cell.seed)
        run = folder / cell.name
        if (run / CONFIG).exists():
            begin_run(run, settings, capture, resume=True)  # raises if it was another experiment's
        if not (run / MODEL).exists() and not (run / "evaluation_test.json").exists():
            jobs.append(Job(settings, run))
    train_all(jobs, budget.processes, progress)


def evaluate_cell(
    cell: Cell, capture: Capture, folder: Path, budget: Budget, split: str, progress: Progress = NO_PROGRESS
) -> SystemResult:
    """The evaluation of a trained cell on one split, or what an earlier call found."""
    run = folder / cell.name
    evaluation = _evaluated(cell, capture, run, split, budget.evaluation, progress)
    history = history_of(read_metrics(run / METRICS))
    return SystemResult(
        cell.system, cell.labels, None if cell.system == "mean_pose" else cell.seed, evaluation, history
    )


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


def choose_baseline(
    capture: Capture, folder: Path, budget: Budget, progress: Progress = NO_PROGRESS
) -> tuple[tuple[float, float], list[dict[str, float]]]:
    """The trial with the lowest N-MPJPE on the validation subject with S1's labels; and what all of them came to."""
    jobs = [
        Job(
            replace(budget, baseline=trial).settings("supervised", capture, "S1"), folder / f"lr{trial[0]:g}x{trial[1]}"
        )
        for trial in BASELINE_TRIALS
    ]
    train_all(unfinished(jobs, capture), budget.processes, progress)
    found = []
    for (rate, share), job in zip(BASELINE_TRIALS, jobs, strict=True):
        found.append({"rate": rate, "share_of_steps": share, "n_mpjpe": last_validation(job.out / METRICS)["n_mpjpe"]})
    best = min(found, key=lambda trial: trial["n_mpjpe"])
    return (best["rate"], best["share_of_steps"]), found


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
    network = load_estimator(run)
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
    groups: Sequence[Sequence[Cell]],
    capture: Capture,
    runs: Path,
    budget: Budget,
    made: Provenance,
    progress: Progress,
) -> dict[str, Any]:
    """Run the cells group by group; ``report.json``, ``report.html`` and ``table.md`` are written after each group."""
    splits = [split for split in ("test", "new-motion") if split in capture.splits]
    by_split: dict[str, list[SystemResult]] = {split: [] for split in splits}
    rows: dict[str, Any] = {}
    for group in groups:
        train_cells(group, capture, runs, budget, progress)
        for cell in group:
            for split in splits:
                by_split[split].append(evaluate_cell(cell, capture, runs, budget, split, progress))
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
    """The report, with pictures of what the first run of each system with S1's labels says."""
    cells = [cell for group in groups for cell in group if cell.labels == "S1" and (runs / cell.name / MODEL).exists()]
    shown = {system: next((cell for cell in cells if cell.system == system), None) for system in _SYSTEMS}
    if not all(shown.values()):  # finished elsewhere: figures were kept, weights were not
        return comparison_report(results, made)
    few = EvaluationSettings(max_instants=300)
    predicted: dict[str, Predictions] = {
        system: predict_split(NetworkPredictor(load_model(runs / cell.name), capture), capture, "test", few, progress)
        for system, cell in shown.items()
        if cell is not None
    }
    chosen = pick_rows(predicted["mcss"], 8)
    return comparison_report(
        results,
        made,
        poses=pose_examples(capture, predicted, chosen),
        retrieved=retrieval_examples(capture, predicted, chosen[2:5], cross_subject=True),
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
    cells = [Cell("mean_pose", "S1"), *(Cell(system, "S1", plan.seed) for system in _SYSTEMS)]
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
    """The main comparison (`MAIN_CELLS`); ``table.md``, ``report.json`` and ``report.html`` in `out`."""
    capture = Capture.open(uri)
    budget = Budget(plan.steps, processes=plan.processes)
    if plan.choose:
        chosen, trials = choose_baseline(capture, out / "baseline", budget, progress)
        write_json(out / "baseline.json", trials)
        budget = replace(budget, baseline=chosen)
    command = f"mcss experiment --capture {uri} --out {out} --steps {plan.steps}"
    about = {"steps": str(plan.steps)}
    for system in _SYSTEMS:
        optimiser = budget.settings(system, capture, "S1").optimiser
        about[f"{system}, S1"] = f"{optimiser.steps} steps, learning rate {optimiser.lr:g}"
    made = provenance(command + ("" if plan.choose else " --no-choose"), capture, about)
    groups = [[Cell("mean_pose", "S1"), *MAIN_CELLS[0]], *MAIN_CELLS[1:]]
    return _compared(out, groups, capture, out / "cells", budget, made, progress)


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
