"""The 17-joint Human3.6M skeleton and the canonical pose."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
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
"""Where each of the 17 joints stands in Human3.6M's own list of 32."""

ROOT = JOINTS.index("Hip")
LEFT_HIP = JOINTS.index("LHip")

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
"""The parent of each joint; -1 for the root."""

MIRROR = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)
"""For each joint the one on the other side of the body; joints on the midline stand for themselves."""

PoseFrame = Literal["canonical", "camera", "world"]
"""What a root-relative pose is turned to: `canonical_pose`, `camera_pose`, or nothing (`root_relative`)."""

MIN_HEADING_MM = 10.0
"""A pelvis→left-hip bone that is shorter than this seen from above has no heading."""


def root_relative(pose: Float[Tensor, "*batch joints 3"]) -> Float[Tensor, "*batch joints 3"]:
    """The pose with its root joint moved to the origin; the unit stays as it is."""
    return pose - pose[..., ROOT : ROOT + 1, :]


def heading_valid(world: Float[Tensor, "*batch joints 3"]) -> Bool[Tensor, "*batch"]:
    """Whether the pelvis→left-hip bone of a pose in mm has a heading, that is, is not (nearly) vertical."""
    hip = world[..., LEFT_HIP, :2] - world[..., ROOT, :2]
    valid: Tensor = hip.norm(dim=-1) >= MIN_HEADING_MM
    return valid


def canonical_pose(world: Float[Tensor, "*batch joints 3"]) -> Float[Tensor, "*batch joints 3"]:
    """Root-relative pose turned about the up axis until the pelvis→left-hip bone, seen from above, is +X.

    Not a camera-space pose: it is the same for every camera and for every direction that the person faces.
    A pose without a heading (see `heading_valid`) is returned unturned; leave such poses out.

    Args:
        world: Joints in a world frame with +Z up, any unit; at least the first five of `JOINTS`.

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
    """Root-relative pose along the axes of a camera: x to the right, y down, z away from it. The unit stays.

    Not perspective: a person at the border of the image is seen a little from the side, which is not made good.

    Args:
        world: Joints in a world frame.
        rotation: World to camera, ``x_camera = rotation @ x_world + translation``.
    """
    return root_relative(world) @ rotation.mT


def mirrored(pose: Float[Tensor, "*batch 17 3"], axis: int) -> Float[Tensor, "*batch 17 3"]:
    """The pose of the person's mirror image: coordinate `axis` negated, left and right joints exchanged."""
    flip = torch.ones(3, dtype=pose.dtype, device=pose.device)
    flip[axis] = -1
    return pose[..., list(MIRROR), :] * flip
