"""Predictions for a split as a file, so that figures do not have to ask the network again."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from mcss.data.instants import Instants
from mcss.evaluation.predictions import Predictions
from mcss.files import replacing


def write_predictions(path: Path, predictions: Predictions, key: Mapping[str, str]) -> None:
    """Write what a predictor said; `key` is what decides whether it may be read again."""
    tensors = {
        name: value.contiguous()
        for name in ("pose", "embedding", "rotation")
        if (value := getattr(predictions, name)) is not None
    }
    tensors |= {name: torch.from_numpy(getattr(predictions, name)) for name in ("instant", "view")}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={**key, "frame": predictions.frame})


def read_predictions(path: Path, instants: Instants, key: Mapping[str, str]) -> Predictions | None:
    """What `write_predictions` wrote under the same key; None if there is nothing, or something else.

    Args:
        path: The file.
        instants: Of the split, as they were when it was predicted; the key must vouch for that.
        key: As it was written.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            about = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError:  # cut short by a full disk: it can be made again
        return None
    frame = about.pop("frame", "")
    if about != dict(key) or frame not in ("canonical", "camera", "world"):
        return None
    numbers: dict[str, np.ndarray] = {name: tensors[name].numpy() for name in ("instant", "view")}
    return Predictions(
        instants=instants,
        **numbers,
        rows=instants.rows[numbers["instant"], numbers["view"]],  # another build of the capture may have others
        pose=tensors.get("pose"),
        embedding=tensors.get("embedding"),
        rotation=tensors.get("rotation"),
        frame=frame,
    )
