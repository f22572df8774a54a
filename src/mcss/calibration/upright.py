"""Which way is up, where the floor is, and how large things are, from the person alone."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from mcss.calibration.body import ANKLES, FEET, HIPS, MEAN_STATURE, SHOULDERS, stature_of
from mcss.calibration.rig import Rig

STRAIGHT = 0.96
"""A person stands whose shoulders are at least this share of their greatest distance from the ankles."""

LEAN_SIGMA = 0.04
"""Standard deviation of the direction of a standing person from the vertical, in radians."""

FLOOR_SIGMA = 40.0
"""Standard deviation of the lowest point of the feet over the floor, in mm."""

FLOOR_COUNT = 20
"""The feet of a whole recording tell as much about the floor as so many independent points."""

HEEL_HEIGHT = 30.0
"""Height in mm of heels and toes, as a detector marks them, over the floor."""

LINE_LENGTH = 300.0
"""Standard deviation in mm of the places of a person who goes somewhere."""

LINE_BREADTH = 0.1
"""Standard deviation across a path, as a share of that along it, below which the path is a line."""


@dataclass(frozen=True, eq=False)
class Upright:
    """How to go from the axes in which cameras were found to the room: ``scale * turn @ (x - origin)``."""

    turn: Float64[np.ndarray, "3 3"]
    origin: Float64[np.ndarray, " 3"]
    scale: float

    def points(self, points: Float64[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 3"]:
        """Points in the room, in mm, +Z up, the floor at 0."""
        return np.asarray(self.scale * (points - self.origin) @ self.turn.T)


def upright(
    rig: Rig,
    joints: Float64[np.ndarray, "n joints 3"],
    confidence: Float64[np.ndarray, "n joints"],
    height: float | None,
) -> Upright:
    """Find the room: the vertical from how the person stands and from where the feet go, the scale from the stature.

    The middle of the person's path is the origin, and the first camera looks along +Y.

    Args:
        rig: The cameras.
        joints: The person, in any unit near mm.
        confidence: How sure the joints are.
        height: Stature of the person in mm; None for the mean of adults.
    """
    scale = (MEAN_STATURE if height is None else height) / stature_of(joints, confidence)
    up = standing_direction(joints, confidence)
    turn = _turn_to(up, rig.rotation[0, 2])
    feet = joints[:, FEET] @ turn.T * scale
    sure = confidence[:, FEET] > 0.2
    slope, _ = floor_plane(feet, sure)
    level = np.array([-slope[0], -slope[1], 1.0])
    turn = _turn_to(turn.T @ (level / np.linalg.norm(level)), rig.rotation[0, 2])
    hips = np.median(joints[:, HIPS].mean(axis=1), axis=0) @ turn.T * scale
    feet = joints[:, FEET] @ turn.T * scale
    lowest = _lowest(feet, sure)
    bottom = float(np.median(lowest)) if len(lowest) else float(feet[..., 2].min())
    origin = turn.T @ np.array([hips[0], hips[1], bottom - HEEL_HEIGHT]) / scale
    return Upright(turn, origin, scale)


def standing_direction(
    joints: Float64[np.ndarray, "n joints 3"], confidence: Float64[np.ndarray, "n joints"]
) -> Float64[np.ndarray, " 3"]:
    """The unit vector from ankles to shoulders of a person who stands straight."""
    across = joints[:, SHOULDERS].mean(axis=1) - joints[:, ANKLES].mean(axis=1)
    length = np.linalg.norm(across, axis=-1)
    sure = confidence[:, [*SHOULDERS, *ANKLES]].min(axis=1) > 0.1
    sure = sure if sure.any() else np.ones(len(joints), bool)
    straight = sure & (length >= STRAIGHT * np.quantile(length[sure], 0.95))
    directions = across[straight] / length[straight, None]
    middle = np.median(directions, axis=0)
    for _ in range(10):
        middle /= np.linalg.norm(middle)
        away = np.linalg.norm(directions - middle, axis=1)
        middle = (directions / (1 + (away / 0.1) ** 2)[:, None]).sum(axis=0)
    return np.asarray(middle / np.linalg.norm(middle))


def on_a_line(joints: Float64[np.ndarray, "n joints 3"]) -> bool:
    """Whether a person walks along one line, in a room with +Z up: there and back, and nowhere beside it."""
    path = joints[:, HIPS].mean(axis=1)[:, :2]
    spread = np.linalg.svd(path - path.mean(axis=0), compute_uv=False) / np.sqrt(len(path))
    return bool(spread[0] > LINE_LENGTH and spread[1] < LINE_BREADTH * spread[0])


def floor_plane(feet: Float64[np.ndarray, "n feet 3"], sure: np.ndarray) -> tuple[Float64[np.ndarray, " 2"], float]:
    """How the floor rises along x and y, and its height at the origin, in a room that is nearly upright.

    The slope stays near 0 where the feet say little about it, as they do if the person stays in one place.
    """
    lowest = _lowest_points(feet, sure)
    if len(lowest) < 3:
        return np.zeros(2), 0.0
    centre = np.median(lowest, axis=0)
    x, z = lowest[:, :2] - centre[:2], lowest[:, 2] - centre[2]
    slope, base = np.zeros(2), 0.0
    for _ in range(10):
        residual = z - x @ slope - base
        # Feet are lifted off the floor, but never below it: what is above counts less.
        weight = 1 / (1 + (residual / np.where(residual > 0, FLOOR_SIGMA, 2 * FLOOR_SIGMA)) ** 2)
        weight *= FLOOR_COUNT / max(weight.sum(), 1e-9)
        rows = np.concatenate([x, np.ones((len(x), 1))], axis=1) / FLOOR_SIGMA
        system = (rows * weight[:, None]).T @ rows + np.diag([1 / LEAN_SIGMA**2, 1 / LEAN_SIGMA**2, 0])
        solved = np.linalg.solve(system, (rows * weight[:, None]).T @ (z / FLOOR_SIGMA))
        slope, base = solved[:2], float(solved[2])
    return slope, float(centre[2] + base - centre[:2] @ slope)


def _lowest_points(feet: Float64[np.ndarray, "n feet 3"], sure: np.ndarray) -> Float64[np.ndarray, "k 3"]:
    height = np.where(sure, feet[..., 2], np.inf)
    lowest = height.argmin(axis=1)
    there = np.isfinite(height.min(axis=1))
    return np.asarray(feet[np.arange(len(feet)), lowest][there])


def _lowest(feet: Float64[np.ndarray, "n feet 3"], sure: np.ndarray) -> Float64[np.ndarray, " k"]:
    heights = _lowest_points(feet, sure)[:, 2]
    return np.asarray(heights[heights <= np.quantile(heights, 0.5)] if len(heights) else heights)


def _turn_to(up: Float64[np.ndarray, " 3"], ahead: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "3 3"]:
    """The rotation whose rows are x, y and z of a room with `up` along +Z, and `ahead`, seen from above, along +Y."""
    forward = ahead - up * (ahead @ up)
    if np.linalg.norm(forward) < 1e-3:
        forward = np.cross(up, [1.0, 0, 0])
    forward = forward / np.linalg.norm(forward)
    return np.stack([np.cross(forward, up), forward, up])
