"""The Lance tables of a capture: where they lie, opening them, and checking what they hold."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import lance
from lance.fragment import write_fragments

from mcss.data.schema import METADATA, SCHEMA, SCHEMA_VERSION
from mcss.errors import CaptureError
from mcss.skeletons import JOINTS


def place_of(uri: str | Path) -> str:
    """The address of a capture as text, whether its folder or its table was named."""
    if isinstance(uri, Path) or "://" not in uri:
        path = Path(uri).expanduser()
        return str(path.parent if path.name == "frames.lance" else path)
    address, mark, options = uri.partition("?")
    return address.rstrip("/").removesuffix("/frames.lance") + mark + options


def table_uri(place: str, name: str) -> str:
    """The address of one table of the capture at `place`."""
    address, mark, options = place.partition("?") if "://" in place else (place, "", "")
    return f"{address}/{name}.lance{mark}{options}"


def open_table(uri: str) -> Any:
    """The Lance table at `uri`, or None if there is nothing."""
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


def checked_metadata(place: str, dataset: Any) -> dict[str, str]:
    """The metadata of a frames table.

    Raises:
        CaptureError: It was written by a newer mcss or is no whole capture; says what is wrong.
    """
    metadata = metadata_of(dataset)
    version = metadata.get("mcss.schema_version")
    if version is None:
        raise CaptureError(
            f"{table_uri(place, 'frames')} is a Lance table but no capture: it has no mcss.schema_version"
        )
    if int(version) > SCHEMA_VERSION:
        raise CaptureError(
            f"the capture at {place} has schema version {version}, this mcss reads up to {SCHEMA_VERSION}: update mcss"
        )
    without = [key for key in METADATA if key not in metadata]
    if without:
        raise CaptureError(
            f"the capture at {place} lacks the metadata {', '.join(without)}: it was changed by another "
            "program; restore it from a copy or make it again"
        )
    if tuple(json.loads(metadata["mcss.skeleton"])) != JOINTS:
        raise CaptureError(
            f"the capture at {place} has the joints {metadata['mcss.skeleton']}, expected "
            f"{', '.join(JOINTS)}: import it again with this mcss"
        )
    there = {f.name: f.type for f in dataset.schema}
    missing = [f.name for f in SCHEMA if f.name not in there]
    if missing:
        raise CaptureError(
            f"the capture at {place} lacks the columns {', '.join(missing)}: it was changed by another "
            "program; restore it from a copy or make it again"
        )
    wrong = [f"{f.name}: {there[f.name]}, expected {f.type}" for f in SCHEMA if there[f.name] != f.type]
    if wrong:
        raise CaptureError(
            f"the capture at {place} has columns of another type ({'; '.join(wrong)}): it was changed by "
            "another program; restore it from a copy or make it again"
        )
    return metadata


def write_pieces(place: str, table: Any) -> list[Any]:
    """Write rows beside the frames table at `place`; they belong to it once they are committed, by any process.

    Raises:
        CaptureError: The place cannot be written (a full disk).
    """
    try:
        pieces: list[Any] = write_fragments(table, table_uri(place, "frames"), mode="append")
    except OSError as error:
        raise CaptureError(
            f"nothing more can be written to {place}: {error}. What was finished before stays: make room (or mend "
            "access) and run the same command again"
        ) from error
    return pieces


def commit_pieces(place: str, dataset: Any, pieces: list[Any]) -> Any:
    """The table with the rows that `write_pieces` wrote: all of them or, on a failure, none."""
    append = lance.LanceOperation.Append(pieces)
    return lance.LanceDataset.commit(table_uri(place, "frames"), append, read_version=dataset.version)


def sweep(dataset: Any) -> None:
    """Remove the files that belong to no version of a table but its last: what a kill left half written."""
    dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
