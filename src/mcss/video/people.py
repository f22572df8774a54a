"""Where people are in the images of a view, and the square to cut out around one.

In front of a static camera people are found without any trained network: what differs from the empty scene
(`mcss.video.background`) is grouped into candidates. A detector (`mcss.video.detectors`) may find them instead.
Either way they are followed through time (`mcss.video.tracking`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.video.background import Foreground, Scene
from mcss.video.detectors import Found, Image, PersonFinder
from mcss.video.tracking import Track, Tracker

Box = Float64[np.ndarray, " 4"]
Boxes = Float64[np.ndarray, "n 4"]

Statistic = Callable[..., Any]
"""A numpy reduction that takes an axis."""

CANDIDATES = 6
"""So many groups are looked at in an image, the largest."""

SPECK = 0.0004
"""Groups below this share of the image are noise."""

REACH = 0.025
"""Pieces of foreground nearer than this share of the image's longer side belong together at first."""

EVERYTHING = 0.5
"""If a larger share of the image than this differs from the empty scene, the light or the camera has changed."""

SHOTS = 24
"""So many images of a view are kept to be shown."""


@dataclass(frozen=True)
class Candidate:
    """A group of foreground pixels that may be the person, or a part of one."""

    box: Box
    """x0, y0, x1, y1 in pixels; x1 and y1 are the first ones outside."""
    area: float


def candidates(mask: Bool[np.ndarray, "height width"]) -> list[Candidate]:
    """The largest groups of foreground in an image, largest first."""
    pixels = cv2.medianBlur(mask.astype(np.uint8), 3)  # without specks
    reach = max(1, round(REACH * max(mask.shape) / 2))
    joined = cv2.dilate(pixels, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(joined)
    found = []
    for label, (x, y, w, h, _) in enumerate(boxes.tolist()):
        rows, columns = np.nonzero((labels[y : y + h, x : x + w] == label) & (pixels[y : y + h, x : x + w] > 0))
        if label == 0 or len(rows) < SPECK * mask.size:
            continue
        box = np.array([x + columns.min(), y + rows.min(), x + columns.max() + 1, y + rows.max() + 1], np.float64)
        found.append(Candidate(box, float(len(rows))))
    found.sort(key=lambda candidate: -candidate.area)
    return found[:CANDIDATES]


class MotionFinder:
    """Finds what differs from the empty scene of a static camera; somebody who never moves is part of the scene."""

    def __init__(self, scene: Scene) -> None:
        self._foreground = Foreground(scene)

    def find(self, images: Sequence[Image]) -> list[Found]:
        """The people in each image, or pieces of them; the score is how much of its box a group fills."""
        return [self._find(image) for image in images]

    def _find(self, image: Image) -> Found:
        mask = self._foreground(image)
        if mask.mean() > EVERYTHING:
            return Found.of([], [])
        groups = candidates(mask)
        sizes = [float((group.box[2:] - group.box[:2]).prod()) for group in groups]
        fills = [group.area / size for group, size in zip(groups, sizes, strict=True)]
        return Found.of([group.box for group in groups], fills)


@dataclass(frozen=True, eq=False)
class Watched:
    """What was seen in a view."""

    count: int
    """Images that were looked at."""
    size: tuple[int, int]
    """Width and height of an image that was looked at."""
    tracks: tuple[Track, ...]
    """Everybody, the one who showed most of himself first."""
    shots: Mapping[int, Image]
    """Some of the images, by their number."""


class Watch:
    """Looks at a view, image after image; images but for a few are forgotten."""

    def __init__(self, finder: PersonFinder, rate: float, count: int) -> None:
        """Begin.

        Args:
            finder: Finds people in single images.
            rate: Images per second.
            count: Images that will come, about; shots to be shown are spread over them.
        """
        self._finder = finder
        self._tracker = Tracker(rate, in_pieces=isinstance(finder, MotionFinder))
        self._shown = frozenset(np.linspace(0, max(count - 1, 0), SHOTS).round().astype(int).tolist())
        self._shots: dict[int, Image] = {}
        self.size = (0, 0)
        """Width and height of the last image."""

    def look(self, image: Image) -> Found:
        """Take the next image; gives all that may be a person in it."""
        if self._tracker.count in self._shown:
            self._shots[self._tracker.count] = image
        self.size = (image.shape[1], image.shape[0])
        found = self._finder.find([image])[0]
        self._tracker.look(image, found)
        return found

    def done(self) -> Watched:
        """Everything seen so far."""
        return Watched(self._tracker.count, self.size, tuple(self._tracker.tracks()), dict(self._shots))


def follow(found: Sequence[Sequence[Candidate]]) -> Boxes:
    """The box of one person through all images, from the candidates of each; NaN where there is none.

    The path of candidates is the best of all paths (Viterbi): each image rewards its candidate by √area, each step
    costs what the centre and the area jump. Pieces beside the chosen candidate, such as a foot that is
    cut off by a dark floor, are taken in afterwards.
    """
    path = _best_path(found)
    boxes = np.full((len(found), 4), np.nan)
    chosen = [group[at].area for group, at in zip(found, path, strict=True) if at >= 0]
    if not chosen:
        return boxes
    usual_area = float(np.median(chosen))
    spans = [_size(group[at].box) for group, at in zip(found, path, strict=True) if at >= 0]
    usual_size = float(np.median(spans))
    for i, (group, at) in enumerate(zip(found, path, strict=True)):
        if at < 0:
            continue
        box = group[at].box
        for piece in group:
            near = _gap(box, piece.box) < 0.06 * usual_size
            union = np.concatenate([np.minimum(box[:2], piece.box[:2]), np.maximum(box[2:], piece.box[2:])])
            if near and 0.01 * usual_area < piece.area and _size(union) < 1.3 * max(usual_size, _size(box)):
                box = union
        boxes[i] = box
    return boxes


def _best_path(found: Sequence[Sequence[Candidate]]) -> Int64[np.ndarray, " n"]:
    """For each image the index of the candidate on the best path, -1 where it passes through none."""
    areas = [c.area for group in found for c in group]
    if not areas:
        return np.full(len(found), -1, np.int64)
    unit = float(np.sqrt(np.percentile(areas, 95)))
    lost = 1.5  # what it costs to lose the person, or to find somebody
    score = np.zeros(1)
    before: Sequence[Candidate] = ()
    came_from: list[Int64[np.ndarray, " states"]] = []
    for group in found:  # states: the candidates, then "nobody"
        step = np.full((len(before) + 1, len(group) + 1), lost)
        step[-1, -1] = 0.0
        for i, a in enumerate(before):
            for j, b in enumerate(group):
                jump = np.linalg.norm(_centre(a.box) - _centre(b.box)) / max(_size(a.box), _size(b.box))
                step[i, j] = min(3.0 * jump + 0.5 * abs(np.log(a.area / b.area)), 2 * lost)
        total = score[:, None] - step
        came_from.append(total.argmax(axis=0).astype(np.int64))
        reward = np.array([np.sqrt(c.area) / unit for c in group] + [0.0])
        score = total.max(axis=0) + reward
        before = group
    path = np.full(len(found), -1, np.int64)
    state = int(score.argmax())
    for i in range(len(found) - 1, -1, -1):
        path[i] = state if state < len(found[i]) else -1
        state = int(came_from[i][state])
    return path


def filled(boxes: Boxes) -> Boxes:
    """Boxes with gaps (NaN) interpolated in time; before the first and after the last box they stand still.

    Raises:
        ValueError: There is not one box.
    """
    seen = np.isfinite(boxes).all(axis=1)
    if not seen.any():
        raise ValueError("no box to fill the gaps from: expected at least one row without NaN")
    at = np.arange(len(boxes))
    return np.stack([np.interp(at, at[seen], boxes[seen, k]) for k in range(4)], axis=1)


def crop_squares(boxes: Boxes, rate: float, margin: float, width: int, height: int) -> Int64[np.ndarray, "n 4"]:
    """Calm square crops around a person's boxes, in whole pixels.

    They move and grow slowly, so that a hand that comes and goes does not make the person jump in the
    crop, and hold every box except one that stands out for an instant. A crop that would leave the image is
    moved inside as far as it fits.

    Args:
        boxes: One per image, without gaps.
        rate: Boxes per second.
        margin: Side of the crop over the longer side of the box.
        width: Of the image, pixels.
        height: Likewise.
    """
    steady = _windowed(boxes, rate, 0.15, np.median)
    low, high = (
        _windowed(_windowed(steady[:, part], rate, 0.12, extreme), rate, 0.12, np.mean)
        for part, extreme in ((np.s_[:2], np.min), (np.s_[2:], np.max))
    )
    side = margin * (high - low).max(axis=1, keepdims=True)
    side = _windowed(_windowed(side, rate, 0.4, np.max), rate, 0.4, np.mean)
    side = np.maximum(np.rint(side), 2)
    corner = np.rint((low + high) / 2 - side / 2)
    room = np.array([width, height]) - side
    corner = np.where(room >= 0, np.clip(corner, 0, np.maximum(room, 0)), np.rint(room / 2))
    return np.concatenate([corner, corner + side], axis=1).astype(np.int64)


def _windowed(
    values: Float64[np.ndarray, "n k"], rate: float, seconds: float, statistic: Statistic
) -> Float64[np.ndarray, "n k"]:
    half = round(seconds * rate / 2)
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1, axis=0)
    return np.asarray(statistic(windows, axis=-1), np.float64)


def _centre(box: Box) -> Float64[np.ndarray, " 2"]:
    return np.asarray((box[:2] + box[2:]) / 2, np.float64)


def _size(box: Box) -> float:
    return float(max(box[2] - box[0], box[3] - box[1]))


def _gap(a: Box, b: Box) -> float:
    """Distance between two boxes, 0 if they touch."""
    apart = np.maximum(np.maximum(a[:2] - b[2:], b[:2] - a[2:]), 0)
    return float(np.hypot(*apart))
