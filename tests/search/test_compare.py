import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from captures_for_tests import SEQUENCES, stick_pose
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.errors import CaptureError
from mcss.inference.clips import clip_of_sequence
from mcss.inference.pose_sequence import PoseSequence
from mcss.models.model import Poses, load
from mcss.search.compare import CompareSettings, compare, shown_moments, without_needless_warping
from mcss.skeletons import JOINTS, TRUNK_LEAN, body_angles, canonical_pose
from mcss.smoothing import SmoothingSettings
from runs_for_tests import small_run


def wave(time: np.ndarray) -> np.ndarray:
    """Canonical poses in mm of a person who waves."""
    poses = np.stack([stick_pose(0, 1, float(t)) for t in time])
    return canonical_pose(torch.from_numpy(poses)).numpy()


def clip(name: str, time: np.ndarray, pose: np.ndarray, shown: np.ndarray) -> PoseSequence:
    """A clip with embeddings on a curve that never meets itself, at the times `shown` of the movement."""
    vector = np.stack([np.cos(shown), np.sin(shown), np.sin(2.3 * shown), 0.4 * shown], axis=1).astype(np.float32)
    nowhere = np.zeros((len(time), 4), np.float32)
    poses = Poses(pose.astype(np.float32), vector, None, None, nowhere)
    return PoseSequence(name, name, poses, np.arange(len(time)), time, np.ones(len(time), bool), rate=1.0)


ROUGH = CompareSettings(smoothing=SmoothingSettings(smooth="none"), steady=0.1)


def test_two_clips_at_different_paces_and_starts_run_in_step() -> None:
    one = np.arange(0, 6, 0.05)
    a = clip("a", one, wave(one), one)
    own = np.arange(0, 3, 0.05)  # shows 1 s to 5.2 s of the movement, 1.4 times as fast
    b = clip("b", own, wave(1 + 1.4 * own), 1 + 1.4 * own)
    for found in (compare(a, b, ROUGH), compare(b, a, ROUGH)):
        first, second = (found.time_a, found.time_b) if found.a.name == "a" else (found.time_b, found.time_a)
        assert np.abs(first - (1 + 1.4 * second))[3:-3].max() < 0.08
        assert (np.diff(found.time_a) >= 0).all()
        assert (np.diff(found.time_b) >= 0).all()
        assert found.joints.mean() < 15
        assert found.distance.mean() < 0.06
        assert max(d.mean for d in found.differences()) < 6


def test_an_even_pace_is_kept_where_warping_agrees_hardly_better() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 8)), rng.normal(size=(50, 8))
    b[5:45] = a + 0.3 * rng.normal(size=(40, 8))
    even = np.arange(40) + 5
    warped = even + np.round(1.4 * np.sin(np.arange(40) / 3)).astype(int)
    assert without_needless_warping(a, b, warped).tolist() == even.tolist()
    faster = np.clip(np.rint(1.2 * np.arange(40)).astype(int), 0, 49)
    b = np.zeros((50, 8))
    b[faster] = a
    assert without_needless_warping(a, b, faster).tolist() == faster.tolist()


def bent(pose: np.ndarray, joints: tuple[str, ...], about: str, degrees: float) -> np.ndarray:
    """Rotate some joints of a pose about another joint, sideways."""
    turned = pose.copy()
    place, centre = [JOINTS.index(j) for j in joints], pose[:, JOINTS.index(about)]
    turn = Rotation.from_euler("y", degrees, degrees=True).as_matrix()
    turned[:, place] = (pose[:, place] - centre[:, None]) @ turn.T + centre[:, None]
    return turned


def test_the_changed_angles_differ_most_and_no_others_do() -> None:
    time = np.arange(0, 4, 0.05)
    pose = wave(time)
    changed = np.where((time > 2)[:, None, None], bent(pose, ("LKnee", "LFoot"), "LHip", 30), pose)
    found = compare(clip("a", time, pose, time), clip("b", time, changed, time), ROUGH)
    differences = {d.name: d for d in found.differences()}
    assert found.differences()[0].name == "left hip"
    assert abs(differences["left hip"].largest) > 15
    assert found.time_a[differences["left hip"].at] > 1.9
    assert differences["right knee"].mean < 1
    assert differences["left elbow"].mean < 1
    spread, worst = shown_moments(found)
    assert all(found.time_a[place] > 1.9 for place in worst)
    assert spread[0] == 0
    assert spread[-1] == len(found) - 1


def test_angles_are_those_of_bones() -> None:
    pose = np.zeros((1, 17, 3))
    at = {name: place for place, name in enumerate(JOINTS)}
    pose[0, at["Thorax"]] = (0, 0, 500)
    pose[0, at["LHip"]] = (100, 0, 0)
    pose[0, at["LKnee"]] = (100, 0, -400)
    pose[0, at["LFoot"]] = (100, 400, -400)
    pose[0, at["LShoulder"]] = (100, 0, 500)
    pose[0, at["LElbow"]] = (400, 0, 500)
    pose[0, at["LWrist"]] = (700, 0, 500)
    angles = {name: float(values[0]) for name, values in body_angles(pose).items()}
    assert angles["left knee"] == pytest.approx(90)
    assert angles["left hip"] == pytest.approx(180)
    assert angles["left shoulder"] == pytest.approx(90)
    assert angles["left elbow"] == pytest.approx(180)
    assert angles[TRUNK_LEAN] == pytest.approx(0)
    assert np.isnan(angles["right knee"]), "its joints lie on each other"
    size = {name: values[0] for name, values in body_angles(0.7 * pose).items()}
    assert size == pytest.approx(angles, nan_ok=True), "whatever the size of the body"
    pose[0, at["Thorax"]] = (0, 500, 500)
    assert body_angles(pose)[TRUNK_LEAN][0] == pytest.approx(45)


def test_an_angle_that_is_undefined_somewhere_is_not_compared() -> None:
    time = np.arange(0, 4, 0.1)
    whole, folded = wave(time), wave(time)
    folded[20, JOINTS.index("LFoot")] = folded[20, JOINTS.index("LKnee")]
    found = compare(clip("a", time, whole, time), clip("b", time, folded, time), ROUGH)
    assert "left knee" not in found.angles_a
    assert [*found.angles_a] == [*found.angles_b]
    assert {d.name for d in found.differences()} == {*body_angles(whole)} - {"left knee"}


def test_clips_that_cannot_be_compared_are_refused_with_a_reason() -> None:
    time = np.arange(0, 4, 0.1)
    long, short = clip("long", time, wave(time), time), clip("short", time[:9], wave(time[:9]), time[:9])
    with pytest.raises(ValueError, match="short: expected 8 images or more, got 3; name a longer time"):
        compare(long, short.take(np.arange(3)))
    assert len(compare(long, short, ROUGH)) == 9
    with pytest.raises(ValueError, match="cannot be aligned"):
        compare(long, short, CompareSettings(ends="fixed"))


def test_two_views_of_a_capture_on_the_command_line(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = str(small_run(tmp_path))
    name = f"{tiny_capture.uri}:S1/{SEQUENCES[0]}"
    main(["compare", f"{name}/1", f"{name}/2@0.5:2", "--run", run, "--json", "found.json"])
    found = json.loads(Path("found.json").read_text())
    assert len(found["time_a"]) == len(found["joints_mm"]) == 16
    assert found["time_b"][0] == pytest.approx(0.5)
    assert len(found["differences"]) == 9
    page = Path("compare.html").read_text()
    assert page.count("data:image/jpeg") == 16
    assert page.count("<svg") == 8 + 9 + 3
    assert f"B: S1/{SEQUENCES[0]}/2" in page
    with pytest.raises(SystemExit):
        main(["compare", f"{name}/1", f"{name}/9", "--run", run])
    assert "view: there is no '9' in the capture" in " ".join(capsys.readouterr().err.split())


def test_a_missing_sequence_is_an_error_that_names_it(tiny_capture: Capture, tmp_path: Path) -> None:
    model = load(small_run(tmp_path))
    with pytest.raises(CaptureError, match="'S1': expected subject/sequence/view, such as S1/Walking 1/1"):
        clip_of_sequence(tiny_capture, "S1", model)
    with pytest.raises(CaptureError, match="has no images of it at 50 to 60 s"):
        clip_of_sequence(tiny_capture, f"S1/{SEQUENCES[0]}/1", model, (50.0, 60.0))
    clip = clip_of_sequence(tiny_capture, f"S1/{SEQUENCES[0]}/1", model, (0.5, 1.0))
    frame = clip.sequence.frame
    assert frame.tolist() == [5, 6, 7, 8, 9, 10]
    rows = tiny_capture.instants().rows[frame[[4, 0]], 0]
    np.testing.assert_array_equal(np.stack(clip.crops_of(frame[[4, 0]], 64)), tiny_capture.decode(rows, 64))
