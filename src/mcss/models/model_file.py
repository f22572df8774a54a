"""Model files: a trained network as safetensors, with everything needed to rebuild it in the header.

``model.safetensors`` holds the weights; its header holds the `NetworkConfig`. `mcss equip` adds the heads that
prediction uses besides the network (`ModelParts`), each named in the header. Numbers may be stored in half precision.
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mcss.errors import CheckpointError, damage_as
from mcss.files import replacing
from mcss.models.orientation import OrientationConfig, OrientationHead
from mcss.models.pose_network import NetworkConfig, PoseEstimator, PoseNetwork
from mcss.models.run_names import located
from mcss.models.uncertainty import FEATURES, UncertaintyHead
from mcss.skeletons import JOINTS, PoseFrame

MODEL = "model.safetensors"
CHECKPOINT = "checkpoint.safetensors"

_FORMAT = "mcss-model-1"
_OWN = frozenset({"format", "network", "joints", "frame", "kind", "architecture", "placement", "reference"})
"""Keys of the header that are not part of `ModelFile.about`."""
_PLACEMENT, _REFERENCE = "placement.", "reference."
_REFERENCE_TENSORS = ("embedding", "pose", "weights")


def read_tensors(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file and the texts of its header.

    Raises:
        CheckpointError: The file is missing or unreadable; `what` says what was expected.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; expected {what}.")
    with (
        damage_as(
            CheckpointError,
            lambda why: (
                f"{path}: not a readable safetensors file ({why}); expected {what}. Copy it again or train anew."
            ),
        ),
        safe_open(path, framework="pt") as file,
    ):
        metadata = file.metadata() or {}
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and the texts of a header as one safetensors file, completely or not at all.

    The library only makes the bytes. It would write them to a file of another name, which a kill leaves behind and
    which nobody but its owner may read.
    """
    # Copies, since safetensors refuses tensors that share memory.
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    data = _with_sorted_texts(save(plain, dict(metadata)))
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _with_sorted_texts(data: bytes) -> bytes:
    """Put the texts of a header in the order of their names: safetensors has them in another order every time."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__", {}).items())), **header}
    encoded = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + encoded.ljust(size) + data[8 + size :]


@dataclass(frozen=True, eq=False)
class ModelParts:
    """The heads that a model may have besides its network; None for those it lacks."""

    orientation: OrientationHead | None = None
    uncertainty: UncertaintyHead | None = None


NO_PARTS = ModelParts()


@dataclass(frozen=True, eq=False)
class ModelFile:
    """Everything in a model file."""

    network: PoseEstimator
    """In evaluation mode, in float32."""
    parts: ModelParts
    about: Mapping[str, str]
    """Further facts in the header, such as the capture's fingerprint."""


def save_model(
    path: Path,
    network: PoseEstimator,
    about: Mapping[str, str],
    parts: ModelParts = NO_PARTS,
    half: bool = False,
) -> None:
    """Write a network with its configuration.

    Args:
        path: The file.
        network: The trained network.
        about: Facts to keep in the header, such as the capture's fingerprint.
        parts: The heads that go with the network.
        half: Store numbers in half precision: half the size, and exact to three digits.
    """
    metadata = {
        "format": _FORMAT,
        "network": json.dumps(asdict(network.config)),
        "joints": json.dumps(JOINTS),
        "frame": network.frame,
        "kind": network.KIND,
        "architecture": json.dumps(network.architecture),
        **about,
    }
    tensors = dict(network.state_dict())
    if parts.orientation is not None:
        metadata["placement"] = json.dumps(asdict(parts.orientation.config))
        tensors |= {f"{_PLACEMENT}{key}": value for key, value in parts.orientation.state_dict().items()}
    if (head := parts.uncertainty) is not None:
        metadata["reference"] = json.dumps({"limit": head.limit})
        tensors |= {f"{_REFERENCE}{name}": getattr(head, name) for name in _REFERENCE_TENSORS}
    if half:
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    write_tensors(path, tensors, metadata)


def load_model(run: Path) -> PoseNetwork:
    """Load the trained network of MCSS, or of any method with the same network, in evaluation mode.

    Raises:
        CheckpointError: See `read_model`.
    """
    network = read_model(run).network
    assert isinstance(network, PoseNetwork)
    return network


def read_model(run: Path, kinds: Sequence[type[PoseEstimator]] = (PoseNetwork,)) -> ModelFile:
    """Read the trained network of a run folder (or of a ``model.safetensors``), in float32, and its heads.

    Args:
        run: The folder or file, or another name of a model, see `mcss.models.run_names`.
        kinds: The accepted kinds of network; `mcss.methods.registry.network_kinds` lists all.

    Raises:
        CheckpointError: There is no finished run, or a file of another program, joint set, kind of network or format.
    """
    run = located(run)
    path = run / MODEL if run.is_dir() else run
    if run.is_dir() and not path.exists() and (run / CHECKPOINT).exists():
        raise CheckpointError(f"{run}: this run is not finished; go on with the same `mcss train … --resume` first.")
    state, metadata = read_tensors(path, f"the {MODEL} that `mcss train` writes")
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path}: format {metadata.get('format', 'none')!r}, expected {_FORMAT!r}: not a model written by this "
            "version of mcss. Backbone weights alone go to --weights."
        )
    with damage_as(CheckpointError, lambda why: f"{path}: its header is damaged ({why}). Copy it again or train anew."):
        return _model_of(state, metadata, path, kinds)


def _model_of(
    state: dict[str, Tensor], metadata: dict[str, str], path: Path, kinds: Sequence[type[PoseEstimator]]
) -> ModelFile:
    joints = tuple(json.loads(metadata["joints"]))
    if joints != JOINTS:
        raise CheckpointError(
            f"{path}: made for the {len(joints)} joints {', '.join(joints)}; expected {', '.join(JOINTS)}. "
            "Train on this skeleton instead."
        )
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    network = _untrained(metadata, path, kinds)
    parts = ModelParts(_orientation(network, metadata, state, path), _uncertainty(metadata, state, path))
    copy_state(network, state, path)
    about = {name: text for name, text in metadata.items() if name not in _OWN}
    return ModelFile(network.eval(), parts, about)


def _taken(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors of one part from `state` and return them."""
    return {key.removeprefix(prefix): state.pop(key) for key in list(state) if key.startswith(prefix)}


def _orientation(
    network: PoseEstimator, metadata: Mapping[str, str], state: dict[str, Tensor], path: Path
) -> OrientationHead | None:
    if "placement" not in metadata:
        return None
    config = OrientationConfig(**_settings(metadata["placement"], OrientationConfig, path))
    head = OrientationHead(config, *network.map_shape(config.stages))
    copy_state(head, _taken(state, _PLACEMENT), path)
    return head.eval()


def _uncertainty(metadata: Mapping[str, str], state: dict[str, Tensor], path: Path) -> UncertaintyHead | None:
    if "reference" not in metadata:
        return None
    found = _taken(state, _REFERENCE)
    count = len(found["pose"]) if "pose" in found else 0
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    dim = shapes.get("embedding", (0, 0))[-1]
    if shapes != {"embedding": (count, dim), "pose": (count, len(JOINTS), 3), "weights": (FEATURES,)}:
        raise CheckpointError(
            f"{path}: its uncertainty head is incomplete or of another mcss ({shapes}); fit it again with `mcss equip`."
        )
    return UncertaintyHead(**found, limit=float(json.loads(metadata["reference"])["limit"]))


def _untrained(metadata: dict[str, str], path: Path, kinds: Sequence[type[PoseEstimator]]) -> PoseEstimator:
    """Return the network that a model file describes, with random weights."""
    config = NetworkConfig(**_settings(metadata["network"], NetworkConfig, path))
    name = metadata.get("kind", PoseNetwork.KIND)
    kind = next((kind for kind in kinds if name == kind.KIND), None)
    if kind is None:
        raise CheckpointError(
            f"{path}: expected a {' or '.join(kind.KIND for kind in kinds)} network, got a {name} network; use a run "
            "of a method that trains one, such as `mcss train mcss` or `mcss train supervised`."
        )
    frame: PoseFrame
    match metadata.get("frame", "canonical"):  # files from before there were other frames name none
        case "canonical" | "camera" | "world" as frame:
            return kind.untrained(config, frame, _settings(metadata.get("architecture", "{}"), kind.ARCHITECTURE, path))
        case other:
            raise CheckpointError(f"{path}: poses in the frame {other!r} are of a newer mcss; update mcss to read it.")


def _settings(text: str, kind: Any, path: Path) -> dict[str, Any]:
    """Return the settings of a dataclass, or of None, which has none, from the header."""
    settings: dict[str, Any] = json.loads(text)
    if unknown := sorted(set(settings) - {field.name for field in (fields(kind) if kind else ())}):
        raise CheckpointError(
            f"{path}: unknown network settings {', '.join(unknown)}; the file is of a newer mcss, or of one before they"
            " were renamed. Update mcss, or train again."
        )
    return settings


def copy_state(network: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Load `state` strictly.

    Raises:
        CheckpointError: Tensors are missing, unknown or of another shape: another backbone, size or head.
    """
    expected = network.state_dict()
    wrong = [f"{key} missing" for key in expected if key not in state]
    wrong += [f"{key} unknown" for key in state if key not in expected]
    wrong += [
        f"{key}: expected {tuple(expected[key].shape)}, got {tuple(state[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    if wrong:
        raise CheckpointError(
            f"{source}: these weights are of another network ({len(wrong)} tensors differ: {'; '.join(wrong[:3])}). "
            "Use the same --backbone, --dim and --image-size as that run, or leave --init out."
        )
    network.load_state_dict(state)
