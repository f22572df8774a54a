"""A row for what others would pick instead, such as MediaPipe: its 3D landmarks of the test pictures, from a file.

The program is not run here. Whatever it is, its landmarks come as a CSV or Parquet file with a line for every landmark
of every picture in which it found somebody: ``subject,sequence,frame,view,joint,x,y,z``, the joints named as in
`mcss.skeletons.JOINTS`, along the axes of the camera (y down) in any unit.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32

from mcss.captures import Capture
from mcss.cells import Cell, cell_predictions
from mcss.evaluation import EvaluationSettings, evaluated_instants, true_poses
from mcss.instants import Instants
from mcss.keypoints import read_joints
from mcss.metrics import pa_mpjpe
from mcss.reproduction.parts import Study
from mcss.skeletons import JOINTS, ROOT

COLUMNS = ("subject", "sequence", "frame", "view", "joint", "x", "y", "z")

_FEWEST = 4
"""Joints that an alignment needs, or it forgives everything."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """What a program found in the pictures of a split."""

    instants: Instants
    joints: Float32[np.ndarray, "n views 17 3"]
    """NaN where it found none."""
    looked: Bool[np.ndarray, "n views"]
    """Pictures that are scored."""
    common: Bool[np.ndarray, " 17"]
    """Joints that all findings have."""

    @property
    def seen(self) -> Bool[np.ndarray, "n views"]:
        """Pictures that are scored and in which it found somebody."""
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
        raise ValueError(f"landmarks: {path} has landmarks of none of the {int(looked.sum()):,} pictures looked at.")
    common = np.isfinite(joints[found.seen]).all(axis=(0, 2))
    common[ROOT] = False
    if common.sum() < _FEWEST:
        names = ", ".join(name for name, is_common in zip(JOINTS, common, strict=True) if is_common) or "none"
        raise ValueError(f"landmarks: {path}: expected {_FEWEST} joints or more in every finding, came {names}.")
    return Landmarks(instants, joints, looked, common)


def landmark_rows(study: Study, ours: Cell) -> list[dict[str, Any]]:
    """The program's row, and that of MCSS over the same joints of the same pictures."""
    found = read_landmarks(Path(study.landmarks), study.capture, "test", study.looked)
    seen, common = found.seen, found.common
    true = np.broadcast_to(found.instants.pose[:, None], found.joints.shape)[seen][:, common]
    theirs = pa_mpjpe(torch.from_numpy(found.joints[seen][:, common]), torch.from_numpy(true.copy()))
    predictions = cell_predictions(ours, study.cells, study.capture, "test", study.looked, study.progress)
    assert predictions.pose is not None
    kept = torch.from_numpy(seen[predictions.instant, predictions.view])
    body = torch.from_numpy(common)
    own = pa_mpjpe(predictions.pose[kept][:, body], true_poses(predictions)[kept][:, body])
    share = seen.sum() / found.looked.sum()
    about = f"{int(common.sum())} joints, the {100 * share:.0f} % of pictures in which {study.program} found somebody"
    return [
        _row(study.program, f"{about}", "–", float(theirs.mean()), "camera"),
        _row("mcss", f"the same {about}", study.labels, float(own.mean()), predictions.frame),
    ]


def _row(system: str, variant: str, labels: str, error: float, frame: str) -> dict[str, Any]:
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
    }
