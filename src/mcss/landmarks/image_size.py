"""The size of the images that cameras took, where nobody states it: a common one in whose middle the person is."""

import numpy as np
from jaxtyping import Float64

from mcss.landmarks.view_landmarks import ViewLandmarks

_LANDSCAPE = (
    (640, 360), (640, 480), (800, 600), (960, 540), (1024, 768), (1280, 720), (1280, 960), (1280, 1024), (1440, 1080),
    (1600, 1200), (1920, 1080), (1920, 1200), (2048, 1088), (2048, 1536), (2560, 1440), (2704, 1520), (2704, 2028),
    (3840, 2160), (4096, 2160),
)  # fmt: skip
_SQUARE = (512, 600, 1000, 1024, 1080, 2048)

COMMON: Float64[np.ndarray, "sizes 2"] = np.array(
    [*_LANDSCAPE, *((h, w) for w, h in _LANDSCAPE), *((side, side) for side in _SQUARE)], np.float64
)
"""Width and height of images that cameras usually take."""

CLEAR = 0.5
"""Landmarks count that are at least this visible."""


def completed_sizes(landmarks: ViewLandmarks) -> tuple[Float64[np.ndarray, "views 2"], tuple[str, ...]]:
    """The sizes of all views' images, those that are not known guessed; and the names of the guessed views.

    The guess is the common size that holds all landmarks, and in whose middle they are nearest to the middle over all
    guessed views, since cameras of one recording are mostly alike.
    """
    sizes = np.array(landmarks.image_size, np.float64)
    unknown = [v for v in range(len(sizes)) if not np.isfinite(sizes[v]).all()]
    away, holds = np.zeros(len(COMMON)), np.ones(len(COMMON), bool)
    middles = []
    for v in unknown:
        seen = np.isfinite(landmarks.image[:, v]).all(axis=-1) & (landmarks.visibility[:, v] >= CLEAR)
        points = landmarks.image[:, v][seen].astype(np.float64)
        if len(points):
            middles.append(np.median(points, axis=0))
            holds &= (np.quantile(points, 0.99, axis=0) <= COMMON).all(axis=1)
    if middles:
        middle = np.mean(middles, axis=0)
        away = np.linalg.norm(COMMON / 2 - middle, axis=1) / np.linalg.norm(COMMON, axis=1)
        sizes[unknown] = COMMON[np.where(holds, away, np.inf).argmin()] if holds.any() else 2 * middle
    return sizes, tuple(landmarks.views[v] for v in unknown)
