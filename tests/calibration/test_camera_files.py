"""Files of cameras: what is written is read again, and files of other programs are understood."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from captures_for_tests import stick_camera
from mcss.calibration.camera_files import SUFFIXES, read_cameras_file, write_cameras_file
from mcss.calibration.rig import Rig
from mcss.errors import CalibrationError


def two_cameras() -> Rig:
    cameras = [stick_camera(v) for v in range(2)]
    return Rig(
        views=("left", "cam-2"),
        rotation=np.stack([c.rotation for c in cameras]),
        translation=np.stack([c.translation for c in cameras]),
        intrinsics=np.stack([c.intrinsics for c in cameras]),
        distortion=np.array([[-0.2, 0.1, 0.001, -0.002, 0.03], [0, 0, 0, 0, 0.0]]),
        image_size=np.array([[512.0, 512.0], [640.0, 480.0]]),
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cameras_come_back_as_they_were_written(suffix: str, tmp_path: Path) -> None:
    rig = two_cameras()
    write_cameras_file(tmp_path / f"cameras{suffix}", rig)
    back = read_cameras_file(tmp_path / f"cameras{suffix}")
    assert back.views == rig.views
    for name in ("rotation", "translation", "intrinsics", "distortion", "image_size"):
        assert np.allclose(getattr(back, name), getattr(rig, name), atol=1e-9), name


def test_a_size_that_is_not_known_is_left_out(tmp_path: Path) -> None:
    rig = replace(two_cameras(), image_size=np.full((2, 2), np.nan))
    for suffix in SUFFIXES:
        write_cameras_file(tmp_path / f"cameras{suffix}", rig)
        assert np.isnan(read_cameras_file(tmp_path / f"cameras{suffix}").image_size).all()


def test_a_calibration_of_pose2sim_is_read_in_metres(tmp_path: Path) -> None:
    (tmp_path / "Calib.toml").write_text(
        '[cam_01]\nname = "cam_01"\nsize = [1088.0, 1920.0]\nmatrix = [[1681.0, 0.0, 540.0], [0.0, 1680.0, 960.0], '
        "[0.0, 0.0, 1.0]]\ndistortions = [-0.1, 0.0, 0.0, 0.0]\nrotation = [0.0, 1.5707963267948966, 0.0]\n"
        "translation = [0.5, 1.0, 4.0]\nfisheye = false\n\n[metadata]\nadjusted = false\nerror = 0.0\n"
    )
    rig = read_cameras_file(tmp_path / "Calib.toml")
    assert rig.views == ("cam_01",)
    assert rig.translation.tolist() == [[500.0, 1000.0, 4000.0]]
    assert np.allclose(rig.rotation[0], [[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    assert rig.focal.tolist() == [1681.0]


def test_translations_in_millimetres_stay(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"a": {"K": [[900, 0, 500], [0, 900, 500], [0, 0, 1]], "T": [500, 1000, 4000]}}')
    rig = read_cameras_file(tmp_path / "c.json")
    assert rig.translation.tolist() == [[500.0, 1000.0, 4000.0]]
    assert (rig.rotation == np.eye(3)).all()


def test_opencv_reads_the_yaml(tmp_path: Path) -> None:
    write_cameras_file(tmp_path / "cameras.yml", two_cameras())
    storage = cv2.FileStorage(str(tmp_path / "cameras.yml"), cv2.FILE_STORAGE_READ)
    assert np.allclose(storage.getNode("K_left").mat(), two_cameras().intrinsics[0])
    assert np.allclose(storage.getNode("T_left").mat()[:, 0] * 1000, two_cameras().translation[0])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.json", "[]", "not a file of cameras that mcss can read \\(it is not an object of cameras by name\\)"),
        ("c.json", "{}", "there are no cameras in it"),
        ("c.json", '{"a": {"R": [0, 0, 0]}}', "'K' is missing"),
        ("c.json", '{"a": {"K": [[0, 0, 1], [0, 9, 1], [0, 0, 1]]}}', "K of a has no focal length above 0"),
        (
            "c.json",
            '{"a": {"K": [[9, 0, 1], [0, 9, 1], [0, 0, 1]], "R": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}}',
            "R of a is not a rotation; expected 3×3 numbers or a rotation vector",
        ),
        ("c.toml", "[cam]\nfisheye = true\n", "cam is a fisheye camera; undistort the videos and calibrate again"),
        ("c.toml", "[cam\n", "not a file of cameras that mcss can read"),
        ("c.yml", "%YAML:1.0\n---\nK_a: 1\n", "'names' is missing"),
        ("c.txt", "", "expected a file of cameras \\(.toml, .yml, .yaml, .json\\), got '.txt'"),
    ],
)
def test_other_files_are_errors(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CalibrationError, match=message):
        read_cameras_file(tmp_path / name)


def test_names_that_opencv_does_not_allow_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="allows letters, digits, _ and - in names, got my cam"):
        write_cameras_file(tmp_path / "c.yml", replace(two_cameras(), views=("my cam", "b")))
    assert not (tmp_path / "c.yml").exists()
