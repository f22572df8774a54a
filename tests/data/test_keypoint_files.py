"""2D keypoints in the layouts of the tools that labs have: joints by name, and boxes for crops."""

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from keypoints_for_tests import COCO, PLACES, coco, dump, triples
from mcss.data.formats.deeplabcut import pickled_names, read_deeplabcut_poses
from mcss.data.formats.keypoint_files import ViewKeypoints, keypoint_file, read_keypoints
from mcss.data.formats.keypoint_layouts import BODY_25, BODY_25B, OPENPOSE_18, names_by_count
from mcss.errors import SourceError
from mcss.skeletons import JOINTS


def checked(keypoints: ViewKeypoints, frames: list[int], shift: float = 0.0) -> None:
    assert keypoints.frames.tolist() == frames
    joints = keypoints.joints()
    for joint, name in (("LHip", "left_hip"), ("RWrist", "right_wrist"), ("LFoot", "left_ankle"), ("Neck", "nose")):
        np.testing.assert_allclose(joints[-1, JOINTS.index(joint)], np.array(PLACES[name]) + shift)
    np.testing.assert_allclose(joints[-1, 0], np.array([100, 140]) + shift)
    assert joints[-1, JOINTS.index("Head"), 1] < 38 + shift  # above the ears


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


@pytest.mark.parametrize(
    "name",
    [
        "left_{:06d}_jpg.rf.0fd{}a7b12.jpg",  # Roboflow's hash of the content
        "frame_{:06d}_cam2.jpg",
        "frame_{:06d}_1080p.jpg",
        "C:\\take 3\\{:03d}.png",
    ],
)
def test_images_are_known_by_the_number_that_differs_from_one_to_the_next(name: str, tmp_path: Path) -> None:
    hashes = (77, 5, 1234, 60)
    content = coco([name.format(i, hashes[i]) for i in range(4)])
    checked(read_keypoints(dump(tmp_path / "a.json", content)), [0, 1, 2, 3], shift=3)


def test_the_name_before_roboflow_counts_and_images_of_two_views_are_not_mixed(tmp_path: Path) -> None:
    content = coco([f"export.rf.{i}ab.jpg" for i in range(4)])
    for image, number in zip(content["images"], (8, 6, 7, 9), strict=True):
        image["extra"] = {"name": f"left_{number}.jpg"}
    checked(read_keypoints(dump(tmp_path / "a.json", content)), [6, 7, 8, 9], shift=3)
    both = coco(["left/000001.jpg", "left/000002.jpg", "right/000001.jpg", "right/000002.jpg"])
    with pytest.raises(SourceError, match=r"b\.json: .*tells all images apart.*give each view a file of its own"):
        read_keypoints(dump(tmp_path / "b.json", both))


def test_categories_and_annotations_without_keypoints_and_animals_are_left_out(tmp_path: Path) -> None:
    content = coco([f"{i}.jpg" for i in range(3)])
    dummy, ball = {"id": 0, "name": "person", "supercategory": "none"}, {"id": 7, "name": "ball", "keypoints": []}
    dog = {"id": 3, "name": "dog", "keypoints": list(reversed(COCO))}
    content["categories"] = [dummy, dog, *content["categories"], ball]
    large = [3 * v if k % 3 < 2 else v for k, v in enumerate(triples(COCO))]
    boxes = [
        {"image_id": 2, "category_id": 7, "bbox": [0, 0, 5, 5]},
        {"image_id": 2, "category_id": 7, "keypoints": []},
    ]
    content["annotations"] += [*boxes, {"image_id": 2, "category_id": 3, "keypoints": large}]
    checked(read_keypoints(dump(tmp_path / "a.json", content)), [0, 1, 2], shift=2)


def test_alphaposes_other_formats_are_read_and_people_without_a_body_left_out(tmp_path: Path) -> None:
    def image(i: int, people: str, points: str) -> dict[str, Any]:
        return {"version": "AlphaPose v0.3", people: [{points: triples(OPENPOSE_18, shift=i)}]}

    for people, points in (("people", "pose_keypoints_2d"), ("bodies", "joints")):
        content = {f"{i}.jpg": image(i, people, points) for i in range(3)}
        checked(read_keypoints(dump(tmp_path / f"{people}.json", content)), [0, 1, 2], shift=2)
    hands = {"people": [{"pose_keypoints_2d": []}, {"pose_keypoints_2d": triples(BODY_25)}]}
    dump(tmp_path / "hands" / "000004_keypoints.json", hands)
    checked(read_keypoints(tmp_path / "hands"), [4])
    with pytest.raises(
        SourceError, match=r"c\.json: expected people with the same keypoints, got .* 17 and some with 25"
    ):
        read_keypoints(dump(tmp_path / "c.json", [{"image_id": 0, "keypoints": triples(n)} for n in (COCO, BODY_25)]))


def test_the_two_orders_of_25_points_of_openpose_are_told_apart(tmp_path: Path) -> None:
    places = {"neck": (100, 70), "upper_neck": (100, 66), "head_top": (100, 20)}
    names = ("nose", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow")  # as of somebody at a table
    for name, order in (("body_25", BODY_25), ("body_25b", BODY_25B)):
        for part in (order, names):
            known = [place if n in part else (0, 0) for n in order for place in [(PLACES | places).get(n, (0, 0))]]
            person = {"pose_keypoints_2d": [float(v) for x, y in known for v in (x, y, 0.9 * (x > 0))]}
            dump(tmp_path / name / f"{len(part):06d}.json", {"people": [person]})
        keypoints = read_keypoints(tmp_path / name)
        assert keypoints.names == order
        np.testing.assert_allclose(keypoints.joints()[1, JOINTS.index("LHip")], PLACES["left_hip"])


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


def individuals_csv(path: Path, people: dict[str, list[list[float]]], names: dict[str, tuple[str, ...]]) -> Path:
    """Write x and y of each individual as people mark them in images, without a likelihood; empty cells for NaN."""
    columns = [("me", who, name, axis) for who in people for name in names[who] for axis in "xy"]
    lines = [[("scorer", "individuals", "bodyparts", "coords")[k], *(c[k] for c in columns)] for k in range(4)]
    for i, row in enumerate(zip(*people.values(), strict=True)):
        cells = ["" if np.isnan(v) else str(v) for values in row for v in values]
        lines.append([f"labeled-data/left/img{i:04d}.png", *cells])
    path.write_text("\n".join(",".join(line) for line in lines))
    return path


def test_without_a_likelihood_the_largest_individual_is_taken_and_never_what_belongs_to_nobody(tmp_path: Path) -> None:
    def marked(shift: float, scale: float = 1.0) -> list[float]:
        return [v * scale for k, v in enumerate(triples(COCO, shift)) if k % 3 < 2]

    corners, nobody = [0.5, 0.5, 900.0, 900.0], [np.nan] * 34
    people = {"a": [marked(0, 0.3), nobody], "single": [corners, corners], "b": [marked(0), marked(1)]}
    names = {"a": COCO, "single": ("corner1", "corner2"), "b": COCO}
    checked(read_keypoints(individuals_csv(tmp_path / "a.csv", people, names)), [0, 1], shift=1)
    few = marked(0, 3.0)[:4] + [np.nan] * 30  # two points far apart are nobody's body
    checked(read_keypoints(individuals_csv(tmp_path / "b.csv", {"a": [few], "b": [marked(0)]}, names)), [0])


def test_labels_whose_images_have_three_columns_are_read(tmp_path: Path) -> None:
    header = [["scorer", *["me"] * 34], ["bodyparts", *(n for n in COCO for _ in "xy")], ["coords", *["x", "y"] * 17]]
    lines = [[line[0], "", "", *line[1:]] for line in header]
    for i in (1, 0, 2):
        marked = [str(v) for k, v in enumerate(triples(COCO, i)) if k % 3 < 2]
        lines.append(["labeled-data", "left", f"img{i:04d}.png", *marked])
    (tmp_path / "a.csv").write_text("\n".join(",".join(line) for line in lines))
    checked(read_keypoints(tmp_path / "a.csv"), [0, 1, 2], shift=2)
    lines[-1][1:3] = ["right", "img0001.png"]
    (tmp_path / "b.csv").write_text("\n".join(",".join(line) for line in lines))
    with pytest.raises(SourceError, match=r"b\.csv: expected the number or name of an image .*tells all images apart"):
        read_keypoints(tmp_path / "b.csv")


@pytest.mark.parametrize("folders", [False, True])
def test_the_fixed_format_of_pandas_is_read(folders: bool, tmp_path: Path) -> None:
    """With the path of an image in one level of the index, or since DeepLabCut 2.2 in three."""
    levels = [["DLC"], list(COCO), ["x", "y", "likelihood"]]
    labels = [[0] * 51, [k // 3 for k in range(51)], [k % 3 for k in range(51)]]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("keypoints")
        group.attrs.update({"pandas_type": np.bytes_(b"frame"), "nblocks": 1, "block0_items_nlevels": 3})
        for k, (texts, at) in enumerate(zip(levels, labels, strict=True)):
            group[f"block0_items_level{k}"] = np.array(texts, "S")
            group[f"block0_items_label{k}"] = np.array(at, "i1")
        group["block0_values"] = np.array([triples(COCO)])
        if folders:
            group.attrs["axis1_nlevels"] = 3
            for k, text in enumerate((b"labeled-data", b"left", b"img0012.png")):
                group[f"axis1_level{k}"], group[f"axis1_label{k}"] = np.array([text]), np.array([0], "i1")
        else:
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
    with pytest.raises(SourceError, match=r"b\.json: expected keypoints of OpenPose, AlphaPose, COCO or MMPose"):
        read_keypoints(dump(tmp_path / "b.json", {"frames": 3}))
    with pytest.raises(SourceError, match=r"c\.json: 19 keypoints without names; .*17 \(COCO\)"):
        read_keypoints(dump(tmp_path / "c.json", [{"image_id": 0, "keypoints": [1.0] * 57}]))
