"""An index held in memory by FAISS, for many searches in a row.

LanceDB plans every query anew and reads through its own cache, which takes milliseconds; FAISS answers from memory.
The tables on disk remain the source: `MemoryIndex.refreshed` reads them again once they have changed.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64, Shaped

from mcss.search.index import NEAREST, PROBES, PoseIndex, check_query
from mcss.search.index_table import NO_FILTER, Entries, Filter, Hit, ModelIdentity, vectors_of
from mcss.search.structure import STRUCTURE

_CHUNK = 65_536
"""Embeddings that are read at a time."""

_SELECTORS = 64
"""Filters whose selectors are kept at most; a selector takes one bit for every image."""


@dataclass(frozen=True)
class IndexedImage(Hit):
    """An image of an index in memory."""

    position: int
    """Its number in the index."""


@dataclass(frozen=True, eq=False)
class CodedNames:
    """A column of names, coded as numbers."""

    names: tuple[str, ...]
    code: Int32[np.ndarray, " n"]

    @classmethod
    def of(cls, column: Any) -> "CodedNames":
        """Code an Arrow column of text."""
        encoded = (column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column).dictionary_encode()
        code = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32)
        return cls(tuple(encoded.dictionary.to_pylist()), code)

    def take(self, order: Int64[np.ndarray, " k"]) -> "CodedNames":
        """Select rows by position."""
        return CodedNames(self.names, self.code[order])

    def admits(self, included: tuple[str, ...], excluded: tuple[str, ...]) -> Bool[np.ndarray, " n"]:
        """Which rows have an included name (none stand for all) and no excluded one."""
        admitted = [(not included or name in included) and name not in excluded for name in self.names]
        return np.asarray(np.array(admitted, bool)[self.code])


@dataclass(frozen=True, eq=False)
class ImageColumns:
    """What identifies each image of an index; see `Hit`."""

    capture: CodedNames
    subject: CodedNames
    sequence: CodedNames
    view: CodedNames
    row: Int64[np.ndarray, " n"]
    frame: Int64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]

    def admits(self, condition: Filter) -> Bool[np.ndarray, " n"]:
        """Which images a filter admits."""
        admitted = np.ones(len(self.row), bool)
        for column, included, excluded in condition.names():
            if included or excluded:
                admitted &= getattr(self, column).admits(included, excluded)
        if condition.between is not None:
            since, until = condition.between
            admitted &= (self.time >= since) & (self.time <= until)
        return admitted


@dataclass(frozen=True, eq=False)
class MemoryIndex:
    """The images of an index or a capture, with their embeddings in a FAISS index (``IndexIVFFlat``)."""

    model: ModelIdentity
    columns: ImageColumns
    engine: Any
    """The FAISS index, which numbers the images as the columns do."""
    source: PoseIndex | None = None
    """The index on disk, if it comes from one."""
    version: int = 0
    """The version of the source that was read."""
    _selectors: dict[Filter, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, index: PoseIndex) -> "MemoryIndex":
        """Read an index into memory, which takes about 4·dim + 70 bytes for each image.

        Raises:
            ImportError: FAISS is not installed; the message names the extra.
        """
        with index.reading():
            version, dim = index.version, index.model.dim
            dataset = index.dataset()
            engine, order = _engine_of(dataset, dim, structured=index.structured_count() > 0)
            # One column at a time, since a million names as text take as much memory as their embeddings.
            columns: dict[str, Any] = {
                name: CodedNames.of(dataset.to_table(columns=[name])[name]).take(order)
                for name in ("capture", "subject", "sequence", "view")
            }
            for name in ("row", "frame", "time"):
                columns[name] = dataset.to_table(columns=[name])[name].to_numpy()[order]
            return cls(index.model, ImageColumns(**columns), engine, index, version)

    @classmethod
    def of(cls, entries: Entries, model: ModelIdentity) -> "MemoryIndex":
        """Index entries in memory alone; they keep their order.

        Raises:
            ImportError: FAISS is not installed; the message names the extra.
        """
        builder = _EngineBuilder(model.dim, partitions=1)
        builder.add(0, entries.vector)
        columns = ImageColumns(
            capture=CodedNames.of(pa.array([entries.capture] * len(entries), pa.string())),
            subject=CodedNames.of(pa.array(list(entries.subject), pa.string())),
            sequence=CodedNames.of(pa.array(list(entries.sequence), pa.string())),
            view=CodedNames.of(pa.array(list(entries.view), pa.string())),
            row=entries.row,
            frame=entries.frame,
            time=entries.time,
        )
        return cls(model, columns, builder.finished(entries.vector.mean(axis=0, keepdims=True)))

    def __len__(self) -> int:
        return len(self.columns.row)

    def refreshed(self) -> "MemoryIndex":
        """This index, or what its source has become since it was read."""
        if self.source is None or self.source.version == self.version:
            return self
        return MemoryIndex.load(self.source)

    def search(
        self,
        vector: Float[np.ndarray, " dim"],
        top: int = NEAREST,
        condition: Filter = NO_FILTER,
        *,
        exact: bool = False,
        probes: int = PROBES,
    ) -> list[IndexedImage]:
        """Find the images nearest to an embedding, nearest first; see `PoseIndex.search`."""
        hits = self.nearest(vector, top, condition, exact=exact, probes=probes)
        if len(hits) < top and self.source is not None:
            self.source.check_names(condition)
        return hits

    def nearest(
        self,
        vector: Float[np.ndarray, " dim"],
        top: int = NEAREST,
        condition: Filter = NO_FILTER,
        *,
        exact: bool = False,
        probes: int = PROBES,
    ) -> list[IndexedImage]:
        """As `search`, but names in the filter that the index lacks find nothing instead of raising an error."""
        check_query(vector, top, self.model, "memory" if self.source is None else self.source.uri)
        parameters = _faiss().SearchParametersIVF(
            sel=self._selector(condition), nprobe=self.engine.nlist if exact else min(probes, self.engine.nlist)
        )
        query = np.ascontiguousarray(vector, np.float32)[None]
        squared, positions = self.engine.search(query, top, params=parameters)
        found = positions[0] >= 0  # FAISS fills up with -1
        distances = np.sqrt(squared[0][found])
        return [self.image(p, d) for p, d in zip(positions[0][found].tolist(), distances.tolist(), strict=True)]

    def image(self, position: int, distance: float = 0.0) -> IndexedImage:
        """The image at a position."""
        columns = self.columns
        capture, subject, sequence, view = (
            coded.names[coded.code[position]]
            for coded in (columns.capture, columns.subject, columns.sequence, columns.view)
        )
        row, frame, time = int(columns.row[position]), int(columns.frame[position]), float(columns.time[position])
        return IndexedImage(capture, row, subject, sequence, frame, time, view, distance, position)

    def other_views(self, image: IndexedImage) -> list[IndexedImage]:
        """The images of the same instant in the other views, by the name of the view."""
        columns, position = self.columns, image.position
        same = np.flatnonzero(columns.frame == image.frame)
        for coded in (columns.capture, columns.subject, columns.sequence):
            same = same[coded.code[same] == coded.code[position]]
        others = [self.image(other) for other in same.tolist() if other != position]
        return sorted(others, key=lambda other: other.view)

    def vector(self, position: int) -> Float32[np.ndarray, " dim"]:
        """The embedding of an image."""
        return np.asarray(self.engine.reconstruct(position), np.float32)

    def _selector(self, condition: Filter) -> Any:
        """FAISS's form of a filter; kept, since making one takes a pass over all images."""
        if condition == NO_FILTER:
            return None
        selector = self._selectors.get(condition)
        if selector is None:
            if len(self._selectors) >= _SELECTORS:
                self._selectors.clear()
            bits = np.packbits(self.columns.admits(condition), bitorder="little")
            selector = self._selectors[condition] = _faiss().IDSelectorBitmap(bits)
        return selector


class _EngineBuilder:
    """Fills a FAISS index partition by partition, so that no embedding is held twice; numbers images as they come."""

    def __init__(self, dim: int, partitions: int) -> None:
        faiss = _faiss()
        self._engine = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, partitions)
        self._count = 0

    def add(self, partition: int, vectors: Float32[np.ndarray, "k dim"]) -> None:
        if not len(vectors):
            return
        pointer = _faiss().swig_ptr
        numbers = np.arange(self._count, self._count + len(vectors), dtype=np.int64)
        codes = np.ascontiguousarray(vectors, np.float32).view(np.uint8)
        self._engine.invlists.add_entries(partition, len(vectors), pointer(numbers), pointer(codes))
        self._count += len(vectors)

    def finished(self, centres: Float32[np.ndarray, "partitions dim"]) -> Any:
        self._engine.quantizer.add(np.ascontiguousarray(centres, np.float32))
        self._engine.is_trained = True
        self._engine.ntotal = self._count
        self._engine.make_direct_map()  # for `reconstruct`
        return self._engine


def _engine_of(dataset: Any, dim: int, structured: bool) -> tuple[Any, Int64[np.ndarray, " n"]]:
    """A FAISS index with the partitions of the search structure, and the row of the table of each of its images."""
    address = dataset.to_table(columns=[], with_row_id=True)["_rowid"].to_numpy()
    reader = _reader(dataset) if structured else None
    count = 1 if reader is None else reader.num_partitions()
    builder = _EngineBuilder(dim, count)
    centres = np.zeros((count, dim), np.float32)
    order: list[Int64[np.ndarray, " k"]] = []
    waiting = np.ones(len(address), bool)
    if reader is not None:
        by_address = np.argsort(address, kind="stable")
        for partition in range(count):
            rows, vectors = _partition(reader, partition, address, by_address, dim)
            builder.add(partition, vectors)
            centres[partition] = vectors.mean(axis=0) if len(vectors) else 0
            order.append(rows)
            waiting[rows] = False
    # Images that were added after the structure was built go to the partition whose centre is nearest.
    half_norms = 0.5 * (centres.astype(np.float64) ** 2).sum(axis=1)
    for rows, vectors in _vectors(dataset, waiting, dim):
        nearest = (vectors @ centres.T - half_norms).argmax(axis=1)
        for partition in np.unique(nearest).tolist():
            builder.add(partition, vectors[nearest == partition])
            order.append(rows[nearest == partition])
    return builder.finished(centres), np.concatenate([np.zeros(0, np.int64), *order])


def _reader(dataset: Any) -> Any:
    os.environ.setdefault("LANCE_INCLUDE_VECTOR_CENTROIDS", "false")
    from lance.dataset import VectorIndexReader

    return VectorIndexReader(dataset, STRUCTURE)


def _partition(
    reader: Any,
    number: int,
    address: Shaped[np.ndarray, " n"],
    by_address: Int64[np.ndarray, " n"],
    dim: int,
) -> tuple[Int64[np.ndarray, " k"], Float32[np.ndarray, "k dim"]]:
    """Read a partition of the search structure: the rows of the table in it, and their embeddings."""
    table = reader.read_partition(number, with_vector=True)
    stored = table["_rowid"].to_numpy()
    (column,) = (name for name in table.column_names if name != "_rowid")
    rows = by_address[np.minimum(np.searchsorted(address, stored, sorter=by_address), len(address) - 1)]
    current = np.flatnonzero(address[rows] == stored)  # the structure still holds rows that were removed or replaced
    current = current[np.argsort(rows[current])]  # in the table's order, filters admit long runs, which are read faster
    return rows[current], vectors_of(table[column], dim)[current]


def _vectors(
    dataset: Any, wanted: Bool[np.ndarray, " n"], dim: int
) -> Iterator[tuple[Int64[np.ndarray, " k"], Float32[np.ndarray, "k dim"]]]:
    """Read the embeddings of some rows of the table, a chunk at a time."""
    if not wanted.any():
        return
    start = 0
    for batch in dataset.to_batches(columns=["vector"], batch_size=_CHUNK):
        rows = np.flatnonzero(wanted[start : start + batch.num_rows])
        yield start + rows, vectors_of(batch["vector"], dim)[rows]
        start += batch.num_rows


def _faiss() -> ModuleType:
    """Import FAISS, which is an extra.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError("searching in memory needs FAISS: install it with `pip install 'mcss[search]'`") from error
    return faiss
