import cv2
import numpy as np
import pytest
from filming import RATE, Room

from mcss.images import cut_out
from mcss.video.background import Foreground, empty_scene
from mcss.video.boxes import interpolated_boxes, steady_crop_boxes
from mcss.video.people import MotionDetector, ViewTracker, foreground_groups


def seen_boxes(room: Room) -> np.ndarray:
    images = room.images()
    at = np.linspace(0, room.count - 1, 48).round().astype(int)
    return boxes_of(images, empty_scene([images[i] for i in at]))


def boxes_of(images: list[np.ndarray], scene: np.ndarray) -> np.ndarray:
    watch = ViewTracker(MotionDetector(Foreground(scene)), RATE, len(images))
    for image in images:
        watch.update(image)
    return watch.result().tracks[0].over(len(images))


def share_inside(room: Room, squares: np.ndarray) -> float:
    inside = [
        ((joints >= squares[i, :2]) & (joints <= squares[i, 2:])).all(axis=1)
        for i in range(room.count)
        for joints in [room.person(i)[0]]
    ]
    return float(np.mean(inside))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_crop_follows_the_person_and_not_the_bystander_the_shadow_or_the_flicker(seed: int) -> None:
    room = Room(seed=seed)
    boxes = seen_boxes(room)
    assert np.isfinite(boxes).mean() > 0.9
    squares = steady_crop_boxes(interpolated_boxes(boxes), RATE, 1.15, room.width, room.height)
    assert share_inside(room, squares) == 1.0
    for i in range(room.count):
        joints = room.person(i)[0]
        tight = np.concatenate([joints.min(axis=0), joints.max(axis=0)])
        assert boxes[i][0] > 0.13 * room.width, "the bystander is in the box"
        np.testing.assert_allclose(boxes[i], tight, atol=0.09 * room.height)


def test_a_person_who_stays_in_place_for_most_of_a_short_clip_is_found() -> None:
    def place(t: float) -> float:
        return 0.45 + 0.02 * np.sin(9 * t) + 0.35 * max(0.0, t - 0.6) / 0.4

    room = Room(place=place, count=40, bystander=False)
    images = room.images()
    scene = empty_scene(images)
    empty = room.empty()
    wrong = np.abs(scene - empty).max(axis=-1) > 40
    median_wrong = np.abs(np.median(np.stack(images), axis=0) - empty).max(axis=-1) > 40
    assert wrong.mean() < 0.8 * median_wrong.mean()
    squares = steady_crop_boxes(interpolated_boxes(boxes_of(images, scene)), RATE, 1.15, room.width, room.height)
    assert share_inside(room, squares) > 0.97


def test_shadow_and_exposure_are_no_foreground_but_another_colour_of_the_same_brightness_is() -> None:
    scene = np.full((60, 80, 3), (150, 120, 90), np.float32)
    scene[:, ::7] *= 0.8
    image = scene.copy()
    image[10:30, 10:30] *= 0.7
    image[10:30, 50:70] = (90, 120, 150)
    mask = Foreground(scene)(np.clip(image * 1.3, 0, 255).astype(np.uint8))
    assert not mask[12:28, 12:28].any()
    assert mask[12:28, 52:68].all()
    assert mask.sum() < 1.3 * 20 * 20


def test_an_empty_scene_of_images_without_motion_is_their_median() -> None:
    images = [np.full((20, 30, 3), v, np.uint8) for v in (100, 101, 104)]
    assert (empty_scene(images) == 101).all()
    assert not Foreground(empty_scene(images))(images[2]).any()


def test_candidates_join_near_pieces_and_leave_specks_out() -> None:
    mask = np.zeros((240, 320), bool)
    mask[50:120, 100:130] = True
    mask[123:150, 105:125] = True  # cut in two by a belt of the floor's colour
    mask[200:220, 280:300] = True
    mask[10, 10] = True
    first, second = foreground_groups(mask)
    assert first.box.tolist() == [100, 50, 130, 150]
    assert first.area == pytest.approx(70 * 30 + 27 * 20, rel=0.02)
    assert second.box.tolist() == [280, 200, 300, 220]


def test_gaps_cannot_be_filled_from_nothing() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        interpolated_boxes(np.full((3, 4), np.nan))


def test_gaps_are_interpolated_and_the_ends_stand_still() -> None:
    boxes = np.full((6, 4), np.nan)
    boxes[1], boxes[4] = (0, 0, 10, 10), (30, 6, 40, 16)
    assert interpolated_boxes(boxes)[:, 0].tolist() == [0, 0, 10, 20, 30, 30]


def test_squares_are_square_hold_their_boxes_and_stay_in_the_image_as_far_as_they_fit() -> None:
    rng = np.random.default_rng(0)
    centre = np.cumsum(rng.normal(0, 4, (80, 2)), axis=0) + np.array([160, 120])
    half = rng.uniform(20, 35, (80, 2))
    boxes = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, [320, 240] * 2)
    squares = steady_crop_boxes(boxes, RATE, 1.3, 320, 240)
    assert (squares[:, 2] - squares[:, 0] == squares[:, 3] - squares[:, 1]).all()
    assert (squares >= 0).all()
    assert (squares <= [320, 240, 320, 240]).all()
    assert (squares[:, :2] <= boxes[:, :2] + 8).all()
    assert (squares[:, 2:] >= boxes[:, 2:] - 8).all()
    large = steady_crop_boxes(np.tile([10.0, 5, 310, 235], (4, 1)), RATE, 1.2, 320, 240)
    assert (large == [-20, -60, 340, 300]).all()


def test_one_wild_box_does_not_move_the_crop() -> None:
    boxes = np.tile([100.0, 50, 140, 150], (50, 1))
    calm = steady_crop_boxes(boxes, RATE, 1.15, 320, 240)
    boxes[20] = (0, 0, 320, 240)
    assert (steady_crop_boxes(boxes, RATE, 1.15, 320, 240) == calm).all()


def test_a_crop_beyond_the_image_repeats_its_border() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :20] = (200, 0, 0)
    crop = cut_out(image, np.array([-20, 0, 20, 40]), 40)
    assert crop.shape == (40, 40, 3)
    assert (crop == (200, 0, 0)).all()
    whole = cut_out(image, np.array([0, 0, 40, 40]), 20)
    assert (whole == cv2.resize(image, (20, 20), interpolation=cv2.INTER_AREA)).all()
