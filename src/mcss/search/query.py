"""Parse what the user searches for: an image, a movement in a video or an indexed sequence, or a 3D pose."""

import re
from dataclasses import dataclass
from pathlib import Path

from mcss.data.formats.pose_files import POSE_SUFFIXES
from mcss.errors import QueryError
from mcss.images import IMAGE_SUFFIXES
from mcss.inference.clips import TimeSpan
from mcss.video.reading.decoding import VIDEO_SUFFIXES

QUERY_FORMS = (
    "an image file; row:NUMBER; SUBJECT/SEQUENCE/FRAME/VIEW; a movement as VIDEO@T0:T1 or "
    f"SUBJECT/SEQUENCE/VIEW@T0:T1 (seconds); or a 3D pose as FILE@FRAME ({', '.join(sorted(POSE_SUFFIXES))})"
)


@dataclass(frozen=True)
class ImageQuery:
    """The person in an image file."""

    path: Path


@dataclass(frozen=True)
class RowQuery:
    """An indexed image, by its row in the capture."""

    row: int


@dataclass(frozen=True)
class NamedImageQuery:
    """An indexed image, by its subject, sequence, frame number and view."""

    subject: str
    sequence: str
    frame: int
    view: str


@dataclass(frozen=True)
class VideoQuery:
    """A movement in a video."""

    path: Path
    span: TimeSpan | None


@dataclass(frozen=True)
class SequenceQuery:
    """A movement in an indexed sequence."""

    subject: str
    sequence: str
    view: str
    span: TimeSpan | None

    @property
    def name(self) -> str:
        """``subject/sequence/view``."""
        return f"{self.subject}/{self.sequence}/{self.view}"


@dataclass(frozen=True)
class PoseQuery:
    """A 3D pose in a file of poses."""

    path: Path
    frame: int


Query = ImageQuery | RowQuery | NamedImageQuery | VideoQuery | SequenceQuery | PoseQuery


def parsed_query(text: str) -> Query:
    """Parse a query.

    Raises:
        QueryError: The text has none of the forms in `QUERY_FORMS`.

    Example:
        >>> parsed_query("row:12")
        RowQuery(row=12)
        >>> parsed_query("S9/Walking 1/40/54138969")
        NamedImageQuery(subject='S9', sequence='Walking 1', frame=40, view='54138969')
        >>> parsed_query("S9/Walking 1/2@1.5:3")
        SequenceQuery(subject='S9', sequence='Walking 1', view='2', span=(1.5, 3.0))
    """
    if text.startswith("row:"):
        if not text[4:].isdecimal():
            raise QueryError(f"query: expected a number after row:, got {text!r}")
        return RowQuery(int(text[4:]))
    name, mark, after = text.rpartition("@")
    name, after = (name, after) if mark else (text, "")
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return VideoQuery(path, _span(after, text) if mark else None)
    if suffix in POSE_SUFFIXES:
        if mark and not after.isdecimal():
            raise QueryError(f"query: expected a frame number after @, got {text!r}")
        return PoseQuery(path, int(after) if mark else 0)
    if Path(text).suffix.lower() in IMAGE_SUFFIXES:
        return ImageQuery(Path(text).expanduser())
    parts = name.split("/")
    if len(parts) == 4 and parts[2].isdecimal() and not mark:
        return NamedImageQuery(parts[0], parts[1], int(parts[2]), parts[3])
    if len(parts) == 3 and all(parts):
        return SequenceQuery(parts[0], parts[1], parts[2], _span(after, text) if mark else None)
    raise QueryError(f"query: expected {QUERY_FORMS}; got {text!r}")


@dataclass(frozen=True)
class SequenceSource:
    """One view of a sequence of a capture."""

    capture: str
    name: str
    """``subject/sequence/view``."""
    span: TimeSpan | None


def parsed_clip(text: str) -> VideoQuery | SequenceSource:
    """Parse the source of a clip: ``VIDEO`` or ``CAPTURE:SUBJECT/SEQUENCE/VIEW``, with ``@T0:T1`` for a part of it.

    Raises:
        QueryError: The text has neither form.

    Example:
        >>> parsed_clip("captures/real:Ann/jumps/left@1:2")
        SequenceSource(capture='captures/real', name='Ann/jumps/left', span=(1.0, 2.0))
    """
    name, mark, after = text.rpartition("@")
    name = name if mark else text
    span = _span(after, text) if mark else None
    if Path(name).suffix.lower() in VIDEO_SUFFIXES:
        return VideoQuery(Path(name).expanduser(), span)
    capture, colon, sequence = name.rpartition(":")
    if not colon or not capture or sequence.count("/") != 2:
        raise QueryError(
            f"{text!r}: expected a video ({', '.join(sorted(VIDEO_SUFFIXES))}) or CAPTURE:SUBJECT/SEQUENCE/VIEW, with "
            "@T0:T1 after it for a part of it"
        )
    return SequenceSource(capture, sequence, span)


def _span(text: str, whole: str) -> TimeSpan:
    number = r"\d+(?:\.\d*)?|\.\d+"
    times = re.fullmatch(f"({number}):({number})", text)
    if times is None or float(times[1]) >= float(times[2]):
        raise QueryError(f"query: expected two times in s after @, such as @1.5:3, the earlier first, got {whole!r}")
    return float(times[1]), float(times[2])
