from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from captures_for_tests import SIZE
from mcss.data.capture import Capture
from mcss.data.labels import Labels, labelled_images
from mcss.data.loading.augmentation import AugmentationSettings, mirrored_canonical, normalise
from mcss.data.loading.batches import AugmentedPixels, Batch, BatchSource, Selection, prefetched
from mcss.data.loading.pixels import DecodedPixels, StreamedPixels
from mcss.data.loading.sampling import MetricSettings, metric_plan, pose_plan
from mcss.skeletons import canonical_pose
from runs_for_tests import NO_AUGMENTATION


@pytest.fixture(scope="module")
def pixels(tiny_capture: Capture) -> DecodedPixels:
    return DecodedPixels.decode(tiny_capture, tiny_capture.instants().rows)


def source_of(
    capture: Capture,
    pixels: DecodedPixels | StreamedPixels,
    augmentation: AugmentationSettings = NO_AUGMENTATION,
    labels: str = "S1",
    size: int | None = None,
) -> BatchSource:
    instants = capture.instants("train")
    images = labelled_images(instants, Labels.parse(labels))
    return BatchSource(
        instants=instants,
        images=AugmentedPixels(pixels, augmentation, size),
        seed=5,
        metric=metric_plan(instants, MetricSettings(instants=6, views=3)),
        pose=pose_plan(images) if labels != "none" else None,
        pose_images=4,
        mirror=augmentation.mirror,
    )


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.poses, other.poses)


def images_of(capture: Capture, chosen: Selection) -> Tensor:
    """Fetch the same images one by one."""
    instants = capture.instants("train")
    rows = [instants.rows[i, v] for i, v in zip(chosen.instants, chosen.views, strict=True)]
    decoded = np.concatenate([capture.decode(np.array([row])) for row in rows])
    return normalise(torch.from_numpy(decoded).permute(0, 3, 1, 2))


def test_a_batch_holds_the_images_and_poses_of_its_instants(tiny_capture: Capture, pixels: DecodedPixels) -> None:
    source = source_of(tiny_capture, pixels)
    batch, chosen = source.batch(3), source.selection(3)
    assert batch.images.shape == (6 * 3 + 4, 3, SIZE, SIZE)
    assert batch.metric_shape == (6, 3)
    assert batch.first_stage == 0
    torch.testing.assert_close(batch.images, images_of(tiny_capture, chosen), atol=1e-5, rtol=0)
    instants = tiny_capture.instants("train")
    assert (chosen.instants[:18].reshape(6, 3) == chosen.instants[:18:3, None]).all()
    assert (instants.subject[chosen.instants[18:]] == 0).all()
    expected = canonical_pose(torch.from_numpy(instants.pose[chosen.instants[18:]]))
    torch.testing.assert_close(batch.poses, expected)


def test_one_kind_of_image_alone_is_a_batch_too(tiny_capture: Capture, pixels: DecodedPixels) -> None:
    both = source_of(tiny_capture, pixels)
    instants = both.instants
    unlabelled = source_of(tiny_capture, pixels, labels="none").batch(0)
    assert unlabelled.images.shape[0] == 18
    assert unlabelled.poses.shape == (0, 17, 3)
    supervised = BatchSource(instants, both.images, seed=5, pose=both.pose, pose_images=4).batch(0)
    assert supervised.metric_shape == (0, 0)
    assert supervised.images.shape[0] == 4
    torch.testing.assert_close(supervised.images, both.batch(0).images[18:])
    with pytest.raises(ValueError, match="a metric plan, a pose plan, or both"):
        BatchSource(instants, both.images, seed=0)


def test_a_batch_is_a_pure_function_of_the_step_also_when_prefetched(
    tiny_capture: Capture, pixels: DecodedPixels
) -> None:
    source = source_of(tiny_capture, pixels, AugmentationSettings(mirror=0.5))
    direct = [source.batch(step) for step in (4, 3, 2)][::-1]
    ahead = list(prefetched(source, range(2, 5)))
    assert len(ahead) == 3
    assert all(same(one, other) for one, other in zip(direct, ahead, strict=True))
    assert not same(direct[0], direct[1])
    assert list(prefetched(source, range(5, 5))) == []


def test_an_error_while_prefetching_reaches_the_training_loop(tiny_capture: Capture) -> None:
    few = DecodedPixels.decode(tiny_capture, tiny_capture.instants("validation").rows)
    with pytest.raises(ValueError, match=r"row \d+ of the capture was not decoded"):
        next(prefetched(source_of(tiny_capture, few), range(3)))


def test_streamed_pixels_give_the_same_batches(tiny_capture: Capture, pixels: DecodedPixels) -> None:
    kept = source_of(tiny_capture, pixels, AugmentationSettings()).batch(1)
    streamed = source_of(tiny_capture, StreamedPixels(tiny_capture), AugmentationSettings()).batch(1)
    assert same(kept, streamed)


def test_several_workers_prepare_the_same_batches_in_the_same_order(
    tiny_capture: Capture, pixels: DecodedPixels
) -> None:
    source = source_of(tiny_capture, pixels, AugmentationSettings())
    ahead = list(prefetched(replace(source, workers=3), range(2, 9)))
    assert len(ahead) == 7
    assert all(same(batch, source.batch(step)) for step, batch in zip(range(2, 9), ahead, strict=True))


def test_a_batch_that_is_augmented_on_its_device_is_nearly_that_of_the_cpu_and_its_own_again(
    tiny_capture: Capture, pixels: DecodedPixels
) -> None:
    settings = replace(AugmentationSettings(), noise=0.0, blur=0.0)
    here = source_of(tiny_capture, pixels, settings, size=48)
    assert isinstance(here.images, AugmentedPixels)
    there = replace(here, images=replace(here.images, on_device=True))
    device = torch.device("cpu")
    waiting = there.batch(3)
    assert waiting.images.dtype == torch.uint8
    ready, expected = waiting.to(device), here.batch(3).to(device)
    assert ready.changes is None
    assert ready.images.shape == expected.images.shape
    assert (ready.images - expected.images).abs().mean() < 0.02  # OpenCV rounds places to 1/32 pixel, values to 1/255
    assert torch.equal(ready.images, there.batch(3).to(device).images)
    torch.testing.assert_close(ready.poses, expected.poses)


def test_all_views_of_an_instant_are_mirrored_together_and_labels_with_their_images(
    tiny_capture: Capture, pixels: DecodedPixels
) -> None:
    settings = AugmentationSettings(**{**vars(NO_AUGMENTATION), "mirror": 0.5})
    source = source_of(tiny_capture, pixels, settings)
    flips = []
    for step in range(10):
        batch, chosen = source.batch(step), source.selection(step)
        groups = chosen.mirrored[:18].reshape(6, 3)
        assert (groups == groups[:, :1]).all()
        expected = images_of(tiny_capture, chosen)
        mirror = torch.from_numpy(chosen.mirrored)
        expected[mirror] = expected[mirror].flip(-1)
        torch.testing.assert_close(batch.images, expected, atol=1e-5, rtol=0)
        for pose, n, mirrored in zip(batch.poses, chosen.instants[18:], chosen.mirrored[18:], strict=True):
            plain = canonical_pose(torch.from_numpy(source.instants.pose[n]))
            torch.testing.assert_close(pose, mirrored_canonical(plain) if mirrored else plain)
        flips += chosen.mirrored[::3].tolist()
    assert 0.3 < np.mean(flips) < 0.7


def test_poses_of_another_frame_cannot_be_mirrored(tiny_capture: Capture, pixels: DecodedPixels) -> None:
    plain = source_of(tiny_capture, pixels)
    with pytest.raises(ValueError, match=r"mirror: expected 0 with poses in the world frame, got 0\.5"):
        BatchSource(plain.instants, plain.images, 5, pose=plain.pose, mirror=0.5, frame="world")


def test_images_can_be_kept_small_and_shown_at_another_size(tiny_capture: Capture) -> None:
    rows = tiny_capture.instants("train").rows
    small = DecodedPixels.decode(tiny_capture, rows, size=48)
    assert small.pixels.shape == (rows.size, 3, 48, 48)
    assert small.pixels.is_contiguous(memory_format=torch.channels_last)
    batch = source_of(tiny_capture, small, AugmentationSettings(), size=32).batch(0)
    assert batch.images.shape[2:] == (32, 32)


def test_each_row_is_decoded_once_and_missing_views_not_at_all(tiny_capture: Capture) -> None:
    pixels = DecodedPixels.decode(tiny_capture, np.array([[7, -1], [3, 7]]))
    assert len(pixels.pixels) == 2
    expected = torch.from_numpy(tiny_capture.decode(np.array([7, 3, 3]))).permute(0, 3, 1, 2)
    assert torch.equal(pixels.take(np.array([7, 3, 3])), expected)
    for row in (4, -1):
        with pytest.raises(ValueError, match=f"row {row} of the capture was not decoded"):
            pixels.take(np.array([3, row]))


def test_decoding_reports_its_progress(tiny_capture: Capture, tmp_path: Path) -> None:
    from contextlib import contextmanager

    seen: list[tuple[str, int]] = []

    class Told:
        @contextmanager
        def task(self, name: str, total: int, done: int = 0):  # type: ignore[no-untyped-def]
            seen.append((name, total))
            yield self

        def advance(self, steps: int = 1) -> None:
            seen.append(("advance", steps))

        def note(self, text: str) -> None:
            raise AssertionError(text)

    DecodedPixels.decode(tiny_capture, tiny_capture.instants("test").rows, progress=Told())
    assert seen == [("Decoding images", 128), ("advance", 128)]
