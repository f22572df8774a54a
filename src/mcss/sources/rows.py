"""The rows of a sequence that several cameras saw: the loop over instants and views that all sources share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int64

from mcss.data.cameras import Camera
from mcss.data.schema import Frame
from mcss.errors import SourceError
from mcss.skeletons import HEIGHTS_MM, body_heights
from mcss.sources.assembly import Note, SourceSequence
from mcss.video.crops import Crop, EncodedCrop
from mcss.video.reading.decoding import decoded_count


@dataclass(frozen=True, eq=False)
class SequenceInstants:
    """The instants (multi-view frames) of a sequence that are imported."""

    frame_numbers: Int64[np.ndarray, " n"]
    """Numbers of the frames in the original files, ascending."""
    rate: float
    """Frames per second."""
    actions: Sequence[str]
    """The action at each instant."""
    poses: Float[np.ndarray, "n 17 3"] | None = None
    """World millimetres, +Z up, NaN where a joint is unknown; None without labels."""
    times: Float64[np.ndarray, " n"] | None = None
    """Seconds of each instant; None if instant i is at i / `rate`."""


@dataclass(frozen=True, eq=False)
class SequenceView:
    """A camera's crops of a sequence."""

    name: str
    crops: Iterator[Crop | EncodedCrop | None]
    """A crop for each instant, None for an instant that this view leaves out; may end early."""
    camera: Camera | None = None
    check_end: Callable[[], None] = lambda: None
    """Called if the crops end early; raises `SourceError` if that is not acceptable."""
    image_numbers: Int64[np.ndarray, " n"] | None = None
    """For each instant, the number of the view's source image; None if it is that of the frame."""


def multi_view_rows(
    sequence: SourceSequence,
    instants: SequenceInstants,
    views: Sequence[SequenceView],
    quality: int,
    *,
    end_together: bool = False,
) -> Iterator[Frame]:
    """Yield the rows of a sequence, all views of an instant together.

    Args:
        sequence: Gives subject and sequence of the rows.
        instants: The instants, their actions and poses.
        views: The views. One whose crops end early is left out from there on.
        quality: JPEG quality of the crops.
        end_together: End all views with the first one that ends.

    Raises:
        SourceError: A file is damaged, or a view ends too early.
    """
    open_views = list(views)
    for index, frame_number in enumerate(instants.frame_numbers.tolist()):
        pose = None if instants.poses is None else instants.poses[index]
        crops: list[tuple[SequenceView, Crop | EncodedCrop | None]] = []
        for view in tuple(open_views):
            try:
                crops.append((view, next(view.crops)))
            except StopIteration:
                view.check_end()
                open_views.remove(view)
        if end_together and len(crops) < len(views):
            return
        for view, crop in crops:
            if crop is not None:
                yield Frame(
                    subject=sequence.subject,
                    sequence=sequence.sequence,
                    action=instants.actions[index],
                    frame=frame_number,
                    time=frame_number / instants.rate if instants.times is None else float(instants.times[index]),
                    view=view.name,
                    image=crop.encoded(quality),
                    box=crop.box,
                    pose=None if pose is None or not np.isfinite(pose).all() else pose,
                    camera=view.camera,
                    image_number=None if view.image_numbers is None else int(view.image_numbers[index]),
                )


def end_of_video(path: Path, expected: int, max_missing: int, note: Note) -> Callable[[], None]:
    """Return a `SequenceView.check_end` that accepts a video which lacks up to `max_missing` images."""
    return lambda: check_complete(path, decoded_count(path), expected, "images", max_missing, note)


def check_complete(path: Path, count: int, expected: int, what: str, max_missing: int, note: Note) -> None:
    """Accept a file that is a little shorter than the annotation.

    Args:
        path: The file.
        count: Number of images or boxes in it.
        expected: Number of images or boxes that it should have.
        what: ``images`` or ``boxes``.
        max_missing: Number of them that may be missing.
        note: Receives a note if some are missing.

    Raises:
        SourceError: More are missing.
    """
    if expected - count > max_missing:
        raise SourceError(
            f"{path}: expected {expected} {what}, as the annotation has, got {count}; the file is damaged or was cut "
            "off: unpack it again, leave its camera out (--cameras), or raise --max-missing to use its beginning"
        )
    if count < expected:
        note(f"{path}: it has {count} {what}, the annotation {expected}; the frames at the end are left out")


def check_height(where: str, poses: Float64[np.ndarray, "t 17 3"], unit: str = "mm") -> None:
    """Refuse poses that are not those of a person, such as poses in another unit than released.

    Args:
        where: The file, for messages.
        poses: Joints in millimetres; NaN where unknown.
        unit: Unit of the file.

    Raises:
        SourceError: No pose is complete, or the person has an impossible height.
    """
    complete = poses[np.isfinite(poses).all(axis=(1, 2))]
    if not len(complete):
        raise SourceError(f"{where}: none of its {len(poses)} poses is complete; unpack the file again")
    height = float(np.median(body_heights(complete)))
    low, high = HEIGHTS_MM
    if not low <= height <= high:
        raise SourceError(
            f"{where}: expected a person between {low / 1000} and {high / 1000} m tall, got {height / 1000:.4g} m if "
            f"the unit is {unit}; use the files as released, not converted ones"
        )


def note_unlabelled(path: Path, poses: Float[np.ndarray, "n 17 3"], note: Note) -> None:
    """Report how many poses have unknown joints (NaN)."""
    unknown = int((~np.isfinite(poses).all(axis=(1, 2))).sum())
    if unknown:
        note(f"{path}: {unknown} of {len(poses)} poses lack joints; the images of these frames have no label")
