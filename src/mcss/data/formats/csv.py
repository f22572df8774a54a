"""CSV files: any table with a header, and poses with a line per frame and three columns per point."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int

from mcss.data.formats.capture_systems import read_system_table
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


def read_csv_table(path: Path) -> CsvTable:
    """Read a table of commas, semicolons or tabs, whichever its first line has most of, or names (``sep=;``).

    The text is UTF-8, with or without a byte-order mark, or UTF-16.

    Raises:
        SourceError: The file is not such text, or not CSV.
    """
    lines = read_text(path).split("\n")
    given = re.fullmatch(r"\s*sep=(.)\s*", lines[0], re.IGNORECASE)
    skipped = 1 if given else 0
    head = lines[skipped] if len(lines) > skipped else ""
    delimiter = given[1] if given else max(",;\t", key=head.count)
    reader = csv.reader(lines[skipped:], skipinitialspace=delimiter != "\t", delimiter=delimiter)
    try:
        rows = [CsvRow(reader.line_num + skipped, tuple(cell.strip() for cell in cells), delimiter) for cells in reader]
    except csv.Error as error:
        raise SourceError(f"{path}: not a readable CSV ({error}); save it as comma-separated text") from error
    return CsvTable(rows[0].cells if rows else (), tuple(row for row in rows[1:] if any(row.cells)))


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
    Not every image needs a line; points whose cells are empty are missing. Capitals do not matter in these names, and
    the axis may follow an underscore or a space. Exports of Vicon, Motive and Qualisys are read as they are.

    Raises:
        SourceError: A column is missing, or a line is not as expected.
    """
    table = read_csv_table(path)
    lines = [(1, table.header), *((row.line, row.cells) for row in table.rows)]
    exported = read_system_table(path, lines, any(row.delimiter != "," for row in table.rows))
    if exported is not None:
        return exported
    table = _with_one_header(table)
    header = tuple(map(_column_name, table.header))
    clock = next((name for name in ("time", "frame") if name in header), None)
    notes = []
    if clock is None and not any(name[-2:] in (".x", ".y", ".z") for name in table.header):
        # Tools that spell NAME_x, such as FreeMoCap, write a line per image.
        clock, header = "frame", ("frame", *header)
        table = CsvTable(header, tuple(replace(row, cells=(str(i), *row.cells)) for i, row in enumerate(table.rows)))
        notes.append("it has no column time or frame, so each line is taken as one image")
    names = list(dict.fromkeys(cell[:-2] for cell in header if cell[-2:] in (".x", ".y", ".z")))
    wanted = [f"{name}.{axis}" for name in names for axis in "xyz"]
    missing = [name for name in wanted if name not in header]
    used = [cell for cell in header if cell in (clock, *wanted)]
    if clock is None or not names or missing or len(set(used)) < len(used):
        raise SourceError(
            f"{path}: expected the columns time (seconds) or frame, and NAME.x, NAME.y, NAME.z for each point, each "
            f"once; got {','.join(table.header)[:200] or 'an empty file'}"
            + (f"; missing: {', '.join(missing[:6])}" if missing else "")
        )
    columns = [header.index(name) for name in (clock, *wanted)]
    rows = []
    for row in table.rows:
        if len(row.cells) != len(header):
            raise SourceError(
                f"{path} line {row.line}: expected {len(header)} cells, got {len(row.cells)}; correct the line"
            )
        comma = row.delimiter != ","
        rows.append([to_number(row.cells[column], path, row.line, comma) for column in columns])
    values = np.array(rows, np.float64).reshape(len(rows), len(columns))
    points = values[:, 1:].reshape(len(rows), len(names), 3)
    if clock == "frame" and len(values) > 1 and values[:, 0].min() == 1:
        notes.append(
            "its frames begin with 1, and are taken as numbers that count from 0, so that the first image has no "
            "label; if they count from 1, subtract 1 from them, or set poses.offset to minus the time of one image"
        )
    times = values[:, 0]
    return trajectories(path, names, points, times, clock="images" if clock == "frame" else "video", notes=notes)


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


def _column_name(cell: str) -> str:
    """Return ``time``, ``frame``, ``NAME.x`` and so on for the spellings of a column's name; others as they are."""
    plain = re.sub(r"[\s_]*[(\[].*[)\]]$", "", cell.strip().lower())
    if plain in ("time", "frame", "fnum"):  # the last is Anipose's
        return plain.replace("fnum", "frame")
    axis = re.fullmatch(r"(.*\S)\s*[._ ]\s*([xyzXYZ])", cell.strip())
    return f"{axis[1]}.{axis[2].lower()}" if axis else cell


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
