"""Person detectors: networks that find people in single images, so that nothing need stand still.

torchvision's detectors, trained on COCO, come with what mcss needs anyway; their weights are loaded from its hub, or
from a file. MediaPipe's person detector is a file of 3 MB that LiteRT runs. Its box is the square around a circle that
holds the whole body, arms and all, and its makers meant it for the one or two people who are nearest.

Reference:
    Lin et al., "Microsoft COCO", ECCV 2014; Ren et al., "Faster R-CNN", NeurIPS 2015; Bazarevsky et al., "BlazePose:
    On-device real-time body pose tracking", CVPR workshops 2020 (the anchors of its detector are those of MediaPipe's
    graph ``pose_detection_cpu``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from mcss.errors import SourceError

Image = UInt8[np.ndarray, "_ _ 3"]
"""Upright, RGB; of any size, also beside others."""

DetectorName = Literal[
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "ssdlite320_mobilenet_v3_large",
    "blazepose",
]
DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)

PERSON = 1
"""COCO's number of a person."""

SURE = 0.5
"""What a detector is less sure of is left out."""

ALIKE = 0.45
"""Boxes that overlap more (intersection over union) are the same person twice."""

_SIDE = 224
"""Of the square image that MediaPipe's detector looks at."""


@dataclass(frozen=True, eq=False)
class Found:
    """The people in one image."""

    boxes: Float64[np.ndarray, "n 4"]
    """x0, y0, x1, y1 in pixels; x1 and y1 are the first ones outside."""
    scores: Float64[np.ndarray, " n"]
    """How surely each is a person, 0 to 1."""

    @classmethod
    def of(cls, boxes: Sequence[Any], scores: Sequence[Any]) -> "Found":
        """From lists, which may be empty."""
        return cls(np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64).reshape(-1))


@runtime_checkable
class PersonFinder(Protocol):
    """Whatever finds people in images."""

    def find(self, images: Sequence[Image]) -> list[Found]:
        """The people in each of some upright RGB images, which may differ in size."""


def person_detector(name: DetectorName, weights: Path | None = None) -> PersonFinder:
    """A detector that is ready to be used.

    Args:
        name: Which one.
        weights: A file of its weights (.safetensors or .pth, or .tflite for blazepose); None takes those of
            torchvision's hub, which blazepose does not have.

    Raises:
        SourceError: blazepose without a file, or the hub cannot be reached.
        mcss.weights.WeightsError: The file cannot be read, or holds other weights.
        ImportError: LiteRT is not installed; the message names the extra.
    """
    if name not in DETECTORS:
        raise ValueError(f"expected one of the detectors {', '.join(DETECTORS)}, came {name!r}")
    if name != "blazepose":
        return TorchvisionDetector(name, weights)
    if weights is None:
        raise SourceError(
            "blazepose: there is no hub for it, so --detector-weights must name its file pose_detection.tflite, which "
            "is part of the package mediapipe 0.10.21: docs/real_footage.md says how to take it from there"
        )
    return BlazePoseDetector(weights)


class TorchvisionDetector:
    """One of torchvision's detectors; on a graphics card where there is one."""

    def __init__(self, name: DetectorName, weights: Path | None = None) -> None:
        """Build and load it; see `person_detector`."""
        import torch
        from torchvision.models import get_model

        from mcss.weights import load_strictly, read_weights

        if weights is not None:
            net = get_model(name, weights=None, weights_backbone=None)
            state = read_weights(weights, "--detector-weights", "")
            load_strictly(net, state, str(weights), name, "--detector-weights", "--find")
        else:
            try:
                net = get_model(name, weights="DEFAULT")
            except Exception as error:  # urllib raises many kinds
                reason = (str(error).strip().splitlines() or ["no reason given"])[0]
                raise SourceError(
                    f"the weights of {name} could not be downloaded ({type(error).__name__}: {reason}); connect to the "
                    "network once, or give them as a file: --detector-weights FILE (.safetensors or .pth)"
                ) from error
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._net = net.eval().to(self._device)

    def find(self, images: Sequence[Image]) -> list[Found]:
        """The people in each image."""
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1) for p in images]
        with torch.inference_mode():
            seen = self._net([tensor.to(self._device).float() / 255 for tensor in tensors]) if tensors else []
        found = []
        for one in seen:
            people = (one["labels"] == PERSON) & (one["scores"] >= SURE)
            boxes, scores = one["boxes"][people].double().cpu().numpy(), one["scores"][people].double().cpu().numpy()
            found.append(_once(boxes, scores))
        return found


class BlazePoseDetector:
    """MediaPipe's person detector, run by LiteRT."""

    def __init__(self, weights: Path) -> None:
        """Load it; see `person_detector`."""
        from mcss.errors import WeightsError

        expected = "expected pose_detection.tflite of mediapipe 0.10.21"
        if not weights.is_file():
            raise WeightsError(f"--detector-weights {weights}: no such file; {expected}")
        try:
            self._net = _litert()(model_content=weights.read_bytes(), num_threads=1)
            self._net.allocate_tensors()
            ends = {tuple(end["shape"].tolist()): end["index"] for end in self._net.get_output_details()}
            starts = {tuple(end["shape"].tolist()): end["index"] for end in self._net.get_input_details()}
        except (ValueError, RuntimeError) as error:
            raise WeightsError(f"--detector-weights {weights}: LiteRT cannot read it ({error}); {expected}") from error
        self._anchors = _anchors()
        count = len(self._anchors)
        if set(ends) != {(1, count, 12), (1, count, 1)} or set(starts) != {(1, _SIDE, _SIDE, 3)}:
            raise WeightsError(
                f"--detector-weights {weights}: another network, which makes {sorted(ends)} of {sorted(starts)}; "
                + expected
            )
        self._input, self._points, self._logits = starts[1, _SIDE, _SIDE, 3], ends[1, count, 12], ends[1, count, 1]

    def find(self, images: Sequence[Image]) -> list[Found]:
        """The people in each image."""
        return [self._find(image) for image in images]

    def _find(self, image: Image) -> Found:
        height, width = image.shape[:2]
        scale = _SIDE / max(height, width)
        small = np.zeros((_SIDE, _SIDE, 3), np.float32)
        w, h = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (_SIDE - w) // 2, (_SIDE - h) // 2
        small[top : top + h, left : left + w] = cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA)
        self._net.set_tensor(self._input, small[None] / 127.5 - 1)
        self._net.invoke()
        logits = self._net.get_tensor(self._logits)[0, :, 0].astype(np.float64)
        scores = 1 / (1 + np.exp(-logits.clip(-50, 50)))
        sure = scores >= SURE
        # Of each detection: a box of the face, then four points; the first is the middle of the hips, the second lies
        # on the circle around the whole body.
        points = self._net.get_tensor(self._points)[0, sure, 4:8].reshape(-1, 2, 2) + self._anchors[sure, None] * _SIDE
        centre = (points[:, 0] - (left, top)) / scale
        radius = np.linalg.norm(points[:, 1] - points[:, 0], axis=1, keepdims=True) / scale
        boxes = np.concatenate([centre - radius, centre + radius], axis=1).astype(np.float64)
        once = _once(boxes, scores[sure])
        inside = np.clip(once.boxes, 0, [width, height, width, height])
        there = (inside[:, 2:] - inside[:, :2]).min(axis=1) > 1
        return Found(inside[there], once.scores[there])


def _anchors() -> Float32[np.ndarray, "anchors 2"]:
    """The places, as shares of the side, from which the detector counts: 2, 2 and 6 per cell of three grids."""
    places = []
    for stride, each in ((8, 2), (16, 2), (32, 6)):
        cells = _SIDE // stride
        y, x = np.indices((cells, cells))
        middle = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        places.append(np.repeat(middle, each, axis=0))
    return np.concatenate(places).astype(np.float32)


def _once(boxes: Float64[np.ndarray, "n 4"], scores: Float64[np.ndarray, " n"]) -> Found:
    """Every person once, the surest first."""
    if not len(boxes):
        return Found.of([], [])
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = np.asarray(cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.0, ALIKE), np.int64).reshape(-1)
    return Found(boxes[kept], scores[kept])


def _litert() -> Any:
    """LiteRT's interpreter, which is an extra.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError("blazepose needs LiteRT: install it with `pip install 'mcss[detector]'`") from error
    return Interpreter
