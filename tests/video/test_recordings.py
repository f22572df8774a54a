"""Folders as they come: chapters of one take, unknown endings, names in NFD, clips that one camera numbers."""

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from filming import write_video

from mcss.errors import SourceError
from mcss.images import write_image
from mcss.inference.predict import input_files
from mcss.sources.videos.video_sequence import number_note, views_in_step
from mcss.video.person_crops import FrameReader
from mcss.video.reading.chapters import chapters_of, is_later_chapter
from mcss.video.reading.decoding import decoded_frames, images, probe
from mcss.video.reading.scan import Scan
from mcss.video.recordings import find_recordings, left_out_notes, video_files
from mcss.video.sync.clocks import clocks_of_numbers, timeline


def brightness(values: list[int]) -> list[np.ndarray]:
    return [np.full((48, 64, 3), value, np.uint8) for value in values]


def means(path: Path) -> list[float]:
    return [float(image.mean()) for image in images(path)]


@pytest.mark.parametrize("name", ["left_{}0123.MP4", "{}0123-left.mp4", "cam 1 {}0123 day2.MP4"])
def test_chapters_are_known_beside_the_name_of_the_camera(name: str, tmp_path: Path) -> None:
    for kinds in (("GX01", "GX02"), ("GOPR", "GP01")):
        paths = [tmp_path / name.format(kind) for kind in kinds]
        for path in paths:
            path.touch()
        assert chapters_of(paths[0]) == tuple(paths)
        assert is_later_chapter(paths[1])


def test_gopro_chapters_are_one_video_that_goes_on(tmp_path: Path) -> None:
    for camera, add in ((1, 0), (2, 20)):
        write_video(tmp_path / f"GX01000{camera}.MP4", brightness([40 + add, 60 + add, 80 + add]))
        write_video(tmp_path / f"GX02000{camera}.MP4", brightness([120 + add, 140 + add]))
    (recording,) = find_recordings(tmp_path)
    assert [(view.name, view.count) for view in recording.views] == [("GX010001", 5), ("GX010002", 5)]
    first = recording.views[0]
    np.testing.assert_allclose(first.seconds, np.arange(5) / 25, atol=1e-6)
    assert first.evenly_timed
    np.testing.assert_allclose(means(first.path), [40, 60, 80, 120, 140], atol=3)
    assert [picture.number for picture in decoded_frames(first.path)] == list(range(5))
    assert [file.path.name for file in input_files(tmp_path)] == ["GX010001.MP4", "GX010002.MP4"]


def test_older_gopro_names_and_missing_chapters(tmp_path: Path) -> None:
    for name in ("GOPR0123.MP4", "GP010123.mp4", "GP020123.MP4", "GP040123.MP4", "GOPR0124.MP4"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in chapters_of(tmp_path / "GOPR0123.MP4")] == [
        "GOPR0123.MP4",
        "GP010123.mp4",
        "GP020123.MP4",
    ]
    assert chapters_of(tmp_path / "GOPR0124.MP4") == (tmp_path / "GOPR0124.MP4",)
    assert chapters_of(tmp_path / "left.mp4") == (tmp_path / "left.mp4",)
    names = [path.name for path in video_files(tmp_path)[(tmp_path.name, tmp_path.name)]]
    assert names == ["GOPR0123.MP4", "GOPR0124.MP4", "GP040123.MP4"]  # the last one lacks those before it


@pytest.mark.parametrize(
    "names",
    [
        ("DJI_0007.MP4", "DJI_0008.MP4"),
        ("DJI_0001_001.MP4", "DJI_0001_002.mp4"),
        ("DJI_20240101120000_0001_D.MP4", "DJI_20240101121730_0002_D.MP4"),
        ("00000.MTS", "00001.MTS", "00002.MTS"),
        ("MVI_0001.MP4", "MVI_0002.MP4"),
        ("C0001.MP4", "C0002.MP4"),
        ("VID_20240101_120000_00_001.mp4", "VID_20240101_120000_00_002.mp4"),
        ("GXAA0001.MP4", "GXAB0001.MP4"),
        ("DJI_0007.MP4", "DJI_0008.MP4", "left.mp4"),
    ],
)
def test_clips_that_one_camera_numbers_are_not_taken_for_views(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"are numbered like clips that one camera recorded .*ffmpeg -f concat"):
        find_recordings(tmp_path)


def test_files_of_other_kinds_are_named_as_left_out(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.ts", "c.heic", "d.gif", "poses.c3d", "notes.txt", "sync.json", ".hidden.gif"):
        (tmp_path / name).write_bytes(b"x")
    (note,) = left_out_notes(tmp_path)
    assert "c.heic, d.gif; convert them to mp4 if they are views" in note
    (tmp_path / "c.heic").unlink()
    (tmp_path / "d.gif").unlink()
    assert left_out_notes(tmp_path) == []
    (tmp_path / "walk.trc").write_bytes(b"x")
    (tmp_path / "poses.xlsx").write_bytes(b"x")
    labels, sheet = left_out_notes(tmp_path)
    assert "not read as labels: walk.trc; 3D labels of a recording lie beside its videos as poses.trc" in labels
    assert "poses.xlsx: not read; save it as poses.csv" in sheet


@pytest.mark.parametrize("suffix", [".ts", ".3gp", ".mxf", ".flv"])
def test_more_endings_are_videos(tmp_path: Path, suffix: str) -> None:
    codec = {".mxf": "mpeg2video", ".flv": "flv", ".ts": "mpeg2video"}.get(suffix, "mpeg4")
    write_video(tmp_path / f"v{suffix}", brightness([50] * 6), codec=codec)
    assert (probe(tmp_path / f"v{suffix}").count, probe(tmp_path / f"v{suffix}").rate) == (6, 25.0)


def test_names_are_composed_however_the_file_system_spells_them(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "José")
    for view, value in (("Köln", 50), ("left", 90)):
        write_video(tmp_path / apart / "walk" / f"{unicodedata.normalize('NFD', view)}.mp4", brightness([5, value]))
    (recording,) = find_recordings(tmp_path)
    assert recording.subject == "José"
    assert sorted(view.name for view in recording.views) == ["Köln", "left"]


def test_linked_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    disk, footage = tmp_path / "disk", tmp_path / "footage"
    (disk / "walk").mkdir(parents=True)
    footage.mkdir()
    for camera, value in (("a", 60), ("b", 80)):
        write_video(disk / "walk" / f"{camera}.mp4", brightness([40, value]))
    (disk / "walk" / "notes.xyz").touch()
    (disk / "walk" / "back").symlink_to(footage)
    (footage / "S1").symlink_to(disk)
    (found,) = find_recordings(footage)
    assert (found.subject, found.sequence, [view.name for view in found.views]) == ("S1", "walk", ["a", "b"])
    assert "S1/walk/notes.xyz" in left_out_notes(footage)[0]
    assert [file.name for file in input_files(footage)] == ["S1/walk/a", "S1/walk/b"]


def test_outputs_of_files_that_share_a_stem_are_distinct_and_overlays_no_inputs(tmp_path: Path) -> None:
    for name in ("IMG_1.jpg", "IMG_1.JPG", "img_1.png", "b.jpg", "b_overlay.jpg", "b.json", "c_overlay.jpg"):
        (tmp_path / name).write_bytes(b"x")
    files = {file.path.name: file.name for file in input_files(tmp_path)}
    assert set(files) == {"IMG_1.jpg", "IMG_1.JPG", "img_1.png", "b.jpg", "c_overlay.jpg"}
    assert len({name.casefold() for name in files.values()}) == 5
    assert files["b.jpg"] == "b"
    assert sorted(files[name] for name in ("IMG_1.jpg", "IMG_1.JPG")) == ["IMG_1_jpg", "IMG_1_jpg_2"]


def test_a_folder_of_numbered_images_is_a_view_and_a_missing_number_a_lost_picture(tmp_path: Path) -> None:
    for view in ("left", "right"):
        (tmp_path / view).mkdir()
        for i in range(1, 13):
            if (view, i) != ("right", 5):
                write_image(tmp_path / view / f"img_{i:06d}.png", brightness([10 * i])[0])
    (recording,) = find_recordings(tmp_path, image_rate=50.0)
    left, right = recording.views
    assert (left.name, left.count, left.rate, left.width, left.height) == ("left", 12, 50.0, 64, 48)
    assert (right.count, right.evenly_timed) == (11, False)
    assert [round(mean) for mean in means(right.path)] == [10 * i for i in range(1, 13) if i != 5]
    line = timeline(recording, None, 1)
    assert line.frames.tolist() == list(range(12))
    assert np.flatnonzero(~line.seen["right"]).tolist() == [4]
    reader = FrameReader(right)
    assert [float(image.y.mean()) < 60 for number in (2, 6) if (image := reader.image(number))] == [True, False]


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        (lambda i: f"{i:04d}_cam2", 25.0),  # the last number is the camera's
        (lambda i: f"frame{3 * i}_640x480", 25 / 3),  # every third image was kept
        (lambda i: str(1_700_000_000_000_000_000 + 20_000_000 * i), 50.0),  # nanoseconds
        (lambda i: str(1_700_000_000_000 + 40 * i), 25.0),  # milliseconds
        (lambda i: str(133_485_408_000_000_000 + 400_000 * i), 25.0),  # Windows's FILETIME
        (lambda i: str(123_456_789_012 + 40_000 * i), 25.0),  # microseconds since the machine was started
        (lambda i: f"20240101_12000{(80 + 10 * i) // 100}_{(8 + i) % 10}00000", 10.0),
        (lambda i: f"2024-01-01_12-00-{(80 + 10 * i) // 100:02d}-{(80 + 10 * i) % 100:02d}0", 10.0),
        (lambda i: f"{1_700_000_000 + (80 + 10 * i) // 100}.{(80 + 10 * i) % 100:02d}", 10.0),  # zeros left out
        (lambda i: f"{1_700_000_000 + (8 + i) // 10}_{(8 + i) % 10 * 100_000_000}", 10.0),  # nanoseconds, not padded
        (lambda i: f"20240101_120000_{i:03d}", 25.0),  # counts the images
        (lambda i: f"DSC_{9995 + i if i < 5 else i - 4:04d}", 25.0),  # begins anew after 9999
    ],
)
def test_the_number_of_an_image_is_the_last_one_that_differs_or_its_time(
    name: Callable[[int], str], rate: float, tmp_path: Path
) -> None:
    (tmp_path / "left").mkdir()
    for i in range(10):
        write_image(tmp_path / "left" / f"{name(i)}.png", brightness([20 * i])[0])
    view = probe(tmp_path / "left")
    assert (view.count, view.evenly_timed) == (10, True)
    assert view.rate == pytest.approx(rate)
    assert [round(mean) for mean in means(view.path)] == [20 * i for i in range(10)]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (range(3, 23), range(23), 3),  # one counter: the left camera lost its first pictures
        (range(1_000_120, 1_000_920, 40), range(1_000_000, 1_000_800, 40), None),  # two counters, with steps of 40
        ([1_700_000_000_120 + 40 * i for i in range(20)], [1_700_000_000_000 + 40 * i for i in range(20)], 3),
    ],
)
def test_folders_of_images_with_one_counter_or_clock_are_in_step_by_their_numbers(
    left: Sequence[int], right: Sequence[int], expected: int | None, tmp_path: Path
) -> None:
    for view, numbers in (("left", left), ("right", right)):
        (tmp_path / view).mkdir()
        for number in numbers:
            write_image(tmp_path / view / f"{number:06d}.png", brightness([50])[0])
    (recording,) = find_recordings(tmp_path)
    clocks = clocks_of_numbers(recording)
    if expected is None:
        assert clocks is None
        assert "are taken to show the same instant" in views_in_step(recording, 5)[0]
        return
    assert clocks is not None
    line = timeline(recording, clocks, 1)
    assert (line.images["left"][0], line.images["right"][0]) == (0, expected)
    assert "left 0.120 s after right" in number_note(recording, clocks)


def test_why_a_folder_of_images_is_no_view_is_told(tmp_path: Path) -> None:
    for i in range(8):
        for view in ("left", "right"):
            write_image(tmp_path / f"{view}_{i:04d}.png", brightness([50])[0])
    with pytest.raises(SourceError, match=r"left_0000\.png and right_0000\.png have the same number.*a folder of its"):
        find_recordings(tmp_path)


def test_a_few_images_that_share_a_time_stamp_lie_between_their_neighbours() -> None:
    stamps = [40 * i for i in range(20)] + [800 + 80 * i for i in range(20)]
    stamps[31] = stamps[30]
    stamps[39] = stamps[38]
    seconds = Scan(stamps, stamps, 1e-3, 1, [], stamped=True, filmed_at=None).times()
    assert seconds is not None
    assert seconds[30:33].tolist() == pytest.approx([1.6, 1.68, 1.76])
    assert (np.diff(seconds) > 0).all()
    shared = [0, 0, 40, 40, 80, 80]
    assert Scan(shared, shared, 1e-3, 1, [], stamped=True, filmed_at=None).times() is None


def test_a_few_images_beside_videos_are_no_view(tmp_path: Path) -> None:
    for i in range(4):
        write_image(tmp_path / f"shot{i}.jpg", brightness([50])[0])
    for view in ("left", "right"):
        write_video(tmp_path / f"{view}.mp4", brightness([5, 40 if view == "left" else 90]))
    (recording,) = find_recordings(tmp_path)
    assert [view.name for view in recording.views] == ["left", "right"]
