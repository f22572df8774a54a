"""Cameras that are found from landmarks of a person who walks, against the cameras that made the landmarks."""

from dataclasses import replace

import numpy as np
import pytest

from captures_for_tests import stick_camera
from landmarks_for_tests import body_of, stick_landmarks
from mcss.calibration.calibrate import CalibrationSettings, calibrate, triangulated, with_known_cameras
from mcss.calibration.rig import Rig
from mcss.data.capture import Capture
from mcss.errors import CalibrationError
from mcss.landmarks.view_landmarks import MIRROR, ViewLandmarks

KNOWN = CalibrationSettings(focal=700.0)
"""The focal length of the cameras that drew the stick figures."""


def walks(capture: Capture, subject: int = 0) -> ViewLandmarks:
    """The landmarks of one person who walks in a circle."""
    landmarks = stick_landmarks(capture)
    instants = landmarks.instants
    return landmarks.take((instants.subject == subject) & (instants.sequence == 0))


def true_rig() -> Rig:
    cameras = [stick_camera(v) for v in range(4)]
    return Rig(
        views=("1", "2", "3", "4"),
        rotation=np.stack([c.rotation for c in cameras]),
        translation=np.stack([c.translation for c in cameras]),
        intrinsics=np.stack([c.intrinsics for c in cameras]),
        distortion=np.zeros((4, 5)),
        image_size=np.full((4, 2), 512.0),
    )


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a @ b.T) - 1) / 2, -1, 1))))


def rotation_errors(found: Rig) -> list[float]:
    true = [stick_camera(int(view) - 1).rotation for view in found.views]
    pairs = [(i, j) for i in range(len(true)) for j in range(i)]
    turns = found.rotation
    return [angle(turns[i] @ turns[j].T, true[i] @ true[j].T) for i, j in pairs]


def test_exact_landmarks_give_the_cameras(tiny_capture: Capture) -> None:
    found = calibrate(walks(tiny_capture), KNOWN)
    assert found.verdict.grade == "good"
    assert found.verdict.reasons == ()
    assert max(rotation_errors(found.cameras)) < 0.3
    distances = np.linalg.norm(np.diff(found.cameras.positions, axis=0), axis=1)
    true = np.linalg.norm(np.diff(true_rig().positions, axis=0), axis=1)
    assert np.allclose(distances / distances.mean(), true / true.mean(), atol=0.02)


def test_noisy_landmarks_give_them_nearly(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    random = np.random.default_rng(1)
    noisy = replace(
        landmarks,
        image=landmarks.image + 3 * random.normal(size=landmarks.image.shape).astype(np.float32),
        world=landmarks.world + 30 * random.normal(size=landmarks.world.shape).astype(np.float32),
    )
    assert np.median(rotation_errors(calibrate(noisy, KNOWN).cameras)) < 1.5


def test_up_is_up_and_the_floor_is_at_zero(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    found = calibrate(landmarks, KNOWN)
    for v in range(4):
        assert angle_between(found.cameras.rotation[v, :, 2], stick_camera(v).rotation[:, 2]) < 2.5
    points = triangulated(landmarks, found).landmarks
    feet = points[:, [29, 30, 31, 32], 2].min(axis=1)
    assert abs(np.median(feet)) < 60
    assert found.cameras.rotation[0, 2, 1] > 0.9  # the first camera looks along +Y


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def test_the_stature_sets_the_scale(tiny_capture: Capture) -> None:
    small = calibrate(walks(tiny_capture), replace(KNOWN, height=850.0))
    large = calibrate(walks(tiny_capture), replace(KNOWN, height=1700.0))
    steps = [np.linalg.norm(np.diff(found.cameras.positions, axis=0), axis=1) for found in (small, large)]
    assert np.allclose(2 * steps[0], steps[1], rtol=1e-6)
    assert small.scale_from == "a height of 850 mm"


def test_the_person_is_triangulated_where_the_poses_are(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    found = with_known_cameras(landmarks, true_rig(), KNOWN)
    assert found.verdict.grade == "good"
    poses = triangulated(landmarks, found)
    limbs = [11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
    true = body_of(landmarks.instants.pose.astype(np.float64))
    assert np.abs(poses.landmarks[:, limbs] - true[:, limbs]).max() < 8
    assert np.abs(poses.landmarks - true).max() < 30
    assert (poses.confidence > 0.8).all()


def test_gaps_stay_gaps(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    image, visibility = landmarks.image.copy(), landmarks.visibility.copy()
    image[5, 1:] = np.nan
    visibility[5, 1:] = 0
    poses = triangulated(
        replace(landmarks, image=image, visibility=visibility), with_known_cameras(landmarks, true_rig())
    )
    assert np.isnan(poses.landmarks[5]).all()
    assert (poses.confidence[5] == 0).all()
    assert np.isfinite(np.delete(poses.landmarks, 5, axis=0)).all()


def test_exchanged_sides_of_a_view_are_put_right(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    image, world = landmarks.image.copy(), landmarks.world.copy()
    image[3:8, 2], world[3:8, 2] = image[3:8, 2][:, list(MIRROR)], world[3:8, 2][:, list(MIRROR)]
    swapped = replace(landmarks, image=image, world=world)
    found = calibrate(swapped, KNOWN)
    assert max(rotation_errors(found.cameras)) < 0.5
    plain = triangulated(landmarks, found).landmarks
    assert np.nanmax(np.abs(triangulated(swapped, found).landmarks[:, 11:17] - plain[:, 11:17])) < 40


def test_two_cameras_that_face_each_other_are_weak(tiny_capture: Capture) -> None:
    verdict = calibrate(walks(tiny_capture).of_views([0, 2]), KNOWN).verdict
    assert verdict.grade == "weak"
    assert "almost the same or from opposite directions" in verdict.text
    assert calibrate(walks(tiny_capture).of_views([0, 1]), KNOWN).verdict.grade == "good"


def test_a_person_who_stands_still_is_weak(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    still = landmarks.take(np.zeros(24, int))
    still = replace(still, instants=replace(still.instants, frame=np.arange(24), time=np.arange(24) / 10))
    verdict = calibrate(still, KNOWN).verdict
    assert verdict.grade == "weak"
    assert "the person hardly moves" in verdict.text


def test_a_view_of_somebody_else_is_named_and_left_out(tiny_capture: Capture) -> None:
    landmarks, other = walks(tiny_capture), walks(tiny_capture, 2)
    image, world = landmarks.image.copy(), landmarks.world.copy()
    image[:, 3], world[:, 3] = other.image[::-1, 3], other.world[::-1, 3]
    found = calibrate(replace(landmarks, image=image, world=world), KNOWN)
    assert found.views == ("1", "2", "3")
    assert [fault.view for fault in found.faults] == ["4"]
    assert found.verdict.grade == "weak"
    assert max(rotation_errors(found.cameras)) < 0.5


def test_a_mirrored_view_is_named(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    image, world = landmarks.image.copy(), landmarks.world.copy()
    image[:, 1, :, 0] = 512 - image[:, 1, :, 0]
    world[:, 1, :, 0] *= -1
    image[:, 1], world[:, 1] = image[:, 1][:, list(MIRROR)], world[:, 1][:, list(MIRROR)]
    found = calibrate(replace(landmarks, image=image, world=world), KNOWN)
    assert [(fault.view, fault.kind) for fault in found.faults] == [("2", "mirrored")]


def test_views_that_agree_about_nothing_fail(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    random = np.random.default_rng(0)
    image = landmarks.image.copy()
    for v in range(1, 4):
        image[:, v] = image[random.permutation(24), v]
    assert calibrate(replace(landmarks, image=image), KNOWN).verdict.grade == "failed"


def test_one_view_is_an_error(tiny_capture: Capture) -> None:
    with pytest.raises(CalibrationError, match="finding cameras needs at least two views of the person, got 1"):
        calibrate(walks(tiny_capture).of_views([0]), KNOWN)


def test_few_instants_are_an_error(tiny_capture: Capture) -> None:
    with pytest.raises(CalibrationError, match="only 3 instants are seen by two or more views, expected at least 8"):
        calibrate(walks(tiny_capture).take(np.arange(3)), KNOWN)


def test_intrinsics_of_another_size_or_of_other_views_are_an_error(tiny_capture: Capture) -> None:
    landmarks, rig = walks(tiny_capture), true_rig()
    with pytest.raises(CalibrationError, match="the camera given for 1 is for images of 1024×512 pixels"):
        calibrate(landmarks, known=replace(rig, image_size=np.tile([1024.0, 512.0], (4, 1))))
    with pytest.raises(CalibrationError, match="no camera is given for the views 1, 2, 3, 4"):
        calibrate(landmarks, known=replace(rig, views=("a", "b", "c", "d")))


def test_an_unknown_size_is_guessed_and_said(tiny_capture: Capture) -> None:
    landmarks = walks(tiny_capture)
    found = calibrate(replace(landmarks, image_size=np.full((4, 2), np.nan)), KNOWN)
    assert (found.cameras.image_size == 512).all()
    assert found.notes == (
        "the source images of 1, 2, 3, 4 are taken to be of 512×512 pixels; state --image-size if not",
    )
