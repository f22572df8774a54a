import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from filming import write_video
from mpi_inf_3dhp_writing import (
    PLACES,
    camera_of,
    drawn,
    performance,
    seen_by,
    tables,
    write_annot,
    write_calibration,
    write_take,
    write_test_take,
)
from pose_writing import y_up

from mcss.cli import main
from mcss.data.capture import Capture
from mcss.errors import SourceError
from mcss.images import decode_jpeg
from mcss.skeletons import JOINTS, MIRROR
from mcss.sources.mpi_inf_3dhp.annotations import JOINTS_28, TEST_JOINTS_17, seventeen
from mcss.sources.mpi_inf_3dhp.faults import annotated_frames, is_flash, may_end_early, with_sides_corrected
from mcss.sources.mpi_inf_3dhp.sequences import MpiInf3dhp

COUNT = 24
CAMERAS = (0, 7)
FAST = MpiInf3dhp(cameras=CAMERAS, every=2, size=48)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S1/Seq1 (annot.mat in v5) and S7/Seq1 (in v7.3) with two cameras, and TS1."""
    root = tmp_path_factory.mktemp("3dhp")
    write_take(root / "S1" / "Seq1", performance(COUNT), CAMERAS)
    write_take(root / "S7" / "Seq1", performance(COUNT), CAMERAS, version="v7.3")
    valid = np.arange(COUNT) % 3 > 0
    write_test_take(root / "mpi_inf_3dhp_test_set" / "TS1", performance(COUNT), valid)
    return root


@pytest.fixture
def own(release: Path, tmp_path: Path) -> Path:
    """A copy with only S1/Seq1, which a test may damage."""
    return Path(shutil.copytree(release / "S1", tmp_path / "3dhp" / "S1")).parent


def rows_of(capture: Path) -> list[dict[str, object]]:
    import lance

    rows: list[dict[str, object]] = lance.dataset(str(capture / "frames.lance")).to_table().to_pylist()
    return rows


def test_the_release_becomes_a_capture_with_joints_by_name_in_a_world_with_z_up(release: Path, tmp_path: Path) -> None:
    done = FAST.import_to(tmp_path / "capture", release, workers=1)
    assert set(done.imported) == {"S1/Seq1", "S7/Seq1", "TS1/test"}
    assert [problem.split(":")[0][-7:] for problem in done.problems] == ["S1/Seq2", "S7/Seq2"]
    capture = done.capture
    truth = performance(COUNT)[::2]
    for split in ("train", "test"):  # MAT v5 and v7.3
        instants = capture.instants(split)
        assert instants.frame.tolist() == list(range(0, COUNT, 2))
        np.testing.assert_allclose(instants.time, np.arange(0, COUNT, 2) / 25)
        np.testing.assert_allclose(instants.pose, truth, atol=0.05)
    counts = {count.subject: count for count in done.counts}
    assert (counts["S1"].sequences, counts["S1"].expected_sequences) == (1, 2)
    assert (counts["S1"].images, counts["S1"].expected_images) == (24, 2 * 3208)
    assert any("S1/Seq1/annot.mat: 24 frames are annotated, the release has 6416" in note for note in done.notes)
    table = [row for row in rows_of(tmp_path / "capture") if row["subject"] == "S1"]
    for row in table:  # the rotated calibration projects the pose to where the image shows it
        rotation = np.array(row["camera_rotation"]).reshape(3, 3)
        seen = np.array(row["pose"]).reshape(17, 3) @ rotation.T + row["camera_translation"]
        pixels = seen @ np.array(row["camera_intrinsics"]).reshape(3, 3).T
        pixels = pixels[:, :2] / pixels[:, 2:]
        np.testing.assert_allclose(
            pixels, seen_by(int(row["view"]), y_up(performance(COUNT)))[1][row["frame"]], atol=0.02
        )
        x0, y0, x1, y1 = row["box"]
        assert x1 - x0 == y1 - y0
        assert ((pixels >= (x0, y0)) & (pixels <= (x1, y1))).all()
        crop = decode_jpeg(row["image"]).astype(float)
        image = drawn(seen_by(int(row["view"]), y_up(performance(COUNT)))[1][row["frame"]])
        shown = cv2.resize(image[int(y0) : int(y1), int(x0) : int(x1)], (48, 48), interpolation=cv2.INTER_AREA)
        assert np.abs(crop - shown).mean() < 14  # the image of that frame, not of its neighbour


def test_the_test_set_gives_its_valid_frames_in_the_cameras_space_turned_upright(release: Path, tmp_path: Path) -> None:
    settings = MpiInf3dhp(subjects=("TS1",), size=48)
    capture = settings.import_to(tmp_path / "capture", release, workers=1).capture
    instants = capture.instants("ts")
    valid = np.flatnonzero(np.arange(COUNT) % 3 > 0)
    assert instants.frame.tolist() == valid.tolist()
    assert instants.actions == ("Sitting",)
    x, y, z = np.moveaxis(seen_by(0, y_up(performance(COUNT)))[0][valid], -1, 0)
    np.testing.assert_allclose(instants.pose, np.stack([x, z, -y], axis=-1), atol=0.05)


def test_the_universal_skeleton_stands_where_the_person_does(release: Path, tmp_path: Path) -> None:
    settings = MpiInf3dhp(cameras=CAMERAS, every=2, size=48, subjects=("S1",), universal=True)
    poses = settings.import_to(tmp_path / "capture", release, workers=1).capture.instants().pose
    truth = performance(COUNT)[::2]
    np.testing.assert_allclose(poses - poses[:, :1], 0.9 * (truth - truth[:, :1]), atol=0.05)
    np.testing.assert_allclose(poses[:, 0], truth[:, 0], atol=0.05)


def test_joints_are_taken_by_name() -> None:
    for names in (JOINTS_28, TEST_JOINTS_17):
        for joint, at in zip(JOINTS, seventeen(names), strict=True):
            side = {"L": "left_", "R": "right_"}.get(joint[0], "")
            expected = side + joint[1:].lower().replace("foot", "ankle") if side else None
            assert names[at] == (expected or next(name for name, own in PLACES.items() if own == joint))
    assert [JOINTS_28.index(name) for name in ("pelvis", "left_hip", "right_hip")] == [4, 18, 23]


def test_the_command_imports_and_continues(release: Path, tmp_path: Path) -> None:
    out, summary = tmp_path / "capture", tmp_path / "summary.json"
    words = ["import", "mpi-inf-3dhp", str(release), str(out), "--size", "48", "--every", "2", "--cameras", "0", "7"]
    words += ["--processes", "1", "--json", str(summary)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 1  # two sequences are missing
    first = json.loads(summary.read_text())
    assert (len(first["imported"]), len(first["kept"]), len(first["problems"])) == (3, 0, 2)
    with pytest.raises(SystemExit):
        main(words)
    second = json.loads(summary.read_text())
    assert (len(second["imported"]), len(second["kept"])) == (0, 3)
    assert second["fingerprint"] == first["fingerprint"] == Capture.open(out).fingerprint


# The known faults


def test_left_and_right_of_s4_seq2_are_exchanged_in_the_stated_frames_only() -> None:
    poses = performance(4)
    frames = np.array([3758, 3759, 5852, 5853])
    right = with_sides_corrected("S4", "Seq2", poses, frames)
    assert (right[[0, 3]] == poses[[0, 3]]).all()
    assert (right[[1, 2]] == poses[[1, 2]][:, list(MIRROR)]).all()
    assert (with_sides_corrected("S4", "Seq1", poses, frames) == poses).all()


def test_surplus_annotations_are_clipped_and_flashes_recognised() -> None:
    assert annotated_frames(12488, 12489) == 12488
    assert annotated_frames(12488, 100) == 100
    assert is_flash(np.full((8, 8, 3), 250, np.uint8))
    assert not is_flash(np.full((8, 8, 3), 200, np.uint8))
    assert may_end_early("S6", "Seq2", 2)
    assert not may_end_early("S6", "Seq2", 4)


def test_the_short_video_of_s6_ends_its_view_and_any_other_is_an_error(tmp_path: Path) -> None:
    poses = performance(COUNT)
    for subject in ("S6", "S5"):
        write_take(tmp_path / subject / "Seq2", poses, (2, 4), 25.0)
        path = tmp_path / subject / "Seq2" / "imageSequence" / "video_2.avi"
        write_video(path, map(drawn, seen_by(2, y_up(poses))[1][:10]))
    settings = MpiInf3dhp(cameras=(2, 4), every=1, size=48)
    done = settings.import_to(tmp_path / "capture", tmp_path, workers=1)
    assert done.imported == ("S6/Seq2",)
    assert any("video_2.avi: expected 24 images, as the annotation has, got 10" in problem for problem in done.problems)
    instants = done.capture.instants()
    assert (instants.rows >= 0).sum(axis=0).tolist() == [10, 24]
    strict = MpiInf3dhp(cameras=(2, 4), every=1, size=48, short_video=False)
    with pytest.raises(SourceError, match=r"S6/Seq2/imageSequence/video_2\.avi: expected 24 images"):
        strict.import_to(tmp_path / "strict", tmp_path, workers=1)


def test_a_white_flash_is_left_out_unless_it_is_wanted(own: Path, tmp_path: Path) -> None:
    shown = [drawn(joints) for joints in seen_by(0, y_up(performance(COUNT)))[1]]
    shown[8:10] = [np.full_like(shown[0], 253)] * 2
    write_video(own / "S1" / "Seq1" / "imageSequence" / "video_0.avi", shown)
    rows = FAST.import_to(tmp_path / "a", own, workers=1).capture.instants().rows
    assert np.argwhere(rows < 0).tolist() == [[4, 0]]
    settings = MpiInf3dhp(cameras=CAMERAS, every=2, size=48, drop_flashes=False)
    rows = settings.import_to(tmp_path / "b", own, workers=1).capture.instants().rows
    assert (rows >= 0).all()


# Bad input


def spoil_annot(path: Path, **change: object) -> None:
    found = tables(performance(COUNT))
    write_annot(path, {name: change.get(name, value) for name, value in found.items()})  # type: ignore[misc]


def refused(own: Path, tmp_path: Path, message: str, settings: MpiInf3dhp = FAST) -> None:
    with pytest.raises(SourceError, match=message):
        settings.import_to(tmp_path / "capture", own, workers=1)
    with pytest.raises(ValueError, match=r"unfinished|no capture"):
        Capture.open(tmp_path / "capture")


@pytest.mark.parametrize("name", ["annot.mat", "camera.calibration", "imageSequence/video_7.avi"])
def test_a_missing_empty_cut_or_foreign_file_is_named_and_nothing_of_the_take_is_kept(
    own: Path, tmp_path: Path, name: str
) -> None:
    path = own / "S1" / "Seq1" / name
    whole = path.read_bytes()
    pattern = rf"S1/Seq1/{name}".replace(".", r"\.")
    for content in (b"", np.random.default_rng(0).bytes(4000), whole[: len(whole) // 3]):
        path.write_bytes(content)
        refused(own, tmp_path, pattern)
    path.unlink()
    refused(own, tmp_path, rf"{pattern}: no such file; unpack this sequence")
    path.write_bytes(whole)  # the way out
    assert FAST.import_to(tmp_path / "capture", own, workers=1).imported == ("S1/Seq1",)


def test_annotations_of_another_shape_unit_or_axis_are_named(own: Path, tmp_path: Path) -> None:
    path = own / "S1" / "Seq1" / "annot.mat"
    found = tables(performance(COUNT))
    spoil_annot(path, annot3=found["annot3"][:5])
    refused(own, tmp_path, r"annot\.mat: expected annot3 to be a cell of 14 cameras, got 5 cells; unpack")
    spoil_annot(path, annot3=[table[:, :81] for table in found["annot3"]])
    refused(own, tmp_path, r"annot\.mat: expected annot3 of camera 0 to be T × 84 numbers, got 24 × 81")
    spoil_annot(path, annot2=[table[:-3] for table in found["annot2"]])
    refused(own, tmp_path, r"annot\.mat: expected the same number of frames of every camera, got 21, 24")
    spoil_annot(path, annot3=tables(performance(COUNT), scale=0.001)["annot3"])
    refused(own, tmp_path, r"annot\.mat: (cameras 0 and 7 disagree by \d+ mm|expected a person)")
    write_annot(path, {name: value for name, value in found.items() if name != "annot2"})
    refused(own, tmp_path, r"annot\.mat: expected the variables .*annot2 are missing")
    spoil_annot(path)
    settings = MpiInf3dhp(cameras=CAMERAS, size=48, up="z")
    refused(own, tmp_path / "other", r"annot\.mat: with z up the person lies: heads are on the side of y", settings)


def test_poses_that_are_not_finite_leave_their_images_without_a_label(own: Path, tmp_path: Path) -> None:
    found = tables(performance(COUNT))
    for table in found["annot3"]:
        table[6, 14] = np.nan  # the pelvis, z
    write_annot(own / "S1" / "Seq1" / "annot.mat", found)
    done = FAST.import_to(tmp_path / "capture", own, workers=1)
    assert np.flatnonzero(np.isnan(done.capture.instants().pose).any(axis=(1, 2))).tolist() == [3]
    assert any("1 of 12 poses lack joints" in note for note in done.notes)


def test_a_calibration_without_the_camera_or_of_other_cameras_is_named(own: Path, tmp_path: Path) -> None:
    path = own / "S1" / "Seq1" / "camera.calibration"
    write_calibration(path, (0, 1, 2))
    refused(own, tmp_path, r"camera\.calibration: camera 7 is missing; the file has 0, 1, 2")
    write_calibration(path)
    text = path.read_text()
    rotation = " ".join(f"{v:.8g}" for v in camera_of(7)[0][0])
    assert rotation.split()[0] in text
    path.write_text(text.replace(text.splitlines()[6], "  extrinsic   1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"))
    refused(own, tmp_path, r"annot\.mat: cameras 0 and 7 disagree by \d+ mm")
    path.write_text(text.replace(text.splitlines()[6], "  extrinsic   2 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1"))
    refused(own, tmp_path, r"camera\.calibration line 7: expected a rotation in camera 0's extrinsic")
    path.write_text(text.replace(text.splitlines()[5], "  intrinsic   1 2 x"))
    refused(own, tmp_path, r"camera\.calibration line 6: expected 16 numbers after intrinsic, got '1 2 x'")


def test_a_faulty_test_set_is_named(release: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(release / "mpi_inf_3dhp_test_set", tmp_path / "3dhp"))
    settings = MpiInf3dhp(subjects=("TS1",), size=48)
    (own / "TS1" / "imageSequence" / "img_000003.jpg").write_bytes(b"x")
    refused(own, tmp_path, r"img_000003\.jpg: not a readable image.*; unpack the test set again", settings)
    (own / "TS1" / "annot_data.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(600))
    refused(own, tmp_path, r"annot_data\.mat: expected a MAT file, got something that cannot be read", settings)


def test_a_folder_without_the_release_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, message in (
        ("empty", "the release of MPI-INF-3DHP .*got none"),
        ("nowhere", "the folder with S1.*no such"),
    ):
        with pytest.raises(SourceError, match=rf"{place}: expected {message}"):
            MpiInf3dhp().import_to(tmp_path / "capture", tmp_path / place)
    assert not (tmp_path / "capture").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"cameras": (0, 14)}, "cameras: expected some of 0 to 13"),
        ({"cameras": ()}, "cameras: expected some"),
        ({"every": 0}, "every ≥ 1"),
        ({"subjects": ("S9",)}, "subjects: expected some of S1, .*got S9"),
        ({"subjects": ("../S1",)}, r"subjects: expected some of .*got \.\./S1"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MpiInf3dhp(**setting)
