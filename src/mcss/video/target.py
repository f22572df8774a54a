"""Which of several people is meant: the largest, or the one the user points at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mcss.errors import SourceError
from mcss.video.boxes import View
from mcss.video.decoding import Footage
from mcss.video.people import Boxes, Watched, filled
from mcss.video.recordings import Recording

SYNTAX = "VIEW=X,Y@WHEN, such as left=640,380@12 (image 12) or left=640,380@0.5s (seconds)"

NEAR = 0.1
"""A click beside a box hits it if it is not further away than this share of the box's longer side."""

WORTH_SHOWING = 0.15
"""Tracks that are lighter than this share of the heaviest are noise."""

COMPARABLE = 0.5
"""Somebody who shows himself more than this share of what the followed one does might be meant instead."""


@dataclass(frozen=True)
class Click:
    """A place in an image at which the person is."""

    view: str
    """The view's name, or ``subject/sequence/view``."""
    x: float
    """Pixels of the upright image."""
    y: float
    when: float
    in_seconds: bool
    """Whether `when` is seconds from the video's first image; otherwise it is the number of an image, from 0."""

    @classmethod
    def parsed(cls, text: str) -> "Click":
        """From `SYNTAX`; without ``@WHEN`` it is image 0.

        Raises:
            ValueError: It is written otherwise.
        """
        name, _, place = text.rpartition("=")
        point, at, when = place.partition("@")
        in_seconds = when.endswith("s")
        try:
            x, y = map(float, point.split(","))
            time = float(when.removesuffix("s")) if at else 0.0
        except ValueError:
            x = y = time = math.nan
        if not name or not all(map(math.isfinite, (x, y, time))) or not (in_seconds or time.is_integer()):
            raise ValueError(f"click: expected {SYNTAX}, came {text!r}")
        return cls(name, x, y, time, in_seconds)

    def image(self, view: Footage) -> int:
        """The number of the image."""
        return round(self.when * view.rate) if self.in_seconds else int(self.when)

    def __str__(self) -> str:
        return f"{self.x:g},{self.y:g}@{self.when:g}{'s' if self.in_seconds else ''}"


def clicks_of(recordings: Sequence[Recording], texts: Sequence[str]) -> dict[View, Click]:
    """The click for each view that has one; a view's full name goes before its short one.

    Raises:
        SourceError: A view that there is not, a place outside its image or a time after its end.
    """
    views = {(r.subject, r.sequence, v.name): v for r in recordings for v in r.views}
    clicks = sorted(map(Click.parsed, texts), key=lambda click: click.view.count("/"))
    found: dict[View, Click] = {}
    for click in clicks:
        meant = [key for key in views if click.view in (key[2], "/".join(key))]
        if not meant:
            names = ", ".join(dict.fromkeys(key[2] for key in views))
            raise SourceError(
                f"click {click.view}={click}: there is no view {click.view!r}; the views are: {names}; or say which "
                "recording's view as SUBJECT/SEQUENCE/VIEW"
            )
        for key in meant:
            view, image = views[key], click.image(views[key])
            if not (0 <= click.x < view.width and 0 <= click.y < view.height):
                raise SourceError(
                    f"click {click.view}={click}: outside the image of {view.path}, which is "
                    f"{view.width}×{view.height} pixels when upright"
                )
            if not 0 <= image < view.count:
                raise SourceError(
                    f"click {click.view}={click}: image {image} is not in {view.path}, which has the images 0 to "
                    f"{view.count - 1} at {view.rate:.5g} per second"
                )
            found[key] = click
    return found


@dataclass(frozen=True, eq=False)
class Followed:
    """Who is followed in one view."""

    view: Footage
    taken: Int64[np.ndarray, " n"]
    """The number in the video of each image that was looked at."""
    watched: Watched
    click: Click | None
    chosen: int | None
    """The number of the track from 0; None if there is nobody where the user pointed."""

    @property
    def boxes(self) -> Boxes:
        """The person's boxes in source pixels, NaN where not seen; those of somebody else if nobody is chosen."""
        return self._scaled(self.watched.tracks[self.chosen or 0].over(self.watched.count))

    @property
    def shown(self) -> list[int]:
        """The tracks worth showing, and the chosen one."""
        tracks = self.watched.tracks
        heavy = [i for i, t in enumerate(tracks) if t.weight >= WORTH_SHOWING * tracks[0].weight]
        return sorted({*heavy, *([] if self.chosen is None else [self.chosen])})

    def problem(self) -> str:
        """What is wrong if there is nobody where the user pointed."""
        others = "; ".join(f"#{i + 1} is chosen by --click {self.click_on(i)}" for i in self.shown[:6])
        return f"{self.view.path}: nobody is found at {self.click}; {others}"

    def doubt(self) -> str | None:
        """A note if somebody else might be meant."""
        tracks = self.watched.tracks
        if self.click is not None or len(tracks) < 2 or tracks[1].weight < COMPARABLE * tracks[0].weight:
            return None
        return (
            f"{self.view.path}: of several people the one who is seen longest and largest is followed; another one is "
            f"chosen by --click {self.click_on(1)}"
        )

    def click_on(self, number: int) -> str:
        """What the user writes to choose a track: where it is best told from all others."""
        boxes = {i: filled(t.over(self.watched.count)) for i, t in enumerate(self.watched.tracks)}
        track = self.watched.tracks[number]
        best, place = -np.inf, (0, 0.0, 0.0)
        seen = track.first + np.flatnonzero(track.seen)
        for at in seen[:: max(1, len(seen) // 200)].tolist():
            middle = (boxes[number][at, :2] + boxes[number][at, 2:]) / 2
            apart = [_beside(middle, boxes[i][at]) for i in boxes if i != number]
            score = min(apart, default=0.0)
            if score > best:
                best, place = score, (at, *middle.tolist())
        at, x, y = place
        width, height = self.watched.size
        x, y = x * self.view.width / width, y * self.view.height / height
        return f"{self.view.name}={x:.0f},{y:.0f}@{self.taken[at]}"

    def _scaled(self, boxes: Boxes) -> Boxes:
        width, height = self.watched.size
        scaled: Boxes = boxes * np.array([self.view.width / width, self.view.height / height] * 2)
        return scaled


def followed(view: Footage, taken: Int64[np.ndarray, " n"], watched: Watched, click: Click | None) -> Followed:
    """Choose the person in a view in which somebody was seen.

    Args:
        view: The video.
        taken: The number in the video of each image that was looked at.
        watched: What was seen; at least one track.
        click: Where the person is; None for the one who shows most of himself.
    """
    if click is None:
        return Followed(view, taken, watched, None, 0)
    at = int(np.abs(taken[: watched.count] - click.image(view)).argmin())
    width, height = watched.size
    place = np.array([click.x * width / view.width, click.y * height / view.height])
    hits = []
    for number, track in enumerate(watched.tracks):
        if track.first <= at < track.stop:
            box = filled(track.boxes)[at - track.first]
            middle = (box[:2] + box[2:]) / 2
            if _beside(place, box) <= NEAR * (box[2:] - box[:2]).max():
                hits.append((float(np.hypot(*((place - middle) / (box[2:] - box[:2])))), number))
    return Followed(view, taken, watched, click, min(hits)[1] if hits else None)


def _beside(place: np.ndarray, box: np.ndarray) -> float:
    """How far a place is from a box, negative within it: pixels."""
    outside = np.maximum(box[:2] - place, place - box[2:])
    return float(np.hypot(*np.maximum(outside, 0)) if (outside > 0).any() else outside.max())


def clicks_as_settings(clicks: Mapping[View, Click]) -> dict[str, str]:
    """The clicks as a capture remembers them: another choice makes another capture."""
    return {"/".join(key): str(click) for key, click in sorted(clicks.items())}
