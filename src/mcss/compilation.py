"""Loops over arrays compiled to machine code; cached on disk after the first call."""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

_Kernel = TypeVar("_Kernel", bound=Callable[..., Any])


def compiled(function: _Kernel) -> _Kernel:
    """Compile a function with numpy's arithmetic, including infinities."""
    return _compiled(function, fastmath=False)


def fast_compiled(function: _Kernel) -> _Kernel:
    """Compile a function whose sums may be taken in any order and never involve infinities: several times faster."""
    return _compiled(function, fastmath=True)


def _compiled(function: _Kernel, fastmath: bool) -> _Kernel:
    # Unwrapped, because numba cannot compile the run-time type checks that the tests wrap around functions.
    kernel: Any = numba.njit(cache=True, fastmath=fastmath, nogil=True)(inspect.unwrap(function))
    return cast(_Kernel, kernel)
