"""An index of embeddings: images of people, found by pose; in LanceDB, in a folder or an object store.

An index is a LanceDB database of two tables: ``poses``, a row per image (`mcss.search.entries.index_schema`), and
``captures``, where the images came from. Every change is a version of its own: who searches meanwhile sees all of
it or nothing.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float32

from mcss.errors import PoseIndexError
from mcss.search.entries import (
    INDEX_VERSION,
    NO_FILTER,
    PLACE,
    Entries,
    Filter,
    Hit,
    Kind,
    Origin,
    Track,
    entries_table,
    index_schema,
    poses_of,
    quoted,
    tracks_of,
    vectors_of,
)

NEAREST = 20
"""So many are found unless said otherwise."""

STRUCTURED_FROM = 5_000
"""Indexes with fewer entries are searched in full, which takes milliseconds."""

PARTITION = 500
"""Entries that a partition of the search structure holds on average."""

PROBES = 64
"""Partitions that an approximate search looks into."""

STRUCTURE = "vector_idx"
"""LanceDB's name of the search structure over the embeddings."""

_POSES, _CAPTURES = "poses", "captures"
_CAPTURES_SCHEMA = pa.schema([pa.field("capture", pa.string()), pa.field("uri", pa.string())])


class PoseIndex:
    """An index, opened: add, search, remove, count. Adding what is there already puts the new in its place."""

    def __init__(self, uri: str, database: Any, origin: Origin) -> None:
        self.uri = uri
        self.origin = origin
        self._captures = database.open_table(_CAPTURES)
        self._table = database.open_table(_POSES)

    @classmethod
    def create(cls, uri: str | Path, origin: Origin) -> "PoseIndex":
        """Begin an index, or open the one of the same model that is there.

        Raises:
            PoseIndexError: One of another model is there, or something else, or the place cannot be written.
        """
        place = str(uri)
        database = _connect(place)
        names = _tables(database, place)
        if not names - {_CAPTURES}:
            try:  # ``poses`` is made last: without it there is no index, whenever this is stopped
                database.create_table(_CAPTURES, schema=_CAPTURES_SCHEMA, exist_ok=True)
                database.create_table(_POSES, schema=index_schema(origin))
            except (OSError, RuntimeError) as error:
                raise PoseIndexError(
                    f"no index can be written at {place}: {error}. Make room or choose another place"
                ) from error
        index = cls.open(place)
        index.check(origin)
        return index

    @classmethod
    def open(cls, uri: str | Path) -> "PoseIndex":
        """Open the index at `uri`: a folder, or any object-store address that LanceDB accepts.

        Raises:
            PoseIndexError: There is none, it is of a newer mcss, or it is something else.
        """
        place = str(uri)
        if "://" not in place and not Path(place).is_dir():
            raise _absent(place)
        database = _connect(place)
        names = _tables(database, place)
        if not names - {_CAPTURES}:
            raise _absent(place)
        if _POSES not in names:
            raise _foreign(place, f"its tables are {', '.join(sorted(names))}")
        schema = database.open_table(_POSES).schema
        metadata = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        version = metadata.get("mcss.index_version")
        if version is None or _CAPTURES not in names:
            raise _foreign(place, "its table poses was not written by mcss")
        if int(version) > INDEX_VERSION:
            raise PoseIndexError(
                f"the index at {place} has version {version}, this mcss reads up to {INDEX_VERSION}: update mcss"
            )
        origin = Origin(metadata["mcss.model"], schema.field("vector").type.list_size, metadata["mcss.run"])
        return cls(place, database, origin)

    def check(self, origin: Origin) -> None:
        """See that embeddings of `origin` belong here.

        Raises:
            PoseIndexError: They are of another size or another network.
        """
        if origin.dim != self.origin.dim:
            raise PoseIndexError(
                f"the index at {self.uri} holds embeddings of {self.origin.dim} numbers, {origin.run} gives "
                f"{origin.dim}: use the run that it was made with ({self.origin.run}), or index anew at another place"
            )
        if origin.digest != self.origin.digest:
            raise PoseIndexError(
                f"the index at {self.uri} was made with other weights ({self.origin.digest[:12]}) than those of "
                f"{origin.run} ({origin.digest[:12]}), whose embeddings cannot be compared: use the run that it was "
                f"made with ({self.origin.run}), or index anew at another place"
            )

    def add(self, entries: Entries) -> None:
        """Add entries; those whose capture and row are here already are replaced. All of it, or nothing.

        Raises:
            PoseIndexError: Embeddings of another size or not finite, or the place cannot be written.
        """
        if entries.vector.shape[1] != self.origin.dim:
            raise PoseIndexError(
                f"the index at {self.uri} holds embeddings of {self.origin.dim} numbers, came "
                f"{entries.vector.shape[1]}; index with the run that it was begun with ({self.origin.run})"
            )
        finite = np.isfinite(entries.vector).all(axis=1)
        if not finite.all():
            raise PoseIndexError(
                f"the embedding of row {entries.row[~finite][0]} is not finite; has the network diverged?"
            )
        merge = self._table.merge_insert(["capture", "row"]).when_matched_update_all().when_not_matched_insert_all()
        self._written(lambda: merge.execute(entries_table(entries, self.origin)))

    def remove(self, condition: Filter = NO_FILTER, capture: str | None = None) -> int:
        """Remove the entries that a filter lets through, of one capture or of all; returns how many.

        Raises:
            PoseIndexError: No condition at all, which would be everything; or the place cannot be written.
        """
        where = _where(condition, capture)
        if not where:
            raise PoseIndexError(
                "remove: expected a condition, came none, which is everything; delete the index instead"
            )
        done = self._written(lambda: self._table.delete(where))
        return int(done.num_deleted_rows)

    def count(self, condition: Filter = NO_FILTER, capture: str | None = None) -> int:
        """How many entries a filter lets through."""
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
        """The entries nearest to an embedding, nearest first.

        Args:
            vector: An embedding of the index's model.
            top: How many.
            condition: Which of them may be found.
            exact: Compare with every entry, even if there is a search structure.
            probes: Partitions of the structure that are looked into.

        Raises:
            PoseIndexError: An embedding of another size, an empty index, or a name in the filter that is not there.
        """
        checked(vector, top, self.origin, self.uri)
        query = self._table.search(vector.astype(np.float32), vector_column_name="vector")
        query = query.distance_type("l2").limit(top).select([*PLACE, "_distance"]).nprobes(probes)
        if where := condition.where():
            query = query.where(where, prefilter=True)
        if exact:
            query = query.bypass_vector_index()
        found = query.to_arrow().to_pylist()
        if len(found) < top:
            self.check_names(condition)
        return [Hit(**{c: hit[c] for c in PLACE}, distance=float(np.sqrt(max(0.0, hit["_distance"])))) for hit in found]

    def check_names(self, condition: Filter) -> None:
        """See that every name in a filter is there.

        Raises:
            PoseIndexError: One is not, or the index is empty.
        """
        if not self.count():
            raise PoseIndexError(f"the index at {self.uri} is empty; fill it with `mcss index CAPTURE -o {self.uri}`")
        for column, names in (*condition.allowed(), *condition.barred()):
            for name in names:
                if not self._table.count_rows(f"{column} = {quoted(name)}"):
                    known = ", ".join(self.names(column))
                    raise PoseIndexError(
                        f"{column}: there is no {name!r} in the index at {self.uri}; there are {known}"
                    )

    def names(self, column: str) -> list[str]:
        """The different values of a column of text."""
        return sorted(self.table([column])[column].unique().to_pylist())

    def table(self, columns: Sequence[str], where: str = "") -> Any:
        """Some columns of the entries for which a condition in SQL holds, as an Arrow table."""
        query = self._table.search().select(list(columns))
        return (query.where(where) if where else query).to_arrow()

    def tracks(self, condition: Filter = NO_FILTER) -> Iterator[Track]:
        """What each view saw of each sequence, one subject after the other, so that one is in memory at a time."""
        for subject in condition.subject or self.names("subject"):
            where = " AND ".join(part for part in (condition.where(), f"subject = {quoted(subject)}") if part)
            yield from tracks_of(self.table([*PLACE, "vector"], where), self.origin.dim)

    def poses(
        self, kind: Kind, condition: Filter = NO_FILTER
    ) -> Iterator[tuple[list[dict[str, Any]], Float32[np.ndarray, "n 17 3"]]]:
        """The canonical poses in mm, ``predicted`` or ``true``, batch by batch, with what shows them."""
        where = " AND ".join(part for part in (condition.where(), f"{kind} IS NOT NULL") if part)
        query = self._table.search().select([*PLACE, kind]).where(where)
        for batch in query.to_batches(batch_size=65_536):
            if batch.num_rows:
                yield batch.select(list(PLACE)).to_pylist(), poses_of(batch[kind])

    def vector(self, hit: Hit) -> Float32[np.ndarray, " dim"]:
        """The embedding of an entry."""
        found = self.table(["vector"], f"{_where(NO_FILTER, hit.capture)} AND row = {hit.row}")["vector"]
        return np.asarray(vectors_of(found, self.origin.dim)[0])

    def pose(self, hit: Hit, kind: Kind) -> Float32[np.ndarray, "17 3"] | None:
        """The canonical pose of an entry in mm; None if there is none."""
        found = poses_of(self.table([kind], f"{_where(NO_FILTER, hit.capture)} AND row = {hit.row}")[kind])[0]
        return found if np.isfinite(found).all() else None

    def structure(self) -> int:
        """Build the search structure anew where there are entries enough, and tidy up; the number of partitions."""
        self._table.optimize(cleanup_older_than=timedelta(days=1))
        count = self.count()
        if count < STRUCTURED_FROM:
            return 0
        index = _lancedb().index
        partitions = max(2, count // PARTITION)

        def build() -> None:
            for column in ("subject", "view", "sequence"):
                self._table.create_index(column, config=index.Bitmap(), replace=True)
            # More samples and rounds, LanceDB's defaults, take ten times as long and find no more.
            flat = index.IvfFlat(distance_type="l2", num_partitions=partitions, max_iterations=10, sample_rate=32)
            self._table.create_index("vector", config=flat, replace=True)

        self._written(build)
        return partitions

    def structured(self) -> int:
        """How many entries the search structure covers; the others are compared one by one."""
        stats = self._table.index_stats(STRUCTURE)
        return 0 if stats is None else int(stats.num_indexed_rows)

    def remember_capture(self, capture: str, uri: str) -> None:
        """Keep where a capture is, for showing its images."""
        row = pa.table([[capture], [uri]], schema=_CAPTURES_SCHEMA)
        merge = self._captures.merge_insert("capture").when_matched_update_all().when_not_matched_insert_all()
        self._written(lambda: merge.execute(row))

    def forget_capture(self, capture: str) -> int:
        """Remove all entries of a capture, and where it is; returns how many there were."""
        count = self.remove(capture=capture)
        self._written(lambda: self._captures.delete(f"capture = {quoted(capture)}"))
        return count

    def captures(self) -> dict[str, str]:
        """Where each capture was when it was indexed, by fingerprint."""
        return {line["capture"]: line["uri"] for line in self._captures.to_arrow().to_pylist()}

    @property
    def version(self) -> int:
        """Rises with every change, whoever makes it."""
        return int(self._table.version)

    def dataset(self) -> Any:
        """The table as pylance sees it, at the current version."""
        return self._table.to_lance(index_cache_size_bytes=1 << 20)  # what is read once need not be kept

    def _written(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (OSError, RuntimeError) as error:
            raise PoseIndexError(
                f"the index at {self.uri} cannot be written: {error}. What was there before stays; make room (or mend "
                "access) and give the same command again"
            ) from error


def checked(vector: Float[np.ndarray, " dim"], top: int, origin: Origin, uri: str) -> None:
    """See that something can be searched for.

    Raises:
        PoseIndexError: An embedding of another size or not finite, or nothing to find.
    """
    if vector.shape != (origin.dim,):
        raise PoseIndexError(
            f"the index at {uri} holds embeddings of {origin.dim} numbers, the query has {vector.shape[-1]}; "
            f"use the run that the index was made with: {origin.run}"
        )
    if not np.isfinite(vector).all():
        raise PoseIndexError("the query's embedding is not finite; has the network diverged?")
    if top < 1:
        raise PoseIndexError(f"top: expected 1 or more, got {top}")


def _where(condition: Filter, capture: str | None) -> str:
    parts = [condition.where(), "" if capture is None else f"capture = {quoted(capture)}"]
    return " AND ".join(part for part in parts if part)


def _connect(place: str) -> Any:
    try:
        return _lancedb().connect(place, read_consistency_interval=timedelta(0))
    except (OSError, ValueError, RuntimeError) as error:
        raise PoseIndexError(f"{place}: no index can be reached there ({error}); check the address") from error


def _tables(database: Any, place: str) -> set[str]:
    try:
        return set(database.list_tables(limit=1000).tables)
    except (OSError, RuntimeError) as error:
        raise PoseIndexError(f"{place}: no index can be reached there ({error}); check the address") from error


def _absent(place: str) -> PoseIndexError:
    return PoseIndexError(f"no index at {place}; make one with `mcss index CAPTURE -o {place}`")


def _foreign(place: str, why: str) -> PoseIndexError:
    return PoseIndexError(
        f"{place} is a LanceDB database but no index of mcss ({why}); make one elsewhere with "
        "`mcss index CAPTURE -o INDEX`"
    )


def _lancedb() -> ModuleType:
    """LanceDB, which is an extra.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # or it warns that a table that is made was not there before
    try:
        import lancedb
        import lancedb.index
    except ImportError as error:
        raise ImportError("searching needs LanceDB: install it with `pip install 'mcss[search]'`") from error
    return lancedb
