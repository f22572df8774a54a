"""The images that are searched: whatever can say which of them are nearest, and show them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Int64

from mcss.data.capture import Capture
from mcss.errors import PoseIndexError
from mcss.evaluation.predictions import target_poses
from mcss.models.model import Model
from mcss.progress import NO_PROGRESS, Progress
from mcss.search.entries import Filter, poses_of, quoted
from mcss.search.index import PoseIndex
from mcss.search.indexing import indexed_capture, origin_of
from mcss.search.memory_index import Names, ResidentIndex

APART = 0.5
"""Seconds between two moments of one recording that are shown as two."""

_BATCH = 64


class GalleryError(LookupError):
    """There is no such image."""


@dataclass(frozen=True)
class Shown:
    """An image of the gallery."""

    place: int
    """Its number in the gallery."""
    subject: str
    sequence: str
    frame: int
    time: float
    """Seconds within the sequence."""
    view: str


@dataclass(frozen=True)
class Found:
    """An image, and how far its embedding is from what was searched for (0 to 2)."""

    shown: Shown
    distance: float


@runtime_checkable
class Gallery(Protocol):
    """Images with embeddings."""

    name: str
    subjects: tuple[str, ...]
    views: tuple[str, ...]

    def __len__(self) -> int: ...

    def nearest(self, vector: Float32[np.ndarray, " dim"], top: int, condition: Filter) -> list[Found]:
        """The images nearest to an embedding, nearest first."""
        ...

    def shown(self, place: int) -> Shown:
        """What stands at a place.

        Raises:
            GalleryError: Nothing does.
        """
        ...

    def others(self, shown: Shown) -> list[Shown]:
        """The other views of the same moment."""
        ...

    def embedding(self, place: int) -> Float32[np.ndarray, " dim"]:
        """The embedding of an image."""
        ...

    def image(self, place: int) -> bytes:
        """An image as JPEG."""
        ...

    def poses(self, place: int) -> tuple[Float32[np.ndarray, "17 3"] | None, Float32[np.ndarray, "17 3"] | None]:
        """The predicted and the true canonical pose in mm, where known."""
        ...


class CaptureGallery:
    """Images of a capture, embedded and kept in memory."""

    def __init__(
        self,
        capture: Capture,
        instant: Int64[np.ndarray, " n"],
        view: Int64[np.ndarray, " n"],
        vector: Float32[np.ndarray, "n dim"],
        predicted: Float32[np.ndarray, "n 17 3"],
    ) -> None:
        self.name = capture.uri.rstrip("/").rsplit("/", 1)[-1]
        self._capture, self._instants = capture, capture.instants()
        self._instant, self._view = instant, view
        self._vector, self._predicted = vector, predicted
        self._subject = self._instants.subject[instant]
        self.subjects = tuple(self._instants.subjects[i] for i in np.unique(self._subject))
        self.views = tuple(self._instants.views[i] for i in np.unique(view))

    @classmethod
    def embedded(cls, model: Model, capture: Capture, most: int, progress: Progress = NO_PROGRESS) -> "CaptureGallery":
        """Embed at most so many images: all views of moments that are evenly spread over the capture."""
        instants = capture.instants()
        count = min(len(instants), max(1, most // len(instants.views)))
        chosen = np.unique(np.linspace(0, len(instants) - 1, count).round().astype(np.int64))
        place, view = np.nonzero(instants.rows[chosen] >= 0)
        instant = chosen[place]
        rows = instants.rows[instant, view]
        vectors, poses = [], []
        with progress.task("Embedding images to search in", len(rows)) as task:
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                found = model.predict_crops(list(capture.decode(batch, model.image_size)))
                vectors.append(found.embedding)
                poses.append(found.pose)
                task.advance(len(batch))
        return cls(capture, instant, view, np.concatenate(vectors), np.concatenate(poses))

    def __len__(self) -> int:
        return len(self._instant)

    def nearest(self, vector: Float32[np.ndarray, " dim"], top: int, condition: Filter) -> list[Found]:
        """The images nearest to an embedding, nearest first."""
        allowed = np.ones(len(self), bool)
        named = self._instants.subjects, self._instants.views
        for names, code, wanted, barred in (
            (named[0], self._subject, condition.subject, condition.not_subject),
            (named[1], self._view, condition.view, condition.not_view),
        ):
            passes = np.array([(not wanted or n in wanted) and n not in barred for n in names], bool)
            allowed &= passes[code]
        places = np.flatnonzero(allowed)
        squared = ((self._vector[places] - vector) ** 2).sum(axis=1)
        order = np.argsort(squared, kind="stable")[:top]
        return [Found(self.shown(int(places[i])), float(np.sqrt(squared[i]))) for i in order]

    def shown(self, place: int) -> Shown:
        """What stands at a place.

        Raises:
            GalleryError: Nothing does.
        """
        if not 0 <= place < len(self):
            raise GalleryError(f"there is no image {place}; there are {len(self)}")
        i, names = self._instant[place], self._instants
        return Shown(
            place,
            names.subjects[names.subject[i]],
            names.sequences[names.sequence[i]],
            int(names.frame[i]),
            float(names.time[i]),
            names.views[self._view[place]],
        )

    def others(self, shown: Shown) -> list[Shown]:
        """The other views of the same moment."""
        same = np.flatnonzero(self._instant == self._instant[shown.place])
        return [self.shown(int(place)) for place in same if place != shown.place]

    def embedding(self, place: int) -> Float32[np.ndarray, " dim"]:
        """The embedding of an image."""
        return np.asarray(self._vector[place], np.float32)

    def image(self, place: int) -> bytes:
        """An image as JPEG."""
        row = self._instants.rows[self._instant[place], self._view[place]]
        return self._capture.images(np.array([row]))[0]

    def poses(self, place: int) -> tuple[Float32[np.ndarray, "17 3"] | None, Float32[np.ndarray, "17 3"] | None]:
        """The predicted and the true canonical pose in mm, where known."""
        instant = self._instants.take(self._instant[place : place + 1])
        true = np.asarray(target_poses(instant)[0].numpy(), np.float32) if instant.heading_valid[0] else None
        return self._predicted[place], true


class IndexGallery:
    """The images of an index, as it was when the server started."""

    def __init__(self, index: ResidentIndex, captures: dict[str, Capture]) -> None:
        self.name = index.index.uri.rstrip("/").rsplit("/", 1)[-1]
        self._index, self._captures = index, captures
        self.subjects, self.views = index.subject.known, index.view.known

    @classmethod
    def open(cls, uri: str, model: Model, capture: str | None = None) -> "IndexGallery":
        """Open an index whose embeddings are the model's.

        Args:
            uri: Of the index.
            model: What visitors' images are embedded with.
            capture: Where one of its captures is now; the others are where they were when they were indexed.

        Raises:
            PoseIndexError: There is none, it is empty, or it was made with another model.
            CaptureError: A capture of it is not where it was, or `capture` is none of them.
        """
        index = PoseIndex.open(uri)
        index.check(origin_of(model))
        if not index.count():
            raise PoseIndexError(f"the index at {uri} is empty; fill it with `mcss index CAPTURE -o {uri}`")
        places = index.captures()
        if capture is not None:
            moved = Capture.open(capture)
            if moved.fingerprint not in places:
                raise PoseIndexError(
                    f"the index at {uri} holds no images of the capture at {capture}; it holds those of "
                    f"{', '.join(places.values())}: add it with `mcss index {capture} -o {uri}`, or leave it out"
                )
            places[moved.fingerprint] = capture
        captures = {name: indexed_capture(name, place, uri) for name, place in places.items()}
        return cls(ResidentIndex.load(index), captures)

    def __len__(self) -> int:
        return len(self._index)

    def nearest(self, vector: Float32[np.ndarray, " dim"], top: int, condition: Filter) -> list[Found]:
        """The images nearest to an embedding, nearest first."""
        places, distances = self._index.nearest(vector, top, condition)
        return [Found(self.shown(int(p)), float(d)) for p, d in zip(places, distances, strict=True)]

    def shown(self, place: int) -> Shown:
        """What stands at a place.

        Raises:
            GalleryError: Nothing does.
        """
        if not 0 <= place < len(self):
            raise GalleryError(f"there is no image {place}; there are {len(self)}")
        hit = self._index.hit(place, 0.0)
        return Shown(place, hit.subject, hit.sequence, hit.frame, hit.time, hit.view)

    def others(self, shown: Shown) -> list[Shown]:
        """The other views of the same moment."""
        i, place = self._index, shown.place
        same = i.frame == i.frame[place]
        for names in (i.capture, i.subject, i.sequence):
            same &= names.code == names.code[place]
        found = [self.shown(int(other)) for other in np.flatnonzero(same) if other != place]
        return sorted(found, key=lambda other: other.view)

    def embedding(self, place: int) -> Float32[np.ndarray, " dim"]:
        """The embedding of an image."""
        return np.asarray(self._index.vector[place], np.float32)

    def image(self, place: int) -> bytes:
        """An image as JPEG."""
        shown, capture = self.shown(place), self._captures[_name(self._index.capture, place)]
        instants = capture.instants()
        # By what it shows: a capture that was written anew has other row numbers, and the same fingerprint.
        where = instants.place(shown.subject, shown.sequence, shown.frame, shown.view)
        return capture.images(instants.rows[where][None])[0]

    def poses(self, place: int) -> tuple[Float32[np.ndarray, "17 3"] | None, Float32[np.ndarray, "17 3"] | None]:
        """The predicted and the true canonical pose in mm, where known."""
        where = f"capture = {quoted(_name(self._index.capture, place))} AND row = {int(self._index.row[place])}"
        table = self._index.index.table(["predicted", "true"], where)
        predicted, true = (poses_of(table[column])[0] for column in ("predicted", "true"))
        return _known(predicted), _known(true)


def _name(names: Names, place: int) -> str:
    return str(names.known[names.code[place]])


def _known(pose: Float32[np.ndarray, "17 3"]) -> Float32[np.ndarray, "17 3"] | None:
    return pose if np.isfinite(pose).all() else None


def moments(found: Iterable[Found], count: int, asked: Shown | None, own: bool) -> list[Found]:
    """The first images of different moments: neighbours in time all look alike, and so do the views of a moment.

    Args:
        found: Nearest first.
        count: How many are wanted.
        asked: The image of the gallery that was searched for; its own moment is left out.
        own: Whether other moments of its own recording may be found.
    """
    shown: list[Found] = []
    times: dict[tuple[str, str], list[float]] = {}
    if asked is not None:
        times[asked.subject, asked.sequence] = [asked.time]
    for one in found:
        key = (one.shown.subject, one.shown.sequence)
        if asked is not None and not own and key == (asked.subject, asked.sequence):
            continue
        if any(abs(one.shown.time - time) < APART for time in times.get(key, ())):
            continue
        times.setdefault(key, []).append(one.shown.time)
        shown.append(one)
        if len(shown) == count:
            break
    return shown
