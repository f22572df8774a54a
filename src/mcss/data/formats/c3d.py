"""C3D motion files, read with the optional package c3d."""

import math
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from mcss.data.formats.trajectories import Trajectories, late_start, trajectories
from mcss.errors import SourceError

_MIPS = 86
"""The processor type in a C3D's parameters that means big-endian numbers."""

_ROUNDING = 1e-3
"""Rates that differ by this share are the same: 119.88 Hz may be called 120."""


def read_c3d(path: Path) -> Trajectories:
    """Read the points of a C3D file that have names; the unit is POINT:UNITS.

    POINT:Y_SCREEN states the axis that points up, but not in which direction: Qualisys writes −Z where +Z is up.

    The package c3d is pure Python: compiled readers crash or hang on damaged files.

    Raises:
        SourceError: The file is not C3D, is cut short, or has no points.
        ImportError: The package c3d is not installed.
    """
    c3d = _c3d()
    try:
        data = path.read_bytes()
        stated = _stated_frames(data)
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there are no analog data; a file that ends too early is caught below
            reader = _tolerant_reader(c3d)(file)
            if not reader.point_used:
                raise SourceError(_without_points(path, reader))
            if stated is None:
                stated = _long_trial(reader)
                count = stated or _frames_that_fit(reader, len(data))
                file.seek(0)
                reader = _tolerant_reader(c3d, first_frame=1, last_frame=count)(file)
            names = _names(reader)
            rate, first = float(reader.point_rate), float(reader.first_frame)
            samples = [points[:, :4].copy() for _, points, _ in reader.read_frames()]
            unit, up = _parameter(reader, "POINT:UNITS"), _parameter(reader, "POINT:Y_SCREEN")
    except SourceError:
        raise
    except Exception as error:  # the bytes of a damaged file can lead to any error
        raise SourceError(
            f"{path}: cannot be read as C3D ({type(error).__name__}: {error}); export it again, or remove it"
        ) from error
    if not samples or (stated is not None and len(samples) != stated):
        raise SourceError(
            f"{path}: expected {stated or 'some'} frames, as its header says, got {len(samples)}; the file was cut "
            "short: copy it again"
        )
    points = np.array(samples, np.float64)
    if not any(names):
        raise SourceError(f"{path}: none of its {points.shape[1]} points has a name; name them")
    if not (math.isfinite(rate) and rate > 0):
        raise SourceError(f"{path}: expected a positive POINT:RATE, got {rate}; state the rate in the file")
    points[points[..., 3] < 0] = np.nan  # a negative residual means that the point was not seen
    named = [k for k, name in enumerate(names) if name]
    axis = None if up is None else "±" + up[-1:]
    times = np.arange(len(points)) / rate
    notes = late_start(first, (first - 1) / rate)
    return trajectories(path, [names[k] for k in named], points[:, named, :3], times, unit, axis, notes=notes)


def _tolerant_reader(c3d: ModuleType, **frames: int) -> type[Any]:
    """Return the package's reader for files whose rates were rounded: 10 · 59.94 is not 599.4 in 32 bits.

    The number of analog samples a frame is the whole one of the header, and POINT:RATE comes before the header's rate.
    """

    def analog_rate(self: Any) -> float:
        stated, by_header = float(plain.fget(self)), float(self.header.analog_per_frame * self.point_rate)
        return by_header if not self.analog_used or math.isclose(stated, by_header, rel_tol=_ROUNDING) else stated

    def check_metadata(self: Any) -> None:
        if math.isclose(self.header.frame_rate, self.point_rate, rel_tol=_ROUNDING):
            self.header.frame_rate = self.point_rate
        c3d.Reader._check_metadata(self)

    plain = c3d.Reader.analog_rate
    changes = {"analog_rate": property(analog_rate), "_check_metadata": check_metadata}
    return type("TolerantReader", (c3d.Reader,), changes | frames)


def _names(reader: Any) -> list[str]:
    """Return a name for each point, empty if it has none: LABELS holds up to 255, LABELS2 the next ones, and so on."""
    names: list[str] = []
    for suffix in ("", *map(str, range(2, 256))):
        parameter = reader.get(f"POINT:LABELS{suffix}")
        if parameter is None:
            break
        names += [name.strip() for name in parameter.string_array]
    count = int(reader.point_used)
    return (names + [""] * count)[:count]


def _without_points(path: Path, reader: Any) -> str:
    """Return the message for a file that has no points."""
    parts = []
    rotations = reader.get("ROTATION:USED")
    if rotations is not None and rotations.uint16_value:
        parts.append("rotations")
    if reader.analog_used:
        parts.append("analog signals")
    kinds = " and ".join(parts)
    holds = f"it holds {kinds} alone" if kinds else "it holds none"
    return f"{path}: expected 3D points, but {holds}; export the joints' positions as points (markers) too"


def _parameter(reader: Any, name: str) -> str | None:
    parameter = reader.get(name)
    return None if parameter is None else str(parameter.string_value).strip().lower() or None


def _stated_frames(data: bytes) -> int | None:
    """The number of frames in the header of a C3D (its words 4 and 5); None if there are too many to be stated there.

    The reader returns as many frames as it finds, so it does not notice a file that was cut short.
    """
    order: Literal["big", "little"] = "big" if data[(data[0] - 1) * 512 + 3] == _MIPS else "little"
    first, last = int.from_bytes(data[6:8], order), int.from_bytes(data[8:10], order)
    return last - first + 1 if first <= last < 65535 else None


def _long_trial(reader: Any) -> int | None:
    """Return the number of frames that two words of TRIAL state, the lower one first; None if they do not."""
    ends = []
    for name in ("TRIAL:ACTUAL_START_FIELD", "TRIAL:ACTUAL_END_FIELD"):
        parameter = reader.get(name)
        words = [] if parameter is None else [int(word) for word in parameter.uint16_array]
        if len(words) < 2:
            return None
        ends.append(words[0] + 65536 * words[1])
    return ends[1] - ends[0] + 1 if ends[1] >= ends[0] else None


def _frames_that_fit(reader: Any, size: int) -> int:
    """Return the number of frames that a file of a size in bytes holds, from the length of one."""
    word = 4 if reader.point_scale < 0 else 2
    frame = word * (4 * int(reader.point_used) + int(reader.analog_used) * int(reader.analog_per_frame))
    return int((size - (int(reader.header.data_block) - 1) * 512) // frame)


def _c3d() -> ModuleType:
    try:
        import c3d
    except ImportError as error:
        raise ImportError("reading C3D needs the package c3d: install it with `pip install 'mcss[c3d]'`") from error
    module: ModuleType = c3d
    return module
