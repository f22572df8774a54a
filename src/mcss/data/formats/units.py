"""The unit and the up axis of 3D joints: checked if they are stated, and found from what people are like if not."""

import math
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64

from mcss.data.cameras import Camera
from mcss.errors import SourceError
from mcss.skeletons import HEIGHTS_MM, JOINTS, LEGS, body_heights, bone_lengths, knee_bends

Up = Literal["x", "y", "z", "-x", "-y", "-z"]

UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "in": 25.4}
"""Millimetres per unit."""

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

ADULTS_MM = (1300.0, 2000.0)
"""`body_heights`, which end at the ankle, of nearly all adults."""

BROKEN = 4.0
"""A bone this many times as long as usual is none."""

_FLAT = 0.01
"""A body is this share of its own size deep at least, however flat it stands."""

_UPRIGHT = 0.5
"""The mean direction from feet to head must have at least this component along the up axis to determine it."""

JointPositions = Float64[np.ndarray, "samples 17 3"]


def without_broken_bones(joints: JointPositions) -> tuple[JointPositions, int]:
    """Return the joints with NaN in samples that have an impossible bone, and the number of those samples.

    Programs write numbers such as 9999999, or the end of their range, for a marker that was lost: a bone to it is many
    times as long as usual, and if all were lost, all bones have no length.
    """
    lengths = bone_lengths(joints)
    known = np.isfinite(lengths).all(axis=1)
    if not known.any():
        return joints, 0
    usual = np.percentile(lengths[known], 25, axis=0)
    size = float(np.median(usual))
    long = lengths > BROKEN * np.maximum(usual, 0.3 * size)
    broken = known & (long.any(axis=1) | (np.median(lengths, axis=1) < size / BROKEN))
    return np.where(broken[:, None, None], np.nan, joints), int(broken.sum())


def check_depth(path: Path, points: Float64[np.ndarray, "samples points 3"]) -> None:
    """Refuse points of an image with a third number beside x and y: a score, or the same one for all.

    Args:
        path: The file, for messages.
        points: Points of a body, in the file's unit and axes.

    Raises:
        SourceError: The points have no depth.
    """
    seen = np.isfinite(points).all(axis=2)
    known = np.where(seen[..., None], points, np.nan)[seen.sum(axis=1) > 3]
    if not len(known):
        return
    low, high = np.nanmin(known, axis=1), np.nanmax(known, axis=1)
    extent = np.median(high - low, axis=0)
    flat = int(np.argmin(extent))
    if (low[:, 2] >= 0).all() and (high[:, 2] <= 1).all() and extent.max() > 10:
        found = "x, y and a score from 0 to 1"
    elif extent[flat] < _FLAT * extent.max():
        found = f"{'xyz'[flat]} is the same for all joints"
    else:
        return
    raise SourceError(
        f"{path}: expected poses in 3D, got points without depth ({found}), which seem to be 2D keypoints of one view; "
        "use keypoints of single views as --points or --boxes, and triangulated points as labels"
    )


def check_not_normalised(path: Path, joints: JointPositions) -> None:
    """Refuse MediaPipe's normalised landmarks, which are shares of an image, where no unit is stated.

    Args:
        path: The file, for messages.
        joints: Joints in numbers without a unit.

    Raises:
        SourceError: All x and y lie between 0 and 1, and a body of that size is small in any unit.
    """
    known = joints[np.isfinite(joints).all(axis=(1, 2))]
    inside = (known[..., :2] >= 0) & (known[..., :2] <= 1)
    if len(known) and inside.mean() > 0.98 and float(np.median(body_heights(known))) < 1.2:
        raise SourceError(
            f"{path}: expected poses in 3D, got x and y between 0 and 1, which seem to be shares of an image, such as "
            "MediaPipe's normalised landmarks; export its world landmarks, or use keypoints of single views as "
            "--points or --boxes; if the poses are in space, give --poses.units"
        )


def find_unit(path: Path, joints: JointPositions, stated: str | None) -> tuple[float, str | None]:
    """Millimetres per unit of the file, and a note if the unit had to be found.

    A person's size determines the unit, since the possible heights in mm, cm and m do not overlap. What is an adult in
    inches and a baby in cm is taken as the adult.

    Args:
        path: The file, for messages.
        joints: Joints in the file's unit.
        stated: A unit, or a number of millimetres; None or an unknown word to find the unit by the person's size.

    Raises:
        SourceError: The person is not 0.5–2.5 m tall in the stated unit or, without one, in any unit.
    """
    tall = float(np.nanmedian(body_heights(joints)))
    unit = _SPELLINGS.get(stated or "", stated or "")
    scale = UNITS.get(unit) or _positive(unit)
    fitting = [name for name in ("mm", "cm", "m") if HEIGHTS_MM[0] <= tall * UNITS[name] <= HEIGHTS_MM[1]]
    if scale is None and fitting:
        metric, inches = tall * UNITS[fitting[0]], tall * UNITS["in"]
        if ADULTS_MM[0] <= inches <= ADULTS_MM[1]:
            sizes = f"{inches / 1000:.2f} m tall, and would be {metric / 1000:.2f} m in {fitting[0]}"
            return UNITS["in"], f"coordinates are taken as inches, as the person is {sizes}; if not, state poses.units"
        note = f"coordinates are taken as {fitting[0]}, as the person is {tall:.4g} tall"
        if HEIGHTS_MM[0] <= inches <= HEIGHTS_MM[1]:
            note += f"; if they are inches (a person of {inches / 1000:.2f} m), give --poses.units in"
        return UNITS[fitting[0]], note
    if scale is not None and HEIGHTS_MM[0] <= tall * scale <= HEIGHTS_MM[1]:
        return scale, None
    size = f"{tall:.4g} units" if scale is None else f"{tall * scale / 1000:.4g} m (with units {stated})"
    raise SourceError(
        f"{path}: the person is {size} tall from head to foot; expected 0.5 to 2.5 m"
        + (f", which it is in {fitting[0]}" if fitting else "")
        + ": give --poses.units (mm, cm, m, in, or millimetres per unit), or check which points are joints"
    )


def find_up(path: Path, joints: JointPositions, stated: str | None, by_user: bool = False) -> tuple[Up, str | None]:
    """The axis that points up, and a note if it had to be found or looks wrong.

    Args:
        path: The file, for messages.
        joints: Joints in the file's axes.
        stated: An axis such as ``z`` or ``+z``, or ``±z`` if its direction is not known; None or an unknown word to
            find it by where heads are.
        by_user: Whether the user stated it, who may know that the person lies; what a file states must fit.

    Raises:
        SourceError: The person is upright along no axis, or upside down along the stated one.
    """
    head = joints[:, JOINTS.index("Head")]
    feet = (joints[:, JOINTS.index("LFoot")] + joints[:, JOINTS.index("RFoot")]) / 2
    direction = head - feet
    direction = direction / np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-12)
    mean = np.nanmean(direction, axis=0)
    strongest = int(np.argmax(np.abs(mean)))
    seen: Up = get_args(Up)[strongest + (3 if mean[strongest] < 0 else 0)]
    sure = abs(mean[strongest]) >= _UPRIGHT and abs(mean[strongest]) > 1.5 * np.sort(np.abs(mean))[1]
    axis = (stated or "").removeprefix("+")
    if axis.startswith("±") and axis[1:] in get_args(Up):
        along = float(mean["xyz".index(axis[1:])])
        if abs(along) < _UPRIGHT and not sure:
            raise SourceError(
                f"{path}: the file says that up is along {axis[1:]}, but not in which direction, and the person stands "
                f"too little along it to tell (mean direction from feet to head: {axis[1:]} {along:+.2f}); give "
                f"--poses.up ({axis[1:]} or -{axis[1:]})"
            )
        axis = axis[1:] if along >= 0 else "-" + axis[1:]
    if axis in get_args(Up):
        known: Up = get_args(Up)[get_args(Up).index(axis)]
        along = float(mean["xyz".index(known[-1])]) * (-1 if known.startswith("-") else 1)
        if known == seen or not sure:
            return known, None
        if along <= -_UPRIGHT or not by_user:
            how = "is upside down" if along <= -_UPRIGHT else "lies"
            raise SourceError(
                f"{path}: with {known} up the person {how}: heads are on the side of {seen} from the feet; "
                f"give --poses.up (such as {seen}), or check which points are joints"
            )
        return known, f"with {known} up, as stated, the person lies; heads are on the side of {seen} from the feet"
    if not sure:
        parts = ", ".join(f"{a} {v:+.2f}" for a, v in zip("xyz", mean, strict=True))
        raise SourceError(
            f"{path}: the up axis cannot be found, as the person stands along no axis (mean direction from feet "
            f"to head: {parts}); give --poses.up, one of {', '.join(get_args(Up))}"
        )
    return seen, f"{seen} is taken as up, as heads are on that side"


def to_z_up(points: Float64[np.ndarray, "*batch 3"], up: Up) -> Float64[np.ndarray, "*batch 3"]:
    """Turn points (without mirroring them) so that the axis `up` becomes +Z.

    Example:
        >>> to_z_up(np.array([1.0, 2.0, 3.0]), "y").tolist()
        [1.0, -3.0, 2.0]
    """
    rotated: Float64[np.ndarray, "*batch 3"] = points @ up_rotation(up).T
    return rotated


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
    """Convert a camera of a world whose axis `up` points up to the world with +Z up."""
    return Camera(camera.rotation @ up_rotation(up).T, camera.translation, camera.intrinsics)


def check_knees(path: Path, upright: JointPositions, clearly: float = 0.15, most: float = 0.8) -> None:
    """Refuse a person whose knees bend backwards, because left and right, or two axes, are exchanged.

    Args:
        path: The file, for messages.
        upright: Joints with +Z up, in any unit.
        clearly: Only knees at least this far from the line from hip to ankle count, as a share of the leg.
        most: The person is refused if more than this share of these knees bend backwards.

    Raises:
        SourceError: The knees bend backwards.
    """
    bones = bone_lengths(upright)
    leg_lengths = np.stack([bones[:, knee - 1] + bones[:, foot - 1] for _, knee, foot in LEGS], axis=1)
    bend = (knee_bends(upright) / np.maximum(leg_lengths, 1e-12)).T.ravel()
    clear = bend[np.abs(bend) > clearly]
    if len(clear) >= 10 and float((clear < 0).mean()) > most:
        raise SourceError(
            f"{path}: the knees bend backwards in {(clear < 0).mean():.0%} of the {len(clear)} clear cases, so the "
            "person is mirrored: left and right are exchanged (name them in a mapping file, --poses.joints), or "
            "the axes are left-handed (--poses.left-handed)"
        )


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
