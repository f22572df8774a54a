import numpy as np
import pytest

from captures_for_tests import stick_camera, stick_pose
from mcss.data.cameras import Cameras, are_rotations, in_crops
from mcss.data.capture import Capture


def test_points_are_projected_by_the_camera_of_their_image() -> None:
    poses = np.stack([stick_pose(0, 0, 0.1), stick_pose(1, 1, 0.4)])
    two = [stick_camera(1), stick_camera(2)]
    cameras = Cameras(
        *(np.stack([getattr(c, name) for c in two]).astype(np.float32) for name in vars(two[0])),
    )
    seen = cameras.project(poses)
    for pose, camera, pixels in zip(poses, two, seen, strict=True):
        x, y, depth = (pose @ camera.rotation.T + camera.translation).T
        np.testing.assert_allclose(pixels, np.stack([700 * x / depth + 256, 700 * y / depth + 256], 1), atol=0.01)


def test_points_behind_a_camera_and_unknown_cameras_are_not_seen() -> None:
    camera = stick_camera(0)
    nan = np.full((3, 3), np.nan, np.float32)
    cameras = Cameras(
        np.stack([camera.rotation, nan]).astype(np.float32),
        np.stack([camera.translation, nan[0]]).astype(np.float32),
        np.stack([camera.intrinsics, nan]).astype(np.float32),
    )
    behind = (-camera.rotation.T @ camera.translation - 500 * camera.rotation[2]).astype(np.float32)
    points = np.stack([behind, np.zeros(3, np.float32)])
    seen = cameras.project(np.stack([points, points]))
    assert np.isfinite(seen).all(axis=2).tolist() == [[False, True], [False, False]]


def test_the_axes_of_a_crop_are_turned_by_the_least_angle_to_its_viewing_ray() -> None:
    camera = stick_camera(1)
    lens = np.array([[700.0, 0.0, 256.0], [0.0, 700.0, 256.0], [0.0, 0.0, 1.0]], np.float32)
    cameras = Cameras(
        np.stack([camera.rotation] * 4).astype(np.float32),
        np.stack([camera.translation] * 4).astype(np.float32),
        np.stack([lens, lens, lens, np.full((3, 3), np.nan, np.float32)]),
    )
    at = np.array([[256.0, 256.0], [956.0, 256.0], [500.0, 40.0], [956.0, 256.0]], np.float32)
    turned = cameras.crop_rotations(np.concatenate([at - 50, at + 50], axis=1))
    assert are_rotations(turned).all()
    np.testing.assert_allclose(turned[[0, 3]], np.stack([camera.rotation] * 2), atol=1e-6)  # middle; no lens
    half = 0.5**0.5  # 700 of 700 pixels to the right: 45°, about the vertical axis alone
    about_y = np.array([[half, 0, -half], [0, 1, 0], [half, 0, half]])
    np.testing.assert_allclose(turned[1], about_y @ camera.rotation, atol=1e-6)
    ray = np.array([244 / 700, -216 / 700, 1])
    np.testing.assert_allclose(turned[2] @ camera.rotation.T @ ray, [0, 0, np.linalg.norm(ray)], atol=1e-6)
    angle = np.arccos((np.trace(turned[2] @ camera.rotation.T) - 1) / 2)
    assert angle == pytest.approx(np.arccos(1 / np.linalg.norm(ray)), abs=1e-5), "not also about the ray"


def test_joints_lie_in_the_crops_of_the_capture(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants("test")
    joints = tiny_capture.joints_in_crops(instants.rows[:, 2], instants.pose)
    assert ((joints > 0) & (joints < 1)).all()
    box = np.array([[100.0, 50.0, 300.0, 450.0]], np.float32)
    assert in_crops(np.array([[[100.0, 450.0], [200.0, 150.0]]], np.float32), box).tolist() == [[[0, 1], [0.5, 0.25]]]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (stick_camera(3).rotation, True),
        (stick_camera(3).rotation.astype(np.float32), True),
        (stick_camera(3).rotation * 1.01, False),
        (stick_camera(3).rotation * [1, 1, -1], False),
        (np.zeros((3, 3)), False),
        (np.full((3, 3), np.nan), False),
    ],
    ids=["rotation", "rounded", "scaled", "mirrored", "zero", "unknown"],
)
def test_a_rotation_is_orthonormal_and_not_mirrored(matrix: np.ndarray, expected: bool) -> None:
    assert bool(are_rotations(matrix)) is expected
    assert are_rotations(np.stack([np.eye(3), matrix])).tolist() == [True, expected]
