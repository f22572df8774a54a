"""One recording of a folder of videos: whether its views fit together, and the rows that it gives a capture."""

import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.data.schema import Frame
from mcss.errors import SourceError
from mcss.sources.assembly import Note
from mcss.sources.rows import SequenceInstants, SequenceView, multi_view_rows
from mcss.sources.videos.pose_labels import RecordingLabels
from mcss.video.crops import Crop, EncodedCrop
from mcss.video.person_crops import ViewToCrop
from mcss.video.reading.image_sequences import numbers_of_sequence
from mcss.video.reading.oddities import oddities
from mcss.video.recordings import Recording
from mcss.video.sync.clocks import MIN_CONFIDENCE, REMEDY, SYNC_FILE, Clocks, Timeline, in_step
from mcss.video.track_sheet import report_targets

_TIME_TABLE = re.compile(r".*time_?stamps?.*\.(csv|txt|tsv)", re.IGNORECASE)
"""Names of tables in which recording programs write when each image was taken."""


def views_in_step(recording: Recording, max_missing: int) -> list[str]:
    """Check that the views of a recording without clocks can be in step.

    Returns:
        A note if longer views are cut, or if their rates differ.

    Raises:
        SourceError: The views differ in length by more than `max_missing` images.
    """
    short = min(recording.views, key=lambda view: float(view.seconds[-1]))
    long = max(recording.views, key=lambda view: float(view.seconds[-1]))
    slow = min(recording.views, key=lambda view: view.rate)
    fast = max(recording.views, key=lambda view: view.rate)
    notes = []
    if all(view.evenly_timed for view in recording.views) and not in_step(recording):
        notes.append(
            f"{recording.name}: {slow.path.name} has {slow.rate:.5g} images per second, {fast.path.name} "
            f"{fast.rate:.5g}: each instant takes the image of every view that is nearest in time, as if all cameras "
            "had started together; let `mcss sync` find out whether they did"
        )
    numbers = {view.name: numbers_of_sequence(view.path)[0] for view in recording.views if view.path.is_dir()}
    if len(set(numbers.values())) > 1:
        notes.append(
            f"{recording.name}: the first images have the numbers "
            f"{', '.join(f'{number} ({name})' for name, number in numbers.items())}, and are taken to show the same "
            "instant; if not, give the offsets (mcss sync FOLDER --offsets VIEW=SECONDS)"
        )
    alike = in_step(recording)
    lacking = round((float(long.seconds[-1]) - float(short.seconds[-1])) * slow.rate)
    lacking = long.count - short.count if alike else lacking
    shorter, longer = f"{short.count} images", f"{long.count}"
    if not alike:
        shorter, longer = f"{shorter} in {short.seconds[-1]:.2f} s", f"{longer} in {long.seconds[-1]:.2f} s"
    if lacking > max_missing:
        raise SourceError(
            f"{short.path} has {shorter}, {long.path} {longer}; expected views of one recording to differ by at most "
            f"{max_missing} images: cut them to the same start and end, raise --max-missing if they start together, or "
            "let `mcss sync` find their offsets"
        )
    if lacking > 0:
        notes.append(f"{recording.name}: clipped to the {shorter} of {short.path.name} ({long.path.name} has {longer})")
    return notes


def clock_warnings(recording: Recording, clocks: Clocks) -> list[str]:
    """Return a warning for each view whose clock is uncertain."""
    return [
        f"{view.path}: its offset of {clocks[view.name].start:.3f} s in {SYNC_FILE} is uncertain (confidence "
        f"{clocks[view.name].confidence:.2f}); {REMEDY}"
        for view in recording.views
        if clocks[view.name].confidence < MIN_CONFIDENCE
    ]


def number_note(recording: Recording, clocks: Clocks) -> str:
    """Return a note on views that begin at different times by the numbers of their images."""
    first = min(recording.views, key=lambda view: clocks[view.name].start)
    later = [
        f"{view.name} {clocks[view.name].start - clocks[first.name].start:.3f} s"
        for view in recording.views
        if view is not first
    ]
    return (
        f"{recording.name}: by the numbers of the images, {', '.join(later)} after {first.name}; if each camera counts "
        "from its own start, import with --ignore-sync"
    )


def timing_notes(recording: Recording, line: Timeline) -> list[str]:
    """Return notes on views whose images are not evenly spaced in time, and on what else is odd about them."""
    notes = []
    for view in recording.views:
        if not view.evenly_timed:
            missing = int((~line.seen[view.name]).sum())
            notes.append(
                f"{view.path}: its images are not evenly spaced in time (lost ones, or a variable frame rate); they "
                f"are matched with those of the other views by their time stamps"
                + (f", and {missing:,} of {len(line.frames):,} instants lack this view" if missing else "")
            )
        notes += oddities(view)
    folders = dict.fromkeys(view.path.parent for view in recording.views)
    for path in sorted(path for folder in folders for path in folder.iterdir() if _TIME_TABLE.fullmatch(path.name)):
        notes.append(
            f"{path}: is not read; the times of images are those that the videos state. If cameras began at different "
            "times by this table, give the offsets (mcss sync FOLDER --offsets VIEW=SECONDS)"
        )
    return notes


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
    times: Float64[np.ndarray, " n"]
    """Seconds at which the instants were recorded."""
    seen: Mapping[str, Bool[np.ndarray, " n"]]
    """For each view, whether it has an image of each instant."""
    labels: RecordingLabels | None
    notes: tuple[str, ...]
    """What is already known to be unusual."""
    track_sheet: Path | None = None
    """File of the track sheet; None draws none."""

    @property
    def images(self) -> int:
        """Number of rows that the files promise."""
        return sum(int(mask.sum()) for mask in self.seen.values())

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
            count = min(
                _instants_until(self.seen[view.video.name], len(crops))
                for view, crops in zip(self.views, view_crops, strict=True)
            )
            frame_numbers = self.frame_numbers[:count]
            poses = None if self.labels is None else self.labels.poses_at(frame_numbers)
            instants = SequenceInstants(frame_numbers, self.rate, [action] * count, poses, self.times[:count])
            views = []
            for view, crops in zip(self.views, view_crops, strict=True):
                mask = self.seen[view.video.name][:count]
                own = _with_gaps(crops.crops(int(mask.sum()), note), mask)
                views.append(SequenceView(view.video.name, own, image_numbers=_source_numbers(view, mask)))
            yield from multi_view_rows(self, instants, views, self.views[0].crop.quality, end_together=True)


def _instants_until(seen: Bool[np.ndarray, " n"], images: int) -> int:
    """Return the number of instants before the first one for which a view has fewer images than it should."""
    return int(np.searchsorted(np.cumsum(seen), images, side="right"))


def _source_numbers(view: ViewToCrop, seen: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return the number of a view's image at each instant, from 0 or as its name says; 0 where there is none."""
    numbers = view.image_numbers[: int(seen.sum())]
    if view.video.path.is_dir():
        numbers = np.array(numbers_of_sequence(view.video.path), np.int64)[numbers]
    at_instants = np.zeros(len(seen), np.int64)
    at_instants[seen] = numbers
    return at_instants


def _with_gaps(
    crops: Iterator[Crop | EncodedCrop | None], seen: Bool[np.ndarray, " n"]
) -> Iterator[Crop | EncodedCrop | None]:
    """Yield a view's crops, and None for the instants of which it has no image."""
    for there in seen.tolist():
        if not there:
            yield None
            continue
        try:
            yield next(crops)
        except StopIteration:
            return
