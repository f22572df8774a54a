"""A picture is what a player shows: square pixels, upright or mirrored as the file says, of one size, and no cover."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from mcss.errors import SourceError
from mcss.inference.overlays import write_video
from mcss.video.reading.decoding import decoded_frames, images, probe
from mcss.video.reading.display import BT709, Orientation
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


@pytest.mark.parametrize(("orientation", "shown"), [(1, "RGBW"), (3, "WBGR"), (6, "BRWG"), (8, "GWRB")])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_picture_with_exif_which_pyav_does_not_know_is_turned(
    tmp_path: Path, orientation: int, shown: str, suffix: str
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Nikon"
    path = tmp_path / f"i.{suffix}"
    PIL.Image.fromarray(four_corners(96, 64)).save(path, exif=exif)
    assert corners(next(images(path))) == shown


def both_ways(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The first picture of a video in RGB, and as planes of brightness and colour that become RGB."""
    picture = next(decoded_frames(path))
    return picture.rgb().astype(int), yuv_of(picture).thumbnail(5000).astype(int)


def write_frame(path: Path, frame: av.VideoFrame, codec: str, space: int | None = None) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
        if space is not None:
            stream.codec_context.colorspace = space
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(("bits", "shift"), [(12, 4), (16, 8)])
def test_16_bits_that_hold_only_12_are_not_almost_black(tmp_path: Path, bits: int, shift: int) -> None:
    pixels = np.linspace(0, (1 << bits) - 1, 96).round().astype(np.uint16)[None].repeat(64, axis=0)
    path = write_frame(tmp_path / "v.mkv", av.VideoFrame.from_ndarray(pixels, format="gray16le"), "ffv1")
    rgb, planes = both_ways(path)
    assert (rgb == (pixels >> shift)[..., None]).all()
    assert np.abs(planes - rgb).max() <= 1


@pytest.mark.parametrize(("name", "codec", "pixel_format"), [("v.mov", "qtrle", "argb"), ("v.mkv", "ffv1", "yuva420p")])
def test_what_is_below_transparent_pixels_is_not_shown(
    tmp_path: Path, name: str, codec: str, pixel_format: str
) -> None:
    pixels = np.full((64, 96, 4), 255, np.uint8)
    pixels[..., :3] = four_corners(96, 64)
    pixels[:32, :48, 3] = 0
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=pixel_format)
    wanted = np.where(pixels[..., 3:] == 0, 128, pixels[..., :3].astype(int))
    for shown in both_ways(write_frame(tmp_path / name, frame, codec)):
        differs = np.abs(shown - wanted).max(axis=2)
        differs[28:36] = differs[:, 44:52] = 0  # where planes of half the size mix two colours
        assert differs.max() <= 4


@pytest.mark.parametrize(
    ("width", "height", "space", "red", "blue"),
    [
        (1280, 16, None, 0.2126, 0.0722),
        (16, 578, None, 0.2126, 0.0722),
        (1278, 16, None, 0.299, 0.114),
        (16, 576, None, 0.299, 0.114),
        (1280, 16, 5, 0.299, 0.114),
        (64, 16, 1, 0.2126, 0.0722),
    ],
)
@pytest.mark.parametrize("bits", [8, 10])
def test_colours_are_those_of_hd_video_by_its_size_where_a_file_states_none(
    tmp_path: Path, width: int, height: int, space: int | None, red: float, blue: float, bits: int
) -> None:
    r, g, b = colour = np.array((40, 180, 90))
    y = red * r + (1 - red - blue) * g + blue * b
    levels = 16 + y * 219 / 255, 128 + (b - y) / 2 / (1 - blue) * 224 / 255, 128 + (r - y) / 2 / (1 - red) * 224 / 255
    frame = av.VideoFrame(width, height, "yuv420p" if bits == 8 else "yuv420p10le")
    for plane, level in zip(frame.planes, levels, strict=True):
        value = np.array(round(level * 2 ** (bits - 8)), np.uint8 if bits == 8 else np.uint16)
        plane.update(value.tobytes() * (plane.buffer_size // value.itemsize))
    for shown in both_ways(write_frame(tmp_path / "v.mkv", frame, "ffv1", space)):
        assert np.abs(shown - colour).max() <= 3


def test_an_overlay_states_its_colours(tmp_path: Path) -> None:
    for width, height in ((1280, 720), (96, 64)):
        path = tmp_path / f"{width}.mp4"
        write_video(path, iter([four_corners(width, height)] * 2), np.arange(2) / 25)
        assert int(next(decoded_frames(path)).frame.colorspace) == BT709
        shown = np.abs(both_ways(path)[0] - four_corners(width, height))
        assert np.median(shown.max(axis=2)) <= 4


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
