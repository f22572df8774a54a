"""Backgrounds: the scene behind the person in each image, cropped from images of the empty scene."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import CaptureError
from mcss.images import decode_jpeg

_SMALLEST = 16
"""Least side of the smallest halving."""


@dataclass(frozen=True, eq=False)
class BackgroundCrops:
    """Images of the empty scene, and the crop box of each image of a person."""

    scenes: tuple[tuple[UInt8[np.ndarray, "_ _ 3"], ...], ...]
    """RGB images of the size of the source images, and their `halvings`; those too fine for any crop have no pixels."""
    scene: Int64[np.ndarray, "n views"]
    """Index of the scene behind each image; -1 where there is no image."""
    boxes: Float32[np.ndarray, "n views 4"]
    """x0, y0, x1, y1 in pixels of the source image."""
    size: int
    """Side of the crops."""

    @classmethod
    def read(cls, capture: Capture, instants: Instants, size: int, purpose: str) -> "BackgroundCrops":
        """Read the scenes behind all images of `instants`.

        Args:
            capture: Where they are.
            instants: Instants of the capture.
            size: Side of the crops in pixels.
            purpose: What needs them, for the message.

        Raises:
            CaptureError: The capture lacks the background of a view.
        """
        index_of: dict[bytes, int] = {}
        scene = np.full(instants.rows.shape, -1, np.int64)
        parts = np.unique(np.stack([instants.subject, instants.sequence]), axis=1).T.tolist()
        for subject, sequence in parts:
            of_part = (instants.subject == subject) & (instants.sequence == sequence)
            names = instants.subjects[subject], instants.sequences[sequence]
            for view, name in enumerate(instants.views):
                seen = of_part & (instants.rows[:, view] >= 0)
                if not seen.any():
                    continue
                image = capture.background(name, *names)
                if image is None:
                    raise CaptureError(
                        f"{purpose} needs an image of the empty scene for every view, and the capture at "
                        f"{capture.uri} has none of view {name} for {names[0]}/{names[1]}; import the footage with "
                        "backgrounds (`CaptureWriter.add_backgrounds`), or train mcss, which needs none"
                    )
                scene[seen, view] = index_of.setdefault(image, len(index_of))
        boxes = np.full((*instants.rows.shape, 4), np.nan, np.float32)
        boxes[instants.rows >= 0] = capture.boxes(instants.rows[instants.rows >= 0])
        scenes = []
        for number, image in enumerate(index_of):
            sides = (boxes[scene == number][:, 2:] - boxes[scene == number][:, :2]).max(axis=1)
            scenes.append(_without_finer(halvings(decode_jpeg(image)), float(sides.min()), size))
        return cls(tuple(scenes), scene, boxes, size)

    def take(self, instants: Int64[np.ndarray, " n"], views: Int64[np.ndarray, " n"]) -> UInt8[Tensor, "n 3 size size"]:
        """Return the crops behind some images; beyond its border a scene continues with its border pixels."""
        crops = np.empty((len(instants), self.size, self.size, 3), np.uint8)
        for n, (scene, box) in enumerate(zip(self.scene[instants, views], self.boxes[instants, views], strict=True)):
            crops[n] = _cropped(self.scenes[scene], box.tolist(), self.size)
        return torch.from_numpy(crops).permute(0, 3, 1, 2)


def halvings(scene: UInt8[np.ndarray, "_ _ 3"]) -> tuple[UInt8[np.ndarray, "_ _ 3"], ...]:
    """Return an image at its size, half, a quarter …, so that a small crop is cut from little more than it needs."""
    levels = [scene]
    while min(levels[-1].shape[:2]) >= 2 * _SMALLEST:
        height, width = levels[-1].shape[:2]
        levels.append(np.asarray(cv2.resize(levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA)))
    return tuple(levels)


def _level(side: float, size: int, levels: int) -> int:
    """Return the halving from which a crop box of a side is cut: the smallest that has all of the pixels it needs."""
    step = max(side, 1) / (2 * size)
    return min(max(int(math.log2(step)), 0), levels - 1)


def _without_finer(
    levels: tuple[UInt8[np.ndarray, "_ _ 3"], ...], smallest: float, size: int
) -> tuple[UInt8[np.ndarray, "_ _ 3"], ...]:
    """Drop the pixels of the halvings that no crop box needs, of which the `smallest` has that side.

    A data set has hundreds of scenes, and whole they would take gigabytes. What is dropped keeps its shape.
    """
    needed = _level(smallest, size, len(levels))
    nothing = np.zeros((), np.uint8)
    return tuple(np.broadcast_to(nothing, image.shape) if n < needed else image for n, image in enumerate(levels))


def _cropped(
    levels: tuple[UInt8[np.ndarray, "_ _ 3"], ...], box: list[float], size: int
) -> UInt8[np.ndarray, "size size 3"]:
    x0, y0, x1, y1 = box
    side = 2 * size  # halved at the end, which keeps the border of a scene sharp
    steps = [max(x1 - x0, 1) / side, max(y1 - y0, 1) / side]  # source pixels from one pixel of the cut to the next
    level = levels[_level(max(x1 - x0, y1 - y0), size, len(levels))]
    rows = []
    for axis, (start, step) in enumerate(zip((x0, y0), steps, strict=True)):
        scale = level.shape[1 - axis] / levels[0].shape[1 - axis]
        rows.append([0.0, 0.0, (start + step / 2) * scale - 0.5])  # the centre of the cut's first pixel
        rows[axis][axis] = step * scale
    cut = cv2.warpAffine(
        level, np.array(rows), (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA))
