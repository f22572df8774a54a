"""Left and right, which a detector exchanges now and then in one view, put right by the other views."""

from collections.abc import Callable
from itertools import product

import numpy as np
from jaxtyping import Bool, Float64

from mcss.calibration.adjustment import from_rays
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


MOST_TRIED = 5
"""With more views than these, only exchanges in one or two views are tried together."""

NEIGHBOURS = 40
"""Instants before and after among which the nearest that is not in doubt tells which side is left."""


def swapped_sides(
    rig: Rig, joints: Float64[np.ndarray, "n joints 3"], sightings: Sightings
) -> Bool[np.ndarray, "n views joints"]:
    """Where left and right of a view must be exchanged for it to agree with the joints in the room.

    Args:
        rig: The cameras.
        joints: The joints of every instant, from all views.
        sightings: What was seen, in the order of time.
    """
    rays = np.nan_to_num(rig.rays(sightings.pixels))
    scale = rig.focal / pixel_sigma(rig, joints)

    def loss(points: np.ndarray, seen: np.ndarray, weight: np.ndarray) -> np.ndarray:
        flat = rig.in_camera(points)
        flat = flat[..., :2] / np.maximum(flat[..., 2:], 1.0)
        squares = ((flat - seen) ** 2).sum(axis=-1) * (scale[None, :, None] * weight) ** 2
        return np.asarray(np.log1p(squares / TAIL**2) * TAIL**2)

    plain = loss(joints, rays, sightings.weight)
    exchanged = loss(joints, rays[:, :, OTHER_SIDE], sightings.weight[:, :, OTHER_SIDE])
    swapped = np.zeros(sightings.weight.shape, bool)
    for group in GROUPS:
        index = list(group)
        before, after = plain[..., index].mean(axis=-1), exchanged[..., index].mean(axis=-1)
        better = (before > LEAST_LOSS) & (after < GAIN * before) & sightings.seen & ~swapped.any(axis=-1)
        swapped[..., index] |= better[..., None]
    doubtful = np.flatnonzero(np.where(swapped, exchanged, plain).mean(axis=(1, 2)) > LEAST_LOSS)
    if len(doubtful) and len(rig) > 2:
        sure = np.setdiff1d(np.flatnonzero(~swapped.any(axis=(1, 2))), doubtful)
        some = sightings.take(doubtful)
        swapped[doubtful] = _together(rig, some, rays[doubtful], loss, doubtful, sure, joints, swapped[doubtful])
    return swapped


def _together(
    rig: Rig,
    some: Sightings,
    rays: np.ndarray,
    loss: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    place: np.ndarray,
    sure: np.ndarray,
    joints: np.ndarray,
    found: np.ndarray,
) -> np.ndarray:
    """Exchange the sides of several views at once, where the joints of no other choice fit half as well."""
    views = len(rig)
    choices = [c for c in product((False, True), repeat=views) if not c[0]]
    if views > MOST_TRIED:
        choices = [c for c in choices if sum(c) <= 2]
    losses, bodies = [], []
    for choice in choices:
        mask = np.broadcast_to(np.array(choice)[None, :, None], some.weight.shape)
        seen = np.where(mask[..., None], rays[:, :, OTHER_SIDE], rays)
        weight = np.where(mask, some.weight[:, :, OTHER_SIDE], some.weight)
        points = from_rays(rig, seen, weight)
        losses.append(loss(points, seen, weight).mean(axis=(1, 2)))
        bodies.append(points)
    table = np.stack(losses)
    best = table[1:].argmin(axis=0) + 1
    result = found.copy()
    for i in range(len(place)):
        if table[best[i], i] >= GAIN * table[0, i]:
            continue
        mask = np.array(choices[best[i]])
        near = sure[np.abs(sure - place[i]) <= NEIGHBOURS]
        body = bodies[best[i]][i]
        if len(near):
            then = joints[near[np.abs(near - place[i]).argmin()]]
            if np.linalg.norm(_centred(body[OTHER_SIDE]) - _centred(then)) < np.linalg.norm(
                _centred(body) - _centred(then)
            ):
                mask = ~mask
        elif mask.sum() * 2 > views:
            mask = ~mask
        result[i] = mask[:, None]
    return result


def _centred(body: np.ndarray) -> np.ndarray:
    return np.asarray(body - body.mean(axis=0))
