"""Images and parts of images kept in a temporary file, so that a video is decoded only once.

A crop box depends on where the person will be half a second later, and who is tracked depends on the whole recording.
While only one person may be meant, the crop is cut out half a second later and kept; two or more crops if something may
be a piece of that person or not. Otherwise the surroundings of everybody detected are kept, a little larger than the
crops will be, until it is known whose are wanted.
"""

import math
import struct
import tempfile
from array import array
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from mcss.images import Image, decode_grey_jpeg, decode_jpeg, encode_jpeg
from mcss.video.crops import Crop, CropSettings, EncodedCrop
from mcss.video.reading.yuv import SPARE, Plane, YuvImage

ROOM = 1.15
"""Side of the surroundings divided by the side of the crop that a detection would get: people move and stretch."""

MAX_SHIFT = 0.03
"""A crop box may be moved by this share of its side to lie within the surroundings; its margin is larger."""

OVERVIEW_SIDE = 640.0
"""Longer side in pixels to which the whole image is scaled and kept if nobody was detected."""

QUALITY = 90
"""JPEG quality at which surroundings are kept."""

CLOSE = 0.01
"""A crop that was cut out early is used if its box is off by no more than this share of its side."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in source pixels."""

CropBox = Int64[np.ndarray, " 4"]

_HEADER = struct.Struct("<8i?q")
_BOXES = struct.Struct("<8iq")


def surroundings(boxes: Float64[np.ndarray, "n 4"], margin: float) -> list[tuple[Rectangle, float]]:
    """Return squares around boxes, each with the longest side of its boxes; squares that overlap are joined."""
    squares: list[tuple[Rectangle, float]] = []
    for x0, y0, x1, y1 in boxes.tolist():
        side = max(x1 - x0, y1 - y0)
        left, top, right, bottom = _square((x0, y0, x1, y1), ROOM * margin * side)
        while True:
            other = next((square for square in squares if _overlap(square[0], (left, top, right, bottom))), None)
            if other is None:
                break
            squares.remove(other)
            if _within((left, top, right, bottom), other[0]):  # the usual case: the person hardly moves
                left, top, right, bottom = other[0]
                side = max(side, other[1])
                break
            (a, b, c, d), longest = other
            x0, y0, x1, y1 = map(float, (min(left, a), min(top, b), max(right, c), max(bottom, d)))
            left, top, right, bottom = _square((x0, y0, x1, y1), max(x1 - x0, y1 - y0))
            side = max(side, longest)
        squares.append(((left, top, right, bottom), side))
    return squares


def _square(box: tuple[float, float, float, float], side: float) -> Rectangle:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return math.floor(x - side / 2), math.floor(y - side / 2), math.ceil(x + side / 2), math.ceil(y + side / 2)


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _within(a: Rectangle, b: Rectangle) -> bool:
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


class ImageSpool:
    """Small images kept as JPEG in an unnamed temporary file and read in any order."""

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
        """Remove all images."""
        self._file.close()


class CropSpool:
    """The crops of a video's images, or the surroundings from which they can be cut out, in an unnamed temporary file.

    In memory this uses 9 bytes per image.
    """

    def __init__(self, settings: CropSettings, width: int, height: int) -> None:
        """Create an empty file.

        Args:
            settings: Size, margin and quality of the crops.
            width: Width of the video's images in pixels.
            height: Height of the video's images in pixels.
        """
        self._size, self._margin, self._quality = settings.size, settings.margin, settings.quality
        self._image_size = width, height
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._offsets = array("q", [0])
        self._cut = bytearray()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def append_crops(self, image: YuvImage, crop_boxes: Sequence[CropBox]) -> None:
        """Cut the crops of which one will be asked for out of the next image and keep them; of close ones the first."""
        kept: list[CropBox] = []
        for crop_box in crop_boxes:
            if not any(_close(crop_box, other) for other in kept):
                kept.append(crop_box)
                pixels, box = image.crop(crop_box, self._size)
                data = encode_jpeg(pixels, self._quality)
                self._file.write(_BOXES.pack(*crop_box.tolist(), *box, len(data)))
                self._file.write(data)
        self._end_image(cut=True)

    def _end_image(self, cut: bool) -> None:
        self._offsets.append(self._file.tell())
        self._cut.append(cut)

    def append(self, image: YuvImage, around: Sequence[tuple[Rectangle, float]]) -> None:
        """Keep some `surroundings` of the next image, or the whole image scaled down if there are none."""
        parts = []
        for (left, top, right, bottom), longest in around:
            if right > 0 and bottom > 0 and left < image.right and top < image.bottom:
                factor = _factor(longest * self._margin, SPARE * self._size)
                parts.append(image.part(left, top, right, bottom, factor))
        overview = not parts
        if overview:
            factor = _factor(float(max(self._image_size)), OVERVIEW_SIDE)
            parts.append(image.part(0, 0, image.right, image.bottom, factor))
        for part in parts:
            data = _packed(part)
            shape = (*part.y.shape, *part.u.shape[:2])
            about = (*shape, part.left, part.top, part.factor, part.colours[0] << 8 | part.colours[1])
            self._file.write(_HEADER.pack(*about, overview, len(data)))
            self._file.write(data)
        self._end_image(cut=False)

    def crop(self, index: int, crop_box: CropBox) -> Crop | EncodedCrop | None:
        """Return the crop of an image, its box perhaps moved a little; None if what was kept does not hold it."""
        self._file.seek(self._offsets[index])
        data = memoryview(self._file.read(self._offsets[index + 1] - self._offsets[index]))
        if not self._cut[index]:
            part = self._part_with(data, crop_box)
            return None if part is None else crop_of_planes(*part, self._size)
        return self._crop_at(data, crop_box)

    def _crop_at(self, data: memoryview, crop_box: CropBox) -> EncodedCrop | None:
        """Return the kept crop of an image that has a crop box."""
        while data:
            *boxes, length = _BOXES.unpack_from(data)
            body, data = data[_BOXES.size : _BOXES.size + length], data[_BOXES.size + length :]
            if _close(np.array(boxes[:4]), crop_box):
                x0, y0, x1, y1 = map(float, boxes[4:])
                return EncodedCrop(bytes(body), self._quality, (x0, y0, x1, y1))
        return None

    def _part_with(self, data: memoryview, crop_box: CropBox) -> tuple[YuvImage, CropBox] | None:
        """Return the kept part of an image that contains a crop box, and that box, perhaps moved a little."""
        while data:
            header = _HEADER.unpack_from(data)
            rows, columns, half_rows, half_columns, left, top, factor, colours, overview, length = header
            body, data = data[_HEADER.size : _HEADER.size + length], data[_HEADER.size + length :]
            extent = left, top, left + columns * factor, top + rows * factor
            moved = crop_box if overview else self._moved(crop_box, extent, factor)
            if moved is not None:
                y, u, v = _unpacked(body, (rows, columns), (half_rows, half_columns))
                return YuvImage(y, u, v, left, top, factor, (colours >> 8, colours & 255)), moved
        return None

    def _moved(self, crop_box: CropBox, extent: Rectangle, factor: int) -> CropBox | None:
        """Move a crop box so that the kept part contains everything of it that is in the image.

        Returns None if it would have to be moved too far, or the crop would be blurred.
        """
        side = int(crop_box[2] - crop_box[0])
        if factor > 1 and side < factor * self._size:
            return None
        moved = crop_box.copy()
        for axis, limit in enumerate(self._image_size):
            inside = max(int(crop_box[axis]), 0), min(int(crop_box[axis + 2]), limit)
            before, behind = max(extent[axis] - inside[0], 0), max(inside[1] - extent[axis + 2], 0)
            if (before and behind) or max(before, behind) > MAX_SHIFT * side + 2 * factor:
                return None
            if inside == (int(crop_box[axis]), int(crop_box[axis + 2])):
                moved[axis::2] += before - behind
        return moved

    def close(self) -> None:
        """Remove everything that was kept."""
        self._file.close()


def crop_of_planes(image: YuvImage, crop_box: CropBox, size: int) -> Crop:
    """Cut a square out of an image and scale it to `size` pixels."""
    pixels, (x0, y0, x1, y1) = image.crop(crop_box, size)
    return Crop(pixels, (float(x0), float(y0), float(x1), float(y1)))


def _close(crop_box: CropBox, wanted: CropBox) -> bool:
    """Return whether a crop may stand in for another one."""
    return int(np.abs(crop_box - wanted).max()) <= CLOSE * int(wanted[2] - wanted[0])


def _factor(length: float, enough: float) -> int:
    """Return the largest power of two by which a length may be divided so that it stays long enough."""
    return 1 << max(0, math.floor(math.log2(max(length / enough, 1))))


def _packed(part: YuvImage) -> bytes:
    """Encode the planes as one grey JPEG: brightness on top, the colour planes side by side below it."""
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
