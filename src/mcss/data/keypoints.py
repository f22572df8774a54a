"""2D joints of images: of the labels, seen by the cameras, or of a detector, from a file; and drawings of them.

Points are *normalised*: the hip at the origin, x to the right, y down, in units of their root mean square distance from
it. What they say is then the same wherever in its image a person stands and however large, so that images that
were shifted and zoomed keep their points.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import CaptureError
from mcss.skeletons import JOINTS, PARENTS, ROOT

LABELS = "labels"
"""The source of points that are seen by the cameras of the capture."""

_NAMED = ("subject", "sequence", "frame", "view", "joint")

COLUMNS = (*_NAMED, "x", "y")
"""Of a file of points: a line for every joint that was found, in pixels of the source image."""

BONES = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)

_HIPS = (JOINTS.index("LHip"), JOINTS.index("RHip"))
_FEWEST = 4
"""Joints beside the hip that an image's points need, or it has none: fewer have no scale that means anything."""


def keypoints_of(
    capture: Capture, instants: Instants, source: str, purpose: str
) -> Float32[np.ndarray, "n views 17 2"]:
    """Normalised points of all images of `instants`; NaN for joints that were not found.

    Args:
        capture: Where the images are.
        instants: Of the capture.
        source: ``labels``, or a CSV or Parquet file with `COLUMNS`.
        purpose: What they are needed for, for messages.

    Raises:
        CaptureError: Labels are asked for, and the capture lacks poses or cameras.
        ValueError: The file is not there, not as expected, or has points of none of the images.
    """
    found = np.full((*instants.rows.shape, 17, 2), np.nan, np.float32)
    there = instants.rows >= 0
    if source == LABELS:
        rows = instants.rows[there]
        poses = np.broadcast_to(instants.pose[:, None], (*instants.rows.shape, 17, 3))[there]
        found[there] = _in_pixels_of_crops(capture, rows, capture.cameras(rows).project(poses))
    else:
        pixels = read_joints(Path(source), instants, COLUMNS, "points")
        found[there] = _in_pixels_of_crops(capture, instants.rows[there], pixels[there])
    points = normalised_points(found)
    usable = ~np.isnan(points).all(axis=(2, 3))
    if source == LABELS and not usable[there].all():
        first = int(instants.rows[there & ~usable][0])
        raise CaptureError(
            f"{purpose} needs 2D joints, and of {int((there & ~usable).sum()):,} of {int(there.sum()):,} images of "
            f"the capture at {capture.uri} the pose or the camera is unknown ({capture.describe(first)} is the first); "
            "give a detector's points as a file, or train mcss, which needs none"
        )
    if not usable.any():
        raise ValueError(
            f"points: {source} has points of none of the {int(there.sum()):,} images of {capture.uri}; names of "
            "subjects, sequences and views, and numbers of frames, must be those of the capture"
        )
    return points


def normalised_points(points: Float[np.ndarray, "*n 17 2"]) -> Float32[np.ndarray, "*n 17 2"]:
    """Points about the hip in units of their root mean square distance from it; NaN where too few were found.

    A hip that was not found lies midway between its sides.
    """
    points = points.astype(np.float64)
    hip = points[..., ROOT, :]
    hip = np.where(np.isnan(hip), points[..., _HIPS, :].mean(axis=-2), hip)
    centred = points - hip[..., None, :]
    centred[..., ROOT, :] = np.where(np.isnan(hip), np.nan, 0)
    seen = ~np.isnan(centred).any(axis=-1)
    count = seen.sum(axis=-1) - seen[..., ROOT]
    total = np.where(seen, np.square(np.nan_to_num(centred)).sum(axis=-1), 0).sum(axis=-1)
    sound = (count >= _FEWEST) & (total > 0)
    scale = np.where(sound, np.sqrt(np.divide(total, np.maximum(count, 1))), np.nan)
    with np.errstate(invalid="ignore"):
        found: Float32[np.ndarray, "*n 17 2"] = (centred / scale[..., None, None]).astype(np.float32)
    return found


def skeleton_maps(
    points: Float[Tensor, "batch 17 2"], size: int, extent: float = 2.5, width: float = 0.08
) -> Float[Tensor, "batch 16 size size"]:
    """Drawings of normalised points: a channel for each bone, one along it and falling off to its sides.

    Args:
        points: With the hip at the origin; bones of joints that are NaN are not drawn.
        size: Side of the maps in pixels.
        extent: What the middle of a side is away from the middle of the map, in units of the points.
        width: Standard deviation of the fall, in these units.
    """
    axis = (torch.arange(size, device=points.device, dtype=points.dtype) + 0.5) / size * 2 * extent - extent
    ends = points[:, list(BONES)]
    known = ends.isfinite().all(dim=-1).all(dim=-1)
    start, along = ends[:, :, 0].nan_to_num(), (ends[:, :, 1] - ends[:, :, 0]).nan_to_num()
    # A place is a column and a row: x and y apart are sums over a side, not over the whole map.
    x, y = (axis - start[..., n, None] for n in range(2))
    dot = (y * along[..., 1, None])[..., :, None] + (x * along[..., 0, None])[..., None, :]
    length = along.square().sum(-1)[..., None, None]
    share = (dot / length.clamp(min=1e-9)).clamp(0, 1)
    away = y.square()[..., :, None] + x.square()[..., None, :]
    squared = (away - share * (2 * dot - share * length)).clamp(min=0)
    return torch.exp(squared / (-2 * width**2)) * known[..., None, None]


def _in_pixels_of_crops(
    capture: Capture, rows: Int[np.ndarray, " n"], pixels: Float32[np.ndarray, "n 17 2"]
) -> Float32[np.ndarray, "n 17 2"]:
    """Source pixels as crops show them: a box that is not square was squeezed."""
    boxes = capture.boxes(rows)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    crops: Float32[np.ndarray, "n 17 2"] = ((pixels - boxes[:, None, :2]) / size[:, None]).astype(np.float32)
    return crops


def read_joints(
    path: Path, instants: Instants, columns: Sequence[str], setting: str
) -> Float32[np.ndarray, "n views 17 axes"]:
    """Coordinates of the joints of each image, from a CSV or Parquet file; NaN for those that it does not have.

    Lines of other images and of joints of other names are passed over.

    Args:
        path: The file.
        instants: Whose images are asked for.
        columns: Its columns: subject, sequence, frame, view, joint, and a coordinate each.
        setting: What names the file, for messages.

    Raises:
        ValueError: The file is not there or not as expected.
    """
    table = _table(path, columns, setting)
    keys = {
        name: {text: i for i, text in enumerate(names)}
        for name, names in (("subject", instants.subjects), ("sequence", instants.sequences), ("view", instants.views))
    }
    keys["joint"] = {name: i for i, name in enumerate(JOINTS)}
    places = {name: _places(table[name], known) for name, known in keys.items()}
    own = {
        (int(s), int(q), int(f)): i
        for i, (s, q, f) in enumerate(zip(instants.subject, instants.sequence, instants.frame, strict=True))
    }
    lines = zip(places["subject"].tolist(), places["sequence"].tolist(), table["frame"].to_pylist(), strict=True)
    instant = np.array([own.get(key, -1) for key in lines], np.int64)
    kept = (instant >= 0) & (places["view"] >= 0) & (places["joint"] >= 0)
    axes = columns[len(_NAMED) :]
    found = np.full((*instants.rows.shape, 17, len(axes)), np.nan, np.float32)
    values = np.stack([table[name].to_numpy() for name in axes], axis=1).astype(np.float32)
    found[instant[kept], places["view"][kept], places["joint"][kept]] = values[kept]
    return found


def _table(path: Path, columns: Sequence[str], setting: str) -> pa.Table:
    if not path.is_file():
        raise ValueError(
            f"{setting}: there is no file {path}; expected a CSV or Parquet file with the columns {','.join(columns)}"
        )
    kinds = {"frame": pa.int64(), **dict.fromkeys(columns[len(_NAMED) :], pa.float64())}
    types = {name: kinds.get(name, pa.string()) for name in columns}
    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=types))
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise ValueError(f"{setting}: {path} lacks the columns {', '.join(missing)}; expected {','.join(columns)}")
        return table.select(list(columns)).cast(pa.schema(list(types.items()))).combine_chunks()
    except pa.ArrowInvalid as error:
        raise ValueError(f"{setting}: {path} is no table of joints ({error})") from error


def _places(column: pa.ChunkedArray, known: dict[str, int]) -> Int[np.ndarray, " lines"]:
    """The index of each name of a column; -1 for unknown ones."""
    encoded = column.combine_chunks().dictionary_encode()
    place = np.array([known.get(name, -1) for name in encoded.dictionary.to_pylist()] or [-1], np.int64)
    found: Int[np.ndarray, " lines"] = place[encoded.indices.to_numpy(zero_copy_only=False)]
    return found
