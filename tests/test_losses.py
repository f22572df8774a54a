import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mcss.losses import (
    fused_views,
    hardest_negative,
    multiview_contrastive,
    multiview_infonce,
    pair_distances,
    pose_l1,
)


def pairs(count: int, dim: int = 6, seed: int = 0, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """Unit vectors around one direction, whose distances lie on both sides of α and of β."""
    generator = torch.Generator().manual_seed(seed)
    middle = torch.randn(dim, generator=generator, dtype=torch.float64)
    anchor = middle + spread * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    positive = anchor + 0.2 * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(anchor, dim=1), torch.nn.functional.normalize(positive, dim=1)


def slow_contrastive(anchor: Tensor, positive: Tensor, alpha: float, beta: float) -> list[float]:
    """Compute Eq. 1 and 2 with loops over pairs and candidates."""
    count = len(anchor)
    losses = []
    for i in range(count):
        candidates = []
        for j in range(count):
            if j != i:
                candidates.append(math.dist(anchor[i].tolist(), positive[j].tolist()))
                candidates.append(math.dist(anchor[j].tolist(), positive[i].tolist()))
        negatives = [distance for distance in candidates if distance > beta]
        hinge = max(0.0, alpha - min(negatives)) if negatives else 0.0
        losses.append(math.dist(anchor[i].tolist(), positive[i].tolist()) + hinge)
    return losses


def hardnet(anchor: Tensor, positive: Tensor, margin: float) -> list[float]:
    """HardNet with the hardest negative in the batch, anchor swap and the contrastive form (Mishchuk et al. 2017)."""
    a, p = anchor.numpy(), positive.numpy()
    squared = (a**2).sum(1)[:, None] + (p**2).sum(1)[None] - 2 * a @ p.T
    distance = np.sqrt(squared + 1e-12)
    elsewhere = distance + 10 * np.eye(len(a))
    elsewhere[elsewhere < 0.008] += 10
    swapped = np.minimum(elsewhere.min(axis=1), elsewhere.min(axis=0))
    return [float(d + max(0.0, margin - n)) for d, n in zip(np.diag(distance), swapped, strict=True)]


def slow_infonce(embedding: Tensor, temperature: float) -> list[list[float]]:
    """Compute InfoNCE with loops: every positive alone against the images of other instants."""
    instants, views, _ = embedding.shape
    losses: list[list[float]] = []
    for i in range(instants):
        losses.append([])
        for v in range(views):

            def similarity(j: int, w: int, i: int = i, v: int = v) -> float:
                return math.exp(float(embedding[i, v] @ embedding[j, w]) / temperature)

            negatives = sum(similarity(j, w) for j in range(instants) if j != i for w in range(views))
            others = [w for w in range(views) if w != v]
            terms = [-math.log(similarity(i, w) / (similarity(i, w) + negatives)) for w in others]
            losses[-1].append(sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("alpha", "beta"), [(0.6, 0.3), (0.9, 0.5)])
def test_the_papers_loss_equals_a_slow_version_of_its_equations(seed: int, alpha: float, beta: float) -> None:
    anchor, positive = pairs(12, seed=seed)
    distances = pair_distances(anchor, positive)
    assert (distances <= beta).any()
    assert ((distances > beta) & (distances < alpha)).any()
    expected = slow_contrastive(anchor, positive, alpha, beta)
    np.testing.assert_allclose(multiview_contrastive(anchor, positive, alpha, beta).numpy(), expected, rtol=1e-12)


def test_where_nothing_lies_below_beta_it_is_hardnets_loss() -> None:
    for seed in range(5):
        anchor, positive = pairs(8, dim=64, seed=seed, spread=0.32)
        off_diagonal = pair_distances(anchor, positive)[~torch.eye(8, dtype=torch.bool)]
        assert 0.3 < off_diagonal.min() < 0.6
        loss = multiview_contrastive(anchor, positive, alpha=0.6, beta=0.3)
        np.testing.assert_allclose(loss.numpy(), hardnet(anchor, positive, margin=0.6), rtol=1e-6)


def test_a_matrix_worked_out_by_hand() -> None:
    """D = [[.1 .9 2.4] [.4 .4 1.9] [1.9 1.1 .4]]; row and column of each pair without the diagonal."""
    anchor, positive = torch.tensor([[0.0], [0.5], [2.0]]), torch.tensor([[0.1], [0.9], [2.4]])
    distances = pair_distances(anchor, positive)
    torch.testing.assert_close(distances, torch.tensor([[0.1, 0.9, 2.4], [0.4, 0.4, 1.9], [1.9, 1.1, 0.4]]))
    torch.testing.assert_close(hardest_negative(distances, 0.3), torch.tensor([0.4, 0.4, 1.1]))
    torch.testing.assert_close(multiview_contrastive(anchor, positive), torch.tensor([0.1 + 0.2, 0.4 + 0.2, 0.4]))
    # With β = 0.45 the 0.4 no longer counts as a negative; next are 0.9 (pair 0) and 0.9 (pair 1).
    torch.testing.assert_close(hardest_negative(distances, 0.45), torch.tensor([0.9, 0.9, 1.1]))


def test_a_distance_of_exactly_beta_is_no_negative_and_the_own_positive_never_is() -> None:
    distances = torch.tensor([[5.0, 0.3], [0.75, 0.5]])
    assert hardest_negative(distances, 0.3).tolist() == [0.75, 0.75]
    assert hardest_negative(torch.tensor([[0.4]]), 0.3).isinf().all()


def test_a_pair_without_negative_has_no_hinge_and_is_counted() -> None:
    anchor, positive = torch.tensor([[0.0], [0.1], [9.0]]), torch.tensor([[0.05], [0.0], [9.0]])
    distances = pair_distances(anchor, positive)
    assert hardest_negative(distances[:2, :2], 0.3).isinf().tolist() == [True, True]
    torch.testing.assert_close(multiview_contrastive(anchor[:2], positive[:2]), torch.tensor([0.05, 0.1]))
    assert not hardest_negative(distances, 0.3).isinf().any()


def test_gradients_are_finite_where_distances_are_zero_or_all_is_collapsed() -> None:
    anchor, positive = pairs(6)
    for one, other in ((anchor, anchor), (anchor[:1].expand(6, -1), anchor[:1].expand(6, -1)), (positive, anchor)):
        a, p = one.clone().requires_grad_(), other.clone().requires_grad_()
        loss = multiview_contrastive(a, p)
        loss.sum().backward()  # type: ignore[no-untyped-call]
        assert loss.isfinite().all()
        assert a.grad is not None
        assert a.grad.isfinite().all()
        assert p.grad is not None
        assert p.grad.isfinite().all()


def test_the_gradient_draws_positives_together_and_pushes_the_hardest_negative_away() -> None:
    anchor = torch.tensor([[0.0], [0.5]], requires_grad=True)
    positive = torch.tensor([[0.1], [0.6]])
    # D(1, 0) = 0.4 is the hardest negative of pair 0.
    multiview_contrastive(anchor, positive)[0].backward()  # type: ignore[no-untyped-call]
    assert anchor.grad is not None
    assert anchor.grad.flatten().tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("views", [2, 3, 4])
def test_infonce_equals_a_slow_version_of_its_definition(views: int) -> None:
    generator = torch.Generator().manual_seed(views)
    embedding = torch.randn(5, views, 7, generator=generator, dtype=torch.float64)
    embedding = torch.nn.functional.normalize(embedding, dim=2)
    found = multiview_infonce(embedding, temperature=0.2)
    np.testing.assert_allclose(found.numpy(), slow_infonce(embedding, 0.2), rtol=1e-12)


def test_infonce_of_two_views_is_cross_entropy_over_all_other_images() -> None:
    anchor, positive = pairs(6, seed=3)
    flat = torch.cat([anchor, positive])
    logits = (flat @ flat.T / 0.1).fill_diagonal_(-math.inf)
    expected = torch.nn.functional.cross_entropy(logits, torch.arange(12).roll(6), reduction="none")
    found = multiview_infonce(torch.stack([anchor, positive], dim=1), 0.1)
    torch.testing.assert_close(found.T.flatten(), expected)


def test_pose_loss_is_the_mean_over_coordinates_of_each_pose() -> None:
    predicted, target = torch.zeros(2, 48), torch.zeros(2, 48)
    target[0, :3] = torch.tensor([4.8, -4.8, 9.6])
    torch.testing.assert_close(pose_l1(predicted, target), torch.tensor([19.2, 0.0]))


def test_gradcheck_of_every_loss() -> None:
    anchor, positive = (value.requires_grad_() for value in pairs(7, seed=1))
    # Keep away from the kinks: the end of the hinge, the threshold, and ties between negatives.
    distances = pair_distances(anchor, positive).detach()
    assert (distances - 0.3).abs().min() > 1e-4
    assert (hardest_negative(distances, 0.3) - 0.6).abs().min() > 1e-4
    assert torch.autograd.gradcheck(multiview_contrastive, (anchor, positive))
    embedding = torch.stack(pairs(4, seed=2), dim=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: multiview_infonce(x, 0.3), (embedding,))
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(3, 48, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(3, 48, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(pose_l1, (predicted, target))


def test_the_mean_over_views_hardly_follows_a_view_that_is_far_off() -> None:
    poses = torch.zeros(1, 4, 1, 3)
    poses[0, 3, 0, 0] = 1000.0
    # Weighted by 60 mm / distance: m = 1000 w / (3 v + w) with w = 60 / (1000 - m) and v = 60 / m at most 1, so that
    # m falls from 250 to 100 in the first round, where v = 60/250 and w = 60/750: 1000 × 0.08 / (0.72 + 0.08).
    assert fused_views(poses, outlying=60.0, rounds=1)[0, 0, 0].item() == pytest.approx(100.0)
    assert fused_views(poses, outlying=60.0, rounds=3)[0, 0, 0].item() < 30.0
    assert fused_views(poses, outlying=2000.0)[0, 0, 0].item() == pytest.approx(250.0)
