"""Predicted poses as files of others' formats: JSON, CSV, TRC, BVH and NPZ."""

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float64

import mcss
from mcss.data.formats.bvh import write_bvh
from mcss.data.formats.csv import write_csv
from mcss.data.formats.npz import write_npz
from mcss.data.formats.trc import write_trc
from mcss.files import write_text
from mcss.inference.pose_sequence import Take, Turned
from mcss.skeletons import JOINTS, PARENTS

Format = Literal["json", "csv", "trc", "bvh", "npz"]
FORMATS: tuple[Format, ...] = get_args(Format)

FRAMES = {
    "canonical": "root-relative, turned about the vertical until the pelvis→left hip bone points along +X; +Z up",
    "view": "root-relative, as the camera sees the person, upright: +X to the right of the image, +Y away, +Z up",
}


def parsed_formats(text: str) -> tuple[Format, ...]:
    """``json,csv,…`` as formats, each once.

    Raises:
        ValueError: One that is not known, or none.
    """
    asked = [name.strip().lower() for name in text.split(",") if name.strip()]
    known = [name for name in FORMATS if name in asked]
    if unknown := [name for name in asked if name not in FORMATS]:
        raise ValueError(f"formats: {', '.join(unknown)} cannot be written; expected some of {','.join(FORMATS)}.")
    if not known:
        raise ValueError(f"formats: expected at least one of {','.join(FORMATS)}, came none.")
    return tuple(known)


def write_poses(take: Take, folder: Path, formats: tuple[Format, ...], turned: Turned) -> list[Path]:
    """Write a take in some formats, as ``NAME.ENDING`` in a folder; returns the files."""
    paths = []
    for name in formats:
        path = folder / f"{take.name}.{name}"
        match name:
            case "json":
                write_text(path, json.dumps(as_json(take, turned), ensure_ascii=False, allow_nan=False) + "\n")
            case "csv":
                write_csv(path, take.turned(turned), take.frame, take.time, _csv_columns(take))
            case "trc":
                write_trc(path, take.turned(turned), take.time, take.rate)
            case "bvh":
                write_bvh(path, _even(take.turned(turned), take), take.rate)
            case "npz":
                write_npz(path, take.turned(turned), take.time, _npz_arrays(take))
        paths.append(path)
    return paths


def as_json(take: Take, turned: Turned) -> dict[str, Any]:
    """All that is known of a take, as plain values; numbers rounded to what they are worth."""
    poses, placement = take.poses, take.poses.orientation
    pose = np.round(take.turned(turned), 1)
    frames = []
    for i in range(len(take)):
        frame: dict[str, Any] = {
            "frame": int(take.frame[i]),
            "time": round(float(take.time[i]), 6),
            "found": bool(take.found[i]),
            "pose": pose[i].tolist(),
            "embedding": [round(float(value), 5) for value in poses.embedding[i]],
        }
        if not take.views:
            frame["square"] = [round(float(value), 1) for value in poses.crop_boxes[i]]
        if poses.error is not None:
            frame["expected_error"] = round(float(poses.error[i]), 1)
        if placement is not None:
            frame["heading"] = round(float(placement.heading[i]), 1)
            frame["heading_certainty"] = round(float(placement.certainty[i]), 3)
        frames.append(frame)
    if placement is not None:
        for frame, joints in zip(frames, np.round(poses.in_image(), 1).tolist(), strict=True):
            frame["joints_in_image"] = joints
    return {
        "mcss": mcss.__version__,
        "model": take.model,
        "source": take.source,
        "rate": take.rate,
        "joints": list(JOINTS),
        "parents": list(PARENTS),
        "units": "mm",
        "turned": turned,
        "axes": FRAMES[turned],
        "views": list(take.views),
        "notes": list(take.notes),
        "frames": frames,
    }


def _csv_columns(take: Take) -> dict[str, list[str]]:
    """The columns that a CSV has beside the poses; cells are empty where the model has no such estimate."""
    columns = {"expected_error": take.poses.error, "heading": take.poses.heading}
    cells = {
        name: [""] * len(take) if values is None else [f"{value:.1f}" for value in values]
        for name, values in columns.items()
    }
    return {"found": [str(int(found)) for found in take.found], **cells}


def _npz_arrays(take: Take) -> dict[str, np.ndarray]:
    """The arrays that an NPZ has beside the poses."""
    arrays = {"frames": take.frame, "found": take.found, "embeddings": take.poses.embedding}
    if take.poses.error is not None:
        arrays["expected_error"] = take.poses.error
    if (placement := take.poses.placement) is not None:
        arrays |= {"heading": placement.heading, "heading_certainty": placement.certainty}
        arrays["joints_in_image"] = take.poses.in_image().astype(np.float32)
    return arrays


def _even(pose: Float64[np.ndarray, "n 17 3"], take: Take) -> Float64[np.ndarray, "m 17 3"]:
    """Poses at an even rate, which is all that BVH can state; interpolated where the video's own rate varies."""
    steps = np.diff(take.time)
    if not len(steps) or np.abs(steps * take.rate - 1).max() < 0.05:
        return pose
    even = take.time[0] + np.arange(round((take.time[-1] - take.time[0]) * take.rate) + 1) / take.rate
    columns = [np.interp(even, take.time, column) for column in pose.reshape(len(pose), -1).T]
    return np.stack(columns, axis=1).reshape(-1, 17, 3)
