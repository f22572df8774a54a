"""Quantise networks for ONNX Runtime and OpenVINO to eight bits, statically after training, with calibration images.

Only the convolutions and the operations between them are quantised, with a scale for each channel of the weights. The
first few convolutions stay in float because they would lose most accuracy (`ExportSettings.float_layers`), and so do
the embedding and everything computed from it, where eight bits would save hardly any time.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mcss.inference.export.runtimes import IMAGE, nncf_package, onnxruntime

_BATCH = 20
"""Calibration images given to the network at a time."""

ImageBatch = UInt8[np.ndarray, "n _ _ _"]


def quantised_onnx(model: Path, images: ImageBatch, float_layers: int, out: Path) -> None:
    """Write an ONNX file whose convolutions are enclosed in pairs of quantise and dequantise (QDQ), for ONNX Runtime.

    Args:
        model: The float file.
        images: Calibration images in the file's layout.
        float_layers: Number of convolutions, counted from the image, that stay in float.
        out: The quantised file.
    """
    import onnx

    onnxruntime()  # before anything of it is imported, without telemetry
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = _batches(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {IMAGE: batch}

    prepared = out.with_name("prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    layers = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    quantization.quantize_static(
        str(prepared),
        str(out),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=["Conv", "Add", "Clip", "Relu", "MaxPool"],
        nodes_to_exclude=layers[:float_layers],
    )


def quantised_openvino(model: Any, images: ImageBatch, float_layers: int) -> Any:
    """Quantise the convolutions of an OpenVINO model.

    Args:
        model: The float model (``openvino.Model``).
        images: Calibration images in the model's layout.
        float_layers: Number of convolutions, counted from the image, that stay in float.

    Raises:
        ImportError: nncf is not installed; the message names the extra.
    """
    nncf = nncf_package()
    nodes = [(node.get_type_name(), node.get_friendly_name()) for node in model.get_ordered_ops()]
    layers = [name for kind, name in nodes if kind in ("Convolution", "GroupConvolution")]
    head = [kind for kind, _ in nodes].index("MatMul")  # the embedding, from which everything after it is computed
    batches = list(_batches(images))
    with contextlib.redirect_stdout(io.StringIO()):  # NNCF prints progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: {IMAGE: batch}),
            subset_size=len(batches),
            # Processors without VNNI add products of eight-bit numbers in 16 bits, which overflow.
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
            ignored_scope=nncf.IgnoredScope(
                names=layers[:float_layers] + [name for _, name in nodes[head:]], validate=False
            ),
        )


def _batches(images: ImageBatch) -> Iterator[ImageBatch]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH]
