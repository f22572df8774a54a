import numpy as np
import pytest
import torch

from mcss.evaluation.embedding import BIN_MM, NEAR, distance_curves, random_queries, spearman
from mcss.metrics import pa_mpjpe
from mcss.retrieval import EmbeddedImages


def images(frames: int = 30, views: int = 2, subjects: int = 2, seed: int = 0) -> EmbeddedImages:
    """Embeddings that consist of the poses themselves and a small influence of the view."""
    generator = torch.Generator().manual_seed(seed)
    count = subjects * frames
    base = torch.randn(1, 17, 3, generator=generator) * 250
    pose = base + torch.randn(count, 17, 3, generator=generator) * torch.rand(count, 1, 1, generator=generator) * 250
    pose[:, 0] = 0
    instant = torch.arange(count).repeat_interleave(views)
    view = torch.arange(views).repeat(count)
    embedding = torch.cat([pose[instant].flatten(1), 30.0 * view[:, None]], dim=1)
    subject = instant // frames
    return EmbeddedImages(embedding, pose[instant], instant, subject, subject, instant % frames, view)


def slow_spearman(a: list[float], b: list[float]) -> float:
    """Compute Spearman's ρ with ranks by counting: the values below, and half of the equal ones."""

    def ranks(values: list[float]) -> np.ndarray:
        return np.array([sum(x < v for x in values) + (sum(x == v for x in values) + 1) / 2 for v in values])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def test_spearman_equals_counting_with_many_ties() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 6, 60).astype(float), random.integers(0, 6, 60).astype(float)
    assert spearman(a, b) == pytest.approx(slow_spearman(a.tolist(), b.tolist()))
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)
    assert spearman(a, np.ones(60)) is None


def test_curves_equal_plain_loops_over_pairs() -> None:
    gallery = images()
    queries = random_queries(gallery, 10, seed=0)
    assert len(queries) == 20
    assert (np.bincount(gallery.subject[queries].numpy()) == 10).all()
    expected: dict[str, list[tuple[float, float]]] = {"same view": [], "different view": []}
    for q in queries.tolist():
        for g in range(len(gallery)):
            if g == q:
                continue
            error = pa_mpjpe(gallery.pose[g : g + 1, 1:], gallery.pose[q : q + 1, 1:]).item()
            far = float((gallery.embedding[q] - gallery.embedding[g]).double().norm())
            expected["same view" if gallery.view[q] == gallery.view[g] else "different view"].append((error, far))
    curves = distance_curves(gallery, queries)
    assert [curve.name for curve in curves] == list(expected)
    for curve in curves:
        pairs = expected[curve.name]
        assert curve.pairs == len(pairs)
        assert curve.rho == pytest.approx(slow_spearman(*map(list, zip(*pairs, strict=True))), abs=2e-3)
        nearest = sorted(pairs)[: round(NEAR * len(pairs))]
        assert curve.rho_near == pytest.approx(slow_spearman(*map(list, zip(*nearest, strict=True))), abs=2e-3)
        for middle, mean, deviation, count in zip(
            curve.pose_mm, curve.mean, curve.deviation, curve.counts, strict=True
        ):
            own = [far for error, far in pairs if error // BIN_MM == middle // BIN_MM]
            assert abs(len(own) - count) <= 1  # an error may fall on the border of a bin
            assert mean == pytest.approx(np.mean(own), rel=0.02)
            assert deviation == pytest.approx(np.std(own), rel=0.1, abs=2)
    assert curves[0].rho > 0.5


def test_one_image_has_nothing_to_be_compared_with() -> None:
    alone = images().take(torch.tensor([0]))
    with pytest.raises(ValueError, match=r"expected at least two labelled images to compare, got fewer"):
        distance_curves(alone, np.array([0]))
