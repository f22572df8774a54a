from pathlib import Path

import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.labels import Labels, label_views, labelled_images, select_labels
from mcss.data.writer import CaptureWriter


def chosen_of(capture: Capture, text: str) -> dict[str, int]:
    instants = capture.instants()
    chosen = select_labels(instants, Labels.parse(text))
    return {s: int(chosen[instants.subject == i].sum()) for i, s in enumerate(instants.subjects)}


@pytest.mark.parametrize("text", ["S1", "S1:0.1", "S1,S5", "S1:0.25,S5", "all", "all:0.5", "none"])
def test_a_spec_reads_back_as_it_was_written(text: str) -> None:
    assert str(Labels.parse(text)) == text


def test_each_spec_picks_its_subjects_and_shares(tiny_capture: Capture) -> None:
    assert chosen_of(tiny_capture, "S1") == {"S1": 48, "S2": 0, "S3": 0}
    assert chosen_of(tiny_capture, "S1:0.1") == {"S1": 5, "S2": 0, "S3": 0}
    assert chosen_of(tiny_capture, "S1:0.5, S3") == {"S1": 24, "S2": 0, "S3": 48}
    assert chosen_of(tiny_capture, "all") == {"S1": 48, "S2": 48, "S3": 48}
    assert chosen_of(tiny_capture, "all:0.25") == {"S1": 12, "S2": 12, "S3": 12}
    assert chosen_of(tiny_capture, "none") == {"S1": 0, "S2": 0, "S3": 0}
    assert chosen_of(tiny_capture, "S1:0.001")["S1"] == 1


def test_a_share_is_spread_evenly_in_time_over_each_sequence(tiny_capture: Capture) -> None:
    shuffled = tiny_capture.instants().take(np.random.default_rng(0).permutation(144))
    chosen = shuffled.take(select_labels(shuffled, Labels.parse("S2:0.25")))
    for sequence in (0, 1):
        frames = np.sort(chosen.frame[chosen.sequence == sequence])
        assert frames.tolist() == [2, 6, 10, 14, 18, 22]


def test_label_views_leave_out_the_images_of_other_views(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants("train")
    images = labelled_images(instants, Labels.parse("S1"), views=("3", "1"))
    assert images.sum(axis=0).tolist() == [48, 0, 48, 0]
    assert label_views(instants, ("3", "1", "3")).tolist() == [2, 0]
    assert labelled_images(instants, Labels.parse("S1")).sum() == 48 * 4


def test_only_instants_with_a_pose_and_an_image_can_be_chosen(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path, info=INFO)
    writer.append([f for f in stick_part(0, 0, instants=6) if not (f.frame < 2 and f.view == "2")])
    writer.append(stick_part(0, 1, instants=6, labelled=False))
    writer.append(stick_part(1, 0, instants=6, labelled=False))
    instants = writer.finish().instants()
    assert select_labels(instants, Labels.parse("all")).tolist() == [True] * 6 + [False] * 12
    assert labelled_images(instants, Labels.parse("S1")).sum() == 22
    assert select_labels(instants, Labels.parse("S1"), views=("2",)).sum() == 4
    with pytest.raises(ValueError, match="no instant of S2 has a pose with a heading"):
        select_labels(instants, Labels.parse("S2"))
    with pytest.raises(ValueError, match="all was asked for, but no instant has a pose; use none"):
        select_labels(instants.take(instants.subject == 1), Labels.parse("all"))


def test_unknown_subjects_and_views_are_answered_with_those_there(tiny_capture: Capture) -> None:
    train = tiny_capture.instants("train")
    with pytest.raises(ValueError, match="no subject 'S3' to take labels from; there are S1, S2"):
        select_labels(train, Labels.parse("S3"))
    with pytest.raises(ValueError, match="no view '7'; there are 1, 2, 3, 4"):
        select_labels(train, Labels.parse("S1"), views=("7",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read ''"),
        ("S1,,S2", "cannot read"),
        ("S1,none", "cannot read"),
        ("S1:", "the share '' of S1 is not a number"),
        ("S1:ten", "the share 'ten' of S1 is not a number; write subjects"),
        ("S1:0", r"expected a share of S1 in \(0, 1\], got 0"),
        ("S1:1.5", "got 1.5"),
        ("S1:nan", "got nan"),
        ("S1,S1:0.5", "names S1 twice"),
        ("all,S1", "twice"),
    ],
)
def test_unreadable_specs_say_what_can_be_written(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels.parse(text)
