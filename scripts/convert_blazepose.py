"""Convert BlazePose's landmark network from MediaPipe's wheel to the safetensors file that mcss loads.

    pip download --no-deps mediapipe==0.10.21
    pip install tflite
    python scripts/convert_blazepose.py mediapipe-0.10.21-*.whl src/mcss/models/blazepose.safetensors

The wheel is only read, not installed. Weights stay in half precision, as they are in the wheel.
"""

import argparse
import sys
import zipfile
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, from_numpy, nn

from mcss.files import replacing
from mcss.models.blazepose import LandmarkHeads, blazepose_stages

MEMBER = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"
"""Where the network lies in the wheel."""

OUTPUTS = (0, 1, 4)
"""Outputs of the graph that are kept: image landmarks, presence and world landmarks, not the mask or heat maps."""


def read_network(path: Path) -> bytes:
    """The bytes of the network, from the wheel or from a ``.tflite`` file."""
    if not path.is_file():
        sys.exit(f"{path}: no such file; expected the wheel of mediapipe 0.10.21 or its pose_landmark_full.tflite")
    if path.suffix == ".tflite":
        return path.read_bytes()
    try:
        with zipfile.ZipFile(path) as wheel:
            return wheel.read(MEMBER)
    except (zipfile.BadZipFile, KeyError):
        sys.exit(f"{path}: expected the wheel of mediapipe 0.10.21, which holds {MEMBER}; download it again")


def convolutions(network: bytes) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution that the kept outputs depend on, in the order of the graph."""
    import tflite

    model = tflite.Model.GetRootAsModel(network, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    operations = tflite.BuiltinOperator

    def operation(operator: tflite.Operator) -> int:
        code = model.OperatorCodes(operator.OpcodeIndex())
        return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())

    maker = {int(operator.Outputs(0)): i for i, operator in enumerate(operators)}
    waiting, needed = [int(graph.Outputs(number)) for number in OUTPUTS], set()
    while waiting:
        index = maker.get(waiting.pop())
        if index is not None and index not in needed:
            needed.add(index)
            waiting += [int(tensor) for tensor in operators[index].InputsAsNumpy()]
    half = {int(o.Outputs(0)): int(o.Inputs(0)) for o in operators if operation(o) == operations.DEQUANTIZE}

    def constant(index: int) -> np.ndarray:
        tensor = graph.Tensors(half.get(index, index))
        kind = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}[tensor.Type()]
        data = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        return np.frombuffer(data, kind).reshape(tensor.ShapeAsNumpy()).astype(np.float16)

    layers = []
    for index in sorted(needed):
        if (code := operation(operators[index])) in (operations.CONV_2D, operations.DEPTHWISE_CONV_2D):
            weight, bias = (constant(int(operators[index].Inputs(number))) for number in (1, 2))
            axes = (0, 3, 1, 2) if code == operations.CONV_2D else (3, 0, 1, 2)
            layers.append((from_numpy(weight.transpose(axes).copy()), from_numpy(bias.copy())))
    return layers


def state_of(layers: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The layers under the names of `mcss.models.blazepose`, which has them in the same order."""
    modules = {"stages": nn.ModuleList(blazepose_stages((0.0,) * 3, (1.0,) * 3)), "heads": LandmarkHeads()}
    names = [
        (f"{part}.{name}", layer)
        for part, module in modules.items()
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    wrong = len(names) != len(layers) or any(
        weight.shape != layer.weight.shape for (_, layer), (weight, _) in zip(names, layers, strict=False)
    )
    if wrong:
        sys.exit(
            f"expected the {len(names)} convolutions of pose_landmark_full.tflite of mediapipe 0.10.21, got others"
        )
    state = {}
    for (name, _), (weight, bias) in zip(names, layers, strict=True):
        state |= {f"{name}.weight": weight.contiguous(), f"{name}.bias": bias}
    return state


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of mediapipe 0.10.21, or the .tflite file in it")
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    options = parser.parse_args()
    state = state_of(convolutions(read_network(options.wheel)))
    about = {"source": f"mediapipe 0.10.21, {MEMBER}", "licence": "Apache-2.0"}
    with replacing(options.out) as temporary:
        save_file(state, temporary, metadata=about)
    print(f"{options.out}: {sum(value.numel() for value in state.values()):,} numbers in half precision")


if __name__ == "__main__":
    main()
