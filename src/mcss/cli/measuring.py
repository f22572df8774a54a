"""Verbs that measure and compare: evaluate, experiment, ablation, reproduce."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.comparisons import show_comparison
from mcss.cli.terminal import (
    CaptureAddress,
    JsonFile,
    PredictionWorkers,
    RunPath,
    app,
    command_line,
    console,
    finish,
    show_table,
)
from mcss.data.capture import Capture
from mcss.data.loading.pixels import limited_memory
from mcss.evaluation.predictions import EvaluationSettings
from mcss.evaluation.results import SystemResult
from mcss.experiments.ablation import AblationPlan, run_ablation
from mcss.experiments.comparison import ExperimentPlan, evaluate_run, run_experiment
from mcss.experiments.estimates import Estimate
from mcss.experiments.reproduce import ReproducePlan, Wanted, wanted_parts
from mcss.experiments.reproduce import checked as checked_parts
from mcss.experiments.reproduce import estimate as estimate_parts
from mcss.experiments.reproduce import reproduce as reproduce_parts
from mcss.models.model_file import MODEL
from mcss.models.run_names import SHIPPED, SHIPPED_NAME, located
from mcss.progress import RichProgress


@app.command
def evaluate(
    run: Positional[RunPath | None] = None,
    *,
    capture: CaptureAddress,
    split: str = "test",
    settings: OmitArgPrefixes[EvaluationSettings] = EvaluationSettings(),  # noqa: B008 (frozen)
    workers: OmitArgPrefixes[PredictionWorkers] = PredictionWorkers(),  # noqa: B008 (frozen)
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    json: JsonFile = None,
) -> None:
    """Evaluate a trained model on a split: pose errors, cross-view retrieval, example images.

    Writes report.json and report.html.

    Args:
        run: Run folder of `mcss train` or model file, by default the weights shipped with mcss.
        capture: Folder or object-store address of a capture.
        split: Split of the capture, such as test or new-motion.
        settings: How much of the split is evaluated.
        workers: Which processes predict.
        out: Folder of the report, by default SPLIT in the run folder, or evaluations/NAME/SPLIT for a model that is no
            run folder here.
        json: Also write the evaluation to this file.
    """
    folder = out or evaluation_folder(run) / split
    opened = Capture.open(capture)
    model = SHIPPED if run is None else located(run)
    result = evaluate_run(model, opened, split, settings, folder, command_line(), RichProgress(), workers.chosen)
    _show_result(result)
    console.print(f"Report: {folder / 'report.html'}", soft_wrap=True)
    finish(result.evaluation.to_json(), json)


def evaluation_folder(run: Path | None) -> Path:
    """Return the folder for evaluations of a model where none is given: its run folder, or one of its own."""
    if run is None:
        return Path("evaluations") / SHIPPED_NAME
    if run.is_dir():
        return run
    if run.name == MODEL and run.is_file():
        return run.parent
    return Path("evaluations") / run.name.removesuffix(".safetensors").replace(":", "-")


def _show_result(result: SystemResult) -> None:
    evaluation = result.evaluation
    if (pose := evaluation.pose) is not None:
        rows = [("all poses", pose.over_poses), ("mean of actions", pose.over_actions), *sorted(pose.actions.items())]
        columns = ("poses", "MPJPE", "N-MPJPE", "PA-MPJPE", "N-MPJPE, 17 joints", "PCK@150", "AUC")
        lines = [
            (
                name,
                *(f"{v:.1f}" for v in (s.mpjpe, s.n_mpjpe, s.pa_mpjpe, s.n_mpjpe_17)),
                f"{s.pck:.3f}",
                f"{s.auc:.3f}",
            )
            for name, s in rows
        ]
        space = {"canonical": "Canonical pose", "camera": "Pose in camera space", "world": "Pose in world space"}[
            pose.frame
        ]
        show_table(f"{space}, mm, 16 joints: split {evaluation.split}", columns, lines)
    if (retrieval := evaluation.retrieval) is None:
        return
    cases = (("all subjects", retrieval.all_subjects), ("other subjects only", retrieval.cross_subject))
    lines = [
        (name, str(s.k), f"{s.mean_pa_mpjpe:.1f}", f"{s.oracle:.1f}", f"{s.above_oracle:.1f}")
        for name, case in cases
        if case is not None
        for s in case.scores
    ]
    if lines:
        show_table(
            "Cross-view retrieval: Mean-PA-MPJPE@K, mm", ("gallery", "K", "found", "oracle", "above oracle"), lines
        )
        sampled = next(case for _, case in cases if case is not None)
        console.print(
            f"{sampled.queries:,} queries in a gallery of {sampled.gallery:,} of the {evaluation.images:,} images, "
            "drawn at random if there are more than --max-queries and --max-gallery allow."
        )
    if (instant := retrieval.same_instant) is not None:
        console.print(
            f"Same instant from another view ({_tolerated(instant.tolerance)}): Hit@1 {instant.hit_at_1:.3f} "
            f"(chance {instant.chance_at_1:.3f}), Hit@5 {instant.hit_at_5:.3f} (chance {instant.chance_at_5:.3f})"
        )


def _tolerated(frames: int) -> str:
    """Say what counts as the same instant."""
    return f"within ±{frames} frames" if frames else "the exact instant; --tolerance 5 also counts those 5 frames away"


@app.command
def experiment(
    capture: CaptureAddress,
    out: Annotated[Path, arg(aliases=["-o"])] = Path("results"),
    plan: OmitArgPrefixes[ExperimentPlan] = ExperimentPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Compare MCSS with the supervised baseline at four label budgets and with three seeds, in a table and a report.

    Finished runs are kept, so that the command can be stopped and repeated.

    Args:
        capture: A capture's folder or object-store address.
        out: Folder for the runs, the table and the report.
        plan: How much is trained.
        json: Also write the report's rows to this file.
    """
    report = run_experiment(capture, out, plan, RichProgress(), command_line())
    show_comparison(report)
    finish(report.to_json(), json)
    console.print(f"Table: {out / 'table.md'} · report: [bold]{out / 'report.html'}[/]", soft_wrap=True)


@app.command
def ablation(
    capture: CaptureAddress,
    out: Annotated[Path, arg(aliases=["-o"])] = Path("results/ablation"),
    plan: OmitArgPrefixes[AblationPlan] = AblationPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Measure what each departure of the recipe fast from the paper contributes, on the validation subject.

    Each variant reverts one departure. Finished runs are kept, so that the command can be stopped and repeated.

    Args:
        capture: A capture's folder or object-store address.
        out: Folder for the runs and the table.
        plan: How much is trained.
        json: Also write the rows to this file.
    """
    finish(run_ablation(capture, out, plan, RichProgress(), command_line()).to_json(), json)
    console.print(f"Table: {out / 'ablation.md'}")


@app.command
def reproduce(
    parts: Positional[tuple[Wanted, ...]],
    capture: CaptureAddress,
    out: Annotated[Path, arg(aliases=["-o"])] = Path("results"),
    plan: OmitArgPrefixes[ReproducePlan] = ReproducePlan(),  # noqa: B008 (frozen)
    estimate: bool = False,
    json: JsonFile = None,
) -> None:
    """Reproduce the paper's tables and figures on a capture, with the paper's numbers beside ours.

    Finished runs are kept, so that the command can be stopped and repeated.

    Args:
        parts: Parts to reproduce.
        capture: A capture's folder or object-store address.
        out: Folder for the results.
        plan: How much is trained and measured.
        estimate: Only say what is left to train and how long it will take.
        json: Also write the rows to this file.
    """
    with limited_memory(plan.memory_gb):
        _reproduce(parts, capture, out, plan, estimate, json)


def _reproduce(
    parts: tuple[Wanted, ...], capture: str, out: Path, plan: ReproducePlan, estimate: bool, json: Path | None
) -> None:
    study = plan.study(capture, out, RichProgress())
    named, notes = wanted_parts(parts, study)
    for note in notes:
        _note(note)
    named, study, trials = checked_parts(named, study, plan.trials, _note)
    if estimate or plan.train:  # not with --no-train, since it tries a step of every system
        left = estimate_parts(named, study, trials)
        _show_estimate(left, plan.processes)
        if estimate:
            finish([{**asdict(system), "hours": system.hours} for system in left], json)
            return
    measured = reproduce_parts(named, study, trials, command_line(), _plain)
    if measured:
        console.print(f"Page: [bold]{out / 'index.html'}[/]", soft_wrap=True)
    finish({part.name: [row.to_json() for row in part.rows] for part in measured}, json)


def _note(text: str) -> None:
    console.print(f"[yellow]Note[/] {escape(text)}", soft_wrap=True)


def _plain(text: str) -> None:
    console.print(escape(text), soft_wrap=True)


def _show_estimate(left: Sequence[Estimate], processes: int) -> None:
    if not left:
        console.print("Nothing is left to train.")
        return
    rows = [
        (
            system.system,
            str(system.cells),
            f"{system.steps:,}",
            f"{system.seconds_per_step:.2f} s, " + ("from finished runs" if system.known else "from one step"),
            f"{system.hours:.1f}",
        )
        for system in left
    ]
    show_table("Left to train", ("system", "runs", "steps", "time per step", "hours"), rows)
    total = sum(system.hours for system in left)
    disk = sum(system.gigabytes for system in left)
    parallel = f", at best {total / processes:.1f} with {processes} in parallel" if processes > 1 else ""
    console.print(
        f"About {total:.1f} hours in all{parallel}, and {disk:.1f} GB of disk for the runs. Reading images and "
        "computing frozen stages, once, comes on top."
    )
