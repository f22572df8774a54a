"""A page about cameras that were found: the verdict, the room, errors by camera and joint, skeletons over images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float64
from markupsafe import Markup, escape

from mcss.calibration.body import BONES, HIPS, JOINTS, RIGID, USED
from mcss.calibration.calibrate import Calibration, triangulated
from mcss.calibration.footage import PartCalibration
from mcss.data.capture import Capture
from mcss.files import write_text
from mcss.images import encode_jpeg
from mcss.viz.html import page_environment
from mcss.viz.style import PALETTE

SHOWN = 3
"""Instants of which images are shown."""

MOST_PARTS = 12
"""Rigs that a page shows at most, the worst first."""

_SIDE = 320


def write_report(path: Path, found: Sequence[PartCalibration], capture: Capture) -> None:
    """Write the page, which loads nothing from elsewhere."""
    worst = sorted(found, key=lambda part: ("failed", "weak", "good").index(part.calibration.verdict.grade))
    page = page_environment().get_template("calibration.html")
    name = Path(capture.uri).name
    write_text(path, page.render(capture_name=name, parts=[_section(part, capture) for part in worst[:MOST_PARTS]]))


def _section(part: PartCalibration, capture: Capture) -> dict[str, Any]:
    calibration, landmarks = part.calibration, part.landmarks
    rig, measures = calibration.cameras, calibration.verdict.measures
    chosen = np.linspace(0, len(landmarks) - 1, min(len(landmarks), 200)).astype(int)
    joints = triangulated(landmarks.take(chosen), calibration).landmarks[:, USED]
    path = joints[:, HIPS].mean(axis=1)
    path = path[np.isfinite(path).all(axis=1)]
    cameras = [
        (
            view,
            ", ".join(f"{value:.0f}" for value in rig.positions[v]),
            f"{rig.focal[v]:.0f}",
            f"{measures.by_view_mm[v]:.0f}",
            f"{100 * measures.agreeing[v]:.0f} %",
            f"{1000 * calibration.offsets[v]:.0f}",
        )
        for v, view in enumerate(rig.views)
    ]
    return {
        "name": part.name,
        "verdict": calibration.verdict,
        "summary": (
            f"{measures.instants:,} instants that two or more views see. Joints lie {measures.reprojection_px:.1f} px "
            f"({measures.reprojection_mm:.0f} mm) from where they should be, bone lengths vary by "
            f"{100 * measures.bones:.0f} %. The scale rests on {calibration.scale_from}."
        ),
        "above": room_svg(calibration, path, (0, 1)),
        "side": room_svg(calibration, path, (0, 2)),
        "cameras": cameras,
        "notes": calibration.notes,
        "joints": _by_side(measures.by_joint_mm),
        "overlays": _overlays(part, capture, chosen, joints),
    }


def _by_side(errors: Sequence[float]) -> list[tuple[str, dict[str, str]]]:
    """Errors of joints, those of the left and the right side beside each other; the nose counts as left."""
    joints: dict[str, dict[str, str]] = {}
    for name, error in zip(JOINTS, errors, strict=True):
        side, _, joint = name.partition("_")
        joint = {"foot_index": "toes"}.get(joint, joint) or side
        joints.setdefault(joint, {})[side if side in ("left", "right") else "left"] = f"{error:.0f}"
    return list(joints.items())


def room_svg(calibration: Calibration, path: Float[np.ndarray, "n 3"], axes: tuple[int, int]) -> Markup:
    """Draw the room along two axes: a grid of metres, each camera with its line of sight, and the person's path."""
    rig = calibration.cameras
    ends = rig.positions + 900 * rig.rotation[:, 2]
    points = np.concatenate([rig.positions, ends, path, np.zeros((1, 3))])[:, list(axes)] * [1, -1]
    low, high = (points.min(axis=0) - 500).tolist(), (points.max(axis=0) + 500).tolist()
    width, height = high[0] - low[0], high[1] - low[1]
    pixel = max(width, height) / 480
    parts = [
        f'<svg viewBox="{low[0]:.0f} {low[1]:.0f} {width:.0f} {height:.0f}" role="img" aria-label="cameras and path">'
    ]
    for axis in (0, 1):
        for line in np.arange(np.ceil(low[axis] / 1000), np.floor(high[axis] / 1000) + 1).tolist():
            line *= 1000
            a, b = ((line, low[1]), (line, high[1])) if axis == 0 else ((low[0], line), (high[0], line))
            parts.append(_line(a, b, "currentColor", pixel * (2.0 if line == 0 else 1.0), 0.35 if line == 0 else 0.12))
    way = " ".join(f"{x:.0f},{-y:.0f}" for x, y in path[:, list(axes)])
    parts.append(f'<polyline points="{way}" fill="none" stroke="{PALETTE[0]}" stroke-width="{2 * pixel:.0f}"/>')
    labels: list[tuple[float, float]] = []
    for v, view in enumerate(rig.views):
        a, b = ((float(part[v, axes[0]]), -float(part[v, axes[1]])) for part in (rig.positions, ends))
        parts.append(_line(a, b, PALETTE[1], 2 * pixel, 1.0))
        parts.append(f'<circle cx="{a[0]:.0f}" cy="{a[1]:.0f}" r="{5 * pixel:.0f}" fill="{PALETTE[1]}"/>')
        outward = a[0] > (low[0] + high[0]) / 2
        place = (a[0] - 8 * pixel if outward else a[0] + 8 * pixel, _free(a[1] - 6 * pixel, a[0], labels, 13 * pixel))
        labels.append((a[0], place[1]))
        parts.append(
            f'<text x="{place[0]:.0f}" y="{place[1]:.0f}" font-size="{12 * pixel:.0f}" fill="currentColor" '
            f'text-anchor="{"end" if outward else "start"}">{escape(view)}</text>'
        )
    return Markup("".join([*parts, "</svg>"]))


def _free(y: float, x: float, labels: list[tuple[float, float]], height: float) -> float:
    """A height near y for a label at x, at which it covers none of the others."""
    while any(abs(x - other) < 6 * height and abs(y - there) < height for other, there in labels):
        y -= height / 2
    return y


def _line(a: tuple[float, float], b: tuple[float, float], colour: str, width: float, opacity: float) -> str:
    return (
        f'<line x1="{a[0]:.0f}" y1="{a[1]:.0f}" x2="{b[0]:.0f}" y2="{b[1]:.0f}" stroke="{colour}" '
        f'stroke-width="{width:.0f}" opacity="{opacity}"/>'
    )


def _overlays(
    part: PartCalibration, capture: Capture, chosen: np.ndarray, joints: Float64[np.ndarray, "n joints 3"]
) -> list[dict[str, Any]]:
    rig, landmarks = part.calibration.cameras, part.landmarks
    pixels = rig.project(joints)
    rows = []
    for i in np.linspace(0, len(chosen) - 1, min(SHOWN, len(chosen))).astype(int):
        images = []
        for v, view in enumerate(rig.views):
            row = landmarks.instants.rows[chosen[i], [landmarks.views.index(view)]]
            if row[0] < 0:
                continue
            image = np.ascontiguousarray(capture.decode(row, _SIDE)[0])
            box = capture.boxes(row)[0].astype(np.float64)
            images.append(encode_jpeg(_drawn(image, (pixels[i, v] - box[:2]) / (box[2:] - box[:2])), 85))
        rows.append({"text": landmarks.instants.describe(int(chosen[i])), "images": images})
    return rows


def _drawn(image: np.ndarray, points: Float64[np.ndarray, "joints 2"]) -> np.ndarray:
    """Draw the bones: the person's left in orange, the right in blue, the rest in white."""
    known = np.isfinite(points).all(axis=1)
    places = np.round(np.nan_to_num(points) * len(image) * 16).astype(int)
    places = np.clip(places, -(2**15), 2**15)
    for a, b in [*BONES[:RIGID].tolist(), *BONES[RIGID : RIGID + 4].tolist()][: RIGID + 4]:
        if known[a] and known[b]:
            sides = {JOINTS[a].split("_")[0], JOINTS[b].split("_")[0]}
            colour = (240, 150, 40) if sides == {"left"} else (70, 150, 240) if sides == {"right"} else (235, 235, 235)
            ends = [tuple(int(c) for c in places[j]) for j in (a, b)]
            cv2.line(image, ends[0], ends[1], colour, 2, cv2.LINE_AA, 4)
    return image
