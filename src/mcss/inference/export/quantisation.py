"""Eight-bit networks for ONNX Runtime and OpenVINO: static post-training quantisation on calibration images.

Only convolutions and what lies between them become eight-bit, with a scale for each channel of the weights. The first
few stay in float, since eight bits there cost most (`ExportSettings.float_layers`), and so does the embedding and all
that is read off it, where eight bits would save next to no time.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mcss.inference.export.runtimes import IMAGE, nncf_package

_BATCH = 20

Images = UInt8[np.ndarray, "n _ _ _"]


def quantised_onnx(model: Path, images: Images, float_layers: int, out: Path) -> None:
    """Write an ONNX file with pairs of quantise and dequantise about its convolutions (QDQ), as ONNX Runtime wants it.

    Args:
        model: The float file.
        images: What to calibrate on, in the file's layout.
        float_layers: So many convolutions, from the image on, stay in float.
        out: The new file.
    """
    import onnx
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


def quantised_openvino(model: Any, images: Images, float_layers: int) -> Any:
    """An OpenVINO model with eight-bit convolutions.

    Args:
        model: The float model (``openvino.Model``).
        images: What to calibrate on, in the model's layout.
        float_layers: So many convolutions, from the image on, stay in float.

    Raises:
        ImportError: nncf is not installed; the message names the extra.
    """
    nncf = nncf_package()
    nodes = [(node.get_type_name(), node.get_friendly_name()) for node in model.get_ordered_ops()]
    layers = [name for kind, name in nodes if kind in ("Convolution", "GroupConvolution")]
    head = [kind for kind, _ in nodes].index("MatMul")  # of the embedding; everything after it is computed from it
    batches = list(_batches(images))
    with contextlib.redirect_stdout(io.StringIO()):  # its own bars
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: {IMAGE: batch}),
            subset_size=len(batches),
            # Without VNNI a processor adds products of eight-bit numbers in 16 bits, which overflow.
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
            ignored_scope=nncf.IgnoredScope(
                names=layers[:float_layers] + [name for _, name in nodes[head:]], validate=False
            ),
        )


def _batches(images: Images) -> Iterator[Images]:
    for start in range(0, len(images), _BATCH):
        yield images[start : start + _BATCH]
