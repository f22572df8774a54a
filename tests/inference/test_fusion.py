import numpy as np
import torch

from mcss.inference.fusion import fuse
from mcss.skeletons import canonical_pose


def poses(count: int) -> np.ndarray:
    return canonical_pose(torch.from_numpy(200 * np.random.default_rng(0).normal(size=(count, 17, 3)))).numpy()


def views(true: np.ndarray, noise: list[float]) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([true + rng.normal(0, n, true.shape) * (np.arange(17) > 0)[:, None] for n in noise], axis=1)


def off(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b, axis=-1).mean())


def phi(count: int, number: int) -> np.ndarray:
    vectors = np.random.default_rng(2).normal(size=(count, number, 8))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_fused_poses_are_better_than_single_ones_and_knowing_the_errors_helps() -> None:
    true = poses(50)
    seen = views(true, [10, 10, 40, 80])
    there = np.ones((50, 4), bool)
    plain = fuse(seen, phi(50, 4), there)
    weighted = fuse(seen, phi(50, 4), there, np.tile([16.0, 16, 64, 128], (50, 1)))
    single = np.mean([off(seen[:, v], true) for v in range(4)])
    assert off(weighted.pose, true) < off(plain.pose, true) < single
    np.testing.assert_allclose(plain.weight.sum(axis=1), 1)
    assert (weighted.weight[:, 0] > weighted.weight[:, 3]).all()


def test_a_view_that_is_far_off_for_one_joint_does_not_spoil_it() -> None:
    true = poses(10)
    seen = views(true, [5, 5, 5, 5])
    seen[:, 3, 13] += (0, 0, 900)
    found = fuse(seen, phi(10, 4), np.ones((10, 4), bool))
    assert off(found.pose[:, 13], true[:, 13]) < 0.25 * off(seen[:, :, 13].mean(axis=1), true[:, 13])


def test_missing_views_do_not_count_whatever_they_contain() -> None:
    true = poses(6)
    seen, there = views(true, [5, 5, 5]), np.ones((6, 3), bool)
    there[:, 2] = False
    expected = fuse(seen[:, :2], phi(6, 3)[:, :2], there[:, :2])
    seen[:, 2] = np.nan
    found = fuse(seen, phi(6, 3), there, None)
    np.testing.assert_allclose(found.pose, expected.pose)
    np.testing.assert_allclose(found.embedding, expected.embedding)
    assert (found.weight[:, 2] == 0).all()


def test_fused_poses_stay_canonical_and_one_view_stays_as_it_is() -> None:
    true = poses(5)
    found = fuse(views(true, [30, 30]), phi(5, 2), np.ones((5, 2), bool))
    np.testing.assert_allclose(found.pose[:, 4, 1], 0, atol=1e-9)
    assert (found.pose[:, 4, 0] > 0).all()
    np.testing.assert_allclose(np.linalg.norm(found.embedding, axis=1), 1)
    np.testing.assert_allclose(fuse(true[:, None], phi(5, 1), np.ones((5, 1), bool)).pose, true, atol=1e-9)
