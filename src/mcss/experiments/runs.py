"""Cells: the runs of all experiments, each trained once, whichever table asks for it first.

A cell is one method with one choice of labels and one seed. It lies in a run folder (see `mcss.training.checkpoints`)
named after its method, labels, seed and a *digest* of its settings and capture, with ``evaluation_….json`` beside the
weights. Tables that need the same run share it; a run with other settings lies beside it. Finished work is kept, so
training can be stopped at any time.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mcss.data.capture import Capture
from mcss.data.labels import Labels, select_labels
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
from mcss.evaluation.report import history_of
from mcss.evaluation.results import MEAN_POSE, SystemResult
from mcss.files import write_json
from mcss.methods.method import Information
from mcss.methods.registry import load_estimator
from mcss.models.model_file import MODEL, load_model, read_model, save_model
from mcss.models.pose_network import NEIGHBOURS, PoseNetwork
from mcss.models.prediction import NetworkPredictor, fastest_device
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import METRICS
from mcss.training.discriminant import with_fitted_embedding
from mcss.training.heads import remember_labels
from mcss.training.metrics_log import learning_curve_of, read_metrics
from mcss.training.parallel import Job, train_all
from mcss.training.parallel import unfinished as without_learning_curve
from mcss.training.runs import FIRST_STAGE, adopt_first_stage, check_run
from mcss.training.settings import IDLE, TrainSettings, stages

Reading = Literal["head", "fitted", "neighbours", "unmirrored", "nearest"]
"""How poses are read off: by the pose head; as `mcss remember` does, off labels and their mirror images in a fitted
embedding; without fitting it; without the mirror images; and off the nearest alone instead of many."""

READINGS: Mapping[Reading, str] = {
    "head": "",
    "fitted": "poses of neighbours, fitted embedding",
    "neighbours": "poses of neighbours",
    "unmirrored": "poses of neighbours, fitted embedding, no mirrored labels",
    "nearest": "pose of the nearest, fitted embedding",
}
"""How tables call them."""

FAILED = "failed.json"
"""Says why a cell could not be trained, to the other machines that share the folder of cells."""

FITTED = "fitted.safetensors"
"""A cell's network whose embedding has been fitted, which several readings share."""


@dataclass(frozen=True)
class Cell:
    """One run of an experiment."""

    settings: TrainSettings
    fingerprint: str
    """Fingerprint of the capture that it is trained on."""
    variant: str = ""
    """How it differs from the method's usual run, in words for tables; not part of its identity."""
    start: "Cell | None" = None
    """The cell that is trained first, because this one starts from its network or backbone."""

    @property
    def system(self) -> str:
        """The method's name, as `mcss train` takes it."""
        return self.settings.method.name

    @property
    def title(self) -> str:
        """The method's name in tables."""
        return self.settings.method.title

    @property
    def information(self) -> Information:
        """What the run learns from, including what the cell it starts from has learned."""
        own = self.settings.method.information
        own = replace(own, labels=own.labels and self.settings.labels != "none")
        return own if self.start is None else own | self.start.information

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        labels = self.settings.labels.replace(":", "@").replace(",", "+").replace("/", "_")
        return f"{self.system}-{labels}-seed{self.settings.seed}-{self.digest[:8]}"

    @property
    def digest(self) -> str:
        """SHA-256 of everything that decides what the run computes.

        Settings at their defaults are left out, so that a new setting does not rename the cells made before it.
        """
        changed = _changed_settings(self.settings)
        decisive = {key: value for key, value in changed.items() if key not in IDLE}
        for start in ("init", "weights"):
            if start in decisive:  # the name of a run identifies it, wherever the folder of cells lies
                decisive[start] = Path(decisive[start]).name
        about = [self.fingerprint, self.system, decisive]
        if self.settings.method.frame == "camera":
            about.append("viewing rays")  # cells of poses along the plain axes of the cameras do not count any more
        text = json.dumps(about, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def started_from(cell: Cell, start: Cell, folder: Path, whole: bool) -> Cell:
    """Let a cell start from the whole network (`whole`) or the backbone of another cell in the same folder."""
    run = str(folder / start.name)
    settings = replace(cell.settings, init=run) if whole else replace(cell.settings, weights=run)
    return replace(cell, settings=settings, start=start)


def _changed_settings(settings: Any) -> dict[str, Any]:
    """The settings that are not at their defaults, nested like the settings themselves."""
    changed: dict[str, Any] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if is_dataclass(value):
            if group := _changed_settings(value):
                changed[field.name] = group
        elif value != field.default:
            changed[field.name] = value
    return changed


Enough = Callable[[Cell], str | None]
"""The file name pattern of the evaluation that makes a cell's deleted weights unnecessary; None if nothing does."""


def any_evaluation(cell: Cell) -> str:
    """Accept any evaluation in place of the weights."""
    return "evaluation_*.json"


def weights_needed(cell: Cell) -> None:
    """Accept nothing in place of the weights."""


def finished(cell: Cell, folder: Path, enough: Enough = any_evaluation) -> bool:
    """Whether a cell has been trained; one whose evaluations alone are left, as in a clone, has been.

    Args:
        cell: The cell.
        folder: Folder of all cells.
        enough: Which evaluation makes up for missing weights.
    """
    run, pattern = folder / cell.name, enough(cell)
    return (run / MODEL).exists() or (pattern is not None and any(run.glob(pattern)))


def unfinished(cells: Sequence[Cell], folder: Path, enough: Enough = any_evaluation) -> list[Cell]:
    """The cells that are still to be trained (see `finished`), each once, after those that they start from."""
    left: dict[str, Cell] = {}

    def add(cell: Cell) -> None:
        # A cell to start from needs its weights; an evaluation cannot make up for them.
        if cell.start is not None and not (folder / cell.start.name / MODEL).exists():
            add(cell.start)
        left.setdefault(cell.name, cell)

    for cell in cells:
        if not finished(cell, folder, enough):
            add(cell)
    return list(left.values())


def without_validation(cells: Sequence[Cell], folder: Path, capture: Capture) -> list[Cell]:
    """The cells whose learning curve has not reached its end; the weights are not needed, they may have been deleted.

    Raises:
        CheckpointError: A cell's folder holds a run with other settings or of another capture.
    """
    jobs = [Job(cell.settings, folder / cell.name) for cell in cells]
    left = {job.out.name for job in without_learning_curve(jobs, capture)}
    return [cell for cell in cells if cell.name in left]


def train_cells(
    cells: Sequence[Cell],
    folder: Path,
    processes: int,
    progress: Progress = NO_PROGRESS,
    enough: Enough = any_evaluation,
) -> None:
    """Train the cells that are not `finished`, `processes` at a time; interrupted runs are resumed.

    Raises:
        ValueError: A run failed. The others are trained to their end, then the first failure is raised.
    """
    for error in try_cells(cells, folder, processes, progress, enough).values():
        raise error


def try_cells(
    cells: Sequence[Cell],
    folder: Path,
    processes: int,
    progress: Progress = NO_PROGRESS,
    enough: Enough = any_evaluation,
) -> dict[str, Exception]:
    """Train cells like `train_cells`, and return the errors of those that failed, by name, instead of raising one."""
    failures: dict[str, Exception] = {}
    waiting = unfinished(cells, folder, enough)
    while waiting:
        for cell in waiting:
            if cell.start is not None and (error := failures.get(cell.start.name)) is not None:
                failures[cell.name] = ValueError(f"{cell.start.name}, from which it starts, failed: {error}")
        waiting = [cell for cell in waiting if cell.name not in failures]
        names = {cell.name for cell in waiting}
        ready = [cell for cell in waiting if cell.start is None or cell.start.name not in names]
        ready = _each_first_stage_once(ready)
        jobs = []
        for cell in ready:
            (folder / cell.name / FAILED).unlink(missing_ok=True)
            try:
                jobs.append(_job_of(cell, folder))
            except (ValueError, OSError) as error:
                failures[cell.name] = error
        failures |= train_all(jobs, processes, progress)
        waiting = [cell for cell in waiting if cell not in ready]
    for name, why in failures.items():
        if (folder / name).is_dir():
            write_json(folder / name / FAILED, {"error": str(why)})
    return failures


def has_failed(cell: Cell, folder: Path) -> bool:
    """Whether the last attempt to train a cell failed, on whichever machine."""
    return (folder / cell.name / FAILED).exists()


def _job_of(cell: Cell, folder: Path) -> Job:
    """Return the run of a cell, which takes its first stage from another cell's folder if that has the same one."""
    run, capture = folder / cell.name, Capture.open(cell.settings.capture)
    check_run(run, cell.settings, capture, resume=True)
    if (first := stages(cell.settings)[0]) is not None:
        adopt_first_stage(run, first, capture, sorted(folder.iterdir()) if folder.exists() else ())
    return Job(cell.settings, run)


def _each_first_stage_once(cells: Sequence[Cell]) -> list[Cell]:
    """Leave out cells that can adopt a first stage which another of them is about to train (`adopt_first_stage`)."""
    ready: list[Cell] = []
    first_stages: list[TrainSettings] = []
    for cell in cells:
        first = stages(cell.settings)[0]
        if first is not None:
            if first in first_stages:
                continue
            first_stages.append(first)
        ready.append(cell)
    return ready


def cell_result(
    cell: Cell,
    folder: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    progress: Progress = NO_PROGRESS,
    reads: Reading = "head",
) -> SystemResult:
    """Evaluate a trained cell on a split of its own or another capture, unless the evaluation is there already."""
    run = folder / cell.name
    path = run / evaluation_file(cell, capture, split, settings, reads)
    weights, evaluation = weights_digest(run), None
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        known = Evaluation.from_json(kept)
        same_weights = weights is None or kept.get("weights") == weights
        if known.capture == capture.fingerprint and known.settings == settings and same_weights:
            evaluation = known
    if evaluation is None:
        network, own = load_estimator(run), cell.settings
        if reads != "head":
            assert isinstance(network, PoseNetwork)
            trained_on = Capture.open(own.capture)
            if reads != "neighbours":
                network = _fitted(run, str(weights), network, trained_on, own.split, progress)
            labels, mirrored = Labels.parse(own.labels), reads != "unmirrored"
            nearest = 1 if reads == "nearest" else NEIGHBOURS
            remember_labels(network, trained_on, labels, own.split, progress, mirrored, nearest)
        predictor = NetworkPredictor(network.to(fastest_device()), capture)
        evaluation = evaluate(predictor, capture, split, settings, progress)
        write_json(path, {**evaluation.to_json(), "weights": weights})
    about = cell.settings.labels, cell.settings.seed, evaluation
    if reads != "head":
        return SystemResult(f"{cell.system}+{reads}", *about, title=f"{cell.title}, {READINGS[reads]}")
    return SystemResult(cell.system, *about, history_of(read_metrics(run / METRICS)), cell.title)


def weights_digest(run: Path) -> str | None:
    """Return a digest of a cell's weights, None if they have been deleted.

    What was measured with weights names them: a cell that is trained again gets others, even if only in their last
    digits, and is then measured again.
    """
    path = run / MODEL
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _fitted(
    run: Path, weights: str, network: PoseNetwork, capture: Capture, split: str, progress: Progress
) -> PoseNetwork:
    """Return the network of a cell with a fitted embedding, which is kept beside its weights."""
    path = run / FITTED
    if path.exists() and (kept := read_model(path)).about.get("fitted_from") == weights:
        assert isinstance(kept.network, PoseNetwork)
        return kept.network
    save_model(path, with_fitted_embedding(network, capture, split, progress), {"fitted_from": weights})
    return load_model(path)


def cell_predictions(
    cell: Cell,
    folder: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    progress: Progress = NO_PROGRESS,
) -> SplitPrediction:
    """Predict a split with a trained cell; the predictions are kept in its folder for the next figure.

    Raises:
        CheckpointError: The cell's weights have been deleted.
    """
    run = folder / cell.name
    path = run / f"predictions_{_measured_on(cell, capture, split, settings)}.safetensors"
    key = {"capture": capture.fingerprint, "settings": repr(settings), "weights": str(weights_digest(run))}
    known = read_predictions(path, evaluated_instants(capture, split, settings), key)
    if known is not None:
        return known
    network = load_estimator(run).to(fastest_device())
    predictions = predict_split(NetworkPredictor(network, capture), capture, split, settings, progress)
    write_predictions(path, predictions, key)
    return predictions


def evaluation_file(
    cell: Cell, capture: Capture, split: str, settings: EvaluationSettings, reads: Reading = "head"
) -> str:
    """Name of the file beside a cell's weights that holds an evaluation of it."""
    how = "" if reads == "head" else f"-{reads}"
    return f"evaluation_{_measured_on(cell, capture, split, settings)}{how}.json"


def _measured_on(cell: Cell, capture: Capture, split: str, settings: EvaluationSettings) -> str:
    """The split, views and capture of an evaluation, for file names."""
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
    """Evaluate the mean of the labelled poses, canonical or in camera space, as a system that sees no image."""
    instants = capture.instants(train_split)
    labelled = instants.take(select_labels(instants, Labels.parse(labels)))
    mean_pose = MeanPose.in_cameras(capture, labelled) if in_cameras else MeanPose.of(labelled)
    evaluation = evaluate(mean_pose, capture, split, settings)
    return SystemResult(MEAN_POSE, labels, None, evaluation, title="Mean pose")


def validation_of(cell: Cell, folder: Path) -> dict[str, Any]:
    """The point of a cell's learning curve whose weights it kept, by measure."""
    curve = learning_curve_of(folder / cell.name / METRICS)
    return min(curve, key=lambda point: point["n_mpjpe"]) if cell.settings.keep == "best" else curve[-1]


def seconds_of(cell: Cell, folder: Path) -> float | None:
    """Training time in seconds of both stages together, on one process; None if it was not logged."""
    logs = [read_metrics(run / METRICS) for run in (folder / cell.name / FIRST_STAGE, folder / cell.name)]
    last_lines = [log[-1] for log in logs if log]
    return sum(float(line["seconds"]) for line in last_lines) if last_lines else None
