"""Predict pose sequences from images, videos and captures."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import SourceError
from mcss.images import IMAGE_SUFFIXES, cut_out, read_image
from mcss.inference.fusion import fuse
from mcss.inference.locate import BoundingBox, locate_in_image, locate_in_video
from mcss.inference.outputs import OUTPUT_FORMATS, output_file
from mcss.inference.pose_sequence import PoseSequence, rate_of
from mcss.models.model import Model, Poses
from mcss.models.prediction import predict_rows
from mcss.progress import NO_PROGRESS, Progress, Task
from mcss.video.detectors import SHIPPED_DETECTOR, PersonDetector
from mcss.video.reading.chapters import is_later_chapter
from mcss.video.reading.decoding import VIDEO_SUFFIXES, images, stated_count
from mcss.video.recordings import everything_in


@dataclass(frozen=True)
class InputFile:
    """An image or a video to predict from."""

    path: Path
    name: str
    """Name of the outputs: the path within the folder that was given, without ending."""

    @property
    def is_video(self) -> bool:
        """Whether the ending is that of a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


def is_capture(source: str) -> bool:
    """Whether an address is that of a capture."""
    return "://" in source or (Path(source) / "frames.lance").exists()


def is_overlay(path: Path) -> bool:
    """Whether a file is the overlay of another one's poses, which an earlier prediction wrote beside them."""
    stem = path.stem.removesuffix("_overlay")
    outputs = (output_file(path.parent, stem, kind) for kind in OUTPUT_FORMATS)
    return stem != path.stem and any(map(Path.exists, outputs))


def is_written_beside_footage(path: Path) -> bool:
    """Whether mcss wrote a file beside footage, to be looked at: the image of `mcss sync`, a track sheet."""
    if path.name == "sync.png":  # beside the views of a recording, and sync.json up to two folders above
        return any((folder / "sync.json").is_file() for folder in path.parents[:3])
    captures = (folder.with_suffix("") for folder in path.parents if folder.suffix == ".tracks")
    return any(is_capture(str(capture)) for capture in captures)


def input_files(source: Path) -> list[InputFile]:
    """List the images and videos at a path, in natural order.

    Raises:
        SourceError: The path does not exist, or holds no image or video.
    """
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    if source.is_file():
        if source.suffix.lower() not in suffixes:
            raise SourceError(
                f"{source}: expected an image or a video by its ending ({', '.join(sorted(suffixes))}), a folder of "
                f"them, or a capture; got {source.suffix or 'no ending'}"
            )
        return [InputFile(source, source.stem)]
    if not source.is_dir():
        raise SourceError(f"{source}: no such file or folder; expected an image, a video, a folder or a capture")
    files = []
    for path in everything_in(source):
        within = path.relative_to(source)
        if any(p.startswith(".") for p in within.parts) or is_later_chapter(path):
            continue
        if is_overlay(path) or is_written_beside_footage(path):
            continue
        if path.suffix.lower() in suffixes and path.is_file():
            files.append((path, within))
    if not files:
        raise SourceError(f"{source}: no images or videos in this folder; expected {', '.join(sorted(suffixes))}")
    return [
        InputFile(path, name) for (path, _), name in zip(files, _distinct_names([w for _, w in files]), strict=True)
    ]


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file within a folder, distinct even where a file system ignores case.

    Files that share a stem get their ending too (``IMG_1_jpg``), and those that share both a number (``IMG_1_jpg_2``).
    """
    stems = [str(path.with_suffix("")) for path in paths]
    folded = [stem.casefold() for stem in stems]
    taken = {stem for stem in folded if folded.count(stem) == 1}
    names = []
    for path, stem in zip(paths, stems, strict=True):
        name = stem
        if folded.count(stem.casefold()) > 1:
            wanted = f"{stem}_{path.suffix[1:].lower()}"
            choices = itertools.chain([wanted], (f"{wanted}_{n}" for n in itertools.count(2)))
            name = next(choice for choice in choices if choice.casefold() not in taken)
            taken.add(name.casefold())
        names.append(name)
    return names


def predict_image(
    model: Model,
    source: InputFile,
    box: BoundingBox | None = None,
    finder: PersonDetector | None = SHIPPED_DETECTOR,
) -> PoseSequence:
    """Predict the pose of the person in an image file; see `mcss.inference.locate.locate_in_image`.

    Raises:
        ImageError: The file is not a readable image, or the box lies outside it.
    """
    image = read_image(source.path)
    location = locate_in_image(image, str(source.path), box, finder)
    crop = cut_out(image, location.crop_boxes[0], model.image_size)
    return PoseSequence(
        name=source.name,
        source=str(source.path),
        poses=model.predict_crops([crop], location.crop_boxes),
        frame=np.zeros(1, np.int64),
        time=np.zeros(1),
        found=location.found,
        rate=1.0,
        model=model.name,
        notes=location.notes,
        others=location.others,
    )


def predict_video(
    model: Model,
    source: InputFile,
    box: BoundingBox | None = None,
    finder: PersonDetector | None = None,
    progress: Progress = NO_PROGRESS,
) -> PoseSequence:
    """Predict the poses of the person in a video, one for each of its images, without smoothing.

    Raises:
        SourceError: The file is not a readable video, or nobody is found in it.
    """
    with progress.task(source.name, 2 * max(stated_count(source.path), 1)) as task:
        location = locate_in_video(source.path, box, finder, task)
        poses = _predict_crops(model, source.path, location.crop_boxes, task)
    count = len(poses)
    if not count:
        raise SourceError(f"{source.path}: none of its images can be decoded; copy the file again")
    time = location.time[:count]
    return PoseSequence(
        name=source.name,
        source=str(source.path),
        poses=poses,
        frame=np.arange(count, dtype=np.int64),
        time=time,
        found=location.found[:count],
        rate=rate_of(time),
        model=model.name,
        notes=location.notes,
    )


def _predict_crops(model: Model, path: Path, crop_boxes: Int64[np.ndarray, "n 4"], task: Task) -> Poses:
    """Predict from the crops of a video, as many as can be decoded."""
    located = zip(images(path), crop_boxes, strict=False)

    def predict(batch: Int64[np.ndarray, " batch"]) -> Poses:
        crops = [cut_out(image, box, model.image_size) for image, box in islice(located, len(batch))]
        return model.predict_crops(crops, crop_boxes[batch[: len(crops)]])

    return Poses.joined(predict_rows(predict, np.arange(len(crop_boxes)), task))


def capture_sequences(capture: Capture, split: str | None = None) -> list[tuple[str, Instants]]:
    """List the sequences of a capture, or of a split: the name ``subject/sequence`` and the instants of each."""
    instants = capture.instants(split)
    keys = np.stack([instants.subject, instants.sequence], axis=1)
    sequences = []
    for subject, sequence in dict.fromkeys(map(tuple, keys.tolist())):
        chosen = np.flatnonzero((instants.subject == subject) & (instants.sequence == sequence))
        sequences.append((f"{instants.subjects[subject]}/{instants.sequences[sequence]}", instants.take(chosen)))
    return sequences


def predict_sequence(
    model: Model, capture: Capture, name: str, instants: Instants, progress: Progress = NO_PROGRESS
) -> PoseSequence:
    """Predict one pose for each instant (multi-view frame) of a sequence, fused from all views, without smoothing.

    The expected error is the weighted mean of the errors expected of the views, as if fusing gained nothing. An instant
    may lack some of the views, such as an image that a camera lost: the poses of those are NaN there.

    Args:
        model: The model.
        capture: Holds the images.
        name: Name of the sequence.
        instants: The instants of this sequence.
        progress: Advanced by every image.
    """
    seen = instants.rows >= 0
    rows = instants.rows[seen]
    with progress.task(name, len(rows)) as task:
        single = model.predict_rows(capture, rows, task)
    position = np.zeros(seen.shape, np.int64)
    position[seen] = np.arange(len(rows))
    error = None if single.error is None else single.error[position]
    fused = fuse(single.pose[position], single.embedding[position], seen, error)
    return PoseSequence(
        name=name,
        source=f"{capture.uri} {name}",
        poses=Poses(
            pose=fused.pose.astype(np.float32),
            embedding=fused.embedding.astype(np.float32),
            error=None if error is None else (fused.weight * error).sum(axis=1).astype(np.float32),
            orientation=None,
            crop_boxes=np.full((len(instants), 4), np.nan, np.float32),
        ),
        frame=instants.frame,
        time=instants.time,
        found=np.ones(len(instants), bool),
        rate=rate_of(instants.time),
        model=model.name,
        views={
            view: _where_seen(single.take(position[:, v]), seen[:, v])
            for v, view in enumerate(instants.views)
            if seen[:, v].any()
        },
    )


def _where_seen(poses: Poses, seen: Bool[np.ndarray, " n"]) -> Poses:
    """Return the poses of a view, NaN at the instants that lack it."""
    return replace(poses, pose=np.where(seen[:, None, None], poses.pose, np.float32(np.nan)))
