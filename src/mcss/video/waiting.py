"""Decoded images that wait until it is known which part of each to keep: its crop, or everybody's surroundings."""

from collections import deque

import numpy as np
from jaxtyping import Int64

from mcss.video.boxes import Boxes, interpolated_boxes, steady_crop_boxes, steady_reach
from mcss.video.people import ViewTracker
from mcss.video.reading.decoding import VideoFile
from mcss.video.reading.yuv import YuvImage
from mcss.video.spool import CropSpool, Rectangle, surroundings

AROUND = 0.5
"""Seconds before and after an image whose detections decide which parts of the image are kept."""

WAITING_BYTES = 600_000_000
"""Most memory for decoded images that wait for the detections half a second later."""

BLOCK = 0.5
"""Seconds whose crop boxes are computed at once, because their computation costs about the same for one image."""


class WaitingImages:
    """Decoded images that wait until it is known which part of them to keep."""

    def __init__(
        self,
        video: VideoFile,
        rate: float,
        margin: float,
        tracker: ViewTracker,
        step: int,
        spool: CropSpool,
        cut_early: bool,
    ) -> None:
        """Begin a view.

        Args:
            video: The view's video.
            rate: Images per second.
            margin: Side of a crop box divided by the longer side of the person's bounding box.
            tracker: Has seen every `step`-th image so far.
            step: Images from one detection to the next.
            spool: Receives what is kept.
            cut_early: Cut the crops out where only one person may be meant; otherwise keep surroundings alone.
        """
        self._video, self._rate, self._margin = video, rate, margin
        self._tracker, self._step, self._spool, self._cut_early = tracker, step, spool, cut_early
        self._around = max(step, round(AROUND * rate))
        self._reach = steady_reach(rate)
        self._block = max(1, round(BLOCK * rate))
        most = max(2, WAITING_BYTES // (video.width * video.height * 3 // 2))
        self._most = min(most, max(self._around, self._reach + step) + self._block)
        self._detected: list[Boxes] = []
        self._images: deque[YuvImage] = deque()
        self._surroundings: tuple[tuple[int, int], list[tuple[Rectangle, float]]] = (-1, -1), []

    def add(self, image: YuvImage, detected: Boxes | None) -> None:
        """Add the next image and, if people were looked for in it, everything that may be a person."""
        if detected is not None:
            self._detected.append(detected)
        self._images.append(image)
        if len(self._images) > self._most:
            self._keep(self._block, ended=False)

    def end(self) -> None:
        """Keep what is left at the end of the video."""
        while self._images:
            self._keep(self._block, ended=True)

    def _keep(self, count: int, ended: bool) -> None:
        """Keep something of the oldest images."""
        count = min(count, len(self._images))
        crop_boxes = self._crop_boxes(len(self._spool), count, ended)
        for k in range(count):
            image = self._images.popleft()
            if crop_boxes:
                self._spool.append_crops(image, [boxes[k] for boxes in crop_boxes])
            else:
                self._spool.append(image, self._surroundings_of(len(self._spool)))

    def _crop_boxes(self, start: int, count: int, ended: bool) -> list[Int64[np.ndarray, "count 4"]]:
        """Return the crop boxes that some images may get if only one person may be meant in them; else none."""
        if not self._cut_early:
            return []
        first = max(0, start - self._reach) // self._step
        last = min(-(-(start + count - 1 + self._reach) // self._step), len(self._detected) - 1)
        known = last * self._step + 1
        if ended and last == len(self._detected) - 1:
            known = start + len(self._images)
        elif start + count + self._reach > known:
            return []
        begin, (width, height) = first * self._step, (self._video.width, self._video.height)
        scale = np.array([width, height] * 2) / np.array(self._tracker.size * 2)
        crop_boxes = []
        for boxes in self._tracker.only_person(first, last):
            all_boxes = np.full((known - begin, 4), np.nan)
            all_boxes[:: self._step] = boxes * scale
            steady = steady_crop_boxes(interpolated_boxes(all_boxes), self._rate, self._margin, width, height)
            crop_boxes.append(steady[start - begin : start - begin + count])
        return crop_boxes

    def _surroundings_of(self, index: int) -> list[tuple[Rectangle, float]]:
        """Return what lies around everybody who was detected in an image, or shortly before or after."""
        first = max(0, (index - self._around) // self._step)
        last = min((index + self._around) // self._step, len(self._detected) - 1)
        if self._surroundings[0] != (first, last):  # images between two detections have the same surroundings
            found = surroundings(np.concatenate(self._detected[first : last + 1]), self._margin)
            self._surroundings = (first, last), found
        return self._surroundings[1]
