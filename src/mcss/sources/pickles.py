"""Pickles of numpy arrays, the format of some data sets, read without running any code in them.

Nothing of numpy takes part in unpickling: numpy's own functions for it follow whatever the bytes say, up to pointers.
An array of a pickle therefore stays what its bytes state (`PickledArray`) until its numbers are asked for.
"""

import math
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

_TYPES = re.compile(r"([<>=|]?)([fiu][1248]|b1|O8?)")
"""Numbers, truth values and Python objects, as the constructor of `numpy.dtype` is told."""


def load_arrays(file: Any, size: int) -> Any:
    """Load a pickle of numpy arrays and built-in values (dictionaries, lists, numbers, text).

    Args:
        file: The pickle, read from here on.
        size: Bytes from here to the end; nothing in the pickle can be larger.

    Returns:
        The built-in values, in which a `PickledArray` stands for every array.

    Raises:
        pickle.UnpicklingError: The pickle asks for another class or function (none is called), for an array whose parts
            do not fit together, or for more bytes than there are.
        Exception: Whatever the bytes of a damaged file lead to.
    """
    return _Arrays(_Bounded(file, size)).load()


def number_array(value: Any) -> Float64[np.ndarray, "..."]:
    """Convert an array of a pickle to float64.

    Raises:
        TypeError: It is not an array of numbers.
    """
    if not isinstance(value, PickledArray):
        raise TypeError(f"expected an array of numbers, got a {type(value).__name__}")
    return value.numbers()


class PickledArray:
    """An array in a pickle, whose parts have been checked against each other."""

    def __init__(self) -> None:
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] | None = None
        self._content: Any = None
        self._order: Any = "C"
        self._axes: tuple[int, ...] | None = None

    def __setstate__(self, state: Any) -> None:
        """Take the state of an array: a version, the shape, the type, whether columns come first, and the content."""
        shape, dtype, fortran, content = state[-4:]
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> None:
        """Set the content, whose axes are in the given order in the file.

        Raises:
            pickle.UnpicklingError: Shape, type and content do not fit together.
        """
        if not isinstance(dtype, _PlainType) or order not in ("C", "F") or not isinstance(shape, tuple):
            raise pickle.UnpicklingError("the state of an array is not as numpy writes it")
        if axes is not None and (not isinstance(axes, tuple) or sorted(axes) != list(range(len(shape)))):
            raise pickle.UnpicklingError(f"an array of {len(shape)} axes has them in the order {str(axes)[:80]}")
        if len(shape) > 8 or not all(type(length) is int and 0 <= length < 1 << 48 for length in shape):
            raise pickle.UnpicklingError(f"an array has the shape {str(shape)[:80]}")
        plain = dtype.dtype()
        expected, unit = math.prod(shape), "values"
        if plain.kind != "O":
            expected, unit = expected * plain.itemsize, "bytes"
        if not isinstance(content, list if plain.kind == "O" else (bytes, bytearray)) or len(content) != expected:
            got = f"{len(content)} {unit}" if hasattr(content, "__len__") else type(content).__name__
            raise pickle.UnpicklingError(
                f"an array has the shape {shape} of {plain}, {expected} {unit}, but holds {got}"
            )
        self._shape, self._dtype, self._content, self._order, self._axes = shape, plain, content, order, axes

    def numbers(self) -> Float64[np.ndarray, "..."]:
        """Return the numbers of the array as float64.

        Raises:
            TypeError: It is not an array of numbers.
        """
        if self._dtype is None or self._dtype.kind not in "fiu":
            raise TypeError(f"expected an array of numbers, got an array of {self._dtype}")
        values = np.frombuffer(self._content, self._dtype).reshape(self._shape, order=self._order)
        return (values if self._axes is None else values.transpose(self._axes)).astype(np.float64)

    def item(self) -> Any:
        """Return the only value of an array of one Python object.

        Raises:
            TypeError: It is another array.
        """
        if self._dtype is None or self._dtype.kind != "O" or len(self._content) != 1:
            raise TypeError(f"expected an array of one object, got the shape {self._shape} of {self._dtype}")
        return self._content[0]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers; 0 for objects."""
        return 0 if isinstance(self._content, list) or self._content is None else len(self._content)


class _PlainType:
    """A `numpy.dtype` of plain numbers or objects in a pickle."""

    def __init__(self, text: Any, align: Any = False, copy: Any = True) -> None:
        match = _TYPES.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise pickle.UnpicklingError(f"it asks for numbers of the type {str(text)[:80]!r}")
        self._order, self._kind = match[1], match[2]

    def __setstate__(self, state: Any) -> None:
        """Take the state of a type, of which plain ones have the order of their bytes alone."""
        order, *structure = state[1:5]
        if order not in ("<", ">", "=", "|") or structure != [None] * 3:
            raise pickle.UnpicklingError("it asks for a type with fields")
        self._order = order

    def dtype(self) -> "np.dtype[Any]":
        return np.dtype("O") if self._kind.startswith("O") else np.dtype(self._order + self._kind)


class _Constructor:
    """What stands for a class or function of numpy. It cannot be changed by a pickle."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *values: Any) -> Any:
        return self._make(*values)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it asks to change a function")


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> PickledArray:
    array = PickledArray()
    array.fill(content, dtype, shape, "C" if order == "K" else order, axes if order == "K" else None)
    return array


def _scalar(dtype: Any, content: Any) -> float:
    return float(_from_buffer(content, dtype, (), "C").numbers())


def _empty(kind: Any, shape: Any, code: Any) -> PickledArray:
    """Stand for numpy's own function, which makes an array whose state follows."""
    return PickledArray()


def _refused(*values: Any) -> Any:
    raise pickle.UnpicklingError("it asks for an array without content")


def _encoded(text: str, code: str) -> bytes:
    """Stand for the function by which old protocols, which have no bytes, make them of text."""
    return text.encode("latin-1")


_MADE: Mapping[str, Callable[..., Any]] = {
    "_reconstruct": _empty,
    "_frombuffer": _from_buffer,
    "ndarray": _refused,
    "dtype": _PlainType,
    "scalar": _scalar,
}
"""What stands for a class or function of numpy, in any version of the protocol."""


class _Bounded:
    """A file of which no more is asked than it has, whatever the sizes in it say."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._left = file, size

    def read(self, count: int) -> bytes:
        if not 0 <= count <= self._left:
            raise pickle.UnpicklingError(f"it states {count:,} bytes more, and {self._left:,} are left in the file")
        data: bytes = self._file.read(count)
        self._left -= len(data)
        return data

    def readline(self) -> bytes:
        data: bytes = self._file.readline(self._left)
        self._left -= len(data)
        return data


class _Arrays(pickle._Unpickler):
    """An unpickler that refuses every class but those of arrays, so that no code can run.

    The one in C would reserve memory for as many values as a number in the file says.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module == "_codecs" and name == "encode":
            return _Constructor(_encoded)
        if module.split(".")[0] != "numpy" or name not in _MADE:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not an array")
        return _Constructor(_MADE[name])

    def _load_bytearray8(self: Any) -> None:
        """Read a bytearray; the inherited function reserves the memory before it reads."""
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    dispatch: ClassVar = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: _load_bytearray8}
