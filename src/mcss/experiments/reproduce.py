"""The parts of the paper that can be reproduced: choose settings, train what is missing, measure and write."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance, provenance
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments import paper_figures, pose_tables, retrieval_tables
from mcss.experiments.estimates import Estimate, estimates
from mcss.experiments.needs import Needs
from mcss.experiments.runs import Cell, Enough, Reading, finished, unfinished, weights_needed
from mcss.experiments.study import Budget, Study
from mcss.experiments.tables import MeasuredPart, PartName, missing_notes, reproduction_page
from mcss.experiments.tuning import choose_settings, chosen_so_far, record_trials, sweep_of, trial_cells, untried
from mcss.files import write_text
from mcss.methods.method import Method
from mcss.methods.registry import compared_methods
from mcss.methods.rhodin_eccv18 import RhodinECCV18
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.parallel import Share

BudgetName = Literal["small", "paper"]

Wanted = Literal[PartName, "all"]

BUDGETS = {
    "small": Budget(steps=1000, recipe="fast", evaluation=EvaluationSettings(max_instants=500)),
    "paper": Budget(steps=0, epochs=40, recipe="paper", evaluation=EvaluationSettings(max_gallery=10**9)),
}
"""``paper``: 40 epochs, 189,000 steps of MCSS on Human3.6M's 312,000 training images, 66 a step."""


@dataclass(frozen=True)
class PaperPart:
    """A table, figure or section of the paper, or what goes beyond it."""

    name: PartName
    cells: Callable[[Study], list[Cell]]
    """What has to be trained for it."""
    measure: Callable[[Study], MeasuredPart]
    """Measures it when its cells are trained."""
    methods: Callable[[], Sequence[type[Method]]] = lambda: pose_tables.MAIN_METHODS
    """The methods that it compares, whose settings are chosen first."""
    evaluation: Callable[[Study], EvaluationSettings] = lambda study: study.budget.evaluation
    """How its cells are evaluated."""
    by_row: bool = False
    """Whether it can be written before all of its cells are trained, with the rest marked as missing."""
    reads: Reading = "head"
    """How poses are read off in the last evaluation of a cell."""
    needs_networks: bool = False
    """Whether it needs predictions, so that kept evaluations cannot make up for deleted weights."""
    needs_other: bool = False
    """Whether it is measured on a second capture."""
    of_short_runs: bool = False
    """Whether it asks what the short runs of a laptop lack, so that ``all`` leaves it out of the paper's budget."""

    def enough(self, study: Study) -> Enough:
        """The evaluation of a cell that the part needs, see `mcss.experiments.runs.Enough`."""
        if self.needs_networks:
            return weights_needed
        return study.enough(study.other if self.needs_other else None, self.evaluation(study), self.reads)

    def untrained(self, study: Study) -> list[Cell]:
        """The cells that are still to be trained, without those that cannot be."""
        cells = [cell for cell in self.cells(study) if cell.name not in study.unavailable]
        return unfinished(cells, study.cells, self.enough(study))

    def gone(self, study: Study) -> str | None:
        """Why the part cannot be measured at all: a cell that it needs is not available. None if it can be."""
        cells = [] if self.by_row else [cell for cell in self.cells(study) if cell.name in study.unavailable]
        left = [cell for cell in unfinished(cells, study.cells, self.enough(study)) if cell.name in study.unavailable]
        return None if not left else f"{left[0].title} ({left[0].settings.labels}): {study.unavailable[left[0].name]}"


PARTS = (
    PaperPart("table1", pose_tables.table1_cells, pose_tables.table1, methods=compared_methods, by_row=True),
    PaperPart("signals", pose_tables.signals_cells, pose_tables.signals, methods=compared_methods, by_row=True),
    PaperPart("fig1b", paper_figures.mcss_cell, paper_figures.fig1b, needs_networks=True),
    PaperPart("fig3", pose_tables.fig3_cells, pose_tables.fig3, methods=lambda: pose_tables.FIG3_METHODS, by_row=True),
    PaperPart("table2", pose_tables.table2_cells, pose_tables.table2, by_row=True),
    PaperPart(
        "table3",
        pose_tables.table3_cells,
        pose_tables.table3,
        evaluation=pose_tables.table3_evaluation,
        by_row=True,
    ),
    PaperPart("fig4", retrieval_tables.embedding_cells, paper_figures.fig4, needs_networks=True),
    PaperPart("fig5", paper_figures.fig5_cells, paper_figures.fig5),
    PaperPart("retrieval", retrieval_tables.retrieval_cells, retrieval_tables.retrieval),
    PaperPart("found", retrieval_tables.embedding_cells, retrieval_tables.found, needs_networks=True),
    PaperPart("table4", retrieval_tables.other_cells, retrieval_tables.table4, needs_other=True),
    PaperPart("fig6", retrieval_tables.retrieval_cells, retrieval_tables.fig6, needs_networks=True),
    PaperPart("distances", retrieval_tables.retrieval_cells, retrieval_tables.distances, needs_networks=True),
    PaperPart("tsne", retrieval_tables.embedding_cells, retrieval_tables.tsne, needs_networks=True),
    PaperPart("generalisation", retrieval_tables.other_cells, retrieval_tables.generalisation, needs_other=True),
    PaperPart("beyond", pose_tables.beyond_cells, pose_tables.beyond, by_row=True, reads="nearest"),
    PaperPart("longer", pose_tables.longer_cells, pose_tables.longer, by_row=True, of_short_runs=True),
    PaperPart(
        "drawn", paper_figures.drawn_cells, paper_figures.drawn, methods=lambda: (RhodinECCV18,), needs_networks=True
    ),
)
"""All parts, in the order in which they are measured and shown."""

PART_NAMES = tuple(part.name for part in PARTS)


@dataclass(frozen=True)
class ReproducePlan:
    """How much is trained and measured, and with what."""

    budget: BudgetName = "small"
    """small takes the recipe fast, for a laptop; paper takes the paper's own training, for GPUs."""
    steps: int | None = None
    """Optimiser steps of every run, instead of the budget's."""
    seeds: int = 3
    """Runs of each row with one subject's labels in Tables 1 to 3, Fig. 3 and 6, retrieval and distances; other rows
    have one."""
    trials: int = 5
    """Settings tried for every method on the validation subject; 0 to keep the recipe's settings."""
    labels: str | None = None
    """The one labelled subject; by default the first of the training split."""
    other: str | None = None
    """A second capture with other people, cameras and scenes, for table4 and generalisation."""
    weights: str | None = None
    """Start of every backbone: imagenet, random, or a .safetensors or .pth file; by default the recipe's."""
    weights34: str = "imagenet"
    """Weights of ResNet-34 in Table 2: imagenet to download them, or a .safetensors or .pth file."""
    weights50: str | None = None
    """Weights of ResNet-50, for a further row of Rhodin et al., ECCV 2018, in Table 1: imagenet, or a file. The budget
    paper has this row by default."""
    memory_gb: float | None = None
    """Memory (10⁹ bytes) for decoded images, shared by all processes; by default half of what is free."""
    landmarks: Path | None = None
    """A file of another program's 3D landmarks in the test images, for a row in Table 1; see docs/reproduce.md."""
    program: str | None = None
    """The name of that program; by default the one stated in the file."""
    processes: int = 1
    """Runs trained in parallel."""
    share: str | None = None
    """Only train, and only a share of the runs: I/N, such as 0/4 to 3/4 on four machines that share the folder of
    cells. When all have finished, run the same command without --share to write the results."""
    cells: Path | None = None
    """Folder of the trained cells; by default the folder cells in --out."""
    train: bool = True
    """Train what is missing. With --no-train, tables say what is not trained yet."""

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("trials", 0), ("processes", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected {least} or more, got {getattr(self, name)}.")
        if self.share is not None:
            Share.parse(self.share)
            if not self.train:
                raise ValueError("share: with --no-train there is nothing to share; leave one of the two out.")

    def study(self, capture: str, out: Path, progress: Progress = NO_PROGRESS) -> Study:
        """The study that the parts are measured in, with the recipe's settings."""
        opened = Capture.open(capture)
        budget = replace(BUDGETS[self.budget], processes=self.processes)
        if self.steps is not None:
            budget = replace(budget, steps=self.steps, epochs=None)
        budget = replace(budget, weights=self.weights)
        weights50 = "imagenet" if self.weights50 is None and self.budget == "paper" else self.weights50
        return Study(
            capture=opened,
            folder=out,
            cells=self.cells or out / "cells",
            budget=budget,
            labels=self.labels or opened.instants("train").present_subjects()[0],
            seeds=tuple(range(self.seeds)),
            other=None if self.other is None else Capture.open(self.other),
            weights34=self.weights34,
            weights50=weights50,
            landmarks=self.landmarks,
            program=self.program,
            train=self.train,
            share=None if self.share is None else Share.parse(self.share),
            progress=progress,
        )


def wanted_parts(wanted: Sequence[Wanted], study: Study) -> tuple[list[PaperPart], list[str]]:
    """The parts to measure, in order, and a note for each part of ``all`` that is left out.

    Raises:
        ValueError: No part is named, or one that needs a second capture when there is none.
    """
    if not wanted:
        raise ValueError(f"reproduce: name one or more of {', '.join(PART_NAMES)}, or all.")
    named = [part for part in PARTS if part.name in wanted or "all" in wanted]
    impossible = [part for part in named if part.needs_other and study.other is None]
    if explicit := [part for part in impossible if part.name in wanted]:
        raise ValueError(
            f"{explicit[0].name}: retrieval on another capture needs one; give it as --other CAPTURE, such as one of "
            "`mcss synthetic build OTHER --seed 1 --stages per-subject`."
        )
    unasked = [p for p in named if p.of_short_runs and study.budget.epochs is not None and p.name not in wanted]
    notes = [f"{part.name} is left out: it needs a second capture (--other)." for part in impossible]
    notes += [f"{part.name} is left out of this budget; name it to train it." for part in unasked]
    return [part for part in named if part not in (*impossible, *unasked)], notes


def checked(
    parts: Sequence[PaperPart], study: Study, trials: int, notify: Callable[[str], None]
) -> tuple[list[PaperPart], Study, int]:
    """Look, before anything is trained, whether the capture and this machine have what every cell needs.

    What is lacking is told together. Its rows will say that they are not available, and everything else is measured.

    Args:
        parts: The parts that are wanted.
        study: Where and how they are measured.
        trials: Settings to be tried for every method.
        notify: Called with a line for each thing that is lacking.

    Returns:
        The parts that are possible, the study with its `unavailable` cells, and the trials that are possible.

    Raises:
        ValueError: No part is possible; the message says why.
    """
    possible, cells, reasons = [], dict[str, Cell](), []
    for part in parts:
        try:
            cells |= {cell.name: cell for cell in part.cells(study)}
        except ValueError as error:
            reasons.append(f"{part.name} is left out: {error}")
        else:
            possible.append(part)
    if not possible:
        raise ValueError("\n".join(reasons))
    validation = "validation"
    if trials and validation not in study.capture.splits:
        trials = 0
        reasons.append(
            f"Settings are not chosen, the recipe's are kept: {study.capture.uri} has no split {validation!r}. To "
            "choose them, hold a subject out when you import, such as --validation S8."
        )
    missing = [cell for cell in cells.values() if study.train and not finished(cell, study.cells)]
    problems = Needs(study.budget.evaluation).problems(missing, study.progress)
    for why in dict.fromkeys(problems.values()):
        names = dict.fromkeys(cells[name].title for name, problem in problems.items() if problem == why)
        reasons.append(f"Not available: {', '.join(names)}: {why}")
    for reason in reasons:
        notify(reason)
    return possible, replace(study, unavailable={**study.unavailable, **problems}), trials


def tuned_methods(parts: Sequence[PaperPart]) -> list[type[Method]]:
    """The methods that parts compare, each once."""
    return list(dict.fromkeys(method for part in parts for method in part.methods()))


def estimate(parts: Sequence[PaperPart], study: Study, trials: int) -> list[Estimate]:
    """Estimate what is left to train and how long it takes; settings that are still to be chosen may change it."""
    if trials:
        study = chosen_so_far(study, _available(parts, study), trials)
    waiting = _untrained(parts, study)
    known = [cell for part in parts for cell in part.cells(study)]
    for method in _available(parts, study) if trials else ():
        tried = trial_cells(study, method, trials)
        waiting += untried(study, tried)
        known += tried
    return estimates(_each_once(waiting), known, study.cells)


def _available(parts: Sequence[PaperPart], study: Study) -> list[type[Method]]:
    """The methods that parts compare and that can be trained with the labels of the one subject."""
    return [method for method in tuned_methods(parts) if study.cell(method).name not in study.unavailable]


def _untrained(parts: Sequence[PaperPart], study: Study) -> list[Cell]:
    return _each_once(cell for part in parts for cell in part.untrained(study))


def _untrained_share(parts: Sequence[PaperPart], study: Study) -> list[Cell]:
    """The untrained cells of this machine's share; a cell and those that start from it belong to one share."""
    waiting = _untrained(parts, study)
    if study.share is None:
        return waiting
    mine = study.share.of(_root(cell).name for part in parts for cell in part.cells(study))
    return [cell for cell in waiting if _root(cell).name in mine]


def _root(cell: Cell) -> Cell:
    return cell if cell.start is None else _root(cell.start)


def _each_once(cells: Iterable[Cell]) -> list[Cell]:
    return list({cell.name: cell for cell in cells}.values())


def reproduce(
    parts: Sequence[PaperPart],
    study: Study,
    trials: int,
    command: str,
    notify: Callable[[str], None] = lambda _: None,
) -> list[MeasuredPart]:
    """Train and measure parts; write ``NAME.json``, ``NAME.md``, figures and ``index.html`` to the study's folder.

    Whatever an earlier call has trained or measured is not done again. A run that fails does not stop the others.

    Args:
        parts: The parts.
        study: Where and how they are measured.
        trials: Settings tried for every method; 0 to keep the recipe's.
        command: The command that the user typed, for the provenance.
        notify: Called with a line for every part that is finished or left out, and for every run that failed.

    Raises:
        ValueError: No part could be measured.
    """
    if trials:
        study, measured_trials = choose_settings(study, _available(parts, study), trials)
        record_trials(study.folder, measured_trials)
        # The settings that were chosen are those of other cells than the ones that were looked at before.
        cells = [cell for part in parts for cell in part.cells(study) if not finished(cell, study.cells)]
        problems = Needs(study.budget.evaluation).problems(cells, study.progress)
        study = replace(study, unavailable={**study.unavailable, **problems})
    made = _provenance(study, parts, command)
    if study.train:  # all parts together, so that no process is idle while there is work
        before = study
        study = study.try_cells(_untrained_share(parts, study))
        for name, why in study.unavailable.items():
            if name not in before.unavailable:
                notify(f"{name} {why}")
    if study.share is not None:
        notify("This share is trained. When all are, the same command without --share writes the results.")
        return []
    measured: list[MeasuredPart] = []
    failures: list[Exception] = []
    for part in parts:
        if (gone := part.gone(study)) is not None:
            notify(f"{part.name} is left out: {gone}")
            continue
        if not study.train and not part.by_row and (left := part.untrained(study)):
            notify(f"{part.name} is left out: {left[0].name} is not trained, and {len(left) - 1} others are not.")
            continue
        try:
            result = part.measure(study)
        except (ValueError, OSError, ImportError) as error:
            failures.append(error)
            notify(f"{part.name} is left out: {error}")
            continue
        result = replace(result, notes=[*result.notes, *missing_notes(result.rows)])
        result.write(study.folder, made)
        write_text(study.folder / "index.html", reproduction_page(study.folder, PART_NAMES))
        measured.append(result)
        notify(f"{result.title}: {study.folder / part.name}.md")
    if failures and not measured:
        raise failures[0]
    return measured


def _provenance(study: Study, parts: Sequence[PaperPart], command: str) -> Provenance:
    budget = study.budget
    about = {"recipe": budget.recipe, "steps": str(budget.steps), "labelled subject": study.labels}
    if budget.epochs is not None:
        about["steps"] = f"of {budget.epochs} epochs"
    for method in tuned_methods(parts):
        settings = budget.settings(method, study.capture, study.labels)
        about[method.name] = f"learning rate {settings.optimiser.lr:g}"
        if (trial := budget.chosen.get(method.name)) is not None:
            sweep = sweep_of(settings.method).name
            about[method.name] += f" and {sweep} {trial.balance:g}, chosen on the validation subject"
    return provenance(command, study.capture, about)
