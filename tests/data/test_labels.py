from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from mcss.data.capture import Capture
from mcss.data.labels import (
    POSE_COLUMNS,
    Labels,
    label_views,
    labelled_images,
    select_labels,
    with_label_poses,
    write_instants,
    write_poses,
)
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


def test_a_file_may_give_poses_in_place_of_those_of_the_capture(tiny_capture: Capture, tmp_path: Path) -> None:
    instants = tiny_capture.instants()
    path, some = tmp_path / "poses.csv", instants.take(np.array([5, 2, 130]))
    write_poses(path, some, some.pose + np.array([0, 0, 1000], np.float32), np.array([0.5, 1, 0.25]))
    labels = Labels.parse(f"@{path}")
    assert labels.listed == (("S1", "Walking 1", 5), ("S1", "Walking 1", 2), ("S3", "Waving 1", 10))
    changed = with_label_poses(instants, labels)
    expected = instants.pose.copy()
    expected[[5, 2, 130], :, 2] += 1000
    np.testing.assert_allclose(changed.pose, expected, atol=0.06)
    np.testing.assert_array_equal(instants.pose, tiny_capture.instants().pose)
    assert np.flatnonzero(select_labels(changed, labels)).tolist() == [2, 5, 130]
    train = with_label_poses(tiny_capture.instants("train"), labels)  # S3 is not in it
    assert np.flatnonzero(select_labels(train, labels)).tolist() == [2, 5]


def test_poses_make_instants_usable_that_have_none_in_the_capture(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "capture", info=INFO)
    writer.append(stick_part(0, 0, instants=6, labelled=False))
    instants = writer.finish().instants()
    pose = np.array([stick_part(0, 0, instants=6)[4 * i].pose for i in range(6)], np.float32)
    pose[3, 4, :2] = pose[3, 0, :2]  # the left hip above the pelvis: a pose without a heading
    write_poses(tmp_path / "poses.csv", instants.take(np.arange(1, 5)), pose[1:5], np.ones(4))
    labels = Labels.parse(f"@{tmp_path / 'poses.csv'}")
    changed = with_label_poses(instants, labels)
    assert changed.heading_valid.tolist() == [False, True, True, False, True, False]
    assert select_labels(changed, labels).tolist() == [False, True, True, False, True, False]
    assert with_label_poses(instants, Labels.parse("all")) is instants


def pose_table(**cells: str) -> str:
    """A CSV with the pose of one instant, some of whose cells are others."""
    named = {"subject": "S1", "sequence": "Walking 1", "frame": "3", "confidence": "0.5"}
    named |= dict.fromkeys(POSE_COLUMNS, "1.5") | cells
    named = {name: cell for name, cell in named.items() if cell != "absent"}
    return ",".join(named) + "\n" + ",".join(named.values()) + "\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            pose_table(**{"LWrist.z": "absent"}),
            "has poses, but lacks the columns LWrist.z; expected x, y and z of all 17",
        ),
        (pose_table(**{"LWrist.z": ""}), "line 2: expected a number of mm for every joint; leave out lines"),
        (pose_table(**{"LWrist.z": "nan"}), "line 2: expected a number of mm"),
        (
            pose_table() + pose_table().splitlines()[1] + "\n",
            "line 3: S1/Walking 1 frame 3 has two poses; leave one out",
        ),
    ],
)
def test_files_of_poses_that_cannot_be_read(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "poses.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Labels.parse(f"@{path}")


def test_a_file_of_poses_of_another_capture_is_refused(tiny_capture: Capture, tmp_path: Path) -> None:
    path = tmp_path / "poses.csv"
    path.write_text(pose_table(subject="Ann"))
    labels = Labels.parse(f"@{path}")
    with pytest.raises(ValueError, match=r"1 of the 1 instants of .* such as Ann/Walking 1 frame 3"):
        select_labels(with_label_poses(tiny_capture.instants(), labels), labels)


def test_names_that_would_be_formulas_in_a_spreadsheet_are_written_as_text_and_read_back(tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "c", info=INFO)
    frames = [replace(frame, subject='=HYPERLINK("x")', sequence="-1+2") for frame in stick_part(0, 0, instants=2)]
    writer.append(frames)
    instants = writer.finish().instants()
    write_instants(tmp_path / "few.csv", instants)
    line = (tmp_path / "few.csv").read_text().splitlines()[1]
    assert line.startswith('"\'=HYPERLINK(""x"")",\'-1+2,0,')
    listed = Labels.parse(f"@{tmp_path / 'few.csv'}").listed
    assert [tuple(one[:3]) for one in listed] == [('=HYPERLINK("x")', "-1+2", 0), ('=HYPERLINK("x")', "-1+2", 1)]
