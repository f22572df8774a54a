import functools

import numpy as np
import pytest

from mcss.search.dtw import at_pace, occurrences, pace, path_between


def least_cost(distance: np.ndarray, free: bool) -> float:
    """Return the cost of the best path by trying every path."""
    m, n = distance.shape

    @functools.cache
    def upto(i: int, j: int) -> float:
        if i < 0 or j < 0:
            return np.inf
        here = distance[i, j]
        if i == 0:
            return here if free or j == 0 else np.inf
        choices = [upto(i - 1, j - 1), upto(i - 1, j - 2)]
        if i >= 2:
            choices.append(upto(i - 2, j - 1) + distance[i - 1, j])
        return here + min(choices)

    return min(upto(m - 1, j) for j in (range(n) if free else [n - 1])) / m


def walk(times: np.ndarray) -> np.ndarray:
    """Points on a curve without self-intersections."""
    return np.stack([np.cos(times), np.sin(times), 0.3 * times, np.sin(2.3 * times)], axis=1)


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("seed", range(6))
def test_the_cost_is_that_of_trying_every_path(seed: int, free: bool) -> None:
    rng = np.random.default_rng(seed)
    query, track = rng.normal(size=(5 + seed % 3, 3)), rng.normal(size=(9, 3))
    distance = np.linalg.norm(query[:, None] - track[None], axis=2)
    path, cost = path_between(query, track, free=free)
    assert cost == pytest.approx(least_cost(distance, free))
    assert distance[np.arange(len(query)), path].mean() == pytest.approx(cost), "the path has the cost that is given"
    steps = np.diff(path)
    assert set(steps.tolist()) <= {0, 1, 2}
    assert not ((steps[1:] == 0) & (steps[:-1] == 0)).any(), "no image is given three times"


def test_a_movement_is_found_where_it_was_put_at_another_pace() -> None:
    query = walk(np.arange(0, 3, 0.1))
    rng = np.random.default_rng(0)
    track = np.concatenate([rng.normal(5, 1, (40, 4)), walk(np.arange(0, 3, 0.15)), rng.normal(5, 1, (30, 4))])
    best = occurrences(query, track)[0]
    assert abs(best.start - 40) <= 1
    assert abs(best.stop - 60) <= 1
    assert best.cost < 0.08


def test_several_occurrences_come_best_first_and_overlap_little() -> None:
    part = walk(np.arange(0, 2, 0.1))
    noise = np.random.default_rng(1).normal(4, 1, (15, 4))
    track = np.concatenate([noise, part + 0.05, noise, part, noise])
    found = occurrences(part, track, top=2)
    assert [abs(s.start - at) <= 1 for s, at in zip(found, (50, 15), strict=True)] == [True, True]
    assert found[0].cost < found[1].cost
    assert occurrences(part, track[:3]) == []
    assert occurrences(part[:0], track) == []


def test_lengths_that_no_pace_fits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"30 and 9 images cannot be aligned: .* more than 2 times as fast"):
        path_between(walk(np.arange(0, 3, 0.1)), walk(np.arange(0, 3, 0.35)), free=False)


def test_images_at_another_pace_are_the_nearest_in_time() -> None:
    time = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert pace(time) == pytest.approx(0.1)
    assert at_pace(time, 0.2).tolist() == [0, 2, 4]
    assert at_pace(time, 0.04).tolist() == [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 5]
    assert at_pace(time[:1], 0.1).tolist() == [0]
    assert pace(time[:1]) == 0
