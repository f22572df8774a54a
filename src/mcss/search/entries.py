"""What an index of embeddings holds and gives: entries, conditions on them, hits and tracks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

INDEX_VERSION = 1
"""Raised when the tables change so that an older program would misread them."""

PLACE = ("capture", "row", "subject", "sequence", "frame", "time", "view")
"""The columns that say what an entry shows."""

Kind = Literal["predicted", "true"]
"""The poses of an entry."""

_POSE_BYTES = 17 * 3 * 4


@dataclass(frozen=True)
class Origin:
    """What made the embeddings of an index; those of two networks cannot be compared."""

    digest: str
    """SHA-256 of the weights."""
    dim: int
    """Length of an embedding."""
    run: str
    """Where it was when the index was begun."""


@dataclass(frozen=True, eq=False)
class Entries:
    """Images to be found: an entry each."""

    capture: str
    """Fingerprint of the capture that has them all."""
    row: Int64[np.ndarray, " n"]
    subject: Sequence[str]
    sequence: Sequence[str]
    frame: Int64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]
    view: Sequence[str]
    vector: Float32[np.ndarray, "n dim"]
    predicted: Float32[np.ndarray, "n 17 3"] | None = None
    """Canonical poses in mm; None for a network without them."""
    true: Float32[np.ndarray, "n 17 3"] | None = None
    """Canonical poses in mm; NaN where unlabelled."""

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Filter:
    """Which images may be found; a condition that is empty holds for all."""

    view: tuple[str, ...] = ()
    """Only these views; may be given several times."""
    not_view: tuple[str, ...] = ()
    """None of these views."""
    subject: tuple[str, ...] = ()
    """Only these people."""
    not_subject: tuple[str, ...] = ()
    """None of these people."""
    sequence: tuple[str, ...] = ()
    """Only these sequences."""
    not_sequence: tuple[str, ...] = ()
    """None of these sequences."""
    between: tuple[float, float] | None = None
    """Only from the first to the second of these times, in seconds within the sequence."""

    def __post_init__(self) -> None:
        if self.between is not None and not 0 <= self.between[0] <= self.between[1]:
            raise ValueError(
                f"between: expected two times in s, the earlier first, got {self.between[0]:g} {self.between[1]:g}."
            )

    def where(self) -> str:
        """The condition in SQL; empty if there is none."""
        conditions = [f"{column} IN ({', '.join(map(quoted, names))})" for column, names in self.allowed() if names]
        conditions += [f"{column} NOT IN ({', '.join(map(quoted, names))})" for column, names in self.barred() if names]
        if self.between is not None:
            conditions.append(f"time >= {float(self.between[0])!r} AND time <= {float(self.between[1])!r}")
        return " AND ".join(conditions)

    def allowed(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(column, the names that are allowed there), no names standing for all."""
        return ("view", self.view), ("subject", self.subject), ("sequence", self.sequence)

    def barred(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(column, the names that are not allowed there)."""
        return ("view", self.not_view), ("subject", self.not_subject), ("sequence", self.not_sequence)


NO_FILTER = Filter()


@dataclass(frozen=True)
class Hit:
    """An image that was found."""

    capture: str
    row: int
    subject: str
    sequence: str
    frame: int
    time: float
    view: str
    distance: float
    """Between embeddings (0 to 2), or PA-MPJPE in mm, as was searched by."""

    @property
    def name(self) -> str:
        """``subject/sequence/frame/view``, as a query takes it."""
        return f"{self.subject}/{self.sequence}/{self.frame}/{self.view}"


@dataclass(frozen=True, eq=False)
class Track:
    """What one view saw of one sequence, in order of time."""

    capture: str
    subject: str
    sequence: str
    view: str
    row: Int64[np.ndarray, " n"]
    frame: Int64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]
    vector: Float32[np.ndarray, "n dim"]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def name(self) -> str:
        """``subject/sequence/view``."""
        return f"{self.subject}/{self.sequence}/{self.view}"

    def hit(self, place: int, distance: float = 0.0) -> Hit:
        """What stands at a place."""
        row, frame, time = int(self.row[place]), int(self.frame[place]), float(self.time[place])
        return Hit(self.capture, row, self.subject, self.sequence, frame, time, self.view, distance)


def index_schema(origin: Origin) -> Any:
    """The columns of the table ``poses``, and in its metadata what made the embeddings."""
    fields = [
        pa.field("capture", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("sequence", pa.string(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), origin.dim), nullable=False),
        # Bytes, since LanceDB takes every list of floats for one more vector to search by, and forbids gaps in it.
        pa.field("predicted", pa.binary(_POSE_BYTES)),
        pa.field("true", pa.binary(_POSE_BYTES)),
    ]
    about = {"mcss.index_version": str(INDEX_VERSION), "mcss.model": origin.digest, "mcss.run": origin.run}
    return pa.schema(fields).with_metadata(about)


def entries_table(entries: Entries, origin: Origin) -> Any:
    """Entries as an Arrow table with `index_schema`."""
    vectors = np.ascontiguousarray(entries.vector, np.float32).reshape(-1)
    columns = [
        pa.array([entries.capture] * len(entries), pa.string()),
        pa.array(entries.row, pa.int64()),
        pa.array(list(entries.subject), pa.string()),
        pa.array(list(entries.sequence), pa.string()),
        pa.array(entries.frame, pa.int64()),
        pa.array(entries.time, pa.float64()),
        pa.array(list(entries.view), pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), origin.dim),
        _poses_column(entries.predicted, len(entries)),
        _poses_column(entries.true, len(entries)),
    ]
    return pa.table(columns, schema=index_schema(origin))


def _poses_column(poses: Float32[np.ndarray, "n 17 3"] | None, count: int) -> Any:
    if poses is None:
        return pa.nulls(count, pa.binary(_POSE_BYTES))
    known = np.isfinite(poses).all(axis=(1, 2))
    rows = [pose.astype("<f4").tobytes() if there else None for pose, there in zip(poses, known, strict=True)]
    return pa.array(rows, pa.binary(_POSE_BYTES))


def vectors_of(column: Any, dim: int) -> Float32[np.ndarray, "n dim"]:
    """A column of embeddings as a matrix."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, dim)


def poses_of(column: Any) -> Float32[np.ndarray, "n 17 3"]:
    """A column of poses in mm; NaN where there is none."""
    nothing = np.full(17 * 3, np.nan, "<f4").tobytes()
    data = b"".join(pose or nothing for pose in column.to_pylist())
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, 17, 3)


def tracks_of(table: Any, dim: int) -> Iterator[Track]:
    """The tracks in rows of an index: what one view saw of one sequence, in order of time."""
    names = [table[column].to_pylist() for column in ("capture", "subject", "sequence", "view")]
    row, frame, time = (table[column].to_numpy() for column in ("row", "frame", "time"))
    vector = vectors_of(table["vector"], dim)
    places: dict[tuple[str, ...], list[int]] = {}
    for place, key in enumerate(zip(*names, strict=True)):
        places.setdefault(key, []).append(place)
    for (capture, subject, sequence, view), found in sorted(places.items()):
        order = np.array(found)[np.argsort(time[found], kind="stable")]
        yield Track(
            capture, subject, sequence, view, row=row[order], frame=frame[order], time=time[order], vector=vector[order]
        )


def quoted(name: str) -> str:
    """A name as a literal of SQL."""
    return "'" + name.replace("'", "''") + "'"
