"""The rows of an index: entries that go in, conditions on them, hits that come out, and their Arrow columns."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Float64, Int64

INDEX_VERSION = 1
"""Raised when the tables change so that an older program would misread them."""

IMAGE_COLUMNS = ("capture", "row", "subject", "sequence", "frame", "time", "view")
"""The columns that identify the image of an entry."""

PoseKind = Literal["predicted", "true"]
"""The two poses that an entry may have."""

_POSE_BYTES = 17 * 3 * 4


@dataclass(frozen=True)
class ModelIdentity:
    """The model that made the embeddings of an index; embeddings of different networks cannot be compared."""

    digest: str
    """SHA-256 of the weights."""
    dim: int
    """Length of an embedding."""
    run: str
    """Where the model was when the index was begun."""


@dataclass(frozen=True, eq=False)
class Entries:
    """Images of one capture to be found by their embeddings."""

    capture: str
    """Fingerprint of the capture."""
    row: Int64[np.ndarray, " n"]
    subject: Sequence[str]
    sequence: Sequence[str]
    frame: Int64[np.ndarray, " n"]
    time: Float64[np.ndarray, " n"]
    """Seconds within the sequence."""
    view: Sequence[str]
    vector: Float32[np.ndarray, "n dim"]
    """Embeddings."""
    predicted: Float32[np.ndarray, "n 17 3"] | None = None
    """Predicted canonical poses in mm."""
    true: Float32[np.ndarray, "n 17 3"] | None = None
    """Labelled canonical poses in mm; NaN where there is no label."""

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Filter:
    """Which images may be found; an empty condition admits all."""

    view: tuple[str, ...] = ()
    """Find only images of these views."""
    not_view: tuple[str, ...] = ()
    """Find no images of these views."""
    subject: tuple[str, ...] = ()
    """Find only images of these people."""
    not_subject: tuple[str, ...] = ()
    """Find no images of these people."""
    sequence: tuple[str, ...] = ()
    """Find only images of these sequences."""
    not_sequence: tuple[str, ...] = ()
    """Find no images of these sequences."""
    between: tuple[float, float] | None = None
    """Find only images from the first to the second of these times, in seconds within the sequence."""

    def __post_init__(self) -> None:
        if self.between is not None and not 0 <= self.between[0] <= self.between[1]:
            raise ValueError(
                f"between: expected two times in s, the earlier first, got {self.between[0]:g} {self.between[1]:g}."
            )

    def where(self) -> str:
        """The condition in SQL; empty if everything is admitted."""
        conditions = []
        for column, included, excluded in self.names():
            if included:
                conditions.append(f"{column} IN ({', '.join(map(quoted, included))})")
            if excluded:
                conditions.append(f"{column} NOT IN ({', '.join(map(quoted, excluded))})")
        if self.between is not None:
            conditions.append(f"time >= {float(self.between[0])!r} AND time <= {float(self.between[1])!r}")
        return " AND ".join(conditions)

    def names(self) -> tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]:
        """For each column of names: the column, the included names (none stand for all) and the excluded ones."""
        return (
            ("view", self.view, self.not_view),
            ("subject", self.subject, self.not_subject),
            ("sequence", self.sequence, self.not_sequence),
        )


NO_FILTER = Filter()


@dataclass(frozen=True)
class Hit:
    """An image that a search found."""

    capture: str
    row: int
    subject: str
    sequence: str
    frame: int
    time: float
    """Seconds within the sequence."""
    view: str
    distance: float
    """Distance between embeddings (0 to 2), or PA-MPJPE in mm, depending on what was compared."""

    @property
    def name(self) -> str:
        """``subject/sequence/frame/view``, which is also a query."""
        return f"{self.subject}/{self.sequence}/{self.frame}/{self.view}"


@dataclass(frozen=True, eq=False)
class ViewSequence:
    """The indexed images of one view of one sequence, in order of time."""

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

    def hit(self, position: int, distance: float = 0.0) -> Hit:
        """The image at a position."""
        row, frame, time = int(self.row[position]), int(self.frame[position]), float(self.time[position])
        return Hit(self.capture, row, self.subject, self.sequence, frame, time, self.view, distance)


def index_schema(model: ModelIdentity) -> Any:
    """The columns of the table ``poses``, with the model that made the embeddings in its metadata."""
    fields = [
        pa.field("capture", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("subject", pa.string(), nullable=False),
        pa.field("sequence", pa.string(), nullable=False),
        pa.field("frame", pa.int64(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), model.dim), nullable=False),
        # Bytes, since LanceDB treats every list of floats as another vector to search by, which may not be null.
        pa.field("predicted", pa.binary(_POSE_BYTES)),
        pa.field("true", pa.binary(_POSE_BYTES)),
    ]
    metadata = {"mcss.index_version": str(INDEX_VERSION), "mcss.model": model.digest, "mcss.run": model.run}
    return pa.schema(fields).with_metadata(metadata)


def entries_table(entries: Entries, model: ModelIdentity) -> Any:
    """Convert entries to an Arrow table with `index_schema`."""
    vectors = np.ascontiguousarray(entries.vector, np.float32).reshape(-1)
    columns = [
        pa.array([entries.capture] * len(entries), pa.string()),
        pa.array(entries.row, pa.int64()),
        pa.array(list(entries.subject), pa.string()),
        pa.array(list(entries.sequence), pa.string()),
        pa.array(entries.frame, pa.int64()),
        pa.array(entries.time, pa.float64()),
        pa.array(list(entries.view), pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(vectors), model.dim),
        _poses_column(entries.predicted, len(entries)),
        _poses_column(entries.true, len(entries)),
    ]
    return pa.table(columns, schema=index_schema(model))


def _poses_column(poses: Float32[np.ndarray, "n 17 3"] | None, count: int) -> Any:
    if poses is None:
        return pa.nulls(count, pa.binary(_POSE_BYTES))
    known = np.isfinite(poses).all(axis=(1, 2))
    cells = [pose.astype("<f4").tobytes() if is_known else None for pose, is_known in zip(poses, known, strict=True)]
    return pa.array(cells, pa.binary(_POSE_BYTES))


def vectors_of(column: Any, dim: int) -> Float32[np.ndarray, "n dim"]:
    """Convert a column of embeddings to a matrix."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, dim)


def poses_of(column: Any) -> Float32[np.ndarray, "n 17 3"]:
    """Convert a column of poses to an array in mm; NaN where there is no pose."""
    unknown = np.full(17 * 3, np.nan, "<f4").tobytes()
    data = b"".join(pose or unknown for pose in column.to_pylist())
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, 17, 3)


def view_sequences_of(table: Any, dim: int) -> Iterator[ViewSequence]:
    """Group rows of an index into the sequences of each view, each in order of time."""
    names = [table[column].to_pylist() for column in ("capture", "subject", "sequence", "view")]
    row, frame, time = (table[column].to_numpy() for column in ("row", "frame", "time"))
    vector = vectors_of(table["vector"], dim)
    positions: dict[tuple[str, ...], list[int]] = {}
    for position, key in enumerate(zip(*names, strict=True)):
        positions.setdefault(key, []).append(position)
    for (capture, subject, sequence, view), members in sorted(positions.items()):
        order = np.array(members)[np.argsort(time[members], kind="stable")]
        yield ViewSequence(
            capture, subject, sequence, view, row=row[order], frame=frame[order], time=time[order], vector=vector[order]
        )


def quoted(name: str) -> str:
    """Write a name as an SQL literal."""
    return "'" + name.replace("'", "''") + "'"
