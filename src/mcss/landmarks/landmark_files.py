"""Files of landmarks: mcss's own, which keeps what was detected, and tables of other detectors.

A table is a CSV or Parquet file with a line for each landmark of each image, in the columns
``subject,sequence,frame,view,joint,x,y,z`` and, if known, ``u,v`` (pixels of the source image) and ``visibility``.
x, y and z are metres or millimetres along the axes of the camera (x right, y down, z away). Joints are named as
MediaPipe names its landmarks (``left_hip``), which are COCO's names as well, or as mcss does (``LHip``).
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from jaxtyping import Float64, Int64

from mcss.data.cameras import in_crops
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import LandmarkError
from mcss.files import replacing
from mcss.landmarks.view_landmarks import LANDMARKS, ViewLandmarks

_NAMES = ("subject", "sequence", "view", "joint")
_NEEDED = ("subject", "sequence", "frame", "view", "joint", "x", "y", "z")
_OPTIONAL = ("u", "v", "visibility")

_OURS = {
    f"{side}{joint}": f"{word}_{name}"
    for side, word in (("L", "left"), ("R", "right"))
    for joint, name in (
        ("Hip", "hip"),
        ("Knee", "knee"),
        ("Foot", "ankle"),
        ("Shoulder", "shoulder"),
        ("Elbow", "elbow"),
        ("Wrist", "wrist"),
    )
} | {"Neck": "nose"}
"""The landmarks that joints of mcss are."""

LIMB_LANDMARKS = tuple(LANDMARKS.index(name) for name in _OURS.values() if name != "nose")
"""Landmarks that a detector has to find: the joints of arms and legs."""

_METRES = 10.0
"""A body that is smaller than this, from one end to the other, is given in metres."""

_MOST_MISSING = 0.1
"""Share of the wanted instants that a file may lack."""

_LOOKED_AT = 200
"""Images in which the places of given landmarks are checked."""

_LEAST_INSIDE = 0.7
"""Share of given landmarks that lie in the crops or near them."""

_ARRAYS = ("image", "world", "visibility", "presence", "image_size")


def write_landmarks(path: Path, landmarks: ViewLandmarks) -> None:
    """Write landmarks as a NumPy archive that `read_landmarks` reads, completely or not at all."""
    if path.suffix != ".npz":
        raise ValueError(f"landmarks_out: {path} should end in .npz.")
    instants = landmarks.instants
    arrays = {name: getattr(landmarks, name) for name in _ARRAYS} | {
        "names": np.array(LANDMARKS),
        "views": np.array(instants.views),
        "subject": np.array(instants.subjects)[instants.subject],
        "sequence": np.array(instants.sequences)[instants.sequence],
        "frame": instants.frame,
        "detector": np.array(landmarks.detector),
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_landmarks(path: Path, instants: Instants) -> ViewLandmarks:
    """Read the landmarks of some instants of a capture from a file.

    Args:
        path: A file of `write_landmarks`, or a table of another detector.
        instants: The instants that are wanted; others that the file has are passed over.

    Raises:
        LandmarkError: The file is missing or malformed, or is of another capture.
    """
    if not path.is_file():
        raise LandmarkError(
            f"landmarks: there is no file {path}; expected an .npz that `mcss label --landmarks-out` wrote, or a .csv "
            f"or .parquet with the columns {','.join(_NEEDED)}"
        )
    if path.suffix == ".npz":
        landmarks = _of_archive(path, instants)
    elif path.suffix in (".csv", ".parquet"):
        landmarks = _of_table(path, instants)
    else:
        raise LandmarkError(f"landmarks: {path} should end in .npz, .csv or .parquet")
    return _checked(path, landmarks)


def check_places(path: Path, landmarks: ViewLandmarks, capture: Capture) -> None:
    """Refuse landmarks of a file that lie elsewhere than the person whom the capture shows.

    Raises:
        LandmarkError: They do.
    """
    limbs = landmarks.image[:, :, list(LIMB_LANDMARKS)]
    known = (landmarks.instants.rows >= 0) & np.isfinite(limbs).all(axis=(2, 3))
    at = np.argwhere(known)
    at = at[np.unique(np.linspace(0, len(at) - 1, min(len(at), _LOOKED_AT)).astype(np.int64))] if len(at) else at
    if not len(at):
        return
    shares = in_crops(limbs[at[:, 0], at[:, 1]], capture.boxes(landmarks.instants.rows[at[:, 0], at[:, 1]]))
    inside = ((shares > -0.5) & (shares < 1.5)).all(axis=2).mean()
    if inside < _LEAST_INSIDE:
        raise LandmarkError(
            f"landmarks: {100 * (1 - inside):.0f} % of those in {path} lie far from the person whom the capture shows: "
            "are they of another video, or of scaled or cropped images? u and v are pixels of the source images"
        )


def _checked(path: Path, landmarks: ViewLandmarks) -> ViewLandmarks:
    instants = landmarks.instants
    without = ~landmarks.seen.any(axis=1)
    if without.mean() > _MOST_MISSING:
        raise LandmarkError(
            f"landmarks: {path} has none for {int(without.sum()):,} of {len(instants):,} instants, "
            f"{instants.describe(int(without.argmax()))} being the first: are they of another video, or of another "
            "split? Detect them in the very images of this capture, under its names and frame numbers"
        )
    limbs = np.isfinite(landmarks.world[:, :, list(LIMB_LANDMARKS)]).all(axis=(0, 1, 3))
    never = [LANDMARKS[i] for i in LIMB_LANDMARKS if not np.isfinite(landmarks.world[:, :, i]).any()]
    if never and not limbs.all():
        raise LandmarkError(
            f"landmarks: {path} has no {', '.join(never)}; expected all joints of arms and legs, by MediaPipe's and "
            "COCO's names (left_hip) or by those of mcss (LHip)"
        )
    return landmarks


def _empty(instants: Instants, detector: str) -> ViewLandmarks:
    shape = instants.rows.shape
    return ViewLandmarks(
        instants=instants,
        image=np.full((*shape, 33, 2), np.nan, np.float32),
        world=np.full((*shape, 33, 3), np.nan, np.float32),
        visibility=np.zeros((*shape, 33), np.float32),
        presence=np.zeros(shape, np.float32),
        image_size=np.full((len(instants.views), 2), np.nan),
        detector=detector,
    )


def _keys(instants: Instants) -> dict[tuple[str, str, int], int]:
    names = zip(instants.subject, instants.sequence, instants.frame, strict=True)
    return {(instants.subjects[s], instants.sequences[q], int(f)): i for i, (s, q, f) in enumerate(names)}


def _of_archive(path: Path, instants: Instants) -> ViewLandmarks:
    stored = _arrays(path)
    views = [str(name) for name in stored["views"]]
    _check_views(path, instants, views)
    known = _keys(instants)
    keys = zip(stored["subject"].tolist(), stored["sequence"].tolist(), stored["frame"].tolist(), strict=True)
    at, source = np.array([(known[k], i) for i, k in enumerate(keys) if k in known], np.int64).reshape(-1, 2).T
    columns = np.array([instants.views.index(name) for name in views if name in instants.views], np.int64)
    taken = np.array([i for i, name in enumerate(views) if name in instants.views], np.int64)
    landmarks = _empty(instants, str(stored["detector"]))
    for name in _ARRAYS[:-1]:
        getattr(landmarks, name)[np.ix_(at, columns)] = stored[name][np.ix_(source, taken)]
    landmarks.image_size[columns] = stored["image_size"][taken]
    return landmarks


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a zip archive")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            stored = {name: archive[name] for name in archive.files}
        n, views = len(stored["frame"]), len(stored["views"])
        shapes = {"image": (n, views, 33, 2), "world": (n, views, 33, 3), "visibility": (n, views, 33)}
        shapes |= {"presence": (n, views), "image_size": (views, 2), "subject": (n,), "sequence": (n,), "detector": ()}
        wrong = [name for name, shape in shapes.items() if stored[name].shape != shape]
        if wrong or [str(name) for name in stored["names"]] != list(LANDMARKS):
            raise ValueError(f"the arrays {', '.join(wrong) or 'names'} are not as expected")
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise LandmarkError(
            f"landmarks: {path} cannot be read ({error}); expected a file that `mcss label --landmarks-out` wrote"
        ) from error
    return stored


def _check_views(path: Path, instants: Instants, views: list[str]) -> None:
    if not set(views) & set(instants.views):
        raise LandmarkError(
            f"landmarks: {path} is of the views {', '.join(views[:8])}, and the capture has "
            f"{', '.join(instants.views)}: are they of another video? Use the capture's names of views"
        )


def _of_table(path: Path, instants: Instants) -> ViewLandmarks:
    table = _table(path)
    text = {name: table[name].to_pylist() for name in _NAMES}
    _check_views(path, instants, list(dict.fromkeys(text["view"])))
    known = _keys(instants)
    keys = zip(text["subject"], text["sequence"], table["frame"].to_pylist(), strict=True)
    instant = _places(known, keys)
    view = _places({name: i for i, name in enumerate(instants.views)}, text["view"])
    names = {name: i for i, name in enumerate(LANDMARKS)} | {a: LANDMARKS.index(b) for a, b in _OURS.items()}
    joint = _places(names, text["joint"])
    kept = (instant >= 0) & (view >= 0) & (joint >= 0)
    at = (instant[kept], view[kept], joint[kept])

    def columns(*wanted: str) -> Float64[np.ndarray, "lines axes"]:
        values = [
            table[name].to_numpy() if name in table.column_names else np.full(len(kept), np.nan) for name in wanted
        ]
        return np.stack(values, axis=1).astype(np.float64)[kept]

    landmarks = _empty(instants, path.name)
    landmarks.world[at] = columns("x", "y", "z")
    landmarks.image[at] = columns("u", "v")
    found = np.isfinite(landmarks.world).all(axis=3)
    sure = columns("visibility")[:, 0]
    landmarks.visibility[at] = np.where(np.isfinite(sure), np.clip(sure, 0, 1), 1.0)
    landmarks.visibility[~found] = 0
    landmarks.presence[:] = found.any(axis=2)
    _in_millimetres_about_hips(landmarks)
    return landmarks


def _places(known: Mapping[Any, int], values: Any) -> Int64[np.ndarray, " lines"]:
    return np.array([known.get(value, -1) for value in values], np.int64)


def _in_millimetres_about_hips(landmarks: ViewLandmarks) -> None:
    hips = [LANDMARKS.index("left_hip"), LANDMARKS.index("right_hip")]
    world = landmarks.world
    world -= world[:, :, hips].mean(axis=2, keepdims=True)
    finite = np.where(np.isfinite(world), world, 0)
    extent = np.linalg.norm(finite.max(axis=2) - finite.min(axis=2), axis=2)[landmarks.seen]
    if len(extent) and np.median(extent) < _METRES:
        world *= 1000


def _table(path: Path) -> Any:
    kinds = dict.fromkeys(_NAMES, pa.string()) | {"frame": pa.int64()}
    numbers = dict.fromkeys((*_NEEDED[5:], *_OPTIONAL), pa.float64())
    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            table = pyarrow.csv.read_csv(
                path, convert_options=pyarrow.csv.ConvertOptions(column_types={**kinds, **numbers})
            )
        missing = [name for name in _NEEDED if name not in table.column_names]
        if missing:
            raise LandmarkError(
                f"landmarks: {path} lacks the columns {', '.join(missing)}; expected {','.join(_NEEDED)} "
                f"and, if known, {','.join(_OPTIONAL)}"
            )
        wanted = [name for name in (*_NEEDED, *_OPTIONAL) if name in table.column_names]
        schema = pa.schema([(name, {**kinds, **numbers}[name]) for name in wanted])
        return table.select(wanted).cast(schema).combine_chunks()
    except pa.ArrowInvalid as error:
        raise LandmarkError(f"landmarks: {path} is not a table of landmarks ({error})") from error
