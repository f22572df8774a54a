import numpy as np
import pytest
import torch
from torch import Tensor

from mcss.data.loading.augmentation import normalise
from mcss.models.backbones import build_backbone
from mcss.models.blazepose import IMAGE_SIZE, Landmarks, load_landmark_heads


def pattern() -> Tensor:
    """A smooth image, RGB in 0..1."""
    y, x = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE] / (IMAGE_SIZE - 1)
    image = np.stack([0.5 + 0.5 * np.sin(9 * x + 4 * y), 0.5 + 0.5 * np.cos(7 * y), x * y])
    return torch.from_numpy(image.astype(np.float32))[None]


def normalised_pattern() -> Tensor:
    mean = normalise(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    unit = normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)) - mean
    return pattern() * unit + mean


@pytest.fixture(scope="module")
def landmarks() -> Landmarks:
    backbone, heads = build_backbone("blazepose", "mediapipe", batchnorm_affine=True).eval(), load_landmark_heads()
    with torch.inference_mode():
        found: Landmarks = heads(backbone(normalised_pattern()))
    return found


SOME = [0, 11, 16, 24, 27]
"""Nose, left shoulder, right wrist, right hip, left ankle."""


def test_landmarks_are_those_of_litert(landmarks: Landmarks) -> None:
    """The figures are what LiteRT 2.3.0 computes with the .tflite file of mediapipe 0.10.21 on the same image."""
    image = [(131.616, 66.936, -21.047), (133.846, 79.633, -43.043), (130.523, 94.530, -5.747)]
    image += [(130.892, 139.813, 20.692), (134.204, 178.665, 40.778)]
    world = [(-23.57, -621.97, -65.82), (5.39, -495.40, -112.21), (-44.08, -371.15, -7.64)]
    world += [(-20.75, 0.25, 51.24), (15.41, 376.01, 123.94)]
    np.testing.assert_allclose(landmarks.image[0, SOME], image, atol=0.02)
    np.testing.assert_allclose(landmarks.world[0, SOME], world, atol=0.1)
    np.testing.assert_allclose(landmarks.visibility[0, SOME], [0.28686, 0.83212, 0.01515, 0.70049, 0.45960], atol=1e-4)
    np.testing.assert_allclose(landmarks.presence, [0.03837], atol=1e-4)
    np.testing.assert_allclose(landmarks.alignment[0], [(132.517, 140.607), (127.823, 38.117)], atol=0.02)
