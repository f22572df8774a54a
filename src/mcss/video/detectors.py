"""Person detectors: networks that find people in single images, so that cameras and people may move freely.

torchvision's detectors, trained on COCO, need no further package; their weights are downloaded from its hub or read
from a file. MediaPipe's person detector is a file of 3 MB that LiteRT runs. Its box is the square around a circle that
contains the whole body including the arms, and it is designed for the one or two people nearest to the camera.

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
from jaxtyping import Float32, Float64

from mcss.errors import SourceError
from mcss.images import AnySizeImage

DetectorName = Literal[
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "ssdlite320_mobilenet_v3_large",
    "blazepose",
]
DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)

PERSON = 1
"""COCO's class number of a person."""

MIN_SCORE = 0.5
"""Detections with a lower score are discarded."""

MAX_OVERLAP = 0.45
"""Boxes with a larger intersection over union show the same person."""

_SIDE = 224
"""Side in pixels of the square input of MediaPipe's detector."""


@dataclass(frozen=True, eq=False)
class Detections:
    """The people that were detected in one image."""

    boxes: Float64[np.ndarray, "n 4"]
    """x0, y0, x1, y1 in pixels; x1 and y1 are the first ones outside."""
    scores: Float64[np.ndarray, " n"]
    """Confidence that each is a person, 0 to 1."""

    @classmethod
    def from_lists(cls, boxes: Sequence[Any], scores: Sequence[Any]) -> "Detections":
        """Build detections from lists, which may be empty."""
        return cls(np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(scores, np.float64).reshape(-1))


@runtime_checkable
class PersonDetector(Protocol):
    """Detects people in single images."""

    def detect(self, images: Sequence[AnySizeImage]) -> list[Detections]:
        """Detect the people in each image."""


def person_detector(name: DetectorName, weights: Path | None = None) -> PersonDetector:
    """Load a detector.

    Args:
        name: The detector's name.
        weights: File of its weights (.safetensors or .pth, or .tflite for blazepose); None downloads those of
            torchvision's hub, which has none for blazepose.

    Raises:
        SourceError: blazepose without a file, or the hub cannot be reached.
        mcss.errors.WeightsError: The file cannot be read, or holds other weights.
        ImportError: LiteRT is not installed; the message names the extra.
    """
    if name not in DETECTORS:
        raise ValueError(f"expected one of the detectors {', '.join(DETECTORS)}, got {name!r}")
    if name != "blazepose":
        return TorchvisionDetector(name, weights)
    if weights is None:
        raise SourceError(
            "blazepose: its weights cannot be downloaded, so --detector-weights must name the file "
            "pose_detection.tflite from the package mediapipe 0.10.21; docs/real_footage.md says how to get it"
        )
    return BlazePoseDetector(weights)


class TorchvisionDetector:
    """One of torchvision's detectors; runs on a GPU if there is one."""

    def __init__(self, name: DetectorName, weights: Path | None = None) -> None:
        """Load the detector; see `person_detector`."""
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
                    "Internet once, or give them as a file: --detector-weights FILE (.safetensors or .pth)"
                ) from error
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._net = net.eval().to(self._device)

    def detect(self, images: Sequence[AnySizeImage]) -> list[Detections]:
        """Detect the people in each image."""
        import torch

        tensors = [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1) for image in images]
        with torch.inference_mode():
            outputs = self._net([tensor.to(self._device).float() / 255 for tensor in tensors]) if tensors else []
        detections = []
        for output in outputs:
            people = (output["labels"] == PERSON) & (output["scores"] >= MIN_SCORE)
            boxes, scores = (output[name][people].double().cpu().numpy() for name in ("boxes", "scores"))
            detections.append(_without_duplicates(boxes, scores))
        return detections


class BlazePoseDetector:
    """MediaPipe's person detector, run by LiteRT."""

    def __init__(self, weights: Path) -> None:
        """Load the detector; see `person_detector`."""
        from mcss.errors import WeightsError

        expected = "expected pose_detection.tflite of mediapipe 0.10.21"
        if not weights.is_file():
            raise WeightsError(f"--detector-weights {weights}: no such file; {expected}")
        try:
            self._net = _litert()(model_content=weights.read_bytes(), num_threads=1)
            self._net.allocate_tensors()
            outputs = {tuple(tensor["shape"].tolist()): tensor["index"] for tensor in self._net.get_output_details()}
            inputs = {tuple(tensor["shape"].tolist()): tensor["index"] for tensor in self._net.get_input_details()}
        except (ValueError, RuntimeError) as error:
            raise WeightsError(f"--detector-weights {weights}: LiteRT cannot read it ({error}); {expected}") from error
        self._anchors = _anchors()
        count = len(self._anchors)
        if set(outputs) != {(1, count, 12), (1, count, 1)} or set(inputs) != {(1, _SIDE, _SIDE, 3)}:
            raise WeightsError(
                f"--detector-weights {weights}: {expected}, got a network that maps {sorted(inputs)} to "
                f"{sorted(outputs)}"
            )
        self._input = inputs[1, _SIDE, _SIDE, 3]
        self._points, self._logits = outputs[1, count, 12], outputs[1, count, 1]

    def detect(self, images: Sequence[AnySizeImage]) -> list[Detections]:
        """Detect the people in each image."""
        return [self._detect(image) for image in images]

    def _detect(self, image: AnySizeImage) -> Detections:
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
        sure = scores >= MIN_SCORE
        # Each detection has a box of the face, then four points; the first is the middle of the hips, the second lies
        # on the circle around the whole body.
        points = self._net.get_tensor(self._points)[0, sure, 4:8].reshape(-1, 2, 2) + self._anchors[sure, None] * _SIDE
        centre = (points[:, 0] - (left, top)) / scale
        radius = np.linalg.norm(points[:, 1] - points[:, 0], axis=1, keepdims=True) / scale
        boxes = np.concatenate([centre - radius, centre + radius], axis=1).astype(np.float64)
        people = _without_duplicates(boxes, scores[sure])
        clipped = np.clip(people.boxes, 0, [width, height, width, height])
        visible = (clipped[:, 2:] - clipped[:, :2]).min(axis=1) > 1
        return Detections(clipped[visible], people.scores[visible])


def _anchors() -> Float32[np.ndarray, "anchors 2"]:
    """Return the detector's reference points as shares of the side: 2, 2 and 6 per cell of three grids."""
    anchors = []
    for stride, each in ((8, 2), (16, 2), (32, 6)):
        cells = _SIDE // stride
        y, x = np.indices((cells, cells))
        middle = (np.stack([x, y], axis=-1).reshape(-1, 2) + 0.5) / cells
        anchors.append(np.repeat(middle, each, axis=0))
    return np.concatenate(anchors).astype(np.float32)


def _without_duplicates(boxes: Float64[np.ndarray, "n 4"], scores: Float64[np.ndarray, " n"]) -> Detections:
    """Keep the best detection of each person (non-maximum suppression), best first."""
    if not len(boxes):
        return Detections.from_lists([], [])
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = np.asarray(cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.0, MAX_OVERLAP), np.int64).reshape(-1)
    return Detections(boxes[kept], scores[kept])


def _litert() -> Any:
    """Import LiteRT's interpreter, which is an optional dependency.

    Raises:
        ImportError: LiteRT is not installed; the message names the extra.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError("blazepose needs LiteRT: install it with `pip install 'mcss[detector]'`") from error
    return Interpreter
