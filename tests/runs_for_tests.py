"""Networks and runs that the tests of several methods share."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import mcss.training.loop as training
from mcss.data.loading.augmentation import AugmentationSettings
from mcss.models.model_file import MODEL, ModelParts, save_model
from mcss.models.orientation import OrientationConfig, OrientationHead
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.models.uncertainty import UncertaintyHead
from mcss.training.loop import train
from mcss.training.settings import TrainSettings

NO_AUGMENTATION = AugmentationSettings(**dict.fromkeys(vars(AugmentationSettings()), 0.0))
"""Leaves images as they are."""


def small_network(seed: int = 0, dim: int = 128) -> PoseNetwork:
    """A network with random weights whose poses are as large as people."""
    torch.manual_seed(seed)
    network = PoseNetwork(NetworkConfig(image_size=32, dim=dim), "random")
    network.pose_std.fill_(100.0)
    return network.eval()


def parts_of(network: PoseNetwork) -> ModelParts:
    """The heads that `mcss equip` adds, with random weights."""
    torch.manual_seed(1)
    head = OrientationHead(OrientationConfig(stages=4, hidden=8), *network.map_shape(4)).eval()
    known = torch.nn.functional.normalize(torch.randn(30, 128), dim=1)
    return ModelParts(
        head, UncertaintyHead(known, 100 * torch.randn(30, 17, 3), torch.tensor([5.0, 0.5, 0.2, 0.1]), 1.5)
    )


def small_run(folder: Path, seed: int = 0, dim: int = 128) -> Path:
    """A run folder with a small network."""
    save_model(folder / MODEL, small_network(seed, dim), {})
    return folder


def equipped_run(folder: Path) -> Path:
    """A run folder with a small network and the heads that `mcss equip` adds."""
    network = small_network()
    save_model(folder / MODEL, network, {}, parts_of(network))
    return folder


def random_rotations(*shape: int, seed: int = 0) -> Tensor:
    """Proper rotations in float64."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(*shape, 3, 3, generator=generator, dtype=torch.float64))
    return q * torch.linalg.det(q).sign()[..., None, None]


def check_that_a_run_stopped_in_either_stage_resumes_bit_for_bit(
    settings: TrainSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare a run that was never stopped with one stopped in each stage; the first stage takes four steps."""
    settings = replace(settings, checkpoint_every=2)
    train(settings, folder / "whole")
    saved = training.save_checkpoint
    for stop in (1, 3):  # a checkpoint of the first stage and one of the second
        count = 0

        def stopping(*args: object, stop: int = stop) -> None:
            nonlocal count
            saved(*args)  # type: ignore[arg-type]
            count += 1
            if count == stop:
                raise KeyboardInterrupt

        out = folder / f"stopped{stop}"
        with monkeypatch.context() as patch:
            patch.setattr(training, "save_checkpoint", stopping)
            with pytest.raises(KeyboardInterrupt):
                train(settings, out)
        assert (out / "first" / "model.safetensors").exists() == (stop == 3)
        train(settings, out, resume=True)
        whole, resumed = (load_file(run / "model.safetensors") for run in (folder / "whole", out))
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
