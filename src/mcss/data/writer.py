"""Writing a capture part by part; a part is one sequence of one subject."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from mcss.data.capture import Capture
from mcss.data.schema import BACKGROUNDS, SCHEMA, CaptureInfo, Frame, frames_table
from mcss.data.storage import (
    FINGERPRINT,
    WritingLock,
    capture_address,
    checked_metadata,
    commit_pieces,
    distinct_pairs,
    fingerprint_of,
    metadata_of,
    not_written,
    open_table,
    reading_capture,
    sweep,
    table_uri,
    why_not_written,
    write_pieces,
)
from mcss.errors import CaptureError, damage_as
from mcss.images import jpeg_size
from mcss.progress import NO_PROGRESS, Progress

_MOST_NAMED = 6
"""Differences from an earlier capture that a message names."""


class CaptureWriter:
    """Writes a capture part by part. Parts that were appended stay, whatever happens afterwards."""

    def __init__(self, uri: str, info: CaptureInfo, dataset: Any, lock: WritingLock | None) -> None:
        self.uri = uri
        self._lock = lock
        self.info = info
        self._dataset = dataset
        self._done = distinct_pairs(dataset, "subject", "sequence")
        self._backgrounds = distinct_pairs(open_table(table_uri(uri, "backgrounds")), "stage", "view")

    @classmethod
    def open(cls, uri: str | Path, *, info: CaptureInfo) -> "CaptureWriter":
        """Begin a capture, or continue one that was begun with the same `info` (finished or not).

        Raises:
            CaptureError: A capture that was begun with other settings is there, another process is writing it, or the
                place cannot be written.
        """
        address = capture_address(uri)
        lock = WritingLock.take(address)
        dataset = open_table(table_uri(address, "frames"))
        if dataset is None:
            schema = SCHEMA.with_metadata(info.metadata())
            try:
                dataset = lance.write_dataset(schema.empty_table(), table_uri(address, "frames"), schema=schema)
            except (OSError, ValueError, RuntimeError) as error:
                raise CaptureError(f"no capture can be written at {address} ({why_not_written(error)})") from error
        else:
            existing = CaptureInfo.from_metadata(checked_metadata(address, dataset))
            different = existing.differences(info)
            if different and not dataset.count_rows():  # there is nothing to lose
                schema = SCHEMA.with_metadata(info.metadata())
                dataset = lance.write_dataset(schema.empty_table(), dataset, schema=schema, mode="overwrite")
            elif different and info.grown_from(existing):
                dataset.update_schema_metadata({**info.metadata(), FINGERPRINT: None})
            elif different and existing.grown_from(info):  # some of its recordings can no longer be read
                info = existing
            elif different:
                more = f"; and {len(different) - _MOST_NAMED} more" if len(different) > _MOST_NAMED else ""
                raise CaptureError(
                    f"the capture at {address} was begun with other settings or files "
                    f"({'; '.join(different[:_MOST_NAMED])}{more}): import into a new folder, or use the same ones to "
                    "continue it"
                )
        return cls(address, info, dataset, lock)

    def done(self) -> frozenset[tuple[str, str]]:
        """The (subject, sequence) parts that are in the table."""
        return self._done

    def append(self, frames: Sequence[Frame]) -> None:
        """Add one part, with all its frames and views: all of it is written, or nothing.

        Raises:
            CaptureError: The part is there already, is inconsistent, or cannot be written, as when the disk is full.
        """
        if not frames:
            raise CaptureError("a part needs at least one frame, got none; leave an empty sequence out")
        table = frames_table(frames, self.info.image_size)
        part = (frames[0].subject, frames[0].sequence)
        self._begin(part)
        self._commit(part, write_pieces(self.uri, table, f"{part[0]}/{part[1]}"))

    def append_pieces(self, subject: str, sequence: str, pieces: Sequence[Any]) -> None:
        """Add one part that `mcss.data.storage.write_pieces` wrote, in this process or another: all of it or nothing.

        Raises:
            CaptureError: The part is there already, or cannot be written.
        """
        self._begin((subject, sequence))
        self._commit((subject, sequence), pieces)

    def _commit(self, part: tuple[str, str], pieces: Sequence[Any]) -> None:
        known = self._dataset.version
        try:
            self._dataset = commit_pieces(self.uri, self._dataset, part, list(pieces))
        except (OSError, RuntimeError) as error:
            raise not_written(f"{part[0]}/{part[1]}", self.uri, error) from error
        alone = self._dataset.version == known + 1
        self._done = self._done | {part} if alone else distinct_pairs(self._dataset, "subject", "sequence")

    def sweep(self) -> None:
        """Remove what unfinished parts left on the disk. Do not call this while a part is being written."""
        with damage_as(CaptureError, lambda why: f"what unfinished parts left in {self.uri} cannot be removed ({why})"):
            sweep(self._dataset)

    def add_backgrounds(self, images: Mapping[str, bytes], stage: str = "") -> None:
        """Add what cameras see without a person, as whole source images; backgrounds that are there already stay.

        Args:
            images: JPEG by view.
            stage: What the backgrounds belong to: the whole capture (empty), a subject, or ``subject/sequence``.
        """
        new = {view: image for view, image in images.items() if (stage, view) not in self._backgrounds}
        if not new:
            return
        self._hold()
        for view, image in new.items():
            if jpeg_size(image) is None:
                raise CaptureError(
                    f"the background of view {view} (stage {stage!r}): expected a JPEG, got something else or a JPEG "
                    "cut short"
                )
        table = pa.table([[stage] * len(new), list(new), list(new.values())], schema=BACKGROUNDS)
        uri = table_uri(self.uri, "backgrounds")
        self._write(f"the backgrounds of stage {stage!r}", table, open_table(uri) or uri)
        self._backgrounds |= {(stage, view) for view in new}

    def finish(self, progress: Progress = NO_PROGRESS) -> Capture:
        """Finish the capture by giving it its fingerprint. Parts may be added later; finish it again after that."""
        count = self._dataset.count_rows()
        if not count:
            raise CaptureError(f"the capture at {self.uri} has no frames yet; append at least one sequence")
        backgrounds = open_table(table_uri(self.uri, "backgrounds"))
        with progress.task("Checking the capture", count) as task, reading_capture(self.uri):
            fingerprint = fingerprint_of(self.info, self._dataset, backgrounds, task)
        try:
            self._dataset.update_schema_metadata({FINGERPRINT: fingerprint})
        except (OSError, RuntimeError) as error:
            raise CaptureError(
                f"the capture at {self.uri} could not be finished ({why_not_written(error)}); all its parts are "
                "written: make room and run the same command again"
            ) from error
        self._lock = None
        return Capture.open(self.uri)

    def _hold(self) -> None:
        """Take the lock again if the capture has been finished in between."""
        self._lock = self._lock or WritingLock.take(self.uri)

    def _begin(self, part: tuple[str, str]) -> None:
        if part in self._done:
            raise CaptureError(f"{part[0]}/{part[1]} is in the capture at {self.uri} already; skip the parts in done()")
        self._hold()
        if FINGERPRINT in metadata_of(self._dataset):  # a capture that grows is unfinished again
            self._dataset.update_schema_metadata({FINGERPRINT: None})

    def _write(self, what: str, table: Any, target: Any) -> Any:
        try:
            return lance.write_dataset(table, target, mode="create" if isinstance(target, str) else "append")
        except (OSError, RuntimeError) as error:
            raise not_written(what, self.uri, error) from error
