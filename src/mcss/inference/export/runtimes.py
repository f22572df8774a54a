"""Run exported networks with ONNX Runtime or OpenVINO: images in, poses in mm and embeddings out.

Running such a file does not need PyTorch or mcss; `docs/export.md` shows how. This module is how mcss itself does it.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from mcss.data.capture import Capture
from mcss.errors import ExportError, damage_as
from mcss.models.prediction import Prediction
from mcss.processes import environment
from mcss.skeletons import JOINTS, PoseFrame

ExportFormat = Literal["onnx", "openvino"]
Layout = Literal["nhwc", "nchw"]
"""The order of the axes of a batch of images: channels last, as image libraries keep them, or channels first."""

ENDINGS: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml"}

IMAGE, POSE, EMBEDDING = "image", "pose", "embedding"
"""The names of the input and the outputs."""

HEADER = "mcss"
"""The metadata entry of the file that holds its `ModelFacts` as JSON."""

RunNetwork = Callable[
    [UInt8[np.ndarray, "n _ _ _"]], tuple[Float32[np.ndarray, "n 17 3"], Float32[np.ndarray, "n dim"]]
]


@dataclass(frozen=True)
class ModelFacts:
    """What users of an exported file have to know; stored in the file."""

    image_size: int
    """Side of the square input images in pixels."""
    layout: Layout
    frame: PoseFrame
    """The coordinate frame of the poses."""
    dim: int
    """Length of the embedding, a unit vector."""
    precision: Literal["float32", "int8"]
    digest: str
    """SHA-256 of the ``model.safetensors`` that was exported."""
    licence: str
    mcss: str
    """The version of mcss that wrote the file."""
    joints: tuple[str, ...] = JOINTS
    unit: str = "mm"

    def to_json(self) -> str:
        """Convert to one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, path: Path) -> "ModelFacts":
        """Parse the output of `to_json`.

        Raises:
            ExportError: The file was written by another version of mcss, or has other joints.
        """
        with damage_as(ExportError, lambda why: f"{path}: its header is damaged ({why}); export the run again."):
            plain = dict(json.loads(text))
        known = {field.name for field in fields(cls)}
        if set(plain) != known:
            raise ExportError(
                f"{path}: expected a header with {sorted(known)}, got {sorted(plain)}: written by mcss "
                f"{plain.get('mcss', 'unknown')}. Use that version, or export the run again."
            )
        with damage_as(ExportError, lambda why: f"{path}: its header is damaged ({why}); export the run again."):
            facts = cls(**{**plain, "joints": tuple(map(str, plain["joints"]))})
        if facts.joints != JOINTS:
            raise ExportError(f"{path}: made for other joints ({', '.join(facts.joints)}); export a run of this mcss.")
        return facts


@dataclass(frozen=True, eq=False)
class ExportedModel:
    """An exported file, ready to run."""

    facts: ModelFacts
    run: RunNetwork
    """Predicts poses and embeddings from any number of RGB crops, as uint8 in the file's layout."""

    @classmethod
    def open(cls, path: Path, threads: int = 0) -> "ExportedModel":
        """Open a file written by `mcss export`: an ``.onnx``, or an ``.xml`` with its ``.bin`` beside it.

        Args:
            path: The file.
            threads: Threads of the runtime; 0 lets it choose.

        Raises:
            ExportError: There is no such file, or it was not written by `mcss export`.
            ImportError: The runtime is not installed; the message names the extra.
        """
        if not path.is_file():
            raise ExportError(f"{path}: no such file; expected one that `mcss export` wrote.")
        match path.suffix:
            case ".onnx":
                return _open_onnx(path, threads)
            case ".xml":
                return _open_openvino(path, threads)
            case other:
                raise ExportError(f"{path}: expected a file that ends in .onnx or .xml, got {other or 'no ending'}.")


def _foreign(path: Path, reason: str) -> ExportError:
    return ExportError(f"{path}: not a file that `mcss export` wrote ({reason}); export the run again.")


def _open_onnx(path: Path, threads: int) -> ExportedModel:
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # its warnings are for the authors of the graph
    with damage_as(ExportError, lambda why: str(_foreign(path, why))):
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    header = session.get_modelmeta().custom_metadata_map.get(HEADER)
    if header is None:
        raise _foreign(path, "it has no header of mcss")

    def run(images: UInt8[np.ndarray, "n _ _ _"]) -> tuple[np.ndarray, np.ndarray]:
        pose, embedding = session.run([POSE, EMBEDDING], {IMAGE: np.ascontiguousarray(images)})
        return pose, embedding

    return ExportedModel(ModelFacts.from_json(header, path), run)


def _open_openvino(path: Path, threads: int) -> ExportedModel:
    openvino = openvino_runtime()
    # On processors with bfloat16 the CPU plugin uses it by default.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        model = core.read_model(path)
        header = model.get_rt_info([HEADER]).astype(str) if model.has_rt_info([HEADER]) else None
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _foreign(path, str(error).strip().splitlines()[-1]) from error
    if header is None:
        raise _foreign(path, "it has no header of mcss")

    def run(images: UInt8[np.ndarray, "n _ _ _"]) -> tuple[np.ndarray, np.ndarray]:
        outputs = compiled({IMAGE: np.ascontiguousarray(images)})
        return outputs[POSE].copy(), outputs[EMBEDDING].copy()

    return ExportedModel(ModelFacts.from_json(header, path), run)


def as_layout(images: UInt8[np.ndarray, "n side side 3"], layout: Layout) -> UInt8[np.ndarray, "n _ _ _"]:
    """Convert images to a layout."""
    return images if layout == "nhwc" else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@dataclass(frozen=True, eq=False)
class ExportedPredictor:
    """Predicts from the images of a capture with an exported file."""

    model: ExportedModel
    capture: Capture

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Predict poses in mm, in the network's coordinate frame, and embeddings."""
        facts = self.model.facts
        pose, embedding = self.model.run(as_layout(self.capture.decode(rows, facts.image_size), facts.layout))
        return Prediction(torch.from_numpy(pose), torch.from_numpy(embedding), facts.frame)


def onnxruntime() -> Any:
    """Import onnxruntime, which is an extra, without its telemetry.

    Unless it is told before, it writes an identifier of the machine on import and looks up its maker's host.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime as runtime
    except ImportError as error:
        raise ImportError(
            "running ONNX files needs ONNX Runtime: install it with `pip install 'mcss[onnx]'`"
        ) from error
    return runtime


def openvino_runtime() -> Any:
    """Import openvino, which is an extra."""
    try:
        with _without_telemetry():
            import openvino
    except ImportError as error:
        raise ImportError("OpenVINO files need OpenVINO: install it with `pip install 'mcss[openvino]'`") from error
    return openvino


def nncf_package() -> Any:
    """Import nncf, which is an extra, and silence its log."""
    try:
        with _without_telemetry():
            import nncf
    except ImportError as error:
        raise ImportError("--int8 for OpenVINO needs nncf: install it with `pip install 'mcss[openvino]'`") from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _without_telemetry() -> contextlib.AbstractContextManager[None]:
    """Keep OpenVINO and NNCF from sending telemetry when imported, which they do only outside CI."""
    return environment({"CI": "true", "NNCF_CI": "1"})
