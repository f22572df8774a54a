import json
import os
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import lance
import numpy as np
import pytest
from filming import write_video
from human36m_files import (
    CAMERAS,
    FILES,
    LENGTH,
    SIZE,
    around,
    camera,
    seen,
    shots_of,
    walk,
    write_cdf,
    write_masks,
    write_metadata,
    write_take,
)

from mcss.cli import main
from mcss.data.schema import Selector
from mcss.errors import SourceError
from mcss.images import decode_jpeg
from mcss.skeletons import HUMAN36M_32
from mcss.sources.assembly import ImportResult, SubjectCount
from mcss.sources.held_out import train_and_validation
from mcss.sources.human36m import faults
from mcss.sources.human36m.annotations import mask_boxes, read_poses, read_videopose3d
from mcss.sources.human36m.metadata import ListedSequence, read_metadata
from mcss.sources.human36m.release import Human36M, find_released, unusual_counts
from mcss.sources.human36m.sequences import Human36MSequence, squares_around

ONE = {(1, 1): "_ALL 1", (2, 1): "Directions 1"}
"""A release with a single sequence for each subject."""

S1 = Human36M(size=32, subjects=("S1",), leave_out_damaged_views=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S1 and S9 with one sequence each and all four cameras."""
    root = tmp_path_factory.mktemp("human36m")
    write_metadata(root / "metadata.xml", ONE)
    for subject in ("S1", "S9"):
        write_take(root, subject, "Directions 1")
    return root


@pytest.fixture
def own(whole: Path, tmp_path: Path) -> Path:
    """A copy of S1 that a test may damage."""
    shutil.copytree(whole / "S1", tmp_path / "set" / "S1")
    shutil.copy(whole / "metadata.xml", tmp_path / "set")
    return tmp_path / "set"


def rows_of(capture: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = lance.dataset(str(capture / "frames.lance")).to_table().to_pylist()
    return rows


def imported(root: Path, out: Path, settings: Human36M = S1) -> ImportResult:
    return settings.import_to(out, root, workers=1)


def video(root: Path, name: str = CAMERAS[0], file: str = "Directions 1", subject: str = "S1") -> Path:
    return root / subject / "Videos" / f"{file}.{name}.mp4"


def cdf(root: Path, file: str = "Directions 1", subject: str = "S1") -> Path:
    return root / subject / "MyPoseFeatures" / "D3_Positions" / f"{file}.cdf"


def masks(root: Path, name: str = CAMERAS[0]) -> Path:
    return root / "S1" / "MySegmentsMat" / "ground_truth_bb" / f"Directions 1.{name}.mat"


def problem(root: Path, tmp_path: Path, settings: Human36M = S1) -> str:
    """Return why the only sequence could not be imported."""
    with pytest.raises(SourceError) as raised:
        imported(root, tmp_path / "capture", settings)
    first, last = str(raised.value).splitlines()
    assert last.startswith("nothing could be imported into")
    return first


# The release


def test_the_release_becomes_a_capture_with_poses_cameras_and_crops_of_the_person(whole: Path, tmp_path: Path) -> None:
    done = imported(whole, tmp_path / "capture", Human36M(size=32, subjects=("S1", "S9")))
    assert (done.problems, done.notes) == ((), ())
    assert done.counts == (SubjectCount("S1", 1, 1, 4 * 14, 4 * 14), SubjectCount("S9", 1, 1, 4 * 2, 4 * 2))
    instants = done.capture.instants("train")
    assert (instants.present_subjects(), instants.actions, instants.views) == (("S1",), ("Directions",), CAMERAS)
    assert instants.frame.tolist() == list(range(0, LENGTH, 5))
    np.testing.assert_allclose(instants.time, instants.frame / 50)
    np.testing.assert_allclose(instants.pose, walk()[::5, HUMAN36M_32], atol=0.01)
    assert (instants.rows >= 0).all()
    assert done.capture.instants("test").frame.tolist() == [0, 64]
    for row in rows_of(tmp_path / "capture"):
        number, subject = CAMERAS.index(str(row["view"])), int(str(row["subject"])[1:])
        c = camera(number, subject)
        np.testing.assert_allclose(np.reshape(row["camera_rotation"], (3, 3)), c["rotation"], atol=1e-6)
        np.testing.assert_allclose(row["camera_translation"], -c["rotation"] @ c["eye"], atol=0.01)
        fx, fy, cx, cy = c["inner"][:4]
        np.testing.assert_allclose(row["camera_intrinsics"], [fx, 0, cx, 0, fy, cy, 0, 0, 1])
        x0, y0, x1, y1 = row["box"]
        truth = around(number, subject, walk()[[row["frame"]]])[0]
        assert x1 - x0 == y1 - y0 == max(truth[2] - truth[0], truth[3] - truth[1])
        np.testing.assert_allclose([x0 + x1, y0 + y1], [truth[0] + truth[2], truth[1] + truth[3]], atol=1.01)
        crop = decode_jpeg(row["image"]).astype(int)
        at = (seen(number, subject, walk()[[row["frame"]], 0])[0] - (x0, y0)) * 32 / (x1 - x0)
        column, line = at.astype(int)
        assert crop[line, column].min() > 200  # the disc at the pelvis of that instant


def test_boxes_from_joints_hold_the_person(whole: Path, tmp_path: Path) -> None:
    settings = Human36M(size=32, subjects=("S9",), boxes="joints", cameras=CAMERAS[1:3])
    done = imported(whole, tmp_path / "capture", settings)
    assert done.capture.views == CAMERAS[1:3]
    for row in rows_of(tmp_path / "capture"):
        truth = around(CAMERAS.index(str(row["view"])), 9, walk()[[row["frame"]]])[0]
        x0, y0, x1, y1 = row["box"]
        assert x0 < truth[0]
        assert y0 < truth[1]
        assert x1 > truth[2]
        assert y1 > truth[3]
        assert x1 - x0 == pytest.approx(1.2 * max(truth[2:] - truth[:2]), abs=3)


def test_a_second_call_keeps_what_is_there_and_other_settings_are_refused(whole: Path, tmp_path: Path) -> None:
    settings = Human36M(size=32, subjects=("S9",))
    first = imported(whole, tmp_path / "capture", settings)
    second = imported(whole, tmp_path / "capture", settings)
    assert (second.kept, second.imported) == (("S9/Directions 1",), ())
    assert second.capture.fingerprint == first.capture.fingerprint
    with pytest.raises(ValueError, match=r"begun with other settings or files \(margin: 1.0 there, 1.5 here\)"):
        imported(whole, tmp_path / "capture", Human36M(size=32, subjects=("S9",), margin=1.5))


def test_subjects_may_come_one_after_the_other(whole: Path, tmp_path: Path) -> None:
    both = imported(whole, tmp_path / "both", Human36M(size=32, subjects=("S1", "S9")))
    imported(whole, tmp_path / "capture", Human36M(size=32, subjects=("S9",)))
    one_by_one = imported(whole, tmp_path / "capture")
    assert one_by_one.imported == ("S1/Directions 1",)
    assert one_by_one.capture.fingerprint == both.capture.fingerprint


# metadata.xml


def test_metadata_links_takes_to_files_and_actions_by_the_mapping_alone(tmp_path: Path) -> None:
    metadata = read_metadata(write_metadata(tmp_path / "metadata.xml"))
    assert len(metadata.sequences) == 4 * 11  # without _ALL
    assert {listed.file for listed in metadata.sequences if listed.subject == "S5"} == {
        "Directions 1",
        "Directions 2",
        "Greeting",
        "WalkDog 1",
    }
    assert ListedSequence("S1", "WalkingDog 1", "WalkingDog", (6, 1)) in metadata.sequences
    assert ListedSequence("S9", "WalkDog 1", "WalkingDog", (6, 1)) in metadata.sequences


def test_a_camera_sees_points_where_the_formulas_of_the_set_put_them(tmp_path: Path) -> None:
    cameras = read_metadata(write_metadata(tmp_path / "metadata.xml")).cameras
    points = walk()[::7].reshape(-1, 3)
    for number, distorted in enumerate(cameras["S11"]):
        assert distorted.name == CAMERAS[number]
        np.testing.assert_allclose(distorted.pixels(points), seen(number, 11, points), atol=1e-6)
    first = cameras["S11"][0]
    behind = np.array([[0.0, 0, 900], [np.nan, 0, 0], -first.rotation.T @ first.translation])
    assert np.isfinite(first.pixels(behind)).all(axis=1).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file; expected Human3.6M's metadata.xml: it comes with"),
        (b"", "expected XML, got something else or half of it"),
        (b"<a><mapping><tr>", "expected XML"),
        (b"\xff\xfe\x00no", "expected XML"),
        (b"<a/>", "the element <actionnames> is missing"),
        (b"<a><actionnames/><mapping/></a>", "the first row of <mapping> is not Action"),
    ],
)
def test_metadata_that_is_missing_or_something_else_is_named(tmp_path: Path, text: bytes | None, message: str) -> None:
    path = tmp_path / "metadata.xml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(SourceError, match=rf"metadata\.xml: .*{message}"):
        read_metadata(path)


def test_metadata_with_too_few_numbers_or_unsafe_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"<w0> has 299 numbers instead of 300 finite ones"):
        read_metadata(write_metadata(tmp_path / "short.xml", numbers=299))
    for name in ("../../etc/passwd", "/Directions", ".."):
        with pytest.raises(SourceError, match=r"in <mapping> is not the beginning of a file's name"):
            read_metadata(write_metadata(tmp_path / "unsafe.xml", {(2, 1): name}))
    with pytest.raises(SourceError, match=r"does not fit 13 columns and <actionnames>"):
        read_metadata(write_metadata(tmp_path / "action.xml", {(99, 1): "Flying"}))


def test_a_folder_that_is_not_there_or_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nowhere: expected the folder with S1, S5.*there is no such folder"):
        imported(tmp_path / "nowhere", tmp_path / "capture")
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="got a file"):
        imported(tmp_path / "file", tmp_path / "capture")


# One bad file does not end the import


def test_missing_subjects_and_takes_are_counted_and_the_rest_is_imported(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "S9", tmp_path / "set" / "S9")
    write_metadata(tmp_path / "set" / "metadata.xml")
    done = imported(tmp_path / "set", tmp_path / "capture", Human36M(size=32, subjects=("S1", "S9")))
    assert done.imported == ("S9/Directions 1",)
    assert done.counts == (SubjectCount("S1", 0, 4, 0, 0), SubjectCount("S9", 1, 4, 8, 8))
    assert done.problems[0].endswith("S1: no such folder; unpack the archives of S1 there, or choose other subjects")
    assert [line.split(":")[0].rpartition("/")[2] for line in done.problems[1:]] == [
        "Directions.cdf",
        "Greeting.cdf",
        "WalkDog 1.cdf",
    ]
    assert "no such file; expected the D3_Positions of a sequence: unpack Poses_D3_Positions" in done.problems[1]


def test_folders_that_no_subject_has_are_named_once_with_the_way_out(own: Path, tmp_path: Path) -> None:
    write_metadata(own / "metadata.xml")
    shutil.copytree(own / "S1", own / "S5")
    for subject in ("S1", "S5"):
        poses = own / subject / "MyPoseFeatures" / "D3_Positions"
        poses.rename(poses.with_name("D3_Positions_mono"))
    settings = Human36M(size=32, subjects=("S1", "S5"), boxes="joints")
    found = problem(own, tmp_path, settings)
    assert found.startswith(f"{own}, S1, S5: there is MyPoseFeatures/D3_Positions_mono, whose poses are in the")
    assert "download D3 Positions, not mono, of these subjects, or give VideoPose3D's" in found
    for subject in ("S1", "S5"):
        shutil.rmtree(own / subject / "MyPoseFeatures")
    assert "S1, S5: there are no poses in MyPoseFeatures/D3_Positions: unpack" in problem(own, tmp_path, settings)
    for subject in ("S1", "S5"):
        write_cdf(cdf(own, subject=subject), walk())
        shutil.rmtree(own / subject / "MySegmentsMat")
    found = problem(own, tmp_path, replace(settings, boxes="masks"))
    assert found.startswith(f"{own}, S1, S5: there are no ground-truth boxes in MySegmentsMat/ground_truth_bb")
    assert found.endswith("or take boxes from the joints (--boxes joints)")


def test_a_repaired_file_is_imported_by_the_same_command(own: Path, tmp_path: Path) -> None:
    write_metadata(own / "metadata.xml", {(2, 1): "Directions 1", (2, 2): "Directions"})
    write_take(own, "S1", "Directions")
    good = video(own).read_bytes()
    video(own).write_bytes(b"")
    first = imported(own, tmp_path / "capture")
    assert first.imported == ("S1/Directions",)
    assert "54138969.mp4: the file is empty (0 bytes)" in first.problems[0]
    video(own).write_bytes(good)
    second = imported(own, tmp_path / "capture")
    assert (second.kept, second.imported, second.problems) == (("S1/Directions",), ("S1/Directions 1",), ())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "no such file; expected a video"),
        ("cut", "cannot be read as a video"),
        ("noise", "cannot be read as a video"),
        ("short", "expected 70 images, as the annotation has, got 50; the file is damaged or was cut off"),
        ("scaled", "expected images of about 160×160 pixels, .*, got 80×80; use the videos as released"),
    ],
)
def test_a_damaged_video_is_named(own: Path, tmp_path: Path, damage: str, message: str) -> None:
    path = video(own)
    data = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "cut":
            path.write_bytes(data[: len(data) // 3])
        case "noise":
            path.write_bytes(np.random.default_rng(0).bytes(9000))
        case "short":
            write_video(path, shots_of(0, 1, walk(), 50), rate=50.0)
        case "scaled":
            write_video(path, [shot[::2, ::2].copy() for shot in shots_of(0, 1, walk())], rate=50.0)
    found = problem(own, tmp_path)
    assert found.startswith(str(path))
    assert re.search(message, found)


@pytest.mark.parametrize("cut", [0, 100, 2000])
def test_a_cdf_that_is_empty_or_cut_short_is_named(own: Path, tmp_path: Path, cut: int) -> None:
    cdf(own).write_bytes(cdf(own).read_bytes()[:cut])
    assert problem(own, tmp_path).startswith(f"{cdf(own)}: {'expected a CDF' if cut else 'the file is empty'}")


def test_a_cdf_with_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "Walking.cdf"
    path.write_bytes(np.random.default_rng(1).bytes(5000))
    with pytest.raises(SourceError, match=r"Walking\.cdf: expected a CDF with the variable Pose"):
        read_poses(path)
    with pytest.raises(SourceError, match="variable Pose, got something that cannot be read"):
        read_poses(write_cdf(path, walk(), name="Angles"))
    with pytest.raises(SourceError, match=r"1 × T × 96 numbers, got .*70 × 64; use D3_Positions, not D2_Positions"):
        read_poses(write_cdf(path, walk()[..., :2]))
    with pytest.raises(
        SourceError, match=r"expected a person between.*got 0\.001\d* m if the unit is mm; use the files as released"
    ):
        read_poses(write_cdf(path, walk() / 1000))
    with pytest.raises(SourceError, match="none of its 70 poses is complete"):
        read_poses(write_cdf(path, walk() * np.nan))


@pytest.mark.parametrize("majority", ["column_major", "row_major"])
def test_poses_come_back_whatever_the_order_of_the_numbers_in_the_file(tmp_path: Path, majority: str) -> None:
    np.testing.assert_allclose(
        read_poses(write_cdf(tmp_path / "a.cdf", walk(), majority=majority)), walk(), rtol=1e-6, atol=1e-3
    )
    assert read_poses(write_cdf(tmp_path / "b.cdf", walk()[:1], majority=majority)).shape == (1, 32, 3)


def test_poses_that_are_not_finite_are_imported_without_label(own: Path, tmp_path: Path) -> None:
    poses = walk()
    poses[10:20, 13] = np.nan
    write_cdf(cdf(own), poses)
    done = imported(own, tmp_path / "capture")
    assert done.notes == ("S1/Directions 1: 10 of its 70 poses are not finite; their images have no label",)
    unlabelled = {row["frame"] for row in rows_of(tmp_path / "capture") if row["pose"] is None}
    assert unlabelled == {10, 15}


def test_masks_are_read_as_rectangles_and_empty_ones_are_interpolated(own: Path, tmp_path: Path) -> None:
    boxes = np.tile([20.0, 10, 60, 120], (LENGTH, 1))
    boxes[5:15] = np.nan
    write_masks(masks(own), boxes)
    found, count, size = mask_boxes(masks(own), range(0, LENGTH, 5))
    assert (count, size) == (LENGTH, (SIZE, SIZE))
    assert np.isnan(found[1:3]).all()
    np.testing.assert_array_equal(found[3], boxes[0])
    done = imported(own, tmp_path / "capture")
    assert done.notes == (f"{masks(own)}: 2 of 14 boxes are empty; interpolated between their neighbours",)


def test_faulty_masks_are_named_and_joints_are_the_way_out(own: Path, tmp_path: Path) -> None:
    path = masks(own)
    for data in (None, b"", path.read_bytes()[:3000], b"MATLAB 5.0 MAT-file".ljust(5000)):
        path.unlink()
        if data is not None:
            path.write_bytes(data)
        else:
            assert "no such file; expected the ground-truth boxes of a view" in problem(own, tmp_path)
            path.touch()
        assert problem(own, tmp_path).startswith(f"{path}: ")
        assert "or take boxes from the joints (--boxes joints)" in problem(own, tmp_path)
    with h5py.File(path, "w") as file:
        file["Masks"] = np.zeros((3, 3))
    assert "the cell Masks, got something unreadable" in problem(own, tmp_path)
    write_masks(path, np.full((LENGTH, 4), np.nan))
    assert "it has no box of the person" in problem(own, tmp_path)
    write_masks(path, np.tile([20.0, 10, 60, 120], (40, 1)))
    assert "expected 70 boxes, as the annotation has, got 40" in problem(own, tmp_path)
    write_masks(path, np.tile([20.0, 10, 60, 120], (LENGTH, 1)), size=SIZE + 40)
    assert "expected images of about 200×200 pixels" in problem(own, tmp_path)
    path.unlink()
    done = imported(own, tmp_path / "capture", Human36M(size=32, subjects=("S1",), boxes="joints"))
    assert done.problems == ()


def test_a_few_missing_boxes_or_images_clip_the_take_with_a_note(own: Path, tmp_path: Path) -> None:
    write_masks(masks(own), np.tile([20.0, 10, 60, 120], (LENGTH - 5, 1)))
    write_video(video(own, CAMERAS[1]), shots_of(1, 1, walk(), 66), rate=50.0)
    done = imported(own, tmp_path / "capture")
    assert done.capture.instants().frame.tolist() == list(range(0, 65, 5))
    assert sorted(done.notes) == [
        f"{masks(own)}: it has 65 boxes, the annotation 70; the frames at the end are left out",
        f"{video(own, CAMERAS[1])}: it has 66 images, the annotation 70; the frames at the end are left out",
    ]


def test_poses_outside_the_view_of_the_cameras_are_refused(own: Path, tmp_path: Path) -> None:
    write_cdf(cdf(own), walk() + np.array([0, 0, 6000]))
    found = problem(own, tmp_path, Human36M(size=32, subjects=("S1",), boxes="joints"))
    assert "lies outside the 160×160 pixels of the image; use images, boxes and cameras of the same sequence" in found


# Damaged views, validation and empty scenes


def test_a_damaged_view_costs_that_view_and_is_named(own: Path, tmp_path: Path) -> None:
    settings = replace(S1, leave_out_damaged_views=True)
    video(own).write_bytes(b"")
    masks(own, CAMERAS[1]).unlink()
    write_video(video(own, CAMERAS[2]), shots_of(2, 1, walk(), 50), rate=50.0)
    done = imported(own, tmp_path / "capture", settings)
    assert (done.problems, done.imported) == ((), ("S1/Directions 1",))
    instants = done.capture.instants()
    assert instants.views == CAMERAS[3:]
    assert (instants.rows >= 0).all()
    assert len(instants) == LENGTH // 5
    assert [note.split(" is left out")[0] for note in done.notes] == [
        f"S1/Directions 1: camera {name}" for name in CAMERAS[:3]
    ]
    assert "54138969.mp4: the file is empty (0 bytes)" in done.notes[0]
    for name in CAMERAS[1:]:
        video(own, name).unlink(missing_ok=True)
    assert "54138969.mp4: the file is empty" in problem(own, tmp_path / "all", settings)


def test_a_subject_or_sequences_are_held_out_for_validation(whole: Path, tmp_path: Path) -> None:
    info = Human36M(validation=("S8", "S1/Directions*"))._info(read_metadata(whole / "metadata.xml"))
    assert info.splits["train"] == (Selector(subjects=("S5", "S6", "S7")),)
    assert info.splits["validation"] == (
        Selector(subjects=("S8",)),
        Selector(subjects=("S1",), sequences=("Directions*",)),
    )
    several = [("S1", "Walking"), ("S1", "Walking 1"), ("S1", "Eating"), ("S5", "Eating")]
    splits = train_and_validation(("S1", "S5"), ("S1/Walking*",), several)
    assert splits["train"] == (Selector(subjects=("S5",)), Selector(subjects=("S1",), sequences=("Eating",)))
    assert set(train_and_validation(("S1",), (), several)) == {"train"}
    for held_out, message in (
        (("S9",), r"validation: expected training subjects \(S1, S5\) or SUBJECT/SEQUENCE, got 'S9'"),
        (("S1/Jump",), "validation: no sequence of S1 is called Jump"),
        (("S1", "S5"), "validation: nothing is left to train on"),
    ):
        with pytest.raises(ValueError, match=message):
            train_and_validation(("S1", "S5"), held_out, several)


def test_the_empty_scene_of_each_camera_and_sequence_comes_along(whole: Path, tmp_path: Path) -> None:
    done = imported(whole, tmp_path / "capture")
    assert set(done.capture.backgrounds) == {("S1/Directions 1", name) for name in CAMERAS}
    scene = decode_jpeg(done.capture.backgrounds["S1/Directions 1", CAMERAS[1]])  # which sees them cross the room
    assert scene.shape == (SIZE, SIZE, 3)
    assert np.abs(scene[20:].astype(int) - 90).max() < 12, "the white disc that moves is gone"
    without = imported(whole, tmp_path / "without", replace(S1, backgrounds=False))
    assert without.capture.backgrounds == {}


# The known faults


def test_the_shift_of_three_takes_of_s9_is_undone_and_no_other() -> None:
    poses = walk()
    for file in ("Greeting", "SittingDown 1", "Waiting 1"):
        np.testing.assert_allclose(faults.shifted_back("S9", file, poses), poses - [200, 0, 0])
    for subject, file in (("S9", "Greeting 1"), ("S9", "SittingDown"), ("S11", "Greeting"), ("S9", "Waiting")):
        assert faults.shifted_back(subject, file, poses) is poses


@pytest.mark.parametrize("boxes", ["masks", "joints"])
def test_crops_of_a_shifted_take_show_the_person_in_the_middle_again(tmp_path: Path, boxes: str) -> None:
    write_metadata(tmp_path / "set" / "metadata.xml", {(3, 2): "Greeting"})
    write_take(tmp_path / "set", "S9", "Greeting", annotated=walk() + np.array([200, 0, 0]), truth=walk())
    off = {}
    for undo in (True, False):
        settings = Human36M(size=32, subjects=("S9",), boxes=boxes, undo_s9_shift=undo)  # type: ignore[arg-type]
        done = imported(tmp_path / "set", tmp_path / f"{undo}", settings)
        assert bool(done.notes) is undo
        np.testing.assert_allclose(
            done.capture.instants().pose, walk()[::64, HUMAN36M_32] + (0 if undo else [200, 0, 0]), atol=0.01
        )
        errors = []
        for row in rows_of(tmp_path / f"{undo}"):
            x0, _, x1, _ = row["box"]
            truth = around(CAMERAS.index(str(row["view"])), 9, walk()[[row["frame"]]])[0]
            errors.append(abs((x0 + x1 - truth[0] - truth[2]) / 2))
        off[undo] = max(errors)
    assert off[True] <= 1.5
    assert off[False] > 7


def test_s11_directions_is_imported_without_its_corrupt_video(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_metadata(root / "metadata.xml", {(2, 2): "Directions"})
    write_take(root, "S11", "Directions", cameras=CAMERAS[1:])
    settings = Human36M(size=32, subjects=("S11",))
    done = imported(root, tmp_path / "capture", settings)
    assert done.notes == ("S11/Directions: imported without camera 54138969, whose video is corrupt",)
    assert done.capture.views == CAMERAS[1:]
    assert done.counts == (SubjectCount("S11", 1, 1, 6, 6),)
    strict = replace(settings, leave_out_corrupt_videos=False, leave_out_damaged_views=False)
    assert "Directions.54138969.mp4: no such file" in problem(root, tmp_path / "strict", strict)


def test_a_video_that_goes_on_after_its_annotation_is_clipped_or_refused(own: Path, tmp_path: Path) -> None:
    write_video(video(own), shots_of(0, 1, walk(), 120), rate=50.0)
    strict = replace(S1, clip_to_annotation=False)
    assert "expected 70 images, as many as there are poses, got 120" in problem(own, tmp_path, strict)
    done = imported(own, tmp_path / "clipped")
    assert done.notes == (f"{video(own)}: clipped from 120 images to the 70 that have poses",)
    assert done.capture.instants().frame.tolist() == list(range(0, LENGTH, 5))
    assert faults.annotated_length(1612, 3393) == 1612


# Counts


def test_the_published_counts_are_checked_for_whole_subjects(tmp_path: Path) -> None:
    cameras = read_metadata(write_metadata(tmp_path / "metadata.xml")).cameras["S1"]
    parts = [
        Human36MSequence(
            ListedSequence("S1", f"Walking {i}", "Walking", (14, i)),
            tmp_path,
            cameras,
            2069 if i else 62_094 - 29 * 2069,
            S1,
        )
        for i in range(30)
    ]
    assert sum(part.length for part in parts) == 62_094 == 248_376 // 4
    assert unusual_counts(parts) == []
    assert unusual_counts(parts[:-1]) == []  # another message reports what is missing
    one_more = [Human36MSequence(parts[0].listed, tmp_path, cameras, parts[0].length + 1, S1), *parts[1:]]
    assert unusual_counts(one_more) == ["S1: 62,095 poses, the published counts make 62,094; is this another release?"]


# Poses of VideoPose3D's file


def test_poses_of_videopose3d_stand_in_for_the_cdf_files(own: Path, tmp_path: Path) -> None:
    path = tmp_path / "data_3d_h36m.npz"
    np.savez_compressed(path, positions_3d={"S1": {"Directions 1": (walk() / 1000).astype(np.float32)}})
    shutil.rmtree(own / "S1" / "MyPoseFeatures")
    done = imported(own, tmp_path / "capture", Human36M(size=32, subjects=("S1",), poses=path))
    np.testing.assert_allclose(done.capture.instants().pose, walk()[::5, HUMAN36M_32], atol=0.1)
    write_metadata(own / "metadata.xml", {(2, 2): "Directions"})
    found = problem(own, tmp_path / "other", Human36M(size=32, subjects=("S1",), poses=path))
    assert "data_3d_h36m.npz: it has no S1/Directions; use the D3_Positions files instead" in found


def test_the_sequence_that_videopose3d_leaves_out_is_a_note(own: Path, tmp_path: Path) -> None:
    write_metadata(own / "metadata.xml", {(2, 1): "Directions 1", (2, 2): "Directions"})
    (own / "S1").rename(own / "S11")
    path = tmp_path / "data_3d_h36m.npz"
    np.savez_compressed(path, positions_3d={"S11": {"Directions 1": (walk() / 1000).astype(np.float32)}})
    settings = Human36M(size=32, subjects=("S11",), poses=path)
    done = imported(own, tmp_path / "capture", settings)
    assert not done.problems
    assert done.notes[0].startswith("S11/Directions: left out, since VideoPose3D's preparation leaves it out of")
    assert (done.counts[0].sequences, done.counts[0].expected_sequences) == (1, 2)
    there = {"S11": {name: (walk() / 1000).astype(np.float32) for name in ("Directions 1", "Directions")}}
    np.savez_compressed(tmp_path / "whole.npz", positions_3d=there)
    metadata = read_metadata(own / "metadata.xml")
    found, _, notes = find_released(own, metadata, replace(settings, poses=tmp_path / "whole.npz"))
    assert [sequence.sequence for sequence in found] == ["Directions 1", "Directions"]
    assert not notes


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


def test_an_npz_that_would_run_code_or_is_something_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.npz"
    np.savez(path, positions_3d=np.array({"S1": {"Directions": Evil()}}, dtype=object))
    with pytest.raises(SourceError, match=r"evil\.npz.*it asks for posix\.mkdir, which is not an array"):
        read_videopose3d(path)
    assert not Path("evil").exists()
    bad = {
        "other.npz": {"poses": np.zeros(3)},
        "metres.npz": {"positions_3d": {"S1": {"A": walk()}}},
        "joints.npz": {"positions_3d": {"S1": {"A": walk()[:, :17]}}},
    }
    for name, content in bad.items():
        np.savez(tmp_path / name, **content)
    with pytest.raises(SourceError, match=r"other\.npz: expected VideoPose3D's data_3d_h36m\.npz with positions_3d"):
        read_videopose3d(tmp_path / "other.npz")
    with pytest.raises(SourceError, match=r"metres\.npz \(S1/A\): expected a person between"):
        read_videopose3d(tmp_path / "metres.npz")
    with pytest.raises(SourceError, match=r"joints\.npz \(S1/A\): expected T × 32 × 3 numbers, got 70 × 17 × 3"):
        read_videopose3d(tmp_path / "joints.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "metres.npz").read_bytes()[:500])
    with pytest.raises(SourceError, match=r"cut\.npz: expected VideoPose3D's"):
        read_videopose3d(tmp_path / "cut.npz")
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({"S1": 1}))
    with pytest.raises(SourceError, match=r"pickle\.npz: expected VideoPose3D's"):
        read_videopose3d(tmp_path / "pickle.npz")


# Settings


def test_squares_stand_about_the_centres_of_boxes() -> None:
    boxes = np.array([[10.0, 20, 30, 80], [0, 0, 1, 1]])
    np.testing.assert_array_equal(squares_around(boxes, 1.0), [[-10, 20, 50, 80], [0, 0, 2, 2]])
    np.testing.assert_array_equal(squares_around(boxes, 1.5)[0], [-25, 5, 65, 95])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"every": 0}, "every ≥ 1"),
        ({"margin": 0.5}, "margin 1–4, got .*margin 0.5"),
        ({"subjects": ("S2",)}, "subjects: expected some of S1, S5, .*got S2"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Human36M(**setting)  # type: ignore[arg-type]


def test_an_unknown_camera_is_refused(whole: Path) -> None:
    metadata = read_metadata(whole / "metadata.xml")
    with pytest.raises(SourceError, match=r"cameras: expected some of 54138969, .*got 1, 2"):
        find_released(whole, metadata, Human36M(cameras=("1", "2")))
    assert len(FILES) == 5


def test_the_command_shows_counts_writes_a_summary_and_ends_with_1_if_something_is_missing(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_metadata(own / "metadata.xml", {(2, 1): "Directions 1", (2, 2): "Directions"})
    out, summary = str(tmp_path / "capture"), tmp_path / "summary.json"
    command = ["import", "human36m", str(own), out, "--subjects", "S1", "--size", "32", "--processes", "1"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--json", str(summary)])
    assert stopped.value.code == 1
    shown = capsys.readouterr()
    assert "1 of 2" in shown.out
    assert f"{cdf(own, 'Directions')}: no such file; expected the D3_Positions of a sequence" in shown.err
    assert f"This could not be imported; everything else is in {out} and can be used" in shown.err
    about = json.loads(summary.read_text())
    assert about["counts"] == [
        {"subject": "S1", "sequences": 1, "expected_sequences": 2, "images": 56, "expected_images": 56}
    ]
    assert about["splits"] == {"train": 14, "test": 0}
    assert f"then mcss train mcss --capture {out} --recipe paper --labels S1." in " ".join(shown.out.split())
    write_take(own, "S1", "Directions")
    main(command)
    assert "2 of 2" in capsys.readouterr().out
