"""Cells of a comparison: one system, one choice of labels, one seed; trained once, whoever asks for it.

A cell is a run folder (see `mcss.training.checkpoints`) named after its system, labels, seed and a *digest* of the
settings and the capture, with ``evaluation_….json`` beside the weights. Two tables that need the same run share it, and
one with other settings lies beside it. What was finished is kept, so that work may be stopped at any time.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from mcss.data.capture import Capture
from mcss.data.labels import LabelSpec, select_labels
from mcss.evaluation.evaluate import Evaluation, evaluate
from mcss.evaluation.predictions import (
    EvaluationSettings,
    MeanPose,
    SplitPrediction,
    evaluated_instants,
    predict_split,
    read_predictions,
    write_predictions,
)
from mcss.evaluation.report import SystemResult, history_of
from mcss.files import write_json
from mcss.methods.method import load_estimator, method_name
from mcss.models.model_file import MODEL
from mcss.models.prediction import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import CONFIG, METRICS
from mcss.training.metrics_log import read_metrics
from mcss.training.parallel import Job, train_all
from mcss.training.recipes import MethodName
from mcss.training.runs import FIRST_STAGE, adopt_first_stage, begin_run
from mcss.training.settings import IDLE, TrainSettings, stages


@dataclass(frozen=True)
class Cell:
    """A run, and what must be trained before it."""

    settings: TrainSettings
    fingerprint: str
    """Of the capture that it is trained on."""
    variant: str = ""
    """What is particular about it, in words, for tables; does not make it another cell."""
    after: "Cell | None" = None
    """Whose network it starts from."""

    @property
    def system(self) -> MethodName:
        """As `mcss train` calls it."""
        return method_name(self.settings.method)  # type: ignore[return-value]

    @property
    def name(self) -> str:
        """Of its folder."""
        labels = self.settings.labels.replace(":", "@").replace(",", "+").replace("/", "_")
        return f"{self.system}-{labels}-seed{self.settings.seed}-{self.digest[:8]}"

    @property
    def digest(self) -> str:
        """Of all that decides what the run computes.

        A setting at its default counts for nothing, so that cells outlive the coming of new settings.
        """
        plain = _departures(self.settings, TrainSettings(capture=""))
        decisive = {key: value for key, value in plain.items() if key not in IDLE}
        for start in ("init", "weights"):
            if start in decisive:  # a run's name tells what it is, wherever the cells lie
                decisive[start] = Path(decisive[start]).name
        text = json.dumps([self.fingerprint, method_name(self.settings.method), decisive], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def started_from(cell: Cell, first: Cell, folder: Path, whole: bool) -> Cell:
    """A cell whose start is the network (`whole`) or the backbone of another one in the same folder."""
    start = str(folder / first.name)
    settings = replace(cell.settings, init=start) if whole else replace(cell.settings, weights=start)
    return replace(cell, settings=settings, after=first)


def _departures(settings: Any, usual: Any) -> dict[str, Any]:
    """Those settings that are not at their default, nested as they are."""
    found: dict[str, Any] = {}
    for field in fields(settings):
        own, default = getattr(settings, field.name), getattr(usual, field.name)
        if own == default:
            continue
        if is_dataclass(own) and not isinstance(own, type):
            found[field.name] = _departures(own, default if type(default) is type(own) else type(own)())
        else:
            found[field.name] = own
    return found


Enough = Callable[[Cell], str | None]
"""Which of a cell's files (a pattern) serves as well as its weights, where these were cleared away; None if none."""


def any_evaluation(cell: Cell) -> str:
    """That a cell was evaluated, on whatever."""
    return "evaluation_*.json"


def finished(cell: Cell, folder: Path, enough: Enough = any_evaluation) -> bool:
    """Whether the cell has been trained; one of which only evaluations are left, as in a clone, has been.

    Args:
        cell: Of which this is asked.
        folder: Of all cells.
        enough: Which evaluation is needed of it.
    """
    run, kept = folder / cell.name, enough(cell)
    return (run / MODEL).exists() or (kept is not None and any(run.glob(kept)))


def unfinished(cells: Sequence[Cell], folder: Path, enough: Enough = any_evaluation) -> list[Cell]:
    """Those that have to be trained, each once, those that others start from first; see `finished`."""
    found: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        # A start has to be there itself: its evaluations alone are none.
        if cell.after is not None and not (folder / cell.after.name / MODEL).exists():
            add(cell.after)
        found.setdefault(cell.name, cell)

    for cell in cells:
        if not finished(cell, folder, enough):
            add(cell)
    return list(found.values())


def train_cells(
    cells: Sequence[Cell],
    folder: Path,
    processes: int,
    progress: Progress = NO_PROGRESS,
    enough: Enough = any_evaluation,
) -> None:
    """Train those cells that are not finished (see `finished`), `processes` at a time; what was begun goes on.

    Raises:
        ValueError: Of the first run that failed; the others are trained to their end.
    """
    waiting = unfinished(cells, folder, enough)
    while waiting:
        names = {cell.name for cell in waiting}
        ready = [cell for cell in waiting if cell.after is None or cell.after.name not in names]
        ready = _each_first_stage_once(ready)
        jobs = []
        for cell in ready:
            run, capture = folder / cell.name, Capture.open(cell.settings.capture)
            if (run / CONFIG).exists():
                begin_run(run, cell.settings, capture, resume=True)
            if (first := stages(cell.settings)[0]) is not None:
                adopt_first_stage(run, first, capture, sorted(folder.iterdir()) if folder.exists() else ())
            jobs.append(Job(cell.settings, run))
        train_all(jobs, processes, progress)
        waiting = [cell for cell in waiting if cell not in ready]


def _each_first_stage_once(cells: Sequence[Cell]) -> list[Cell]:
    """Those that need not wait for a first stage that another of them is about to learn, see `adopt_first_stage`."""
    found, firsts = [], []
    for cell in cells:
        first = stages(cell.settings)[0]
        if first is None or first not in firsts:
            found.append(cell)
            firsts.append(first)
    return found


def cell_result(
    cell: Cell,
    folder: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    progress: Progress = NO_PROGRESS,
) -> SystemResult:
    """The evaluation of a trained cell on a split, of its own or of another capture; or what an earlier call found."""
    run = folder / cell.name
    path = run / evaluation_file(cell, capture, split, settings)
    evaluation = None
    if path.exists():
        known = Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
        if known.capture == capture.fingerprint and known.settings == settings:
            evaluation = known
    if evaluation is None:
        predictor = NetworkPredictor(load_estimator(run), capture)
        evaluation = evaluate(predictor, capture, split, settings, progress)
        write_json(path, evaluation.to_json())
    history = history_of(read_metrics(run / METRICS))
    return SystemResult(cell.system, cell.settings.labels, cell.settings.seed, evaluation, history)


def cell_predictions(
    cell: Cell,
    folder: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    progress: Progress = NO_PROGRESS,
) -> SplitPrediction:
    """What a trained cell says of a split; kept in its folder, for images and figures that ask again.

    Raises:
        CheckpointError: The cell has no weights any more.
    """
    run = folder / cell.name
    path = run / f"predictions_{_where(cell, capture, split, settings)}.safetensors"
    key = {"capture": capture.fingerprint, "settings": repr(settings)}
    known = read_predictions(path, evaluated_instants(capture, split, settings), key)
    if known is not None:
        return known
    predictions = predict_split(NetworkPredictor(load_estimator(run), capture), capture, split, settings, progress)
    write_predictions(path, predictions, key)
    return predictions


def evaluation_file(cell: Cell, capture: Capture, split: str, settings: EvaluationSettings) -> str:
    """The name of the file, beside a cell's weights, of what it was measured to do."""
    return f"evaluation_{_where(cell, capture, split, settings)}.json"


def _where(cell: Cell, capture: Capture, split: str, settings: EvaluationSettings) -> str:
    """What of what was looked at, for names of files."""
    views = "-views-" + "+".join(settings.views) if settings.views else ""
    other = "" if capture.fingerprint == cell.fingerprint else f"-{capture.fingerprint[:8]}"
    return f"{split}{views}{other}".replace("/", "_")


def mean_pose_result(
    capture: Capture,
    labels: str,
    split: str,
    settings: EvaluationSettings,
    train_split: str = "train",
    in_cameras: bool = False,
) -> SystemResult:
    """The system that has not looked: the mean of the labelled poses, canonical ones or along the camera's axes."""
    instants = capture.instants(train_split)
    labelled = instants.take(select_labels(instants, LabelSpec.parse(labels)))
    unseeing = MeanPose.in_cameras(capture, labelled) if in_cameras else MeanPose.of(labelled)
    evaluation = evaluate(unseeing, capture, split, settings)
    return SystemResult("mean_pose", labels, None, evaluation)


def seconds_of(cell: Cell, folder: Path) -> float | None:
    """What its training took, both stages together, in seconds on one process; None where it is not known."""
    found = [read_metrics(run / METRICS) for run in (folder / cell.name / FIRST_STAGE, folder / cell.name)]
    lines = [run[-1] for run in found if run]
    return sum(float(line["seconds"]) for line in lines) if lines else None
