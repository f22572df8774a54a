"""Where the person is, in a single image or through a video, as square crops for a model."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.errors import ImageError, SourceError
from mcss.images import Image
from mcss.models.model import MARGIN, crop_box_around, crop_box_of_whole
from mcss.progress import Task
from mcss.video.background import empty_scene
from mcss.video.decoding import Footage, images, probe, times_of
from mcss.video.detectors import PersonFinder
from mcss.video.people import MotionFinder, Watch, crop_squares, filled
from mcss.video.person_crops import DETECT_SIZE, LOOK_SIZE, SAMPLES, SELDOM_SEEN
from mcss.video.spool import ImageSpool
from mcss.video.target import COMPARABLE

Rectangle = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


@dataclass(frozen=True, eq=False)
class Sighting:
    """Where one person is in the images of a video, or in one image."""

    crop_boxes: Int64[np.ndarray, "n 4"]
    """x0, y0, x1, y1: what the model is to see, in pixels of the upright image."""
    found: Bool[np.ndarray, " n"]
    """Where the person was seen; elsewhere the square is interpolated."""
    time: Float64[np.ndarray, " n"]
    """Seconds."""
    notes: tuple[str, ...] = ()
    footage: Footage | None = None
    """The video; None for an image."""


def parsed_rectangle(text: str) -> Rectangle:
    """``x,y,width,height`` in pixels.

    Raises:
        ValueError: Something else.
    """
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"box: expected x,y,width,height in pixels, such as 240,80,160,380, came {text!r}.") from None
    if not (np.isfinite([x, y]).all() and 0 < width < np.inf and 0 < height < np.inf):
        raise ValueError(f"box: expected a width and height above 0, came {text!r}.")
    return x, y, width, height


def in_image(image: Image, name: str, box: Rectangle | None, finder: PersonFinder | None) -> Sighting:
    """Where the person is in a single image: in the box, where a finder sees somebody, or all over it.

    Raises:
        ImageError: The box lies outside, or the finder sees nobody.
    """
    height, width = image.shape[:2]
    notes: tuple[str, ...] = ()
    if box is None and finder is not None:
        boxes = finder.find([image])[0].boxes
        if not len(boxes):
            raise ImageError(f"{name}: no person was found in it; say where one is with --box x,y,width,height")
        largest = int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))
        x0, y0, x1, y1 = (float(value) for value in boxes[largest])
        box = (x0, y0, x1 - x0, y1 - y0)
        if len(boxes) > 1:
            notes = (f"{name}: {len(boxes)} people; the largest is taken. Choose another with --box",)
    if box is None:
        notes = (f"{name}: taken whole, as nothing says where in it the person is; --box x,y,width,height does",)
        square = crop_box_of_whole(width, height)
    else:
        square = crop_box_around(box, width, height, name)
    return Sighting(square[None], np.ones(1, bool), np.zeros(1), notes)


def in_video(path: Path, box: Rectangle | None, finder: PersonFinder | None, task: Task) -> Sighting:
    """Where the person is in every image of a video.

    In the box throughout; else where a finder sees somebody; else where something moves before a static camera.

    Args:
        path: The video.
        box: Of the person, for all of its images.
        finder: A detector.
        task: Told of every image.

    Raises:
        SourceError: It is no video that can be read, or nobody is seen in it.
    """
    footage = probe(path)
    time = times_of(path)
    notes: list[str] = []
    if len(time) < footage.count:
        notes.append(f"{path}: {footage.count - len(time)} of its {footage.count} images cannot be decoded")
    if not footage.steady:
        notes.append(f"{path}: its frame rate varies; times are those of the file, smoothing works on even steps")
    rate = float(1 / np.median(np.diff(time))) if len(time) > 1 else 1.0
    if box is not None:
        square = crop_box_around(box, footage.width, footage.height, str(path))
        task.advance(len(time))
        return Sighting(
            np.repeat(square[None], len(time), axis=0), np.ones(len(time), bool), time, tuple(notes), footage
        )
    boxes = _followed(path, footage, rate, finder, task, notes)
    count = min(len(boxes), len(time))
    boxes, time = boxes[:count], time[:count]
    found = np.isfinite(boxes).all(axis=1)
    if not count or found.mean() < SELDOM_SEEN:
        way = "a person is found by moving before a static camera" if finder is None else "no person was detected"
        raise SourceError(f"{path}: no person was found in it ({way}); say where one is with --box x,y,width,height")
    if not found.all():
        notes.append(
            f"{path}: nobody seen in {int((~found).sum())} of its {count} images; crops are interpolated there"
        )
    squares = crop_squares(filled(boxes), rate, MARGIN, footage.width, footage.height)
    return Sighting(squares, found, time, tuple(notes), footage)


def _followed(
    path: Path, footage: Footage, rate: float, finder: PersonFinder | None, task: Task, notes: list[str]
) -> Float64[np.ndarray, "n 4"]:
    """The boxes of the one who is seen longest and largest, NaN where he is not; without a finder, of who moves."""
    with closing(ImageSpool()) as spool:
        watch = None if finder is None else Watch(finder, rate, footage.count)
        for image in images(path, LOOK_SIZE if watch is None else DETECT_SIZE):
            if watch is None:
                spool.append(image)
            else:
                watch.look(image)
            task.advance()
        if watch is None:
            if not len(spool):
                return np.full((0, 4), np.nan)
            at = np.unique(np.linspace(0, len(spool) - 1, SAMPLES).round().astype(int))
            watch = Watch(MotionFinder(empty_scene([spool[int(i)] for i in at])), rate, len(spool))
            for i in range(len(spool)):
                watch.look(spool[i])
    seen = watch.done()
    if not seen.tracks:
        return np.full((seen.count, 4), np.nan)
    if len(seen.tracks) > 1 and seen.tracks[1].weight > COMPARABLE * seen.tracks[0].weight:
        notes.append(f"{path}: several people; who is seen longest and largest is followed. Choose another with --box")
    width, height = seen.size
    scale = np.array([footage.width / width, footage.height / height] * 2)
    return np.asarray(seen.tracks[0].over(seen.count) * scale, np.float64)
