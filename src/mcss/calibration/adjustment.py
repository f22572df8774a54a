"""Adjusting cameras and joints together until they explain what was seen (bundle adjustment), or the joints alone.

Reference:
    Triggs, McLauchlan, Hartley and Fitzgibbon, Bundle adjustment: a modern synthesis, 1999; Levenberg-Marquardt steps
    on the system reduced to the cameras, with weights of a Cauchy loss (iteratively reweighted least squares).
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float64

from mcss.calibration.body import usual_lengths
from mcss.calibration.equations import CAMERA, DEPTH_SIGMA, LENGTH_SIGMA, Equations, equations
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import Scene, Sightings

SMALL = 1e-4
"""A step that changes the cost by less than this share is the last."""


@dataclass(frozen=True)
class AdjustmentSettings:
    """How cameras and joints are adjusted."""

    rounds: int = 30
    """Steps at most."""
    focal_share: float = 0.0
    """Standard deviation of the guessed focal length as a share of it; 0 keeps it."""
    focal_trust: float = 0.01
    """How much the equations count when they are weighed against the guessed focal length: the detector errs in the
    same way from image to image, so that a thousand instants say little more than ten."""
    depth_sigma: float = DEPTH_SIGMA
    """Standard deviation of the detector's depths along bones in mm."""
    length_sigma: float = LENGTH_SIGMA
    """Standard deviation of the lengths of rigid bones in mm."""


@dataclass(frozen=True, eq=False)
class Adjusted:
    """A scene after adjustment."""

    scene: Scene
    agreement: Float64[np.ndarray, "n views joints"]
    """From 0, an outlier, to 1: how well what was seen fits."""
    cost: float


def with_joints(
    rig: Rig,
    sightings: Sightings,
    settings: AdjustmentSettings,
    lengths: Float64[np.ndarray, "n bones"] | None = None,
) -> Adjusted:
    """Find the joints that explain best what cameras saw that stand firm.

    Args:
        rig: The cameras.
        sightings: What was seen; every instant by at least one view.
        settings: How residuals count.
        lengths: The lengths of the bones; those that the joints themselves have if None.
    """
    rays = np.nan_to_num(rig.rays(sightings.pixels))
    joints = from_rays(rig, rays, sightings.weight)
    usual = usual_lengths(joints, sightings.weight.sum(axis=1), sightings.person) if lengths is None else lengths
    return _descended(Scene(rig, joints, usual), sightings, settings, cameras=False, keep_lengths=lengths is not None)


def adjusted(scene: Scene, sightings: Sightings, settings: AdjustmentSettings) -> Adjusted:
    """Adjust cameras and joints together; the first camera stays where it is."""
    return _descended(scene, sightings, settings, cameras=True, keep_lengths=False)


def _descended(
    scene: Scene, sightings: Sightings, settings: AdjustmentSettings, *, cameras: bool, keep_lengths: bool
) -> Adjusted:
    guess = np.log(scene.rig.focal[0])
    damping = 1e-3
    made = _equations(scene, sightings, settings, cameras)
    for _ in range(settings.rounds):
        change = _step(made, scene, settings, guess, damping, cameras)
        other = _moved(scene, *change)
        if not keep_lengths:
            confidence = (sightings.weight * made.agreement).sum(axis=1)
            other = replace(other, lengths=usual_lengths(other.joints, confidence, sightings.person))
        tried = _equations(other, sightings, settings, cameras)
        if tried.cost > made.cost * (1 + SMALL):
            damping *= 10
            if damping > 1e3:
                break
            continue
        small = made.cost - tried.cost < SMALL * made.cost
        scene, made, damping = other, tried, max(damping / 3, 1e-6)
        if small:
            break
    return Adjusted(scene, made.agreement, made.cost)


def _equations(scene: Scene, sightings: Sightings, settings: AdjustmentSettings, cameras: bool) -> Equations:
    rays = np.nan_to_num(scene.rig.rays(sightings.pixels))
    sigmas = {"depth_sigma": settings.depth_sigma, "length_sigma": settings.length_sigma}
    return equations(scene, sightings, rays, cameras=cameras, **sigmas)


def reduced(made: Equations, damping: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Eliminate the joints: the cameras' system and right side by instant, and what joints do with and without them."""
    blocks = made.blocks.copy()
    diagonal = np.arange(blocks.shape[1])
    blocks[:, diagonal, diagonal] = blocks[:, diagonal, diagonal] * (1 + damping) + 1e-9
    solved = np.linalg.solve(blocks, np.concatenate([made.coupling, made.slopes[..., None]], axis=-1))
    by_camera, alone = solved[..., :-1], solved[..., -1]
    system = made.system - np.swapaxes(made.coupling, 1, 2) @ by_camera
    right = -made.gradient + np.einsum("nkp,nk->np", made.coupling, alone)
    return system, right, by_camera, alone


def _step(
    made: Equations, scene: Scene, settings: AdjustmentSettings, guess: float, damping: float, cameras: bool
) -> tuple[np.ndarray, np.ndarray]:
    """How joints and cameras move."""
    systems, rights, by_camera, alone = reduced(made, damping)
    if not cameras:
        return -alone, np.zeros(len(scene.rig) * CAMERA + 1)
    system, right = systems.sum(axis=0), rights.sum(axis=0)
    own = made.system.sum(axis=0)
    free = np.arange(CAMERA, len(right) - (settings.focal_share == 0))
    if settings.focal_share:
        certainty = 1 / (settings.focal_share**2 * settings.focal_trust)
        system[-1, -1] += certainty
        right[-1] -= certainty * (np.log(scene.rig.focal[0]) - guess)
    kept = system[np.ix_(free, free)] + damping * np.diag(np.diag(own)[free])
    change = np.zeros(len(right))
    change[free] = np.linalg.solve(kept, right[free])
    return -alone - by_camera @ change, change


def _moved(scene: Scene, joints: np.ndarray, change: np.ndarray) -> Scene:
    rig = scene.rig
    cameras = change[:-1].reshape(len(rig), CAMERA)
    turns = np.stack([cv2.Rodrigues(turn)[0] for turn in cameras[:, :3]])
    intrinsics = rig.intrinsics.copy()
    intrinsics[:, [0, 1], [0, 1]] *= np.exp(np.clip(change[-1], -0.2, 0.2))
    return replace(
        scene,
        rig=replace(
            rig, rotation=turns @ rig.rotation, translation=rig.translation + cameras[:, 3:], intrinsics=intrinsics
        ),
        joints=scene.joints + joints.reshape(scene.joints.shape),
    )


def from_rays(
    rig: Rig, rays: Float[np.ndarray, "n views joints 2"], weight: Float[np.ndarray, "n views joints"]
) -> Float64[np.ndarray, "n joints 3"]:
    """Points nearest to their rays, each ray counted by its weight (linear triangulation)."""
    lines = np.concatenate([rays, np.ones((*rays.shape[:-1], 1))], axis=-1)
    lines /= np.linalg.norm(lines, axis=-1, keepdims=True)
    lines = np.einsum("vji,nvkj->nvki", rig.rotation, lines)
    across = np.eye(3) - lines[..., None] * lines[..., None, :]
    across = across * (weight**2 + 1e-9)[..., None, None]
    system = across.sum(axis=1)
    system[..., [0, 1, 2], [0, 1, 2]] += 1e-9
    right = np.einsum("nvkij,vj->nki", across, rig.positions)
    return np.asarray(np.linalg.solve(system, right[..., None])[..., 0])
