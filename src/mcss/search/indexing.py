"""Index a capture: compute the embeddings and poses of all its images."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import PoseIndexError
from mcss.evaluation.predictions import target_poses
from mcss.models.model import Model, Poses, load
from mcss.models.shares import SHARE, Reported, Share, Stored, shared_out
from mcss.progress import NO_PROGRESS, Progress
from mcss.search.index import PoseIndex
from mcss.search.index_table import Entries, ModelIdentity, quoted
from mcss.workers import Report, Workers


@dataclass(frozen=True)
class IndexingSummary:
    """What indexing a capture changed."""

    added: int
    kept: int
    """Images that were indexed before."""
    removed: int
    """Images of an earlier capture at the same address, which has been replaced."""
    partitions: int
    """Partitions of the search structure; 0 if the index is small enough to be searched in full."""


@dataclass(frozen=True, eq=False)
class CaptureImages:
    """Images of a capture, each by its instant and view."""

    capture: Capture
    instants: Instants
    instant: Int64[np.ndarray, " n"]
    view: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.instant)

    @classmethod
    def of(cls, capture: Capture) -> "CaptureImages":
        """All images of a capture, in order of instants."""
        instants = capture.instants()
        instant, view = np.nonzero(instants.rows >= 0)
        return cls(capture, instants, instant, view)

    @property
    def rows(self) -> Int64[np.ndarray, " n"]:
        """Rows of the capture."""
        return np.asarray(self.instants.rows[self.instant, self.view], np.int64)

    def take(self, index: np.ndarray | slice) -> "CaptureImages":
        """Select images by position, mask or slice."""
        return CaptureImages(self.capture, self.instants, self.instant[index], self.view[index])

    def entries(self, poses: Poses, true: Float32[np.ndarray, "instants 17 3"]) -> Entries:
        """Make entries of an index from what a model predicts for the images, and the true poses of all instants."""
        instants, instant = self.instants, self.instant
        return Entries(
            capture=self.capture.fingerprint,
            row=self.rows,
            subject=[instants.subjects[i] for i in instants.subject[instant]],
            sequence=[instants.sequences[i] for i in instants.sequence[instant]],
            frame=instants.frame[instant],
            time=instants.time[instant],
            view=[instants.views[i] for i in self.view],
            vector=poses.embedding,
            predicted=poses.pose,
            true=true[instant],
        )


def true_canonical_poses(instants: Instants) -> Float32[np.ndarray, "n 17 3"]:
    """The labelled canonical poses in mm; NaN for instants without a pose or a heading."""
    return np.asarray(target_poses(instants).numpy(), np.float32)


def identity_of(model: Model) -> ModelIdentity:
    """Identify a model by its network; the heads beside it do not affect embeddings."""
    digest = hashlib.sha256()
    for key, value in sorted(model.network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return ModelIdentity(digest.hexdigest(), model.dim, str(model.source.absolute()))


def indexed_capture(fingerprint: str, address: str, index: PoseIndex) -> Capture:
    """Open a capture of an index.

    Args:
        fingerprint: Fingerprint of the capture when it was indexed.
        address: The address at which to open the capture.
        index: The index, for messages.

    Raises:
        CaptureError: There is no capture at the address.
        PoseIndexError: The capture is not the one that was indexed.
    """
    capture = Capture.open(address)
    if capture.fingerprint != fingerprint:
        raise PoseIndexError(
            f"the capture at {address} has changed since it was indexed: index it again with `{index.command(address)}`"
        )
    return capture


def missing_images(index: PoseIndex, capture: Capture) -> int:
    """The number of images of a capture that an index does not hold yet, as when indexing was stopped."""
    return max(0, len(CaptureImages.of(capture)) - index.count(capture=capture.fingerprint))


def index_capture(
    capture: Capture, model: Model, uri: str, progress: Progress = NO_PROGRESS, workers: Workers = 1, share: int = SHARE
) -> IndexingSummary:
    """Add every image of a capture to an index, which is created if there is none.

    The work can be interrupted at any time and repeated: images that were added stay, unless the capture has been
    replaced by another.

    Args:
        capture: The images.
        model: Makes the embeddings and poses.
        uri: Folder or object-store address of the index.
        progress: Counts images.
        workers: Processes or a cluster that predict; this process alone writes.
        share: Images after which the index is extended, so that an interruption loses no more than these.

    Raises:
        PoseIndexError: The index belongs to another model, or cannot be written.
        CaptureError: An image cannot be read.
        ClusterError: Workers were lost, or there is no such cluster.
    """
    index = PoseIndex.create(uri, identity_of(model))
    address = capture.uri if "://" in capture.uri else str(Path(capture.uri).absolute())
    outdated = [name for name, at in index.captures().items() if at == address and name != capture.fingerprint]
    images = CaptureImages.of(capture)
    indexed_rows = _indexed_rows(index, images)
    if indexed_rows is None:
        outdated.append(capture.fingerprint)
    removed = sum(index.forget_capture(name) for name in outdated)
    index.remember_capture(capture.fingerprint, address)
    is_indexed = np.isin(images.rows, [] if indexed_rows is None else indexed_rows)
    new = images.take(~is_indexed)
    true = true_canonical_poses(images.instants)
    with progress.task("Indexing images", len(images), int(is_indexed.sum())) as task:
        work = (
            partial(_poses, Stored.of(capture, model.source)) if workers != 1 else partial(_own_poses, capture, model)
        )
        for done, poses in shared_out(work, new.rows, workers, task, share):
            index.add(new.take(slice(done.start, done.start + len(done.rows))).entries(poses, true))
    needs_structure = len(new) or index.structured_count() < index.count()
    partitions = index.update_structure() if needs_structure else index.partitions()
    return IndexingSummary(added=len(new), kept=int(is_indexed.sum()), removed=removed, partitions=partitions)


def _own_poses(capture: Capture, model: Model, share: Share, report: Report) -> Poses:
    return model.predict_rows(capture, share.rows, Reported(report))


def _poses(stored: Stored, share: Share, report: Report) -> Poses:
    return _own_poses(*_opened(stored), share, report)


@lru_cache(maxsize=1)
def _opened(stored: Stored) -> tuple[Capture, Model]:
    return stored.opened_capture(), load(stored.checked_model())


def _indexed_rows(index: PoseIndex, images: CaptureImages) -> Int64[np.ndarray, " n"] | None:
    """The rows of a capture that are in the index; None if they show something else now.

    A capture that is written anew, for instance by more processes, has the same fingerprint but may have its parts in
    another order.
    """
    columns = ["row", "subject", "sequence", "frame", "view"]
    indexed = index.table(columns, f"capture = {quoted(images.capture.fingerprint)}")
    rows = np.asarray(indexed["row"].to_numpy(), np.int64)
    instants = images.instants
    position = np.zeros(len(images.capture), np.int64)
    position[images.rows] = np.arange(len(images))
    instant, view = images.instant[position[rows]], images.view[position[rows]]
    current = {
        "subject": pa.array(instants.subjects).take(pa.array(instants.subject[instant])),
        "sequence": pa.array(instants.sequences).take(pa.array(instants.sequence[instant])),
        "frame": pa.array(instants.frame[instant]),
        "view": pa.array(instants.views).take(pa.array(view)),
    }
    same = all(indexed[name].combine_chunks().equals(column) for name, column in current.items())
    return rows if same else None
