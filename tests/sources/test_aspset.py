import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from filming import write_video
from mpi_inf_3dhp_writing import SIZE, drawn
from pose_writing import walk, write_c3d

from captures_for_tests import stick_camera
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.errors import SourceError
from mcss.images import decode_jpeg
from mcss.progress import NO_PROGRESS
from mcss.skeletons import JOINTS
from mcss.sources.aspset import CAMERAS, Aspset, read_splits

COUNT = 20
FAST = Aspset(every=2, size=48)
ORDER = (
    *("right_ankle", "right_knee", "right_hip", "right_wrist", "right_elbow", "right_shoulder"),
    *("left_ankle", "left_knee", "left_hip", "left_wrist", "left_elbow", "left_shoulder"),
    *("head_top", "head", "neck", "spine", "pelvis"),
)
"""The points of the data set's C3D files, in order."""
MIDLINE = {"pelvis": "Hip", "spine": "Spine", "neck": "Thorax", "head": "Neck", "head_top": "Head"}
INTRINSICS = np.array([[SIZE * 1.3, 0, SIZE / 2], [0, SIZE * 1.3, SIZE / 2], [0, 0, 1]])
FROM_MINUS_Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])


def ours(name: str) -> int:
    side, _, part = name.partition("_")
    return JOINTS.index(MIDLINE.get(name) or side[0].upper() + part.capitalize().replace("Ankle", "Foot"))


def pixels_of(view: int, poses: np.ndarray) -> np.ndarray:
    camera = stick_camera(view)
    seen = (poses @ camera.rotation.T + camera.translation) @ INTRINSICS.T
    return seen[..., :2] / seen[..., 2:]


def write_clip(folder: Path, subject: str, clip: str, views: tuple[str, ...] = ("left", "mid", "right")) -> None:
    """Write one clip in the data set's formats; `folder` is trainval or test."""
    poses = walk(COUNT, 50)
    world = poses[..., [0, 2, 1]] * [1, -1, 1]  # −Y up
    points = world[:, [ours(name) for name in ORDER]]
    write_c3d(folder / "joints_3d" / subject / f"{subject}-{clip}.c3d", ORDER, points, 50)
    for view, name in enumerate(views):
        extrinsic, intrinsic = np.eye(4), np.zeros((3, 4))
        extrinsic[:3, :3] = stick_camera(view).rotation @ FROM_MINUS_Y_UP
        extrinsic[:3, 3], intrinsic[:, :3] = stick_camera(view).translation, INTRINSICS
        pixels = pixels_of(view, poses)
        boxes = np.concatenate([pixels.min(axis=1) - 4, pixels.max(axis=1) + 4], axis=1)
        for kind in ("cameras", "boxes"):
            (folder / kind / subject).mkdir(parents=True, exist_ok=True)
        (folder / "cameras" / subject / f"{subject}-{name}.json").write_text(
            json.dumps({"intrinsic_matrix": intrinsic.ravel().tolist(), "extrinsic_matrix": extrinsic.ravel().tolist()})
        )
        lines = ["x1,y1,x2,y2", *(",".join(f"{v:.3f}" for v in box) for box in boxes)]
        (folder / "boxes" / subject / f"{subject}-{clip}-{name}.csv").write_text("\r\n".join(lines) + "\r\n")
        write_video(folder / "videos" / subject / f"{subject}-{clip}-{name}.mkv", map(drawn, pixels), 50.0)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training clip with three views; a test clip with one view and, as first released, no joints."""
    root = tmp_path_factory.mktemp("aspset") / "ASPset-510"
    write_clip(root / "trainval", "04ac", "0026")
    write_clip(root / "test", "1e28", "0001", ("mid",))
    (root / "test" / "joints_3d" / "1e28" / "1e28-0001.c3d").unlink()
    (root / "splits.csv").write_text("subject_id,clip_id,split\n04ac,0026,train\n1e28,0001,test\n77ff,0003,val\n")
    return root


@pytest.fixture
def own(release: Path, tmp_path: Path) -> Path:
    """A copy without the test clip, which a test may damage."""
    root = Path(shutil.copytree(release, tmp_path / "own"))
    shutil.rmtree(root / "test")
    return root


def rows_of(capture: Path) -> list[dict[str, object]]:
    import lance

    rows: list[dict[str, object]] = lance.dataset(str(capture / "frames.lance")).to_table().to_pylist()
    return rows


def test_the_release_becomes_a_capture_with_its_own_splits(release: Path, tmp_path: Path) -> None:
    done = FAST.import_to(tmp_path / "capture", release.parent, workers=1)
    assert set(done.imported) == {"04ac/0026", "1e28/0001"}
    assert done.problems == ()
    assert any("1e28-0001.c3d: no such file; the clip has no labels" in note for note in done.notes)
    train, test = done.capture.instants("train"), done.capture.instants("test")
    np.testing.assert_allclose(train.pose, walk(COUNT, 50)[::2], atol=0.1)
    np.testing.assert_allclose(train.time, np.arange(0, COUNT, 2) / 50)
    assert (train.rows >= 0).sum() == 30
    assert np.isnan(test.pose).all()
    assert (test.rows >= 0).sum() == 10
    for row in rows_of(tmp_path / "capture"):
        if row["subject"] != "04ac":
            continue
        rotation = np.array(row["camera_rotation"]).reshape(3, 3)
        seen = np.array(row["pose"]).reshape(17, 3) @ rotation.T + row["camera_translation"]
        pixels = seen @ np.array(row["camera_intrinsics"]).reshape(3, 3).T
        shown = pixels_of(("left", "mid", "right").index(str(row["view"])), walk(COUNT, 50))[row["frame"]]
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], shown, atol=0.05)
        x0, y0, x1, y1 = row["box"]
        assert ((shown >= (x0, y0)) & (shown <= (x1, y1))).all()
        crop = drawn(shown)[int(y0) : int(y1), int(x0) : int(x1)]
        crop = cv2.resize(crop, (48, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(decode_jpeg(row["image"]).astype(float) - crop).mean() < 14


def test_the_command_imports_chosen_subjects_and_views(release: Path, tmp_path: Path) -> None:
    out = tmp_path / "capture"
    words = ["--size", "48", "--every", "5", "--cameras", "left", "right", "--subjects", "04ac", "--processes", "1"]
    main(["import", "aspset", str(release), str(out), *words])
    capture = Capture.open(out)
    assert capture.views == ("left", "right")
    assert len(capture) == 8


def refused(own: Path, tmp_path: Path, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        FAST.import_to(tmp_path / "capture", own, workers=1)
    with pytest.raises(ValueError, match=r"unfinished|no capture"):
        Capture.open(tmp_path / "capture")


@pytest.mark.parametrize(
    "name",
    [
        "joints_3d/04ac/04ac-0026.c3d",
        "cameras/04ac/04ac-mid.json",
        "boxes/04ac/04ac-0026-left.csv",
        "videos/04ac/04ac-0026-right.mkv",
    ],
)
def test_a_missing_empty_cut_or_foreign_file_is_named_with_the_way_out(own: Path, tmp_path: Path, name: str) -> None:
    path = own / "trainval" / name
    whole = path.read_bytes()
    pattern = Path(name).name.replace(".", r"\.") if "boxes" not in name else "04ac-0026"
    for content in (b"", np.random.default_rng(0).bytes(3000), whole[: len(whole) // 3]):
        path.write_bytes(content)
        refused(own, tmp_path, rf"{pattern}.*(again|remove it)")
    path.unlink()
    refused(own, tmp_path, pattern)
    path.write_bytes(whole)  # the way out
    assert FAST.import_to(tmp_path / "capture", own, workers=1).imported == ("04ac/0026",)


def test_other_units_axes_names_and_columns_are_refused(own: Path, tmp_path: Path) -> None:
    path = own / "trainval" / "joints_3d" / "04ac" / "04ac-0026.c3d"
    world = walk(COUNT, 50)[..., [0, 2, 1]] * [1, -1, 1]
    points = world[:, [ours(name) for name in ORDER]]
    write_c3d(path, ORDER, points / 1000, 50)
    refused(
        own, tmp_path, r"04ac-0026\.c3d: expected a person between 0\.5 and 2\.5 m tall, got .* m if the unit is mm"
    )
    write_c3d(path, ORDER, points[..., [0, 2, 1]], 50)
    refused(own, tmp_path, r"04ac-0026\.c3d: with -y up the person lies")
    write_c3d(path, [f"p{k}" for k in range(17)], points, 50)
    refused(own, tmp_path, r"04ac-0026\.c3d: there is no point 'pelvis'")
    write_c3d(path, ORDER, points, 50)
    boxes = own / "trainval" / "boxes" / "04ac" / "04ac-0026-mid.csv"
    rows = [list(map(float, line.split(","))) for line in boxes.read_text().splitlines()[1:]]
    boxes.write_text("x,y,w,h\n" + "\n".join(f"0,0,{x1 - x0},{(y1 - y0) / 4}" for x0, y0, x1, y1 in rows))
    refused(own, tmp_path, r"04ac-0026-mid\.csv: the person's pelvis is inside the box in only 0%")


def test_a_test_clip_has_the_camera_that_the_list_of_clips_states(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text("subject_id,clip_id,split,camera_id\n04ac,0026,train,all\n1e28,0001,test,mid\n77ff,0003,val\n")
    assert [clip.cameras for clip in read_splits(path)] == [CAMERAS, ("mid",), CAMERAS]
    write_clip(tmp_path / "test", "1e28", "0001", ("left", "mid"))
    contents = Aspset(size=48).list_contents(tmp_path, tmp_path / "out", NO_PROGRESS)
    assert [clip.cameras for clip in contents.sequences] == [("mid",)]  # type: ignore[attr-defined]
    path.write_text("1e28,0001,test,top\n")
    with pytest.raises(SourceError, match=r"splits\.csv line 1: expected the camera all, left, mid, right, got 'top'"):
        read_splits(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got none"),
        ("../../etc,0001,train\n", r"line 1: expected subject,clip,split of letters and digits.*got '\.\./\.\./etc"),
        ("04ac,/etc/passwd,train\n", "line 1: expected subject,clip,split of letters and digits"),
        ("04ac,0026\n", "line 1: expected subject,clip,split"),
        ("04ac,0026,dev\n", "the split train, val or test"),
    ],
)
def test_a_faulty_list_of_clips_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "splits.csv").write_text(text)
    with pytest.raises(SourceError, match=rf"splits\.csv.*{message}"):
        read_splits(tmp_path / "splits.csv")


def test_a_folder_without_the_release_and_impossible_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"splits\.csv: no such file; expected the folder of ASPset-510"):
        Aspset().import_to(tmp_path / "capture", tmp_path)
    (tmp_path / "splits.csv").write_text("04ac,0026,train\n")
    with pytest.raises(SourceError, match=r"expected trainval/videos and test/videos"):
        Aspset().import_to(tmp_path / "capture", tmp_path)
    assert not (tmp_path / "capture").exists()
    with pytest.raises(ValueError, match="cameras: expected some of left, mid, right"):
        Aspset(cameras=("top",))
    with pytest.raises(ValueError, match="every ≥ 1"):
        Aspset(every=0)
