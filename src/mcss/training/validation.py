"""The learning curve of a run: the network's results on the validation split."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from mcss.data.capture import Capture
from mcss.evaluation.evaluate import Evaluation, evaluate_predictions
from mcss.evaluation.predictions import EvaluationSettings, evaluated_instants, predict_split
from mcss.models.pose_network import PoseEstimator
from mcss.models.prediction import NetworkPredictor, Prediction, predict_images
from mcss.progress import Progress
from mcss.training.feature_cache import CachedStages, FrozenStages, cache_stages
from mcss.training.settings import TrainSettings


@dataclass(frozen=True, eq=False)
class CachedPredictor:
    """Predicts from cached feature maps of unchanged images, which is fast enough for learning curves."""

    network: PoseEstimator
    stages: CachedStages

    def __call__(self, rows: Int64[np.ndarray, " batch"]) -> Prediction:
        """Predict poses in mm, in the network's coordinate frame, and embeddings of some rows of the capture."""
        images = self.stages.images(rows, np.random.default_rng(0), np.zeros(len(rows), bool))
        return predict_images(self.network, images, self.stages.first_stage)


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Evaluates a network on some instants of the validation split, for a point of the curve."""

    predict: NetworkPredictor | CachedPredictor
    capture: Capture
    split: str
    settings: EvaluationSettings

    def __call__(self, network: PoseEstimator) -> Evaluation:
        """Evaluate a network in its current state."""
        predict = dataclasses.replace(self.predict, network=network)
        prediction = predict_split(predict, self.capture, self.split, self.settings)
        return evaluate_predictions(prediction, self.capture.fingerprint, self.split, self.settings)


def learning_curve(
    settings: TrainSettings, network: PoseEstimator, capture: Capture, progress: Progress
) -> LearningCurve | None:
    """Return the learning curve of a run; None where the capture lacks the split.

    Raises:
        CaptureError: Poses are in camera space, and the capture lacks the cameras of that split.
    """
    split = settings.validation
    if split is None or split not in capture.splits:
        return None
    evaluation = EvaluationSettings(
        max_instants=settings.validation_instants, max_queries=300, max_gallery=4 * settings.validation_instants
    )
    if network.frame == "camera":  # fail now, not at the first point of the curve
        rows = evaluated_instants(capture, split, evaluation).rows
        capture.crop_rotations(rows[rows >= 0], f"scoring the split {split!r} in camera space")
    predict: NetworkPredictor | CachedPredictor = NetworkPredictor(network, capture)
    if settings.variants:
        rows = evaluated_instants(capture, split, evaluation).rows
        frozen = FrozenStages(settings.frozen_stages, settings.network.image_size)
        maps = cache_stages(network.backbone.eval(), frozen, capture, rows, progress=progress)
        predict = CachedPredictor(network, maps)
    return LearningCurve(predict, capture, split, evaluation)
