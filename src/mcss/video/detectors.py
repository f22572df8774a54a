"""Person detectors: networks that find people in single images, so that cameras and people may move freely.

BlazePose's detector comes with the package. Its box is the square around a circle that contains the whole body
including the arms, and it is designed for the one or two people nearest to the camera. torchvision's detectors, trained
on COCO, find people of all sizes; their weights are downloaded from its hub or read from a file.

Reference:
    Bazarevsky et al., "BlazePose: On-device real-time body pose tracking", CVPR workshops 2020; Lin et al., "Microsoft
    COCO", ECCV 2014; Ren et al., "Faster R-CNN", NeurIPS 2015.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float64

from mcss.errors import SourceError
from mcss.images import AnySizeImage, cut_out

DetectorName = Literal[
    "blazepose",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "ssdlite320_mobilenet_v3_large",
]
DETECTORS: tuple[DetectorName, ...] = get_args(DetectorName)

PERSON = 1
"""COCO's class number of a person."""

MIN_SCORE = 0.5
"""Detections with a lower score are discarded."""

MAX_OVERLAP = 0.45
"""Boxes with a larger intersection over union show the same person."""


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
        weights: File of its weights, .safetensors or .pth; None takes those that come with the package (blazepose) or
            downloads those of torchvision's hub.

    Raises:
        SourceError: The hub cannot be reached.
        mcss.errors.WeightsError: The file cannot be read, or holds other weights.
    """
    if name not in DETECTORS:
        raise ValueError(f"expected one of the detectors {', '.join(DETECTORS)}, got {name!r}")
    return BlazePoseDetector(weights) if name == "blazepose" else TorchvisionDetector(name, weights)


class _ShippedDetector:
    """BlazePose's detector with the weights of the package; they are read when it is first used."""

    def detect(self, images: Sequence[AnySizeImage]) -> list[Detections]:
        """Detect the people in each image."""
        return _blazepose().detect(images)


SHIPPED_DETECTOR: PersonDetector = _ShippedDetector()
"""The detector that finds people in single images unless another one is chosen."""


@cache
def _blazepose() -> "BlazePoseDetector":
    return BlazePoseDetector()


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


_Square = Float64[np.ndarray, " 4"]
"""x0, y0, x1, y1."""

_CLOSE_UP = 1.4
"""Side of the square for the second look, relative to the box that the first one gave."""

_MOVED, _GROWN = 0.35, 2.0
"""By how much of its side, and by which factor, a box may differ after the second look and still mean the same."""

_SMALLEST, _LARGEST = 8.0, 4.0
"""Boxes that are looked at again: the smallest in pixels, the largest relative to the image's longer side."""

_CONSIDERED = 640
"""Longer side in pixels to which larger images are scaled down first."""

_OBLONG = 1.25
"""From this ratio of its sides on, squares of an image's shorter side are looked at where the whole shows nobody."""


class BlazePoseDetector:
    """BlazePose's person detector, whose weights come with the package; runs on a GPU if there is one."""

    def __init__(self, weights: Path | None = None) -> None:
        """Load the detector; see `person_detector`."""
        import torch

        from mcss.video.person_network import WEIGHTS, PersonNetwork, anchors
        from mcss.weights import load_strictly, read_weights

        path = WEIGHTS if weights is None else weights
        state = {name: value.float() for name, value in read_weights(path, "--detector-weights", "").items()}
        net = PersonNetwork()
        load_strictly(net, state, str(path), "blazepose", "--detector-weights", "--find")
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._net = net.eval().to(self._device)
        self._anchors = anchors()

    def detect(self, images: Sequence[AnySizeImage]) -> list[Detections]:
        """Detect the people in each image."""
        return [self._detect(image) for image in images]

    def _detect(self, image: AnySizeImage) -> Detections:
        scale = max(1.0, max(image.shape[:2]) / _CONSIDERED)
        height, width = (max(1, round(side / scale)) for side in image.shape[:2])
        if scale > 1:
            image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        found = Detections.from_lists([], [])
        for squares in _views(width, height):
            found = self._confirmed(image, self._seen(image, squares))
            if len(found.boxes):
                break
        clipped = np.clip(found.boxes, 0, [width, height, width, height])
        visible = (clipped[:, 2:] - clipped[:, :2]).min(axis=1) > 1
        return Detections(scale * clipped[visible], found.scores[visible])

    def _confirmed(self, image: AnySizeImage, seen: Detections) -> Detections:
        """Look at everybody again from close up, which places them better and rejects what only looked like a person.

        The network sees 224 pixels, so people who are small in the image are better seen in a square around them.
        """
        height, width = image.shape[:2]
        sides = seen.boxes[:, 2] - seen.boxes[:, 0]
        middles = (seen.boxes[:, :2] + seen.boxes[:, 2:]) / 2
        near = (seen.boxes[:, :2] < [width, height]).all(axis=1) & (seen.boxes[:, 2:] > 0).all(axis=1)
        near &= (sides > _SMALLEST) & (sides < _LARGEST * max(width, height))
        boxes, scores = [], []
        for middle, side in zip(middles[near], sides[near], strict=True):
            half = _CLOSE_UP / 2 * side
            again = self._seen(image, [np.concatenate([middle - half, middle + half])])
            moved = np.linalg.norm((again.boxes[:, :2] + again.boxes[:, 2:]) / 2 - middle, axis=1) / side
            grown = (again.boxes[:, 2] - again.boxes[:, 0]) / side
            same = np.flatnonzero((moved < _MOVED) & (grown > 1 / _GROWN) & (grown < _GROWN))[:1]  # the best one
            boxes += list(again.boxes[same])
            scores += list(again.scores[same])
        people = Detections.from_lists(boxes, scores)
        return _without_duplicates(people.boxes, people.scores)

    def _seen(self, image: AnySizeImage, squares: Sequence[_Square]) -> Detections:
        """Detect people in squares of an image, which may reach beyond it; boxes are not cut off at its border."""
        import torch

        from mcss.video.person_network import SIDE

        whole = [np.rint(square).astype(np.int64) for square in squares]
        pixels = torch.from_numpy(np.stack([cut_out(image, square, SIDE) for square in whole]))
        with torch.inference_mode():
            found = self._net((pixels.permute(0, 3, 1, 2).float() / 127.5 - 1).to(self._device))
        scores = torch.sigmoid(found.logits).double().cpu().numpy()
        number, anchor = np.nonzero(scores >= MIN_SCORE)
        hips, reach = (values.cpu().numpy()[number, anchor].astype(np.float64) for values in (found.hips, found.reach))
        corners = np.stack(whole)[number].astype(np.float64)
        scale = (corners[:, 2:3] - corners[:, :1]) / SIDE
        centre = corners[:, :2] + scale * (self._anchors[anchor] + hips)
        radius = scale * np.linalg.norm(reach - hips, axis=1, keepdims=True)
        return _without_duplicates(np.concatenate([centre - radius, centre + radius], axis=1), scores[number, anchor])


def _views(width: int, height: int) -> Iterator[list[_Square]]:
    """The squares to look at until somebody is found: the whole image, then overlapping squares of its short side."""
    side, short = max(width, height), min(width, height)
    corner = np.array([width - side, height - side]) / 2
    yield [np.concatenate([corner, corner + side])]
    if side >= _OBLONG * short:
        steps = np.linspace(0, side - short, 1 + math.ceil(2 * (side - short) / short))
        corners = [np.array([step, 0.0] if width > height else [0.0, step]) for step in steps]
        yield [np.concatenate([corner, corner + short]) for corner in corners]


def _without_duplicates(boxes: Float64[np.ndarray, "n 4"], scores: Float64[np.ndarray, " n"]) -> Detections:
    """Keep the best detection of each person (non-maximum suppression), best first."""
    if not len(boxes):
        return Detections.from_lists([], [])
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = np.asarray(cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), 0.0, MAX_OVERLAP), np.int64).reshape(-1)
    return Detections(boxes[kept], scores[kept])
