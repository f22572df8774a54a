"""Adapting a trained model to one's own footage: L_cnstr, and labels that the views give each other."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mcss.adaptation.agreement import NEAR_SECONDS, Agreement, HeldOut
from mcss.adaptation.heads import Heads
from mcss.adaptation.settings import MADE, AdaptSettings, batch_of
from mcss.data.capture import Capture
from mcss.data.instants import Instants, ends_of_sequences, evenly_spread
from mcss.data.labels import Labels, select_labels, with_label_poses
from mcss.errors import CheckpointError
from mcss.evaluation.predictions import target_poses
from mcss.files import write_json
from mcss.labelling.make import LabelSettings, make_labels, write_labels
from mcss.models.model import Model, load
from mcss.models.model_file import MODEL, NO_PARTS, read_model, save_model
from mcss.models.pose_network import PoseEstimator, PoseNetwork
from mcss.models.prediction import NetworkPredictor, Prediction
from mcss.progress import NO_PROGRESS, Progress, say
from mcss.training.checkpoints import CONFIG
from mcss.training.feature_cache import FrozenStages, cache_stages
from mcss.training.loop import train
from mcss.training.machine import Machine
from mcss.training.runs import check_run
from mcss.training.settings import TrainSettings
from mcss.training.validation import CachedPredictor

LABELS = "labels.csv"
"""The labels that were made of the footage, in the run folder."""

REPORT = "adaptation.json"
"""What was measured while a model was adapted, in the run folder."""

_BEST = "best.safetensors"

_MOST_HELD_OUT = 200
"""Held-out instants that are measured, evenly spread."""

_FEWEST_HELD_OUT = 5

_PATIENCE = 3
"""Points of the learning curve without a gain after which training ends."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """The result of adapting a model."""

    run: Path
    """The run folder, whose model is the best one that was seen, or the one that it started from."""
    before: Agreement
    after: Agreement
    step: int
    """Steps after which the model was taken; 0 if nothing was better than the start."""
    labelled: int
    """Labelled instants that were trained on."""

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "run": str(self.run),
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "step": self.step,
            "labelled_instants": self.labelled,
        }

    @classmethod
    def of_finished(cls, run: Path) -> "Adapted | None":
        """Return the result of a run that was finished before; None if there is none."""
        if not ((run / REPORT).exists() and (run / MODEL).exists()):
            return None
        known = json.loads((run / REPORT).read_text(encoding="utf-8"))
        if "after" not in known:
            return None
        before, after = Agreement(**known["before"]), Agreement(**known["after"])
        return cls(run, before, after, known["step"], known["labelled_instants"])

    def in_words(self) -> str:
        """Say what was gained, on the held-out instants."""
        before, after = self.before, self.after
        if not self.step:
            return (
                "Nothing was gained on the held-out instants, so the model stays as it was: try --labels made, more "
                "footage, or a smaller --consistency."
            )
        reference = "the labels" if self.labelled else "what the views said together at the start"
        return (
            f"On held-out instants, one view is {after.off:.0f} mm from {reference} ({before.off:.0f} before), two "
            f"views of an instant are {after.apart:.0f} mm from their mean ({before.apart:.0f} before), and the same "
            f"moment (within {NEAR_SECONDS:g} s) is found first in another view {after.hit_at_1:.0%} of the time "
            f"({before.hit_at_1:.0%} before, {after.chance:.0%} by chance)."
        )


def adapt(
    capture: str,
    start: Path,
    out: Path,
    settings: AdaptSettings | None = None,
    resume: bool = False,
    machine: Machine | None = None,
    progress: Progress = NO_PROGRESS,
) -> Adapted:
    """Adapt a trained model to the footage of a capture; leave a run folder like that of any training.

    Args:
        capture: The footage, as an address.
        start: The run folder or model file to start from.
        out: The run folder to write.
        settings: What to compute.
        resume: Go on with the stopped run in `out`.
        machine: Where to compute.
        progress: Notified of every image and step.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or a run with other settings, or `start` is no model of
            the kind.
        CaptureError: The capture lacks the split.
        ValueError: The footage has one view or too few instants, or the labels do not belong to it.
    """
    settings = settings or AdaptSettings()
    if (out / CONFIG).exists() and not resume:
        raise CheckpointError(f"{out}: holds a run already. Add --resume to go on with it, or give another --out.")
    opened, model = Capture.open(capture), load(start)
    instants = opened.instants(settings.split)
    ends = ends_of_sequences(instants, settings.hold_out)
    _held_out(instants.take(ends))  # refuses footage that is too short, before labels are made of it
    batch = batch_of(instants.take(~ends), settings.views)
    labels = _labels(settings, opened, out, progress)
    instants = _with_labels_alone(instants, labels)
    kept, held = instants.take(~ends), _held_out(instants.take(ends))
    labelled = int(kept.heading_valid.sum())

    stages = len(model.network.backbone.stages)
    training = settings.training(model.network.config, str(start), capture, labels, batch, stages, labelled)
    if (finished := Adapted.of_finished(out)) is not None:
        check_run(out, training, opened, resume)
        return finished
    watch = _Watch.prepared(opened, held, model.network, training, out, progress)
    train(training, out, resume, machine, progress, watch)
    return _finished(opened, kept, model, training, watch, labelled, progress)


def _held_out(instants: Instants) -> Instants:
    """Return at most `_MOST_HELD_OUT` instants that have two views.

    Raises:
        ValueError: There are too few.
    """
    seen = instants.take((instants.rows >= 0).sum(axis=1) >= 2)
    if len(seen) < _FEWEST_HELD_OUT:
        raise ValueError(
            f"hold_out: expected {_FEWEST_HELD_OUT} or more instants with two views to measure on, got {len(seen)}. "
            "Import more footage, raise --hold-out, or check with `mcss info` that the views overlap in time."
        )
    return seen.take(evenly_spread(len(seen), _MOST_HELD_OUT))


def _labels(settings: AdaptSettings, capture: Capture, out: Path, progress: Progress) -> str:
    """Return the label budget; labels are made of the footage unless others are given or they are there already."""
    if settings.labels != MADE:
        return settings.labels
    path = out / LABELS
    if not path.exists():
        made = make_labels(capture, settings.split, LabelSettings(), progress)
        for sentence in (made.summary(), *made.warnings()):
            say(progress, sentence)
        write_labels(path, made)
    return f"@{path}"


def _with_labels_alone(instants: Instants, labels: str) -> Instants:
    """Return instants of which those alone have a pose that the label budget gives one; no other truth is looked at."""
    if labels == "none":
        return replace(instants, heading_valid=np.zeros(len(instants), bool))
    budget = Labels.parse(labels)
    instants = with_label_poses(instants, budget)
    return replace(instants, heading_valid=select_labels(instants, budget))


@dataclass(frozen=True, eq=False)
class _Watch:
    """Measures the network on the held-out instants, keeps the best one, and ends the training."""

    predictor: NetworkPredictor | CachedPredictor
    held: HeldOut
    before: Agreement
    out: Path
    points: dict[int, Agreement]
    """What was measured, by step."""

    @classmethod
    def prepared(
        cls,
        capture: Capture,
        instants: Instants,
        network: PoseNetwork,
        training: TrainSettings,
        out: Path,
        progress: Progress,
    ) -> "_Watch":
        """Measure the network as it starts, and take up what a stopped run has measured."""
        predictor: NetworkPredictor | CachedPredictor = NetworkPredictor(network, capture)
        if training.variants:
            frozen = FrozenStages(training.frozen_stages, network.config.image_size)
            backbone = network.backbone.eval()
            predictor = CachedPredictor(
                network, cache_stages(backbone, frozen, capture, instants.rows, progress=progress)
            )
        held = HeldOut(instants)
        start = held.predict(predictor)
        held = replace(held, reference=_reference(held, start))
        points: dict[int, Agreement] = {}
        if (out / REPORT).exists() and (out / CONFIG).exists():
            known = json.loads((out / REPORT).read_text(encoding="utf-8"))
            points = {int(point.pop("step")): Agreement(**point) for point in known["points"]}
        return cls(predictor, held, held.measure(start), out, points)

    def best(self) -> int:
        """Return the step of the best measure; 0 if the start is not beaten."""
        found, best = 0, self.before
        for step, point in sorted(self.points.items()):
            if point.better_than(self.before) and point.score < best.score:
                found, best = step, point
        return found

    def points_to_json(self) -> list[dict[str, Any]]:
        """Return what was measured as JSON values."""
        return [{"step": step, **point.to_json()} for step, point in sorted(self.points.items())]

    def __call__(self, step: int, network: PoseEstimator) -> bool:
        """Measure a network; return whether nothing was gained for some time."""
        prediction = self.held.predict(replace(self.predictor, network=network))
        self.points[step] = self.held.measure(prediction)
        if self.best() == step:
            save_model(self.out / _BEST, network, {"step": str(step)})
        write_json(self.out / REPORT, {"before": self.before.to_json(), "points": self.points_to_json()})
        return sum(later > self.best() for later in self.points) >= _PATIENCE


def _reference(held: HeldOut, start: Prediction) -> Tensor:
    """Return what poses are held against: labels of the held-out instants, or else the mean of the views' poses."""
    known = target_poses(held.instants)
    if known.isfinite().all(dim=(1, 2)).sum() >= _FEWEST_HELD_OUT:
        return known
    return held.fused(start)


def _finished(
    capture: Capture,
    kept: Instants,
    start: Model,
    training: TrainSettings,
    watch: _Watch,
    labelled: int,
    progress: Progress,
) -> Adapted:
    """Put the best network in place, with heads that are valid for it, and report."""
    out, step = watch.out, watch.best()
    network, parts = start.network, start.parts
    if step:
        best = read_model(out / _BEST).network
        assert isinstance(best, PoseNetwork)
        network = best
        unlabelled = None if labelled else watch.before.off
        heads = Heads(capture, kept, watch.held, unlabelled)
        parts = heads.refitted(start, Model(best, NO_PARTS, out), progress)
    save_model(out / MODEL, network, {"config": (out / CONFIG).read_text(encoding="utf-8")}, parts)
    after = watch.points[step] if step else watch.before
    result = Adapted(out, watch.before, after, step, labelled)
    write_json(out / REPORT, {**result.to_json(), "points": watch.points_to_json()})
    (out / _BEST).unlink(missing_ok=True)  # after the report, which says that the run is finished
    return result
