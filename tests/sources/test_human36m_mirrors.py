import json
import shutil
from pathlib import Path

import cv2
import h5py
import lance
import numpy as np
import pytest
from human36m_files import CAMERAS, around, camera, seen, shots_of, walk, write_metadata

from mcss.errors import SourceError
from mcss.images import decode_jpeg
from mcss.skeletons import HUMAN36M_32
from mcss.sources.assembly import ImportResult, SubjectCount
from mcss.sources.human36m.release import Human36M

FILES = {(2, 1): "Directions 1", (3, 2): "Greeting"}
SETTINGS = Human36M(size=32, subjects=("S1",))
EVERY = range(0, 70, 5)


def write_fetch(root: Path, subject: int = 1, name: str = "Directions-1", shift: float = 0.0) -> Path:
    """Write a sequence as h36m-fetch leaves it: every 5th image, numbered from 1; poses in camera space."""
    take = root / "processed" / f"S{subject}" / name
    annotated = walk()[EVERY] + np.array([shift, 0, 0])
    columns: dict[str, list[np.ndarray]] = {key: [] for key in ("camera", "frame", "pose/2d", "pose/3d")}
    for number, camera_id in enumerate(CAMERAS):
        folder = take / "imageSequence" / camera_id
        folder.mkdir(parents=True)
        shots = shots_of(number, subject, walk())
        for i in EVERY:
            cv2.imwrite(str(folder / f"img_{i + 1:06d}.jpg"), shots[i])
        c = camera(number, subject)
        columns["camera"].append(np.full(len(EVERY), int(camera_id)))
        columns["frame"].append(np.array(EVERY) + 1)
        columns["pose/3d"].append((annotated - c["eye"]) @ c["rotation"].T)
        columns["pose/2d"].append(seen(number, subject, annotated.reshape(-1, 3)).reshape(-1, 32, 2))
    with h5py.File(take / "annot.h5", "w") as file:
        for key, values in columns.items():
            file[key] = np.concatenate(values)
    return take


def write_json(root: Path, subject: int = 1, index: tuple[int, int] = (2, 1), shift: float = 0.0) -> Path:
    """Write a sequence in the layout with JSON; return the folder of the annotations."""
    annotated = walk() + np.array([shift, 0, 0])
    images, annotations, cameras = [], [], {}
    for number in range(len(CAMERAS)):
        c = camera(number, subject)
        cameras[str(number + 1)] = {
            "R": c["rotation"].tolist(),
            "t": (-c["rotation"] @ c["eye"]).tolist(),
            "f": c["inner"][:2].tolist(),
            "c": c["inner"][2:4].tolist(),
        }
        name = f"s_{subject:02}_act_{index[0]:02}_subact_{index[1]:02}_ca_{number + 1:02}"
        (root / "images" / name).mkdir(parents=True)
        shots = shots_of(number, subject, walk())
        for i in EVERY:
            file = f"{name}/{name}_{i + 1:06d}.jpg"
            cv2.imwrite(str(root / "images" / file), shots[i])
            x0, y0, x1, y1 = around(number, subject, annotated[[i]])[0].tolist()
            key = {"action_idx": index[0], "subaction_idx": index[1], "cam_idx": number + 1, "frame_idx": i}
            images.append({"id": len(images), "file_name": file, "width": 160, "height": 160, **key})
            annotations.append({"image_id": len(annotations), "bbox": [x0, y0, x1 - x0, y1 - y0]})
    joints = {str(index[0]): {str(index[1]): {str(i): annotated[i, HUMAN36M_32].tolist() for i in EVERY}}}
    folder = root / "annotations"
    folder.mkdir(parents=True)
    stem = f"Human36M_subject{subject}"
    (folder / f"{stem}_data.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (folder / f"{stem}_camera.json").write_text(json.dumps(cameras))
    (folder / f"{stem}_joint_3d.json").write_text(json.dumps(joints))
    return folder


def imported(root: Path, out: Path, settings: Human36M = SETTINGS) -> ImportResult:
    write_metadata(root / "metadata.xml", FILES)
    return settings.import_to(out, root, workers=1)


def assert_the_person_is_in_the_crops(capture: Path, subject: int, off: float) -> None:
    for row in lance.dataset(str(capture / "frames.lance")).to_table().to_pylist():
        number = CAMERAS.index(row["view"])
        x0, y0, x1, y1 = row["box"]
        truth = around(number, subject, walk()[[row["frame"]]])[0]
        np.testing.assert_allclose([x0 + x1, y0 + y1], [truth[0] + truth[2], truth[1] + truth[3]], atol=2 * off)
        column, line = ((seen(number, subject, walk()[[row["frame"]], 0])[0] - (x0, y0)) * 32 / (x1 - x0)).astype(int)
        assert decode_jpeg(row["image"]).astype(int)[line, column].min() > 190


@pytest.mark.parametrize("write", [write_fetch, write_json])
def test_a_copy_with_images_gives_the_poses_and_crops_of_the_release(write: object, tmp_path: Path) -> None:
    write(tmp_path / "set")  # type: ignore[operator]
    done = imported(tmp_path / "set", tmp_path / "capture")
    assert (done.problems, done.notes) == ((), ())
    assert done.imported == ("S1/Directions 1",)
    assert done.counts == (SubjectCount("S1", 1, 2, 56, 56),)
    instants = done.capture.instants("train")
    assert (instants.frame.tolist(), instants.views) == (list(EVERY), CAMERAS)
    np.testing.assert_allclose(instants.pose, walk()[EVERY][:, HUMAN36M_32], atol=0.01)
    assert_the_person_is_in_the_crops(tmp_path / "capture", 1, off=1.5)


@pytest.mark.parametrize("write", ["fetch", "json"])
def test_the_shift_of_s9_is_undone_in_copies_too_and_tests_are_thinned_out(write: str, tmp_path: Path) -> None:
    if write == "fetch":
        write_fetch(tmp_path / "set", 9, "Greeting-2", shift=200)
    else:
        write_json(tmp_path / "set", 9, (3, 2), shift=200)
    done = imported(tmp_path / "set", tmp_path / "capture", Human36M(size=32, subjects=("S9",), test_every=10))
    assert done.notes == ("S9/Greeting: poses and boxes moved back by 200 mm in world X",)
    assert done.capture.instants().frame.tolist() == list(range(0, 70, 10))
    np.testing.assert_allclose(done.capture.instants().pose, walk()[::10, HUMAN36M_32], atol=0.01)
    assert_the_person_is_in_the_crops(tmp_path / "capture", 9, off=2.0)


def test_missing_and_damaged_images_are_named(tmp_path: Path) -> None:
    folder = write_fetch(tmp_path / "set") / "imageSequence" / CAMERAS[0]
    (folder / "img_000006.jpg").unlink()
    done = imported(tmp_path / "set", tmp_path / "one")
    assert done.notes == (
        f"{folder / 'img_000006.jpg'}: no such file; 1 images of the sequence are missing and left out",
    )
    assert len(done.capture) == 55
    (folder / "img_000011.jpg").write_bytes(b"")
    with pytest.raises(SourceError, match=r"img_000011\.jpg: the file is empty"):
        imported(tmp_path / "set", tmp_path / "two")
    shutil.rmtree(folder)
    with pytest.raises(SourceError, match=r"img_000001\.jpg: no such file, nor are 5 other images that the annotation"):
        imported(tmp_path / "set", tmp_path / "three")


def test_a_faulty_annot_h5_is_named_and_other_takes_are_imported(tmp_path: Path) -> None:
    write_fetch(tmp_path / "set")
    bad = write_fetch(tmp_path / "set", name="Greeting-2") / "annot.h5"
    odd = tmp_path / "set" / "processed" / "S1" / "Flying-1"
    odd.mkdir()
    shutil.copy(bad, odd)
    for data in (b"", bad.read_bytes()[:1000]):
        bad.write_bytes(data)
        done = imported(tmp_path / "set", tmp_path / "capture")
        assert len(done.capture) == 56
        flying, greeting = done.problems
        assert flying.endswith("Flying-1: expected a sequence of S1 in metadata.xml, such as Phoning-1, got none")
        assert greeting.startswith(f"{bad}: expected h36m-fetch's annot.h5 with camera, frame, pose/2d and pose/3d")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data", None, "no such file; copy the annotations of this subject"),
        ("camera", '{"1": ', "expected JSON, got something else or half of it"),
        (
            "camera",
            '{"1": {"R": [[1, 0, 0], [0, 1, 0], [0, 0, 1]], "t": [0, 0, 0]}}',
            "camera 1 of the JSON is not camera",
        ),
        ("camera", '{"1": {}}', "expected images and annotations, cameras with R, t"),
        ("data", "[]", "expected images and annotations"),
        ("joint_3d", '{"2": {}}', r"action 2, sub-action 1: no 17 joints for '1'"),
        ("joint_3d", '{"2": {"1": {"0": [[1, 2, 3]]}}}', "action 2, sub-action 1: no 17 joints"),
    ],
)
def test_faulty_json_is_named(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    path = write_json(tmp_path / "set") / f"Human36M_subject1_{name}.json"
    if content is None:
        shutil.copy(path, path.with_name("Human36M_subject5_data.json"))
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(SourceError, match=message):
        imported(tmp_path / "set", tmp_path / "capture")


def test_names_that_leave_the_folder_are_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "set") / "Human36M_subject1_data.json"
    for name in ("../../secret.jpg", "/etc/passwd"):
        data = json.loads(path.read_text())
        data["images"][0]["file_name"] = name
        path.write_text(json.dumps(data))
        with pytest.raises(SourceError, match=r"the name '.*' leads out of the folder of images"):
            imported(tmp_path / "set", tmp_path / "capture")


def test_poses_in_metres_are_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "set") / "Human36M_subject1_joint_3d.json"
    joints = json.loads(path.read_text())
    own = joints["2"]["1"]
    joints["2"]["1"] = {key: (np.array(pose) / 1000).tolist() for key, pose in own.items()}
    path.write_text(json.dumps(joints))
    with pytest.raises(SourceError, match=r"S1, Directions 1\): expected a person between"):
        imported(tmp_path / "set", tmp_path / "capture")
