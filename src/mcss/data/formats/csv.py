"""CSV files: any table with a header, and poses with a line per frame and three columns per point."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Int

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

    def named(self, header: Sequence[str]) -> dict[str, str]:
        """The cells by the names in the header; cells that the line lacks are empty."""
        return dict(zip(header, [*self.cells, *[""] * (len(header) - len(self.cells))], strict=False))


@dataclass(frozen=True)
class CsvTable:
    """A CSV with a header. Lines without a single character in their cells are left out."""

    header: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_csv_table(path: Path) -> CsvTable:
    """Read a CSV in UTF-8, with or without a byte-order mark.

    Raises:
        SourceError: The file is not text in UTF-8, or not CSV.
    """
    reader = csv.reader(read_text(path).splitlines(), skipinitialspace=True)
    try:
        rows = [CsvRow(reader.line_num, tuple(cell.strip() for cell in cells)) for cells in reader]
    except csv.Error as error:
        raise SourceError(f"{path}: not a readable CSV ({error}); save it as comma-separated text") from error
    return CsvTable(rows[0].cells if rows else (), tuple(row for row in rows[1:] if any(row.cells)))


def read_csv(path: Path) -> Trajectories:
    """Read points from the columns ``frame`` or ``time``, and ``NAME.x``, ``NAME.y``, ``NAME.z`` of each point.

    ``frame`` is the number of an image of the videos, counted from 0; ``time`` is in seconds from their first image.
    Not every image needs a line; points whose cells are empty are missing.

    Raises:
        SourceError: A column is missing, or a line is not as expected.
    """
    table = read_csv_table(path)
    header = table.header
    clock = next((name for name in ("time", "frame") if name in header), None)
    names = list(dict.fromkeys(cell[:-2] for cell in header if cell[-2:] in (".x", ".y", ".z")))
    wanted = [f"{name}.{axis}" for name in names for axis in "xyz"]
    missing = [name for name in wanted if name not in header]
    if clock is None or not names or missing or len(set(header)) < len(header):
        raise SourceError(
            f"{path}: expected the columns time (seconds) or frame, and NAME.x, NAME.y, NAME.z for each point, each "
            f"once; got {','.join(header)[:200] or 'an empty file'}"
            + (f"; missing: {', '.join(missing[:6])}" if missing else "")
        )
    columns = [header.index(name) for name in (clock, *wanted)]
    rows = []
    for row in table.rows:
        if len(row.cells) != len(header):
            raise SourceError(
                f"{path} line {row.line}: expected {len(header)} cells, got {len(row.cells)}; correct the line"
            )
        rows.append([to_number(row.cells[column], path, row.line) for column in columns])
    values = np.array(rows, np.float64).reshape(len(rows), len(columns))
    points = values[:, 1:].reshape(len(rows), len(names), 3)
    return trajectories(path, names, points, values[:, 0], clock="images" if clock == "frame" else "video")


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
        cells = [cells[i] for cells in more.values()]
        lines.writerow([int(frame[i]), f"{times[i]:.6f}", *cells, *(f"{value:.2f}" for value in coordinates)])
    write_text(path, text.getvalue())
