import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from filming import RATE, film
from pose_writing import POSE2SIM, pose2sim_markers, walk, write_bvh, write_c3d, write_csv, write_trc, y_up

from captures_for_tests import stick_pose
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.formats.joint_names import joints_of
from mcss.data.formats.pose_files import read_pose_file
from mcss.data.formats.units import up_rotation
from mcss.errors import CaptureError, SourceError
from mcss.skeletons import JOINTS, MIRROR
from mcss.sources.videos.pose_labels import PoseSettings, pose_file, read_labels, sampled
from mcss.sources.videos.video_folder import Videos
from mcss.video.sync.clocks import Clock, write_clocks

COUNT = 30


def relative(poses: np.ndarray) -> np.ndarray:
    return poses - poses[:, :1]


# Each format is read back as an independent writer wrote it


def test_a_trc_of_pose2sim_in_metres_with_y_up_gives_the_joints_in_mm_with_z_up(tmp_path: Path) -> None:
    truth = walk(COUNT, 60)
    path = write_trc(tmp_path / "poses.trc", POSE2SIM, y_up(pose2sim_markers(truth)) / 1000, 60)
    labels = read_labels(path, COUNT, 60.0)
    direct = [JOINTS.index(name) for name in JOINTS if name not in ("Hip", "Spine")]
    np.testing.assert_allclose(labels.poses[:, direct], truth[:, direct], atol=0.01)
    middle = (truth[:, JOINTS.index("LHip")] + truth[:, JOINTS.index("RHip")]) / 2
    np.testing.assert_allclose(labels.poses[:, 0], middle, atol=0.01)
    spine = labels.poses[:, JOINTS.index("Spine")]
    np.testing.assert_allclose(spine, (middle + truth[:, JOINTS.index("Thorax")]) / 2, atol=0.01)
    assert any("y is taken as up" in note for note in labels.notes)
    assert any("Hip from RHip and LHip; Spine from RHip and LHip and Neck" in note for note in labels.notes)


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1.0), ("m", 0.001), ("cm", 0.1)])
def test_a_c3d_gives_the_joints_by_its_own_unit_and_leaves_lost_markers_out(
    tmp_path: Path, unit: str, scale: float
) -> None:
    truth = walk(COUNT, 100)
    given = truth * scale
    given[4, 7] = np.nan
    labels = read_labels(write_c3d(tmp_path / "poses.c3d", JOINTS, given, 100, unit), COUNT, 100.0)
    np.testing.assert_allclose(np.delete(labels.poses, 4, axis=0), np.delete(truth, 4, axis=0), atol=0.1)
    np.testing.assert_allclose(labels.poses[4], (truth[3] + truth[5]) / 2, atol=0.2)  # interpolated


def test_a_bvh_is_where_multiplied_matrices_say_and_its_joints_are_found_by_name(tmp_path: Path) -> None:
    truth = write_bvh(tmp_path / "poses.bvh", 12, 25)
    read = read_pose_file(tmp_path / "poses.bvh")
    for name, places in truth.items():
        np.testing.assert_allclose(read.points[:, read.names.index(name)], places, atol=1e-3)
    labels = read_labels(tmp_path / "poses.bvh", 12, 25.0)
    expected = {
        "RHip": "RightUpLeg",
        "RKnee": "RightLeg",
        "LFoot": "LeftFoot",
        "Spine": "Spine1",
        "Thorax": "Neck",
        "Neck": "Head",
        "Head": "Head_end",
        "LShoulder": "LeftArm",
        "RElbow": "RightForeArm",
        "RWrist": "RightHand",
    }
    for joint, name in expected.items():
        x, y, z = truth[name].T * 10
        np.testing.assert_allclose(labels.poses[:, JOINTS.index(joint)], np.stack([x, -z, y], axis=1), atol=0.02)


def test_a_csv_labels_the_images_that_it_names_and_no_others(tmp_path: Path) -> None:
    truth = walk(COUNT, 25)
    at = [0, 7, 8, 20]
    path = write_csv(tmp_path / "poses.csv", JOINTS, truth[at], at, "frame")
    labels = read_labels(path, COUNT, 25.0)
    assert np.flatnonzero(np.isfinite(labels.poses).all(axis=(1, 2))).tolist() == at
    np.testing.assert_allclose(labels.poses[at], truth[at], atol=0.01)
    assert labels.pose(1) is None
    assert any("4 of 30 images have a label" in note for note in labels.notes)
    path = write_csv(path, JOINTS, truth[at], [t / 25 for t in at], "time")
    np.testing.assert_array_equal(read_labels(path, COUNT, 25.0).poses, labels.poses)


def test_an_npz_with_times_a_unit_and_an_axis_is_read_as_it_says(tmp_path: Path) -> None:
    truth = walk(COUNT, 25)
    np.savez(tmp_path / "poses.npz", poses=y_up(truth) / 10, names=np.array(JOINTS), rate=25.0, units="cm", up="+y")
    labels = read_labels(tmp_path / "poses.npz", COUNT, 25.0)
    np.testing.assert_allclose(labels.poses, truth, atol=0.01)
    assert labels.notes == ()


# Time


def test_labels_at_another_rate_and_with_an_offset_are_interpolated_to_the_images(tmp_path: Path) -> None:
    path = write_c3d(tmp_path / "poses.c3d", JOINTS, walk(200, 100), 100)
    labels = read_labels(path, COUNT, 24.0, PoseSettings(offset=0.213))
    for i in range(COUNT):
        if i / 24 < 0.213:
            assert np.isnan(labels.poses[i]).all() or abs(i / 24 - 0.213) < 0.25 / 24
        else:
            np.testing.assert_allclose(labels.poses[i], stick_pose(0, 0, i / 24 - 0.213), atol=1.0)


def test_the_users_rate_comes_before_the_files(tmp_path: Path) -> None:
    path = write_c3d(tmp_path / "poses.c3d", JOINTS, walk(COUNT, 25), 120)
    np.testing.assert_allclose(read_labels(path, COUNT, 25.0, PoseSettings(rate=25.0)).poses, walk(COUNT, 25), atol=0.1)


def test_sampling_follows_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    seconds = np.cumsum(rng.uniform(0.01, 0.2, 40))
    places = rng.normal(size=(40, 17, 3))
    places[rng.random(40) < 0.2, 3, 1] = np.nan
    at = np.arange(0, 5, 0.04)
    poses = sampled(places, seconds, at, 0.1, 0.01)
    whole = [k for k in range(40) if np.isfinite(places[k]).all()]
    for t, pose in zip(at, poses, strict=True):
        nearest = min(whole, key=lambda k: abs(seconds[k] - t))
        earlier = [k for k in whole if seconds[k] <= t]
        later = [k for k in whole if seconds[k] >= t]
        if earlier and later and seconds[later[0]] - seconds[earlier[-1]] <= 0.1:
            a, b = earlier[-1], later[0]
            expected = places[a] + (places[b] - places[a]) * (t - seconds[a]) / (seconds[b] - seconds[a])
        elif abs(seconds[nearest] - t) <= 0.01:
            expected = places[nearest]
        else:
            expected = np.full((17, 3), np.nan)
        np.testing.assert_allclose(pose, expected)


# Units and axes


@pytest.mark.parametrize("up", ["x", "y", "z", "-x", "-y", "-z"])
@pytest.mark.parametrize("scale", [1.0, 0.1, 0.001])
def test_unit_and_up_axis_are_found_from_the_person(tmp_path: Path, up: str, scale: float) -> None:
    truth = walk(COUNT, 25)
    turned = truth @ up_rotation(up) * scale  # the inverse of the importer's conversion
    np.savez(tmp_path / "poses.npz", poses=turned, names=np.array(JOINTS), rate=25.0)
    np.testing.assert_allclose(read_labels(tmp_path / "poses.npz", COUNT, 25.0).poses, truth, atol=0.01)
    assert np.linalg.det(up_rotation(up)) == pytest.approx(1)


def npz(path: Path, poses: np.ndarray, **more: object) -> Path:
    np.savez(path, poses=poses, names=np.array(JOINTS), **{"rate": 25.0, **more})
    return path


@pytest.mark.parametrize(
    ("scale", "stated", "message"),
    [
        (
            1.0,
            "m",
            r"1\d\d\d m \(with units m\) tall.*expected 0\.5 to 2\.5 m, which it is in mm: give --poses\.units",
        ),
        (1e-6, None, r"\d\S* units tall from head to foot; expected 0\.5 to 2\.5 m: give --poses\.units"),
    ],
)
def test_a_person_of_an_impossible_size_is_refused(
    tmp_path: Path, scale: float, stated: str | None, message: str
) -> None:
    path = npz(tmp_path / "poses.npz", walk(COUNT, 25) * scale, **({"units": stated} if stated else {}))
    with pytest.raises(SourceError, match=rf"poses\.npz: the person is {message}"):
        read_labels(path, COUNT, 25.0)
    labels = read_labels(path, COUNT, 25.0, PoseSettings(units=f"{1 / scale:g}"))  # the way out
    np.testing.assert_allclose(labels.poses, walk(COUNT, 25), atol=0.5)


def test_an_up_axis_that_a_file_states_wrongly_is_refused_and_one_of_the_user_is_taken(tmp_path: Path) -> None:
    path = npz(tmp_path / "poses.npz", walk(COUNT, 25), up="y")
    with pytest.raises(SourceError, match=r"with y up the person lies: heads are on the side of z .*poses\.up"):
        read_labels(path, COUNT, 25.0)
    labels = read_labels(path, COUNT, 25.0, PoseSettings(up="y"))
    assert any("with y up, as stated, the person lies" in note for note in labels.notes)
    with pytest.raises(SourceError, match=r"with -z up the person is upside down"):
        read_labels(path, COUNT, 25.0, PoseSettings(up="-z"))


def test_a_person_along_no_axis_needs_a_stated_one(tmp_path: Path) -> None:
    from scipy.spatial.transform import Rotation

    aslant = walk(COUNT, 25) @ Rotation.from_euler("xy", [45, 40], degrees=True).as_matrix()
    with pytest.raises(SourceError, match=r"the up axis cannot be found.*give --poses\.up"):
        read_labels(npz(tmp_path / "poses.npz", aslant), COUNT, 25.0)


def bent(count: int) -> np.ndarray:
    """A walk whose knees clearly bend."""
    poses = walk(count, 25)
    for knee, foot in ((2, 3), (5, 6)):
        front = np.cross(poses[:, 4] - poses[:, 1], [0, 0, 1.0])
        front /= np.linalg.norm(front, axis=-1, keepdims=True)
        poses[:, knee] = (poses[:, knee - 1] + poses[:, foot]) / 2 + 250 * front
    return poses


def test_a_mirrored_person_is_refused_and_left_handed_axes_are_put_right(tmp_path: Path) -> None:
    truth = bent(COUNT)
    unity = truth[..., [0, 2, 1]] / 1000  # left-handed, Y up
    path = npz(tmp_path / "poses.npz", unity)
    with pytest.raises(SourceError, match=r"knees bend backwards in 100%.*poses\.joints.*--poses\.left-handed"):
        read_labels(path, COUNT, 25.0)
    np.testing.assert_allclose(read_labels(path, COUNT, 25.0, PoseSettings(left_handed=True)).poses, truth, atol=0.01)
    with pytest.raises(SourceError, match="left and right are exchanged"):
        read_labels(npz(path, truth[:, list(MIRROR)]), COUNT, 25.0)


# Names


@pytest.mark.parametrize(
    "style",
    [
        "{side}{part}",
        "{long}_{part}",
        "{part}_{side}",
        "mixamorig:{Long}{part}",
        "{part}.{side}",
    ],
)
def test_usual_spellings_are_found(style: str) -> None:
    names = [
        style.format(
            side=side, part=part, long={"L": "left", "R": "right"}[side], Long={"L": "Left", "R": "Right"}[side]
        )
        for side in "LR"
        for part in ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist")
    ]
    found = joints_of(Path("x"), ["pelvis", "nose", "head", *names])
    for k, joint in enumerate(JOINTS):
        if joint[0] in "LR":
            part = joint[1:].replace("Foot", "Ankle")
            assert found[k].points == (
                3 + 6 * (joint[0] == "R") + ("Hip", "Knee", "Ankle", "Shoulder", "Elbow", "Wrist").index(part),
            )


def test_a_mapping_file_names_what_is_foreign_and_is_checked(tmp_path: Path) -> None:
    foreign = [f"m{k}" for k in range(17)]
    truth = walk(COUNT, 25)
    path = write_c3d(tmp_path / "poses.c3d", foreign, truth, 25)
    with pytest.raises(
        SourceError, match=r"poses\.c3d: found no point for Hip, RHip, .*the file has m0, m1.*mapping file"
    ):
        read_labels(path, COUNT, 25.0)
    toml = tmp_path / "joints.toml"
    toml.write_text(
        "\n".join(f'{joint} = "m{k}"' for k, joint in enumerate(JOINTS) if joint != "Spine") + '\nSpine = ["m0", "m8"]'
    )
    labels = read_labels(path, COUNT, 25.0, PoseSettings(joints=toml))
    np.testing.assert_allclose(np.delete(labels.poses, 7, axis=1), np.delete(truth, 7, axis=1), atol=0.1)
    np.testing.assert_allclose(labels.poses[:, 7], (truth[:, 0] + truth[:, 8]) / 2, atol=0.1)
    for text, message in (
        ('Tail = "m1"', "the mapping names Tail; expected joints of mcss: Hip"),
        ('Hip = "m99"', r"there is no point 'm99', which the mapping names for Hip; there are m0"),
        ("Hip = []", "names no point for Hip"),
        ("Hip = 3", r"joints\.toml: expected a name or a list of names for each joint"),
        ("Hip = ", r"joints\.toml: cannot be read as TOML or JSON"),
    ):
        toml.write_text(text)
        with pytest.raises(SourceError, match=message):
            read_labels(path, COUNT, 25.0, PoseSettings(joints=toml))
    with pytest.raises(SourceError, match=r"nowhere\.toml: cannot be read"):
        read_labels(path, COUNT, 25.0, PoseSettings(joints=tmp_path / "nowhere.toml"))


def test_two_people_in_one_file_are_not_mixed(tmp_path: Path) -> None:
    both = np.concatenate([walk(COUNT, 25, 0), walk(COUNT, 25, 1)], axis=1)
    names = [f"{who}:{joint}" for who in ("Ann", "Bo") for joint in JOINTS]
    path = tmp_path / "poses.npz"
    np.savez(path, poses=both, names=np.array(names), rate=25.0)
    with pytest.raises(SourceError, match=r"'Ann:RHip' and 'Bo:RHip' could be the same joint .*two people"):
        read_labels(path, COUNT, 25.0)
    mapping = tmp_path / "joints.json"
    mapping.write_text(json.dumps({joint: f"Bo:{joint}" for joint in JOINTS}))
    labels = read_labels(path, COUNT, 25.0, PoseSettings(joints=mapping))
    np.testing.assert_allclose(labels.poses, walk(COUNT, 25, 1), atol=0.01)


def test_settings_beside_a_label_file_hold_for_it_alone_and_are_checked(tmp_path: Path) -> None:
    path = npz(tmp_path / "poses.npz", walk(COUNT, 25) / 10)
    own = tmp_path / "poses.toml"
    own.write_text('units = "cm"\nup = "z"\noffset = -0.4\n[joints]\nNeck = "Head"\n')
    labels = read_labels(path, 20, 25.0)
    np.testing.assert_allclose(labels.poses[0, 1], walk(COUNT, 25)[10, 1], atol=0.01)
    np.testing.assert_allclose(labels.poses[:, 9], labels.poses[:, 10])
    own.write_text("unit = 3")
    with pytest.raises(SourceError, match=r"poses\.toml: there is no setting unit; expected some of units, up"):
        read_labels(path, 20, 25.0)
    own.write_text("rate = -3")
    with pytest.raises(SourceError, match=r"poses\.toml: poses\.rate: expected a positive number"):
        read_labels(path, 20, 25.0)


# Bad input


def test_labels_without_a_rate_or_outside_the_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "poses.npz"
    np.savez(path, poses=walk(COUNT, 25), names=np.array(JOINTS))
    with pytest.raises(SourceError, match=r"does not state how many samples per second it has.*poses\.rate"):
        read_labels(path, COUNT, 25.0)
    with pytest.raises(SourceError, match=r"no image has a label: its samples lie between 90\.000 s.*poses\.offset"):
        read_labels(path, COUNT, 25.0, PoseSettings(rate=25.0, offset=90.0))


@pytest.mark.parametrize("suffix", [".c3d", ".trc", ".bvh", ".csv", ".npz"])
def test_missing_empty_cut_short_and_foreign_files_are_named_with_the_way_out(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"poses{suffix}"
    with pytest.raises(SourceError, match=rf"poses\{suffix}: no such file; expected 3D labels"):
        read_pose_file(path)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=rf"poses\{suffix}: the file is empty \(0 bytes\); export it again"):
        read_pose_file(path)
    for noise in (np.random.default_rng(0).bytes(5000), b"hello\n", b"\x00" * 3000):
        path.write_bytes(noise)
        with pytest.raises(SourceError, match=rf"poses\{suffix}.*(cannot be read|expected)"):
            read_pose_file(path)
    {
        ".c3d": lambda: write_c3d(path, JOINTS, walk(COUNT, 25), 25),
        ".trc": lambda: write_trc(path, JOINTS, walk(COUNT, 25), 25, "mm"),
        ".bvh": lambda: write_bvh(path, COUNT, 25),
        ".csv": lambda: write_csv(path, JOINTS, walk(COUNT, 25), range(COUNT), "frame"),
        ".npz": lambda: npz(path, walk(COUNT, 25)),
    }[suffix]()
    whole = path.read_bytes()
    read_pose_file(path)
    for share in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(SourceError, match=rf"poses\{suffix}.*(cannot be read|expected).*;|expected"):
            read_pose_file(path)


@pytest.mark.parametrize("suffix", [".c3d", ".trc", ".bvh", ".csv", ".npz"])
def test_damaged_bytes_lead_to_a_message_or_to_poses_and_never_to_anything_else(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"poses{suffix}"
    {
        ".c3d": lambda: write_c3d(path, JOINTS, walk(6, 25), 25),
        ".trc": lambda: write_trc(path, JOINTS, walk(6, 25), 25, "mm"),
        ".bvh": lambda: write_bvh(path, 6, 25),
        ".csv": lambda: write_csv(path, JOINTS, walk(6, 25), range(6), "frame"),
        ".npz": lambda: npz(path, walk(6, 25)),
    }[suffix]()
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(40):
        spoiled = bytearray(whole[: rng.integers(len(whole))] if trial % 2 else whole)
        for at in rng.integers(0, max(1, min(len(spoiled), 1500)), 4):
            spoiled[at : at + 1] = rng.bytes(1)
        path.write_bytes(bytes(spoiled))
        try:
            read_labels(path, 6, 25.0)
        except SourceError as problem:
            refused += str(path) in str(problem)
    assert refused >= 20


def test_a_pickle_in_an_npz_is_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return Path.touch, (ran,)

    names = np.empty(1, object)
    names[0] = Evil()
    np.savez(tmp_path / "poses.npz", poses=walk(3, 25), names=names)
    with pytest.raises(
        SourceError, match=r"poses\.npz: it holds Python objects \(a pickle\), which could run a program"
    ):
        read_pose_file(tmp_path / "poses.npz")
    assert not ran.exists()


def test_a_member_with_a_path_of_its_own_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    path = npz(folder / "poses.npz", walk(COUNT, 25))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.npy", b"x")
        archive.writestr("/evil.npy", b"x")
    assert len(read_pose_file(path)) == COUNT
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a", "b", "poses.npz"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"names": np.array(JOINTS)}, r"the array\(s\) poses are missing.*got names"),
        (
            {"poses": np.zeros((5, 16, 3)), "names": np.array(JOINTS)},
            r"shape \(samples, 17, 3\).*got float64 \(5, 16, 3\)",
        ),
        ({"poses": np.zeros((5, 17, 2)), "names": np.array(JOINTS)}, r"got float64 \(5, 17, 2\)"),
        (
            {"poses": np.full((5, 17, 3), np.nan), "names": np.array(JOINTS), "rate": 1.0},
            "not one point of its 5 samples is known",
        ),
        ({"poses": np.zeros((0, 17, 3)), "names": np.array(JOINTS)}, "got 0 samples of 17 points"),
        ({"poses": np.ones((3, 2, 3)), "names": np.array(["a", "a"])}, "the point 'a' comes twice"),
        ({"poses": np.ones((3, 1, 3)), "names": np.array(["a"]), "times": np.array([0.0, 2, 1])}, "got 2 and then 1"),
        ({"poses": np.ones((3, 1, 3)), "names": np.array(["a"]), "times": np.array([0.0, 2])}, r"expected 3 times"),
        ({"poses": np.ones((3, 1, 3)), "names": np.array(["a"]), "rate": -1}, "expected a positive rate"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "poses.npz", **arrays)
    with pytest.raises(SourceError, match=rf"poses\.npz.*{message}"):
        read_pose_file(tmp_path / "poses.npz")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.x,a.y,a.z\n1,2,3\n", "expected the columns time .* or frame"),
        ("frame,a.x,a.y\n0,1,2\n", r"missing: a\.z"),
        ("frame,a.x,a.y,a.z\n0,1,2\n", "line 2: expected 4 cells, got 3"),
        ("frame,a.x,a.y,a.z\n0,1,2,left\n", "line 2: expected a number, got 'left'"),
        ("frame,a.x,a.y,a.z\n", "got 0 samples"),
        ("frame,a.x,a.y,a.z\n0,1,2,3\n0,1,2,3\n", "times that grow"),
    ],
)
def test_lines_of_a_csv_that_do_not_fit_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "poses.csv").write_text(text)
    with pytest.raises(SourceError, match=rf"poses\.csv.*{message}"):
        read_pose_file(tmp_path / "poses.csv")


def test_a_joint_that_is_never_known_is_named(tmp_path: Path) -> None:
    poses = walk(COUNT, 25)
    poses[:, 5] = np.nan
    with pytest.raises(SourceError, match=r"none of its 30 samples has all joints \(LKnee is known in 0%"):
        read_labels(npz(tmp_path / "poses.npz", poses), COUNT, 25.0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"rate": 0.0}, "poses.rate: expected"),
        ({"offset": float("nan")}, "poses.offset"),
        ({"max_gap": -1.0}, "max_gap ≥ 0"),
    ],
)
def test_impossible_settings_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoseSettings(**setting)


# With videos


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of one recording, with labels at four times the frame rate."""
    root = tmp_path_factory.mktemp("footage")
    film(root / "Ann" / "walk 1", width=160, height=120, count=20)
    poses = y_up(pose2sim_markers(walk(80, 4 * RATE))) / 1000
    write_trc(root / "Ann" / "walk 1" / "poses.trc", POSE2SIM, poses, 4 * RATE)
    return root


def test_the_command_puts_labels_beside_videos_into_the_capture(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, summary = tmp_path / "capture", tmp_path / "summary.json"
    main(["import", "videos", str(folder), str(out), "--size", "48", "--poses.units", "m", "--json", str(summary)])
    instants = Capture.open(out).instants()
    truth = walk(20, RATE)
    np.testing.assert_allclose(instants.pose[:, 8], truth[:, 8], atol=0.01)
    np.testing.assert_allclose(instants.pose[:, 13], truth[:, 13], atol=0.01)
    assert instants.heading_valid.all()
    assert json.loads(summary.read_text())["labelled_instants"] == 20
    assert Capture.open(out).info.settings["poses"]["units"] == "m"
    assert f"then mcss adapt {out} --labels all." in " ".join(capsys.readouterr().out.split())


def test_labels_that_were_added_later_are_named_as_what_changed(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "footage"))
    labels = own / "Ann" / "walk 1" / "poses.trc"
    labels.rename(tmp_path / labels.name)
    Videos(size=48).import_to(tmp_path / "capture", own)
    (tmp_path / labels.name).rename(labels)
    with pytest.raises(CaptureError, match=r"files \(3D labels were added\): import into a new folder"):
        Videos(size=48, poses=PoseSettings(units="m")).import_to(tmp_path / "capture", own)


def test_every_other_image_keeps_its_own_pose_and_labels_can_be_left_out(folder: Path, tmp_path: Path) -> None:
    capture = Videos(size=48, every=2).import_to(tmp_path / "a", folder).capture
    np.testing.assert_allclose(capture.instants().pose[:, 8], walk(20, RATE)[::2, 8], atol=0.01)
    silent = Videos(size=48, every=2, poses=PoseSettings(read=False))
    capture = silent.import_to(tmp_path / "b", folder).capture
    assert np.isnan(capture.instants().pose).all()
    assert "poses" not in capture.info.settings


def test_instants_before_all_views_ran_are_not_missed_as_labels(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "footage"))
    (own / "Ann" / "walk 1" / "poses.trc").unlink()
    path = write_csv(own / "Ann" / "walk 1" / "poses.csv", JOINTS, walk(20, RATE)[5:], range(5, 20), "frame")
    clocks = {f"cam{k + 1}": Clock(k * 5 / RATE, 1.0, RATE, 20, 0.9, "hand") for k in range(2)}
    write_clocks(own, {"Ann/walk 1": clocks})
    done = Videos(size=48, test_fraction=0.0).import_to(tmp_path / "capture", own)
    assert np.isfinite(done.capture.instants().pose).all()
    assert not [text for text in done.notes if "have a label" in text]
    assert any("10 of 15 images have a label" in note for note in read_labels(path, 25, RATE, first=10).notes)
    with pytest.raises(SourceError, match=r"no image has a label: .* images between 0\.800 and 0\.960 s"):
        read_labels(path, 25, RATE, first=20)


def test_faulty_labels_are_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "footage"))
    labels = own / "Ann" / "walk 1" / "poses.trc"
    labels.write_bytes(labels.read_bytes()[:5000])
    with pytest.raises(SourceError, match=r"walk 1/poses\.trc"):
        Videos(size=48).import_to(tmp_path / "capture", own)
    assert not (tmp_path / "capture").exists()
    (own / "Ann" / "walk 1" / "poses.csv").write_text("x")
    with pytest.raises(SourceError, match=r"expected one file of 3D labels, got poses\.csv, poses\.trc; keep one"):
        pose_file(own / "Ann" / "walk 1")
