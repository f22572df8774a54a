"""Errors that a user can fix. Every message names the place, what was expected, what was found, and the way out."""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator


class MCSSError(ValueError):
    """An input to mcss is missing, damaged or of the wrong kind."""


class CalibrationError(MCSSError):
    """Cameras cannot be found from what they saw, or a file of cameras cannot be read."""


class CaptureError(MCSSError):
    """A capture cannot be read or written."""


class CheckpointError(MCSSError):
    """A run folder or model file is missing, damaged or of another kind."""


class ClusterError(MCSSError):
    """A cluster cannot be reached, or has lost work."""


class ExportError(MCSSError):
    """A network cannot be exported, or an exported one cannot be run."""


class ImageError(MCSSError):
    """A file or array is not an image that mcss can use, or a bounding box lies outside its image."""


class LandmarkError(MCSSError):
    """Landmarks cannot be read, belong to another capture, or do not agree between the views."""


class PoseIndexError(MCSSError):
    """A search index is missing, unfinished, or belongs to another model or capture."""


class QueryError(MCSSError):
    """A search query cannot be parsed, or names something that does not exist."""


class SourceError(MCSSError):
    """Footage, labels or a data set's files cannot be imported."""


class WeightsError(MCSSError):
    """The requested weights are not available or do not fit the network."""


@contextlib.contextmanager
def damage_as(kind: type[MCSSError], message: Callable[[str], str]) -> Iterator[None]:
    """Turn whatever error the bytes of a damaged file lead to into the file's own.

    Errors of mcss, missing packages and requests to stop the program stay what they are. Too many open files are no
    damage: they stay an `OSError`. Libraries written in Rust raise errors that are no `Exception`.

    Args:
        kind: The file's own error.
        message: Makes its message from what went wrong.
    """
    try:
        yield
    except (MCSSError, ImportError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EMFILE, errno.ENFILE) or f"(os error {errno.EMFILE})" in str(error):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
        raise kind(message(reason(error))) from error


def reason(error: BaseException) -> str:
    """Say in one line of a message what went wrong."""
    if isinstance(error, MemoryError):
        return "there is too little memory for what it states"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = " ".join(str(error).split())
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # in the middle of what libraries written in Rust say
        if f"(os error {number})" in text:
            return os.strerror(number)
    shown = text if len(text) <= 300 else text[:299] + "…"
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__
