"""HDF5, in which MAT files of version 7.3 and some copies of data sets are written."""

from typing import Any


def load_h5py() -> Any:
    """The package h5py, which is an extra."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "reading MAT v7.3 files needs h5py: install it with `pip install 'mcss[datasets]'`"
        ) from error
    return h5py
