"""Write pose sequences in common file formats (JSON, CSV, TRC, BVH and NPZ), and their joint angles as a CSV."""

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

import mcss
from mcss.data.formats.bvh import write_bvh
from mcss.data.formats.csv import write_csv
from mcss.data.formats.npz import write_npz
from mcss.data.formats.trc import write_trc
from mcss.files import write_text
from mcss.inference.pose_sequence import PoseAxes, PoseSequence
from mcss.skeletons import JOINTS, PARENTS, body_angles

OutputFormat = Literal["json", "csv", "trc", "bvh", "npz", "angles"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)

AXES_IN_WORDS: dict[PoseAxes, str] = {
    "canonical": "root-relative, turned about the vertical until the pelvis→left hip bone points along +X; +Z up",
    "view": "root-relative, as the camera sees the person, upright: +X to the right of the image, +Y away, +Z up",
    "room": "in the room of the cameras, with the path of the root; +Z up",
}


def parsed_formats(text: str) -> tuple[OutputFormat, ...]:
    """Parse formats such as ``json,csv``, in the order of `OUTPUT_FORMATS`, each once.

    Raises:
        ValueError: A format is unknown, or there is none.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    formats = tuple(name for name in OUTPUT_FORMATS if name in names)
    if unknown := [name for name in names if name not in OUTPUT_FORMATS]:
        raise ValueError(f"formats: expected some of {','.join(OUTPUT_FORMATS)}, got {', '.join(unknown)}.")
    if not formats:
        raise ValueError(f"formats: expected at least one of {','.join(OUTPUT_FORMATS)}, got none.")
    return formats


def output_file(folder: Path, name: str, kind: OutputFormat) -> Path:
    """The file of a format: ``NAME.FORMAT``, and ``NAME_angles.csv`` for angles."""
    return folder / (f"{name}_angles.csv" if kind == "angles" else f"{name}.{kind}")


def write_poses(sequence: PoseSequence, folder: Path, formats: tuple[OutputFormat, ...], axes: PoseAxes) -> list[Path]:
    """Write a sequence in several formats, as files of a folder that `output_file` names; returns the files."""
    pose = sequence.poses_in(axes)
    paths = []
    for name in formats:
        path = output_file(folder, sequence.name, name)
        match name:
            case "json":
                write_text(path, json.dumps(as_json(sequence, axes), ensure_ascii=False, allow_nan=False) + "\n")
            case "csv":
                write_csv(path, pose, sequence.frame, sequence.time, _csv_columns(sequence))
            case "trc":
                write_trc(path, pose, sequence.time, sequence.rate)
            case "bvh":
                write_bvh(path, _at_even_rate(pose, sequence), sequence.rate)
            case "npz":
                write_npz(path, pose, sequence.time, _npz_arrays(sequence))
            case "angles":
                write_angles(path, pose, sequence.frame, sequence.time)
        paths.append(path)
    return paths


def write_angles(
    path: Path, pose: Float64[np.ndarray, "n 17 3"], frame: Int64[np.ndarray, " n"], time: Float64[np.ndarray, " n"]
) -> None:
    """Write the `body_angles` of poses as a CSV for spreadsheets.

    It has a line per pose: ``frame``, ``time`` in seconds, and a column per angle, such as ``right_knee``, in degrees
    with one decimal. Cells of undefined angles are empty.

    Args:
        path: The file.
        pose: +Z up.
        frame: Number of the image that each pose was found in.
        time: Seconds.
    """
    angles = body_angles(pose)
    lines = [",".join(["frame", "time", *(name.replace(" ", "_") for name in angles)])]
    for i, degrees in enumerate(np.stack([*angles.values()], axis=1)):
        cells = ["" if np.isnan(value) else f"{value:.1f}" for value in degrees]
        lines.append(",".join([f"{frame[i]}", f"{time[i]:.6f}", *cells]))
    write_text(path, "\n".join(lines) + "\n")


def as_json(sequence: PoseSequence, axes: PoseAxes) -> dict[str, Any]:
    """Convert a sequence to plain values, rounded to the digits that matter."""
    poses, orientation = sequence.poses, sequence.poses.orientation
    pose = np.round(sequence.poses_in(axes), 1)
    frames = []
    for i in range(len(sequence)):
        frame: dict[str, Any] = {
            "frame": int(sequence.frame[i]),
            "time": round(float(sequence.time[i]), 6),
            "found": bool(sequence.found[i]),
            "pose": pose[i].tolist(),
            "embedding": [round(float(value), 5) for value in poses.embedding[i]],
        }
        if not sequence.views:
            frame["square"] = [round(float(value), 1) for value in poses.crop_boxes[i]]
        if poses.error is not None:
            frame["expected_error"] = round(float(poses.error[i]), 1)
        if orientation is not None:
            frame["heading"] = round(float(orientation.heading[i]), 1)
            frame["heading_certainty"] = round(float(orientation.certainty[i]), 3)
        frames.append(frame)
    if orientation is not None:
        for frame, joints in zip(frames, np.round(poses.in_image(), 1).tolist(), strict=True):
            frame["joints_in_image"] = joints
    return {
        "mcss": mcss.__version__,
        "model": sequence.model,
        "source": sequence.source,
        "rate": sequence.rate,
        "joints": list(JOINTS),
        "parents": list(PARENTS),
        "units": "mm",
        "turned": axes,
        "axes": AXES_IN_WORDS[axes],
        "views": list(sequence.views),
        "notes": list(sequence.notes),
        "frames": frames,
    }


def _csv_columns(sequence: PoseSequence) -> dict[str, list[str]]:
    """The columns of a CSV besides the poses; cells are empty where the model makes no such estimate."""
    estimates = {"expected_error": sequence.poses.error, "heading": sequence.poses.heading}
    cells = {
        name: [""] * len(sequence) if values is None else [f"{value:.1f}" for value in values]
        for name, values in estimates.items()
    }
    return {"found": [str(int(found)) for found in sequence.found], **cells}


def _npz_arrays(sequence: PoseSequence) -> dict[str, np.ndarray]:
    """The arrays of an NPZ besides the poses."""
    poses = sequence.poses
    arrays = {"frames": sequence.frame, "found": sequence.found, "embeddings": poses.embedding}
    if poses.error is not None:
        arrays["expected_error"] = poses.error
    if poses.orientation is not None:
        arrays |= {"heading": poses.orientation.heading, "heading_certainty": poses.orientation.certainty}
        arrays["joints_in_image"] = poses.in_image().astype(np.float32)
    return arrays


def _at_even_rate(pose: Float64[np.ndarray, "n 17 3"], sequence: PoseSequence) -> Float64[np.ndarray, "m 17 3"]:
    """Poses at the even rate that BVH requires, interpolated where the frame rate of the video varies."""
    steps = np.diff(sequence.time)
    if not len(steps) or np.abs(steps * sequence.rate - 1).max() < 0.05:
        return pose
    count = round((sequence.time[-1] - sequence.time[0]) * sequence.rate) + 1
    even = sequence.time[0] + np.arange(count) / sequence.rate
    columns = [np.interp(even, sequence.time, column) for column in pose.reshape(len(pose), -1).T]
    return np.stack(columns, axis=1).reshape(-1, 17, 3)
