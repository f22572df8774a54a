"""The joint angles that `mcss predict` writes for spreadsheets."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from captures_for_tests import photo
from mcss.cli import main
from mcss.inference.outputs import OUTPUT_FORMATS, output_file, parsed_formats, write_angles
from mcss.inference.predict import input_files
from mcss.skeletons import JOINTS, body_angles
from runs_for_tests import equipped_run

HEADER = (
    "frame,time,left_knee,right_knee,left_hip,right_hip,left_shoulder,right_shoulder,left_elbow,right_elbow,trunk_lean"
)

STANDING = {
    "Hip": (0, 0, 0),
    "RHip": (-100, 0, 0),
    "RKnee": (-100, 0, -400),
    "RFoot": (-100, 0, -800),
    "LHip": (100, 0, 0),
    "LKnee": (100, 0, -400),
    "LFoot": (100, 0, -800),
    "Thorax": (0, 0, 500),
    "LShoulder": (100, 0, 500),
    "LElbow": (100, 0, 250),
    "LWrist": (100, 0, 0),
    "RShoulder": (-100, 0, 500),
    "RElbow": (-100, 0, 250),
    "RWrist": (-100, 0, 0),
}
"""Upright, facing -Y, in mm: legs are straight, and arms hang along the trunk."""


def posed(**moved: tuple[float, float, float]) -> np.ndarray:
    joints = {**STANDING, **moved}
    return np.array([joints.get(joint, (0.0, 0.0, 0.0)) for joint in JOINTS], np.float64)


def test_angles_of_poses_that_are_known_exactly(tmp_path: Path) -> None:
    sitting = posed(
        RKnee=(-100, -400, 0), RFoot=(-100, -400, -400), LKnee=(100, -400, 0), LFoot=(100, -600, -346.41016)
    )  # the left heel is pushed forward: 120°
    reaching = posed(RElbow=(-100, -250, 500), RWrist=(-100, -250, 750), LElbow=(100, 0, 750), LWrist=(100, 0, 1000))
    leaning = posed(Thorax=(0, -500, 500))
    undefined = posed(RFoot=(-100, 0, -400), LWrist=(np.nan, np.nan, np.nan), Thorax=(0, 0, 0))
    path = tmp_path / "walk_angles.csv"
    poses = np.stack([posed(), sitting, reaching, leaning, undefined])
    write_angles(path, poses, np.arange(11, 16), 0.44 + np.arange(5) / 25)
    assert path.read_text(encoding="ascii").splitlines() == [
        HEADER,
        "11,0.440000,180.0,180.0,180.0,180.0,0.0,0.0,180.0,180.0,0.0",
        "12,0.480000,120.0,90.0,90.0,90.0,0.0,0.0,180.0,180.0,0.0",
        "13,0.520000,180.0,180.0,180.0,180.0,180.0,90.0,180.0,90.0,0.0",
        "14,0.560000,180.0,180.0,180.0,180.0,0.0,0.0,180.0,180.0,45.0",
        "15,0.600000,180.0,,180.0,180.0,0.0,0.0,,180.0,",
    ]


def test_angles_are_without_a_sign() -> None:
    """A knee that is bent forwards or backwards, and a leg to the front or to the side, have the same angle."""
    poses = np.stack(
        [posed(RFoot=(-100, y, -400)) for y in (-400, 400)]
        + [posed(RKnee=knee) for knee in ((-100, -400, 0), (-500, 0, 0))]
    )
    angles = body_angles(poses)
    assert angles["right knee"][:2] == pytest.approx([90, 90])
    assert angles["right hip"][2:] == pytest.approx([90, 90])


def test_the_command_writes_the_angles_of_the_poses_that_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = equipped_run(tmp_path / "run")
    cv2.imwrite("photo.png", photo())
    main(["predict", "photo.png", "-o", "out", "--run", str(run), "--formats", "angles,npz", "--find", "whole"])
    assert {path.name for path in Path("out").iterdir()} == {"photo.npz", "photo_angles.csv", "photo_overlay.jpg"}
    with Path("out/photo_angles.csv").open(encoding="ascii") as file:
        (line,) = csv.DictReader(file)
    assert ",".join(line) == HEADER
    hip, knee, foot = (np.load("out/photo.npz")["poses"][0, JOINTS.index(name)] for name in ("RHip", "RKnee", "RFoot"))
    cosine = (hip - knee) @ (foot - knee) / np.linalg.norm(hip - knee) / np.linalg.norm(foot - knee)
    assert float(line["right_knee"]) == pytest.approx(np.degrees(np.arccos(cosine)), abs=0.06)
    assert (line["frame"], float(line["time"])) == ("0", 0)


def test_the_help_names_the_angles_and_every_format_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    said = "".join(capsys.readouterr().out.replace("│", " ").split())  # lines may end anywhere in the list
    assert ",".join(OUTPUT_FORMATS) in said
    assert "NAME_angles.csv" in said
    assert parsed_formats(",".join(OUTPUT_FORMATS)) == OUTPUT_FORMATS


def test_an_overlay_beside_a_file_of_any_format_is_no_input(tmp_path: Path) -> None:
    for kind in OUTPUT_FORMATS:
        folder = tmp_path / kind
        folder.mkdir()
        for name in ("walk.mp4", "walk_overlay.mp4"):
            (folder / name).touch()
        assert len(input_files(folder)) == 2
        output_file(folder, "walk", kind).touch()
        assert [file.name for file in input_files(folder)] == ["walk"]
