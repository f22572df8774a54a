"""Write a TensorFlow Lite file with constant outputs, using the format's own schema."""

from pathlib import Path

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def write_constant_network(path: Path, takes: tuple[int, ...], gives: list[np.ndarray]) -> Path:
    """Write a network that takes a float array of this shape and always returns these arrays."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.operatorCodes, model.subgraphs = 3, [], [graph]
    model.buffers, graph.tensors, graph.operators = [schema.BufferT()], [], []
    for number, (shape, data) in enumerate([(takes, None), *((a.shape, a) for a in gives)]):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.name = list(shape), schema.TensorType.FLOAT32, f"tensor{number}".encode()
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.astype("<f4").tobytes(), np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        graph.tensors.append(tensor)
    graph.inputs, graph.outputs = [0], list(range(1, len(gives) + 1))
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def answering(path: Path, cells: list[tuple[int, int, float, float]]) -> Path:
    """Write a file in the format of MediaPipe's detector that finds a person at some cells of its coarsest grid.

    Args:
        path: Where to write it.
        cells: Row and column (of 7), radius in pixels (of 224), logit.
    """
    points, logits = np.zeros((1, 2254, 12), np.float32), np.full((1, 2254, 1), -9, np.float32)
    for row, column, radius, logit in cells:
        anchor = 28 * 28 * 2 + 14 * 14 * 2 + (7 * row + column) * 6
        points[0, anchor, 6:8] = (0.6 * radius, -0.8 * radius)
        logits[0, anchor] = logit
    return write_constant_network(path, (1, 224, 224, 3), [points, logits])
