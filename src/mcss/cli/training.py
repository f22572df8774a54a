"""Verbs that train: train, equip, remember."""

import argparse
import json as jsonlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, get_args

import tyro
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.arguments import Command, Verbs
from mcss.cli.terminal import CaptureAddress, JsonFile, RunPath, app, console, finish
from mcss.data.capture import Capture
from mcss.methods.method import Method
from mcss.methods.recipe import RecipeName
from mcss.methods.registry import METHODS, load_estimator, network_kinds
from mcss.models.backbones import PRETRAINED
from mcss.models.model import load
from mcss.models.model_file import MODEL, NO_PARTS, read_model, save_model
from mcss.models.pose_network import PoseNetwork
from mcss.models.run_names import is_elsewhere, located
from mcss.progress import RichProgress
from mcss.training.checkpoints import METRICS
from mcss.training.config_file import read_config
from mcss.training.discriminant import with_fitted_embedding
from mcss.training.heads import EquipSettings, chosen_labels, equipped, remember_labels
from mcss.training.loop import train
from mcss.training.machine import Machine
from mcss.training.metrics_log import read_metrics
from mcss.training.settings import TrainSettings, recipe

train_app = Verbs()

app.group(train_app, name="train", word="METHOD", help="Train MCSS, or a method that it is compared with.")

NEXT = "Trained: {run}. Next: [bold]mcss evaluate {run} --capture {capture} --split test[/]"


@dataclass(frozen=True)
class TrainCommand(Command):
    """`mcss train METHOD`, whose options are the method's settings and have the defaults of a recipe."""

    method: type[Method] = field(kw_only=True)

    def read(self, prog: str, args: Sequence[str]) -> Callable[[], None]:
        """Read the options that decide the defaults of the others, then all of them."""
        unused = self.method.network.UNUSED_CONFIG
        return Command(_trainer(defaults(self.method, args)), self.help, unused).read(prog, args)


def defaults(method: type[Method], args: Sequence[str] = ()) -> TrainSettings:
    """Return the settings that apply where `args` state no others; the capture may be missing.

    They are those of --recipe, of the file --config, and of the network of the run --init. Without frozen stages
    nothing can be computed once; and a recipe freezes stages of its own backbone, not of another one.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("recipe", "config", "init", "backbone", "frozen-stages"):
        parser.add_argument(f"--{name}", f"--{name.replace('-', '_')}", dest=name.replace("-", "_"), nargs="?")
    given, _ = parser.parse_known_args(list(args))
    settings = recipe(given.recipe if given.recipe in get_args(RecipeName) else "fast", method, "")
    if given.config is not None:
        settings = read_config(Path(given.config), settings)
    if given.init is not None:
        network = load_estimator(Path(given.init)).config
        if network.backbone != settings.network.backbone:
            settings = replace(settings, frozen_stages=0, variants=0)
        settings = replace(settings, network=network)
    if given.backbone is not None and given.backbone != settings.network.backbone:
        weights = PRETRAINED.get(given.backbone, "imagenet")
        settings = replace(settings, frozen_stages=0, variants=0, weights=weights)
    if given.frozen_stages == "0":
        settings = replace(settings, frozen_stages=0, variants=0)
    return settings


def _trainer(base: TrainSettings) -> Callable[..., None]:
    """Return the function that `mcss train METHOD` runs, with the defaults that its help shows."""
    if not base.capture:
        base = copy(base)
        object.__setattr__(base, "capture", tyro.MISSING_NONPROP)  # required, which no valid settings can say

    def train_method(
        settings: OmitArgPrefixes[TrainSettings] = base,
        recipe: RecipeName = "fast",
        config: Path | None = None,
        show_config: bool = False,
        out: Annotated[Path | None, arg(aliases=["-o"])] = None,
        resume: bool = False,
        machine: OmitArgPrefixes[Machine] = Machine(),  # noqa: B008 (frozen)
        json: JsonFile = None,
    ) -> None:
        """Train a method.

        Args:
            settings: What to train, and on what.
            recipe: Defaults of all settings. fast: for a laptop. paper: the paper's own, for a GPU;
                paper+aug: the same with images changed at random.
            config: Defaults from a file instead: a run's config.json, or TOML or YAML with some of the settings below.
            show_config: Print the settings as JSON, which --config reads, and train nothing.
            out: Run folder; by default one in runs/ that is named after the settings.
            resume: Go on with the stopped run in that folder; the result is that of a run that never stopped.
            machine: Where to compute.
            json: Also write the result to this file.
        """
        settings = checked(settings)
        if show_config:
            stated = {**asdict(settings), "method_name": settings.method.name}
            print(jsonlib.dumps(stated, indent=2, ensure_ascii=False))
            finish(stated, json)
            return
        run = train(settings, out or run_folder(settings, recipe), resume, machine, RichProgress())
        for line in outcome(settings, run):
            console.print(line, soft_wrap=True)
        console.print(NEXT.format(run=run, capture=settings.capture), soft_wrap=True)
        finish({"run": str(run)}, json)

    return train_method


def outcome(settings: TrainSettings, run: Path) -> list[str]:
    """Say what a training has changed that its next command does not show, in sentences."""
    lines = []
    points = [line["validation"] for line in read_metrics(run / METRICS) if "validation" in line]
    hits = [point["hit_at_1"] for point in points if "hit_at_1" in point]
    if settings.labels == "none" and hits:
        before = "" if len(hits) == 1 else f", {hits[0]:.1%} at step {points[0]['step']:,}"
        lines.append(
            f"On validation images the same moment is now found first in another view {hits[-1]:.1%} of the time"
            f"{before}. Poses in mm were not trained and may have become worse: without labels only search gets better."
        )
    parts = NO_PARTS if settings.init is None else read_model(Path(settings.init), network_kinds()).parts
    if parts.orientation is not None or parts.uncertainty is not None:
        lines.append(
            f"The headings and expected errors of {settings.init} do not fit the new network and are left out: "
            f"mcss equip {run} --capture CAPTURE fits new ones, with a capture that has labels and cameras."
        )
    return lines


def checked(settings: TrainSettings) -> TrainSettings:
    """Return settings of the command line with separate views.

    Raises:
        ValueError: Labels are given to a method that uses none.
    """
    if not settings.method.pose_images and settings.labels != "none":
        raise ValueError(
            f"labels: {settings.method.name} uses no 3D labels, got {settings.labels!r}; leave --labels out."
        )
    views = tuple(view for words in settings.label_views for view in words.split(","))
    return replace(settings, label_views=views)


def run_folder(settings: TrainSettings, recipe: RecipeName) -> Path:
    """Return the run folder of some settings, where none is given."""
    labels = f"@{Path(settings.labels).stem}" if settings.labels.startswith("@") else settings.labels
    name = f"{settings.method.name}-{labels}-{recipe}-seed{settings.seed}"
    return Path("runs") / name.replace(":", "@").replace(",", "+")


for _method in METHODS:
    _help = f"{_method.summary}\n\n{_method.details}".strip()
    train_app.entries[_method.name] = TrainCommand(_trainer(defaults(_method)), _help, method=_method)


@app.command
def equip(
    run: Positional[RunPath],
    capture: CaptureAddress,
    settings: OmitArgPrefixes[EquipSettings] = EquipSettings(),  # noqa: B008 (frozen)
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    half: bool = False,
    json: JsonFile = None,
) -> None:
    """Fit the orientation and uncertainty heads of a trained model, which `mcss predict` uses.

    They tell how people stand in front of the camera, and the expected error of a pose. The network itself does not
    change. This takes a minute or two.

    Args:
        run: Run folder of `mcss train`, or a model file.
        capture: Capture with labels and cameras, such as the synthetic one.
        settings: How the heads are fitted.
        out: Model file to write; by default the model file of the run is replaced.
        half: Store all numbers in half precision.
        json: Also write a summary to this file.
    """
    if out is None and is_elsewhere(str(run)):
        raise ValueError(
            f"out: {run} is no run of yours, whose model file could be replaced; say where with --out FILE."
        )
    run = located(run)
    model, opened, progress = load(run), Capture.open(capture), RichProgress()
    labels = chosen_labels(run, settings.labels)
    parts = equipped(model, opened, labels, settings, progress)
    about = {**read_model(run).about, "equipped": f"{opened.fingerprint} {labels}"}
    path = out or (run / MODEL if run.is_dir() else run)
    save_model(path, model.network, about, parts, half)
    assert parts.uncertainty is not None
    weights = [round(float(w), 4) for w in parts.uncertainty.weights]
    console.print(f"Equipped with labels {labels}: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    limit = parts.uncertainty.limit
    finish({"model": str(path), "labels": str(labels), "error_weights": weights, "limit": limit}, json)


@app.command
def remember(
    run: Positional[RunPath],
    capture: CaptureAddress,
    labels: str | None = None,
    split: str = "train",
    fit: bool = True,
    *,
    out: Annotated[Path, arg(aliases=["-o"])],
    json: JsonFile = None,
) -> None:
    """Let a model read poses off the nearest labelled ones in its embedding, instead of by its pose head.

    The embedding is first fitted to all views at once, labelled or not. Nothing is trained by steps: this takes some
    minutes, and works with labels that were made after training. The heads of `mcss equip` are left out; fit them
    again. An index has to be made anew, since other embeddings lie in it.

    Args:
        run: Run folder of `mcss train`, or a model file.
        capture: Capture with the labelled images.
        labels: Whose labels, as for `mcss train`; by default those that the run was trained with.
        split: Split of the images.
        fit: Fit the embedding to the views of the capture; with --no-fit, better for a few minutes of one person, it
            stays as it was trained.
        out: Model file to write.
        json: Also write a summary to this file.
    """
    run = located(run)
    file, opened, progress = read_model(run), Capture.open(capture), RichProgress()
    network, chosen = file.network, chosen_labels(run, labels)
    assert isinstance(network, PoseNetwork)
    if fit:
        network = with_fitted_embedding(network, opened, split, progress)
    known = remember_labels(network, opened, chosen, split, progress)
    about = {key: value for key, value in file.about.items() if key != "equipped"}
    save_model(out, network, {**about, "remembers": f"{opened.fingerprint} {chosen}"})
    console.print(
        f"Reads poses off {known} labelled ones: {out}. Next: [bold]mcss evaluate {out} --capture {capture}[/]"
    )
    finish({"model": str(out), "labels": str(chosen), "known": known}, json)
