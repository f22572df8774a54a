"""Pickles of numpy arrays, the format of some data sets, read without running any code in them."""

import pickle
from typing import Any

import numpy as np

_ARRAYS = frozenset({"_reconstruct", "_frombuffer", "ndarray", "dtype", "scalar"})
"""Functions and classes that rebuild numpy arrays, in any version of the protocol."""


def load_arrays(file: Any) -> Any:
    """Load a pickle of numpy arrays and built-in values (dictionaries, lists, numbers, text).

    Raises:
        pickle.UnpicklingError: The pickle asks for another class or function; none is called.
        Exception: Whatever the bytes of a damaged file lead to.
    """
    return _Arrays(file).load()


class _Arrays(pickle.Unpickler):
    """An unpickler that refuses every class but those of arrays, so that no code can run."""

    def find_class(self, module: str, name: str) -> Any:
        parts = module.split(".")
        if parts[0] != "numpy" or name not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")
        if parts[1:2] == ["core"]:  # the name in numpy 1
            parts[1] = "_core"
        return super().find_class(".".join(parts), name)


def number_array(value: Any) -> np.ndarray:
    """Convert a value of a pickle to an array of float64.

    Raises:
        TypeError: It is not an array of numbers.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise TypeError(f"expected an array of numbers, got {kind}")
    return value.astype(np.float64)
