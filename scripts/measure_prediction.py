"""Measure what `mcss predict` adds to the network: headings, fused views, expected errors, BVH files.

    mcss equip RUN --capture captures/synthetic --out MODEL
    python scripts/measure_prediction.py MODEL captures/synthetic

Everything is measured on people who were not in training. Writes docs/results/fusion.json and
docs/results/prediction.json, the image docs/images/expected_errors.png, and the tables of docs/predict.md.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from mcss.data.capture import Capture
from mcss.data.formats.bvh import with_fixed_bones
from mcss.data.instants import Instants
from mcss.data.provenance import provenance
from mcss.evaluation.predictions import target_poses
from mcss.files import replacing, write_json
from mcss.inference.fusion import fuse
from mcss.metrics import mpjpe, n_mpjpe, pa_mpjpe
from mcss.models.model import Poses, load
from mcss.models.orientation import SURE, Orientation, angle_between
from mcss.progress import RichProgress
from mcss.skeletons import canonical_pose
from mcss.training.heads import LabelledImages, known_orientations
from mcss.viz.style import PALETTE
from write_table import write_between

PAGE = Path("docs/predict.md")


def main() -> None:
    """Predict, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("capture")
    parser.add_argument("--split", default="test")
    parser.add_argument("--instants", type=int, default=400)
    options = parser.parse_args()
    model, capture, progress = load(options.model), Capture.open(options.capture), RichProgress()
    if model.parts.uncertainty is None or model.parts.orientation is None:
        parser.error(f"{options.model} lacks what `mcss equip` adds; run that first")
    instants = capture.instants(options.split)
    whole = instants.take(np.flatnonzero(instants.heading_valid & (instants.rows >= 0).all(axis=1)))
    some = whole.take(np.unique(np.linspace(0, len(whole) - 1, options.instants).round().astype(int)))
    with progress.task("Predicting", some.rows.size) as task:
        said = model.predict_rows(capture, some.rows.ravel(), task)
    true = target_poses(some).float()
    views = some.rows.shape[1]
    error = mpjpe(torch.from_numpy(said.pose)[:, 1:], true.repeat_interleave(views, 0)[:, 1:]).numpy()
    made = provenance(f"python scripts/measure_prediction.py {options.model} {options.capture}", capture, {})
    about = {
        "split": options.split, "instants": len(some), "views": views, "command": made.command,
        "capture": capture.fingerprint, "equipped": model_facts(options.model), "date": made.date,
        "machine": made.machine, "versions": dict(made.versions),
    }  # fmt: skip
    fusion = fusion_of(said, true, views, error)
    headings = headings_of(capture, some, said)
    doubts = expected_errors(said, error, model.parts.uncertainty.limit)
    bones = fixed_bones(some, said, views)
    write_json(Path("docs/results/fusion.json"), {"mm": fusion, **about})
    write_json(
        Path("docs/results/prediction.json"),
        {"headings": headings, "expected_errors": doubts, "bvh_joint_error_mm": bones, **about},
    )
    draw(said, error, Path("docs/images/expected_errors.png"))
    note = (
        f"Capture `{capture.fingerprint[:12]}`, split {options.split}, {len(some)} instants in {views} views. "
        f"Written by `{made.command}` on {made.date} ({made.machine}, mcss {made.versions['mcss']})."
    )
    write_between(PAGE, "fusion", f"{fusion_table(fusion)}\n\n{note}")
    write_between(PAGE, "headings", f"{heading_table(headings)}\n\n{note}")
    write_between(PAGE, "expected", f"{doubt_table(doubts, bones)}\n\n{note}")


def model_facts(path: Path) -> str:
    """Return what the model file says about its heads."""
    from mcss.models.model_file import read_model

    return read_model(path).about.get("equipped", "unknown")


def scores(pose: Float[np.ndarray, "n 17 3"], true: Float[torch.Tensor, "n 17 3"]) -> dict[str, float]:
    """Return the mean errors in mm, over 16 joints."""
    body, target = torch.from_numpy(np.asarray(pose, np.float32))[:, 1:], true[:, 1:]
    measures = {"mpjpe": mpjpe, "n_mpjpe": n_mpjpe, "pa_mpjpe": pa_mpjpe}
    return {name: round(float(measure(body, target).mean()), 2) for name, measure in measures.items()}


def fusion_of(
    said: Poses, true: Float[torch.Tensor, "n 17 3"], views: int, error: Float[np.ndarray, " m"]
) -> dict[str, dict[str, float]]:
    """Return the errors of single views and of poses fused from all views."""
    assert said.error is not None
    count = len(true)
    pose, embedding = said.pose.reshape(count, views, 17, 3), said.embedding.reshape(count, views, -1)
    expected, seen = said.error.reshape(count, views), np.ones((count, views), bool)
    each = [scores(pose[:, v], true) for v in range(views)]
    surest = expected.argmin(axis=1)
    best = error.reshape(count, views).argmin(axis=1)
    at = np.arange(count)
    return {
        "mean single view": {name: round(float(np.mean([s[name] for s in each])), 2) for name in each[0]},
        "the view that expects the least error": scores(pose[at, surest], true),
        "plain mean of all views": scores(pose.mean(axis=1), true),
        "fused, as `mcss predict` does": scores(fuse(pose, embedding, seen, expected).pose, true),
        "the best view, were it known": scores(pose[at, best], true),
    }


def headings_of(capture: Capture, some: Instants, said: Poses) -> dict[str, Any]:
    """Return how far headings and drawn joints are off."""
    every = LabelledImages(some.rows.ravel(), some.take(np.repeat(np.arange(len(some)), some.rows.shape[1])))
    order = {int(row): i for i, row in enumerate(every.rows)}
    kept, true = known_orientations(capture, every)
    at = np.array([order[int(row)] for row in kept.rows])
    found = said.orientation
    assert found is not None
    found = found.take(at)
    off = angle_between(found.heading, true.heading)
    seen = capture.joints_in_crops(kept.rows, kept.instants.pose)
    sure = found.certainty >= np.median(found.certainty)

    def drawn(place: Orientation, pose: Float[np.ndarray, "n 17 3"]) -> float:
        return round(float(np.linalg.norm(place.in_crop(pose) - seen, axis=-1).mean()), 4)

    right = canonical_pose(torch.from_numpy(kept.instants.pose)).numpy()
    return {
        "images": len(kept),
        "mean_degrees": round(float(off.mean()), 1),
        "median_degrees": round(float(np.median(off)), 1),
        "median_degrees_of_the_surer_half": round(float(np.median(off[sure])), 1),
        "within_30_degrees": round(float((off < 30).mean()), 3),
        "beyond_90_degrees": round(float((off > 90).mean()), 3),
        "shown": round(float(found.sure.mean()), 3),
        "shown_mean_degrees": round(float(off[found.sure].mean()), 1),
        "shown_beyond_90_degrees": round(float((off[found.sure] > 90).mean()), 3),
        "not_shown_mean_degrees": round(float(off[~found.sure].mean()), 1) if not found.sure.all() else None,
        "tilt_mean_degrees": round(float(np.abs(found.tilt - true.tilt).mean()), 1),
        "joints_off_in_shares_of_the_crop": {
            "predicted pose, predicted orientation": drawn(found, said.pose[at]),
            "true pose, predicted orientation": drawn(found, right),
            "true pose, true orientation (without perspective)": drawn(true, right),
        },
    }


def expected_errors(said: Poses, error: Float[np.ndarray, " m"], limit: float) -> dict[str, Any]:
    """Compare expected with true errors in ten groups, in order of the expected error."""
    assert said.error is not None
    groups = np.array_split(np.argsort(said.error), 10)
    return {
        "mean_expected_mm": round(float(said.error.mean()), 1),
        "mean_true_mm": round(float(error.mean()), 1),
        "spearman": round(float(spearmanr(said.error, error).statistic), 3),
        "limit": round(limit, 3),
        "below_limit": round(float((error < limit * said.error).mean()), 3),
        "tenths": [[round(float(said.error[g].mean()), 1), round(float(error[g].mean()), 1)] for g in groups],
    }


def fixed_bones(some: Instants, said: Poses, views: int) -> float:
    """Return how far fixed bones move the joints of predicted poses in mm, on average over sequences and views."""
    parts = np.stack([some.subject, some.sequence], axis=1)
    moved = []
    for part in np.unique(parts, axis=0):
        own = np.flatnonzero((parts == part).all(axis=1))
        for view in range(views):
            pose = said.pose[own * views + view]
            moved.append(
                np.linalg.norm(with_fixed_bones(pose) - pose, axis=-1)[:, 1:].mean() if len(own) > 1 else np.nan
            )
    return round(float(np.nanmean(moved)), 2)


def draw(said: Poses, error: Float[np.ndarray, " m"], path: Path) -> None:
    """Draw the calibration: expected errors along x, true ones along y."""
    assert said.error is not None
    with rc_context({"font.size": 10.0}):
        figure = Figure(figsize=(5.6, 4.4), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.scatter(said.error, error, s=4, color=PALETTE[0], alpha=0.25, linewidths=0)
        groups = np.array_split(np.argsort(said.error), 10)
        x = [said.error[g].mean() for g in groups]
        low, high = (np.array([np.quantile(error[g], q) for g in groups]) for q in (0.1, 0.9))
        mean = np.array([error[g].mean() for g in groups])
        axes.vlines(x, low, high, color=PALETTE[1], linewidth=2)
        axes.plot(x, mean, "o", color=PALETTE[1], markersize=6, label="mean of a tenth, and its middle 80 %")
        top = float(np.quantile(np.concatenate([said.error, error]), 0.995))
        axes.plot([0, top], [0, top], color="#8b929c", linewidth=1, label="expected = true")
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="expected error, mm", ylabel="true error (MPJPE, 16 joints), mm")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})


def fusion_table(fusion: dict[str, dict[str, float]]) -> str:
    """Return the table of fused poses, with one row per way to fuse."""
    lines = ["| pose of an instant | MPJPE | N-MPJPE | PA-MPJPE |", "|---|---|---|---|"]
    lines += [f"| {name} | {s['mpjpe']:.1f} | {s['n_mpjpe']:.1f} | {s['pa_mpjpe']:.1f} |" for name, s in fusion.items()]
    return "\n".join(lines)


def heading_table(found: dict[str, Any]) -> str:
    """Return the table of headings, tilts and drawn joints."""
    lines = [
        "| | |",
        "|---|---|",
        f"| heading: mean / median error | {found['mean_degrees']:.0f}° / {found['median_degrees']:.0f}° |",
        f"| median error of the surer half | {found['median_degrees_of_the_surer_half']:.0f}° |",
        f"| within 30° | {found['within_30_degrees']:.0%} |",
        f"| wrong way round (beyond 90°) | {found['beyond_90_degrees']:.0%} |",
        f"| shown as certain (certainty of {SURE} or more) | {found['shown']:.0%} |",
        f"| mean error of these / beyond 90° | {found['shown_mean_degrees']:.0f}° / "
        f"{found['shown_beyond_90_degrees']:.0%} |",
        f"| mean error of the others | {number(found['not_shown_mean_degrees'])} |",
        f"| tilt: mean error | {found['tilt_mean_degrees']:.0f}° |",
    ]
    drawn = found["joints_off_in_shares_of_the_crop"]
    lines += [f"| drawn joints off, of the crop's side: {name} | {share:.1%} |" for name, share in drawn.items()]
    return "\n".join(lines)


def number(degrees: float | None) -> str:
    """Return an angle as text."""
    return "–" if degrees is None else f"{degrees:.0f}°"


def doubt_table(found: dict[str, Any], bones: float) -> str:
    """Return the table of expected and true errors by tenths, with the summary below it."""
    columns = " | ".join(str(i + 1) for i in range(10))
    rows = [" | ".join(f"{pair[k]:.0f}" for pair in found["tenths"]) for k in range(2)]
    return "\n".join(
        [
            f"| tenth, from the surest on | {columns} |",
            "|---|" + "---|" * 10,
            f"| expected error, mm | {rows[0]} |",
            f"| true error, mm | {rows[1]} |",
            "",
            f"Spearman's ρ of expected and true error {found['spearman']:.2f}; {found['below_limit']:.0%} of the true "
            f"errors are below {found['limit']:.2f} × the expected one (90 % were meant). "
            f"BVH: fixed bones move the joints of predicted poses by {bones:.1f} mm.",
        ]
    )


if __name__ == "__main__":
    main()
