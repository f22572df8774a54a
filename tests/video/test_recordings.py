"""Folders as they come: chapters of one take, unknown endings, names in NFD, clips that one camera numbers."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filming import write_video

from mcss.errors import SourceError
from mcss.images import write_image
from mcss.inference.predict import input_files
from mcss.video.person_crops import FrameReader
from mcss.video.reading.chapters import chapters_of
from mcss.video.reading.decoding import decoded_frames, images, probe
from mcss.video.recordings import find_recordings, left_out_note, video_files
from mcss.video.sync.clocks import timeline


def brightness(values: list[int]) -> list[np.ndarray]:
    return [np.full((48, 64, 3), value, np.uint8) for value in values]


def means(path: Path) -> list[float]:
    return [float(image.mean()) for image in images(path)]


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
    (note,) = left_out_note(tmp_path)
    assert "c.heic, d.gif; convert them to mp4 if they are views" in note
    (tmp_path / "c.heic").unlink()
    (tmp_path / "d.gif").unlink()
    assert left_out_note(tmp_path) == []


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
    assert "S1/walk/notes.xyz" in left_out_note(footage)[0]
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


def test_a_few_images_beside_videos_are_no_view(tmp_path: Path) -> None:
    for i in range(4):
        write_image(tmp_path / f"shot{i}.jpg", brightness([50])[0])
    for view in ("left", "right"):
        write_video(tmp_path / f"{view}.mp4", brightness([5, 40 if view == "left" else 90]))
    (recording,) = find_recordings(tmp_path)
    assert [view.name for view in recording.views] == ["left", "right"]
