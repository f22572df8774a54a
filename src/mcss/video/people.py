"""People in the images of one view: found by motion without any trained network, and tracked through the video.

In front of a static camera, whatever differs from the empty scene (`mcss.video.background`) is grouped into
detections. A trained detector (`mcss.video.detectors`) may find people instead. Either way their detections are
tracked through time (`mcss.video.tracking`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool
from scipy.ndimage import find_objects

from mcss.data.instants import evenly_spread
from mcss.images import AnySizeImage, Image
from mcss.video.background import Foreground, nonzero_part
from mcss.video.boxes import Box, Boxes
from mcss.video.detectors import Detections, PersonDetector
from mcss.video.tracking import PersonTracker
from mcss.video.tracks import PersonTrack

MAX_GROUPS = 6
"""Number of groups of foreground that are considered in an image, the largest ones."""

SPECK = 0.0004
"""Groups below this share of the image are noise."""

REACH = 0.025
"""Pieces of foreground nearer than this share of the image's longer side belong together at first."""

EVERYTHING = 0.5
"""If a larger share of the image than this differs from the empty scene, the light or the camera has changed."""

KEPT_IMAGES = 24
"""Number of images of a view that are kept for display."""


@dataclass(frozen=True)
class ForegroundGroup:
    """A group of foreground pixels that may be the person, or a part of one."""

    box: Box
    area: float
    """Number of foreground pixels."""


def foreground_groups(mask: Bool[np.ndarray, "height width"]) -> list[ForegroundGroup]:
    """Return the largest groups of foreground in an image, largest first."""
    part = nonzero_part(mask, 2)
    if part is None:
        return []
    pixels = cv2.medianBlur(mask[part].astype(np.uint8), 3)  # removes specks
    reach = max(1, round(REACH * max(mask.shape) / 2))
    joined = cv2.dilate(pixels, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1)))
    _, labels = cv2.connectedComponents(joined)
    labels *= pixels
    areas = np.bincount(labels.ravel())
    groups = []
    left, top = part[1].start, part[0].start
    for area, place in zip(areas[1:].tolist(), find_objects(labels.astype(np.int32)), strict=True):
        if area < SPECK * mask.size:
            continue
        rows, columns = place
        box = np.array([left + columns.start, top + rows.start, left + columns.stop, top + rows.stop], np.float64)
        groups.append(ForegroundGroup(box, float(area)))
    groups.sort(key=lambda group: -group.area)
    return groups[:MAX_GROUPS]


class MotionDetector:
    """Detects what differs from the empty scene of a static camera; a person who never moves is part of the scene."""

    def __init__(self, foreground: Foreground) -> None:
        self._foreground = foreground

    def detect(self, images: Sequence[AnySizeImage]) -> list[Detections]:
        """Detect people, or pieces of them, in each image; the score is the share of its box that a group fills."""
        return [self._detect(self._foreground(image)) for image in images]

    def _detect(self, foreground: Bool[np.ndarray, "height width"]) -> Detections:
        if foreground.mean() > EVERYTHING:
            return Detections.from_lists([], [])
        groups = foreground_groups(foreground)
        sizes = [float((group.box[2:] - group.box[:2]).prod()) for group in groups]
        fills = [group.area / size for group, size in zip(groups, sizes, strict=True)]
        return Detections.from_lists([group.box for group in groups], fills)


@dataclass(frozen=True, eq=False)
class ViewTracks:
    """The people that were seen in a view."""

    count: int
    """Number of images that were examined."""
    size: tuple[int, int]
    """Width and height of these images."""
    tracks: tuple[PersonTrack, ...]
    """One track per person, the person who was seen longest and largest first."""
    kept_images: Mapping[int, Image]
    """Some of the images, by their index among those that were examined."""


class ViewTracker:
    """Detects and tracks people in the images of a view, one after the other; all but a few images are forgotten."""

    def __init__(self, detector: PersonDetector, rate: float, count: int) -> None:
        """Begin a view.

        Args:
            detector: Finds people in single images.
            rate: Images per second.
            count: Approximate number of images to come; the images that are kept are spread over them.
        """
        self._detector = detector
        self._tracker = PersonTracker(rate, in_pieces=isinstance(detector, MotionDetector))
        self._kept_indices = frozenset(evenly_spread(count, KEPT_IMAGES).tolist())
        self._kept_images: dict[int, Image] = {}
        self.size = (0, 0)
        """Width and height of the last image."""

    def update(self, image: Image) -> Detections:
        """Take the next image and return everything in it that may be a person."""
        if self._tracker.count in self._kept_indices:
            self._kept_images[self._tracker.count] = image
        self.size = (image.shape[1], image.shape[0])
        detections = self._detector.detect([image])[0]
        self._tracker.update(image, detections)
        return detections

    def only_person(self, first: int, last: int) -> list[Boxes]:
        """Return the boxes that the only person in images `first` to `last` may get (`PersonTracker`)."""
        return self._tracker.only_person(first, last)

    def result(self) -> ViewTracks:
        """Return the people seen so far."""
        return ViewTracks(self._tracker.count, self.size, tuple(self._tracker.tracks()), dict(self._kept_images))
