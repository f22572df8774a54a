"""The LanceDB database of an index: connecting to it, and errors that say what to do."""

import os
from contextlib import AbstractContextManager
from datetime import timedelta
from types import ModuleType
from typing import Any

from mcss.errors import PoseIndexError, damage_as


def connect(address: str) -> Any:
    """Connect to the database of an index."""
    try:
        return lancedb_module().connect(address, read_consistency_interval=timedelta(0))
    except (OSError, ValueError, RuntimeError) as error:
        raise PoseIndexError(f"{address}: the index cannot be reached ({error}); check the address") from error


def tables_of(database: Any, address: str) -> set[str]:
    """Return the names of the tables of a database."""
    try:
        return set(database.list_tables(limit=1000).tables)
    except (OSError, RuntimeError) as error:
        raise PoseIndexError(f"{address}: the index cannot be reached ({error}); check the address") from error


def reading(address: str) -> AbstractContextManager[None]:
    """Turn what damaged files lead to into the error of an index."""
    return damage_as(
        PoseIndexError,
        lambda why: (
            f"the index at {address} cannot be read ({why}): its files are damaged. Remove it, and create it "
            "again with `mcss index`"
        ),
    )


def absent(address: str) -> PoseIndexError:
    """Return the error of an index that is not there."""
    return PoseIndexError(f"no index at {address}; create one with `mcss index CAPTURE -o {address}`")


def foreign(address: str, why: str) -> PoseIndexError:
    """Return the error of a database of another program."""
    return PoseIndexError(
        f"{address} is a LanceDB database but not an index of mcss ({why}); create one elsewhere with "
        "`mcss index CAPTURE -o INDEX`"
    )


def lancedb_module() -> ModuleType:
    """Import LanceDB, which is an extra.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    os.environ.setdefault("LANCE_LOG", "error")  # it would warn that a new table did not exist before
    try:
        import lancedb
        import lancedb.index
    except ImportError as error:
        raise ImportError("searching needs LanceDB: install it with `pip install 'mcss[search]'`") from error
    return lancedb
