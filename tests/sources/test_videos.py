import csv
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from filming import RATE, Room, film, write_video

from mcss.data.capture import Capture
from mcss.errors import CaptureError, SourceError
from mcss.images import decode_jpeg
from mcss.sources.videos.video_folder import Videos
from mcss.video.reading.decoding import images, probe
from mcss.video.recordings import find_recordings
from mcss.video.spool import ImageSpool

SMALL = {"width": 160, "height": 120, "count": 30}
FAST = Videos(size=48)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of one recording of one subject."""
    root = tmp_path_factory.mktemp("footage")
    film(root / "Ann" / "walk 1", **SMALL)
    return root


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy of `folder` that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "footage"))


def boxes_csv(
    path: Path, rows: list[tuple[object, ...]], header: str = "subject,sequence,view,frame,x0,y0,x1,y1"
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write(header + "\n")
        csv.writer(file).writerows(rows)
    return path


def test_a_folder_of_videos_becomes_a_capture_whose_crops_show_the_person(folder: Path, tmp_path: Path) -> None:
    summary = Videos(size=64, licence="CC0").import_to(tmp_path / "capture", folder)
    assert (summary.imported, summary.kept, summary.notes) == (("Ann/walk 1",), (), ())
    instants = summary.capture.instants()
    assert len(instants) == 30
    assert (instants.rows >= 0).all()
    assert (instants.subjects, instants.views, instants.actions) == (("Ann",), ("cam1", "cam2"), ("walk",))
    np.testing.assert_allclose(instants.time, np.arange(30) / RATE)
    assert np.isnan(instants.pose).all()
    assert summary.capture.info.licence == "CC0"
    for k in range(2):
        room = Room(seed=k, **SMALL)
        table = {row["frame"]: row for row in rows_of(tmp_path / "capture") if row["view"] == f"cam{k + 1}"}
        for i in range(0, 30, 5):
            x0, y0, x1, y1 = table[i]["box"]
            joints = room.person(i)[0]
            assert x1 - x0 == y1 - y0
            assert ((joints >= (x0, y0)) & (joints <= (x1, y1))).all()
            crop = decode_jpeg(table[i]["image"]).astype(float)
            truth = cv2.resize(
                room.image(i)[int(y0) : int(y1), int(x0) : int(x1)], (64, 64), interpolation=cv2.INTER_AREA
            )
            assert np.abs(crop - truth).mean() < 12  # the image of that instant, not of its neighbour


def rows_of(capture: Path) -> list[dict[str, object]]:
    import lance

    rows: list[dict[str, object]] = lance.dataset(str(capture / "frames.lance")).to_table().to_pylist()
    return rows


def test_the_last_part_of_each_sequence_is_held_out_with_a_gap(folder: Path, tmp_path: Path) -> None:
    capture = FAST.import_to(tmp_path / "capture", folder).capture
    assert capture.instants("train").frame.tolist() == list(range(19))  # 21 minus 0.1 s
    assert capture.instants("test").frame.tolist() == list(range(21, 30))


def test_subjects_can_be_held_out_instead(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "Ann", tmp_path / "two" / "Ann")
    shutil.copytree(folder / "Ann", tmp_path / "two" / "Bo [2]")
    capture = Videos(size=48, test_subjects=("Bo [2]",)).import_to(tmp_path / "capture", tmp_path / "two").capture
    assert capture.instants("train").present_subjects() == ("Ann",)
    assert capture.instants("test").present_subjects() == ("Bo [2]",)
    with pytest.raises(SourceError, match=r"test_subjects Cy: expected some.*Ann, Bo \[2\]"):
        Videos(test_subjects=("Cy",)).import_to(tmp_path / "other", tmp_path / "two")


def test_every_other_image_keeps_its_own_number_and_time(folder: Path, tmp_path: Path) -> None:
    capture = Videos(size=48, every=4).import_to(tmp_path / "capture", folder).capture
    assert capture.instants().frame.tolist() == list(range(0, 30, 4))
    np.testing.assert_allclose(capture.instants().time, np.arange(0, 30, 4) / RATE)


def test_a_flat_folder_is_one_recording_whatever_the_containers_are(tmp_path: Path) -> None:
    flat = tmp_path / "Müller & Söhne (1)"
    write_video(flat / "left.mkv", Room(seed=0, **SMALL).images())
    write_video(flat / "right ö.avi", Room(seed=1, **SMALL).images())
    (flat / "notes.txt").write_text("not a video")
    (flat / "._left.mkv").write_bytes(b"what a desktop leaves behind")
    capture = FAST.import_to(tmp_path / "capture", flat).capture
    assert capture.views == ("left", "right ö")
    assert capture.instants().subjects == ("Müller & Söhne (1)",)
    assert len(capture.instants("test")) == 9


def test_a_second_call_continues_and_gives_the_same_capture(own: Path, tmp_path: Path) -> None:
    shutil.copytree(own / "Ann" / "walk 1", own / "Ann" / "walk 2")
    whole = FAST.import_to(tmp_path / "whole", own)
    with pytest.raises(KeyboardInterrupt):
        FAST.import_to(tmp_path / "stopped", own, progress=Stop(at="Ann/walk 1"), workers=1)
    with pytest.raises(CaptureError, match="unfinished"):
        Capture.open(tmp_path / "stopped")
    resumed = FAST.import_to(tmp_path / "stopped", own)
    assert (resumed.kept, resumed.imported) == (("Ann/walk 1",), ("Ann/walk 2",))
    assert resumed.capture.fingerprint == whole.capture.fingerprint


class Stop:
    """A progress display that interrupts the import when a sequence is done."""

    def __init__(self, at: str) -> None:
        self.at = at

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator["Stop"]:
        yield self

    def advance(self, steps: int = 1) -> None:
        pass

    def note(self, text: str) -> None:
        if text == self.at:
            raise KeyboardInterrupt


class Count(Stop):
    """A progress display that counts."""

    total = counted = 0

    @contextmanager
    def task(self, name: str, total: int, done: int = 0) -> Iterator["Stop"]:
        if name == "Importing sequences":
            self.total, self.counted = total, done
        yield self

    def advance(self, steps: int = 1) -> None:
        self.counted += steps if self.counted < self.total else 0


def test_progress_knows_the_total_and_reaches_it(folder: Path, tmp_path: Path) -> None:
    count = Count(at="")
    FAST.import_to(tmp_path / "capture", folder, progress=count)
    assert count.counted == count.total == 2 * 2 * 30
    FAST.import_to(tmp_path / "capture", folder, progress=count)
    assert count.counted == count.total


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_a_rotation_mark_turns_images_upright(tmp_path: Path, turn: int) -> None:
    upright = np.zeros((96, 160, 3), np.uint8)
    upright[:48, :80] = (220, 30, 30)
    stored = np.rot90(upright, -turn // 90)  # rotating it counter-clockwise by the tag restores it
    path = write_video(tmp_path / "phone.mp4", [np.ascontiguousarray(stored)] * 3, turn=turn)
    assert (probe(path).width, probe(path).height) == (160, 96)
    image = next(images(path))
    assert np.abs(image.astype(int) - upright).mean() < 8
    small = next(images(path, 80))
    assert small.shape == (48, 80, 3)


def test_small_images_come_back_from_the_spool_in_any_order() -> None:
    spool = ImageSpool()
    for value in (10, 100, 200):
        spool.append(np.full((8, 12, 3), value, np.uint8))
    assert [int(spool[i].mean().round()) for i in (2, 0, 1)] == [200, 10, 100]
    spool.close()


# Boxes and backgrounds from the user


def test_given_boxes_are_used_and_their_gaps_interpolated(folder: Path, tmp_path: Path) -> None:
    path = boxes_csv(
        tmp_path / "boxes.csv",
        [("Ann", "walk 1", "cam1", 0, 40, 30, 60, 90), ("Ann", "walk 1", "cam1", 29, 98, 30, 118, 90)],
        header="subject, sequence, view, frame, x0, y0, x1, y1",
    )
    Videos(size=48, boxes=path, margin=1.0).import_to(tmp_path / "capture", folder)
    boxes = {r["frame"]: r["box"] for r in rows_of(tmp_path / "capture") if r["view"] == "cam1"}
    for frame in (5, 15, 25):
        x0, y0, x1, y1 = boxes[frame]
        assert (x0 + x1) / 2 == pytest.approx(50 + 2 * frame, abs=1)
        assert (y0 + y1) / 2 == pytest.approx(60, abs=1)
        assert x1 - x0 == pytest.approx(60, abs=7)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("subject,sequence,view,frame,x0,y0,w,h", (), r"x1, y1 are missing.*got subject,.*,w,h"),
        (
            None,
            ("Ann", "walk 1", "cam9", 0, 1, 1, 9, 9),
            r"line 2: there is no video of .*cam9; there are: Ann/walk 1/cam1",
        ),
        (None, ("Ann", "walk 1", "cam1", 30, 1, 1, 9, 9), r"frame 30 is not in the video.*0 to 29"),
        (None, ("Ann", "walk 1", "cam1", 0, 200, 1, 240, 9), r"outside the image, which is 160×120"),
        (None, ("Ann", "walk 1", "cam1", 0, 50, 1, 40, 9), r"expected x0 < x1 and y0 < y1, got 50,1,40,9"),
        (None, ("Ann", "walk 1", "cam1", 0, "nan", 1, 40, 9), r"expected x0 < x1"),
        (None, ("Ann", "walk 1", "cam1", "x", 1, 1, 40, 9), r"integer frame number and four numbers, got 'x,1,1,40,9'"),
        (None, ("Ann", "walk 1", "cam1", 1), r"four numbers"),
        (None, (), "has a header but no boxes"),
    ],
)
def test_a_faulty_boxes_file_is_refused_before_anything_is_written(
    folder: Path, tmp_path: Path, header: str | None, row: tuple[object, ...], message: str
) -> None:
    path = boxes_csv(tmp_path / "boxes.csv", [row] if row else [], *([header] if header else []))
    with pytest.raises(SourceError, match=rf"boxes\.csv.*{message}"):
        Videos(size=48, boxes=path).import_to(tmp_path / "capture", folder)
    assert not (tmp_path / "capture").exists()


def test_a_person_who_never_moves_is_found_against_an_image_of_the_empty_scene(tmp_path: Path) -> None:
    frozen = [Room(seed=k, bystander=False, **SMALL) for k in range(2)]
    for k, room in enumerate(frozen):
        write_video(tmp_path / "footage" / f"cam{k}.mp4", [room.image(9)] * 20)
        background = tmp_path / "empty" / f"cam{k}.png"
        background.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(background), np.clip(room.empty(), 0, 255).astype(np.uint8)[..., ::-1])
    with pytest.raises(SourceError, match=r"cam0\.mp4: no person was found.*--boxes.*--background"):
        FAST.import_to(tmp_path / "first", tmp_path / "footage")
    Videos(size=48, background=tmp_path / "empty").import_to(tmp_path / "capture", tmp_path / "footage")
    for row in rows_of(tmp_path / "capture"):
        joints = frozen[int(str(row["view"])[3:])].person(9)[0]
        x0, y0, x1, y1 = row["box"]
        assert ((joints >= (x0, y0)) & (joints <= (x1, y1))).all()
        assert x1 - x0 < 110
    with pytest.raises(SourceError, match="expected a folder with images or videos of the empty scene"):
        Videos(background=tmp_path / "nowhere").import_to(tmp_path / "b", tmp_path / "footage")


# Faulty folders


def test_no_folder_a_file_and_a_folder_without_videos_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere: expected a folder of videos, but there is no such folder"):
        find_recordings(tmp_path / "nowhere")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match="got a file"):
        find_recordings(tmp_path / "clip.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no videos .*expected subject/sequence/view\.mp4"):
        find_recordings(tmp_path / "empty")


def test_another_layout_is_named(own: Path) -> None:
    shutil.move(own / "Ann" / "walk 1" / "cam1.mp4", own / "Ann" / "cam1.mp4")
    with pytest.raises(SourceError, match=r"Ann/cam1\.mp4 in .*lies at another depth; expected subject/sequence"):
        find_recordings(own)


def test_one_view_is_too_few(own: Path) -> None:
    (own / "Ann" / "walk 1" / "cam2.mp4").unlink()
    with pytest.raises(
        SourceError, match=r"expected two or more synchronised views of the same scene, got only cam1\.mp4"
    ):
        find_recordings(own)


def test_the_same_view_or_the_same_video_twice_is_refused(own: Path) -> None:
    views = own / "Ann" / "walk 1"
    shutil.copy(views / "cam1.mp4", views / "cam3.mp4")
    with pytest.raises(SourceError, match=r"cam1\.mp4 and cam3\.mp4 hold the same video"):
        find_recordings(own)
    (views / "cam3.mp4").unlink()
    write_video(views / "CAM2.mkv", Room(**SMALL).images()[:5])
    with pytest.raises(SourceError, match=r"CAM2\.mkv and cam2\.mp4 are the same view twice"):
        find_recordings(own)


def test_a_name_that_cannot_be_shown_is_refused(own: Path) -> None:
    (own / "Ann").rename(own / "An\tn")
    with pytest.raises(SourceError, match=r"the name 'An\\tn' has unprintable characters"):
        find_recordings(own)


def test_all_unreadable_files_are_named_at_once(own: Path) -> None:
    shutil.copytree(own / "Ann", own / "Bo")
    empty = own / "Ann" / "walk 1" / "cam1.mp4"
    empty.write_bytes(b"")
    cut = own / "Bo" / "walk 1" / "cam2.mp4"
    cut.write_bytes(cut.read_bytes()[:3000])  # without its index, which is at the end
    with pytest.raises(SourceError) as raised:
        find_recordings(own)
    first, second = str(raised.value).splitlines()
    assert first.startswith(str(empty))
    assert "empty (0 bytes)" in first
    assert second.startswith(str(cut))
    assert "cannot be read as a video" in second


def test_noise_called_mp4_is_no_video(own: Path) -> None:
    (own / "Ann" / "walk 1" / "cam2.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    with pytest.raises(SourceError, match=r"cam2\.mp4: cannot be read as a video"):
        find_recordings(own)


def test_a_few_missing_images_are_clipped_with_a_warning_and_many_are_an_error(own: Path, tmp_path: Path) -> None:
    short = own / "Ann" / "walk 1" / "cam2.mp4"
    write_video(short, Room(seed=1, **SMALL).images()[:27])
    with pytest.raises(SourceError, match=r"cam2\.mp4 has 27 images, .*cam1\.mp4 30; .*at most 2.*--max-missing"):
        Videos(max_missing=2).import_to(tmp_path / "strict", own)
    summary = FAST.import_to(tmp_path / "capture", own)
    assert summary.notes == ("Ann/walk 1: clipped to the 27 images of cam2.mp4 (cam1.mp4 has 30)",)
    assert len(summary.capture.instants()) == 27
    assert (summary.capture.instants().rows >= 0).all()


def test_a_recording_too_short_to_hold_a_part_out_is_refused(tmp_path: Path) -> None:
    film(tmp_path / "footage", width=160, height=120, count=3)
    with pytest.raises(SourceError, match="3 images are too few to hold out the last 30%"):
        FAST.import_to(tmp_path / "capture", tmp_path / "footage")


def test_a_view_without_a_person_is_named_and_the_other_sequences_stay(own: Path, tmp_path: Path) -> None:
    nobody = own / "Ann" / "rest" / "cam1.mp4"
    write_video(nobody, [np.clip(Room(**SMALL).empty(), 0, 255).astype(np.uint8)] * 30)
    shutil.copy(own / "Ann" / "walk 1" / "cam2.mp4", own / "Ann" / "rest" / "cam2.mp4")
    first = FAST.import_to(tmp_path / "capture", own, workers=1)
    assert first.problems[0].startswith(f"{nobody}: no person was found")
    assert [(c.sequences, c.expected_sequences, c.images) for c in first.counts] == [(1, 2, 60)]
    path = boxes_csv(tmp_path / "boxes.csv", [("Ann", "rest", "cam1", 0, 40, 30, 60, 90)])
    boxed = Videos(size=48, boxes=path)  # the way out
    summary = boxed.import_to(tmp_path / "capture", own, workers=1)
    assert (summary.kept, summary.imported) == (("Ann/walk 1",), ("Ann/rest",))


def test_a_video_damaged_in_the_middle_is_named_with_its_counts(own: Path, tmp_path: Path) -> None:
    path = own / "Ann" / "walk 1" / "cam2.mkv"
    write_video(path, Room(seed=1, **SMALL).images())
    (own / "Ann" / "walk 1" / "cam2.mp4").unlink()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"cam2\.mkv has 1\d images, .*cam1\.mp4 30"):
        FAST.import_to(tmp_path / "capture", own)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"every": 0}, "every ≥ 1"),
        ({"margin": 0.5}, "margin 1–4"),
        ({"test_fraction": 1.0}, "0 ≤ test_fraction < 1"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Videos(**setting)


def test_an_unreadable_recording_is_reported_and_imported_once_repaired(own: Path, tmp_path: Path) -> None:
    shutil.copytree(own / "Ann", own / "Bo")
    whole = FAST.import_to(tmp_path / "whole", own, workers=1)
    cut = own / "Bo" / "walk 1" / "cam2.mp4"
    cut.write_bytes(b"")
    first = FAST.import_to(tmp_path / "capture", own, workers=1)
    assert first.imported == ("Ann/walk 1",)
    assert [problem.startswith(f"{cut}: the file is empty") for problem in first.problems] == [True]
    assert [(c.subject, c.sequences, c.expected_sequences) for c in first.counts] == [("Ann", 1, 1), ("Bo", 0, 1)]
    assert len(first.capture.instants("test")) == 9
    shutil.copy(own / "Ann" / "walk 1" / "cam2.mp4", cut)
    mended = FAST.import_to(tmp_path / "capture", own, workers=1)
    assert (mended.kept, mended.imported, mended.problems) == (("Ann/walk 1",), ("Bo/walk 1",), ())
    assert mended.capture.fingerprint == whole.capture.fingerprint
    cut.write_bytes(b"")
    again = FAST.import_to(tmp_path / "capture", own, workers=1)
    assert (len(again.problems), again.capture.fingerprint) == (1, whole.capture.fingerprint)


def test_a_stop_while_the_person_is_looked_for_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    class StopEarly(Stop):
        steps = 0

        def advance(self, steps: int = 1) -> None:
            self.steps += steps
            if self.steps == 40:  # in the second view
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FAST.import_to(tmp_path / "capture", folder, StopEarly(at=""), workers=1)
    assert not (tmp_path / "capture" / "frames.lance" / "data").exists()
    assert FAST.import_to(tmp_path / "capture", folder, workers=1).imported == ("Ann/walk 1",)
