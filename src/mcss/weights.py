"""Weights of networks in files: read without running any code, and loaded strictly."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mcss.errors import WeightsError


def read_weights(path: Path, option: str = "--weights", others: str = "imagenet, random, or ") -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` or ``.pth`` file; pickled code in the latter is refused, never run.

    Args:
        path: The file.
        option: The option that names the file, for messages.
        others: The other values of this option, for messages.

    Raises:
        WeightsError: There is no such file, it is damaged, or it holds something else.
    """
    if not path.is_file():
        raise WeightsError(f"{option} {path}: no such file. Expected {others}a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the two readers raise errors of many types
        raise WeightsError(
            f"{option} {path}: not readable as plain weights ({error}). Expected a .safetensors file, or a "
            ".pth file that holds nothing but tensors."
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            f"{option} {path}: expected a state_dict (tensors by name), got a .pth file with something else. "
            "Save `model.state_dict()` of the network's own library."
        )
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def load_strictly(
    net: nn.Module,
    state: dict[str, Tensor],
    source: str,
    name: str,
    option: str = "--weights",
    other: str = "--backbone",
) -> None:
    """Load weights that fit a network exactly; only BatchNorm's step counters may be missing.

    Args:
        net: The network.
        state: Tensors by name.
        source: The file that the tensors come from, for messages.
        name: The network's name, for messages.
        option: The option that names the file, for messages.
        other: The option that chooses another network, for messages.

    Raises:
        WeightsError: The weights are those of another network.
    """
    expected = net.state_dict()
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in expected]
    shapes = [key for key in state if key in expected and state[key].shape != expected[key].shape]
    if missing or extra or shapes:
        raise WeightsError(
            f"{option} {source}: these are not the weights of {name}: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(extra)} unknown {extra[:3]}, {len(shapes)} of another shape {shapes[:3]}. "
            f"Give the file of this network or another {other}."
        )
    net.load_state_dict(state, strict=False)  # strict but for BatchNorm's step counters, checked above
