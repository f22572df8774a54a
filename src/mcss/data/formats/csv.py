"""CSV files: any table with a header, and poses with a line per frame and three columns per point."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from jaxtyping import Float, Float64, Int

from mcss.data.formats.capture_systems import read_system_table
from mcss.data.formats.pose_columns import (
    Axis,
    ClockColumn,
    clock_column,
    coordinate_columns,
    is_axis,
    names_people,
    names_points,
)
from mcss.data.formats.trajectories import Trajectories, read_text, to_number, trajectories
from mcss.errors import SourceError
from mcss.files import write_text
from mcss.skeletons import JOINTS


@dataclass(frozen=True)
class CsvRow:
    """One line of a CSV."""

    line: int
    """Number of the line in the file, counted from 1."""
    cells: tuple[str, ...]
    """Without the spaces around them."""
    delimiter: str = ","
    """What separates them in the file."""

    def named(self, header: Sequence[str]) -> dict[str, str]:
        """The cells by the names in the header; cells that the line lacks are empty."""
        return dict(zip(header, [*self.cells, *[""] * (len(header) - len(self.cells))], strict=False))


@dataclass(frozen=True)
class CsvTable:
    """A CSV with a header. Lines without a single character in their cells are left out."""

    header: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_csv_table(path: Path, lenient: bool = False) -> CsvTable:
    """Read a table of commas, semicolons, tabs or bars, whichever its first line has most of, or names (``sep=;``).

    The text is UTF-8, with or without a byte-order mark, or UTF-16.

    Args:
        path: The file.
        lenient: Pass over empty lines and comments (``#``) before the header, take a header without any of these
            characters as words between spaces, and replace bytes that are not UTF-8.

    Raises:
        SourceError: The file is not such text, or not CSV.
    """
    return _as_table(_rows_of(path, lenient))


def _as_table(rows: Sequence[CsvRow]) -> CsvTable:
    return CsvTable(rows[0].cells if rows else (), tuple(row for row in rows[1:] if any(row.cells)))


def _rows_of(path: Path, lenient: bool) -> list[CsvRow]:
    """Return all lines of a table, as `read_csv_table` does, with the empty ones."""
    lines = read_text(path, lenient).split("\n")
    skipped = 0
    while lenient and skipped < len(lines) - 1 and _is_comment(lines[skipped]):
        skipped += 1
    given = re.fullmatch(r"\s*sep=(.)\s*", lines[skipped], re.IGNORECASE)
    skipped += 1 if given else 0
    delimiter = given[1] if given else _delimiter(lines[skipped : skipped + _HEAD], lenient)
    reader = csv.reader(lines[skipped:], skipinitialspace=delimiter != "\t", delimiter=delimiter)
    try:
        return [CsvRow(reader.line_num + skipped, tuple(cell.strip() for cell in cells), delimiter) for cells in reader]
    except csv.Error as error:
        raise SourceError(f"{path}: not a readable CSV ({error}); save it as comma-separated text") from error


def _delimiter(lines: Sequence[str], lenient: bool) -> str:
    """Return what separates the cells of a table that begins with these lines.

    Tables of capture systems begin with a title of one word: then the next lines tell, most of them names and axes, and
    not numbers with decimal commas.
    """
    head = lines[0] if lines else ""
    if not any(mark in head for mark in _DELIMITERS) and lenient:
        if len(head.split()) > 3:
            return " "
        head = "\n".join(lines)
    return max(_DELIMITERS, key=head.count)


_DELIMITERS = ",;\t|"

_HEAD = 6
"""So many lines tell what separates cells; Vicon's header has five."""


def _is_comment(line: str) -> bool:
    """Whether a line before the header says nothing about columns; ``#frame,…`` is a header."""
    first = re.split(r"[,;\t|]", line.lstrip("#"), maxsplit=1)[0]
    return not line.strip() or (line.startswith("#") and clock_column(first) is None)


def plain_cell(text: str) -> str:
    """Return a name as a cell that spreadsheets show and do not compute: one like ``=A1`` gets an apostrophe."""
    return f"'{text}" if text[:1] in _FORMULAS else text


def original_text(cell: str) -> str:
    """Return the name that `plain_cell` made a cell of."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in _FORMULAS else cell


_FORMULAS = ("=", "+", "-", "@")
"""What begins a formula in a spreadsheet."""


def read_csv(path: Path) -> Trajectories:
    """Read points from the columns ``frame`` or ``time``, and ``NAME.x``, ``NAME.y``, ``NAME.z`` of each point.

    ``frame`` is the number of an image of the videos, counted from 0; ``time`` is in seconds from their first image.
    Not every image needs a line; points whose cells are empty are missing. These names may be spelled in other ways
    (`mcss.data.formats.pose_columns`), and the table may have a line per point. Exports of Vicon, Motive and Qualisys
    are read as they are.

    Raises:
        SourceError: A column is missing, or a line is not as expected.
    """
    rows = _rows_of(path, lenient=True)
    lines = [(row.line, row.cells) for row in rows if any(row.cells) or len(row.cells) > 1]
    exported = read_system_table(path, lines, any(row.delimiter != "," for row in rows))
    if exported is not None:
        return exported
    table = _with_one_header(_as_table(rows))
    _check_one_person(path, table)
    table = _with_a_line_per_sample(path, table)
    columns = coordinate_columns(table.header)
    clocks = [clock_column(cell) if columns[k] is None else None for k, cell in enumerate(table.header)]
    if not any(clocks) and table.header[:1] == ("",):  # the index that pandas writes
        clocks[0] = ClockColumn("frame")
    ranks = {k: _clock_rank(table.header[k], clock) for k, clock in enumerate(clocks) if clock is not None}
    at = min(ranks, key=lambda k: ranks[k], default=None)
    notes = []
    if at is None and not any(cell[-2:] in (".x", ".y", ".z") for cell in table.header):
        # Tools that spell NAME_x, such as FreeMoCap, write a line per image.
        columns, clocks, at = [None, *columns], [ClockColumn("frame"), *clocks], 0
        numbered = tuple(replace(row, cells=(str(i), *row.cells)) for i, row in enumerate(table.rows))
        table = CsvTable(("frame", *table.header), numbered)
        notes.append("it has no column time or frame, so each line is taken as one image")
    places = [(column.plain, k) for k, column in enumerate(columns) if column is not None]
    names = list(dict.fromkeys(column.name for column in columns if column is not None))
    wanted = [f"{name}.{axis}" for name in names for axis in "xyz"]
    column_of = dict(places)
    missing = [name for name in wanted if name not in column_of]
    clock = clocks[at] if at is not None else None
    if at is None or clock is None or not names or missing or len(column_of) < len(places):
        raise SourceError(
            f"{path}: expected the columns time (seconds) or frame, and NAME.x, NAME.y, NAME.z for each point, each "
            f"once; got {','.join(table.header)[:200] or 'an empty file'}"
            + (f"; missing: {', '.join(missing[:6])}" if missing else "")
        )
    used = [at, *(column_of[name] for name in wanted)]
    samples = []
    for row in table.rows:
        if len(row.cells) < len(table.header) or any(row.cells[len(table.header) :]):
            raise SourceError(
                f"{path} line {row.line}: expected {len(table.header)} cells, got {len(row.cells)}; correct the line"
            )
        samples.append([to_number(row.cells[column], path, row.line, row.delimiter != ",") for column in used])
    values = np.array(samples, np.float64).reshape(len(samples), len(used))
    points = values[:, 1:].reshape(len(samples), len(names), 3)
    counted = clock.kind == "frame"
    if counted and len(values) > 1 and values[:, 0].min() == 1:
        notes.append(
            "its frames begin with 1, and are taken as numbers that count from 0, so that the first image has no "
            "label; if they count from 1, subtract 1 from them, or give minus the time of one image as --poses.offset"
        )
    units = {column.unit for column in columns if column is not None}
    unit = units.pop() if len(units) == 1 else None
    times = values[:, 0] * clock.scale
    return trajectories(path, names, points, times, unit, clock="images" if counted else "video", notes=notes)


def _clock_rank(cell: str, clock: ClockColumn) -> tuple[bool, bool]:
    """Return how far down a clock is in the choice of one: ``time``, ``frame``, other times, and other frames."""
    return cell.strip().lower() not in ("time", "frame"), clock.kind == "frame"


def _check_one_person(path: Path, table: CsvTable) -> None:
    """Refuse a table with a column that names people, and several of them.

    Raises:
        SourceError: There are several.
    """
    for k in [k for k, name in enumerate(table.header) if names_people(name)]:
        people = [cell for cell in dict.fromkeys(row.cells[k] for row in table.rows if len(row.cells) > k) if cell]
        if len(people) > 1:
            raise SourceError(
                f"{path}: expected one person, got {len(people)} in its column {table.header[k]!r}: "
                f"{', '.join(people[:8])}{', …' if len(people) > 8 else ''}; keep the lines of one of them, or remove "
                "the column if they are the same person"
            )


def _with_a_line_per_sample(path: Path, table: CsvTable) -> CsvTable:
    """Turn a table with a line per point (its name, x, y, z) into one with a line per sample.

    Raises:
        SourceError: A point comes twice in a sample.
    """
    axes = [[k for k, cell in enumerate(table.header) if is_axis(cell, axis)] for axis in get_args(Axis)]
    clocks = {k: clock for k, cell in enumerate(table.header) if (clock := clock_column(cell)) is not None}
    names = [k for k, cell in enumerate(table.header) if names_points(cell)]
    if any(len(columns) != 1 for columns in axes) or not clocks or not names:
        return table
    at, name = min(clocks, key=lambda k: _clock_rank(table.header[k], clocks[k])), names[-1]
    coordinates = [columns[0] for columns in axes]
    samples: dict[str, dict[str, tuple[str, ...]]] = {}
    first_lines: dict[str, CsvRow] = {}
    for row in table.rows:
        cells = [*row.cells, *[""] * (len(table.header) - len(row.cells))]
        sample = samples.setdefault(cells[at], {})
        first_lines.setdefault(cells[at], row)
        if cells[name] in sample:
            raise SourceError(
                f"{path} line {row.line}: the point {cells[name]!r} comes twice at {table.header[at]} {cells[at]}; "
                "expected one person: leave the others out"
            )
        sample[cells[name]] = tuple(cells[k] for k in coordinates)
    points = list(dict.fromkeys(point for sample in samples.values() for point in sample))
    header = (table.header[at], *(f"{point}.{axis}" for point in points for axis in "xyz"))
    rows = []
    for time, sample in samples.items():
        values = [cell for point in points for cell in sample.get(point, ("", "", ""))]
        rows.append(replace(first_lines[time], cells=(time, *values)))
    return CsvTable(header, tuple(rows))


def _with_one_header(table: CsvTable) -> CsvTable:
    """Join the three lines of DeepLabCut's header (scorer, bodyparts, coords) to names such as ``nose.x``."""
    if not table.header or table.header[0].lower() != "scorer":
        return table
    lines = {row.cells[0].lower(): row.cells for row in table.rows[:3]}
    if not {"bodyparts", "coords"} <= lines.keys():
        return table
    names = zip(lines["bodyparts"][1:], lines["coords"][1:], strict=False)
    rows = tuple(row for row in table.rows if row.cells[0].lower() not in ("individuals", "bodyparts", "coords"))
    return CsvTable(("frame", *(f"{part}.{axis}" for part, axis in names)), rows)


def write_csv(
    path: Path,
    pose: Float[np.ndarray, "n 17 3"],
    frame: Int[np.ndarray, " n"],
    times: Float64[np.ndarray, " n"],
    more: Mapping[str, Sequence[str]],
) -> None:
    """Write poses (mm) as `read_csv` reads them, with further columns before the joints.

    Args:
        path: The file.
        pose: The 17 joints.
        frame: Number of the image that each pose was found in.
        times: Seconds from the first image.
        more: Cells of other columns by name; empty cells for what is not known.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["frame", "time", *more, *(f"{joint}.{axis}" for joint in JOINTS for axis in "xyz")])
    for i, coordinates in enumerate(pose.reshape(len(pose), -1)):
        cells = [plain_cell(cells[i]) if not _is_number(cells[i]) else cells[i] for cells in more.values()]
        lines.writerow([int(frame[i]), f"{times[i]:.6f}", *cells, *(f"{value:.2f}" for value in coordinates)])
    write_text(path, text.getvalue())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
