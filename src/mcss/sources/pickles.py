"""Pickles of numpy arrays, as some data sets are released: read without running anything that is in them."""

import pickle
from typing import Any

import numpy as np

_ARRAYS = frozenset({"_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"})
"""What numpy's arrays are put together with, in any version of the protocol."""


def load_arrays(file: Any) -> Any:
    """What was pickled: numpy arrays within what Python has built in (dictionaries, lists, numbers, text).

    Raises:
        pickle.UnpicklingError: It asks for any other class or function; none of them is called.
        Exception: Whatever the bytes of a damaged file lead to.
    """
    return _Arrays(file).load()


class _Arrays(pickle.Unpickler):
    """Refuses every class but those of arrays, so that no code can run."""

    def find_class(self, module: str, name: str) -> Any:
        parts = module.split(".")
        if parts[0] != "numpy" or name not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        if parts[1:2] == ["core"]:  # as numpy 1 wrote it
            parts[1] = "_core"
        return super().find_class(".".join(parts), name)


def number_array(value: Any) -> np.ndarray:
    """A value of a pickle as an array of float64.

    Raises:
        TypeError: It is no array of numbers.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise TypeError(f"expected an array of numbers, came {kind}")
    return value.astype(np.float64)
