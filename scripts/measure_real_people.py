"""Measure models on footage of real people with 3D truth; write docs/results/real_people.json and the table of it.

    python scripts/measure_real_people.py CAPTURE [--work FOLDER] [--json FILE] [--seeds N] [--only SYSTEM …]

CAPTURE has labels, which are the truth, and the splits train and test; nothing is chosen on the test split. Each row is
measured on the test split: PA-MPJPE over the 12 limb joints of one view and of all views fused, and how often the same
moment (within ±5 frames) is among the nearest 1 and 5 images of other views. Finished rows are kept, so that the
command can be stopped and repeated. Everything but mean_pose is starred in the paper's sense: BlazePose's weights have
learned from 2D and 3D labels of real people.
"""

import argparse
import datetime
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mcss.adaptation.adapt import adapt
from mcss.adaptation.settings import AdaptSettings, batch_of
from mcss.data.capture import Capture
from mcss.data.instants import Instants, ends_of_sequences
from mcss.data.labels import write_instants
from mcss.data.provenance import provenance
from mcss.evaluation.evaluate import evaluate_predictions
from mcss.evaluation.predictions import (
    EvaluationSettings,
    MeanPose,
    SplitPrediction,
    predict_split,
    target_poses,
    true_poses,
)
from mcss.files import write_json
from mcss.inference.fusion import fuse
from mcss.inference.label_selection import SelectSettings, select_instants
from mcss.labelling.joints import joints_of_landmarks
from mcss.landmarks.detection import DetectionSettings, detect_landmarks
from mcss.landmarks.turning import fuse_views
from mcss.methods.supervised import Supervised
from mcss.metrics import pa_mpjpe
from mcss.models.model import CARD, load
from mcss.models.model_file import save_model
from mcss.models.pose_network import PoseEstimator
from mcss.models.prediction import NetworkPredictor, Prediction, predict_rows
from mcss.progress import NO_PROGRESS, RichProgress
from mcss.skeletons import LIMBS, canonical_pose
from mcss.training.loop import train
from write_table import write_between

TOLERANCE = 5
CHOSEN = 25
README = Path("README.md")
SYSTEMS = ("mean_pose", "mediapipe", "shipped", "adapted", "supervised", "mcss")


@dataclass(frozen=True)
class Row:
    """One system on the test split."""

    system: str
    labels: str
    pa_limbs: float
    pa_limbs_fused: float | None
    hit_at_1: float | None
    hit_at_5: float | None
    chance_at_1: float | None
    """How often an embedding that knows nothing finds the same moment first."""
    seed: int


def main() -> None:
    """Measure every system that has no row yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("--work", type=Path, default=Path("runs/real_people"), help="folder for runs and finished rows")
    parser.add_argument("--json", type=Path, default=Path("docs/results/real_people.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/adapt.md"), help="page with the table")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=SYSTEMS, default=SYSTEMS, help="measure these systems alone")
    options = parser.parse_args()
    study = Study(options.capture, options.work, options.seeds)
    for name, measure in study.jobs():
        kept = options.work / "rows" / f"{name}.json"
        if not kept.exists() and name.split("-")[0] in options.only:
            write_json(kept, {**vars(measure()), "date": datetime.date.today().isoformat()})
    rows = [json.loads(path.read_text()) for path in sorted((options.work / "rows").glob("*.json"))]
    rows.sort(key=lambda row: (SYSTEMS.index(row["system"]), row["labels"], row["seed"]))
    command = f"python scripts/measure_real_people.py {Path(options.capture).name}"
    about = asdict(provenance(command, study.opened, {"split": "test", "tolerance": str(TOLERANCE)}))
    about |= {"capture_name": Path(options.capture).name}
    write_json(options.json, {"rows": rows, "about": about})
    write_between(options.page, "real-people", table(rows))
    dates = " and ".join(sorted({row["date"] for row in rows}))
    write_between(CARD, "real", sentence(rows, dates))
    write_between(README, "real", summary(rows, dates))


class Study:
    """The systems, on one capture."""

    def __init__(self, capture: str, work: Path, seeds: int) -> None:
        self.capture, self.work, self.seeds = capture, work, seeds
        self.opened = Capture.open(capture)
        self.progress = RichProgress()

    def jobs(self) -> Iterator[tuple[str, Callable[[], Row]]]:
        """Yield the name of every row and how it is measured, the quickest first."""
        yield "mean_pose", self.mean_pose
        yield "mediapipe", self.mediapipe
        yield "shipped", lambda: self.scored("shipped", "none", Path("shipped"), 0)
        for seed in range(self.seeds):
            for labels in ("made", "none"):
                yield f"adapted-{labels}-{seed}", lambda labels=labels, seed=seed: self.adapted(labels, seed)
        for seed in range(self.seeds):
            yield f"mcss-{CHOSEN}-{seed}", lambda seed=seed: self.mcss(seed)
            yield f"supervised-{CHOSEN}-{seed}", lambda seed=seed: self.supervised(seed)

    def mean_pose(self) -> Row:
        """A pose that ignores the image: the mean of the training poses."""
        prediction = predict_split(MeanPose.of(self.opened.instants("train")), self.opened, "test", _SETTINGS)
        return row("mean_pose", "all", prediction, 0)

    def mediapipe(self) -> Row:
        """BlazePose's landmarks as MediaPipe asks for them; images are compared by the PA-MPJPE of their poses."""
        instants = self.opened.instants("test")
        found = detect_landmarks(self.opened, instants, DetectionSettings(mirrored=False), self.progress)
        instant, view = np.nonzero(instants.rows >= 0)
        right, down, away = np.moveaxis(found.world[instant, view].astype(np.float64), -1, 0)
        poses = torch.from_numpy(joints_of_landmarks(np.stack([right, away, -down], axis=-1))).float()
        prediction = SplitPrediction(instants, instant, view, instants.rows[instant, view], canonical_pose(poses), None)
        hits = landmark_hits(poses[:, LIMBS], instant, view, instants.frame)
        fused = joints_of_landmarks(fuse_views(found).points)
        error = pa_mpjpe(torch.from_numpy(fused)[:, LIMBS].float(), target_poses(instants)[:, LIMBS]).nanmean()
        one = row("mediapipe", "none", prediction, 0)
        return replace(one, pa_limbs_fused=round(float(error), 2), hit_at_1=hits[0], hit_at_5=hits[1])

    def adapted(self, labels: str, seed: int) -> Row:
        """The shipped model, adapted to the training split."""
        out = self.work / f"adapted-{labels}-{seed}"
        settings = AdaptSettings(labels=labels, seed=seed)
        adapt(self.capture, Path("shipped"), out, settings, resume=True, progress=self.progress)
        return self.scored("adapted", labels, out, seed)

    def chosen(self) -> str:
        """25 instants of the training split, chosen with the shipped model's embedding, with their true poses."""
        path = self.work / f"chosen{CHOSEN}.csv"
        if not path.exists():
            settings = SelectSettings(budget=CHOSEN, run="shipped")
            write_instants(path, select_instants(self.opened, settings, self.progress).instants)
        return f"@{path}"

    def mcss(self, seed: int) -> Row:
        """The shipped model, adapted with the chosen labels."""
        out = self.work / f"mcss-{seed}"
        settings = AdaptSettings(labels=self.chosen(), seed=seed)
        adapt(self.capture, Path("shipped"), out, settings, resume=True, progress=self.progress)
        return self.scored("mcss", f"{CHOSEN} chosen", out, seed)

    def supervised(self, seed: int) -> Row:
        """The baseline: the same start, network, labels, augmentation and number of steps, on labels alone.

        It stops where it is best on the true poses at the end of the training split, which MCSS may not look at.
        """
        out = self.work / f"supervised-{seed}"
        model = load("shipped")
        ours = AdaptSettings(labels=self.chosen(), seed=seed)
        batch = batch_of(self.opened.instants("train"), 0)
        stages = len(model.network.backbone.stages)
        training = ours.training(model.network.config, "shipped", self.capture, ours.labels, batch, stages, CHOSEN)
        training = replace(training, method=Supervised(pose_images=training.method.pose_images))
        held = self.opened.instants("train")
        held = held.take(ends_of_sequences(held, training.hold_out))
        best = _BestOnTruth(self.opened, held, out)
        train(training, out, (out / "config.json").exists(), progress=self.progress, watch=best)
        return self.scored("supervised", f"{CHOSEN} chosen", out / "best.safetensors", seed)

    def scored(self, system: str, labels: str, run: Path, seed: int) -> Row:
        """Score a model on the test split."""
        predictor = NetworkPredictor(load(run).network, self.opened)
        return row(system, labels, predict_split(predictor, self.opened, "test", _SETTINGS, self.progress), seed)


class _BestOnTruth:
    """Keeps the network that is best on true poses."""

    def __init__(self, capture: Capture, instants: Instants, out: Path) -> None:
        self.capture, self.instants, self.path = capture, instants, out / "best.safetensors"
        self.best = math.inf

    def __call__(self, step: int, network: PoseEstimator) -> bool:
        instant, view = np.nonzero(self.instants.rows >= 0)
        predicted = Prediction.joined(
            predict_rows(NetworkPredictor(network, self.capture), self.instants.rows[instant, view])
        )
        true = target_poses(self.instants)[torch.from_numpy(instant)]
        error = float(pa_mpjpe(predicted.pose[:, LIMBS], true[:, LIMBS]).nanmean())
        if error < self.best:
            self.best = error
            save_model(self.path, network, {"step": str(step)})
        return False


def row(system: str, labels: str, prediction: SplitPrediction, seed: int) -> Row:
    """Score predictions of the test split."""
    truth = true_poses(prediction)
    known = truth.isfinite().all(dim=2).all(dim=1)
    one = pa_mpjpe(prediction.pose[known][:, LIMBS], truth[known][:, LIMBS]).mean()
    seen = prediction.instants.rows >= 0
    poses = np.zeros((*seen.shape, 17, 3))
    poses[seen] = prediction.pose.numpy()
    embedding = np.zeros((*seen.shape, 1)) if prediction.embedding is None else None
    if embedding is None:
        embedding = np.zeros((*seen.shape, prediction.embedding.shape[1]))
        embedding[seen] = prediction.embedding.numpy()
    fused = torch.from_numpy(fuse(poses, embedding, seen).pose).float()
    by_instant = pa_mpjpe(fused[:, LIMBS], target_poses(prediction.instants)[:, LIMBS]).nanmean()
    hits: tuple[float | None, float | None, float | None] = (None, None, None)
    if prediction.embedding is not None:
        found = evaluate_predictions(prediction, "", "test", _SETTINGS, NO_PROGRESS).retrieval.same_instant
        hits = (round(found.hit_at_1, 4), round(found.hit_at_5, 4), round(found.chance_at_1, 4))
    return Row(system, labels, round(float(one), 2), round(float(by_instant), 2), *hits, seed)


def landmark_hits(poses: Tensor, instant: np.ndarray, view: np.ndarray, frame: np.ndarray) -> tuple[float, float]:
    """Return how often the same moment is among the nearest 1 and 5 images of other views, by PA-MPJPE."""
    other = torch.from_numpy(view[:, None] != view[None, :])
    same = torch.from_numpy(np.abs(frame[instant][:, None] - frame[instant][None, :]) <= TOLERANCE)
    hits = []
    for n in range(0, len(poses), 4):
        distance = pa_mpjpe(poses[n].expand_as(poses), poses).masked_fill(~other[n], math.inf)
        nearest = distance.topk(5, largest=False).indices
        hits.append((bool(same[n][nearest[0]]), bool(same[n][nearest].any())))
    one, five = np.mean(hits, axis=0)
    return round(float(one), 4), round(float(five), 4)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as Markdown, with mean and standard deviation over seeds."""
    lines = [
        "| | labels | PA, one view | PA, views fused | same moment found first | among five |",
        "|---|---|---|---|---|---|",
    ]
    for system, labels in dict.fromkeys((row["system"], row["labels"]) for row in rows):
        own = [row for row in rows if (row["system"], row["labels"]) == (system, labels)]
        cells = [_cell([row[key] for row in own], form) for key, form in _COLUMNS]
        star = "" if system == "mean_pose" else "*"
        lines.append(f"| {_TITLES[system]}{star} | {_LABELS.get(labels, labels)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows: Sequence[dict[str, Any]], dates: str) -> str:
    """Return README's table: the shipped weights, as they are and adapted, beside what they should be compared with."""
    shown = {
        ("mean_pose", "all"): "a pose that ignores the image",
        ("mediapipe", "none"): "the landmarks of BlazePose, MediaPipe's network",
        ("shipped", "none"): "**the shipped weights**",
        ("adapted", "made"): "**after `mcss adapt`, with labels that it makes itself**",
    }
    (chance,) = (row["chance_at_1"] for row in rows if row["system"] == "shipped")
    lines = ["| | one view | four views fused | same moment found first |", "|---|---|---|---|"]
    for key, title in shown.items():
        own = [row for row in rows if (row["system"], row["labels"]) == key]
        hits = [row["hit_at_1"] for row in own if row["hit_at_1"] is not None]
        errors = [f"{np.mean([row[name] for row in own]):.0f} mm" for name in ("pa_limbs", "pa_limbs_fused")]
        found = f"{100 * np.mean(hits):.0f} %" if hits else f"{100 * chance:.1f} % (chance)"
        lines.append(f"| {title} | {errors[0]} | {errors[1]} | {found} |")
    about = (
        f"One man filmed by four studio cameras, 240 instants, measured on {dates}: mean error of the 12 joints of "
        "arms and legs after the best rotation, scale and shift (PA-MPJPE), and how often a search of the other views "
        "finds the same moment first, within ±5 frames. `mcss adapt` saw the preceding 22 seconds. "
        "[docs/adapt.md](docs/adapt.md#how-well-it-works) has all rows."
    )
    return "\n".join([*lines, "", about])


def sentence(rows: Sequence[dict[str, Any]], dates: str) -> str:
    """Return how good the shipped weights are, for their card and the notes of commands that use them."""
    row = {row["system"]: row for row in rows}
    shipped, landmarks, unseeing = row["shipped"], row["mediapipe"], row["mean_pose"]
    return (
        f"On 240 instants of a man filmed by four studio cameras ({dates}), PA-MPJPE over the 12 joints of arms and "
        f"legs is {shipped['pa_limbs']:.0f} mm from one view and {shipped['pa_limbs_fused']:.0f} mm from four views "
        f"fused (BlazePose's landmarks: {landmarks['pa_limbs']:.0f} and {landmarks['pa_limbs_fused']:.0f}; a pose "
        f"that ignores the image: {unseeing['pa_limbs']:.0f}). Searching the other views finds the same moment first "
        f"{shipped['hit_at_1']:.0%} of the time (landmarks {landmarks['hit_at_1']:.0%}, chance "
        f"{shipped['chance_at_1']:.1%}).{_gain(rows)}"
    )


def _gain(rows: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on the model that was adapted with labels of its own making; nothing without such a row."""
    own = [row for row in rows if (row["system"], row["labels"]) == ("adapted", "made")]
    if not own:
        return ""
    one, fused, hits = (float(np.mean([row[key] for row in own])) for key in ("pa_limbs", "pa_limbs_fused", "hit_at_1"))
    seeds = f", mean of {len(own)} seeds" if len(own) > 1 else ""
    return (
        f" After `mcss adapt` on the preceding 22 seconds, without labels (docs/adapt.md{seeds}), it is "
        f"{one:.0f} mm, {fused:.0f} mm and {hits:.0%}."
    )


def _cell(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean = format(float(np.mean(known)), form)
    return f"{mean} ± {format(float(np.std(known, ddof=1)), form)}" if len(known) > 1 else mean


_SETTINGS = EvaluationSettings(tolerance=TOLERANCE)
_COLUMNS = (("pa_limbs", ".0f"), ("pa_limbs_fused", ".0f"), ("hit_at_1", ".2f"), ("hit_at_5", ".2f"))
_TITLES = {
    "mean_pose": "mean pose of the training split",
    "mediapipe": "BlazePose's landmarks, as MediaPipe asks for them",
    "shipped": "shipped weights",
    "adapted": "shipped weights, adapted",
    "supervised": "supervised baseline from the shipped weights",
    "mcss": "MCSS from the shipped weights",
}
_LABELS = {"made": "made by `mcss label`", "all": "all", "none": "none"}


if __name__ == "__main__":
    main()
