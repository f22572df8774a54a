"""The order of the keypoints that common tools write without names, and which number of points means which order."""

import numpy as np
from jaxtyping import Float64

COCO = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle"),
    "right_ankle",
)
"""The 17 keypoints of COCO."""

_FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")

BODY_25 = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye"),
    *("left_eye", "right_ear", "left_ear", *_FEET),
)
"""OpenPose's BODY_25."""

BODY_25B = (*COCO, "upper_neck", "head_top", *_FEET)
"""OpenPose's BODY_25B, which has as many points in another order."""

OPENPOSE_18 = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist"),
    *("right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye"),
    *("right_ear", "left_ear"),
)
"""OpenPose's older order, which it calls COCO."""

BLAZEPOSE = (
    *("nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer"),
    *("left_ear", "right_ear", "mouth_left", "mouth_right", "left_shoulder", "right_shoulder", "left_elbow"),
    *("right_elbow", "left_wrist", "right_wrist", "left_pinky", "right_pinky", "left_index", "right_index"),
    *("left_thumb", "right_thumb", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
    *("left_heel", "right_heel", "left_foot_index", "right_foot_index"),
)
"""The 33 landmarks of BlazePose, which are MediaPipe's and so FreeMoCap's body."""

HALPE_26 = (*COCO, "head", "neck", "hip", "left_big_toe", "right_big_toe", "left_small_toe", "right_small_toe",
            "left_heel", "right_heel")  # fmt: skip
"""RTMPose's body with feet (Halpe), which Pose2Sim and Sports2D use; its head is the top of the head."""

_WHOLE_BODY = (*COCO, *_FEET)
_BY_COUNT = {
    **{17: COCO, 18: OPENPOSE_18, 23: _WHOLE_BODY, 133: _WHOLE_BODY, 25: BODY_25, 26: HALPE_26, 136: HALPE_26},
    **dict.fromkeys((33, 75, 501, 511, 543, 553), BLAZEPOSE),  # with two hands of 21 and a face of 468 or 478
}

LAYOUTS = ", ".join(
    (
        "17 (COCO), 18 (OpenPose, older), 23 or 133 (COCO-WholeBody), 25 (OpenPose BODY_25 and BODY_25B)",
        "26 or 136 (Halpe, AlphaPose), 33 (MediaPipe, FreeMoCap), and 75, 543 or 553 (with hands and face)",
    )
)
"""The numbers of points that are understood, for messages."""


def names_by_count(count: int) -> tuple[str, ...] | None:
    """Return the names of the first points of a skeleton with so many; None if no tool writes that many.

    FreeMoCap appends hands and face to MediaPipe's body, COCO-WholeBody to COCO's.
    """
    return _BY_COUNT.get(count)


_BONES = tuple(
    (f"{side}_{one}", f"{side}_{other}")
    for side in ("left", "right")
    for one, other in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("ankle", "heel"))
)


def likeliest_names(points: Float64[np.ndarray, "n k axes"]) -> tuple[str, ...] | None:
    """Return the names of the first points of skeletons, NaN where one is unknown; None if no tool writes so many.

    Of two orders with the same number of points it is the one in which bones are shorter.
    """
    count = points.shape[1]
    if count == len(BODY_25):
        return min((BODY_25, BODY_25B), key=lambda names: _mean_bone(points, names))
    return names_by_count(count)


def _mean_bone(points: Float64[np.ndarray, "n k axes"], names: tuple[str, ...]) -> float:
    bones = (*_BONES, ("nose", "left_eye"), ("nose", "right_eye"))
    ends = np.array([[names.index(one), names.index(other)] for one, other in bones])
    lengths = np.linalg.norm(points[:, ends[:, 0]] - points[:, ends[:, 1]], axis=2)
    known = lengths[np.isfinite(lengths)]
    return float(known.mean()) if len(known) else np.inf
