"""Guesses of how large a camera's images are, where a capture knows the crops alone.

Labels hardly depend on it: on a clip of 1024×1024 images, sizes from 800 to 1280 pixels cost 2 mm.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Float64

from mcss.data.capture import Capture
from mcss.landmarks.image_size import COMMON
from mcss.landmarks.view_landmarks import ViewLandmarks

_OUTSIDE = 0.02
"""Share of the size by which a crop may leave the image."""


def with_guessed_sizes(landmarks: ViewLandmarks, capture: Capture) -> ViewLandmarks:
    """Fill in the sizes that are not known: the smallest common size that contains all crops of the view."""
    sizes = landmarks.image_size.copy()
    instants = capture.instants()
    for view in np.flatnonzero(~np.isfinite(sizes).all(axis=1)):
        rows = instants.rows[:, instants.views.index(landmarks.views[view])]
        boxes = capture.boxes(rows[rows >= 0])
        if len(boxes):
            sizes[view] = guessed_size(boxes[:, 2:].max(axis=0))
    return replace(landmarks, image_size=sizes)


def guessed_size(reached: Float[np.ndarray, " 2"]) -> Float64[np.ndarray, " 2"]:
    """Return the smallest common width and height that crops reach up to; `reached` itself if no common one is enough.

    Example:
        >>> guessed_size(np.array([1210.0, 1078.0])).tolist()
        [1440.0, 1080.0]
    """
    enough = COMMON[(reached * (1 - _OUTSIDE) <= COMMON).all(axis=1)]
    return enough[enough.prod(axis=1).argmin()] if len(enough) else np.array(reached, np.float64)
