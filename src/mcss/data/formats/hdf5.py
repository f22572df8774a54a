"""HDF5, the format of MAT files of version 7.3, of DeepLabCut and of some copies of data sets.

What a file states is held against its size before memory is reserved: a few bytes can state any number of zeros.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

_MOST_COMPRESSION = 1100
"""Bytes that one byte of a file can hold; deflate reaches 1032."""

_FEW_BYTES = 64_000_000
"""Bytes that any file may hold, however small it is."""


class Hdf5File:
    """An HDF5 file that is open for reading."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, _FEW_BYTES + _MOST_COMPRESSION * size

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def values(self, at: Any, most: int = 1 << 40) -> np.ndarray:
        """Read an array of numbers, or of references to arrays.

        Args:
            at: Its name, or a reference to it.
            most: The number of values that it may have.

        Raises:
            ValueError: It is something else, lies in another file, or states more than fits.
            Exception: Whatever the bytes of a damaged file lead to.
        """
        what = at if isinstance(at, str) else "an array of a cell"
        return self._read(what, self._file[at], "biufO", most)

    def texts(self, at: str) -> list[str]:
        """Read an array of texts.

        Raises:
            ValueError: It is something else, lies in another file, or states more than fits.
            Exception: Whatever the bytes of a damaged file lead to.
        """
        return [bytes(cell).decode() for cell in self._read(at, self._file[at], "S").ravel()]

    def records(self, at: str) -> np.ndarray:
        """Read a table whose columns are numbers, arrays of numbers, or texts; a structured array.

        Raises:
            ValueError: It is something else, lies in another file, or states more than fits.
            Exception: Whatever the bytes of a damaged file lead to.
        """
        found = self._file[at]
        columns = [found.dtype[name].base.kind for name in getattr(found, "dtype", np.dtype(int)).names or ()]
        if not columns or not set(columns) <= set("biufS"):
            raise ValueError(f"{at} is no table of numbers")
        return self._read(at, found, "V")

    def names(self, at: str = "/") -> list[str]:
        """Return the names of the arrays and groups in a group."""
        return list(self._file[at])

    def attributes(self, at: str) -> dict[str, Any]:
        """Return what is written beside an array or a group."""
        return dict(self._file[at].attrs)

    def _read(self, what: str, found: Any, kinds: str, most: int = 1 << 40) -> np.ndarray:
        import h5py

        if not isinstance(found, h5py.Dataset) or found.dtype.kind not in kinds or found.shape is None:
            raise ValueError(f"{what} is no array of {'texts' if kinds == 'S' else 'numbers'}")
        if found.is_virtual or found.external or found.file.filename != self._file.filename:
            raise ValueError(f"{what} lies in another file")
        count = math.prod(found.shape)
        self._left -= count * found.dtype.itemsize
        if count > most or self._left < 0:
            stated = " × ".join(map(str, found.shape))
            raise ValueError(f"{what} states {stated} numbers, more than the file can hold or an array like it has")
        return np.asarray(found[()])


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Hdf5File]:
    """Open a file for reading.

    Raises:
        ImportError: h5py, which is an optional dependency, is not installed; the message names the extra.
        Exception: Whatever the bytes of a damaged file lead to.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "reading HDF5 (MAT v7.3, DeepLabCut) needs h5py: install it with `pip install 'mcss[datasets]'`"
        ) from error
    with h5py.File(path, "r") as file:
        yield Hdf5File(file, path.stat().st_size)
