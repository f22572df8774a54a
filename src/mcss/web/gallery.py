"""The images that visitors of the page search: those of an index, or of a capture."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from mcss.data.capture import Capture
from mcss.data.instants import evenly_spread
from mcss.errors import PoseIndexError
from mcss.models.model import Model
from mcss.progress import NO_PROGRESS, Progress
from mcss.search.index import PoseIndex
from mcss.search.index_table import NO_FILTER, Entries, Filter, ViewSequence
from mcss.search.indexing import CaptureImages, identity_of, indexed_capture, true_canonical_poses
from mcss.search.memory_index import IndexedImage, MemoryIndex
from mcss.search.search import SearchSettings, movements, nearest_moments

STRIP = 5
"""Number of images that show a movement."""

CanonicalPose = Float32[np.ndarray, "17 3"]


class GalleryError(LookupError):
    """There is no such image in the gallery."""


@dataclass(frozen=True, eq=False)
class FoundMovement:
    """A stretch of the gallery that shows a movement."""

    first: IndexedImage
    last: IndexedImage
    distance: float
    """Mean distance of the embeddings, 0 to 2."""
    strip: tuple[int, ...]
    """Positions of a few of its images in order of time."""

    def at_the_time_of(self, first: IndexedImage, last: IndexedImage) -> bool:
        """Whether another stretch, of whatever view, overlaps this one in time."""
        recording = (self.first.capture, self.first.subject, self.first.sequence)
        same = recording == (first.capture, first.subject, first.sequence)
        return same and first.time <= self.last.time and last.time >= self.first.time


@dataclass(frozen=True, eq=False)
class GallerySequences:
    """The images of an index in memory as sequences, whose rows are positions in the index."""

    index: MemoryIndex

    def count(self, condition: Filter = NO_FILTER) -> int:
        """Number of images that a filter admits."""
        return int(self.index.columns.admits(condition).sum())

    def view_sequences(self, condition: Filter = NO_FILTER) -> Iterator[ViewSequence]:
        """The sequences of every view, as far as a filter admits them."""
        columns = self.index.columns
        positions = np.flatnonzero(columns.admits(condition))
        coded = (columns.capture, columns.subject, columns.sequence, columns.view)
        keys = [column.code[positions] for column in coded]
        order = np.lexsort((columns.time[positions], *reversed(keys)))
        positions, keys = positions[order], [key[order] for key in keys]
        changes = np.any([np.diff(key) != 0 for key in keys], axis=0)
        for members in np.split(positions, np.flatnonzero(changes) + 1):
            if len(members):
                capture, subject, sequence, view = (column.names[column.code[members[0]]] for column in coded)
                vector = np.stack([self.index.vector(position) for position in members.tolist()])
                frame, time = columns.frame[members], columns.time[members]
                yield ViewSequence(capture, subject, sequence, view, row=members, frame=frame, time=time, vector=vector)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images that can be searched by pose and shown, as they were when the server started."""

    name: str
    index: MemoryIndex
    captures: Mapping[str, Capture]
    """The captures that the images come from, by fingerprint."""
    entries: Entries | None = None
    """The images with their poses, for a capture without an index; otherwise poses are read from the index."""

    @classmethod
    def of_capture(cls, model: Model, capture: Capture, most: int, progress: Progress = NO_PROGRESS) -> "Gallery":
        """Embed at most `most` images of a capture: all views of instants that are evenly spread over it."""
        images = CaptureImages.of(capture)
        instants = images.instants
        count = min(len(instants), max(1, most // len(instants.views)))
        chosen = evenly_spread(len(instants), count)
        images = images.take(np.isin(images.instant, chosen))
        with progress.task("Embedding images to search in", len(images)) as task:
            poses = model.predict_rows(capture, images.rows, task)
        entries = images.entries(poses, true_canonical_poses(instants))
        index = MemoryIndex.of(entries, identity_of(model))
        return cls(_last_part(capture.uri), index, {capture.fingerprint: capture}, entries)

    @classmethod
    def of_index(cls, uri: str, model: Model, capture: str | None = None) -> "Gallery":
        """Load an index that was made with a model.

        Args:
            uri: The address of the index.
            model: The model that embeds visitors' images.
            capture: The present address of one of its captures; the others are where they were when they were indexed.

        Raises:
            PoseIndexError: There is no index, it is empty, or it was made with another model.
            CaptureError: A capture of the index is not at its address, or `capture` is none of them.
        """
        index = PoseIndex.open(uri)
        index.check(identity_of(model))
        if not index.count():
            raise PoseIndexError(f"the index at {uri} is empty; fill it with `{index.command()}`")
        addresses = index.captures()
        if capture is not None:
            moved = Capture.open(capture)
            if moved.fingerprint not in addresses:
                raise PoseIndexError(
                    f"the index at {uri} holds no images of the capture at {capture}; it holds those of "
                    f"{', '.join(addresses.values())}: add it with `{index.command(capture)}`, or leave it out"
                )
            addresses[moved.fingerprint] = capture
        captures = {name: indexed_capture(name, address, index) for name, address in addresses.items()}
        return cls(_last_part(uri), MemoryIndex.load(index), captures)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The people in the images."""
        return self.index.columns.subject.names

    @property
    def views(self) -> tuple[str, ...]:
        """The views of the images."""
        return self.index.columns.view.names

    def image(self, position: int) -> IndexedImage:
        """The image at a position.

        Raises:
            GalleryError: There is no image at this position.
        """
        if not 0 <= position < len(self):
            raise GalleryError(f"there is no image {position}; there are {len(self)}")
        return self.index.image(position)

    def neighbours(
        self,
        vector: Float32[np.ndarray, " dim"],
        count: int,
        condition: Filter,
        query: IndexedImage | None = None,
        same_recording: bool = True,
    ) -> list[IndexedImage]:
        """Find the images of the moments nearest to an embedding; see `mcss.search.search.nearest_moments`."""
        return nearest_moments(lambda top: self.index.nearest(vector, top, condition), count, query, same_recording)

    def movements(
        self,
        vector: Float32[np.ndarray, "n dim"],
        time: Float64[np.ndarray, " n"],
        count: int,
        condition: Filter,
        query: ViewSequence | None = None,
    ) -> list[FoundMovement]:
        """Find the stretches that show a movement, best first, the best one of each moment; see `search.movements`.

        Args:
            vector: Embeddings of the movement in order of time.
            time: The time of each in seconds.
            count: Largest number of stretches.
            condition: Which images may be found.
            query: The stretch of the gallery that the movement comes from, whose own moment is left out.

        Raises:
            QueryError: There are too few images for a movement.
        """
        settings = SearchSettings(top=4 * count, filter=condition)
        shown: list[FoundMovement] = []
        if query is not None:  # its moment in the other views is no other moment
            first, last = self.image(int(query.row[0])), self.image(int(query.row[-1]))
            shown.append(FoundMovement(first, last, 0.0, ()))
        for movement in movements(GallerySequences(self.index), vector, time, settings, query):
            first, last = (self.image(hit.row) for hit in (movement.first, movement.last))
            if not any(other.at_the_time_of(first, last) for other in shown):
                shown.append(FoundMovement(first, last, movement.distance, self._between(first, last)))
            if len(shown) == count + (query is not None):
                break
        return shown[query is not None :]

    def _between(self, first: IndexedImage, last: IndexedImage) -> tuple[int, ...]:
        """The positions of a few images from one to another of the same view, evenly spread."""
        found = GallerySequences(self.index).view_sequences(_of_view(first, (first.time, last.time)))
        sequence = next(sequence for sequence in found if sequence.capture == first.capture)
        chosen = evenly_spread(len(sequence), STRIP)
        return tuple(sequence.row[chosen].tolist())

    def around(self, position: int, seconds: float) -> ViewSequence:
        """The images of a view up to some seconds before and after one of them; their rows are positions."""
        image = self.image(position)
        span = max(0.0, image.time - seconds), image.time + seconds
        found = GallerySequences(self.index).view_sequences(_of_view(image, span))
        return next(sequence for sequence in found if sequence.capture == image.capture)

    def jpeg(self, position: int) -> bytes:
        """An image as JPEG."""
        image = self.image(position)
        capture = self.captures[image.capture]
        instants = capture.instants()
        # By what it shows: a capture that was written anew has the same fingerprint but may have other row numbers.
        instant, view = instants.position(image.subject, image.sequence, image.frame, image.view)
        return capture.images(instants.rows[instant, view][None])[0]

    def poses(self, position: int) -> tuple[CanonicalPose | None, CanonicalPose | None]:
        """The predicted and the true canonical pose of an image in mm, where they are known."""
        if self.entries is not None:
            assert self.entries.predicted is not None
            assert self.entries.true is not None
            return self.entries.predicted[position], _if_finite(self.entries.true[position])
        assert self.index.source is not None
        image = self.image(position)
        return self.index.source.pose(image, "predicted"), self.index.source.pose(image, "true")


def _of_view(image: IndexedImage, between: tuple[float, float]) -> Filter:
    """Admit the images of an image's sequence and view in a time."""
    return Filter(view=(image.view,), subject=(image.subject,), sequence=(image.sequence,), between=between)


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _if_finite(pose: CanonicalPose) -> CanonicalPose | None:
    return pose if np.isfinite(pose).all() else None
