"""The heads of a model after it has been adapted: fitted anew on the footage, since they read what has changed."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from mcss.adaptation.agreement import HeldOut
from mcss.data.capture import Capture
from mcss.data.instants import Instants, evenly_spread
from mcss.models.model import Model
from mcss.models.model_file import ModelParts
from mcss.models.orientation import OrientationHead
from mcss.models.prediction import NetworkPredictor
from mcss.models.uncertainty import UncertaintyHead
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.heads import EquipSettings, LabelledImages, expected_errors, fit_orientation

_SURE = 0.7
"""Certainty from which the heading that the model of the start sees is passed on."""


@dataclass(frozen=True, eq=False)
class Heads:
    """What the heads of an adapted model are fitted to."""

    capture: Capture
    kept: Instants
    """The instants that were trained on, with their labels."""
    held: HeldOut
    """Those that were held out, with their references."""
    unlabelled: float | None
    """Without labels, the distance of the start from the references in mm; None with labels."""

    def refitted(self, start: Model, adapted: Model, progress: Progress = NO_PROGRESS) -> ModelParts:
        """Return heads for the adapted network, of the kinds that the model of the start has."""
        settings = EquipSettings(images=1500, variants=1)
        orientation = None if start.parts.orientation is None else self._orientation(start, adapted, settings, progress)
        uncertainty = None if start.parts.uncertainty is None else self._uncertainty(start, adapted, settings, progress)
        return ModelParts(orientation, uncertainty)

    def _orientation(
        self, start: Model, adapted: Model, settings: EquipSettings, progress: Progress
    ) -> OrientationHead | None:
        """Let a new head learn what the old one says about the footage, where it is sure; no label is needed.

        On a backbone that has not been trained, the old head reads what it read before, and stays.
        """
        assert start.parts.orientation is not None
        before, after = start.network.backbone.state_dict(), adapted.network.backbone.state_dict()
        if all(torch.equal(before[name], after[name]) for name in before):
            return start.parts.orientation
        instant, view = np.nonzero(self.kept.rows >= 0)
        chosen = evenly_spread(len(instant), settings.images)
        rows = self.kept.rows[instant[chosen], view[chosen]]
        with progress.task("Reading headings", len(rows)) as task:
            seen = start.predict_rows(self.capture, rows, task).orientation
        assert seen is not None
        sure = np.flatnonzero(seen.certainty >= _SURE)
        if len(sure) < 64:
            return None
        images = LabelledImages(rows[sure], self.kept.take(instant[chosen][sure]))
        settings = replace(settings, head=start.parts.orientation.config)
        return fit_orientation(adapted, self.capture, images, seen.take(sure), settings, progress)

    def _uncertainty(
        self, start: Model, adapted: Model, settings: EquipSettings, progress: Progress
    ) -> UncertaintyHead:
        """Fit expected errors to the distances of the held-out images from their references.

        Without labels the references are no truth, but what the views said together. The errors are then scaled as much
        as the head of the start expected more than that distance.
        """
        reference, held, kept, factor = self.held.reference, self.held.instants, self.kept, 1.0
        assert reference is not None
        if self.unlabelled is not None:
            everything = HeldOut(kept.take(np.flatnonzero((kept.rows >= 0).any(axis=1))))
            predictor = NetworkPredictor(adapted.network, self.capture)
            kept = _posed(everything.instants, everything.fused(everything.predict(predictor)))
            expected = start.predict_rows(self.capture, held.rows[held.rows >= 0]).error
            assert expected is not None
            factor = max(1.0, float(expected.mean()) / max(self.unlabelled, 1.0))
        others = LabelledImages.of(_posed(held, reference), settings.calibration)
        head = expected_errors(adapted, self.capture, kept, others, settings, progress)
        return replace(head, weights=head.weights * factor)


def _posed(instants: Instants, poses: Tensor) -> Instants:
    """Return instants whose labels are these poses, where they are known."""
    known = poses.isfinite().all(dim=2).all(dim=1).numpy()
    pose: Float32[np.ndarray, "n 17 3"] = poses.float().numpy()
    return replace(instants, pose=pose, heading_valid=known)
