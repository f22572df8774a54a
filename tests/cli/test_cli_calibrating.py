"""mcss calibrate: cameras are found, judged, written into the capture and to files, and nothing is lost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from captures_for_tests import stick_camera
from landmarks_for_tests import stick_landmarks
from mcss.calibration.camera_files import read_cameras_file
from mcss.cli import main
from mcss.data import camera_columns
from mcss.data.camera_columns import images_with_camera, write_cameras
from mcss.data.capture import Capture
from mcss.landmarks.landmark_files import write_landmarks


@pytest.fixture
def capture(tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Capture:
    """A capture without cameras and its landmarks, all.npz, in an own folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_capture.uri, tmp_path / "c")
    write_landmarks(Path("all.npz"), stick_landmarks(tiny_capture))
    opened = Capture.open("c")
    return write_cameras(opened, {part: {} for part in parts_of(opened)})


def parts_of(capture: Capture) -> set[tuple[str, str]]:
    """The (subject, sequence) pairs of a capture."""
    instants = capture.instants()
    return {
        (instants.subjects[s], instants.sequences[q]) for s, q in zip(instants.subject, instants.sequence, strict=True)
    }


def test_cameras_are_written_into_the_capture_and_to_a_file(
    capture: Capture, tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert images_with_camera(capture) == 0
    files = ["-o", "cameras.toml", "--json", "made.json", "--report", "made.html"]
    main(["calibrate", "c", "--landmarks", "all.npz", "--focal", "700", *files])
    assert "good" in capsys.readouterr().out
    written = Capture.open("c")
    assert images_with_camera(written) == len(written)
    assert written.fingerprint != capture.fingerprint
    rows = np.arange(len(written))
    assert (written.boxes(rows) == tiny_capture.boxes(rows)).all()
    made = json.loads(Path("made.json").read_text())["calibrations"][0]
    assert made["verdict"] == "good"
    assert made["scale_from"].startswith("the labels of")
    rig = read_cameras_file(Path("cameras.toml"))
    for v in range(4):  # in the room of the labels
        assert np.abs(rig.rotation[v] - stick_camera(v).rotation).max() < 0.03
        assert np.linalg.norm(rig.positions[v] + stick_camera(v).rotation.T @ stick_camera(v).translation) < 150
    page = Path("made.html").read_text()
    assert "From above" in page
    assert page.count("data:image/jpeg") == 12


def test_a_kill_leaves_the_cameras_and_the_fingerprint_of_before(
    capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras = {part: {"1": stick_camera(0)} for part in sorted(parts_of(capture))[:1]}

    def killed(*_: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(camera_columns, "fingerprint_of", killed)
        with pytest.raises(KeyboardInterrupt):
            write_cameras(capture, cameras)
    left = Capture.open("c")
    assert images_with_camera(left) == 0
    assert left.fingerprint == capture.fingerprint
    written = write_cameras(left, cameras)
    assert 0 < images_with_camera(written) < 144, "one sequence of one view"
    assert written.fingerprint != left.fingerprint
    assert written.splits == left.splits


def test_cameras_that_are_there_stay(capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    write_cameras(capture, {part: {"1": stick_camera(0)} for part in parts_of(capture)})
    with pytest.raises(SystemExit):
        main(["calibrate", "c", "--landmarks", "all.npz"])
    said = " ".join(capsys.readouterr().err.split())
    assert "144 of 576 images of the capture at c have a camera already; give --replace" in said
    assert images_with_camera(Capture.open("c")) == 144


def test_known_cameras_are_judged_and_written(capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    known = {
        str(v + 1): {
            "K": stick_camera(v).intrinsics.tolist(),
            "R": stick_camera(v).rotation.tolist(),
            "T": stick_camera(v).translation.tolist(),
        }
        for v in range(4)
    }
    Path("known.json").write_text(json.dumps(known))
    main(["calibrate", "c", "--landmarks", "all.npz", "--cameras", "known.json"])
    assert "good" in capsys.readouterr().out
    cameras = Capture.open("c").cameras(np.arange(4))
    assert np.allclose(cameras.rotation[0], stick_camera(0).rotation, atol=1e-6)


def test_cameras_and_intrinsics_together_are_refused(capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["calibrate", "c", "--cameras", "a.toml", "--intrinsics", "b.toml"])
    assert "give one of them" in capsys.readouterr().err


def test_landmarks_of_another_video_are_refused(
    capture: Capture, tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    landmarks = stick_landmarks(tiny_capture)
    write_landmarks(Path("other.npz"), replace(landmarks, image=2 * landmarks.image))
    with pytest.raises(SystemExit):
        main(["calibrate", "c", "--landmarks", "other.npz"])
    said = " ".join(capsys.readouterr().err.split())
    assert "of those in other.npz lie far from the person whom the capture shows: are they of another video" in said
    assert images_with_camera(Capture.open("c")) == 0


def test_failed_cameras_are_not_written(
    capture: Capture, tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    landmarks = stick_landmarks(tiny_capture)
    image = landmarks.image.copy()
    for view in range(1, 4):
        image[:, view] = image[np.random.default_rng(view).permutation(len(image)), view]
    write_landmarks(Path("mixed.npz"), replace(landmarks, image=image))
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", "c", "--landmarks", "mixed.npz", "--instants", "20"])
    assert ended.value.code == 1
    assert "failed" in capsys.readouterr().out
    assert images_with_camera(Capture.open("c")) == 0
