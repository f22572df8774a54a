"""The command line: ``mcss VERB …``. Only this module prints, and only it ends the program."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg
from tyro.extras import SubcommandApp

from mcss.ablations import AblationPlan, run_ablation
from mcss.backbones import TrunkName
from mcss.captures import Capture
from mcss.checkpoints import load_estimator
from mcss.doctor import DoctorSettings, diagnose
from mcss.doctor_page import MARKS, doctor_page
from mcss.evaluation import EvaluationSettings
from mcss.experiments import DemoPlan, ExperimentPlan, evaluate_run, provenance, run_demo, run_experiment
from mcss.files import write_json, write_text
from mcss.importers import ImportProblem
from mcss.importers.aspset import AspsetSettings, import_aspset
from mcss.importers.assembly import Assembled
from mcss.importers.human36m.release import import_human36m
from mcss.importers.human36m.takes import Human36MSettings
from mcss.importers.mpi_inf_3dhp.takes import MpiInf3dhpSettings, import_mpi_inf_3dhp
from mcss.importers.videos import VideosSettings, import_videos
from mcss.labels import write_instants
from mcss.methods.mcss import MCSSSettings
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import RhodinECCV18Settings
from mcss.progress import RichProgress
from mcss.recipes import MethodName, RecipeName, recipe
from mcss.report import SystemResult
from mcss.scene_viewer import show_in_rerun
from mcss.selection import SelectSettings, select_instants
from mcss.sheets import chosen_instants, contact_sheet, spread_instants, write_picture
from mcss.synchronisation import SyncSettings, picture_of, synchronise
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
        "splits": {name: int(instants.selected(picks).sum()) for name, picks in capture.splits.items()},
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


@app.command
def doctor(
    capture: Positional[str],
    out: Path | None = None,
    settings: OmitArgPrefixes[DoctorSettings] = DoctorSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Look for faults in a capture: views out of step, impossible poses, bad pictures … Exit status 1 if there are any.

    Args:
        capture: A capture's folder or object-store address.
        out: Folder for doctor.html, with pictures of the worst cases, and doctor.json; none by default.
        settings: What counts as a fault.
        json: Also write the result to this file.
    """
    opened = Capture.open(capture)
    diagnosis = diagnose(opened, settings, RichProgress())
    rows = [(c.name, f"{MARKS[c.verdict]} {c.verdict}", c.looked, f"{c.found:,}", c.text) for c in diagnosis.checks]
    _show("Doctor", ("check", "verdict", "looked at", "found", "what, and the way out"), rows)
    for check in diagnosis.faults:
        for case in check.cases:
            console.print(f"[red]{check.name}[/] {escape(case.where)}", highlight=False)
    if out is not None:
        made = provenance(f"mcss doctor {capture} --out {out}", opened, {})
        write_json(out / "doctor.json", diagnosis.to_json())
        write_text(out / "doctor.html", doctor_page(diagnosis, opened, made))
        console.print(f"Report: [bold]{out / 'doctor.html'}[/]")
    _finish(diagnosis.to_json(), json)
    if diagnosis.faults:
        sys.exit(1)


Choice = Annotated[tuple[str, ...], UseAppendAction]
"""An option that may be given several times."""


@app.command
def show(
    capture: Positional[str],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None,
    subject: Choice = (),
    action: Choice = (),
    split: str | None = None,
    instants: int = 8,
    size: int = 128,
    across: int = 1,
    plain: bool = False,
    rerun: bool = False,
    json: JsonFile = None,
) -> None:
    """Show some instants: a contact sheet (rows are instants, columns are views), or a 3D view to turn about.

    Args:
        capture: A capture's folder or object-store address.
        out: The sheet, .jpg or .png; sheet.jpg by default. With --rerun an .rrd file instead of the viewer.
        subject: Only of this subject; may be given several times.
        action: Only of this action; may be given several times.
        split: Only of this split.
        instants: How many, spread over subjects and time.
        size: Side of a picture in pixels.
        across: Instants beside each other.
        plain: Pictures alone, without skeletons and text.
        rerun: Show cameras, poses and pictures in the viewer Rerun (extra rerun).
        json: Also write what was shown to this file.
    """
    opened = Capture.open(capture)
    chosen = chosen_instants(opened, subjects=subject, actions=action, split=split)
    chosen = chosen.take(spread_instants(chosen, instants))
    if rerun:
        show_in_rerun(opened, chosen, out)
    else:
        out = out or Path("sheet.jpg")
        write_picture(out, contact_sheet(opened, chosen, size=size, across=across, plain=plain))
    console.print(f"{len(chosen)} instants{'' if out is None else f': {out}'}")
    _finish({"out": out and str(out), "instants": [chosen.describe(i) for i in range(len(chosen))]}, json)


@app.command
def select(
    capture: Positional[str],
    settings: OmitArgPrefixes[SelectSettings] = SelectSettings(),  # noqa: B008 (frozen)
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")] = Path("selected.csv"),
    json: JsonFile = None,
) -> None:
    """Choose the instants that are most worth a label: a CSV for `mcss train --labels @FILE.csv`, and their pictures.

    Args:
        capture: A capture's folder or object-store address.
        settings: What to choose from, and by what.
        out: The CSV, the most needed instants first; a contact sheet is written beside it.
        json: Also write a summary to this file.
    """
    opened = Capture.open(capture)
    selection = select_instants(opened, settings, RichProgress())
    write_instants(out, selection.instants)
    sheet = out.with_suffix(".jpg")
    write_picture(sheet, contact_sheet(opened, selection.instants, size=64, across=4, plain=True))
    console.print(
        f"{settings.budget} of {selection.candidates:,} instants by {selection.space}: {out}, pictures {sheet}. "
        f"The farthest instant is {selection.radius[-1]:.3g} from a chosen one, "
        f"{selection.radius[0]:.3g} from the first."
    )
    if selection.posed and selection.space != "pose":
        console.print(f"[yellow]Note[/] {selection.posed:,} of them have a pose already: --by pose chooses by it.")
    radius = [round(float(r), 6) for r in selection.radius]
    _finish({"out": str(out), "by": selection.space, "candidates": selection.candidates, "radius": radius}, json)


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
    settings: Annotated[VideosSettings, arg(name="")] = VideosSettings(),  # noqa: B008 (frozen)
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


@import_app.command(name="mpi-inf-3dhp")
def import_of_mpi_inf_3dhp(
    source: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[MpiInf3dhpSettings] = MpiInf3dhpSettings(),  # noqa: B008 (frozen)
    processes: int | None = None,
    json: JsonFile = None,
) -> None:
    """Make a capture of MPI-INF-3DHP as released; the same command carries on after any stop.

    Args:
        source: The folder with S1 to S8, and TS1 to TS6 or mpi_inf_3dhp_test_set.
        out: Folder or object-store address of the new capture.
        settings: Which cameras, frames and poses are taken, and which known faults are put right.
        processes: Processes to read with; by default one per processor.
        json: Also write a summary to this file.
    """
    _show_assembled(import_mpi_inf_3dhp(source, out, settings, RichProgress(), processes), json)


@import_app.command(name="aspset")
def import_of_aspset(
    source: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[AspsetSettings] = AspsetSettings(),  # noqa: B008 (frozen)
    processes: int | None = None,
    json: JsonFile = None,
) -> None:
    """Make a capture of ASPset-510 as released; the same command carries on after any stop.

    Args:
        source: The folder with splits.csv, trainval and test.
        out: Folder or object-store address of the new capture.
        settings: Which cameras and pictures are taken, and how.
        processes: Processes to read with; by default one per processor.
        json: Also write a summary to this file.
    """
    _show_assembled(import_aspset(source, out, settings, RichProgress(), processes), json)


@import_app.command(name="human36m")
def import_of_human36m(
    folder: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[Human36MSettings] = Human36MSettings(),  # noqa: B008 (frozen)
    processes: int | None = None,
    json: JsonFile = None,
) -> None:
    """Make a capture of Human3.6M as released: videos, D3_Positions, ground-truth boxes and metadata.xml.

    Args:
        folder: Where the archives were unpacked: it has S1, S5, … and metadata.xml.
        out: Folder or object-store address of the new capture.
        settings: Which pictures are taken, and how.
        processes: Processes to work with; by default one per processor.
        json: Also write a summary to this file.
    """
    _show_assembled(import_human36m(folder, out, settings, RichProgress(), processes=processes), json)


def _show_assembled(done: Assembled, json: Path | None) -> None:
    """What was imported against what should be there; ends with 1 if sequences are missing."""
    for note in done.notes:
        console.print(f"[yellow]Note[/] {escape(note)}", soft_wrap=True)
    about = _show_capture(done.capture)
    lines = [
        (c.subject, f"{c.sequences} of {c.expected_sequences}", f"{c.images:,} of {c.expected_images:,}")
        for c in done.counts
    ]
    _show("There, of what is expected", ("subject", "sequences", "images of the sequences found"), lines)
    counts = [asdict(count) for count in done.counts]
    problems = {"notes": done.notes, "problems": done.problems}
    _finish({**about, "imported": done.imported, "kept": done.kept, "counts": counts, **problems}, json)
    if done.problems:
        raise ImportProblem(
            "\n".join(done.problems) + f"\nThese {len(done.problems)} could not be imported; all else is in "
            f"{done.capture.uri} and can be used. Mend them and give the same command again."
        )


@app.command
def sync(
    folder: Positional[Path],
    settings: OmitArgPrefixes[SyncSettings] = SyncSettings(),  # noqa: B008 (frozen)
    run: Path | None = None,
    json: JsonFile = None,
) -> None:
    """Find the offsets between cameras that were started by hand; writes sync.json, which import applies, and sync.png.

    Args:
        folder: subject/sequence/view.mp4, or the views of one recording.
        settings: How offsets are found.
        run: A trained run whose embedding refines the offsets.
        json: Also write the result to this file.
    """
    found = synchronise(folder, settings, run, RichProgress())
    for one in found:
        rows = [
            (name, f"{c.start:+.3f}", f"{c.start * c.rate:+.2f}", f"{c.pace:.6f}", c.evidence, f"{c.confidence:.2f}")
            for name, c in one.clocks.items()
        ]
        columns = ("view", "starts, s", "in its pictures", "pace", "by", "confidence")
        _show(f"{one.recording.name}: clocks, seen from {one.reference}", columns, rows)
    for warning in [text for one in found for text in one.warnings()]:
        console.print(f"[yellow]Warning[/] {escape(warning)}")
    console.print(f"Written to {folder / 'sync.json'}, which [bold]mcss import videos {folder} OUT[/] applies.")
    for one in found:
        console.print(f"Look at {picture_of(folder, one.recording, len(found) > 1)}: every column shows one instant.")
    _finish({one.recording.name: {name: asdict(c) for name, c in one.clocks.items()} for one in found}, json)


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
        labels = f"@{Path(self.labels).stem}" if self.labels.startswith("@") else self.labels
        name = f"{method}-{labels}-{self.recipe}-seed{self.seed}"
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
app.command(import_app, name="import", help="Make a capture of one's own footage or of a data set.")
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
