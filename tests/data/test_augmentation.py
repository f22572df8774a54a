import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from captures_for_tests import SIZE, stick_camera, stick_image, stick_pose
from mcss.data.capture import Capture
from mcss.data.loading.augmentation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NO_CHANGES,
    AugmentationSettings,
    augment,
    degraded,
    mirrored_canonical,
    normalise,
    source_size,
    unnormalised,
)
from mcss.data.loading.sampling import generator
from mcss.images import decode_jpeg
from mcss.skeletons import canonical_pose, mirrored
from runs_for_tests import NO_AUGMENTATION


def only(**settings: float) -> AugmentationSettings:
    """Settings with only these changes."""
    return AugmentationSettings(**{**vars(NO_AUGMENTATION), **settings})


def colours(images: Tensor) -> Tensor:
    """Convert normalised images back to RGB in 0..255."""
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (images * std + mean) * 255


@pytest.fixture(scope="module")
def pixels(tiny_capture: Capture) -> Tensor:
    rows = tiny_capture.instants().rows[::9].reshape(-1)
    return torch.from_numpy(tiny_capture.decode(rows)).permute(0, 3, 1, 2)


def test_without_changes_images_are_only_normalised(pixels: Tensor) -> None:
    plain = augment(pixels, NO_AUGMENTATION, generator(0, "test", 0))
    torch.testing.assert_close(plain, normalise(pixels), atol=1e-5, rtol=0)
    torch.testing.assert_close(colours(plain), pixels.float(), atol=1e-3, rtol=0)
    assert plain.is_contiguous(memory_format=torch.channels_last)
    assert (unnormalised(plain) == pixels.permute(0, 2, 3, 1).numpy()).all()


def test_warped_images_are_as_sharp_as_those_of_evaluation(tiny_capture: Capture) -> None:
    rows, size = tiny_capture.instants().rows.reshape(-1)[::3], SIZE * 3 // 4

    def warped(kept: int) -> Tensor:
        decoded = torch.from_numpy(tiny_capture.decode(rows, kept)).permute(0, 3, 1, 2)
        return augment(decoded, only(rotation=8.0, shift=0.05), generator(0, "test", 0), size)

    def sharpness(images: Tensor) -> float:
        return float(images.diff(dim=-1).square().mean() + images.diff(dim=-2).square().mean())

    evaluated = sharpness(normalise(torch.from_numpy(tiny_capture.decode(rows, size)).permute(0, 3, 1, 2)))
    assert source_size(SIZE, size) == SIZE
    assert sharpness(warped(SIZE)) == pytest.approx(evaluated, rel=0.08)
    assert sharpness(warped(size)) < 0.85 * evaluated
    assert source_size(1000, 100) == 150


def test_the_memory_format_of_the_pixels_does_not_matter(pixels: Tensor) -> None:
    settings = AugmentationSettings()
    one = augment(pixels, settings, generator(0, "test", 1))
    other = augment(pixels.contiguous(), settings, generator(0, "test", 1))
    torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_changes_depend_on_the_generator_alone_and_differ_between_images(pixels: Tensor) -> None:
    same = pixels[:1].expand(6, -1, -1, -1)
    first = augment(same, AugmentationSettings(), generator(0, "test", 0))
    again = augment(same, AugmentationSettings(), generator(0, "test", 0))
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    later = augment(same, AugmentationSettings(), generator(0, "test", 1))
    assert (first - later).abs().flatten(1).amax(1).min() > 0.1
    assert all((first[0] - first[n]).abs().max() > 0.1 for n in range(1, 6))


def test_mirroring_is_exact_and_only_where_asked_for(pixels: Tensor) -> None:
    mirror = np.arange(len(pixels)) % 2 == 0
    images = augment(pixels, NO_AUGMENTATION, generator(0, "test", 0), mirror=mirror)
    expected = normalise(pixels)
    expected[::2] = expected[::2].flip(-1)
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)


def test_another_size_shows_the_same_image(pixels: Tensor) -> None:
    half = augment(pixels, NO_AUGMENTATION, generator(0, "test", 0), size=SIZE // 2)
    means = normalise(pixels).unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).mean(dim=(-1, -3))
    assert (half - means).abs().max() < 0.05


@pytest.mark.parametrize(
    ("settings", "reach"),
    [(only(shift=0.2), 0.2), (only(scale=0.5), 0.11), (only(rotation=30.0), 0.16), (only(), 0.0)],
    ids=["shift", "scale", "rotation", "nothing"],
)
def test_geometry_moves_a_spot_as_far_as_the_settings_allow(settings: AugmentationSettings, reach: float) -> None:
    """A dot that is 0.3 of the image to the right of the centre is located by its centre of mass."""
    spot = np.zeros((SIZE, SIZE, 3), np.uint8)
    cv2.circle(spot, (int(0.8 * SIZE), SIZE // 2), 3, (255, 255, 255), -1, cv2.LINE_AA)
    spots = torch.from_numpy(spot).permute(2, 0, 1).expand(200, -1, -1, -1)
    images = colours(augment(spots, settings, generator(0, "test", 0)))[:, 0]
    grid = torch.arange(SIZE) / SIZE
    mass = images.sum((1, 2))
    x = (images.sum(1) * grid).sum(1) / mass - int(0.8 * SIZE) / SIZE
    y = (images.sum(2) * grid).sum(1) / mass - 0.5
    farthest = float(torch.maximum(x.abs(), y.abs()).max())
    if settings.scale:  # up to 1.5 × 0.3 to the right and 0.5 × 0.3 to the left
        assert 0.13 < float(x.max()) <= 0.16
        assert -0.16 <= float(x.min()) < -0.13
    else:
        assert 0.9 * reach - 0.01 <= farthest <= reach + 0.01


def test_grey_images_have_no_colour_and_keep_their_luma(pixels: Tensor) -> None:
    grey = colours(augment(pixels, only(grey=1.0), generator(0, "test", 0)))
    assert (grey - grey[:, :1]).abs().max() < 1e-2
    luma = (pixels.float() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1)
    torch.testing.assert_close(grey[:, 0], luma, atol=1e-2, rtol=0)


def test_hue_turns_a_red_into_a_green_and_leaves_grey_alone() -> None:
    images = torch.zeros(300, 3, 8, 8, dtype=torch.uint8)
    images[:, 0, :4] = 200
    images[:, :, 4:] = 90
    turned = colours(augment(images, only(hue=120.0), generator(0, "test", 0)))
    torch.testing.assert_close(turned[:, :, 4:], torch.full((300, 3, 4, 8), 90.0), atol=1e-2, rtol=0)
    greens = turned[:, 1, 0, 0]
    assert greens.max() > 190
    assert greens.min() > -75


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "channel_gain"])
def test_each_colour_change_acts_within_its_range(pixels: Tensor, name: str) -> None:
    changed = colours(augment(pixels[:1].expand(300, -1, -1, -1), only(**{name: 0.2}), generator(0, "t", 0)))
    assert changed.std(0).max() > 1
    if name == "brightness":
        ratio = changed.sum((1, 2, 3)) / pixels[0].sum()
        assert 0.8 <= float(ratio.min()) < 0.82
        assert 1.18 < float(ratio.max()) <= 1.2


def test_cutout_blur_and_noise_touch_the_share_of_images_that_they_should(pixels: Tensor) -> None:
    many = pixels[:1].expand(200, -1, -1, -1)
    plain = normalise(many[:1])
    for name in ("cutout", "blur", "noise"):
        images = augment(many, only(**{name: 0.3}), generator(0, "test", 0))
        touched = ((images - plain).abs().flatten(1).amax(1) > 1e-3).float().mean()
        assert 0.2 < float(touched) < 0.4, name
    hidden = augment(many, only(cutout=1.0), generator(0, "test", 0))
    area = ((hidden - plain).abs().amax(1) > 1e-3).float().mean((1, 2))
    assert float(area.max()) <= 0.16
    assert float(area.mean()) > 0.03


def test_a_mirrored_image_shows_the_mirrored_canonical_pose() -> None:
    """Mirroring the image equals mirroring the person in the plane through camera and up axis, and drawing that."""
    camera = stick_camera(1)
    pose = stick_pose(0, 1, 0.7)
    image = decode_jpeg(stick_image(pose, camera, subject=0)[0])
    sideways = camera.rotation[0]
    centre = -camera.rotation.T @ camera.translation
    across = pose - 2 * np.outer((pose - centre) @ sideways, sideways)  # sides not exchanged yet: as seen in the mirror
    redrawn = decode_jpeg(stick_image(across.astype(np.float32), camera, subject=0)[0])
    assert np.abs(image[:, ::-1].astype(int) - redrawn).mean() < 4

    world = torch.from_numpy(across)[list(mirrored_order())]  # its left arm is where the right one was
    expected = canonical_pose(world.double())
    found = mirrored_canonical(canonical_pose(torch.from_numpy(pose).double()))
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)
    assert (found - canonical_pose(torch.from_numpy(pose).double())).norm(dim=-1).max() > 100


def mirrored_order() -> list[int]:
    """Return which joint each joint of a mirrored person comes from, according to `mirrored` itself."""
    numbered = torch.arange(17.0)[:, None].expand(17, 3)
    return [int(v) for v in mirrored(numbered, axis=0)[:, 1]]


def test_the_mirrored_canonical_pose_is_canonical_even_with_crooked_hips() -> None:
    pose = torch.randn(5, 17, 3, generator=torch.Generator().manual_seed(0)) * 300
    found = mirrored_canonical(canonical_pose(pose))
    torch.testing.assert_close(canonical_pose(found), found, atol=1e-2, rtol=0)
    angle = 1.1
    c, s = math.cos(angle), math.sin(angle)
    turned = pose @ torch.tensor([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(canonical_pose(mirrored(turned, axis=1)), found, atol=1e-1, rtol=0)


@pytest.mark.parametrize(("name", "value"), [("scale", 1.0), ("grey", 1.2), ("shift", -0.1), ("mirror", float("nan"))])
def test_settings_outside_their_range_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a value in 0"):
        only(**{name: value})


def test_degraded_images_keep_their_size_and_mean_and_lose_detail() -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (4, 3, 64, 64), dtype=np.uint8))
    for setting in ("low_resolution", "compression"):
        found = degraded(pixels, replace(NO_CHANGES, **{setting: 1.0}), np.random.default_rng(1))
        assert found.shape == pixels.shape
        assert (found.float().mean((2, 3)) - pixels.float().mean((2, 3))).abs().max() < 4
        detail = [(images[..., 1:].float() - images[..., :-1].float()).abs().mean() for images in (pixels, found)]
        assert detail[1] < 0.9 * detail[0]
    assert degraded(pixels, NO_CHANGES, rng) is pixels
