"""An index held in memory, for many searches in a row: a partition after the other, as its search structure has them.

LanceDB reads, plans and filters anew for every query, which costs milliseconds whatever is found; here a query looks
into the nearest partitions by itself. The tables stay where they are and stay the truth: `ResidentIndex.refreshed`
takes up what has changed in them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, Shaped

from mcss.compilation import compiled, fast_compiled
from mcss.search.entries import NO_FILTER, Filter, Hit, Origin, vectors_of
from mcss.search.index import NEAREST, PROBES, STRUCTURE, PoseIndex, checked

_CHUNK = 65_536


@dataclass(frozen=True, eq=False)
class Names:
    """A column of text as numbers."""

    known: tuple[str, ...]
    code: Int32[np.ndarray, " n"]

    def lets_through(self, allowed: tuple[str, ...], barred: tuple[str, ...]) -> Bool[np.ndarray, " names"]:
        """Which of the names may be found."""
        return np.array([(not allowed or name in allowed) and name not in barred for name in self.known], bool)


@dataclass(frozen=True, eq=False)
class ResidentIndex:
    """All entries of an index at one version, sorted by partition."""

    index: PoseIndex
    version: int
    vector: Float32[np.ndarray, "n dim"]
    centre: Float32[np.ndarray, "partitions dim"]
    """The mean of each partition."""
    start: Int64[np.ndarray, " partitions+1"]
    """Where each partition begins, and at last where they end."""
    capture: Names
    subject: Names
    sequence: Names
    view: Names
    row: Int64[np.ndarray, " n"]
    frame: Int64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]

    @classmethod
    def load(cls, index: PoseIndex) -> "ResidentIndex":
        """Read all of an index: about 4·dim + 60 bytes of memory an entry."""
        version = index.version
        dataset = index.dataset()
        address = dataset.to_table(columns=[], with_row_id=True)["_rowid"].to_numpy()
        partition = _partitions(dataset, address) if index.structured() else np.zeros(len(address), np.int32)
        _place_late(dataset, partition, index.origin.dim)
        count = int(partition.max(initial=0)) + 1
        order = np.argsort(partition, kind="stable")
        sizes = np.bincount(partition, minlength=count)
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        vector = np.empty((len(order), index.origin.dim), np.float32)
        centre = np.zeros((count, index.origin.dim), np.float32)
        for at, part in _vectors(dataset, index.origin.dim):
            vector[place[at : at + len(part)]] = part
        for number in range(count):
            if sizes[number]:
                centre[number] = vector[start[number] : start[number + 1]].mean(axis=0)
        # A column at a time, since a million names as text take as much memory as their embeddings.
        names = {c: _names(dataset.to_table(columns=[c])[c], order) for c in ("capture", "subject", "sequence", "view")}
        numbers = {c: dataset.to_table(columns=[c])[c].to_numpy()[order] for c in ("row", "frame", "time")}
        about: dict[str, Any] = {**names, **numbers}
        return cls(index=index, version=version, vector=vector, centre=centre, start=start, **about)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def origin(self) -> Origin:
        """What made the embeddings."""
        return self.index.origin

    def refreshed(self) -> "ResidentIndex":
        """This, or what the index has become since."""
        return self if self.index.version == self.version else ResidentIndex.load(self.index)

    def search(
        self,
        vector: Float[np.ndarray, " dim"],
        top: int = NEAREST,
        condition: Filter = NO_FILTER,
        *,
        exact: bool = False,
        probes: int = PROBES,
    ) -> list[Hit]:
        """The entries nearest to an embedding, nearest first; see `PoseIndex.search`."""
        place, distance = self.nearest(vector, top, condition, exact=exact, probes=probes)
        if len(place) < top:
            self.index.check_names(condition)
        return [self.hit(int(p), float(d)) for p, d in zip(place, distance, strict=True)]

    def nearest(
        self,
        vector: Float[np.ndarray, " dim"],
        top: int = NEAREST,
        condition: Filter = NO_FILTER,
        *,
        exact: bool = False,
        probes: int = PROBES,
    ) -> tuple[Int64[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
        """Places in this index of what `search` finds, and the distances."""
        checked(vector, top, self.origin, self.index.uri)
        query = np.ascontiguousarray(vector, np.float32)
        count = len(self.centre)
        far = ((self.centre - query) ** 2).sum(axis=1)
        looked = np.arange(count) if exact or probes >= count else np.argpartition(far, probes)[:probes]
        (_, views), (_, subjects), (_, sequences) = condition.allowed()
        (_, no_views), (_, no_subjects), (_, no_sequences) = condition.barred()
        since, until = condition.between or (-np.inf, np.inf)
        place, squared = _scan(
            self.vector,
            query,
            self.start,
            looked,
            self.view.code,
            self.view.lets_through(views, no_views),
            self.subject.code,
            self.subject.lets_through(subjects, no_subjects),
            self.sequence.code,
            self.sequence.lets_through(sequences, no_sequences),
            self.time,
            since,
            until,
            top,
        )
        return place, np.sqrt(squared)

    def hit(self, place: int, distance: float) -> Hit:
        """What stands at a place."""
        capture, subject, sequence, view = (
            names.known[names.code[place]] for names in (self.capture, self.subject, self.sequence, self.view)
        )
        row, frame, time = int(self.row[place]), int(self.frame[place]), float(self.time[place])
        return Hit(capture, row, subject, sequence, frame, time, view, distance)


@fast_compiled
def _squared(a: Float32[np.ndarray, " dim"], b: Float32[np.ndarray, " dim"]) -> np.float32:
    """The squared distance; a function of its own, as the compiler makes vector instructions of it only so."""
    total = np.float32(0)
    for d in range(len(a)):
        difference = a[d] - b[d]
        total += difference * difference
    return total


@compiled
def _scan(
    vector: Float32[np.ndarray, "n dim"],
    query: Float32[np.ndarray, " dim"],
    start: Int64[np.ndarray, " bounds"],
    looked: Int64[np.ndarray, " looked"],
    view: Int32[np.ndarray, " n"],
    views: Bool[np.ndarray, " views"],
    subject: Int32[np.ndarray, " n"],
    subjects: Bool[np.ndarray, " subjects"],
    sequence: Int32[np.ndarray, " n"],
    sequences: Bool[np.ndarray, " sequences"],
    time: Float64[np.ndarray, " n"],
    since: float,
    until: float,
    top: int,
) -> tuple[Int64[np.ndarray, " k"], Float32[np.ndarray, " k"]]:
    """The nearest allowed entries of some partitions, nearest first, and their squared distances."""
    best = np.full(top, np.inf, np.float32)
    place = np.full(top, -1, np.int64)
    found, worst = 0, np.float32(np.inf)
    for partition in looked:
        for i in range(start[partition], start[partition + 1]):
            if not (views[view[i]] and subjects[subject[i]] and sequences[sequence[i]] and since <= time[i] <= until):
                continue
            squared = _squared(vector[i], query)
            if squared >= worst:
                continue
            at = min(found, top - 1)
            while at > 0 and best[at - 1] > squared:
                best[at], place[at] = best[at - 1], place[at - 1]
                at -= 1
            best[at], place[at] = squared, i
            found = min(found + 1, top)
            worst = best[top - 1]
    return place[:found], best[:found]


def _partitions(dataset: Any, address: Shaped[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """The partition of each entry in the search structure; -1 for those that are not in it yet."""
    os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")
    from lance.dataset import VectorIndexReader

    reader = VectorIndexReader(dataset, STRUCTURE)
    order = np.argsort(address)
    found = np.full(len(address), -1, np.int32)
    for partition in range(reader.num_partitions()):
        rows = reader.read_partition(partition)["_rowid"].to_numpy()
        place = np.searchsorted(address, rows, sorter=order)
        there = place < len(order)
        own = order[place[there]]
        found[own[address[own] == rows[there]]] = partition
    return found


def _names(column: Any, order: Int64[np.ndarray, " n"]) -> Names:
    encoded = column.combine_chunks().dictionary_encode()
    code = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
    return Names(tuple(encoded.dictionary.to_pylist()), code[order])


def _vectors(dataset: Any, dim: int) -> Iterator[tuple[int, Float32[np.ndarray, "k dim"]]]:
    """All embeddings, some at a time, each time with the place of the first."""
    at = 0
    for batch in dataset.to_batches(columns=["vector"], batch_size=_CHUNK):
        yield at, vectors_of(batch["vector"], dim)
        at += batch.num_rows


def _place_late(dataset: Any, partition: Int32[np.ndarray, " n"], dim: int) -> None:
    """Put what was added after the search structure was built into the partition whose mean is nearest."""
    if (partition >= 0).all():
        return
    total = np.zeros((max(1, int(partition.max()) + 1), dim))
    for at, part in _vectors(dataset, dim):
        own = partition[at : at + len(part)]
        np.add.at(total, own[own >= 0], part[own >= 0])
    centre = total / np.maximum(1, np.bincount(partition[partition >= 0], minlength=len(total)))[:, None]
    for at, part in _vectors(dataset, dim):
        own = partition[at : at + len(part)]  # a view: what is written here is written there
        late = own < 0
        own[late] = (part[late] @ centre.T - 0.5 * (centre**2).sum(axis=1)).argmax(axis=1)
