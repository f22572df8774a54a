import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mcss.adaptation.agreement import Agreement, HeldOut
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.models.prediction import Prediction
from mcss.skeletons import LIMBS


@pytest.fixture
def instants(tiny_capture: Capture) -> Instants:
    """Six instants of one sequence, a tenth of a second apart, in two views."""
    taken = tiny_capture.instants().take(np.arange(6))
    rows = np.arange(12).reshape(6, 2)
    time = np.array([0.0, 0.1, 0.2, 1.0, 2.0, 3.0])
    same = np.zeros(6, np.int64)
    return replace(taken, rows=rows, time=time, sequence=same, subject=same, views=("1", "2"))


def poses_of(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 17, 3, generator=torch.Generator().manual_seed(seed)) * 300


def test_views_that_say_the_same_are_not_apart(instants: Instants) -> None:
    pose = poses_of(6).repeat_interleave(2, dim=0)
    embedding = torch.eye(6).repeat_interleave(2, dim=0)
    found = HeldOut(instants).measure(Prediction(pose, embedding))
    assert found.apart == pytest.approx(0, abs=0.01)
    assert found.off == pytest.approx(0, abs=0.01)
    assert found.hit_at_1 == 1


def test_poses_are_held_against_the_references_where_there_are_some(instants: Instants) -> None:
    pose = poses_of(6).repeat_interleave(2, dim=0)
    reference = poses_of(6)
    reference[:3] = math.nan
    reference[3:, LIMBS[0]] += 120.0  # one of twelve joints moves, and Procrustes spreads it over the others
    found = HeldOut(instants, reference).measure(Prediction(pose, torch.eye(6).repeat_interleave(2, dim=0)))
    assert found.apart == pytest.approx(0, abs=0.01)
    assert 10 < found.off < 120


def test_a_hit_is_an_image_of_another_view_within_a_fifth_of_a_second(instants: Instants) -> None:
    # View 2 of instant i looks like view 1 of instant i + 1: within 0.2 s for the first two alone.
    embedding = torch.zeros(12, 12)
    for i in range(6):
        embedding[2 * i, i] = 1
        embedding[2 * i + 1, (i + 1) % 6] = 1
    found = HeldOut(instants).measure(Prediction(poses_of(12), embedding))
    assert found.hit_at_1 == pytest.approx(4 / 12)
    # Of six images of the other view, three are near in time for the first three instants, and one for the others.
    assert found.chance == pytest.approx((3 * 3 / 6 + 3 * 1 / 6) / 6)


def test_the_mean_over_views_leaves_missing_views_out(instants: Instants) -> None:
    rows = instants.rows.copy()
    rows[0, 1] = -1
    held = HeldOut(replace(instants, rows=rows))
    pose = poses_of(11)
    assert torch.equal(held.fused(Prediction(pose, torch.zeros(11, 2)))[0], pose[0])


@pytest.mark.parametrize(
    ("off", "hit", "better"),
    [
        (80.0, 0.2, True),
        (100.0, 0.3, True),
        (101.0, 0.6, True),
        (110.0, 0.9, False),
        (60.0, 0.1, False),
        (100.0, 0.2, False),
    ],
)
def test_what_is_better_has_neither_worse_poses_nor_worse_search(off: float, hit: float, better: bool) -> None:
    assert Agreement(50.0, off, hit, 0.05).better_than(Agreement(50.0, 100.0, 0.2, 0.05)) is better
