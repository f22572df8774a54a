"""What every cell of a comparison gets, and the choice of each system's settings on the validation subject.

Every system gets the same number of trials: three learning rates with two values of the one setting that it is most
sensitive to. A trial is a cell like any other, so the one that wins is not trained again. One run each cannot tell a
small gain from the luck of a seed, so the recipe's own settings give way only to what is clearly better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from mcss.data.capture import Capture
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments.runs import Cell, train_cells
from mcss.methods.chen_cvpr19 import ChenCVPR19Settings
from mcss.methods.mcss import MCSSSettings
from mcss.methods.method import Method
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import RhodinECCV18Settings
from mcss.methods.supervised import SupervisedSettings
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import last_validation
from mcss.training.parallel import Job, Share, unfinished
from mcss.training.recipes import MethodName, RecipeName, recipe
from mcss.training.settings import TrainSettings

BudgetName = Literal["small", "paper"]

RATES = (2e-3, 1e-3, 5e-4)
"""Learning rates that are tried; the recipe's own first."""


MARGIN = 0.02
"""Share by which a trial has to be better than the recipe's own settings: about what another seed makes."""


@dataclass(frozen=True)
class Balance:
    """The setting that a system is tried with beside the learning rate."""

    name: str
    values: tuple[float, float]
    """The recipe's own first."""


def balance_of(method: Method) -> Balance:
    """What is tried for a system beside its learning rate.

    The baseline's is the share of the steps that it takes: it soon overfits one person's labels, and shall not be shown
    at its worst.

    Raises:
        ValueError: A method that is no system of a comparison.
    """
    match method:
        case SupervisedSettings():
            return Balance("share of steps", (1.0, 0.25))
        case MCSSSettings():
            return Balance("metric weight", (method.metric_weight, method.metric_weight / 2))
        case RhodinCVPR18Settings():
            return Balance("consistency weight", (1.0, 0.25))
        case RhodinECCV18Settings() | ChenCVPR19Settings():
            length = method.representation_length
            return Balance("length of the representation", (length, length / 2))
        case _:
            raise ValueError(f"{type(method).__name__} is the first stage of a system, and is not tuned by itself.")


@dataclass(frozen=True)
class Trial:
    """What is tried."""

    rate: float
    """Learning rate."""
    balance: float
    """Of the setting of `balance_of`."""

    def applied(self, settings: TrainSettings) -> TrainSettings:
        """The settings with it. With several people's labels the baseline takes all steps: it goes on improving."""
        optimiser, method = replace(settings.optimiser, lr=self.rate), settings.method
        match method:
            case SupervisedSettings() if settings.labels == "all" or "," in settings.labels:
                pass
            case SupervisedSettings():
                optimiser = replace(optimiser, steps=max(1, round(self.balance * optimiser.steps)))
            case MCSSSettings():
                method = replace(method, metric_weight=self.balance)
            case RhodinCVPR18Settings():
                method = replace(method, consistency_weight=self.balance)
            case RhodinECCV18Settings() | ChenCVPR19Settings():
                method = replace(method, representation_length=self.balance)
        return replace(settings, method=method, optimiser=optimiser)


def trials_of(method: Method) -> tuple[Trial, ...]:
    """All trials of a system, the recipe's own settings first."""
    return tuple(Trial(rate, value) for value in balance_of(method).values for rate in RATES)


def best_trial(tried: Sequence[tuple[Trial, float]]) -> Trial:
    """The best of trials and what they came to, or the first, the recipe's own, if it is worse by `MARGIN` at most."""
    own, best = tried[0], min(tried, key=lambda pair: pair[1])
    return best[0] if best[1] < (1 - MARGIN) * own[1] else own[0]


@dataclass(frozen=True)
class Budget:
    """What every cell of a comparison gets."""

    steps: int
    """Optimiser steps of a run, of all stages that see labels."""
    recipe: RecipeName = "fast"
    """Network, images and augmentation."""
    processes: int = 1
    """Runs that are trained beside each other."""
    evaluation: EvaluationSettings = field(default_factory=lambda: EvaluationSettings(max_instants=500))
    """How much of a split is looked at."""
    chosen: Mapping[str, Trial] = field(default_factory=dict)
    """By system; those that are not there take the recipe's settings."""

    def settings(self, system: MethodName, capture: Capture, labels: str, seed: int = 0) -> TrainSettings:
        """Of a run of a system."""
        settings = recipe(self.recipe, system, capture.uri)
        optimiser = replace(settings.optimiser, steps=self.steps)
        settings = replace(settings, optimiser=optimiser, seed=seed)
        if system != "points2d":
            settings = replace(settings, labels=labels)
        return self.chosen[system].applied(settings) if system in self.chosen else settings

    def cell(self, system: MethodName, capture: Capture, labels: str, seed: int = 0, variant: str = "") -> Cell:
        """A cell of a system."""
        return Cell(self.settings(system, capture, labels, seed), capture.fingerprint, variant)


def trial_cells(system: MethodName, capture: Capture, budget: Budget, labels: str, count: int) -> list[Cell]:
    """The first `count` trials of a system, as cells."""
    plain = replace(budget, chosen={}).settings(system, capture, labels)
    return [Cell(trial.applied(plain), capture.fingerprint) for trial in trials_of(plain.method)[:count]]


def untried(cells: Sequence[Cell], folder: Path, capture: Capture) -> list[Cell]:
    """The trials whose learning curve has not reached its end; one whose weights were cleared away has been tried."""
    left = {job.out.name for job in unfinished([Job(cell.settings, folder / cell.name) for cell in cells], capture)}
    return [cell for cell in cells if cell.name in left]


def tuned(
    systems: Sequence[MethodName],
    capture: Capture,
    folder: Path,
    budget: Budget,
    labels: str,
    count: int = 6,
    progress: Progress = NO_PROGRESS,
    train: bool = True,
    share: Share = Share(),  # noqa: B008 (frozen)
) -> tuple[Budget, dict[str, list[dict[str, float]]]]:
    """The budget with each system's `best_trial` by N-MPJPE on the validation subject; and what all of them came to.

    Raises:
        ValueError: The capture has no validation split; or trials are not trained, and shall not be, or not here.
    """
    split = budget.settings("mcss", capture, labels).validation
    if split not in capture.splits:
        raise ValueError(
            f"{capture.uri}: settings are chosen on the split {split!r}, which this capture does not have (it has "
            f"{', '.join(capture.splits)}). Choose none: --trials 0, or --no-choose."
        )
    cells = {system: trial_cells(system, capture, budget, labels, count) for system in systems}
    every = [cell for own in cells.values() for cell in own]
    if train:
        mine = share.of(cell.name for cell in every)
        left = [cell for cell in untried(every, folder, capture) if cell.name in mine]
        train_cells(left, folder, budget.processes, progress, lambda _: None)
    if waiting := untried(every, folder, capture):
        way = "once the other shares have got as far" if train else "without --no-train"
        raise ValueError(
            f"settings are not chosen yet: {folder / waiting[0].name} is not trained, and {len(waiting) - 1} other "
            f"trials. Call again {way}, or take the recipes' settings (--trials 0)."
        )
    chosen = dict(budget.chosen)
    told: dict[str, list[dict[str, float]]] = {}
    for system, own in cells.items():
        method = budget.settings(system, capture, labels).method
        name = balance_of(method).name.replace(" ", "_")
        errors = [last_validation(folder / cell.name / METRICS)["n_mpjpe"] for cell in own]
        tried = list(zip(trials_of(method), errors, strict=False))
        told[system] = [{"rate": t.rate, name: t.balance, "n_mpjpe": error} for t, error in tried]
        chosen[system] = best_trial(tried)
    return replace(budget, chosen=chosen), told
