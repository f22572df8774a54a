"""The landmarks and bones by which cameras are found, and the stature of a person from their bones."""

import numpy as np
from jaxtyping import Float, Float64, Int64

from mcss.landmarks.view_landmarks import LANDMARKS, MIRROR

LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")

USED: Int64[np.ndarray, " joints"] = np.array(
    [LANDMARKS.index(f"{side}_{joint}") for joint in LIMBS for side in ("left", "right")]
    + [LANDMARKS.index(name) for name in ("nose", "left_ear", "right_ear")]
    + [LANDMARKS.index(f"{side}_{joint}") for joint in ("heel", "foot_index") for side in ("left", "right")]
)
"""The landmarks that count: joints, and points of head and feet. Eyes, mouth and fingers add little but noise."""

JOINTS = tuple(LANDMARKS[i] for i in USED)
"""Names of the landmarks in `USED`; they are the *joints* of all arrays in this folder."""

OTHER_SIDE: Int64[np.ndarray, " joints"] = np.array([list(USED).index(MIRROR[i]) for i in USED])
"""The joint on the other side of the body for each joint."""

ARMS = tuple(i for i, name in enumerate(JOINTS) if name.split("_")[-1] in ("elbow", "wrist"))
LEGS = tuple(i for i, name in enumerate(JOINTS) if name.split("_")[-1] in ("knee", "ankle", "heel", "index"))

_SIDED = (
    ("hip", "knee"),
    ("knee", "ankle"),
    ("shoulder", "elbow"),
    ("elbow", "wrist"),
    ("ankle", "heel"),
    ("ankle", "foot_index"),
    ("heel", "foot_index"),
)


def _bones() -> list[tuple[str, str]]:
    sided = [(f"{side}_{a}", f"{side}_{b}") for a, b in _SIDED for side in ("left", "right")]
    head = [("nose", "left_ear"), ("nose", "right_ear"), ("left_ear", "right_ear")]
    rigid = [*sided, *head, ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")]
    trunk = [(f"{a}_shoulder", f"{b}_hip") for a in ("left", "right") for b in ("left", "right")]
    neck = [("left_ear", "left_shoulder"), ("right_ear", "right_shoulder")]
    return rigid + trunk + neck


BONES: Int64[np.ndarray, "bones 2"] = np.array([[JOINTS.index(a), JOINTS.index(b)] for a, b in _bones()])
"""Pairs of joints. The first `RIGID` keep their length; trunk and neck bend."""

RIGID = len(BONES) - 6
"""Number of bones, from the first, whose length does not change."""

TWIN: Int64[np.ndarray, " bones"] = np.array(
    [[tuple(sorted(b)) for b in BONES.tolist()].index(tuple(sorted(OTHER_SIDE[b].tolist()))) for b in BONES]
)
"""The bone on the other side of the body for each bone."""

HIPS = (JOINTS.index("left_hip"), JOINTS.index("right_hip"))
SHOULDERS = (JOINTS.index("left_shoulder"), JOINTS.index("right_shoulder"))
KNEES = (JOINTS.index("left_knee"), JOINTS.index("right_knee"))
ANKLES = (JOINTS.index("left_ankle"), JOINTS.index("right_ankle"))
FEET = tuple(JOINTS.index(f"{side}_{joint}") for joint in ("heel", "foot_index") for side in ("left", "right"))

MEAN_STATURE = 1700.0
"""Stature in mm of a person about whom nothing is known: the mean of adult women and men."""

_BONES_OF_STATURE = 0.779
"""Shank, thigh and trunk (ankle to knee to hip to shoulder) as a share of the stature.

Reference:
    Drillis and Contini, Body segment parameters, 1966: ankle at 0.039, knee at 0.285, hip at 0.530 and shoulder at
    0.818 of the stature.
"""


def weighted_median(values: Float[np.ndarray, "n k"], weights: Float[np.ndarray, "n k"]) -> Float64[np.ndarray, " k"]:
    """The value of each column below which half of its weight lies; the plain median where there is no weight."""
    order = np.argsort(values, axis=0)
    ranked = np.take_along_axis(np.asarray(values, np.float64), order, axis=0)
    sums = np.take_along_axis(np.asarray(weights, np.float64) + 1e-12, order, axis=0).cumsum(axis=0)
    index = (sums < sums[-1] / 2).sum(axis=0)
    return np.asarray(ranked[index, np.arange(values.shape[1])])


def bone_lengths(joints: Float[np.ndarray, "n joints 3"]) -> Float64[np.ndarray, "n bones"]:
    """Lengths of the bones, in the unit of the joints."""
    return np.asarray(np.linalg.norm(joints[:, BONES[:, 0]] - joints[:, BONES[:, 1]], axis=-1), np.float64)


def usual_lengths(
    joints: Float[np.ndarray, "n joints 3"],
    confidence: Float[np.ndarray, "n joints"],
    person: Int64[np.ndarray, " n"],
) -> Float64[np.ndarray, "n bones"]:
    """The length that each bone of each instant's person has over all their instants, the same on both sides."""
    weights = np.sqrt(confidence[:, BONES[:, 0]] * confidence[:, BONES[:, 1]])
    lengths = bone_lengths(joints)
    usual = np.empty(lengths.shape)
    for name in np.unique(person):
        theirs = person == name
        median = weighted_median(lengths[theirs], weights[theirs])
        usual[theirs] = (median + median[TWIN]) / 2
    return usual


def stature_of(joints: Float[np.ndarray, "n joints 3"], confidence: Float[np.ndarray, "n joints"]) -> float:
    """The stature of a person from shanks, thighs and trunk, in the unit of the joints, however they stand or sit."""

    def length(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
        return float(weighted_median(np.linalg.norm(a - b, axis=-1)[:, None], weight[:, None])[0])

    legs = 0.0
    for hip, knee, ankle in zip(HIPS, KNEES, ANKLES, strict=True):
        for a, b in ((hip, knee), (knee, ankle)):
            legs += length(joints[:, a], joints[:, b], confidence[:, [a, b]].min(axis=1)) / 2
    hips, shoulders = joints[:, HIPS].mean(axis=1), joints[:, SHOULDERS].mean(axis=1)
    trunk = length(hips, shoulders, confidence[:, [*HIPS, *SHOULDERS]].min(axis=1))
    return (legs + trunk) / _BONES_OF_STATURE
