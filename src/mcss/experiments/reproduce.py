"""All parts in order: choose settings, train what is not trained, measure, write."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance, provenance
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments import pose_tables as pose_parts
from mcss.experiments import retrieval_tables as retrieval_parts
from mcss.experiments import signals
from mcss.experiments.estimates import Estimate, estimates
from mcss.experiments.page import reproduction_page
from mcss.experiments.runs import Cell, Enough, train_cells, unfinished
from mcss.experiments.tables import Part, PartName, Study
from mcss.experiments.tuning import Budget, BudgetName, balance_of, trial_cells, tuned, untried
from mcss.files import write_json, write_text
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.parallel import Share
from mcss.training.recipes import MethodName
from mcss.viz.plots import write_figure

PARTS: tuple[PartName, ...] = get_args(PartName)

Wanted = Literal[PartName, "all"]

_NEED_ANOTHER: tuple[PartName, ...] = ("table4", "generalisation")

_ASK_NETWORKS: tuple[PartName, ...] = ("fig4", "fig6", "tsne")
"""Of which evaluations are not enough."""

_ROW_BY_ROW: tuple[PartName, ...] = ("table1", "signals", "fig3", "table2", "table3")
"""Which are worth something before all is trained."""

BUDGETS = {
    "small": Budget(steps=1000, recipe="fast", evaluation=EvaluationSettings(max_instants=500)),
    "paper": Budget(steps=194_000, recipe="paper", evaluation=EvaluationSettings(max_gallery=10**9)),
}
"""``paper``: 40 epochs of Human3.6M's 320,000 training images, 66 a step."""


@dataclass(frozen=True)
class ReproducePlan:
    """How much is done, and with what."""

    budget: BudgetName = "small"
    """small: the recipe fast, for a laptop. paper: the paper's own, for GPUs."""
    steps: int | None = None
    """Optimiser steps of every run instead of the budget's."""
    seeds: int = 3
    """Runs of the rows with one subject's labels in Table 1, Table 2, Fig. 3 and Fig. 5; one elsewhere."""
    trials: int = 6
    """Settings that are tried for every system on the validation subject; 0: all take the recipe's."""
    labels: str | None = None
    """The one labelled subject; the first of the training split by default."""
    other: str | None = None
    """A second capture, with other people, cameras and scenes: for table4 and generalisation."""
    resnet34: str = "imagenet"
    """Weights of Table 2's other backbone: imagenet (from the hub), or a .safetensors or .pth file."""
    mediapipe: bool = False
    """A row for MediaPipe in Table 1: install it in an environment of its own (about a gigabyte, once) and run it."""
    landmarks: str | None = None
    """A file of what another program found in the test images, for a row in Table 1, see docs/reproduce.md."""
    program: str = "another program"
    """The name of that program."""
    processes: int = 1
    """Runs that are trained beside each other."""
    share: str | None = None
    """Only train, and only a share of the runs: I/N, such as 0/4 to 3/4, on each of four machines that have the folder
    of cells in common. When all are through, the same command without it writes the results."""
    cells: Path | None = None
    """Folder of the trained cells, to write the results elsewhere; by default the folder cells in --out."""
    train: bool = True
    """Train what is not trained. --no-train writes what is to be had without: tables say what is not trained yet."""

    def __post_init__(self) -> None:
        for name, least in (("seeds", 1), ("trials", 0), ("processes", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: expected {least} or more, got {getattr(self, name)}.")
        if self.share is not None:
            Share.parse(self.share)
            if not self.train:
                raise ValueError("share: with --no-train there is nothing to share; leave one of the two out.")

    def study(self, capture: str, out: Path, progress: Progress = NO_PROGRESS) -> Study:
        """What the parts are measured on, before settings are chosen."""
        opened = Capture.open(capture)
        budget = replace(BUDGETS[self.budget], processes=self.processes)
        if self.steps is not None:
            budget = replace(budget, steps=self.steps)
        return Study(
            capture=opened,
            folder=out,
            cells=self.cells or out / "cells",
            budget=budget,
            labels=self.labels or opened.instants("train").present_subjects()[0],
            other=None if self.other is None else Capture.open(self.other),
            weights={"resnet34": self.resnet34},
            seeds=tuple(range(self.seeds)),
            landmarks=self.landmarks or "",
            program=self.program,
            mediapipe=self.mediapipe,
            train=self.train,
            share=None if self.share is None else Share.parse(self.share),
            progress=progress,
        )


def wanted_parts(wanted: Sequence[Wanted], study: Study) -> tuple[list[PartName], list[str]]:
    """The parts in their order, and what is to be said of those of ``all`` that are left out.

    Raises:
        ValueError: None was named; or one that needs a second capture, and there is none.
    """
    if not wanted:
        raise ValueError(f"reproduce: name one or more of {', '.join(PARTS)}, or all.")
    named = [part for part in PARTS if part in wanted or "all" in wanted]
    lacking = [part for part in named if part in _NEED_ANOTHER and study.other is None]
    if asked := [part for part in lacking if part in wanted]:
        raise ValueError(
            f"{asked[0]}: retrieval on another capture needs one; give it as --other CAPTURE, such as one of "
            "`mcss synthetic build OTHER --seed 1 --stages per-subject`."
        )
    notes = [f"{part} is left out: it needs a second capture (--other)." for part in lacking]
    return [part for part in named if part not in lacking], notes


def cells_of(part: PartName, study: Study) -> list[Cell]:
    """What has to be trained for a part."""
    match part:
        case "table1":
            return pose_parts.table1_cells(study)
        case "signals":
            return signals.signals_cells(study)
        case "fig3":
            return pose_parts.fig3_cells(study)
        case "table2":
            return pose_parts.table2_cells(study)
        case "table3":
            return pose_parts.table3_cells(study)
        case "fig5":
            return retrieval_parts.fig5_cells(study)
        case "table4" | "generalisation":
            return retrieval_parts.other_cells(study)
        case _:
            return retrieval_parts.embedding_cells(study)


def measured(part: PartName, study: Study) -> Part:
    """A part whose cells are trained."""
    match part:
        case "table1":
            return pose_parts.table1(study)
        case "signals":
            return signals.signals(study)
        case "fig3":
            return pose_parts.fig3(study)
        case "table2":
            return pose_parts.table2(study)
        case "table3":
            return pose_parts.table3(study)
        case "fig4":
            return retrieval_parts.fig4(study)
        case "fig5":
            return retrieval_parts.fig5(study)
        case "table4":
            return retrieval_parts.table4(study)
        case "fig6":
            return retrieval_parts.fig6(study)
        case "tsne":
            return retrieval_parts.tsne(study)
        case "generalisation":
            return retrieval_parts.generalisation(study)


def tuned_systems(parts: Sequence[PartName]) -> list[MethodName]:
    """The systems that parts compare, whose settings are chosen first."""
    return list(pose_parts.SYSTEMS if {"table1", "signals"} & set(parts) else pose_parts.SYSTEMS[:2])


def estimate(parts: Sequence[PartName], study: Study, trials: int) -> list[Estimate]:
    """What is left to train, and how long it will take; settings that are still to be chosen may change it."""
    waiting = _waiting(parts, study)
    known = [cell for part in parts for cell in cells_of(part, study)]
    for system in tuned_systems(parts) if trials else ():
        tried = trial_cells(system, study.capture, study.budget, study.labels, trials)
        waiting += untried(tried, study.cells, study.capture)
        known += tried
    return estimates(_each_once(waiting), known, study.cells)


def _waiting(parts: Sequence[PartName], study: Study) -> list[Cell]:
    """What is not trained yet of all that the parts need."""
    return _each_once(
        cell for part in parts for cell in unfinished(cells_of(part, study), study.cells, _enough(part, study))
    )


def _of_this_machine(parts: Sequence[PartName], study: Study) -> list[Cell]:
    """What is not trained yet, but for what other machines are to train; a run and what starts from it go together."""
    waiting = _waiting(parts, study)
    if study.share is None:
        return waiting
    mine = study.share.of(_root(cell).name for part in parts for cell in cells_of(part, study))
    return [cell for cell in waiting if _root(cell).name in mine]


def _root(cell: Cell) -> Cell:
    return cell if cell.after is None else _root(cell.after)


def _each_once(cells: Iterable[Cell]) -> list[Cell]:
    return list({cell.name: cell for cell in cells}.values())


def _enough(part: PartName, study: Study) -> Enough:
    """Which evaluation of a cell a part needs, see `mcss.experiments.runs.Enough`."""
    if part in _ASK_NETWORKS:
        return lambda _: None
    return study.enough(
        study.other if part in _NEED_ANOTHER else None, pose_parts.table3_looked(study) if part == "table3" else None
    )


def reproduce(
    parts: Sequence[PartName],
    study: Study,
    trials: int,
    command: str,
    told: Callable[[str], None] = lambda _: None,
) -> list[Part]:
    """Train and measure; ``NAME.json``, ``NAME.md``, figures and ``index.html`` in the study's folder.

    What was trained or measured before, by whatever call, is not done again.

    Args:
        parts: Which.
        study: On what.
        trials: Settings that are tried for every system; 0 for none.
        command: What the user typed.
        told: Called with a line for every part that is finished.
    """
    if trials:
        budget, tried = tuned(
            tuned_systems(parts), study.capture, study.cells, study.budget, study.labels, trials, study.progress,
            study.train, study.share or Share(),
        )  # fmt: skip
        study = replace(study, budget=budget)
        write_json(study.folder / "tuning.json", tried)
    made = _provenance(study, parts, command)
    if study.train:  # all at once, so that processes have work as long as there is any
        mine = _of_this_machine(parts, study)
        train_cells(mine, study.cells, study.budget.processes, study.progress, lambda _: None)
    if study.share is not None:
        told("This share is trained. When all are, the same command without --share writes the results.")
        return []
    found = []
    for part in parts:
        if not study.train and part not in _ROW_BY_ROW and (left := _waiting([part], study)):
            told(f"{part} is left out: {left[0].name} is not trained, and {len(left) - 1} others.")
            continue
        one = measured(part, study)
        for name, figure in one.figures.items():
            write_figure(study.folder / name, figure)
        one.write(study.folder, made)
        write_text(study.folder / "index.html", reproduction_page(study.folder, PARTS))
        found.append(one)
        told(f"{one.title}: {study.folder / part}.md")
    return found


def _provenance(study: Study, parts: Sequence[PartName], command: str) -> Provenance:
    budget = study.budget
    about = {"recipe": budget.recipe, "steps": str(budget.steps), "labelled subject": study.labels}
    for system in tuned_systems(parts):
        settings = budget.settings(system, study.capture, study.labels)
        text = f"learning rate {settings.optimiser.lr:g}"
        if (trial := budget.chosen.get(system)) is not None:
            text += f" and {balance_of(settings.method).name} {trial.balance:g}, chosen on the validation subject"
        about[system] = text
    return provenance(command, study.capture, about)
