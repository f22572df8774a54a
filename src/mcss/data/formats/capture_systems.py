"""Tables as the programs of motion capture systems export them: Vicon Nexus, OptiTrack Motive and Qualisys QTM.

Each begins with lines that are no header of columns, and spreads the name of a point over several columns.
"""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.data.formats.trajectories import Trajectories, late_start, to_number, trajectories
from mcss.errors import SourceError

Line = tuple[int, Sequence[str]]
"""The number of a line in the file, and its cells."""

_CLOCKS = ("frame", "time", "smpte")
"""What Qualisys heads the columns before the points with."""


def read_system_table(path: Path, lines: Sequence[Line], decimal_comma: bool) -> Trajectories | None:
    """Read the points of such a table; None if it is not one.

    Args:
        path: The file, for messages.
        lines: The lines of the file that have cells; these may all be empty, where every marker was lost.
        decimal_comma: Whether numbers may have one.

    Raises:
        SourceError: It is such a table, but without points in 3D or with other lines than expected.
    """
    numbers = {_key(cells[0]): i for i, (_, cells) in reversed(list(enumerate(lines)))}
    if "trajectories" in numbers:
        return _of_vicon(path, _filled(lines[numbers["trajectories"] :]), decimal_comma)
    if "format version" in numbers:
        return _of_motive(path, _filled(lines), decimal_comma)
    if "marker_names" in numbers:
        return _of_qualisys(path, lines, numbers["marker_names"], decimal_comma)
    return None


def _of_vicon(path: Path, lines: Sequence[Line], comma: bool) -> Trajectories:
    """Lines: Trajectories, the rate, names, Frame and axes, units, then samples until another section begins."""
    if len(lines) < 6 or _key(lines[3][1][0]) != "frame":
        raise SourceError(f"{path}: expected Vicon's lines Trajectories, rate, names, Frame, units; export it again")
    rate = to_number(lines[1][1][0], path, lines[1][0], comma)
    if not rate > 0:
        raise SourceError(f"{path}: expected the samples a second in Vicon's line below Trajectories; export it again")
    names, axes, units = (cells for _, cells in lines[2:5])
    columns = [(name, start) for start, name in enumerate(names) if name and _axes(axes, start)]
    samples = list(takewhile(lambda line: line[1][0].isdigit(), lines[5:]))
    points = _points(path, samples, [start for _, start in columns], comma)
    unit = next((cell.lower() for cell in units if cell), None)
    frames = _column(path, samples, 0, comma)
    notes = late_start(frames[0], (frames[0] - 1) / rate) if samples else []
    return trajectories(path, [name for name, _ in columns], points, (frames - frames[:1]) / rate, unit, notes=notes)


def _of_motive(path: Path, lines: Sequence[Line], comma: bool) -> Trajectories:
    """Lines: settings, then Type, Name, ID and more, what is measured, Frame and Time and axes, then samples.

    A part of a take keeps the numbers and times that it has in the take.
    """
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
    places: dict[str, list[tuple[str, int]]] = {}
    for start, name in enumerate(header["name"]):
        here = measured[start].lower() if start < len(measured) else ""
        if name and here == "position" and _axes(axes, start):
            places.setdefault(kinds[start].lower() if start < len(kinds) else "", []).append((name, start))
    # Joints where the skeleton was solved, else the markers as they were seen.
    columns = next((places[kind] for kind in ("bone", "marker", "bone marker", *places) if kind in places), [])
    samples = lines[at + 1 :]
    points = _points(path, samples, [start for _, start in columns], comma)
    frames, times = (_column(path, samples, column, comma) for column in (0, 1))
    notes = late_start(frames[0], times[0]) if samples else []
    unit = about.get("length units", "").lower() or None
    return trajectories(path, [name for name, _ in columns], points, times - times[:1], unit, notes=notes)


def _of_qualisys(path: Path, lines: Sequence[Line], at: int, comma: bool) -> Trajectories:
    """Lines: a key and a value each, the last one the names; perhaps a header; then a line for every sample.

    A trajectory without a name has columns all the same. Where the lines do not begin with a number of the frame,
    their cells are empty for lost markers, so that a line may be empty from its first cell to its last.
    """
    about = {cells[0].upper(): cells[1] for _, cells in lines[:at] if len(cells) > 1}
    named = [(name, k) for k, name in enumerate(lines[at][1][1:]) if name]
    headers = list(takewhile(lambda line: _is_text(path, line, comma), lines[at + 1 :]))
    header = next((cells for _, cells in headers if _key(cells[0]) in _CLOCKS), ())
    clocks = list(takewhile(_CLOCKS.__contains__, map(_key, header)))
    samples = lines[at + 1 + len(headers) :]
    if clocks:
        samples = _filled(samples)
    rate = to_number(about.get("FREQUENCY", ""), path, lines[0][0], comma)
    if not rate > 0:
        raise SourceError(f"{path}: expected Qualisys' line FREQUENCY with the samples a second; export it again")
    points = _points(path, samples, [len(clocks) + 3 * k for _, k in named], comma)
    frames = np.arange(1.0, len(samples) + 1)
    if "frame" in clocks:
        frames = _column(path, samples, clocks.index("frame"), comma)
    notes = late_start(frames[0], (frames[0] - 1) / rate) if samples else []
    return trajectories(path, [name for name, _ in named], points, (frames - frames[:1]) / rate, notes=notes)


def _points(path: Path, samples: Sequence[Line], starts: Sequence[int], comma: bool) -> np.ndarray:
    """Return the three coordinates from each column on; NaN where a line has none."""
    points = np.full((len(samples), len(starts), 3), np.nan)
    for i, (number, cells) in enumerate(samples):
        for k, start in enumerate(starts):
            for axis, cell in enumerate(cells[start : start + 3]):
                points[i, k, axis] = to_number(cell, path, number, comma)
    return points


def _column(path: Path, samples: Sequence[Line], column: int, comma: bool) -> Float64[np.ndarray, " samples"]:
    """Return the numbers of a column; NaN where a line has none."""
    return np.array([to_number((*cells, "", "")[column], path, number, comma) for number, cells in samples], np.float64)


def _filled(lines: Sequence[Line]) -> list[Line]:
    """Leave out the lines whose cells are all empty."""
    return [line for line in lines if any(line[1])]


def _axes(cells: Sequence[str], start: int) -> bool:
    return [cell.lower() for cell in cells[start : start + 3]] == ["x", "y", "z"]


def _key(cell: str) -> str:
    return cell.strip().lower()


def _is_text(path: Path, line: Line, comma: bool) -> bool:
    """Whether a line begins with a heading, such as ``Frame`` or ``TRAJECTORY_TYPES``, and not with a number."""
    number, cells = line
    try:
        to_number(cells[0], path, number, comma)
    except SourceError:
        return True
    return False
