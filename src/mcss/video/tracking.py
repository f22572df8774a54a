"""People followed through a video: what a finder saw in single images → one track for each person.

Image after image each person's box is predicted from how it moved, and the boxes found are shared out among the
people such that they agree best in place, size and colours. Nothing but the boxes is kept, so length costs little
memory. Whose track is wanted is asked when all is seen (`mcss.video.target`).

Reference:
    Bewley et al., "Simple online and realtime tracking", ICIP 2016: constant velocity, overlap, and the Hungarian
    method. Departures: a running mean instead of a Kalman filter; colours (after Wojke et al., ICIP 2017, with a
    histogram instead of a network), since people who cross are told apart by them; and a box in which two people
    have run together is taken from both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.optimize import linear_sum_assignment

from mcss.images import Image
from mcss.video.detectors import Found

Box = Float64[np.ndarray, " 4"]
Boxes = Float64[np.ndarray, "n 4"]

PATIENCE = 1.0
"""Seconds for which somebody who is not seen is waited for at the place where he should be."""

HIDDEN = 6.0
"""Seconds, likewise, while he may be hidden by somebody else."""

CONFIRMED = 3
"""So many sightings make a person of what is otherwise thought noise."""

STRANGE = 1.0
"""A box that costs more than this is nobody's who was there before: 0 is the same place, size and colours."""

SAME_LOOK, LIKE = 0.45, 0.7
"""Colours that differ less are the same person's: anywhere and at any time; at the same place within `PATIENCE`."""

GROWN = 1.3
"""A box that is so much wider or higher than the person, and in which another one should be, holds both."""

BLENDED = 1.0
"""Seconds for which the box of people who have run together is bridged; later theirs is taken, so as to lose nobody."""


@dataclass(frozen=True, eq=False)
class Track:
    """Where one person was seen."""

    first: int
    """The image of the first box."""
    boxes: Boxes
    """One per image from `first` on; NaN where the person was not seen."""
    look: Float32[np.ndarray, " bins"]
    """Share of each colour."""
    weight: float
    """How much of the person was to be seen, and how surely: Σ √(area · score), in pixels."""

    @property
    def stop(self) -> int:
        """The image after the last box."""
        return self.first + len(self.boxes)

    @property
    def size(self) -> float:
        """The usual longer side of the boxes, pixels."""
        return float(np.nanmedian((self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1)))

    @property
    def seen(self) -> Bool[np.ndarray, " n"]:
        """Whether there is a box, for each image from `first` on."""
        return np.asarray(np.isfinite(self.boxes[:, 0]))

    def over(self, count: int) -> Boxes:
        """The boxes of all `count` images of the video, NaN where there is none."""
        boxes = np.full((count, 4), np.nan)
        boxes[self.first : self.stop] = self.boxes
        return boxes


@dataclass(eq=False)
class _Person:
    """Somebody who is being followed."""

    first: int
    centre: Float64[np.ndarray, " 2"]
    size: Float64[np.ndarray, " 2"]
    look: Float32[np.ndarray, " bins"]
    speed: Float64[np.ndarray, " 2"] = field(default_factory=lambda: np.zeros(2))
    boxes: list[Box] = field(default_factory=list)
    shared: list[bool] = field(default_factory=list)
    """Whether the box is also somebody else's."""
    weight: float = 0.0
    usual: float = 0.0
    """Mean longer side, pixels."""
    hits: int = 0
    lost: int = 0
    """Images since the person was last seen."""
    hidden: int = 0
    """How many of them somebody else was in front, or might have been."""

    @property
    def box(self) -> Box:
        return np.concatenate([self.centre - self.size / 2, self.centre + self.size / 2])

    def move(self) -> None:
        """To where the person should be in the next image."""
        self.centre = self.centre + self.speed
        if self.lost:
            self.speed = self.speed * 0.95

    def see(self, box: Box, score: float, look: Float32[np.ndarray, " bins"]) -> None:
        centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
        moved = centre - (self.centre - self.speed)
        if self.hits:
            self.speed = self.speed + (moved / (self.lost + 1) - self.speed) * (0.3 if self.lost == 0 else 0.5)
        self.centre = centre
        self.size = np.where(size > self.size, (self.size + size) / 2, 0.9 * self.size + 0.1 * size)
        new = max(0.05, 1 / (self.hits + 1))
        self.usual = (1 - new) * self.usual + new * float(size.max())
        if size.max() < GROWN * self.usual:  # not when somebody else may be in the box
            self.look = (0.85 * self.look + 0.15 * look).astype(np.float32)
        self.boxes.append(box)
        self.shared.append(False)
        self.weight += float(np.sqrt(max(score, 0.0) * size.prod()))
        self.hits, self.lost, self.hidden = self.hits + 1, 0, 0

    def miss(self, box: Box | None = None) -> None:
        """Not seen, or only in a box together with somebody else."""
        self.boxes.append(np.full(4, np.nan) if box is None else box)
        self.shared.append(box is not None)
        self.lost += 1
        self.hidden += box is not None


class Tracker:
    """Follows everybody, image after image."""

    def __init__(self, rate: float, in_pieces: bool) -> None:
        """Begin.

        Args:
            rate: Images per second.
            in_pieces: Whether the finder may see one person as several boxes, as background subtraction does.
        """
        self._rate = rate
        self._in_pieces = in_pieces
        self._count = 0
        self._people: list[_Person] = []
        self._gone: list[_Person] = []

    @property
    def count(self) -> int:
        """Images so far."""
        return self._count

    def look(self, image: Image, found: Found) -> None:
        """Take the next image, and what was found in it."""
        for person in self._people:
            person.move()
        if self._in_pieces:
            found = self._put_together(found)
        boxes, looks = found.boxes, [look_of(image, box) for box in found.boxes]
        owner = self._shared_out(boxes, looks)
        left = [i for i in range(len(boxes)) if i not in owner.values()]
        for number, person in enumerate(self._people):
            own = owner.get(number)
            if own is None or self._blended(number, boxes[own], owner):
                self._lose(number, owner, boxes)
                continue
            box = boxes[own]
            if self._in_pieces and person.hits >= CONFIRMED:
                for i in list(left):
                    if _adjoins(box, boxes[i], person.usual):
                        box = _union(box, boxes[i])
                        left.remove(i)
            person.see(box, float(found.scores[own]), looks[own])
        for i in left:
            person = _Person(self._count, (boxes[i, :2] + boxes[i, 2:]) / 2, boxes[i, 2:] - boxes[i, :2], looks[i])
            person.see(boxes[i], float(found.scores[i]), looks[i])
            self._people.append(person)
        self._count += 1
        gone = [p for p in self._people if p.lost - p.hidden > self._waited(p) or p.hidden > HIDDEN * self._rate]
        self._gone += [p for p in gone if p.hits >= CONFIRMED]
        self._people = [p for p in self._people if p not in gone]

    def tracks(self) -> list[Track]:
        """Everybody who was seen until now, the one who showed most of himself first."""
        people = self._gone + [p for p in self._people if p.hits >= CONFIRMED]
        tracks = sorted((self._track(p) for p in people), key=lambda t: -t.weight)
        if self._in_pieces:
            tracks = _with_pieces(tracks)
        tracks = _linked(tracks, self._rate)
        return sorted(tracks, key=lambda t: -t.weight)

    def _waited(self, person: _Person) -> float:
        return PATIENCE * self._rate if person.hits >= CONFIRMED else 1.0

    def _put_together(self, found: Found) -> Found:
        """What was found, with the pieces that lie where one person should be as one box."""
        expected = [p.box for p in self._people if p.hits >= CONFIRMED]
        if not expected or len(found.boxes) < 2:
            return found
        within = np.array([[_inside(box, other) for other in expected] for box in found.boxes]) > 0.6
        groups: dict[int, list[int]] = {}
        for i, of in enumerate(within):  # nobody's, or one's; what two may claim stays by itself
            groups.setdefault(int(of.argmax()) if of.sum() == 1 else -1 - i, []).append(i)
        boxes = [
            np.concatenate([found.boxes[of, :2].min(axis=0), found.boxes[of, 2:].max(axis=0)]) for of in groups.values()
        ]
        areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1) * found.scores
        filled = [areas[of].sum() / (b[2:] - b[:2]).prod() for of, b in zip(groups.values(), boxes, strict=True)]
        return Found.of(boxes, filled)

    def _shared_out(self, boxes: Boxes, looks: Sequence[Float32[np.ndarray, " bins"]]) -> dict[int, int]:
        """For the number of a person, that of his box."""
        if not self._people or not len(boxes):
            return {}
        expected = np.stack([p.box for p in self._people])
        place = 1 - overlaps(expected, boxes)
        sizes = np.stack([p.size for p in self._people]).max(axis=1)
        apart = (expected[:, None, :2] + expected[:, None, 2:] - boxes[None, :, :2] - boxes[None, :, 2:]) / 2
        apart = np.hypot(apart[..., 0], apart[..., 1]) / np.maximum(sizes[:, None], 1)
        colour = np.array([[_differ(p.look, look) for look in looks] for p in self._people])
        sure = np.array([0.0 if p.hits >= CONFIRMED else 0.2 for p in self._people])[:, None]
        cost = 0.4 * place + 0.4 * np.minimum(apart, 2) + 0.6 * colour + sure
        reach = np.array([0.6 + min(p.lost / self._rate, 1.4) for p in self._people])[:, None]
        cost[(apart > reach) | (cost > STRANGE)] = 1e3
        rows, columns = linear_sum_assignment(cost)
        return {int(r): int(c) for r, c in zip(rows, columns, strict=True) if cost[r, c] < 1e3}

    def _blended(self, number: int, box: Box, owner: dict[int, int]) -> bool:
        """Whether somebody else, who has no box of his own, has run together with this person."""
        return any(other not in owner and self._holds_both(box, number, other) for other in range(len(self._people)))

    def _holds_both(self, box: Box, one: int, other: int) -> bool:
        """Whether a box is that of two people, neither of them a speck beside the other."""
        a, b = self._people[one], self._people[other]
        areas = sorted((a.size.prod(), b.size.prod()))
        if one == other or min(a.hits, b.hits) < CONFIRMED or areas[0] < 0.2 * areas[1]:
            return False
        both = _union(a.box, b.box)
        larger = ((box[2:] - box[:2]) > GROWN * np.minimum(a.size, b.size)).any()
        return bool(larger and float(overlaps(box[None], both[None])[0, 0]) > 0.6)

    def _lose(self, number: int, owner: dict[int, int], boxes: Boxes) -> None:
        """Somebody who has no box of his own: blended with another, hidden by him, or not to be seen."""
        person = self._people[number]
        for other, i in owner.items():
            with_whom = [o for o in range(len(self._people)) if o not in owner] if other == number else [other]
            if any(self._holds_both(boxes[i], number, o) for o in with_whom):
                person.miss(boxes[i])
                room = np.maximum((boxes[i][2:] - boxes[i][:2] - person.size) / 2, 0)  # he is in there somewhere
                middle = (boxes[i][:2] + boxes[i][2:]) / 2
                person.centre = np.clip(person.centre, middle - room, middle + room)
                return
        person.miss()
        if any(_inside(person.box, boxes[i]) > 0.5 for other, i in owner.items() if other != number):
            person.hidden += 1

    def _track(self, person: _Person) -> Track:
        boxes, shared = np.stack(person.boxes), np.array(person.shared)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], shared, [False]])))
        for start, stop in edges.reshape(-1, 2):
            if stop - start <= BLENDED * self._rate:
                boxes[start:stop] = np.nan
        seen = np.flatnonzero(np.isfinite(boxes[:, 0]))
        return Track(person.first, boxes[: seen[-1] + 1], person.look, person.weight)


def look_of(image: Image, box: Box) -> Float32[np.ndarray, " bins"]:
    """The colours in the middle of a box, as shares that sum to 1."""
    height, width = image.shape[:2]
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) * (0.3, 0.42)
    x0, y0 = np.clip(middle - half, 0, [width - 1, height - 1]).astype(int)
    x1, y1 = np.clip(np.ceil(middle + half), [x0 + 1, y0 + 1], [width, height]).astype(int)
    colours = cv2.cvtColor(np.ascontiguousarray(image[y0:y1, x0:x1]), cv2.COLOR_RGB2HSV)
    shares = cv2.calcHist([colours], [0, 1, 2], None, [8, 4, 4], [0, 180, 0, 256, 0, 256]).ravel()
    return np.asarray(shares / max(shares.sum(), 1), np.float32)


def overlaps(a: Float64[np.ndarray, "n 4"], b: Float64[np.ndarray, "m 4"]) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of every box of `a` with every box of `b`."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(high - low, 0).prod(axis=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=-1) for boxes in (a, b)]
    return np.asarray(common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9))


def _differ(a: Float32[np.ndarray, " bins"], b: Float32[np.ndarray, " bins"]) -> float:
    """How far two looks are apart, 0 to 1 (Hellinger)."""
    return float(np.sqrt(max(0.0, 1 - float(np.sqrt(a * b).sum()))))


def _union(a: Box, b: Box) -> Box:
    return np.concatenate([np.minimum(a[:2], b[:2]), np.maximum(a[2:], b[2:])])


def _adjoins(box: Box, piece: Box, usual: float) -> bool:
    """Whether a piece lies so near to a person's box that it belongs to it: both are hardly larger than usual."""
    size = float((box[2:] - box[:2]).max())
    gap = float(np.hypot(*np.maximum(np.maximum(box[:2] - piece[2:], piece[:2] - box[2:]), 0)))
    both = _union(box, piece)
    return gap < 0.06 * usual and float((both[2:] - both[:2]).max()) < 1.3 * max(usual, size)


def _inside(box: Box, other: Box) -> float:
    """The share of a box that lies in another one."""
    common = np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0).prod()
    return float(common / max((box[2:] - box[:2]).prod(), 1e-9))


def _with_pieces(tracks: list[Track]) -> list[Track]:
    """Tracks with those taken in that are a piece of theirs, such as feet that a dark floor cuts off.

    Args:
        tracks: The heaviest first.
    """
    whole: list[Track] = []
    for piece in tracks:
        for i, track in enumerate(whole):
            joined = _joined(track, piece)
            if joined is not None:
                whole[i] = joined
                break
        else:
            whole.append(piece)
    return whole


def _joined(track: Track, piece: Track) -> Track | None:
    """The track with a piece of it, or None if it is none."""
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


def _linked(tracks: list[Track], rate: float) -> list[Track]:
    """One track for somebody who left and came back, or was lost for longer: the same colours, never twice at once."""
    people: list[Track] = []
    for track in sorted(tracks, key=lambda t: t.first):
        fits = [(cost, i) for i, person in enumerate(people) if (cost := _again(person, track, rate)) is not None]
        if not fits:
            people.append(track)
            continue
        i = min(fits)[1]
        before = people[i]
        gap = np.full((track.first - before.stop, 4), np.nan)
        share = before.weight / (before.weight + track.weight)
        people[i] = Track(
            before.first,
            np.concatenate([before.boxes, gap, track.boxes]),
            (share * before.look + (1 - share) * track.look).astype(np.float32),
            before.weight + track.weight,
        )
    return people


def _again(before: Track, after: Track, rate: float) -> float | None:
    """How much somebody who appears differs from one who went; None if they cannot be the same."""
    wait = after.first - before.stop
    ratio = after.size / before.size
    if wait < 0 or not 0.4 < ratio < 2.5:
        return None
    colour = _differ(before.look, after.look)
    last, now = before.boxes[-1], after.boxes[0]
    apart = float(np.hypot(*((last[:2] + last[2:] - now[:2] - now[2:]) / 2))) / max(before.size, after.size)
    here = wait <= PATIENCE * rate and apart < 1.0
    return colour if colour < (LIKE if here else SAME_LOOK) else None
