"""Search an index for an image, a movement or a 3D pose."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32

from mcss.data.formats.pose_files import read_pose_file
from mcss.errors import QueryError
from mcss.inference.clips import clip_of_video
from mcss.inference.locate import BoundingBox
from mcss.inference.predict import InputFile, predict_image
from mcss.metrics import pairwise_pa_mpjpe
from mcss.models.model import Model
from mcss.progress import NO_PROGRESS, Progress
from mcss.search.dtw import at_pace, occurrences, pace
from mcss.search.index import NEAREST, PoseIndex
from mcss.search.index_table import IMAGE_COLUMNS, NO_FILTER, Filter, Hit, PoseKind, ViewSequence, quoted
from mcss.search.indexing import identity_of
from mcss.search.query import ImageQuery, NamedImageQuery, PoseQuery, Query, RowQuery, SequenceQuery, VideoQuery
from mcss.skeletons import canonical_pose, heading_valid
from mcss.sources.videos.pose_labels import PoseSettings, read_labels, sample_numbers

SearchBy = Literal["embedding", "pose", "true-pose"]
"""What is compared: embeddings, predicted 3D poses, or labelled 3D poses."""

SHORTEST = 5
"""Smallest number of images in a movement."""

APART = 0.5
"""Seconds by which two moments of one recording must be apart to be found separately."""

_Hit = TypeVar("_Hit", bound=Hit)


@dataclass(frozen=True)
class Movement:
    """A stretch of an indexed sequence that shows the query's movement."""

    track: str
    """``subject/sequence/view``."""
    first: Hit
    last: Hit
    distance: float
    """Mean distance of the embeddings (0 to 2) of aligned images."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found: images, or movements."""

    asked: str
    """The query in words."""
    by: str
    """What the distances measure, with their unit."""
    hits: tuple[Hit, ...] = ()
    movements: tuple[Movement, ...] = ()
    query: Hit | None = None
    """The query, if it is an indexed image; it is never among the hits."""
    approximate: bool = False
    """Whether a search structure was used, which may miss some of the nearest."""
    recall: float | None = None
    """The fraction of the exact search's hits that an approximate one found; None if it was not measured."""


@dataclass(frozen=True)
class SearchSettings:
    """What may be found, and how it is compared."""

    top: int = NEAREST
    """Largest number of hits."""
    by: SearchBy = "embedding"
    """What to compare: embedding, pose (predicted 3D poses) or true-pose (labelled 3D poses). Poses are compared by
    PA-MPJPE."""
    every_image: bool = False
    """List every image. By default the best image of each moment is listed, and the moment of the query is left out:
    images half a second apart, and the other views of a moment, look alike."""
    exact: bool = False
    """Compare with every image, even if the index has a search structure."""
    recall: bool = False
    """Measure how many of the nearest images an approximate search finds, by an exact one, which takes longer."""
    filter: Filter = NO_FILTER
    """Which images may be found."""

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top: expected 1 or more, got {self.top}.")


def answer(
    index: PoseIndex,
    query: Query,
    settings: SearchSettings,
    model: Callable[[], Model],
    box: BoundingBox | None = None,
    progress: Progress = NO_PROGRESS,
) -> SearchResult:
    """Search an index for a query.

    Args:
        index: The index.
        query: What to search for.
        settings: What may be found, and how it is compared.
        model: Loads the model that the index was made with; called only for images and videos.
        box: The person's bounding box in an image.
        progress: Advanced by the images of a video and by the sequences compared.

    Raises:
        PoseIndexError: The index is empty, lacks a name in the filter, or was made with another model.
        QueryError: The query is not in the index, or cannot be compared in this way.
    """
    index.check_names(settings.filter)
    match query:
        case VideoQuery(path, span):
            _check_movement_settings(settings)
            sequence = clip_of_video(path, _checked_model(index, model), span, progress).sequence
            found = movements(index, sequence.poses.embedding, sequence.time, settings, progress=progress)
            return SearchResult(f"the movement in {path.name}", "distance", movements=found)
        case SequenceQuery():
            _check_movement_settings(settings)
            indexed = view_sequence(index, query)
            found = movements(index, indexed.vector, indexed.time, settings, query=indexed, progress=progress)
            span_in_words = f"{indexed.time[0]:.2f} to {indexed.time[-1]:.2f} s"
            return SearchResult(f"the movement in {query.name}, {span_in_words}", "distance", movements=found)
        case ImageQuery(path):
            poses = predict_image(_checked_model(index, model), InputFile(path, path.stem), box).poses
            if settings.by == "embedding":
                return _by_embedding(index, path.name, poses.embedding[0], settings)
            return SearchResult(path.name, _measure(settings), _by_pose(index, poses.pose[0], settings))
        case RowQuery() | NamedImageQuery():
            image = _indexed_image(index, query)
            if settings.by == "embedding":
                return _by_embedding(index, image.name, index.vector(image), settings, image)
            kind = _pose_kind(settings)
            pose = index.pose(image, kind)
            if pose is None:
                raise QueryError(f"{image.name}: it has no {kind} pose in the index at {index.uri}; leave out --by")
            return SearchResult(image.name, _measure(settings), _by_pose(index, pose, settings, image), query=image)
        case PoseQuery(path, frame_number):
            by_pose = replace(settings, by="pose") if settings.by == "embedding" else settings
            hits = _by_pose(index, pose_in_file(path, frame_number), by_pose)
            return SearchResult(f"{path.name}, frame {frame_number}", _measure(by_pose), hits)


@runtime_checkable
class SequenceIndex(Protocol):
    """Indexed images in order of time."""

    def count(self, condition: Filter = NO_FILTER) -> int:
        """Number of images that a filter admits."""

    def view_sequences(self, condition: Filter = NO_FILTER) -> Iterator[ViewSequence]:
        """The sequences of every view, as far as a filter admits them."""


def movements(
    index: SequenceIndex,
    vector: Float32[np.ndarray, "n dim"],
    time: Float[np.ndarray, " n"],
    settings: SearchSettings,
    query: ViewSequence | None = None,
    progress: Progress = NO_PROGRESS,
) -> tuple[Movement, ...]:
    """Find the stretches of indexed sequences that show a movement, best first; see `mcss.search.dtw`.

    Args:
        index: The index.
        vector: Embeddings of the movement in order of time.
        time: The time of each in seconds.
        settings: What may be found.
        query: The indexed sequence that the movement comes from; stretches that overlap it are left out.
        progress: Advanced by every image compared.

    Raises:
        QueryError: There are too few images for a movement.
    """
    if len(vector) < SHORTEST:
        raise QueryError(
            f"query: expected a movement of {SHORTEST} images or more, got {len(vector)}; name a longer time"
        )
    found: list[Movement] = []
    with progress.task("Comparing sequences", index.count(settings.filter)) as task:
        for sequence in index.view_sequences(settings.filter):
            task.advance(len(sequence))
            resampled = vector[at_pace(time, pace(sequence.time))]
            if len(resampled) < 2:
                continue
            for stretch in occurrences(resampled, sequence.vector, settings.top):
                first, last = sequence.hit(stretch.start), sequence.hit(stretch.stop - 1)
                if query is None or not _overlaps(query, sequence, first, last):
                    found.append(Movement(sequence.name, first, last, stretch.cost))
    found.sort(key=lambda movement: movement.distance)
    return tuple(found[: settings.top])


def nearest_poses(index: PoseIndex, pose: Float[np.ndarray, "17 3"], settings: SearchSettings) -> tuple[Hit, ...]:
    """Find the images whose 3D pose is nearest by PA-MPJPE over 16 joints, in mm at the size of the query's body.

    Raises:
        QueryError: The index has no such poses.
    """
    kind = _pose_kind(settings)
    best: list[Hit] = []
    query = torch.from_numpy(np.asarray(pose, np.float64))[None, 1:]
    for images, poses in index.poses(kind, settings.filter):
        error = pairwise_pa_mpjpe(query, torch.from_numpy(poses[:, 1:]))[0].numpy()
        for i in np.argsort(error, kind="stable")[: settings.top].tolist():
            best.append(Hit(**images[i], distance=float(error[i])))
        best = sorted(best, key=lambda hit: hit.distance)[: settings.top]
    if not best:
        raise QueryError(f"the index at {index.uri} has no {kind} poses that the filter admits; leave out --by")
    return tuple(best)


def nearest_moments(
    search: Callable[[int], Sequence[_Hit]], count: int, query: Hit | None = None, same_recording: bool = True
) -> list[_Hit]:
    """Find the nearest image of each of `count` moments; neighbours in time and the views of a moment look alike.

    Args:
        search: Finds as many images as it is asked for, nearest first.
        count: Number of moments.
        query: The indexed image that is searched for, whose own moment is left out.
        same_recording: Whether other moments of the query's recording may be found.
    """
    top = 16 * count
    while True:
        hits = search(top)
        moments = distinct_moments(hits, count, query, same_recording)
        if len(moments) >= count or len(hits) < top:
            return moments
        top *= 8


def distinct_moments(hits: Sequence[_Hit], count: int, query: Hit | None, same_recording: bool) -> list[_Hit]:
    """Keep the first image of each moment, up to `count`; see `nearest_moments`."""
    kept: list[_Hit] = []
    times: dict[tuple[str, str, str], list[float]] = {}
    own = None
    if query is not None:
        own = (query.capture, query.subject, query.sequence)
        times[own] = [query.time]
    for hit in hits:
        recording = (hit.capture, hit.subject, hit.sequence)
        if not same_recording and recording == own:
            continue
        if any(abs(hit.time - time) < APART for time in times.get(recording, ())):
            continue
        times.setdefault(recording, []).append(hit.time)
        kept.append(hit)
        if len(kept) == count:
            break
    return kept


def pose_in_file(path: Path, frame_number: int) -> Float32[np.ndarray, "17 3"]:
    """Read the canonical pose in mm of one frame of a file of 3D poses; the unit and the up axis are inferred.

    Raises:
        SourceError: The file cannot be read, or its poses are not those of a person.
        QueryError: There is no such frame, or its pose is incomplete or has no heading.
    """
    source = read_pose_file(path)
    # One sample per second: times are numbers of samples.
    labels = read_labels(path, len(source), 1.0, PoseSettings(rate=1.0), times=sample_numbers(source))
    pose = labels.pose(frame_number)
    if pose is None:
        raise QueryError(
            f"{path}: frame {frame_number} has no pose with all joints; the file has {len(labels.poses)} frames"
        )
    world = torch.from_numpy(pose)
    if not heading_valid(world):
        raise QueryError(
            f"{path}: the pose of frame {frame_number} has no heading, as one hip is above the other; choose another"
        )
    return canonical_pose(world).numpy()


def recall_of(approximate: Sequence[Hit], exact: Sequence[Hit]) -> float:
    """The fraction of the exact hits that were found; any hit as near as the last exact one counts."""
    if not exact:
        return 1.0
    return min(1.0, sum(hit.distance <= exact[-1].distance + 1e-6 for hit in approximate) / len(exact))


def _by_embedding(
    index: PoseIndex,
    asked: str,
    vector: Float32[np.ndarray, " dim"],
    settings: SearchSettings,
    query: Hit | None = None,
) -> SearchResult:
    def nearest(top: int, exact: bool = settings.exact) -> tuple[Hit, ...]:
        more = top + (query is not None)  # the query would be its own nearest image
        return _without(index.search(vector, more, settings.filter, exact=exact), query)[:top]

    hits, recall = _chosen(nearest, settings, query), None
    approximate = not settings.exact and index.structured_count() > 0
    if approximate and settings.recall:
        recall = recall_of(nearest(settings.top), nearest(settings.top, exact=True))
    return SearchResult(asked, "distance", hits, query=query, approximate=approximate, recall=recall)


def _by_pose(
    index: PoseIndex, pose: Float[np.ndarray, "17 3"], settings: SearchSettings, query: Hit | None = None
) -> tuple[Hit, ...]:
    def nearest(top: int) -> tuple[Hit, ...]:
        hits = nearest_poses(index, pose, replace(settings, top=top + (query is not None)))
        return _without(hits, query)[:top]

    return _chosen(nearest, settings, query)


def _chosen(nearest: Callable[[int], tuple[Hit, ...]], settings: SearchSettings, query: Hit | None) -> tuple[Hit, ...]:
    """Every image or the best one of each moment, as the settings say."""
    if settings.every_image:
        return nearest(settings.top)
    return tuple(nearest_moments(nearest, settings.top, query))


def _without(hits: Sequence[Hit], query: Hit | None) -> tuple[Hit, ...]:
    return tuple(hit for hit in hits if query is None or (hit.capture, hit.row) != (query.capture, query.row))


def _pose_kind(settings: SearchSettings) -> PoseKind:
    return "true" if settings.by == "true-pose" else "predicted"


def _measure(settings: SearchSettings) -> str:
    return "PA-MPJPE to the labelled pose, mm" if settings.by == "true-pose" else "PA-MPJPE to the predicted pose, mm"


def _check_movement_settings(settings: SearchSettings) -> None:
    if settings.by != "embedding":
        raise QueryError("by: movements are compared by their embeddings alone; leave out --by")


def _checked_model(index: PoseIndex, model: Callable[[], Model]) -> Model:
    loaded = model()
    index.check(identity_of(loaded))
    return loaded


def _indexed_image(index: PoseIndex, query: RowQuery | NamedImageQuery) -> Hit:
    match query:
        case RowQuery(row):
            where, name = f"row = {row}", f"row {row}"
        case NamedImageQuery(subject, sequence, frame_number, view):
            index.check_names(Filter(subject=(subject,), sequence=(sequence,), view=(view,)))
            columns = (("subject", subject), ("sequence", sequence), ("view", view))
            equal = [f"{column} = {quoted(value)}" for column, value in columns]
            where = " AND ".join([*equal, f"frame = {frame_number}"])
            name = f"{subject}/{sequence} frame {frame_number} view {view}"
    lines = index.table(IMAGE_COLUMNS, where).to_pylist()
    if not lines:
        raise QueryError(f"query: {name} is not in the index at {index.uri}, which has {index.count():,} images")
    if len(lines) > 1:
        captures = ", ".join(line["capture"] for line in lines)
        raise QueryError(f"query: {name} is in several captures of this index ({captures}); give an image instead")
    return Hit(**lines[0], distance=0.0)


def view_sequence(index: PoseIndex, query: SequenceQuery) -> ViewSequence:
    """Read the movement of a query from the index.

    Raises:
        QueryError: The index has no such sequence, or several.
    """
    condition = Filter(subject=(query.subject,), sequence=(query.sequence,), view=(query.view,), between=query.span)
    index.check_names(condition)
    sequences = list(index.view_sequences(condition))
    if not sequences:
        raise QueryError(f"query: the index at {index.uri} has no images of {query.name} at that time")
    if len(sequences) > 1:
        raise QueryError(f"query: {query.name} is in several captures of this index; give a video instead")
    return sequences[0]


def _overlaps(query: ViewSequence, sequence: ViewSequence, first: Hit, last: Hit) -> bool:
    """Whether a stretch of a sequence overlaps the query in time, in the same view."""
    same = (query.capture, query.name) == (sequence.capture, sequence.name)
    return same and bool(first.time <= query.time[-1] and last.time >= query.time[0])
