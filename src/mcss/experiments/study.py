"""A study: the capture, the cells trained on it, and how all of them are trained and measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from glob import escape
from pathlib import Path

from mcss.data.capture import Capture
from mcss.data.labels import Labels, labelled_images
from mcss.evaluation.predictions import EvaluationSettings, SplitPrediction
from mcss.evaluation.results import SystemResult
from mcss.experiments.rows import NOT_AVAILABLE, PoseRow, cell_row, missing_row
from mcss.experiments.runs import (
    Cell,
    Enough,
    Reading,
    any_evaluation,
    cell_predictions,
    cell_result,
    evaluation_file,
    finished,
    mean_pose_result,
    train_cells,
    try_cells,
    weights_needed,
)
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.methods.recipe import RecipeName
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.parallel import Share
from mcss.training.settings import TrainSettings, recipe

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Trial:
    """A choice of the two settings that tuning varies."""

    rate: float
    """Learning rate."""
    balance: float
    """Value of the method's `sweep`."""

    def applied(self, settings: TrainSettings) -> TrainSettings:
        """The settings with this choice."""
        method, optimiser = settings.method, replace(settings.optimiser, lr=self.rate)
        optimiser = method.swept_optimiser(self.balance, optimiser)
        return replace(settings, method=method.swept(self.balance), optimiser=optimiser)


def steps_of_an_epoch(settings: TrainSettings, capture: Capture) -> int:
    """Return the steps in which a run sees as many images as there are to learn from.

    They are all images of the split for a method that compares views, in either of its stages, and the labelled ones
    for a method that sees these alone. The paper gives epochs and does not say of what (Sec. 4).
    """
    instants, method = capture.instants(settings.split), settings.method
    compared = method.multi_view or (method.first_stage.multi_view if method.first_stage is not None else None)
    if compared is not None:
        images, in_a_step = int((instants.rows >= 0).sum()), compared.instants * compared.views
    else:
        labelled = labelled_images(instants, Labels.parse(settings.labels), settings.label_views or None)
        images, in_a_step = int(labelled.sum()), method.pose_images
    return max(1, round(images / in_a_step))


def with_as_many_images(settings: TrainSettings, name: RecipeName) -> TrainSettings:
    """Let a run see as many images as MCSS does in the same steps, where it sees the labels of several people alone.

    With its own small steps it would not reach the end of an epoch, and be no ceiling for what labels can do. With the
    labels of one person it is past its best long before.
    """
    method, few = settings.method, "," not in settings.labels and settings.labels != "all"
    if few or method.multi_view is not None or method.first_stage is not None or not method.pose_images:
        return settings
    ours = MCSS.in_recipe(name)
    times = (ours.instants * ours.views + ours.pose_images) / method.pose_images
    optimiser = replace(settings.optimiser, steps=round(times * settings.optimiser.steps))
    return replace(settings, optimiser=optimiser, validate_every=round(times * settings.validate_every))


@dataclass(frozen=True)
class Budget:
    """What every cell of a study gets."""

    steps: int
    """Optimiser steps of a run, over all stages that see labels; not used with `epochs`. Runs on the labels of several
    people alone take more, see `with_as_many_images`."""
    recipe: RecipeName = "fast"
    """Network, images and augmentation."""
    processes: int = 1
    """Runs trained in parallel."""
    evaluation: EvaluationSettings = field(default_factory=lambda: EvaluationSettings(max_instants=500))
    """How much of a split is evaluated."""
    chosen: Mapping[str, Trial] = field(default_factory=dict)
    """The trial chosen for each method, by name; other methods keep the recipe's settings."""
    epochs: int | None = None
    """Train each run for as many rounds through its images instead, see `steps_of_an_epoch`."""
    weights: str | None = None
    """Start of every backbone; None for the recipe's."""

    def settings(self, method: type[Method], capture: Capture, labels: str, seed: int = 0) -> TrainSettings:
        """The settings of a run; a method that sees no labels ignores `labels`."""
        settings = recipe(self.recipe, method, capture.uri)
        if method.predicts_poses:
            settings = replace(settings, labels=labels)
        if self.weights is not None:
            settings = replace(settings, weights=self.weights)
        steps = self.steps if self.epochs is None else self.epochs * steps_of_an_epoch(settings, capture)
        settings = replace(settings, optimiser=replace(settings.optimiser, steps=steps), seed=seed)
        if self.epochs is None:
            settings = with_as_many_images(settings, self.recipe)
        return self.chosen[method.name].applied(settings) if method.name in self.chosen else settings

    def cell(self, method: type[Method], capture: Capture, labels: str, seed: int = 0, variant: str = "") -> Cell:
        """A cell of a method."""
        return Cell(self.settings(method, capture, labels, seed), capture.fingerprint, variant)


@dataclass(frozen=True)
class Study:
    """What the cells of an experiment are trained and measured on, and with how much effort."""

    capture: Capture
    folder: Path
    """Folder of the results."""
    cells: Path
    """Folder of the trained cells."""
    budget: Budget
    labels: str = "S1"
    """The one labelled subject."""
    seeds: tuple[int, ...] = SEEDS
    """Seeds of the rows that average several runs."""
    other: Capture | None = None
    """Another capture, to measure generalisation on."""
    weights34: str = "imagenet"
    """ImageNet weights of ResNet-34: a file, or imagenet to download them."""
    weights50: str | None = None
    """The same of ResNet-50; None to leave its row out."""
    landmarks: Path | None = None
    """A file of another program's 3D landmarks in the test images, for its row in Table 1."""
    program: str | None = None
    """The name of that program; by default the one stated in the file."""
    train: bool = True
    """Whether missing cells are trained; otherwise their rows say that they are missing."""
    share: Share | None = None
    """The share of the cells that this machine trains; None to train all of them and write the results."""
    unavailable: Mapping[str, str] = field(default_factory=dict)
    """Why some cells cannot be trained or measured, by name."""
    progress: Progress = NO_PROGRESS

    def cell(self, method: type[Method], labels: str | None = None, seed: int | None = None, variant: str = "") -> Cell:
        """A cell of a method, by default with the labels of the one labelled subject and the first seed."""
        seed = self.seeds[0] if seed is None else seed
        return self.budget.cell(method, self.capture, self.labels if labels is None else labels, seed, variant)

    def train_cells(self, cells: Sequence[Cell], enough: Enough = any_evaluation) -> None:
        """Train the cells that are missing, see `mcss.experiments.runs.train_cells`."""
        train_cells(cells, self.cells, self.budget.processes, self.progress, enough)

    def try_cells(self, cells: Sequence[Cell]) -> "Study":
        """Train the cells whose weights are missing; those that fail are `unavailable` in the study returned."""
        failures = try_cells(cells, self.cells, self.budget.processes, self.progress, weights_needed)
        failed = {name: f"failed: {_in_a_line(error)}" for name, error in failures.items()}
        return replace(self, unavailable={**self.unavailable, **failed})

    def result(
        self,
        cell: Cell,
        split: str = "test",
        capture: Capture | None = None,
        settings: EvaluationSettings | None = None,
        reads: Reading = "head",
    ) -> SystemResult:
        """The evaluation of a trained cell, by default on the test split of the capture; see `cell_result`."""
        settings = settings or self.budget.evaluation
        return cell_result(cell, self.cells, capture or self.capture, split, settings, self.progress, reads)

    def mean_pose(self, split: str = "test", in_cameras: bool = False) -> SystemResult:
        """The evaluation of the mean pose of the labelled subject."""
        return mean_pose_result(self.capture, self.labels, split, self.budget.evaluation, in_cameras=in_cameras)

    def predictions(self, cell: Cell, settings: EvaluationSettings | None = None) -> SplitPrediction:
        """What a trained cell predicts for the test split."""
        settings = settings or self.budget.evaluation
        return cell_predictions(cell, self.cells, self.capture, "test", settings, self.progress)

    def enough(
        self,
        capture: Capture | None = None,
        settings: EvaluationSettings | None = None,
        reads: Reading = "head",
        split: str = "test",
    ) -> Enough:
        """The evaluation with which `result` needs no weights, see `mcss.experiments.runs.Enough`."""
        settings = settings or self.budget.evaluation
        return lambda cell: escape(evaluation_file(cell, capture or self.capture, split, settings, reads))

    def row(self, cell: Cell, settings: EvaluationSettings | None = None, reads: Reading = "head") -> PoseRow:
        """The row of a cell in a table of pose errors."""
        if not finished(cell, self.cells, self.enough(settings=settings, reads=reads)):
            if (why := self.unavailable.get(cell.name)) is not None:
                return missing_row(cell, NOT_AVAILABLE + why)
            if not self.train:
                return missing_row(cell, "not trained yet")
        try:
            result = self.result(cell, settings=settings, reads=reads)
        except (ValueError, OSError) as error:  # one run that cannot be evaluated does not stop the table
            return missing_row(cell, NOT_AVAILABLE + _in_a_line(error))
        return cell_row(cell, result, self.cells)


def _in_a_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
