"""Images for reports: skeletons as SVG, photographs as data URIs, and the colours of all; curves: `mcss.viz.plots`.

The palette is one that colour-blind readers can tell apart and that keeps its contrast on a light and on a dark page.
Nothing here touches matplotlib's global state.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, UInt8
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mcss.files import replacing
from mcss.skeletons import JOINTS, PARENTS

INK = "#0a0b0c"
"""Stands for the page's own text colour; replaced in the finished SVG."""

PALETTE = ("#2a86c7", "#e08a00", "#129c73", "#c96ba0", "#7a6fd0", "#b3541e")
"""After Okabe and Ito, at a lightness that reads on white and on near-black."""

GREY = "#8b929c"
LEFT, RIGHT, MIDDLE = "#d9622b", "#2a86c7", "#8b929c"
"""Colours of the limbs of the person's left and right side and of the torso."""

_TURN, _TILT = math.radians(30), math.radians(12)


@dataclass(frozen=True, eq=False)
class AlignedView:
    """One view of a synchronised recording: what it shows at common times, and why it is placed where it is."""

    label: str
    strip: UInt8[np.ndarray, "height width 3"]
    """Images at common times, side by side."""
    start: float
    """Its offset in seconds."""
    offsets: Float64[np.ndarray, " n"]
    """Offsets in seconds that were looked at; none where there was nothing to look at."""
    agreement: Float64[np.ndarray, " n"]
    """How well the other views agree with each."""


def alignment_png(path: Path, title: str, views: Sequence[AlignedView]) -> None:
    """Draw a row for each view: images that should show the same instants in every row, and the agreement curve."""
    with rc_context({"font.size": 9.0, "text.parse_math": False}):
        figure = Figure(figsize=(13, 0.6 + 1.7 * len(views)), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(views), 2, width_ratios=(3, 1), squeeze=False)
        for (left, right), view in zip(grid, views, strict=True):
            left.imshow(view.strip, aspect="equal", interpolation="antialiased")
            left.set_title(view.label, loc="left", fontsize=9)
            left.set_axis_off()
            right.spines[["top", "right", "left"]].set_visible(False)
            right.set_yticks([])
            if len(view.offsets):
                right.plot(view.offsets, view.agreement, color=PALETTE[0], linewidth=1.2)
                right.axvline(view.start, color=PALETTE[1], linewidth=1.2)
            else:
                right.set_visible(False)
        grid[-1][1].set_xlabel("offset, s; height: how well the other views agree")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=90, metadata={"Software": None})


def skeleton_svg(
    pose: Float[np.ndarray, "17 3"], ghost: Float[np.ndarray, "17 3"] | None = None, label: str = "3D pose"
) -> str:
    """A canonical pose (mm) seen from the front, half from its left and a little from above, as an SVG element.

    Args:
        pose: Canonical pose; orange is the person's left, blue the right.
        ghost: A second pose to be drawn faintly behind it, such as the true one behind a prediction. Their roots
            lie on each other, and it is this pose that is centred.
        label: Text for those who do not see the image.
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
            parts.append(_bone(behind[parent], behind[joint], "currentColor", 28, 'opacity=".22"'))
    bones = sorted(range(1, 17), key=lambda j: -(depth[j] + depth[PARENTS[j]]))
    for joint in bones:
        a, b = flat[PARENTS[joint]], flat[joint]
        # A gap in the colour of the page shows which of two crossing bones is in front; not at the joints.
        parts.append(_bone(0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, "var(--card, #fff)", 74))
        parts.append(_bone(a, b, _side(joint), 44))
    x, y = flat[JOINTS.index("Head")]
    parts.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="62" fill="{MIDDLE}"/></svg>')
    return "".join(parts)


def data_uri(image: bytes) -> str:
    """A JPEG or PNG as an address that holds the image itself."""
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def front_view(pose: Float[np.ndarray, "17 3"]) -> tuple[Float[np.ndarray, "17 2"], Float[np.ndarray, " 17"]]:
    """Orthographic image coordinates (y down) and the distance from the viewer, who stands before the person.

    In the canonical frame the left hip is at +X and up is +Z, so people face −Y.
    """
    x, y, z = pose.T.astype(float)
    across = math.cos(_TURN) * x + math.sin(_TURN) * y
    depth = -math.sin(_TURN) * x + math.cos(_TURN) * y
    up = math.cos(_TILT) * z + math.sin(_TILT) * depth
    return np.stack([across, -up], axis=1), depth


def _bone(a: Float[np.ndarray, "2"], b: Float[np.ndarray, "2"], colour: str, width: int, more: str = "") -> str:
    return (
        f'<line x1="{a[0]:.0f}" y1="{a[1]:.0f}" x2="{b[0]:.0f}" y2="{b[1]:.0f}" stroke="{colour}" '
        f'stroke-width="{width}" stroke-linecap="round" {more}/>'
    )


def _side(joint: int) -> str:
    return LEFT if JOINTS[joint].startswith("L") else RIGHT if JOINTS[joint].startswith("R") else MIDDLE


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
