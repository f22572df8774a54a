"""From a capture and a trained run to an index: the embeddings and poses of all its pictures."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64

from mcss.captures import Capture
from mcss.checkpoints import MODEL, load_model
from mcss.entries import Entries, Model
from mcss.evaluation import target_poses
from mcss.index import PoseIndex
from mcss.instants import Instants
from mcss.networks import PoseNetwork
from mcss.predict import NetworkPredictor
from mcss.progress import NO_PROGRESS, Progress

_BATCH = 64
_KEPT_EVERY = 1024
"""Pictures after which what was embedded is added to the index, to be there after any stop."""


@dataclass(frozen=True)
class Indexed:
    """What indexing a capture did."""

    added: int
    kept: int
    """Pictures that an earlier call had added."""
    partitions: int
    """Of the search structure; 0 where the index is small enough to be searched in full."""


def model_of(run: Path, network: PoseNetwork) -> Model:
    """What an index keeps of the network that makes its embeddings."""
    path = run / MODEL if run.is_dir() else run
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Model(digest, network.config.dim, str(run))


def index_capture(capture: Capture, run: Path, uri: str, progress: Progress = NO_PROGRESS) -> Indexed:
    """Add every picture of a capture to the index at `uri`, which is begun if there is none; can be stopped and repeated.

    Raises:
        CheckpointError: No finished run of mcss.
        IndexProblem: The index belongs to another network, or cannot be written.
    """
    network = load_model(run)
    index = PoseIndex.create(uri, model_of(run, network))
    index.remember_capture(capture.fingerprint, capture.uri)
    instants = capture.instants()
    instant, view = np.nonzero(instants.rows >= 0)
    there = np.isin(instants.rows[instant, view], index.rows(capture.fingerprint))
    instant, view = instant[~there], view[~there]
    rows = instants.rows[instant, view]
    true = np.asarray(target_poses(instants).numpy(), np.float32)
    predict = NetworkPredictor(network, capture)
    with progress.task("Indexing pictures", len(there), int(there.sum())) as task:
        for start in range(0, len(rows), _KEPT_EVERY):
            part = slice(start, start + _KEPT_EVERY)
            parts = []
            for begin in range(start, min(start + _KEPT_EVERY, len(rows)), _BATCH):
                batch = rows[begin : min(begin + _BATCH, start + _KEPT_EVERY)]
                parts.append(predict(batch))
                task.advance(len(batch))
            vector = torch.cat([one.embedding for one in parts if one.embedding is not None])
            predicted = None
            if network.frame == "canonical":
                predicted = torch.cat([one.pose for one in parts if one.pose is not None]).numpy()
            index.add(_entries(capture, instants, instant[part], view[part], vector.numpy(), predicted, true))
    partitions = index.structure() if len(rows) or index.structured() < index.count() else 0
    return Indexed(added=len(rows), kept=int(there.sum()), partitions=partitions)


def _entries(
    capture: Capture,
    instants: Instants,
    instant: Int64[np.ndarray, " n"],
    view: Int64[np.ndarray, " n"],
    vector: Float32[np.ndarray, "n dim"],
    predicted: Float32[np.ndarray, "n 17 3"] | None,
    true: Float32[np.ndarray, "instants 17 3"],
) -> Entries:
    return Entries(
        capture=capture.fingerprint,
        row=instants.rows[instant, view],
        subject=[instants.subjects[i] for i in instants.subject[instant]],
        sequence=[instants.sequences[i] for i in instants.sequence[instant]],
        frame=instants.frame[instant],
        time=instants.time[instant],
        view=[instants.views[i] for i in view],
        vector=vector,
        predicted=predicted,
        true=true[instant],
    )
