"""Label files as the programs of vendors and labs really write them, each with the poses that it should give."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from pose_writing import POSE2SIM, pose2sim_markers, walk, write_bvh, write_c3d, write_trc, y_up

from mcss.data.formats.bvh import write_bvh as write_own_bvh
from mcss.data.formats.c3d import read_c3d
from mcss.data.formats.csv import read_csv, write_csv
from mcss.data.formats.keypoint_layouts import BLAZEPOSE
from mcss.data.formats.npz import write_npz
from mcss.data.formats.pose_files import read_pose_file
from mcss.data.formats.trc import write_trc as write_own_trc
from mcss.data.formats.units import without_broken_bones
from mcss.errors import SourceError
from mcss.skeletons import JOINTS
from mcss.sources.videos.pose_labels import PoseSettings, RecordingLabels, read_labels

COUNT = 24


def markers() -> np.ndarray:
    return y_up(pose2sim_markers(walk(COUNT, 25))) / 1000


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RecordingLabels]:
    """A TRC as it should be, and what is read from it."""
    path = write_trc(tmp_path_factory.mktemp("plain") / "poses.trc", POSE2SIM, markers(), 25)
    return path.read_text(), read_labels(path, COUNT, 25.0)


def same(path: Path, plain: tuple[str, RecordingLabels]) -> RecordingLabels:
    labels = read_labels(path, COUNT, 25.0)
    np.testing.assert_allclose(labels.poses, plain[1].poses, atol=0.5)
    return labels


def test_a_trc_with_padded_header_cells_has_its_unit_and_no_number_is_one(
    tmp_path: Path, plain: tuple[str, RecordingLabels]
) -> None:
    lines = plain[0].split("\n")
    lines[2] = "\t\t".join(f"  {cell} " for cell in lines[2].split("\t"))
    path = tmp_path / "poses.trc"
    path.write_text("\n".join(lines))
    assert read_pose_file(path).unit == "m"
    same(path, plain)
    lines[2] = "25\t25\t24\t21\t\t25\t0\t24"  # the unit is left out
    path.write_text("\n".join(lines))
    assert read_pose_file(path).unit is None
    same(path, plain)


def test_a_trc_of_spaces_decimal_commas_or_foreign_bytes_is_read(
    tmp_path: Path, plain: tuple[str, RecordingLabels]
) -> None:
    path = tmp_path / "poses.trc"
    path.write_text("\n".join(" ".join(line.split()) for line in plain[0].split("\n")))
    same(path, plain)
    lines = plain[0].split("\n")
    path.write_text("\n".join(lines[:5] + [line.replace(".", ",") for line in lines[5:]]))
    same(path, plain)
    path.write_bytes(plain[0].replace("poses.trc", "José.trc").encode("cp1252"))
    same(path, plain)


def test_times_that_are_rounded_away_are_replaced_by_the_data_rate(
    tmp_path: Path, plain: tuple[str, RecordingLabels]
) -> None:
    lines = plain[0].split("\n")
    for k in range(5, len(lines)):
        cells = lines[k].split("\t")
        if len(cells) > 2:
            cells[1] = f"{float(cells[1]):.1f}"  # five lines share a time
            lines[k] = "\t".join(cells)
    path = tmp_path / "poses.trc"
    path.write_text("\n".join(lines))
    assert any("its DataRate of 25 per second is used" in note for note in same(path, plain).notes)


def test_more_lines_than_stated_are_read_with_a_note_and_fewer_refused(
    tmp_path: Path, plain: tuple[str, RecordingLabels]
) -> None:
    path = write_trc(tmp_path / "poses.trc", POSE2SIM, markers(), 25, frames=COUNT - 1)
    assert any("states 23 frames (NumFrames), it has 24; all are read" in note for note in same(path, plain).notes)
    write_trc(path, POSE2SIM, markers(), 25, frames=COUNT + 1)
    with pytest.raises(SourceError, match=r"expected 25 frames \(NumFrames\), got 24"):
        read_pose_file(path)


class Parameter:
    def __init__(self, **values: object) -> None:
        self.__dict__ |= values


def test_y_screen_states_the_axis_and_the_pose_its_direction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = walk(COUNT, 25)
    path = write_c3d(tmp_path / "poses.c3d", JOINTS, poses, 25)
    truth = read_labels(path, COUNT, 25.0).poses
    import mcss.data.formats.c3d as module

    stated = module._parameter
    monkeypatch.setattr(module, "_parameter", lambda r, name: "-z" if "SCREEN" in name else stated(r, name))
    assert read_c3d(path).up == "±z"
    np.testing.assert_allclose(read_labels(path, COUNT, 25.0).poses, truth)
    lying = poses[..., [0, 2, 1]] * [1, 1, -1]
    lying[..., 2] += 0.4 * lying[..., 1]
    aslant = lying @ np.linalg.qr(np.array([[1.0, 0.5, 0], [0.9, 1, 0], [0, 0, 1]]))[0]
    write_c3d(path, JOINTS, aslant, 25)
    with pytest.raises(SourceError, match=r"up is along z, but not in which direction, .* --poses\.up \(z or -z\)"):
        read_labels(path, COUNT, 25.0)
    assert np.isfinite(read_labels(path, COUNT, 25.0, PoseSettings(up="z")).poses).all()


def test_a_c3d_of_more_points_than_one_list_of_names_holds_is_read(tmp_path: Path) -> None:
    poses = walk(8, 25)
    others = np.full((8, 250, 3), 5.0)
    names = [*(f"extra{k}" for k in range(250)), *JOINTS]
    path = write_c3d(tmp_path / "poses.c3d", names, np.concatenate([others, poses], axis=1), 25)
    source = read_c3d(path)
    assert source.names == tuple(names)
    np.testing.assert_allclose(read_labels(path, 8, 25.0).poses, poses, atol=0.01)


def test_points_without_a_name_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poses = walk(8, 25)
    path = write_c3d(tmp_path / "poses.c3d", [*JOINTS, "x"], np.concatenate([poses, poses[:, :1]], axis=1), 25)
    import mcss.data.formats.c3d as module

    monkeypatch.setattr(module, "_names", lambda reader: [*JOINTS, ""])
    assert read_c3d(path).names == JOINTS


def test_a_c3d_without_points_says_what_it_holds(tmp_path: Path) -> None:
    path = write_c3d(tmp_path / "poses.c3d", [], np.zeros((8, 0, 3)), 25)
    with pytest.raises(SourceError, match=r"poses\.c3d: expected 3D points, but it holds none"):
        read_c3d(path)


def test_names_of_bvh_joints_may_have_spaces_and_a_word_in_common(tmp_path: Path) -> None:
    path = tmp_path / "poses.bvh"
    write_bvh(path, 12, 25.0)
    truth = read_labels(path, 12, 25.0).poses
    text = path.read_text().replace("ROOT ", "ROOT Bip01 ").replace("JOINT ", "JOINT Bip01 ")
    path.write_text(text.replace("Bip01 Spine1\n", "Bip01 Spine1 {\n", 1).replace("{\n{", "{\n", 1))
    path.write_text(text)
    assert read_pose_file(path).names[0] == "Bip01 Hips"
    np.testing.assert_allclose(read_labels(path, 12, 25.0).poses, truth)


def test_a_bvh_may_have_decimal_commas(tmp_path: Path) -> None:
    path = tmp_path / "poses.bvh"
    write_bvh(path, 12, 25.0)
    truth = read_labels(path, 12, 25.0).poses
    path.write_text(path.read_text().replace(".", ",").replace("\n", "\r\n"))
    np.testing.assert_allclose(read_labels(path, 12, 25.0).poses, truth)


def table(poses: np.ndarray, first: int = 0) -> list[list[str]]:
    header = ["frame", *(f"{joint}.{axis}" for joint in JOINTS for axis in "xyz")]
    return [header, *([str(i + first), *(f"{v:.3f}" for v in pose.ravel())] for i, pose in enumerate(poses))]


def test_csv_of_semicolons_commas_tabs_capitals_and_utf16_is_read(tmp_path: Path) -> None:
    poses, path = walk(COUNT, 25), tmp_path / "poses.csv"
    rows = table(poses)
    german = [rows[0], *([cell.replace(".", ",") for cell in row] for row in rows[1:])]
    capitals = [[cell.upper() for cell in rows[0]], *rows[1:]]
    capitals[0][0] = "Frame"
    variants = {
        "semicolons": "\n".join(";".join(row) for row in german),
        "tabs": "\n".join("\t".join(row) for row in rows),
        "named": "sep=;\n" + "\n".join(";".join(row) for row in german),
        "underscores": "\n".join(",".join(cell.replace(".x", "_X") for cell in row) for row in rows),
        "capitals": "\n".join(",".join(row) for row in capitals),
    }
    for name, text in variants.items():
        path.write_text(text)
        np.testing.assert_allclose(read_labels(path, COUNT, 25.0).poses, poses, atol=0.01, err_msg=name)
    path.write_text(variants["tabs"], encoding="utf-16")
    np.testing.assert_allclose(read_labels(path, COUNT, 25.0).poses, poses, atol=0.01)


def test_frames_that_begin_with_one_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "poses.csv"
    path.write_text("\n".join(",".join(row) for row in table(walk(COUNT, 25), first=1)))
    notes = read_labels(path, COUNT + 1, 25.0).notes
    assert any("its frames begin with 1" in note and "poses.offset" in note for note in notes)
    labels = read_labels(path, COUNT, 25.0, PoseSettings(offset=-0.04))  # the way out
    np.testing.assert_allclose(labels.poses, walk(COUNT, 25), atol=0.01)


def test_codes_for_lost_markers_give_no_label(tmp_path: Path) -> None:
    poses = walk(COUNT, 25)
    spoilt = poses.copy()
    spoilt[3, JOINTS.index("LWrist")] = 9999999
    spoilt[7, JOINTS.index("RKnee")] = -16512
    spoilt[9] = -16512
    write_npz(tmp_path / "poses.npz", spoilt, np.arange(COUNT) / 25, {})
    labels = read_labels(tmp_path / "poses.npz", COUNT, 25.0, PoseSettings(max_gap=0.05))
    assert np.flatnonzero(~np.isfinite(labels.poses).all(axis=(1, 2))).tolist() == [3, 7, 9]
    np.testing.assert_allclose(labels.poses[8], poses[8], atol=0.01)
    assert any("3 of its 24 samples have a bone of impossible length" in note for note in labels.notes)
    assert without_broken_bones(poses)[1] == 0


def root_relative() -> np.ndarray:
    poses = walk(COUNT, 25)
    return (poses - poses[:, :1]).astype(np.float32)


@pytest.mark.parametrize("kind", ["csv", "npz", "trc", "bvh"])
def test_own_predictions_are_read_back_as_labels(tmp_path: Path, kind: str) -> None:
    poses, times, path = root_relative(), np.arange(COUNT) / 25, tmp_path / f"poses.{kind}"
    if kind == "csv":
        write_csv(path, poses, np.arange(COUNT), times, {})
    elif kind == "npz":
        write_npz(path, poses, times, {})
    elif kind == "trc":
        write_own_trc(path, poses, times, 25.0)
    else:
        write_own_bvh(path, poses, 25.0)
    read = read_labels(path, COUNT, 25.0).poses
    assert np.isfinite(read).all()
    expected, got = canonical_of(poses), canonical_of(read)
    np.testing.assert_allclose(got, expected, atol=30 if kind == "bvh" else 0.1)  # a BVH has bones of fixed length


def canonical_of(poses: np.ndarray) -> np.ndarray:
    """Turn each pose about the vertical until its hips point along +X."""
    hips = poses[:, JOINTS.index("LHip"), :2] - poses[:, JOINTS.index("RHip"), :2]
    angle = -np.arctan2(hips[:, 1], hips[:, 0])
    turned = poses - poses[:, :1]
    x, y = turned[..., 0].copy(), turned[..., 1].copy()
    c, s = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([c * x - s * y, s * x + c * y, turned[..., 2]], axis=-1)


def test_a_pelvis_marker_that_was_always_lost_is_still_missing(tmp_path: Path) -> None:
    poses = walk(COUNT, 25) + np.array([5000, 0, 0])
    poses[:, 0] = 0
    write_npz(tmp_path / "poses.npz", poses, np.arange(COUNT) / 25, {})
    with pytest.raises(SourceError, match="Hip is known in 0%"):
        read_labels(tmp_path / "poses.npz", COUNT, 25.0)


def keypoints() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A walk and MediaPipe's 33 points of it, in mm."""
    poses = walk(COUNT, 25)
    at = {name: poses[:, k] for k, name in enumerate(JOINTS)}
    places = dict.fromkeys(BLAZEPOSE, at["Neck"])
    for side, s in (("left", "L"), ("right", "R")):
        for part, joint in (("shoulder", "Shoulder"), ("elbow", "Elbow"), ("wrist", "Wrist"), ("hip", "Hip")):
            places[f"{side}_{part}"] = at[s + joint]
        places |= {f"{side}_knee": at[s + "Knee"], f"{side}_ankle": at[s + "Foot"]}
        places[f"{side}_ear"] = at["Neck"] + [0, 0, 60]
    return poses, places


def checked(path: Path, poses: np.ndarray) -> RecordingLabels:
    """Check that the limbs are those of `poses` and the head is above the nose."""
    labels = read_labels(path, COUNT, 25.0)
    limbs = [k for k, name in enumerate(JOINTS) if name[0] in "LR"]
    np.testing.assert_allclose(labels.poses[:, limbs], poses[:, limbs], atol=0.1)
    assert (labels.poses[:, JOINTS.index("Head"), 2] > poses[:, JOINTS.index("Neck"), 2] + 50).all()
    return labels


def test_freemocap_arrays_and_tables_are_labels(tmp_path: Path) -> None:
    poses, places = keypoints()
    body = np.stack([places[name] for name in BLAZEPOSE], axis=1)
    np.save(tmp_path / "poses.npy", np.concatenate([body, np.zeros((COUNT, 520, 3))], axis=1))
    assert any("553 points are taken as nose" in note for note in checked(tmp_path / "poses.npy", poses).notes)
    header = [f"{name}_{axis}" for name in BLAZEPOSE for axis in "xyz"]
    text = "\n".join([",".join(header), *(",".join(f"{v:.4f}" for v in sample.ravel()) for sample in body)])
    (tmp_path / "poses.csv").write_text(text)
    labels = checked(tmp_path / "poses.csv", poses)
    assert any("each line is taken as one image" in note for note in labels.notes)
    np.save(tmp_path / "poses.npy", np.zeros((4, 19, 3)))
    with pytest.raises(SourceError, match=r"poses\.npy: expected numbers in the shape .*33 \(MediaPipe"):
        read_pose_file(tmp_path / "poses.npy")


def test_anipose_tables_are_labels(tmp_path: Path) -> None:
    poses, places = keypoints()
    columns = [f"{n}_{c}" for n in BLAZEPOSE for c in ("x", "y", "z", "error", "ncams", "score")]
    columns += [f"M_{i}{j}" for i in range(3) for j in range(3)] + ["center_0", "center_1", "center_2", "fnum"]
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(columns)
    for i in range(COUNT):
        cells = [v for n in BLAZEPOSE for v in (*places[n][i].round(4), 1.0, 3, 0.9)]
        lines.writerow([*cells, *[0] * 12, i])
    (tmp_path / "poses.csv").write_text(text.getvalue())
    checked(tmp_path / "poses.csv", poses)


def test_deeplabcut_tables_in_3d_are_labels(tmp_path: Path) -> None:
    poses, places = keypoints()
    header = [
        ["scorer", *["DLC_3D"] * 99],
        ["bodyparts", *(name for name in BLAZEPOSE for _ in "xyz")],
        ["coords", *("x", "y", "z") * 33],
    ]
    rows = [[str(i), *(f"{v:.4f}" for n in BLAZEPOSE for v in places[n][i])] for i in range(COUNT)]
    (tmp_path / "poses.csv").write_text("\n".join(",".join(row) for row in header + rows))
    checked(tmp_path / "poses.csv", poses)


def written(path: Path, lines: list[str], samples: list[str]) -> Path:
    path.write_text("\r\n".join([*lines, *samples]) + "\r\n")
    return path


def test_exports_of_vicon_motive_and_qualisys_are_labels(tmp_path: Path, plain: tuple[str, RecordingLabels]) -> None:
    values = markers()
    names = list(POSE2SIM)
    mm = [",".join(f"{v:.3f}" for v in 1000 * sample.ravel()) for sample in values]
    vicon = [
        *("Trajectories", "25", ",," + ",".join(f"Ann:{name},," for name in names)),
        *("Frame,Sub Frame," + ",".join(["X,Y,Z"] * len(names)), ",," + ",".join(["mm"] * 3 * len(names))),
    ]
    lines = [f"{101 + i},0,{sample}" for i, sample in enumerate(mm)]
    after = ["", "Model Outputs", "25", ",,Ann:Angle,,", "Frame,Sub Frame,X,Y,Z", ",,deg,deg,deg", "101,0,1,2,3"]
    same(written(tmp_path / "poses.csv", vicon, [*lines, *after]), plain)

    twice = [name for name in names for _ in "xyz"]
    motive = [
        "Format Version,1.23,Take Name,Take 1,Export Frame Rate,25.0,Length Units,Meters,Coordinate Space,Global",
        "",
        ",Type,Rigid Body,Rigid Body,Rigid Body," + ",".join(["Marker"] * len(twice)),
        ",Name,Board,Board,Board," + ",".join(f"Ann:{name}" for name in twice),
        ",ID,A,A,A," + ",".join(["B"] * len(twice)),
        ",,Rotation,Rotation,Rotation," + ",".join(["Position"] * len(twice)),
        "Frame,Time (Seconds),X,Y,Z," + ",".join(["X,Y,Z"] * len(names)),
    ]
    metres = [",".join(f"{v:.6f}" for v in sample.ravel()) for sample in values]
    lines = [f"{i},{i / 25:.6f},0,0,0,{sample}" for i, sample in enumerate(metres)]
    same(written(tmp_path / "poses.csv", motive, lines), plain)

    qualisys = [
        *(f"NO_OF_FRAMES\t{COUNT}", f"NO_OF_MARKERS\t{len(names)}", "FREQUENCY\t25", "DATA_INCLUDED\t3D"),
        "MARKER_NAMES\t" + "\t".join(names),
    ]
    tabs = [sample.replace(",", "\t") for sample in mm]
    same(written(tmp_path / "poses.tsv", qualisys, tabs), plain)
    header = "Frame\tTime\t" + "\t".join(f"{name} {axis}" for name in names for axis in "XYZ")
    numbered = [f"{1 + i}\t{i / 25:.5f}\t{sample}" for i, sample in enumerate(tabs)]
    same(written(tmp_path / "poses.tsv", [*qualisys, header], numbered), plain)


def test_exports_of_capture_systems_that_lack_lines_are_refused_by_name(tmp_path: Path) -> None:
    for text, expected in (
        ("Trajectories\n100\n1,0,3\n", "expected Vicon's lines Trajectories, rate, names, Frame, units"),
        ("Format Version,1.2\n,Name,a\n", "expected Motive's lines Name and Frame"),
        ("NO_OF_FRAMES\t1\nMARKER_NAMES\ta\n1\t2\t3\n", "expected Qualisys' line FREQUENCY"),
    ):
        (tmp_path / "poses.csv").write_text(text)
        with pytest.raises(SourceError, match=expected):
            read_pose_file(tmp_path / "poses.csv")


def test_a_column_that_comes_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "poses.csv").write_text("frame,a.x,a.y,a.z,a.x\n0,1,2,3,4\n")
    with pytest.raises(SourceError, match="each once"):
        read_csv(tmp_path / "poses.csv")
