"""Comparisons of MCSS with its baseline: the demonstration, the main experiment, and the report of one run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance, provenance
from mcss.evaluation.evaluate import evaluate_predictions
from mcss.evaluation.examples import pick_rows, pose_examples, retrieval_examples
from mcss.evaluation.predictions import EvaluationSettings, predict_split
from mcss.evaluation.report import ReportData, comparison_report, history_of, run_report
from mcss.evaluation.results import SystemResult, grouped_results
from mcss.evaluation.shared_predictor import SharedPredictor
from mcss.experiments.paper import TABLE1
from mcss.experiments.pose_tables import printed_cell
from mcss.experiments.runs import Cell
from mcss.experiments.study import SEEDS, Budget, Study
from mcss.experiments.tables import markdown, paper_table, spread
from mcss.experiments.tuning import choose_settings, record_trials
from mcss.files import write_json, write_text
from mcss.methods.mcss import MCSS
from mcss.methods.registry import network_kinds, title_of
from mcss.methods.supervised import Supervised
from mcss.models.model_file import MODEL, read_model
from mcss.models.pose_network import PoseEstimator
from mcss.models.prediction import NetworkPredictor, Predictor, fastest_device
from mcss.models.shares import Stored
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.synthetic.build import build
from mcss.sources.synthetic.sequences import SyntheticSettings
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import read_metrics
from mcss.workers import Workers

PAPER_TABLE = paper_table([row for row in TABLE1 if not row.points])
"""The paper's rows beside ours, without those that learned from 2D joints."""

_EXAMPLE_INSTANTS = 300
"""Instants from which a report's example images are taken."""


def evaluate_run(
    run: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    out: Path,
    command: str,
    progress: Progress = NO_PROGRESS,
    workers: Workers = 1,
) -> SystemResult:
    """Measure a run or a model file, and write ``report.json`` and ``report.html`` to `out`.

    The workers share the predictions; this process measures them.
    """
    model = read_model(run, network_kinds())
    config = json.loads(model.about["config"])
    predictor: Predictor | SharedPredictor
    if workers == 1:
        predictor = NetworkPredictor(model.network.to(fastest_device()), capture)
    else:
        predictor = SharedPredictor(Stored.of(capture, run), network_kinds(), workers)
    predictions = predict_split(predictor, capture, split, settings, progress)
    evaluation = evaluate_predictions(predictions, capture.fingerprint, split, settings)
    history = history_of(read_metrics(run / METRICS) if run.is_dir() else [])
    system = config["method_name"]
    result = SystemResult(system, config["labels"], config["seed"], evaluation, history, title_of(system))
    rows = pick_rows(predictions, 8)
    by_system = {system: predictions}
    made = provenance(command, capture, {"run": str(run)})
    page = run_report(
        result,
        made,
        paper=PAPER_TABLE,
        poses=pose_examples(capture, by_system, rows) if evaluation.pose or _knows_poses(model.network) else (),
        retrieved=retrieval_examples(capture, by_system, rows[:4], tolerance=settings.tolerance),
    )
    write_json(out / "report.json", ReportData([result], made).to_json())
    write_text(out / "report.html", page)
    return result


_WHOLE_BATCH_FROM = 400
"""Instants of a subject from which the recipe's batch of 32 that lie far enough apart can be drawn."""

_SMALL_BATCH = 16
"""Instants in a step of MCSS where there are fewer; the shortest sequences have one each."""


@dataclass(frozen=True)
class DemoPlan:
    """How much the demonstration does."""

    quick: bool = False
    """Do less: a third of the images and a quarter of the steps, to see everything work in a few minutes. The figures
    are then those of a training that has hardly begun."""
    instants: int | None = None
    """Frames rendered of each subject, by default 800, or 256 with --quick."""
    steps: int | None = None
    """Optimiser steps of each of the two systems, by default 600, or 150 with --quick."""
    seed: int = 0
    """Seed of training; the capture's is 0."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps: expected 1 or more, got {self.steps}.")
        self.capture  # noqa: B018 (refuses too few instants before anything is done)

    @property
    def capture(self) -> SyntheticSettings:
        """What the capture holds."""
        return SyntheticSettings(instants=self.instants or (256 if self.quick else 800), new_motion=not self.quick)

    @property
    def budget(self) -> Budget:
        """How much is trained."""
        return Budget(self.steps or (150 if self.quick else 600))

    def minutes(self, processors: int) -> tuple[int, int]:
        """The time it takes on that many idle processors, at least and at most."""
        share = self.capture.instants / 800 * _RENDERING + self.budget.steps / 600 * _TRAINING
        usual = share / min(processors, 2) / 60
        return max(1, round(0.7 * usual)), max(2, round(1.5 * usual))


_RENDERING, _TRAINING = 700.0, 700.0
"""Processor seconds of a demonstration of the usual size, about half each for images and for training: it took 12
minutes on two idle processors."""


def run_demo(out: Path, plan: DemoPlan, progress: Progress = NO_PROGRESS, command: str = "") -> ReportData:
    """Build the synthetic capture, train MCSS and the baseline with S1's labels, and compare them.

    Writes ``report.json``, ``report.html`` and ``table.md`` to `out`.

    Args:
        out: Folder of all results.
        plan: How much is done.
        progress: Notified of every step.
        command: The command to state in the report, by default `mcss demo` with that folder.
    """
    capture = build(out / "capture", plan.capture, progress)
    study = Study(capture, out, out / "runs", plan.budget, seeds=(plan.seed,), progress=progress)
    cells = [study.cell(method) for method in (Supervised, MCSS)]
    if plan.capture.instants < _WHOLE_BATCH_FROM:
        cells = [_smaller(cell) for cell in cells]
    made = provenance(command or f"mcss demo --out {out}", capture, {"steps": str(plan.budget.steps)})
    return compare(study, [cells], made)


def _smaller(cell: Cell) -> Cell:
    """Adapt a cell to a small capture: fewer instants in a step, and fewer augmentations computed once."""
    settings = replace(cell.settings, variants=2)
    if isinstance(settings.method, MCSS):
        settings = replace(settings, method=replace(settings.method, instants=_SMALL_BATCH))
    return replace(cell, settings=settings)


def _knows_poses(network: PoseEstimator) -> bool:
    """Whether a network has learned from 3D labels; otherwise its poses mean nothing."""
    return bool((network.pose_std > 1).any())


@dataclass(frozen=True)
class ExperimentPlan:
    """How much the main comparison does."""

    steps: int = 1000
    """Optimiser steps of every run."""
    processes: int = 2
    """Runs trained in parallel."""
    choose: bool = True
    """First choose the settings of MCSS and of the baseline on the validation subject, with as many trials for each.
    With --no-choose both keep the recipe's."""


def run_experiment(
    uri: str, out: Path, plan: ExperimentPlan, progress: Progress = NO_PROGRESS, command: str = ""
) -> ReportData:
    """Run the main comparison (`main_cells`).

    Writes ``report.json``, ``report.html`` and ``table.md`` to `out`.

    Args:
        uri: Address of the capture.
        out: Folder of the results.
        plan: How much is trained.
        progress: Notified of every step.
        command: The command to state in the report, by default the one that does this.
    """
    capture = Capture.open(uri)
    study = Study(capture, out, out / "cells", Budget(plan.steps, processes=plan.processes), progress=progress)
    if plan.choose:
        study, trials = choose_settings(study, [Supervised, MCSS])
        record_trials(out, trials)
    if not command:
        command = f"mcss experiment --capture {uri} --out {out} --steps {plan.steps}"
        command += "" if plan.choose else " --no-choose"
    about = {"steps": str(plan.steps)}
    for method in (Supervised, MCSS):
        optimiser = study.budget.settings(method, capture, study.labels).optimiser
        about[f"{method.name}, {study.labels}"] = f"{optimiser.steps} steps, learning rate {optimiser.lr:g}"
    made = provenance(command, capture, about)
    return compare(study, main_cells(study), made, remembers=True)


def main_cells(study: Study) -> list[list[Cell]]:
    """The cells of the main comparison in groups that run one after the other, the most informative first."""
    budgets = (study.labels, "all", f"{study.labels}:0.1", f"{study.labels}:0.05")
    both = [[study.cell(method, labels, seed) for method in (MCSS, Supervised) for seed in SEEDS] for labels in budgets]
    return [*both, *([printed_cell(study, seed, labels) for seed in SEEDS] for labels in budgets)]


def compare(study: Study, groups: Sequence[Sequence[Cell]], made: Provenance, remembers: bool = False) -> ReportData:
    """Train and measure groups of cells; rewrite the results after each group.

    They are ``report.json``, ``report.html`` and ``table.md``, and ``new_motion.json`` if there is such a split.

    If `remembers`, MCSS is also evaluated on the test split after `mcss remember`.
    """
    splits = [split for split in ("test", "new-motion") if split in study.capture.splits]
    by_split = {split: [study.mean_pose(split)] for split in splits}
    report = ReportData(by_split["test"], made)
    for group in groups:
        ours = [cell for cell in group if cell.system == MCSS.name and not cell.variant] if remembers else []
        study.train_cells(ours, study.enough(reads="fitted"))
        for split in splits:
            study.train_cells(group, study.enough(split=split))
        for split in splits:
            by_split[split] += [_told_apart(study.result(cell, split), cell) for cell in group]
        by_split["test"] += [study.result(cell, reads="fitted") for cell in ours]
        report = ReportData(by_split["test"], made)
        write_json(study.folder / "report.json", report.to_json())
        if "new-motion" in by_split:
            write_json(study.folder / "new_motion.json", ReportData(by_split["new-motion"], made).to_json())
        write_text(study.folder / "table.md", comparison_table(by_split, made) + "\n")
        write_text(study.folder / "report.html", _page(study, by_split["test"], groups, made))
    return report


def _told_apart(result: SystemResult, cell: Cell) -> SystemResult:
    """A result whose name tells the cell's variant, if it has one."""
    if not cell.variant:
        return result
    return replace(result, system=f"{result.system}, {cell.variant}", title=f"{result.title}, {cell.variant}")


def _page(study: Study, results: Sequence[SystemResult], groups: Sequence[Sequence[Cell]], made: Provenance) -> str:
    """The report, with example images from the first group in which both systems still have their weights."""
    for group in groups:
        cells = {cell.system: cell for cell in reversed(group) if (study.cells / cell.name / MODEL).exists()}
        if all(method.name in cells for method in (MCSS, Supervised)):
            break
    else:  # the evaluations were kept, the weights were not
        return comparison_report(results, made, paper=PAPER_TABLE)
    few = EvaluationSettings(max_instants=_EXAMPLE_INSTANTS)
    predictions = {method.name: study.predictions(cells[method.name], few) for method in (Supervised, MCSS)}
    rows = pick_rows(predictions[MCSS.name], 8)
    return comparison_report(
        results,
        made,
        paper=PAPER_TABLE,
        poses=pose_examples(study.capture, predictions, rows),
        retrieved=retrieval_examples(study.capture, predictions, rows[2:5], cross_subject=True),
        example_labels=cells[MCSS.name].settings.labels,
    )


def comparison_table(by_split: Mapping[str, Sequence[SystemResult]], made: Provenance) -> str:
    """The tables of a page: a row per system and labels, mean ± standard deviation over seeds, in mm.

    Args:
        by_split: Systems on the split ``test`` and, where there is one, ``new-motion``, which gets a table of its own.
        made: How the figures came about.
    """
    head = ["system", "labels", "seeds"]
    training, errors = ["images", "minutes"], ["N-MPJPE", "MPJPE", "PA-MPJPE"]
    search = ["retrieval above oracle, K=10, cross-subject", "Hit@1"]
    table = [[*head, *training, *errors, *search]]
    for group in grouped_results(by_split["test"]):
        table.append([*_named(group), *_effort(group), *_errors(group), *_search(group)])
    lines = markdown(table)
    if by_split.get("new-motion"):
        table = [[*head, *errors, *search]]
        for group in grouped_results(by_split["new-motion"]):
            table.append([*_named(group), *_errors(group), *_search(group)])
        lines += ["", "On motions that nobody performed in training:", "", *markdown(table)]
    versions = ", ".join(f"{key} {value}" for key, value in made.versions.items())
    caption = (
        f"Built-in synthetic capture (`{made.capture[:12]}`), not Human3.6M; mm, 16 joints, mean ± standard deviation "
        f"over seeds. {_how_much(by_split['test'])}Images: those that one run was trained on, with repetitions; "
        f"minutes: of one run, while the machine also did other work. Written by `{made.command}` on {made.date} "
        f"({made.machine}, {versions})."
    )
    return "\n".join([*lines, "", caption])


def _how_much(results: Sequence[SystemResult]) -> str:
    """How much of the split was evaluated, in a sentence; empty if all of it was."""
    evaluation = results[-1].evaluation
    most, found = evaluation.settings.max_instants, evaluation.retrieval
    if most is None:
        return ""
    queries = ""
    if found and found.cross_subject:
        queries = f", {found.cross_subject.queries:,} queries in a gallery of {found.cross_subject.gallery:,} images"
    if found and found.same_instant:
        queries += f" (chance finds the same instant first in {100 * found.same_instant.chance_at_1:.1f} % of them)"
    return f"Measured on at most {most:,} instants, evenly spread over the split{queries}. "


def _named(group: Sequence[SystemResult]) -> list[str]:
    first = group[0]
    return [f"**{first.title}**" if first.system == MCSS.name else first.title, first.labels, str(len(group))]


def _effort(group: Sequence[SystemResult]) -> list[str]:
    """Images and minutes of a run, means over the seeds; – where a row is no run of its own."""
    last = [result.history[-1] for result in group if result.history]
    if not last:
        return ["–", "–"]
    images, minutes = (fmean(float(point[of]) for point in last) for of in ("images", "minutes"))
    return [f"{images:,.0f}", f"{minutes:.0f}"]


def _errors(group: Sequence[SystemResult]) -> list[str]:
    poses = [pose.over_poses for result in group if (pose := result.evaluation.pose)]
    return [spread([getattr(scores, of) for scores in poses]) for of in ("n_mpjpe", "mpjpe", "pa_mpjpe")]


def _search(group: Sequence[SystemResult]) -> list[str]:
    retrieval = [found for result in group if (found := result.evaluation.retrieval)]
    cross = [found.cross_subject for found in retrieval if found.cross_subject]
    return [
        spread([score.above_oracle for case in cross for score in case.scores if score.k == 10]),
        spread([found.same_instant.hit_at_1 for found in retrieval if found.same_instant], digits=2),
    ]
