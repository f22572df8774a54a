import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from filming import write_video
from mpi_inf_3dhp_writing import SIZE, camera_of, drawn, seen_by
from pose_writing import walk, y_up

from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.formats.keypoint_layouts import COCO
from mcss.errors import SourceError
from mcss.images import decode_jpeg
from mcss.skeletons import JOINTS
from mcss.sources.aist.annotations import read_cameras, read_joints, read_mapping, read_names, seventeen
from mcss.sources.aist.faults import full_size_cameras, synchronised_cameras, without_ignored
from mcss.sources.aist.sequences import Aist

COUNT = 48
FAST = Aist(every=6, size=48, cameras=("c01", "c02", "c09"))
TRAIN, TEST, IGNORED = (
    "gBR_sBM_cAll_d04_mBR0_ch01",
    "gPO_sFM_cAll_d12_mPO1_ch07",
    "gBR_sBM_cAll_d04_mBR0_ch08",
)
OURS = {"ankle": "Foot"}


def coco(poses: np.ndarray) -> np.ndarray:
    """Convert mcss's 17 joints in mm to the data set's, in cm with +Y up, with eyes and ears near the nose."""
    places = []
    for name in COCO:
        side, _, part = name.partition("_")
        if not part or part in ("eye", "ear"):
            places.append(poses[:, JOINTS.index("Neck")])
        else:
            places.append(poses[:, JOINTS.index(side[0].upper() + OURS.get(part, part.capitalize()))])
    return y_up(np.stack(places, axis=1)) / 10


def write_cameras(path: Path, names: tuple[str, ...] = tuple(f"c{k:02d}" for k in range(1, 10))) -> None:
    """Write a camera setting as in the release: rotation as a Rodrigues vector, centimetres, five coefficients."""
    entries = []
    for number, name in enumerate(names):
        rotation, translation, intrinsics = camera_of(number)
        entries.append(
            {
                "name": name,
                "size": [SIZE, SIZE],
                "matrix": intrinsics.tolist(),
                "distortions": [0.0] * 5,
                "rotation": cv2.Rodrigues(rotation)[0].ravel().tolist(),
                "translation": (translation / 10).tolist(),
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries))


def write_joints(path: Path, joints: np.ndarray, protocol: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"keypoints3d": joints + np.float64(0.5), "keypoints3d_optim": joints}
    path.write_bytes(pickle.dumps(table, protocol=protocol))


def write_dance(root: Path, name: str, cameras: tuple[str, ...], rate: float = 60.0, images: int = COUNT) -> None:
    write_joints(root / "keypoints3d" / f"{name}.pkl", coco(walk(COUNT, 60)), protocol=5)
    for camera in cameras:
        pixels = seen_by(int(camera[1:]) - 1, y_up(walk(images, rate)))[1]
        write_video(root / "videos" / f"{name.replace('cAll', camera)}.mp4", map(drawn, pixels), rate)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sequences with three views, one of them at another frame rate, and an ignored sequence without files."""
    root = tmp_path_factory.mktemp("aist")
    write_dance(root, TRAIN, ("c01", "c02", "c09"))
    write_dance(root, TEST, ("c01", "c02", "c09"), rate=50.0, images=40)
    write_cameras(root / "cameras" / "setting1.json")
    (root / "cameras" / "mapping.txt").write_text("".join(f"{name} setting1\n" for name in (TRAIN, TEST, IGNORED)))
    (root / "ignore_list.txt").write_text(f"{IGNORED}\n")
    (root / "splits").mkdir()
    for kind in ("pose", "crossmodal"):
        for split, names in (("train", [TRAIN]), ("val", []), ("test", [TEST])):
            (root / "splits" / f"{kind}_{split}.txt").write_text("\n".join(names))
    return root


@pytest.fixture
def own(release: Path, tmp_path: Path) -> Path:
    """A copy with only the first sequence, which a test may damage."""
    root = Path(shutil.copytree(release, tmp_path / "own"))
    (root / "cameras" / "mapping.txt").write_text(f"{TRAIN} setting1\n")
    return root


def rows_of(capture: Path) -> list[dict[str, object]]:
    import lance

    rows: list[dict[str, object]] = lance.dataset(str(capture / "frames.lance")).to_table().to_pylist()
    return rows


def test_the_release_becomes_a_capture_with_its_own_splits(release: Path, tmp_path: Path) -> None:
    done = FAST.import_to(tmp_path / "capture", release, workers=1)
    assert set(done.imported) == {f"d04/{TRAIN}", f"d12/{TEST}"}
    assert done.problems == ()
    assert [(c.subject, c.sequences, c.expected_sequences, c.images) for c in done.counts] == [
        ("d04", 1, 1, 24),
        ("d12", 1, 1, 24),
    ]
    assert any("mapping.txt: 3 sequences; the release has 1408" in note for note in done.notes)
    assert any("pose_val.txt: 0 sequences; the release states 70" in note for note in done.notes)
    train, test = done.capture.instants("train"), done.capture.instants("test")
    np.testing.assert_allclose(train.time, np.arange(0, COUNT, 6) / 60)
    assert len(test.time) == 8
    limbs = [k for k, name in enumerate(JOINTS) if name[0] in "LR"]
    np.testing.assert_allclose(train.pose[:, limbs], walk(COUNT, 60)[::6][:, limbs], atol=0.1)
    row = next(row for row in rows_of(tmp_path / "capture") if row["subject"] == "d04")
    assert row["action"] == "Break"


def test_every_crop_shows_its_instant_whatever_the_rate_of_the_video(release: Path, tmp_path: Path) -> None:
    FAST.import_to(tmp_path / "capture", release, workers=1)
    for row in rows_of(tmp_path / "capture"):
        pose = walk(COUNT, 60)[row["frame"]].astype(float)
        rotation = np.array(row["camera_rotation"]).reshape(3, 3)
        seen = pose @ rotation.T + row["camera_translation"]
        pixels = seen @ np.array(row["camera_intrinsics"]).reshape(3, 3).T
        shown = seen_by(int(str(row["view"])[1:]) - 1, y_up(pose[None]))[1][0]
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], shown, atol=0.05)
        x0, y0, x1, y1 = map(int, row["box"])
        assert ((shown >= (x0, y0)) & (shown <= (x1, y1))).all()
        inside = np.zeros((SIZE, SIZE), np.uint8)
        for joint, parent in ((2, 1), (5, 4), (13, 12), (16, 15)):  # thin lines along the limbs that move fastest
            cv2.line(inside, *(tuple(map(int, shown[k].round())) for k in (joint, parent)), 1, 1)
        crop = decode_jpeg(row["image"])
        part = cv2.resize(inside[y0:y1, x0:x1], (48, 48), interpolation=cv2.INTER_AREA) > 0
        red = crop[..., 0].astype(int) > crop[..., 1].astype(int)
        assert red[part].mean() > 0.8, (row["sequence"], row["frame"], row["view"])


def test_joints_that_coco_lacks_are_made_of_those_it_has() -> None:
    points = np.random.default_rng(0).normal(size=(1, 17, 3))
    place = dict(zip(COCO, points[0], strict=True))
    made = dict(zip(JOINTS, seventeen(points)[0], strict=True))
    hips = (place["left_hip"] + place["right_hip"]) / 2
    shoulders = (place["left_shoulder"] + place["right_shoulder"]) / 2
    ears = (place["left_ear"] + place["right_ear"]) / 2
    np.testing.assert_allclose(made["Hip"], hips)
    np.testing.assert_allclose(made["Thorax"], shoulders)
    np.testing.assert_allclose(made["Spine"], (hips + shoulders) / 2)
    np.testing.assert_allclose(made["Neck"], place["nose"])
    np.testing.assert_allclose(made["Head"], ears + 0.54 * (ears - shoulders))
    np.testing.assert_allclose(made["LFoot"], place["left_ankle"])
    np.testing.assert_allclose(made["RWrist"], place["right_wrist"])


def test_the_command_imports_chosen_sequences_and_views(release: Path, tmp_path: Path) -> None:
    words = ["--size", "48", "--every", "12", "--cameras", "c01", "c09", "--sequences", "gPO_*", "--processes", "1"]
    main(["import", "aist", str(release), str(tmp_path / "capture"), *words, "--splits", "crossmodal"])
    capture = Capture.open(tmp_path / "capture")
    assert capture.views == ("c01", "c09")
    assert len(capture) == 8
    assert len(capture.instants("test").time) == 4


def test_each_known_fault_is_left_out_unless_it_is_switched_off(own: Path, tmp_path: Path) -> None:
    assert without_ignored((TRAIN, IGNORED), [f"{IGNORED}.pkl"]) == (TRAIN,)
    assert synchronised_cameras(TRAIN, ("c04", "c05")) == ("c04",)
    assert synchronised_cameras(TEST, ("c04", "c05")) == ("c04", "c05")
    assert full_size_cameras("gJB_sBM_cAll_d07_mJB3_ch05", ("c06", "c07")) == ("c06",)
    pixels = seen_by(4, y_up(walk(COUNT, 60)))[1]
    write_video(own / "videos" / f"{TRAIN.replace('cAll', 'c05')}.mp4", map(drawn, pixels), 60.0)
    cameras = ("c01", "c05")
    done = Aist(size=48, cameras=cameras).import_to(tmp_path / "a", own, workers=1)
    assert done.capture.views == ("c01",)
    settings = Aist(size=48, cameras=cameras, leave_out_of_step=False)
    assert settings.import_to(tmp_path / "b", own, workers=1).capture.views == cameras
    (own / "ignore_list.txt").write_text(TRAIN)
    with pytest.raises(SourceError, match=r"videos: expected videos such as gBR_sBM_c01_d04_mBR0_ch01\.mp4"):
        FAST.import_to(tmp_path / "c", own, workers=1)
    settings = Aist(size=48, cameras=("c01",), leave_out_ignored=False)
    assert settings.import_to(tmp_path / "c", own, workers=1).imported == (f"d04/{TRAIN}",)


def refused(own: Path, tmp_path: Path, message: str, settings: Aist = FAST) -> None:
    with pytest.raises(SourceError, match=message):
        settings.import_to(tmp_path / "capture", own, workers=1)
    with pytest.raises(ValueError, match=r"unfinished|no capture"):
        Capture.open(tmp_path / "capture")


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        (f"keypoints3d/{TRAIN}.pkl", r"keypoints3d\.zip\) again"),
        ("cameras/setting1.json", r"unpack the (cameras|annotations).*again"),
        (f"videos/{TRAIN.replace('cAll', 'c02')}.mp4", "leave (c02|the camera) out"),
    ],
)
def test_a_missing_empty_cut_or_foreign_file_is_named_with_the_way_out(
    own: Path, tmp_path: Path, name: str, way_out: str
) -> None:
    path = own / name
    whole = path.read_bytes()
    pattern = Path(name).name.replace(".", r"\.") + f".*{way_out}"
    for content in (b"", np.random.default_rng(0).bytes(3000), whole[: len(whole) // 3]):
        path.write_bytes(content)
        refused(own, tmp_path, pattern)
    path.unlink()
    refused(own, tmp_path, pattern)
    path.write_bytes(whole)  # the way out
    assert FAST.import_to(tmp_path / "capture", own, workers=1).imported == (f"d04/{TRAIN}",)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        import os

        return os.mkdir, ("evil",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_nothing_in_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"keypoints3d_optim": Evil()}, protocol=protocol))
    with pytest.raises(SourceError, match=r"evil\.pkl.*it asks for (posix|nt)\.mkdir, which is not an array"):
        read_joints(path, smooth=True)
    assert not Path("evil").exists()


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_read_from_pickles_of_any_version_of_numpy(tmp_path: Path, protocol: int) -> None:
    joints = coco(walk(5, 60))
    write_joints(tmp_path / "new.pkl", joints, protocol)
    np.testing.assert_array_equal(read_joints(tmp_path / "new.pkl", smooth=True), joints)
    np.testing.assert_array_equal(read_joints(tmp_path / "new.pkl", smooth=False), joints + 0.5)
    if protocol == 3:  # names are stored without a length
        data = (tmp_path / "new.pkl").read_bytes().replace(b"cnumpy._core.", b"cnumpy.core.")
        (tmp_path / "old.pkl").write_bytes(data)
        np.testing.assert_array_equal(read_joints(tmp_path / "old.pkl", smooth=True), joints)


def test_other_shapes_units_axes_and_settings_are_refused(own: Path, tmp_path: Path) -> None:
    path = own / "keypoints3d" / f"{TRAIN}.pkl"
    joints = coco(walk(COUNT, 60))
    for wrong, message in (
        (joints[:, :16], r"expected keypoints3d_optim with N × 17 × 3 numbers, got 48 × 16 × 3"),
        (joints[:0], r"got 0 × 17 × 3"),
        (joints * np.nan, "none of its 48 poses is complete"),
        (joints * 10, r"expected a person between 0\.5 and 2\.5 m tall, got .* m if the unit is cm"),
        (joints * [1, -1, 1], "with y up the person is upside down"),
        (joints + np.array([0, 0, 5000.0]), "camera c.. sees the pelvis of .* in only 0% of the frames"),
    ):
        write_joints(path, wrong)
        refused(own, tmp_path, message)
    path.write_bytes(pickle.dumps({"keypoints3d_optim": joints.tolist()}))
    refused(own, tmp_path, "expected an array of numbers, got a list")
    path.write_bytes(pickle.dumps({"smpl_poses": joints}))
    refused(own, tmp_path, "expected a pickle of the array keypoints3d_optim.*KeyError")
    write_joints(path, joints)
    write_cameras(own / "cameras" / "setting1.json", ("c01", "c02"))
    refused(own, tmp_path, "setting1.json: camera c09 is missing; the file has c01, c02")


def test_incomplete_poses_give_images_without_a_label(own: Path, tmp_path: Path) -> None:
    joints = coco(walk(COUNT, 60))
    joints[:12, 9] = np.nan
    write_joints(own / "keypoints3d" / f"{TRAIN}.pkl", joints)
    done = FAST.import_to(tmp_path / "capture", own, workers=1)
    assert any("2 of 8 poses lack joints; the images of these frames have no label" in note for note in done.notes)
    assert np.isfinite(done.capture.instants().pose).all(axis=(1, 2)).tolist() == [False] * 2 + [True] * 6


def test_a_video_that_ends_early_or_has_another_size_is_reported(own: Path, tmp_path: Path) -> None:
    path = own / "videos" / f"{TRAIN.replace('cAll', 'c02')}.mp4"
    pixels = seen_by(1, y_up(walk(COUNT, 60)))[1]
    write_video(path, map(drawn, pixels[:20]), 60.0)
    refused(
        own,
        tmp_path,
        r"c02_d04_mBR0_ch01\.mp4: expected 43 images, as the annotation has, got 20; the file is damaged or was cut",
    )
    write_video(path, map(drawn, pixels[:41]), 60.0)
    done = FAST.import_to(tmp_path / "capture", own, workers=1)
    assert any("it has 41 images, the annotation 43; the frames at the end are left out" in note for note in done.notes)
    write_video(path, (cv2.resize(drawn(p), (64, 48)) for p in pixels), 60.0)
    refused(own, tmp_path / "again", r"expected 128×128 pixels, as the calibration of c02 states, got 64×48")


def test_faulty_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for text in ("../../etc\n", "/etc/passwd\n", "gBR_sBM_cAll_d04_mBR0_ch01/../x\n"):
        path.write_text(text)
        with pytest.raises(SourceError, match=r"list\.txt line 1: expected the name of a sequence"):
            read_names(path)
    for text in (f"{TRAIN}\n", f"{TRAIN} ../../etc\n", "../etc setting1\n"):
        path.write_text(text)
        with pytest.raises(SourceError, match=r"list\.txt line 1: expected a sequence and its setting"):
            read_mapping(path)
    path.write_text("")
    with pytest.raises(SourceError, match="expected lines of a sequence and its setting, got none"):
        read_mapping(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"list\.txt: it cannot be read as text"):
        read_names(path)
    path.write_text(json.dumps([{"name": "c01", "size": [1, 1], "matrix": [1, 2]}]))
    with pytest.raises(SourceError, match=r"list\.txt: expected a JSON list of cameras with name, size, matrix"):
        read_cameras(path)


def test_a_folder_without_the_release_and_impossible_settings_are_refused(release: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"mapping\.txt: no such file; expected the folder into which"):
        Aist().import_to(tmp_path / "capture", tmp_path)
    with pytest.raises(SourceError, match=r"there is no dancer d99 .*it has d04, d12"):
        Aist(subjects=("d99",)).import_to(tmp_path / "capture", release)
    with pytest.raises(SourceError, match=r"gBR_sBM_c\.\._d04_mBR0_ch01\.mp4: no video of the cameras c03"):
        Aist(cameras=("c03",), sequences=(TRAIN,)).import_to(tmp_path / "capture", release)
    assert not (tmp_path / "capture").exists()
    with pytest.raises(ValueError, match="cameras: expected some of c01"):
        Aist(cameras=("left",))
    with pytest.raises(ValueError, match="every ≥ 1"):
        Aist(every=0)
