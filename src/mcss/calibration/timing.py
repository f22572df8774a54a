"""Offsets between the clocks of the cameras, finer than an image, from how joints move."""

import numpy as np
from jaxtyping import Float64, Int

from mcss.calibration.equations import robust
from mcss.calibration.sightings import Scene, Sightings

MOST_SECONDS = 0.1
"""Larger offsets are not a matter of clocks; `mcss sync` finds them."""


def velocities(
    sightings: Sightings, time: Float64[np.ndarray, " n"], sequence: Int[np.ndarray, " n"]
) -> Float64[np.ndarray, "n views joints 2"]:
    """Pixels per second of every joint, by central differences; 0 at the ends of sequences and beside gaps."""
    speed = np.zeros(sightings.pixels.shape)
    if len(sightings) < 3:
        return speed
    gap = time[2:] - time[:-2]
    joined = (sequence[2:] == sequence[:-2]) & (gap > 0)
    known = (sightings.weight[2:] > 0) & (sightings.weight[:-2] > 0) & joined[:, None, None]
    change = (sightings.pixels[2:] - sightings.pixels[:-2]) / np.where(joined, gap, 1.0)[:, None, None, None]
    speed[1:-1] = np.where(known[..., None], change, 0.0)
    return speed


def clock_offsets(
    scene: Scene, sightings: Sightings, speed: Float64[np.ndarray, "n views joints 2"]
) -> tuple[Float64[np.ndarray, " views"], Float64[np.ndarray, " views"]]:
    """How many seconds each view shows the person too late, and the standard errors; the mean over views is 0.

    What a view shows later than the others is displaced from where the others see it, along each joint's movement.
    """
    residual = scene.rig.project(scene.joints) - sightings.pixels
    known = (sightings.weight > 0) & np.isfinite(residual).all(axis=-1)
    residual = np.where(known[..., None], residual, 0.0)
    scale = 1.5 * np.median(np.linalg.norm(residual, axis=-1)[known]) + 1e-9
    weight = sightings.weight * robust((residual**2).sum(axis=-1) / scale**2)[0] * known
    top = (weight[..., None] * speed * residual).sum(axis=(2, 3))
    bottom = (weight[..., None] * speed**2).sum(axis=(2, 3))
    offset = top.sum(axis=0) / np.maximum(bottom.sum(axis=0), 1e-12)
    # Errors of neighbouring images are alike: twenty stretches of the recording count as independent.
    pieces = np.array_split(np.arange(len(top)), min(20, len(top)))
    excess = np.stack([(top[piece] - bottom[piece] * offset).sum(axis=0) for piece in pieces])
    error = np.sqrt((excess**2).sum(axis=0)) / np.maximum(bottom.sum(axis=0), 1e-12)
    return np.asarray(offset - offset.mean()), np.asarray(error)


def in_step(
    sightings: Sightings,
    offsets: Float64[np.ndarray, " views"],
    time: Float64[np.ndarray, " n"],
    sequence: Int[np.ndarray, " n"],
) -> Sightings:
    """What every view would have shown at the common times, between its images where there are offsets."""
    pixels, world, weight = sightings.pixels.copy(), sightings.world.copy(), sightings.weight.copy()
    for name in np.unique(sequence):
        rows = np.flatnonzero(sequence == name)
        rows = rows[np.argsort(time[rows], kind="stable")]
        if len(rows) < 2:
            continue
        for v, offset in enumerate(offsets):
            wanted = np.clip(time[rows] + offset, time[rows[0]], time[rows[-1]])
            after = np.clip(np.searchsorted(time[rows], wanted, side="right"), 1, len(rows) - 1)
            before = after - 1
            span = np.maximum(time[rows[after]] - time[rows[before]], 1e-9)
            share = (wanted - time[rows[before]]) / span
            first, second = rows[before], rows[after]
            both = (sightings.weight[first, v] > 0) & (sightings.weight[second, v] > 0)
            mix = share[:, None, None]
            for values, out in ((sightings.pixels, pixels), (sightings.world, world)):
                blend = (1 - mix) * values[first, v] + mix * values[second, v]
                out[rows, v] = np.where(both[..., None], blend, values[rows, v])
            blend = np.minimum(sightings.weight[first, v], sightings.weight[second, v])
            weight[rows, v] = np.where(both, blend, sightings.weight[rows, v])
    return Sightings(pixels, world, weight, sightings.person)
