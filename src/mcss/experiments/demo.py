"""The demonstration: a small capture, MCSS and its baseline trained on it, and a report of both."""

from dataclasses import dataclass, replace
from pathlib import Path

from mcss.data.provenance import provenance
from mcss.evaluation.report import ReportData
from mcss.experiments.comparison import compare
from mcss.experiments.runs import Cell
from mcss.experiments.study import Budget, Study
from mcss.methods.mcss import MCSS
from mcss.methods.supervised import Supervised
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.synthetic.build import build
from mcss.sources.synthetic.sequences import SyntheticSettings

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
        """The time it takes on that many idle processors, at least and at most, from measured processor seconds."""
        share = self.capture.instants / 800 * _RENDERING + self.budget.steps / 600 * _TRAINING
        usual = share / min(processors, 2) / 60
        return max(1, round(0.7 * usual)), max(2, round(1.5 * usual))


_RENDERING, _TRAINING = 700.0, 700.0
"""Processor seconds of a demonstration of the usual size: rendering and reading images, and training."""


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
    """Let a cell do with a small capture: fewer instants in a step, and fewer augmentations computed once."""
    settings = replace(cell.settings, variants=2)
    if isinstance(settings.method, MCSS):
        settings = replace(settings, method=replace(settings.method, instants=_SMALL_BATCH))
    return replace(cell, settings=settings)
