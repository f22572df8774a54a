"""Writing the cameras of a finished capture, whose images and labels stay as they are."""

from collections.abc import Mapping

import lance
import numpy as np
import pyarrow as pa

from mcss.data.cameras import Camera
from mcss.data.capture import Capture
from mcss.data.schema import SCHEMA
from mcss.data.storage import FINGERPRINT, WritingLock, fingerprint_of, open_table, table_uri
from mcss.errors import CaptureError
from mcss.progress import NO_PROGRESS, Progress

_NAMES = ("subject", "sequence", "view")
_COLUMNS = ("camera_rotation", "camera_translation", "camera_intrinsics")


def images_with_camera(capture: Capture) -> int:
    """How many images of a capture have a camera."""
    rotation = capture.cameras(np.arange(len(capture), dtype=np.int64)).rotation
    return int(np.isfinite(rotation).all(axis=(1, 2)).sum())


def write_cameras(
    capture: Capture,
    cameras: Mapping[tuple[str, str], Mapping[str, Camera]],
    progress: Progress = NO_PROGRESS,
) -> Capture:
    """Give the images of some parts their cameras; those of views without one lose theirs.

    The cameras are added as a new version of the table: a kill leaves the old one or the new one. Other programs that
    have the capture open go on with the old one.

    Args:
        capture: The capture.
        cameras: By (subject, sequence), the camera of each view, in one room for all. Other parts stay as they are.
        progress: Notified while the fingerprint is computed.

    Raises:
        CaptureError: The capture cannot be written.
    """
    lock = WritingLock.take(capture.uri)
    uri = table_uri(capture.uri, "frames")
    dataset = open_table(uri)
    changed, fields = [], []
    try:
        for fragment in dataset.get_fragments():
            rows = fragment.to_table(columns=list(_NAMES), with_row_id=True)
            names = list(zip(*(rows[name].to_pylist() for name in _NAMES), strict=True))
            found = [cameras[subject, seq].get(view) for subject, seq, view in names if (subject, seq) in cameras]
            if not found:
                continue
            rows = rows.filter(pa.array([(subject, seq) in cameras for subject, seq, _ in names]))
            values = {
                "camera_rotation": [None if c is None else c.rotation for c in found],
                "camera_translation": [None if c is None else c.translation for c in found],
                "camera_intrinsics": [None if c is None else c.intrinsics for c in found],
            }
            columns = {"_rowid": rows["_rowid"].combine_chunks()}
            for name in _COLUMNS:
                kind = SCHEMA.field(name).type
                flat = [None if v is None else np.asarray(v, np.float32).reshape(kind.list_size) for v in values[name]]
                columns[name] = pa.array(flat, kind)
            metadata, fields = fragment.update_columns(pa.table(columns))
            changed.append(metadata)
        update = lance.LanceOperation.Update(updated_fragments=changed, fields_modified=fields)
        # Nobody opens a detached version: the fingerprint takes minutes, and is there before the cameras are.
        detached = lance.LanceDataset.commit(uri, update, read_version=dataset.version, detached=True)
        backgrounds = open_table(table_uri(capture.uri, "backgrounds"))
        with progress.task("Checking the capture", dataset.count_rows()) as task:
            fingerprint = fingerprint_of(capture.info, detached, backgrounds, task)
        dataset = lance.LanceDataset.commit(uri, update, read_version=dataset.version)
        dataset.update_schema_metadata({FINGERPRINT: fingerprint})
    except OSError as error:
        raise CaptureError(
            f"the cameras could not be written to {capture.uri}: {error}. Make room (or correct the access rights) and "
            "run the same command again"
        ) from error
    finally:
        del lock
    return Capture.open(capture.uri)
