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
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.optimize import linear_sum_assignment

from mcss.images import Image
from mcss.video.boxes import Box, Boxes, overlaps, share_inside, union_box
from mcss.video.detectors import Detections

ColourHistogram = Float32[np.ndarray, " bins"]
"""The share of each colour; shares sum to 1."""

PATIENCE = 1.0
"""Seconds for which the tracker waits for an unseen person at the position where they are expected."""

HIDDEN = 6.0
"""Seconds for which it waits while another person may hide them."""

CONFIRMED = 3
"""Detections that confirm a person; with fewer, a track is taken for noise."""

MAX_COST = 1.0
"""A detection whose cost exceeds this belongs to nobody tracked so far; 0 is the same position, size and colours."""

SAME_COLOURS, SIMILAR_COLOURS = 0.45, 0.7
"""Largest colour distance of the same person: anywhere at any time, and at the same place within `PATIENCE`."""

GROWN = 1.3
"""A detection this many times as wide or high as the person, where another person is expected too, shows both."""

MERGED = 1.0
"""Seconds for which the boxes of merged people are interpolated; beyond that both keep the joint box, so that neither
is lost."""


@dataclass(frozen=True, eq=False)
class PersonTrack:
    """Where one person was seen."""

    first: int
    """Index of the image of the first box."""
    boxes: Boxes
    """One per image from `first` on; NaN where the person was not seen."""
    colours: ColourHistogram
    weight: float
    """How long, how large and how surely the person was seen: Σ √(area · score), in pixels."""

    @property
    def stop(self) -> int:
        """Index of the image after the last box."""
        return self.first + len(self.boxes)

    @property
    def size(self) -> float:
        """Median of the boxes' longer sides in pixels."""
        return float(np.nanmedian((self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1)))

    @property
    def seen(self) -> Bool[np.ndarray, " n"]:
        """Whether the person was seen, for each image from `first` on."""
        return np.asarray(np.isfinite(self.boxes[:, 0]))

    def seen_at(self, index: int) -> bool:
        """Return whether the person was seen in an image."""
        return self.first <= index < self.stop and bool(self.seen[index - self.first])

    def over(self, count: int) -> Boxes:
        """Return the boxes in all `count` images of the video, NaN where the person was not seen."""
        boxes = np.full((count, 4), np.nan)
        boxes[self.first : self.stop] = self.boxes
        return boxes


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
                    if _adjoins(box, boxes[i], person.usual_side):
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
            tracks = _with_pieces(tracks)
        tracks = _linked(tracks, self._rate)
        return sorted(tracks, key=lambda t: -t.weight)

    def _patience(self, person: _TrackedPerson) -> float:
        return PATIENCE * self._rate if person.hits >= CONFIRMED else 1.0

    def _joined_pieces(self, detections: Detections) -> Detections:
        """Join the detections that lie where one person is expected."""
        expected = [p.box for p in self._people if p.hits >= CONFIRMED]
        if not expected or len(detections.boxes) < 2:
            return detections
        within = np.array([[share_inside(box, other) for other in expected] for box in detections.boxes]) > 0.6
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
        colour_cost = np.array([[_colour_distance(p.colours, other) for other in colours] for p in self._people])
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


def _colour_distance(a: ColourHistogram, b: ColourHistogram) -> float:
    """Return the Hellinger distance of two histograms, 0 to 1."""
    return float(np.sqrt(max(0.0, 1 - float(np.sqrt(a * b).sum()))))


def _adjoins(box: Box, piece: Box, usual_side: float) -> bool:
    """Return whether a piece belongs to a person's box: it is near, and both together are hardly larger than usual."""
    size = float((box[2:] - box[:2]).max())
    gap = float(np.hypot(*np.maximum(np.maximum(box[:2] - piece[2:], piece[:2] - box[2:]), 0)))
    both = union_box(box, piece)
    return gap < 0.06 * usual_side and float((both[2:] - both[:2]).max()) < 1.3 * max(usual_side, size)


def _with_pieces(tracks: list[PersonTrack]) -> list[PersonTrack]:
    """Merge tracks that are pieces of others, such as feet that a dark floor cuts off.

    Args:
        tracks: Heaviest first.
    """
    whole: list[PersonTrack] = []
    for piece in tracks:
        for i, track in enumerate(whole):
            joined = _joined(track, piece)
            if joined is not None:
                whole[i] = joined
                break
        else:
            whole.append(piece)
    return whole


def _joined(track: PersonTrack, piece: PersonTrack) -> PersonTrack | None:
    """Return the track with a piece of it added, or None if the other track is not a piece of it."""
    start, stop = max(track.first, piece.first), min(track.stop, piece.stop)
    if stop - start < 0.8 * piece.seen.sum():
        return None
    a, b = track.boxes[start - track.first : stop - track.first], piece.boxes[start - piece.first : stop - piece.first]
    union = np.concatenate([np.minimum(a[:, :2], b[:, :2]), np.maximum(a[:, 2:], b[:, 2:])], axis=1)
    near = np.array([_adjoins(x, y, track.size) for x, y in zip(a, b, strict=True)])  # never where either is NaN
    if near.sum() < 0.8 * piece.seen.sum():
        return None
    boxes = track.boxes.copy()
    part = boxes[start - track.first : stop - track.first]
    part[near] = union[near]
    return replace(track, boxes=boxes, weight=track.weight + piece.weight)


def _linked(tracks: list[PersonTrack], rate: float) -> list[PersonTrack]:
    """Link the tracks of people who left and came back, or were lost for long: same colours, never two at once."""
    people: list[PersonTrack] = []
    for track in sorted(tracks, key=lambda t: t.first):
        fits = [(cost, i) for i, person in enumerate(people) if (cost := _link_cost(person, track, rate)) is not None]
        if not fits:
            people.append(track)
            continue
        i = min(fits)[1]
        before = people[i]
        gap = np.full((track.first - before.stop, 4), np.nan)
        share = before.weight / (before.weight + track.weight)
        people[i] = PersonTrack(
            before.first,
            np.concatenate([before.boxes, gap, track.boxes]),
            (share * before.colours + (1 - share) * track.colours).astype(np.float32),
            before.weight + track.weight,
        )
    return people


def _link_cost(before: PersonTrack, after: PersonTrack, rate: float) -> float | None:
    """Return how much a person who appears differs from one who left; None if they cannot be the same person."""
    wait = after.first - before.stop
    ratio = after.size / before.size
    if wait < 0 or not 0.4 < ratio < 2.5:
        return None
    distance = _colour_distance(before.colours, after.colours)
    last, new = before.boxes[-1], after.boxes[0]
    apart = float(np.hypot(*((last[:2] + last[2:] - new[:2] - new[2:]) / 2))) / max(before.size, after.size)
    same_place = wait <= PATIENCE * rate and apart < 1.0
    return distance if distance < (SIMILAR_COLOURS if same_place else SAME_COLOURS) else None
