"""Predicted poses put into a room: turned about the vertical and moved until they lie on triangulated joints."""

import numpy as np
import pytest

from captures_for_tests import stick_pose
from mcss.errors import CalibrationError
from mcss.inference.room import placed_in_room

TIME = np.arange(6) / 10


def canonical_and_room() -> tuple[np.ndarray, np.ndarray]:
    """Root-relative poses, and the same ones turned by 170° to 195° and moved."""
    pose = np.stack([stick_pose(0, 0, t) for t in TIME]).astype(np.float64)
    pose -= pose[:, :1]
    angles = np.radians(170 + 5 * np.arange(6))
    cos, sin, zero = np.cos(angles), np.sin(angles), np.zeros(6)
    turn = np.stack([cos, -sin, zero, sin, cos, zero, zero, zero, zero + 1], axis=1).reshape(6, 3, 3)
    path = np.stack([100 * np.arange(6.0), -50 * np.arange(6.0), np.full(6, 900.0)], axis=1)
    return pose, np.einsum("nij,nkj->nki", turn, pose) + path[:, None]


def test_poses_lie_on_the_joints() -> None:
    pose, room = canonical_and_room()
    assert np.allclose(placed_in_room(pose, room, TIME), room, atol=1e-6)


def test_an_instant_without_joints_lies_between_its_neighbours() -> None:
    pose, room = canonical_and_room()
    joints = room.copy()
    joints[2] = np.nan
    joints[4, 11:] = np.nan  # no arms: legs place it
    placed = placed_in_room(pose, joints, TIME)
    assert np.abs(placed[2] - room[2]).max() < 5  # turn and path are linear in time here
    assert np.allclose(placed[4], room[4], atol=1e-6)


def test_without_any_joints_there_is_no_room() -> None:
    pose, room = canonical_and_room()
    with pytest.raises(CalibrationError, match="no instant has 6 joints of arms and legs that two views agree on"):
        placed_in_room(pose, np.full(room.shape, np.nan), TIME)
