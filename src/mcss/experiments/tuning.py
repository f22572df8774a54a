"""The choice of each method's settings on the validation subject.

Every method gets the same number of trials, a cross around the recipe's own settings: three learning rates, and three
values of the one setting that it is most sensitive to (its `sweep`). When a run stops is chosen for each run by itself:
the recipe fast keeps the weights of the best point of the learning curve. A trial is a cell like any other, so the
winner is not trained again. One run of each cannot tell a small gain from the luck of a seed, so the recipe's own
settings give way only to clearly better ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mcss.experiments.runs import Cell, try_cells, validation_of, weights_needed, without_validation
from mcss.experiments.study import Study, Trial
from mcss.methods.method import Method, Sweep
from mcss.training.parallel import Share
from mcss.training.settings import TrainSettings

RATES = (2e-3, 1e-3, 4e-3)
"""Learning rates that are tried; the recipe's own first."""

MARGIN = 0.02
"""Share by which a trial has to beat the recipe's own settings: about the difference that another seed makes."""


@dataclass(frozen=True)
class MeasuredTrial:
    """A trial and its error on the validation subject."""

    trial: Trial
    sweep: str
    """Name of the setting that is tried besides the learning rate."""
    n_mpjpe: float

    def to_json(self) -> dict[str, float]:
        """A row of ``tuning.json``."""
        return {"rate": self.trial.rate, self.sweep.replace(" ", "_"): self.trial.balance, "n_mpjpe": self.n_mpjpe}


def sweep_of(method: Method) -> Sweep:
    """What is tried for a method besides the learning rate.

    Raises:
        ValueError: The method is not one that tables compare.
    """
    if method.sweep is None:
        raise ValueError(f"{method.name}: tables do not compare it, so it has no settings to choose.")
    return method.sweep


def trials_of(method: Method) -> tuple[Trial, ...]:
    """All trials of a method, the recipe's own settings first."""
    own, *others = sweep_of(method).values
    return (*(Trial(rate, own) for rate in RATES), *(Trial(RATES[0], value) for value in others))


def best_trial(tried: Sequence[tuple[Trial, float]]) -> Trial:
    """The trial with the lowest error, or the first, the recipe's own, if that is worse by at most `MARGIN`."""
    usual, best = tried[0], min(tried, key=lambda pair: pair[1])
    return best[0] if best[1] < (1 - MARGIN) * usual[1] else usual[0]


def trial_cells(study: Study, method: type[Method], count: int) -> list[Cell]:
    """The cells of the first `count` trials of a method."""
    usual = _recipe_settings(study, method)
    return [Cell(trial.applied(usual), study.capture.fingerprint) for trial in trials_of(usual.method)[:count]]


def _recipe_settings(study: Study, method: type[Method]) -> TrainSettings:
    return replace(study.budget, chosen={}).settings(method, study.capture, study.labels)


def untried(study: Study, cells: Sequence[Cell]) -> list[Cell]:
    """The trials that have not been trained to the end of their learning curve."""
    return without_validation(cells, study.cells, study.capture)


def choose_settings(
    study: Study, methods: Sequence[type[Method]], count: int = 5
) -> tuple[Study, Mapping[str, list[MeasuredTrial]]]:
    """Choose each method's `best_trial` by N-MPJPE on the validation subject, training the trials that are missing.

    Returns:
        The study with the chosen settings in its budget, and the trials of each method by its name.

    Trials that fail are passed over; a method whose trials all do keeps the recipe's settings.

    Raises:
        ValueError: The capture has no validation split, or trials are missing and are not to be trained here.
    """
    capture, failed = study.capture, frozenset[str]()
    cells = {method: trial_cells(study, method, count) for method in methods}
    every = [cell for trials in cells.values() for cell in trials]
    for split in {cell.settings.validation for cell in every}:
        if split not in capture.splits:
            raise ValueError(
                f"{capture.uri}: settings are chosen on the split {split!r}, which this capture does not have (it has "
                f"{', '.join(capture.splits)}). Skip the choice with --trials 0 (--no-choose for mcss experiment)."
            )
    if study.train:
        mine = (study.share or Share()).of(cell.name for cell in every)
        left = [cell for cell in untried(study, every) if cell.name in mine]
        failed = frozenset(try_cells(left, study.cells, study.budget.processes, study.progress, weights_needed))
    if waiting := [cell for cell in untried(study, every) if cell.name not in failed]:
        way = "when the other shares have trained theirs" if study.train else "without --no-train"
        raise ValueError(
            f"settings are not chosen yet: {study.cells / waiting[0].name} is not trained, and {len(waiting) - 1} "
            f"other trials are not either. Run the command again {way}, or keep the recipe's settings (--trials 0)."
        )
    chosen = dict(study.budget.chosen)
    measured: dict[str, list[MeasuredTrial]] = {}
    for method, trials in cells.items():
        recipe_method = _recipe_settings(study, method).method
        tried = [
            (trial, validation_of(cell, study.cells)["n_mpjpe"])
            for trial, cell in zip(trials_of(recipe_method), trials, strict=False)
            if cell.name not in failed
        ]
        if not tried:
            continue
        sweep = sweep_of(recipe_method).name
        measured[method.name] = [MeasuredTrial(trial, sweep, error) for trial, error in tried]
        chosen[method.name] = best_trial(tried)
    return replace(study, budget=replace(study.budget, chosen=chosen)), measured
