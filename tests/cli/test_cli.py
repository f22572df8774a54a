import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mcss.cli import main
from mcss.cli.measuring import evaluation_folder
from mcss.data.capture import Capture
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.models.model_file import load_model
from mcss.training.metrics_log import read_metrics


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def failing(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must exit with status 1, and return its message."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 1
    return " ".join(capsys.readouterr().err.split())


def test_info_names_splits_and_writes_json(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", tiny_capture.uri, "--json", "info.json"])
    assert "S1, S2, S3" in capsys.readouterr().out
    found = json.loads(Path("info.json").read_text())
    assert found["splits"] == {"train": 96, "validation": 16, "test": 32}
    assert found["fingerprint"] == tiny_capture.fingerprint


def test_info_tells_rate_duration_and_size(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", tiny_capture.uri, "--json", "info.json"])
    found = json.loads(Path("info.json").read_text())
    assert found["frame_rate"] == 10
    assert found["seconds"] == pytest.approx(6 * 2.4), "six sequences of 24 instants"
    assert found["bytes"] > 100_000
    out = " ".join(capsys.readouterr().out.split())
    assert "10 instants per second" in out
    assert "14.4 s, all sequences together" in out


def test_json_goes_to_the_standard_output_alone(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", tiny_capture.uri, "--json", "-"])
    shown = capsys.readouterr()
    assert json.loads(shown.out)["subjects"] == ["S1", "S2", "S3"]
    assert "fingerprint" in shown.err
    main(["info", tiny_capture.uri])
    assert "fingerprint" in capsys.readouterr().out, "the next command writes to the standard output again"


def test_the_folder_of_an_evaluation_is_never_that_of_another_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mcss").mkdir(parents=True)
    model = tmp_path / "runs" / "mcss" / "model.safetensors"
    model.touch()
    assert evaluation_folder(None) == Path("evaluations/shipped")
    assert evaluation_folder(Path("runs/mcss")) == Path("runs/mcss")
    assert evaluation_folder(model) == model.parent
    assert evaluation_folder(Path("elsewhere/mcss.safetensors")) == Path("evaluations/mcss")
    assert evaluation_folder(Path("hf:ann/mcss")) == Path("evaluations/mcss")


@pytest.mark.slow
def test_train_and_evaluate_end_to_end_and_a_second_evaluation_is_identical(tiny_capture: Capture) -> None:
    common = ["--capture", tiny_capture.uri, "--steps", "3", "--weights", "random"]
    with pytest.raises(SystemExit):  # the recipe's batch needs more instants, far enough apart, than these people have
        main(["train", "mcss", *common, "--out", "run"])
    main(["train", "supervised", *common, "--labels", "S1:0.5", "--label-views", "1,2", "--out", "run2"])
    for name in ("one", "two"):
        main(["evaluate", "run2", "--capture", tiny_capture.uri, "--out", name, "--json", f"{name}.json"])
    assert Path("one.json").read_text() == Path("two.json").read_text()
    assert json.loads(Path("one.json").read_text())["pose"]["over_poses"]["n_mpjpe"] > 0
    report = json.loads(Path("one/report.json").read_text())
    assert report["command"] == f"mcss evaluate run2 --capture {tiny_capture.uri} --out one --json one.json"
    assert [(row["system"], row["labels"], row["seed"]) for row in report["rows"]] == [("supervised", "S1:0.5", 0)]
    assert "<html" in Path("one/report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["1", "2"])
@pytest.mark.parametrize("name", ["rhodin_cvpr18", "rhodin_eccv18", "chen_cvpr19"])
def test_a_method_of_two_stages_end_to_end(scenic_capture: Capture, name: str, devices: str) -> None:
    command = [
        str(Path(sys.executable).with_name("mcss")), "train", name, "--capture", scenic_capture.uri, "--steps", "4",
        "--weights", "random", "--instants", "4", "--min-gap", "0.2", "--variants", "1", "--accelerator", "cpu",
        "--devices", devices, "--out", "run",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    steps = {"rhodin_cvpr18": [2, 2], "rhodin_eccv18": [32, 4], "chen_cvpr19": [4, 4]}[name]
    assert [read_metrics(Path(folder, "metrics.jsonl"))[-1]["step"] for folder in ("run/first", "run")] == steps
    main(["evaluate", "run", "--capture", scenic_capture.uri, "--json", "found.json"])
    assert json.loads(Path("found.json").read_text())["pose"]["frame"] == "camera"
    assert "Scored in camera space" in Path("run/test/report.html").read_text()
    rows = json.loads(Path("run/test/report.json").read_text())["rows"]
    assert [(row["system"], row["n_mpjpe"] > 0) for row in rows] == [(name, True)]


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("mcss", "--initial-share"),
        ("supervised", "--instants"),
        ("rhodin_cvpr18", "--frame"),
        ("mcss", "--points"),
        ("rhodin_eccv18", "--temperature"),
    ],
)
def test_options_of_another_method_are_refused(method: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", method, "--capture", "c", option, "1"])
    assert stopped.value.code == 2
    assert f"Unrecognized options: {option}" in "".join(capsys.readouterr())


def test_rotations_that_a_method_cannot_have_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "rhodin_eccv18", "--capture", "c", "--rotation", "5"])
    told = re.sub(r"[│╰╯─\s]+", " ", "".join(capsys.readouterr()))
    assert "rotation, mirror: expected 0 for both, got 5 and 0" in told


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_an_accelerator_that_is_not_there_is_named_in_one_line(
    tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failing(["train", "mcss", "--capture", tiny_capture.uri, "--accelerator", "cuda"], capsys)
    assert message == (
        "Error accelerator: this machine does not have 1 × cuda; choose another one with --accelerator, or leave it out"
    )


def test_labels_of_a_missing_person(tiny_capture: Capture, capsys: pytest.CaptureFixture[str]) -> None:
    message = failing(
        ["train", "supervised", "--capture", tiny_capture.uri, "--labels", "S9", "--weights", "random"], capsys
    )
    assert "S9" in message
    assert "S1, S2" in message


def test_a_batch_larger_than_a_subject_has_far_apart_instants(
    tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failing(["train", "mcss", "--capture", tiny_capture.uri, "--weights", "random"], capsys)
    assert "instants: a metric batch needs 32 instants" in message
    assert "or fewer, or lower --min-gap" in message


def test_a_missing_capture_says_how_to_make_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert "mcss synthetic build" in failing(["info", "nowhere"], capsys)


def test_evaluating_what_is_no_run_says_what_was_expected(
    tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failing(["evaluate", "nowhere", "--capture", tiny_capture.uri], capsys)
    assert "nowhere" in message
    assert "mcss train" in message


def test_every_verb_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in (
        ["info"], ["synthetic", "build"], ["synthetic", "describe"], ["import", "videos"], ["train", "mcss"],
        ["train", "supervised"], ["train", "rhodin_cvpr18"], ["train", "rhodin_eccv18"], ["train", "chen_cvpr19"],
        ["train", "points2d"], ["evaluate"], ["demo"], ["experiment"], ["ablation"], ["reproduce"], ["export"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stopped:
            main([*verb, "--help"])
        assert stopped.value.code == 0
        assert "--json" in capsys.readouterr().out, verb


@pytest.mark.slow
@pytest.mark.parametrize("gather", [["--gather"], []])
def test_two_processes_train_one_network_together(tiny_capture: Capture, gather: list[str]) -> None:
    command = [
        str(Path(sys.executable).with_name("mcss")), "train", "mcss", "--capture", tiny_capture.uri,
        "--labels", "S1", "--instants", "4", "--min-gap", "0.2", "--steps", "4", "--weights", "random",
        "--accelerator", "cpu", "--devices", "2", "--out", "together", *gather,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    last = read_metrics(Path("together/metrics.jsonl"))[-1]
    assert last["step"] == 4
    # Two processes: 16 metric and 22 labelled images each at every step.
    assert last["images"] == 2 * 4 * (16 + 22)
    assert load_model(Path("together")).pose_std.min() >= 1


@pytest.mark.slow
def test_the_demonstration_leaves_a_report_of_all_three_systems(capsys: pytest.CaptureFixture[str]) -> None:
    main(["demo", "--out", "demo", "--quick", "--steps", "2"])
    rows = json.loads(Path("demo/report.json").read_text())["rows"]
    assert [row["system"] for row in rows] == ["mean_pose", "supervised", "mcss"]
    assert all(row["n_mpjpe"] > 0 and row["labels"] == "S1" for row in rows)
    assert rows[2]["retrieval"]["same_instant"]["hit_at_1"] >= 0
    out = capsys.readouterr().out
    assert re.search(r"This takes \d+ to \d+ minutes on this machine", out.splitlines()[0])
    assert "Results on new people" in out
    assert "report.html" in out


def test_too_small_a_demonstration_is_refused_before_anything_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert "instants: expected at least 256" in failing(["demo", "--instants", "255"], capsys)
    assert not Path("demo").exists()


@pytest.mark.slow
def test_reproducing_a_table_says_what_is_left_and_then_does_it(
    scenic_capture: Capture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mcss.training.settings import recipe

    def small(name: str, method: type[Method], capture: str) -> object:
        settings = recipe("fast", method, capture)
        network = replace(settings.network, image_size=32)
        own = settings.method
        if isinstance(own, MCSS):
            own = replace(own, instants=4, min_gap=0.2)
        return replace(settings, method=own, network=network, weights="random", variants=1, validation_instants=4)

    monkeypatch.setattr("mcss.experiments.study.recipe", small)
    command = ["reproduce", "table3", "--capture", scenic_capture.uri, "--steps", "2", "--seeds", "1", "--trials", "1"]
    main([*command, "--estimate", "--json", "left.json"])
    left = json.loads(Path("left.json").read_text())
    assert [(one["system"].split(",")[0], one["cells"], one["steps"]) for one in left] == [
        ("mcss", 3, 6), ("supervised", 3, 6),
    ]  # fmt: skip
    assert not Path("results").exists()
    main([*command, "--json", "rows.json"])
    assert len(json.loads(Path("rows.json").read_text())["table3"]) == 6
    assert set(json.loads(Path("results/tuning.json").read_text())) == {"mcss", "supervised"}
    assert "Written by `mcss reproduce table3" in Path("results/table3.md").read_text()
    capsys.readouterr()
    main([*command, "--estimate"])
    assert "Nothing is left to train" in capsys.readouterr().out
