"""Left and right, which a detector exchanges now and then in one view, put right by the other views."""

import numpy as np
from jaxtyping import Bool, Float64

from mcss.calibration.body import ARMS, JOINTS, LEGS, OTHER_SIDE
from mcss.calibration.equations import TAIL, pixel_sigma
from mcss.calibration.rig import Rig
from mcss.calibration.sightings import Sightings

GROUPS: tuple[tuple[int, ...], ...] = (tuple(range(len(JOINTS))), ARMS, LEGS)
"""Joints that are exchanged together: all, both arms, or both legs."""

GAIN = 0.6
"""An exchange must leave at most this share of the loss."""

LEAST_LOSS = 1.5
"""Mean loss of a group's joints below which nothing is exchanged."""


def swapped_sides(
    rig: Rig, joints: Float64[np.ndarray, "n joints 3"], sightings: Sightings
) -> Bool[np.ndarray, "n views joints"]:
    """Where left and right of a view must be exchanged for it to agree with the joints in the room."""
    rays = np.nan_to_num(rig.rays(sightings.pixels))
    seen = rig.in_camera(joints)
    flat = seen[..., :2] / np.maximum(seen[..., 2:], 1.0)
    scale = rig.focal / pixel_sigma(rig, joints)

    def loss(points: np.ndarray, weight: np.ndarray) -> np.ndarray:
        squares = ((flat - points) ** 2).sum(axis=-1) * (scale[None, :, None] * weight) ** 2
        return np.asarray(np.log1p(squares / TAIL**2) * TAIL**2)

    plain = loss(rays, sightings.weight)
    exchanged = loss(rays[:, :, OTHER_SIDE], sightings.weight[:, :, OTHER_SIDE])
    swapped = np.zeros(sightings.weight.shape, bool)
    for group in GROUPS:
        index = list(group)
        before, after = plain[..., index].mean(axis=-1), exchanged[..., index].mean(axis=-1)
        better = (before > LEAST_LOSS) & (after < GAIN * before) & sightings.seen & ~swapped.any(axis=-1)
        swapped[..., index] |= better[..., None]
    return swapped
