"""Tables of DeepLabCut, as CSV and as the HDF5 that pandas writes: a line of numbers per image, and named columns.

pandas pickles the names of columns. Nothing is unpickled here: a list of names is written with a few instructions,
which are followed one by one, and any other one is refused (`pickled_names`).
"""

import math
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.formats.csv import read_csv_table
from mcss.data.formats.hdf5 import Hdf5File, opened_hdf5
from mcss.data.formats.trajectories import Trajectories, to_number, trajectories
from mcss.data.image_names import numbers_of_images
from mcss.errors import SourceError, damage_as

_LEVELS = ("individuals", "bodyparts", "coords")
"""The levels of a column's name that matter, besides the scorer."""

Column = tuple[str, str, str]
"""The individual (empty if there is one), the body part, and ``x``, ``y``, ``z`` or ``likelihood``."""


@dataclass(frozen=True, eq=False)
class DeepLabCutTable:
    """The numbers of a file."""

    path: Path
    columns: tuple[Column, ...]
    frames: Int64[np.ndarray, " n"]
    """Numbers of the images, counted from 0."""
    values: Float64[np.ndarray, "n columns"]

    @property
    def individuals(self) -> tuple[str, ...]:
        """The individuals, in order."""
        return tuple(dict.fromkeys(column[0] for column in self.columns))

    @property
    def parts(self) -> tuple[str, ...]:
        """The body parts, in order."""
        return tuple(dict.fromkeys(column[1] for column in self.columns))

    def of(self, individual: str, coords: tuple[str, ...]) -> Float64[np.ndarray, "n parts coords"]:
        """Return coordinates of every part of an individual; NaN for those that the file lacks."""
        values = np.full((len(self.frames), len(self.parts), len(coords)), np.nan)
        for k, (who, part, coord) in enumerate(self.columns):
            if who == individual and coord in coords:
                values[:, self.parts.index(part), coords.index(coord)] = self.values[:, k]
        return values


def read_deeplabcut(path: Path) -> DeepLabCutTable:
    """Read a file of DeepLabCut.

    Args:
        path: ``.csv`` or ``.h5``.

    Raises:
        SourceError: The file is no table of DeepLabCut.
    """
    if path.suffix.lower() == ".csv":
        return _from_csv(path)
    return _from_hdf5(path)


def read_deeplabcut_poses(path: Path) -> Trajectories:
    """Read 3D points from the HDF5 file of DeepLabCut's triangulation; a line is one image.

    Raises:
        SourceError: The file is no such table, holds points in 2D, or those of several individuals.
    """
    table = _from_hdf5(path)
    if not any(column[2] == "z" for column in table.columns):
        raise SourceError(f"{path}: expected points in 3D (x, y, z), got 2D keypoints of one view; triangulate them")
    if len(table.individuals) > 1:
        raise SourceError(
            f"{path}: expected the points of one person, got those of {', '.join(table.individuals)}; remove the others"
        )
    points = table.of(table.individuals[0], ("x", "y", "z"))
    return trajectories(path, table.parts, points, table.frames.astype(np.float64), clock="images")


def _from_csv(path: Path) -> DeepLabCutTable:
    table = read_csv_table(path)
    lines = {row.cells[0].lower(): row.cells for row in table.rows[:3]}
    if not table.header or table.header[0].lower() != "scorer" or not {"bodyparts", "coords"} <= lines.keys():
        raise SourceError(f"{path}: expected a CSV of DeepLabCut (lines scorer, bodyparts, coords), got another header")
    # Since DeepLabCut 2.2 three columns name the image of a label: labeled-data, its folder, its file.
    first = next((k for k, cell in enumerate(lines["coords"]) if k and cell), 1)
    parts, coords = lines["bodyparts"][first:], lines["coords"][first:]
    individuals = lines["individuals"][first:] if "individuals" in lines else ("",) * len(parts)
    columns = tuple(zip(individuals, parts, coords, strict=False))
    images, values = [], []
    for row in table.rows:
        if row.cells[0].lower() in _LEVELS:
            continue
        numbers = [to_number(cell, path, row.line, row.delimiter != ",") for cell in row.cells[first:]]
        images.append("/".join(row.cells[:first]))
        values.append((numbers + [math.nan] * len(columns))[: len(columns)])
    if not images:
        raise SourceError(f"{path}: there are no keypoints in it")
    try:
        frames = np.array(numbers_of_images(images), np.int64)
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{path}: expected the number or name of an image before each line ({error})") from error
    order = np.argsort(frames, kind="stable")
    return DeepLabCutTable(path, columns, frames[order], np.array(values, np.float64)[order])


def _from_hdf5(path: Path) -> DeepLabCutTable:
    beside = path.with_suffix(".csv")
    way_out = f"use {beside.name} beside it" if beside.is_file() else "use the CSV that DeepLabCut writes beside it"
    with damage_as(
        SourceError,
        lambda why: f"{path}: expected DeepLabCut's HDF5 (a table of pandas), got something else ({why}); {way_out}",
    ):
        with opened_hdf5(path) as file:
            key = next((name for name in file.names() if "pandas_type" in file.attributes(name)), None)
            if key is None:
                raise ValueError("there is no table of pandas in it")
            kind = _text(file.attributes(key)["pandas_type"])
            if kind == "frame_table":
                names, index, values = _of_table(file, key)
            elif kind == "frame":
                names, index, values = _of_frame(file, key)
            else:
                raise ValueError(f"pandas keeps a {kind} in it")
        named = all(isinstance(at, str) for at in index)
        frames = np.array(numbers_of_images(index) if named else index, np.int64)
        order = np.argsort(frames, kind="stable")
        return DeepLabCutTable(path, _columns(names), frames[order], values[order])


def _of_table(file: Hdf5File, key: str) -> tuple[list[Any], list[Any], Float64[np.ndarray, "n columns"]]:
    """Read a frame in pandas' format ``table``: records of an index and of blocks of columns."""
    table, about = file.records(f"{key}/table"), file.attributes(f"{key}/table")
    blocks = [name for name in table.dtype.names or () if name != "index"]
    names = [name for block in blocks for name in pickled_names(_bytes(about[f"{block}_kind"]))]
    values = np.concatenate([table[block].reshape(len(table), -1) for block in blocks], axis=1)
    if values.dtype.kind not in "iuf" or values.shape[1] != len(names):
        raise ValueError(f"it has {values.shape[1]} columns of {values.dtype} and {len(names)} names")
    index = [_text(at) if isinstance(at, bytes) else int(at) for at in table["index"].tolist()]
    return names, index, values.astype(np.float64)


def _of_frame(file: Hdf5File, key: str) -> tuple[list[Any], list[Any], Float64[np.ndarray, "n columns"]]:
    """Read a frame in pandas' format ``fixed``: arrays of an index, of the levels of names, and of one block."""
    levels = int(file.attributes(key).get("block0_items_nlevels", 0))
    if levels not in (3, 4) or int(file.attributes(key).get("nblocks", 0)) != 1:
        raise ValueError("its columns have other names")
    names = _names_of(file, f"{key}/block0_items", levels)
    values = file.values(f"{key}/block0_values").astype(np.float64)
    index = _index(file, key)
    if values.shape != (len(index), len(names)):
        raise ValueError(f"it has {len(index)} lines and {len(names)} columns, and values in {values.shape}")
    return names, index, values


def _index(file: Hdf5File, key: str) -> list[Any]:
    """Read what names the lines of a frame: numbers or names of images; since DeepLabCut 2.2 with their folders."""
    axis = f"{key}/axis1"
    levels = int(file.attributes(key).get("axis1_nlevels", 0))
    if not levels:
        named = _text(file.attributes(axis).get("kind", b"")) == "string"
        return file.texts(axis) if named else [int(at) for at in file.values(axis)]
    return ["/".join(name) for name in _names_of(file, axis, levels)]


def _names_of(file: Hdf5File, axis: str, levels: int) -> list[tuple[str, ...]]:
    """Read the names along an axis, of several levels."""
    parts = []
    for k in range(levels):
        texts, at = file.texts(f"{axis}_level{k}"), file.values(f"{axis}_label{k}")
        parts.append([texts[i] for i in at.tolist()])
    return list(zip(*parts, strict=True))


def _columns(names: list[Any]) -> tuple[Column, ...]:
    """Return the individual, part and coordinate of names of three or four levels, scorer first."""
    columns: list[Column] = []
    for name in names:
        if not isinstance(name, tuple) or len(name) not in (3, 4) or not all(isinstance(part, str) for part in name):
            raise ValueError("its columns have other names")
        columns.append((name[1] if len(name) == 4 else "", name[-2], name[-1]))
    return tuple(columns)


def pickled_names(pickled: bytes) -> list[Any]:
    """Return a list of texts, whole numbers, None, or tuples and lists of such, from its pickle without unpickling.

    Raises:
        ValueError: The pickle holds anything else, such as a call.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    mark = object()

    def since_mark() -> list[Any]:
        at = max(i for i, item in enumerate(stack) if item is mark)
        items = stack[at + 1 :]
        del stack[at:]
        return items

    argument: Any
    for instruction, argument, _ in pickletools.genops(pickled):
        name = instruction.name
        if name == "MARK":
            stack.append(mark)
        elif name in ("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "INT", "BININT", "BININT1", "BININT2", "NONE"):
            stack.append(argument)
        elif name in ("EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append([] if name == "EMPTY_LIST" else ())
        elif name in ("LIST", "TUPLE"):
            items = since_mark()
            stack.append(items if name == "LIST" else tuple(items))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = stack[-int(name[-1]) :]
            del stack[-int(name[-1]) :]
            stack.append(tuple(items))
        elif name in ("APPEND", "APPENDS"):
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            stack[-1].extend(items)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"the names of its columns hold the instruction {name}, which names do not need")
    if len(stack) != 1 or not isinstance(stack[0], list):
        raise ValueError("the names of its columns are not a list")
    return stack[0]


def _bytes(attribute: Any) -> bytes:
    if not isinstance(attribute, bytes):
        raise ValueError("the names of its columns are missing")
    return bytes(attribute)


def _text(attribute: Any) -> str:
    return attribute.decode() if isinstance(attribute, bytes) else str(attribute)
