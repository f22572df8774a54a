"""A stored network of any method whose predictions the workers of this machine or of a cluster share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
from jaxtyping import Float32, Int64

from mcss.data.capture import Capture
from mcss.models.model_file import read_model
from mcss.models.pose_network import PoseEstimator
from mcss.models.prediction import NetworkPredictor, Prediction, predict_rows
from mcss.models.shares import SHARE, Reported, Share, Stored, shared_out
from mcss.progress import Task
from mcss.skeletons import PoseFrame
from mcss.workers import Report, Workers


@dataclass(frozen=True)
class SharedPredictor:
    """Predicts as `mcss.models.prediction.NetworkPredictor` does, with several processes or machines."""

    stored: Stored
    kinds: tuple[type[PoseEstimator], ...]
    """The accepted kinds of network, as `mcss.methods.registry.network_kinds` lists them."""
    workers: Workers
    share: int = SHARE
    """Images that a worker predicts for at a time."""

    def predict(self, rows: Int64[np.ndarray, " n"], task: Task) -> Prediction:
        """Predict for some rows, in their order.

        Raises:
            ClusterError: Workers were lost, or there is no such cluster.
        """
        work = partial(_arrays, self.stored, self.kinds)
        done = sorted(shared_out(work, rows, self.workers, task, self.share), key=lambda pair: pair[0].start)
        return Prediction.joined([part.prediction() for _, part in done])


@dataclass(frozen=True, eq=False)
class _Arrays:
    """A prediction as arrays: tensors would be sent between processes as open files, of which there are few."""

    pose: Float32[np.ndarray, "n 17 3"] | None
    embedding: Float32[np.ndarray, "n dim"] | None
    frame: PoseFrame

    def prediction(self) -> Prediction:
        # Copies, since a cluster's arrays are read-only.
        pose, embedding = (None if each is None else torch.tensor(each) for each in (self.pose, self.embedding))
        return Prediction(pose, embedding, self.frame)


def _arrays(stored: Stored, kinds: Sequence[type[PoseEstimator]], share: Share, report: Report) -> _Arrays:
    predicted = Prediction.joined(predict_rows(_opened(stored, tuple(kinds)), share.rows, Reported(report)))
    pose, embedding = (None if each is None else each.numpy() for each in (predicted.pose, predicted.embedding))
    return _Arrays(pose, embedding, predicted.frame)


@lru_cache(maxsize=1)
def _opened(stored: Stored, kinds: tuple[type[PoseEstimator], ...]) -> NetworkPredictor:
    capture: Capture = stored.opened_capture()
    return NetworkPredictor(read_model(stored.checked_model(), kinds).network, capture)
