"""People without colour: grey clothes, grey-scale cameras and night cameras, whose shadows cannot be told by hue."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from filming import RATE, Room

from mcss.video.background import Foreground
from mcss.video.boxes import interpolated_boxes, steady_crop_boxes
from mcss.video.contrast import USUAL_CONTRAST, contrast_of
from mcss.video.people import MotionDetector, ViewTracker

Colour = int | tuple[int, int, int]

HEIGHT, WIDTH = 180, 240
HEAD, SHIRT, TROUSERS = (
    (slice(30, 50), slice(112, 128)),
    (slice(50, 95), slice(100, 140)),
    (slice(95, 150), slice(104, 136)),
)
SHADOW = (slice(150, 178), slice(40, 150))


def scene(texture: float = 0.0) -> np.ndarray:
    """A light-grey wall above a darker grey floor, perhaps with a grain."""
    rng = np.random.default_rng(0)
    image = np.full((HEIGHT, WIDTH), 170.0)
    image[120:] = 130
    grain = cv2.resize(rng.normal(0, 1, (HEIGHT // 3, WIDTH // 3)), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.repeat((image + texture * grain)[..., None], 3, axis=2).clip(0, 255).astype(np.float32)


def mask_of(empty: np.ndarray, head: Colour, shirt: Colour, trousers: Colour, shade: float) -> np.ndarray:
    image = empty.copy()
    image[HEAD], image[SHIRT], image[TROUSERS] = head, shirt, trousers
    image[SHADOW] = empty[SHADOW] * shade
    noise = np.random.default_rng(1).normal(0, 2, image.shape[:2])[..., None]
    return Foreground(empty)((image + noise).clip(0, 255).astype(np.uint8))


def share(mask: np.ndarray, part: tuple[slice, slice]) -> float:
    """The share of a part that is foreground, without its rim."""
    rows, columns = part
    return float(mask[rows.start + 3 : rows.stop - 3, columns.start + 3 : columns.stop - 3].mean())


@pytest.mark.parametrize("grey", [105, 120, 195])
def test_the_whole_person_is_foreground_in_a_camera_without_colours(grey: int) -> None:
    mask = mask_of(scene(), 110, grey, 40, shade=0.8)
    assert [share(mask, part) for part in (HEAD, SHIRT, TROUSERS)] == pytest.approx([1, 1, 1], abs=0.02)


def test_a_shadow_over_a_texture_is_still_left_out_without_colours() -> None:
    mask = mask_of(scene(texture=14.0), 60, 90, 40, shade=0.75)
    assert share(mask, SHADOW) < 0.1
    assert min(share(mask, part) for part in (HEAD, SHIRT, TROUSERS)) > 0.9


def test_a_grey_shirt_before_a_grey_wall_is_kept_in_colour_and_the_shadow_left_out() -> None:
    empty = scene()
    empty[:60, :80] = (60, 90, 170)  # a blue door: a camera with colours
    mask = mask_of(empty, (200, 150, 120), 110, (40, 50, 120), shade=0.75)
    assert share(mask, SHIRT) > 0.95
    assert share(mask, SHADOW) < 0.05


def test_a_shadow_on_a_coloured_floor_is_left_out_as_before() -> None:
    empty = scene()
    empty[120:] = (150, 110, 70)
    mask = mask_of(empty, (200, 150, 120), (200, 40, 40), (40, 50, 120), shade=0.7)
    assert share(mask, SHADOW) < 0.02


def dim(image: np.ndarray) -> np.ndarray:
    return grey(image) * 0.25 + 10


def hazy(image: np.ndarray) -> np.ndarray:
    return grey(image) * 0.5 + 90


def night(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(int(image[::9].sum()) % 1000).normal(0, 6, image.shape[:2])
    return grey(image) * 0.35 + 10 + noise[..., None]


def green(image: np.ndarray) -> np.ndarray:
    return grey(image) * [0.17, 1.0, 0.17]


def dim_colour(image: np.ndarray) -> np.ndarray:
    return image * 0.25 + 8


def grey(image: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2).astype(np.float64)


@pytest.mark.parametrize("camera", [dim, hazy, night, green, dim_colour])
def test_the_crop_holds_the_person_in_dim_hazy_noisy_and_one_coloured_footage(
    camera: Callable[[np.ndarray], np.ndarray],
) -> None:
    room = Room(seed=0, count=40)
    images = [camera(image).clip(0, 255).astype(np.uint8) for image in room.images()]
    watch = ViewTracker(MotionDetector(Foreground.of(images)), RATE, len(images))
    for image in images:
        watch.update(image)
    boxes = interpolated_boxes(watch.result().tracks[0].over(len(images)))
    squares = steady_crop_boxes(boxes, RATE, 1.15, room.width, room.height)
    for i, square in enumerate(squares):
        joints = room.person(i)[0]
        assert ((joints >= square[:2]) & (joints <= square[2:])).all()
        assert np.ptp(joints, axis=0).max() > 0.55 * (square[2] - square[0])


def test_usual_footage_is_taken_as_it_is() -> None:
    assert contrast_of([Room(seed=0).image(i) for i in range(0, 40, 8)]) == USUAL_CONTRAST


def test_the_range_of_brightness_is_stretched_to_the_usual_one_but_not_its_noise() -> None:
    ramp = np.tile(np.linspace(50, 100, 200).astype(np.uint8), (100, 1))[..., None].repeat(3, axis=2)
    contrast = contrast_of([ramp] * 5)
    assert (contrast.low, contrast.gain) == pytest.approx((50, 4.1), abs=0.2)
    assert (contrast.tint, contrast.smooth) == (None, False)
    np.testing.assert_allclose(contrast.stretched(np.float32([50, 75, 100])), [0, 102, 205], atol=5)
    rng = np.random.default_rng(0)
    noisy = contrast_of([(ramp + rng.normal(0, 9, ramp.shape[:2])[..., None]).astype(np.uint8) for _ in range(25)])
    assert noisy.smooth
    assert noisy.gain == pytest.approx(24 / 9, rel=0.2)  # the noise is 9, and at most 24 in the end
