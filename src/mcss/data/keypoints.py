"""2D joints of images, projected from the labels or read from a detector's file, and drawings of them.

Points are *normalised*: the hip at the origin, x to the right, y down, in units of their root mean square distance from
it. They do not depend on where in the image a person stands or how large, so that images that are shifted and zoomed
keep their points.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from mcss.data.capture import Capture
from mcss.data.formats.keypoint_files import keypoint_file, read_keypoints
from mcss.data.instants import Instants
from mcss.errors import CaptureError, SourceError, damage_as
from mcss.skeletons import JOINTS, PARENTS, ROOT

LABELS = "labels"
"""The source that projects the labelled poses into the cameras of the capture."""

_NAMED = ("subject", "sequence", "frame", "view", "joint")

COLUMNS = (*_NAMED, "x", "y")
"""Columns of a file of points: a line for every detected joint, in pixels of the source image."""

BONES = tuple((parent, joint) for joint, parent in enumerate(PARENTS) if parent >= 0)

_HIPS = (JOINTS.index("LHip"), JOINTS.index("RHip"))
_FEWEST = 4
"""Joints besides the hip that an image's points need; fewer have no meaningful scale."""


def keypoints_of(
    capture: Capture, instants: Instants, source: str, purpose: str, note: Callable[[str], None] = lambda text: None
) -> Float32[np.ndarray, "n views 17 2"]:
    """Return the normalised points of all images of `instants`; NaN for joints that were not detected.

    Args:
        capture: Where the images are.
        instants: Instants of the capture.
        source: ``labels``, a CSV or Parquet file with `COLUMNS`, or a folder of keypoints as tools write them
            (``subject/sequence/view.json``; `mcss.data.formats.keypoint_files`).
        purpose: What needs the points, for messages.
        note: Receives what is unusual about the points.

    Raises:
        CaptureError: The source is ``labels``, and the capture lacks poses or cameras.
        ValueError: The file is missing or malformed, or has points of none of the images.
    """
    pixels = np.full((*instants.rows.shape, 17, 2), np.nan, np.float32)
    there = instants.rows >= 0
    if source == LABELS:
        rows = instants.rows[there]
        poses = np.broadcast_to(instants.pose[:, None], (*instants.rows.shape, 17, 3))[there]
        pixels[there] = _in_pixels_of_crops(capture, rows, capture.cameras(rows).project(poses))
    else:
        if Path(source).is_dir():
            detected = joints_of_tools(Path(source), capture, instants, "points", note)
        else:
            detected = read_joints(Path(source), instants, COLUMNS, "points")
        pixels[there] = _in_pixels_of_crops(capture, instants.rows[there], detected[there])
    points = normalised_points(pixels)
    usable = ~np.isnan(points).all(axis=(2, 3))
    if source == LABELS and not usable[there].all():
        first = int(instants.rows[there & ~usable][0])
        raise CaptureError(
            f"{purpose} needs 2D joints, and the pose or the camera of {int((there & ~usable).sum()):,} of "
            f"{int(there.sum()):,} images in the capture at {capture.uri} is unknown ({capture.describe(first)} is the "
            "first); give a detector's points as a file, or train mcss, which needs none"
        )
    if not usable.any():
        raise ValueError(
            f"points: {source} has points of none of the {int(there.sum()):,} images of {capture.uri}; use the "
            "capture's names of subjects, sequences and views, and its frame numbers"
        )
    return points


def normalised_points(points: Float[np.ndarray, "*n 17 2"]) -> Float32[np.ndarray, "*n 17 2"]:
    """Return points relative to the hip, in units of their root mean square distance from it.

    NaN where too few joints are known. A hip that is not known is taken midway between its sides.
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
        normalised: Float32[np.ndarray, "*n 17 2"] = (centred / scale[..., None, None]).astype(np.float32)
    return normalised


def skeleton_maps(
    points: Float[Tensor, "batch 17 2"], size: int, extent: float = 2.5, width: float = 0.08
) -> Float[Tensor, "batch 16 size size"]:
    """Draw normalised points: a channel for each bone, 1 along the bone and falling off to its sides.

    Args:
        points: Points with the hip at the origin; bones whose joints are NaN are not drawn.
        size: Side of the maps in pixels.
        extent: Half of the side in units of the points.
        width: Standard deviation of the fall-off in units of the points.
    """
    axis = (torch.arange(size, device=points.device, dtype=points.dtype) + 0.5) / size * 2 * extent - extent
    ends = points[:, list(BONES)]
    known = ends.isfinite().all(dim=-1).all(dim=-1)
    start, along = ends[:, :, 0].nan_to_num(), (ends[:, :, 1] - ends[:, :, 0]).nan_to_num()
    # x varies along columns and y along rows: each is computed for a side and not for the whole map.
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
    """Convert source pixels to what crops show: a box that is not square is squeezed into a square crop."""
    boxes = capture.boxes(rows)
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
    crops: Float32[np.ndarray, "n 17 2"] = ((pixels - boxes[:, None, :2]) / size[:, None]).astype(np.float32)
    return crops


def joints_of_tools(
    folder: Path, capture: Capture, instants: Instants, setting: str, note: Callable[[str], None]
) -> Float32[np.ndarray, "n views 17 2"]:
    """Read the joints of each image from the keypoints that a tool wrote for each view; NaN for those it lacks.

    Args:
        folder: Has ``subject/sequence/view.json`` (COCO, MMPose), ``.csv``, ``.h5`` (DeepLabCut) or folders (OpenPose).
        capture: Where the images are, which are found by the numbers that they have in the video or folder of a view.
        instants: The instants whose images are wanted.
        setting: The setting that names the folder, for messages.
        note: Receives what is unusual about the keypoints.

    Raises:
        ValueError: There is no such file of any view, or one of another kind.
    """
    joints = np.full((*instants.rows.shape, 17, 2), np.nan, np.float32)
    found = 0
    for subject, sequence in dict.fromkeys(zip(instants.subject.tolist(), instants.sequence.tolist(), strict=True)):
        own = (instants.subject == subject) & (instants.sequence == sequence)
        for v, view in enumerate(instants.views):
            members = np.flatnonzero(own & (instants.rows[:, v] >= 0))
            path = keypoint_file(folder, instants.subjects[subject], instants.sequences[sequence], view)
            if path is None or not len(members):
                continue
            found += 1
            keypoints = read_keypoints(path)
            numbers = capture.image_numbers(instants.rows[members, v])
            if numbers.min() == 0 and keypoints.begins_with_one:
                note(keypoints.begins_with_one)
            at = {int(frame): i for i, frame in enumerate(keypoints.frames)}
            places = keypoints.joints()
            for member, number in zip(members.tolist(), numbers.tolist(), strict=True):
                i = at.get(number)
                if i is not None:
                    joints[member, v] = places[i]
    if not found:
        names = instants.subjects[instants.subject[0]], instants.sequences[instants.sequence[0]], instants.views[0]
        raise ValueError(
            f"{setting}: {folder} has no keypoints of the capture's views; expected subject/sequence/view.json, such "
            f"as {'/'.join(names)}.json"
        )
    return joints


def read_joints(
    path: Path, instants: Instants, columns: Sequence[str], setting: str
) -> Float32[np.ndarray, "n views 17 axes"]:
    """Read the coordinates of the joints of each image from a CSV or Parquet file; NaN for those it lacks.

    Lines of other images and joints with other names are skipped.

    Args:
        path: The file.
        instants: The instants whose images are wanted.
        columns: The file's columns: subject, sequence, frame, view, joint, then the coordinates.
        setting: The setting that names the file, for messages.

    Raises:
        ValueError: The file is missing or malformed.
    """
    table = _table(path, columns, setting)
    keys = {
        name: {text: i for i, text in enumerate(names)}
        for name, names in (("subject", instants.subjects), ("sequence", instants.sequences), ("view", instants.views))
    }
    keys["joint"] = {name: i for i, name in enumerate(JOINTS)}
    indices = {name: _indices(table[name], known) for name, known in keys.items()}
    instant_of = {
        (int(s), int(q), int(f)): i
        for i, (s, q, f) in enumerate(zip(instants.subject, instants.sequence, instants.frame, strict=True))
    }
    lines = zip(indices["subject"].tolist(), indices["sequence"].tolist(), table["frame"].to_pylist(), strict=True)
    instant = np.array([instant_of.get(key, -1) for key in lines], np.int64)
    kept = (instant >= 0) & (indices["view"] >= 0) & (indices["joint"] >= 0)
    axes = columns[len(_NAMED) :]
    joints = np.full((*instants.rows.shape, 17, len(axes)), np.nan, np.float32)
    values = np.stack([table[name].to_numpy() for name in axes], axis=1).astype(np.float32)
    joints[instant[kept], indices["view"][kept], indices["joint"][kept]] = values[kept]
    return joints


def _table(path: Path, columns: Sequence[str], setting: str) -> pa.Table:
    if not path.is_file():
        raise ValueError(
            f"{setting}: there is no file {path}; expected a CSV or Parquet file with the columns {','.join(columns)}"
        )
    kinds = {"frame": pa.int64(), **dict.fromkeys(columns[len(_NAMED) :], pa.float64())}
    types = {name: kinds.get(name, pa.string()) for name in columns}
    with damage_as(SourceError, lambda why: f"{setting}: {path} is not a table of joints ({why})"):
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            table = pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=types))
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise SourceError(f"{setting}: {path} lacks the columns {', '.join(missing)}; expected {','.join(columns)}")
        return table.select(list(columns)).cast(pa.schema(list(types.items()))).combine_chunks()


def _indices(column: pa.ChunkedArray, known: dict[str, int]) -> Int[np.ndarray, " lines"]:
    """Return the index of each name of a column; -1 for unknown ones."""
    encoded = column.combine_chunks().dictionary_encode()
    index_of = np.array([known.get(name, -1) for name in encoded.dictionary.to_pylist()] or [-1], np.int64)
    indices: Int[np.ndarray, " lines"] = index_of[encoded.indices.to_numpy(zero_copy_only=False)]
    return indices
