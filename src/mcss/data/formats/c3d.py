"""C3D motion files, read with the optional package c3d."""

import math
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from mcss.data.formats.trajectories import Trajectories, trajectories
from mcss.errors import SourceError

_MIPS = 86
"""The processor type in a C3D's parameters that means big-endian numbers."""


def read_c3d(path: Path) -> Trajectories:
    """Read the points of a C3D file; the unit is POINT:UNITS and the up axis POINT:Y_SCREEN, if it has them.

    The package c3d is pure Python: compiled readers crash or hang on damaged files.

    Raises:
        SourceError: The file is not C3D, is cut short, or has no points.
        ImportError: The package c3d is not installed.
    """
    c3d = _c3d()
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # there are no analog data; a file that ends too early is caught below
            reader = c3d.Reader(file)
            names = [name.strip() for name in reader.point_labels][: reader.point_used]
            rate = float(reader.point_rate)
            samples = [points[:, :4].copy() for _, points, _ in reader.read_frames()]
            unit, up = _parameter(reader, "POINT:UNITS"), _parameter(reader, "POINT:Y_SCREEN")
        stated = _stated_frames(path.read_bytes())
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
    if len(names) != points.shape[1]:
        raise SourceError(f"{path}: expected a name for each point, got {len(names)} for {points.shape[1]}; name them")
    if not (math.isfinite(rate) and rate > 0):
        raise SourceError(f"{path}: expected a positive POINT:RATE, got {rate}; state the rate in the file")
    points[points[..., 3] < 0] = np.nan  # a negative residual means that the point was not seen
    return trajectories(path, names, points[..., :3], np.arange(len(points)) / rate, unit, up)


def _parameter(reader: Any, name: str) -> str | None:
    parameter = reader.get(name)
    return None if parameter is None else str(parameter.string_value).strip().lower() or None


def _stated_frames(data: bytes) -> int | None:
    """The number of frames in the header of a C3D (its words 4 and 5); None if there are too many to be stated there.

    The reader returns as many frames as it finds, so it does not notice a file that was cut short.
    """
    order: Literal["big", "little"] = "big" if data[(data[0] - 1) * 512 + 3] == _MIPS else "little"
    first, last = int.from_bytes(data[6:8], order), int.from_bytes(data[8:10], order)
    return last - first + 1 if last < 65535 else None


def _c3d() -> ModuleType:
    try:
        import c3d
    except ImportError as error:
        raise ImportError("reading C3D needs the package c3d: install it with `pip install 'mcss[c3d]'`") from error
    module: ModuleType = c3d
    return module
