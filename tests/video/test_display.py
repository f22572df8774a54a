"""A picture is what a player shows: square pixels, upright or mirrored as the file says, of one size, and no cover."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mcss.errors import SourceError
from mcss.video.reading.decoding import decoded_frames, images, probe
from mcss.video.reading.display import Orientation
from mcss.video.reading.yuv import yuv_of

RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 220, 20), (20, 20, 220), (230, 230, 230)


def four_corners(width: int, height: int) -> np.ndarray:
    """Red and green above, blue and white below."""
    image = np.zeros((height, width, 3), np.uint8)
    top, bottom, left, right = slice(height // 2), slice(height // 2, None), slice(width // 2), slice(width // 2, None)
    image[top, left], image[top, right], image[bottom, left], image[bottom, right] = RED, GREEN, BLUE, WHITE
    return image


def corners(image: np.ndarray) -> str:
    """The colours of the corners from left to right, the upper ones first."""
    names = {"R": RED, "G": GREEN, "B": BLUE, "W": WHITE}
    h, w = image.shape[:2]
    points = [(h // 8, w // 8), (h // 8, -w // 8), (-h // 8, w // 8), (-h // 8, -w // 8)]
    return "".join(min(names, key=lambda n: np.abs(image[p].astype(int) - names[n]).sum()) for p in points)


def write(
    path: Path,
    image: np.ndarray,
    aspect: Fraction | None = None,
    matrix: tuple[int, int, int, int] | None = None,
    count: int = 4,
) -> Path:
    """Write the image `count` times; `matrix` holds a, b, c and d of the display matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg1video" if path.suffix == ".m1v" else "mpeg4", rate=25)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if matrix is not None:
            a, b, c, d = (value << 16 for value in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for _ in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_pictures_are_freed_at_once_and_not_only_when_python_collects_cycles(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", four_corners(64, 48), matrix=(0, 1, -1, 0), count=40)
    gc.collect()
    gc.disable()
    try:
        turned = [picture.orientation.transposed for picture in decoded_frames(path)]
        left = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert turned == [True] * 40
    assert left < 5


def test_pixels_that_are_not_square_are_stretched_before_anything_else(tmp_path: Path) -> None:
    image = np.zeros((120, 90, 3), np.uint8)
    image[40:80, 30:60] = 255  # 30 stored pixels of 4:3 are 40 wide
    path = write(tmp_path / "hdv.mp4", image, Fraction(4, 3))
    video, shown = probe(path), next(images(path))
    assert (video.width, video.height) == (120, 120) == shown.shape[1::-1]
    bright = shown[..., 0] > 128
    assert (bright.any(axis=0).sum(), bright.any(axis=1).sum()) == pytest.approx((40, 40), abs=1)
    planes = yuv_of(next(decoded_frames(path)))
    assert planes.y.shape == (120, 120)
    assert next(images(path, 60)).shape == (60, 60, 3)


def test_a_turned_picture_is_stretched_along_its_stored_width(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", four_corners(90, 120), Fraction(4, 3), (0, 1, -1, 0))
    video = probe(path)
    assert (video.width, video.height) == (120, 120) == next(images(path)).shape[1::-1]


@pytest.mark.parametrize(
    ("matrix", "shown", "mirrored"),
    [
        ((1, 0, 0, 1), "RGBW", False),
        ((-1, 0, 0, 1), "GRWB", True),
        ((1, 0, 0, -1), "BWRG", True),
        ((-1, 0, 0, -1), "WBGR", False),
        ((0, 1, -1, 0), "BRWG", False),  # (x, y) goes to (-y, x): a quarter clockwise
        ((0, -1, 1, 0), "GWRB", False),
        ((0, 1, 1, 0), "RBGW", True),
        ((0, -1, -1, 0), "WGBR", True),
    ],
)
def test_the_display_matrix_turns_and_mirrors(
    tmp_path: Path, matrix: tuple[int, int, int, int], shown: str, mirrored: bool
) -> None:
    path = write(tmp_path / "v.mp4", four_corners(96, 64), matrix=matrix)
    upright = next(images(path))
    assert corners(upright) == shown
    assert upright.shape[:2] == ((64, 96) if matrix[0] else (96, 64))
    planes = yuv_of(next(decoded_frames(path)))
    assert corners(planes.thumbnail(200)) == shown
    assert probe(path).mirrored == mirrored


def test_orientation_mirrors_if_an_odd_number_of_its_steps_does() -> None:
    assert [o.mirrors for o in (Orientation(), Orientation(True), Orientation(True, True))] == [False, True, False]


def joined(path: Path, *parts: Path) -> Path:
    """Join files of a format that may be joined byte by byte."""
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_a_change_of_size_is_scaled_to_the_first_size_and_a_change_of_shape_refused(tmp_path: Path) -> None:
    large = write(tmp_path / "a.m1v", four_corners(160, 120))
    small = write(tmp_path / "b.m1v", four_corners(80, 60))
    wide = write(tmp_path / "c.m1v", four_corners(160, 64))
    for path in (large, small, wide):
        assert probe(path).count == 4
    both = joined(tmp_path / "both.mpg", large, small)
    shown = list(images(both))
    assert {image.shape for image in shown} == {(120, 160, 3)}
    assert [corners(image) for image in shown] == ["RGBW"] * len(shown)
    assert len(shown) >= 6
    with pytest.raises(SourceError, match=r"other\.m1v: its image \d has 160×64 pixels, another shape than"):
        list(images(joined(tmp_path / "other.m1v", large, wide)))


def test_a_cover_picture_before_the_video_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "covered.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.height, cover.width, cover.pix_fmt = 480, 640, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(four_corners(640, 480), format="rgb24")))
        container.mux(cover.encode())
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(four_corners(96, 64), format="rgb24")))
        container.mux(stream.encode())
    video = probe(path)
    assert (video.width, video.height, video.rate, video.count) == (96, 64, 25.0, 5)
    assert len(list(images(path))) == 5


def test_a_colon_in_a_relative_path_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "10:30").mkdir()
    write(tmp_path / "10:30" / "left.mp4", four_corners(64, 64))
    monkeypatch.chdir(tmp_path)
    assert probe(Path("10:30/left.mp4")).count == 4
