"""`mcss predict` on real files of all kinds, end to end."""

import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from filming import Room, film, write_video

import mcss
from captures_for_tests import photo
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.formats.csv import read_csv
from mcss.data.formats.npz import read_npz
from mcss.data.formats.trc import read_trc
from mcss.inference.locate import locate_in_image, parsed_box
from mcss.inference.outputs import as_json, parsed_formats
from mcss.inference.overlays import overlay, write_sequence_overlay
from mcss.inference.predict import (
    InputFile,
    capture_sequences,
    input_files,
    predict_image,
    predict_sequence,
    predict_video,
)
from mcss.models.orientation import SURE, Orientation
from mcss.skeletons import JOINTS
from mcss.video.detectors import Detections
from mcss.video.reading.decoding import decoded_times, images, probe
from runs_for_tests import equipped_run

ROOM = {"width": 160, "height": 120, "count": 20}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return equipped_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clips") / "walk.mp4", Room(**ROOM).images())


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def predict(*args: object, code: int = 0) -> None:
    """Run `mcss predict`, which must exit with `code`."""
    if code == 0:
        main(["predict", *map(str, args)])
        return
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *map(str, args)])
    assert stopped.value.code == code


def said(capsys: pytest.CaptureFixture[str]) -> str:
    both = capsys.readouterr()
    return " ".join((both.out + both.err).split())


def test_a_video_becomes_files_of_every_format_that_say_the_same(run: Path, clip: Path) -> None:
    predict(clip, "-o", "out", "--run", run, "--formats", "json,csv,trc,bvh,npz", "--json", "summary.json")
    found = json.loads(Path("out/walk.json").read_text())
    pose = np.array([frame["pose"] for frame in found["frames"]])
    assert pose.shape == (20, 17, 3)
    assert found["rate"] == pytest.approx(25)
    assert [frame["time"] for frame in found["frames"]] == pytest.approx(np.arange(20) / 25)
    assert all(len(frame["embedding"]) == 128 and frame["expected_error"] > 0 for frame in found["frames"])
    for points in (read_csv(Path("out/walk.csv")), read_npz(Path("out/walk.npz"))):
        assert points.names == JOINTS
        np.testing.assert_allclose(points.points[:, 1:], pose[:, 1:], atol=0.06)
        np.testing.assert_allclose(points.times, np.arange(20) / 25, atol=1e-6)
    markers = read_trc(Path("out/walk.trc"))  # +X ahead (canonical -Y), +Y up, +Z to the right (canonical -X)
    assert (markers.names, markers.unit) == (JOINTS, "mm")
    np.testing.assert_allclose(
        markers.points[:, 1:], np.stack([-pose[..., 1], pose[..., 2], -pose[..., 0]], -1)[:, 1:], atol=0.06
    )
    assert Path("out/walk.bvh").read_text().startswith("HIERARCHY")
    with av.open("out/walk_overlay.mp4") as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 20
    assert frames[0].shape[:2] == (120, 280)
    summary = json.loads(Path("summary.json").read_text())
    assert summary["items"][0]["poses"] == 20


def test_the_person_is_followed_by_motion_and_the_model_sees_what_an_import_would_show_it(
    run: Path, clip: Path
) -> None:
    sequence = predict_video(mcss.load(run), InputFile(clip, "walk"))
    room = Room(**ROOM)
    for i in range(2, 18, 5):
        x0, y0, x1, y1 = sequence.poses.crop_boxes[i]
        joints = room.person(i)[0]
        inside = (joints[:, 0] > x0 - 2) & (joints[:, 0] < x1 + 2) & (joints[:, 1] > y0 - 2) & (joints[:, 1] < y1 + 2)
        assert inside.mean() > 0.8
    assert sequence.found.mean() > 0.8


def test_smoothing_can_be_chosen_and_switched_off(run: Path, clip: Path) -> None:
    for kind in ("savgol", "one-euro", "none"):
        predict(clip, "-o", kind, "--run", run, "--formats", "npz", "--smooth", kind, "--no-overlay")
    poses = {kind: np.load(f"{kind}/walk.npz")["poses"] for kind in ("savgol", "one-euro", "none")}
    raw = predict_video(mcss.load(run), InputFile(clip, "walk")).poses.pose
    np.testing.assert_allclose(poses["none"], raw, atol=1e-3)
    trembling = {kind: float(np.abs(np.diff(pose, 2, axis=0)).mean()) for kind, pose in poses.items()}
    assert trembling["savgol"] < 0.8 * trembling["none"]
    assert trembling["one-euro"] < 0.8 * trembling["none"]


def test_poses_as_the_camera_sees_them_are_the_canonical_ones_turned(run: Path, clip: Path) -> None:
    for turned in ("view", "canonical"):
        predict(clip, "-o", turned, "--run", run, "--formats", "npz,bvh", "--turned", turned, "--no-overlay")
    a, b = (np.load(f"{name}/walk.npz")["poses"] for name in ("canonical", "view"))
    np.testing.assert_allclose(a[..., 2], b[..., 2], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1), rtol=1e-4, atol=1e-3)
    assert np.abs(a - b).max() > 1


def test_one_bad_file_does_not_stop_the_others_and_the_exit_status_says_so(
    run: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed = Path("mixed/inner")
    mixed.mkdir(parents=True)
    cv2.imwrite("mixed/one.png", photo())
    cv2.imwrite("mixed/one.jpg", photo())
    cv2.imwrite("mixed/inner/deep.png", photo().astype(np.uint16) * 257)
    Path("mixed/broken.jpg").write_bytes(b"\xff\xd8 no image")
    Path("mixed/empty.mp4").write_bytes(b"")
    Path("mixed/notes.txt").write_text("left alone")
    write_video(Path("mixed/still.mp4"), [Room(bystander=False, flicker=0, **ROOM).empty().astype(np.uint8)] * 12)
    shutil.copy(clip, "mixed/walk.mp4")
    predict("mixed", "-o", "out", "--run", run, "--json", "summary.json", code=1)
    text = said(capsys)
    for message in (
        "mixed/broken.jpg: not a readable image",
        "mixed/empty.mp4: the file is empty (0 bytes)",
        "mixed/still.mp4: no person was found in it (nobody moves in front of a static camera)",
        "4 of 7 written to out.",
    ):
        assert message in text
    written = {str(p.relative_to("out")) for p in Path("out").rglob("*") if p.is_file()}
    assert written == {
        *(f"{name}{end}" for name in ("one_png", "one_jpg", "inner/deep") for end in (".json", ".csv", "_overlay.jpg")),
        "walk.json", "walk.csv", "walk_overlay.mp4",
    }  # fmt: skip
    items = json.loads(Path("summary.json").read_text())["items"]
    assert sum("failed" in item for item in items) == 3


def test_an_image_is_used_whole_with_a_note_or_cropped_to_a_box(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite("photo.png", photo())
    predict("photo.png", "-o", "lost", "--run", run)
    assert "photo.png: no person was found in it, so the whole image is used; say where" in said(capsys)
    assert json.loads(Path("lost/photo.json").read_text())["frames"][0]["square"] == [-50, 0, 350, 400]
    predict("photo.png", "-o", "whole", "--run", run, "--find", "whole")
    assert "photo.png: the whole image is used" in said(capsys)
    predict("photo.png", "-o", "box", "--run", run, "--box", "100,120,80,200")
    assert "whole image" not in said(capsys)
    assert json.loads(Path("box/photo.json").read_text())["frames"][0]["square"] == [25, 105, 255, 335]
    assert cv2.imread("box/photo_overlay.jpg").shape == (400, 700, 3)
    predict("photo.png", "-o", "box", "--run", run, "--box", "900,0,5,5", code=1)
    assert "lies in the image of 300×400 pixels, got 900,0,5,5" in said(capsys)


class Told:
    """A detector with prepared answers, one per image; it finds nobody after the last."""

    def __init__(self, *boxes: list[list[float]]) -> None:
        self._boxes = list(boxes)

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        seen = [self._boxes.pop(0) if self._boxes else [] for _ in images]
        return [Detections.from_lists(boxes, [0.9] * len(boxes)) for boxes in seen]


def test_a_finder_chooses_the_largest_of_several_people_and_says_when_there_is_none(run: Path, clip: Path) -> None:
    model = mcss.load(run)
    cv2.imwrite("photo.png", photo())
    two = Told([[0.0, 0, 20, 40], [100.0, 50, 180, 250]])
    sequence = predict_image(model, InputFile(Path("photo.png"), "photo"), finder=two)
    assert sequence.poses.crop_boxes.tolist() == [[25, 35, 255, 265]]
    assert "2 people were found; the largest is used" in sequence.notes[0]
    assert sequence.others == ((0, 0, 20, 40),)
    seen = overlay(photo(), sequence, 0, 400)
    assert (seen[40, :20] != overlay(photo(), replace(sequence, others=()), 0, 400)[40, :20]).any()
    nobody = locate_in_image(photo(), "photo", None, Told())
    assert nobody.notes[0].startswith("photo: no person was found in it, so the whole image is used; say where they")
    assert (nobody.found.tolist(), nobody.crop_boxes.tolist()) == ([False], [[-50, 0, 350, 400]])
    moving: list[list[list[float]]] = [
        [] if i == 3 else [[0.0, 0, 9, 9], [30.0 + i, 20, 80 + i, 110]] for i in range(20)
    ]
    sequence = predict_video(model, InputFile(clip, "walk"), finder=Told(*moving))
    assert sequence.found.tolist() == [i != 3 for i in range(20)]
    middle = (sequence.poses.crop_boxes[:, 0] + sequence.poses.crop_boxes[:, 2]) / 2
    np.testing.assert_allclose(middle[4:16], 55 + np.arange(4, 16), atol=3)
    with pytest.raises(ValueError, match=r"no person was found in it \(the detector found nobody"):
        predict_video(model, InputFile(clip, "walk"), finder=Told())


def test_a_detector_is_chosen_on_the_command_line(
    run: Path, clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def load(name: str, weights: Path | None) -> Told:
        asked.append(name)
        return Told([[100.0, 50, 180, 250]], *([[[30.0 + i, 20, 80 + i, 110]] for i in range(20)]))

    monkeypatch.setattr("mcss.inference.locate.person_detector", load)
    cv2.imwrite("photo.png", photo())
    predict("photo.png", "-o", "found", "--run", run, "--find", "blazepose")
    assert json.loads(Path("found/photo.json").read_text())["frames"][0]["square"] == [25, 35, 255, 265]
    assert "photo: 1 pose, crop box 25,35,230,230" in said(capsys)
    predict(str(clip), "-o", "found", "--run", run, "--find", "ssdlite320_mobilenet_v3_large")
    assert asked == ["blazepose", "ssdlite320_mobilenet_v3_large"]
    weights = ["--detector-weights", "weights.safetensors"]
    predict("photo.png", "-o", "lost", "--run", run, *weights, code=1)
    assert "there is no detector to load them; choose one with --find" in said(capsys)
    predict(str(clip.parent), "-o", "lost", "--run", run, "--fuse", "--find", "whole", code=1)
    assert "--find whole: not for the views of a moment" in said(capsys)


def test_a_skeleton_whose_heading_is_uncertain_is_drawn_faintly(run: Path) -> None:
    cv2.imwrite("photo.png", photo())
    sequence = predict_image(mcss.load(run), InputFile(Path("photo.png"), "photo"), (100.0, 50.0, 80.0, 200.0))
    assert sequence.poses.orientation is not None

    def drawn(certainty: float) -> np.ndarray:
        values = {"heading": 0, "certainty": certainty, "tilt": 0, "scale": 1 / 4000}
        placed = {name: np.full(1, value, np.float32) for name, value in values.items()}
        orientation = Orientation(**placed, root=np.full((1, 2), 0.5, np.float32))
        changed = replace(sequence, poses=replace(sequence.poses, orientation=orientation))
        beside = overlay(photo(), changed, 0, 400)
        return beside[:, :300].astype(int) - overlay(photo(), replace(changed, poses=bare), 0, 400)[:, :300]

    bare = replace(sequence.poses, orientation=None)
    sure, unsure = np.abs(drawn(SURE)).sum(), np.abs(drawn(SURE - 0.01)).sum()
    assert sure > 0
    assert 0.33 < unsure / sure < 0.37


def test_portrait_videos_are_turned_upright(run: Path) -> None:
    room = Room(width=96, height=160, count=14)
    write_video(Path("phone.mp4"), [np.rot90(p, -1).copy() for p in room.images()], turn=90)
    write_video(Path("plain.mp4"), room.images())
    model = mcss.load(run)
    box = (20.0, 30.0, 60.0, 110.0)
    a, b = (predict_video(model, InputFile(Path(f"{name}.mp4"), name), box) for name in ("phone", "plain"))
    np.testing.assert_array_equal(a.poses.crop_boxes, b.poses.crop_boxes)
    np.testing.assert_allclose(a.poses.pose, b.poses.pose, atol=20)


def test_variable_frame_rates_keep_their_times_with_a_note(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    room = Room(**ROOM)
    stamps = [k for k in range(40) if k not in (5, 6, 7, 20, 21, 22, 23, 24)][:20]
    with av.open("vfr.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.pix_fmt, stream.width, stream.height = "yuv420p", room.width, room.height
        for stamp, image in zip(stamps, room.images(), strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    np.testing.assert_allclose(decoded_times(probe(Path("vfr.mp4"))), np.array(stamps) / 25, atol=1e-3)
    predict("vfr.mp4", "-o", "out", "--run", run, "--formats", "csv,bvh")
    assert "vfr.mp4: the frame rate varies" in said(capsys)
    with Path("out/vfr.csv").open() as file:
        times = [float(row["time"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(times, np.array(stamps) / 25, atol=1e-3)
    assert f"Frames: {stamps[-1] + 1}\nFrame Time: 0.04" in Path("out/vfr.bvh").read_text()  # BVH has one frame rate


def test_a_capture_gives_one_fused_pose_per_instant(run: Path, tiny_capture: Capture) -> None:
    predict(tiny_capture.uri, "-o", "out", "--run", run, "--split", "test", "--formats", "json,trc")
    found = json.loads(Path("out/S3/Walking 1.json").read_text())
    assert len(found["frames"]) == 16
    assert found["frames"][0]["frame"] == 8
    assert found["views"] == ["1", "2", "3", "4"]
    assert (Path("out/S3/Waving 1_overlay.mp4")).stat().st_size > 1000


def test_a_view_that_lost_an_image_stays_and_is_an_empty_cell_there(run: Path, tiny_capture: Capture) -> None:
    name, instants = capture_sequences(tiny_capture, "test")[0]
    rows = instants.rows.copy()
    rows[3, 0] = rows[1:5, 1] = -1
    rows[:, 3] = -1
    instants = replace(instants, rows=rows)
    sequence = predict_sequence(mcss.load(run), tiny_capture, name, instants)
    assert as_json(sequence, "canonical")["views"] == ["1", "2", "3"]
    lost = {view: np.flatnonzero(np.isnan(poses.pose).any((1, 2))).tolist() for view, poses in sequence.views.items()}
    assert lost == {"1": [3], "2": [1, 2, 3, 4], "3": []}
    assert np.isfinite(sequence.poses.pose).all()
    write_sequence_overlay(sequence, tiny_capture, instants, Path("shown.mp4"))
    cells = np.stack(list(images(Path("shown.mp4")))).reshape(16, 240, 4, 240, 3).std(axis=(1, 3, 4))
    assert {view: np.flatnonzero(cells[:, v] < 3).tolist() for v, view in enumerate(sequence.views)} == lost


def test_a_folder_of_synchronised_videos_is_fused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film(Path("footage"), views=2, **ROOM)
    predict("footage", "-o", "out", "--run", run, "--fuse", "--no-overlay")
    found = json.loads(Path("out/footage/footage.json").read_text())
    assert (len(found["frames"]), found["views"]) == (20, ["cam1", "cam2"])
    predict("footage", "-o", "out", "--run", run, "--fuse", "--turned", "view", code=1)
    assert "not for captures and fused views" in said(capsys)


def test_a_view_for_rerun_is_written(run: Path) -> None:
    pytest.importorskip("rerun")
    cv2.imwrite("photo.png", photo())
    predict("photo.png", "-o", "out", "--run", run, "--rerun", "--no-overlay")
    written = Path("out/photo.rrd").read_bytes()
    assert written[:3] == b"RRF"
    assert b"world/person" in written


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Path("x").mkdir(), "x: no images or videos in this folder"),
        (lambda: Path("x").write_text("a"), "x: expected an image or a video by its ending .*; got no ending"),
        (lambda: None, "x: no such file or folder"),
    ],
)
def test_sources_that_hold_nothing(make: object, message: str) -> None:
    make()  # type: ignore[operator]
    with pytest.raises(ValueError, match=message):
        input_files(Path("x"))


def test_what_mcss_wrote_beside_footage_is_no_photo(tmp_path: Path) -> None:
    recording = tmp_path / "Ann" / "walk"
    names = ("Ann/walk/left.mp4", "Ann/walk/sync.png", "mine.tracks/Ann/walk.jpg", "theirs.tracks/walk.jpg")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "mine" / "frames.lance").mkdir(parents=True)
    assert [file.path for file in input_files(recording)] == [recording / "left.mp4", recording / "sync.png"]
    (tmp_path / "sync.json").touch()
    assert [file.path for file in input_files(tmp_path)] == [tmp_path / names[0], tmp_path / names[3]]


def test_options_that_cannot_be_read(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite("photo.png", photo())
    predict("photo.png", "-o", "out", "--run", run, "--formats", "json,fbx", code=1)
    assert "formats: expected some of json,csv,trc,bvh,npz,angles, got fbx" in said(capsys)
    with pytest.raises(ValueError, match="expected at least one"):
        parsed_formats(",")
    with pytest.raises(ValueError, match="expected x,y,width,height in pixels"):
        parsed_box("1,2,3")
    with pytest.raises(ValueError, match="expected a width and height above 0"):
        parsed_box("1,2,0,4")
    assert not Path("out").exists()
