"""Files of 3D labels: C3D, TRC, BVH, CSV and NPZ, each read as named points through time.

None of them is trusted: nothing in them is run (no pickles), and no name in them becomes a path.
"""

import csv
import math
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from mcss.data.formats.bvh import read_bvh
from mcss.data.formats.trajectories import Clock, Trajectories, trajectories
from mcss.errors import SourceError

_MIPS = 86
"""The processor type in a C3D's parameters that means big-endian numbers."""

POSE_SUFFIXES = (".c3d", ".trc", ".bvh", ".csv", ".npz")


_ARRAYS = ("poses", "names", "rate", "times", "units", "up")
"""The arrays of an NPZ that are read; others are left alone."""


def read_pose_file(path: Path) -> Trajectories:
    """The points of a label file, read by its ending.

    Raises:
        SourceError: It is missing, empty, or not what its ending says.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected 3D labels ({', '.join(POSE_SUFFIXES)})")
    if path.stat().st_size == 0:
        raise SourceError(f"{path}: the file is empty (0 bytes); export it again, or remove it")
    match path.suffix.lower():
        case ".c3d":
            return read_c3d(path)
        case ".trc":
            return read_trc(path)
        case ".bvh":
            return read_bvh(path)
        case ".csv":
            return read_csv(path)
        case ".npz":
            return read_npz(path)
        case suffix:
            raise SourceError(
                f"{path}: 3D labels cannot be read from {suffix or 'a file without ending'}; expected one of "
                + ", ".join(POSE_SUFFIXES)
            )


def read_c3d(path: Path) -> Trajectories:
    """The points of a C3D file; its unit is POINT:UNITS, its up axis POINT:Y_SCREEN, where it has them.

    Read with the package c3d, which is Python throughout: compiled readers crash or hang on damaged files.

    Raises:
        SourceError: It is no C3D, is cut short, or has no points.
        ImportError: c3d is missing.
    """
    c3d = _c3d()
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there are no analog data; that the file ends too early, see below
            reader = c3d.Reader(file)
            names = [name.strip() for name in reader.point_labels][: reader.point_used]
            rate = float(reader.point_rate)
            samples = [points[:, :4].copy() for _, points, _ in reader.read_frames()]
            said = {name: _c3d_text(reader, name) for name in ("POINT:UNITS", "POINT:Y_SCREEN")}
        stated = _stated_frames(path.read_bytes())
    except Exception as error:  # whatever the bytes of a damaged file lead to
        raise SourceError(
            f"{path}: cannot be read as C3D ({type(error).__name__}: {error}); export it again, or remove it"
        ) from error
    if not samples or (stated is not None and len(samples) != stated):
        raise SourceError(
            f"{path}: expected {stated or 'some'} frames, as its header says, came {len(samples)}; the file was cut "
            "short: copy it again"
        )
    points = np.array(samples, np.float64)
    if len(names) != points.shape[1]:
        raise SourceError(f"{path}: expected a name for each point, came {len(names)} for {points.shape[1]}; name them")
    if not (math.isfinite(rate) and rate > 0):
        raise SourceError(f"{path}: expected a positive POINT:RATE, came {rate}; state the rate in the file")
    points[points[..., 3] < 0] = np.nan  # the residual says that the point was not seen
    times = np.arange(len(points)) / rate
    return trajectories(path, names, points[..., :3], times, said["POINT:UNITS"], said["POINT:Y_SCREEN"])


def _c3d_text(reader: Any, name: str) -> str | None:
    parameter = reader.get(name)
    return None if parameter is None else str(parameter.string_value).strip().lower() or None


def _stated_frames(data: bytes) -> int | None:
    """The frames that a C3D's header states (its words 4 and 5); None if there are too many to be stated there.

    The reader returns those that it finds, and so does not tell a file that was cut short.
    """
    order: Literal["big", "little"] = "big" if data[(data[0] - 1) * 512 + 3] == _MIPS else "little"
    first, last = int.from_bytes(data[6:8], order), int.from_bytes(data[8:10], order)
    return last - first + 1 if last < 65535 else None


def read_trc(path: Path) -> Trajectories:
    """The markers of a TRC file (Motion Analysis, OpenSim, Pose2Sim); its times count from its first line.

    Raises:
        SourceError: It is no TRC, is cut short, or holds something that is no number.
    """
    lines = _text(path).splitlines()
    if len(lines) < 6 or not lines[0].startswith("PathFileType"):
        raise SourceError(
            f"{path}: cannot be read as TRC; expected a first line PathFileType, a header of five lines and then a "
            f"line per frame, came {len(lines)} lines, the first {lines[0][:30] if lines else ''!r}: export it again"
        )
    about = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=False))
    names = [cell.strip() for cell in lines[3].rstrip("\r\n").split("\t")[2:] if cell.strip()]
    rows, times = [], []
    for number, line in enumerate(lines[5:], start=6):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        body = cells[2:] + [""] * (2 + 3 * len(names) - len(cells))
        if len(cells) < 2 or any(body[3 * len(names) :]) or len(cells) < 3 * len(names) - 2:
            raise SourceError(
                f"{path} line {number}: expected {3 * len(names)} coordinates of {len(names)} markers, came "
                f"{len(cells) - 2}; the file was cut short, or a marker has no name: export it again"
            )
        rows.append([_number(cell, path, number) for cell in body[: 3 * len(names)]])
        times.append(_number(cells[1], path, number))
    stated = about.get("NumFrames", "").strip()
    if stated.isdigit() and int(stated) != len(rows):
        raise SourceError(
            f"{path}: expected {stated} frames (NumFrames), came {len(rows)}; the file was cut short: copy it again"
        )
    points = np.array(rows, np.float64).reshape(len(rows), len(names), 3)
    seconds = np.array(times, np.float64)
    return trajectories(path, names, points, seconds - seconds[:1], about.get("Units", "").strip().lower() or None)


def read_csv(path: Path) -> Trajectories:
    """Points of a CSV with the columns ``frame`` or ``time``, and ``NAME.x``, ``NAME.y``, ``NAME.z`` of each point.

    ``frame`` is the number of an image of the videos, from 0, ``time`` is seconds from their first image. Not
    every image needs a line; empty cells are points that are missing.

    Raises:
        SourceError: A column is missing, or a line is not as expected.
    """
    try:
        lines = list(csv.reader(_text(path).splitlines(), skipinitialspace=True))
    except csv.Error as error:
        raise SourceError(f"{path}: not a readable CSV ({error}); save it as comma-separated text") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    clock = next((name for name in ("time", "frame") if name in header), None)
    names = list(dict.fromkeys(cell[:-2] for cell in header if cell[-2:] in (".x", ".y", ".z")))
    wanted = [f"{name}.{axis}" for name in names for axis in "xyz"]
    missing = [name for name in wanted if name not in header]
    if clock is None or not names or missing or len(set(header)) < len(header):
        raise SourceError(
            f"{path}: expected the columns time (seconds) or frame, and NAME.x, NAME.y, NAME.z for each point, each "
            f"once; came {','.join(header)[:200] or 'an empty file'}"
            + (f"; missing: {', '.join(missing[:6])}" if missing else "")
        )
    at = [header.index(name) for name in (clock, *wanted)]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if any(cell.strip() for cell in line):
            if len(line) != len(header):
                raise SourceError(
                    f"{path} line {number}: expected {len(header)} cells, came {len(line)}; mend the line"
                )
            rows.append([_number(line[k].strip(), path, number) for k in at])
    table = np.array(rows, np.float64).reshape(len(rows), len(at))
    points = table[:, 1:].reshape(len(rows), len(names), 3)
    return trajectories(path, names, points, table[:, 0], clock="images" if clock == "frame" else "video")


def read_npz(path: Path) -> Trajectories:
    """Points of an NPZ: ``poses`` (samples, points, 3), ``names``; ``rate`` or ``times``, ``units``, ``up`` if known.

    ``times`` are seconds from the first image of the videos; with ``rate`` the first sample is the first image.

    Raises:
        SourceError: It is no NPZ, an array is missing or of another shape, or holds a pickle.
    """
    arrays = _arrays(path)
    absent = [name for name in ("poses", "names") if name not in arrays]
    if absent:
        raise SourceError(
            f"{path}: the array(s) {', '.join(absent)} are missing; expected poses (samples, points, 3) and names, "
            f"came {', '.join(sorted(arrays)) or 'nothing'}"
        )
    points, names = arrays["poses"], [str(name) for name in np.ravel(arrays["names"])]
    if points.ndim != 3 or points.shape[1:] != (len(names), 3) or points.dtype.kind not in "fiu":
        raise SourceError(
            f"{path}: expected poses of numbers in the shape (samples, {len(names)}, 3), as there are {len(names)} "
            f"names, came {points.dtype} {points.shape}"
        )

    def text(name: str) -> str | None:
        return str(np.ravel(arrays[name])[0]).lower() if name in arrays and arrays[name].size else None

    times = None
    if "times" in arrays:
        times = arrays["times"].astype(np.float64) if arrays["times"].dtype.kind in "fiu" else np.empty(0)
        if times.shape != (len(points),):
            raise SourceError(f"{path}: expected {len(points)} times in seconds, came the shape {times.shape}")
    elif "rate" in arrays:
        try:
            rate = float(np.ravel(arrays["rate"])[0])
        except (ValueError, IndexError):
            rate = 0.0
        if not (math.isfinite(rate) and rate > 0):
            raise SourceError(f"{path}: expected a positive rate (samples a second), came {arrays['rate']}")
        times = np.arange(len(points)) / rate
    clock: Clock = "video" if "times" in arrays else "own"
    return trajectories(path, names, points.astype(np.float64), times, text("units"), text("up"), clock)


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no zip archive")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in _ARRAYS}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        if "pickle" in str(error):
            raise SourceError(
                f"{path}: it holds Python objects (a pickle), which could run a program when read; expected arrays of "
                "numbers and text: save each array with a plain dtype, not dtype=object"
            ) from error
        raise SourceError(f"{path}: cannot be read as NPZ ({error}); save it again with numpy.savez") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: expected text in UTF-8, came other bytes ({error}); save it as UTF-8") from error


def _number(cell: str, path: Path, line: int) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        raise SourceError(f"{path} line {line}: expected a number, came {cell[:40]!r}; mend the line") from None


def _c3d() -> ModuleType:
    try:
        import c3d
    except ImportError as error:
        raise ImportError("reading C3D needs the package c3d: install it with `pip install 'mcss[c3d]'`") from error
    module: ModuleType = c3d
    return module
