"""The 17-joint Human3.6M skeleton, the canonical pose, and the lengths and angles of a body.

Functions on tensors are those that training and evaluation need; functions on arrays are for checks, files and pages.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

JOINTS = (
    "Hip",
    "RHip",
    "RKnee",
    "RFoot",
    "LHip",
    "LKnee",
    "LFoot",
    "Spine",
    "Thorax",
    "Neck",
    "Head",
    "LShoulder",
    "LElbow",
    "LWrist",
    "RShoulder",
    "RElbow",
    "RWrist",
)
"""Joint names in order; ``Hip`` (the pelvis) is the root, ``Neck`` is Human3.6M's Neck/Nose."""

HUMAN36M_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""The index of each of the 17 joints in Human3.6M's own list of 32."""

ROOT = JOINTS.index("Hip")
LEFT_HIP = JOINTS.index("LHip")

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""The parent of each joint; -1 for the root."""

MIRROR = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)
"""The joint on the other side of the body for each joint; joints on the midline map to themselves."""

LIMBS = tuple(i for i, joint in enumerate(JOINTS) if joint[1:] in ("Hip", "Knee", "Foot", "Shoulder", "Elbow", "Wrist"))
"""The 12 joints of arms and legs, which every body model and landmark detector has."""

LEGS = tuple(tuple(JOINTS.index(side + joint) for joint in ("Hip", "Knee", "Foot")) for side in "LR")
"""Hip, knee and ankle of the left and of the right leg."""

PoseFrame = Literal["canonical", "camera", "world"]
"""The coordinate frame of a root-relative pose: see `canonical_pose`, `camera_pose` and `root_relative`."""

MIN_HEADING_MM = 10.0
"""A pelvis→left-hip bone that looks shorter than this from above has no heading."""

HEIGHTS_MM = (500.0, 2500.0)
"""Possible `body_heights` of a person, from a toddler to the tallest."""

BONE_ANGLES = tuple((PARENTS[j], j, c) for j in range(17) for c in range(17) if PARENTS[c] == j and PARENTS[j] >= 0)
"""Every joint between two bones, as (joint before, joint, joint after)."""

BODY_ANGLES: dict[str, tuple[str, str, str]] = {
    "left knee": ("LHip", "LKnee", "LFoot"),
    "right knee": ("RHip", "RKnee", "RFoot"),
    "left hip": ("LShoulder", "LHip", "LKnee"),
    "right hip": ("RShoulder", "RHip", "RKnee"),
    "left shoulder": ("LHip", "LShoulder", "LElbow"),
    "right shoulder": ("RHip", "RShoulder", "RElbow"),
    "left elbow": ("LShoulder", "LElbow", "LWrist"),
    "right elbow": ("RShoulder", "RElbow", "RWrist"),
}
"""Angles that people have names for: the angle at the joint in the middle, 0° to 180° and without a sign. A straight
knee, hip or elbow has 180°; a shoulder has 0° where the arm hangs and 180° where it points up."""

TRUNK_LEAN = "trunk lean"
"""The angle between Hip→Thorax and the vertical, 0° to 180°, to whichever side the trunk leans."""


def root_relative(pose: Float[Tensor, "*batch joints 3"]) -> Float[Tensor, "*batch joints 3"]:
    """Move the root joint of a pose to the origin; the unit stays."""
    return pose - pose[..., ROOT : ROOT + 1, :]


def heading_valid(world: Float[Tensor, "*batch joints 3"]) -> Bool[Tensor, "*batch"]:
    """Whether the pelvis→left-hip bone of a pose in mm has a heading, that is, whether it is not (nearly) vertical."""
    hip = world[..., LEFT_HIP, :2] - world[..., ROOT, :2]
    valid: Tensor = hip.norm(dim=-1) >= MIN_HEADING_MM
    return valid


def canonical_pose(world: Float[Tensor, "*batch joints 3"]) -> Float[Tensor, "*batch joints 3"]:
    """Turn a root-relative pose about the up axis until the pelvis→left-hip bone, seen from above, points along +X.

    This is not a camera-space pose: it is the same for every camera and for every direction that the person faces.
    A pose without a heading (see `heading_valid`) is returned unturned; leave such poses out.

    Args:
        world: Joints in world coordinates with +Z up, in any unit; at least the first five of `JOINTS`.

    Reference:
        Mitra et al., CVPR 2020, Eq. 3. Departure: its θ = arccos(û_xy·î) is unsigned and wrong for half of
        all poses; here the pose is turned by −atan2(u_y, u_x).

    Example:
        >>> pose = torch.zeros(17, 3)
        >>> pose[LEFT_HIP] = torch.tensor([0.0, 100.0, 5.0])
        >>> canonical_pose(pose)[LEFT_HIP].tolist()
        [100.0, 0.0, 5.0]
    """
    pose = root_relative(world)
    x, y = pose[..., LEFT_HIP, 0], pose[..., LEFT_HIP, 1]
    length = torch.hypot(x, y)
    has_heading = length > 0
    length = torch.where(has_heading, length, torch.ones_like(length))
    cos = torch.where(has_heading, x / length, torch.ones_like(x))[..., None]
    sin = torch.where(has_heading, y / length, torch.zeros_like(y))[..., None]
    px, py, pz = pose.unbind(-1)
    return torch.stack([cos * px + sin * py, cos * py - sin * px, pz], dim=-1)


def camera_pose(
    world: Float[Tensor, "*batch joints 3"], rotation: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch joints 3"]:
    """Express a root-relative pose along the axes of a camera: x to the right, y down, z away from it. The unit stays.

    Args:
        world: Joints in world coordinates.
        rotation: World to camera, ``x_camera = rotation @ x_world + translation``, or to a crop, whose viewing ray is
            z (`mcss.data.capture.Capture.crop_rotations`): a person at the border of an image is seen from the side.
    """
    return root_relative(world) @ rotation.mT


def mirrored(pose: Float[Tensor, "*batch 17 3"], axis: int) -> Float[Tensor, "*batch 17 3"]:
    """The pose of the person's mirror image: negate coordinate `axis` and exchange left and right joints."""
    flip = torch.ones(3, dtype=pose.dtype, device=pose.device)
    flip[axis] = -1
    return pose[..., list(MIRROR), :] * flip


def joint_angles(
    pose: Float[Tensor, "*batch joints 3"], triples: Sequence[tuple[int, int, int]]
) -> Float[Tensor, "*batch angles"]:
    """Angles in radians at the middle joint of each (joint before, joint, joint after); π is straight."""
    before, joint, after = (pose[..., list(index), :] for index in zip(*triples, strict=True))
    return _angle_between(before - joint, after - joint)


def body_angles(pose: Float[np.ndarray, "n 17 3"]) -> dict[str, Float64[np.ndarray, " n"]]:
    """The angles of `BODY_ANGLES` and `TRUNK_LEAN` by name, in degrees.

    An angle is NaN where it is undefined: one of its joints is unknown, or lies on the next one.

    Args:
        pose: +Z up, in any unit.
    """
    body = torch.from_numpy(np.asarray(pose, np.float64))
    at = {joint: body[:, place] for place, joint in enumerate(JOINTS)}
    sides = {name: (at[a] - at[b], at[c] - at[b]) for name, (a, b, c) in BODY_ANGLES.items()}
    sides[TRUNK_LEAN] = (at["Thorax"] - at["Hip"], body.new_tensor([0.0, 0.0, 1.0]).expand(len(body), 3))
    angles = {}
    for name, (one, other) in sides.items():
        defined = (one.norm(dim=-1) > 0) & (other.norm(dim=-1) > 0)
        angles[name] = _angle_between(one, other).rad2deg().where(defined, torch.nan).numpy()
    return angles


def _angle_between(a: Float[Tensor, "*batch 3"], b: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    # atan2, unlike arccos, is exact near 0° and 180° and gives 0 for a bone without length.
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1))


def bone_lengths(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "n 16"]:
    """Lengths from every joint but the root to its parent, in the unit of the pose."""
    lengths: Float[np.ndarray, "n 16"] = np.linalg.norm(pose[:, 1:] - pose[:, list(PARENTS[1:])], axis=-1)
    return lengths


def body_heights(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, " n"]:
    """Length of a body along its bones from head to ankle (the torso and the longer leg), the same in every posture."""
    bones = bone_lengths(pose)
    torso = bones[:, [JOINTS.index(joint) - 1 for joint in ("Spine", "Thorax", "Neck", "Head")]].sum(axis=1)
    legs = [bones[:, [knee - 1, foot - 1]].sum(axis=1) for _, knee, foot in LEGS]
    heights: Float[np.ndarray, " n"] = torso + np.maximum(*legs)
    return heights


def knee_bends(pose: Float[np.ndarray, "n 17 3"]) -> Float[np.ndarray, "n 2"]:
    """How far the left and the right knee are in front of the middle between hip and ankle, in the unit of the pose.

    Knees that bend backwards are negative: the labels, or one axis, are those of a mirrored person.
    """
    left = pose[:, JOINTS.index("LHip")] - pose[:, JOINTS.index("RHip")]
    up = pose[:, JOINTS.index("Thorax")] - pose[:, ROOT]
    forward = np.cross(left, up)
    forward /= np.maximum(np.linalg.norm(forward, axis=-1, keepdims=True), 1e-12)
    bends = [((pose[:, knee] - (pose[:, hip] + pose[:, foot]) / 2) * forward).sum(axis=-1) for hip, knee, foot in LEGS]
    return np.stack(bends, axis=-1)
