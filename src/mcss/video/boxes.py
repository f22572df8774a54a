"""Bounding boxes of people, and the calm square crop boxes around them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

Box = Float64[np.ndarray, " 4"]
"""x0, y0, x1, y1 in pixels; x1 and y1 are the first ones outside."""

Boxes = Float64[np.ndarray, "n 4"]
"""One box per row, NaN where it is unknown."""

Statistic = Callable[..., Any]
"""A numpy reduction that takes an axis."""

STANDS_OUT, STRETCH, GROWTH = 0.15, 0.12, 0.4
"""Seconds over which a box that stands out is ignored, and over which crop boxes move and grow."""


def interpolated_boxes(boxes: Boxes) -> Boxes:
    """Fill gaps (NaN) by interpolating in time; before the first and after the last known box, repeat that box.

    Raises:
        ValueError: No box is known.
    """
    known = np.isfinite(boxes).all(axis=1)
    if not known.any():
        raise ValueError("no box to fill the gaps from: expected at least one row without NaN")
    index = np.arange(len(boxes))
    return np.stack([np.interp(index, index[known], boxes[known, k]) for k in range(4)], axis=1)


def steady_crop_boxes(boxes: Boxes, rate: float, margin: float, width: int, height: int) -> Int64[np.ndarray, "n 4"]:
    """Lay square crop boxes in whole pixels around a person's bounding boxes such that they move calmly.

    They move and grow slowly, so that the person does not jump in the crop when a hand comes or goes. They contain
    every bounding box except one that stands out for an instant. A crop box that would leave the image is moved
    inside as far as it fits.

    Args:
        boxes: One per image, without gaps.
        rate: Boxes per second.
        margin: Side of the crop box divided by the longer side of the bounding box.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    steady = _windowed(boxes, rate, STANDS_OUT, np.median)
    low, high = (
        _windowed(_windowed(steady[:, part], rate, STRETCH, extreme), rate, STRETCH, np.mean)
        for part, extreme in ((np.s_[:2], np.min), (np.s_[2:], np.max))
    )
    side = margin * (high - low).max(axis=1, keepdims=True)
    side = _windowed(_windowed(side, rate, GROWTH, np.max), rate, GROWTH, np.mean)
    side = np.maximum(np.rint(side), 2)
    corner = np.rint((low + high) / 2 - side / 2)
    room = np.array([width, height]) - side
    corner = np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), np.rint(room / 2))
    return np.concatenate([corner, corner + side], axis=1).astype(np.int64)


def steady_reach(rate: float) -> int:
    """Return how many boxes before and after an image decide where its crop box is."""
    return _half(STANDS_OUT, rate) + 2 * _half(STRETCH, rate) + 2 * _half(GROWTH, rate)


def _half(seconds: float, rate: float) -> int:
    return round(seconds * rate / 2)


def _windowed(
    values: Float64[np.ndarray, "n k"], rate: float, seconds: float, statistic: Statistic
) -> Float64[np.ndarray, "n k"]:
    half = _half(seconds, rate)
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0)
    return np.asarray(statistic(windows, axis=-1), np.float64)


def overlaps(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Return the intersection over union of every box of `a` with every box of `b`."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (a, b)]
    return np.asarray(intersection / np.maximum(areas[0][:, None] + areas[1][None] - intersection, 1e-9))


def share_inside(box: Box, other: Box) -> float:
    """Return the share of a box's area that lies in another box."""
    return float(shares_inside(box[None], other[None])[0, 0])


def shares_inside(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Return the share of the area of every box of `a` that lies in every box of `b`."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    areas = (a[:, 2:] - a[:, :2]).prod(axis=-1)
    return np.asarray(np.maximum(high - low, 0).prod(axis=-1) / np.maximum(areas, 1e-9)[:, None])


def union_box(a: Box, b: Box) -> Box:
    """Return the smallest box that contains both."""
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])
