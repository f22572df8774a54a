import struct
import zlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from filming import Room, write_video
from PIL import Image

from mcss.video.reading.decoding import decoded_times, probe
from mcss.web import uploads
from mcss.web.analysis import for_visitors
from mcss.web.limits import Limits
from mcss.web.uploads import LONG_SIDE, UploadError, copy_video, kind_of, read_upload

LIMITS = Limits(megapixels=1, seconds=2.0)
LEFT_OUT = "the video is damaged: images that cannot be decoded (1) are left out"


def empty_png(width: int, height: int) -> bytes:
    """A PNG of black pixels, one bit each and compressed a thousandfold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    rows = b"".join(packed.compress(line) for _ in range(height)) + packed.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def image_bytes(kind: str, size: tuple[int, int] = (40, 30)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    done, data = cv2.imencode(kind, pixels)
    assert done
    return data.tobytes()


def video_with_a_damaged_image(folder: Path) -> Path:
    """Write 40 images of which the 21st cannot be decoded."""
    images = Room(width=160, height=120, count=40).images()
    whole, path = write_video(folder / "whole.mkv", images, codec="mjpeg", pixels="yuvj420p"), folder / "damaged.mkv"
    with av.open(str(whole)) as video, av.open(str(path), "w") as damaged:
        stream = damaged.add_stream_from_template(video.streams.video[0])
        for number, packet in enumerate(video.demux(video=0)):
            if packet.size:
                copied = av.Packet(b"\xff\xd8" + bytes(50) if number == 20 else bytes(packet))
                copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
                copied.is_keyframe, copied.stream = True, stream
                damaged.mux(copied)
    return path


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_images_are_known_by_their_first_bytes_and_read(kind: str, tmp_path: Path) -> None:
    data = image_bytes(kind)
    assert kind_of(data[:16]) == "image"
    (tmp_path / "x").write_bytes(data)
    assert read_upload(tmp_path / "x", LIMITS).shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "mpeg4"),
        ("a.mov", "h264"),
        ("a.mkv", "mpeg4"),
        ("a.webm", "libvpx"),
        ("a.avi", "mpeg4"),
        ("b.mp4", "libsvtav1"),
    ],
)
def test_videos_are_known_by_their_first_bytes_and_copied(name: str, codec: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, Room(width=160, height=120, count=20).images(), codec=codec)
    upload = path.rename(tmp_path / "0123")
    assert kind_of(upload.read_bytes()[:16]) == "video"
    assert copy_video(upload, tmp_path / "copy.mp4", LIMITS) == ()
    found = probe(tmp_path / "copy.mp4")
    assert (found.width, found.height, found.count) == (160, 120, 10)  # every second one of 25 per second
    np.testing.assert_allclose(decoded_times(probe(tmp_path / "copy.mp4")), np.arange(10) * 0.08, atol=0.002)


def test_a_codec_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", Room(width=160, height=120, count=8).images(), codec="mpeg4")
    data = path.read_bytes()
    assert b"FMP4" in data
    (tmp_path / "x").write_bytes(data.replace(b"FMP4", b"zzzz"))
    with pytest.raises(UploadError, match=r"coded as something unknown, which cannot be read here; save it as MP4"):
        copy_video(tmp_path / "x", tmp_path / "copy.mp4", LIMITS)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "the file is empty"),
        (b"<!doctype html><html>", "not a file that can be read here; expected an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "not a file that can be read here"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd", "not a file that can be read here"),
        (b"ffconcat version 1.0\nfile /etc/passwd", "not a file that can be read here"),
        (b"PK\x03\x04aaaaaaaaaaaa", "not a file that can be read here"),
        (b"RIFF....WAVEfmt ", "not a file that can be read here"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC and AVIF"),
    ],
)
def test_other_files_are_refused_by_their_first_bytes(head: bytes, message: str) -> None:
    with pytest.raises(UploadError, match=message):
        kind_of(head)


def test_the_size_of_an_image_is_read_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcss.web.uploads.decode_image", lambda *_: pytest.fail("decoded"))
    (tmp_path / "x").write_bytes(empty_png(2000, 1000))
    with pytest.raises(UploadError, match="2000×1000 pixels, more than 1 million; make it smaller"):
        read_upload(tmp_path / "x", LIMITS)
    bomb = empty_png(20000, 20000)
    assert len(bomb) < 100_000
    (tmp_path / "x").write_bytes(bomb)
    with pytest.raises(UploadError, match="more than 1 million pixels"):
        read_upload(tmp_path / "x", LIMITS)


@pytest.mark.parametrize("kind", [".jpg", ".png", ".webp", ".tiff"])
@pytest.mark.parametrize("kept", [12, 20, 60])
def test_damaged_images_are_refused(kind: str, kept: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(image_bytes(kind)[:kept])
    with pytest.raises(UploadError, match="damaged"):
        read_upload(tmp_path / "x", LIMITS)


def test_an_image_with_trailing_bytes_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(image_bytes(".png") + b"PK\x03\x04<script>alert(1)</script>")
    assert read_upload(tmp_path / "x", LIMITS).shape == (30, 40, 3)


def test_large_images_are_scaled_down(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 300), (1, 2, 3)).save(tmp_path / "x", "PNG")
    assert read_upload(tmp_path / "x", LIMITS).shape == (144, 2 * LONG_SIDE, 3)


def test_long_videos_are_refused_whatever_the_header_says(tmp_path: Path) -> None:
    path = write_video(tmp_path / "long.mp4", Room(width=64, height=48, count=80).images())
    with pytest.raises(UploadError, match="longer than 2 s; cut out the part"):
        copy_video(path, tmp_path / "copy.mp4", LIMITS)
    data = path.read_bytes()
    for name in (b"mvhd", b"mdhd", b"tkhd"):  # durations of 0.2 s
        at = data.index(name) + (20 if name != b"tkhd" else 24)
        data = data[:at] + struct.pack(">I", 1) + data[at + 4 :]
    path.write_bytes(data)
    with pytest.raises(UploadError, match="longer than 2 s"):
        copy_video(path, tmp_path / "copy.mp4", LIMITS)
    assert not (tmp_path / "copy.mp4").exists()


def test_a_thousand_images_at_one_moment_are_a_long_video_too(tmp_path: Path) -> None:
    path = tmp_path / "still.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "yuvj420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(600):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UploadError, match="longer than 2 s"):
        copy_video(path, tmp_path / "copy.mp4", LIMITS)


def test_videos_of_too_many_pixels_or_of_sound_alone_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "large.mp4", [np.zeros((1100, 1000, 3), np.uint8)])
    with pytest.raises(UploadError, match="1000×1100 pixels, more than 1 million"):
        copy_video(path, tmp_path / "copy.mp4", LIMITS)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UploadError, match="only sound"):
        copy_video(tmp_path / "sound.mp4", tmp_path / "copy.mp4", LIMITS)


def test_a_playlist_that_calls_itself_mp4_opens_no_other_file(tmp_path: Path) -> None:
    other = write_video(tmp_path / "other.mp4", Room(width=64, height=48, count=10).images())
    for text in (f"#EXTM3U\n#EXTINF:1,\n{other}\n", f"ffconcat version 1.0\nfile {other}\n"):
        path = tmp_path / "x"
        path.write_bytes(b"\0\0\0\x18ftypisom" + text.encode())
        with pytest.raises(UploadError, match="damaged or cut off"):
            copy_video(path, tmp_path / "copy.mp4", LIMITS)


def test_cut_off_videos_give_what_they_have_or_are_refused(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.mp4", Room(width=64, height=48, count=20).images()).read_bytes()
    (tmp_path / "x").write_bytes(whole[: len(whole) // 2])  # the index of an MP4 is at its end
    with pytest.raises(UploadError, match="damaged or cut off"):
        copy_video(tmp_path / "x", tmp_path / "copy.mp4", LIMITS)
    whole = write_video(tmp_path / "a.mkv", Room(width=64, height=48, count=40).images()).read_bytes()
    (tmp_path / "x").write_bytes(whole[: len(whole) // 2])
    copy_video(tmp_path / "x", tmp_path / "copy.mp4", LIMITS)
    assert 2 <= probe(tmp_path / "copy.mp4").count < 20


def test_a_damaged_image_in_the_middle_is_left_out_with_a_note_and_those_after_it_are_copied(tmp_path: Path) -> None:
    notes = copy_video(video_with_a_damaged_image(tmp_path), tmp_path / "copy.mp4", LIMITS)
    assert notes == (LEFT_OUT,)
    times = decoded_times(probe(tmp_path / "copy.mp4"))
    assert (len(times), times[-1]) == (20, pytest.approx(1.56, abs=0.002))


def test_a_video_that_cannot_be_read_to_its_end_is_copied_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", Room(width=64, height=48, count=20).images())

    def read(container: Any, stream: Any, lost: list[int]) -> Iterator[Any]:
        yield from islice(container.decode(stream), 11)
        raise av.error.InvalidDataError(1, "as from a container that breaks off")

    monkeypatch.setattr(uploads, "decoded", read)
    notes = copy_video(path, tmp_path / "copy.mp4", LIMITS)
    assert notes == ("the video is damaged: what comes after 0.4 s cannot be read",)
    assert probe(tmp_path / "copy.mp4").count == 6


def test_portrait_videos_are_upright_and_large_ones_small(tmp_path: Path) -> None:
    image = np.zeros((400, 800, 3), np.uint8)
    image[:, :400] = 255  # the left half is bright, which becomes the upper half when rotated clockwise
    path = write_video(tmp_path / "a.mov", [image] * 4, codec="h264", turn=-90)
    copy_video(path, tmp_path / "copy.mp4", LIMITS)
    found = probe(tmp_path / "copy.mp4")
    assert (found.width, found.height) == (360, LONG_SIDE)
    with av.open(str(tmp_path / "copy.mp4")) as video:
        first = next(video.decode(video=0)).to_ndarray(format="gray")
    assert first[:300].mean() > 200 > 60 > first[420:].mean()


def test_messages_for_visitors_speak_of_the_page_and_name_no_paths() -> None:
    text = "/tmp/x-1/ab.copy.mp4: no person was found in it (why); say where they are with --box x,y,width,height"
    assert for_visitors(text) == "the video: no person was found in it (why); draw a box around the person"
    text = "/tmp/x/a.copy.mp4: several people; the largest of the first image is followed. Choose another with --box"
    assert for_visitors(text).endswith("is followed. Draw a box around another one to choose them")
    text = "the image: the whole image is used; say where the person is with --box x,y,width,height"
    assert "--" not in for_visitors(text)


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="seconds: expected more than 0, got 0"):
        Limits(seconds=0.0)
    with pytest.raises(ValueError, match="waiting: expected 1 or more, got 0"):
        Limits(waiting=0)
