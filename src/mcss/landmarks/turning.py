"""The views of an instant turned onto each other without calibration, and averaged into one upright body.

Every view gives a whole body along the axes of its own camera, so a rotation makes any two of them agree. A detector
knows little about depth, that is, about the third axis of its camera; another camera sees it. So a view counts less
along its own depth, which is worth more than anything else here.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.landmarks.view_landmarks import LANDMARKS, MIRROR, ViewLandmarks

ROUNDS = 6
"""Rounds of turning, averaging and weighing anew."""

OUTLYING = 80.0
"""Distance in mm from the average beyond which a view's landmark counts less (Huber)."""

DEPTH_WEIGHT = 0.1
"""What a view counts along its own depth; 1 along the other two axes of its camera."""

LEAST_VISIBLE = 0.2
"""Landmarks that are less visible than this weigh as much as if they were this visible."""

_LEFT_OUT = ("inner", "outer", "mouth", "eye", "pinky", "index", "thumb")
BODY = tuple(i for i, name in enumerate(LANDMARKS) if not any(part in name for part in _LEFT_OUT) or "foot" in name)
"""Landmarks that views are turned by: nose, ears, the joints of arms and legs, heels and toes."""

_SWAP_GAIN = 0.8
"""Left and right are exchanged in a view if that brings it this much nearer to the other views."""

_STANDING = 20
"""Instants of a sequence that the camera's own vertical weighs as much as, when the body's axis tells the vertical."""

_MAX_TILT = 60.0
"""Degrees between a camera's own vertical and the one that is believed."""

_STEADY = 20.0
"""Degrees by which the body's axis may vary about its mean, seen from one camera, to tell the vertical."""

Points = Float64[np.ndarray, "n views points 3"]
Weights = Float64[np.ndarray, "n views points"]
Rotations = Float64[np.ndarray, "n views 3 3"]
"""From the axes of a view to common ones: ``common = view @ rotation``."""


@dataclass(frozen=True, eq=False)
class FusedLandmarks:
    """One body for each of n instants, made of all its views."""

    points: Float64[np.ndarray, "n 33 3"]
    """Millimetres, +Z up, the middle of the hips at 0; NaN where no view has the landmark."""
    distance: Float64[np.ndarray, "n views 33"]
    """How far each view's landmarks lie from the fused ones in mm, depth counted less; NaN where missing."""
    rotation: Rotations
    """From the axes of a view's camera to the fused ones: ``fused = view @ rotation``; NaN where missing."""
    swapped: Int64[np.ndarray, " views"]
    """In how many instants left and right of a view were exchanged."""


def fuse_views(landmarks: ViewLandmarks) -> FusedLandmarks:
    """Turn the views of each instant onto each other, average them robustly, and put the result upright.

    An instant with a single view gets that view's landmarks. Left and right that a detector confuses in one view, as it
    does when it takes a back for a front, are put right if the other views tell.
    """
    seen = landmarks.seen
    known = np.isfinite(landmarks.world).all(axis=3)
    points = np.where(known[..., None], landmarks.world, 0.0).astype(np.float64)
    weight = np.clip(landmarks.visibility, LEAST_VISIBLE, 1).astype(np.float64) * known
    points, weight, swapped = _with_sides_put_right(points, weight)
    fused, rotation, distance = _fused(points, weight)
    turn = upright(landmarks, fused, rotation)
    fused, rotation = fused @ turn, rotation @ turn[:, None]
    hips = fused[:, [LANDMARKS.index("left_hip"), LANDMARKS.index("right_hip")]].mean(axis=1)
    fused = np.where(known.any(axis=1)[..., None], fused - hips[:, None], np.nan)
    return FusedLandmarks(
        points=fused,
        distance=np.where(known, distance, np.nan),
        rotation=np.where(seen[..., None, None], rotation, np.nan),
        swapped=swapped,
    )


def procrustes(
    points: Float64[np.ndarray, "*#n points 3"],
    onto: Float64[np.ndarray, "*#n points 3"],
    weight: Float64[np.ndarray, "*#n points"],
) -> tuple[Float64[np.ndarray, "*#n 3 3"], Float64[np.ndarray, "*#n 1 3"]]:
    """Return the rotation and shift, ``points @ rotation + shift``, that bring points nearest to others.

    Reference:
        Kabsch, "A solution for the best rotation to relate two sets of vectors", 1976; the determinant keeps mirror
        images out.
    """
    weight = weight[..., None]
    total = np.maximum(weight.sum(axis=-2, keepdims=True), 1e-9)
    centre, goal = ((part * weight).sum(axis=-2, keepdims=True) / total for part in (points, onto))
    u, _, vt = np.linalg.svd(np.swapaxes((points - centre) * weight, -1, -2) @ (onto - goal))
    sign = np.ones((*u.shape[:-2], 1, 3))
    sign[..., 0, 2] = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    rotation = (u * sign) @ vt
    return rotation, goal - centre @ rotation


def pair_distances(points: Points, weight: Weights) -> Float64[np.ndarray, "n views views"]:
    """Return the root mean square distance in mm of each two views, after turning one onto the other; NaN if none."""
    n, views = points.shape[:2]
    distances = np.full((n, views, views), np.nan)
    for a in range(views):
        for b in range(a + 1, views):
            both = weight[:, a] * weight[:, b]
            rotation, shift = procrustes(points[:, a], points[:, b], both)
            squares = np.square(points[:, a] @ rotation + shift - points[:, b]).sum(axis=2)
            total = both.sum(axis=1)
            distance = np.sqrt((squares * both).sum(axis=1) / np.maximum(total, 1e-9))
            distances[:, a, b] = distances[:, b, a] = np.where(total > 0, distance, np.nan)
    return distances


def upright(
    landmarks: ViewLandmarks, fused: Float64[np.ndarray, "n 33 3"], rotation: Rotations
) -> Float64[np.ndarray, "n 3 3"]:
    """Return rotations, ``points @ rotation``, that turn fused bodies until +Z is up.

    Where the camera stands still and the person stands most of the time, whatever way they turn, the body's axis,
    averaged over a sequence and seen from the camera, is the vertical. Otherwise the camera's own vertical is taken.
    Each view has an opinion, and the middle one of them is believed.
    """
    shoulders, ankles = (
        fused[:, [LANDMARKS.index(f"{side}_{part}") for side in ("left", "right")]].mean(axis=1)
        for part in ("shoulder", "ankle")
    )
    axis = _unit(shoulders - ankles)
    seen = landmarks.seen
    up = np.zeros((*seen.shape, 3))
    instants = landmarks.instants
    for key in {*zip(instants.subject.tolist(), instants.sequence.tolist(), strict=True)}:
        those = (instants.subject == key[0]) & (instants.sequence == key[1])
        for view in range(seen.shape[1]):
            chosen = those & seen[:, view]
            in_view = np.einsum("ni,nji->nj", axis[chosen], rotation[chosen, view])
            up[chosen, view] = _vertical(in_view) @ rotation[chosen, view]
    z = _middle_direction(up, seen)
    first = rotation[np.arange(len(seen)), seen.argmax(axis=1)]
    x = _unit(first[:, 0] - (first[:, 0] * z).sum(axis=1, keepdims=True) * z)
    return np.stack([x, np.cross(z, x), z], axis=2)


def _vertical(axis: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, " 3"]:
    """Return the upward direction in a camera's axes, from the axis of the body there over a sequence."""
    own = np.array([0.0, -1.0, 0.0])
    mean = _middle_direction(axis[None], np.ones((1, len(axis)), bool))[0] if len(axis) else own
    varies = np.degrees(np.median(np.arccos(np.clip(axis @ mean, -1, 1)))) if len(axis) else 0.0
    if varies > _STEADY or mean @ own < np.cos(np.radians(_MAX_TILT)):
        return own
    return _unit(len(axis) * mean + _STANDING * own)


def _middle_direction(
    directions: Float64[np.ndarray, "n views 3"], seen: Bool[np.ndarray, "n views"]
) -> Float64[np.ndarray, "n 3"]:
    """Return the direction with the least sum of distances to others (Weiszfeld); one wrong one changes little."""
    weight = seen[..., None].astype(np.float64)
    middle = _unit((directions * weight).sum(axis=1))
    for _ in range(10):
        apart = np.linalg.norm(directions - middle[:, None], axis=2, keepdims=True)
        middle = _unit((directions * weight / np.maximum(apart, 0.1)).sum(axis=1))
    return middle


def _fused(points: Points, weight: Weights) -> tuple[Float64[np.ndarray, "n 33 3"], Rotations, Weights]:
    """Turn and average from the view that is nearest to the others; return the average, the rotations and distances."""
    body = list(BODY)
    apart = np.minimum(np.nan_to_num(pair_distances(points[:, :, body], weight[:, :, body]), nan=200.0), 200.0)
    start = np.where(weight.any(axis=2), apart.sum(axis=2), np.inf).argmin(axis=1)
    mean = points[np.arange(len(points)), start]
    robust = weight
    rotation, distance = np.zeros((*points.shape[:2], 3, 3)), np.zeros_like(weight)
    for _ in range(ROUNDS):
        rotation, _ = procrustes(points[:, :, body], mean[:, None, body], robust[:, :, body])
        mean, distance = _averaged(points, robust, rotation, mean)
        robust = weight * np.minimum(1.0, OUTLYING / np.maximum(distance, 1e-9))
    return mean, rotation, distance


def _averaged(
    points: Points, weight: Weights, rotation: Rotations, mean: Float64[np.ndarray, "n 33 3"]
) -> tuple[Float64[np.ndarray, "n 33 3"], Weights]:
    """Average turned views, each along the axes in which it knows most; return also how far each lies from that.

    Args:
        points: Along the axes of each view.
        weight: Of each view's landmarks.
        rotation: From the views to common axes.
        mean: The average so far, in any common axes; it tells the shift of views that lack landmarks.
    """
    turned = points @ rotation
    axes = np.array([1.0, 1.0, DEPTH_WEIGHT])
    precision = np.swapaxes(rotation, -1, -2) @ (axes[:, None] * rotation)
    body = np.isin(np.arange(weight.shape[2]), BODY) * weight
    share = (body / np.maximum(body.sum(axis=2, keepdims=True), 1e-9))[..., None]
    turned = turned - (turned * share).sum(axis=2, keepdims=True)
    for _ in range(2):
        summed = np.einsum("nvk,nvij->nkij", weight, precision) + 1e-9 * np.eye(3)
        right = np.einsum("nvk,nvij,nvkj->nki", weight, precision, turned)
        mean = np.linalg.solve(summed, right[..., None])[..., 0]
        turned = turned + ((mean[:, None] - turned) * share).sum(axis=2, keepdims=True)
    apart = (turned - mean[:, None]) @ np.swapaxes(rotation, -1, -2)
    distance: Weights = np.sqrt((np.square(apart) * axes).sum(axis=3))
    return mean, distance


def _with_sides_put_right(points: Points, weight: Weights) -> tuple[Points, Weights, Int64[np.ndarray, " views"]]:
    """Exchange left and right, and front and back, of views that agree far better with the others then.

    A detector that takes a back for a front sees each joint in the right place of the image, calls left what is right,
    and gets the sign of all depths wrong.
    """
    body, mirror = list(BODY), list(MIRROR)
    fused, _, distance = _fused(points, weight)
    other, other_weight = points[:, :, mirror] * [1.0, 1.0, -1.0], weight[:, :, mirror]
    turn, shift = procrustes(other[:, :, body], fused[:, None, body], other_weight[:, :, body])
    apart = ((other @ turn + shift) - fused[:, None]) @ np.swapaxes(turn, -1, -2)
    exchanged = np.sqrt((np.square(apart) * [1.0, 1.0, DEPTH_WEIGHT]).sum(axis=3))

    def mean_of(distances: Weights, weights: Weights) -> Float64[np.ndarray, "n views"]:
        capped = np.minimum(distances, 200.0)[:, :, body] * weights[:, :, body]
        mean: Float64[np.ndarray, "n views"] = capped.sum(axis=2) / np.maximum(weights[:, :, body].sum(axis=2), 1e-9)
        return mean

    swap = mean_of(exchanged, other_weight) < _SWAP_GAIN * mean_of(distance, weight)
    # With two views nobody can tell which of them is right.
    swap &= (weight.any(axis=2).sum(axis=1) > 2)[:, None]
    points = np.where(swap[..., None, None], other, points)
    return points, np.where(swap[..., None], other_weight, weight), swap.sum(axis=0)


def _unit(vectors: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
    unit: Float64[np.ndarray, "*n 3"] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return unit
