"""Boxes around the 2D keypoints of a view: which image each belongs to, and in whose pixels they are."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filming import Room

from keypoints_for_tests import COCO, coco, dump, triples
from mcss.data.formats.keypoint_files import keypoint_file
from mcss.data.keypoints import joints_of_tools
from mcss.errors import SourceError
from mcss.skeletons import JOINTS
from mcss.sources.videos.given_boxes import read_boxes
from mcss.sources.videos.video_folder import Videos

VIEW = ("Ann", "walk", "left")


def boxes_of(folder: Path, width: int = 320, height: int = 240, count: int = 4) -> tuple[np.ndarray, list[str]]:
    """Read the boxes of the one view, and the notes on them."""
    notes: list[str] = []
    (box,) = read_boxes(folder, {VIEW: (width, height, count)}, note=notes.append).values()
    return box, notes


def test_keypoints_give_boxes_for_crops(tmp_path: Path) -> None:
    dump(tmp_path / "Ann" / "walk" / "left.json", [{"image_id": i, "keypoints": triples(COCO, i)} for i in (0, 2)])
    assert keypoint_file(tmp_path, "Ann", "walk", "right") is None
    boxes = read_boxes(tmp_path, {("Ann", "walk", "left"): (320, 240, 4), ("Ann", "walk", "right"): (320, 240, 4)})
    (box,) = boxes.values()
    assert np.flatnonzero(np.isfinite(box).all(axis=1)).tolist() == [0, 2]
    room = 0.1 * (220 - 36)
    np.testing.assert_allclose(box[2], [65 + 2 - room, 36 + 2 - room, 135 + 2 + room, 220 + 2 + room])
    view = ("Ann", "walk", "left")  # images named 0 and 2 are the second and the last of four
    (box,) = read_boxes(tmp_path, {view: (320, 240, 4)}, {view: [-1, 0, 1, 2]}).values()
    assert np.flatnonzero(np.isfinite(box).all(axis=1)).tolist() == [1, 3]
    with pytest.raises(SourceError, match="there are no keypoints of any view"):
        read_boxes(tmp_path, {("Bo", "walk", "right"): (320, 240, 4)})


def test_images_that_begin_with_one_are_noted_for_a_video_and_right_in_a_folder(tmp_path: Path) -> None:
    dump(tmp_path / "left.json", coco([f"{i + 1:06d}.jpg" for i in range(4)]))
    box, notes = boxes_of(tmp_path)
    assert np.flatnonzero(np.isfinite(box).all(axis=1)).tolist() == [1, 2, 3]
    assert "its images begin with 1, and are taken as numbers that count from 0" in notes[0]
    assert "the view lacks 1 of its 4 images: they have the numbers 1 to 4, and those of the view 0 to 3" in notes[1]
    (box,) = read_boxes(tmp_path, {VIEW: (320, 240, 4)}, {VIEW: [1, 2, 3, 4]}, notes.append).values()
    assert np.isfinite(box).all()
    assert len(notes) == 2
    with pytest.raises(SourceError, match=r"lacks 4 of its 4 images: .* 1 to 4, and those of the view 7 to 8; number"):
        read_boxes(tmp_path, {VIEW: (320, 240, 2)}, {VIEW: [7, 8]})


def test_keypoints_of_a_copy_of_another_size_are_scaled_if_it_is_stated(tmp_path: Path) -> None:
    content = coco([f"{i}.jpg" for i in range(4)], width=320, height=240)
    dump(tmp_path / "left.json", content)
    alike, notes = boxes_of(tmp_path)
    assert notes == []
    scaled, notes = boxes_of(tmp_path, 800, 600)
    np.testing.assert_allclose(scaled, 2.5 * alike)
    assert notes == [f"{tmp_path}/left.json: its keypoints are scaled from images of 320×240 pixels to 800×600"]
    with pytest.raises(SourceError, match=r"states images of 320×240 pixels, and those of the view are 240×320; expec"):
        boxes_of(tmp_path, 240, 320)


def test_keypoints_that_are_shares_of_the_image_are_not_taken_for_pixels(tmp_path: Path) -> None:
    shares = [v / 240 if k % 3 < 2 else v for k, v in enumerate(triples(COCO))]
    dump(tmp_path / "left.json", [{"image_id": i, "keypoints": shares} for i in range(3)])
    with pytest.raises(
        SourceError, match=r"left\.json: expected pixels .*, got people of 0\.77 pixels; .*multiply x by"
    ):
        boxes_of(tmp_path)


def test_keypoints_outside_the_image_are_refused_and_those_in_a_quarter_of_it_noted(tmp_path: Path) -> None:
    dump(tmp_path / "left.json", coco([f"{i}.jpg" for i in range(4)]))
    assert boxes_of(tmp_path, 160, 240)[1] == []  # a hand is at the edge
    with pytest.raises(
        SourceError, match=r"left\.json: \d+% of its keypoints lie outside the image, which is 160×120 pix"
    ):
        boxes_of(tmp_path, 160, 120)
    box, notes = boxes_of(tmp_path, 640, 480)
    assert np.isfinite(box).all()
    assert "all keypoints lie in the upper left quarter of the image, which is 640×480 pixels" in notes[0]


def test_boxes_and_points_of_folders_of_images_belong_to_the_same_images(tmp_path: Path) -> None:
    """Numbered from 1, with an image that one camera lost."""
    room = Room(count=12, width=160, height=120)
    footage, keypoints = tmp_path / "footage", tmp_path / "keypoints"
    for view in ("left", "right"):
        (footage / view).mkdir(parents=True)
        for i in range(12):
            if (view, i) != ("right", 5):
                cv2.imwrite(str(footage / view / f"{i + 1:06d}_cam2.jpg"), room.image(i))
        content: dict[str, Any] = coco([f"{i + 1:06d}_cam2.jpg" for i in range(12)])
        for i, person in enumerate(content["annotations"]):
            person["keypoints"] = [v / 4 if k % 3 < 2 else v for k, v in enumerate(triples(COCO, 100 + 16 * i))]
        dump(keypoints / f"{view}.json", content)
    done = Videos(size=32, boxes=keypoints, test_fraction=0.0).import_to(tmp_path / "capture", footage, workers=1)
    instants = done.capture.instants()
    assert instants.rows[:, 1].tolist().index(-1) == 5
    notes: list[str] = []
    joints = joints_of_tools(keypoints, done.capture, instants, "points", notes.append)
    for v in range(2):
        there = instants.rows[:, v] >= 0
        at = 4 * instants.frame[there]
        np.testing.assert_allclose(joints[there, v, JOINTS.index("LHip"), 0], 53 + at, atol=1e-4)
        centres = done.capture.boxes(instants.rows[there, v]).reshape(-1, 2, 2).mean(axis=1)
        np.testing.assert_allclose(centres[3:-3, 0], (50 + at)[3:-3], atol=2.5)  # smoothed; the next is 4 away
    assert notes == []
