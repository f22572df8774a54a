"""Takes that a camera splits into several files: GoPro's chapters, which are read as one video."""

import re
from pathlib import Path

_CHAPTERS = re.compile(r"(.*\W|.*_|)(G[HXLS])(\d{2})(\d{4})((?:\W|_).*|)", re.IGNORECASE)
"""GX010123 is chapter 01 of take 0123; GH and GX tell the codec, GL and GS the kind of camera. Users write the camera's
name before or behind it: left_GX010123."""

_OLDER = re.compile(r"(.*\W|.*_|)(GOPR|GP(\d{2}))(\d{4})((?:\W|_).*|)", re.IGNORECASE)
"""GOPR0123 is the first chapter of take 0123, GP010123 the second."""


def chapters_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a take in order, given its first one; a video that is no chapter is alone."""
    chapters = [path]
    number = _numbered(path)
    if number is None or is_later_chapter(path):
        return (path,)
    while True:
        following = _beside(path, number + len(chapters))
        if following is None:
            return tuple(chapters)
        chapters.append(following)


def is_later_chapter(path: Path) -> bool:
    """Whether the chapter before this one lies beside it, which then stands for both."""
    number = _numbered(path)
    return number is not None and number > 0 and _beside(path, number - 1) is not None


def _numbered(path: Path) -> int | None:
    """Return the number of a chapter, the first of a take being the lowest; None for other files."""
    if match := _CHAPTERS.fullmatch(path.stem):
        return int(match[3])
    if match := _OLDER.fullmatch(path.stem):
        return int(match[3] or 0)
    return None


def _beside(path: Path, number: int) -> Path | None:
    """Return the chapter with a number of the same take, if it lies beside this one."""
    if match := _CHAPTERS.fullmatch(path.stem):
        kind = f"{match[2]}{number:02d}"
    else:
        match = _OLDER.fullmatch(path.stem)
        kind = "GOPR" if number == 0 else f"GP{number:02d}"
    assert match is not None
    beside = path.with_name(f"{match[1]}{kind}{match[4]}{match[5]}{path.suffix}")
    if beside.is_file():
        return beside
    wanted = beside.name.casefold()
    return next((other for other in path.parent.glob("*") if other.name.casefold() == wanted), None)
