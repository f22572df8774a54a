"""Boxes of the person that the user gives: ``boxes.csv``."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.errors import SourceError

COLUMNS = ("subject", "sequence", "view", "frame", "x0", "y0", "x1", "y1")
"""The header of the file. Coordinates are pixels of the upright image, frames count from 0."""

View = tuple[str, str, str]
"""Subject, sequence, view."""


def read_boxes(path: Path, sizes: Mapping[View, tuple[int, int, int]]) -> dict[View, Float64[np.ndarray, "frames 4"]]:
    """The box of the person in every frame of the views that the file names; NaN where it says nothing.

    Args:
        path: CSV with the header `COLUMNS` (more columns are ignored); not every frame needs a row.
        sizes: Width, height and number of frames of each known view.

    Raises:
        SourceError: The file or a line of it is not as expected.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected a CSV with the columns {', '.join(COLUMNS)}")
    boxes: dict[View, Float64[np.ndarray, "frames 4"]] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in lines.fieldnames or []]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise SourceError(
                    f"{path}: the column(s) {', '.join(missing)} are missing; expected the header "
                    f"{','.join(COLUMNS)}, came {','.join(header) or 'an empty file'}"
                )
            lines.fieldnames = header
            for line in lines:
                view, frame, box = _parsed(f"{path} line {lines.line_num}", line, sizes)
                boxes.setdefault(view, np.full((sizes[view][2], 4), np.nan))[frame] = box
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: expected text in UTF-8, came other bytes ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise SourceError(f"{path}: not a readable CSV ({error}); save it as comma-separated text") from error
    if not boxes:
        raise SourceError(
            f"{path}: the file has a header but no boxes; give at least one line per view, or leave it out"
        )
    return boxes


def _parsed(
    where: str, line: Mapping[str, str | None], sizes: Mapping[View, tuple[int, int, int]]
) -> tuple[View, int, tuple[float, ...]]:
    view = ((line["subject"] or "").strip(), (line["sequence"] or "").strip(), (line["view"] or "").strip())
    if view not in sizes:
        known = ", ".join("/".join(name) for name in sorted(sizes)[:12]) + (", …" if len(sizes) > 12 else "")
        raise SourceError(f"{where}: there is no video of subject/sequence/view {'/'.join(view)}; there are: {known}")
    width, height, count = sizes[view]
    try:
        frame = int(line["frame"] or "")
        x0, y0, x1, y1 = box = tuple(float(line[name] or "") for name in ("x0", "y0", "x1", "y1"))
    except ValueError:
        came = ",".join(line[name] or "" for name in COLUMNS[3:])
        raise SourceError(
            f"{where}: expected a whole frame number and four numbers, came {came!r}; mend the line"
        ) from None
    if not 0 <= frame < count:
        raise SourceError(
            f"{where}: frame {frame} is not in the video, which has the frames 0 to {count - 1}; "
            "frames count from 0 and in the video's own steps, whatever `every` says"
        )
    if not all(map(math.isfinite, box)) or x1 <= x0 or y1 <= y0:
        raise SourceError(f"{where}: expected x0 < x1 and y0 < y1, came {x0:g},{y0:g},{x1:g},{y1:g}; mend the line")
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise SourceError(
            f"{where}: the box {x0:g},{y0:g},{x1:g},{y1:g} lies outside the image, which is {width}×{height} pixels; "
            "boxes are in pixels of the upright image"
        )
    return view, frame, box
