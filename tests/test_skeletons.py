import math

import numpy as np
import pytest
import torch

from captures_for_tests import stick_pose
from mcss.skeletons import (
    BODY_ANGLES,
    BONE_ANGLES,
    JOINTS,
    LEFT_HIP,
    MIRROR,
    PARENTS,
    TRUNK_LEAN,
    body_angles,
    body_heights,
    bone_lengths,
    camera_pose,
    canonical_pose,
    heading_valid,
    joint_angles,
    knee_bends,
    mirrored,
)


def rotation_about_z(angle: float) -> torch.Tensor:
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def test_every_parent_stands_before_its_child_and_mirroring_twice_is_nothing() -> None:
    assert all(parent < joint for joint, parent in enumerate(PARENTS))
    assert [MIRROR[j] for j in MIRROR] == list(range(17))
    assert all(JOINTS[MIRROR[j]][1:] == n[1:] for j, n in enumerate(JOINTS) if n[0] in "LR" and n != "Root")


def test_canonical_pose_is_the_same_for_every_heading_and_place() -> None:
    pose = torch.randn(17, 3, generator=torch.Generator().manual_seed(0)) * 300
    reference = canonical_pose(pose)
    for angle in (0.3, 1.7, 3.0, -1.2, -2.9):
        moved = pose @ rotation_about_z(angle).T + torch.tensor([500.0, -200.0, 90.0])
        torch.testing.assert_close(canonical_pose(moved), reference, atol=1e-2, rtol=0)


def test_canonical_hip_points_along_plus_x_in_all_four_quadrants() -> None:
    for x, y in ((3.0, 4.0), (-3.0, 4.0), (-3.0, -4.0), (3.0, -4.0)):
        pose = torch.zeros(17, 3)
        pose[LEFT_HIP] = torch.tensor([x, y, 1.0])
        torch.testing.assert_close(canonical_pose(pose)[LEFT_HIP], torch.tensor([5.0, 0.0, 1.0]))


def test_a_vertical_hip_is_flagged_and_gives_no_nan() -> None:
    pose = torch.zeros(2, 17, 3)
    pose[0, LEFT_HIP] = torch.tensor([0.0, 0.0, 120.0])
    pose[1, LEFT_HIP] = torch.tensor([90.0, 0.0, 120.0])
    assert heading_valid(pose).tolist() == [False, True]
    assert canonical_pose(pose).isfinite().all()


def test_mirroring_negates_one_axis_and_exchanges_sides() -> None:
    pose = torch.randn(17, 3)
    twice = mirrored(mirrored(pose, axis=0), axis=0)
    torch.testing.assert_close(twice, pose)
    assert mirrored(pose, axis=0)[JOINTS.index("LWrist"), 0] == -pose[JOINTS.index("RWrist"), 0]


def test_camera_pose_is_what_the_camera_sees_without_the_roots_place() -> None:
    """Compare with X_camera = R·X + t of every joint, minus that of the root."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(17, 3, generator=generator) * 300
    rotation, translation = rotation_about_z(0.7)[[1, 2, 0]], torch.tensor([10.0, 20.0, 4000.0])
    seen = torch.stack([rotation @ joint + translation for joint in pose])
    torch.testing.assert_close(camera_pose(pose, rotation), seen - seen[0], atol=1e-3, rtol=1e-5)
    both = camera_pose(pose.expand(2, -1, -1), torch.stack([rotation, torch.eye(3)]))
    torch.testing.assert_close(both[1], pose - pose[0])


def walking() -> np.ndarray:
    return np.stack([stick_pose(0, 0, time) for time in (0.0, 0.2, 0.5)])


def test_lengths_heights_and_bends_are_those_of_the_stick_figure() -> None:
    poses = walking()  # its bones are 0.9 times those of `captures_for_tests`
    bones = dict(zip(JOINTS[1:], bone_lengths(poses)[0], strict=True))
    assert bones["LKnee"] == pytest.approx(0.9 * 430, rel=1e-5)
    assert bones["RFoot"] == pytest.approx(0.9 * 420, rel=1e-5)
    torso = 250 + 250 + math.hypot(20, 100) + math.hypot(20, 150)
    np.testing.assert_allclose(body_heights(poses), 0.9 * (torso + 430 + 420), rtol=1e-5)
    assert (knee_bends(poses) > 0).all()
    np.testing.assert_allclose(knee_bends(poses[:, list(MIRROR)]), -knee_bends(poses)[:, ::-1], atol=1e-3)


def test_the_longer_leg_counts_and_a_missing_joint_leaves_no_height() -> None:
    pose = walking()[:2]
    whole = body_heights(pose)
    pose[0, JOINTS.index("LFoot")] = pose[0, JOINTS.index("LKnee")]  # a leg without a shin
    pose[1, JOINTS.index("Neck")] = np.nan
    assert body_heights(pose)[0] == pytest.approx(whole[0])
    assert np.isnan(body_heights(pose)[1])


def test_angles_are_those_between_bones_whatever_the_size_and_the_heading() -> None:
    poses = walking()
    angles = body_angles(poses)
    assert [*angles] == [*BODY_ANGLES, TRUNK_LEAN]
    for name, triple in BODY_ANGLES.items():
        before, joint, after = (poses[:, JOINTS.index(end)].astype(float) for end in triple)
        u, v = before - joint, after - joint
        cosine = (u * v).sum(1) / np.linalg.norm(u, axis=1) / np.linalg.norm(v, axis=1)
        np.testing.assert_allclose(angles[name], np.degrees(np.arccos(cosine)), atol=1e-5)
    turned = 0.7 * poses @ rotation_about_z(1.1).numpy().T
    for name, degrees in body_angles(turned).items():
        np.testing.assert_allclose(degrees, angles[name], atol=1e-3)
    assert len(BONE_ANGLES) == 13
    assert joint_angles(torch.zeros(17, 3), BONE_ANGLES).tolist() == [0.0] * 13
