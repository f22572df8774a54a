"""The row of a capture (one image of one person by one camera at one time), and the description of a whole capture."""

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PureWindowsPath
from typing import Any
from unicodedata import category

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float32

from mcss.data.cameras import Camera
from mcss.errors import CaptureError
from mcss.images import jpeg_size
from mcss.skeletons import JOINTS, heading_valid

SCHEMA_VERSION = 1
"""Increase this when the table changes so that an older program would misread it."""


def _floats(count: int) -> Any:
    return pa.list_(pa.float32(), count)


SCHEMA = pa.schema(
    [
        pa.field("subject", pa.string(), nullable=False),
        pa.field("sequence", pa.string(), nullable=False),
        pa.field("action", pa.string(), nullable=False),
        pa.field("frame", pa.int32(), nullable=False),
        pa.field("time", pa.float64(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("pose", _floats(51)),
        pa.field("heading_valid", pa.bool_()),
        pa.field("box", _floats(4), nullable=False),
        pa.field("camera_rotation", _floats(9)),
        pa.field("camera_translation", _floats(3)),
        pa.field("camera_intrinsics", _floats(9)),
        pa.field("image_number", pa.int64()),
    ]
)
"""The columns of ``frames.lance``; further columns are ignored."""

OPTIONAL = frozenset({"image_number"})
"""Columns that a table written by an earlier mcss lacks. They say where crops come from and not what they show, so that
they do not count in the fingerprint."""

BACKGROUNDS = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
"""The columns of ``backgrounds.lance``."""

METADATA = tuple(
    f"mcss.{name}"
    for name in ("schema_version", "skeleton", "units", "importer", "licence", "image_size", "splits", "settings")
)
"""The metadata that every ``frames.lance`` has. A finished one also has ``mcss.fingerprint``, and one in which
somebody changes clothes has ``mcss.looks``, the patterns of `CaptureInfo.outfits`."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One row of a capture, to be written."""

    subject: str
    sequence: str
    """Unique within the subject."""
    action: str
    frame: int
    time: float
    """Seconds from the start of the sequence; all views of a frame have the same time."""
    view: str
    image: bytes
    """The square crop of the person as JPEG; all crops of a capture have the same size."""
    box: tuple[float, float, float, float]
    """Crop box: x0, y0, x1, y1 in pixels of the source image."""
    pose: Float[np.ndarray, "17 3"] | None = None
    """World millimetres, +Z up; None if there is no label."""
    camera: Camera | None = None
    image_number: int | None = None
    """Number of the source image in the video of its view, from 0, or in its name; None if it is that of the frame."""


@dataclass(frozen=True)
class Selector:
    """Picks the instants of a split; a condition that is None is met by all instants."""

    subjects: tuple[str, ...] | None = None
    sequences: tuple[str, ...] | None = None
    """Patterns such as ``Walking*``."""
    frames: tuple[int, int] | None = None
    """The first frame number, and the one after the last."""

    def matches_subject(self, name: str) -> bool:
        """Whether instants of the subject called `name` are picked."""
        return self.subjects is None or name in self.subjects

    def matches_sequence(self, name: str) -> bool:
        """Whether instants of a sequence called `name` are picked."""
        return self.sequences is None or any(fnmatch.fnmatchcase(name, glob) for glob in self.sequences)


def unsafe_name(name: str) -> bool:
    """Whether a name of a subject, sequence or view could lead out of a folder that is named after it."""
    if name in ("", ".", "..") or PureWindowsPath(name).drive:  # "" / "a" is at the root, and so may be "C:" / "a"
        return True
    return len(name.encode(errors="replace")) > 200 or any(c in "/\\" or category(c) == "Cc" for c in name)


Splits = Mapping[str, tuple[Selector, ...]]
"""Selectors by the name of the split; an instant belongs to a split if any of its selectors picks it."""


@dataclass(frozen=True)
class CaptureInfo:
    """The description of a whole capture."""

    importer: str
    """The source that made the capture, such as ``synthetic``."""
    licence: str
    image_size: int
    """Width and height of every crop in pixels."""
    splits: Splits
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings that determine the content, as JSON values; writing is continued only with the same settings."""
    outfits: tuple[str, ...] = ("*",)
    """Patterns of sequence names. A sequence belongs to the first pattern that its name matches, and a subject wears
    the same outfit in all sequences of a pattern. The images of a metric batch show one outfit; otherwise clothes would
    tell its instants apart."""

    @property
    def computed(self) -> bool:
        """Whether the settings alone determine the content, up to rounding that differs between processors."""
        return "renderer" in self.settings

    def metadata(self) -> dict[str, str]:
        """The table metadata that hold this description."""
        splits = {
            name: [{"subjects": s.subjects, "sequences": s.sequences, "frames": s.frames} for s in selectors]
            for name, selectors in self.splits.items()
        }
        outfits = {} if self.outfits == ("*",) else {"mcss.looks": json.dumps(self.outfits)}
        return outfits | {
            "mcss.schema_version": str(SCHEMA_VERSION),
            "mcss.skeleton": json.dumps(JOINTS),
            "mcss.units": "mm, +Z up; seconds",
            "mcss.importer": self.importer,
            "mcss.licence": self.licence,
            "mcss.image_size": str(self.image_size),
            "mcss.splits": json.dumps(splits),
            "mcss.settings": json.dumps(dict(self.settings), sort_keys=True),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "CaptureInfo":
        """Read the description from the metadata of a table."""

        def selector(fields: dict[str, Any]) -> Selector:
            present = {key: tuple(value) for key, value in fields.items() if value is not None}
            return Selector(**present)

        splits = json.loads(metadata["mcss.splits"])
        return cls(
            importer=metadata["mcss.importer"],
            licence=metadata["mcss.licence"],
            image_size=int(metadata["mcss.image_size"]),
            splits={name: tuple(map(selector, fields)) for name, fields in splits.items()},
            settings=json.loads(metadata["mcss.settings"]),
            outfits=tuple(json.loads(metadata.get("mcss.looks", '["*"]'))),
        )

    def grown_from(self, other: "CaptureInfo") -> bool:
        """Whether this is `other` with more selectors in its splits, or more entries in tables among its settings.

        This is the case after a recording was added that could not be read before.
        """
        splits = other.splits.keys() == self.splits.keys() and all(
            set(selectors) <= set(self.splits[name]) for name, selectors in other.splits.items()
        )
        mine, theirs = (json.loads(info.metadata()["mcss.settings"]) for info in (self, other))
        settings = theirs.keys() == mine.keys() and all(
            value == mine[name] or (isinstance(value, dict) and all(mine[name].get(k) == v for k, v in value.items()))
            for name, value in theirs.items()
        )
        same = replace(other, splits=self.splits, settings=self.settings)
        return splits and settings and not same.differences(self)

    def differences(self, other: "CaptureInfo") -> list[str]:
        """What differs in `other`, in words; single settings as ``name: own value there, other value here``."""

        def described(info: "CaptureInfo") -> dict[str, Any]:
            values = info.metadata()
            names = {"mcss.looks": "outfits"}
            settings, splits = (json.loads(values.pop(f"mcss.{name}")) for name in ("settings", "splits"))
            plain = {names.get(name, name.removeprefix("mcss.")): value for name, value in values.items()}
            return {**plain, **settings, "splits": splits}

        return _differences(described(self), described(other))


_TABLES = {"poses": "3D labels", "clocks": "offsets of mcss sync", "clicks": "clicked points"}
"""What tables among the settings stand for; they come and go with files beside the footage."""


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any], within: str = "") -> list[str]:
    """Say in words which entries of two nested tables differ."""
    texts = []
    for name in sorted(mine.keys() | theirs.keys()):
        there, here, title = mine.get(name), theirs.get(name), f"{within}{name}"
        if there == here:
            continue
        if title == "splits":
            texts.append("the splits pick other subjects, sequences or frames")
        elif isinstance(there, Mapping) and isinstance(here, Mapping):
            texts += _differences(there, here, f"{title}.")
        elif isinstance(here, Mapping) and name not in mine:
            texts.append(f"{_TABLES.get(title, title)} were added")
        elif isinstance(there, Mapping) and name not in theirs:
            texts.append(f"{_TABLES.get(title, title)} were removed")
        else:
            values = [
                value if isinstance(value, str) else json.dumps(value) if name in side else "not set"
                for value, side in ((there, mine), (here, theirs))
            ]
            texts.append(f"{title}: {values[0]} there, {values[1]} here")
    return texts


def frames_table(frames: Sequence[Frame], image_size: int) -> Any:
    """Convert the frames of one part (one sequence of one subject) to an Arrow table with `SCHEMA`.

    Raises:
        CaptureError: A frame does not fit; the message names its subject, sequence, frame and view.
    """
    seen: set[tuple[int, str]] = set()
    names = {name for f in frames for name in (f.subject, f.sequence, f.view)}
    unsafe = {name for name in names if unsafe_name(name)}
    for f in frames:
        where = f"{f.subject}/{f.sequence} frame {f.frame} view {f.view}"
        if (f.subject, f.sequence) != (frames[0].subject, frames[0].sequence):
            raise CaptureError(
                f"one append takes one sequence of one subject, but got {where} together with "
                f"{frames[0].subject}/{frames[0].sequence}; append them one after the other"
            )
        if (f.frame, f.view) in seen:
            raise CaptureError(f"{where} is there twice; expected one image of each frame and view")
        seen.add((f.frame, f.view))
        for name in (f.subject, f.sequence, f.view):
            if name in unsafe:
                raise CaptureError(
                    f"the name {name[:80]!r} of {where[:200]!r}: expected names of subjects, sequences and views of 1 "
                    "to 200 bytes, other than . and .., without /, \\, a drive and control characters: rename it"
                )
        size = jpeg_size(f.image)
        if size != (image_size, image_size):
            got = "something else (or a JPEG cut short)" if size is None else f"{size[0]}×{size[1]}"
            raise CaptureError(
                f"the image of {where}: expected a JPEG of {image_size}×{image_size} pixels, got {got}; "
                "crop and scale every image to the image_size of the capture"
            )
        if f.pose is not None and (f.pose.shape != (17, 3) or not np.isfinite(f.pose).all()):
            raise CaptureError(
                f"the pose of {where}: expected 17×3 finite millimetres, got shape {f.pose.shape}"
                + ("" if np.isfinite(f.pose).all() else " with values that are not finite")
                + "; leave the pose out (None) if there is no label"
            )

    def column(values: list[Any], count: int) -> Any:
        rows = np.zeros((len(values), count), np.float32)
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                row[:] = np.reshape(value, count)
        unknown = pa.array([value is None for value in values])
        return pa.FixedSizeListArray.from_arrays(rows.ravel(), type=_floats(count), mask=unknown)

    heading = [None if f.pose is None else _has_heading(f.pose) for f in frames]
    cameras = [f.camera for f in frames]
    columns = [
        pa.array([f.subject for f in frames], pa.string()),
        pa.array([f.sequence for f in frames], pa.string()),
        pa.array([f.action for f in frames], pa.string()),
        pa.array([f.frame for f in frames], pa.int32()),
        pa.array([f.time for f in frames], pa.float64()),
        pa.array([f.view for f in frames], pa.string()),
        pa.array([f.image for f in frames], pa.binary()),
        column([f.pose for f in frames], 51),
        pa.array(heading, pa.bool_()),
        column([f.box for f in frames], 4),
        column([c and c.rotation for c in cameras], 9),
        column([c and c.translation for c in cameras], 3),
        column([c and c.intrinsics for c in cameras], 9),
        pa.array([f.image_number for f in frames], pa.int64()),
    ]
    return pa.table(columns, schema=SCHEMA)


def _has_heading(pose: Float[np.ndarray, "17 3"]) -> bool:
    return bool(heading_valid(torch.from_numpy(np.ascontiguousarray(pose))))


def list_column_values(column: Any) -> Float32[np.ndarray, "rows numbers"]:
    """Copy a column of fixed-size lists of float32 to a matrix; NaN in the rows where the column is null."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    count = array.type.list_size
    flat = array.values.to_numpy(zero_copy_only=False)
    rows: Float32[np.ndarray, "rows numbers"] = flat.reshape(-1, count)[array.offset : array.offset + len(array)].copy()
    rows[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
    return rows
