"""Measure how well cameras are found from the person who moves, and write docs/results/cameras.json.

Each capture has labels (the person's joints) and a file of its true cameras, or cameras of its own:

    python scripts/measure_cameras.py lab4=captures/lab4 --true-cameras lab4=lab4/cameras.json --landmarks lab4=lab4.npz
    python scripts/measure_cameras.py balancing=captures/real --size balancing=1088,1920 --views 4
    python scripts/measure_cameras.py rigs=captures/rigs --by-sequence --views 4

All choices of two views and more are measured, unless --views says how many. Rows of the same footage and views are
replaced in the file, the others stay. No setting is chosen here.
"""

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mcss.calibration.calibrate import CalibrationSettings, calibrate, triangulated
from mcss.calibration.camera_files import read_cameras_file
from mcss.calibration.triangulation import smoothed
from mcss.data.capture import Capture
from mcss.errors import CalibrationError
from mcss.files import write_json
from mcss.landmarks.detection import detect_landmarks
from mcss.landmarks.landmark_files import read_landmarks, write_landmarks
from mcss.landmarks.view_landmarks import LANDMARKS, ViewLandmarks
from mcss.skeletons import JOINTS, LIMBS
from write_table import write_between

OUT = Path(__file__).parents[1] / "docs/results/cameras.json"

PAGE = Path(__file__).parents[1] / "docs/calibrate.md"

SMOOTHING = 0.08
"""Seconds; the smoothed error stands beside the plain one."""

LAST = 240
"""The last instants of lab4, which no setting was chosen on."""

WORDS = {"R": "right", "L": "left"}
LIMB_LANDMARKS = [
    LANDMARKS.index(f"{WORDS[JOINTS[j][0]]}_{JOINTS[j][1:].lower().replace('foot', 'ankle')}") for j in LIMBS
]


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("captures", nargs="+", metavar="NAME=CAPTURE")
    parser.add_argument("--true-cameras", nargs="*", default=[], metavar="NAME=FILE")
    parser.add_argument("--landmarks", nargs="*", default=[], metavar="NAME=FILE", help="read, or written if absent")
    parser.add_argument("--size", nargs="*", default=[], metavar="NAME=WIDTH,HEIGHT", help="of the source images")
    parser.add_argument("--views", type=int, nargs="*", help="how many views; by default all numbers from 2")
    parser.add_argument("--by-sequence", action="store_true", help="each sequence has cameras of its own")
    parser.add_argument("--every", type=int, default=1, help="take every n-th instant")
    arguments = parser.parse_args()
    named = {
        key: dict(text.split("=", 1) for text in getattr(arguments, key))
        for key in ("captures", "true_cameras", "landmarks", "size")
    }
    for name, address in named["captures"].items():
        capture = Capture.open(address)
        landmarks = landmarks_of(capture, named["landmarks"].get(name), arguments.every)
        if name in named["size"]:
            size = [float(side) for side in named["size"][name].split(",")]
            landmarks = replace(landmarks, image_size=np.tile(size, (len(landmarks.views), 1)))
        true = true_rotations(capture, landmarks, named["true_cameras"].get(name))
        instants = landmarks.instants
        key = instants.subject * len(instants.sequences) + instants.sequence
        groups = [np.flatnonzero(key == k) for k in np.unique(key)] if arguments.by_sequence else [np.arange(len(key))]
        count = len(landmarks.views)
        for rows in groups:
            own = landmarks.take(rows)
            label = f"{name}: {instants.sequences[instants.sequence[rows[0]]]}" if arguments.by_sequence else name
            for many in arguments.views or range(count, 1, -1):
                for views in itertools.combinations(range(count), many):
                    turns = None if true is None else true[rows[0]][list(views)]
                    row = measured(label, of_views(own, list(views)), turns)
                    print(json.dumps(row), flush=True)
                    keep(row)


def landmarks_of(capture: Capture, file: str | None, every: int) -> ViewLandmarks:
    """Read the landmarks of a file, or find them and write it."""
    instants = capture.instants()
    instants = instants.take(np.arange(0, len(instants), every))
    if file is not None and Path(file).exists():
        return read_landmarks(Path(file), instants)
    found = detect_landmarks(capture, instants)
    if file is not None:
        write_landmarks(Path(file), found)
    return found


def true_rotations(capture: Capture, landmarks: ViewLandmarks, file: str | None) -> np.ndarray | None:
    """The true rotations of all instants and views, from a file or the capture; None if nobody knows them."""
    n, views = landmarks.instants.rows.shape
    if file is not None:
        rig = read_cameras_file(Path(file))
        return np.tile(rig.rotation[[rig.views.index(view) for view in landmarks.views]], (n, 1, 1, 1))
    rotation = capture.cameras(landmarks.instants.rows.ravel()).rotation.reshape(n, views, 3, 3)
    return rotation.astype(np.float64) if np.isfinite(rotation).all() else None


def of_views(landmarks: ViewLandmarks, views: list[int]) -> ViewLandmarks:
    """Some of the views."""
    instants = landmarks.instants
    return replace(
        landmarks,
        instants=replace(instants, views=tuple(instants.views[v] for v in views), rows=instants.rows[:, views]),
        image=landmarks.image[:, views],
        world=landmarks.world[:, views],
        visibility=landmarks.visibility[:, views],
        presence=landmarks.presence[:, views],
        image_size=landmarks.image_size[views],
    )


def measured(name: str, landmarks: ViewLandmarks, true: np.ndarray | None) -> dict[str, Any]:
    """Find the cameras of some views, and compare them and the person with the truth."""
    views = list(landmarks.views)
    start = time.process_time()
    try:
        found = calibrate(landmarks, CalibrationSettings())
    except CalibrationError as error:
        return {"footage": name, "views": views, "verdict": "failed", "reasons": [str(error)]}
    poses = triangulated(landmarks, found)
    seconds = time.process_time() - start
    instants = landmarks.instants
    target = instants.pose[:, list(LIMBS)].astype(np.float64)
    row: dict[str, Any] = {
        "footage": name,
        "views": views,
        "instants": len(instants),
        "verdict": found.verdict.grade,
        "reasons": list(found.verdict.reasons),
        "reprojection_px": round(found.verdict.measures.reprojection_px, 2),
        "bones": round(found.verdict.measures.bones, 3),
        "seconds": round(seconds, 1),
    }
    if true is not None:
        index = [instants.views.index(view) for view in found.views]
        given = found.cameras.rotation
        pairs = [(i, j) for i in range(len(index)) for j in range(i)]
        errors = [angle(given[i] @ given[j].T, true[index[i]] @ true[index[j]].T) for i, j in pairs]
        row["rotation_deg"] = round(float(np.median(errors)), 2)
        row["rotation_worst_deg"] = round(max(errors), 2)
    for suffix, seconds_smoothed in (("", 0.0), ("_smoothed", SMOOTHING)):
        sequence = instants.subject * len(instants.sequences) + instants.sequence
        points = smoothed(poses.landmarks, poses.confidence, instants.time, sequence, seconds_smoothed)
        points = points[:, LIMB_LANDMARKS]
        error = pa_errors(points, target)
        row[f"pa_limbs{suffix}"] = round(float(np.nanmean(error)), 1)
        if len(instants) > 2 * LAST:
            row[f"pa_limbs_last{suffix}"] = round(float(np.nanmean(error[-LAST:])), 1)
    row["complete"] = round(float(np.isfinite(poses.landmarks[:, LIMB_LANDMARKS]).all(axis=(1, 2)).mean()), 3)
    return row


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """The angle between two rotations in degrees."""
    return float(np.degrees(np.arccos(np.clip((np.trace(a @ b.T) - 1) / 2, -1, 1))))


def pa_errors(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """PA-MPJPE of each instant in mm; NaN where a joint is missing."""
    error = np.full(len(points), np.nan)
    known = np.isfinite(points).all(axis=(1, 2)) & np.isfinite(target).all(axis=(1, 2))
    a = points[known] - points[known].mean(axis=1, keepdims=True)
    b = target[known] - target[known].mean(axis=1, keepdims=True)
    left, size, right = np.linalg.svd(np.swapaxes(a, 1, 2) @ b)
    size[:, 2] *= np.sign(np.linalg.det(left @ right))
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    scale = size.sum(axis=1) / (a**2).sum(axis=(1, 2))
    error[known] = np.linalg.norm(scale[:, None, None] * a @ left @ right - b, axis=-1).mean(axis=1)
    return error


def keep(row: dict[str, Any]) -> None:
    """Put a row into the file."""
    rows = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else []
    same = ("footage", "views")
    rows = [old for old in rows if [old[name] for name in same] != [row[name] for name in same]]
    rows = sorted([*rows, row], key=lambda r: (str(r["footage"]), -len(r["views"]), r["views"]))
    write_json(OUT, rows)
    write_between(PAGE, "cameras", table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table of Markdown."""
    columns = {
        "verdict": "verdict",
        "rotation_deg": "rotation, °",
        "pa_limbs": "PA, mm",
        "pa_limbs_smoothed": "PA smoothed, mm",
        "pa_limbs_last": "PA, last 240, mm",
        "reprojection_px": "pixels",
        "seconds": "processor time, s",
    }
    lines = [f"| footage | views | {' | '.join(columns.values())} |", "|---|---|" + "---|" * len(columns)]
    for row in rows:
        cells = [str(row["footage"]), ", ".join(row["views"]), *(str(row.get(name, "–")) for name in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
