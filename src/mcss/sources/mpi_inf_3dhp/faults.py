"""The known faults of MPI-INF-3DHP, one function each; each has its switch in `MpiInf3dhpSettings`."""

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from mcss.skeletons import MIRROR

SWAPPED = ("S4", "Seq2", 3759, 5852)
"""Subject, sequence, first and last frame (from 0) in which left and right are exchanged."""

SHORT = frozenset({("S6", "Seq2", 2)})
"""Subject, sequence and camera of videos that end before the others."""

WHITE = 235.0
"""An image that is brighter than this on average (of 255) is a flash: the studio is far darker. A choice of mcss."""


def sides_put_right(
    subject: str, sequence: str, poses: Float64[np.ndarray, "n 17 3"], frames: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n 17 3"]:
    """Poses of S4/Seq2 with left and right as they are in frames 3759 to 5852; others as they come."""
    if (subject, sequence) != SWAPPED[:2]:
        return poses
    wrong = (frames >= SWAPPED[2]) & (frames <= SWAPPED[3])
    return np.where(wrong[:, None, None], poses[:, list(MIRROR)], poses)


def may_end_early(subject: str, sequence: str, camera: int) -> bool:
    """Whether a video is known to be short: S6/Seq2 camera 2; its view then ends, and the others go on."""
    return (subject, sequence, camera) in SHORT


def annotated_frames(stated: int, annotated: int) -> int:
    """Frames that can be used: S3/Seq1 has one annotation more than it has images, which belongs to none."""
    return min(stated, annotated)


def is_flash(image: UInt8[np.ndarray, "height width 3"]) -> bool:
    """Whether an image is nearly white, as where a flash went off: nothing can be seen in it."""
    return float(image.mean()) > WHITE
