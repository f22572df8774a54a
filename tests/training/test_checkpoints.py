import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins import Precision
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mcss.errors import CheckpointError
from mcss.methods.registry import load_estimator
from mcss.models.model_file import CHECKPOINT, MODEL, load_model, save_model
from mcss.models.novel_view_network import NovelViewNetwork, SynthesisConfig
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.skeletons import JOINTS
from mcss.training.best import BestWeights
from mcss.training.checkpoints import load_checkpoint, save_checkpoint
from test_files import disk_space

CONFIG = NetworkConfig("tf_efficientnet_lite0", dim=8, image_size=32, embedding_norm=True, scaled_embedding=True)


def network(seed: int = 0, config: NetworkConfig = CONFIG) -> PoseNetwork:
    torch.manual_seed(seed)
    made = PoseNetwork(config)
    made.set_pose_statistics(torch.randn(20, 17, 3) * 200)
    return made


def adam(net: PoseNetwork) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), lr=1e-3, betas=(0.9, 0.99))


def step(net: PoseNetwork, optimiser: torch.optim.Optimizer, seed: int) -> None:
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    optimiser.zero_grad()
    net.train()(images).coordinates.square().sum().backward()
    optimiser.step()


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run folder."""
    save_model(tmp_path / MODEL, network(), {"capture": "abc"})
    return tmp_path


def rewritten(path: Path, change: Callable[[dict[str, str]], object]) -> None:
    """Write the same tensors with another header."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    change(metadata)
    save_file(load_file(path), path, metadata=metadata)


def test_a_model_comes_back_as_it_was_from_its_run_folder_or_file(run: Path) -> None:
    for place in (run, run / MODEL):
        loaded = load_model(place)
        assert loaded.config == CONFIG
        assert not loaded.training
        assert same(loaded, network())
    with safe_open(run / MODEL, framework="pt") as file:
        assert file.metadata()["capture"] == "abc"


def test_a_resumed_step_equals_that_of_a_run_that_never_stopped(tmp_path: Path) -> None:
    whole, average = network(), network(1)
    optimiser = adam(whole)
    step(whole, optimiser, 0)
    save_checkpoint(tmp_path / CHECKPOINT, 1, whole, average, optimiser, "digest")
    step(whole, optimiser, 1)

    again, again_average = network(2), network(3)
    resumed = adam(again)
    assert load_checkpoint(tmp_path / CHECKPOINT, again, again_average, resumed, "digest") == 1
    assert same(again_average, average)
    step(again, resumed, 1)
    assert same(again, whole)


class Scaling(Precision):
    """Stands for the precision 16-mixed, which scales the loss, and needs a GPU."""

    def __init__(self, scale: float, tracker: int) -> None:
        self.state: dict[str, Any] = {"scale": scale, "_growth_tracker": tracker}

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.state = state_dict


def test_the_scale_of_a_loss_in_half_precision_goes_on(tmp_path: Path) -> None:
    net, again = network(), Scaling(65536.0, 0)
    save_checkpoint(tmp_path / CHECKPOINT, 1, net, None, adam(net), "digest", Scaling(1024.0, 7))
    load_checkpoint(tmp_path / CHECKPOINT, net, None, adam(net), "digest", again)
    assert again.state == {"scale": 1024.0, "_growth_tracker": 7}


def test_the_best_weights_are_those_of_the_least_error_and_never_of_none(tmp_path: Path) -> None:
    best, net = BestWeights(tmp_path), network()
    kept = [best.see(error, net) for error in (100.0, 101.0, float("nan"), 99.0, 99.0)]
    assert kept == [True, False, False, True, False]


def test_a_checkpoint_of_a_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    net = network()
    save_checkpoint(tmp_path / CHECKPOINT, 1, net, None, adam(net), "digest")
    with pytest.raises(CheckpointError, match="other settings or on another capture"):
        load_checkpoint(tmp_path / CHECKPOINT, net, None, adam(net), "another digest")


def test_a_folder_without_a_run_and_one_that_is_not_finished_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors: no such file"):
        load_model(tmp_path)
    net = network()
    save_checkpoint(tmp_path / CHECKPOINT, 1, net, None, adam(net), "digest")
    with pytest.raises(CheckpointError, match=r"not finished.*--resume"):
        load_model(tmp_path)


@pytest.mark.parametrize("size", [0, 4, 1000, 200_000])
def test_a_model_cut_short_is_refused(run: Path, size: int) -> None:
    path = run / MODEL
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a readable safetensors file"):
        load_model(run)


def test_a_checkpoint_cut_short_is_refused(tmp_path: Path) -> None:
    net, path = network(), tmp_path / CHECKPOINT
    save_checkpoint(path, 1, net, None, adam(net), "digest")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        load_checkpoint(path, net, None, adam(net), "digest")


def test_a_foreign_file_a_newer_format_and_newer_settings_are_refused(run: Path) -> None:
    path = run / MODEL
    rewritten(path, lambda metadata: metadata.update(network=json.dumps({**asdict(CONFIG), "wings": 2})))
    with pytest.raises(CheckpointError, match=r"unknown network settings wings; .* of a newer mcss"):
        load_model(run)
    rewritten(path, lambda metadata: metadata.update(network=json.dumps(asdict(CONFIG)), frame="oblique"))
    with pytest.raises(CheckpointError, match=r"poses in the frame 'oblique' are of a newer mcss"):
        load_model(run)
    rewritten(path, lambda metadata: metadata.update(format="mcss-model-2"))
    with pytest.raises(CheckpointError, match="format 'mcss-model-2', expected 'mcss-model-1'"):
        load_model(run)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"format 'none'.*--weights"):
        load_model(run)


def test_a_model_of_another_joint_set_is_refused(run: Path) -> None:
    rewritten(run / MODEL, lambda metadata: metadata.update(joints=json.dumps([*JOINTS[:-1], "Tail"])))
    with pytest.raises(CheckpointError, match=r"made for the 17 joints .*Tail; expected Hip"):
        load_model(run)


@pytest.mark.parametrize(
    "other",
    [
        NetworkConfig("resnet18", dim=8, image_size=32, embedding_norm=True),
        NetworkConfig("tf_efficientnet_lite0", dim=16, image_size=32, embedding_norm=True),
    ],
    ids=["another backbone", "another size of the embedding"],
)
def test_weights_of_another_network_are_refused(run: Path, other: NetworkConfig) -> None:
    rewritten(run / MODEL, lambda metadata: metadata.update(network=json.dumps(asdict(other))))
    with pytest.raises(CheckpointError, match=r"of another network \(\d+ tensors differ: .*--backbone"):
        load_model(run)


def test_a_full_disk_names_the_model_and_leaves_the_one_before(run: Path) -> None:
    with disk_space(100_000), pytest.raises(OSError, match=r"model\.safetensors could not be written"):
        save_model(run / MODEL, network(1), {})
    assert same(load_model(run), network())
    assert [path.name for path in run.iterdir()] == [MODEL]


def test_the_frame_of_the_poses_is_kept_and_files_that_name_none_are_canonical(tmp_path: Path) -> None:
    save_model(tmp_path / MODEL, PoseNetwork(CONFIG, "random", "camera"), {})
    assert load_model(tmp_path).frame == "camera"
    rewritten(tmp_path / MODEL, lambda metadata: metadata.pop("frame"))
    assert load_model(tmp_path).frame == "canonical"


def test_a_network_that_draws_comes_back_as_it_was(tmp_path: Path) -> None:
    drawing = NovelViewNetwork(CONFIG, SynthesisConfig(cloud_points=3, appearance=2, drawn_size=8, width=16, hidden=4))
    save_model(tmp_path / MODEL, drawing, {})
    loaded = load_estimator(tmp_path)
    assert isinstance(loaded, NovelViewNetwork)
    assert loaded.synthesis == drawing.synthesis
    assert same(drawing, loaded)
    rewritten(tmp_path / MODEL, lambda metadata: metadata.update(architecture=json.dumps({"brush": 1})))
    with pytest.raises(CheckpointError, match=r"unknown network settings brush; .* of a newer mcss"):
        load_estimator(tmp_path)
