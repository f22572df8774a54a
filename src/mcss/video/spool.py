"""Regions of images: what may turn out to be the person, kept on the disk until it is known who that is.

Who is followed depends on the whole recording, and a crop on where the person will be in half a second. So that a
video need not be decoded a second time for its crops, each image leaves the surroundings of all candidates behind, a
little larger than crops will be.
"""

import math
import struct
import tempfile
from array import array
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from mcss.images import Image, decode_grey_jpeg, decode_jpeg, encode_jpeg
from mcss.video.yuv import SPARE, Plane, Planes

ROOM = 1.15
"""A region is so many times as large as the crop of its candidate would be: people move and stretch."""

SHIFT = 0.03
"""A crop may be moved by this share of its side to lie in a region; its margin is larger."""

OVERVIEW = 640.0
"""Longer side in pixels of the whole image, which is kept where there is no candidate."""

QUALITY = 90
"""Of the JPEGs that regions are kept as."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in source pixels."""

Square = Int64[np.ndarray, " 4"]

_HEAD = struct.Struct("<8i?q")


def surroundings(boxes: Float64[np.ndarray, "n 4"], margin: float) -> list[tuple[Rectangle, float]]:
    """Squares around boxes, those that overlap as one, each with the longest side of its boxes."""
    found: list[tuple[Rectangle, float]] = []
    for x0, y0, x1, y1 in boxes.tolist():
        side = max(x1 - x0, y1 - y0)
        left, top, right, bottom = _square((x0, y0, x1, y1), ROOM * margin * side)
        while True:
            other = next((r for r in found if _overlap(r[0], (left, top, right, bottom))), None)
            if other is None:
                break
            found.remove(other)
            if _within((left, top, right, bottom), other[0]):  # as most are: the person hardly moves
                left, top, right, bottom = other[0]
                side = max(side, other[1])
                break
            (a, b, c, d), longest = other
            x0, y0, x1, y1 = map(float, (min(left, a), min(top, b), max(right, c), max(bottom, d)))
            left, top, right, bottom = _square((x0, y0, x1, y1), max(x1 - x0, y1 - y0))
            side = max(side, longest)
        found.append(((left, top, right, bottom), side))
    return found


def _square(box: tuple[float, float, float, float], side: float) -> Rectangle:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return math.floor(x - side / 2), math.floor(y - side / 2), math.ceil(x + side / 2), math.ceil(y + side / 2)


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _within(a: Rectangle, b: Rectangle) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


class ImageSpool:
    """Small images kept in an unnamed temporary file as JPEG, to be read again in any order."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._extents: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._extents)

    def append(self, image: Image) -> None:
        """Add an image at the end."""
        data = encode_jpeg(image, 95)
        self._extents.append((self._file.seek(0, 2), len(data)))
        self._file.write(data)

    def __getitem__(self, index: int) -> Image:
        start, length = self._extents[index]
        self._file.seek(start)
        return decode_jpeg(self._file.read(length))

    def close(self) -> None:
        """Forget all images."""
        self._file.close()


class RegionSpool:
    """The regions of image after image, in an unnamed temporary file: their number costs 8 bytes an image."""

    def __init__(self, size: int, margin: float, width: int, height: int) -> None:
        self._size, self._margin = size, margin  # of the crops that will be cut out
        self._limits = width, height  # of the images
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._places = array("q", [0])

    def __len__(self) -> int:
        return len(self._places) - 1

    def append(self, image: Planes, around: Sequence[tuple[Rectangle, float]]) -> None:
        """Keep of the next image some `surroundings`, or an overview if there are none."""
        parts = []
        for (left, top, right, bottom), longest in around:
            if right > 0 and bottom > 0 and left < image.right and top < image.bottom:
                factor = _factor(longest * self._margin, SPARE * self._size)
                parts.append(image.part(left, top, right, bottom, factor))
        overview = not parts
        if overview:
            factor = _factor(float(max(self._limits)), OVERVIEW)
            parts.append(image.part(0, 0, image.right, image.bottom, factor))
        for part in parts:
            data = _packed(part)
            shape = (*part.y.shape, *part.u.shape[:2])
            about = (*shape, part.left, part.top, part.factor, part.colours[0] << 8 | part.colours[1])
            self._file.write(_HEAD.pack(*about, overview, len(data)))
            self._file.write(data)
        self._places.append(self._file.tell())

    def cut(self, index: int, square: Square) -> tuple[Planes, Square] | None:
        """A region of an image that holds a square and the square, moved a little if need be; None if none does."""
        self._file.seek(self._places[index])
        data = memoryview(self._file.read(self._places[index + 1] - self._places[index]))
        while data:
            rows, columns, half_rows, half_columns, left, top, factor, colours, overview, length = _HEAD.unpack_from(
                data
            )
            body, data = data[_HEAD.size : _HEAD.size + length], data[_HEAD.size + length :]
            extent = left, top, left + columns * factor, top + rows * factor
            moved = square if overview else self._moved(square, extent, factor)
            if moved is not None:
                y, u, v = _unpacked(body, (rows, columns), (half_rows, half_columns))
                return Planes(y, u, v, left, top, factor, (colours >> 8, colours & 255)), moved
        return None

    def _moved(self, square: Square, extent: Rectangle, factor: int) -> Square | None:
        """The square, so that what of it is in the image is in the region; None if it cannot be, or only blurred."""
        side = int(square[2] - square[0])
        if factor > 1 and side < factor * self._size:
            return None
        moved = square.copy()
        for axis, limit in enumerate(self._limits):
            inside = max(int(square[axis]), 0), min(int(square[axis + 2]), limit)
            before, behind = max(extent[axis] - inside[0], 0), max(inside[1] - extent[axis + 2], 0)
            if (before and behind) or max(before, behind) > SHIFT * side + 2 * factor:
                return None
            if inside == (int(square[axis]), int(square[axis + 2])):
                moved[axis::2] += before - behind
        return moved

    def close(self) -> None:
        """Forget all."""
        self._file.close()


def _factor(length: float, enough: float) -> int:
    """The largest power of two by which a length may be divided so that it stays long enough."""
    return 1 << max(0, math.floor(math.log2(max(length / enough, 1))))


def _packed(part: Planes) -> bytes:
    """The planes as one grey image: brightness above, the colours side by side below it."""
    (rows, columns), (half_rows, half_columns) = part.y.shape, part.u.shape
    page = np.zeros((rows + half_rows, max(columns, 2 * half_columns)), np.uint8)
    page[:rows, :columns] = part.y
    page[rows:, :half_columns] = part.u
    page[rows:, half_columns : 2 * half_columns] = part.v
    return encode_jpeg(page, QUALITY)


def _unpacked(data: memoryview, whole: tuple[int, int], half: tuple[int, int]) -> tuple[Plane, Plane, Plane]:
    page = decode_grey_jpeg(data)
    y, colours = page[: whole[0], : whole[1]], page[whole[0] :]
    return y, colours[:, : half[1]], colours[:, half[1] : 2 * half[1]]
