"""Captures: synchronised images of people from several views, in one Lance table.

A capture is a folder, or a prefix of an object store, that holds ``frames.lance`` (a row per subject,
sequence, frame and view; see `mcss.data.schema.SCHEMA`) and, where known, ``backgrounds.lance`` (an image per camera
without a person). It is written part by part, a part being one sequence of one subject, and may be carried on
after any stop.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import lance
import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int, UInt8

from mcss.data.fingerprints import fingerprint_of
from mcss.data.instants import INSTANT_COLUMNS, Instants, instants_of
from mcss.data.schema import BACKGROUNDS, SCHEMA, Camera, CaptureInfo, Frame, Selector, Splits, frames_table, numbers
from mcss.data.storage import checked_metadata, commit_pieces, metadata_of, open_table, place_of, sweep, table_uri
from mcss.errors import CaptureError
from mcss.images import decode_jpeg, jpeg_size
from mcss.progress import NO_PROGRESS, Progress

__all__ = [
    "Camera",
    "Capture",
    "CaptureInfo",
    "CaptureWriter",
    "Frame",
    "Instants",
    "Selector",
]

_FINGERPRINT = "mcss.fingerprint"


class Capture:
    """A finished capture, opened for reading. Not safe to use while it is being written."""

    def __init__(self, uri: str, dataset: Any) -> None:
        self.uri = uri
        self._dataset = dataset
        metadata = metadata_of(dataset)
        self.info = CaptureInfo.from_metadata(metadata)
        self.fingerprint = metadata[_FINGERPRINT]
        """Of all rows and splits; the same however the parts were ordered when written. Where settings decide the
        content (`CaptureInfo.computed`) it is of them and of which rows there are: the same on every machine."""

    @classmethod
    def open(cls, uri: str | Path) -> "Capture":
        """Open the capture at `uri`: a folder or any object-store address that Lance accepts.

        Raises:
            CaptureError: There is none, it is unfinished, was written by a newer mcss, or lacks columns.
        """
        place = place_of(uri)
        dataset = open_table(table_uri(place, "frames"))
        if dataset is None:
            raise CaptureError(
                f"no capture at {place}: expected the table {table_uri(place, 'frames')}; check the path, "
                "or make one with `mcss synthetic build` or `mcss import videos`"
            )
        metadata = checked_metadata(place, dataset)
        if _FINGERPRINT not in metadata:
            parts = len(_pairs(dataset, "subject", "sequence"))
            raise CaptureError(
                f"the capture at {place} is unfinished ({parts} sequences so far): run the command "
                "that was writing it again with the same settings, it carries on where it stopped"
            )
        return cls(place, dataset)

    def __len__(self) -> int:
        return int(self._dataset.count_rows())

    @property
    def splits(self) -> Splits:
        """The named splits."""
        return self.info.splits

    @property
    def views(self) -> tuple[str, ...]:
        """Names of all views, in the order of the columns of `Instants.rows`."""
        return self._instants.views

    @cached_property
    def _instants(self) -> Instants:
        try:
            return instants_of(self._dataset.to_table(columns=list(INSTANT_COLUMNS)), self.info.looks)
        except OSError as error:
            raise CaptureError(f"the capture at {self.uri} cannot be read: {error}") from error

    def instants(self, split: str | None = None) -> Instants:
        """All instants, or those of one split.

        Raises:
            CaptureError: No such split, or one without a single instant.
        """
        if split is None:
            return self._instants
        if split not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise CaptureError(f"the capture at {self.uri} has no split {split!r}; it has: {known}")
        chosen = self._instants.take(self._instants.selected(self.splits[split]))
        if not len(chosen):
            raise CaptureError(
                f"the split {split!r} of the capture at {self.uri} has no instants: "
                f"{list(self.splits[split])} picks none of the subjects "
                f"{', '.join(self._instants.subjects)}; choose another split"
            )
        return chosen

    def images(self, rows: Int[np.ndarray, " n"]) -> list[bytes]:
        """The JPEG bytes of some rows, in their order."""
        if len(rows) == 0:
            return []
        images: list[bytes] = self._take(rows, ["image"])["image"].to_pylist()
        return images

    def decode(
        self, rows: Int[np.ndarray, " n"], size: int | None = None, threads: int = 2
    ) -> UInt8[np.ndarray, "n size size 3"]:
        """The images of some rows as RGB, scaled to `size` pixels if that is not the capture's own.

        Raises:
            CaptureError: A broken image, named by subject, sequence, frame and view.
        """
        size = size or self.info.image_size
        pixels = np.empty((len(rows), size, size, 3), np.uint8)
        images = self.images(rows)

        def fill(place: int) -> None:
            try:
                image = decode_jpeg(images[place])
            except ValueError as error:
                raise CaptureError(
                    f"the image of {self.describe(int(rows[place]))} in {self.uri} is broken ({error}): "
                    "restore the capture from a copy or make it again"
                ) from error
            if image.shape[:2] != (size, size):
                shrinks = image.shape[0] > size
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            pixels[place] = image

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(len(rows)), chunksize=16))
        return pixels

    def describe(self, row: int) -> str:
        """``subject/sequence frame f view v`` of a row, for messages."""
        r = self._take(np.array([row]), ["subject", "sequence", "frame", "view"]).to_pylist()[0]
        return f"{r['subject']}/{r['sequence']} frame {r['frame']} view {r['view']}"

    def boxes(self, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n 4"]:
        """Crop boxes (x0, y0, x1, y1) in pixels of the source images."""
        return numbers(self._take(rows, ["box"])["box"])

    def cameras(self, rows: Int[np.ndarray, " n"]) -> "Cameras":
        """The cameras that took some rows; NaN where unknown."""
        table = self._take(rows, ["camera_rotation", "camera_translation", "camera_intrinsics"])
        return Cameras(
            rotation=numbers(table["camera_rotation"]).reshape(-1, 3, 3),
            translation=numbers(table["camera_translation"]),
            intrinsics=numbers(table["camera_intrinsics"]).reshape(-1, 3, 3),
        )

    def rotations(self, rows: Int[np.ndarray, " n"], purpose: str) -> Float32[np.ndarray, "n 3 3"]:
        """The world-to-camera rotations of some rows, for those who cannot do without.

        Args:
            rows: Row numbers.
            purpose: What they are needed for, for the message.

        Raises:
            CaptureError: An image whose camera is unknown, or has a matrix that is no rotation.
        """
        found = self.cameras(rows).rotation
        unknown = np.isnan(found).any(axis=(1, 2))
        if unknown.any():
            raise CaptureError(
                f"{purpose} needs camera rotations, and {int(unknown.sum()):,} of {len(rows):,} images of the "
                f"capture at {self.uri} have none ({self.describe(int(rows[unknown][0]))} is the first); import the "
                "footage with calibrated cameras, or train mcss, which needs none"
            )
        wrong = (np.abs(found @ found.mT - np.eye(3)) > 1e-3).any(axis=(1, 2)) | (np.linalg.det(found) < 0)
        if wrong.any():
            raise CaptureError(
                f"the camera of {self.describe(int(rows[wrong][0]))} in {self.uri} has a matrix that is no rotation; "
                "correct the calibration and import again"
            )
        return found

    @cached_property
    def backgrounds(self) -> dict[tuple[str, str], bytes]:
        """JPEG of each (stage, view) without a person, where known; see `CaptureWriter.add_backgrounds`."""
        dataset = open_table(table_uri(self.uri, "backgrounds"))
        rows = [] if dataset is None else dataset.to_table().to_pylist()
        return {(r["stage"], r["view"]): r["image"] for r in rows}

    def background(self, view: str, subject: str = "", sequence: str = "") -> bytes | None:
        """The background that belongs to a view of a sequence: the most particular one that there is."""
        stages = (f"{subject}/{sequence}", subject, "")
        return next((self.backgrounds[s, view] for s in stages if (s, view) in self.backgrounds), None)

    def _take(self, rows: Int[np.ndarray, " n"], columns: list[str]) -> Any:
        count = len(self)
        if len(rows) and (rows.min() < 0 or rows.max() >= count):
            raise ValueError(
                f"rows must lie in 0..{count - 1}, came {rows.min()}..{rows.max()}; "
                "-1 in Instants.rows stands for a missing view"
            )
        try:
            return self._dataset.take(pa.array(rows, pa.int64()), columns=columns)
        except OSError as error:
            raise CaptureError(f"the capture at {self.uri} cannot be read: {error}") from error


@dataclass(frozen=True, eq=False)
class Cameras:
    """Several cameras, as in `Camera`."""

    rotation: Float32[np.ndarray, "n 3 3"]
    translation: Float32[np.ndarray, "n 3"]
    intrinsics: Float32[np.ndarray, "n 3 3"]


class CaptureWriter:
    """Writes a capture part by part; what was appended stays, whatever happens afterwards."""

    def __init__(self, uri: str, info: CaptureInfo, dataset: Any) -> None:
        self.uri = uri
        self.info = info
        self._dataset = dataset
        self._done = _pairs(dataset, "subject", "sequence")
        self._backgrounds = _pairs(open_table(table_uri(uri, "backgrounds")), "stage", "view")

    @classmethod
    def open(cls, uri: str | Path, *, info: CaptureInfo) -> "CaptureWriter":
        """Begin a capture, or carry on one that was begun with the same `info` (finished or not).

        Raises:
            CaptureError: One is there that was begun with other settings, or the place cannot be written.
        """
        place = place_of(uri)
        dataset = open_table(table_uri(place, "frames"))
        if dataset is None:
            schema = SCHEMA.with_metadata(info.metadata())
            try:
                dataset = lance.write_dataset(schema.empty_table(), table_uri(place, "frames"), schema=schema)
            except (OSError, ValueError) as error:
                raise CaptureError(f"no capture can be written at {place}: {error}") from error
        else:
            there = CaptureInfo.from_metadata(checked_metadata(place, dataset))
            different = there.differences(info)
            if different and not dataset.count_rows():  # nothing is lost when it is begun anew
                schema = SCHEMA.with_metadata(info.metadata())
                dataset = lance.write_dataset(schema.empty_table(), dataset, schema=schema, mode="overwrite")
            elif different and info.grown_from(there):
                dataset.update_schema_metadata({**info.metadata(), _FINGERPRINT: None})
            elif different and there.grown_from(info):  # recordings of it are no longer to be read
                info = there
            elif different:
                raise CaptureError(
                    f"the capture at {place} was begun with other settings ({'; '.join(different)}): "
                    "use the same ones to carry it on, or write to another place"
                )
        return cls(place, info, dataset)

    def done(self) -> frozenset[tuple[str, str]]:
        """The (subject, sequence) parts that are in the table."""
        return self._done

    def append(self, frames: Sequence[Frame]) -> None:
        """Add one part: all frames and views of a sequence of a subject. All of it is written, or nothing.

        Raises:
            CaptureError: The part is there already, is inconsistent, or cannot be written (a full disk).
        """
        if not frames:
            raise CaptureError("a part needs at least one frame, came none; leave an empty sequence out")
        table = frames_table(frames, self.info.image_size)
        part = (frames[0].subject, frames[0].sequence)
        self._begin(part)
        self._dataset = self._written(f"{part[0]}/{part[1]}", table, self._dataset)
        self._done |= {part}

    def append_pieces(self, subject: str, sequence: str, pieces: Sequence[Any]) -> None:
        """Add one part that `mcss.data.storage.write_pieces` wrote, in this process or another: all of it or nothing.

        Raises:
            CaptureError: The part is there already, or cannot be written.
        """
        self._begin((subject, sequence))
        try:
            self._dataset = commit_pieces(self.uri, self._dataset, list(pieces))
        except OSError as error:
            raise self._unwritten(f"{subject}/{sequence}", error) from error
        self._done |= {(subject, sequence)}

    def sweep(self) -> None:
        """Remove what parts that were never finished left on the disk. Not while any is being written."""
        sweep(self._dataset)

    def _begin(self, part: tuple[str, str]) -> None:
        if part in self._done:
            raise CaptureError(f"{part[0]}/{part[1]} is in the capture at {self.uri} already; skip the parts in done()")
        if _FINGERPRINT in metadata_of(self._dataset):  # it grows, and so is unfinished again
            self._dataset.update_schema_metadata({_FINGERPRINT: None})

    def add_backgrounds(self, images: Mapping[str, bytes], stage: str = "") -> None:
        """Add what cameras see without a person (the whole source images). What is there already is left alone.

        Args:
            images: JPEG by view.
            stage: What they belong to: all of the capture (empty), a subject, or ``subject/sequence``.
        """
        new = {view: image for view, image in images.items() if (stage, view) not in self._backgrounds}
        if not new:
            return
        for view, image in new.items():
            if jpeg_size(image) is None:
                raise CaptureError(f"the background of view {view} (stage {stage!r}) is no JPEG or a JPEG cut short")
        table = pa.table([[stage] * len(new), list(new), list(new.values())], schema=BACKGROUNDS)
        uri = table_uri(self.uri, "backgrounds")
        self._written(f"the backgrounds of stage {stage!r}", table, open_table(uri) or uri)
        self._backgrounds |= {(stage, view) for view in new}

    def finish(self, progress: Progress = NO_PROGRESS) -> Capture:
        """Seal the capture with its fingerprint. Parts may still be added; then it is finished anew."""
        count = self._dataset.count_rows()
        if not count:
            raise CaptureError(f"the capture at {self.uri} has no frames yet; append at least one sequence")
        backgrounds = open_table(table_uri(self.uri, "backgrounds"))
        with progress.task("Checking the capture", count) as task:
            fingerprint = fingerprint_of(self.info, self._dataset, backgrounds, task)
        try:
            self._dataset.update_schema_metadata({_FINGERPRINT: fingerprint})
        except OSError as error:
            raise CaptureError(
                f"the capture at {self.uri} could not be finished: {error}; all its parts are written: "
                "make room and run the same command again"
            ) from error
        return Capture.open(self.uri)

    def _written(self, what: str, table: Any, target: Any) -> Any:
        try:
            return lance.write_dataset(table, target, mode="create" if isinstance(target, str) else "append")
        except OSError as error:
            raise self._unwritten(what, error) from error

    def _unwritten(self, what: str, error: OSError) -> CaptureError:
        return CaptureError(
            f"{what} could not be written to {self.uri}: {error}. What was written before stays: make "
            "room (or mend access) and run the same command again"
        )


def _pairs(dataset: Any, first: str, second: str) -> frozenset[tuple[str, str]]:
    """The values of two columns that stand in one row; none without a table."""
    if dataset is None:
        return frozenset()
    table = dataset.to_table(columns=[first, second]).group_by([first, second]).aggregate([])
    return frozenset(zip(table[first].to_pylist(), table[second].to_pylist(), strict=True))
