"""What is said after a training or an evaluation, and where its log goes besides metrics.jsonl."""

import json
from pathlib import Path

import pytest

from mcss.cli import main
from mcss.data.capture import Capture
from runs_for_tests import equipped_run

SMALL = [
    "--weights", "random", "--backbone", "resnet18", "--image-size", "32", "--instants", "4", "--min-gap", "0.2",
    "--steps", "2", "--log-every", "1", "--validate-every", "1", "--validation-instants", "4", "--out", "run",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def test_the_log_goes_to_tensorboard_too(tiny_capture: Capture) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    main(["train", "mcss", "--capture", tiny_capture.uri, *SMALL, "--logger", "tensorboard"])
    events = EventAccumulator("run").Reload()
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["total"]) for line in lines if "total" in line]
    shown = [(event.step, event.value) for event in events.Scalars("training/total")]
    assert [step for step, _ in shown] == [step for step, _ in losses] == [1, 2]
    assert [value for _, value in shown] == pytest.approx([value for _, value in losses])
    assert "validation/n_mpjpe" in events.Tags()["scalars"]


def test_after_a_training_without_labels_a_line_says_what_got_better_and_what_did_not(
    tiny_capture: Capture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = equipped_run(tmp_path / "start")
    options = [word for word in SMALL if word not in ("--backbone", "resnet18", "--image-size", "32")]
    main(["train", "mcss", "--capture", tiny_capture.uri, "--labels", "none", "--init", str(start), *options])
    said = " ".join(capsys.readouterr().out.split())
    points = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    hits = [point["validation"]["hit_at_1"] for point in points if "validation" in point]
    expected = (
        f"the same moment is now found first in another view {hits[-1]:.1%} of the time, {hits[0]:.1%} at step 1."
    )
    assert expected in said
    assert "Poses in mm were not trained and may have become worse" in said
    assert f"The headings and expected errors of {start} do not fit the new network" in said
    assert "mcss equip run --capture CAPTURE fits new ones" in said


def test_an_evaluation_says_which_instants_count_as_the_same(
    tiny_capture: Capture, capsys: pytest.CaptureFixture[str]
) -> None:
    for tolerance, said in (("0", "(the exact instant; --tolerance 5 also"), ("2", "(within ±2 frames)")):
        main(["evaluate", "--capture", tiny_capture.uri, "--tolerance", tolerance, "--max-instants", "8"])
        assert f"Same instant from another view {said}" in " ".join(capsys.readouterr().out.split())
