"""TRC marker files, as Motion Analysis, OpenSim and Pose2Sim read and write them."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64

from mcss.data.formats.trajectories import Trajectories, late_start, read_text, to_number, trajectories
from mcss.errors import SourceError
from mcss.files import write_text
from mcss.skeletons import JOINTS


def read_trc(path: Path) -> Trajectories:
    """Read the markers of a TRC file; times count from its first line.

    Programs separate the cells by single tabs, by several, by commas, semicolons or spaces; what the line of marker
    names uses tells which. Times that are rounded, do not grow, or count milliseconds are replaced by those that
    DataRate gives.

    Raises:
        SourceError: The file is not TRC, is cut short, or holds something that is not a number.
    """
    lines = read_text(path, lenient=True).lstrip("\n").split("\n")
    if len(lines) < 6 or not lines[0].lower().startswith("pathfiletype"):
        raise SourceError(
            f"{path}: cannot be read as TRC; expected a first line PathFileType, a header of five lines and then a "
            f"line per frame, got {len(lines)} lines, the first {lines[0][:30] if lines else ''!r}: export it again"
        )
    separator = next((mark for mark in "\t;," if mark in lines[3]), None)  # None: any number of spaces
    header = _header(lines[1], lines[2], separator)
    names = [cell.strip() for cell in lines[3].split(separator) if cell.strip()][2:]
    rows, frames, times = [], [], []
    begin = 4 if _as_number(lines[4].split(separator)[0].strip()) is not None else 5  # some leave out X1, Y1, Z1 …
    for number, line in enumerate(lines[begin:], start=begin + 1):
        cells = [cell.strip() for cell in line.split(separator)]
        if not any(cells):
            continue
        coordinates = cells[2:] + [""] * (2 + 3 * len(names) - len(cells))
        lacking = 2 + 3 * len(names) - len(cells)  # whole markers may be lost at the end of a line, not of the file
        short = lacking > 4 and (lacking % 3 or number == len(lines) or len(cells) < 5)
        if len(cells) < 2 or any(coordinates[3 * len(names) :]) or short:
            raise SourceError(
                f"{path} line {number}: expected {3 * len(names)} coordinates of {len(names)} markers, got "
                f"{len(cells) - 2}; the file was cut short, or a marker has no name: export it again"
            )
        rows.append([to_number(cell, path, number, True) for cell in coordinates[: 3 * len(names)]])
        frames.append(to_number(cells[0], path, number, True))
        times.append(to_number(cells[1], path, number, True))
    stated, notes = header.get("numframes", ""), []
    if stated.isdecimal() and int(stated) > len(rows):
        raise SourceError(
            f"{path}: expected {stated} frames (NumFrames), got {len(rows)}; the file was cut short: copy it again"
        )
    if stated.isdecimal() and int(stated) < len(rows):
        notes.append(f"its header states {stated} frames (NumFrames), it has {len(rows)}; all are read")
    points = np.array(rows, np.float64).reshape(len(rows), len(names), 3)
    seconds, note = _seconds(path, np.array(times, np.float64), np.array(frames, np.float64), header.get("datarate"))
    notes += [note] if note else []
    rate = _as_number(header.get("datarate", "")) or 0.0
    notes += late_start(frames[0], (frames[0] - 1) / rate if rate > 0 else times[0]) if frames else []
    return trajectories(path, names, points, seconds, header.get("units"), notes=notes)


def _header(keys: str, values: str, separator: str | None) -> dict[str, str]:
    """Return the values of the header by their lower-case names, whatever separates them; a unit is never a number."""
    if separator in (",", ";"):
        keys, values = keys.replace(separator, "\t"), values.replace(separator, "\t")
    names, cells = keys.lower().split(), values.split()
    header = dict(zip(names, cells, strict=False))
    if len(names) != len(cells) and "\t" in keys:  # a value is empty
        by_tab = [[cell.strip() for cell in line.split("\t")] for line in (keys.lower(), values)]
        header = dict(zip(*by_tab, strict=False))
    unit = header.get("units", "").lower()
    header["units"] = "" if _as_number(unit) is not None else unit
    return {name: value for name, value in header.items() if value}


def _seconds(
    path: Path,
    times: Float64[np.ndarray, " n"],
    frames: Float64[np.ndarray, " n"],
    data_rate: str | None,
) -> tuple[Float64[np.ndarray, " n"] | None, str | None]:
    """Return the time of each line after the first one, and a note if they are not those that the file states.

    Raises:
        SourceError: The times go backwards, and no DataRate stands in for them.
    """
    seconds = times - times[:1]
    rate = _as_number(data_rate or "") or 0.0
    grows = bool(np.isfinite(seconds).all() and (np.diff(seconds) > 0).all())
    if rate <= 0:
        return seconds, None
    steady = np.isfinite(frames).all() and (np.diff(frames) > 0).all()
    by_rate = (frames - frames[:1] if steady else np.arange(len(times), dtype=np.float64)) / rate
    if not grows:
        return by_rate, f"its times do not grow from line to line; its DataRate of {rate:g} per second is used"
    if seconds[-1] > 0 and abs(seconds[-1] / max(by_rate[-1], 1e-9) / 1000 - 1) < 0.01:
        return by_rate, f"its times count milliseconds; its DataRate of {rate:g} per second is used"
    digits = min(2.0, _rounding(times)) * 0.51
    return (by_rate if np.abs(by_rate - seconds).max() <= 2 * digits else seconds), None


def _rounding(times: Float64[np.ndarray, " n"]) -> float:
    """Return the unit to which times were rounded, from 0.1 s to a microsecond."""
    for digits in range(1, 6):
        if np.abs(np.round(times, digits) - times).max() < 1e-9:
            return float(10.0**-digits)
    return 1e-6


def _as_number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def write_trc(path: Path, pose: Float[np.ndarray, "n 17 3"], times: Float64[np.ndarray, " n"], rate: float) -> None:
    """Write poses as markers for OpenSim: mm, +Y up, canonical poses facing +X; the root stays at the origin.

    Args:
        path: The file.
        pose: Root-relative, mm, +Z up.
        times: Seconds of each pose.
        rate: Poses per second, for the header.
    """
    markers = np.stack([-pose[..., 1], pose[..., 2], -pose[..., 0]], axis=-1).reshape(len(pose), -1)
    count = len(pose)
    header = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate:.6g}\t{rate:.6g}\t{count}\t{len(JOINTS)}\tmm\t{rate:.6g}\t1\t{count}",
        "Frame#\tTime\t" + "\t\t\t".join(JOINTS) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{number}" for number in range(1, len(JOINTS) + 1) for axis in "XYZ"),
        "",
    ]
    lines = [
        "\t".join([str(i + 1), f"{times[i]:.6f}", *(f"{value:.4f}" for value in markers[i])]) for i in range(count)
    ]
    write_text(path, "\n".join(header + lines) + "\n")
