"""Tracks of people, and which of them belong together: pieces of one person, and people who left and came back."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from mcss.video.boxes import Box, Boxes

ColourHistogram = Float32[np.ndarray, " bins"]
"""The share of each colour; shares sum to 1."""

PATIENCE = 1.0
"""Seconds for which the tracker waits for an unseen person at the position where they are expected."""

BESIDE = 0.06
"""Largest gap between a person and a piece of them, as a share of the usual longer side of the person's box."""

SAME_COLOURS, SIMILAR_COLOURS = 0.45, 0.7
"""Largest colour distance of the same person: anywhere at any time, and at the same place within `PATIENCE`."""


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


def colour_distance(a: ColourHistogram, b: ColourHistogram) -> float:
    """Return the Hellinger distance of two histograms, 0 to 1."""
    return float(np.sqrt(max(0.0, 1 - float(np.sqrt(a * b).sum()))))


def adjoins(box: Box, piece: Box, usual_side: float, reach: float = BESIDE) -> bool:
    """Return whether a piece belongs to a person's box: it is near, and both together are hardly larger than usual.

    Args:
        box: The person's box.
        piece: The box of what may be a piece of them.
        usual_side: The usual longer side of the person's box.
        reach: The largest gap between both, as a share of that side.
    """
    return bool(adjoin(box[None], piece[None], usual_side, reach)[0])


def adjoin(boxes: Boxes, pieces: Boxes, usual_side: float, reach: float = BESIDE) -> Bool[np.ndarray, " n"]:
    """Return for each row whether the piece belongs to the box (`adjoins`); never where either is unknown (NaN)."""
    gaps = np.maximum(np.maximum(boxes[:, :2] - pieces[:, 2:], pieces[:, :2] - boxes[:, 2:]), 0)
    low, high = np.minimum(boxes[:, :2], pieces[:, :2]), np.maximum(boxes[:, 2:], pieces[:, 2:])
    usual = np.fmax((boxes[:, 2:] - boxes[:, :2]).max(axis=1), usual_side)
    near = np.hypot(gaps[:, 0], gaps[:, 1]) < reach * usual_side
    return np.asarray(near & ((high - low).max(axis=1) < 1.3 * usual), bool)


def joined_boxes(boxes: Boxes, pieces: Boxes, usual_side: float) -> tuple[Boxes, Bool[np.ndarray, " n"]]:
    """Return boxes enlarged by the pieces that belong to them (`adjoin`), and which ones have such a piece."""
    near = adjoin(boxes, pieces, usual_side)
    both = np.concatenate([np.minimum(boxes[:, :2], pieces[:, :2]), np.maximum(boxes[:, 2:], pieces[:, 2:])], axis=1)
    return np.where(near[:, None], both, boxes), near


def with_pieces(tracks: list[PersonTrack]) -> list[PersonTrack]:
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
    both, near = joined_boxes(a, b, track.size)
    if near.sum() < 0.8 * piece.seen.sum():
        return None
    boxes = track.boxes.copy()
    boxes[start - track.first : stop - track.first] = both
    return replace(track, boxes=boxes, weight=track.weight + piece.weight)


def linked(tracks: list[PersonTrack], rate: float) -> list[PersonTrack]:
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
    distance = colour_distance(before.colours, after.colours)
    last, new = before.boxes[-1], after.boxes[0]
    apart = float(np.hypot(*((last[:2] + last[2:] - new[:2] - new[2:]) / 2))) / max(before.size, after.size)
    same_place = wait <= PATIENCE * rate and apart < 1.0
    return distance if distance < (SIMILAR_COLOURS if same_place else SAME_COLOURS) else None
