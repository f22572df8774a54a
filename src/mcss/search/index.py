"""An index of image embeddings that are searched by pose, kept by LanceDB in a folder or an object store.

An index is a LanceDB database of two tables: ``poses``, with a row for each image (see `mcss.search.index_table`),
and ``captures``, the captures that the images came from. Every change is a new version of the table, so concurrent
readers see all of it or nothing.
"""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from mcss.errors import PoseIndexError, damage_as
from mcss.models.run_names import SHIPPED
from mcss.search.database import absent, connect, foreign, reading, tables_of
from mcss.search.index_table import (
    IMAGE_COLUMNS,
    INDEX_VERSION,
    NO_FILTER,
    Entries,
    Filter,
    Hit,
    ModelIdentity,
    PoseKind,
    ViewSequence,
    entries_table,
    index_schema,
    poses_of,
    quoted,
    vectors_of,
    view_sequences_of,
)
from mcss.search.structure import STRUCTURE, Structure, updated

NEAREST = 20
"""Default number of hits."""

PROBES = 64
"""Partitions that an approximate search examines."""

_POSES, _CAPTURES = "poses", "captures"
_CAPTURES_SCHEMA = pa.schema([pa.field("capture", pa.string()), pa.field("uri", pa.string())])


class PoseIndex:
    """An open index: add, search, remove and count entries. Adding an entry again replaces it."""

    def __init__(self, uri: str, database: Any, model: ModelIdentity) -> None:
        self.uri = uri
        self.model = model
        self._captures = database.open_table(_CAPTURES)
        self._table = database.open_table(_POSES)

    @classmethod
    def create(cls, uri: str | Path, model: ModelIdentity) -> "PoseIndex":
        """Create an index, or open the existing one of the same model.

        Raises:
            PoseIndexError: An index of another model or something else exists there, or the address cannot be written.
        """
        address = str(uri)
        database = connect(address)
        names = tables_of(database, address)
        if not names - {_CAPTURES}:
            try:  # ``poses`` is created last: if this is interrupted before, there is no index
                database.create_table(_CAPTURES, schema=_CAPTURES_SCHEMA, exist_ok=True)
                database.create_table(_POSES, schema=index_schema(model))
            except (OSError, RuntimeError) as error:
                raise PoseIndexError(
                    f"no index can be written at {address}: {error}. Make room or choose another address"
                ) from error
        index = cls.open(address)
        index.check(model)
        return index

    @classmethod
    def open(cls, uri: str | Path) -> "PoseIndex":
        """Open the index in a folder, or at an object-store address that LanceDB accepts.

        Raises:
            PoseIndexError: There is no index, it was written by a newer mcss, or it is something else.
        """
        address = str(uri)
        if "://" not in address and not Path(address).is_dir():
            raise absent(address)
        database = connect(address)
        names = tables_of(database, address)
        if not names - {_CAPTURES}:
            raise absent(address)
        if _POSES not in names:
            raise foreign(address, f"its tables are {', '.join(sorted(names))}")
        with reading(address):
            schema = database.open_table(_POSES).schema
            metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
            return cls._opened(address, database, names, schema, metadata)

    @classmethod
    def _opened(
        cls, address: str, database: Any, names: set[str], schema: Any, metadata: dict[str, str]
    ) -> "PoseIndex":
        version = metadata.get("mcss.index_version")
        if version is None or _CAPTURES not in names:
            raise foreign(address, "its table poses was not written by mcss")
        if int(version) > INDEX_VERSION:
            raise PoseIndexError(
                f"the index at {address} has version {version}, this mcss reads up to {INDEX_VERSION}: update mcss"
            )
        dim = schema.field("vector").type.list_size
        return cls(address, database, ModelIdentity(metadata["mcss.model"], dim, metadata["mcss.run"]))

    def command(self, capture: str = "CAPTURE") -> str:
        """Return the command that adds a capture to this index, with the model that the index was made with."""
        words = ["mcss", "index", capture, "-o", self.uri]
        if self.model.run != str(SHIPPED.absolute()):
            words += ["--run", self.model.run]
        return shlex.join(words)

    def check(self, model: ModelIdentity) -> None:
        """Check that embeddings of a model belong in this index.

        Raises:
            PoseIndexError: They have another length, or come from another network.
        """
        if model.dim != self.model.dim:
            raise PoseIndexError(
                f"the index at {self.uri} holds embeddings of {self.model.dim} numbers, {model.run} gives "
                f"{model.dim}: use the run that it was made with ({self.model.run}), or create another index elsewhere"
            )
        if model.digest != self.model.digest:
            raise PoseIndexError(
                f"the index at {self.uri} was made with other weights ({self.model.digest[:12]}) than those of "
                f"{model.run} ({model.digest[:12]}), whose embeddings cannot be compared: use the run that it was "
                f"made with ({self.model.run}), or create another index elsewhere"
            )

    def add(self, entries: Entries) -> None:
        """Add entries, all or none; an entry replaces an existing one of the same capture and row.

        Raises:
            PoseIndexError: Embeddings have another length or are not finite, or the index cannot be written.
        """
        if entries.vector.shape[1] != self.model.dim:
            raise PoseIndexError(
                f"the index at {self.uri} holds embeddings of {self.model.dim} numbers, got "
                f"{entries.vector.shape[1]}; use the run that it was made with ({self.model.run})"
            )
        finite = np.isfinite(entries.vector).all(axis=1)
        if not finite.all():
            raise PoseIndexError(
                f"the embedding of row {entries.row[~finite][0]} is not finite; has the network diverged?"
            )
        merge = self._table.merge_insert(["capture", "row"]).when_matched_update_all().when_not_matched_insert_all()
        self._written(lambda: merge.execute(entries_table(entries, self.model)))

    def remove(self, condition: Filter = NO_FILTER, capture: str | None = None) -> int:
        """Remove the entries that a filter admits, from one capture or all; returns how many.

        Raises:
            PoseIndexError: There is no condition, which would remove everything, or the index cannot be written.
        """
        where = _where(condition, capture)
        if not where:
            raise PoseIndexError(
                "remove: expected a condition, got none, which would remove everything; delete the index instead"
            )
        done = self._written(lambda: self._table.delete(where))
        return int(done.num_deleted_rows)

    def count(self, condition: Filter = NO_FILTER, capture: str | None = None) -> int:
        """Count the entries that a filter admits."""
        with self.reading():
            return int(self._table.count_rows(_where(condition, capture) or None))

    def search(
        self,
        vector: Float[np.ndarray, " dim"],
        top: int = NEAREST,
        condition: Filter = NO_FILTER,
        *,
        exact: bool = False,
        probes: int = PROBES,
    ) -> list[Hit]:
        """Find the entries nearest to an embedding, nearest first.

        Args:
            vector: An embedding of the index's model.
            top: Number of hits.
            condition: Which entries may be found.
            exact: Compare with every entry, even if there is a search structure.
            probes: Partitions of the structure to examine.

        Raises:
            PoseIndexError: The embedding has another length, the index is empty, or it lacks a name in the filter.
        """
        check_query(vector, top, self.model, self.uri)
        query = self._table.search(vector.astype(np.float32), vector_column_name="vector")
        query = query.distance_type("l2").limit(top).select([*IMAGE_COLUMNS, "_distance"]).nprobes(probes)
        if where := condition.where():
            query = query.where(where, prefilter=True)
        if exact:
            query = query.bypass_vector_index()
        with self.reading():
            lines = query.to_arrow().to_pylist()
        if len(lines) < top:
            self.check_names(condition)
        squared = [line.pop("_distance") for line in lines]
        return [Hit(**line, distance=float(np.sqrt(max(0.0, s)))) for line, s in zip(lines, squared, strict=True)]

    def check_names(self, condition: Filter) -> None:
        """Check that the index has every name in a filter.

        Raises:
            PoseIndexError: It lacks a name, or is empty.
        """
        if not self.count():
            raise PoseIndexError(f"the index at {self.uri} is empty; fill it with `{self.command()}`")
        for column, included, excluded in condition.names():
            for name in (*included, *excluded):
                if not self._table.count_rows(f"{column} = {quoted(name)}"):
                    known = ", ".join(self.names(column))
                    raise PoseIndexError(
                        f"{column}: there is no {name!r} in the index at {self.uri}; there are {known}"
                    )

    def names(self, column: str) -> list[str]:
        """The distinct values of a text column, sorted."""
        return sorted(self.table([column])[column].unique().to_pylist())

    def table(self, columns: Sequence[str], where: str = "") -> Any:
        """Read columns of the entries that meet an SQL condition, as an Arrow table."""
        with self.reading():
            query = self._table.search().select(list(columns))
            return (query.where(where) if where else query).to_arrow()

    def view_sequences(self, condition: Filter = NO_FILTER) -> Iterator[ViewSequence]:
        """Read the sequences of every view, holding one subject in memory at a time."""
        for subject in condition.subject or self.names("subject"):
            where = " AND ".join(part for part in (condition.where(), f"subject = {quoted(subject)}") if part)
            yield from view_sequences_of(self.table([*IMAGE_COLUMNS, "vector"], where), self.model.dim)

    def poses(
        self, kind: PoseKind, condition: Filter = NO_FILTER
    ) -> Iterator[tuple[list[dict[str, Any]], Float32[np.ndarray, "n 17 3"]]]:
        """Read canonical poses in mm in batches, each with the images (`IMAGE_COLUMNS`) that show them."""
        where = " AND ".join(part for part in (condition.where(), f"{kind} IS NOT NULL") if part)
        with self.reading():
            query = self._table.search().select([*IMAGE_COLUMNS, kind]).where(where)
            batches = iter(query.to_batches(batch_size=65_536))
        while True:
            with self.reading():
                batch = next(batches, None)
            if batch is None:
                return
            if batch.num_rows:
                yield batch.select(list(IMAGE_COLUMNS)).to_pylist(), poses_of(batch[kind])

    def vector(self, hit: Hit) -> Float32[np.ndarray, " dim"]:
        """The embedding of an entry."""
        column = self.table(["vector"], f"{_where(NO_FILTER, hit.capture)} AND row = {hit.row}")["vector"]
        return np.asarray(vectors_of(column, self.model.dim)[0])

    def pose(self, hit: Hit, kind: PoseKind) -> Float32[np.ndarray, "17 3"] | None:
        """The canonical pose of an entry in mm, or None."""
        pose = poses_of(self.table([kind], f"{_where(NO_FILTER, hit.capture)} AND row = {hit.row}")[kind])[0]
        return pose if np.isfinite(pose).all() else None

    def update_structure(self) -> int:
        """Bring the search structure up to date and tidy up; returns the number of partitions, 0 without structure."""
        return int(self._written(lambda: updated(self._table)))

    def partitions(self) -> int:
        """Count the partitions of the search structure; 0 if there is none."""
        with self.reading():
            structure = Structure.of(self.dataset())
        return 0 if structure is None else structure.partitions

    def structured_count(self) -> int:
        """Count the entries that the search structure covers; the others are compared one by one."""
        with self.reading():
            stats = self._table.index_stats(STRUCTURE)
        return 0 if stats is None else int(stats.num_indexed_rows)

    def remember_capture(self, capture: str, uri: str) -> None:
        """Store the address of a capture, so that its images can be shown."""
        row = pa.table([[capture], [uri]], schema=_CAPTURES_SCHEMA)
        merge = self._captures.merge_insert("capture").when_matched_update_all().when_not_matched_insert_all()
        self._written(lambda: merge.execute(row))

    def forget_capture(self, capture: str) -> int:
        """Remove a capture with all its entries; returns how many there were."""
        count = self.remove(capture=capture)
        self._written(lambda: self._captures.delete(f"capture = {quoted(capture)}"))
        return count

    def captures(self) -> dict[str, str]:
        """The address at which each capture was indexed, by fingerprint."""
        with self.reading():
            return {line["capture"]: line["uri"] for line in self._captures.to_arrow().to_pylist()}

    @property
    def version(self) -> int:
        """The version of the table, which grows with every change."""
        return int(self._table.version)

    def dataset(self) -> Any:
        """The table as a pylance dataset, at the current version."""
        return self._table.to_lance(index_cache_size_bytes=1 << 20)  # a small cache: everything is read once

    def reading(self) -> AbstractContextManager[None]:
        """Turn whatever damaged files of the index lead to into its error."""
        return reading(self.uri)

    def _written(self, act: Callable[[], Any]) -> Any:
        with damage_as(
            PoseIndexError,
            lambda why: (
                f"the index at {self.uri} cannot be written ({why}). Its earlier content is kept; make room or "
                "gain access, and run the command again"
            ),
        ):
            return act()


def check_query(vector: Float[np.ndarray, " dim"], top: int, model: ModelIdentity, uri: str) -> None:
    """Check that an index of a model can be searched for an embedding.

    Raises:
        PoseIndexError: The embedding has another length or is not finite, or no hits are asked for.
    """
    if vector.shape != (model.dim,):
        raise PoseIndexError(
            f"the index at {uri} holds embeddings of {model.dim} numbers, the query has {vector.shape[-1]}; "
            f"use the run that the index was made with: {model.run}"
        )
    if not np.isfinite(vector).all():
        raise PoseIndexError("the query's embedding is not finite; has the network diverged?")
    if top < 1:
        raise PoseIndexError(f"top: expected 1 or more, got {top}")


def _where(condition: Filter, capture: str | None) -> str:
    parts = [condition.where(), "" if capture is None else f"capture = {quoted(capture)}"]
    return " AND ".join(part for part in parts if part)
