"""The Lance tables of a capture: where they are, opening, checking and extending them, and their fingerprint.

The fingerprint identifies a capture wherever it is stored and in whatever order its parts were written. A computed
capture is identified by its settings and by which rows it has, since its pixels differ by rounding from one processor
to the next; any other capture is identified by everything that it holds.
"""

import hashlib
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
from lance.fragment import write_fragments

from mcss.data.schema import METADATA, SCHEMA, SCHEMA_VERSION, CaptureInfo, list_column_values
from mcss.errors import CaptureError
from mcss.progress import Task
from mcss.skeletons import JOINTS

FINGERPRINT = "mcss.fingerprint"
"""The metadata that only a finished table of frames has."""

_ROW = ["subject", "sequence", "action", "frame", "view"]
_BACKGROUND = ["stage", "view"]
"""The columns that count in the fingerprint of a computed capture."""


def capture_address(uri: str | Path) -> str:
    """The address of a capture as text, whether its folder or its table of frames was given."""
    if isinstance(uri, Path) or "://" not in uri:
        path = Path(uri).expanduser()
        return str(path.parent if path.name == "frames.lance" else path)
    address, mark, options = uri.partition("?")
    return address.rstrip("/").removesuffix("/frames.lance") + mark + options


def table_uri(capture: str, name: str) -> str:
    """The address of one table of the capture at the address `capture`."""
    address, mark, options = capture.partition("?") if "://" in capture else (capture, "", "")
    return f"{address}/{name}.lance{mark}{options}"


def open_table(uri: str) -> Any:
    """Open the Lance table at `uri`; None if there is none."""
    try:
        return lance.dataset(uri)
    except ValueError as error:
        if "not found" in str(error):
            return None
        raise CaptureError(f"{uri} cannot be opened: {error}") from error
    except OSError as error:
        raise CaptureError(f"{uri} cannot be read: {error}") from error


def metadata_of(dataset: Any) -> dict[str, str]:
    """The metadata of a table as text."""
    return {key.decode(): value.decode() for key, value in (dataset.schema.metadata or {}).items()}


def checked_metadata(capture: str, dataset: Any) -> dict[str, str]:
    """The metadata of a table of frames, after checking that this program can read the table.

    Raises:
        CaptureError: The table was written by a newer mcss, or is not a complete capture; the message says why.
    """
    metadata = metadata_of(dataset)
    version = metadata.get("mcss.schema_version")
    if version is None:
        raise CaptureError(
            f"{table_uri(capture, 'frames')} is a Lance table but not a capture: it has no mcss.schema_version"
        )
    if int(version) > SCHEMA_VERSION:
        raise CaptureError(
            f"the capture at {capture} has schema version {version}, this mcss reads up to {SCHEMA_VERSION}: "
            "update mcss"
        )
    missing = [key for key in METADATA if key not in metadata]
    if missing:
        raise CaptureError(
            f"the capture at {capture} lacks the metadata {', '.join(missing)}: it was changed by another "
            "program; restore it from a copy or make it again"
        )
    if tuple(json.loads(metadata["mcss.skeleton"])) != JOINTS:
        raise CaptureError(
            f"the capture at {capture} has the joints {metadata['mcss.skeleton']}, expected "
            f"{', '.join(JOINTS)}: import it again with this mcss"
        )
    types = {f.name: f.type for f in dataset.schema}
    absent = [f.name for f in SCHEMA if f.name not in types]
    if absent:
        raise CaptureError(
            f"the capture at {capture} lacks the columns {', '.join(absent)}: it was changed by another "
            "program; restore it from a copy or make it again"
        )
    wrong = [f"{f.name}: {types[f.name]}, expected {f.type}" for f in SCHEMA if types[f.name] != f.type]
    if wrong:
        raise CaptureError(
            f"the capture at {capture} has columns of another type ({'; '.join(wrong)}): it was changed by "
            "another program; restore it from a copy or make it again"
        )
    return metadata


def distinct_pairs(dataset: Any, first: str, second: str) -> frozenset[tuple[str, str]]:
    """The pairs of values that two columns of a table have in its rows; none if there is no table."""
    if dataset is None:
        return frozenset()
    table = dataset.to_table(columns=[first, second]).group_by([first, second]).aggregate([])
    return frozenset(zip(table[first].to_pylist(), table[second].to_pylist(), strict=True))


def write_pieces(capture: str, table: Any) -> list[Any]:
    """Write rows beside the table of frames; they belong to it once they are committed, by this or another process.

    Raises:
        CaptureError: The rows cannot be written, as when the disk is full.
    """
    try:
        pieces: list[Any] = write_fragments(table, table_uri(capture, "frames"), mode="append")
    except OSError as error:
        raise CaptureError(
            f"nothing more can be written to {capture}: {error}. What was finished before stays: make room (or correct "
            "the access rights) and run the same command again"
        ) from error
    return pieces


def commit_pieces(capture: str, dataset: Any, pieces: list[Any]) -> Any:
    """Add the rows that `write_pieces` wrote to the table, all of them or, on a failure, none; returns the table."""
    append = lance.LanceOperation.Append(pieces)
    return lance.LanceDataset.commit(table_uri(capture, "frames"), append, read_version=dataset.version)


def sweep(dataset: Any) -> None:
    """Remove the files that do not belong to the latest version of a table, such as half-written ones after a kill."""
    dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)


def fingerprint_of(info: CaptureInfo, frames: Any, backgrounds: Any, task: Task) -> str:
    """The fingerprint of a capture as 32 hexadecimal digits.

    Args:
        info: The description of the capture.
        frames: Its Lance table of frames.
        backgrounds: Its Lance table of backgrounds; None if there is none.
        task: Advances with every row.
    """
    digests: list[bytes] = []
    for batch in frames.to_batches(batch_size=512, columns=_ROW if info.computed else None):
        digests += _row_digests(batch)
        task.advance(batch.num_rows)
    if backgrounds is not None:
        for batch in backgrounds.to_batches(batch_size=8, columns=_BACKGROUND if info.computed else None):
            digests += _row_digests(batch)
    about = json.dumps(info.metadata(), sort_keys=True).encode()
    return hashlib.sha256(about + b"".join(sorted(digests))).hexdigest()[:32]


def _row_digests(batch: Any) -> Iterator[bytes]:
    """A digest of each row that does not depend on the row's position."""
    columns = []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if pa.types.is_fixed_size_list(field.type):
            columns.append([row.tobytes() for row in list_column_values(column)])
        elif pa.types.is_binary(field.type):
            columns.append(column.to_pylist())
        else:
            columns.append([repr(value).encode() for value in column.to_pylist()])
    for cells in zip(*columns, strict=True):
        digest = hashlib.sha256()
        for cell in cells:
            digest.update(len(cell).to_bytes(8, "little"))
            digest.update(cell)
        yield digest.digest()
