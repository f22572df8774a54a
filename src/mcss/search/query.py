"""What is searched for: an image, a row, a stretch of a video or of an indexed sequence, or a 3D pose."""

import re
from dataclasses import dataclass
from pathlib import Path

from mcss.data.formats.pose_files import POSE_SUFFIXES
from mcss.errors import QueryError
from mcss.images import IMAGE_SUFFIXES
from mcss.search.clips import Span
from mcss.video.decoding import VIDEO_SUFFIXES

FORMS = (
    "an image file; row:NUMBER; SUBJECT/SEQUENCE/FRAME/VIEW; a movement as VIDEO@T0:T1 or "
    f"SUBJECT/SEQUENCE/VIEW@T0:T1 (seconds); or a 3D pose as FILE@FRAME ({', '.join(POSE_SUFFIXES)})"
)


@dataclass(frozen=True)
class ImageQuery:
    """The person in an image file."""

    path: Path


@dataclass(frozen=True)
class RowQuery:
    """An indexed image, by its row."""

    row: int


@dataclass(frozen=True)
class PlaceQuery:
    """An indexed image, by what it shows."""

    subject: str
    sequence: str
    frame: int
    view: str


@dataclass(frozen=True)
class VideoQuery:
    """The movement in a video."""

    path: Path
    span: Span | None


@dataclass(frozen=True)
class SegmentQuery:
    """The movement in a stretch of an indexed sequence."""

    subject: str
    sequence: str
    view: str
    span: Span | None

    @property
    def name(self) -> str:
        """``subject/sequence/view``."""
        return f"{self.subject}/{self.sequence}/{self.view}"


@dataclass(frozen=True)
class PoseQuery:
    """A 3D pose in a file of poses."""

    path: Path
    frame: int


Query = ImageQuery | RowQuery | PlaceQuery | VideoQuery | SegmentQuery | PoseQuery


def parsed_query(text: str) -> Query:
    """What a text stands for.

    Raises:
        QueryError: None of the forms.

    Example:
        >>> parsed_query("row:12")
        RowQuery(row=12)
        >>> parsed_query("S9/Walking 1/40/54138969")
        PlaceQuery(subject='S9', sequence='Walking 1', frame=40, view='54138969')
        >>> parsed_query("S9/Walking 1/2@1.5:3")
        SegmentQuery(subject='S9', sequence='Walking 1', view='2', span=(1.5, 3.0))
    """
    if text.startswith("row:"):
        if not text[4:].isdecimal():
            raise QueryError(f"query: expected a number after row:, came {text!r}")
        return RowQuery(int(text[4:]))
    name, mark, after = text.rpartition("@")
    name, after = (name, after) if mark else (text, "")
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return VideoQuery(path, _span(after, text) if mark else None)
    if suffix in POSE_SUFFIXES:
        if mark and not after.isdecimal():
            raise QueryError(f"query: expected a number of a frame after @, came {text!r}")
        return PoseQuery(path, int(after) if mark else 0)
    if Path(text).suffix.lower() in IMAGE_SUFFIXES:
        return ImageQuery(Path(text).expanduser())
    parts = name.split("/")
    if len(parts) == 4 and parts[2].isdecimal() and not mark:
        return PlaceQuery(parts[0], parts[1], int(parts[2]), parts[3])
    if len(parts) == 3 and all(parts):
        return SegmentQuery(parts[0], parts[1], parts[2], _span(after, text) if mark else None)
    raise QueryError(f"query: {text!r} is none of what can be searched for: {FORMS}")


@dataclass(frozen=True)
class SequenceSource:
    """What one view of a capture saw of a sequence."""

    capture: str
    name: str
    """``subject/sequence/view``."""
    span: Span | None


def parsed_clip(text: str) -> VideoQuery | SequenceSource:
    """Where a clip comes from: ``VIDEO`` or ``CAPTURE:SUBJECT/SEQUENCE/VIEW``, and ``@T0:T1`` for a part of it.

    Raises:
        QueryError: None of these.

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
            f"{text!r}: expected a video ({', '.join(sorted(VIDEO_SUFFIXES))}) or CAPTURE:SUBJECT/SEQUENCE/VIEW, each "
            "with @T0:T1 after it for a part of it"
        )
    return SequenceSource(capture, sequence, span)


def _span(text: str, whole: str) -> Span:
    number = r"\d+(?:\.\d*)?|\.\d+"
    found = re.fullmatch(f"({number}):({number})", text)
    if found is None or float(found[1]) >= float(found[2]):
        raise QueryError(f"query: expected two times in s after @, such as @1.5:3, the earlier first, came {whole!r}")
    return float(found[1]), float(found[2])
