from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from crowds import Crowd, Walker
from filming import Room, write_video

from mcss.cli import main
from mcss.errors import CaptureError, SourceError
from mcss.sources.videos.video_folder import Videos
from mcss.video import person_crops
from mcss.video.detectors import Detections
from mcss.video.recordings import find_recordings
from mcss.video.target import ClickedPoint, clicked_points


def right(t: float) -> float:
    return float(0.68 + 0.12 * np.sin(9 * t))


def left(t: float) -> float:
    return float(0.22 + 0.1 * np.sin(7 * t))


OTHER = Walker(left, 0.48, (60, 140, 60))
ROOMS = [Crowd(seed=k, width=160, height=120, count=30, place=right, walkers=(OTHER,)) for k in range(2)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of two people: a larger one on the right and a smaller one on the left."""
    root = tmp_path_factory.mktemp("pair")
    for k, room in enumerate(ROOMS):
        write_video(root / "Ann" / "duet 1" / f"cam{k + 1}.mp4", room.images())
    return root


def boxes_of(capture: Path, view: str) -> np.ndarray:
    import lance

    rows = lance.dataset(str(capture / "frames.lance")).to_table().to_pylist()
    return np.array([r["box"] for r in sorted(rows, key=lambda r: r["frame"]) if r["view"] == view])


def holds(boxes: np.ndarray, room: Crowd, other: bool) -> bool:
    """Return whether crops show this person, or the other one, but not both."""
    for i in (0, 10, 20, 29):
        middle = (boxes[i, 0] + boxes[i, 2]) / 2
        here, there = OTHER.place(i / 29) * 160, room.person(i)[0][5, 0]
        if (abs(middle - here) < abs(middle - there)) != other:
            return False
    return True


def test_the_largest_is_followed_unless_the_user_points_at_somebody_else(pair: Path, tmp_path: Path) -> None:
    done = Videos(size=48).import_to(tmp_path / "first", pair, workers=1)
    assert holds(boxes_of(tmp_path / "first", "cam1"), ROOMS[0], other=False)
    notes = [note for note in done.notes if "several people" in note]
    assert len(notes) == 2
    assert str(tmp_path / "first.tracks" / "Ann" / "duet 1.jpg") in notes[0]
    way_out = notes[0].partition("--click ")[2].partition(";")[0]
    assert way_out.startswith("cam1=")

    second = Videos(size=48, click=(way_out,))
    second.import_to(tmp_path / "second", pair, workers=1)
    assert holds(boxes_of(tmp_path / "second", "cam1"), ROOMS[0], other=True)
    assert holds(boxes_of(tmp_path / "second", "cam2"), ROOMS[1], other=False)  # without a click there
    with pytest.raises(CaptureError, match="begun with other settings"):
        Videos(size=48).import_to(tmp_path / "second", pair, workers=1)


def test_the_sheet_shows_each_view_with_everybody_numbered(pair: Path, tmp_path: Path) -> None:
    Videos(size=48).import_to(tmp_path / "capture", pair, workers=1)
    sheet = cv2.imread(str(tmp_path / "capture.tracks" / "Ann" / "duet 1.jpg"))
    assert sheet is not None
    assert sheet.shape[1] >= 5 * 320 * 0.99  # five images side by side
    green = (np.abs(sheet.astype(int) - (80, 200, 30)).max(axis=-1) < 40).any(axis=1)
    orange = (np.abs(sheet.astype(int) - (240, 130, 70)).max(axis=-1) < 40).any(axis=1)
    half = len(sheet) // 2
    for rows in (slice(0, half), slice(half, None)):
        assert green[rows].any()
        assert orange[rows].any()


def test_a_click_on_nobody_names_and_shows_the_people_who_could_be_clicked_on(pair: Path, tmp_path: Path) -> None:
    settings = Videos(size=48, click=("cam1=80,5@3",))
    with pytest.raises(SourceError) as raised:
        settings.import_to(tmp_path / "capture", pair, workers=1)
    message = str(raised.value)
    assert "cam1.mp4: nobody is found at 80,5@3; #1 is chosen by --click cam1=" in message
    assert "#2 is chosen by --click cam1=" in message
    assert str(tmp_path / "capture.tracks" / "Ann" / "duet 1.jpg") in message
    assert (tmp_path / "capture.tracks" / "Ann" / "duet 1.jpg").stat().st_size > 0


def test_the_command_takes_clicks_and_says_where_the_sheets_are(
    pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{OTHER.place(0) * 160:.0f},80"
    out = tmp_path / "capture"
    main(
        [
            *("import", "videos", str(pair), str(out), "--size", "48", "--processes", "1"),
            *("--click", f"cam1={place}@0s", f"Ann/duet 1/cam2={place}"),
        ]
    )
    for k in range(2):
        assert holds(boxes_of(out, f"cam{k + 1}"), ROOMS[k], other=True)
    assert f"{out}.tracks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("click", "message"),
    [
        ("cam9=10,10@0", r"there is no view 'cam9'; the views are: cam1, cam2"),
        ("Bo/duet 1/cam1=10,10", r"there is no view 'Bo/duet 1/cam1'"),
        ("cam1=160,10@0", r"outside the image of .*cam1\.mp4, which is 160×120"),
        ("cam1=10,-1@0", r"outside the image"),
        ("cam2=10,10@30", r"image 30 is not in .*cam2\.mp4, which has the images 0 to 29 at 25 per second"),
        ("cam2=10,10@1.2s", r"image 30 is not in"),
        ("cam2=10,10@-1", r"image -1 is not in"),
    ],
)
def test_an_impossible_click_is_refused_before_anything_is_written(
    pair: Path, tmp_path: Path, click: str, message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        Videos(size=48, click=(click,)).import_to(tmp_path / "capture", pair, workers=1)
    assert not (tmp_path / "capture").exists()


@pytest.mark.parametrize(
    "text", ["cam1", "cam1=10", "cam1=10,x@1", "=1,1@1", "cam1=1,1@", "cam1=nan,1@1", "cam1=1,1@1.5"]
)
def test_a_click_that_cannot_be_read_is_refused_with_the_syntax(text: str) -> None:
    with pytest.raises(ValueError, match=r"click: expected VIEW=X,Y@WHEN, such as left=640,380@12"):
        Videos(click=(text,))


def test_the_full_name_of_a_view_goes_before_its_short_one(pair: Path) -> None:
    clicks = clicked_points(find_recordings(pair), ["Ann/duet 1/cam2=7,8@0.4s", "cam2=1,2", "cam1=3,4"])
    assert clicks[("Ann", "duet 1", "cam1")] == ClickedPoint("cam1", 3.0, 4.0, 0.0, False)
    assert clicks[("Ann", "duet 1", "cam2")].image_number(find_recordings(pair)[0].views[1]) == 10


def test_settings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no detector to load them; choose one with --find"):
        Videos(detector_weights=tmp_path / "w.pth")
    with pytest.raises(ValueError, match="blazepose needs no empty scene"):
        Videos(find="blazepose", background=tmp_path)


class SameEverywhere:
    """A detector that finds the same box, as shares of width and height, in every image, or nobody."""

    def __init__(self, *share: float) -> None:
        self._share = share

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        sides = [(image.shape[1], image.shape[0]) * 2 for image in images]
        boxes = [[np.multiply(self._share, side)] if self._share else [] for side in sides]
        return [Detections.from_lists(box, [0.9] * len(box)) for box in boxes]


def test_a_camera_that_moves_is_no_trouble_for_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k, room in enumerate(Room(seed=k, width=160, height=120, count=12) for k in range(2)):
        panned = [np.roll(image, 5 * i, axis=1) for i, image in enumerate(room.images())]
        write_video(tmp_path / "footage" / f"cam{k}.mp4", panned)
    settings = Videos(size=48, find="blazepose", test_fraction=0.0)
    monkeypatch.setattr(person_crops, "_loaded_detector", lambda name, weights: SameEverywhere(0.5, 0.1, 0.8, 0.9))
    settings.import_to(tmp_path / "capture", tmp_path / "footage", workers=1)
    boxes = boxes_of(tmp_path / "capture", "cam0")
    np.testing.assert_allclose((boxes[:, 0] + boxes[:, 2]) / 2, 0.65 * 160, atol=2)
    monkeypatch.setattr(person_crops, "_loaded_detector", lambda name, weights: SameEverywhere())
    with pytest.raises(SourceError, match=r"no person was found in it \(by blazepose\); .*motion or another det"):
        settings.import_to(tmp_path / "none", tmp_path / "footage", workers=1)
