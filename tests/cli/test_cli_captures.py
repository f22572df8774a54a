"""The commands that inspect a capture: doctor, show, select."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from captures_for_tests import INFO, stick_part
from mcss.cli import main
from mcss.cli.training import defaults, run_folder
from mcss.data.capture import Capture
from mcss.data.writer import CaptureWriter
from mcss.errors import CheckpointError
from mcss.methods.mcss import MCSS
from mcss.models.model_file import load_model, save_model
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.training.runs import check_run, write_config
from mcss.training.settings import TrainSettings
from runs_for_tests import small_run


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def failing(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def faulty(tmp_path: Path) -> Capture:
    """A capture in which one pose is off to the side of its neighbours."""
    writer = CaptureWriter.open(tmp_path / "faulty", info=INFO)
    for subject in range(3):
        part = stick_part(subject, 0)
        if subject == 1:
            aside = np.array([1500, 0, 0], np.float32)
            part = [f if f.frame != 11 else type(f)(**{**vars(f), "pose": f.pose + aside}) for f in part]
        writer.append(part)
    return writer.finish()


def test_doctor_is_content_with_a_sound_capture(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", tiny_capture.uri, "--out", "seen", "--json", "doctor.json"])
    assert "✓ ok" in capsys.readouterr().out
    found = json.loads(Path("doctor.json").read_text())
    assert found["healthy"] is True
    assert found == json.loads(Path("seen/doctor.json").read_text())
    page = Path("seen/doctor.html").read_text()
    assert "No faults" in page
    assert "<img" not in page


def test_doctor_ends_with_1_and_shows_the_worst_cases(faulty: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", faulty.uri, "--out", "seen", "--json", "doctor.json"])
    assert stopped.value.code == 1
    assert "S2/Walking 1 frame 11" in " ".join(capsys.readouterr().out.split())
    found = json.loads(Path("doctor.json").read_text())
    assert [check["name"] for check in found["checks"] if check["verdict"] == "fault"] == ["jumps"]
    page = Path("seen/doctor.html").read_text()
    assert page.count('src="data:image/jpeg;base64,') == 4
    assert "http" not in page.replace("http-equiv", "")


def test_the_thresholds_of_doctor_can_be_set(tiny_capture: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", tiny_capture.uri, "--dark", "255", "--json", "doctor.json"])
    checks = json.loads(Path("doctor.json").read_text())["checks"]
    assert [check["name"] for check in checks if check["verdict"] == "fault"] == ["dark"]


def test_show_writes_a_sheet_of_what_was_asked_for(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    main(["show", tiny_capture.uri, "-o", "sheet.png", "--subject", "S1", "--subject", "S2", "--action", "Waving",
          "--split", "train", "--instants", "4", "--size", "64", "--json", "show.json"])  # fmt: skip
    assert cv2.imread("sheet.png").shape == (16 + 4 * (64 + 16), 5 * 64, 3)
    shown = json.loads(Path("show.json").read_text())["instants"]
    assert sorted({place.split(" frame")[0] for place in shown}) == ["S1/Waving 1", "S2/Waving 1"]
    assert "no 'S9' here; there are S1, S2, S3" in failing(["show", tiny_capture.uri, "--subject", "S9"], capsys)


def test_show_writes_a_scene(tiny_capture: Capture) -> None:
    pytest.importorskip("rerun")
    main(["show", tiny_capture.uri, "--rerun", "-o", "scene.rrd", "--instants", "2"])
    assert Path("scene.rrd").read_bytes()[:3] == b"RRF"


def test_select_writes_a_list_and_its_images(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    network = PoseNetwork(NetworkConfig(image_size=32, dim=8)).eval()
    Path("run").mkdir()
    save_model(Path("run/model.safetensors"), network, {})
    command = ["select", tiny_capture.uri, "--budget", "10", "--run", "run", "--json", "select.json"]
    main([*command, "-o", "a.csv"])
    assert "96 of them have a pose already" in " ".join(capsys.readouterr().out.split())
    main([*command, "-o", "b.csv"])
    assert Path("a.csv").read_text() == Path("b.csv").read_text()
    assert Path("a.csv").read_text().splitlines()[0] == "subject,sequence,frame,time"
    assert len(Path("a.csv").read_text().splitlines()) == 11
    assert cv2.imread("a.jpg").shape == (16 + 5 * (128 + 16), 2 * (4 + 1) * 128, 3)
    assert len(json.loads(Path("select.json").read_text())["radius"]) == 10
    assert "nowhere" in failing(["select", tiny_capture.uri, "--run", "nowhere", "--budget", "3"], capsys)


def test_a_run_from_a_list_is_named_after_it() -> None:
    settings = replace(defaults(MCSS), labels="@lists/mine.csv")
    assert run_folder(settings, "fast") == Path("runs/mcss-@mine-fast-seed0")


def test_without_frozen_stages_nothing_is_computed_once() -> None:
    for args, expected in ((["--frozen-stages", "0"], 0), (["--frozen_stages=2"], 4), (["--backbone", "resnet18"], 0)):
        assert defaults(MCSS, args).variants == expected


def test_stages_of_a_recipe_are_not_frozen_in_the_backbone_of_another_run(tmp_path: Path) -> None:
    found = defaults(MCSS, ["--init", str(small_run(tmp_path))])
    assert found.network.backbone == "resnet18"
    assert (found.frozen_stages, found.variants) == (0, 0)


def test_a_list_that_changed_is_not_the_same_run(tiny_capture: Capture) -> None:
    Path("list.csv").write_text("subject,sequence,frame\nS1,Walking 1,2\n")
    settings = TrainSettings(tiny_capture.uri, MCSS(), labels="@list.csv")
    write_config(Path("run"), settings, tiny_capture)
    check_run(Path("run"), settings, tiny_capture, resume=True)
    Path("list.csv").write_text("subject,sequence,frame\nS1,Walking 1,3\n")
    with pytest.raises(CheckpointError, match=r"got others \(label_instants\)"):
        check_run(Path("run"), settings, tiny_capture, resume=True)


@pytest.mark.slow
def test_training_from_a_list(tiny_capture: Capture) -> None:
    main(["select", tiny_capture.uri, "--budget", "12", "--by", "pose", "-o", "list.csv"])
    main(["train", "supervised", "--capture", tiny_capture.uri, "--labels", "@list.csv", "--steps", "2", "--weights",
          "random", "--out", "run"])  # fmt: skip
    assert load_model(Path("run")).pose_std.max() > 1
    assert json.loads(Path("run/config.json").read_text())["labels"] == "@list.csv"


def test_the_verbs_have_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("doctor", "show", "select"):
        with pytest.raises(SystemExit) as stopped:
            main([verb, "--help"])
        assert stopped.value.code == 0
        assert "--json" in capsys.readouterr().out
