"""The known faults of Human3.6M, one function each; each has its switch in `Human36MSettings`."""

import numpy as np
from jaxtyping import Float64

from mcss.sources.human36m.metadata import Lens

SHIFTED = frozenset({("S9", "Greeting"), ("S9", "SittingDown 1"), ("S9", "Waiting 1")})
"""Takes whose poses and ground-truth boxes stand `SHIFT` beside the person."""

SHIFT = (200.0, 0.0, 0.0)
"""World mm."""

CORRUPT = frozenset({("S11", "Directions", "54138969")})
"""Videos that are missing in some copies and cannot be decoded in others."""


def shifted_back(subject: str, file: str, poses: Float64[np.ndarray, "t 32 3"]) -> Float64[np.ndarray, "t 32 3"]:
    """Poses of S9 Greeting, SittingDown 1 and Waiting 1 without their shift of +200 mm in world X; others as they are.

    The error of a root-relative pose does not change by it, but crops from projected joints miss the person.
    """
    if (subject, file) not in SHIFTED:
        return poses
    moved: Float64[np.ndarray, "t 32 3"] = poses - np.array(SHIFT)
    return moved


def boxes_shifted_back(
    subject: str, file: str, lens: Lens, boxes: Float64[np.ndarray, "n 4"], roots: Float64[np.ndarray, "n 3"]
) -> Float64[np.ndarray, "n 4"]:
    """Ground-truth boxes of the same takes, which were made from the shifted poses, moved as the pelvis moves.

    Args:
        subject: As in the set.
        file: What the names of the take's files begin with.
        lens: The camera.
        boxes: x0, y0, x1, y1 in pixels.
        roots: The pelvis of each box as annotated, that is, with the shift.
    """
    if (subject, file) not in SHIFTED:
        return boxes
    moved = lens.pixels(roots - np.array(SHIFT)) - lens.pixels(roots)
    shifted: Float64[np.ndarray, "n 4"] = boxes + np.tile(np.nan_to_num(moved), 2)
    return shifted


def without_corrupt_videos(subject: str, file: str, lenses: tuple[Lens, ...]) -> tuple[Lens, ...]:
    """The cameras of a take less the one whose video is corrupt: S11 Directions, 54138969."""
    return tuple(lens for lens in lenses if (subject, file, lens.name) not in CORRUPT)


def annotated_length(poses: int, images: int) -> int:
    """Images of a take that can be used where a video goes on after the annotation ends.

    S9 Waiting 1 has 3393 images and 1612 poses: both begin together, what has no pose is left out.
    """
    return min(poses, images)
