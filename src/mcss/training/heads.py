"""What a finished network is given for use: a placement head and reference poses. The network itself stays as it is.

Both are made from labelled instants of a capture whose cameras are known, in a minute or two: the placement head
learns from maps of the frozen backbone, the reference poses are what the network says of labelled images.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from mcss.data.augmentation import AugmentationSettings, augment
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.labels import Labels, select_labels
from mcss.data.sampling import generator
from mcss.errors import CaptureError
from mcss.evaluation.predictions import target_poses
from mcss.metrics import mpjpe
from mcss.models.model import Model, Poses
from mcss.models.model_file import ModelParts
from mcss.models.orientation import Orientation, OrientationConfig, OrientationHead, true_orientation, usable
from mcss.models.uncertainty import UncertaintyHead, fit_uncertainty, uncertainty_features
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import CONFIG

_BATCH = 64


@dataclass(frozen=True)
class EquipSettings:
    """How a network is equipped."""

    labels: str | None = None
    """Whose labelled images are used, as for `mcss train`; by default those that the run was trained with."""
    split: str = "train"
    """The split that they are in."""
    validation: str = "validation"
    """The split of people who were not in training, on whom expected errors are fitted."""
    images: int = 3000
    """Labelled images that the placement head learns from."""
    variants: int = 2
    """Random framings and colours of each."""
    epochs: int = 12
    """Times that the head sees all of them."""
    lr: float = 2e-3
    """Highest learning rate."""
    reference: int = 2000
    """Labelled instants that are kept as reference poses."""
    calibration: int = 1500
    """Images of the validation split on which expected errors are fitted."""
    seed: int = 0
    """Decides framings, colours and the head's first weights."""
    head: OrientationConfig = field(default_factory=OrientationConfig)
    """The placement head."""

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
"""Framing is changed by `_framed`, which knows what it does to the targets."""

_SCALE, _SHIFT = 0.12, 0.05


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images of labelled instants."""

    rows: Int64[np.ndarray, " n"]
    instants: Instants
    """One for each image."""

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, instants: Instants, most: int) -> "LabelledImages":
        """At most so many images of instants that have a pose with a heading, evenly spread."""
        instants = instants.take(instants.heading_valid)
        instant, view = np.nonzero(instants.rows >= 0)
        places = np.unique(np.linspace(0, len(instant) - 1, min(most, len(instant))).round().astype(int))
        return cls(instants.rows[instant[places], view[places]], instants.take(instant[places]))


def placements(capture: Capture, images: LabelledImages) -> tuple[LabelledImages, Orientation]:
    """Those images of which it is known how the person stands before the camera, and how.

    Raises:
        CaptureError: None of them has a camera.
    """
    cameras = capture.cameras(images.rows)
    known = np.isfinite(cameras.rotation).all(axis=(1, 2)) & np.isfinite(cameras.intrinsics).all(axis=(1, 2))
    if not known.any():
        raise CaptureError(
            f"the capture at {capture.uri} has no cameras for its labelled images, so that it is not known how "
            "people stand before them; use one with calibrated cameras, such as the synthetic capture"
        )
    images = LabelledImages(images.rows[known], images.instants.take(known))
    seen = capture.joints_in_crops(images.rows, images.instants.pose)
    true = true_orientation(images.instants.pose, cameras.rotation[known], cameras.translation[known], seen)
    fit = usable(true)
    return LabelledImages(images.rows[fit], images.instants.take(fit)), true.take(np.flatnonzero(fit))


def train_placement(
    model: Model, capture: Capture, instants: Instants, settings: EquipSettings, progress: Progress = NO_PROGRESS
) -> OrientationHead:
    """A placement head for a network, trained on labelled instants.

    Raises:
        CaptureError: The capture knows no cameras.
    """
    images, true = placements(capture, LabelledImages.of(instants, settings.images))
    with torch.random.fork_rng(devices=[]):  # the head's first weights and its dropout draw from torch's own state
        torch.manual_seed(settings.seed)
        head = OrientationHead(settings.head, *model.network.map_shape(settings.head.stages))
        maps, targets = _maps(model, head, capture, images, true, settings, progress)
        _fit(head, maps, targets, settings, progress)
    return head.eval()


def _fit(
    head: OrientationHead,
    maps: Float[Tensor, "n c s s"],
    targets: Float[Tensor, "n 6"],
    settings: EquipSettings,
    progress: Progress,
) -> None:
    steps = settings.epochs * max(len(maps) // _BATCH, 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.lr, total_steps=steps)
    head.train()
    order = generator(settings.seed, "placement order", 0)
    with progress.task("Learning placements", steps) as task:
        for batch in _batches(len(maps), steps, order):
            loss = _loss(head, maps[batch].float(), targets[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            task.advance()
            task.note(f"loss {loss.item():.3f}")


def _batches(count: int, steps: int, rng: np.random.Generator) -> Iterator[Int64[np.ndarray, " batch"]]:
    order = rng.permutation(count)
    at = 0
    for _ in range(steps):
        if at + _BATCH > count:
            order, at = rng.permutation(count), 0
        yield order[at : at + _BATCH]
        at += _BATCH


def _loss(head: OrientationHead, maps: Float[Tensor, "n c s s"], targets: Float[Tensor, "n 6"]) -> Tensor:
    """Squared errors; weights bring a usual error of each part to about the same size."""
    said = head(maps)
    direction = (said.direction - targets[:, :2]).square().sum(dim=1)
    tilt = (said.tilt - targets[:, 2]).square()
    root = (said.root - targets[:, 3:5]).square().sum(dim=1)
    size = (said.log_scale - targets[:, 5]).square()
    total: Tensor = (direction + 5 * tilt + 20 * root + 5 * size).mean()
    return total


def _maps(
    model: Model,
    head: OrientationHead,
    capture: Capture,
    labelled: LabelledImages,
    true: Orientation,
    settings: EquipSettings,
    progress: Progress,
) -> tuple[Float[Tensor, "n c s s"], Float[Tensor, "n 6"]]:
    """Maps of the frozen backbone, in half precision, and what the head should say of each."""
    maps, targets = [], []
    stages, backbone = head.config.stages, model.network.backbone
    with progress.task("Looking at labelled images", settings.variants * len(labelled)) as task:
        for start in range(0, len(labelled), _BATCH):
            rows = labelled.rows[start : start + _BATCH]
            pixels = capture.decode(rows)
            for variant in range(settings.variants):
                rng = generator(settings.seed, "placement pictures", start * settings.variants + variant)
                framed, root, zoom = _framed(pixels, true.root[start : start + len(rows)], model.image_size, rng)
                images = augment(torch.from_numpy(framed).permute(0, 3, 1, 2), _COLOURS, rng)
                with torch.inference_mode():
                    maps.append(backbone(images, 0, stages).half())
                targets.append(_target(true.take(np.arange(start, start + len(rows))), root, zoom))
                task.advance(len(rows))
    return torch.cat(maps).clone(), torch.cat(targets)


def _framed(
    pixels: UInt8[np.ndarray, "n side side 3"], root: Float[np.ndarray, "n 2"], size: int, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "n size size 3"], Float64[np.ndarray, "n 2"], Float64[np.ndarray, " n"]]:
    """Crops framed a little differently, where the root is then, and how much larger the person is shown."""
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


def predicted(model: Model, capture: Capture, rows: Int64[np.ndarray, " n"], progress: Progress = NO_PROGRESS) -> Poses:
    """What a model says of some rows of a capture."""
    parts = []
    with progress.task("Predicting", len(rows)) as task:
        for start in range(0, max(len(rows), 1), _BATCH):
            chunk = rows[start : start + _BATCH]
            parts.append(model.predict_crops(list(capture.decode(chunk, model.image_size)), capture.boxes(chunk)))
            task.advance(len(chunk))
    return Poses.joined(parts)


def reference_of(
    model: Model, capture: Capture, instants: Instants, settings: EquipSettings, progress: Progress = NO_PROGRESS
) -> UncertaintyHead:
    """Reference poses from labelled instants, one image of each, fitted on people who were not in training.

    Raises:
        CaptureError: The capture has no such people, or none of them is labelled.
    """
    labelled = instants.take(instants.heading_valid)
    at = np.unique(np.linspace(0, len(labelled) - 1, min(settings.reference, len(labelled))).round().astype(int))
    kept = labelled.take(at)
    views = [np.flatnonzero(row >= 0) for row in kept.rows]
    rows = np.array([kept.rows[i, there[i % len(there)]] for i, there in enumerate(views)], np.int64)
    known = torch.from_numpy(predicted(model, capture, rows, progress).embedding)
    poses = target_poses(kept).float()
    others = LabelledImages.of(capture.instants(settings.validation), settings.calibration)
    if not len(others):
        raise CaptureError(
            f"the split {settings.validation!r} of {capture.uri} has no labelled instants to fit expected errors on; "
            "choose another with --validation"
        )
    said = predicted(model, capture, others.rows, progress)
    pose, true = torch.from_numpy(said.pose), target_poses(others.instants).float()
    error = mpjpe(pose[:, 1:], true[:, 1:]).numpy()
    features = uncertainty_features(known, poses, torch.from_numpy(said.embedding), pose)
    return fit_uncertainty(known, poses, features, error)


def equipped(
    model: Model, capture: Capture, labels: str, settings: EquipSettings, progress: Progress = NO_PROGRESS
) -> ModelParts:
    """Both parts for a network.

    Args:
        model: Its network.
        capture: With labels and cameras.
        labels: Whose labels are used.
        settings: How.
        progress: Told of every image and step.

    Raises:
        CaptureError: The capture lacks labels, cameras or a split.
    """
    train = capture.instants(settings.split)
    instants = train.take(np.flatnonzero(select_labels(train, Labels.parse(labels))))
    head = train_placement(model, capture, instants, settings, progress)
    return ModelParts(head, reference_of(model, capture, instants, settings, progress))


def chosen_labels(run: Path, asked: str | None) -> str:
    """Whose labels to use: those that were asked for, else those that the run was trained with.

    Raises:
        ValueError: Neither is known, or the run had none.
    """
    file = run / CONFIG
    found = asked or (json.loads(file.read_text())["labels"] if file.is_file() else None)
    if found in (None, "none"):
        raise ValueError(
            f"labels: {run} does not say whose labels it was trained with, or had none; name some, such as --labels S1."
        )
    return str(found)
