"""Label files that could be read in two ways: each is read in the right one, noted, or refused with the way out."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pose_writing import POSE2SIM, pose2sim_markers, walk, write_bvh, write_c3d, write_csv, write_trc, y_up

from mcss.data.formats.csv import read_csv
from mcss.data.formats.joint_names import joints_of
from mcss.data.formats.keypoint_layouts import BLAZEPOSE, BODY_25
from mcss.data.formats.npy import KINECT
from mcss.data.formats.pose_files import read_pose_file
from mcss.errors import SourceError
from mcss.skeletons import JOINTS
from mcss.sources.videos.pose_labels import PoseSettings, RecordingLabels, read_labels

COUNT, RATE = 24, 25.0
WALK = walk(COUNT, RATE)
MARKERS = y_up(pose2sim_markers(WALK))
"""mm, +Y up."""
LIMBS = [k for k, name in enumerate(JOINTS) if name[0] in "LR"]


def checked(path: Path, lost: Sequence[int] = (), atol: float = 0.5) -> RecordingLabels:
    """Check that the limbs are those of the walk, and that there is no label where one is lost."""
    labels = read_labels(path, COUNT, RATE, PoseSettings(max_gap=0.05))
    expected = WALK.copy()
    expected[list(lost)] = np.nan
    np.testing.assert_allclose(labels.poses[:, LIMBS], expected[:, LIMBS], atol=atol)
    return labels


def cells_of(sample: np.ndarray, comma: bool = False) -> list[str]:
    cells = ["" if np.isnan(v) else f"{v:.3f}" for v in sample.ravel()]
    return [cell.replace(".", ",") for cell in cells] if comma else cells


def vicon(
    path: Path,
    names: Sequence[str] = POSE2SIM,
    places: np.ndarray = MARKERS,
    first: int = 1,
    separator: str = ",",
    left_out: Sequence[int] = (),
) -> Path:
    """Write what Vicon Nexus exports as ASCII."""
    rows = [
        *(["Trajectories"], ["25"], ["", "", *(cell for name in names for cell in (f"Ann:{name}", "", ""))]),
        *(["Frame", "Sub Frame", *"XYZ" * len(names)], ["", "", *["mm"] * 3 * len(names)]),
        *(
            [str(first + i), "0", *cells_of(sample, separator == ";")]
            for i, sample in enumerate(places)
            if i not in left_out
        ),
    ]
    path.write_text("\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n", newline="")
    return path


def motive(path: Path, names: Sequence[str] = POSE2SIM, places: np.ndarray = MARKERS, first: int = 0) -> Path:
    """Write what OptiTrack Motive exports of a take, or of a part that begins later."""
    three = [name for name in names for _ in "XYZ"]
    rows = [
        *(["Format Version", "1.23", "Export Frame Rate", "25.0", "Length Units", "Millimeters"], []),
        *(["", "Type", *["Marker"] * len(three)], ["", "Name", *three], ["", "ID", *three]),
        *(["", "", *["Position"] * len(three)], ["Frame", "Time (Seconds)", *"XYZ" * len(names)]),
        *([str(first + i), f"{(first + i) / RATE:.6f}", *cells_of(sample)] for i, sample in enumerate(places)),
    ]
    path.write_text("\r\n".join(",".join(row) for row in rows) + "\r\n", newline="")
    return path


def qualisys(
    path: Path,
    names: Sequence[str] = POSE2SIM,
    places: np.ndarray = MARKERS,
    header: bool = True,
    left_out: Sequence[int] = (),
) -> Path:
    """Write what Qualisys QTM exports, with the columns of frame and time or without a header."""
    rows = [[key, value] for key, value in (("NO_OF_FRAMES", str(len(places))), ("FREQUENCY", "25"))]
    rows += [["MARKER_NAMES", *names], ["TRAJECTORY_TYPES", *["Measured"] * len(names)]]
    rows += [["Frame", "Time", *(f"{name} {axis}" for name in names for axis in "XYZ")]] * header
    for i, sample in enumerate(places):
        rows += [[*[str(i + 1), f"{i / RATE:.5f}"] * header, *cells_of(sample)]] * (i not in left_out)
    path.write_text("\r\n".join("\t".join(row) for row in rows) + "\r\n", newline="")
    return path


# Which sample a line is


def test_a_line_of_qualisys_is_a_sample_even_if_markers_are_lost_in_it(tmp_path: Path) -> None:
    lost = MARKERS.copy()
    lost[5:8, 0] = np.nan  # the first cell is empty
    lost[12] = np.nan  # all cells are
    for header in (False, True):
        checked(qualisys(tmp_path / "poses.tsv", places=lost, header=header), [5, 6, 7, 12])


def test_lines_that_were_deleted_are_samples_that_nobody_knows(tmp_path: Path) -> None:
    checked(vicon(tmp_path / "poses.csv", first=101, left_out=[10]), [10])
    (tmp_path / "poses.csv").unlink()
    checked(qualisys(tmp_path / "poses.tsv", left_out=[3, 4]), [3, 4])
    lines = motive(tmp_path / "poses.csv").read_text().splitlines()
    (tmp_path / "poses.csv").write_text("\n".join(lines[:17] + lines[18:]))
    checked(tmp_path / "poses.csv", [10])
    lines = write_trc(tmp_path / "poses.trc", POSE2SIM, MARKERS / 1000, RATE).read_text().splitlines()
    lines[2] = lines[2].replace("\t24\t", "\t23\t")
    (tmp_path / "poses.trc").write_text("\n".join(lines[:15] + lines[16:]))
    checked(tmp_path / "poses.trc", [10])


def test_deleted_lines_count_with_a_rate_of_the_user_too(tmp_path: Path) -> None:
    path = vicon(tmp_path / "poses.csv", left_out=[10])
    labels = read_labels(path, COUNT, RATE, PoseSettings(rate=RATE, max_gap=0.05))
    assert np.flatnonzero(np.isnan(labels.poses).any(axis=(1, 2))).tolist() == [10]
    np.testing.assert_allclose(labels.poses[11:, LIMBS], WALK[11:, LIMBS], atol=0.5)


def test_the_first_sample_of_a_part_of_a_take_is_the_first_image_with_a_note(tmp_path: Path) -> None:
    labels = checked(motive(tmp_path / "poses.csv", first=20))
    assert any(
        "its first sample is frame 20, at 0.8 s of the take, and is taken as the first image; if the videos begin with "
        "the take, give --poses.offset 0.8" in note
        for note in labels.notes
    )
    later = read_labels(motive(tmp_path / "poses.csv", first=20), COUNT + 20, RATE, PoseSettings(offset=0.8))
    np.testing.assert_allclose(later.poses[20:, LIMBS], WALK[:, LIMBS], atol=0.5)  # the way out
    labels = checked(vicon(tmp_path / "poses.csv", first=101))
    assert any("its first sample is frame 101, at 4 s of the take" in note for note in labels.notes)
    assert not any("first sample" in note for note in checked(vicon(tmp_path / "poses.csv")).notes)
    assert not any("first sample" in note for note in checked(motive(tmp_path / "poses.csv")).notes)


def test_many_more_samples_than_images_are_noted_with_the_rate_that_they_may_have(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "poses.csv", JOINTS, walk(240, 10 * RATE), list(range(240)), "Frame")
    notes = read_labels(path, COUNT, RATE).notes
    assert any("there are only 24 images" in note and "give it as --poses.rate (250 a second" in note for note in notes)
    labels = read_labels(path, COUNT, RATE, PoseSettings(rate=10 * RATE))  # the way out
    np.testing.assert_allclose(labels.poses, WALK, atol=0.5)
    assert not any("images" in note for note in labels.notes)
    path = write_csv(path, JOINTS, walk(COUNT + 2, RATE), list(range(COUNT + 2)), "Frame")
    assert not any("images" in note for note in read_labels(path, COUNT, RATE).notes)


# Which point a name is


@pytest.mark.parametrize("write", [vicon, motive, qualisys])
def test_a_name_that_comes_twice_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    twice = np.concatenate([MARKERS, MARKERS[:, :1] + 500], axis=1)
    path = write(tmp_path / "poses.csv", [*POSE2SIM, POSE2SIM[0]], twice)
    with pytest.raises(SourceError, match=r"the point '(Ann:)?RHip' comes twice; expected each name once: rename"):
        read_pose_file(path)


def test_a_trajectory_without_a_name_takes_its_columns_along(tmp_path: Path) -> None:
    names = [*POSE2SIM[:3], "", *POSE2SIM[3:]]
    places = np.insert(MARKERS, 3, 300.0, axis=1)
    for header in (False, True):
        path = qualisys(tmp_path / "poses.tsv", names, places, header)
        assert read_pose_file(path).names == POSE2SIM
        checked(path)


def test_markers_on_a_limb_are_not_its_joint(tmp_path: Path) -> None:
    names, joints = [name.replace("Foot", "Ankle") for name in JOINTS], {name: k for k, name in enumerate(JOINTS)}
    on_limbs = [
        (WALK[:, joints[side + one]] + WALK[:, joints[side + other]]) / 2 + [60, 0, 0]
        for side in "LR"
        for one, other in (("Hip", "Knee"), ("Shoulder", "Elbow"))
    ]
    more = [f"{side}{part}" for side in "LR" for part in ("Thigh", "UpperArm")]
    places = y_up(np.concatenate([WALK, np.stack(on_limbs, axis=1)], axis=1)) / 1000
    checked(write_trc(tmp_path / "poses.trc", [*names, *more], places, RATE))


def test_bones_that_are_named_after_joints_are_still_bones() -> None:
    limbs = ("Thigh", "Shin", "Foot", "UArm", "FArm", "Hand", "Shoulder")  # Motive's shoulder is a collar bone
    names = ["Hip", "Ab", "Chest", "Neck", "Head", *(side + limb for side in "LR" for limb in limbs)]
    found = joints_of(Path("x"), names)
    assert [names[found[JOINTS.index(joint)].points[0]] for joint in ("LShoulder", "RHip")] == ["LUArm", "RThigh"]
    cmu = ["Hips", "Spine", "Neck", "Head", "Head_end"]
    for side in ("Left", "Right"):
        cmu += [f"{side[0]}HipJoint", *(side + limb for limb in ("UpLeg", "Leg", "Foot", "Shoulder", "Arm"))]
        cmu += [f"{side}ForeArm", f"{side}Hand"]
    found = joints_of(Path("x"), cmu)
    assert [cmu[found[JOINTS.index(joint)].points[0]] for joint in ("LShoulder", "RHip")] == ["LeftArm", "RightUpLeg"]


def test_several_people_in_a_column_are_refused_by_their_names(tmp_path: Path) -> None:
    path, other = tmp_path / "poses.csv", walk(COUNT, RATE, 1)
    long = ["frame,person_id,joint,x,y,z"]
    for i, pose in enumerate(WALK):  # one after the other, so that no point comes twice in a frame
        pose = pose if i < 12 else other[i]
        long += [f"{i},{int(i >= 12)},{name},{x},{y},{z}" for name, (x, y, z) in zip(JOINTS, pose, strict=True)]
    path.write_text("\n".join(long))
    with pytest.raises(SourceError, match=r"poses\.csv: expected one person, got 2 in its column 'person_id': 0, 1;"):
        read_csv(path)
    wide = [",".join(["Person", *(f"{name}_{axis}" for name in JOINTS for axis in "xyz")])]
    wide += [",".join([who, *cells_of(both[i])]) for i in range(COUNT) for who, both in (("Ann", WALK), ("Bo", other))]
    path.write_text("\n".join(wide))
    with pytest.raises(SourceError, match=r"got 2 in its column 'Person': Ann, Bo; keep the lines of one of them"):
        read_csv(path)
    path.write_text("\n".join(line for line in wide if not line.startswith("Bo")))
    checked(path)


# What the numbers are


def keypoints(names: Sequence[str], poses: np.ndarray = WALK) -> np.ndarray:
    """The points of tools on a walk, in its unit; those of a hand or foot lie at its joint."""
    at = {name: poses[:, k] for k, name in enumerate(JOINTS)}
    middle = {"neck": "Thorax", "neck_base": "Thorax", "spine": "Spine", "hips": "Hip", "mid_hip": "Hip"}
    limbs = {
        **{"shoulder": "Shoulder", "elbow": "Elbow", "wrist": "Wrist", "hand": "Wrist", "thumb": "Wrist"},
        **{"pinky": "Wrist", "index": "Wrist", "hip": "Hip", "knee": "Knee", "ankle": "Foot", "heel": "Foot"},
        **{"toe": "Foot", "foot": "Foot"},
    }

    def place(name: str) -> np.ndarray:
        if name in middle:
            return at[middle[name]]
        limb = next((joint for word, joint in limbs.items() if word in name), None)
        return at["Neck"] + [0, 0, 60 * ("ear" in name)] if limb is None else at[name[0].upper() + limb]

    return np.stack([place(name) for name in names], axis=1)


def test_points_without_depth_are_refused(tmp_path: Path) -> None:
    planar = np.stack([WALK[..., 1], WALK[..., 2], 0 * WALK[..., 0]], axis=-1) / 1000  # as Sports2D writes them
    path = write_trc(tmp_path / "poses.trc", JOINTS, planar, RATE)
    with pytest.raises(SourceError, match=r"got points without depth \(z is the same for all joints\).*as --points"):
        read_labels(path, COUNT, RATE)
    points = keypoints(BLAZEPOSE)
    scores = np.random.default_rng(0).uniform(0.3, 1, points.shape[:2])
    pixels = np.stack([points[..., 0] * 0.3 + 600, 1000 - points[..., 2] * 0.5, scores], axis=-1)
    np.save(tmp_path / "poses.npy", pixels)
    with pytest.raises(SourceError, match=r"without depth \(x, y and a score from 0 to 1\), which seem to be 2D"):
        read_labels(tmp_path / "poses.npy", COUNT, RATE)


def shares_of_an_image() -> np.ndarray:
    x, y, z = np.moveaxis(keypoints(BLAZEPOSE), -1, 0)
    return np.stack([0.5 + x / 6000, 0.95 - z / 2200, y / 6000], axis=-1)


def test_normalised_landmarks_of_mediapipe_are_refused_unless_a_unit_is_stated(tmp_path: Path) -> None:
    np.save(tmp_path / "poses.npy", shares_of_an_image())
    with pytest.raises(SourceError, match=r"got x and y between 0 and 1.*export its world landmarks.*poses\.units"):
        read_labels(tmp_path / "poses.npy", COUNT, RATE)
    assert np.isfinite(read_labels(tmp_path / "poses.npy", COUNT, RATE, PoseSettings(units="m")).poses).all()


def test_landmarks_in_the_world_are_taken_before_those_in_the_image(tmp_path: Path) -> None:
    x, y, z = np.moveaxis(keypoints(BLAZEPOSE), -1, 0) / 1000
    world = np.stack([x, -z, y], axis=-1)
    world -= (world[:, 23:24] + world[:, 24:25]) / 2
    both = np.concatenate([shares_of_an_image(), world], axis=1)
    names = [*BLAZEPOSE, *(f"{name}_world" for name in BLAZEPOSE)]
    rows = [",".join(["frame", *(f"{name}_{axis}" for name in names for axis in "xyz")])]
    rows += [",".join([str(i), *(f"{v:.6f}" for v in sample.ravel())]) for i, sample in enumerate(both)]
    (tmp_path / "poses.csv").write_text("\n".join(rows))
    labels = read_labels(tmp_path / "poses.csv", COUNT, RATE)
    hips = WALK[:, [JOINTS.index("LHip"), JOINTS.index("RHip")]].mean(axis=1, keepdims=True)
    np.testing.assert_allclose(labels.poses[:, LIMBS], (WALK - hips)[:, LIMBS], atol=0.5)
    assert any("those in the world (nose …) are used, and 33 others left out" in note for note in labels.notes)


def test_an_array_of_25_points_is_read_in_the_order_that_makes_a_body(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 5, (COUNT, 25, 3))
    np.save(tmp_path / "poses.npy", (y_up(keypoints(KINECT)) + noise) / 1000)
    labels = checked(tmp_path / "poses.npy", atol=25)
    assert any("25 points are taken as hips, spine … (Kinect v2, NTU RGB+D)" in note for note in labels.notes)
    noise = np.random.default_rng(0).normal(0, 50, (COUNT, 25, 3))  # of a rough triangulation
    np.save(tmp_path / "poses.npy", keypoints(BODY_25) + noise)
    assert read_pose_file(tmp_path / "poses.npy").names == BODY_25
    np.save(tmp_path / "poses.npy", WALK)
    assert read_pose_file(tmp_path / "poses.npy").names == JOINTS  # and not COCO's
    np.save(tmp_path / "poses.npy", np.random.default_rng(0).permutation(keypoints(KINECT), axis=1))
    with pytest.raises(SourceError, match=r"25 points are not those of a body as nose, neck …, nor .*save .* as NPZ"):
        read_pose_file(tmp_path / "poses.npy")


def test_an_adult_in_inches_is_not_taken_as_a_baby_in_centimetres(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "poses.csv", JOINTS, WALK * 1.15 / 25.4, (np.arange(COUNT) / RATE).tolist(), "time")
    labels = read_labels(path, COUNT, RATE)
    np.testing.assert_allclose(labels.poses, WALK * 1.15, atol=0.5)
    assert any(
        "are taken as inches, as the person is 1.66 m tall, and would be 0.65 m in cm" in n for n in labels.notes
    )
    child = WALK * 0.9 / WALK[..., 2].max() * 100
    path = write_csv(path, JOINTS, child, (np.arange(COUNT) / RATE).tolist(), "time")
    labels = read_labels(path, COUNT, RATE)
    np.testing.assert_allclose(labels.poses, child * 10, atol=0.5)
    assert any(
        "taken as cm" in note and "if they are inches" in note and "poses.units" in note for note in labels.notes
    )


# How programs write them


@pytest.mark.parametrize("rate", [29.97, 59.94, 119.88])
def test_a_c3d_whose_analog_rate_was_rounded_is_read(rate: float, tmp_path: Path) -> None:
    count = int(COUNT / RATE * rate) + 2
    path = write_c3d(tmp_path / "poses.c3d", JOINTS, walk(count, rate), rate, analog=10)
    np.testing.assert_allclose(read_labels(path, COUNT, RATE).poses, WALK, atol=5)


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_the_cells_below_a_title_tell_what_separates_them(separator: str, tmp_path: Path) -> None:
    checked(vicon(tmp_path / "poses.csv", separator=separator))


@pytest.mark.parametrize(("old", "new"), [("\n", "\r\r\n"), ("\t", ";")])
def test_a_trc_with_other_ends_of_lines_or_semicolons_is_read(old: str, new: str, tmp_path: Path) -> None:
    path = write_trc(tmp_path / "poses.trc", POSE2SIM, MARKERS / 1000, RATE)
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    assert read_pose_file(path).unit == "m"
    checked(path)


def test_a_joint_of_a_bvh_may_have_two_ends_and_ends_may_have_names(tmp_path: Path) -> None:
    path = tmp_path / "poses.bvh"
    write_bvh(path, COUNT, RATE)
    text, truth = path.read_text(), read_labels(path, COUNT, RATE).poses
    start = text.index("End Site", text.index("JOINT Head"))
    end = text.index("}", start) + 1
    path.write_text(text[:end] + "\n" + text[start:end].replace("14.0", "3.0") + text[end:])
    assert {"Head_end", "Head_end2"} < set(read_pose_file(path).names)
    np.testing.assert_allclose(read_labels(path, COUNT, RATE).poses, truth)
    for named in (text.replace("End Site", "End Site Tip"), re.sub(r"End Site\s*\{", "End Site Tip of it {", text)):
        path.write_text(named)
        np.testing.assert_allclose(read_labels(path, COUNT, RATE).poses, truth)
