"""The choice of each method's settings on the validation subject.

Every method gets the same number of trials, a cross around the recipe's own settings: three learning rates, and three
values of the one setting that it is most sensitive to (its `sweep`). When a run stops is chosen for each run by itself:
the recipe fast keeps the weights of the best point of the learning curve. A trial is a cell like any other, so the
winner is not trained again. One run of each cannot tell a gain from the luck of a seed: settings that seem clearly
better than the recipe's own are held against them in runs of every seed.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from mcss.errors import MCSSError, damage_as
from mcss.experiments.runs import Cell, has_failed, try_cells, validation_of, weights_needed, without_validation
from mcss.experiments.study import Study, Trial
from mcss.files import write_json
from mcss.methods.method import Method, Sweep
from mcss.training.parallel import Share
from mcss.training.settings import TrainSettings

RATES = (1.0, 0.5, 2.0)
"""Learning rates that are tried, in multiples of the recipe's own, which comes first."""

MARGIN = 0.02
"""Share by which one run of a trial has to beat one of the recipe's own settings to be tried with every seed."""


@dataclass(frozen=True)
class MeasuredTrial:
    """A trial and its error on the validation subject."""

    trial: Trial
    sweep: str
    """Name of the setting that is tried besides the learning rate."""
    errors: tuple[float, ...]
    """N-MPJPE of each run in mm, that of the first seed first."""
    kept: bool
    """Whether these settings were chosen."""

    def to_json(self) -> dict[str, Any]:
        """A row of ``tuning.json``."""
        return {
            "rate": self.trial.rate,
            self.sweep.replace(" ", "_"): self.trial.balance,
            "errors": list(self.errors),
            "kept": self.kept,
        }


def sweep_of(method: Method) -> Sweep:
    """What is tried for a method besides the learning rate.

    Raises:
        ValueError: The method is not one that tables compare.
    """
    if method.sweep is None:
        raise ValueError(f"{method.name}: tables do not compare it, so it has no settings to choose.")
    return method.sweep


def trials_of(settings: TrainSettings) -> tuple[Trial, ...]:
    """All trials of a method, given its settings in the recipe, which are tried first."""
    rate, (own, *others) = settings.optimiser.lr, sweep_of(settings.method).values
    return (*(Trial(times * rate, own) for times in RATES), *(Trial(rate, value) for value in others))


def best_trial(tried: Sequence[tuple[Trial, float]]) -> Trial:
    """The trial with the lowest error, or the first, the recipe's own, if that is worse by at most `MARGIN`."""
    usual, best = tried[0], min(tried, key=lambda pair: pair[1])
    return best[0] if best[1] < (1 - MARGIN) * usual[1] else usual[0]


def trial_cells(study: Study, method: type[Method], count: int) -> list[Cell]:
    """The cells of the first `count` trials of a method."""
    return [_cell(study, method, trial) for trial in trials_of(_recipe_settings(study, method))[:count]]


def _cell(study: Study, method: type[Method], trial: Trial, seed: int = 0) -> Cell:
    settings = replace(_recipe_settings(study, method), seed=seed)
    return Cell(trial.applied(settings), study.capture.fingerprint)


def _recipe_settings(study: Study, method: type[Method]) -> TrainSettings:
    return replace(study.budget, chosen={}).settings(method, study.capture, study.labels)


class TrialsLeftError(ValueError):
    """Settings cannot be chosen, since some trials are not trained yet."""


def chosen_so_far(study: Study, methods: Sequence[type[Method]], count: int = 5) -> Study:
    """Return the study with the settings of those methods whose trials are all trained; nothing is trained here."""
    looking = replace(study, train=False)
    for method in methods:
        with suppress(TrialsLeftError):
            looking, _ = choose_settings(looking, [method], count)
    return replace(study, budget=looking.budget)


def untried(study: Study, cells: Sequence[Cell]) -> list[Cell]:
    """The trials that have not been trained to the end of their learning curve."""
    return without_validation(cells, study.cells, study.capture)


def choose_settings(
    study: Study, methods: Sequence[type[Method]], count: int = 5
) -> tuple[Study, Mapping[str, list[MeasuredTrial]]]:
    """Choose each method's settings by N-MPJPE on the validation subject, training the trials that are missing.

    Returns:
        The study with the chosen settings in its budget, and the trials of each method by its name.

    Trials that fail are passed over; a method whose trials all do keeps the recipe's settings.

    Raises:
        TrialsLeftError: Trials are missing and are not to be trained here.
        ValueError: The capture has no validation split.
    """
    trials = {method: trials_of(_recipe_settings(study, method))[:count] for method in methods}
    tried = _errors(study, {(each, trial): [_cell(study, each, trial)] for each in trials for trial in trials[each]})
    finals: dict[type[Method], tuple[Trial, Trial]] = {}
    for method in methods:
        pairs = [(trial, fmean(tried[method, trial])) for trial in trials[method] if tried[method, trial]]
        if pairs and (best := best_trial(pairs)) != pairs[0][0]:
            finals[method] = (pairs[0][0], best)
    tried |= _errors(
        study,
        {
            (each, trial): [_cell(study, each, trial, seed) for seed in study.seeds]
            for each in finals
            for trial in finals[each]
        },
    )
    chosen = dict(study.budget.chosen)
    measured: dict[str, list[MeasuredTrial]] = {}
    for method in methods:
        known = [trial for trial in trials[method] if tried[method, trial]]
        if not known:
            continue
        finalists = finals.get(method, (known[0],))
        kept = chosen[method.name] = min(finalists, key=lambda trial: fmean(tried[method, trial]))
        sweep = sweep_of(_recipe_settings(study, method).method).name
        measured[method.name] = [
            MeasuredTrial(trial, sweep, tuple(tried[method, trial]), trial == kept) for trial in known
        ]
    return replace(study, budget=replace(study.budget, chosen=chosen)), measured


def _errors(
    study: Study, runs: Mapping[tuple[type[Method], Trial], Sequence[Cell]]
) -> dict[tuple[type[Method], Trial], list[float]]:
    """The N-MPJPE on validation of the runs of each trial, in mm, without those that failed."""
    capture = study.capture
    every = [cell for cells in runs.values() for cell in cells]
    for split in {cell.settings.validation for cell in every}:
        if split not in capture.splits:
            raise ValueError(
                f"{capture.uri}: settings are chosen on the split {split!r}, which this capture does not have (it has "
                f"{', '.join(capture.splits)}). Skip the choice with --trials 0 (--no-choose for mcss experiment)."
            )
    if study.train:
        mine = (study.share or Share()).of(cell.name for cell in every)
        left = [cell for cell in untried(study, every) if cell.name in mine]
        try_cells(left, study.cells, study.budget.processes, study.progress, weights_needed)
    failed = {cell.name for cell in every if has_failed(cell, study.cells)}
    if waiting := [cell for cell in untried(study, every) if cell.name not in failed]:
        way = "when the other shares have trained theirs" if study.train else "without --no-train"
        raise TrialsLeftError(
            f"settings are not chosen yet: {study.cells / waiting[0].name} is not trained, and {len(waiting) - 1} "
            f"other trials are not either. Run the command again {way}, or keep the recipe's settings (--trials 0)."
        )
    return {
        trial: [validation_of(cell, study.cells)["n_mpjpe"] for cell in cells if cell.name not in failed]
        for trial, cells in runs.items()
    }


TUNING = "tuning.json"
"""The file of all trials in a folder of results, by method."""


def record_trials(folder: Path, trials: Mapping[str, Sequence[MeasuredTrial]]) -> None:
    """Write the trials to the folder's `TUNING`, beside those that earlier calls have recorded of other methods."""
    tuning = {name: [trial.to_json() for trial in tried] for name, tried in trials.items()}
    write_json(folder / TUNING, {**earlier_trials(folder), **tuning})


def earlier_trials(folder: Path) -> dict[str, Any]:
    """The trials that earlier calls have recorded.

    Raises:
        MCSSError: The file is damaged.
    """
    path = folder / TUNING
    with damage_as(MCSSError, lambda why: f"{path}: cannot be read ({why}). Delete it: trials are kept in the cells."):
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
