"""From what a user gives, images, videos, folders or captures, to takes; what fails does not stop the rest."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from mcss.data.capture import Capture
from mcss.data.instants import Instants, natural_order
from mcss.errors import SourceError
from mcss.images import IMAGE_SUFFIXES, cut_out, read_image
from mcss.inference.fusion import fused
from mcss.inference.locate import Rectangle, in_image, in_video
from mcss.inference.pose_sequence import Take
from mcss.models.model import Model, Poses
from mcss.progress import NO_PROGRESS, Progress, Task
from mcss.video.decoding import VIDEO_SUFFIXES, images, stated_count
from mcss.video.detectors import PersonFinder

_BATCH = 64


@dataclass(frozen=True)
class Input:
    """One file that a take is made of."""

    path: Path
    name: str
    """Of what is written of it: its place within the folder that was given, without ending."""

    @property
    def is_video(self) -> bool:
        """Whether its ending says so."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def is_capture(source: str) -> bool:
    """Whether an address is that of a capture."""
    return "://" in source or (Path(source) / "frames.lance").exists()


def inputs_of(source: Path) -> list[Input]:
    """The images and videos that a path stands for, in natural order.

    Raises:
        SourceError: There is nothing there, or nothing that can be used.
    """
    kinds = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    if source.is_file():
        if source.suffix.lower() not in kinds:
            raise SourceError(
                f"{source}: neither an image nor a video by its ending; expected one of {', '.join(sorted(kinds))}, a "
                "folder of them, or a capture"
            )
        return [Input(source, source.stem)]
    if not source.is_dir():
        raise SourceError(f"{source}: no such file or folder; expected an image, a video, a folder or a capture")
    found = []
    for path in sorted(source.rglob("*"), key=lambda p: natural_order(str(p))):
        within = path.relative_to(source)
        if path.suffix.lower() in kinds and path.is_file() and not any(p.startswith(".") for p in within.parts):
            found.append((path, within))
    if not found:
        raise SourceError(f"{source}: no images or videos in this folder; expected {', '.join(sorted(kinds))}")
    stems = [str(within.with_suffix("")) for _, within in found]
    return [
        Input(path, stem if stems.count(stem) == 1 else f"{stem}_{path.suffix[1:].lower()}")
        for (path, _), stem in zip(found, stems, strict=True)
    ]


def take_of_image(
    model: Model, source: Input, box: Rectangle | None = None, finder: PersonFinder | None = None
) -> Take:
    """The pose of the person in an image file.

    Raises:
        ImageError: It is none, or nobody is in it.
    """
    image = read_image(source.path)
    sighting = in_image(image, str(source.path), box, finder)
    crop = cut_out(image, sighting.crop_boxes[0], model.image_size)
    return Take(
        name=source.name,
        source=str(source.path),
        poses=model.predict_crops([crop], sighting.crop_boxes),
        frame=np.zeros(1, np.int64),
        time=np.zeros(1),
        found=sighting.found,
        rate=1.0,
        model=model.name,
        notes=sighting.notes,
    )


def take_of_video(
    model: Model,
    source: Input,
    box: Rectangle | None = None,
    finder: PersonFinder | None = None,
    progress: Progress = NO_PROGRESS,
) -> Take:
    """The poses of the person in a video, one for each of its images; not smoothed yet.

    Raises:
        SourceError: It is no video that can be read, or nobody is seen in it.
    """
    with progress.task(source.name, 2 * max(stated_count(source.path), 1)) as task:
        sighting = in_video(source.path, box, finder, task)
        parts = list(_crops_predicted(model, source.path, sighting.crop_boxes, task))
    count = sum(map(len, parts))
    if not count:
        raise SourceError(f"{source.path}: not one image can be decoded; copy the file again")
    time = sighting.time[:count]
    return Take(
        name=source.name,
        source=str(source.path),
        poses=Poses.joined(parts),
        frame=np.arange(count, dtype=np.int64),
        time=time,
        found=sighting.found[:count],
        rate=float(1 / np.median(np.diff(time))) if count > 1 else 1.0,
        model=model.name,
        notes=sighting.notes,
    )


def _crops_predicted(model: Model, path: Path, squares: Int64[np.ndarray, "n 4"], task: Task) -> Iterator[Poses]:
    waiting: list[np.ndarray] = []
    done = 0
    for image, square in zip(images(path), squares, strict=False):
        waiting.append(cut_out(image, square, model.image_size))
        if len(waiting) == _BATCH:
            yield model.predict_crops(waiting, squares[done : done + len(waiting)])
            done += len(waiting)
            task.advance(len(waiting))
            waiting = []
    if waiting:
        yield model.predict_crops(waiting, squares[done : done + len(waiting)])
        task.advance(len(waiting))


def sequences_of(capture: Capture, split: str | None = None) -> list[tuple[str, Instants]]:
    """The sequences of a capture, or of a split, each with its name ``subject/sequence`` and its instants."""
    instants = capture.instants(split)
    keys = np.stack([instants.subject, instants.sequence], axis=1)
    parts = []
    for subject, sequence in dict.fromkeys(map(tuple, keys.tolist())):
        own = np.flatnonzero((instants.subject == subject) & (instants.sequence == sequence))
        parts.append((f"{instants.subjects[subject]}/{instants.sequences[sequence]}", instants.take(own)))
    return parts


def take_of_sequence(
    model: Model, capture: Capture, name: str, instants: Instants, progress: Progress = NO_PROGRESS
) -> Take:
    """One pose for each instant of a sequence, fused from all its views; not smoothed yet.

    Its expected errors are the weighted means of those of the views: what they would be if fusing gained nothing.

    Args:
        model: Predicts.
        capture: Where the images are.
        name: Of the sequence.
        instants: Of one sequence.
        progress: Told of every image.
    """
    seen = instants.rows >= 0
    rows = instants.rows[seen]
    parts = []
    with progress.task(name, len(rows)) as task:
        for start in range(0, len(rows), _BATCH):
            chunk = rows[start : start + _BATCH]
            parts.append(model.predict_crops(list(capture.decode(chunk, model.image_size)), capture.boxes(chunk)))
            task.advance(len(chunk))
    flat = Poses.joined(parts)
    place = np.zeros(seen.shape, np.int64)
    place[seen] = np.arange(len(rows))
    error = None if flat.error is None else flat.error[place]
    together = fused(flat.pose[place], flat.embedding[place], seen, error)
    time = instants.time
    return Take(
        name=name,
        source=f"{capture.uri} {name}",
        poses=Poses(
            pose=together.pose.astype(np.float32),
            embedding=together.embedding.astype(np.float32),
            error=None if error is None else (together.weight * error).sum(axis=1).astype(np.float32),
            orientation=None,
            crop_boxes=np.full((len(instants), 4), np.nan, np.float32),
        ),
        frame=instants.frame,
        time=time,
        found=np.ones(len(instants), bool),
        rate=float(1 / np.median(np.diff(time))) if len(time) > 1 and (np.diff(time) > 0).all() else 1.0,
        model=model.name,
        views={view: flat.take(place[:, v]) for v, view in enumerate(instants.views) if seen[:, v].all()},
    )
