"""The known faults of Human3.6M, one function each; each has a switch in `Human36MSettings`."""

from collections.abc import Container

import numpy as np
from jaxtyping import Float64

from mcss.sources.distorted_camera import DistortedCamera

SHIFTED = frozenset({("S9", "Greeting"), ("S9", "SittingDown 1"), ("S9", "Waiting 1")})
"""Sequences whose poses and ground-truth boxes lie `SHIFT` beside the person."""

SHIFT = (200.0, 0.0, 0.0)
"""World mm."""

CORRUPT = frozenset({("S11", "Directions", "54138969")})
"""Videos that are missing in some copies and cannot be decoded in others."""

LEFT_OUT = frozenset({("S11", "Directions")})
"""Sequences that VideoPose3D's preparation leaves out of ``data_3d_h36m.npz``, because of the corrupt video."""


def shifted_back(subject: str, file: str, poses: Float64[np.ndarray, "t 32 3"]) -> Float64[np.ndarray, "t 32 3"]:
    """Undo the shift of +200 mm in world X of S9 Greeting, SittingDown 1 and Waiting 1; leave other poses as they are.

    The error of a root-relative pose does not depend on it, but crops from projected joints would miss the person.
    """
    if (subject, file) not in SHIFTED:
        return poses
    moved: Float64[np.ndarray, "t 32 3"] = poses - np.array(SHIFT)
    return moved


def boxes_shifted_back(
    subject: str,
    file: str,
    camera: DistortedCamera,
    boxes: Float64[np.ndarray, "n 4"],
    roots: Float64[np.ndarray, "n 3"],
) -> Float64[np.ndarray, "n 4"]:
    """Move the ground-truth boxes of the same sequences, which were made from the shifted poses, with the pelvis.

    Args:
        subject: The subject.
        file: Beginning of the names of the sequence's files.
        camera: The camera.
        boxes: x0, y0, x1, y1 in pixels.
        roots: The annotated pelvis for each box, with the shift.
    """
    if (subject, file) not in SHIFTED:
        return boxes
    moved = camera.pixels(roots - np.array(SHIFT)) - camera.pixels(roots)
    shifted: Float64[np.ndarray, "n 4"] = boxes + np.tile(np.nan_to_num(moved), 2)
    return shifted


def without_corrupt_videos(
    subject: str, file: str, cameras: tuple[DistortedCamera, ...]
) -> tuple[DistortedCamera, ...]:
    """Leave out the camera whose video is corrupt: 54138969 of S11 Directions."""
    return tuple(camera for camera in cameras if (subject, file, camera.name) not in CORRUPT)


def left_out_by_videopose3d(subject: str, file: str, known: Container[tuple[str, str]]) -> bool:
    """Whether a sequence is one that VideoPose3D's file is known to lack, and this file lacks it.

    Args:
        subject: The subject.
        file: Beginning of the names of the sequence's files.
        known: The (subject, sequence) of all poses in the file.
    """
    return (subject, file) in LEFT_OUT and (subject, file) not in known


def annotated_length(poses: int, images: int) -> int:
    """Return the number of usable images where a video goes on after its annotation ends.

    S9 Waiting 1 has 3393 images and 1612 poses. Both begin together; images without a pose are left out.
    """
    return min(poses, images)
