"""From a capture and a model to an index: the embeddings and poses of all its images."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import PoseIndexError
from mcss.evaluation.predictions import target_poses
from mcss.models.model import Model, Poses
from mcss.progress import NO_PROGRESS, Progress
from mcss.search.entries import Entries, Origin, quoted
from mcss.search.index import PoseIndex

_BATCH = 64
_KEPT_EVERY = 1024
"""Images after which what was embedded is added to the index, to be there after any stop."""


@dataclass(frozen=True)
class Indexed:
    """What indexing a capture did."""

    added: int
    kept: int
    """Images that an earlier call had added."""
    removed: int
    """Images of a capture that was at the same place before, and is no longer what it was."""
    partitions: int
    """Of the search structure; 0 where the index is small enough to be searched in full."""


def origin_of(model: Model) -> Origin:
    """What an index keeps of the model that makes its embeddings; parts beside the network do not count."""
    digest = hashlib.sha256()
    for key, value in sorted(model.network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return Origin(digest.hexdigest(), model.dim, str(model.source.absolute()))


def indexed_capture(fingerprint: str, place: str, uri: str) -> Capture:
    """Open a capture of the index at `uri`.

    Args:
        fingerprint: Of the capture when it was indexed.
        place: Where it should be.
        uri: Of the index, for messages.

    Raises:
        CaptureError: There is none.
        PoseIndexError: It is no longer what was indexed.
    """
    capture = Capture.open(place)
    if capture.fingerprint != fingerprint:
        raise PoseIndexError(
            f"the capture at {place} has changed since it was indexed: take it up again with "
            f"`mcss index {place} -o {uri}`"
        )
    return capture


def index_capture(capture: Capture, model: Model, uri: str, progress: Progress = NO_PROGRESS) -> Indexed:
    """Add every image of a capture to the index at `uri`, which is begun if there is none.

    It can be stopped at any time and repeated: what was added stays, unless the capture has been replaced by another.

    Raises:
        PoseIndexError: The index belongs to another model, or cannot be written.
        CaptureError: An image that cannot be read.
    """
    index = PoseIndex.create(uri, origin_of(model))
    place = capture.uri if "://" in capture.uri else str(Path(capture.uri).absolute())
    former = [name for name, at in index.captures().items() if at == place and name != capture.fingerprint]
    indexed = _indexed_rows(index, capture)
    if indexed is None:
        former.append(capture.fingerprint)
    removed = sum(index.forget_capture(name) for name in former)
    index.remember_capture(capture.fingerprint, place)
    instants = capture.instants()
    instant, view = np.nonzero(instants.rows >= 0)
    there = np.isin(instants.rows[instant, view], [] if indexed is None else indexed)
    instant, view = instant[~there], view[~there]
    true = np.asarray(target_poses(instants).numpy(), np.float32)
    with progress.task("Indexing images", len(there), int(there.sum())) as task:
        for start in range(0, len(instant), _KEPT_EVERY):
            own, seen = instant[start : start + _KEPT_EVERY], view[start : start + _KEPT_EVERY]
            rows = instants.rows[own, seen]
            parts = []
            for begin in range(0, len(rows), _BATCH):
                crops = capture.decode(rows[begin : begin + _BATCH], model.image_size)
                parts.append(model.predict_crops(list(crops)))
                task.advance(len(crops))
            index.add(_entries(capture, instants, own, seen, Poses.joined(parts), true[own]))
    waiting = len(instant) or index.structured() < index.count()
    partitions = index.structure() if waiting else 0
    return Indexed(added=len(instant), kept=int(there.sum()), removed=removed, partitions=partitions)


def _indexed_rows(index: PoseIndex, capture: Capture) -> Int64[np.ndarray, " n"] | None:
    """The rows of a capture that are in the index; None if they show something else now.

    A capture that is written anew, by more processes say, has the same fingerprint with its parts in another order.
    """
    columns = ["row", "subject", "sequence", "frame", "view"]
    there = index.table(columns, f"capture = {quoted(capture.fingerprint)}")
    rows = np.asarray(there["row"].to_numpy(), np.int64)
    instants = capture.instants()
    instant, view = np.nonzero(instants.rows >= 0)
    place = np.zeros(len(capture), np.int64)
    place[instants.rows[instant, view]] = np.arange(len(instant))
    instant, view = instant[place[rows]], view[place[rows]]
    now = {
        "subject": pa.array(instants.subjects).take(pa.array(instants.subject[instant])),
        "sequence": pa.array(instants.sequences).take(pa.array(instants.sequence[instant])),
        "frame": pa.array(instants.frame[instant]),
        "view": pa.array(instants.views).take(pa.array(view)),
    }
    same = all(there[name].combine_chunks().equals(column) for name, column in now.items())
    return rows if same else None


def _entries(
    capture: Capture,
    instants: Instants,
    instant: Int64[np.ndarray, " n"],
    view: Int64[np.ndarray, " n"],
    poses: Poses,
    true: Float32[np.ndarray, "n 17 3"],
) -> Entries:
    return Entries(
        capture=capture.fingerprint,
        row=instants.rows[instant, view],
        subject=[instants.subjects[i] for i in instants.subject[instant]],
        sequence=[instants.sequences[i] for i in instants.sequence[instant]],
        frame=instants.frame[instant],
        time=instants.time[instant],
        view=[instants.views[i] for i in view],
        vector=poses.embedding,
        predicted=poses.pose,
        true=true,
    )
