"""A first guess of where the cameras stand, from what the detector says in 2D and 3D."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float64

from mcss.calibration.adjustment import AdjustmentSettings, with_joints
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import Scene, Sightings
from mcss.errors import CalibrationError

CLEAR = 0.5
"""Joints count for the first guess if the detector is at least this sure of them."""

LEAST_POINTS = 60
"""Number of joints, over all instants, that two views must share."""

MOST_POINTS = 1500
"""More joints than these do not make a better first guess."""

NEAR = 0.12
"""A joint agrees with a camera if it lies within this share of the person's height in the image."""

TRIES = 1500
"""Guesses from a few joints each, of which the one with which most joints agree is kept."""


@dataclass(frozen=True, eq=False)
class Placed:
    """Cameras placed around the person, in the axes of one of them."""

    scene: Scene
    agreeing: Float64[np.ndarray, " views"]
    """Share of each view's joints that agree with its camera."""
    reference: int
    """The view whose axes are those of the room."""


def placed(rig: Rig, sightings: Sightings, settings: AdjustmentSettings) -> Placed:
    """Guess the cameras' places; `rig` supplies what is known, that is names and intrinsics.

    The person is put into the space before one camera by their own 3D landmarks, and every other camera is placed by
    how it sees the same joints, over all instants together (PnP with RANSAC). Each view is tried as the first camera,
    and the guess with which most joints agree is taken.

    Raises:
        CalibrationError: Two views never see the person at the same time.
    """
    shared = _shared(sightings)
    guesses = []
    for first in np.argsort(-shared.sum(axis=1), kind="stable")[: max(2, min(len(rig), 4))]:
        if (np.delete(shared[first], first) < LEAST_POINTS).any():
            continue
        turned, agreeing = _around(rig, sightings, int(first))
        guesses.append((float(np.delete(agreeing, first).mean()), int(first), turned, agreeing))
    if not guesses:
        raise CalibrationError(_no_overlap(rig, shared))
    _, first, turned, agreeing = max(guesses, key=lambda guess: guess[0])
    found = with_joints(turned, sightings, settings)
    return Placed(found.scene, agreeing, first)


def _shared(sightings: Sightings) -> Float64[np.ndarray, "views views"]:
    clear = (sightings.weight >= CLEAR).astype(np.float64)
    return np.asarray(np.einsum("nvj,nwj->vw", clear, clear), np.float64)


def _no_overlap(rig: Rig, shared: Float64[np.ndarray, "views views"]) -> str:
    alone = shared - np.diag(np.diag(shared))
    v, w = np.unravel_index(int((alone + np.diag(np.full(len(rig), np.inf))).argmin()), shared.shape)
    return (
        f"the views {rig.views[v]} and {rig.views[w]} have {int(shared[v, w])} joints of the person in common over all "
        f"instants, expected at least {LEAST_POINTS}: leave one of them out, or use footage in which all cameras see "
        "the person"
    )


def _around(rig: Rig, sightings: Sightings, first: int) -> tuple[Rig, Float64[np.ndarray, " views"]]:
    """Place all cameras around the person as the first one sees them."""
    rays = np.nan_to_num(rig.rays(sightings.pixels))
    body = (
        sightings.world[:, first]
        + before_camera(sightings.world[:, first], rays[:, first], sightings.weight[:, first])[:, None]
    )
    rotation, translation = np.tile(np.eye(3), (len(rig), 1, 1)), np.zeros((len(rig), 3))
    agreeing = np.ones(len(rig))
    for v in range(len(rig)):
        both = (sightings.weight[:, [first, v]] >= CLEAR).all(axis=1) & (body[..., 2] > 1)
        if v != first:
            turn, shift, agreeing[v] = camera_before(body, rays[:, v], both)
            rotation[v], translation[v] = turn, shift
    return Rig(rig.views, rotation, translation, rig.intrinsics, rig.distortion, rig.image_size), agreeing


def before_camera(
    body: Float64[np.ndarray, "n joints 3"],
    rays: Float64[np.ndarray, "n joints 2"],
    weight: Float64[np.ndarray, "n joints"],
) -> Float64[np.ndarray, "n 3"]:
    """How far each body (mm, along the camera's axes) must be moved to lie on its rays; linear least squares."""
    rows = np.zeros((*body.shape[:2], 2, 3))
    rows[..., 0, 0] = rows[..., 1, 1] = 1
    rows[..., 2] = -rays
    right = rays * body[..., 2:] - body[..., :2]
    strength = weight[..., None] ** 2
    system = np.einsum("njai,njab->nib", rows * strength[..., None], rows) + np.eye(3) * 1e-9
    return np.asarray(
        np.linalg.solve(system, np.einsum("njai,nja->ni", rows * strength[..., None], right)[..., None])[..., 0]
    )


def camera_before(
    body: Float64[np.ndarray, "n joints 3"],
    rays: Float64[np.ndarray, "n joints 2"],
    use: Bool[np.ndarray, "n joints"],
    tries: int = TRIES,
) -> tuple[Float64[np.ndarray, "3 3"], Float64[np.ndarray, " 3"], float]:
    """Place a camera by the rays along which it sees known joints; also the share of joints that agree with it."""
    if use.sum() < LEAST_POINTS:
        return np.eye(3), np.array([0.0, 0.0, 1e4]), 0.0
    heights = np.array([np.ptp(r[u], axis=0).max() for r, u in zip(rays, use, strict=True) if u.sum() > 3])
    near = NEAR * float(np.median(heights))
    points, seen = body[use], rays[use]
    chosen = np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS)).astype(int)
    cv2.setRNGSeed(0)  # the same cameras every time
    found, turn, shift, inside = cv2.solvePnPRansac(
        points[chosen],
        seen[chosen],
        np.eye(3),
        None,
        iterationsCount=tries,
        reprojectionError=near,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or inside is None or len(inside) < 6:
        return np.eye(3), np.array([0.0, 0.0, 1e4]), 0.0
    kept = chosen[inside[:, 0]]
    turn, shift = cv2.solvePnPRefineLM(points[kept], seen[kept], np.eye(3), None, turn, shift)
    return cv2.Rodrigues(turn)[0], shift[:, 0], len(inside) / len(chosen)
