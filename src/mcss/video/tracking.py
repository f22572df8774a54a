"""People tracked through a video: from the detections in single images to one track per person.

In each image, every person's box is predicted from their motion, and the detections are assigned to people such that
they agree best in position, size and colours. Only boxes are kept, so a long video costs little memory. Which track is
wanted is decided when the whole video has been seen (`mcss.video.target`).

Reference:
    Bewley et al., "Simple online and realtime tracking", ICIP 2016: constant velocity, overlap, and the Hungarian
    method. Departures: a running mean instead of a Kalman filter; colours (after Wojke et al., ICIP 2017, with a
    histogram instead of a network), because they tell apart people who cross; and a detection in which two people
    have merged is given to neither of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float64
from scipy.optimize import linear_sum_assignment

from mcss.images import Image
from mcss.video.boxes import Box, Boxes, overlaps, share_inside, shares_inside, union_box
from mcss.video.detectors import Detections
from mcss.video.tracks import (
    BESIDE,
    PATIENCE,
    ColourHistogram,
    PersonTrack,
    adjoin,
    adjoins,
    colour_distance,
    joined_boxes,
    linked,
    with_pieces,
)

HIDDEN = 6.0
"""Seconds for which it waits while another person may hide them."""

CONFIRMED = 3
"""Detections that confirm a person; with fewer, a track is taken for noise."""

MAX_COST = 1.0
"""A detection whose cost exceeds this belongs to nobody tracked so far; 0 is the same position, size and colours."""

GROWN = 1.3
"""A detection this many times as wide or high as the person, where another person is expected too, shows both."""

MERGED = 1.0
"""Seconds for which the boxes of merged people are interpolated; beyond that both keep the joint box, so that neither
is lost."""

OVERLOOKED = 0.5
"""A track that is less than this many times as heavy as the heaviest one is not expected to be the person who is wanted
in the end."""

WITHIN, SPLIT = 0.6, 0.15
"""A detection of which more than this share lies where a person is belongs to them; and how far apart the pieces may be
into which the box of a moment ago falls, as a share of the usual longer side."""

MOST_PIECES = 2
"""With more possible pieces of a person than this, it stays open until the end which boxes the person has."""

LATELY = 4.0
"""Seconds in which a small track is compared with a large one of which it may be a piece."""


@dataclass(eq=False)
class _TrackedPerson:
    """The state of a person who is being tracked."""

    first: int
    centre: Float64[np.ndarray, " 2"]
    size: Float64[np.ndarray, " 2"]
    colours: ColourHistogram
    speed: Float64[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))
    boxes: list[Box] = field(default_factory=list)
    shared: list[bool] = field(default_factory=list)
    """Whether each box is also another person's."""
    weight: float = 0.0
    usual_side: float = 0.0
    """Running mean of the longer side in pixels."""
    hits: int = 0
    lost: int = 0
    """Images since the person was last seen."""
    hidden: int = 0
    """How many of them another person may have hidden this one."""

    @property
    def box(self) -> Box:
        return np.concatenate([self.centre - self.size / 2, self.centre + self.size / 2])

    @property
    def median_side(self) -> float:
        """The median of the boxes' longer sides in pixels so far; of a long track, that of a few hundred boxes."""
        boxes = np.stack(self.boxes[:: 1 + len(self.boxes) // 256])
        return float(np.nanmedian((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))

    def over(self, first: int, last: int) -> Boxes:
        """Return the boxes in images `first` to `last`; NaN where the person was not seen, also before and after."""
        boxes = np.full((last + 1 - first, 4), np.nan)
        start, stop = max(first, self.first), min(last + 1, self.first + len(self.boxes))
        if start < stop:
            boxes[start - first : stop - first] = self.boxes[start - self.first : stop - self.first]
        return boxes

    def has_piece(self, box: Box, piece: Box) -> bool:
        """Return whether a detection is a piece of the person, of whom another detection is `box`.

        What was in the person's box a moment ago may be a little farther away: parts of a person that look like what is
        behind them leave gaps. Nobody grows much in a moment, but people may stretch in the course of a recording.
        """
        before = self.boxes[-1]
        if not np.isfinite(before).all() or self.shared[-1]:
            return adjoins(box, piece, self.usual_side)
        side = max(self.usual_side, float((before[2:] - before[:2]).max()))
        return adjoins(box, piece, side, SPLIT if share_inside(piece, before) > WITHIN else BESIDE)

    def move(self) -> None:
        """Move to where the person is expected in the next image."""
        self.centre = self.centre + self.speed
        if self.lost:
            self.speed = self.speed * 0.95

    def see(self, box: Box, score: float, colours: ColourHistogram) -> None:
        """Take over a detection of this person alone."""
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        moved = centre - (self.centre - self.speed)
        if self.hits:
            self.speed = self.speed + (moved / (self.lost + 1) - self.speed) * (0.3 if self.lost == 0 else 0.5)
        self.centre = centre
        self.size = np.where(size > self.size, (self.size + size) / 2, 0.9 * self.size + 0.1 * size)
        new = max(0.05, 1 / (self.hits + 1))
        self.usual_side = (1 - new) * self.usual_side + new * float(size.max())
        if size.max() < GROWN * self.usual_side:  # otherwise another person may be in the box
            self.colours = (0.85 * self.colours + 0.15 * colours).astype(np.float32)
        self.boxes.append(box)
        self.shared.append(False)
        self.weight += float(np.sqrt(max(score, 0.0) * size.prod()))
        self.hits, self.lost, self.hidden = self.hits + 1, 0, 0

    def miss(self, shared_box: Box | None = None) -> None:
        """Record an image in which the person was not seen, or only in a box shared with another person."""
        self.boxes.append(np.full(4, np.nan) if shared_box is None else shared_box)
        self.shared.append(shared_box is not None)
        self.lost += 1
        self.hidden += shared_box is not None


class PersonTracker:
    """Tracks every person through a video, image by image."""

    def __init__(self, rate: float, in_pieces: bool) -> None:
        """Begin a video.

        Args:
            rate: Images per second.
            in_pieces: Whether one person may be detected as several boxes, as background subtraction does.
        """
        self._rate = rate
        self._in_pieces = in_pieces
        self._count = 0
        self._people: list[_TrackedPerson] = []
        self._gone: list[_TrackedPerson] = []

    @property
    def count(self) -> int:
        """Number of images so far."""
        return self._count

    def update(self, image: Image, detections: Detections) -> None:
        """Take the next image and the detections in it."""
        for person in self._people:
            person.move()
        if self._in_pieces:
            detections = self._joined_pieces(detections)
        boxes, colours = detections.boxes, [colour_histogram(image, box) for box in detections.boxes]
        detection_of = self._assigned(boxes, colours)
        unassigned = [i for i in range(len(boxes)) if i not in detection_of.values()]
        for number, person in enumerate(self._people):
            index = detection_of.get(number)
            if index is None or self._merged(number, boxes[index], detection_of):
                self._lose(number, detection_of, boxes)
                continue
            box = boxes[index]
            if self._in_pieces and person.hits >= CONFIRMED:
                for i in list(unassigned):
                    if person.has_piece(box, boxes[i]):
                        box = union_box(box, boxes[i])
                        unassigned.remove(i)
            person.see(box, float(detections.scores[index]), colours[index])
        for i in unassigned:
            centre, size = (boxes[i, :2] + boxes[i, 2:]) / 2, boxes[i, 2:] - boxes[i, :2]
            person = _TrackedPerson(self._count, centre, size, colours[i])
            person.see(boxes[i], float(detections.scores[i]), colours[i])
            self._people.append(person)
        self._count += 1
        gone = [p for p in self._people if p.lost - p.hidden > self._patience(p) or p.hidden > HIDDEN * self._rate]
        self._gone += [p for p in gone if p.hits >= CONFIRMED]
        self._people = [p for p in self._people if p not in gone]

    def tracks(self) -> list[PersonTrack]:
        """Return everybody who was seen so far, heaviest track first."""
        people = self._gone + [p for p in self._people if p.hits >= CONFIRMED]
        tracks = sorted((self._track(p) for p in people), key=lambda t: -t.weight)
        if self._in_pieces:
            tracks = with_pieces(tracks)
        tracks = linked(tracks, self._rate)
        return sorted(tracks, key=lambda t: -t.weight)

    def only_person(self, first: int, last: int) -> list[Boxes]:
        """Return the boxes in images `first` to `last` that the only person in them may get, as far as is known now.

        There are several if something may turn out to be a piece of the person or not. There are none if that person
        was not seen in each of these images, or if somebody else who might be wanted was.
        """
        everybody = [p for p in (*self._gone, *self._people) if p.hits >= CONFIRMED]
        there = [p for p in everybody if p.first <= last and p.first + len(p.boxes) > first]
        if not there:
            return []
        person = max(there, key=lambda p: p.weight)
        start, stop = first - person.first, last + 1 - person.first
        if start < 0 or stop > len(person.boxes) or person.weight < OVERLOOKED * max(p.weight for p in everybody):
            return []
        boxes = person.over(first, last)
        if not np.isfinite(boxes).all() or any(person.shared[start:stop]):
            return []
        others = sorted((p for p in there if p is not person), key=lambda p: -p.weight)
        pieces = [p for p in others if self._may_be_piece(p, person, last)]
        if (others and others[0].weight >= OVERLOOKED * person.weight) or len(pieces) > MOST_PIECES:
            return []
        possible = [boxes]
        for piece in pieces:
            side, its_boxes = person.median_side, piece.over(first, last)
            possible += [joined_boxes(boxes, its_boxes, side)[0] for boxes in possible]
        return possible

    def _may_be_piece(self, piece: _TrackedPerson, person: _TrackedPerson, last: int) -> bool:
        """Return whether a piece was beside a person in half of the images up to `last` in which it was seen lately."""
        if not self._in_pieces:
            return False
        begin = max(piece.first, person.first, last + 1 - round(LATELY * self._rate))
        end = min(last + 1, piece.first + len(piece.boxes), person.first + len(person.boxes))
        if end <= begin:
            return False
        a, b = (p.over(begin, end - 1) for p in (person, piece))
        known = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
        return bool(known.any()) and 2 * int(adjoin(a, b, person.usual_side).sum()) >= int(known.sum())

    def _patience(self, person: _TrackedPerson) -> float:
        return PATIENCE * self._rate if person.hits >= CONFIRMED else 1.0

    def _joined_pieces(self, detections: Detections) -> Detections:
        """Join the detections that lie where one person is expected."""
        expected = [p.box for p in self._people if p.hits >= CONFIRMED]
        if not expected or len(detections.boxes) < 2:
            return detections
        within = shares_inside(detections.boxes, np.stack(expected)) > WITHIN
        groups: dict[int, list[int]] = {}
        for i, people in enumerate(within):  # a piece where nobody or several people are expected stays by itself
            groups.setdefault(int(people.argmax()) if people.sum() == 1 else -1 - i, []).append(i)
        boxes = [
            np.concatenate([detections.boxes[group, :2].min(axis=0), detections.boxes[group, 2:].max(axis=0)])
            for group in groups.values()
        ]
        areas = (detections.boxes[:, 2:] - detections.boxes[:, :2]).prod(axis=1) * detections.scores
        fills = [areas[group].sum() / (b[2:] - b[:2]).prod() for group, b in zip(groups.values(), boxes, strict=True)]
        return Detections.from_lists(boxes, fills)

    def _assigned(self, boxes: Boxes, colours: Sequence[ColourHistogram]) -> dict[int, int]:
        """Return the index of the detection of each person who has one."""
        if not self._people or not len(boxes):
            return {}
        expected = np.stack([p.box for p in self._people])
        overlap_cost = 1 - overlaps(expected, boxes)
        sizes = np.stack([p.size for p in self._people]).max(axis=1)
        distance = (expected[:, None, :2] + expected[:, None, 2:] - boxes[None, :, :2] - boxes[None, :, 2:]) / 2
        distance = np.hypot(distance[..., 0], distance[..., 1]) / np.maximum(sizes[:, None], 1)
        colour_cost = np.array([[colour_distance(p.colours, other) for other in colours] for p in self._people])
        unconfirmed = np.array([0.0 if p.hits >= CONFIRMED else 0.2 for p in self._people])[:, None]
        cost = 0.4 * overlap_cost + 0.4 * np.minimum(distance, 2) + 0.6 * colour_cost + unconfirmed
        reach = np.array([0.6 + min(p.lost / self._rate, 1.4) for p in self._people])[:, None]
        cost[(distance > reach) | (cost > MAX_COST)] = 1e3
        rows, columns = linear_sum_assignment(cost)
        return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if cost[r, c] < 1e3}

    def _merged(self, number: int, box: Box, detection_of: dict[int, int]) -> bool:
        """Return whether a person without a detection has merged with this person's detection."""
        return any(
            other not in detection_of and self._holds_both(box, number, other) for other in range(len(self._people))
        )

    def _holds_both(self, box: Box, number: int, other: int) -> bool:
        """Return whether a box holds two people, neither of them a speck beside the other."""
        a, b = self._people[number], self._people[other]
        areas = sorted((a.size.prod(), b.size.prod()))
        if number == other or min(a.hits, b.hits) < CONFIRMED or areas[0] < 0.2 * areas[1]:
            return False
        both = union_box(a.box, b.box)
        larger = ((box[2:] - box[:2]) > GROWN * np.minimum(a.size, b.size)).any()
        return bool(larger and float(overlaps(box[None], both[None])[0, 0]) > 0.6)

    def _lose(self, number: int, detection_of: dict[int, int], boxes: Boxes) -> None:
        """Record that a person has no detection: merged with another person, hidden by one, or not visible."""
        person = self._people[number]
        for other, i in detection_of.items():
            partners = [o for o in range(len(self._people)) if o not in detection_of] if other == number else [other]
            if any(self._holds_both(boxes[i], number, partner) for partner in partners):
                person.miss(boxes[i])
                room = np.maximum((boxes[i][2:] - boxes[i][:2] - person.size) / 2, 0)  # somewhere inside the box
                middle = (boxes[i][:2] + boxes[i][2:]) / 2
                person.centre = np.clip(person.centre, middle - room, middle + room)
                return
        person.miss()
        if any(share_inside(person.box, boxes[i]) > 0.5 for other, i in detection_of.items() if other != number):
            person.hidden += 1

    def _track(self, person: _TrackedPerson) -> PersonTrack:
        boxes, shared = np.stack(person.boxes), np.array(person.shared)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], shared, [False]])))
        for start, stop in edges.reshape(-1, 2):
            if stop - start <= MERGED * self._rate:
                boxes[start:stop] = np.nan
        seen = np.flatnonzero(np.isfinite(boxes[:, 0]))
        return PersonTrack(person.first, boxes[: seen[-1] + 1], person.colours, person.weight)


def colour_histogram(image: Image, box: Box) -> ColourHistogram:
    """Return the share of each colour in the middle of a box."""
    height, width = image.shape[:2]
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * (0.3, 0.42)
    x0, y0 = np.clip(middle - half, 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half), [x0 + 1, y0 + 1], [width, height]).astype(int)
    hsv = cv2.cvtColor(np.ascontiguousarray(image[y0:y1, x0:x1]), cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256]).ravel()
    return np.asarray(counts / max(counts.sum(), 1), np.float32)
