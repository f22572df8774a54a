"""Unit and up axis of somebody's joints: stated and checked, or found from what people are like."""

import math
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64

from mcss.data.capture import Camera
from mcss.errors import SourceError
from mcss.skeletons import JOINTS, LEGS, body_heights, bone_lengths, knee_bends

Up = Literal["x", "y", "z", "-x", "-y", "-z"]

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
"""Millimetres in each."""

_SPELLINGS = {
    "millimeters": "mm",
    "millimetres": "mm",
    "millimeter": "mm",
    "centimeters": "cm",
    "centimetres": "cm",
    "meters": "m",
    "metres": "m",
    "meter": "m",
    "inches": "in",
    "inch": "in",
}

PERSON_MM = (500.0, 2500.0)
"""From a toddler to the tallest; the ranges of mm, cm and m do not meet, so that size alone tells them apart."""

_UPRIGHT = 0.5
"""The mean direction from feet to head must have at least this part along the up axis for it to be sure."""

Places = Float64[np.ndarray, "samples 17 3"]


def find_unit(path: Path, places: Places, stated: str | None) -> tuple[float, str | None]:
    """Millimetres in the file's unit, and a note if it had to be found.

    Args:
        path: For messages.
        places: In the file's unit.
        stated: A unit, or a number of millimetres; None or something unknown to find it by a person's size.

    Raises:
        SourceError: The person is not 0.5–2.5 m tall, in the unit stated or in any.
    """
    tall = float(np.nanmedian(body_heights(places)))
    unit = _SPELLINGS.get(stated or "", stated or "")
    scale = UNITS.get(unit) or _positive(unit)
    fitting = [name for name in ("mm", "cm", "m") if PERSON_MM[0] <= tall * UNITS[name] <= PERSON_MM[1]]
    if scale is None and fitting:
        return UNITS[fitting[0]], f"coordinates are taken as {fitting[0]}: the person is {tall:.4g} tall"
    if scale is not None and PERSON_MM[0] <= tall * scale <= PERSON_MM[1]:
        return scale, None
    size = f"{tall:.4g} units" if scale is None else f"{tall * scale / 1000:.4g} m (with units {stated})"
    raise SourceError(
        f"{path}: the person is {size} tall from head to foot; expected 0.5 to 2.5 m"
        + (f", which it is in {fitting[0]}" if fitting else "")
        + ": state the setting poses.units (mm, cm, m, in, or millimetres per unit), or check which points are joints"
    )


def find_up(path: Path, places: Places, stated: str | None, by_user: bool = False) -> tuple[Up, str | None]:
    """The axis that points up, and a note if it had to be found or looks wrong.

    Args:
        path: For messages.
        places: In the file's axes.
        stated: An axis such as ``z`` or ``+z``; None or something unknown to find it by where heads are.
        by_user: Whether the user stated it, who may know of somebody who lies; what a file states must fit.

    Raises:
        SourceError: The person is upright along no axis, or upside down along the stated one.
    """
    head = places[:, JOINTS.index("Head")]
    feet = (places[:, JOINTS.index("LFoot")] + places[:, JOINTS.index("RFoot")]) / 2
    direction = head - feet
    direction = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
    mean = np.nanmean(direction, axis=0)
    strongest = int(np.argmax(np.abs(mean)))
    seen: Up = get_args(Up)[strongest + (3 if mean[strongest] < 0 else 0)]
    sure = abs(mean[strongest]) >= _UPRIGHT and abs(mean[strongest]) > 1.5 * np.sort(np.abs(mean))[1]
    axis = (stated or "").removeprefix("+")
    if axis in get_args(Up):
        known: Up = get_args(Up)[get_args(Up).index(axis)]
        along = float(mean["xyz".index(known[-1])]) * (-1 if known.startswith("-") else 1)
        if known == seen or not sure:
            return known, None
        if along <= -_UPRIGHT or not by_user:
            how = "is upside down" if along <= -_UPRIGHT else "lies"
            raise SourceError(
                f"{path}: with {known} up the person {how}: heads are on the side of {seen} from the feet; "
                f"state the setting poses.up (such as {seen}), or check which points are joints"
            )
        return known, f"with {known} up, as stated, the person lies; heads are on the side of {seen} from the feet"
    if not sure:
        parts = ", ".join(f"{a} {v:+.2f}" for a, v in zip("xyz", mean, strict=True))
        raise SourceError(
            f"{path}: which axis points up cannot be told, as the person stands along none (mean direction from feet "
            f"to head: {parts}); state the setting poses.up, one of {', '.join(get_args(Up))}"
        )
    return seen, f"{seen} is taken as up: that is where heads are"


def to_z_up(places: Float64[np.ndarray, "*batch 3"], up: Up) -> Float64[np.ndarray, "*batch 3"]:
    """The same places turned (never mirrored) so that the axis `up` becomes +Z.

    Example:
        >>> to_z_up(np.array([1.0, 2.0, 3.0]), "y").tolist()
        [1.0, -3.0, 2.0]
    """
    turned: Float64[np.ndarray, "*batch 3"] = places @ up_rotation(up).T
    return turned


def up_rotation(up: Up) -> Float64[np.ndarray, "3 3"]:
    """The rotation that makes the axis `up` +Z."""
    rows = {
        "z": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        "-z": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
        "y": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
        "-y": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
        "x": ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
        "-x": ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    }
    return np.array(rows[up], np.float64)


def turned(camera: Camera, up: Up) -> Camera:
    """A camera of a world whose axis `up` points up, as it stands in the world turned to +Z up."""
    return Camera(camera.rotation @ up_rotation(up).T, camera.translation, camera.intrinsics)


def check_knees(path: Path, upright: Places, clearly: float = 0.15, most: float = 0.8) -> None:
    """Refuse a person whose knees bend backwards: left and right, or two axes, are exchanged.

    Args:
        path: For messages.
        upright: +Z up.
        clearly: Only knees this far from the line from hip to ankle are looked at, as a share of the leg.
        most: More than this share of them must bend the wrong way.

    Raises:
        SourceError: They do.
    """
    bones = bone_lengths(upright)
    leg_lengths = np.stack([bones[:, knee - 1] + bones[:, foot - 1] for _, knee, foot in LEGS], axis=1)
    bend = (knee_bends(upright) / np.maximum(leg_lengths, 1e-12)).T.ravel()
    clear = bend[np.abs(bend) > clearly]
    if len(clear) >= 10 and float((clear < 0).mean()) > most:
        raise SourceError(
            f"{path}: the knees bend backwards in {(clear < 0).mean():.0%} of the {len(clear)} clear cases, so the "
            "person is mirrored: left and right are exchanged (name them in a mapping file, setting poses.joints), or "
            "the axes are left-handed (setting poses.left_handed)"
        )


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
