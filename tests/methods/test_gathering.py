"""Devices that compare their images with each other's (``gather``)."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing

from mcss.data.loading.batches import Batch
from mcss.methods.mcss import MCSS, MCSSLosses, losses
from mcss.models.pose_network import NetworkConfig, NetworkOutput, PoseNetwork
from mcss.training.settings import recipe

INSTANTS, INPUTS, DIM = 6, 5, 8


def step(method: MCSS, instants: slice, weight: Tensor) -> MCSSLosses:
    """Run a step without labels whose embedding is a linear function of fixed inputs."""
    inputs = torch.randn(INSTANTS, 2, INPUTS, generator=torch.Generator().manual_seed(1))[instants]
    embedding = torch.nn.functional.normalize((inputs @ weight).reshape(-1, DIM), dim=-1)
    output = NetworkOutput(embedding, torch.zeros(len(embedding), 48))
    batch = Batch(torch.zeros(len(embedding), 3, 1, 1), (len(inputs), 2), torch.zeros(0, 17, 3), 0)
    network = PoseNetwork(NetworkConfig(dim=DIM, image_size=32), "random", "canonical")
    return losses(method, network, output, batch)


def weight() -> Tensor:
    return torch.randn(INPUTS, DIM, generator=torch.Generator().manual_seed(0)).requires_grad_()


def one_of_two(rank: int, folder: str, method: MCSS) -> None:
    """Take half of the instants, and average gradients as DistributedDataParallel does."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    own, half = weight(), INSTANTS // 2
    found = step(method, slice(rank * half, (rank + 1) * half), own)
    found.total.backward()
    gradient = own.grad
    assert gradient is not None
    torch.distributed.all_reduce(gradient)
    figures = torch.stack([found.total.detach(), found.positive_distance, found.negative_distance])
    torch.save({"gradient": gradient / 2, "figures": figures}, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo without a network needs another set-up there")
@pytest.mark.parametrize(
    "method", [MCSS(gather=True, beta=0.0), MCSS(gather=True, metric_loss="infonce", metric_weight=5.0)], ids=str
)
def test_two_devices_that_gather_learn_what_one_learns_from_all_instants(method: MCSS, tmp_path: Path) -> None:
    multiprocessing.spawn(one_of_two, (str(tmp_path), method), nprocs=2)  # type: ignore[no-untyped-call]
    own = weight()
    alone = step(method, slice(None), own)
    alone.total.backward()
    assert own.grad is not None
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found["gradient"], own.grad)
        figures = torch.stack([alone.total.detach(), alone.positive_distance, alone.negative_distance])
        torch.testing.assert_close(found["figures"], figures)


def test_gathering_with_captures_beside_is_refused() -> None:
    settings = recipe("paper", MCSS, "capture")
    with pytest.raises(ValueError, match="gather: expected off with captures beside"):
        replace(settings, method=MCSS(gather=True), beside=("other",))
