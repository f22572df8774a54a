"""Captures: synchronised images of people from several views, in one Lance table.

A capture is a folder, or a prefix of an object store, that holds ``frames.lance`` (a row per subject, sequence, frame
and view; see `mcss.data.schema.SCHEMA`) and, if known, ``backgrounds.lance`` (an image per camera without a person).
It is written part by part by `mcss.data.writer`, and writing can be continued after any stop.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int, Int64, UInt8

from mcss.data.cameras import Cameras, are_rotations, in_crops
from mcss.data.instants import INSTANT_COLUMNS, Instants, instants_of
from mcss.data.schema import CaptureInfo, Splits, list_column_values, unsafe_name
from mcss.data.storage import (
    FINGERPRINT,
    capture_address,
    checked_metadata,
    distinct_pairs,
    metadata_of,
    open_table,
    reading_capture,
    table_uri,
)
from mcss.errors import CaptureError
from mcss.images import decode_jpeg


class Capture:
    """A finished capture, opened for reading. Do not use it while it is being written."""

    def __init__(self, uri: str, dataset: Any) -> None:
        self.uri = uri
        self._dataset = dataset
        metadata = metadata_of(dataset)
        with self._reading():
            self.info = CaptureInfo.from_metadata(metadata)
        self.fingerprint = metadata[FINGERPRINT]
        """Identifies all rows and splits, however the parts were ordered when they were written. If settings determine
        the content (`CaptureInfo.computed`) it identifies these and which rows there are: the same on every machine."""

    @classmethod
    def open(cls, uri: str | Path) -> "Capture":
        """Open the capture at `uri`: a folder or any object-store address that Lance accepts.

        Raises:
            CaptureError: There is no capture, or it is unfinished, was written by a newer mcss, or lacks columns.
        """
        address = capture_address(uri)
        dataset = open_table(table_uri(address, "frames"))
        if dataset is None:
            raise CaptureError(
                f"no capture at {address}: expected the table {table_uri(address, 'frames')}; check the path, "
                "or make one with `mcss synthetic build` or `mcss import videos`"
            )
        metadata = checked_metadata(address, dataset)
        if FINGERPRINT not in metadata:
            parts = len(distinct_pairs(dataset, "subject", "sequence"))
            raise CaptureError(
                f"the capture at {address} is unfinished ({parts} sequences so far): run the command "
                "that was writing it again with the same settings; it continues where it stopped"
            )
        return cls(address, dataset)

    def __len__(self) -> int:
        with self._reading():
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
        with self._reading():
            instants = instants_of(self._dataset.to_table(columns=list(INSTANT_COLUMNS)), self.info.outfits)
        for name in (*instants.subjects, *instants.sequences, *instants.views):
            if unsafe_name(name):
                raise CaptureError(
                    f"the capture at {self.uri} has the name {name[:80]!r}, which could lead out of the folder of "
                    "results: it was made by another program; make it again with names that are not empty and have "
                    "no / and \\"
                )
        return instants

    def instants(self, split: str | None = None) -> Instants:
        """All instants, or those of one split.

        Raises:
            CaptureError: There is no such split, or it has no instants.
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
        """The JPEG bytes of the given rows, in their order."""
        if len(rows) == 0:
            return []
        images: list[bytes] = self._take(rows, ["image"])["image"].to_pylist()
        return images

    def decode(
        self, rows: Int[np.ndarray, " n"], size: int | None = None, threads: int = 2
    ) -> UInt8[np.ndarray, "n size size 3"]:
        """Decode the images of the given rows as RGB, scaled to `size` pixels if that is not their own size.

        Raises:
            CaptureError: An image is broken; the message names its subject, sequence, frame and view.
        """
        size = size or self.info.image_size
        pixels = np.empty((len(rows), size, size, 3), np.uint8)
        images = self.images(rows)

        def fill(i: int) -> None:
            try:
                image = decode_jpeg(images[i])
            except ValueError as error:
                raise CaptureError(
                    f"the image of {self.describe(int(rows[i]))} in {self.uri} is broken ({error}): "
                    "restore the capture from a copy or make it again"
                ) from error
            if image.shape[:2] != (size, size):
                shrinks = image.shape[0] > size
                image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
            pixels[i] = image

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(len(rows)), chunksize=16))
        return pixels

    def describe(self, row: int) -> str:
        """Name a row in messages, as ``subject/sequence frame f view v``."""
        r = self._take(np.array([row]), ["subject", "sequence", "frame", "view"]).to_pylist()[0]
        return f"{r['subject']}/{r['sequence']} frame {r['frame']} view {r['view']}"

    def boxes(self, rows: Int[np.ndarray, " n"]) -> Float32[np.ndarray, "n 4"]:
        """Crop boxes (x0, y0, x1, y1) of the given rows, in pixels of the source images."""
        return list_column_values(self._take(rows, ["box"])["box"])

    def image_numbers(self, rows: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Numbers of the source images of the given rows: in the video of the view, from 0, or in the images' names."""
        stated = "image_number" in self._dataset.schema.names
        table = self._take(rows, ["frame", "image_number"] if stated else ["frame"])
        frames = table["frame"].cast(pa.int64())
        numbers = pc.coalesce(table["image_number"], frames) if stated else frames
        return np.asarray(numbers.to_numpy(), np.int64)

    def cameras(self, rows: Int[np.ndarray, " n"]) -> Cameras:
        """The cameras that took the given rows; NaN for those that are not known."""
        table = self._take(rows, ["camera_rotation", "camera_translation", "camera_intrinsics"])
        return Cameras(
            rotation=list_column_values(table["camera_rotation"]).reshape(-1, 3, 3),
            translation=list_column_values(table["camera_translation"]),
            intrinsics=list_column_values(table["camera_intrinsics"]).reshape(-1, 3, 3),
        )

    def crop_rotations(self, rows: Int[np.ndarray, " n"], purpose: str) -> Float32[np.ndarray, "n 3 3"]:
        """The rotations from the world to the crops of the given rows, whose cameras must be known.

        A crop's axes are the camera's, turned to the crop's viewing ray; see `Cameras.crop_rotations`.

        Args:
            rows: Row numbers.
            purpose: What needs the rotations, for the message.

        Raises:
            CaptureError: The camera of an image is not known, or its matrix is not a rotation.
        """
        cameras = self.cameras(rows)
        unknown = np.isnan(cameras.rotation).any(axis=(1, 2))
        if unknown.any():
            raise CaptureError(
                f"{purpose} needs camera rotations, and {int(unknown.sum()):,} of {len(rows):,} images of the "
                f"capture at {self.uri} have none ({self.describe(int(rows[unknown][0]))} is the first); import the "
                "footage with calibrated cameras, or train mcss, which needs none"
            )
        improper = ~are_rotations(cameras.rotation)
        if improper.any():
            raise CaptureError(
                f"the camera of {self.describe(int(rows[improper][0]))} in {self.uri} has a matrix that is not a "
                "rotation; correct the calibration and import again"
            )
        return cameras.crop_rotations(self.boxes(rows))

    def joints_in_crops(
        self, rows: Int[np.ndarray, " n"], pose: Float32[np.ndarray, "n 17 3"]
    ) -> Float32[np.ndarray, "n 17 2"]:
        """Where the joints of world poses (mm) lie in the images of the given rows: 0 to 1 is inside, see `in_crops`.

        NaN without pose or camera, and for joints behind the camera.
        """
        return in_crops(self.cameras(rows).project(pose), self.boxes(rows))

    @cached_property
    def backgrounds(self) -> dict[tuple[str, str], bytes]:
        """JPEG of each (stage, view) without a person, if known; see `CaptureWriter.add_backgrounds`."""
        dataset = open_table(table_uri(self.uri, "backgrounds"))
        with self._reading():
            rows = [] if dataset is None else dataset.to_table().to_pylist()
        return {(r["stage"], r["view"]): r["image"] for r in rows}

    def background(self, view: str, subject: str = "", sequence: str = "") -> bytes | None:
        """The most specific background of a view: that of the sequence, else of the subject, else of the capture."""
        stages = (f"{subject}/{sequence}", subject, "")
        return next((self.backgrounds[s, view] for s in stages if (s, view) in self.backgrounds), None)

    def _take(self, rows: Int[np.ndarray, " n"], columns: list[str]) -> Any:
        count = len(self)
        if len(rows) and (rows.min() < 0 or rows.max() >= count):
            raise ValueError(
                f"rows: expected numbers in 0..{count - 1}, got {rows.min()}..{rows.max()}; "
                "-1 in Instants.rows stands for a missing view"
            )
        with self._reading():
            return self._dataset.take(pa.array(rows, pa.int64()), columns=columns)

    def _reading(self) -> AbstractContextManager[None]:
        """Turn whatever damaged files of the table lead to into the capture's error."""
        return reading_capture(self.uri)
