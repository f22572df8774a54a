from collections.abc import Callable

import cv2
import numpy as np
import pytest
from crowds import Crowd, Walker
from filming import RATE, Room

from mcss.video.background import Foreground, empty_scene
from mcss.video.boxes import interpolated_boxes, overlaps, steady_crop_boxes
from mcss.video.detectors import Detections
from mcss.video.people import MotionDetector, ViewTracker, ViewTracks
from mcss.video.tracking import PersonTracker
from mcss.video.tracks import PersonTrack

RED, BLUE, GREEN = (200, 40, 40), (40, 60, 200), (40, 160, 60)
People = dict[tuple[int, int, int], tuple[float, float]]
"""The middle of a box of 20 × 60 pixels, where the colour of the clothes is measured."""


def tracked(
    seen: list[People], hidden: Callable[[int, tuple[int, int, int]], bool] = lambda *_: False
) -> list[PersonTrack]:
    """Track people who are drawn as boxes, with a detector that finds all but the hidden ones."""
    return tracker_of(seen, hidden).tracks()


def tracker_of(
    seen: list[People], hidden: Callable[[int, tuple[int, int, int]], bool] = lambda *_: False
) -> PersonTracker:
    tracker = PersonTracker(RATE, in_pieces=False)
    for i, people in enumerate(seen):
        image = np.full((120, 320, 3), 128, np.uint8)
        boxes = []
        for colour, (x, y) in people.items():
            box = np.array([x - 10, y - 30, x + 10, y + 30])
            if not hidden(i, colour):
                cv2.rectangle(image, box[:2].astype(int).tolist(), box[2:].astype(int).tolist(), colour, -1)
                boxes.append(box)
        tracker.update(image, Detections.from_lists(boxes, [0.9] * len(boxes)))
    return tracker


def middles(track: PersonTrack, count: int) -> np.ndarray:
    boxes = track.over(count)
    return np.asarray((boxes[:, 0] + boxes[:, 2]) / 2)


def test_two_people_who_cross_keep_their_tracks_though_one_is_hidden_for_a_while() -> None:
    seen: list[People] = [{RED: (40 + 5 * i, 60), BLUE: (290 - 5 * i, 62)} for i in range(50)]
    tracks = tracked(seen, lambda i, colour: colour == BLUE and 21 <= i <= 29)
    assert len(tracks) == 2
    for track, start, speed in zip(tracks, (40, 290), (5, -5), strict=True):
        x = middles(track, 50)
        np.testing.assert_allclose(x[track.over(50)[:, 0] > 0], (start + speed * np.arange(50))[np.isfinite(x)])
    assert np.isnan(middles(tracks[1], 50)).sum() == 9


def test_somebody_is_the_only_person_while_nobody_was_seen_who_is_half_as_likely_to_be_wanted() -> None:
    def people(i: int) -> People:
        passer_by: People = {GREEN: (160, 62)} if 20 <= i < 30 else {}
        return {RED: (40 + 2 * i, 60), **passer_by, **({BLUE: (310 - 2 * i, 62)} if i >= 40 else {})}

    tracker = tracker_of([people(i) for i in range(100)])
    (boxes,) = tracker.only_person(10, 39)
    np.testing.assert_array_equal(boxes, [[30 + 2 * i, 30, 50 + 2 * i, 90] for i in range(10, 40)])
    assert tracker.only_person(10, 40) == []  # BLUE came
    assert tracker_of([{}] * 5).only_person(0, 4) == []


def test_nobody_is_the_only_person_where_they_were_not_seen() -> None:
    tracker = tracker_of([{RED: (40 + 2 * i, 60)} for i in range(50)], lambda i, _: i == 30)
    assert len(tracker.only_person(20, 29)) == 1
    assert tracker.only_person(25, 31) == []
    assert tracker.only_person(45, 50) == []  # image 50 has not been examined yet


def test_two_people_in_the_same_clothes_are_told_apart_by_how_they_walk() -> None:
    also_red = (200, 40, 41)
    seen: list[People] = [{RED: (40 + 5 * i, 60), also_red: (290 - 5 * i, 60)} for i in range(50)]
    tracks = tracked(seen, lambda i, _: 21 <= i <= 29)
    assert sorted((middles(t, 50)[0], middles(t, 50)[49]) for t in tracks) == [(40, 285), (290, 45)]


def test_a_box_that_two_people_share_for_a_moment_belongs_to_neither() -> None:
    tracker = PersonTracker(RATE, in_pieces=True)
    for i in range(60):
        one, other = np.array([20.0 + 3 * i, 20, 50 + 3 * i, 100]), np.array([200.0 - 3 * i, 30, 225 - 3 * i, 100])
        image = np.full((120, 260, 3), 128, np.uint8)
        for box, colour in ((other, BLUE), (one, RED)):
            cv2.rectangle(image, box[:2].astype(int).tolist(), box[2:].astype(int).tolist(), colour, -1)
        together = min(one[2], other[2]) > max(one[0], other[0]) - 8
        both = [np.concatenate([np.minimum(one[:2], other[:2]), np.maximum(one[2:], other[2:])])]
        boxes = both if together else [one, other]
        tracker.update(image, Detections.from_lists(boxes, [0.9] * len(boxes)))
    tracks = tracker.tracks()
    assert len(tracks) == 2
    ends = sorted((track.boxes[0, 0], track.over(60)[59, 0]) for track in tracks)
    assert ends == [(20, 197), (200, 23)]
    for track in tracks:
        assert np.nanmax(track.boxes[:, 2] - track.boxes[:, 0]) < 42


def test_an_image_that_differs_everywhere_shows_nobody() -> None:
    room = Room(seed=3)
    finder = MotionDetector(Foreground(room.empty()))
    elsewhere = np.clip(Room(seed=4).empty(), 0, 255).astype(np.uint8)
    assert len(finder.detect([room.image(5)])[0].boxes) > 0
    assert len(finder.detect([elsewhere])[0].boxes) == 0


def test_a_person_who_turns_round_behind_another_is_recognised_by_their_clothes() -> None:
    def x(i: int) -> float:
        return float(100 + 3 * min(i, 25) - 3 * max(0, i - 25))

    seen: list[People] = [{RED: (x(i), 60), BLUE: (175 + 2 * abs(25 - i), 60)} for i in range(50)]
    tracks = tracked(seen, lambda i, colour: colour == RED and 19 <= i <= 31)
    red = next(t for t in tracks if middles(t, 50)[0] == 100)
    assert middles(red, 50)[-1] == x(49)


def test_a_person_who_comes_back_keeps_their_track_and_another_outfit_gets_a_new_one() -> None:
    nobody: list[People] = [{}] * 60
    seen: list[People] = [{RED: (100, 60)} for _ in range(20)]
    again: list[People] = [{RED: (250, 60)} for _ in range(20)]
    other: list[People] = [{GREEN: (250, 60)} for _ in range(20)]
    (one,) = tracked(seen + nobody + again)
    assert (one.first, one.stop, int(one.seen.sum())) == (0, 100, 40)
    assert [(t.first, t.stop) for t in tracked(seen + nobody + other)] == [(0, 20), (80, 100)]


def test_what_is_detected_once_or_twice_is_nobody() -> None:
    seen: list[People] = [{RED: (100, 60)} | ({BLUE: (250, 60)} if i in (5, 12, 13) else {}) for i in range(20)]
    assert len(tracked(seen)) == 1
    assert tracked([{}] * 5) == []


def test_the_one_who_is_seen_longest_and_largest_comes_first() -> None:
    tracker = PersonTracker(RATE, in_pieces=False)
    small, large = [10.0, 10, 30, 60], [100.0, 10, 150, 110]
    for i in range(40):
        boxes = [small, large] if i < 30 else [small]
        tracker.update(np.zeros((120, 200, 3), np.uint8), Detections.from_lists(boxes, [0.9] * len(boxes)))
    assert [t.boxes[0].tolist() for t in tracker.tracks()] == [large, small]


def test_pieces_that_background_subtraction_makes_of_a_person_are_one_person() -> None:
    tracker = PersonTracker(RATE, in_pieces=True)
    for i in range(40):
        upper, lower = [100.0 + i, 20, 140 + i, 70], [105.0 + i, 71, 135 + i, 120]
        whole = [100.0 + i, 20, 140 + i, 120]
        tracker.update(
            np.zeros((140, 240, 3), np.uint8),
            Detections.from_lists([whole] if i % 3 == 0 else [upper, lower], [0.6] if i % 3 == 0 else [0.6, 0.6]),
        )
    (track,) = tracker.tracks()
    assert track.boxes[3:, 1].tolist() == [20] * 37  # a person must be detected three times
    assert track.boxes[3:, 3].tolist() == [120] * 37


@pytest.mark.parametrize("gap", [2, 30])
def test_the_only_person_may_get_boxes_with_and_without_what_may_be_a_piece_of_them(gap: int) -> None:
    tracker = PersonTracker(RATE, in_pieces=True)
    alone, piece = (
        [[left + i, top, right + i, bottom] for i in range(40)]
        for left, top, right, bottom in ((100.0, 20, 140, 80), (110.0, 80 + gap, 130, 88 + gap))
    )
    for boxes in zip(alone, piece, strict=True):
        tracker.update(np.zeros((140, 240, 3), np.uint8), Detections.from_lists(boxes, [0.6, 0.6]))
    first, *more = tracker.only_person(10, 30)
    np.testing.assert_array_equal(first, alone[10:31])
    final = tracker.tracks()[0].over(40)[10:31]
    if gap == 2:
        (with_piece,) = more
        np.testing.assert_array_equal(with_piece[:, 3], 88 + gap)
        np.testing.assert_array_equal(final, with_piece)
    else:  # too far away
        assert not more
        np.testing.assert_array_equal(final, first)


def test_a_person_who_stretches_while_what_is_behind_them_cuts_them_in_two_stays_one_person() -> None:
    whole = [[120 - 16 * reach, 30, 180 + 8 * reach, 100] for reach in np.clip(np.arange(45) - 18, 0, 5)]
    tracker = PersonTracker(rate=10.0, in_pieces=True)
    for i, (left, top, right, bottom) in enumerate(whole):
        boxes = [[left, top, right, bottom]]
        if 21 <= i < 28:  # grey trousers before a grey wall
            boxes = [[left, 60, 128, bottom], [140, top, right, 90]]
        tracker.update(np.full((120, 320, 3), 128, np.uint8), Detections.from_lists(boxes, [0.3] * len(boxes)))
    (track,) = tracker.tracks()
    np.testing.assert_array_equal(track.over(45), whole)


def test_overlap_is_intersection_over_union_counted_in_pixels() -> None:
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 30, (8, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1)

    def pixels(box: np.ndarray) -> np.ndarray:
        mask = np.zeros((31, 31), bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        return mask

    expected = [[(pixels(a) & pixels(b)).sum() / (pixels(a) | pixels(b)).sum() for b in boxes[4:]] for a in boxes[:4]]
    np.testing.assert_allclose(overlaps(boxes[:4].astype(float), boxes[4:].astype(float)), expected)


# Drawn footage with people found by motion


def watched(room: Room) -> ViewTracks:
    images = room.images()
    scene = empty_scene([images[i] for i in np.linspace(0, room.count - 1, 32).round().astype(int)])
    watch = ViewTracker(MotionDetector(Foreground(scene)), RATE, room.count)
    for image in images:
        watch.update(image)
    return watch.result()


def share_inside(room: Room, track: PersonTrack) -> float:
    """Return the share of the person's joints that the crops around a track contain."""
    squares = steady_crop_boxes(interpolated_boxes(track.over(room.count)), RATE, 1.15, room.width, room.height)
    joints = np.stack([room.person(i)[0] for i in range(room.count)])
    return float(((joints >= squares[:, None, :2]) & (joints <= squares[:, None, 2:])).all(axis=-1).mean())


def the_person(room: Room, seen: ViewTracks, at: int) -> PersonTrack:
    """Return the track whose box contains the person's hip in an image."""
    hip, boxes = room.person(at)[0][5], [track.over(seen.count)[at] for track in seen.tracks]
    return next(t for t, b in zip(seen.tracks, boxes, strict=True) if (b[:2] <= hip).all() and (hip <= b[2:]).all())


def pacing(t: float) -> float:
    return float(0.5 + 0.18 * np.sin(2 * np.pi * 1.2 * t))


def passing(t: float) -> float:
    return 2.2 * t - 0.6


def blurred(image: np.ndarray, i: int) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 3) if 25 <= i < 34 else image


def dimmed(image: np.ndarray, i: int) -> np.ndarray:
    """Images of which the second half has one lamp off: darker, and more so on one side."""
    light = np.linspace(0.45, 0.75, image.shape[1])[None, :, None] * np.array([1, 0.95, 0.85])
    return (image * light).astype(np.uint8) if i >= 30 else image


def flashed(image: np.ndarray, i: int) -> np.ndarray:
    return np.clip(image.astype(int) + 150, 0, 255).astype(np.uint8) if i in (12, 13, 40) else image


ROOM = {"width": 200, "height": 150, "count": 60, "place": pacing}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "walker", [Walker(passing), Walker(passing, 0.7, (60, 140, 60), in_front=True)], ids=["behind", "in front"]
)
def test_somebody_who_passes_behind_or_in_front_does_not_take_the_crop_along(walker: Walker, seed: int) -> None:
    room = Crowd(seed=seed, walkers=(walker,), **ROOM)
    seen = watched(room)
    assert seen.tracks[0] is the_person(room, seen, 5)
    assert the_person(room, seen, 5) is the_person(room, seen, 55)
    assert share_inside(room, seen.tracks[0]) == 1.0
    assert len(seen.tracks) > 1


@pytest.mark.parametrize("spoiled", [blurred, dimmed, flashed])
def test_blur_a_lamp_switched_off_and_flashes_do_not_take_the_crop_along(
    spoiled: Callable[[np.ndarray, int], np.ndarray],
) -> None:
    room = Crowd(seed=0, spoiled=spoiled, **ROOM)
    seen = watched(room)
    assert share_inside(room, seen.tracks[0]) == 1.0
    squares = steady_crop_boxes(
        interpolated_boxes(seen.tracks[0].over(room.count)), RATE, 1.15, room.width, room.height
    )
    tall = float(np.median([np.ptp(room.person(i)[0], axis=0).max() for i in range(room.count)]))
    sides = squares[:, 2] - squares[:, 0]
    assert np.median(sides) < 1.4 * tall
    assert sides.max() < 2.0 * tall  # a blurred wall differs from the empty scene near the person as well


def test_a_shadow_as_long_as_the_person_is_not_followed() -> None:
    def shaded(image: np.ndarray, i: int) -> np.ndarray:
        dark = np.zeros(image.shape[:2], np.uint8)
        x = pacing(i / 59) * 200
        cv2.ellipse(dark, (round(x + 34), 139), (40, 6), 0, 0, 360, 1, -1)
        return np.where(dark[..., None] > 0, image * 0.65, image).astype(np.uint8)

    room = Crowd(seed=0, spoiled=shaded, shadow=False, **ROOM)
    track = watched(room).tracks[0]
    assert share_inside(room, track) == 1.0
    for i in range(10, 50):
        joints = room.person(i)[0]
        assert track.over(60)[i, 2] < joints[:, 0].max() + 14
