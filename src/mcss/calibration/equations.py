"""The least-squares equations that tie cameras and joints to what was seen, linearised about a guess.

Three kinds of residuals, each divided by its standard deviation and judged by a Cauchy loss:

* a joint's pixel, against where the camera sees the joint;
* how much farther away one end of a bone is than the other, against the depth that the detector says. It settles what
  the pixels leave open where cameras stand close together or face each other. The detector's depths lean with the tilt
  of the camera, by 4 to 8 degrees on real footage; so they move joints, but no cameras;
* the length of a bone, against its usual length.

No residual joins two instants, so the joints of an instant are one small block of the normal equations, and the
cameras are the rest, to which the system is reduced (the Schur complement).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mcss.calibration.body import BONES, RIGID
from mcss.calibration.rig import MIN_DEPTH, Rig
from mcss.calibration.sightings import Scene, Sightings

PIXEL_SIGMA = 24.0
"""Standard deviation of a joint that is in full sight, in mm at the person's distance."""

DEPTH_SIGMA = 100.0
"""Standard deviation of the detector's depth along a bone, in mm."""

LENGTH_SIGMA = 15.0
"""Standard deviation of the length of a rigid bone, in mm."""

TAIL = 3.0
"""Residuals beyond so many standard deviations count less and less."""

CAMERA = 6
"""Unknowns of a camera: how it turns, and how it moves."""


@dataclass(frozen=True, eq=False)
class Equations:
    """Normal equations of n instants with k = 3 · joints unknowns each and p unknowns of the cameras."""

    cost: float
    blocks: Float64[np.ndarray, "n k k"]
    slopes: Float64[np.ndarray, "n k"]
    coupling: Float64[np.ndarray, "n k p"]
    system: Float64[np.ndarray, "n p p"]
    gradient: Float64[np.ndarray, "n p"]
    agreement: Float64[np.ndarray, "n views joints"]
    """From 0, an outlier, to 1: how well the pixel fits."""


def robust(squares: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of squared residuals (in standard deviations), and the sum of their losses."""
    ratio = squares / TAIL**2
    return 1 / (1 + ratio), float(TAIL**2 * np.log1p(ratio).sum())


def pixel_sigma(rig: Rig, joints: Float64[np.ndarray, "n joints 3"]) -> Float64[np.ndarray, " views"]:
    """The standard deviation of a pixel in each view."""
    depth = np.median(rig.in_camera(joints)[..., 2], axis=(0, 2))
    return np.asarray(PIXEL_SIGMA * rig.focal / np.maximum(depth, MIN_DEPTH))


def equations(
    scene: Scene,
    sightings: Sightings,
    rays: Float64[np.ndarray, "n views joints 2"],
    *,
    cameras: bool,
    depth_sigma: float = DEPTH_SIGMA,
    length_sigma: float = LENGTH_SIGMA,
) -> Equations:
    """Linearise all residuals.

    Args:
        scene: The guess.
        sightings: What was seen.
        rays: Its pixels as rays, by the cameras' intrinsics.
        cameras: Whether the cameras are unknown too, first camera included: turn and shift of each, and at last how
            much longer all focal lengths are, as a logarithm. Without them these parts have size 0.
        depth_sigma: Standard deviation of the detector's depths.
        length_sigma: Standard deviation of the lengths of bones.
    """
    rig, joints = scene.rig, scene.joints
    n, views, count = sightings.weight.shape
    seen = rig.in_camera(joints)
    depth = np.maximum(seen[..., 2], MIN_DEPTH)
    flat = seen[..., :2] / depth[..., None]
    focal = rig.focal[None, :, None]
    residual = focal[..., None] * (flat - rays)
    certainty = sightings.weight / pixel_sigma(rig, joints)[None, :, None]
    agreement, cost = robust((residual**2).sum(axis=-1) * certainty**2)
    weight = certainty**2 * agreement

    by_point = np.zeros((n, views, count, 2, 3))  # derivative by the point along the camera's axes
    by_point[..., 0, 0] = by_point[..., 1, 1] = focal / depth
    by_point[..., 2] = -focal[..., None] * flat / depth[..., None]
    by_joint = by_point @ rig.rotation[None, :, None]
    weighted = by_joint * weight[..., None, None]

    blocks = np.zeros((n, count, 3, count, 3))
    diagonal = np.arange(count)
    own = np.einsum("nvjab,nvjad->njbd", weighted, by_joint)
    slopes = np.einsum("nvjab,nvja->njb", weighted, residual)

    pair, pull, bone_cost = _bones(scene, sightings, depth_sigma, length_sigma)
    blocks[:, diagonal, :, diagonal, :] += own.transpose(1, 0, 2, 3)
    for b, (i, j) in enumerate(BONES.tolist()):
        blocks[:, i, :, i] += pair[:, b]
        blocks[:, j, :, j] += pair[:, b]
        blocks[:, i, :, j] -= pair[:, b]
        blocks[:, j, :, i] -= pair[:, b]
        slopes[:, i] += pull[:, b]
        slopes[:, j] -= pull[:, b]

    unknowns = views * CAMERA + 1 if cameras else 0
    coupling = np.zeros((n, count, 3, unknowns))
    system, gradient = np.zeros((n, unknowns, unknowns)), np.zeros((n, unknowns))
    for v in range(views if cameras else 0):
        moved = np.einsum("ij,nkj->nki", rig.rotation[v], joints)
        turn = -by_point[:, v] @ _cross_matrices(moved)
        stretch = (focal[:, v, :, None] * flat[:, v])[..., None]
        columns = np.concatenate([turn, by_point[:, v], stretch], axis=-1)  # n joints 2 7
        place = np.r_[v * CAMERA : (v + 1) * CAMERA, unknowns - 1]
        heavy = columns * weight[:, v, :, None, None]
        coupling[..., place] += np.einsum("njab,njad->njbd", weighted[:, v], columns)
        system[:, place[:, None], place] += np.einsum("njab,njad->nbd", heavy, columns)
        gradient[:, place] += np.einsum("njab,nja->nb", heavy, residual[:, v])
    k = 3 * count
    return Equations(
        cost=cost + bone_cost,
        blocks=blocks.reshape(n, k, k),
        slopes=slopes.reshape(n, k),
        coupling=coupling.reshape(n, k, unknowns),
        system=system,
        gradient=gradient,
        agreement=agreement,
    )


def _bones(
    scene: Scene, sightings: Sightings, depth_sigma: float, length_sigma: float
) -> tuple[Float64[np.ndarray, "n bones 3 3"], Float64[np.ndarray, "n bones 3"], float]:
    """What the depths and lengths of bones add to the normal equations of their two ends, with opposite signs."""
    first, second = BONES.T
    across = scene.joints[:, first] - scene.joints[:, second]
    length = np.maximum(np.linalg.norm(across, axis=-1), 1e-6)
    direction = across / length[..., None]
    excess = (length - scene.lengths)[:, :RIGID] / length_sigma
    weights, cost = robust(excess**2)
    rigid = np.zeros(length.shape)
    rigid[:, :RIGID] = weights
    pair = (rigid / length_sigma**2)[..., None, None] * direction[..., None] * direction[..., None, :]
    pull = (rigid / length_sigma**2 * (length - scene.lengths))[..., None] * direction
    ends = np.sqrt(sightings.weight[..., first] * sightings.weight[..., second])
    hips = scene.rig.in_camera(scene.joints[:, :2]).mean(axis=2)
    ahead = hips / np.linalg.norm(hips, axis=-1, keepdims=True)
    away = np.einsum("nvi,vij->nvj", ahead, scene.rig.rotation)  # the line of sight, along the axes of the room
    residual = (np.einsum("nbk,nvk->nvb", across, away) - sightings.depths) * ends / depth_sigma
    weights, depth_cost = robust(residual**2)
    strength = weights * ends / depth_sigma
    pair += np.einsum("nvb,nvi,nvj->nbij", strength * ends / depth_sigma, away, away)
    pull += np.einsum("nvb,nvi->nbi", strength * residual, away)
    return pair, pull, cost + depth_cost


def _cross_matrices(vectors: Float64[np.ndarray, "n joints 3"]) -> Float64[np.ndarray, "n joints 3 3"]:
    """The matrices that multiply by the cross product with each vector."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
