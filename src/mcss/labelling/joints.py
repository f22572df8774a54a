"""From 33 landmarks to the 17 joints of a label."""

import numpy as np
from jaxtyping import Float64

from mcss.landmarks.view_landmarks import LANDMARKS
from mcss.skeletons import JOINTS

_SIDED = {"Hip": "hip", "Knee": "knee", "Foot": "ankle", "Shoulder": "shoulder", "Elbow": "elbow", "Wrist": "wrist"}

SOURCES: dict[str, tuple[str, ...]] = {
    "Hip": ("left_hip", "right_hip"),
    "Thorax": ("left_shoulder", "right_shoulder"),
    "Spine": ("left_hip", "right_hip", "left_shoulder", "right_shoulder"),
    "Neck": ("nose",),
    "Head": ("left_ear", "right_ear"),
} | {
    side + joint: (f"{word}_{landmark}",)
    for side, word in (("L", "left"), ("R", "right"))
    for joint, landmark in _SIDED.items()
}
"""The landmarks that each joint is the mean of; Head is then moved up from between the ears to the top of the head."""

_INDICES = [[LANDMARKS.index(name) for name in SOURCES[joint]] for joint in JOINTS]

_EARS_TO_TOP = 0.85
"""From between the ears to the top of the head, as a share of the ears' distance."""

_WITHOUT_FACE = {"Neck": 0.35, "Head": 0.65}
"""Where a detector finds no face: how far above the shoulders, as a share of the length from hips to shoulders."""


def joints_of_landmarks(points: Float64[np.ndarray, "n 33 3"]) -> Float64[np.ndarray, "n 17 3"]:
    """Return the 17 joints of bodies given as landmarks, in the same unit and along the same axes.

    Where nose or ears are missing, Neck and Head lie on the line from the hips through the shoulders.
    """
    joints = np.stack([points[:, indices].mean(axis=1) for indices in _INDICES], axis=1)
    left, right, nose = (points[:, LANDMARKS.index(name)] for name in ("left_ear", "right_ear", "nose"))
    across = left - right
    forward = nose - (left + right) / 2
    up = np.cross(forward, across)
    up /= np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-9)
    hip, thorax = (joints[:, JOINTS.index(name)] for name in ("Hip", "Thorax"))
    # The nose lies below the ears, and a head that looks down is seen badly: half of the way follows the neck.
    neck = (left + right) / 2 - thorax
    neck = neck / np.maximum(np.linalg.norm(neck, axis=1, keepdims=True), 1e-9)
    top = up + neck
    top /= np.maximum(np.linalg.norm(top, axis=1, keepdims=True), 1e-9)
    joints[:, JOINTS.index("Head")] += _EARS_TO_TOP * np.linalg.norm(across, axis=1, keepdims=True) * top
    for name, share in _WITHOUT_FACE.items():
        joint = joints[:, JOINTS.index(name)]
        unknown = np.isnan(joint).any(axis=1)
        joint[unknown] = (thorax + share * (thorax - hip))[unknown]
    return joints


def values_of_landmarks(values: Float64[np.ndarray, "n 33"]) -> Float64[np.ndarray, "n 17"]:
    """Return a value for each joint, such as a confidence: the mean over its landmarks."""
    return np.stack([values[:, indices].mean(axis=1) for indices in _INDICES], axis=1)
