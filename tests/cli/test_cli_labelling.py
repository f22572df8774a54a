"""mcss label, and training on what it writes."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from landmarks_for_tests import stick_landmarks
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.labels import Labels
from mcss.data.writer import CaptureWriter
from mcss.images import read_image
from mcss.landmarks.landmark_files import write_landmarks
from mcss.methods.supervised import Supervised
from mcss.progress import NO_PROGRESS
from mcss.skeletons import JOINTS
from mcss.training.data import TrainingData
from mcss.training.settings import TrainSettings


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def failing(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_labels_are_written_drawn_and_trained_on(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    write_landmarks(Path("all.npz"), stick_landmarks(tiny_capture))
    files = ["-o", "made.csv", "--sheet", "made.jpg", "--json", "made.json"]
    main(["label", tiny_capture.uri, "--landmarks", "all.npz", *files])
    said = " ".join(capsys.readouterr().out.split())
    assert "Labelled 96 of 96 instants" in said
    assert "Labels: made.csv" in said
    assert "--labels @made.csv" in said
    with Path("made.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["subject", "sequence", "frame", "time", "confidence", "Hip.x"]
    assert list(rows[0])[5:] == [f"{joint}.{axis}" for joint in JOINTS for axis in "xyz"]
    assert rows[30]["subject"] == "S1"
    assert float(rows[30]["time"]) == pytest.approx(0.6)
    assert json.loads(Path("made.json").read_text())["labelled"] == 96
    assert read_image(Path("made.jpg")).shape[1] == 5 * 192

    settings = TrainSettings(method=Supervised(), capture=tiny_capture.uri, labels="@made.csv")
    data = TrainingData.read(settings, tiny_capture, NO_PROGRESS)
    assert data.labelled.all()
    written = np.array([[float(row[f"LWrist.{axis}"]) for axis in "xyz"] for row in rows])
    np.testing.assert_allclose(data.instants.pose[:, JOINTS.index("LWrist")], written)
    assert str(Labels.parse("@made.csv")) == "@made.csv"


def test_landmarks_that_were_found_are_kept_before_views_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = CaptureWriter.open(tmp_path / "short", info=INFO)
    writer.append(stick_part(0, 0, instants=8))
    capture = writer.finish()
    Path("made.csv").write_text("kept")
    args = ["label", capture.uri, "--split", "all", "-o", "made.csv", "--landmarks-out", "found.npz"]
    message = failing([*args, "--min-confidence", "1", "--no-aligned", "--no-mirrored"], capsys)
    assert "do not agree" in message or "none of the 8 instants reaches the confidence 1" in message
    assert Path("made.csv").read_text() == "kept"
    with np.load("found.npz") as found:
        assert found["world"].shape == (8, 4, 33, 3)


def test_a_mistake_is_told_before_anything_is_looked_at(
    tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has no split 'tset'; it has: train" in failing(["label", tiny_capture.uri, "--split", "tset"], capsys)
    assert "there is no file no.npz" in failing(["label", tiny_capture.uri, "--landmarks", "no.npz"], capsys)
    assert not Path("labels.csv").exists()
