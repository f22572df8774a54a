"""Predicted poses as files of others' formats: JSON, CSV, TRC, BVH and NPZ."""

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float64

import mcss
from mcss.data.formats.bvh_writer import write_bvh
from mcss.files import replacing, write_text
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
                _write_csv(path, take, turned)
            case "trc":
                _write_trc(path, take, turned)
            case "bvh":
                write_bvh(path, _even(take.turned(turned), take), take.rate)
            case "npz":
                _write_npz(path, take, turned)
        paths.append(path)
    return paths


def as_json(take: Take, turned: Turned) -> dict[str, Any]:
    """All that is known of a take, as plain values; numbers rounded to what they are worth."""
    poses, placement = take.poses, take.poses.placement
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
            frame["square"] = [round(float(value), 1) for value in poses.squares[i]]
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


def _write_csv(path: Path, take: Take, turned: Turned) -> None:
    """A line for each frame; columns ``NAME.x`` and so on, as `mcss import videos` reads labels."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    about = ["frame", "time", "found", "expected_error", "heading"]
    writer.writerow(about + [f"{joint}.{axis}" for joint in JOINTS for axis in "xyz"])
    pose = take.turned(turned).reshape(len(take), -1)
    error, heading = take.poses.error, take.poses.heading
    for i in range(len(take)):
        known = ["" if values is None else f"{values[i]:.1f}" for values in (error, heading)]
        row = [str(take.frame[i]), f"{take.time[i]:.6f}", str(int(take.found[i])), *known]
        writer.writerow(row + [f"{value:.2f}" for value in pose[i]])
    write_text(path, text.getvalue())


def _write_trc(path: Path, take: Take, turned: Turned) -> None:
    """Markers for OpenSim: mm, +Y up, in canonical space the person facing +X; the root stays at the origin."""
    pose = take.turned(turned)
    markers = np.stack([-pose[..., 1], pose[..., 2], -pose[..., 0]], axis=-1).reshape(len(take), -1)
    count = len(take)
    header = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{take.rate:.6g}\t{take.rate:.6g}\t{count}\t{len(JOINTS)}\tmm\t{take.rate:.6g}\t1\t{count}",
        "Frame#\tTime\t" + "\t\t\t".join(JOINTS) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{number}" for number in range(1, len(JOINTS) + 1) for axis in "XYZ"),
        "",
    ]
    lines = [
        "\t".join([str(i + 1), f"{take.time[i]:.6f}", *(f"{value:.4f}" for value in markers[i])]) for i in range(count)
    ]
    write_text(path, "\n".join(header + lines) + "\n")


def _write_npz(path: Path, take: Take, turned: Turned) -> None:
    """Arrays; ``poses``, ``names``, ``times``, ``units`` and ``up`` as `mcss import videos` reads labels."""
    arrays: dict[str, np.ndarray] = {
        "poses": take.turned(turned).astype(np.float32),
        "names": np.array(JOINTS),
        "times": take.time,
        "units": np.array("mm"),
        "up": np.array("+z"),
        "frames": take.frame,
        "found": take.found,
        "embeddings": take.poses.embedding,
    }
    if take.poses.error is not None:
        arrays["expected_error"] = take.poses.error
    if (placement := take.poses.placement) is not None:
        arrays |= {"heading": placement.heading, "heading_certainty": placement.certainty}
        arrays["joints_in_image"] = take.poses.in_image().astype(np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def _even(pose: Float64[np.ndarray, "n 17 3"], take: Take) -> Float64[np.ndarray, "m 17 3"]:
    """Poses at an even rate, which is all that BVH can state; interpolated where the video's own rate varies."""
    steps = np.diff(take.time)
    if not len(steps) or np.abs(steps * take.rate - 1).max() < 0.05:
        return pose
    even = take.time[0] + np.arange(round((take.time[-1] - take.time[0]) * take.rate) + 1) / take.rate
    columns = [np.interp(even, take.time, column) for column in pose.reshape(len(pose), -1).T]
    return np.stack(columns, axis=1).reshape(-1, 17, 3)
