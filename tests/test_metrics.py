import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from mcss import metrics
from mcss.skeletons import JOINTS


def poses(count: int, seed: int, joints: int = 16) -> Tensor:
    """One rigid shape plus deviations, so that errors are like those of real predictions."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(joints, 3, generator=torch.Generator().manual_seed(99)) * 300
    return shape + torch.randn(count, joints, 3, generator=generator) * 120


def rotations(count: int, seed: int) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed)).double())
    q = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    return q * torch.linalg.det(q)[:, None, None]


@pytest.mark.parametrize("joints", [16, 17])
@pytest.mark.parametrize("name", ["mpjpe", "n_mpjpe", "pa_mpjpe"])
def test_each_error_equals_the_slow_reference(name: str, joints: int) -> None:
    pred, target = poses(20, 1, joints), poses(20, 2, joints)
    fast: Callable[[Tensor, Tensor], Tensor] = getattr(metrics, name)
    slow = [getattr(reference, name)(p, g) for p, g in zip(pred.double().numpy(), target.double().numpy(), strict=True)]
    np.testing.assert_allclose(fast(pred, target).numpy(), slow, rtol=1e-9)


def test_pck_and_auc_equal_the_slow_reference() -> None:
    pred, target = poses(20, 1), poses(20, 2)
    pairs = list(zip(pred.double().numpy(), target.double().numpy(), strict=True))
    np.testing.assert_allclose(metrics.pck(pred, target).numpy(), [reference.pck(p, g, 150) for p, g in pairs])
    np.testing.assert_allclose(metrics.auc(pred, target).numpy(), [reference.auc(p, g) for p, g in pairs])
    assert 0.05 < metrics.pck(pred, target).mean() < 0.95


def test_a_joint_exactly_at_the_threshold_is_not_correct() -> None:
    target = torch.zeros(1, 2, 3)
    pred = torch.tensor([[[150.0, 0.0, 0.0], [0.0, 149.0, 0.0]]])
    assert metrics.pck(pred, target).item() == 0.5
    assert metrics.auc(target, target).item() == pytest.approx(30 / 31)


def test_pa_mpjpe_does_not_see_rotation_scale_and_shift_of_the_prediction() -> None:
    pred, target = poses(50, 3), poses(50, 4)
    before = metrics.pa_mpjpe(pred, target)
    scale = torch.linspace(0.2, 3, 50)[:, None, None]
    moved = scale * (pred.double() @ rotations(50, 5)) + torch.tensor([500.0, -3000.0, 80.0])
    torch.testing.assert_close(metrics.pa_mpjpe(moved, target), before, rtol=1e-9, atol=1e-9)
    assert metrics.pa_mpjpe(scale * (target.double() @ rotations(50, 6)) + 7, target).max() < 1e-9


def test_pa_mpjpe_sees_a_reflection() -> None:
    target = poses(50, 4)
    mirrored = target * torch.tensor([-1.0, 1.0, 1.0])
    assert metrics.pa_mpjpe(mirrored, target).min() > 20
    assert metrics.pairwise_pa_mpjpe(target, mirrored).diagonal().min() > 20


def test_n_mpjpe_forgives_scale_but_neither_rotation_nor_shift() -> None:
    target = poses(10, 4)
    assert metrics.n_mpjpe(target * 0.3, target).max() < 1e-4
    assert metrics.n_mpjpe(target + torch.tensor([0.0, 0.0, 100.0]), target).min() > 20
    assert metrics.n_mpjpe(target.double() @ rotations(10, 1), target.double()).min() > 20


def test_errors_order_as_their_freedoms_do() -> None:
    """Least squares does not minimise the mean distance, so this holds on average and not for each pose."""
    pred, target = poses(200, 1), poses(200, 2)
    assert metrics.pa_mpjpe(pred, target).mean() < metrics.n_mpjpe(pred, target).mean()
    assert metrics.n_mpjpe(pred, target).mean() < metrics.mpjpe(pred, target).mean()


def test_the_root_makes_seventeen_joint_figures_sixteen_seventeenths() -> None:
    pred, target = poses(10, 1), poses(10, 2)
    root = torch.zeros(10, 1, 3)
    for measure in (metrics.mpjpe, metrics.n_mpjpe):
        whole = measure(torch.cat([root, pred], 1), torch.cat([root, target], 1))
        torch.testing.assert_close(whole, measure(pred, target) * 16 / 17)


def test_poses_without_extent_give_numbers_and_not_nan() -> None:
    zero, pose = torch.zeros(3, 16, 3), poses(3, 1)
    for measure in (metrics.mpjpe, metrics.n_mpjpe, metrics.pa_mpjpe):
        for pred, target in ((zero, pose), (pose, zero), (zero, zero)):
            assert measure(pred, target).isfinite().all()
    torch.testing.assert_close(metrics.n_mpjpe(zero, pose), metrics.mpjpe(zero, pose))
    assert metrics.pa_mpjpe(pose, zero).max() < 1e-9
    for queries, gallery in ((zero, pose), (pose, zero), (zero, zero)):
        expected = torch.stack([metrics.pa_mpjpe(gallery, q.expand(3, -1, -1)) for q in queries])
        torch.testing.assert_close(metrics.pairwise_pa_mpjpe(queries, gallery), expected)


def test_all_pairs_equal_pa_mpjpe_pair_by_pair() -> None:
    queries, gallery = poses(30, 1), poses(40, 2)
    gallery[3] = queries[5] @ rotations(1, 8)[0].float() * 2 + 11
    gallery[4] = -queries[6]
    fast = metrics.pairwise_pa_mpjpe(queries, gallery)
    slow = [[reference.pa_mpjpe(g, q) for g in gallery.double().numpy()] for q in queries.double().numpy()]
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-7, atol=1e-4)
    assert fast[5, 3] < 1e-3
    torch.testing.assert_close(metrics.pairwise_pa_mpjpe(queries, gallery, chunk=1), fast)


def test_all_pairs_are_right_for_straight_and_flat_poses() -> None:
    """On a line the rotation is not unique, and in a plane a reflection is a rotation."""
    line = torch.linspace(-400, 400, 16)[:, None] * torch.tensor([0.3, 0.5, 0.8])
    flat = poses(1, 7)[0] * torch.tensor([1.0, 1.0, 0.0])
    odd = torch.stack([line, flat, line.flip(1) * 0.5 + 3, flat[:, [1, 2, 0]], poses(1, 8)[0], line + flat * 1e-6])
    fast = metrics.pairwise_pa_mpjpe(odd, odd)
    slow = [[reference.pa_mpjpe(g, q) for g in odd.double().numpy()] for q in odd.double().numpy()]
    np.testing.assert_allclose(fast.numpy(), slow, rtol=1e-6, atol=1e-3)


def test_angle_error_is_the_mean_over_the_bends_of_the_skeleton() -> None:
    pred, target = poses(5, 1, 17), poses(5, 2, 17)
    bends = [
        ("Hip", "RHip", "RKnee"), ("RHip", "RKnee", "RFoot"), ("Hip", "LHip", "LKnee"),
        ("LHip", "LKnee", "LFoot"),
        ("Hip", "Spine", "Thorax"), ("Spine", "Thorax", "Neck"), ("Spine", "Thorax", "LShoulder"),
        ("Spine", "Thorax", "RShoulder"), ("Thorax", "Neck", "Head"), ("Thorax", "LShoulder", "LElbow"),
        ("LShoulder", "LElbow", "LWrist"), ("Thorax", "RShoulder", "RElbow"),
        ("RShoulder", "RElbow", "RWrist"),
    ]  # fmt: skip
    for p, g, error in zip(
        pred.double().numpy(), target.double().numpy(), metrics.angle_error(pred, target), strict=True
    ):
        places = [[JOINTS.index(n) for n in names] for names in bends]
        expected = np.mean([abs(reference.angle(p, *b) - reference.angle(g, *b)) for b in places])
        assert error.item() == pytest.approx(expected, rel=1e-6)


def test_angle_error_does_not_see_size_or_heading() -> None:
    target = poses(5, 2, 17).double()
    assert metrics.angle_error(3 * target @ rotations(5, 3) + 5, target).max() < 1e-9
    assert metrics.angle_error(torch.zeros_like(target), target).isfinite().all()


def test_torso_length_runs_over_the_spine() -> None:
    pose = torch.zeros(1, 17, 3)
    pose[0, JOINTS.index("Spine"), 2] = 200
    pose[0, JOINTS.index("Thorax")] = torch.tensor([300.0, 0.0, 600.0])
    assert metrics.torso_length(pose).item() == pytest.approx(200 + math.hypot(300, 400))
