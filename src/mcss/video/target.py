"""Which of several people in a view is wanted: the largest, or the person whom the user points at."""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from mcss.errors import SourceError
from mcss.video.boxes import Box, Boxes, interpolated_boxes
from mcss.video.people import ViewTracks
from mcss.video.reading.decoding import VideoFile
from mcss.video.recordings import Recording, ViewName

SYNTAX = "VIEW=X,Y@WHEN, such as left=640,380@12 (image 12) or left=640,380@0.5s (seconds)"

NEAR = 0.1
"""A click beside a box still hits it if its distance is at most this share of the box's longer side."""

WORTH_SHOWING = 0.15
"""Tracks lighter than this share of the heaviest are noise."""

COMPARABLE = 0.5
"""A person whose track is heavier than this share of the chosen one might be meant instead."""


@dataclass(frozen=True)
class ClickedPoint:
    """A point in an image at which the user says the person is."""

    view: str
    """The view's name, or ``subject/sequence/view``."""
    x: float
    """Pixels of the upright image."""
    y: float
    """Pixels of the upright image."""
    when: float
    in_seconds: bool
    """Whether `when` is seconds after the video's first image; otherwise it is the number of an image, from 0."""

    @classmethod
    def parsed(cls, text: str) -> "ClickedPoint":
        """Parse `SYNTAX`; without ``@WHEN`` the point is in image 0.

        Raises:
            ValueError: The text does not follow the syntax.
        """
        name, _, rest = text.rpartition("=")
        point, at, when = rest.partition("@")
        in_seconds = when.endswith("s")
        try:
            x, y = map(float, point.split(","))
            time = float(when.removesuffix("s")) if at else 0.0
        except ValueError:
            x = y = time = math.nan
        if not name or not all(map(math.isfinite, (x, y, time))) or not (in_seconds or time.is_integer()):
            raise ValueError(f"click: expected {SYNTAX}, got {text!r}")
        return cls(unicodedata.normalize("NFC", name), x, y, time, in_seconds)

    def image_number(self, video: VideoFile) -> int:
        """Return the number of the image in the view's video."""
        return video.image_at(self.when) if self.in_seconds else int(self.when)

    def __str__(self) -> str:
        return f"{self.x:g},{self.y:g}@{self.when:g}{'s' if self.in_seconds else ''}"


def clicked_points(recordings: Sequence[Recording], texts: Sequence[str]) -> dict[ViewName, ClickedPoint]:
    """Parse clicks and assign them to views; a view's full name takes precedence over its short one.

    Raises:
        SourceError: A click names an unknown view, a point outside its image or a time after its end.
    """
    videos = {(r.subject, r.sequence, v.name): v for r in recordings for v in r.views}
    clicks = sorted(map(ClickedPoint.parsed, texts), key=lambda click: click.view.count("/"))
    click_of: dict[ViewName, ClickedPoint] = {}
    for click in clicks:
        matching = [key for key in videos if click.view in (key[2], "/".join(key))]
        if not matching:
            names = ", ".join(dict.fromkeys(key[2] for key in videos))
            raise SourceError(
                f"click {click.view}={click}: there is no view {click.view!r}; the views are: {names}; to choose one "
                "recording's view, write SUBJECT/SEQUENCE/VIEW"
            )
        for key in matching:
            video, number = videos[key], click.image_number(videos[key])
            if not (0 <= click.x < video.width and 0 <= click.y < video.height):
                raise SourceError(
                    f"click {click.view}={click}: outside the image of {video.path}, which is "
                    f"{video.width}×{video.height} pixels when upright"
                )
            if not 0 <= number < video.count:
                raise SourceError(
                    f"click {click.view}={click}: image {number} is not in {video.path}, which has the images 0 to "
                    f"{video.count - 1} at {video.rate:.5g} per second"
                )
            click_of[key] = click
    return click_of


@dataclass(frozen=True, eq=False)
class Target:
    """The person who was chosen in a view."""

    video: VideoFile
    image_numbers: Int64[np.ndarray, " n"]
    """The number in the video of each image that was examined."""
    people: ViewTracks
    click: ClickedPoint | None
    chosen: int | None
    """Index of the chosen track; None if there is nobody where the user pointed."""

    @property
    def boxes(self) -> Boxes:
        """The person's boxes in source pixels, NaN where not seen; the heaviest track's if nobody is chosen."""
        width, height = self.people.size
        scale = np.array([self.video.width / width, self.video.height / height] * 2)
        return np.asarray(self.people.tracks[self.chosen or 0].over(self.people.count) * scale)

    @property
    def shown(self) -> list[int]:
        """Indices of the tracks worth showing, and of the chosen one."""
        tracks = self.people.tracks
        heavy = [i for i, t in enumerate(tracks) if t.weight >= WORTH_SHOWING * tracks[0].weight]
        return sorted({*heavy, *([] if self.chosen is None else [self.chosen])})

    def missed_click(self) -> str:
        """Return the error message for a click where nobody is."""
        others = "; ".join(f"#{i + 1} is chosen by --click {self.click_on(i)}" for i in self.shown[:6])
        return f"{self.video.path}: nobody is found at {self.click}; {others}"

    def ambiguity(self) -> str | None:
        """Return a note if another person might be meant."""
        tracks = self.people.tracks
        if self.click is not None or len(tracks) < 2 or tracks[1].weight < COMPARABLE * tracks[0].weight:
            return None
        return (
            f"{self.video.path}: several people are in view; the one who is seen longest and largest is used. To use "
            f"the next one, add --click {self.click_on(1)}"
        )

    def click_on(self, track_index: int) -> str:
        """Return the click that chooses a track, at the point where it is farthest from all others."""
        boxes = {i: interpolated_boxes(t.over(self.people.count)) for i, t in enumerate(self.people.tracks)}
        track = self.people.tracks[track_index]
        largest_distance, clearest = -np.inf, (0, 0.0, 0.0)
        seen = track.first + np.flatnonzero(track.seen)
        for index in seen[:: max(1, len(seen) // 200)].tolist():
            middle = (boxes[track_index][index, :2] + boxes[track_index][index, 2:]) / 2
            distances = [_distance(middle, boxes[i][index]) for i in boxes if i != track_index]
            distance = min(distances, default=0.0)
            if distance > largest_distance:
                largest_distance, clearest = distance, (index, *middle.tolist())
        index, x, y = clearest
        width, height = self.people.size
        x, y = x * self.video.width / width, y * self.video.height / height
        return f"{self.video.name}={x:.0f},{y:.0f}@{self.image_numbers[index]}"


def choose_target(
    video: VideoFile, image_numbers: Int64[np.ndarray, " n"], people: ViewTracks, click: ClickedPoint | None
) -> Target:
    """Choose the person in a view in which somebody was seen.

    Args:
        video: The view's video.
        image_numbers: The number in the video of each image that was examined.
        people: The people who were seen; at least one.
        click: Where the person is; None chooses the heaviest track.
    """
    if click is None:
        return Target(video, image_numbers, people, None, 0)
    index = int(np.abs(image_numbers[: people.count] - click.image_number(video)).argmin())
    width, height = people.size
    point = np.array([click.x * width / video.width, click.y * height / video.height])
    hits = []
    for number, track in enumerate(people.tracks):
        if track.first <= index < track.stop:
            box = interpolated_boxes(track.boxes)[index - track.first]
            middle = (box[:2] + box[2:]) / 2
            if _distance(point, box) <= NEAR * (box[2:] - box[:2]).max():
                hits.append((float(np.hypot(*((point - middle) / (box[2:] - box[:2])))), number))
    return Target(video, image_numbers, people, click, min(hits)[1] if hits else None)


def _distance(point: Float64[np.ndarray, " 2"], box: Box) -> float:
    """Return the distance of a point from a box in pixels, negative within it."""
    outside = np.maximum(box[:2] - point, point - box[2:])
    return float(np.hypot(*np.maximum(outside, 0)) if (outside > 0).any() else outside.max())


def clicks_as_settings(clicks: Mapping[ViewName, ClickedPoint]) -> dict[str, str]:
    """Return the clicks in the form in which a capture records them, because other clicks make another capture."""
    return {"/".join(key): str(click) for key, click in sorted(clicks.items())}
