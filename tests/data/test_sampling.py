import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.labels import Labels, labelled_images
from mcss.data.loading.sampling import MetricSettings, generator, metric_batch, metric_plan, pose_batch, pose_plan
from mcss.data.writer import CaptureWriter
from mcss.methods.mcss import MCSS
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18

SETTINGS = MetricSettings(instants=6, views=2, min_gap=0.5)


def assert_lawful(instants: Instants, settings: MetricSettings, chosen: np.ndarray, views: np.ndarray) -> None:
    """Check the rules of Sec. 3.1.1 with plain loops."""
    assert chosen.shape == (settings.instants,)
    assert views.shape == (settings.instants, settings.views)
    assert len(set(instants.subject[chosen])) == 1
    for a, b in itertools.combinations(chosen.tolist(), 2):
        same = instants.sequence[a] == instants.sequence[b]
        assert not same or abs(instants.time[a] - instants.time[b]) >= settings.min_gap - 1e-6
    for instant, row in zip(chosen, views, strict=True):
        assert len(set(row)) == settings.views
        assert (instants.rows[instant, row] >= 0).all()


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, MetricSettings(instants=10), MetricSettings(4, 4, 1.0), MetricSettings(40, 3, 0.0)],
    ids=str,
)
def test_every_metric_batch_keeps_the_rules(tiny_capture: Capture, settings: MetricSettings) -> None:
    instants = tiny_capture.instants().take(np.random.default_rng(1).permutation(144))
    plan = metric_plan(instants, settings)
    for step in range(40):
        batch = metric_batch(plan, seed=3, step=step)
        assert_lawful(instants, settings, batch.instants, batch.views)


def test_a_batch_depends_on_seed_and_step_alone(tiny_capture: Capture) -> None:
    plan = metric_plan(tiny_capture.instants(), SETTINGS)
    forward = [metric_batch(plan, 0, step) for step in range(8)]
    for step in (5, 2, 7, 5):
        again = metric_batch(metric_plan(tiny_capture.instants(), SETTINGS), 0, step)
        np.testing.assert_array_equal(again.instants, forward[step].instants)
        np.testing.assert_array_equal(again.views, forward[step].views)
    drawn = {batch.instants.tobytes() for batch in forward}
    assert len(drawn) == 8
    assert metric_batch(plan, 1, 0).instants.tobytes() not in drawn


def test_steps_drawn_together_are_the_parts_of_a_batch_as_large(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    half = replace(SETTINGS, instants=5)
    parts, whole = metric_plan(instants, half, 2), metric_plan(instants, replace(half, instants=10))
    for draw in range(4):
        one, other = (metric_batch(parts, 7, step) for step in (2 * draw, 2 * draw + 1))
        both = metric_batch(whole, 7, draw)
        np.testing.assert_array_equal(np.concatenate([one.instants, other.instants]), both.instants)
        np.testing.assert_array_equal(np.concatenate([one.views, other.views]), both.views)
    with pytest.raises(ValueError, match=r"batch of 3 devices together needs 15 instants .* use --instants 3 or fewer"):
        metric_plan(instants, half, 3)


def test_subjects_take_turns_in_changing_order(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    plan = metric_plan(instants, SETTINGS)
    subjects = [int(instants.subject[metric_batch(plan, 0, step).instants[0]]) for step in range(60)]
    rounds = [tuple(subjects[i : i + 3]) for i in range(0, 60, 3)]
    assert all(sorted(r) == [0, 1, 2] for r in rounds)
    assert len(set(rounds)) == 6


def test_a_metric_batch_shows_a_subject_in_one_outfit(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    dressed = replace(instants, outfit=instants.sequence % 2)
    plan = metric_plan(dressed, MetricSettings(instants=3, views=2, min_gap=0.2))
    outfits = [set(dressed.outfit[metric_batch(plan, 0, step).instants].tolist()) for step in range(24)]
    assert all(len(worn) == 1 for worn in outfits)
    assert set.union(*outfits) == {0, 1}
    alone = replace(instants, outfit=(np.arange(len(instants)) == 0).astype(np.int64))
    with pytest.raises(ValueError, match=r"S1 has 1 instants dressed as in .*, of which at most 1 are"):
        metric_plan(alone, MetricSettings(instants=3, views=2))


def test_instants_and_pairs_of_views_come_about_equally_often(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants().take(np.arange(48))
    plan = metric_plan(instants, MetricSettings(instants=3, min_gap=0.2))
    seen: Counter[int] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    for step in range(800):
        batch = metric_batch(plan, 0, step)
        seen.update(batch.instants.tolist())
        pairs.update((int(a), int(b)) for a, b in batch.views)
    assert len(seen) == 48
    assert max(seen.values()) < 2 * min(seen.values())
    assert len(pairs) == 12
    assert max(pairs.values()) < 1.4 * min(pairs.values())


def test_instants_that_lack_views_are_used_as_far_as_they_go_and_those_with_one_view_never(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path, info=INFO)
    views = (("1",), ("1", "2"), ("1", "2", "4"))
    writer.append([f for f in stick_part(0, 0) if f.view in views[f.frame % 3]])
    instants = writer.finish().instants()
    plan = metric_plan(instants, MetricSettings(instants=4, views=3, min_gap=0.2))
    assert plan.settings.views == 3
    counts: Counter[int] = Counter()
    for step in range(40):
        batch = metric_batch(plan, 0, step)
        for instant, row in zip(batch.instants.tolist(), batch.views.tolist(), strict=True):
            seen = np.flatnonzero(instants.rows[instant] >= 0).tolist()
            assert len(row) == 3
            assert sorted(set(row)) == seen
            counts[len(seen)] += 1
    assert set(counts) == {2, 3}


@pytest.mark.parametrize("views", [2, 3])
def test_a_capture_of_fewer_views_than_asked_for_gives_all_it_has(views: int, tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path, info=INFO)
    writer.append([f for f in stick_part(0, 0) if int(f.view) <= views])
    instants = writer.finish().instants()
    plan = metric_plan(instants, MetricSettings(instants=4, views=4, min_gap=0.3))
    assert plan.settings.views == views
    for step in range(20):
        batch = metric_batch(plan, 0, step)
        assert_lawful(instants, plan.settings, batch.instants, batch.views)


def test_too_few_far_apart_instants_name_the_setting_and_the_most_that_work(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    with pytest.raises(
        ValueError, match=r"instants: .* needs 33 .* 0\.5 s apart \(--min-gap\), but S1 has 48 .* at most 10"
    ):
        metric_plan(instants, MetricSettings())
    metric_plan(instants, MetricSettings(instants=10))
    with pytest.raises(ValueError, match="use --instants 10 or fewer, or lower --min-gap"):
        metric_plan(instants, MetricSettings(instants=11))


def test_one_view_alone_names_the_setting_and_the_subject(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path, info=INFO)
    writer.append([f for f in stick_part(0, 0) if f.view != "2"])
    writer.append([f for f in stick_part(1, 0) if f.view == "2"])
    instants = writer.finish().instants()
    with pytest.raises(ValueError, match=r"needs 2 views .*, but instants of S2 have at most 1; leave S2 out"):
        metric_plan(instants, MetricSettings(4, 2))


def test_settings_that_can_hold_no_pair_or_negative_are_refused() -> None:
    with pytest.raises(ValueError, match=r"instants: expected 2 or more, .* got 1"):
        MetricSettings(instants=1)
    with pytest.raises(ValueError, match="views: expected 1 or more, got 0"):
        MetricSettings(views=0)
    with pytest.raises(ValueError, match="views: expected 2 or more, since a positive is another view, got 1"):
        MCSS(metric_loss="infonce", views=1)
    with pytest.raises(ValueError, match="views: expected 2 or more, which can agree, got 1"):
        RhodinCVPR18(views=1)
    with pytest.raises(ValueError, match="min_gap: expected 0 seconds or more, got nan"):
        MetricSettings(min_gap=float("nan"))


@pytest.mark.parametrize("size", [7, 22, 50])
def test_every_labelled_image_comes_once_an_epoch(tiny_capture: Capture, size: int) -> None:
    images = labelled_images(tiny_capture.instants(), Labels.parse("S1:0.1"))
    plan = pose_plan(images)
    batches = [pose_batch(plan, size, seed=2, step=step) for step in range(20)]
    stream = [(int(i), int(v)) for batch in batches for i, v in zip(batch.instants, batch.views, strict=True)]
    count = int(images.sum())
    assert count == 20
    everything = {(int(i), int(v)) for i, v in np.argwhere(images)}
    epochs = [tuple(stream[i : i + count]) for i in range(0, len(stream) - count + 1, count)]
    assert all(set(epoch) == everything for epoch in epochs)
    assert len(set(epochs)) == len(epochs)
    assert len(batches[0].instants) == size


def test_a_pose_batch_depends_on_seed_and_step_alone(tiny_capture: Capture) -> None:
    plan = pose_plan(labelled_images(tiny_capture.instants(), Labels.parse("S1")))
    forward = [pose_batch(plan, 22, 0, step).instants.tolist() for step in range(30)]
    assert [pose_batch(plan, 22, 0, step).instants.tolist() for step in reversed(range(30))] == forward[::-1]
    assert pose_batch(plan, 22, 1, 0).instants.tolist() != forward[0]


def test_no_labels_make_no_pose_batch(tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match="needs labelled images, but there are none"):
        pose_plan(labelled_images(tiny_capture.instants(), Labels.parse("none")))


def test_random_numbers_differ_by_purpose_and_step() -> None:
    drawn = {generator(*key).random() for key in [(0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0)]}
    assert len(drawn) == 4
    assert generator(0, "a", 0).random() in drawn
