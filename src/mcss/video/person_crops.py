"""One view of a recording: where the person is in its images, and the crops of it.

A long video is decoded once. Its empty scene is put together from key images, which can be decoded alone; then each
image leaves the surroundings of whoever may be the person on the disk (`mcss.video.spool`), and when the
last one was seen the person is chosen and the crops are cut out.
"""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from mcss.errors import SourceError
from mcss.images import Image, encode_jpeg
from mcss.video.background import Scene, empty_scene
from mcss.video.decoding import Footage, decoded, images, key_images
from mcss.video.detectors import DetectorName, PersonFinder, person_detector
from mcss.video.people import MotionFinder, Watch, crop_squares, filled
from mcss.video.spool import Rectangle, RegionSpool, surroundings
from mcss.video.target import Click, Followed, followed
from mcss.video.yuv import Planes, planes_of

LOOK_SIZE = 320
"""Longer side in pixels of the images in which the person is looked for by motion."""

DETECT_SIZE = 640
"""Likewise by a detector."""

LOOKS = 10.0
"""The person is looked for in at least so many images a second; boxes in between are interpolated."""

SAMPLES = 48
"""So many images, spread over a recording, show what its empty scene looks like."""

FEW_KEYS = 24
"""With fewer key images than this the samples are other ones, and the video is decoded a second time for them."""

SELDOM_SEEN = 0.05
"""A view that shows a person in a smaller share of its images than this counts as showing nobody."""

AROUND = 0.5
"""Seconds before and after an image whose candidates count for what is kept of it."""

WAITING_BYTES = 256_000_000
"""Decoded images that wait for those half a second later take no more memory than this."""

Note = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Viewing:
    """A view, which of its images are taken, and what crops are made of them."""

    video: Footage
    taken: Int64[np.ndarray, " n"]
    """Numbers of the images, in order; the same one may be taken twice."""
    rate: float
    """Images taken per second."""
    size: int
    """Of the crops in pixels."""
    margin: float
    """Side of the crop over the longer side of the person's box."""
    quality: int
    """JPEG quality."""
    max_missing: int
    """So many images at the end may be damaged."""
    boxes: Float64[np.ndarray, "n 4"] | None = None
    """The person in each image taken, in source pixels without gaps; None if it is to be looked for."""
    scene: Path | None = None
    """An image or video of the empty scene."""
    find: Literal["motion"] | DetectorName = "motion"
    """How people are found."""
    detector_weights: Path | None = None
    """A file of the detector's weights."""
    click: Click | None = None
    """Where the person is; by default the one who shows most of himself is meant."""

    def looked_at(self, note: Note) -> Generator[int, None, "ViewCrops"]:
        """Find the person; counts the images taken.

        Raises:
            SourceError: The video is damaged, or nobody is seen in it.
        """
        if self.boxes is not None:
            return ViewCrops(self, self.boxes)
        finder: PersonFinder
        if self.find != "motion":
            finder, side = _detector(self.find, self.detector_weights), DETECT_SIZE
        else:
            scene = self._given_scene()
            if scene is None:
                samples = yield from self._samples()
                scene = empty_scene(samples)
            finder, side = MotionFinder(scene), LOOK_SIZE
        spool = RegionSpool(self.size, self.margin, self.video.width, self.video.height)
        try:
            people, boxes = yield from self._people(finder, side, spool, note)
        except BaseException:
            spool.close()
            raise
        return ViewCrops(self, boxes, spool, people)

    def check(self, count: int, note: Note) -> None:
        """Say how many images could not be decoded.

        Raises:
            SourceError: They are too many.
        """
        lost = self.video.count - count
        if lost > self.max_missing or not count:
            raise SourceError(
                f"{self.video.path}: only {count} of its {self.video.count} images can be decoded; the file is "
                "damaged or was cut off: copy it again, or cut all views of the sequence to the part that is whole"
            )
        if lost > 0:
            note(
                f"{self.video.path}: {lost} of its {self.video.count} images cannot be decoded; from there on it is "
                f"{lost} images ahead of the other views, unless they are the last ones"
            )

    def _people(
        self, finder: PersonFinder, side: int, spool: RegionSpool, note: Note
    ) -> Generator[int, None, tuple[Followed, Float64[np.ndarray, "m 4"]]]:
        """Who is followed, and his box in each image taken that can be decoded; keeps all that may be him."""
        step = max(1, int(self.rate / LOOKS))
        around = max(step, round(AROUND * self.rate))
        limit = max(2, WAITING_BYTES // (self.video.width * self.video.height * 3 // 2))
        watch = Watch(finder, self.rate / step, -(-len(self.taken) // step))
        looks: list[Float64[np.ndarray, "n 4"]] = []
        waiting: deque[Planes] = deque()
        reading = Reading(self.video.path)

        @lru_cache(maxsize=1)  # images between two looks have the same
        def near(first: int, last: int) -> list[tuple[Rectangle, float]]:
            return surroundings(np.concatenate(looks[first : last + 1]), self.margin)

        def keep() -> None:
            at = len(spool)
            last = min((at + around) // step, len(looks) - 1)
            spool.append(waiting.popleft(), near(max(0, (at - around) // step), last))

        with closing(reading):
            for at, number in enumerate(self.taken.tolist()):
                image = reading.image(number)
                if image is None:
                    break
                if at % step == 0:
                    small = image.small(side)
                    height, width = small.shape[:2]
                    if looks and watch.size != (width, height):
                        raise SourceError(
                            f"{self.video.path}: its image {number} has another shape than those before; cut the "
                            "video where it changes"
                        )
                    scale = np.array([self.video.width / width, self.video.height / height] * 2)
                    looks.append(watch.look(small).boxes * scale)
                waiting.append(image)
                yield 1
                while len(waiting) > limit or at - len(spool) > around:
                    keep()
            else:
                reading.end()
        self.check(reading.count, note)
        while waiting:
            keep()
        watched = watch.done()
        if not watched.tracks:
            raise self._nobody()
        people = followed(self.video, self.taken[::step], watched, self.click)
        found = people.boxes
        seen = float(np.isfinite(found).all(axis=1).mean())
        if seen < SELDOM_SEEN:
            raise self._nobody()
        if seen < 1:
            note(f"{self.video.path}: no person seen in {1 - seen:.0%} of its images; boxes are interpolated there")
        boxes = np.full((len(spool), 4), np.nan)
        boxes[::step] = found
        return people, filled(boxes)

    def _nobody(self) -> SourceError:
        how = "people are found by their motion before a static camera" if self.find == "motion" else f"by {self.find}"
        ways = (
            "or images of the empty scene (setting background), use a detector (setting find),"
            if self.find == "motion"
            else "use motion or another detector (setting find),"
        )
        return SourceError(
            f"{self.video.path}: no person was found in it ({how}); give their boxes in a CSV (setting boxes) {ways} "
            "or remove the view"
        )

    def _samples(self) -> Generator[int, None, list[Image]]:
        """Small images spread over the video."""
        if self.video.keys >= FEW_KEYS:
            samples = [planes_of(frame).small(LOOK_SIZE) for frame in key_images(self.video.path, SAMPLES)]
            if len(samples) >= FEW_KEYS:
                return samples
        samples = []
        at = np.unique(self.taken[np.linspace(0, len(self.taken) - 1, SAMPLES).round().astype(int)])
        with closing(Reading(self.video.path)) as reading:
            for number in at.tolist():
                image = reading.image(number)
                if image is None:
                    self.check(reading.count, lambda _: None)
                    break
                samples.append(image.small(LOOK_SIZE))
                yield 0
        return samples

    def _given_scene(self) -> Scene | None:
        """The empty scene from the user's file."""
        if self.scene is None:
            return None
        first = next((planes_of(frame).small(LOOK_SIZE) for frame in decoded(self.video.path)), None)
        shots = list(itertools.islice(images(self.scene, LOOK_SIZE), 25))
        if first is None or not shots or shots[0].shape != first.shape:
            came = f"{shots[0].shape[1]}×{shots[0].shape[0]}" if shots else "nothing"
            wanted = f"{first.shape[1]}×{first.shape[0]}" if first is not None else "unknown"
            raise SourceError(
                f"{self.scene}: expected the empty scene in the shape of {self.video.path.name} ({wanted} when scaled "
                f"down), came {came}; take it with the same camera and settings"
            )
        scene: Scene = np.median(np.stack(shots), axis=0).astype(np.float32)
        return scene


@lru_cache(maxsize=1)
def _detector(name: DetectorName, weights: Path | None) -> PersonFinder:
    """One for each process."""
    return person_detector(name, weights)


class Reading:
    """A video's images by their numbers, which never go down."""

    def __init__(self, path: Path) -> None:
        self._frames = decoded(path)
        self._latest: Planes | None = None
        self.count = 0
        """Images decoded so far."""

    def image(self, number: int) -> Planes | None:
        """An image; None if the video ends before."""
        while self.count <= number:
            frame = next(self._frames, None)
            if frame is None:
                return None
            self.count += 1
            self._latest = planes_of(frame) if self.count == number + 1 else None
        return self._latest

    def end(self) -> None:
        """Decode what is left, to know how much there is."""
        self.count += sum(1 for _ in self._frames)

    def close(self) -> None:
        """Close the file."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()


class ViewCrops:
    """The crops of a view, made as they are asked for."""

    def __init__(
        self,
        viewing: Viewing,
        boxes: Float64[np.ndarray, "n 4"],
        spool: RegionSpool | None = None,
        people: Followed | None = None,
    ) -> None:
        video = viewing.video
        self.people = people
        """Who was found; None if the boxes were given."""
        self._viewing, self._spool = viewing, spool
        self._squares = crop_squares(boxes, viewing.rate, viewing.margin, video.width, video.height)
        self.decoded_again = 0
        """Crops for which an image had to be decoded a second time."""

    def __len__(self) -> int:
        return len(self._squares)

    def crops(self, count: int, note: Note) -> Generator[tuple[bytes, tuple[float, float, float, float]]]:
        """The first crops as JPEG, and where each lies in source pixels.

        Raises:
            SourceError: The video is damaged.
        """
        viewing = self._viewing
        with closing(Reading(viewing.video.path)) as reading:
            for index, square in enumerate(self._squares[:count]):
                kept = self._spool.cut(index, square) if self._spool is not None else None
                if kept is None:
                    image = reading.image(int(viewing.taken[index]))
                    if image is None:
                        viewing.check(reading.count, note)
                        return
                    self.decoded_again += 1
                    kept = image, square
                crop, (x0, y0, x1, y1) = kept[0].cut(kept[1], viewing.size)
                yield encode_jpeg(crop, viewing.quality), (float(x0), float(y0), float(x1), float(y1))

    def close(self) -> None:
        """Remove what was kept on the disk."""
        if self._spool is not None:
            self._spool.close()


def every_crop(viewing: Viewing, note: Note, advance: Callable[[int], None]) -> Iterator[bytes]:
    """All crops of a view that nobody else needs to be in step with."""
    looking = viewing.looked_at(note)
    while True:
        try:
            advance(next(looking))
        except StopIteration as end:
            found: ViewCrops = end.value
            break
    with closing(found):
        for crop, _ in found.crops(len(found), note):
            advance(1)
            yield crop
