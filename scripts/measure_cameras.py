"""Measure how well cameras are found from the person who moves, and write docs/results/cameras.json.

Each capture has labels (the person's joints) and a file of its true cameras, or cameras of its own:

    python scripts/measure_cameras.py lab4=captures/lab4 --true-cameras lab4=lab4/cameras.json --landmarks lab4=lab4.npz
    python scripts/measure_cameras.py balancing=captures/real --size balancing=1088,1920 --views 4
    mcss synthetic build captures/rigs --subjects 3 --instants 960 --size 256 --seed 11 --takes 1 \
        --cameras per-sequence --stages per-sequence --no-new-motion
    python scripts/measure_cameras.py rigs=captures/rigs --by-sequence --first 20 --views 4

All choices of two views and more are measured, unless --views says how many. Rows of the same footage and views are
replaced in the file, the others stay. No setting is chosen here.

`rotation_deg` is the angle by which the rotation between two cameras is wrong, the median over pairs. `position_rel` is
the error of the cameras' places: the found rig is turned so that its cameras look where the true ones do, as well as
one turn can, then moved and scaled so that the places fit best; what remains is the root mean square over cameras,
divided by the true cameras' root mean square distance from their middle. For two cameras it is the sine of the angle
between the true and the found direction from one to the other. `pa_limbs` is the PA-MPJPE of the 12 joints of arms and
legs in mm, every instant by itself. `right` says whether the verdict is: it is wrong if it says good and rotations are
off by more than 5 degrees, or failed and they are not.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from mcss.calibration.calibrate import CalibrationSettings, calibrate, triangulated
from mcss.calibration.camera_files import read_cameras_file
from mcss.calibration.footage import with_image_sizes
from mcss.calibration.rig import Rig
from mcss.calibration.triangulation import smoothed
from mcss.data.capture import Capture
from mcss.errors import CalibrationError
from mcss.files import write_json
from mcss.labelling.bodies import cameras_of
from mcss.landmarks.detection import detect_landmarks
from mcss.landmarks.landmark_files import read_landmarks, write_landmarks
from mcss.landmarks.view_landmarks import LANDMARKS, ViewLandmarks
from mcss.skeletons import JOINTS, LIMBS
from write_table import write_between

OUT = Path(__file__).parents[1] / "docs/results/cameras.json"

PAGE = Path(__file__).parents[1] / "docs/calibrate.md"

SMOOTHING = 0.08
"""Seconds; the smoothed error stands beside the plain one."""

OFF = 5.0
"""Degrees; cameras whose rotations are farther off must not be called good. With two cameras turned by 4 degrees, which
then stand elsewhere to make up for it, joints are as near to the truth as with others."""

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
    parser.add_argument("--first", type=int, help="how many sequences, with --by-sequence")
    parser.add_argument("--every", type=int, default=1, help="take every n-th instant")
    arguments = parser.parse_args()
    named = {
        key: dict(text.split("=", 1) for text in getattr(arguments, key))
        for key in ("captures", "true_cameras", "landmarks", "size")
    }
    for name, address in named["captures"].items():
        capture = Capture.open(address)
        landmarks = landmarks_of(capture, named["landmarks"].get(name), arguments.every)
        width, _, height = named["size"].get(name, "").partition(",")
        landmarks = with_image_sizes(landmarks, capture, (int(width), int(height)) if width else None)
        instants = landmarks.instants
        groups = instants.of_each_sequence() if arguments.by_sequence else [np.arange(len(instants))]
        count = len(landmarks.views)
        for rows in groups[: arguments.first]:
            own = landmarks.take(rows)
            true = true_cameras(capture, own, named["true_cameras"].get(name))
            place = f"{instants.subjects[instants.subject[rows[0]]]} {instants.sequences[instants.sequence[rows[0]]]}"
            for many in arguments.views or range(count, 1, -1):
                for views in itertools.combinations(range(count), many):
                    row = measured(f"{name}: {place}" if arguments.by_sequence else name, own.of_views(views), true)
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


def true_cameras(capture: Capture, landmarks: ViewLandmarks, file: str | None) -> Rig | None:
    """The true cameras, from a file or the capture; None if nobody knows them."""
    return read_cameras_file(Path(file)) if file is not None else cameras_of(capture, landmarks.instants)


def measured(name: str, landmarks: ViewLandmarks, true: Rig | None) -> dict[str, Any]:
    """Find the cameras of some views, and compare them and the person with the truth."""
    row: dict[str, Any] = {"footage": name, "views": list(landmarks.views)}
    start = time.process_time()
    try:
        found = calibrate(landmarks, CalibrationSettings())
    except CalibrationError as error:
        return {**row, "verdict": "failed", "reasons": [str(error)]}
    poses = triangulated(landmarks, found)
    seconds = time.process_time() - start
    instants, verdict = landmarks.instants, found.verdict
    if true is not None:
        own = true.taken([true.views.index(view) for view in found.views])
        errors = [
            angle(found.cameras.rotation[i] @ found.cameras.rotation[j].T, own.rotation[i] @ own.rotation[j].T)
            for i in range(len(own))
            for j in range(i)
        ]
        row["rotation_deg"] = round(float(np.median(errors)), 2)
        row["position_rel"] = round(position_error(found.cameras, own), 3)
    target = instants.pose[:, list(LIMBS)].astype(np.float64)
    plain = pa_errors(poses.landmarks[:, LIMB_LANDMARKS], target)
    row["pa_limbs"] = round(float(np.nanmean(plain)), 1)
    row["reprojection_px"] = round(verdict.measures.reprojection_px, 2)
    row["seconds"] = round(seconds, 1)
    row["verdict"] = verdict.grade
    row["reasons"] = list(verdict.reasons)
    if true is not None:
        row["rotation_worst_deg"] = round(max(errors), 2)
    sequence = instants.subject * len(instants.sequences) + instants.sequence
    smooth = smoothed(poses.landmarks, poses.confidence, instants.time, sequence, SMOOTHING)
    row["pa_limbs_smoothed"] = round(float(np.nanmean(pa_errors(smooth[:, LIMB_LANDMARKS], target))), 1)
    if len(instants) > 2 * LAST:
        row["pa_limbs_last"] = round(float(np.nanmean(plain[-LAST:])), 1)
    row["bones"] = round(verdict.measures.bones, 3)
    row["instants"] = len(instants)
    row["complete"] = round(float(np.isfinite(poses.landmarks[:, LIMB_LANDMARKS]).all(axis=(1, 2)).mean()), 3)
    return row


def position_error(found: Rig, true: Rig) -> float:
    """The error of the cameras' places after alignment, as a share of the size of the rig."""
    left, _, right = np.linalg.svd(np.einsum("vki,vkj->ij", true.rotation, found.rotation))
    turn = left @ np.diag([1.0, 1.0, np.linalg.det(left @ right)]) @ right
    places = (found.positions - found.positions.mean(axis=0)) @ turn.T
    target = true.positions - true.positions.mean(axis=0)
    scale = max(float((places * target).sum() / (places**2).sum()), 0.0)
    return float(np.sqrt(((scale * places - target) ** 2).sum() / (target**2).sum()))


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
    rows = [{**each, "right": right(each)} if "rotation_deg" in each else each for each in [*rows, row]]
    rows = sorted(rows, key=lambda r: (str(r["footage"]), -len(r["views"]), r["views"]))
    write_json(OUT, rows)
    write_between(PAGE, "cameras", table(rows))


def right(row: dict[str, Any]) -> bool:
    """Whether the verdict is right about the cameras of a row."""
    return bool(row["verdict"] == "weak" or (row["verdict"] == "good") == (row["rotation_deg"] <= OFF))


COLUMNS = {
    "verdict": "verdict",
    "rotation_deg": "rotation, °",
    "position_rel": "places",
    "pa_limbs": "PA, mm",
    "pa_limbs_smoothed": "smoothed",
    "pa_limbs_last": "last 240",
    "reprojection_px": "pixels",
    "seconds": "processor time, s",
}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a table of Markdown; footage of many rigs is one row of medians."""
    lines = [f"| footage | views | {' | '.join(COLUMNS.values())} |", "|---|---|" + "---|" * len(COLUMNS)]
    rigs: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        name, many, _ = str(row["footage"]).partition(": ")
        if many:
            rigs.setdefault(name, []).append(row)
        else:
            cells = [name, ", ".join(row["views"]), *(str(row.get(column, "–")) for column in COLUMNS)]
            lines.append(f"| {' | '.join(cells)} |")
    for name, everything in rigs.items():
        for grade in ("good", "weak", "failed"):
            if not (own := [each for each in everything if each["verdict"] == grade]):
                continue
            right_ones = sum(bool(each.get("right")) for each in own)
            cells = [f"{len(own)} of {len(everything)} {name}, the median", str(len(own[0]["views"]))]
            cells.append(f"{grade}; right: {right_ones}")
            for column in list(COLUMNS)[1:]:
                values = [each[column] for each in own if column in each]
                cells.append(f"{np.median(values):.3g}" if len(values) == len(own) else "–")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
