"""Table 1's row for another program: MediaPipe, or whatever else finds 3D landmarks in the test images.

Landmarks lie in a CSV or Parquet file with a line for every landmark of every image in which the program found a
person: ``subject,sequence,frame,view,joint,x,y,z``, with joints named as in `mcss.skeletons.JOINTS`, along the axes of
the camera (y down), in any unit. A Parquet file may state the program's name and the median milliseconds of an image in
its metadata (`PROGRAM`, `MILLISECONDS`); ``scripts/write_mediapipe_landmarks.py`` writes such a file.
"""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
import torch
from jaxtyping import Bool, Float32, Int64

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.keypoints import read_joints
from mcss.evaluation.predictions import EvaluationSettings, evaluated_instants, true_poses
from mcss.experiments.rows import LandmarkRow
from mcss.experiments.runs import Cell, weights_digest
from mcss.experiments.study import Study
from mcss.files import write_json
from mcss.methods.registry import load_estimator
from mcss.metrics import pa_mpjpe
from mcss.models.model_file import MODEL
from mcss.models.prediction import NetworkPredictor
from mcss.skeletons import JOINTS, ROOT

COLUMNS = ("subject", "sequence", "frame", "view", "joint", "x", "y", "z")

PROGRAM = b"mcss.program"
"""Metadata key of a landmark file: the name of the program."""

MILLISECONDS = b"mcss.milliseconds"
"""Metadata key of a landmark file: the median time of an image."""

KEPT = "landmarks.json"
"""The file beside a cell that keeps the rows, so that they outlive the weights and the landmark file."""

_TIMED_IMAGES = 30

_FEWEST_JOINTS = 4
"""Joints that an alignment needs; with fewer it removes nearly any error."""


@dataclass(frozen=True, eq=False)
class SplitLandmarks:
    """The landmarks that a program found in the images of a split."""

    instants: Instants
    joints: Float32[np.ndarray, "n views 17 3"]
    """NaN for joints that were not found."""
    scored: Bool[np.ndarray, "n views"]
    """Images that are scored."""
    common: Bool[np.ndarray, " 17"]
    """Joints that were found in every image in which a person was found."""

    @property
    def found(self) -> Bool[np.ndarray, "n views"]:
        """Scored images in which the program found a person."""
        found: Bool[np.ndarray, "n views"] = self.scored & np.isfinite(self.joints).all(axis=3).any(axis=2)
        return found


def read_landmarks(path: Path, capture: Capture, split: str, settings: EvaluationSettings) -> SplitLandmarks:
    """Read the landmarks of a split from a file.

    Raises:
        ValueError: The file does not exist, is malformed or holds too little.
    """
    instants = evaluated_instants(capture, split, settings)
    joints = read_joints(path, instants, COLUMNS, "landmarks")
    scored = (instants.rows >= 0) & instants.heading_valid[:, None]
    landmarks = SplitLandmarks(instants, joints, scored, np.ones(17, bool))
    if not landmarks.found.any():
        raise ValueError(f"landmarks: {path} has landmarks of none of the {int(scored.sum()):,} evaluated images.")
    common = np.isfinite(joints[landmarks.found]).all(axis=(0, 2))
    common[ROOT] = False
    if common.sum() < _FEWEST_JOINTS:
        names = ", ".join(name for name, is_common in zip(JOINTS, common, strict=True) if is_common) or "none"
        raise ValueError(
            f"landmarks: {path}: expected at least {_FEWEST_JOINTS} joints that every image with a person has, got "
            f"{names}."
        )
    return SplitLandmarks(instants, joints, scored, common)


def landmark_rows(study: Study, ours: Cell) -> list[LandmarkRow]:
    """The program's row, and that of MCSS over the same joints of the same images.

    Rows are kept beside the cell. Without a landmark file the kept ones are returned, if they are of the same images.

    Args:
        study: Names the landmark file and the program.
        ours: The cell of MCSS to compare with.
    """
    kept_at = study.cells / ours.name / KEPT
    key = {"capture": study.capture.fingerprint, "images": f"test, {study.budget.evaluation!r}"}
    if (weights := weights_digest(study.cells / ours.name)) is not None:
        key |= {"weights": weights}
    there = study.landmarks is not None and study.landmarks.is_file()
    if study.landmarks is not None and there:
        key |= {"file": hashlib.sha256(study.landmarks.read_bytes()).hexdigest(), "program": _program(study)}
    if kept_at.exists() and (there or study.landmarks is None):
        kept = json.loads(kept_at.read_text(encoding="utf-8"))
        if all(kept["key"].get(name) == value for name, value in key.items()):
            return [_from_json(row, ours) for row in kept["rows"]]
    if study.landmarks is None:
        return []
    rows = measured_rows(study, study.landmarks, ours)
    write_json(kept_at, {"key": key, "rows": [row.to_json() for row in rows]})
    return rows


def measured_rows(study: Study, path: Path, ours: Cell) -> list[LandmarkRow]:
    """Score a landmark file, and MCSS beside it, by PA-MPJPE."""
    landmarks, program = read_landmarks(path, study.capture, "test", study.budget.evaluation), _program(study)
    found, common = landmarks.found, landmarks.common
    true = np.broadcast_to(landmarks.instants.pose[:, None], landmarks.joints.shape)[found][:, common]
    their_error = pa_mpjpe(torch.from_numpy(landmarks.joints[found][:, common]), torch.from_numpy(true.copy()))
    predictions = study.predictions(ours)
    assert predictions.pose is not None
    compared = torch.from_numpy(found[predictions.instant, predictions.view])
    body = torch.from_numpy(common)
    our_error = pa_mpjpe(predictions.pose[compared][:, body], true_poses(predictions)[compared][:, body])
    share = found.sum() / landmarks.scored.sum()
    about = f"{int(common.sum())} joints, the {100 * share:.0f} % of images in which {program} found somebody"
    their_time = _milliseconds(path)
    our_time = milliseconds_per_image(ours, study, predictions.rows[:_TIMED_IMAGES])
    return [
        LandmarkRow(
            title=program,
            system=program,
            variant=about + _timing(their_time),
            labels="–",
            pa_mpjpe=float(their_error.mean()),
            frame="camera",
            milliseconds=their_time,
        ),
        LandmarkRow(
            title=ours.title,
            system=ours.system,
            variant=f"the same {about}{_timing(our_time)}",
            labels=study.labels,
            pa_mpjpe=float(our_error.mean()),
            frame=predictions.frame,
            milliseconds=our_time,
        ),
    ]


def milliseconds_per_image(cell: Cell, study: Study, rows: Int64[np.ndarray, " n"]) -> float | None:
    """Median milliseconds of a trained network for one image at a time, decoding included; None without weights."""
    run = study.cells / cell.name
    if not (run / MODEL).exists():
        return None
    predict, milliseconds = NetworkPredictor(load_estimator(run), study.capture), []
    for row in rows:
        started = time.perf_counter()
        predict(np.array([row], np.int64))
        milliseconds.append(1000 * (time.perf_counter() - started))
    return float(np.median(milliseconds))


def _from_json(plain: dict[str, object], ours: Cell) -> LandmarkRow:
    title = ours.title if plain["system"] == ours.system else plain["system"]
    return LandmarkRow(**{**plain, "title": title})  # type: ignore[arg-type]


def _program(study: Study) -> str:
    """The name of the program that found the landmarks."""
    if study.program is not None:
        return study.program
    stated = None if study.landmarks is None else _metadata(study.landmarks).get(PROGRAM)
    return "another program" if stated is None else stated.decode()


def _milliseconds(path: Path) -> float | None:
    stated = _metadata(path).get(MILLISECONDS)
    return None if stated is None else float(stated)


def _metadata(path: Path) -> dict[bytes, bytes]:
    if path.suffix != ".parquet" or not path.is_file():
        return {}
    return pyarrow.parquet.read_schema(path).metadata or {}


def _timing(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f", {milliseconds:.0f} ms each"
