"""Skeletons: as SVG for pages, and drawn into images."""

import math

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mcss.skeletons import JOINTS, PARENTS
from mcss.viz.style import LEFT, MIDDLE, RIGHT

_TURN, _TILT = math.radians(30), math.radians(12)


def front_view(pose: Float[np.ndarray, "17 3"]) -> tuple[Float[np.ndarray, "17 2"], Float[np.ndarray, " 17"]]:
    """Project a canonical pose orthographically, seen from the front, 30° from its left and a little from above.

    In the canonical frame the left hip is at +X and up is +Z, so people face −Y.

    Returns:
        Coordinates in the drawing (y down), and the distance of each joint from the viewer, both in the pose's unit.
    """
    x, y, z = pose.T.astype(float)
    across = math.cos(_TURN) * x + math.sin(_TURN) * y
    depth = -math.sin(_TURN) * x + math.cos(_TURN) * y
    up = math.cos(_TILT) * z + math.sin(_TILT) * depth
    return np.stack([across, -up], axis=1), depth


def skeleton_svg(
    pose: Float[np.ndarray, "17 3"], ghost: Float[np.ndarray, "17 3"] | None = None, label: str = "3D pose"
) -> str:
    """Draw the `front_view` of a canonical pose (mm) as an SVG element; orange is the person's left, blue the right.

    Args:
        pose: Canonical pose.
        ghost: A second pose, drawn faintly behind the first, such as the true pose behind a prediction. The two roots
            coincide, and the drawing is centred on the ghost.
        label: Text for readers who do not see the drawing.
    """
    framed = pose if ghost is None else ghost
    centre = (framed.min(axis=0) + framed.max(axis=0)) / 2
    flat, depth = front_view(pose - centre)
    parts = [f'<svg class="skeleton" viewBox="-940 -940 1880 1880" role="img" aria-label="{_escaped(label)}">']
    floor = float(flat[:, 1].max()) + 40
    parts.append(f'<ellipse cx="0" cy="{floor:.0f}" rx="420" ry="90" fill="currentColor" opacity=".07"/>')
    if ghost is not None:
        behind, _ = front_view(ghost - centre)
        for joint, parent in enumerate(PARENTS[1:], 1):
            parts.append(_bone_svg(behind[parent], behind[joint], "currentColor", 28, 'opacity=".22"'))
    for joint in sorted(range(1, 17), key=lambda j: -(depth[j] + depth[PARENTS[j]])):
        a, b = flat[PARENTS[joint]], flat[joint]
        # A gap in the page's colour shows which of two crossing bones is in front; it ends before the joints.
        parts.append(_bone_svg(0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, "var(--card, #fff)", 74))
        parts.append(_bone_svg(a, b, bone_colour(joint), 44))
    x, y = flat[JOINTS.index("Head")]
    parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="62" fill="{MIDDLE}"/></svg>')
    return "".join(parts)


def draw_skeleton(image: UInt8[np.ndarray, "side side 3"], joints: Float[np.ndarray, "17 2"]) -> None:
    """Draw joints (as shares of the image's side) into a square RGB image; joints that are NaN are left out."""
    side = len(image)
    ends = np.clip(joints, -4, 5) * side
    for is_outline in (True, False):
        for joint, parent in enumerate(PARENTS):
            if parent < 0 or not np.isfinite(ends[[joint, parent]]).all():
                continue
            a, b = ([round(float(v) * 8) for v in ends[end]] for end in (joint, parent))
            colour = (255, 255, 255) if is_outline else _rgb(bone_colour(joint))
            width = max(1, side // 64) + (2 if is_outline else 0)
            cv2.line(image, a, b, colour, width, cv2.LINE_AA, shift=3)


def bone_colour(joint: int) -> str:
    """The colour of the bone that ends in a joint, by the side of the body."""
    return LEFT if JOINTS[joint].startswith("L") else RIGHT if JOINTS[joint].startswith("R") else MIDDLE


def _bone_svg(a: Float[np.ndarray, "2"], b: Float[np.ndarray, "2"], colour: str, width: int, more: str = "") -> str:
    return (
        f'<line x1="{a[0]:.0f}" y1="{a[1]:.0f}" x2="{b[0]:.0f}" y2="{b[1]:.0f}" stroke="{colour}" '
        f'stroke-width="{width}" stroke-linecap="round" {more}/>'
    )


def _rgb(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
