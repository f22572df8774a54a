"""Find the person in an image or a video, and lay the crop boxes that a model predicts from."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.data.instants import evenly_spread
from mcss.errors import SourceError
from mcss.images import Image
from mcss.models.model import MARGIN, crop_box_around, crop_box_of_whole
from mcss.progress import Task
from mcss.video.background import Foreground
from mcss.video.boxes import interpolated_boxes, steady_crop_boxes
from mcss.video.detectors import SHIPPED_DETECTOR, DetectorName, PersonDetector, person_detector
from mcss.video.people import MotionDetector, ViewTracker
from mcss.video.person_crops import DETECTOR_SIDE, MIN_SHARE_SEEN, MOTION_SIDE, SCENE_SAMPLES
from mcss.video.reading.decoding import VideoFile, decoded_times, images, probe
from mcss.video.reading.oddities import oddities
from mcss.video.spool import ImageSpool
from mcss.video.target import COMPARABLE

BoundingBox = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


@dataclass(frozen=True, eq=False)
class PersonLocation:
    """Where one person is in each image of a video, or in a single image."""

    crop_boxes: Int64[np.ndarray, "n 4"]
    """x0, y0, x1, y1 of the square that the model sees, in pixels of the upright image."""
    found: Bool[np.ndarray, " n"]
    """Whether the person was found in the image; elsewhere the crop box is interpolated."""
    time: Float64[np.ndarray, " n"]
    """Seconds."""
    notes: tuple[str, ...] = ()
    """Warnings for the user."""
    others: tuple[BoundingBox, ...] = ()
    """The other people who were found in a single image."""


@dataclass(frozen=True, eq=False)
class Finders:
    """How people are found in files for which no box is given."""

    image: PersonDetector | None = SHIPPED_DETECTOR
    """The detector for single images; None takes them whole."""
    video: PersonDetector | None = None
    """The detector for videos; None follows the person who moves in front of a static camera."""

    @classmethod
    def named(cls, find: DetectorName | Literal["whole"] | None, weights: Path | None = None) -> "Finders":
        """Load the detector of that name for images and videos.

        Args:
            find: A detector; None for the usual ones; whole takes images whole, and is None for videos.
            weights: File of the detector's weights.

        Raises:
            ValueError: There are weights, but no detector for them.
        """
        if find is None or find == "whole":
            if weights is not None:
                raise ValueError("--detector-weights: there is no detector to load them; choose one with --find")
            return cls() if find is None else cls(image=None)
        detector = person_detector(find, weights)
        return cls(detector, detector)


def parsed_box(text: str) -> BoundingBox:
    """Parse ``x,y,width,height`` in pixels.

    Raises:
        ValueError: The text is something else.
    """
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"box: expected x,y,width,height in pixels, such as 240,80,160,380, got {text!r}.") from None
    if not (np.isfinite([x, y]).all() and 0 < width < np.inf and 0 < height < np.inf):
        raise ValueError(f"box: expected a width and height above 0, got {text!r}.")
    return x, y, width, height


def locate_in_image(
    image: Image, name: str, box: BoundingBox | None = None, finder: PersonDetector | None = SHIPPED_DETECTOR
) -> PersonLocation:
    """Locate the person in a single image.

    They are in the box if there is one, else where the finder detects somebody. Without a finder, or if it detects
    nobody, the whole image is the crop.

    Args:
        image: The image.
        name: Its name in messages.
        box: The person's bounding box.
        finder: A detector.

    Raises:
        ImageError: The box lies outside the image.
    """
    height, width = image.shape[:2]
    notes: list[str] = []
    others: list[BoundingBox] = []
    if box is None and finder is not None:
        if people := _people(finder, image):
            box, *others = people
        if box is None:
            notes.append(
                f"{name}: no person was found in it, so the whole image is used; say where they are with "
                "--box x,y,width,height"
            )
        elif others:
            notes.append(f"{name}: {1 + len(others)} people were found; the largest is used. Choose another with --box")
    elif box is None:
        notes.append(f"{name}: the whole image is used; say where the person is with --box x,y,width,height")
    crop_box = crop_box_of_whole(width, height) if box is None else crop_box_around(box, width, height, name)
    found = box is not None or finder is None
    return PersonLocation(crop_box[None], np.array([found]), np.zeros(1), tuple(notes), tuple(others))


def _people(finder: PersonDetector, image: Image) -> list[BoundingBox]:
    """The bounding boxes of the people in an image, the largest first."""
    boxes = finder.detect([image])[0].boxes
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
    return [(x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes[order].tolist()]


def locate_in_video(path: Path, box: BoundingBox | None, finder: PersonDetector | None, task: Task) -> PersonLocation:
    """Locate the person in every image of a video.

    They are in the box throughout if there is one, else where the finder detects somebody; without either, the
    person who moves in front of the static camera is followed.

    Args:
        path: The video.
        box: The person's bounding box in all images.
        finder: A detector.
        task: Advanced by every image.

    Raises:
        SourceError: The file is not a readable video, or nobody is found in it.
    """
    footage = probe(path)
    time = decoded_times(footage)
    notes = oddities(footage)
    if len(time) < footage.count:
        notes.append(f"{path}: {footage.count - len(time)} of its {footage.count} images cannot be decoded")
    if not footage.evenly_timed:
        notes.append(
            f"{path}: the frame rate varies; times are taken from the file, and smoothing resamples to even steps"
        )
    if box is not None:
        crop_box = crop_box_around(box, footage.width, footage.height, str(path))
        task.advance(len(time))
        return PersonLocation(
            np.repeat(crop_box[None], len(time), axis=0), np.ones(len(time), bool), time, tuple(notes)
        )
    boxes = _followed(path, footage, footage.rate, finder, task, notes)
    count = min(len(boxes), len(time))
    boxes, time = boxes[:count], time[:count]
    found = np.isfinite(boxes).all(axis=1)
    if not count or found.mean() < MIN_SHARE_SEEN:
        reason = "nobody moves in front of a static camera" if finder is None else "the detector found nobody"
        raise SourceError(
            f"{path}: no person was found in it ({reason}); say where they are with --box x,y,width,height"
        )
    if not found.all():
        notes.append(
            f"{path}: nobody was found in {int((~found).sum())} of its {count} images; crops are interpolated there"
        )
    crop_boxes = steady_crop_boxes(interpolated_boxes(boxes), footage.rate, MARGIN, footage.width, footage.height)
    return PersonLocation(crop_boxes, found, time, tuple(notes))


def _followed(
    path: Path, footage: VideoFile, rate: float, finder: PersonDetector | None, task: Task, notes: list[str]
) -> Float64[np.ndarray, "n 4"]:
    """Bounding boxes of the person who is seen longest and largest, NaN where they are not seen."""
    with closing(ImageSpool()) as spool:
        watch = None if finder is None else ViewTracker(finder, rate, footage.count)
        for image in images(path, MOTION_SIDE if watch is None else DETECTOR_SIDE):
            if watch is None:
                spool.append(image)
            else:
                watch.update(image)
            task.advance()
        if watch is None:
            if not len(spool):
                return np.full((0, 4), np.nan)
            samples = evenly_spread(len(spool), SCENE_SAMPLES)
            watch = ViewTracker(MotionDetector(Foreground.of([spool[int(i)] for i in samples])), rate, len(spool))
            for i in range(len(spool)):
                watch.update(spool[i])
    watched = watch.result()
    if not watched.tracks:
        return np.full((watched.count, 4), np.nan)
    if len(watched.tracks) > 1 and watched.tracks[1].weight > COMPARABLE * watched.tracks[0].weight:
        notes.append(
            f"{path}: there are several people; the one seen longest and largest is followed. Choose another with --box"
        )
    width, height = watched.size
    scale = np.array([footage.width / width, footage.height / height] * 2)
    return np.asarray(watched.tracks[0].over(watched.count) * scale, np.float64)
