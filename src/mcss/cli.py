"""The command line: ``mcss VERB …``. Only this module prints, and only it ends the program."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, arg
from tyro.extras import SubcommandApp

from mcss.ablations import AblationPlan, run_ablation
from mcss.backbones import TrunkName
from mcss.captures import Capture
from mcss.checkpoints import load_estimator
from mcss.evaluation import EvaluationSettings
from mcss.experiments import DemoPlan, ExperimentPlan, evaluate_run, run_demo, run_experiment
from mcss.files import write_json
from mcss.importers.videos import VideosSettings, import_videos
from mcss.methods.mcss import MCSSSettings
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import RhodinECCV18Settings
from mcss.progress import RichProgress
from mcss.recipes import MethodName, RecipeName, recipe
from mcss.report import SystemResult
from mcss.synthetic.build import build
from mcss.synthetic.describe import COLUMNS, describe
from mcss.synthetic.scenes import SyntheticSettings
from mcss.training import Machine, Precision, TrainSettings, train

console = Console()

app = SubcommandApp()
synthetic_app = SubcommandApp()
import_app = SubcommandApp()
train_app = SubcommandApp()

JsonFile = Annotated[Path | None, arg(metavar="FILE")]
"""Every verb's ``--json``."""


def _show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*columns, title=title, title_justify="left", header_style="bold", title_style="bold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _finish(result: Any, json: Path | None) -> None:
    if json is not None:
        write_json(json, result)
        console.print(f"Result written to {json}")


def _about(capture: Capture) -> dict[str, Any]:
    instants = capture.instants()
    return {
        "capture": capture.uri,
        "fingerprint": capture.fingerprint,
        "importer": capture.info.importer,
        "licence": capture.info.licence,
        "image_size": capture.info.image_size,
        "images": len(capture),
        "subjects": list(instants.subjects),
        "actions": list(instants.actions),
        "views": list(capture.views),
        "labelled_instants": int(instants.heading_valid.sum()),
        "splits": {name: len(capture.instants(name)) for name in capture.splits},
    }


def _show_capture(capture: Capture) -> dict[str, Any]:
    about = _about(capture)
    rows = [(key.replace("_", " "), _text(value)) for key, value in about.items()]
    _show("Capture", ("", ""), rows)
    return about


def _text(value: Any) -> str:
    match value:
        case dict():
            return ", ".join(f"{key} {number:,}" for key, number in value.items())
        case list():
            return ", ".join(map(str, value))
        case int():
            return f"{value:,}"
        case _:
            return str(value)


@app.command
def info(capture: Positional[str], json: JsonFile = None) -> None:
    """Say what a capture holds: people, actions, views, labels, splits.

    Args:
        capture: A capture's folder or object-store address.
        json: Also write the result to this file.
    """
    _finish(_show_capture(Capture.open(capture)), json)


@synthetic_app.command(name="build")
def synthetic_build(
    out: Positional[str],
    settings: OmitArgPrefixes[SyntheticSettings] = SyntheticSettings(),  # noqa: B008 (frozen)
    processes: int | None = None,
    json: JsonFile = None,
) -> None:
    """Build the synthetic multi-view capture; the same command carries on after any stop.

    Args:
        out: Folder or object-store address of the new capture.
        settings: What it is like.
        processes: Processes to render with; by default one per processor.
        json: Also write a summary to this file.
    """
    capture = build(out, settings, RichProgress(), processes=processes)
    _finish(_show_capture(capture), json)


@synthetic_app.command(name="describe")
def synthetic_describe(capture: Positional[str], labels: str = "S1", json: JsonFile = None) -> None:
    """Print how well labels cover a capture: distances in mm from its poses to labelled poses, and the oracle.

    Args:
        capture: A capture's folder or object-store address.
        labels: The labels to measure from: S1, S1:0.1, all …
        json: Also write the result to this file.
    """
    coverage = describe(Capture.open(capture), labels, progress=RichProgress())
    _show(f"Coverage by the labels of {labels}, mm", COLUMNS, coverage.table())
    oracle = ("split", "K", "anybody's poses", "other people's poses")
    _show("Retrieval oracle: mean PA-MPJPE of the K nearest, mm", oracle, coverage.oracle_table())
    _finish(asdict(coverage), json)


@import_app.command(name="videos")
def import_of_videos(
    folder: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[VideosSettings] = VideosSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Make a capture of synchronised videos of static cameras, without calibration, labels or weights.

    Args:
        folder: subject/sequence/view.mp4, or the views of one recording.
        out: Folder or object-store address of the new capture.
        settings: How pictures are taken and people found.
        json: Also write a summary to this file.
    """
    summary = import_videos(folder, out, settings, RichProgress())
    for warning in summary.warnings:
        console.print(f"[yellow]Note[/] {escape(warning)}")
    about = _show_capture(summary.capture)
    _finish({**about, "imported": summary.imported, "kept": summary.kept, "warnings": summary.warnings}, json)


@dataclass(frozen=True)
class TrainOptions:
    """What to train on, and what to change of the recipe."""

    capture: str
    """A capture's folder or object-store address."""
    labels: str = "S1"
    """Whose 3D poses are used: S1, S1:0.1 (10 %, evenly spread), S1,S5, all, or none (mcss only)."""
    label_views: str | None = None
    """Use labels of these views only, such as 1,2,3."""
    recipe: RecipeName = "fast"
    """fast: for a laptop. paper: the paper's own, for a GPU."""
    trunk: TrunkName | None = None
    """Another trunk than the recipe's; all of its stages are then trained."""
    weights: str | None = None
    """Start of the trunk: imagenet, random, or a .safetensors or .pth file."""
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
    variants: int | None = None
    """Augmentations of each image that are computed once, instead of the recipe's: more for small captures."""
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
        network, optimiser, own = base.network, base.optimiser, base.method
        match own:
            case MCSSSettings() | RhodinCVPR18Settings():
                own = replace(own, **self._instants())
            case RhodinECCV18Settings():
                own = replace(own, representation=replace(own.representation, **self._instants()))
            case _ if self._instants():
                raise ValueError(f"--instants, --min-gap: {method} does not compare instants; leave them out.")
        if isinstance(own, RhodinCVPR18Settings):
            own = replace(own, rotations=self.rotations or own.rotations)
        elif self.rotations is not None:
            raise ValueError(f"--rotations: rhodin_cvpr18 alone has a choice, not {method}; leave it out.")
        if self.init is not None:
            network = load_estimator(Path(self.init)).config
        if self.trunk is not None and self.trunk != network.trunk:
            # Frozen stages are chosen for the recipe's own trunk.
            network = replace(network, trunk=self.trunk)
            base = replace(base, frozen_stages=0, variants=0)
        if self.steps is not None:
            optimiser = replace(optimiser, steps=self.steps)
        if self.lr is not None:
            optimiser = replace(optimiser, lr=self.lr)
        return replace(
            base,
            variants=base.variants if self.variants is None else self.variants,
            labels=self.labels,
            label_views=tuple(self.label_views.split(",")) if self.label_views else (),
            method=own,
            network=network,
            optimiser=optimiser,
            weights=self.weights or base.weights,
            init=self.init,
            seed=self.seed,
            precision=self.precision or base.precision,
        )

    def _instants(self) -> dict[str, Any]:
        """What was asked for of the instants of a step."""
        asked = {"instants": self.instants, "min_gap": self.min_gap}
        return {name: value for name, value in asked.items() if value is not None}

    def run(self, method: MethodName) -> Path:
        """The run folder."""
        name = f"{method}-{self.labels}-{self.recipe}-seed{self.seed}"
        return self.out or Path("runs") / name.replace(":", "@").replace(",", "+")


def _train(method: MethodName, options: TrainOptions, machine: Machine, json: Path | None) -> None:
    run = train(options.settings(method), options.run(method), options.resume, machine, RichProgress())
    console.print(f"Trained: {run}. Next: [bold]mcss evaluate {run} --capture {options.capture} --split test[/]")
    _finish({"run": str(run)}, json)


@train_app.command(name="mcss")
def train_mcss(
    options: OmitArgPrefixes[TrainOptions],
    machine: OmitArgPrefixes[Machine] = Machine(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Train MCSS: unlabelled synchronised views of everybody, 3D labels of a few or of nobody.

    Args:
        options: What to train on.
        machine: Where to compute.
        json: Also write the result to this file.
    """
    _train("mcss", options, machine, json)


@train_app.command(name="supervised")
def train_supervised(
    options: OmitArgPrefixes[TrainOptions],
    machine: OmitArgPrefixes[Machine] = Machine(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Train the baseline: the same network on the labelled images alone.

    Args:
        options: What to train on.
        machine: Where to compute.
        json: Also write the result to this file.
    """
    _train("supervised", options, machine, json)


@train_app.command(name="rhodin_cvpr18")
def train_rhodin_cvpr18(
    options: OmitArgPrefixes[TrainOptions],
    machine: OmitArgPrefixes[Machine] = Machine(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Train multi-view consistency (Rhodin et al., CVPR 2018): labels first, then views that must agree.

    It needs the cameras' rotations and predicts in camera space. A run's folder ``first`` holds the initial network;
    give it to --init to train it once for several runs.

    Args:
        options: What to train on.
        machine: Where to compute.
        json: Also write the result to this file.
    """
    _train("rhodin_cvpr18", options, machine, json)


@train_app.command(name="rhodin_eccv18")
def train_rhodin_eccv18(
    options: OmitArgPrefixes[TrainOptions],
    machine: OmitArgPrefixes[Machine] = Machine(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Train novel-view synthesis (Rhodin et al., ECCV 2018): a cloud of 3D points without labels, then the pose.

    It needs the cameras' rotations and pictures of the empty scene, and predicts in camera space. A run's folder
    ``first`` holds the representation; give it to --init to learn it once for several choices of labels.

    Args:
        options: What to train on.
        machine: Where to compute.
        json: Also write the result to this file.
    """
    _train("rhodin_eccv18", options, machine, json)


@app.command
def evaluate(
    run: Positional[Path],
    capture: str,
    split: str = "test",
    settings: OmitArgPrefixes[EvaluationSettings] = EvaluationSettings(),  # noqa: B008 (frozen)
    out: Path | None = None,
    json: JsonFile = None,
) -> None:
    """Measure a trained run on a split: pose errors, cross-view retrieval, pictures; report.json and report.html.

    Args:
        run: A run folder of `mcss train`.
        capture: A capture's folder or object-store address.
        split: A split of the capture, such as test or new-motion.
        settings: How much of the split is looked at.
        out: Folder of the report; by default RUN/SPLIT.
        json: Also write the evaluation to this file.
    """
    folder = out or run / split
    command = f"mcss evaluate {run} --capture {capture} --split {split}"
    result = evaluate_run(run, Capture.open(capture), split, settings, folder, command, RichProgress())
    _show_result(result)
    console.print(f"Report: {folder / 'report.html'}")
    _finish(result.evaluation.to_json(), json)


def _show_result(result: SystemResult) -> None:
    evaluation = result.evaluation
    if (pose := evaluation.pose) is not None:
        rows = [("all poses", pose.over_poses), ("mean of actions", pose.over_actions), *sorted(pose.actions.items())]
        columns = ("", "MPJPE", "N-MPJPE", "PA-MPJPE", "N-MPJPE, 17 joints", "PCK@150", "AUC")
        lines = [
            (
                name,
                *(f"{v:.1f}" for v in (s.mpjpe, s.n_mpjpe, s.pa_mpjpe, s.n_mpjpe_17)),
                f"{s.pck:.3f}",
                f"{s.auc:.3f}",
            )
            for name, s in rows
        ]
        space = {"canonical": "Canonical pose", "camera": "Pose in camera space"}[pose.frame]
        _show(f"{space}, mm, 16 joints: split {evaluation.split}", columns, lines)
    if (retrieval := evaluation.retrieval) is None:
        return
    cases = (("everybody", retrieval.all_subjects), ("other people only", retrieval.cross_subject))
    lines = [
        (name, str(s.k), f"{s.mean_pa_mpjpe:.1f}", f"{s.oracle:.1f}", f"{s.above_oracle:.1f}")
        for name, case in cases
        if case is not None
        for s in case.scores
    ]
    if lines:
        _show("Cross-view retrieval: Mean-PA-MPJPE@K, mm", ("gallery", "K", "found", "oracle", "above oracle"), lines)
    if (instant := retrieval.same_instant) is not None:
        console.print(
            f"Same instant from another view (within ±{instant.tolerance} frames): Hit@1 {instant.hit_at_1:.3f} "
            f"(chance {instant.chance_at_1:.3f}), Hit@5 {instant.hit_at_5:.3f} (chance {instant.chance_at_5:.3f})"
        )


def _mm(value: float) -> str:
    return f"{value:.1f}"


@app.command
def demo(
    out: Path = Path("demo"),
    plan: OmitArgPrefixes[DemoPlan] = DemoPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """The main job: build the capture, train the baseline and MCSS with one subject's labels, compare, report.

    Args:
        out: Folder for everything; the same command carries on after any stop.
        plan: How much of everything.
        json: Also write the report's rows to this file.
    """
    _finish(run_demo(out, plan, RichProgress()), json)
    console.print(f"Report: [bold]{out / 'report.html'}[/]")


@app.command
def experiment(
    capture: str,
    out: Path = Path("results"),
    plan: OmitArgPrefixes[ExperimentPlan] = ExperimentPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """The main comparison with three seeds, cell by cell; finished cells are kept. Writes the README's table.

    Args:
        capture: A capture's folder or object-store address.
        out: Folder of the cells, the table and the report.
        plan: How much of everything.
        json: Also write the report's rows to this file.
    """
    _finish(run_experiment(capture, out, plan, RichProgress()), json)
    console.print(f"Table: {out / 'table.md'} · report: [bold]{out / 'report.html'}[/]")


@app.command
def ablation(
    capture: str,
    out: Path = Path("results/ablation"),
    plan: OmitArgPrefixes[AblationPlan] = AblationPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """What each departure of the recipe fast is worth: one taken back at a time, on the validation subject.

    Args:
        capture: A capture's folder or object-store address.
        out: Folder of the runs and the table; finished runs are kept.
        plan: How much of everything.
        json: Also write the rows to this file.
    """
    _finish(run_ablation(capture, out, plan, RichProgress()), json)
    console.print(f"Table: {out / 'ablation.md'}")


app.command(synthetic_app, name="synthetic", help="The built-in multi-view capture.")
app.command(import_app, name="import", help="Make a capture of one's own footage.")
app.command(train_app, name="train", help="Train MCSS, or a system that it is compared with.")

_DESCRIPTION = (
    "3D human pose and view-invariant pose search from synchronised, uncalibrated, unlabelled multi-view video and a "
    "few 3D labels. Start with `mcss demo`."
)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; errors that a user can mend are told in one message, without a traceback."""
    errors = Console(stderr=True)
    try:
        app.cli(prog="mcss", description=_DESCRIPTION, args=args)
    except KeyboardInterrupt:
        errors.print(
            "\n[yellow]Stopped.[/] What was finished is kept; the same command (training: with --resume) goes on."
        )
        sys.exit(130)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        errors.print(f"[red]Error[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(1)
