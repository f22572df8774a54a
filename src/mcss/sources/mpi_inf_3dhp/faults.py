"""The known faults of MPI-INF-3DHP, one function each; each has a switch in `MpiInf3dhp`."""

import numpy as np
from jaxtyping import Float64, Int64

from mcss.images import AnySizeImage
from mcss.skeletons import MIRROR

SWAPPED = ("S4", "Seq2", 3759, 5852)
"""Subject, sequence, first and last frame (from 0) in which left and right are exchanged."""

SHORT = frozenset({("S6", "Seq2", 2)})
"""Subject, sequence and camera of videos that end before the others."""

WHITE = 235.0
"""Mean brightness (of 255) above which an image shows a flash; the studio is far darker. Chosen for mcss."""


def with_sides_corrected(
    subject: str, sequence: str, poses: Float64[np.ndarray, "n 17 3"], frames: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n 17 3"]:
    """Exchange left and right in frames 3759 to 5852 of S4/Seq2; leave other poses as they are."""
    if (subject, sequence) != SWAPPED[:2]:
        return poses
    wrong = (frames >= SWAPPED[2]) & (frames <= SWAPPED[3])
    return np.where(wrong[:, None, None], poses[:, list(MIRROR)], poses)


def may_end_early(subject: str, sequence: str, camera: int) -> bool:
    """Return whether a video is known to be short (S6/Seq2, camera 2); its view then ends and the others go on."""
    return (subject, sequence, camera) in SHORT


def annotated_frames(stated: int, annotated: int) -> int:
    """Return the number of usable frames: S3/Seq1 has one annotation more than it has images."""
    return min(stated, annotated)


def is_flash(image: AnySizeImage) -> bool:
    """Return whether an image is nearly white, as when a flash went off, so that it shows nothing."""
    return float(image.mean()) > WHITE
