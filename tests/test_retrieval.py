from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from mcss import retrieval
from mcss.metrics import pa_mpjpe
from mcss.retrieval import (
    EmbeddedImages,
    chance_at_k,
    hit_at_k,
    mean_pa_mpjpe_at_k,
    nearest,
    pair_errors,
    retrieve_instants,
    retrieve_poses,
)

# Two queries and five gallery entries, worked out by hand.
DISTANCES = torch.tensor([[0.5, 0.2, 0.2, 0.9, 0.1], [0.3, 0.3, 0.3, 0.3, 0.3]])
ERRORS = torch.tensor([[10.0, 20.0, 30.0, 40.0, 50.0], [50.0, 40.0, 30.0, 20.0, 10.0]])
EVERYONE = torch.ones(2, 5, dtype=torch.bool)


@pytest.mark.parametrize(("k", "expected"), [(1, [50, 50]), (2, [35, 45]), (3, [100 / 3, 40]), (5, [30, 30])])
def test_neighbours_at_equal_distance_come_in_gallery_order(k: int, expected: list[float]) -> None:
    torch.testing.assert_close(mean_pa_mpjpe_at_k(DISTANCES, ERRORS, EVERYONE, k), torch.tensor(expected).float())


@pytest.mark.parametrize(("k", "expected"), [(1, [10, 10]), (2, [15, 15]), (5, [30, 30])])
def test_the_oracle_is_the_same_function_of_the_true_errors(k: int, expected: list[float]) -> None:
    torch.testing.assert_close(mean_pa_mpjpe_at_k(ERRORS, ERRORS, EVERYONE, k), torch.tensor(expected).float())


def test_entries_that_are_not_allowed_are_never_found_however_near() -> None:
    allowed = torch.tensor([[True, True, False, True, False], [False, False, True, False, True]])
    assert nearest(DISTANCES, allowed, 2).tolist() == [[1, 0], [2, 4]]
    torch.testing.assert_close(mean_pa_mpjpe_at_k(DISTANCES, ERRORS, allowed, 2), torch.tensor([15.0, 20.0]))


def test_random_matrices_with_many_ties_equal_the_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    distances = torch.randint(0, 6, (40, 60), generator=generator).double()
    errors = torch.rand(40, 60, generator=generator).double() * 200
    allowed = torch.rand(40, 60, generator=generator) < 0.7
    for k in (1, 2, 5, 10, 20):
        slow = reference.mean_pa_mpjpe_at_k(distances.numpy(), errors.numpy(), allowed.numpy(), k)
        np.testing.assert_allclose(mean_pa_mpjpe_at_k(distances, errors, allowed, k).numpy(), slow)


def test_too_few_allowed_entries_are_an_error_that_names_the_query() -> None:
    allowed = torch.tensor([[True] * 5, [True, True, False, False, False]])
    with pytest.raises(ValueError, match=r"k=3: query 1 has only 2 allowed gallery entries, expected at least 3; ask"):
        mean_pa_mpjpe_at_k(DISTANCES, ERRORS, allowed, 3)
    with pytest.raises(ValueError, match=r"k: expected 1 or more neighbours, got 0"):
        mean_pa_mpjpe_at_k(DISTANCES, ERRORS, allowed, 0)


def test_a_distance_that_is_no_number_is_an_error_only_where_it_is_allowed() -> None:
    broken = DISTANCES.clone()
    broken[0, 2] = torch.nan
    with pytest.raises(ValueError, match=r"distances: expected finite numbers wherever `allowed`"):
        nearest(broken, EVERYONE, 1)
    allowed = EVERYONE.clone()
    allowed[0, 2] = False
    assert nearest(broken, allowed, 2).tolist() == [[4, 1], [0, 1]]


def test_hits_and_their_chance_by_hand() -> None:
    relevant = torch.tensor([[False, True, False, False, False], [False, False, False, False, True]])
    assert hit_at_k(DISTANCES, relevant, EVERYONE, 1).tolist() == [False, False]
    assert hit_at_k(DISTANCES, relevant, EVERYONE, 2).tolist() == [True, False]
    assert hit_at_k(DISTANCES, relevant, EVERYONE, 5).tolist() == [True, True]
    assert chance_at_k(relevant, EVERYONE, 1).tolist() == pytest.approx([0.2, 0.2])
    two = relevant | torch.tensor([True, False, False, False, False])
    assert chance_at_k(two, EVERYONE, 2).tolist() == pytest.approx([0.7, 0.7 if two[1, 0] else 0.4])
    for k in (1, 3, 4, 5):
        assert chance_at_k(two, EVERYONE, k)[0].item() == pytest.approx(reference.chance_of_a_hit(2, 5, k))


def images(seed: int = 0, subjects: int = 2, frames: int = 12, views: int = 3) -> EmbeddedImages:
    """One sequence of `frames` instants in `views` views for each subject, with random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    subject, frame, view = (
        grid.reshape(-1)
        for grid in torch.meshgrid(torch.arange(subjects), torch.arange(frames), torch.arange(views), indexing="ij")
    )
    instant = subject * frames + frame
    stiff = torch.randn(17, 3, generator=generator) * 300
    pose = stiff + torch.randn(subjects * frames, 17, 3, generator=generator) * 100
    embedding = torch.randn(len(view), 8, generator=generator)
    return EmbeddedImages(embedding, pose[instant], instant, subject, subject, frame, view)


def by_hand(gallery: EmbeddedImages, cross_subject: bool, k: int, oracle: bool) -> float:
    """Compute Mean-PA-MPJPE@K with plain loops over images."""
    total = 0.0
    poses = gallery.pose[:, 1:].double().numpy()
    for q in range(len(gallery)):
        ranked = []
        for g in range(len(gallery)):
            if gallery.view[q] == gallery.view[g] or (cross_subject and gallery.subject[q] == gallery.subject[g]):
                continue
            error = reference.pa_mpjpe(poses[g], poses[q])
            far = error if oracle else float((gallery.embedding[q] - gallery.embedding[g]).double().norm())
            ranked.append((far, g, error))
        total += sum(error for _, _, error in sorted(ranked)[:k]) / k
    return total / len(gallery)


@pytest.mark.parametrize("cross_subject", [False, True])
def test_both_cases_equal_plain_loops_over_images(cross_subject: bool) -> None:
    gallery = images(frames=5)
    result = retrieve_poses(gallery, gallery, cross_subject=cross_subject, ks=(1, 5))
    assert result is not None
    for score in result.scores:
        assert score.mean_pa_mpjpe == pytest.approx(by_hand(gallery, cross_subject, score.k, oracle=False))
        assert score.oracle == pytest.approx(by_hand(gallery, cross_subject, score.k, oracle=True), abs=1e-4)
        assert score.above_oracle == score.mean_pa_mpjpe - score.oracle


def test_with_other_views_of_the_instant_allowed_the_oracle_at_one_is_zero() -> None:
    gallery = images()
    same, cross = (retrieve_poses(gallery, gallery, cross_subject=c, ks=(1,)) for c in (False, True))
    assert same is not None
    assert cross is not None
    assert same.scores[0].oracle < 1e-3
    assert same.scores[0].pose_hit_oracle == 1
    assert cross.scores[0].oracle > 20


def test_an_embedding_of_the_instant_finds_it_and_a_random_one_is_at_chance() -> None:
    gallery = images(frames=40)
    perfect = replace(gallery, embedding=torch.nn.functional.one_hot(gallery.instant).float())
    found = retrieve_instants(perfect, perfect)
    assert found is not None
    assert (found.hit_at_1, found.hit_at_5) == (1.0, 1.0)
    assert found.chance_at_1 == pytest.approx(2 / 160)
    blind = retrieve_instants(gallery, gallery)
    assert blind is not None
    assert blind.hit_at_1 < 0.08
    score = retrieve_poses(perfect, perfect, cross_subject=False, ks=(1, 2))
    assert score is not None
    assert score.scores[1].mean_pa_mpjpe == pytest.approx(0, abs=1e-3)


def test_a_neighbour_two_frames_off_counts_only_with_that_tolerance() -> None:
    gallery = images(subjects=1, frames=30, views=2)
    off: Tensor = (gallery.frame + 2 * gallery.view).float()[:, None]
    late = replace(gallery, embedding=off)
    scores = [retrieve_instants(late, late, tolerance) for tolerance in (0, 1, 2)]
    hits = [score.hit_at_1 for score in scores if score is not None]
    assert hits[0] < 0.2
    assert hits[0] <= hits[1] < hits[2]
    assert hits[2] > 0.9


def test_another_sequence_at_the_same_frame_is_not_the_same_instant() -> None:
    gallery = images(subjects=2, frames=10)
    crossed = replace(gallery, embedding=torch.nn.functional.one_hot(gallery.frame + 10 * (gallery.view == 0)).float())
    only_other = crossed.take((gallery.subject == 1).nonzero()[:, 0])
    assert retrieve_instants(crossed.take((gallery.subject == 0).nonzero()[:, 0]), only_other) is None


def test_cases_that_nobody_can_answer_have_no_score() -> None:
    alone = images(subjects=1)
    assert retrieve_poses(alone, alone, cross_subject=True) is None
    one_view = images(views=1)
    assert retrieve_poses(one_view, one_view, cross_subject=False) is None
    assert retrieve_instants(one_view, one_view) is None


def test_numbers_of_neighbours_that_do_not_fit_are_left_out() -> None:
    small = images(subjects=2, frames=4)
    result = retrieve_poses(small, small, cross_subject=True)
    assert result is not None
    assert [score.k for score in result.scores] == [1, 2, 5]


def test_pair_errors_align_the_gallery_to_the_query() -> None:
    gallery = images(frames=4)
    queries = replace(gallery, pose=gallery.pose * 2).take(torch.tensor([5, 0, 1]))
    errors = pair_errors(queries, gallery)
    expected = [[pa_mpjpe(g[None, 1:], q[None, 1:]).item() for g in gallery.pose] for q in queries.pose]
    np.testing.assert_allclose(errors.numpy(), expected, rtol=1e-6, atol=1e-3)


def test_chunks_of_queries_change_nothing() -> None:
    gallery = images(frames=6)
    for cross_subject in (False, True):
        whole, parts = (
            retrieve_poses(gallery, gallery, cross_subject=cross_subject, pairs=pairs) for pairs in (10**9, 1)
        )
        assert whole is not None
        assert parts is not None
        assert [score.k for score in whole.scores] == [score.k for score in parts.scores]
        for one, other in zip(whole.scores, parts.scores, strict=True):
            np.testing.assert_allclose(list(vars(one).values()), list(vars(other).values()), atol=1e-9)
        assert whole.random == pytest.approx(parts.random)
    assert retrieve_instants(gallery, gallery, pairs=1) == retrieve_instants(gallery, gallery)


def test_queries_spread_over_threads_are_counted_and_hours_are_told_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    class Told:
        done, lines = 0, ()

        @contextmanager
        def task(self, name: str, total: int, done: int = 0) -> Iterator["Told"]:
            assert (name, total) == ("Comparing images", 72)
            yield self

        def advance(self, steps: int = 1) -> None:
            self.done += steps

        def note(self, text: str) -> None:
            pass

        def line(self, text: str) -> None:
            assert self.done == 1, "after the first query"
            self.lines += (text,)

    gallery = images(subjects=2, frames=12, views=3)
    alone = (
        retrieve_poses(gallery, gallery, cross_subject=True, pairs=1, workers=1),
        retrieve_instants(gallery, gallery, pairs=1, workers=1),
    )
    monkeypatch.setattr(retrieval, "TOLD_BEFOREHAND", -1.0)
    ways = Told(), Told()
    spread = (
        retrieve_poses(gallery, gallery, cross_subject=True, pairs=1, workers=3, progress=ways[0]),
        retrieve_instants(gallery, gallery, pairs=1, workers=3, progress=ways[1]),
    )
    assert spread == alone
    for told in ways:
        assert told.done == 72
        assert told.lines == (
            "Comparing 72 queries with 72 images takes about 0.0 h; --max-queries and --max-gallery make it less.",
        )


def test_neighbours_are_those_of_a_whole_stable_sort() -> None:
    generator = torch.Generator().manual_seed(1)
    for kinds in (2, 5, 1000):
        distances = torch.randint(0, kinds, (50, 80), generator=generator).double()
        allowed = torch.rand(50, 80, generator=generator) < 0.6
        slow = distances.masked_fill(~allowed, torch.inf).sort(dim=1, stable=True).indices
        for k in (1, 7, 20):
            assert torch.equal(nearest(distances, allowed, k), slow[:, :k])
