"""Parts of decoded images as brightness and colour planes, as the decoder gives them.

Turning a whole image into RGB to cut a small crop out of it costs about half as much as decoding it. Here
planes are cut and scaled first, and only what is left is turned into RGB.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from mcss.images import Image

Plane = UInt8[np.ndarray, "_ _"]

SPARE = 1.5
"""A part is halved as long as its crop stays this many times as large as it will be in the end."""

_PLAIN = frozenset({"yuv420p", "yuvj420p"})


@dataclass(frozen=True, eq=False)
class Planes:
    """A rectangle of an upright image, scaled down by `factor`; the colour planes are half as large."""

    y: Plane
    u: Plane
    v: Plane
    left: int = 0
    """Of the rectangle in source pixels, a multiple of twice the factor; `top` likewise."""
    top: int = 0
    factor: int = 1
    colours: tuple[int, int] = (2, 0)
    """FFmpeg's numbers of the colour space and range."""

    @property
    def right(self) -> int:
        """First source pixel outside."""
        return self.left + int(self.y.shape[1]) * self.factor

    @property
    def bottom(self) -> int:
        """Likewise."""
        return self.top + int(self.y.shape[0]) * self.factor

    def part(self, left: int, top: int, right: int, bottom: int, factor: int) -> "Planes":
        """The part between source pixels, grown to whole ones of the result and clipped; scaled down to `factor`.

        Args:
            left: Source pixels; likewise the others.
            top: Likewise.
            right: First one outside.
            bottom: Likewise.
            factor: A power of two times the own one.
        """
        step = 2 * factor
        left, top = max(left // step * step, self.left), max(top // step * step, self.top)
        right, bottom = min(-(-right // step) * step, self.right), min(-(-bottom // step) * step, self.bottom)
        x0, y0, x1, y1 = (
            (at - start) // self.factor
            for at, start in zip((left, top, right, bottom), (self.left, self.top) * 2, strict=True)
        )
        planes = [self.y[y0:y1, x0:x1]]
        planes += [plane[y0 // 2 : (y1 + 1) // 2, x0 // 2 : (x1 + 1) // 2] for plane in (self.u, self.v)]
        own = self.factor
        while own < factor:
            planes = [_halved(plane) for plane in planes]
            own *= 2
        y, u, v = planes
        return Planes(y, u, v, left, top, factor, self.colours)

    def cut(self, square: Int64[np.ndarray, " 4"], size: int) -> tuple[Image, tuple[int, int, int, int]]:
        """The square, scaled to `size` pixels, and where it lies exactly.

        It is moved and grown by a hundredth of its side or so, to whole pixels of what was scaled down. What lies
        outside repeats the border.
        """
        x0, y0, x1, _ = (int(value) for value in square)
        factor = self.factor
        while (x1 - x0) / (2 * factor) >= SPARE * size:
            factor *= 2
        step = 2 * factor
        left, top = x0 // step * step, y0 // step * step
        side = -(-max(x1 - left, int(square[3]) - top) // step) * step
        inside = self.part(left, top, left + side, top + side, factor)
        planes = []
        for plane, half in ((inside.y, 1), (inside.u, 2), (inside.v, 2)):
            scale = factor * half
            before = (top - inside.top) // scale, (left - inside.left) // scale
            planes.append(_scaled(_windowed(plane, *before, side // scale), size, size))
        return _rgb(planes, self.colours), (left, top, left + side, top + side)

    def small(self, long_side: int) -> Image:
        """The whole, scaled down so that the longer side has this many pixels at most."""
        height, width = self.y.shape
        scale = min(1.0, long_side / max(height, width))
        wide, high = max(2, round(width * scale)), max(2, round(height * scale))
        planes = []
        for plane in (self.y, self.u, self.v):
            while plane.shape[0] >= 2 * high and plane.shape[1] >= 2 * wide:
                plane = _halved(plane)
            planes.append(np.asarray(cv2.resize(plane, (wide, high), interpolation=cv2.INTER_LINEAR), np.uint8))
        return _rgb(planes, self.colours)


def planes_of(frame: Any) -> Planes:
    """The planes of a decoded image, upright. They lie in the decoder's own memory as long as they live."""
    name, space, reach = frame.format.name, int(frame.colorspace), int(frame.color_range)
    if name in _PLAIN:
        planes = [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in frame.planes
        ]
        colours = space, _FULL if name == "yuvj420p" else reach
    else:
        planes, colours = _from_rgb(frame.to_ndarray(format="rgb24")), (5, 1)
    quarter_turns = round(frame.rotation / 90) % 4  # the container's mark: degrees counter-clockwise
    if quarter_turns:
        planes = [np.rot90(plane, quarter_turns) for plane in planes]
    y, u, v = planes
    return Planes(y, u, v, colours=colours)


def _from_rgb(image: Image) -> list[Plane]:
    height, width = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    packed = np.asarray(cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420), np.uint8)
    rows, columns = even.shape[0] // 2, even.shape[1] // 2
    colour = packed[2 * rows :].reshape(2, rows, columns)
    return [packed[:height, :width], colour[0], colour[1]]


def _halved(plane: Plane) -> Plane:
    rows, columns = plane.shape[0] // 2, plane.shape[1] // 2
    if not rows or not columns:
        return plane
    # Exactly by two OpenCV is several times as fast as by any other factor.
    halved = cv2.resize(plane[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(halved, np.uint8)


def _scaled(plane: Plane, width: int, height: int) -> Plane:
    how = cv2.INTER_AREA if plane.shape[0] > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(plane, (width, height), interpolation=how), np.uint8)


def _windowed(plane: Plane, top: int, left: int, length: int) -> Plane:
    """A square of a plane that may reach beyond it, where its border is repeated."""
    height, width = plane.shape
    inside = plane[max(top, 0) : max(top + length, 1), max(left, 0) : max(left + length, 1)]
    if not inside.size:  # wholly outside: what is nearest
        inside = plane[min(max(top, 0), height - 1) :, min(max(left, 0), width - 1) :][:1, :1]
    outside = (max(-top, 0), max(top + length - height, 0), max(-left, 0), max(left + length - width, 0))
    if any(outside):
        inside = np.asarray(cv2.copyMakeBorder(inside, *outside, borderType=cv2.BORDER_REPLICATE), np.uint8)
    return inside


def _rgb(planes: list[Plane], colours: tuple[int, int]) -> Image:
    """Planes of one size as RGB."""
    return np.asarray(cv2.transform(cv2.merge(planes), _to_rgb(*colours)), np.uint8)


_FULL = 2
"""FFmpeg's number for brightness from 0 to 255, where 16 to 235 is usual."""


@cache
def _to_rgb(space: int, reach: int) -> Float64[np.ndarray, "3 4"]:
    """The matrix and offset from y, u, v to red, green, blue, by the weights of red and blue in the brightness."""
    red, blue = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}.get(space, (0.299, 0.114))
    green = 1 - red - blue
    bright, colour, black = (1.0, 1.0, 0.0) if reach == _FULL else (255 / 219, 255 / 224, 16.0)
    u = np.array([0, -2 * blue * (1 - blue) / green, 2 * (1 - blue)]) * colour
    v = np.array([2 * (1 - red), -2 * red * (1 - red) / green, 0]) * colour
    y = np.full(3, bright)
    return np.stack([y, u, v, -black * y - 128 * (u + v)], axis=1)
