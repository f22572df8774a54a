"""Time is the picture's own stamp: lost pictures and variable or different rates keep views and labels in step."""

from pathlib import Path

import numpy as np
import pytest
from filming import Room, of_one_brightness, write_at
from pose_writing import walk

from mcss.data.capture import Capture
from mcss.data.formats.csv import write_csv
from mcss.data.formats.npz import write_npz
from mcss.errors import SourceError
from mcss.sources.videos.video_folder import Videos
from mcss.video.reading.decoding import probe
from mcss.video.reading.stamps import rate_of_stamps
from mcss.video.recordings import Recording
from mcss.video.sync.clocks import timeline

FAST = Videos(size=32, test_fraction=0.0)


def small_room(seed: int, count: int = 30) -> list[np.ndarray]:
    return Room(seed=seed, width=96, height=72, count=count).images()


def test_the_rate_is_one_over_the_median_step_however_long_the_last_picture_is_shown(tmp_path: Path) -> None:
    video = probe(write_at(tmp_path / "v.mp4", of_one_brightness(20), np.arange(20) / 25, last=1.04))
    assert video.rate == pytest.approx(25, rel=1e-6)
    assert video.evenly_timed
    np.testing.assert_allclose(video.seconds, np.arange(20) / 25, atol=1e-6)


def test_stamps_that_jitter_leave_the_rate_as_it_is_and_a_rate_that_varies_is_that_of_the_median_step() -> None:
    jitter = np.random.default_rng(1).uniform(-0.014, 0.014, 100)  # more than a third of a step
    assert rate_of_stamps(np.arange(100) / 25 + jitter, [30.0]) == pytest.approx(25, rel=0.01)
    steps = np.where(np.arange(100) % 3 == 0, 0.028, 0.020)
    assert rate_of_stamps(np.cumsum(steps), [30.0]) == pytest.approx(50)


def test_stamps_in_whole_milliseconds_give_the_exact_rate(tmp_path: Path) -> None:
    video = probe(write_at(tmp_path / "v.mkv", of_one_brightness(40), np.arange(40) * 1001 / 30000))
    assert video.rate == pytest.approx(30000 / 1001, rel=5e-4)  # a median step of 33 ms would be 30.3
    assert video.evenly_timed


def test_a_lost_picture_is_a_missing_view_of_its_instant(tmp_path: Path) -> None:
    kept = [i for i in range(30) if i not in (11, 12)]
    rooms = [small_room(seed) for seed in range(2)]
    write_at(tmp_path / "f" / "cam1.mp4", rooms[0], np.arange(30) / 25)
    write_at(tmp_path / "f" / "cam2.mp4", [rooms[1][i] for i in kept], np.array(kept) / 25)
    result = FAST.import_to(tmp_path / "capture", tmp_path / "f")
    instants = result.capture.instants()
    assert instants.frame.tolist() == list(range(30))
    np.testing.assert_allclose(instants.time, np.arange(30) / 25, atol=1e-6)
    assert np.flatnonzero(instants.rows[:, 1] < 0).tolist() == [11, 12]
    assert (instants.rows[:, 0] >= 0).all()
    assert any("cam2.mp4: its images are not evenly spaced" in n and "2 of 30 instants lack" in n for n in result.notes)
    assert not any("clipped" in note for note in result.notes)


def variable(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two views at 25 and then at 12.5 pictures a second."""
    seconds = np.concatenate([np.arange(20) / 25, 0.8 + np.arange(10) / 12.5])
    for seed in range(2):
        write_at(tmp_path / "f" / f"cam{seed + 1}.mp4", small_room(seed), seconds)
    return tmp_path / "f", seconds


def imported_times(capture: Capture) -> np.ndarray:
    return np.asarray(capture.instants().time)


def test_times_and_labels_of_a_variable_rate_are_those_of_the_stamps(tmp_path: Path) -> None:
    folder, seconds = variable(tmp_path)
    truth = walk(200, 100)
    write_npz(folder / "poses.npz", truth, np.arange(200) / 100, {})
    capture = FAST.import_to(tmp_path / "capture", folder).capture
    np.testing.assert_allclose(imported_times(capture), seconds, atol=1e-4)
    poses = capture.instants().pose
    np.testing.assert_allclose(poses, truth[np.rint(seconds * 100).astype(int)], atol=0.5)


def test_a_click_in_seconds_and_a_part_held_out_follow_the_stamps(tmp_path: Path) -> None:
    folder, seconds = variable(tmp_path)
    video = probe(folder / "cam1.mp4")
    assert [video.image_at(t) for t in (0.4, 0.8, 1.36)] == [10, 20, 27]
    held_out = Videos(size=32, test_fraction=0.5, gap=0.0).import_to(tmp_path / "capture", folder).capture
    np.testing.assert_allclose(held_out.instants("test").time, seconds[seconds > 0.78], atol=1e-4)


def test_labels_that_count_images_count_those_of_the_first_view(tmp_path: Path) -> None:
    folder, seconds = variable(tmp_path)
    truth = walk(200, 100)[np.rint(seconds * 100).astype(int)]
    write_csv(folder / "poses.csv", truth, np.arange(30), np.zeros(30), {})
    text = (folder / "poses.csv").read_text().replace("frame,time", "frame,unused")
    (folder / "poses.csv").write_text(text)
    poses = FAST.import_to(tmp_path / "capture", folder).capture.instants().pose
    np.testing.assert_allclose(poses, truth, atol=0.5)


def two_views(tmp_path: Path, rate: float, other: float, length: float) -> Recording:
    views = [
        probe(write_at(tmp_path / f"{r}.mp4", of_one_brightness(round(length * r)), np.arange(round(length * r)) / r))
        for r in (rate, other)
    ]
    return Recording("Ann", "walk", tuple(views))


def test_rates_that_come_to_nothing_over_the_length_pair_image_by_image(tmp_path: Path) -> None:
    line = timeline(two_views(tmp_path, 29.97, 30.02, 2.0), None, 1)
    assert [images.tolist() for images in line.images.values()] == [list(range(60))] * 2


def test_rates_that_differ_pair_the_images_nearest_in_time(tmp_path: Path) -> None:
    line = timeline(two_views(tmp_path, 25, 50, 1.0), None, 1)
    assert (line.rate, line.frames.tolist()) == (25, list(range(25)))
    assert [images.tolist() for images in line.images.values()] == [list(range(25)), list(range(0, 50, 2))]


def test_views_of_other_rates_are_imported_with_a_note(tmp_path: Path) -> None:
    write_at(tmp_path / "f" / "cam1.mp4", small_room(0), np.arange(30) / 25)
    write_at(tmp_path / "f" / "cam2.mp4", small_room(1, 36), np.arange(36) / 30)
    result = FAST.import_to(tmp_path / "capture", tmp_path / "f")
    assert any("cam1.mp4 has 25 images per second, cam2.mp4 30: each instant takes" in note for note in result.notes)
    write_at(tmp_path / "f" / "cam2.mp4", small_room(1, 60), np.arange(60) / 30)
    with pytest.raises(SourceError, match=r"cam1\.mp4 has 30 images in 1\.16 s, .*cam2\.mp4 60 in 1\.97 s; "):
        FAST.import_to(tmp_path / "other", tmp_path / "f")


def test_a_table_of_times_beside_the_videos_is_said_not_to_be_read(tmp_path: Path) -> None:
    for seed in range(2):
        write_at(tmp_path / "f" / f"cam{seed + 1}.mp4", small_room(seed), np.arange(30) / 25)
    (tmp_path / "f" / "cam2_timestamps.csv").write_text("frame,time\n0,0.0\n")
    notes = FAST.import_to(tmp_path / "capture", tmp_path / "f").notes
    assert [note for note in notes if "cam2_timestamps.csv: is not read" in note]
