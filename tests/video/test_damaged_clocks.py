"""Files whose clock or whose images are damaged: every image keeps its time, and what cannot be read is passed over."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filming import Room, of_one_brightness, write_at

from mcss.inference.locate import locate_in_video
from mcss.progress import NO_PROGRESS
from mcss.sources.videos.video_folder import Videos
from mcss.video.reading.decoding import VideoFile, decoded_count, decoded_times, images, pictures_of, probe
from mcss.video.reading.oddities import oddities
from mcss.video.sync.motion import motion_profile

COUNT = 40
EVEN = np.arange(COUNT) / 25


def write(
    path: Path,
    seconds: Sequence[float] | np.ndarray = EVEN,
    shots: Sequence[np.ndarray] | None = None,
    **how: Any,
) -> Path:
    return write_at(path, shots or of_one_brightness(len(seconds)), seconds, **how)


def joined(path: Path, *parts: Path) -> Path:
    """Write files one after the other, as `cat` does."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def shown(video: VideoFile) -> list[tuple[int, int]]:
    """The number that each decoded image is given, and the number that its brightness tells."""
    return [(p.number, round(float(p.rgb().mean()) / 4)) for p in pictures_of(video)]


def test_reordered_images_of_an_avi_are_numbered_in_the_order_in_which_they_are_shown(tmp_path: Path) -> None:
    video = probe(write(tmp_path / "v.avi", bf=3, tick=Fraction(1, 25)))
    assert not video.stamped
    assert shown(video) == [(i, i) for i in range(COUNT)]
    np.testing.assert_allclose(decoded_times(video), EVEN, atol=1e-6)


@pytest.mark.parametrize("gap", [0.02, -0.5, -1.6])
def test_a_clock_that_is_set_back_makes_even_times_of_the_usual_rate(tmp_path: Path, gap: float) -> None:
    parts = [write(tmp_path / f"{i}.ts", EVEN[:20] + start) for i, start in enumerate((5, 5 + 0.8 + gap - 0.8))]
    video = probe(joined(tmp_path / "v.ts", *parts))
    assert video.stamps is None
    assert video.rate == pytest.approx(25)
    np.testing.assert_allclose(decoded_times(video), EVEN, atol=1e-6)
    assert "begin anew" in oddities(video)[0]
    assert video.origins == pytest.approx((5,), abs=0.1)  # sound lies where the images began


def test_a_long_pause_leaves_the_usual_rate(tmp_path: Path) -> None:
    video = probe(write(tmp_path / "v.mp4", np.where(EVEN < 1, EVEN, EVEN + 130)))
    assert video.stamps is None
    assert video.rate == pytest.approx(25)
    assert video.seconds[-1] == pytest.approx(EVEN[-1])


@pytest.mark.parametrize(("codec", "suffix", "group"), [("libx264", ".mp4", 12), ("ffv1", ".mkv", 1)])
def test_an_image_that_cannot_be_decoded_is_passed_over(tmp_path: Path, codec: str, suffix: str, group: int) -> None:
    video = probe(write(tmp_path / f"v{suffix}", codec=codec, damaged=[13], group=group))
    found = shown(video)
    assert COUNT - 12 <= len(found) < COUNT
    assert found[-1] == (COUNT - 1, COUNT - 1)
    assert all(
        number == told for number, told in found if number < 13 or number >= 24
    )  # others of its group may differ
    assert decoded_count(video.path) == len(list(images(video.path))) == len(found)


def test_a_recording_that_begins_within_a_group_of_images_is_imported_from_the_first_whole_one(tmp_path: Path) -> None:
    rooms = [Room(seed=seed, width=96, height=72, count=COUNT).images() for seed in range(2)]
    write(tmp_path / "f" / "cam1.ts", shots=rooms[0])
    write(tmp_path / "f" / "cam2.ts", shots=rooms[1], lost=range(3))
    result = Videos(size=32, test_fraction=0.0).import_to(tmp_path / "capture", tmp_path / "f")
    instants = result.capture.instants()
    assert np.flatnonzero(instants.rows[:, 1] < 0).tolist() == list(range(9))
    assert any("begins in the middle of a group of images, the first 9" in note for note in result.notes)


@pytest.mark.parametrize("lost", [range(3), range(12, 14)])
def test_motion_lies_at_the_times_of_the_images_that_can_be_decoded(tmp_path: Path, lost: range) -> None:
    room = Room(width=96, height=72, count=COUNT).images()
    whole = probe(write(tmp_path / "whole.ts", shots=room))
    cut = probe(write(tmp_path / "cut.ts", shots=room, lost=lost))
    with NO_PROGRESS.task("", 1) as task:
        profiles = [motion_profile(video, 60.0, task).at_rate(25.0) for video in (whole, cut)]
    ends = slice(28, 38)  # both have decoded this part; the cut file's clock begins with its first packet
    shift = len(lost) if lost.start == 0 else 0
    one, other = profiles[0][:, ends], profiles[1][:, 28 - shift : 38 - shift]
    assert np.abs(one - other).max() < 0.2 * np.abs(one).max()


@pytest.mark.parametrize(
    ("suffix", "change"),
    [
        (".mkv", lambda seconds: seconds * 25 * 1001 / 30000),
        (".mkv", lambda seconds: seconds + np.where(seconds < 0.8, 0, 0.4)),
        (".mp4", lambda seconds: seconds + 4),
        (".mp4", lambda seconds: np.where(seconds > 0, seconds + 5000, 0)),
    ],
    ids=["whole milliseconds", "a gap", "late", "leaps"],
)
def test_predictions_are_at_the_times_that_an_import_gives(
    tmp_path: Path, suffix: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = write(tmp_path / f"v{suffix}", change(EVEN))
    video = probe(path)
    with NO_PROGRESS.task("", 1) as task:
        located = locate_in_video(path, (5.0, 5.0, 30.0, 30.0), None, task)
    np.testing.assert_allclose(located.time, video.seconds, atol=1e-9)
    if video.evenly_timed:
        assert 1 / np.median(np.diff(located.time)) == pytest.approx(video.rate)


def test_predictions_note_what_an_import_notes(tmp_path: Path) -> None:
    slow = write(tmp_path / "v.mp4", metadata={"com.android.capture.fps": "100.000000"})
    with NO_PROGRESS.task("", 1) as task:
        notes = locate_in_video(slow, (5.0, 5.0, 30.0, 30.0), None, task).notes
    assert any("filmed 100 images per second, of which the file shows 25: its times are 4 times" in n for n in notes)
    assert not oddities(probe(write(tmp_path / "real.mp4", metadata={"com.android.capture.fps": "25.0"})))
