import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mcss
from captures_for_tests import INFO, stick_part
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.labels import Labels
from mcss.data.writer import CaptureWriter
from mcss.evaluation.predictions import target_poses
from mcss.metrics import mpjpe
from mcss.models.model_file import read_model, save_model
from mcss.models.orientation import OrientationConfig, angle_between
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.training.heads import (
    EquipSettings,
    LabelledImages,
    chosen_labels,
    equipped,
    known_orientations,
    train_orientation,
    train_uncertainty,
)

QUICK = EquipSettings(images=300, variants=2, epochs=25, reference=60, calibration=60, head=OrientationConfig(stages=3))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_capture: Capture) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    network = PoseNetwork(NetworkConfig(image_size=64, dim=16), "random")
    network.set_pose_statistics(target_poses(tiny_capture.instants("train")).float())
    save_model(folder / "model.safetensors", network.eval(), {"fingerprint": "abc"})
    (folder / "config.json").write_text(json.dumps({"labels": "S1"}))
    return folder


def test_headings_are_learned_from_maps_of_a_frozen_backbone(run: Path, tiny_capture: Capture) -> None:
    """On the training people: headings can be learned at all, and the network does not change."""
    model = mcss.load(run)
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    train = tiny_capture.instants("train")
    parts = equipped(model, tiny_capture, Labels.parse("S1,S2"), QUICK)
    assert all(torch.equal(before[key], value) for key, value in model.network.state_dict().items())
    images, true = known_orientations(tiny_capture, LabelledImages.of(train, 80))
    found = mcss.models.model.Model(model.network, parts, run).predict_rows(tiny_capture, images.rows)
    assert found.orientation is not None
    assert np.median(angle_between(found.orientation.heading, true.heading)) < 30  # chance is 90
    assert np.abs(found.orientation.root - true.root).mean() < 0.05
    assert found.error is not None
    error = mpjpe(torch.from_numpy(found.pose)[:, 1:], target_poses(images.instants).float()[:, 1:]).numpy()
    assert 0.3 < found.error.mean() / error.mean() < 3


def test_the_same_settings_give_the_same_head(run: Path, tiny_capture: Capture) -> None:
    settings = EquipSettings(images=70, variants=1, epochs=2, head=OrientationConfig(stages=2, hidden=4))
    model, train = mcss.load(run), tiny_capture.instants("train")
    one, two = (train_orientation(model, tiny_capture, train, settings).state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_equip_writes_a_model_that_knows_headings_and_errors(run: Path, tiny_capture: Capture) -> None:
    main([
        "equip", str(run), "--capture", tiny_capture.uri, "--images", "64", "--variants", "1", "--epochs", "1",
        "--reference", "20", "--calibration", "20", "--stages", "2", "--out", str(run / "half.safetensors"), "--half",
        "--json", str(run / "summary.json"),
    ])  # fmt: skip
    found = mcss.load(run / "half.safetensors").predict(tiny_capture.decode(np.arange(3)))
    assert found.heading is not None
    assert found.error is not None
    assert json.loads((run / "summary.json").read_text())["labels"] == "S1"
    about = read_model(run / "half.safetensors").about
    assert about["fingerprint"] == "abc"
    assert about["equipped"] == f"{tiny_capture.fingerprint} S1"
    assert mcss.load(run).predict(tiny_capture.decode(np.arange(3))).heading is None


def test_captures_and_runs_that_lack_what_is_needed(run: Path, tiny_capture: Capture, tmp_path: Path) -> None:
    writer = CaptureWriter.open(tmp_path / "c", info=INFO)
    writer.append([type(f)(**{**vars(f), "camera": None}) for f in stick_part(0, 0, instants=4)])
    writer.append(stick_part(2, 0, instants=10, labelled=False))
    capture = writer.finish()
    with pytest.raises(ValueError, match="has no cameras for its labelled images"):
        known_orientations(capture, LabelledImages.of(capture.instants("train"), 10))
    with pytest.raises(ValueError, match=r"the split 'validation' of .* has no labelled instants"):
        train_uncertainty(mcss.load(run), capture, capture.instants("train"), QUICK)
    assert chosen_labels(run, None) == Labels.parse("S1")
    assert chosen_labels(run, "all") == Labels.parse("all")
    with pytest.raises(ValueError, match="does not say whose labels it was trained with, or had none; name some"):
        chosen_labels(tmp_path, None)
    with pytest.raises(ValueError, match="epochs: expected 1 or more, got 0"):
        EquipSettings(epochs=0)
