import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mcss
from captures_for_tests import INFO, stick_part
from mcss.adaptation import adapt as adapting
from mcss.adaptation.adapt import REPORT, adapt
from mcss.adaptation.agreement import Agreement
from mcss.adaptation.settings import AdaptSettings, batch_of
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.instants import ends_of_sequences
from mcss.data.labels import write_instants
from mcss.data.writer import CaptureWriter
from mcss.errors import CheckpointError
from mcss.methods.mcss import MCSS
from mcss.models.pose_network import NetworkConfig
from mcss.training.loop import train
from mcss.training.settings import OptimiserSettings, TrainSettings

QUICK = AdaptSettings(labels="none", steps=4, variants=2, hold_out=0.3)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCSS_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def start(tiny_capture: Capture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = TrainSettings(
        capture=tiny_capture.uri,
        method=MCSS(metric_loss="infonce", instants=4, views=2, min_gap=0.2, pose_images=4),
        network=NetworkConfig(backbone="resnet18", batchnorm_affine=True, embedding_norm=True, dim=16, image_size=32),
        weights="random",
        optimiser=OptimiserSettings(steps=3),
        validation=None,
    )
    return train(settings, tmp_path_factory.mktemp("runs") / "start")


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


@pytest.mark.parametrize("labels", ["none", "S1"])
def test_adapting_leaves_a_run_that_is_no_worse_on_the_held_out_instants(
    tiny_capture: Capture, start: Path, tmp_path: Path, labels: str
) -> None:
    result = adapt(tiny_capture.uri, start, tmp_path / "run", replace(QUICK, labels=labels))
    assert result.after == result.before or result.after.better_than(result.before)
    assert (result.labelled > 0) == (labels != "none")
    known = json.loads((tmp_path / "run" / REPORT).read_text())
    assert [point["step"] for point in known["points"]] == [1, 2, 3, 4][: len(known["points"])]
    assert mcss.load(tmp_path / "run").dim == 16
    before = weights(tmp_path / "run")
    again = adapt(tiny_capture.uri, start, tmp_path / "run", replace(QUICK, labels=labels), resume=True)
    assert again.to_json() == result.to_json()
    with pytest.raises(CheckpointError, match=r"expected the settings of the run in it, got others \(optimiser"):
        adapt(tiny_capture.uri, start, tmp_path / "run", replace(QUICK, labels=labels, lr=0.1), resume=True)
    assert all(torch.equal(before[key], value) for key, value in weights(tmp_path / "run").items())
    assert not list((tmp_path / "run").glob("best*"))


def test_of_listed_labels_those_that_are_held_out_are_references_and_no_other_truth_is_looked_at(
    tiny_capture: Capture, start: Path, tmp_path: Path
) -> None:
    instants = tiny_capture.instants("train")
    ends = ends_of_sequences(instants, QUICK.hold_out)
    trained, held = (np.flatnonzero(which & instants.heading_valid) for which in (~ends, ends))
    listed = tmp_path / "few.csv"
    write_instants(listed, instants.take(np.concatenate([trained[:3], held[:6]])))
    result = adapt(tiny_capture.uri, start, tmp_path / "run", replace(QUICK, labels=f"@{listed}"))
    assert result.labelled == 3
    known = adapting._with_labels_alone(instants, f"@{listed}").heading_valid
    assert sorted(np.flatnonzero(known)) == sorted([*trained[:3], *held[:6]])
    assert not adapting._with_labels_alone(instants, "none").heading_valid.any()


def test_a_model_that_nothing_improves_stays_as_it_was(
    tiny_capture: Capture, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Agreement, "better_than", lambda self, other: False)
    result = adapt(tiny_capture.uri, start, tmp_path / "run", QUICK)
    assert result.step == 0
    assert "Nothing was gained" in result.in_words()
    before, after = weights(start), weights(tmp_path / "run")
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_training_ends_when_three_points_bring_no_gain(
    tiny_capture: Capture, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Agreement, "better_than", lambda self, other: False)
    adapt(tiny_capture.uri, start, tmp_path / "run", replace(QUICK, steps=40))
    known = json.loads((tmp_path / "run" / REPORT).read_text())
    assert [point["step"] for point in known["points"]] == [10, 20, 30]


def test_a_stopped_run_goes_on_to_the_same_result(
    tiny_capture: Capture, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = adapt(tiny_capture.uri, start, tmp_path / "whole", QUICK)
    measured = adapting._Watch.__call__

    def stops(self: adapting._Watch, step: int, network: torch.nn.Module) -> bool:
        if step == 3:
            raise KeyboardInterrupt
        return measured(self, step, network)

    with monkeypatch.context() as patch:
        patch.setattr(adapting._Watch, "__call__", stops)
        with pytest.raises(KeyboardInterrupt):
            adapt(tiny_capture.uri, start, tmp_path / "run", QUICK)
    with pytest.raises(CheckpointError, match=r"holds a run already\. Add --resume"):
        adapt(tiny_capture.uri, start, tmp_path / "run", QUICK)
    again = adapt(tiny_capture.uri, start, tmp_path / "run", QUICK, resume=True)
    assert again.after == whole.after
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_two_views_are_enough_and_one_is_not(start: Path, tmp_path: Path) -> None:
    captures = {}
    for views in (1, 2):
        writer = CaptureWriter.open(tmp_path / str(views), info=INFO)
        for subject, sequence in ((0, 0), (2, 0)):
            writer.append([frame for frame in stick_part(subject, sequence) if int(frame.view) <= views])
        captures[views] = writer.finish()
    adapt(captures[2].uri, start, tmp_path / "run", QUICK)
    with pytest.raises(ValueError, match="hold_out: expected 5 or more instants with two views"):
        adapt(captures[1].uri, start, tmp_path / "other", QUICK)
    with pytest.raises(ValueError, match="views: adapting compares views, and no instant of this capture has two"):
        batch_of(captures[1].instants("train"), 0)


def test_a_step_takes_as_many_instants_as_the_footage_has(tiny_capture: Capture) -> None:
    instants = tiny_capture.instants("train")
    people = np.unique(np.stack([instants.subject, instants.outfit]), axis=1).T
    fewest = min(int(((instants.subject == s) & (instants.outfit == o)).sum()) for s, o in people)
    batch = batch_of(instants, 0)
    assert batch.views == 4
    assert batch.instants == max(count for count in (16, 8) if count <= fewest)
    one = instants.take(np.flatnonzero(instants.subject == instants.subject[0])[:7])
    with pytest.raises(ValueError, match="at least 8 instants of a person, each in two views, and the footage has 7"):
        batch_of(one, 0)


def test_the_verb_says_what_was_gained(
    tiny_capture: Capture, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, result = tmp_path / "run", tmp_path / "result.json"
    given = f"adapt {tiny_capture.uri} --from {start} --out {out} --json {result}"
    main([*given.split(), *["--labels", "none", "--steps", "2", "--hold-out", "0.3", "--variants", "2"]])
    said = capsys.readouterr().out
    assert "same moment found first, within 0.2 s" in said
    assert f"mcss evaluate {out}" in " ".join(said.split())
    assert json.loads(result.read_text())["before"]["hit_at_1"] >= 0
