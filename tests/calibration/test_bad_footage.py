"""Footage from which cameras cannot be found, or not all: each kind is refused or named, and the rest is right."""

from dataclasses import replace

import numpy as np
import pytest

from captures_for_tests import stick_camera, stick_pose
from landmarks_for_tests import body_of, drawn_landmarks
from mcss.calibration.calibrate import Calibration, CalibrationSettings, calibrate, triangulated
from mcss.calibration.upright import on_a_line
from mcss.calibration.verdict import Measures, judged
from mcss.landmarks.view_landmarks import ViewLandmarks

KNOWN = CalibrationSettings(focal=700.0)
"""The focal length of the cameras that see the stick figures."""


def walk(n: int = 72) -> np.ndarray:
    """Poses of a person who walks in a circle, ten a second."""
    return np.stack([stick_pose(0, 0, i / 10) for i in range(n)])


def walk_on_a_line(n: int = 72) -> np.ndarray:
    """Poses of a person who walks back and forth along y, and always faces the same way."""
    poses = []
    for time in np.arange(n) / 10:
        c, s = np.cos(0.7 * time), np.sin(0.7 * time)
        circle = 600 * np.array([np.cos(0.8 * time), np.sin(0.8 * time), 0])
        body = (stick_pose(0, 0, time) - circle) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        poses.append(body + np.array([0, 1500 * np.sin(2 * np.pi * time / 7.2), 0]))
    return np.stack(poses)


def largest_error(found: Calibration) -> float:
    """The largest error of a rotation between two cameras, in degrees."""
    true = np.stack([stick_camera(int(view) - 1).rotation for view in found.views])
    turns = found.cameras.rotation
    both = [(i, j) for i in range(len(true)) for j in range(i)]
    traces = [np.trace((turns[i] @ turns[j].T) @ (true[i] @ true[j].T).T) for i, j in both]
    return float(np.degrees(np.arccos(np.clip((min(traces) - 1) / 2, -1, 1))))


def turned_from(landmarks: ViewLandmarks, view: int, instant: int, degrees: float) -> ViewLandmarks:
    """The same if a camera is turned on its stand at an instant."""
    camera = stick_camera(view)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    body = body_of(landmarks.instants.pose.astype(np.float64))
    seen = (body @ camera.rotation.T + camera.translation) @ turn.T
    flat = seen @ camera.intrinsics.T
    image, world = landmarks.image.copy(), landmarks.world.copy()
    image[instant:, view] = (flat[..., :2] / flat[..., 2:])[instant:]
    world[instant:, view] = (seen - seen[:, [23, 24]].mean(axis=1, keepdims=True))[instant:]
    return replace(landmarks, image=image, world=world)


@pytest.mark.parametrize(("instant", "degrees"), [(36, 8.0), (24, 4.0)])
def test_a_camera_that_was_moved_is_named_with_the_time_and_left_out(instant: int, degrees: float) -> None:
    found = calibrate(turned_from(drawn_landmarks(walk(), noise=1), 2, instant, degrees), KNOWN)
    assert [(fault.view, fault.kind) for fault in found.faults] == [("3", "moved")]
    where = f"3 stands elsewhere from about walk {instant / 10} s on: {degrees:.0f}° turned"
    assert found.verdict.grade == "weak"
    assert found.verdict.reasons[0].startswith(where)
    assert "cut the recording there, and calibrate with --by-sequence" in found.verdict.text
    assert largest_error(found) < 0.5


def test_a_view_that_is_out_of_step_is_named_with_its_lag() -> None:
    landmarks = drawn_landmarks(walk(), noise=1)
    image, world = landmarks.image.copy(), landmarks.world.copy()
    image[5:, 2], world[5:, 2] = image[:-5, 2], world[:-5, 2]
    found = calibrate(replace(landmarks, image=image, world=world), KNOWN)
    assert found.verdict.reasons == (
        "3 shows everything about 0.5 s later than the others; synchronise it with mcss sync",
    )
    assert found.views == ("1", "2", "4")
    assert largest_error(found) < 0.5


def test_two_views_of_one_person_and_two_of_another_fail() -> None:
    one = drawn_landmarks(walk(36), noise=1)
    other = drawn_landmarks(np.stack([stick_pose(1, 0, 3 - i / 15) for i in range(36)]), noise=1)
    image, world = one.image.copy(), one.world.copy()
    image[:, 2:], world[:, 2:] = other.image[:, 2:], other.world[:, 2:]
    assert calibrate(replace(one, image=image, world=world), KNOWN).verdict.grade == "failed"


def test_a_person_who_walks_along_one_line_gives_the_cameras_and_it_is_said() -> None:
    found = calibrate(drawn_landmarks(walk_on_a_line(), noise=1), KNOWN)
    assert found.verdict.grade == "good"
    assert found.notes == (
        "the person moves along one line: which way the floor leans across it rests on how the person stands alone",
    )
    assert largest_error(found) < 0.5


def test_a_line_is_long_and_narrow() -> None:
    joints = np.zeros((200, 19, 3))
    assert not on_a_line(joints)
    joints[..., 1] = np.linspace(-1000, 1000, 200)[:, None]
    assert on_a_line(joints)
    joints[..., 0] = 200 * np.sin(np.arange(200))[:, None]
    assert not on_a_line(joints)


def test_a_view_that_ends_early_counts_as_long_as_it_lasts() -> None:
    landmarks = drawn_landmarks(walk(), noise=1)
    image, visibility = landmarks.image.copy(), landmarks.visibility.copy()
    image[30:, 3], visibility[30:, 3] = np.nan, 0
    short = replace(landmarks, image=image, visibility=visibility)
    found = calibrate(short, KNOWN)
    assert found.verdict.grade == "good"
    assert largest_error(found) < 0.5
    assert np.isfinite(triangulated(short, found).landmarks[:, 11:17]).all()


@pytest.mark.parametrize(("focal", "better"), [(250.0, "700"), (2800.0, "980")])
def test_a_focal_length_that_is_far_off_fails_and_says_what_would_do(focal: float, better: str) -> None:
    found = calibrate(drawn_landmarks(walk(48), noise=1), CalibrationSettings(focal=focal))
    assert found.verdict.grade == "failed"
    assert found.verdict.reasons[0] == (
        f"the focal length of {focal:.0f} pixels is far off: the cameras fit together with about {better} pixels; "
        "leave --focal out, or correct it"
    )


def test_an_unusual_focal_length_is_found_roughly_and_said() -> None:
    landmarks = drawn_landmarks(walk(48), noise=1)
    near = replace(landmarks, image=256 + 2 * (landmarks.image - 256))  # as cameras of 1400 pixels see it
    found = calibrate(near)
    assert found.verdict.grade == "good"
    assert found.cameras.focal == pytest.approx(1400, rel=0.3)
    assert "with a focal length of 512 pixels, the usual one" in found.notes[-1]
    assert largest_error(found) < 3


def test_cameras_that_were_moved_and_cannot_be_left_out_fail() -> None:
    measures = Measures(100, 3.0, 10.0, (10.0, 10.0), (10.0,), (1.0, 1.0), 0.03, (5.0, 5.0), 90.0, 500.0, 4000.0)
    assert judged(measures, ("a", "b")).grade == "good"
    assert judged(measures, ("a", "b"), ("c is mirrored",)).text == "weak: c is mirrored"
    assert judged(measures, ("a", "b"), (), ("a was moved",)).text == "failed: a was moved"
    assert judged(replace(measures, motion_mm=190.0), ("a", "b")).text.startswith(
        "weak: the person stays in one place (190 mm of movement, 4.0 m from the cameras)"
    )
    poor = judged(replace(measures, reprojection_mm=40.0, motion_mm=10.0), ("a", "b"))
    assert poor.misfits == ("joints lie 40 mm beside where the other views see them",)
