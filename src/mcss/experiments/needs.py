"""What the cells of an experiment need of their capture and of this machine, checked before the first of them runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mcss.data.capture import Capture
from mcss.evaluation.predictions import EvaluationSettings, evaluated_instants
from mcss.experiments.runs import Cell
from mcss.methods.recipe import OptimiserSettings
from mcss.models.backbones import CONNECT, build_backbone
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.data import TrainingData
from mcss.training.settings import TrainSettings, stages

_OPTIONS = {"resnet34": "--weights34", "resnet50": "--weights50"}
"""The option that names the weights of a backbone which some rows alone have."""


@dataclass(frozen=True)
class Needs:
    """Finds out whether cells can be trained and evaluated; what several of them need is looked at once."""

    evaluation: EvaluationSettings
    known: dict[object, str | None] = field(default_factory=dict)
    """What was looked at, and what is wrong with it."""

    def problems(self, cells: Sequence[Cell], progress: Progress = NO_PROGRESS) -> dict[str, str]:
        """Return why cells cannot be trained or evaluated, by name; cells without a problem are left out."""
        found = {}
        with progress.task("Looking at what runs need", len(cells)) as task:
            for cell in cells:
                found[cell.name] = self._problem(cell)
                task.advance()
        return {name: problem for name, problem in found.items() if problem is not None}

    def _problem(self, cell: Cell) -> str | None:
        if cell.start is not None and (problem := self._problem(cell.start)) is not None:
            return problem
        settings = replace(cell.settings, seed=0, optimiser=OptimiserSettings())  # they decide nothing here
        network = settings.network
        if cell.start is None:
            weights = network.backbone, settings.weights, network.batchnorm_affine
            problem = self._looked_at(weights, lambda: build_backbone(*weights))
            if problem is not None and CONNECT in problem:
                option = _OPTIONS.get(network.backbone, "--weights")
                reason, connect = problem.partition(CONNECT)[:2]
                problem = f"{reason}{connect}, or give {option} FILE."
        else:  # the weights come with the other cell, which need not be there yet
            settings, problem = replace(settings, init=None, weights="random"), None
        return problem or self._looked_at(settings, lambda: self._check_capture(settings))

    def _looked_at(self, what: object, check: Callable[[], object]) -> str | None:
        if what not in self.known:
            try:
                check()
            except (ValueError, OSError, ImportError) as error:
                self.known[what] = str(error)
            else:
                self.known[what] = None
        return self.known[what]

    def _check_capture(self, settings: TrainSettings) -> None:
        """Read what a run needs besides its images.

        Raises:
            ValueError: The capture lacks a split, labels, cameras, backgrounds or 2D joints that the run needs.
        """
        capture = Capture.open(settings.capture)
        for stage in stages(settings):
            if stage is not None:
                TrainingData.read(stage, capture, NO_PROGRESS, few=True)
        rows = evaluated_instants(capture, "test", self.evaluation).rows
        if settings.method.frame == "camera":
            capture.crop_rotations(rows[rows >= 0], f"scoring {settings.method.name} in camera space")
