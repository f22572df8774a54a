"""The heads that a trained network is given later: those of `mcss equip`, and the poses of `mcss remember`.

The orientation and uncertainty heads are made from labelled instants of a capture with known cameras, in a minute or
two: the orientation head learns from feature maps of the frozen backbone, and the uncertainty head compares predictions
with those for labelled images.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants, evenly_spread
from mcss.data.labels import Labels, labelled_images, select_labels, with_label_poses
from mcss.data.loading.augmentation import AugmentationSettings, augment, mirrored_canonical, normalise
from mcss.data.loading.sampling import generator
from mcss.errors import CaptureError, CheckpointError, damage_as
from mcss.evaluation.predictions import target_poses
from mcss.metrics import mpjpe
from mcss.models.model import Model, Poses
from mcss.models.model_file import ModelParts
from mcss.models.orientation import Orientation, OrientationConfig, OrientationHead, true_orientation, usable
from mcss.models.pose_network import NEIGHBOURS, PoseNetwork
from mcss.models.prediction import images_at_a_time, predict_images, predict_rows
from mcss.models.uncertainty import UncertaintyHead, fit_uncertainty, uncertainty_features
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import CONFIG

_BATCH = 64

MOST_REMEMBERED = 1000
"""Labelled instants that `remember_labels` keeps, evenly spread over all; with mirrored ones twice as many poses."""


@dataclass(frozen=True)
class EquipSettings:
    """How the heads are fitted."""

    labels: str | None = None
    """Whose labelled images are used, as for `mcss train`; by default the labels that the run was trained with."""
    split: str = "train"
    """Split of the labelled images."""
    validation: str = "validation"
    """Split of people who were not in training, for fitting expected errors."""
    images: int = 3000
    """Labelled images that the orientation head learns from."""
    variants: int = 2
    """Random framings and colours of each of these images."""
    epochs: int = 12
    """Passes of the orientation head over these images."""
    lr: float = 2e-3
    """Peak learning rate of the orientation head."""
    reference: int = 2000
    """Labelled instants that the uncertainty head keeps as reference poses."""
    calibration: int = 1500
    """Images of the validation split for fitting expected errors."""
    seed: int = 0
    """Seed of framings, colours and the orientation head's initial weights."""
    head: OrientationConfig = field(default_factory=OrientationConfig)
    """The orientation head."""

    def __post_init__(self) -> None:
        for name in ("images", "variants", "epochs", "reference", "calibration"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")


_COLOURS = AugmentationSettings(
    **dict.fromkeys(("scale", "shift", "rotation"), 0.0),
    **dict.fromkeys(("brightness", "contrast"), 0.4),
    saturation=0.6,
    hue=180.0,
    channel_gain=0.2,
    grey=0.2,
    cutout=0.2,
)
"""Changes of colour alone: `_framed` changes the framing, and the targets with it."""

_SCALE, _SHIFT = 0.12, 0.05


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of labelled instants."""

    rows: Int64[np.ndarray, " n"]
    instants: Instants
    """The instant of each image."""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, instants: Instants, most: int) -> "LabelledImages":
        """Take at most `most` images, evenly spread, of instants that have a pose with a heading."""
        instants = instants.take(instants.heading_valid)
        instant, view = np.nonzero(instants.rows >= 0)
        chosen = evenly_spread(len(instant), most)
        return cls(instants.rows[instant[chosen], view[chosen]], instants.take(instant[chosen]))


class _TrainingSet(NamedTuple):
    """What the orientation head learns from."""

    maps: Float[Tensor, "n c s s"]
    """Feature maps in half precision."""
    targets: Float[Tensor, "n 6"]
    """Cosine and sine of the heading, tilt in radians, root in shares of the image, log of the scale."""


def known_orientations(capture: Capture, images: LabelledImages) -> tuple[LabelledImages, Orientation]:
    """Return the images whose person's orientation to the camera is known, and that orientation.

    Raises:
        CaptureError: None of the images has a camera.
    """
    cameras = capture.cameras(images.rows)
    known = np.isfinite(cameras.rotation).all(axis=(1, 2)) & np.isfinite(cameras.intrinsics).all(axis=(1, 2))
    if not known.any():
        raise CaptureError(
            f"the capture at {capture.uri} has no cameras for its labelled images, so the orientation of people to "
            "the cameras is not known; use one with calibrated cameras, such as the synthetic capture"
        )
    images = LabelledImages(images.rows[known], images.instants.take(known))
    seen = capture.joints_in_crops(images.rows, images.instants.pose)
    true = true_orientation(images.instants.pose, cameras.rotation[known], cameras.translation[known], seen)
    fit = usable(true)
    return LabelledImages(images.rows[fit], images.instants.take(fit)), true.take(np.flatnonzero(fit))


def train_orientation(
    model: Model, capture: Capture, instants: Instants, settings: EquipSettings, progress: Progress = NO_PROGRESS
) -> OrientationHead:
    """Train an orientation head for a network on labelled instants.

    Raises:
        CaptureError: The capture has no cameras.
    """
    images, true = known_orientations(capture, LabelledImages.of(instants, settings.images))
    return fit_orientation(model, capture, images, true, settings, progress)


def fit_orientation(
    model: Model,
    capture: Capture,
    images: LabelledImages,
    true: Orientation,
    settings: EquipSettings,
    progress: Progress = NO_PROGRESS,
) -> OrientationHead:
    """Train an orientation head for a network on images whose orientation is given."""
    with torch.random.fork_rng(devices=[]):  # the head's initial weights and dropout draw from torch's global state
        torch.manual_seed(settings.seed)
        head = OrientationHead(settings.head, *model.network.map_shape(settings.head.stages))
        _fit(head, _training_set(model, head, capture, images, true, settings, progress), settings, progress)
    return head.eval()


def _fit(head: OrientationHead, data: _TrainingSet, settings: EquipSettings, progress: Progress) -> None:
    steps = settings.epochs * max(len(data.maps) // _BATCH, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps)
    head.train()
    order = generator(settings.seed, "placement order", 0)
    with progress.task("Training the orientation head", steps) as task:
        for batch in _batches(len(data.maps), steps, order):
            loss = _loss(head, data.maps[batch].float(), data.targets[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            task.advance()
            task.note(f"loss {loss.item():.3f}")


def _batches(count: int, steps: int, rng: np.random.Generator) -> Iterator[Int64[np.ndarray, " batch"]]:
    """Yield the indices of each step; what is left of a pass that does not fill a batch is dropped."""
    order, start = rng.permutation(count), 0
    for _ in range(steps):
        if start + _BATCH > count:
            order, start = rng.permutation(count), 0
        yield order[start : start + _BATCH]
        start += _BATCH


def _loss(head: OrientationHead, maps: Float[Tensor, "n c s s"], targets: Float[Tensor, "n 6"]) -> Tensor:
    """Return squared errors, weighted so that typical errors of all parts are of about the same size."""
    output = head(maps)
    direction = (output.direction - targets[:, :2]).square().sum(dim=1)
    tilt = (output.tilt - targets[:, 2]).square()
    root = (output.root - targets[:, 3:5]).square().sum(dim=1)
    size = (output.log_scale - targets[:, 5]).square()
    total: Tensor = (direction + 5 * tilt + 20 * root + 5 * size).mean()
    return total


def _training_set(
    model: Model,
    head: OrientationHead,
    capture: Capture,
    labelled: LabelledImages,
    true: Orientation,
    settings: EquipSettings,
    progress: Progress,
) -> _TrainingSet:
    """Compute the maps of the frozen backbone and the targets of the head, for several framings of each image."""
    maps, targets = [], []
    stages, backbone = head.config.stages, model.network.backbone
    with progress.task("Reading labelled images", settings.variants * len(labelled)) as task:
        for start in range(0, len(labelled), _BATCH):
            rows = labelled.rows[start : start + _BATCH]
            pixels = capture.decode(rows)
            for variant in range(settings.variants):
                rng = generator(settings.seed, "placement pictures", start * settings.variants + variant)
                framed, root, zoom = _framed(pixels, true.root[start : start + len(rows)], model.image_size, rng)
                images = augment(torch.from_numpy(framed).permute(0, 3, 1, 2), _COLOURS, rng)
                few = images_at_a_time(model.image_size, images.device)
                with torch.inference_mode():
                    maps += [backbone(part, 0, stages).half() for part in torch.split(images, few)]
                targets.append(_target(true.take(np.arange(start, start + len(rows))), root, zoom))
                task.advance(len(rows))
    return _TrainingSet(torch.cat(maps).clone(), torch.cat(targets))


def _framed(
    pixels: UInt8[np.ndarray, "n side side 3"], root: Float[np.ndarray, "n 2"], size: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "n size size 3"], Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
    """Frame crops a little differently; return them, where the root now is, and how much larger the person is."""
    count, side = pixels.shape[:2]
    zoom = np.asarray(rng.uniform(1 - _SCALE, 1 + _SCALE, count), np.float64)
    middle: Float64[np.ndarray, "n 2"] = 0.5 + rng.uniform(-_SHIFT, _SHIFT, (count, 2))
    out = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        step = side / size / zoom[i]  # source pixels per pixel; centres lie at +0.5
        corner = middle[i] * side - step * size / 2 + step / 2 - 0.5
        matrix = np.array([[step, 0, corner[0]], [0, step, corner[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(pixels[i], matrix, (size, size), dst=out[i], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    moved: Float64[np.ndarray, "n 2"] = 0.5 + (root - middle) * zoom[:, None]
    return out, moved, zoom


def _target(
    true: Orientation, root: Float64[np.ndarray, "n 2"], zoom: Float64[np.ndarray, " n"]
) -> Float[Tensor, "n 6"]:
    turn = np.radians(true.heading.astype(float))
    columns = [np.cos(turn), np.sin(turn), np.radians(true.tilt), *root.T, np.log(1000 * true.scale * zoom)]
    return torch.from_numpy(np.stack(columns, axis=1).astype(np.float32))


def _predicted(model: Model, capture: Capture, rows: Int64[np.ndarray, " n"], progress: Progress) -> Poses:
    with progress.task("Predicting", len(rows)) as task:
        return model.predict_rows(capture, rows, task)


def train_uncertainty(
    model: Model, capture: Capture, instants: Instants, settings: EquipSettings, progress: Progress = NO_PROGRESS
) -> UncertaintyHead:
    """Fit an uncertainty head to labelled instants, one image of each, and to people who were not in training.

    Raises:
        CaptureError: The capture has no such people, or none of them is labelled.
    """
    others = LabelledImages.of(capture.instants(settings.validation), settings.calibration)
    if not len(others):
        raise CaptureError(
            f"the split {settings.validation!r} of {capture.uri} has no labelled instants to fit expected errors on; "
            "choose another with --validation"
        )
    return expected_errors(model, capture, instants, others, settings, progress)


def expected_errors(
    model: Model,
    capture: Capture,
    instants: Instants,
    others: LabelledImages,
    settings: EquipSettings,
    progress: Progress = NO_PROGRESS,
) -> UncertaintyHead:
    """Fit an uncertainty head to labelled instants, one image of each, and to `others` that were not in training."""
    labelled = instants.take(instants.heading_valid)
    kept = labelled.take(evenly_spread(len(labelled), settings.reference))
    views = [np.flatnonzero(row >= 0) for row in kept.rows]
    rows = np.array([kept.rows[i, present[i % len(present)]] for i, present in enumerate(views)], np.int64)
    known = torch.from_numpy(_predicted(model, capture, rows, progress).embedding)
    poses = target_poses(kept).float()
    predictions = _predicted(model, capture, others.rows, progress)
    pose, true = torch.from_numpy(predictions.pose), target_poses(others.instants).float()
    error = mpjpe(pose[:, 1:], true[:, 1:]).numpy()
    features = uncertainty_features(known, poses, torch.from_numpy(predictions.embedding), pose)
    return fit_uncertainty(known, poses, features, error)


def equipped(
    model: Model, capture: Capture, labels: Labels, settings: EquipSettings, progress: Progress = NO_PROGRESS
) -> ModelParts:
    """Fit both heads to a network.

    Args:
        model: The trained network.
        capture: A capture with labels and cameras.
        labels: Whose labels are used.
        settings: How the heads are fitted.
        progress: Notified of every image and step.

    Raises:
        CaptureError: The capture lacks labels, cameras or a split.
    """
    train = capture.instants(settings.split)
    instants = train.take(np.flatnonzero(select_labels(train, labels)))
    head = train_orientation(model, capture, instants, settings, progress)
    return ModelParts(head, train_uncertainty(model, capture, instants, settings, progress))


def remember_labels(
    network: PoseNetwork,
    capture: Capture,
    labels: Labels,
    split: str = "train",
    progress: Progress = NO_PROGRESS,
    mirrored: bool = True,
    nearest: int = NEIGHBOURS,
) -> int:
    """Let a network read poses off the nearest labelled ones and their mirror images; return how many it knows.

    The embedding of a labelled pose is the mean over its views. A mirrored one is that of the mirrored images.

    Args:
        network: The network; its pose head is replaced.
        capture: A capture with labels.
        labels: Whose poses are remembered.
        split: Split of the labels.
        progress: Notified of every image.
        mirrored: Remember the mirror images of labelled poses as well.
        nearest: How many poses one is read off.

    Raises:
        CaptureError: There is no such split.
        ValueError: The labels give no pose, or the network's poses are not canonical: others cannot be mirrored with
            their images.
    """
    if network.frame != "canonical":
        raise ValueError(
            f"expected a network with canonical poses, got {network.frame} ones; train mcss or supervised."
        )
    instants = with_label_poses(capture.instants(split), labels)
    labelled = labelled_images(instants, labels)
    kept = np.flatnonzero(labelled.any(axis=1))
    if not len(kept):
        raise ValueError(f"labels: {labels} gives no pose in the split {split!r} of {capture.uri}.")
    kept = kept[evenly_spread(len(kept), MOST_REMEMBERED)]
    instant, view = np.nonzero(labelled[kept])
    rows = instants.rows[kept[instant], view]

    def embedded(batch: Int64[np.ndarray, " batch"]) -> Tensor:
        pixels = torch.from_numpy(capture.decode(batch, network.config.image_size))
        images = normalise(pixels.permute(0, 3, 1, 2))
        shown = (images, images.flip(-1)) if mirrored else (images,)
        found = [predict_images(network, each).embedding for each in shown]
        return torch.stack([embedding for embedding in found if embedding is not None])

    with progress.task("Embedding labelled images", len(rows)) as task:
        embeddings = torch.cat(predict_rows(embedded, rows, task), dim=1)
    sums = torch.zeros(len(embeddings), len(kept), network.config.dim).index_add_(
        1, torch.from_numpy(instant), embeddings
    )
    poses = target_poses(instants.take(kept))
    device = next(network.parameters()).device
    known = torch.nn.functional.normalize(sums.flatten(0, 1), dim=1).to(device)
    network.remember(known, (torch.cat([poses, mirrored_canonical(poses)]) if mirrored else poses).to(device), nearest)
    return len(known)


def chosen_labels(run: Path, given: str | None) -> Labels:
    """Return whose labels to use: those that are given, or else those that the run was trained with.

    Raises:
        ValueError: Neither is known, or the run had no labels.
    """
    file = run / CONFIG
    with damage_as(CheckpointError, lambda why: f"{file}: cannot be read ({why}); name the labels, as in --labels S1."):
        text = given or (json.loads(file.read_bytes()).get("labels") if file.is_file() else None)
    if text in (None, "none"):
        raise ValueError(
            f"labels: {run} does not say whose labels it was trained with, or had none; name some, such as --labels S1."
        )
    return Labels.parse(str(text))
