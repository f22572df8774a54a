"""Export a trained network to a file for ONNX Runtime or OpenVINO, and check it against the original before writing it.

The graph contains everything between a crop and millimetres: the normalisation of the pixels, the network, and the mean
and standard deviation of the training poses. Cropping and scaling to the network's size are left to the caller.
"""

import hashlib
import json
import shutil
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
from mcss.data.capture import Capture
from mcss.data.loading.augmentation import IMAGENET_MEAN, IMAGENET_STD
from mcss.errors import ExportError, damage_as
from mcss.evaluation.predictions import (
    EvaluationSettings,
    SplitPrediction,
    evaluated_instants,
    least_seen_split,
    predict_split,
    true_poses,
)
from mcss.files import replacing, temporary_folder
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
from mcss.models.run_names import located
from mcss.progress import NO_PROGRESS, Progress, Task

TOLERANCE_MM = 0.5
"""Distance in mm by which a joint may differ in a float export; more means that the computation is wrong."""

TOLERANCE_EMBEDDING = 1e-3
"""Difference by which a coordinate of the embedding may differ in a float export."""

_OPSET = 18
_GENERATED = 33
"""Images that are generated for a check without a capture: one batch of 32, and one of 1."""


@dataclass(frozen=True)
class ExportSettings:
    """How a network is exported, and how the file is checked."""

    int8: bool = False
    """Quantise convolutions to eight bits, for a smaller file that is faster on most processors. Needs --capture, for
    calibration and to measure the loss of accuracy."""
    layout: Layout = "nhwc"
    """Order of the input's axes: nhwc, as image libraries keep images, or nchw, channels first."""
    split: str | None = None
    """Split of the capture on which the file is checked against the original network, by default the first that it has
    of validation, test and train."""
    instants: int = 250
    """Number of instants of the split, evenly spread and in all views, on which the file is checked."""
    calibration_split: str = "train"
    """With --int8: the split whose images calibrate the ranges of values."""
    calibration_images: int = 300
    """With --int8: the number of calibration images."""
    float_layers: int = 6
    """With --int8: number of convolutions, counted from the image, that stay in float; the first ones lose most
    accuracy in eight bits."""
    max_loss: float = 1.0
    """With --int8: percentage by which N-MPJPE on the split may grow; beyond it nothing is written."""
    licence: str | None = None
    """Licence to state in the file. By default that of the training images, if --capture is the training capture."""

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
    """How closely the exported file reproduces the original network."""

    images: int
    source: str
    """Where the images come from."""
    pose_difference: float
    """The largest difference of a joint, in mm."""
    embedding_difference: float
    """The largest difference of a coordinate of the embedding."""
    n_mpjpe_original: float | None
    """N-MPJPE of the original network in mm over 16 joints; None for images without labels."""
    n_mpjpe_exported: float | None
    """N-MPJPE of the exported file."""

    @property
    def loss(self) -> float | None:
        """Percentage by which N-MPJPE grew; negative if it fell."""
        if self.n_mpjpe_original is None or self.n_mpjpe_exported is None:
            return None
        return 100 * (self.n_mpjpe_exported / self.n_mpjpe_original - 1)


@dataclass(frozen=True)
class ExportResult:
    """The exported file, and how it was checked."""

    path: Path
    megabytes: float
    facts: ModelFacts
    parity: Parity

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for `json.dumps`."""
        return {
            "path": str(self.path),
            "megabytes": self.megabytes,
            "facts": asdict(self.facts),
            "parity": {**asdict(self.parity), "loss_percent": self.parity.loss},
        }


class ImageNetwork(nn.Module):
    """The graph that is exported: a pose network from raw pixels to mm."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, network: PoseNetwork, layout: Layout) -> None:
        super().__init__()
        self.network = network
        self.layout = layout
        self.register_buffer("pixel_mean", 255 * torch.tensor(IMAGENET_MEAN).view(3, 1, 1))
        self.register_buffer("pixel_std", 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1))

    def forward(self, image: UInt8[Tensor, "n _ _ _"]) -> tuple[Float[Tensor, "n 17 3"], Float[Tensor, "n dim"]]:
        """Predict poses in mm, in the network's coordinate frame, and unit embeddings from RGB crops."""
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
) -> ExportResult:
    """Export a trained run to one file (for OpenVINO an ``.xml`` with a ``.bin`` beside it), or fail and write nothing.

    Args:
        run: A run folder, its ``model.safetensors``, or a name as ``shipped``; see `mcss.models.run_names.located`.
        format: The runtime.
        out: The file; it must end as the format requires.
        settings: How to export.
        capture: Holds the images on which the file is checked; without one, images are generated.
        progress: Advanced by the steps of the export.

    Raises:
        ExportError: The network cannot be exported, the ending is wrong, or the file differs from the original.
        ImportError: A package is missing; the message names the extra.
    """
    settings = settings or ExportSettings()
    if out.suffix != ENDINGS[format]:
        raise ExportError(f"out: expected a file for {format} to end in {ENDINGS[format]}, got {out}; rename it.")
    if settings.int8 and capture is None:
        raise ExportError(
            "int8: quantisation needs images for calibration and measurement; give --capture, with labels."
        )
    run = located(run)
    network = _exportable(run)
    facts = _facts(run, network, settings, capture)
    _check_packages(format)
    with temporary_folder("mcss-export") as folder, progress.task(f"Exporting to {format}", 3 + settings.int8) as task:
        made = folder / f"model{ENDINGS[format]}"
        _make(network, format, facts, settings, capture, made, task)
        parity = _parity(network, ExportedModel.open(made), settings, capture)
        task.advance()
        _check(parity, settings)
        files = [made, *([made.with_suffix(".bin")] if format == "openvino" else [])]
        size = sum(file.stat().st_size for file in files) / 1e6
        with ExitStack() as stack:  # all are copied before the first is moved into place
            for file in files:
                shutil.copyfile(file, stack.enter_context(replacing(out.with_suffix(file.suffix))))
    return ExportResult(out, round(size, 2), facts, parity)


def _exportable(run: Path) -> PoseNetwork:
    network = load_estimator(run)
    if not isinstance(network, PoseNetwork):
        raise ExportError(
            f"{run}: a {type(network).__name__}, which renders images and has no pose embedding; expected a run of "
            "`mcss train mcss`, supervised or rhodin_cvpr18."
        )
    return network


def _facts(run: Path, network: PoseNetwork, settings: ExportSettings, capture: Capture | None) -> ModelFacts:
    path = run / MODEL if run.is_dir() else run
    with (
        damage_as(ExportError, lambda why: f"{path}: what it says of its training cannot be read ({why}); train anew."),
        safe_open(path, framework="pt") as file,
    ):
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
    # Two images, since the exporter would treat a batch of one as a constant.
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
    """Select calibration images, evenly spread over the split and its views."""
    rows = capture.instants(settings.calibration_split).rows
    rows = rows[rows >= 0]
    chosen = np.linspace(0, len(rows) - 1, min(settings.calibration_images, len(rows)))
    return capture.decode(rows[np.unique(chosen.round().astype(np.int64))], config.image_size)


def _parity(network: PoseNetwork, exported: ExportedModel, settings: ExportSettings, capture: Capture | None) -> Parity:
    if capture is None:
        return _parity_on_generated(network, exported)
    chosen, split = EvaluationSettings(max_instants=settings.instants), settings.split or least_seen_split(capture)
    original = predict_split(NetworkPredictor(network, capture), capture, split, chosen)
    from_file = predict_split(ExportedPredictor(exported, capture), capture, split, chosen)
    labelled = evaluated_instants(capture, split, chosen).heading_valid.any()
    assert original.pose is not None
    assert from_file.pose is not None
    assert original.embedding is not None
    assert from_file.embedding is not None
    return Parity(
        images=len(original),
        source=f"split {split} of {capture.uri}",
        pose_difference=float((from_file.pose - original.pose).norm(dim=-1).max()),
        embedding_difference=float((from_file.embedding - original.embedding).abs().max()),
        n_mpjpe_original=_n_mpjpe(original) if labelled else None,
        n_mpjpe_exported=_n_mpjpe(from_file) if labelled else None,
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
    outputs = [exported.run(batch) for batch in batches]
    pose_difference = np.linalg.norm(np.concatenate([p for p, _ in outputs]) - pose.numpy(), axis=-1)
    embedding_difference = np.abs(np.concatenate([e for _, e in outputs]) - embedding.numpy())
    return Parity(
        images=len(images),
        source="generated images",
        pose_difference=float(pose_difference.max()),
        embedding_difference=float(embedding_difference.max()),
        n_mpjpe_original=None,
        n_mpjpe_exported=None,
    )


def generated_images(count: int, size: int) -> UInt8[np.ndarray, "count size size 3"]:
    """Generate reproducible noise from fine to coarse: no people, but images that exercise every layer."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 8, 8)))
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bicubic").permute(0, 2, 3, 1).numpy()
    return (smooth + rng.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)


def _check(parity: Parity, settings: ExportSettings) -> None:
    if settings.int8:
        if parity.loss is None:
            raise ExportError(
                f"int8: the loss of accuracy cannot be measured, because {parity.source} has no labels; give a capture "
                "with labels, or export without --int8. Nothing was written."
            )
        if not parity.loss <= settings.max_loss:  # NaN fails too
            raise ExportError(
                f"int8: N-MPJPE grows by {parity.loss:.2f} % ({parity.n_mpjpe_original:.1f} to "
                f"{parity.n_mpjpe_exported:.1f} mm, {parity.source}), expected {settings.max_loss:g} % at most. "
                "Nothing was written. Raise --float-layers or --calibration-images, or leave out --int8."
            )
        return
    if not (parity.pose_difference <= TOLERANCE_MM and parity.embedding_difference <= TOLERANCE_EMBEDDING):
        raise ExportError(
            f"the exported network differs from the original: a joint by {parity.pose_difference:.3g} mm "
            f"(expected {TOLERANCE_MM:g} at most), the embedding by {parity.embedding_difference:.3g} "
            f"(expected {TOLERANCE_EMBEDDING:g} at most; {parity.source}). Nothing was written. Try the other "
            "--format, or other versions of torch and the runtime, and please report this."
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
