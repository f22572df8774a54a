"""The Lance tables of a capture: where they are, opening, checking and extending them, and their fingerprint.

The fingerprint identifies a capture wherever it is stored and in whatever order its parts were written. A computed
capture is identified by its settings and by which rows it has, since its pixels differ by rounding from one processor
to the next; any other capture is identified by everything that it holds.
"""

import errno
import hashlib
import json
import os
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import lance
import pyarrow as pa
from lance.fragment import write_fragments

from mcss.data.schema import METADATA, OPTIONAL, SCHEMA, SCHEMA_VERSION, CaptureInfo, list_column_values
from mcss.errors import CaptureError, damage_as, reason
from mcss.files import FULL, locked
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
    """Open the Lance table at `uri`; None if there is none.

    Raises:
        CaptureError: It cannot be read, or its files are damaged.
    """
    with damage_as(CaptureError, lambda why: f"{uri} cannot be opened ({why}): {_WAY_OUT}"):
        try:
            dataset = lance.dataset(uri)
        except ValueError as error:
            if "not found" in str(error):
                return None
            raise
        metadata_of(dataset)  # reads the schema, which may be damaged, too
        return dataset


_WAY_OUT = "restore it from a copy or make it again"


def reading_capture(capture: str) -> AbstractContextManager[None]:
    """Turn whatever damaged files of a capture lead to into its error."""
    return damage_as(CaptureError, lambda why: f"the capture at {capture} cannot be read ({why}): {_WAY_OUT}")


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
    with reading_capture(capture):
        number, joints = int(version), tuple(json.loads(metadata.get("mcss.skeleton", json.dumps(JOINTS))))
    if number > SCHEMA_VERSION:
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
    if joints != JOINTS:
        raise CaptureError(
            f"the capture at {capture} has the joints {metadata['mcss.skeleton']}, expected "
            f"{', '.join(JOINTS)}: import it again with this mcss"
        )
    types = {f.name: f.type for f in dataset.schema}
    absent = [f.name for f in SCHEMA if f.name not in types and f.name not in OPTIONAL]
    if absent:
        raise CaptureError(
            f"the capture at {capture} lacks the columns {', '.join(absent)}: it was changed by another "
            "program; restore it from a copy or make it again"
        )
    wrong = [f"{f.name}: {types[f.name]}, expected {f.type}" for f in SCHEMA if types.get(f.name, f.type) != f.type]
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


class WritingLock:
    """Keeps other processes from writing a capture as long as this object lives and its process does.

    In an object store, and where the file system has no locks, it keeps nobody out, and `commit_pieces` sees what
    others have added.
    """

    _held: ClassVar["WeakValueDictionary[str, WritingLock]"] = WeakValueDictionary()

    def __init__(self, path: Path, handle: int) -> None:
        self._finalizer = weakref.finalize(self, _unlock, path, handle)

    @classmethod
    def take(cls, capture: str) -> "WritingLock | None":
        """Take the lock of the capture at an address, which this process may hold already.

        Raises:
            CaptureError: Another process is writing the capture, or its folder cannot be written.
        """
        if "://" in capture:
            return None
        path = Path(capture).absolute() / ".writing"
        held = cls._held.get(str(path))
        if held is None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                handle = locked(path)
            except BlockingIOError as error:
                owner = path.read_text(encoding="ascii", errors="replace")[:20] if path.exists() else ""
                raise CaptureError(
                    f"the capture at {capture} is being written by another process{f' ({owner})' if owner else ''}: "
                    "wait until it has ended, or write to another place"
                ) from error
            except OSError as error:
                if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    return None
                raise CaptureError(f"no capture can be written at {capture}: {error}") from error
            os.truncate(handle, 0)
            os.write(handle, str(os.getpid()).encode())
            held = cls._held[str(path)] = cls(path, handle)
        return held


def _unlock(path: Path, handle: int) -> None:
    path.unlink(missing_ok=True)
    os.close(handle)


def write_pieces(capture: str, table: Any, what: str = "the rows of a sequence") -> list[Any]:
    """Write rows beside the table of frames; they belong to it once they are committed, by this or another process.

    Raises:
        CaptureError: The rows cannot be written, as when the disk is full.
    """
    try:
        uri = table_uri(capture, "frames")
        there = lance.dataset(uri).schema.names  # an earlier mcss may have begun the capture
        table = table.drop_columns([name for name in table.column_names if name in OPTIONAL and name not in there])
        pieces: list[Any] = write_fragments(table, uri, mode="append")
    except (OSError, RuntimeError, ValueError) as error:
        raise not_written(what, capture, error) from error
    return pieces


def not_written(what: str, capture: str, error: Exception) -> CaptureError:
    """Make the error that says what could not be written to a capture, and why."""
    return CaptureError(
        f"{what} could not be written to {capture} ({why_not_written(error)}). What was written before stays: make "
        "room (or correct the access rights) and run the same command again"
    )


def why_not_written(error: BaseException) -> str:
    """Say why Lance could not write; its messages name the cause in the middle of its own words, if at all."""
    for number in sorted(FULL):
        if os.strerror(number).lower() in str(error).lower() or f"os error {number})" in str(error):
            return os.strerror(number)
    return reason(error)


def commit_pieces(capture: str, dataset: Any, part: tuple[str, str], pieces: list[Any]) -> Any:
    """Add the rows of a part that `write_pieces` wrote to the table: all of them or, on a failure, none.

    Returns:
        The table.

    Raises:
        CaptureError: Another process has added the part, or writes this capture at the same time.
    """
    uri = table_uri(capture, "frames")
    latest = lance.dataset(uri)
    if latest.version != dataset.version and rows_of(latest, part):
        raise CaptureError(_two_writers(capture, part, "added"))
    committed = lance.LanceDataset.commit(uri, lance.LanceOperation.Append(pieces), read_version=latest.version)
    if committed.version != latest.version + 1 and rows_of(committed, part) != sum(p.num_rows for p in pieces):
        # Both were written between our two looks, which only an object store allows: without a lock, and seldom.
        committed.delete(_is(part))
        raise CaptureError(_two_writers(capture, part, "was adding"))
    return committed


def rows_of(dataset: Any, part: tuple[str, str]) -> int:
    """Count the rows of a part, which is one sequence of one subject."""
    return int(dataset.count_rows(filter=_is(part)))


def _is(part: tuple[str, str]) -> str:
    subject, sequence = (name.replace("'", "''") for name in part)
    return f"subject = '{subject}' AND sequence = '{sequence}'"


def _two_writers(capture: str, part: tuple[str, str], did: str) -> str:
    return (
        f"another process {did} {part[0]}/{part[1]} to the capture at {capture} at the same time: let only one "
        "process write a capture, and run the same command again"
    )


def sweep(dataset: Any) -> None:
    """Remove the files that do not belong to the latest version of a table, such as half-written ones after a kill.

    In an object store, where no lock says that nobody else is writing, only files of yesterday and before are removed.
    """
    if "://" in dataset.uri and not dataset.uri.startswith("file://"):
        dataset.cleanup_old_versions(older_than=timedelta(days=1))
    else:
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
    columns = _ROW if info.computed else [field.name for field in SCHEMA if field.name not in OPTIONAL]
    for batch in frames.to_batches(batch_size=512, columns=columns):
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
