import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from landmarks_for_tests import back_for_front, body_of, stick_landmarks, with_world, without_views
from mcss.data.capture import Capture
from mcss.landmarks.turning import BODY, fuse_views, pair_distances, procrustes
from mcss.landmarks.view_landmarks import LANDMARKS, MIRROR, ViewLandmarks
from mcss.metrics import pa_mpjpe


def errors(points: np.ndarray, landmarks: ViewLandmarks) -> np.ndarray:
    """Distance from the true landmarks after the best rotation and scale, mm."""
    true = body_of(landmarks.instants.pose.astype(np.float64))
    return pa_mpjpe(torch.from_numpy(points), torch.from_numpy(true)).numpy()


def test_the_landmarks_on_the_other_side_are_named_so() -> None:
    assert [LANDMARKS[i] for i in MIRROR[:4]] == ["nose", "right_eye_inner", "right_eye", "right_eye_outer"]
    assert LANDMARKS[MIRROR[LANDMARKS.index("mouth_left")]] == "mouth_right"
    assert [MIRROR[i] for i in MIRROR] == list(range(33))
    assert [LANDMARKS[i] for i in BODY][:5] == ["nose", "left_ear", "right_ear", "left_shoulder", "right_shoulder"]
    assert [LANDMARKS[i] for i in BODY][-2:] == ["left_foot_index", "right_foot_index"]


def test_procrustes_finds_the_rotation_that_scipy_finds() -> None:
    random = np.random.default_rng(3)
    points, onto = random.normal(size=(2, 5, 9, 3))
    weight = random.uniform(0.1, 1, (5, 9))
    rotation, shift = procrustes(points, onto, weight)
    for i in range(5):
        centred = [part[i] - np.average(part[i], axis=0, weights=weight[i]) for part in (onto, points)]
        expected, _ = Rotation.align_vectors(*centred, weights=weight[i])
        np.testing.assert_allclose(rotation[i], expected.as_matrix().T, atol=1e-6)
        moved = np.average(points[i], axis=0, weights=weight[i]) @ rotation[i] + shift[i, 0]
        np.testing.assert_allclose(moved, np.average(onto[i], axis=0, weights=weight[i]), atol=1e-9)
    mirrored = points * np.array([1, 1, -1])
    assert np.linalg.det(procrustes(mirrored, points, weight)[0]) == pytest.approx(np.ones(5))


def test_views_without_errors_give_the_body_itself_upright(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    fused = fuse_views(landmarks)
    assert errors(fused.points, landmarks).max() < 0.01
    assert np.nanmax(fused.distance) < 0.01
    assert fused.swapped.tolist() == [0, 0, 0, 0]
    true = body_of(landmarks.instants.pose.astype(np.float64))
    heights = true[..., 2] - true[:, [23, 24], 2].mean(axis=1, keepdims=True)
    assert np.abs(fused.points[..., 2] - heights).max() < 40  # +Z is up, within what the sway of the body allows
    turned = landmarks.world.astype(np.float64) @ fused.rotation
    turned -= turned[:, :, [23, 24]].mean(axis=2, keepdims=True)
    assert np.abs(turned - fused.points[:, None]).max() < 0.05


def test_a_view_counts_less_along_its_own_depth(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, depth_noise=120)
    fused = errors(fuse_views(landmarks).points, landmarks).mean()
    one = np.mean([errors(landmarks.world[:, view].astype(np.float64), landmarks).mean() for view in range(4)])
    mean_of_aligned = one / 2  # what a plain mean of four independent views would reach
    assert fused < 0.75 * mean_of_aligned


def test_a_back_that_was_taken_for_a_front_is_put_right(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture, noise=5)
    wrong = landmarks.world[:, 1].copy()
    wrong[::3] = back_for_front(wrong[::3])
    fused = fuse_views(with_world(landmarks, 1, wrong))
    assert fused.swapped[[0, 2, 3]].tolist() == [0, 0, 0]
    assert fused.swapped[1] >= 40  # of 48; a body that is nearly symmetric looks the same from both sides
    assert errors(fused.points, landmarks).max() < 30


def test_with_two_views_nobody_says_which_is_wrong(tiny_capture: Capture) -> None:
    landmarks = without_views(stick_landmarks(tiny_capture), slice(None), [2, 3])
    wrong = with_world(landmarks, 1, back_for_front(landmarks.world[:, 1]))
    assert fuse_views(wrong).swapped.tolist() == [0, 0, 0, 0]


def test_missing_views_and_landmarks_are_done_without(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    landmarks = without_views(landmarks, slice(0, 10), [0, 2, 3])
    landmarks = without_views(landmarks, slice(10, 12), [0, 1, 2, 3])
    landmarks.world[20, :, 31] = np.nan
    landmarks.world[21, :3, 31] = np.nan
    fused = fuse_views(landmarks)
    there = [i for i in range(len(landmarks)) if i not in (10, 11, 20)]
    assert errors(fused.points[there], landmarks.take(np.array(there))).max() < 0.1
    assert np.isnan(fused.points[10:12]).all()
    assert np.isnan(fused.points[20, 31]).all()
    assert np.isfinite(fused.points[20, :31]).all()
    assert np.isnan(fused.rotation[:10, [0, 2, 3]]).all()


def test_a_view_that_is_far_off_hardly_moves_the_others(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    wrong = landmarks.world[:, 3].copy()
    wrong[:, LANDMARKS.index("left_wrist")] += np.array([0, -900, 0], np.float32)
    fused = fuse_views(with_world(landmarks, 3, wrong))
    true = body_of(landmarks.instants.pose.astype(np.float64))
    at = LANDMARKS.index("left_wrist")
    rotation, shift = procrustes(fused.points, true, np.ones(true.shape[:2]))
    assert np.linalg.norm((fused.points @ rotation + shift - true)[:, at], axis=1).mean() < 120
    assert np.nanmedian(fused.distance[:, 3, at]) > 500


def test_pair_distances_are_those_of_a_loop_over_instants(tiny_capture: Capture) -> None:
    landmarks = without_views(stick_landmarks(tiny_capture, noise=30), slice(0, 5), [2]).take(np.arange(8))
    points, weight = np.nan_to_num(landmarks.world.astype(np.float64)), landmarks.visibility.astype(np.float64)
    distances = pair_distances(points, weight)
    assert np.isnan(distances[:5, 2]).all()
    for i in range(8):
        for a, b in ((0, 1), (1, 3)):
            first, second = (points[i, view] - points[i, view].mean(axis=0) for view in (a, b))
            _, residual = Rotation.align_vectors(second, first)
            assert distances[i, a, b] == pytest.approx(residual / np.sqrt(33), rel=1e-4)
            assert distances[i, b, a] == distances[i, a, b]


def test_a_camera_that_looks_down_and_is_rolled_does_not_tilt_the_person(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    tilt = Rotation.from_euler("xz", [25, 12], degrees=True).as_matrix().T.astype(np.float32)
    tilted = landmarks
    for view in range(4):
        tilted = with_world(tilted, view, landmarks.world[:, view] @ tilt)
    straight, fused = (fuse_views(part).points[..., 2] for part in (landmarks, tilted))
    assert np.abs(fused - straight).max() < 60


def test_the_vertical_of_somebody_who_lies_is_the_camera_s_own(tiny_capture: Capture) -> None:
    landmarks = stick_landmarks(tiny_capture)
    lying = landmarks
    over = Rotation.from_euler("z", 90, degrees=True).as_matrix().T.astype(np.float32)
    for view in range(4):
        lying = with_world(lying, view, landmarks.world[:, view] @ over)
    lying = without_views(lying, slice(None), [1, 2, 3])
    points = fuse_views(lying).points
    axis = points[:, [11, 12]].mean(axis=1) - points[:, [27, 28]].mean(axis=1)
    assert np.abs(axis[:, 2] / np.linalg.norm(axis, axis=1)).max() < 0.4
