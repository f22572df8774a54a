"""The pipe to MediaPipe's own environment, with a stand-in for MediaPipe at the other end."""

import importlib
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

from mcss.data.capture import Capture
from mcss.evaluation.predictions import EvaluationSettings
from mcss.experiments.landmarks import MILLISECONDS, PROGRAM, read_landmarks
from mcss.progress import NO_PROGRESS
from mcss.skeletons import JOINTS

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
script = importlib.import_module("write_mediapipe_landmarks")
SHARED = script.SHARED

STAND_IN = '''
"""Finds a person where the image is bright; says where by what it sees. Prints, as the real one does."""
from types import SimpleNamespace as S

print("chatter")

class Pose:
    def __init__(self, static_image_mode, model_complexity):
        assert static_image_mode and model_complexity == 1

    def process(self, image):
        print("chatter")
        if image.max() == 77:
            raise SystemExit(3)
        if image.mean() < 100:
            return S(pose_world_landmarks=None)
        points = [S(x=0.001 * i, y=float(image[0, 0, 0]), z=float(image[0, 1, 2])) for i in range(33)]
        return S(pose_world_landmarks=S(landmark=points))

NAMES = ["NOSE"] * 11 + "LEFT_SHOULDER RIGHT_SHOULDER LEFT_ELBOW RIGHT_ELBOW LEFT_WRIST RIGHT_WRIST".split()
NAMES += ["HAND"] * 6 + "LEFT_HIP RIGHT_HIP LEFT_KNEE RIGHT_KNEE LEFT_ANKLE RIGHT_ANKLE".split() + ["FOOT"] * 4
solutions = S(pose=S(Pose=Pose, PoseLandmark=[S(name=name) for name in NAMES]))
'''


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the stand-in, and numpy from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "mediapipe.py").write_text(STAND_IN)
    (site / "numpy.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    return folder / "bin" / "python"


def images(*brightness: int) -> np.ndarray:
    found = np.zeros((len(brightness), 6, 4, 3), np.uint8)
    found[:] = np.array(brightness)[:, None, None, None]
    found[:, 0, 1, 2] = 9
    return found


def test_images_are_sent_and_landmarks_come_back_in_mm(python: Path) -> None:
    with script.mediapipe(python) as process:
        for _ in range(2):
            found = process.landmarks(images(200, 10, 150))
    assert found.found.tolist() == [True, False, True]
    assert np.isnan(found.world[1]).all()
    np.testing.assert_allclose(found.world[0, 5], [5, 200_000, 9_000], rtol=1e-6)
    np.testing.assert_allclose(found.world[2, :, 1], 150_000)
    assert (found.wall >= 0).all()
    assert len(found.processor) == 3
    by_name = dict(zip(SHARED, found.shared()[0, :, 0].round().astype(int), strict=True))
    assert (by_name["LShoulder"], by_name["RWrist"], by_name["LHip"], by_name["RFoot"]) == (11, 16, 23, 28)


def test_a_process_that_ends_is_reported(python: Path) -> None:
    with script.mediapipe(python) as process:
        with pytest.raises(script.MediaPipeError, match="ended"):
            process.landmarks(images(77))
        with pytest.raises(script.MediaPipeError, match="ended"):
            process.landmarks(images(200))


def test_a_failed_installation_says_why_and_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "VERSION", "0.0.none")
    run = subprocess.run
    asked = []

    def without_pip(command: list[str], **options: object) -> object:
        asked.append(command)
        if "venv" in command:
            return run([*command, "--without-pip"], **options)  # type: ignore[call-overload]
        return run([sys.executable, "-c", "import sys; sys.exit('ERROR: no wheel')"], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", without_pip)
    with pytest.raises(script.MediaPipeError, match=r"mediapipe 0.0.none could not be installed .*ERROR: no wheel"):
        script.install(tmp_path / "environment")
    assert asked[-1][-1] == "mediapipe==0.0.none"
    assert not (tmp_path / "environment" / "installed").exists()


def test_the_shared_joints_are_limbs_and_their_error_ignores_frame_and_scale() -> None:
    assert set(SHARED) <= set(JOINTS)
    assert len(SHARED) == 12
    generator = torch.Generator().manual_seed(0)
    target = 300 * torch.randn(3, 17, 3, generator=generator)
    turned = script.shared_joints(target) @ torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]) * 0.7 + 5
    turned[1] = torch.nan
    errors = script.shared_pa_mpjpe(turned, target)
    assert errors[[0, 2]].max() < 1e-2
    assert errors[1].isnan()
    target[2, JOINTS.index("Head")] += 500  # not shared
    assert script.shared_pa_mpjpe(turned, target)[2] < 1e-2


def test_what_mediapipe_finds_becomes_a_file_of_landmarks(tiny_capture: Capture, tmp_path: Path, python: Path) -> None:
    settings = EvaluationSettings(max_instants=3)
    path = tmp_path / "landmarks.parquet"
    script.write_landmarks(path, tiny_capture, "test", settings, NO_PROGRESS, python)
    metadata = pyarrow.parquet.read_schema(path).metadata
    assert metadata[PROGRAM] == b"MediaPipe 0.10.21"
    assert float(metadata[MILLISECONDS]) >= 0
    landmarks = read_landmarks(path, tiny_capture, "test", settings)
    assert [name for name, common in zip(JOINTS, landmarks.common, strict=True) if common] == sorted(
        SHARED, key=JOINTS.index
    )
    bright = tiny_capture.decode(landmarks.instants.rows[landmarks.scored]).mean(axis=(1, 2, 3)) >= 100
    assert landmarks.found[landmarks.scored].tolist() == bright.tolist()
    images = tiny_capture.decode(landmarks.instants.rows[landmarks.found])
    knees = landmarks.joints[landmarks.found][:, JOINTS.index("RKnee")]
    np.testing.assert_allclose(knees[:, 0], 26, rtol=1e-5)  # MediaPipe's 26th landmark, a millimetre each
    np.testing.assert_allclose(knees[:, 1], 1000.0 * images[:, 0, 0, 0], rtol=1e-5)
