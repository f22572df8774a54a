"""A row for what others would pick instead: MediaPipe, or any other program's 3D landmarks of the test images.

Landmarks lie in a CSV or Parquet file with a line for every landmark of every image in which somebody was found:
``subject,sequence,frame,view,joint,x,y,z``, joints named as in `mcss.skeletons.JOINTS`, along the axes of the camera
(y down) in any unit. That of MediaPipe is written here, others by their users.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from jaxtyping import Bool, Float32, Int64

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.keypoints import read_joints
from mcss.evaluation.predictions import EvaluationSettings, evaluated_instants, true_poses
from mcss.experiments.mediapipe_process import SHARED, VERSION, mediapipe
from mcss.experiments.runs import Cell, cell_predictions
from mcss.experiments.tables import Study
from mcss.files import replacing, write_json
from mcss.methods.method import load_estimator
from mcss.metrics import pa_mpjpe
from mcss.models.model_file import MODEL
from mcss.models.prediction import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import JOINTS, ROOT

COLUMNS = ("subject", "sequence", "frame", "view", "joint", "x", "y", "z")

_CHUNK, _TIMED = 64, 30

_FEWEST = 4
"""Joints that an alignment needs, or it forgives everything."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What a program found in the images of a split."""

    instants: Instants
    joints: Float32[np.ndarray, "n views 17 3"]
    """NaN where it found none."""
    looked: Bool[np.ndarray, "n views"]
    """Images that are scored."""
    common: Bool[np.ndarray, " 17"]
    """Joints that all findings have."""

    @property
    def seen(self) -> Bool[np.ndarray, "n views"]:
        """Images that are scored and in which it found somebody."""
        found: Bool[np.ndarray, "n views"] = self.looked & np.isfinite(self.joints).all(axis=3).any(axis=2)
        return found


def read_landmarks(path: Path, capture: Capture, split: str, settings: EvaluationSettings) -> Landmarks:
    """The landmarks of a split from a file.

    Raises:
        ValueError: The file is not there or not as expected, or has too little in it.
    """
    instants = evaluated_instants(capture, split, settings)
    joints = read_joints(path, instants, COLUMNS, "landmarks")
    looked = (instants.rows >= 0) & instants.heading_valid[:, None]
    found = Landmarks(instants, joints, looked, np.ones(17, bool))
    if not found.seen.any():
        raise ValueError(f"landmarks: {path} has landmarks of none of the {int(looked.sum()):,} images looked at.")
    common = np.isfinite(joints[found.seen]).all(axis=(0, 2))
    common[ROOT] = False
    if common.sum() < _FEWEST:
        names = ", ".join(name for name, is_common in zip(JOINTS, common, strict=True) if is_common) or "none"
        raise ValueError(f"landmarks: {path}: expected {_FEWEST} joints or more in every finding, came {names}.")
    return Landmarks(instants, joints, looked, common)


def find_with_mediapipe(
    path: Path,
    capture: Capture,
    split: str,
    settings: EvaluationSettings,
    progress: Progress = NO_PROGRESS,
    python: Path | None = None,
) -> None:
    """Write what MediaPipe finds in the images of a split as a Parquet file, whose metadata say how long it took.

    Args:
        path: The file.
        capture: Where the images are.
        split: Of the capture.
        settings: How much of it is looked at.
        progress: Told of every image.
        python: Of an environment that has MediaPipe; None to install one in the cache folder.

    Raises:
        MediaPipeError: It cannot be installed, or does not run.
    """
    instants = evaluated_instants(capture, split, settings)
    instant, view = np.nonzero(instants.rows >= 0)
    rows = instants.rows[instant, view]
    parts = []
    with mediapipe(python) as process, progress.task("MediaPipe", len(rows)) as task:
        for start in range(0, len(rows), _CHUNK):
            found = process.landmarks(capture.decode(rows[start : start + _CHUNK]))
            parts.append(found)
            task.advance(len(found.found))
    joints = np.concatenate([part.shared() for part in parts])
    wall = np.concatenate([part.wall for part in parts])
    seen = np.isfinite(joints).all(axis=(1, 2))
    names = [list(SHARED)] * int(seen.sum())
    at, of = instant[seen], view[seen]
    told = {
        "subject": [instants.subjects[s] for s in instants.subject[at]],
        "sequence": [instants.sequences[s] for s in instants.sequence[at]],
        "frame": instants.frame[at].tolist(),
        "view": [instants.views[v] for v in of],
    }
    columns = {name: [value for value in values for _ in SHARED] for name, values in told.items()}
    flat = joints[seen].reshape(-1, 3)
    table = pa.table(
        {**columns, "joint": [name for own in names for name in own], **{k: flat[:, i] for i, k in enumerate("xyz")}}
    )
    about = {"mcss.milliseconds": f"{1000 * float(np.median(wall)):.1f}", **_key(capture, split, settings)}
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata(about), temporary)


def mediapipe_file(study: Study) -> Path:
    """The file of `find_with_mediapipe`, written now if it is not there or is of other images."""
    path = study.folder / "mediapipe.parquet"
    key = _key(study.capture, "test", study.looked)
    known = pyarrow.parquet.read_schema(path).metadata if path.exists() else {}
    if any((known or {}).get(name.encode()) != value.encode() for name, value in key.items()):
        find_with_mediapipe(path, study.capture, "test", study.looked, study.progress)
    return path


def mediapipe_rows(study: Study, ours: Cell) -> list[dict[str, Any]]:
    """`landmark_rows` of MediaPipe; kept beside the evaluations of `ours`, which outlive its weights."""
    path = study.cells / ours.name / "mediapipe.json"
    key = _key(study.capture, "test", study.looked)
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if known["key"] == key:
            rows: list[dict[str, Any]] = known["rows"]
            return rows
    rows = landmark_rows(study, mediapipe_file(study), f"MediaPipe {VERSION}", ours)
    write_json(path, {"key": key, "rows": rows})
    return rows


def landmark_rows(study: Study, path: Path, program: str, ours: Cell) -> list[dict[str, Any]]:
    """The program's row, and that of MCSS over the same joints of the same images."""
    found = read_landmarks(path, study.capture, "test", study.looked)
    seen, common = found.seen, found.common
    true = np.broadcast_to(found.instants.pose[:, None], found.joints.shape)[seen][:, common]
    theirs = pa_mpjpe(torch.from_numpy(found.joints[seen][:, common]), torch.from_numpy(true.copy()))
    predictions = cell_predictions(ours, study.cells, study.capture, "test", study.looked, study.progress)
    assert predictions.pose is not None
    kept = torch.from_numpy(seen[predictions.instant, predictions.view])
    body = torch.from_numpy(common)
    own = pa_mpjpe(predictions.pose[kept][:, body], true_poses(predictions)[kept][:, body])
    share = seen.sum() / found.looked.sum()
    about = f"{int(common.sum())} joints, the {100 * share:.0f} % of images in which {program} found somebody"
    spent = _milliseconds(path)
    ours_spent = milliseconds_alone(ours, study, predictions.rows[:_TIMED])
    return [
        _row(program, about, "–", float(theirs.mean()), "camera", spent),
        _row("mcss", f"the same {about}", study.labels, float(own.mean()), predictions.frame, ours_spent),
    ]


def milliseconds_alone(cell: Cell, study: Study, rows: Int64[np.ndarray, " n"]) -> float | None:
    """Median milliseconds of a trained network for one image at a time, decoding included; None without weights."""
    run = study.cells / cell.name
    if not (run / MODEL).exists():
        return None
    predict, spent = NetworkPredictor(load_estimator(run), study.capture), []
    for row in rows:
        started = time.perf_counter()
        predict(np.array([row], np.int64))
        spent.append(1000 * (time.perf_counter() - started))
    return float(np.median(spent))


def _milliseconds(path: Path) -> float | None:
    if path.suffix != ".parquet":
        return None
    told = (pyarrow.parquet.read_schema(path).metadata or {}).get(b"mcss.milliseconds")
    return None if told is None else float(told)


def _key(capture: Capture, split: str, settings: EvaluationSettings) -> dict[str, str]:
    return {"mcss.capture": capture.fingerprint, "mcss.images": f"{split}, {settings!r}", "mcss.program": VERSION}


def _row(
    system: str, variant: str, labels: str, error: float, frame: str, milliseconds: float | None
) -> dict[str, Any]:
    if milliseconds is not None:
        variant += f", {milliseconds:.0f} ms each"
    return {
        "system": system,
        "variant": variant,
        "labels": labels,
        "seed": None,
        "n_mpjpe": None,
        "mpjpe": None,
        "pa_mpjpe": error,
        "frame": frame,
        "uses": None,
        "milliseconds": milliseconds,
    }
