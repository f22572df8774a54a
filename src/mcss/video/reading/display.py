"""A decoded picture as a player shows it: square pixels, upright, and of one size throughout the file.

This is the only place that knows how the pixels that a file stores become the image that is shown: cameras such as HDV,
DV and AVCHD-Lite store pixels that are not square (sample aspect ratio), phones store how the picture is to be turned
or mirrored (display matrix), a file may change its size on the way, may not say which colours it stores, and may hold
transparent pixels or 16 bits. All coordinates (boxes, clicks, crops) are pixels of the displayed image.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from mcss.errors import SourceError
from mcss.images import Image, as_rgb
from mcss.video.reading.container import load_av

SAME_SHAPE = 0.02
"""Pictures whose ratios of width to height differ by no more than this share have the same shape."""

BT709, UNSPECIFIED, BT601 = 1, 2, 5
"""FFmpeg's numbers of the colour space of HD video, of one that is not stated, and of SD video."""

BT2020 = frozenset({9, 10})
"""FFmpeg's numbers of the colour space of UHD video."""

STUDIO_RANGE, FULL_RANGE = 1, 2
"""FFmpeg's numbers of the usual colour range, in which brightness is 16 to 235, and of the one from 0 to 255."""

SD_WIDTH, SD_HEIGHT = 1279, 576
"""Players take untagged video of at most this many pixels for standard definition, whose colours follow BT.601."""

_SIXTEEN_BITS = frozenset(name + order for name in ("gray16", "rgb48", "rgba64", "gbrp16") for order in ("le", "be"))


@dataclass(frozen=True)
class Orientation:
    """How a stored picture is brought upright: rows and columns exchanged first, then mirrored."""

    transposed: bool = False
    mirrored_x: bool = False
    mirrored_y: bool = False

    @property
    def mirrors(self) -> bool:
        """Whether it is a mirror image and not only a turn, so that left and right are exchanged."""
        return self.transposed ^ self.mirrored_x ^ self.mirrored_y

    def applied(self, plane: Shaped[np.ndarray, "rows columns *rest"]) -> Shaped[np.ndarray, "_ _ *rest"]:
        """Return the upright view of a stored picture, or of one of its planes; no pixel is copied."""
        if self.transposed:
            plane = plane.swapaxes(0, 1)
        return plane[:: -1 if self.mirrored_y else 1, :: -1 if self.mirrored_x else 1]


@dataclass(frozen=True, eq=False)
class Picture:
    """One decoded picture with what is needed to show it."""

    frame: Any
    """PyAV's frame, as stored."""
    width: int
    """Width in square pixels before it is turned."""
    height: int
    """Height in square pixels before it is turned."""
    orientation: Orientation
    number: int
    """Number of the picture in its take, from 0."""
    part: int = 0
    """Number of the file within the take."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright picture."""
        return (self.height, self.width) if self.orientation.transposed else (self.width, self.height)

    @property
    def square_frame(self) -> Any:
        """PyAV's opaque frame with square pixels and the size of the file's first picture, not turned yet."""
        frame = opaque(self.frame)
        if (frame.width, frame.height) == (self.width, self.height):
            return frame
        return frame.reformat(width=self.width, height=self.height, interpolation="BICUBIC")

    def rgb(self, long_side: int | None = None) -> Image:
        """Return the upright picture in RGB, scaled down if its longer side has more than `long_side` pixels."""
        frame, width, height = opaque(self.frame), self.width, self.height
        if long_side is not None and max(width, height) > long_side:
            scale = long_side / max(width, height)
            width, height = max(2, round(width * scale)), max(2, round(height * scale))
            frame = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
        elif (frame.width, frame.height) != (width, height):
            frame = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
        pixels: Image = frame.to_ndarray(format="rgb24")
        return pixels if self.orientation == Orientation() else np.ascontiguousarray(self.orientation.applied(pixels))


class Display:
    """Shows the pictures of one video stream, or of a folder of images, all in the size of the first one."""

    def __init__(self, path: Path, stream: Any) -> None:
        self._path, self._stream = path, stream
        self._aspect = _pixel_aspect(None if stream is None else stream.sample_aspect_ratio)
        self._first: tuple[int, int] | None = None
        self._latest = (0, 0)
        self._size = (0, 0)
        self._orientation = Orientation()
        self._turn: float | None = None

    def continued(self, path: Path, stream: Any) -> "Display":
        """Return the display of the next file of a take, whose pictures get the size of the first one's."""
        following = Display(path, stream)
        following._first, following._latest, following._size = self._first, self._latest, self._size
        return following

    def picture(self, frame: Any, number: int, part: int = 0) -> Picture:
        """Return a decoded frame with how it is shown.

        Raises:
            SourceError: Its shape differs from that of the pictures before it.
        """
        stored = frame.width, frame.height
        if self._first is None:
            self._first = self._latest = stored
            self._size = max(1, round(stored[0] * self._aspect)), stored[1]
        elif stored != self._latest:
            self._check_shape(stored, number)
            self._latest = stored
        if int(frame.colorspace) == UNSPECIFIED and (stored[0] > SD_WIDTH or stored[1] > SD_HEIGHT):
            frame.colorspace = BT709
        return Picture(frame, *self._size, self._orientation_of(frame), number, part)

    def _orientation_of(self, frame: Any) -> Orientation:
        """Return how a frame is brought upright; the display matrix is read again only if it turns another way.

        A frame whose side data were asked for refers to itself and keeps its pixels until Python collects cycles, which
        in a long video comes to gigabytes.
        """
        turn = getattr(frame, "rotation", None)
        if turn is None or turn != self._turn:
            self._turn, self._orientation = turn, orientation_of(frame)
        return self._orientation

    def _check_shape(self, stored: tuple[int, int], number: int) -> None:
        """Refuse a picture that cannot be shown in the size of the first one without distortion."""
        stated = None if self._stream is None else self._stream.codec_context.sample_aspect_ratio
        aspects = {self._aspect, _pixel_aspect(stated), Fraction(1)}
        wanted = self._size[0] / self._size[1]
        if all(abs(stored[0] * aspect / stored[1] / wanted - 1) > SAME_SHAPE for aspect in aspects):
            raise SourceError(
                f"{self._path}: its image {number} has {stored[0]}×{stored[1]} pixels, another shape than those before "
                f"it ({self._latest[0]}×{self._latest[1]}); cut the video where the shape changes"
            )


def orientation_of(frame: Any) -> Orientation:
    """Return how a decoded frame is brought upright, by the display matrix that its file states.

    The matrix maps the stored pixel (x, y) to (a·x + c·y, b·x + d·y); of any other turn than by right angles the
    nearest one is taken, as players without a graphics card do.

    PyAV lists no side data of a frame that has some of a kind it does not know, such as a photo's EXIF (FFmpeg 8). Of
    the matrix it then tells the turn alone, not whether it mirrors.
    """
    try:
        side_data = list(frame.side_data)
    except ValueError:
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise
        return Orientation(quarters % 2 == 1, quarters in (2, 3), quarters in (1, 2))
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
            if abs(b) + abs(c) > abs(a) + abs(d):
                return Orientation(True, c < 0, b < 0)
            return Orientation(False, a < 0, d < 0)
    return Orientation()


def opaque(frame: Any) -> Any:
    """Return a frame as image files are read (`mcss.images.as_rgb`): transparent pixels on grey, 16 bits as 8.

    Other frames are returned as they are. What is black in 16 bits may be an industrial camera's 12, which is decided
    for each picture, as it is in a folder of images.
    """
    name = frame.format.name
    if name in _SIXTEEN_BITS:
        pixels = frame.to_ndarray()
    elif _has_alpha(name):
        pixels = frame.to_ndarray(format="rgba")
    else:
        return frame
    return load_av().VideoFrame.from_ndarray(as_rgb(pixels), format="rgb24")


@cache
def _has_alpha(name: str) -> bool:
    """Whether a pixel format of FFmpeg holds transparency."""
    return any(component.is_alpha for component in load_av().VideoFormat(name).components)


def _pixel_aspect(stated: Fraction | None) -> Fraction:
    """Return width : height of a pixel; 1 if none is stated, or one that no camera has."""
    aspect = Fraction(stated) if stated else Fraction(1)
    return aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)
