"""Poses read off the nearest labelled ones instead of by a trained head."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mcss
from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.labels import Labels, select_labels
from mcss.data.loading.augmentation import mirrored_canonical, normalise
from mcss.errors import CheckpointError
from mcss.evaluation.predictions import target_poses
from mcss.methods.supervised import Supervised
from mcss.models.model_file import load_model, save_model
from mcss.models.pose_network import NEIGHBOUR_TEMPERATURE, NEIGHBOURS, NeighbourHead, NetworkConfig, PoseNetwork
from mcss.training.discriminant import with_fitted_embedding
from mcss.training.heads import MOST_REMEMBERED, remember_labels
from mcss.training.loop import train
from mcss.training.settings import TrainSettings


@pytest.fixture
def run(tmp_path: Path, tiny_capture: Capture) -> Path:
    torch.manual_seed(0)
    network = PoseNetwork(NetworkConfig(image_size=64, dim=16, scaled_embedding=True), "random")
    network.set_pose_statistics(target_poses(tiny_capture.instants("train")).float())
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run/model.safetensors", network.eval(), {"config": "{}"})
    (tmp_path / "run/config.json").write_text(json.dumps({"labels": "S1"}))
    return tmp_path / "run"


def test_a_pose_is_the_mean_of_its_neighbours_weighted_by_their_cosines() -> None:
    torch.manual_seed(0)
    known = torch.nn.functional.normalize(torch.randn(NEIGHBOURS + 30, 8), dim=1)
    coordinates = torch.randn(len(known), 48)
    embedding = torch.randn(3, 8)
    found = NeighbourHead(known, coordinates)(embedding)
    for i, one in enumerate(embedding):
        cosines = torch.nn.functional.cosine_similarity(one[None], known)
        nearest = cosines.argsort(descending=True)[:NEIGHBOURS]
        weights = torch.exp(cosines[nearest] / NEIGHBOUR_TEMPERATURE)
        expected = (weights[:, None] * coordinates[nearest]).sum(0) / weights.sum()
        torch.testing.assert_close(found[i], expected)


def test_a_model_remembers_labelled_poses_and_their_mirror_images(run: Path, tiny_capture: Capture) -> None:
    network = load_model(run)
    before = network.state_dict()
    labels = Labels.parse("S1")
    known = remember_labels(network, tiny_capture, labels)
    head = network.pose_head
    assert isinstance(head, NeighbourHead)
    train_split = tiny_capture.instants("train")
    own = train_split.take(np.flatnonzero(select_labels(train_split, labels)))
    assert known == 2 * min(len(own), MOST_REMEMBERED)
    poses = network.denormalised(head.coordinates)
    torch.testing.assert_close(poses[: len(own)], target_poses(own), atol=1e-2, rtol=0)
    torch.testing.assert_close(poses[len(own) :], mirrored_canonical(target_poses(own)), atol=1e-2, rtol=0)
    pixels = torch.from_numpy(tiny_capture.decode(own.rows[3], 64))
    images = normalise(pixels.permute(0, 3, 1, 2))
    with torch.no_grad():
        for shown, place in ((images, 3), (images.flip(-1), len(own) + 3)):
            mean = torch.nn.functional.normalize(network(shown).embedding.sum(0), dim=0)
            torch.testing.assert_close(head.known[place], mean, atol=1e-4, rtol=0)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items() if key in before)


def test_remember_writes_a_model_that_predicts_and_is_evaluated_like_any_other(
    run: Path, tiny_capture: Capture, tmp_path: Path
) -> None:
    out = tmp_path / "remembering.safetensors"
    place = ["--capture", tiny_capture.uri, "--out", str(out), "--json", str(tmp_path / "s.json")]
    main(["remember", str(run), "--no-fit", *place])
    summary = json.loads((tmp_path / "s.json").read_text())
    assert summary["labels"] == "S1"
    rows = np.arange(5)
    found, trained = (mcss.load(path).predict(tiny_capture.decode(rows)) for path in (out, run))
    assert not np.allclose(found.pose, trained.pose, atol=1)
    np.testing.assert_allclose(found.embedding, trained.embedding, atol=1e-5)
    network = load_model(run)
    remember_labels(network, tiny_capture, Labels.parse("S1"))
    with torch.no_grad():
        images = normalise(torch.from_numpy(tiny_capture.decode(rows, 64)).permute(0, 3, 1, 2))
        np.testing.assert_allclose(found.pose, network.poses(images).numpy(), atol=1e-2)
    with pytest.raises(
        CheckpointError, match=r"no pose head to train. Start from the run that `mcss remember` was given"
    ):
        train(TrainSettings(tiny_capture.uri, Supervised(), network=network.config, init=str(out)), tmp_path / "on")


def test_remember_first_fits_the_embedding(run: Path, tiny_capture: Capture, tmp_path: Path) -> None:
    out = tmp_path / "fitted.safetensors"
    main(["remember", str(run), "--capture", tiny_capture.uri, "--out", str(out)])
    rows = np.arange(5)
    found = mcss.load(out).predict(tiny_capture.decode(rows))
    network = with_fitted_embedding(load_model(run), tiny_capture)
    remember_labels(network, tiny_capture, Labels.parse("S1"))
    with torch.no_grad():
        images = normalise(torch.from_numpy(tiny_capture.decode(rows, 64)).permute(0, 3, 1, 2))
        np.testing.assert_allclose(found.embedding, network(images).embedding.numpy(), atol=1e-4)
        np.testing.assert_allclose(found.pose, network.poses(images).numpy(), atol=0.1)


def test_what_cannot_be_remembered_is_refused(run: Path, tiny_capture: Capture) -> None:
    with pytest.raises(ValueError, match=r"labels: none gives no pose in the split 'train' of"):
        remember_labels(load_model(run), tiny_capture, Labels.parse("none"))
    turned = PoseNetwork(NetworkConfig(image_size=64, dim=16), "random", "camera")
    with pytest.raises(ValueError, match="expected a network with canonical poses, got camera ones"):
        remember_labels(turned, tiny_capture, Labels.parse("S1"))
