"""Keypoints as one array without names, as FreeMoCap and many scripts write them."""

from pathlib import Path

import numpy as np

from mcss.data.formats.joint_names import joint_positions, joints_of
from mcss.data.formats.keypoint_layouts import BODY_25B, LAYOUTS, names_by_count
from mcss.data.formats.trajectories import Trajectories, trajectories
from mcss.data.formats.units import check_depth
from mcss.errors import SourceError
from mcss.skeletons import JOINTS, bone_lengths

KINECT = (
    *("hips", "spine", "neck", "head", "left_shoulder", "left_elbow", "left_wrist", "left_hand", "right_shoulder"),
    *("right_elbow", "right_wrist", "right_hand", "left_hip", "left_knee", "left_ankle", "left_foot", "right_hip"),
    *("right_knee", "right_ankle", "right_foot", "neck_base", "left_hand_tip", "left_thumb", "right_hand_tip"),
    "right_thumb",
)
"""Microsoft's Kinect v2, and so NTU RGB+D; its SpineShoulder is the base of the neck."""

_OTHER_ORDERS: dict[int, dict[str, tuple[str, ...]]] = {
    25: {"OpenPose BODY_25B": BODY_25B, "Kinect v2, NTU RGB+D": KINECT},
    17: {"Human3.6M": JOINTS},
}
"""Orders of as many points as a commoner one has, which are tried if that one makes no body."""

_MISFIT = 0.45
"""The largest `_misfit` of a body. Those of walks in their own order, with 60 mm of noise, are below 0.2, and those in
another order of as many points above 0.7."""


def read_npy(path: Path) -> Trajectories:
    """Read an array (images, points, 3); the number of points tells whose order of keypoints it is.

    Limbs must have the lengths of a body's in that order. Each sample is one image of the videos, in order.

    Raises:
        SourceError: The file is not NPY, holds a pickle, has another shape, or its points are in another order.
    """
    try:
        points = np.load(path, allow_pickle=False, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        what = "it holds Python objects (a pickle)" if "pickle" in str(error).lower() else str(error)
        raise SourceError(f"{path}: cannot be read as NPY ({what}); save it again with numpy.save") from error
    names = names_by_count(points.shape[1]) if points.ndim == 3 else None
    if points.ndim != 3 or points.shape[2] != 3 or names is None or points.dtype.kind not in "fiu":
        raise SourceError(
            f"{path}: expected numbers in the shape (images, points, 3), got {points.dtype} {points.shape}; the "
            f"numbers of points that are understood are {LAYOUTS}: save others as NPZ with poses and names"
        )
    source = _named(path, points, names)
    check_depth(path, source.points)
    if _misfit(source) < _MISFIT:
        return source
    others = _OTHER_ORDERS.get(points.shape[1], {})
    for order, other_names in others.items():
        source = _named(path, points, other_names, f" ({order})")
        if _misfit(source) < _MISFIT:
            return source
    tried = "".join(f", nor in the order of {order}" for order in others)
    raise SourceError(
        f"{path}: its {points.shape[1]} points are not those of a body as {names[0]}, {names[1]} …{tried}: the lengths "
        "of left and right limbs differ, or the proportions of the limbs are impossible; save the points as NPZ with "
        "poses and names"
    )


def _named(path: Path, points: np.ndarray, names: tuple[str, ...], order: str = "") -> Trajectories:
    note = f"its {points.shape[1]} points are taken as {names[0]}, {names[1]} …{order}, and each sample as one image"
    values = np.asarray(points[:, : len(names)], np.float64)
    return trajectories(path, names, values, np.arange(len(values), dtype=np.float64), clock="images", notes=[note])


def _misfit(source: Trajectories) -> float:
    """How far the limbs of points are from those of a body: 0 for a symmetric one of mean proportions.

    It is the mean |log| of the left limbs' lengths over the right ones', plus that of the proportions of the limbs over
    an adult's; 0 if too little is known.
    """
    joints = joint_positions(source.points, joints_of(source.path, source.names))
    bones = bone_lengths(joints)
    known = np.isfinite(bones).any(axis=0)
    sides = [[JOINTS.index(side + joint) - 1 for joint in ("Knee", "Foot", "Elbow", "Wrist")] for side in "LR"]
    if not known[sides].all():
        return 0.0
    left, right = np.maximum(np.nanmedian(bones[:, sides], axis=0), 1e-12)
    thigh, shin, upper_arm, forearm = (left + right) / 2
    proportions = np.array([thigh / shin / 1.05, upper_arm / forearm / 1.15, thigh / upper_arm / 1.55])
    return float(np.abs(np.log(left / right)).mean() + np.abs(np.log(proportions)).mean())
