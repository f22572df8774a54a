"""A clip: one person through time before one camera, as a model sees it, with its images at hand."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from mcss.data.capture import Capture
from mcss.errors import CaptureError, SourceError
from mcss.images import Image, cut_out
from mcss.inference.predict import Input, take_of_video
from mcss.models.model import Model, Poses
from mcss.progress import NO_PROGRESS, Progress
from mcss.video.decoding import images_at

Span = tuple[float, float]
"""From the first to the second of these times, in seconds."""


@dataclass(frozen=True, eq=False)
class Clip:
    """Predictions in order of time."""

    name: str
    """Where they come from, for people."""
    time: Float64[np.ndarray, " n"]
    """Seconds."""
    frame: Int64[np.ndarray, " n"]
    poses: Poses
    look: Callable[[Int64[np.ndarray, " k"], int], list[Image]]
    """The crops of some frames (growing numbers, as in `frame`), so many pixels wide."""

    def __len__(self) -> int:
        return len(self.time)

    @property
    def vector(self) -> Float32[np.ndarray, "n dim"]:
        """Embeddings."""
        return self.poses.embedding

    def take(self, index: Shaped[np.ndarray, " k"]) -> "Clip":
        """Some of the images, by position or by mask."""
        places = np.arange(len(self))[index]
        return replace(self, time=self.time[places], frame=self.frame[places], poses=self.poses.take(places))

    def images(self, places: Int64[np.ndarray, " k"], size: int) -> list[Image]:
        """The crops at some places, so many pixels wide."""
        frames, back = np.unique(self.frame[places], return_inverse=True)
        found = self.look(frames, size)
        return [found[i] for i in back]


def clip_of_video(path: Path, model: Model, span: Span | None = None, progress: Progress = NO_PROGRESS) -> Clip:
    """A video in which one person moves before a camera that stands still.

    Args:
        path: The video.
        model: What looks.
        span: Only this stretch; the person is looked for in all of it.
        progress: Counts images, twice.

    Raises:
        SourceError: It is no video, nobody is found in it, or it shows nothing at that time.
    """
    take = take_of_video(model, Input(path, path.stem), progress=progress)
    squares = take.poses.crop_boxes.astype(np.int64)

    def look(frames: Int64[np.ndarray, " k"], size: int) -> list[Image]:
        return [cut_out(p, squares[n], size) for n, p in zip(frames.tolist(), images_at(path, frames), strict=True)]

    kept = _within(take.time, span)
    if not kept.any():
        raise SourceError(f"{path}: it shows nothing at {_told(span)}; it ends at {take.time[-1]:.2f} s")
    return Clip(path.name, take.time, take.frame, take.poses, look).take(kept)


def clip_of_sequence(capture: Capture, name: str, model: Model, span: Span | None = None) -> Clip:
    """What one view of a capture saw of a sequence.

    Args:
        capture: Where the images are.
        name: ``subject/sequence/view``.
        model: What looks.
        span: Only this stretch.

    Raises:
        CaptureError: No such subject, sequence or view, or nothing at that time.
    """
    instants = capture.instants()
    parts = name.split("/")
    if len(parts) != 3:
        example = f"{instants.subjects[instants.subject[0]]}/{instants.sequences[instants.sequence[0]]}"
        raise CaptureError(f"{name!r}: expected subject/sequence/view, such as {example}/{instants.views[0]}")
    subject, sequence, view = parts
    for what, asked, known in (
        ("subject", subject, instants.subjects),
        ("sequence", sequence, instants.sequences),
        ("view", view, instants.views),
    ):
        if asked not in known:
            raise CaptureError(
                f"{what}: there is no {asked!r} in the capture at {capture.uri}; there are {', '.join(known)}"
            )
    rows = instants.rows[:, instants.views.index(view)]
    own = (instants.subject == instants.subjects.index(subject)) & (rows >= 0)
    own &= (instants.sequence == instants.sequences.index(sequence)) & _within(instants.time, span)
    if not own.any():
        raise CaptureError(f"{name}: the capture at {capture.uri} shows nothing of it at {_told(span)}")
    rows, frame = rows[own], instants.frame[own]

    def look(frames: Int64[np.ndarray, " k"], size: int) -> list[Image]:
        return list(capture.decode(rows[np.searchsorted(frame, frames)], size))

    poses = model.predict_crops(list(capture.decode(rows, model.image_size)))
    return Clip(name, instants.time[own], frame, poses, look)


def _within(time: Float64[np.ndarray, " n"], span: Span | None) -> Bool[np.ndarray, " n"]:
    since, until = span or (-np.inf, np.inf)
    return (time >= since - 1e-6) & (time <= until + 1e-6)


def _told(span: Span | None) -> str:
    return "any time" if span is None else f"{span[0]:g} to {span[1]:g} s"
