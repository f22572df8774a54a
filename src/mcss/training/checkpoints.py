"""Checkpoints: the state from which an interrupted run resumes bit for bit.

A run folder holds

* ``config.json``: every setting, the capture's fingerprint and the versions of the software,
* ``metrics.jsonl``: a line for every logged step,
* ``checkpoint.safetensors``: everything that an interrupted run needs to resume bit for bit,
* ``model.safetensors``: the trained network (`mcss.models.model_file`).
"""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from torch import Tensor, nn

from mcss.errors import CheckpointError, damage_as
from mcss.models.model_file import copy_state, read_tensors, write_tensors

CONFIG = "config.json"
METRICS = "metrics.jsonl"


def save_checkpoint(
    path: Path,
    step: int,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    config_digest: str,
    precision: Precision | None = None,
) -> None:
    """Write everything that the step after `step` depends on."""
    tensors = {f"network.{key}": value for key, value in network.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{key}": value for key, value in average.state_dict().items()}
    scaling = {} if precision is None else precision.state_dict()
    tensors |= {f"precision.{key}": torch.as_tensor(value) for key, value in scaling.items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in moments.items()}
    write_tensors(path, tensors, {"step": str(step), "config": config_digest, "processes": str(_processes())})


def load_checkpoint(
    path: Path,
    network: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    config_digest: str,
    precision: Precision | None = None,
) -> int:
    """Restore everything that `save_checkpoint` wrote and return its step.

    Raises:
        CheckpointError: The file is broken, or belongs to a run with other settings or on another number of devices.
    """
    state, metadata = read_tensors(path, "the checkpoint of an interrupted run")
    if metadata.get("config") != config_digest:
        raise CheckpointError(
            f"{path}: this run was started with other settings or on another capture; see its {CONFIG}. "
            "Resume with the same command, or give another --out."
        )

    if (then := metadata.get("processes", "1")) != str(_processes()):
        raise CheckpointError(
            f"{path}: this run was trained on {then} devices, and on {_processes()} it would get other weights, since "
            "each device draws its own batch. Resume with as many --devices (times --nodes), or give another --out."
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}

    copy_state(network, part("network."), path)
    if average is not None:
        copy_state(average, part("average."), path)
    scaling = {key: value.item() for key, value in part("precision.").items()}
    if scaling and precision is not None:  # 16-mixed scales the loss
        with damage_as(CheckpointError, lambda why: f"{path}: not the state of this precision ({why}); train anew."):
            precision.load_state_dict(scaling)
    moments: dict[int, dict[str, Any]] = {}
    for key, value in part("optimizer.").items():
        index, _, name = key.partition(".")
        moments.setdefault(int(index) if index.isdecimal() else -1, {})[name] = value
    with damage_as(CheckpointError, lambda why: f"{path}: not the state of this optimiser ({why}); train anew."):
        optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        _in_the_order_of_the_weights(optimizer)
    with damage_as(CheckpointError, lambda why: f"{path}: its header is damaged ({why}); train anew in another --out."):
        return int(metadata["step"])


def _in_the_order_of_the_weights(optimizer: torch.optim.Optimizer) -> None:
    """Lay the moments out in memory as their weights are: a file has one order, and a fused step needs the same."""
    for weights, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == weights.shape:
                moments[name] = torch.empty_like(weights, requires_grad=False).copy_(value)


def _processes() -> int:
    """Return the number of processes that train together, one for each device."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
