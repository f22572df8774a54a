"""A trained network as a file for ONNX Runtime or OpenVINO, checked against the original before it is written.

The graph holds everything between an image and millimetres: normalisation of the pixels, the network, and the mean and
deviation of the training poses. Cropping and scaling to the network's size are left to the caller.
"""

import hashlib
import json
import shutil
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from safetensors import safe_open
from torch import Tensor, nn

import mcss
from mcss import metrics
from mcss.data.augmentation import IMAGENET_MEAN, IMAGENET_STD
from mcss.data.capture import Capture
from mcss.errors import ExportError
from mcss.evaluation.predictions import (
    EvaluationSettings,
    SplitPrediction,
    evaluated_instants,
    predict_split,
    true_poses,
)
from mcss.files import replacing
from mcss.inference.export.quantisation import quantised_onnx, quantised_openvino
from mcss.inference.export.runtimes import (
    EMBEDDING,
    ENDINGS,
    HEADER,
    IMAGE,
    POSE,
    ExportedModel,
    ExportedPredictor,
    ExportFormat,
    Layout,
    ModelFacts,
    as_layout,
    onnxruntime,
    openvino_runtime,
)
from mcss.methods.registry import load_estimator
from mcss.models.model_file import MODEL
from mcss.models.pose_network import NetworkConfig, PoseNetwork
from mcss.models.prediction import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress, Task

TOLERANCE_MM = 0.1
"""By so much a joint may move in a float export; more means that something else was computed."""
TOLERANCE_EMBEDDING = 1e-3

_OPSET = 18
_GENERATED = 33
"""Images generated for a check without a capture: one batch of 32, and one of 1."""


@dataclass(frozen=True)
class ExportSettings:
    """What the file is to be, and how it is checked."""

    int8: bool = False
    """Eight-bit convolutions: a smaller file, quicker on most processors. Needs --capture, for calibration and to
    measure what it costs."""
    layout: Layout = "nhwc"
    """Order of the input's axes: images as they lie in memory (nhwc), or channels first (nchw)."""
    split: str = "validation"
    """Split of the capture on which the file is checked against the original."""
    instants: int = 250
    """Instants of it that are looked at, evenly spread, in all views."""
    calibration_split: str = "train"
    """With --int8: the split whose images the ranges of numbers are taken from."""
    calibration_images: int = 300
    """With --int8: how many of them."""
    float_layers: int = 6
    """With --int8: so many convolutions, from the image on, stay in float; eight bits cost most in the first ones."""
    max_loss: float = 1.0
    """With --int8: percent of N-MPJPE that eight bits may cost on the split; beyond it nothing is written."""
    licence: str | None = None
    """Stated in the file. By default that of the training images, if --capture is the capture trained on."""

    def __post_init__(self) -> None:
        for name in ("instants", "calibration_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")
        if self.float_layers < 0:
            raise ValueError(f"float_layers: expected 0 or more, got {self.float_layers}.")
        if not self.max_loss >= 0:
            raise ValueError(f"max_loss: expected 0 percent or more, got {self.max_loss}.")


@dataclass(frozen=True)
class Parity:
    """How far the exported file is from the original network."""

    images: int
    source: str
    """What the images are."""
    pose_difference: float
    """The farthest that any joint moved, in mm."""
    embedding_difference: float
    """The greatest difference of a coordinate of the embedding."""
    n_mpjpe_original: float | None
    """mm, 16 joints; None for images whose pose is not known."""
    n_mpjpe_exported: float | None

    @property
    def loss(self) -> float | None:
        """By how many percent N-MPJPE grew; negative where it fell."""
        if self.n_mpjpe_original is None or self.n_mpjpe_exported is None:
            return None
        return 100 * (self.n_mpjpe_exported / self.n_mpjpe_original - 1)


@dataclass(frozen=True)
class Export:
    """What was written and how it was checked."""

    path: Path
    megabytes: float
    facts: ModelFacts
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {
            "path": str(self.path),
            "megabytes": self.megabytes,
            "facts": asdict(self.facts),
            "parity": {**asdict(self.parity), "loss_percent": self.parity.loss},
        }


class ImageNetwork(nn.Module):
    """A pose network from raw pixels to mm: the graph that is exported."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, network: PoseNetwork, layout: Layout) -> None:
        super().__init__()
        self.network = network
        self.layout = layout
        self.register_buffer("pixel_mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("pixel_std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, image: UInt8[Tensor, "n _ _ _"]) -> tuple[Float[Tensor, "n 17 3"], Float[Tensor, "n dim"]]:
        """Poses in mm in the network's frame, and unit embeddings, of RGB crops."""
        pixels = image.permute(0, 3, 1, 2) if self.layout == "nhwc" else image
        output = self.network((pixels.float() - self.pixel_mean) / self.pixel_std)
        return self.network.denormalised(output.coordinates), output.embedding


def export_run(
    run: Path,
    format: ExportFormat,
    out: Path,
    settings: ExportSettings | None = None,
    capture: Capture | None = None,
    progress: Progress = NO_PROGRESS,
) -> Export:
    """Export a trained run to one file (OpenVINO: an ``.xml`` and a ``.bin`` beside it), or fail and write nothing.

    Args:
        run: A run folder, or its ``model.safetensors``.
        format: For which runtime.
        out: The file; its ending must be the format's.
        settings: What it is to be.
        capture: Where images to check it on come from; without one they are generated.
        progress: Where progress is reported to.

    Raises:
        ExportError: Not a network that can be exported, a wrong ending, or a file that is too far from the original.
        ImportError: A package is missing; the message names the extra.
    """
    settings = settings or ExportSettings()
    if out.suffix != ENDINGS[format]:
        raise ExportError(f"out: a file for {format} ends in {ENDINGS[format]}, got {out}; rename it.")
    if settings.int8 and capture is None:
        raise ExportError(
            "int8: eight bits need images to be calibrated on and to be measured on; give --capture, one with labels."
        )
    network = _exportable(run)
    facts = _facts(run, network, settings, capture)
    _check_packages(format)
    with tempfile.TemporaryDirectory() as folder, progress.task(f"Exporting to {format}", 3 + settings.int8) as task:
        made = Path(folder) / f"model{ENDINGS[format]}"
        _make(network, format, facts, settings, capture, made, task)
        parity = _parity(network, ExportedModel.open(made), settings, capture)
        task.advance()
        _check(parity, settings)
        files = [made, *([made.with_suffix(".bin")] if format == "openvino" else [])]
        size = sum(file.stat().st_size for file in files) / 1e6
        with ExitStack() as stack:  # all are copied before the first takes its place
            for file in files:
                shutil.copyfile(file, stack.enter_context(replacing(out.with_suffix(file.suffix))))
    return Export(out, round(size, 2), facts, parity)


def _exportable(run: Path) -> PoseNetwork:
    network = load_estimator(run)
    if not isinstance(network, PoseNetwork):
        raise ExportError(
            f"{run}: a {type(network).__name__}, which draws images and has no embedding of poses; expected a run of "
            "`mcss train mcss`, supervised or rhodin_cvpr18."
        )
    return network


def _facts(run: Path, network: PoseNetwork, settings: ExportSettings, capture: Capture | None) -> ModelFacts:
    path = run / MODEL if run.is_dir() else run
    with safe_open(path, framework="pt") as file:
        trained: dict[str, Any] = json.loads((file.metadata() or {}).get("config", "{}"))
    licence = settings.licence
    if licence is None and capture is not None and capture.fingerprint == trained.get("capture_fingerprint"):
        licence = f"trained on images under {capture.info.licence}"
    return ModelFacts(
        image_size=network.config.image_size,
        layout=settings.layout,
        frame=network.frame,
        dim=network.config.dim,
        precision="int8" if settings.int8 else "float32",
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=licence or "not stated",
        mcss=mcss.__version__,
    )


def _make(
    network: PoseNetwork,
    format: ExportFormat,
    facts: ModelFacts,
    settings: ExportSettings,
    capture: Capture | None,
    made: Path,
    task: Task,
) -> None:
    import onnx

    plain = made.with_name("plain.onnx")
    onnx.save(_onnx_graph(network, settings.layout), plain)
    task.advance()
    images = None
    if settings.int8:
        assert capture is not None
        images = as_layout(_calibration(capture, settings, network.config), settings.layout)
    match format:
        case "onnx":
            if images is not None:
                quantised_onnx(plain, images, settings.float_layers, made.with_name("int8.onnx"))
                plain = made.with_name("int8.onnx")
                task.advance()
            model = onnx.load(plain)
            onnx.helper.set_model_props(model, {HEADER: facts.to_json()})
            onnx.save(model, made)
        case "openvino":
            openvino = openvino_runtime()
            model = openvino.Core().read_model(plain)
            if images is not None:
                model = quantised_openvino(model, images, settings.float_layers)
                task.advance()
            model.set_rt_info(facts.to_json(), [HEADER])
            openvino.save_model(model, made, compress_to_fp16=False)
    task.advance()


def _onnx_graph(network: PoseNetwork, layout: Layout) -> Any:
    size = network.config.image_size
    # Two images, since the exporter takes a batch of one for a constant.
    example = torch.zeros((2, size, size, 3) if layout == "nhwc" else (2, 3, size, size), dtype=torch.uint8)
    program = torch.onnx.export(
        ImageNetwork(network, layout).eval(),
        (example,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[IMAGE],
        output_names=[POSE, EMBEDDING],
        opset_version=_OPSET,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


def _calibration(
    capture: Capture, settings: ExportSettings, config: NetworkConfig
) -> UInt8[np.ndarray, "n side side 3"]:
    """Images spread evenly over the split, all views in turn."""
    rows = capture.instants(settings.calibration_split).rows
    rows = rows[rows >= 0]
    chosen = np.linspace(0, len(rows) - 1, min(settings.calibration_images, len(rows)))
    return capture.decode(rows[np.unique(chosen.round().astype(np.int64))], config.image_size)


def _parity(network: PoseNetwork, exported: ExportedModel, settings: ExportSettings, capture: Capture | None) -> Parity:
    if capture is None:
        return _parity_on_generated(network, exported)
    looked = EvaluationSettings(max_instants=settings.instants)
    original = predict_split(NetworkPredictor(network, capture), capture, settings.split, looked)
    found = predict_split(ExportedPredictor(exported, capture), capture, settings.split, looked)
    labelled = evaluated_instants(capture, settings.split, looked).heading_valid.any()
    assert original.pose is not None
    assert found.pose is not None
    assert original.embedding is not None
    assert found.embedding is not None
    return Parity(
        images=len(original),
        source=f"split {settings.split} of {capture.uri}",
        pose_difference=float((found.pose - original.pose).norm(dim=-1).max()),
        embedding_difference=float((found.embedding - original.embedding).abs().max()),
        n_mpjpe_original=_n_mpjpe(original) if labelled else None,
        n_mpjpe_exported=_n_mpjpe(found) if labelled else None,
    )


def _n_mpjpe(predictions: SplitPrediction) -> float:
    assert predictions.pose is not None
    scored = torch.from_numpy(predictions.instants.heading_valid[predictions.instant])
    target = true_poses(predictions)[scored][:, 1:]
    return float(metrics.n_mpjpe(predictions.pose[scored][:, 1:], target).mean())


def _parity_on_generated(network: PoseNetwork, exported: ExportedModel) -> Parity:
    facts = exported.facts
    images = generated_images(_GENERATED, facts.image_size)
    with torch.inference_mode():
        pose, embedding = ImageNetwork(network, "nhwc").eval()(torch.from_numpy(images))
    batches = [as_layout(part, facts.layout) for part in (images[:-1], images[-1:])]
    found = [exported.run(batch) for batch in batches]
    pose_difference = np.linalg.norm(np.concatenate([p for p, _ in found]) - pose.numpy(), axis=-1)
    embedding_difference = np.abs(np.concatenate([e for _, e in found]) - embedding.numpy())
    return Parity(
        images=len(images),
        source="generated images",
        pose_difference=float(pose_difference.max()),
        embedding_difference=float(embedding_difference.max()),
        n_mpjpe_original=None,
        n_mpjpe_exported=None,
    )


def generated_images(count: int, size: int) -> UInt8[np.ndarray, "count size size 3"]:
    """Coloured noise from fine to coarse, the same every time: not people, but every layer has something to do."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 8, 8)))
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bicubic").permute(0, 2, 3, 1).numpy()
    return (smooth + rng.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)


def _check(parity: Parity, settings: ExportSettings) -> None:
    if settings.int8:
        if parity.loss is None:
            raise ExportError(
                f"int8: what eight bits cost cannot be measured, as the {parity.source} has no labels; give a capture "
                "with labels, or export without --int8. Nothing was written."
            )
        if not parity.loss <= settings.max_loss:  # NaN fails too
            raise ExportError(
                f"int8: N-MPJPE grows by {parity.loss:.2f} % ({parity.n_mpjpe_original:.1f} to "
                f"{parity.n_mpjpe_exported:.1f} mm, {parity.source}), expected {settings.max_loss:g} % at most. "
                "Nothing was written. Keep more --float-layers, give more --calibration-images, or leave --int8 out."
            )
        return
    if not (parity.pose_difference <= TOLERANCE_MM and parity.embedding_difference <= TOLERANCE_EMBEDDING):
        raise ExportError(
            f"the exported network differs from the original: a joint moves by {parity.pose_difference:.3g} mm "
            f"(expected {TOLERANCE_MM:g} at most), the embedding by {parity.embedding_difference:.3g} "
            f"(expected {TOLERANCE_EMBEDDING:g} at most; {parity.source}). Nothing was written. Try the other "
            "--format, or other versions of torch and the runtime, and please report it."
        )


def _check_packages(format: ExportFormat) -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"exporting needs the packages onnx and onnxscript: install them with `pip install 'mcss[{format}]'`"
        ) from error
    _ = onnxruntime() if format == "onnx" else openvino_runtime()
