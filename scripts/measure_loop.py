"""Measure the way from footage to cameras, labels and poses in the room; write docs/results/loop.json and the table.

    python scripts/measure_loop.py CAPTURE --true-cameras FILE --image-size 1024 1024 [--run RUN]

The capture has true poses, with which results are compared, and no cameras. It is copied, so that it stays as it is.
Every step is the command that is shown; its time is processor time, with the start of the program. Landmarks are found
once and kept for all steps: they are timed on some images apart, and found before the clock starts.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mcss.calibration.camera_files import read_cameras_file
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.labels import Labels
from mcss.files import write_json
from mcss.landmarks.detection import detect_landmarks
from mcss.progress import RichProgress
from mcss.skeletons import LIMBS, ROOT
from measure_cameras import angle, pa_errors, position_error
from measure_labels import milliseconds
from write_table import write_between

OUT = Path("docs/results/loop.json")
PAGE = Path("docs/tutorial_cameras.md")

SPLIT = "test"
"""The instants on which labels and poses are compared with the truth."""


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("--true-cameras", type=Path, required=True)
    parser.add_argument("--image-size", type=int, nargs=2, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/loop"), help="folder for the copy; it is emptied")
    parser.add_argument("--run", help="the model that predicts; by default the shipped weights")
    options = parser.parse_args()
    place = options.work / "mine"
    shutil.rmtree(options.work, ignore_errors=True)
    shutil.copytree(options.capture, place)
    rows = steps(place, options)
    write_json(
        OUT, {"command": "python scripts/measure_loop.py CAPTURE", "model": options.run or "shipped", "rows": rows}
    )
    write_between(PAGE, "loop", table(rows))


def steps(place: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run every step, and compare what it made with the truth."""
    capture = Capture.open(str(place))
    rows = [landmarks_row(capture)]
    size = [str(side) for side in options.image_size]
    run = [] if options.run is None else ["--run", options.run]

    seconds = timed(["calibrate", str(place), "--image-size", *size, "-o", str(place.parent / "cameras.toml")])
    rows.append(row("mcss calibrate captures/mine", seconds, cameras_found(place.parent / "cameras.toml", options)))

    labels = place.parent / "labels.csv"
    seconds = timed(["label", str(place), "--split", SPLIT, "-o", str(labels)])
    rows.append(row(f"mcss label captures/mine --split {SPLIT}", seconds, labels_made(labels, capture)))

    poses = place.parent / "poses"
    asked = ["--turned", "room", "--split", SPLIT, "--formats", "json,csv,trc,bvh", "--no-overlay"]
    seconds = timed(["predict", str(place), "-o", str(poses), *run, *asked])
    found = poses_found(sorted(poses.rglob("*.json")), capture)
    rows.append(row(f"mcss predict captures/mine --turned room --split {SPLIT}", seconds, found))
    return rows


def row(step: str, seconds: float, found: str) -> dict[str, Any]:
    """A step, its processor time and what came of it."""
    return {"step": step, "seconds": round(seconds, 1), "found": found}


def timed(words: list[str]) -> float:
    """Run a command of mcss, and return its processor time in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "mcss", *words], check=False)
    if done.returncode:
        sys.exit(f"mcss {words[0]} ended with {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def landmarks_row(capture: Capture) -> dict[str, Any]:
    """Find all landmarks, unless they are kept already, and tell how long that takes by timing some images."""
    instants = capture.instants()
    detect_landmarks(capture, instants, progress=RichProgress())
    images = instants.rows[instants.rows >= 0]
    each = milliseconds(capture) / 1000
    found = f"{1000 * each:.0f} ms an image"
    return row(f"landmarks of {len(images):,} images, found once for all steps", each * len(images), found)


def cameras_found(path: Path, options: argparse.Namespace) -> str:
    """How far cameras are from the true ones."""
    found, true = read_cameras_file(path), read_cameras_file(options.true_cameras)
    true = true.taken([true.views.index(view) for view in found.views])
    pairs = [(i, j) for i in range(len(true)) for j in range(i)]
    turns = [angle(found.rotation[i] @ found.rotation[j].T, true.rotation[i] @ true.rotation[j].T) for i, j in pairs]
    places = 100 * position_error(found, true)
    return (
        f"{len(found)} cameras, rotations wrong by {np.median(turns):.1f}°, places by {places:.1f} % of the rig's size"
    )


def labels_made(path: Path, capture: Capture) -> str:
    """How far labels of the held-out instants are from the truth."""
    instants = capture.instants(SPLIT)
    made = labelled_poses(path, instants)
    error = pa_errors(made[:, list(LIMBS)], instants.pose[:, list(LIMBS)].astype(np.float64))
    share = 100 * np.isfinite(error).mean()
    return f"PA {np.nanmean(error):.0f} mm, {share:.0f} % of the instants labelled"


def labelled_poses(path: Path, instants: Instants) -> np.ndarray:
    """The poses that a file of labels gives for some instants; NaN where it gives none."""
    labels = Labels.parse(f"@{path}")
    if labels.poses is None:
        sys.exit(f"{path}: expected poses, got a list of instants")
    listed = dict(zip(labels.listed, labels.poses.astype(np.float64), strict=True))
    keys = zip(instants.subject, instants.sequence, instants.frame, strict=True)
    none = np.full((17, 3), np.nan)
    return np.stack([listed.get((instants.subjects[s], instants.sequences[q], int(f)), none) for s, q, f in keys])


def poses_found(paths: list[Path], capture: Capture) -> str:
    """How far predicted poses, and their path, are from the truth."""
    instants = capture.instants(SPLIT)
    frames = [frame for path in paths for frame in json.loads(path.read_text(encoding="utf-8"))["frames"]]
    pose = np.array([frame["pose"] for frame in frames], np.float64)
    if len(pose) != len(instants):
        sys.exit(f"expected poses of {len(instants)} instants, got {len(pose)}")
    true = instants.pose.astype(np.float64)
    error = pa_errors(pose[:, list(LIMBS)], true[:, list(LIMBS)])
    away = np.linalg.norm(pose[:, ROOT] - true[:, ROOT], axis=1)
    return f"PA {np.nanmean(error):.0f} mm; the pelvis lies {np.median(away):.0f} mm from where it is"


def table(rows: list[dict[str, Any]]) -> str:
    """The steps as Markdown."""
    lines = ["| step | minutes of one processor core | |", "|---|---|---|"]
    for step in rows:
        name = f"`{step['step']}`" if step["step"].startswith("mcss") else step["step"]
        lines.append(f"| {name} | {step['seconds'] / 60:.1f} | {step['found']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
