"""Clips: one person's poses over time, from a video or one view of a capture, with the crops they come from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.data.capture import Capture
from mcss.errors import CaptureError, SourceError
from mcss.images import Image, cut_out
from mcss.inference.pose_sequence import PoseSequence, rate_of
from mcss.inference.predict import InputFile, predict_video
from mcss.models.model import Model
from mcss.progress import NO_PROGRESS, Progress
from mcss.video.reading.decoding import images_at

TimeSpan = tuple[float, float]
"""First and last time in seconds."""

ReadCrops = Callable[[Int64[np.ndarray, " k"], int], list[Image]]
"""Reads the crops of some frames, given by increasing frame numbers, at a side in pixels."""


@dataclass(frozen=True, eq=False)
class PoseClip:
    """A pose sequence whose images can still be read."""

    sequence: PoseSequence
    read_crops: ReadCrops

    def crops_of(self, frames: Int64[np.ndarray, " k"], size: int) -> list[Image]:
        """Read the crops of some frames, given by frame numbers in any order, at a side in pixels."""
        distinct, back = np.unique(frames, return_inverse=True)
        crops = self.read_crops(distinct, size)
        return [crops[i] for i in back]


def clip_of_video(path: Path, model: Model, span: TimeSpan | None = None, progress: Progress = NO_PROGRESS) -> PoseClip:
    """Predict a clip from a video in which one person moves in front of a static camera.

    Args:
        path: The video.
        model: The model.
        span: Keep only this stretch; the person is located in the whole video.
        progress: Advanced twice by every image.

    Raises:
        SourceError: The file is not a video, nobody is found in it, or it has no images in that stretch.
    """
    sequence = replace(predict_video(model, InputFile(path, path.stem), progress=progress), name=path.name)
    crop_boxes = sequence.poses.crop_boxes.astype(np.int64)

    def read_crops(frames: Int64[np.ndarray, " k"], size: int) -> list[Image]:
        numbers = frames.tolist()
        return [cut_out(image, crop_boxes[n], size) for n, image in zip(numbers, images_at(path, frames), strict=True)]

    kept = _within(sequence.time, span)
    if not kept.any():
        raise SourceError(f"{path}: no images at {_described(span)}; the video ends at {sequence.time[-1]:.2f} s")
    return PoseClip(sequence.take(kept), read_crops)


def clip_of_sequence(capture: Capture, name: str, model: Model, span: TimeSpan | None = None) -> PoseClip:
    """Predict a clip from one view of a sequence of a capture.

    Args:
        capture: Holds the images.
        name: ``subject/sequence/view``.
        model: The model.
        span: Use only this stretch.

    Raises:
        CaptureError: There is no such subject, sequence or view, or it has no images in that stretch.
    """
    instants = capture.instants()
    parts = name.split("/")
    if len(parts) != 3:
        example = f"{instants.subjects[instants.subject[0]]}/{instants.sequences[instants.sequence[0]]}"
        raise CaptureError(f"{name!r}: expected subject/sequence/view, such as {example}/{instants.views[0]}")
    subject, sequence, view = parts
    for kind, value, known in (
        ("subject", subject, instants.subjects),
        ("sequence", sequence, instants.sequences),
        ("view", view, instants.views),
    ):
        if value not in known:
            raise CaptureError(
                f"{kind}: there is no {value!r} in the capture at {capture.uri}; there are {', '.join(known)}"
            )
    rows = instants.rows[:, instants.views.index(view)]
    chosen = (instants.subject == instants.subjects.index(subject)) & (rows >= 0)
    chosen &= (instants.sequence == instants.sequences.index(sequence)) & _within(instants.time, span)
    if not chosen.any():
        raise CaptureError(f"{name}: the capture at {capture.uri} has no images of it at {_described(span)}")
    rows, frame, time = rows[chosen], instants.frame[chosen], instants.time[chosen]

    def read_crops(frames: Int64[np.ndarray, " k"], size: int) -> list[Image]:
        return list(capture.decode(rows[np.searchsorted(frame, frames)], size))

    predicted = PoseSequence(
        name=name,
        source=f"{capture.uri} {name}",
        poses=model.predict_rows(capture, rows),
        frame=frame,
        time=time,
        found=np.ones(len(rows), bool),
        rate=rate_of(time),
        model=model.name,
    )
    return PoseClip(predicted, read_crops)


def _within(time: Float64[np.ndarray, " n"], span: TimeSpan | None) -> Bool[np.ndarray, " n"]:
    since, until = span or (-np.inf, np.inf)
    return (time >= since - 1e-6) & (time <= until + 1e-6)


def _described(span: TimeSpan | None) -> str:
    return "any time" if span is None else f"{span[0]:g} to {span[1]:g} s"
