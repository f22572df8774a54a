"""Images as brightness (Y) and colour (U, V) planes, as the video decoder delivers them.

Converting a whole image to RGB only to cut out a small crop costs about half as much as decoding it. Here the planes
are cropped and scaled first, and only the result is converted to RGB.
"""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from jaxtyping import Float64, Int64, UInt8

from mcss.images import Image
from mcss.video.reading.display import BT601, BT709, BT2020, FULL_RANGE, STUDIO_RANGE, UNSPECIFIED, Picture

Plane = UInt8[np.ndarray, "_ _"]

SPARE = 1.5
"""Planes are halved as long as the crop stays at least this many times as large as its final size."""

INTERPOLATED = 1.3
"""Planes with fine detail are interpolated without averaging up to this many times their final size."""

_PLAIN = frozenset({"yuv420p", "yuvj420p"})


@dataclass(frozen=True, eq=False)
class YuvImage:
    """An upright image, or a rectangle of one, scaled down by `factor`; its colour planes are half as large."""

    y: Plane
    u: Plane
    v: Plane
    left: int = 0
    """Left edge of the rectangle in source pixels, a multiple of twice the factor."""
    top: int = 0
    """Top edge of the rectangle in source pixels, a multiple of twice the factor."""
    factor: int = 1
    colours: tuple[int, int] = (UNSPECIFIED, STUDIO_RANGE)
    """FFmpeg's numbers of the colour space and the colour range."""

    @property
    def right(self) -> int:
        """Right edge: the first source pixel outside."""
        return self.left + int(self.y.shape[1]) * self.factor

    @property
    def bottom(self) -> int:
        """Bottom edge: the first source pixel outside."""
        return self.top + int(self.y.shape[0]) * self.factor

    def part(self, left: int, top: int, right: int, bottom: int, factor: int) -> "YuvImage":
        """Return a rectangle of the image, scaled down to `factor`.

        Its edges, in source pixels, are moved outwards to whole pixels of the result, and clipped to the image.

        Args:
            left: Left edge.
            top: Top edge.
            right: First pixel to the right of the rectangle.
            bottom: First pixel below the rectangle.
            factor: This image's factor times a power of two.
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
        reached = self.factor
        while reached < factor:
            planes = [_halved(plane) for plane in planes]
            reached *= 2
        y, u, v = planes
        return YuvImage(y, u, v, left, top, factor, self.colours)

    def crop(self, crop_box: Int64[np.ndarray, " 4"], size: int) -> tuple[Image, tuple[int, int, int, int]]:
        """Cut out a square as RGB, scaled to `size` pixels, and return it with its exact position.

        The crop box is moved and enlarged by about a hundredth of its side, to whole pixels of the scaled planes.
        Outside the image its border is repeated.
        """
        x0, y0, x1, _ = (int(value) for value in crop_box)
        factor = self.factor
        while (x1 - x0) / (2 * factor) >= SPARE * size:
            factor *= 2
        step = 2 * factor
        left, top = x0 // step * step, y0 // step * step
        side = -(-max(x1 - left, int(crop_box[3]) - top) // step) * step
        inside = self.part(left, top, left + side, top + side, self.factor)
        planes = []
        # The planes of colour are half as large, so they are halved once less.
        finer = max(factor // 2, self.factor)
        for plane, half, reached in ((inside.y, 1, factor), (inside.u, 2, finer), (inside.v, 2, finer)):
            for _ in range((reached // self.factor).bit_length() - 1):
                plane = _halved(plane)
            scale = reached * half
            before = (top - inside.top) // scale, (left - inside.left) // scale
            planes.append(_scaled(_windowed(plane, *before, side // scale), size, smooth=scale > self.factor))
        return _rgb(planes, self.colours), (left, top, left + side, top + side)

    def thumbnail(self, long_side: int) -> Image:
        """Return the whole image as RGB, scaled down so that its longer side has at most this many pixels."""
        height, width = self.y.shape
        scale = min(1.0, long_side / max(height, width))
        wide, high = max(2, round(width * scale)), max(2, round(height * scale))
        planes = []
        for plane in (self.y, self.u, self.v):
            while plane.shape[0] >= 2 * high and plane.shape[1] >= 2 * wide:
                plane = _halved(plane)
            planes.append(np.asarray(cv2.resize(plane, (wide, high), interpolation=cv2.INTER_LINEAR), np.uint8))
        return _rgb(planes, self.colours)


def yuv_of(picture: Picture) -> YuvImage:
    """Return the planes of a decoded picture, upright and with square pixels. They may share the frame's memory."""
    space, value_range = int(picture.frame.colorspace), int(picture.frame.color_range)
    frame = picture.square_frame
    name = frame.format.name
    if name in _PLAIN:
        planes = [
            np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
            for plane in frame.planes
        ]
        colours = space, FULL_RANGE if name == "yuvj420p" else value_range
    else:
        planes, colours = _from_rgb(frame.to_ndarray(format="rgb24")), (BT601, STUDIO_RANGE)
    y, u, v = map(picture.orientation.applied, planes)
    return YuvImage(y, u, v, colours=colours)


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
    # OpenCV scales by exactly two several times as fast as by any other factor.
    halved = cv2.resize(plane[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(halved, np.uint8)


def _scaled(plane: Plane, size: int, smooth: bool) -> Plane:
    """Scale a square plane, averaging what becomes one pixel.

    Interpolating to exactly twice the size and halving that differs from OpenCV's own average over areas (INTER_AREA)
    by about half a brightness step of 255, and takes a fifth of the time. Interpolation alone takes half of that. It
    skips no pixel up to twice the size, and of planes without fine detail it is as good: those that were averaged
    before, and those of colour, which a JPEG halves again.
    """
    if plane.shape[0] > (2.0 if smooth else INTERPOLATED) * size:
        return _halved(np.asarray(cv2.resize(plane, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR), np.uint8))
    return np.asarray(cv2.resize(plane, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _windowed(plane: Plane, top: int, left: int, length: int) -> Plane:
    """Cut a square out of a plane; outside the plane its border is repeated."""
    height, width = plane.shape
    inside = plane[max(top, 0) : max(top + length, 1), max(left, 0) : max(left + length, 1)]
    if not inside.size:  # entirely outside: repeat the nearest pixel
        inside = plane[min(max(top, 0), height - 1) :, min(max(left, 0), width - 1) :][:1, :1]
    outside = (max(-top, 0), max(top + length - height, 0), max(-left, 0), max(left + length - width, 0))
    if any(outside):
        inside = np.asarray(cv2.copyMakeBorder(inside, *outside, borderType=cv2.BORDER_REPLICATE), np.uint8)
    return inside


def _rgb(planes: list[Plane], colours: tuple[int, int]) -> Image:
    """Convert planes of equal size to RGB."""
    return np.asarray(cv2.transform(cv2.merge(planes), _to_rgb(*colours)), np.uint8)


_LUMA = {BT709: (0.2126, 0.0722), **dict.fromkeys(BT2020, (0.2627, 0.0593))}
"""Weights of red and blue in the brightness; in other colour spaces they are those of BT.601."""


@cache
def _to_rgb(space: int, value_range: int) -> Float64[np.ndarray, "3 4"]:
    """Return the matrix and offset from Y, U, V to RGB, derived from the weights of red and blue in the brightness."""
    red, blue = _LUMA.get(space, (0.299, 0.114))
    green = 1 - red - blue
    bright, colour, black = (1.0, 1.0, 0.0) if value_range == FULL_RANGE else (255 / 219, 255 / 224, 16.0)
    u = np.array([0, -2 * blue * (1 - blue) / green, 2 * (1 - blue)]) * colour
    v = np.array([2 * (1 - red), -2 * red * (1 - red) / green, 0]) * colour
    y = np.full(3, bright)
    return np.stack([y, u, v, -black * y - 128 * (u + v)], axis=1)
