"""2D keypoints in the layouts of the tools that labs have: joints by name, and boxes for crops."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mcss.data.formats.deeplabcut import pickled_names, read_deeplabcut_poses
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


def test_the_files_of_mmposes_inferencer_and_alphapose_are_read(tmp_path: Path) -> None:
    person = {"keypoints": [list(PLACES[n]) for n in COCO], "keypoint_scores": [0.8] * 17}
    video = [{"frame_id": 5, "instances": [person]}, {"frame_id": 6, "instances": [person]}]
    checked(read_keypoints(dump(tmp_path / "video.json", video)), [5, 6])
    for frame in (8, 9):
        dump(tmp_path / "images" / f"{frame:06d}.json", [person])
    checked(read_keypoints(tmp_path / "images"), [8, 9])
    middle = [100, 20, 0.9, 100, 70, 0.9, 100, 140, 0.9]  # head, neck and hip
    halpe = [*triples(COCO), *middle, *[0.0] * 3 * 116]
    checked(read_keypoints(dump(tmp_path / "alphapose.json", [{"image_id": "4.jpg", "keypoints": halpe}])), [4])
    old = {"people": [{"pose_keypoints": triples(BODY_25)}]}
    dump(tmp_path / "openpose" / "left_000000000003_keypoints.json", old)
    checked(read_keypoints(tmp_path / "openpose"), [3])


def test_a_number_of_points_that_no_tool_writes_has_no_names() -> None:
    assert [(names_by_count(count) or ("",))[-1] for count in (33, 543, 553)] == ["right_foot_index"] * 3
    assert (names_by_count(136) or ("",))[17] == "head"
    assert [names_by_count(count) for count in (19, 135, 400)] == [None] * 3


def test_keypoints_of_a_view_are_found_in_capitals_and_however_the_name_is_composed(tmp_path: Path) -> None:
    path = dump(tmp_path / "Ann" / "walk" / "Jose\u0301.JSON", [])
    assert keypoint_file(tmp_path, "Ann", "walk", "Jos\u00e9") == path


def deeplabcut_h5(
    path: Path, columns: list[tuple[str, ...]], values: np.ndarray, frames: list[int], names: bytes | None = None
) -> Path:
    """Write what pandas' ``to_hdf(key="df_with_missing", format="table")`` writes, as far as it is read."""
    table = np.zeros(len(values), [("index", "i8"), ("values_block_0", "f8", (values.shape[1],))])
    table["index"], table["values_block_0"] = frames, values
    with h5py.File(path, "w") as file:
        group = file.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        group["table"] = table
        # PyTables writes the earliest protocol.
        group["table"].attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0) if names is None else names)
    return path


def test_the_hdf5_of_deeplabcut_is_read_with_its_names(tmp_path: Path) -> None:
    columns = [("DLC_resnet50", name, axis) for name in COCO for axis in ("x", "y", "likelihood")]
    values = np.array([triples(COCO), triples(COCO, shift=2)])
    checked(read_keypoints(deeplabcut_h5(tmp_path / "a.h5", columns, values, [4, 6])), [4, 6], shift=2)


def test_of_several_individuals_of_deeplabcut_the_largest_one_of_each_image_is_taken(tmp_path: Path) -> None:
    columns = [("DLC", who, name, axis) for who in "ab" for name in COCO for axis in ("x", "y", "likelihood")]
    small = [v / 3 if k % 3 < 2 else v for k, v in enumerate(triples(COCO))]
    values = np.array([[*triples(COCO), *small], [*small, *triples(COCO, shift=1)]])
    checked(read_keypoints(deeplabcut_h5(tmp_path / "a.h5", columns, values, [0, 1])), [0, 1], shift=1)
    lines = [["scorer", "individuals", "bodyparts", "coords"][k : k + 1] + [c[k] for c in columns] for k in range(4)]
    rows = [[str(i), *map(str, row)] for i, row in enumerate(values)]
    (tmp_path / "b.csv").write_text("\n".join(",".join(row) for row in lines + rows))
    checked(read_keypoints(tmp_path / "b.csv"), [0, 1], shift=1)


def test_the_fixed_format_of_pandas_is_read(tmp_path: Path) -> None:
    levels = [["DLC"], list(COCO), ["x", "y", "likelihood"]]
    labels = [[0] * 51, [k // 3 for k in range(51)], [k % 3 for k in range(51)]]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("keypoints")
        group.attrs.update({"pandas_type": np.bytes_(b"frame"), "nblocks": 1, "block0_items_nlevels": 3})
        for k, (texts, at) in enumerate(zip(levels, labels, strict=True)):
            group[f"block0_items_level{k}"] = np.array(texts, "S")
            group[f"block0_items_label{k}"] = np.array(at, "i1")
        group["block0_values"] = np.array([triples(COCO)])
        group["axis1"] = np.array([b"labeled-data/left/img0012.png"])
        group["axis1"].attrs["kind"] = np.bytes_(b"string")
    checked(read_keypoints(tmp_path / "a.h5"), [12])


def test_points_in_3d_of_deeplabcut_are_labels(tmp_path: Path) -> None:
    columns = [("DLC_3D", name, axis) for name in ("left_hip", "nose") for axis in "xyz"]
    values = np.arange(12.0).reshape(2, 6)
    found = read_deeplabcut_poses(deeplabcut_h5(tmp_path / "poses.h5", columns, values, [0, 1]))
    assert (found.names, found.clock) == (("left_hip", "nose"), "images")
    np.testing.assert_array_equal(found.points[1], [[6, 7, 8], [9, 10, 11]])
    flat = deeplabcut_h5(tmp_path / "flat.h5", [("D", "nose", "x"), ("D", "nose", "y")], np.ones((1, 2)), [0])
    with pytest.raises(SourceError, match=r"flat\.h5: expected points in 3D \(x, y, z\), got 2D keypoints of one view"):
        read_deeplabcut_poses(flat)


class Call:
    """Would create a folder while it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_names_are_read_from_a_pickle_without_executing_it(protocol: int, tmp_path: Path) -> None:
    names = [("DLC", "nose", "x"), ("DLC", "nose", "y"), ("DLC", "Ohr links", "x", 3, None)]
    assert pickled_names(pickle.dumps(names, protocol)) == names
    harmful = pickle.dumps([Call(tmp_path / "made")], protocol)
    path = deeplabcut_h5(tmp_path / "a.h5", [], np.ones((1, 3)), [0], names=harmful)
    (tmp_path / "a.csv").write_text("")
    expected = r"a\.h5: expected DeepLabCut's HDF5 .*hold the instruction \w*GLOBAL.*; use a\.csv beside it"
    with pytest.raises(SourceError, match=expected):
        read_keypoints(path)
    assert not (tmp_path / "made").exists()


def test_hdf5_of_other_programs_is_refused_by_name(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = [1.0]
    with pytest.raises(SourceError, match=r"a\.h5: .*no table of pandas in it.*the CSV that DeepLabCut"):
        read_keypoints(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"no HDF5")
    with pytest.raises(SourceError, match=r"b\.h5: expected DeepLabCut's HDF5"):
        read_keypoints(tmp_path / "b.h5")


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
    view = ("Ann", "walk", "left")  # images named 0 and 2 are the second and the last of four
    (box,) = read_boxes(tmp_path, {view: (320, 240, 4)}, {view: [-1, 0, 1, 2]}).values()
    assert np.flatnonzero(np.isfinite(box).all(axis=1)).tolist() == [1, 3]
    with pytest.raises(SourceError, match="there are no keypoints of any view"):
        read_boxes(tmp_path, {("Bo", "walk", "right"): (320, 240, 4)})
