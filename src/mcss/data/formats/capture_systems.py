"""Tables as the programs of motion capture systems export them: Vicon Nexus, OptiTrack Motive and Qualisys QTM.

Each begins with lines that are no header of columns, and spreads the name of a point over several columns.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mcss.data.formats.trajectories import Trajectories, to_number, trajectories
from mcss.errors import SourceError

Line = tuple[int, Sequence[str]]
"""The number of a line in the file, and its cells."""


def read_system_table(path: Path, lines: Sequence[Line], decimal_comma: bool) -> Trajectories | None:
    """Read the points of such a table; None if it is not one.

    Args:
        path: The file, for messages.
        lines: The lines of the file that are not empty.
        decimal_comma: Whether numbers may have one.

    Raises:
        SourceError: It is such a table, but without points in 3D or with other lines than expected.
    """
    if not lines:
        return None
    numbers = {_key(cells[0]): i for i, (_, cells) in reversed(list(enumerate(lines))) if cells}
    if "trajectories" in numbers:
        return _of_vicon(path, lines[numbers["trajectories"] :], decimal_comma)
    if "format version" in numbers:
        return _of_motive(path, lines, decimal_comma)
    if "marker_names" in numbers:
        return _of_qualisys(path, lines, numbers["marker_names"], decimal_comma)
    return None


def _of_vicon(path: Path, lines: Sequence[Line], comma: bool) -> Trajectories:
    """Lines: Trajectories, the rate, names, Frame and axes, units, then samples until another section begins."""
    if len(lines) < 6 or _key(lines[3][1][0]) != "frame":
        raise SourceError(f"{path}: expected Vicon's lines Trajectories, rate, names, Frame, units; export it again")
    rate = to_number(lines[1][1][0], path, lines[1][0], comma)
    names, axes, units = (cells for _, cells in lines[2:5])
    columns = {name: start for start, name in enumerate(names) if name and _axes(axes, start)}
    samples = []
    for number, cells in lines[5:]:
        if not cells[0].isdigit():
            break
        samples.append((number, cells))
    points = _points(path, samples, list(columns.values()), comma)
    unit = next((cell.lower() for cell in units if cell), None)
    return trajectories(path, list(columns), points, np.arange(len(points)) / rate, unit)


def _of_motive(path: Path, lines: Sequence[Line], comma: bool) -> Trajectories:
    """Lines: settings, then Type, Name, ID and more, what is measured, Frame and Time and axes, then samples."""
    settings = lines[0][1]
    about = {_key(key): value for key, value in zip(settings[::2], settings[1::2], strict=False)}
    header: dict[str, Sequence[str]] = {}
    at = 1
    while at < len(lines) and _key(lines[at][1][0]) != "frame":
        cells = lines[at][1]
        header[_key(cells[1]) if len(cells) > 1 else ""] = cells
        at += 1
    if at == len(lines) or "name" not in header:
        raise SourceError(f"{path}: expected Motive's lines Name and Frame; export it again, with headers")
    axes, measured, kinds = lines[at][1], header.get("", ()), header.get("type", ())
    places: dict[str, dict[str, int]] = {}
    for start, name in enumerate(header["name"]):
        here = measured[start].lower() if start < len(measured) else ""
        if name and here == "position" and _axes(axes, start):
            places.setdefault(kinds[start].lower() if start < len(kinds) else "", {}).setdefault(name, start)
    # Joints where the skeleton was solved, else the markers as they were seen.
    columns = next((places[kind] for kind in ("bone", "marker", "bone marker", *places) if kind in places), {})
    samples = lines[at + 1 :]
    points = _points(path, samples, list(columns.values()), comma)
    times = np.array([to_number(cells[1], path, number, comma) for number, cells in samples])
    return trajectories(path, list(columns), points, times, about.get("length units", "").lower() or None)


def _of_qualisys(path: Path, lines: Sequence[Line], at: int, comma: bool) -> Trajectories:
    """Lines: a key and a value each, the last one the names; perhaps a header; then samples."""
    about = {cells[0].upper(): cells[1] for _, cells in lines[:at] if len(cells) > 1}
    names = [name for name in lines[at][1][1:] if name]
    samples = [(number, cells) for number, cells in lines[at + 1 :] if _is_number(cells[0], comma)]
    more = [cells for _, cells in lines[at + 1 :] if not _is_number(cells[0], comma)]
    first = 2 if any(_key(cells[0]) == "frame" for cells in more) else 0
    rate = to_number(about.get("FREQUENCY", ""), path, lines[0][0], comma)
    if not rate > 0:
        raise SourceError(f"{path}: expected Qualisys' line FREQUENCY with the samples a second; export it again")
    points = _points(path, samples, [first + 3 * k for k in range(len(names))], comma)
    return trajectories(path, names, points, np.arange(len(points)) / rate)


def _points(path: Path, samples: Sequence[Line], starts: Sequence[int], comma: bool) -> np.ndarray:
    """Return the three coordinates from each column on; NaN where a line has none."""
    points = np.full((len(samples), len(starts), 3), np.nan)
    for i, (number, cells) in enumerate(samples):
        for k, start in enumerate(starts):
            for axis, cell in enumerate(cells[start : start + 3]):
                points[i, k, axis] = to_number(cell, path, number, comma)
    return points


def _axes(cells: Sequence[str], start: int) -> bool:
    return [cell.lower() for cell in cells[start : start + 3]] == ["x", "y", "z"]


def _key(cell: str) -> str:
    return cell.strip().lower()


def _is_number(cell: str, comma: bool) -> bool:
    try:
        float(cell.replace(",", ".") if comma else cell)
    except ValueError:
        return False
    return True
