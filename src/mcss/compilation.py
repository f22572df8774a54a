"""Loops over arrays compiled to machine code, for one thread; kept on the disk after the first call."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(function: _Kernel) -> _Kernel:
    """Compiled with the arithmetic of numpy, infinities included."""
    return _compiled(function, fastmath=False)


def fast_compiled(function: _Kernel) -> _Kernel:
    """Compiled so that sums may be taken in any order and no number is infinite: several times as fast."""
    return _compiled(function, fastmath=True)


def _compiled(function: _Kernel, fastmath: bool) -> _Kernel:
    # Unwrapped, because numba cannot compile the run-time type checks that the tests wrap around functions.
    kernel: Any = numba.njit(cache=True, fastmath=fastmath, nogil=True)(inspect.unwrap(function))
    return cast(_Kernel, kernel)
