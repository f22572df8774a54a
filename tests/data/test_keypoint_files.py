"""2D keypoints in the layouts of the tools that labs have: joints by name, and boxes for crops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcss.data.formats.keypoint_files import ViewKeypoints, keypoint_file, read_keypoints
from mcss.data.formats.keypoint_layouts import BODY_25, names_by_count
from mcss.errors import SourceError
from mcss.skeletons import JOINTS
from mcss.sources.videos.given_boxes import read_boxes

COCO = names_by_count(17) or ()
PLACES = {
    **{"nose": (100, 40), "left_eye": (104, 36), "right_eye": (96, 36), "left_ear": (108, 38), "right_ear": (92, 38)},
    **{"left_shoulder": (120, 70), "right_shoulder": (80, 70), "left_elbow": (130, 100), "right_elbow": (70, 100)},
    **{"left_wrist": (135, 130), "right_wrist": (65, 130), "left_hip": (112, 140), "right_hip": (88, 140)},
    **{"left_knee": (114, 180), "right_knee": (86, 180), "left_ankle": (115, 220), "right_ankle": (85, 220)},
    **{"neck": (100, 70), "mid_hip": (100, 140)},
}


def triples(names: tuple[str, ...], shift: float = 0.0, score: float = 0.9) -> list[float]:
    return [float(v) for n in names for v in (*(np.array(PLACES.get(n, (0, 0))) + shift), score * (n in PLACES))]


def checked(keypoints: ViewKeypoints, frames: list[int], shift: float = 0.0) -> None:
    assert keypoints.frames.tolist() == frames
    joints = keypoints.joints()
    for joint, name in (("LHip", "left_hip"), ("RWrist", "right_wrist"), ("LFoot", "left_ankle"), ("Neck", "nose")):
        np.testing.assert_allclose(joints[-1, JOINTS.index(joint)], np.array(PLACES[name]) + shift)
    np.testing.assert_allclose(joints[-1, 0], np.array([100, 140]) + shift)
    assert joints[-1, JOINTS.index("Head"), 1] < 38 + shift  # above the ears


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_a_folder_of_openpose_takes_the_largest_person(tmp_path: Path) -> None:
    small = [v / 3 if k % 3 < 2 else v for k, v in enumerate(triples(BODY_25))]
    for frame in (4, 5):
        people = [{"pose_keypoints_2d": small}, {"pose_keypoints_2d": triples(BODY_25, shift=frame)}]
        dump(tmp_path / "left" / f"left_{frame:012d}_keypoints.json", {"version": 1.3, "people": people})
    checked(read_keypoints(tmp_path / "left"), [4, 5], shift=5)


def test_coco_results_annotations_and_whole_bodies_are_read(tmp_path: Path) -> None:
    results = [{"image_id": i, "category_id": 1, "keypoints": triples(COCO), "score": 0.9} for i in (0, 7)]
    checked(read_keypoints(dump(tmp_path / "a.json", results)), [0, 7])
    whole = [*triples(COCO), *[0.0] * 3 * 116]
    checked(read_keypoints(dump(tmp_path / "b.json", [{"image_id": 3, "keypoints": whole}])), [3])
    annotations = {
        "images": [{"id": 91, "file_name": "left/img_000012.jpg"}],
        "annotations": [{"image_id": 91, "keypoints": triples(tuple(reversed(COCO)))}],
        "categories": [{"keypoints": list(reversed(COCO))}],
    }
    checked(read_keypoints(dump(tmp_path / "c.json", annotations)), [12])


def test_mmpose_and_deeplabcut_are_read_by_name(tmp_path: Path) -> None:
    person = {"keypoints": [list(PLACES[n]) for n in COCO], "keypoint_scores": [0.8] * 17}
    names = {str(k): name for k, name in enumerate(COCO)}
    content = {
        "meta_info": {"keypoint_id2name": names},
        "instance_info": [{"frame_id": 2, "instances": [person]}, {"frame_id": 3, "instances": [person]}],
    }
    checked(read_keypoints(dump(tmp_path / "a.json", content)), [2, 3])
    header = [
        ["scorer", *["DLC"] * 51],
        ["bodyparts", *(n for n in COCO for _ in range(3))],
        ["coords", *["x", "y", "likelihood"] * 17],
    ]
    rows = [[str(i), *map(str, triples(COCO))] for i in range(3)]
    (tmp_path / "b.csv").write_text("\n".join(",".join(row) for row in header + rows))
    checked(read_keypoints(tmp_path / "b.csv"), [0, 1, 2])


def test_keypoints_that_are_not_sure_are_unknown_and_other_files_refused(tmp_path: Path) -> None:
    doubtful = triples(COCO)
    doubtful[3 * COCO.index("left_wrist") + 2] = 0.1
    keypoints = read_keypoints(dump(tmp_path / "a.json", [{"image_id": 0, "keypoints": doubtful}]))
    assert np.isnan(keypoints.joints()[0, JOINTS.index("LWrist")]).all()
    with pytest.raises(SourceError, match=r"b\.json: expected keypoints of OpenPose, COCO or MMPose"):
        read_keypoints(dump(tmp_path / "b.json", {"frames": 3}))
    with pytest.raises(SourceError, match=r"c\.json: 19 keypoints without names; .*17 \(COCO\)"):
        read_keypoints(dump(tmp_path / "c.json", [{"image_id": 0, "keypoints": [1.0] * 57}]))


def test_keypoints_give_boxes_for_crops(tmp_path: Path) -> None:
    dump(tmp_path / "Ann" / "walk" / "left.json", [{"image_id": i, "keypoints": triples(COCO, i)} for i in (0, 2)])
    assert keypoint_file(tmp_path, "Ann", "walk", "right") is None
    boxes = read_boxes(tmp_path, {("Ann", "walk", "left"): (320, 240, 4), ("Ann", "walk", "right"): (320, 240, 4)})
    (box,) = boxes.values()
    assert np.flatnonzero(np.isfinite(box).all(axis=1)).tolist() == [0, 2]
    room = 0.1 * (220 - 36)
    np.testing.assert_allclose(box[2], [65 + 2 - room, 36 + 2 - room, 135 + 2 + room, 220 + 2 + room])
    with pytest.raises(SourceError, match="there are no keypoints of any view"):
        read_boxes(tmp_path, {("Bo", "walk", "right"): (320, 240, 4)})
