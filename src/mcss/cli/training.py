"""Verbs that train."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import OmitArgPrefixes, Positional

from mcss.cli.arguments import Verbs
from mcss.cli.terminal import JsonFile, app, console, finish
from mcss.data.capture import Capture
from mcss.methods.chen_cvpr19 import ChenCVPR19Settings
from mcss.methods.mcss import MCSSSettings
from mcss.methods.method import load_estimator
from mcss.methods.points2d import Points2DSettings
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import RhodinECCV18Settings
from mcss.methods.supervised import SupervisedSettings
from mcss.models.backbones import BackboneName
from mcss.models.model import load
from mcss.models.model_file import MODEL, read_model, save_model
from mcss.progress import RichProgress
from mcss.training.heads import EquipSettings, chosen_labels, equipped
from mcss.training.loop import Machine, train
from mcss.training.recipes import MethodName, RecipeName, recipe
from mcss.training.settings import Precision, TrainSettings

train_app = Verbs()

app.group(train_app, name="train", help="Train MCSS, or a method that it is compared with.")


@dataclass(frozen=True)
class TrainOptions:
    """What to train on, and what to change of the recipe."""

    capture: str
    """A capture's folder or object-store address."""
    labels: str = "S1"
    """Whose 3D poses are used: S1, S1:0.1 (10 %, evenly spread), S1,S5, all, none (mcss only), or @FILE.csv of
    `mcss select`."""
    label_views: str | None = None
    """Use labels of these views only, such as 1,2,3."""
    recipe: RecipeName = "fast"
    """fast: for a laptop. paper: the paper's own, for a GPU."""
    backbone: BackboneName | None = None
    """Another backbone than the recipe's; all of its stages are then trained."""
    weights: str | None = None
    """Start of the backbone: imagenet, random, a .safetensors or .pth file, or a run folder (as of points2d)."""
    init: str | None = None
    """A run folder whose network is the start, to go on with other data or labels."""
    steps: int | None = None
    """Optimiser steps instead of the recipe's."""
    lr: float | None = None
    """Learning rate instead of the recipe's."""
    instants: int | None = None
    """All but supervised: instants of one subject in a step instead of the recipe's; fewer for short footage."""
    min_gap: float | None = None
    """All but supervised: seconds between two instants of a step instead of the recipe's; less for short footage."""
    rotations: Literal["cameras", "procrustes"] | None = None
    """rhodin_cvpr18: take the rotations between unlabelled views from the cameras (the default), or solve them."""
    frame: Literal["canonical", "world"] | None = None
    """mcss, supervised: turn poses to face a fixed way (the default), or leave them as the room has them."""
    points: str | None = None
    """chen_cvpr19, points2d: where 2D joints come from: labels (the default), or a detector's as a CSV or Parquet file
    with the columns subject,sequence,frame,view,joint,x,y, in pixels of the source images."""
    frozen_stages: int | None = None
    """First stages of the backbone that stay as they are, instead of the recipe's; 0 trains all of it, slower."""
    variants: int | None = None
    """Augmentations of each image that are computed once, instead of the recipe's: more for small captures."""
    rotation: float | None = None
    """mcss, supervised: degrees by which images are turned either way, instead of the recipe's: more for cameras that
    are not level."""
    scale: float | None = None
    """mcss, supervised: share by which people are shown larger or smaller, instead of the recipe's: more for a model
    that is to meet looser and tighter crops."""
    seed: int = 0
    """Decides initial weights, batches and augmentations."""
    precision: Precision | None = None
    """Arithmetic instead of the recipe's, as Fabric names it."""
    out: Path | None = None
    """The run folder; by default one in runs/ that is named after the settings."""
    resume: bool = False
    """Go on with the stopped run in that folder; the result is that of a run that never stopped."""

    def settings(self, method: MethodName) -> TrainSettings:
        """The recipe with these changes."""
        base = recipe(self.recipe, method, self.capture)
        network, own = base.network, base.method
        instants = _asked(instants=self.instants, min_gap=self.min_gap)
        match own:
            case MCSSSettings() | RhodinCVPR18Settings() | Points2DSettings():
                own = replace(own, **instants)
            case RhodinECCV18Settings():
                own = replace(own, representation=replace(own.representation, **instants))
            case ChenCVPR19Settings():
                own = replace(own, representation=replace(own.representation, **instants))
            case _ if instants:
                raise ValueError(f"--instants, --min-gap: {method} does not compare instants; leave them out.")
        if isinstance(own, RhodinCVPR18Settings):
            own = replace(own, rotations=self.rotations or own.rotations)
        elif self.rotations is not None:
            raise ValueError(f"--rotations: rhodin_cvpr18 alone has a choice, not {method}; leave it out.")
        if isinstance(own, MCSSSettings | SupervisedSettings):
            own = replace(own, frame=self.frame or own.frame)
        elif self.frame is not None:
            raise ValueError(f"--frame: mcss and supervised alone have a choice, not {method}; leave it out.")
        warps = _asked(rotation=self.rotation, scale=self.scale)
        if warps and not isinstance(own, MCSSSettings | SupervisedSettings):
            raise ValueError(
                f"--rotation, --scale: mcss and supervised alone have a choice, not {method}; leave them out."
            )
        match own:
            case Points2DSettings():
                own = replace(own, points=self.points or own.points)
            case ChenCVPR19Settings():
                first = own.representation
                own = replace(own, representation=replace(first, points=self.points or first.points))
            case _ if self.points is not None:
                raise ValueError(f"--points: {method} does not learn from 2D joints; leave it out.")
        if self.init is not None:
            network = load_estimator(Path(self.init)).config
        if self.backbone is not None and self.backbone != network.backbone:
            # Frozen stages are chosen for the recipe's own backbone.
            network = replace(network, backbone=self.backbone)
            base = replace(base, frozen_stages=0, variants=0)
        if self.frozen_stages is not None:
            variants = base.variants if self.frozen_stages else 0
            base = replace(base, frozen_stages=self.frozen_stages, variants=variants)
        return replace(
            base,
            variants=base.variants if self.variants is None else self.variants,
            labels="none" if method == "points2d" else self.labels,
            label_views=tuple(self.label_views.split(",")) if self.label_views else (),
            method=own,
            network=network,
            augmentation=replace(base.augmentation, **warps),
            optimiser=replace(base.optimiser, **_asked(steps=self.steps, lr=self.lr)),
            weights=self.weights or base.weights,
            init=self.init,
            seed=self.seed,
            precision=self.precision or base.precision,
        )

    def run(self, method: MethodName) -> Path:
        """The run folder."""
        labels = f"@{Path(self.labels).stem}" if self.labels.startswith("@") else self.labels
        name = f"{method}-{labels}-{self.recipe}-seed{self.seed}"
        return self.out or Path("runs") / name.replace(":", "@").replace(",", "+")


def _asked(**settings: int | float | None) -> dict[str, Any]:
    """Those that were given."""
    return {name: value for name, value in settings.items() if value is not None}


HELP: Mapping[MethodName, str] = {
    "mcss": "Train MCSS: unlabelled synchronised views of everybody, 3D labels of a few or of nobody.",
    "supervised": "Train the baseline: the same network on the labelled images alone.",
    "rhodin_cvpr18": (
        "Train multi-view consistency (Rhodin et al., CVPR 2018): labels first, then views that must agree.\n\n"
        "It needs the cameras' rotations and predicts in camera space. A run's folder `first` holds the initial "
        "network; give it to --init to train it once for several runs."
    ),
    "rhodin_eccv18": (
        "Train novel-view synthesis (Rhodin et al., ECCV 2018): a cloud of 3D points without labels, then the pose."
        "\n\nIt needs the cameras' rotations and images of the empty scene, and predicts in camera space. A run's "
        "folder `first` holds the representation; give it to --init to learn it once for several choices of labels."
    ),
    "chen_cvpr19": (
        "Train skeleton-map synthesis (Chen et al., CVPR 2019): a cloud of 3D points from 2D joints, then the pose."
        "\n\nIt needs the cameras' rotations and 2D joints of all training images, and predicts in camera space. A "
        "run's folder `first` holds the representation; give it to --init to learn it once for several choices of "
        "labels."
    ),
    "points2d": (
        "Pretrain a backbone on 2D joints; give the run to --weights of another training.\n\n"
        "It does not predict 3D poses, and uses no labels of them."
    ),
}
"""Of the verbs of `mcss train`."""


def _verb(method: MethodName) -> Callable[..., None]:
    """What `mcss train METHOD` does."""

    def train_method(
        training: OmitArgPrefixes[TrainOptions],
        machine: OmitArgPrefixes[Machine] = Machine(),  # noqa: B008 (frozen)
        json: JsonFile = None,
    ) -> None:
        """Train a system.

        Args:
            training: What to train on.
            machine: Where to compute.
            json: Also write the result to this file.
        """
        run = train(training.settings(method), training.run(method), training.resume, machine, RichProgress())
        console.print(f"Trained: {run}. Next: [bold]mcss evaluate {run} --capture {training.capture} --split test[/]")
        finish({"run": str(run)}, json)

    return train_method


for _method, _help in HELP.items():
    train_app.command(name=_method, help=_help)(_verb(_method))


@app.command
def equip(
    run: Positional[Path],
    capture: str,
    settings: OmitArgPrefixes[EquipSettings] = EquipSettings(),  # noqa: B008 (frozen)
    out: Path | None = None,
    half: bool = False,
    json: JsonFile = None,
) -> None:
    """Add to a trained model what `mcss predict` uses beside the network: headings and places, expected errors.

    The network stays as it is. Takes a minute or two.

    Args:
        run: A run folder of `mcss train`, or a model file.
        capture: A capture with labels and cameras, such as the synthetic one.
        settings: How.
        out: The model file to write; by default that of the run, in place.
        half: Store all numbers in half precision.
        json: Also write a summary to this file.
    """
    model, opened, progress = load(run), Capture.open(capture), RichProgress()
    labels = chosen_labels(run, settings.labels)
    parts = equipped(model, opened, labels, settings, progress)
    about = {**read_model(run).about, "equipped": f"{opened.fingerprint} {labels}"}
    path = out or (run / MODEL if run.is_dir() else run)
    save_model(path, model.network, about, parts, half)
    assert parts.uncertainty is not None
    weights = [round(float(w), 4) for w in parts.uncertainty.weights]
    console.print(f"Equipped with labels {labels}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    finish({"model": str(path), "labels": labels, "error_weights": weights, "limit": parts.uncertainty.limit}, json)
