"""People without colour: grey clothes, grey-scale cameras and night cameras, whose shadows cannot be told by hue."""

import cv2
import numpy as np
import pytest

from mcss.video.background import Foreground

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
