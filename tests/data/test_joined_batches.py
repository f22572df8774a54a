import numpy as np
import pytest
import torch

from captures_for_tests import SIZE
from mcss.data.capture import Capture
from mcss.data.instants import ends_of_sequences
from mcss.data.labels import Labels, labelled_images
from mcss.data.loading.batches import AugmentedPixels, BatchSource
from mcss.data.loading.joined_batches import JoinedBatches
from mcss.data.loading.pixels import DecodedPixels
from mcss.data.loading.sampling import MetricSettings, metric_plan, pose_plan
from runs_for_tests import NO_AUGMENTATION


def source_of(capture: Capture, labels: str, instants: int, seed: int) -> BatchSource:
    chosen = capture.instants("train")
    images = labelled_images(chosen, Labels.parse(labels))
    pixels = DecodedPixels.decode(capture, chosen.rows)
    return BatchSource(
        instants=chosen,
        images=AugmentedPixels(pixels, NO_AUGMENTATION),
        seed=seed,
        metric=metric_plan(chosen, MetricSettings(instants=instants, views=2)),
        pose=pose_plan(images) if labels != "none" else None,
        pose_images=8,
    )


@pytest.fixture(scope="module")
def joined(tiny_capture: Capture) -> JoinedBatches:
    return JoinedBatches(
        source_of(tiny_capture, "S1", 3, seed=1), (source_of(tiny_capture, "S2", 4, seed=2),), share=0.25
    )


def test_every_fourth_step_compares_images_from_beside_with_a_share_of_a_quarter(joined: JoinedBatches) -> None:
    assert [joined.batch(step).metric_shape for step in range(8)] == [(3, 2), (3, 2), (3, 2), (4, 2)] * 2


def test_a_quarter_of_the_labelled_images_comes_from_beside(joined: JoinedBatches) -> None:
    for step in (0, 3):
        batch = joined.batch(step)
        unlabelled = batch.metric_shape[0] * 2
        assert batch.images.shape == (unlabelled + 8, 3, SIZE, SIZE)
        assert len(batch.poses) == 8
        own = {tuple(pose.flatten().tolist()) for pose in joined.main.batch(step).poses}
        assert [tuple(pose.flatten().tolist()) in own for pose in batch.poses].count(True) <= 6


def test_the_unlabelled_images_are_those_of_the_source_whose_turn_it_is(joined: JoinedBatches) -> None:
    for step, source, images in ((0, joined.main, 6), (3, joined.beside[0], 8)):
        expected = source.batch(step).images[:images]
        assert torch.equal(joined.batch(step).images[:images], expected)


def test_all_labelled_images_come_from_where_there_are_labels(tiny_capture: Capture) -> None:
    main, other = source_of(tiny_capture, "none", 3, seed=1), source_of(tiny_capture, "S2", 4, seed=2)
    batch = JoinedBatches(main, (other,), share=0.25).batch(0)
    assert batch.metric_shape == (3, 2)
    assert len(batch.poses) == 8
    assert torch.equal(batch.poses, other.batch(0).poses)
    assert len(JoinedBatches(other, (main,), share=0.25).batch(3).poses) == 8


def test_the_end_of_each_sequence_can_be_held_out(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants("train")
    ends = ends_of_sequences(instants, 0.25)
    for subject, sequence in np.unique(np.stack([instants.subject, instants.sequence]), axis=1).T:
        own = (instants.subject == subject) & (instants.sequence == sequence)
        assert ends[own].sum() == round(0.25 * own.sum())
        assert instants.time[own & ends].min() > instants.time[own & ~ends].max()
    assert not ends_of_sequences(instants, 0.0).any()
