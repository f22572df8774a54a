"""HDF5, the format of MAT files of version 7.3 and of some copies of data sets."""

from typing import Any


def load_h5py() -> Any:
    """Import h5py, which is an optional dependency.

    Raises:
        ImportError: h5py is not installed; the message names the extra.
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            "reading MAT v7.3 files needs h5py: install it with `pip install 'mcss[datasets]'`"
        ) from error
    return h5py
