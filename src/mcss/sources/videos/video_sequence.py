"""One recording of a folder of videos: whether its views fit together, and the rows that it gives a capture."""

import re
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mcss.data.schema import Frame
from mcss.errors import SourceError
from mcss.sources.assembly import Note
from mcss.sources.rows import SequenceInstants, SequenceView, multi_view_rows
from mcss.sources.videos.pose_labels import RecordingLabels
from mcss.video.person_crops import ViewToCrop
from mcss.video.recordings import Recording
from mcss.video.sync.clocks import MIN_CONFIDENCE, REMEDY, SYNC_FILE, Clocks
from mcss.video.track_sheet import report_targets


def views_in_step(recording: Recording, max_missing: int) -> list[str]:
    """Check that the views of a recording without clocks can be in step.

    Returns:
        A note if longer views are cut.

    Raises:
        SourceError: The views differ in frame rate, or by more than `max_missing` images.
    """
    short = min(recording.views, key=lambda view: view.count)
    long = max(recording.views, key=lambda view: view.count)
    slow = min(recording.views, key=lambda view: view.rate)
    fast = max(recording.views, key=lambda view: view.rate)
    if fast.rate - slow.rate > 1e-3 * fast.rate:
        raise SourceError(
            f"{slow.path} has {slow.rate:.5g} images per second, {fast.path} {fast.rate:.5g}; expected one rate: "
            "let `mcss sync` find out how they fit together, or convert them to one frame rate first"
        )
    if long.count - short.count > max_missing:
        raise SourceError(
            f"{short.path} has {short.count} images, {long.path} {long.count}; expected views of one recording to "
            f"differ by at most {max_missing}: cut them to the same start and end, raise max_missing if they start "
            "together, or let `mcss sync` find their offsets"
        )
    if long.count == short.count:
        return []
    return [
        f"{recording.name}: clipped to the {short.count} images of {short.path.name} "
        f"({long.path.name} has {long.count})"
    ]


def clock_warnings(recording: Recording, clocks: Clocks) -> list[str]:
    """Return a warning for each view whose clock is uncertain."""
    return [
        f"{view.path}: its offset of {clocks[view.name].start:.3f} s in {SYNC_FILE} is uncertain (confidence "
        f"{clocks[view.name].confidence:.2f}); {REMEDY}"
        for view in recording.views
        if clocks[view.name].confidence < MIN_CONFIDENCE
    ]


def timing_warnings(recording: Recording) -> list[str]:
    """Return a warning for each view whose images are not evenly spaced in time."""
    return [
        f"{view.path}: its images are not evenly spaced in time (dropped ones, or a variable frame rate), so it may "
        "be out of step with the other views; convert it to a constant frame rate if crops of one instant do not agree"
        for view in recording.views
        if not view.evenly_timed
    ]


@dataclass(frozen=True, eq=False)
class VideoSequence:
    """A recording of which nothing has been decoded yet; a `SearchedSequence`."""

    subject: str
    sequence: str
    views: tuple[ViewToCrop, ...]
    frame_numbers: Int64[np.ndarray, " n"]
    """Numbers of the instants."""
    rate: float
    """Frames per second."""
    labels: RecordingLabels | None
    notes: tuple[str, ...]
    """What is already known to be unusual."""
    track_sheet: Path | None = None
    """File of the track sheet; None draws none."""

    @property
    def images(self) -> int:
        """Number of rows that the files promise."""
        return min(len(view.image_numbers) for view in self.views) * len(self.views)

    @property
    def steps(self) -> int:
        """Number of images to search, and of rows."""
        return self.images + sum(len(view.image_numbers) for view in self.views if view.boxes is None)

    def frames(self, note: Note) -> Generator[Frame | int]:
        """Find the person in every view, then yield the rows.

        Raises:
            SourceError: A video is damaged, or nobody is seen in it.
        """
        for text in self.notes:
            note(text)
        action = re.sub(r"[\s_.-]*\d+$", "", self.sequence) or self.sequence
        with ExitStack() as stack:
            view_crops = []
            for view in self.views:
                view_crops.append((yield from view.find_person(note)))
                stack.callback(view_crops[-1].close)
            targets = [crops.target for crops in view_crops if crops.target is not None]
            report_targets(targets, f"{self.subject}/{self.sequence}", self.track_sheet, note)
            count = min(len(self.frame_numbers), *map(len, view_crops))
            frame_numbers = self.frame_numbers[:count]
            poses = None if self.labels is None else self.labels.poses_at(frame_numbers)
            instants = SequenceInstants(frame_numbers, self.rate, [action] * count, poses)
            views = [
                SequenceView(view.video.name, crops.crops(count, note))
                for view, crops in zip(self.views, view_crops, strict=True)
            ]
            yield from multi_view_rows(self, instants, views, self.views[0].crop.quality, end_together=True)
