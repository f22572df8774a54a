"""Predicted poses put into a room: turned about the vertical and moved until they lie on triangulated joints."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from captures_for_tests import stick_pose
from landmarks_for_tests import stick_landmarks
from mcss.data.capture import Capture
from mcss.data.formats.bvh import read_bvh
from mcss.data.formats.csv import read_csv
from mcss.data.formats.trc import read_trc
from mcss.data.instants import Instants
from mcss.errors import CalibrationError
from mcss.inference.outputs import write_poses
from mcss.inference.pose_sequence import PoseSequence
from mcss.inference.room import in_room, placed_in_room
from mcss.models.model import Poses
from mcss.skeletons import JOINTS, canonical_pose

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


@pytest.fixture
def walk(tiny_capture: Capture, monkeypatch: pytest.MonkeyPatch) -> Instants:
    """The instants of one person who walks, in whose images the landmarks of the stick figures are found."""
    everything = stick_landmarks(tiny_capture)
    chosen = np.flatnonzero((everything.instants.subject == 0) & (everything.instants.sequence == 0))
    monkeypatch.setattr("mcss.inference.room.detect_landmarks", lambda *_, **__: everything.take(chosen))
    return everything.instants.take(chosen)


def right_poses(instants: Instants) -> PoseSequence:
    """What a model would predict that makes no error."""
    pose = canonical_pose(torch.from_numpy(instants.pose)).numpy()
    pose = pose - pose[:, :1]
    poses = Poses(pose, np.zeros((len(pose), 4), np.float32), None, None, np.zeros((len(pose), 4), np.float32))
    return PoseSequence("walk", "walk", poses, instants.frame, instants.time, np.ones(len(pose), bool), rate=10.0)


def test_poses_in_the_room_are_where_the_person_is(tiny_capture: Capture, walk: Instants) -> None:
    room = in_room(right_poses(walk), tiny_capture, walk).poses_in("room")
    assert np.linalg.norm(room - walk.pose, axis=2).max() < 15


def test_two_views_with_cameras_are_enough_and_one_is_not(tiny_capture: Capture, walk: Instants) -> None:
    some = replace(walk, rows=np.where(np.arange(4) < 2, walk.rows, -1))
    room = in_room(right_poses(walk), tiny_capture, some).poses_in("room")
    assert np.linalg.norm(room - walk.pose, axis=2).max() < 30
    alone = replace(walk, rows=np.where(np.arange(4) < 1, walk.rows, -1))
    with pytest.raises(CalibrationError, match=r"walk: no two views of the capture at .* have a camera"):
        in_room(right_poses(walk), tiny_capture, alone)


def test_files_hold_the_path_of_the_root_in_their_units(tiny_capture: Capture, walk: Instants, tmp_path: Path) -> None:
    sequence = in_room(right_poses(walk), tiny_capture, walk)
    write_poses(sequence, tmp_path, ("json", "csv", "trc", "bvh"), "room")
    true = sequence.poses_in("room")[:, 0]
    assert np.ptp(true[:, 0]) > 500
    made = json.loads((tmp_path / "walk.json").read_text())
    assert made["turned"] == "room"
    assert np.allclose([frame["pose"][0] for frame in made["frames"]], true, atol=0.1)
    assert np.allclose(read_csv(tmp_path / "walk.csv").points[:, 0], true, atol=0.1)  # mm, +Z up
    markers = read_trc(tmp_path / "walk.trc")
    assert markers.names[0] == JOINTS[0]
    assert markers.unit == "mm"
    assert np.allclose(markers.points[:, 0], true[:, [1, 2, 0]] * [-1, 1, -1], atol=0.1)  # OpenSim's axes, +Y up
    in_cm = read_bvh(tmp_path / "walk.bvh").points[:, 0]
    assert np.allclose(in_cm, true[:, [0, 2, 1]] * [0.1, 0.1, -0.1], atol=0.1)  # +Y up
