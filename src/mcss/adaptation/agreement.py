"""How well a network's views agree on held-out instants: a measure that needs no 3D labels."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from mcss.data.instants import Instants
from mcss.losses import fused_views
from mcss.metrics import pa_mpjpe
from mcss.models.prediction import Prediction, Predictor, predict_rows
from mcss.skeletons import LIMBS

NEAR_SECONDS = 0.2
"""Images this near in time count as the same moment."""

_HIT_FLOOR = 0.05
"""Added to the share of hits, so that a network that finds nothing does not decide by the last hit."""


@dataclass(frozen=True)
class Agreement:
    """What is measured on held-out instants."""

    apart: float
    """Millimetres between the views of an instant: PA-MPJPE of each view's pose and their mean, over the 12 limb
    joints."""
    off: float
    """Millimetres from the reference poses: PA-MPJPE over the 12 limb joints. The references are labels, or else what
    the views together said before the training."""
    hit_at_1: float
    """Share of images for which the nearest image of another view, by embedding, shows the same moment."""
    chance: float
    """That share for a network that guesses."""

    @property
    def score(self) -> float:
        """One number, smaller is better: halving the distance from the references counts as four times the hits."""
        return math.log(self.off) - 0.5 * math.log(self.hit_at_1 + _HIT_FLOOR)

    def better_than(self, other: "Agreement") -> bool:
        """Whether this is better than `other`, and neither poses nor search are worse by more than two per cent."""
        held = self.off <= 1.02 * other.off and self.hit_at_1 + _HIT_FLOOR >= 0.98 * (other.hit_at_1 + _HIT_FLOOR)
        return held and self.score < other.score

    def to_json(self) -> dict[str, Any]:
        """Return the measure as JSON values."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Instants that are kept from training, and poses to hold a network's predictions against."""

    instants: Instants
    reference: Float[Tensor, "n 17 3"] | None = None
    """Canonical poses in mm, NaN where none is known; None before they are known."""

    def predict(self, predictor: Predictor) -> Prediction:
        """Predict for every image, in the order of `numpy.nonzero` of the views that there are."""
        instant, view = np.nonzero(self.instants.rows >= 0)
        return Prediction.joined(predict_rows(predictor, self.instants.rows[instant, view]))

    def fused(self, prediction: Prediction) -> Float[Tensor, "n 17 3"]:
        """Return the mean of the views' poses for each instant."""
        poses = self._by_view(prediction)
        seen = torch.from_numpy(self.instants.rows >= 0)
        # A missing view repeats the first one there is; two views or more are there.
        first = seen.int().argmax(dim=1)
        filled = torch.where(seen[..., None, None], poses, poses[torch.arange(len(poses)), first][:, None])
        return fused_views(filled)

    def measure(self, prediction: Prediction) -> Agreement:
        """Measure what a network predicts."""
        assert prediction.pose is not None
        assert prediction.embedding is not None
        instant, view = np.nonzero(self.instants.rows >= 0)
        of_image = torch.from_numpy(instant)
        fused = self.fused(prediction)
        apart = pa_mpjpe(prediction.pose[:, LIMBS], fused[of_image][:, LIMBS])
        reference = fused if self.reference is None else self.reference
        known = reference[of_image].isfinite().all(dim=(1, 2))
        off = pa_mpjpe(prediction.pose[known][:, LIMBS], reference[of_image][known][:, LIMBS])
        hits, chance = _hits(prediction.embedding, self.instants, instant, view)
        return Agreement(float(apart.mean()), float(off.mean()), hits, chance)

    def _by_view(self, prediction: Prediction) -> Float[Tensor, "n views 17 3"]:
        assert prediction.pose is not None
        seen = torch.from_numpy(self.instants.rows >= 0)
        poses = torch.zeros(*seen.shape, 17, 3)
        poses[seen] = prediction.pose
        return poses


def _hits(
    embedding: Float[Tensor, "images dim"], instants: Instants, instant: np.ndarray, view: np.ndarray
) -> tuple[float, float]:
    """Return the share of images whose nearest one in another view shows the same moment, and that of guessing."""
    same = _same_moment(instants, instant)
    other = view[:, None] != view[None, :]
    queries = np.flatnonzero((same & other).any(axis=1))
    if not len(queries):
        return 0.0, 0.0
    similarity = (embedding @ embedding.T).masked_fill(~torch.from_numpy(other), -math.inf)
    nearest = similarity.argmax(dim=1).numpy()
    chance = (same & other).sum(axis=1) / np.maximum(other.sum(axis=1), 1)
    return float(same[queries, nearest[queries]].mean()), float(chance[queries].mean())


def _same_moment(instants: Instants, instant: np.ndarray) -> Bool[np.ndarray, "images images"]:
    sequence = np.unique(np.stack([instants.subject, instants.sequence]), axis=1, return_inverse=True)[1].reshape(-1)
    time: Float64[np.ndarray, " images"] = instants.time[instant]
    near = np.abs(time[:, None] - time[None, :]) <= NEAR_SECONDS + 1e-6
    return np.asarray(near & (sequence[instant][:, None] == sequence[instant][None, :]), bool)
