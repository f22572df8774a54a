from pathlib import Path

import cv2
import numpy as np
import pytest

from captures_for_tests import INFO, SIZE, stick_part
from mcss.data.capture import Capture
from mcss.data.contact_sheet import chosen_instants, contact_sheet, spread_instants
from mcss.data.writer import CaptureWriter
from mcss.errors import CaptureError
from mcss.images import write_image


def test_a_plain_sheet_is_the_images_row_by_row(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants().take(np.array([3, 40]))
    sheet = contact_sheet(tiny_capture, instants, size=SIZE, plain=True)
    assert sheet.shape == (2 * SIZE, 4 * SIZE, 3)
    for i in range(2):
        for view in range(4):
            cell = sheet[i * SIZE : (i + 1) * SIZE, view * SIZE : (view + 1) * SIZE]
            assert (cell == tiny_capture.decode(instants.rows[i, [view]])[0]).all()
    beside = contact_sheet(tiny_capture, instants, size=SIZE, across=2, plain=True)
    assert (beside == np.concatenate([sheet[:SIZE], sheet[SIZE:]], axis=1)).all()


def test_joints_lie_on_the_drawn_person(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants().take(np.arange(0, 144, 12))
    for view in range(4):
        rows = instants.rows[:, view]
        joints = tiny_capture.joints_in_crops(rows, instants.pose)
        for image, points in zip(tiny_capture.decode(rows), joints, strict=True):
            x, y = (points * SIZE).astype(int).T
            away = np.abs(image[y, x].astype(int) - (200, 190, 180)).sum(axis=1)
            assert (away > 60).mean() > 0.8


def test_skeletons_and_the_column_of_poses_are_drawn_where_they_are_known(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "c", info=INFO)
    writer.append(stick_part(0, 0, instants=2))
    writer.append([f for f in stick_part(1, 0, instants=2, labelled=False) if f.view != "2"])
    capture = writer.finish()
    both = contact_sheet(capture, capture.instants(), size=SIZE)
    assert both.shape[1] == 5 * SIZE
    unlabelled = capture.instants("train").take(np.array([2, 3]))
    sheet = contact_sheet(capture, unlabelled, size=SIZE)
    assert sheet.shape[1] == 4 * SIZE
    # The missing view is left empty, and an unlabelled image is shown as it is.
    assert (sheet[20 : 20 + SIZE - 8, SIZE : 2 * SIZE].std(axis=(0, 1)) == 0).all()
    assert (sheet[16 : 16 + SIZE, :SIZE] == capture.decode(unlabelled.rows[0, [0]])[0]).all()


def test_instants_are_spread_over_people_and_time(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants()
    picked = instants.take(spread_instants(instants, 8))
    assert np.bincount(picked.subject).tolist() == [3, 3, 2]
    for subject in range(3):
        assert len(set(picked.sequence[picked.subject == subject])) == 2
    assert len(spread_instants(instants, 1000)) == 144
    assert len(spread_instants(instants, 1)) == 1
    with pytest.raises(ValueError, match="expected 1 or more to show, got 0"):
        spread_instants(instants, 0)


def test_conditions_hold_together_and_unknown_ones_are_answered_with_those_there(tiny_capture: Capture) -> None:
    found = chosen_instants(tiny_capture, subjects=("S2",), actions=("Waving",), split="train")
    assert len(found) == 24
    assert found.present_subjects() == ("S2",)
    with pytest.raises(CaptureError, match="there is no 'S3' here; there are S1, S2"):
        chosen_instants(tiny_capture, subjects=("S3",), split="train")
    with pytest.raises(CaptureError, match="there is no 'Flying' here; there are Walking, Waving"):
        chosen_instants(tiny_capture, actions=("Flying",))


def test_sheets_are_written_as_their_name_says(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", pixels)
    read = cv2.imread(str(tmp_path / "new" / "a.png"))
    assert (read[..., ::-1] == pixels).all()
    with pytest.raises(ValueError, match=r"should end in \.jpg or \.png"):
        write_image(tmp_path / "a.gif", pixels)


def test_sizes_that_cannot_be_drawn(tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match=r"expected 16\.\.1024 pixels"):
        contact_sheet(tiny_capture, tiny_capture.instants(), size=4)
    with pytest.raises(ValueError, match="expected at least one to show"):
        contact_sheet(tiny_capture, tiny_capture.instants().take(np.array([], int)))
