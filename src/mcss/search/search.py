"""Searching an index: for an image, for a movement, or for a 3D pose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32

from mcss.data.formats.pose_files import read_pose_file
from mcss.errors import QueryError
from mcss.inference.locate import Rectangle
from mcss.inference.predict import Input, take_of_image
from mcss.metrics import pairwise_pa_mpjpe
from mcss.models.model import Model
from mcss.progress import NO_PROGRESS, Progress
from mcss.search.clips import clip_of_video
from mcss.search.dtw import at_pace, occurrences, pace
from mcss.search.entries import NO_FILTER, PLACE, Filter, Hit, Kind, Track, quoted
from mcss.search.index import NEAREST, PoseIndex
from mcss.search.indexing import origin_of
from mcss.search.query import ImageQuery, PlaceQuery, PoseQuery, Query, RowQuery, SegmentQuery, VideoQuery
from mcss.skeletons import canonical_pose, heading_valid
from mcss.sources.videos.pose_labels import PoseSettings, read_labels

By = Literal["embedding", "pose", "true-pose"]
"""What is compared: embeddings; the predicted 3D poses; or the labelled ones."""

SHORTEST = 5
"""Images that a movement has at least."""


@dataclass(frozen=True)
class Movement:
    """A stretch of an indexed sequence that shows the query's movement."""

    track: str
    """``subject/sequence/view``."""
    first: Hit
    last: Hit
    distance: float
    """Mean distance of embeddings (0 to 2) of images that run in step."""


@dataclass(frozen=True)
class Answer:
    """What was found."""

    asked: str
    """What was searched for, for people."""
    by: str
    """What the distances are, with their unit."""
    hits: tuple[Hit, ...] = ()
    movements: tuple[Movement, ...] = ()
    query: Hit | None = None
    """The query, if it is in the index itself; it is never among the hits."""
    recall: float | None = None
    """Share of the hits of an exact search that were found; None if it was exact."""


@dataclass(frozen=True)
class SearchSettings:
    """What may be found, and how it is searched."""

    top: int = NEAREST
    """How many are found at most."""
    by: By = "embedding"
    """Compare embeddings; or pose: predicted 3D poses, or true-pose: labelled ones, by PA-MPJPE."""
    exact: bool = False
    """Compare with every entry, even where there is a search structure."""
    filter: Filter = NO_FILTER

    def __post_init__(self) -> None:
        if self.top < 1:
            raise ValueError(f"top: expected 1 or more, got {self.top}.")


def answer(
    index: PoseIndex,
    query: Query,
    settings: SearchSettings,
    model: Callable[[], Model],
    box: Rectangle | None = None,
    progress: Progress = NO_PROGRESS,
) -> Answer:
    """Search an index.

    Args:
        index: Where.
        query: What for.
        settings: How.
        model: Loads the model that the index was made with; asked for images and videos alone.
        box: The person in an image, in its pixels.
        progress: Told of images of a video, and of sequences.

    Raises:
        PoseIndexError: An empty index, names that are not in it, or a model that did not make it.
        QueryError: A query that is not in the index, or cannot be compared in this way.
    """
    index.check_names(settings.filter)
    match query:
        case VideoQuery(path, span):
            if settings.by != "embedding":
                raise QueryError("by: movements are compared by their embeddings alone; leave --by away")
            clip = clip_of_video(path, _checked(index, model), span, progress)
            found = movements(index, clip.vector, clip.time, settings, progress=progress)
            return Answer(f"the movement in {path.name}", "distance", movements=found)
        case SegmentQuery():
            if settings.by != "embedding":
                raise QueryError("by: movements are compared by their embeddings alone; leave --by away")
            track = _track(index, query)
            found = movements(index, track.vector, track.time, settings, own=track, progress=progress)
            return Answer(f"the movement in {query.name}{_when(track)}", "distance", movements=found)
        case ImageQuery(path):
            poses = take_of_image(_checked(index, model), Input(path, path.stem), box).poses
            if settings.by == "embedding":
                return _nearest(index, str(path.name), poses.embedding[0], settings, None)
            hits = nearest_poses(index, poses.pose[0], settings)
            return Answer(str(path.name), _measure(settings), hits)
        case RowQuery() | PlaceQuery():
            own = _entry(index, query)
            if settings.by == "embedding":
                return _nearest(index, own.name, index.vector(own), settings, own)
            kind: Kind = "true" if settings.by == "true-pose" else "predicted"
            pose = index.pose(own, kind)
            if pose is None:
                raise QueryError(f"{own.name}: it has no {kind} pose in the index at {index.uri}; leave --by away")
            hits = nearest_poses(index, pose, replace(settings, top=settings.top + 1))
            return Answer(own.name, _measure(settings), _without(hits, own, settings.top), query=own)
        case PoseQuery(path, frame):
            by: By = "pose" if settings.by == "embedding" else settings.by
            hits = nearest_poses(index, pose_in_file(path, frame), replace(settings, by=by))
            return Answer(f"{path.name}, frame {frame}", _measure(replace(settings, by=by)), hits)


def movements(
    index: PoseIndex,
    vector: Float32[np.ndarray, "n dim"],
    time: Float[np.ndarray, " n"],
    settings: SearchSettings,
    own: Track | None = None,
    progress: Progress = NO_PROGRESS,
) -> tuple[Movement, ...]:
    """The stretches of indexed sequences that show a movement, best first; see `mcss.search.dtw`.

    Args:
        index: Where.
        vector: Embeddings in order of time.
        time: Of each, s.
        settings: What may be found.
        own: Where the movement comes from, if it is in the index: what overlaps it in time there is left out.
        progress: Told of every subject's sequences.

    Raises:
        QueryError: Too few images to be a movement.
    """
    if len(vector) < SHORTEST:
        raise QueryError(f"query: a movement needs {SHORTEST} images or more, came {len(vector)}; name a longer time")
    found: list[Movement] = []
    with progress.task("Comparing sequences", index.count(settings.filter)) as task:
        for track in index.tracks(settings.filter):
            task.advance(len(track))
            query = vector[at_pace(time, pace(track.time))]
            if len(query) < 2:
                continue
            for stretch in occurrences(query, track.vector, settings.top):
                first, last = track.hit(stretch.start), track.hit(stretch.stop - 1)
                if own is not None and _is_own(own, track, first, last):
                    continue
                found.append(Movement(track.name, first, last, stretch.cost))
    found.sort(key=lambda movement: movement.distance)
    return tuple(found[: settings.top])


def nearest_poses(index: PoseIndex, pose: Float[np.ndarray, "17 3"], settings: SearchSettings) -> tuple[Hit, ...]:
    """The entries whose 3D pose is nearest by PA-MPJPE over 16 joints, in mm of the query's body.

    Raises:
        QueryError: The index has no such poses.
    """
    kind: Kind = "true" if settings.by == "true-pose" else "predicted"
    best: list[Hit] = []
    query = torch.from_numpy(np.asarray(pose, np.float64))[None, 1:]
    for places, poses in index.poses(kind, settings.filter):
        error = pairwise_pa_mpjpe(query, torch.from_numpy(poses[:, 1:]))[0].numpy()
        for i in np.argsort(error, kind="stable")[: settings.top].tolist():
            best.append(Hit(**places[i], distance=float(error[i])))
        best = sorted(best, key=lambda hit: hit.distance)[: settings.top]
    if not best:
        raise QueryError(f"the index at {index.uri} has no {kind} poses that the filter lets through; leave --by away")
    return tuple(best)


def pose_in_file(path: Path, frame: int) -> Float32[np.ndarray, "17 3"]:
    """The canonical pose in mm of one frame of a file of 3D poses; its unit and up axis are found out.

    Raises:
        SourceError: It cannot be read, or fits no person.
        QueryError: No such frame, or one that has no whole pose or no heading.
    """
    count = len(read_pose_file(path))
    labels = read_labels(path, count, 1.0, PoseSettings(rate=1.0))  # a sample a second: frame and sample are one
    pose = labels.pose(frame)
    if pose is None:
        raise QueryError(f"{path}: frame {frame} has no pose with all joints; it has {len(labels.poses)} frames")
    world = torch.from_numpy(pose)
    if not heading_valid(world):
        raise QueryError(f"{path}: frame {frame}: its hips are above each other, so it has no heading; take another")
    return canonical_pose(world).numpy()


def found_share(approximate: Sequence[Hit], exact: Sequence[Hit]) -> float:
    """Recall: the share of the exact hits that were found; as near as the last of them counts as found."""
    if not exact:
        return 1.0
    return min(1.0, sum(hit.distance <= exact[-1].distance + 1e-6 for hit in approximate) / len(exact))


def _nearest(
    index: PoseIndex, asked: str, vector: Float32[np.ndarray, " dim"], settings: SearchSettings, own: Hit | None
) -> Answer:
    more = settings.top + (own is not None)
    hits = _without(index.search(vector, more, settings.filter, exact=settings.exact), own, settings.top)
    recall = None
    if index.structured() and not settings.exact:
        exact = _without(index.search(vector, more, settings.filter, exact=True), own, settings.top)
        recall = found_share(hits, exact)
    return Answer(asked, "distance", hits, query=own, recall=recall)


def _without(hits: Sequence[Hit], own: Hit | None, top: int) -> tuple[Hit, ...]:
    kept = [hit for hit in hits if own is None or (hit.capture, hit.row) != (own.capture, own.row)]
    return tuple(kept[:top])


def _measure(settings: SearchSettings) -> str:
    return "PA-MPJPE to the labelled pose, mm" if settings.by == "true-pose" else "PA-MPJPE to the predicted pose, mm"


def _checked(index: PoseIndex, model: Callable[[], Model]) -> Model:
    found = model()
    index.check(origin_of(found))
    return found


def _entry(index: PoseIndex, query: RowQuery | PlaceQuery) -> Hit:
    match query:
        case RowQuery(row):
            where, what = f"row = {row}", f"row {row}"
        case PlaceQuery(subject, sequence, frame, view):
            named = (("subject", subject), ("sequence", sequence), ("view", view))
            index.check_names(Filter(subject=(subject,), sequence=(sequence,), view=(view,)))
            where = " AND ".join([f"{column} = {quoted(name)}" for column, name in named] + [f"frame = {frame}"])
            what = f"{subject}/{sequence} frame {frame} view {view}"
    found = index.table(PLACE, where).to_pylist()
    if not found:
        raise QueryError(f"query: {what} is not in the index at {index.uri}, which has {index.count():,} images")
    if len(found) > 1:
        captures = ", ".join(line["capture"] for line in found)
        raise QueryError(f"query: {what} is in several captures of this index ({captures}); give an image instead")
    return Hit(**found[0], distance=0.0)


def _track(index: PoseIndex, query: SegmentQuery) -> Track:
    condition = Filter(subject=(query.subject,), sequence=(query.sequence,), view=(query.view,), between=query.span)
    index.check_names(condition)
    found = list(index.tracks(condition))
    if not found:
        raise QueryError(f"query: the index at {index.uri} has no images of {query.name} at that time")
    if len(found) > 1:
        raise QueryError(f"query: {query.name} is in several captures of this index; give a video instead")
    return found[0]


def _when(track: Track) -> str:
    return f", {track.time[0]:.2f} to {track.time[-1]:.2f} s"


def _is_own(own: Track, track: Track, first: Hit, last: Hit) -> bool:
    """Whether a stretch is what was asked with, in the same view."""
    same = (own.capture, own.name) == (track.capture, track.name)
    return same and bool(first.time <= own.time[-1] and last.time >= own.time[0])
