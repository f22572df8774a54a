"""One view of a recording: find the person in its images and crop them.

A long video is decoded once. Its empty scene is composed from keyframes, which can be decoded alone. Then the crop of
each image is kept if only one person may be meant, and the surroundings of everybody who may be if there are several
(`mcss.video.spool`). Once the last image has been seen, the person is chosen, and the other crops are cut out.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Set
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.instants import evenly_spread
from mcss.errors import ImageError, SourceError
from mcss.images import IMAGE_SUFFIXES, Image, read_image, scaled_down
from mcss.video.background import Foreground
from mcss.video.boxes import Boxes, interpolated_boxes, steady_crop_boxes
from mcss.video.contrast import contrast_of
from mcss.video.crops import Crop, CropSettings, EncodedCrop
from mcss.video.detectors import DetectorName, PersonDetector, person_detector
from mcss.video.people import MotionDetector, ViewTracker
from mcss.video.reading.decoding import VideoFile, decoded_frames, images, keyframes, pictures_of
from mcss.video.reading.display import Picture
from mcss.video.reading.yuv import YuvImage, yuv_of
from mcss.video.spool import CropSpool, crop_of_planes
from mcss.video.target import ClickedPoint, Target, choose_target
from mcss.video.waiting import WaitingImages

MOTION_SIDE = 320
"""Longer side in pixels of the images in which people are detected by motion."""

DETECTOR_SIDE = 640
"""Longer side in pixels of the images in which people are detected by a trained detector."""

MIN_DETECTION_RATE = 10.0
"""People are detected in at least this many images per second; boxes in between are interpolated."""

SCENE_SAMPLES = 32
"""Number of images, spread over a recording, from which its empty scene is composed."""

MIN_KEYFRAMES = 12
"""With fewer keyframes than this, the samples are other images, and the video is decoded a second time for them."""

MOST_IN_GROUP = 300
"""Images that depend on one keyframe, at most: 10 s at 30 a second."""

MIN_SHARE_SEEN = 0.05
"""A view in which the person is seen in a smaller share of its images counts as showing nobody."""

Note = Callable[[str], None]
"""Receives what is unusual about a file."""


@dataclass(frozen=True)
class PersonSearch:
    """How the person is found in the images of a view."""

    find: Literal["motion"] | DetectorName = "motion"
    """By motion in front of a static camera, or by a detector."""
    detector_weights: Path | None = None
    """File of the detector's weights; None downloads them."""
    empty_scene: Path | None = None
    """Image or video of the empty scene; None composes it from the video."""
    click: ClickedPoint | None = None
    """Where the person is; None chooses the person who is seen longest and largest."""


@dataclass(frozen=True, eq=False)
class ViewToCrop:
    """A view from which crops of the person are wanted."""

    video: VideoFile
    image_numbers: Int64[np.ndarray, " n"]
    """Numbers of the images to crop, in order; a number may occur twice."""
    rate: float
    """How many of these images there are per second."""
    crop: CropSettings
    search: PersonSearch = field(default_factory=PersonSearch)
    boxes: Float64[np.ndarray, "n 4"] | None = None
    """The person's box in each of these images, in source pixels without gaps; None searches for the person."""

    def find_person(self, note: Note) -> Generator[int, None, "ViewCrops"]:
        """Find the person in all images; yields the number of images examined since the last time.

        Raises:
            SourceError: The video is damaged, or nobody is seen in it.
        """
        if self.boxes is not None:
            return ViewCrops(self, self.boxes)
        detector: PersonDetector
        if self.search.find != "motion":
            detector, long_side = _loaded_detector(self.search.find, self.search.detector_weights), DETECTOR_SIDE
        else:
            foreground = self._of_given_scene()
            if foreground is None:
                samples = yield from self._scene_samples()
                foreground = Foreground.of(samples)
            detector, long_side = MotionDetector(foreground), MOTION_SIDE
        spool = CropSpool(self.crop, self.video.width, self.video.height)
        try:
            target, boxes, lost = yield from self._tracked_target(detector, long_side, spool, note)
        except BaseException:
            spool.close()
            raise
        return ViewCrops(self, boxes, spool, target, lost)

    def check_decoded(self, count: int, note: Note, first: int = 0) -> None:
        """Report how many images could not be decoded.

        Args:
            count: How many could.
            note: Called with the report.
            first: Number of the first one that could; a recording may begin in the middle of a group of images.

        Raises:
            SourceError: Too many could not.
        """
        within_group = min(first, MOST_IN_GROUP)
        lost = self.video.count - count - within_group
        lacking = "the instants of these images lack this view"
        if self.video.stamps is None or not self.video.stamped:
            lacking = f"from there on it is {lost} images ahead of the other views, unless they are the last ones"
        if lost > self.crop.max_missing or not count:
            raise SourceError(
                f"{self.video.path}: only {count} of its {self.video.count} images can be decoded; the file is "
                "damaged or was cut off: copy it again, or cut all views of the sequence to the undamaged part"
            )
        if within_group:
            note(
                f"{self.video.path}: it begins in the middle of a group of images, the first {within_group} of which "
                "cannot be decoded; the instants of these images lack this view"
            )
        if lost > 0:
            note(f"{self.video.path}: {lost} of its {self.video.count} images cannot be decoded; {lacking}")

    def _tracked_target(
        self, detector: PersonDetector, long_side: int, spool: CropSpool, note: Note
    ) -> Generator[int, None, tuple[Target, Float64[np.ndarray, "m 4"], Set[int]]]:
        """Track people, keep the surroundings of all detections, and return the target with its boxes.

        There is a box for each wanted image up to the last that can be decoded; the numbers of those before it that
        cannot are returned too.
        """
        step = max(1, int(self.rate / MIN_DETECTION_RATE))
        tracker = ViewTracker(detector, self.rate / step, -(-len(self.image_numbers) // step))
        waiting = WaitingImages(
            self.video, self.rate, self.crop.margin, tracker, step, spool, self.search.click is None
        )
        reader = FrameReader(self.video)
        with closing(reader):
            for index, number in enumerate(self.image_numbers.tolist()):
                image = reader.image(number)
                if image is None:
                    break
                waiting.add(image, self._detected(tracker, image, long_side) if index % step == 0 else None)
                yield 1
            else:
                reader.read_to_end()
        self.check_decoded(reader.count, note, reader.first)
        waiting.end()
        tracks = tracker.result()
        if not tracks.tracks:
            raise self._nobody_found()
        target = choose_target(self.video, self.image_numbers[::step], tracks, self.search.click)
        seen = float(np.isfinite(target.boxes).all(axis=1).mean())
        if seen < MIN_SHARE_SEEN:
            raise self._nobody_found()
        if seen < 1:
            note(f"{self.video.path}: no person seen in {1 - seen:.0%} of its images; boxes are interpolated there")
        boxes = np.full((len(spool), 4), np.nan)
        boxes[::step] = target.boxes
        return target, interpolated_boxes(boxes), reader.lost

    def _detected(self, tracker: ViewTracker, image: YuvImage, long_side: int) -> Boxes:
        """Look for people in an image, and return the boxes of all who may be there, in source pixels."""
        small = image.thumbnail(long_side)
        height, width = small.shape[:2]
        scale = np.array([self.video.width / width, self.video.height / height] * 2)
        return np.asarray(tracker.update(small).boxes * scale)

    def _nobody_found(self) -> SourceError:
        find = self.search.find
        how = "people are found by their motion in front of a static camera" if find == "motion" else f"by {find}"
        ways = (
            "or images of the empty scene (--background), use a detector (--find),"
            if find == "motion"
            else "use motion or another detector (--find),"
        )
        return SourceError(
            f"{self.video.path}: no person was found in it ({how}); give their boxes in a CSV (--boxes) {ways} "
            "or remove the view"
        )

    def _scene_samples(self) -> Generator[int, None, list[Image]]:
        """Collect small images spread over the video."""
        if self.video.keyframes >= MIN_KEYFRAMES:
            samples = [yuv_of(picture).thumbnail(MOTION_SIDE) for picture in keyframes(self.video.path, SCENE_SAMPLES)]
            if len(samples) >= MIN_KEYFRAMES:
                return samples
        samples = []
        spread = np.unique(self.image_numbers[evenly_spread(len(self.image_numbers), SCENE_SAMPLES)])
        with closing(FrameReader(self.video)) as reader:
            for number in spread.tolist():
                image = reader.image(number)
                if image is None:
                    self.check_decoded(reader.count, lambda _: None, reader.first)
                    break
                samples.append(image.thumbnail(MOTION_SIDE))
                yield 0
        return samples

    def _of_given_scene(self) -> Foreground | None:
        """Return the foreground before the empty scene in the user's file, if there is one."""
        path = self.search.empty_scene
        if path is None:
            return None
        first = next((yuv_of(picture).thumbnail(MOTION_SIDE) for picture in decoded_frames(self.video.path)), None)
        scenes = _given_scenes(path)
        if first is None or not scenes or scenes[0].shape != first.shape:
            expected = f"{first.shape[1]}×{first.shape[0]}" if first is not None else "unknown"
            got = f"{scenes[0].shape[1]}×{scenes[0].shape[0]}" if scenes else "nothing"
            raise SourceError(
                f"{path}: expected the empty scene in the shape of {self.video.path.name} ({expected} when scaled "
                f"down), got {got}; record it with the same camera and settings"
            )
        contrast = contrast_of([*scenes, first])
        scene = np.median(np.stack([contrast.grey(image) for image in scenes]), axis=0).astype(np.float32)
        return Foreground(scene, contrast)


def _given_scenes(path: Path) -> list[Image]:
    """Return the user's image of the empty scene, or the first ones of a video of it, as small as people are sought.

    Raises:
        SourceError: The file is not a readable image or video.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return list(itertools.islice(images(path, MOTION_SIDE), 25))
    try:
        return [scaled_down(read_image(path), MOTION_SIDE)]
    except ImageError as error:
        raise SourceError(str(error)) from error


@lru_cache(maxsize=1)
def _loaded_detector(name: DetectorName, weights: Path | None) -> PersonDetector:
    """Load a detector once per process."""
    return person_detector(name, weights)


class FrameReader:
    """Reads a video's images by their numbers, which must not decrease."""

    def __init__(self, video: VideoFile) -> None:
        self._pictures = pictures_of(video)
        self._number = -1
        self._picture: Picture | None = None
        self._image: YuvImage | None = None
        self.count = 0
        """Number of images decoded so far."""
        self.first = 0
        """Number of the first image that can be decoded."""
        self.lost: set[int] = set()
        """Numbers of the images that were asked for but cannot be decoded; the ones after them stand in for them."""

    def image(self, number: int) -> YuvImage | None:
        """Return an image, or the one after it if it cannot be decoded; None if the video ends before it."""
        while self._number < number:
            self._picture = next(self._pictures, None)
            self._image = None
            if self._picture is None:
                return None
            self._number = self._picture.number
            self.first = self.first if self.count else self._number
            self.count += 1
        if self._number > number:
            self.lost.add(number)
        if self._image is None and self._picture is not None:
            self._image = yuv_of(self._picture)
        return self._image

    def read_to_end(self) -> None:
        """Decode the rest of the video in order to count its images."""
        self.count += sum(1 for _ in self._pictures)

    def close(self) -> None:
        """Close the file."""
        close = getattr(self._pictures, "close", None)
        if close is not None:
            close()


class ViewCrops:
    """The crops of a view, cut out on demand."""

    def __init__(
        self,
        view: ViewToCrop,
        boxes: Float64[np.ndarray, "n 4"],
        spool: CropSpool | None = None,
        target: Target | None = None,
        lost: Set[int] = frozenset(),
    ) -> None:
        video = view.video
        self.target = target
        """The person who was found; None if the boxes were given."""
        self._view, self._spool, self._lost = view, spool, lost
        self._crop_boxes = steady_crop_boxes(boxes, view.rate, view.crop.margin, video.width, video.height)
        self.decoded_again = 0
        """Number of crops for which an image had to be decoded a second time."""

    def __len__(self) -> int:
        return len(self._crop_boxes)

    def crops(self, count: int, note: Note) -> Generator[Crop | EncodedCrop | None]:
        """Yield the first crops; None where an image cannot be decoded.

        Raises:
            SourceError: The video is damaged.
        """
        view = self._view
        with closing(FrameReader(view.video)) as reader:
            for index, crop_box in enumerate(self._crop_boxes[:count]):
                number = int(view.image_numbers[index])
                if number in self._lost:
                    yield None
                    continue
                crop = self._spool.crop(index, crop_box) if self._spool is not None else None
                if crop is None:
                    image = reader.image(number)
                    if image is None:
                        view.check_decoded(reader.count, note)
                        return
                    if number in reader.lost:
                        yield None
                        continue
                    self.decoded_again += 1
                    crop = crop_of_planes(image, crop_box, view.crop.size)
                yield crop

    def close(self) -> None:
        """Remove the temporary file."""
        if self._spool is not None:
            self._spool.close()


def all_crops(view: ViewToCrop, note: Note, advance: Callable[[int], None]) -> Iterator[bytes]:
    """Yield all crops of a view as JPEG; where an image cannot be decoded, the crop before it stands in for it."""
    search = view.find_person(note)
    while True:
        try:
            advance(next(search))
        except StopIteration as end:
            view_crops: ViewCrops = end.value
            break
    with closing(view_crops):
        data = b""
        for crop in view_crops.crops(len(view_crops), note):
            advance(1)
            data = crop.encoded(view.crop.quality) if crop is not None else data
            if data:
                yield data
