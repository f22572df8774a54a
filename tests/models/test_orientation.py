import cv2
import numpy as np
import pytest
import torch

from captures_for_tests import stick_camera, stick_pose
from mcss.data.cameras import Camera
from mcss.data.capture import Capture
from mcss.models.orientation import (
    Orientation,
    OrientationConfig,
    OrientationHead,
    angle_between,
    orientation_of,
    true_orientation,
    usable,
)
from mcss.skeletons import camera_pose, canonical_pose
from mcss.training.heads import LabelledImages, _framed, known_orientations


def canonical(pose: np.ndarray) -> np.ndarray:
    return canonical_pose(torch.from_numpy(pose.astype(float))).numpy()


def seen_by(pose: np.ndarray, camera: Camera) -> np.ndarray:
    pixels = (pose @ camera.rotation.T + camera.translation) @ camera.intrinsics.T
    return pixels[..., :2] / pixels[..., 2:]


def true_of(pose: np.ndarray, camera: Camera) -> Orientation:
    low, high = seen_by(pose, camera).min(axis=0), seen_by(pose, camera).max(axis=0)
    corner, side = (low + high) / 2 - 0.6 * (high - low).max(), 1.2 * (high - low).max()
    shares = (seen_by(pose, camera) - corner) / side
    return true_orientation(pose[None], camera.rotation[None], camera.translation[None], shares[None])


@pytest.mark.parametrize(("turn", "facing"), [(0, "camera"), (90, "right"), (180, "away"), (-90, "left")])
def test_headings_follow_their_definition(turn: float, facing: str) -> None:
    """A person who faces a level camera that looks along +Y has heading 0, which grows counter-clockwise from above."""
    rotation = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # right is +X, down is -Z, away is +Y
    camera = Camera(rotation, -rotation @ np.array([0, -4000.0, 900]), np.diag([700.0, 700, 1]))
    left = {"camera": (1, 0), "right": (0, 1), "away": (-1, 0), "left": (0, -1)}[facing]
    pose = canonical(stick_pose(0, 0, 0.3))
    x, y, z = np.moveaxis(pose, -1, 0)
    world = np.stack([left[0] * x - left[1] * y, left[1] * x + left[0] * y, z], axis=-1)
    world[:, 2] += 900
    true = true_of(world, camera)
    assert angle_between(true.heading, np.array([float(turn)])) < 0.01
    assert abs(true.tilt[0]) < 0.01
    np.testing.assert_allclose(
        true.in_camera(pose[None])[0], camera_pose(torch.from_numpy(world), torch.from_numpy(rotation)), atol=1e-2
    )


@pytest.mark.parametrize("view", range(4))
def test_a_canonical_pose_with_its_placement_lies_where_the_camera_sees_the_person(view: int) -> None:
    for time in (0.0, 0.7, 1.9):
        pose, camera = stick_pose(1, 0, time).astype(float), stick_camera(view)
        true = true_of(pose, camera)
        low, high = seen_by(pose, camera).min(axis=0), seen_by(pose, camera).max(axis=0)
        corner, side = (low + high) / 2 - 0.6 * (high - low).max(), 1.2 * (high - low).max()
        drawn = corner + side * true.in_crop(canonical(pose)[None])[0]
        off = np.linalg.norm(drawn - seen_by(pose, camera), axis=1)
        assert off.max() < 0.04 * side  # only perspective
        exact = camera_pose(torch.from_numpy(pose), torch.from_numpy(camera.rotation)).numpy()
        # Relative to the line of sight and not to the camera's axis: a few degrees apart for people off the axis.
        assert np.linalg.norm(true.in_camera(canonical(pose)[None])[0] - exact, axis=1).mean() < 90
        assert true.in_camera(canonical(pose)[None]).shape == (1, 17, 3)


def test_upright_poses_stand_upright() -> None:
    pose = canonical(stick_pose(0, 1, 0.5))[None]
    true = true_of(stick_pose(0, 1, 0.5).astype(float), stick_camera(2))
    np.testing.assert_allclose(true.upright(pose)[..., 2], pose[..., 2])
    np.testing.assert_allclose(np.linalg.norm(true.upright(pose), axis=-1), np.linalg.norm(pose, axis=-1))


def test_images_without_a_camera_or_with_nobody_in_the_crop_are_left_out(tiny_capture: Capture) -> None:
    some = LabelledImages.of(tiny_capture.instants("train"), 50)
    kept, true = known_orientations(tiny_capture, some)
    assert len(some) == len(kept) == len(true) == 50
    assert usable(true).all()
    far = true.take(np.arange(3))
    far.root[1] = (5, 0.5)
    far.root[2] = np.nan
    assert usable(far).tolist() == [True, False, False]


def test_framing_moves_the_root_with_the_image() -> None:
    rng = np.random.default_rng(0)
    pixels, root = np.zeros((20, 64, 64, 3), np.uint8), rng.uniform(0.35, 0.65, (20, 2))
    for image, (x, y) in zip(pixels, root, strict=True):
        cv2.circle(image, (round(x * 1024 - 8), round(y * 1024 - 8)), 40, (255, 255, 255), -1, cv2.LINE_AA, 4)
    framed, moved, zoom = _framed(pixels, root, 48, rng)
    for image, place in zip(framed, moved, strict=True):
        rows, columns = np.indices((48, 48)) + 0.5
        mass = image[..., 0] / image[..., 0].sum()
        np.testing.assert_allclose([(columns * mass).sum() / 48, (rows * mass).sum() / 48], place, atol=0.01)
    assert zoom.min() < 0.95 < 1.05 < zoom.max()


def test_the_head_gives_a_direction_and_a_confidence() -> None:
    torch.manual_seed(0)
    head = OrientationHead(OrientationConfig(hidden=4), 3, 2).eval()
    found = orientation_of(head(torch.randn(5, 3, 2, 2)))
    assert len(found) == 5
    assert ((found.certainty >= 0) & (found.certainty <= 1)).all()
    assert (found.scale > 0).all()
    assert np.abs(found.heading).max() <= 180
    with pytest.raises(ValueError, match="expected stages ≥ 1 and hidden ≥ 1, got 0"):
        OrientationConfig(stages=0)


def test_angles_between_headings_go_the_short_way() -> None:
    a, b = np.array([170.0, -170, 0, 90]), np.array([-170.0, 170, 180, 90])
    assert angle_between(a, b).tolist() == [20, 20, 180, 0]
