from pathlib import Path

import numpy as np
import pytest
import torch
from pybvh import Bvh

from captures_for_tests import stick_pose
from mcss.data.formats.bvh import rest_offsets, with_fixed_bones, write_bvh, y_up
from mcss.skeletons import JOINTS, PARENTS, canonical_pose


def walk(count: int = 30) -> np.ndarray:
    return canonical_pose(torch.from_numpy(np.stack([stick_pose(0, 0, i / 10) for i in range(count)]))).numpy()


def read_independently(path: Path) -> tuple[np.ndarray, Bvh]:
    """Read joints in cm with pybvh, which shares no code with mcss."""
    motion = Bvh.from_file(path)
    names = [node.name for node in motion.nodes if node.name in JOINTS]
    every = [node.name for node in motion.nodes if not node.is_end_site()]
    assert sorted(names) == sorted(JOINTS)
    return motion.joint_positions()[:, [every.index(name) for name in JOINTS]], motion


def test_an_independent_reader_finds_the_joints_where_they_were(tmp_path: Path) -> None:
    poses = walk()
    write_bvh(tmp_path / "walk.bvh", poses, 10.0)
    joints, motion = read_independently(tmp_path / "walk.bvh")
    assert motion.frame_time == pytest.approx(0.1)
    np.testing.assert_allclose(10 * joints, y_up(with_fixed_bones(poses)), atol=1e-3)
    np.testing.assert_allclose(10 * joints, y_up(poses), atol=0.5)  # these bones have a fixed length; in mm


def test_bones_are_rigid_and_point_as_they_did_when_lengths_vary_and_limbs_fold_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wild = canonical_pose(torch.from_numpy(rng.normal(0, 300, (40, 17, 3)))).numpy()
    write_bvh(tmp_path / "wild.bvh", wild, 25.0)
    joints, _ = read_independently(tmp_path / "wild.bvh")
    lengths = np.linalg.norm(rest_offsets(wild), axis=1)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            bone, was = joints[:, joint] - joints[:, parent], y_up(wild[:, joint] - wild[:, parent])
            np.testing.assert_allclose(np.linalg.norm(bone, axis=1), lengths[joint], rtol=1e-4)
            cosine = (bone * was).sum(axis=1) / np.linalg.norm(bone, axis=1) / np.linalg.norm(was, axis=1)
            np.testing.assert_allclose(cosine, 1, atol=1e-6)


def test_angles_do_not_jump_by_whole_turns(tmp_path: Path) -> None:
    write_bvh(tmp_path / "walk.bvh", walk(60), 10.0)
    _, motion = read_independently(tmp_path / "walk.bvh")
    assert np.abs(np.diff(motion.joint_angles, axis=0)).max() < 180


def test_bones_that_point_straight_against_their_rest_pose(tmp_path: Path) -> None:
    pose = walk(2)
    pose[:, JOINTS.index("Spine")] = (0, 0, -200)  # the spine down, the legs up
    pose[:, JOINTS.index("RKnee")] = pose[:, JOINTS.index("RHip")] + (0, 0, 400)
    write_bvh(tmp_path / "odd.bvh", pose, 10.0)
    joints, _ = read_independently(tmp_path / "odd.bvh")
    np.testing.assert_allclose(10 * joints, y_up(with_fixed_bones(pose)), atol=1e-3)
