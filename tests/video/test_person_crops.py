from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import cv2
import numpy as np
import PIL.Image
import pytest
from filming import Room, write_video

from mcss.errors import SourceError
from mcss.images import decode_jpeg
from mcss.video import person_crops as views
from mcss.video import waiting
from mcss.video.crops import CropSettings, EncodedCrop
from mcss.video.person_crops import PersonSearch, ViewCrops, ViewToCrop
from mcss.video.reading.decoding import VideoFile, decoded_frames, keyframes, pictures_of, probe
from mcss.video.reading.display import Orientation, Picture
from mcss.video.reading.yuv import YuvImage, yuv_of
from mcss.video.spool import CropSpool, surroundings

ROOM = Room(width=320, height=240, count=60, bystander=False)


def image_of(width: int, height: int) -> np.ndarray:
    """An image of smooth coloured waves."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [127 + 100 * np.sin(x / 31), 127 + 100 * np.cos(y / 23), 127 + 90 * np.sin((x + y) / 40)], -1
    ).astype(np.uint8)


def frame_of(image: np.ndarray, kind: str) -> Picture:
    frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=kind)
    return Picture(frame, frame.width, frame.height, Orientation(), 0)


def expected(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    """Cut the crop out of RGB."""
    padded = np.pad(image, ((600, 600), (600, 600), (0, 0)), mode="edge")
    x0, y0, x1, y1 = (value + 600 for value in box)
    return cv2.resize(padded[y0:y1, x0:x1], (size, size), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv422p", "yuv420p10le", "rgb24"])
@pytest.mark.parametrize(
    "square", [(40, 30, 440, 430), (301, 103, 341, 143), (-60, 250, 340, 650), (-80, -90, 720, 710)]
)
def test_a_crop_cut_from_planes_is_the_one_cut_from_rgb(kind: str, square: tuple[int, ...]) -> None:
    image = image_of(642, 478)
    crop, box = yuv_of(frame_of(image, kind)).crop(np.array(square), 64)
    assert box[2] - box[0] == box[3] - box[1]
    assert np.abs(np.array(box) - square).max() <= 0.06 * (square[2] - square[0])
    differs = np.abs(crop.astype(int) - expected(image, box, 64)).mean(axis=2)
    x, y = (box[k] + (np.arange(64) + 0.5) * (box[2] - box[0]) / 64 for k in (0, 1))
    inside = np.ix_((y > 0) & (y < 460), (x > 0) & (x < 620))
    assert differs[inside].mean() < 4
    assert differs.mean() < 20  # beyond the image, the border is repeated and blurred


def test_a_small_image_has_the_colours_of_the_large_one() -> None:
    image = image_of(641, 479)
    small = yuv_of(frame_of(image, "rgb24")).thumbnail(160)
    assert small.shape == (120, 160, 3)
    assert np.abs(small.astype(int) - cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA)).mean() < 3


def test_surroundings_that_overlap_are_one_square() -> None:
    boxes = np.array([[100, 100, 140, 200], [120, 190, 150, 210], [600, 100, 620, 140]], np.float64)
    found = surroundings(boxes, 1.1)
    assert len(found) == 2
    (left, top, right, bottom), longest = max(found, key=lambda r: r[1])
    assert longest == 100
    assert abs((right - left) - (bottom - top)) <= 1
    assert (left, top) <= (100, 100)
    assert right >= 150
    assert bottom >= 210


def test_a_kept_region_gives_the_crop_of_the_image_itself_or_says_that_it_does_not_hold_it() -> None:
    image = yuv_of(frame_of(image_of(1280, 960), "yuv420p"))
    spool = CropSpool(CropSettings(64), 1280, 960)
    boxes = np.array([[500, 200, 640, 600]], np.float64)
    spool.append(image, surroundings(boxes, 1.15))
    spool.append(image, [])
    held = np.array([340, 170, 800, 630])
    for index in (0, 1):
        kept = spool.crop(index, held)
        assert kept is not None
        assert np.abs(np.array(kept.box) - held).max() <= 5  # to whole pixels of the scaled planes
        truth = expected(image_of(1280, 960), tuple(map(int, kept.box)), 64)
        assert np.abs(kept.pixels.astype(int) - truth).mean() < 4
    moved = spool.crop(0, held - 40)
    assert moved is not None
    assert held[0] - 40 < moved.box[0] < held[0] - 30  # inside the region again
    assert spool.crop(0, held + 300) is None
    assert spool.crop(0, np.array([500, 300, 520, 320])) is None  # the crop would be blurred
    spool.close()


def test_a_crop_that_was_cut_early_is_used_if_its_box_turns_out_to_be_right() -> None:
    image = yuv_of(frame_of(image_of(1280, 960), "yuv420p"))
    spool = CropSpool(CropSettings(64, quality=80), 1280, 960)
    box = np.array([340, 170, 800, 630])
    spool.append(image, [])
    spool.append_crops(image, [box])
    kept = spool.crop(1, box + 4)
    assert isinstance(kept, EncodedCrop)
    assert kept.encoded(80) is kept.data
    assert kept.encoded(50) != kept.data
    truth = expected(image_of(1280, 960), tuple(map(int, kept.box)), 64)
    assert np.abs(kept.pixels.astype(int) - truth).mean() < 4
    assert spool.crop(1, box + 5) is None  # a hundredth of 460 pixels is less
    spool.close()


def test_of_several_crops_that_were_cut_early_the_one_with_the_right_box_is_used() -> None:
    image = yuv_of(frame_of(image_of(1280, 960), "yuv420p"))
    spool = CropSpool(CropSettings(64, quality=80), 1280, 960)
    alone, with_piece = np.array([340, 170, 800, 630]), np.array([340, 170, 850, 680])
    spool.append_crops(image, [alone, alone + 2, with_piece])
    spool.append_crops(image, [with_piece])
    first, second = (spool.crop(0, box) for box in (alone, with_piece))
    assert isinstance(first, EncodedCrop)
    assert isinstance(second, EncodedCrop)
    for kept, box in ((first, alone), (second, with_piece)):
        pixels, exact_box = image.crop(box, 64)
        assert kept.box == exact_box
        assert np.abs(kept.pixels.astype(int) - pixels).mean() < 6
    assert spool.crop(1, alone) is None
    spool.close()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "cam.mp4", ROOM.images())


class Decoded:
    """Counts the images that are decoded in sequence."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, video: VideoFile) -> Iterator[Picture]:
        for picture in pictures_of(video):
            self.count += 1
            yield picture


def looked_at(path: Path, counter: Decoded, monkeypatch: pytest.MonkeyPatch) -> ViewCrops:
    monkeypatch.setattr(views, "pictures_of", counter)
    footage = probe(path)
    viewing = ViewToCrop(footage, np.arange(footage.count), footage.rate, CropSettings(48, max_missing=0))
    looking = viewing.find_person(lambda text: None)
    steps = 0
    while True:
        try:
            steps += next(looking)
        except StopIteration as end:
            assert steps == footage.count
            found: ViewCrops = end.value
            return found


def test_a_video_with_key_images_is_decoded_once_and_each_crop_shows_its_own_person(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "MIN_KEYFRAMES", 4)
    counter = Decoded()
    found = looked_at(video, counter, monkeypatch)
    crops = list(found.crops(len(found), lambda text: None))
    assert (counter.count, len(crops), found.decoded_again) == (60, 60, 0)
    for i in range(0, 60, 7):
        box = crops[i].box
        joints = ROOM.person(i)[0]
        assert ((joints >= box[:2]) & (joints <= box[2:])).all()
        truth = expected(ROOM.image(i), tuple(map(int, box)), 48)
        assert np.abs(crops[i].pixels.astype(int) - truth).mean() < 14
    found.close()


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])  # libx264 stores images in another order than it shows them
def test_key_images_are_those_of_a_full_decoding_each_once(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "view.mp4"
    write_video(path, ROOM.images(), codec=codec)
    frames = (picture.frame for picture in decoded_frames(path))
    whole = {frame.pts: frame.to_ndarray() for frame in frames if frame.key_frame}
    found = [(picture.frame.pts, picture.frame.to_ndarray()) for picture in keyframes(path, 30)]
    assert [pts for pts, _ in found] == sorted(whole)
    assert len(whole) > 1
    assert all(np.array_equal(image, whole[pts]) for pts, image in found)


def test_a_video_with_few_key_images_is_decoded_once_more_for_its_empty_scene(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = Decoded()
    found = looked_at(video, counter, monkeypatch)
    assert (counter.count, len(found)) == (120, 60)
    found.close()


def test_regions_that_were_not_kept_are_decoded_again_and_give_the_same_crops(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = looked_at(video, Decoded(), monkeypatch)
    kept = list(found.crops(60, lambda text: None))
    monkeypatch.setattr(CropSpool, "crop", lambda spool, index, crop_box: None)
    again = list(found.crops(60, lambda text: None))
    assert found.decoded_again == 60
    for a, b in zip(kept, again, strict=True):
        assert np.abs(np.subtract(a.box, b.box)).max() <= 0.03 * (a.box[2] - a.box[0]) + 2
        if a.box == b.box:
            assert np.abs(a.pixels.astype(int) - decode_jpeg(b.encoded(90))).mean() < 4
    found.close()


def test_crops_are_cut_early_where_only_one_person_may_be_meant_and_have_the_boxes_of_the_whole_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "cam.mp4", Room(width=320, height=240, count=90, bystander=False).images())
    cut: list[tuple[int, ...]] = []

    def counted(spool: CropSpool, image: YuvImage, crop_boxes: Sequence[np.ndarray]) -> None:
        (crop_box,) = crop_boxes
        cut.append(tuple(crop_box.tolist()))
        append_crops(spool, image, crop_boxes)

    append_crops = CropSpool.append_crops
    monkeypatch.setattr(CropSpool, "append_crops", counted)
    monkeypatch.setattr(waiting, "BLOCK", 0.1)
    found = looked_at(path, Decoded(), monkeypatch)
    crops = list(found.crops(len(found), lambda text: None))
    early = [isinstance(crop, EncodedCrop) for crop in crops]
    assert sum(early) == len(cut)
    assert sum(early) > 60
    assert found.decoded_again == 0
    wanted = {tuple(box) for box in found._crop_boxes.tolist()}
    assert set(cut) <= wanted
    found.close()


def test_planes_know_their_bounds() -> None:
    part = yuv_of(frame_of(image_of(640, 480), "yuv420p")).part(101, 50, 300, 250, 4)
    assert isinstance(part, YuvImage)
    assert (part.left, part.top, part.right, part.bottom) == (96, 48, 304, 256)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_photo_of_the_empty_scene_is_turned_as_its_exif_says(tmp_path: Path, suffix: str) -> None:
    room = Room(width=320, height=240, bystander=False)
    video = probe(write_video(tmp_path / "v.mp4", [room.image(9)] * 12))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise of what is stored
    scene = tmp_path / f"scene.{suffix}"
    PIL.Image.fromarray(np.rot90(np.clip(room.empty(), 0, 255).astype(np.uint8)).copy()).save(scene, exif=exif)
    search = PersonSearch(empty_scene=scene)
    view = ViewToCrop(video, np.arange(12), video.rate, CropSettings(size=48), search)
    generator = view.find_person(lambda _: None)
    while True:
        try:
            next(generator)
        except StopIteration as end:
            crops: ViewCrops = end.value
            break
    crops.close()
    assert crops.target is not None
    joints, (x0, y0, x1, y1) = room.person(9)[0], crops.target.boxes[0]
    assert ((joints >= (x0, y0)) & (joints <= (x1, y1))).all()
    scene.write_bytes(b"no image")
    with pytest.raises(SourceError, match=rf"scene\.{suffix}: not a readable image"):
        next(view.find_person(lambda _: None))
