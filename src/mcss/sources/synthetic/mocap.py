"""Motion capture: motion as joint angles of a puppet without proportions, and the recordings shipped with the package.

At rest the puppet stands upright with straight legs and arms hanging down, faces −Y, and has +X on its left and +Z up.
A recording keeps only what does not depend on the recorded body: the rotations of nine parts, the flexion of four
hinges, and the path of the pelvis in leg lengths. `mcss.sources.synthetic.retargeting` puts it on a body.
"""

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

PARTS = (
    "Pelvis",
    "Chest",
    "Head",
    "LHip",
    "RHip",
    "LAnkle",
    "RAnkle",
    "LShoulder",
    "RShoulder",
)
"""Parts with three degrees of freedom. The pelvis turns relative to the world, chest and hips relative to the pelvis,
head and shoulders relative to the chest, and each ankle relative to its shin."""

HINGES = ("LKnee", "RKnee", "LElbow", "RElbow")
"""Joints with one degree of freedom, their flexion in radians: 0 is straight, positive is the way humans bend."""

KNEE_AXIS = np.array([1.0, 0.0, 0.0])
ELBOW_AXIS = np.array([-1.0, 0.0, 0.0])
"""Axes of flexion in the part above: +X turns the shin backwards, −X turns the forearm forwards."""

_MIRRORED_PARTS = (0, 1, 2, 4, 3, 6, 5, 8, 7)
_MIRRORED_HINGES = (1, 0, 3, 2)


@dataclass(frozen=True)
class Motion:
    """A continuous motion of the puppet.

    Attributes:
        rate: Frames per second.
        pelvis: Path of the midpoint of the hips, in leg lengths, +Z up; the height of the floor is not exact (see
            `retargeting.stand_on_floor`).
        rotations: Unit quaternions (x, y, z, w) of `PARTS`, each relative to the part above it.
        flexions: Angles of `HINGES` in radians.
    """

    rate: float
    pelvis: Float[np.ndarray, "frames 3"]
    rotations: Float[np.ndarray, "frames 9 4"]
    flexions: Float[np.ndarray, "frames 4"]

    def __len__(self) -> int:
        return len(self.pelvis)

    @property
    def seconds(self) -> float:
        """Seconds from the first to the last frame."""
        return (len(self) - 1) / self.rate

    def part(self, name: str) -> Rotation:
        """Return the rotations of one of `PARTS`, one per frame."""
        return Rotation.from_quat(self.rotations[:, PARTS.index(name)])

    def window(self, start: int, stop: int) -> "Motion":
        """Return the frames from `start` up to but not including `stop`."""
        return replace(
            self,
            pelvis=self.pelvis[start:stop],
            rotations=self.rotations[start:stop],
            flexions=self.flexions[start:stop],
        )

    def at(self, seconds: Float[np.ndarray, " frames"], rate: float) -> "Motion":
        """Interpolate the motion at the given times (within its length), to be played at `rate`."""
        times = np.clip(seconds, 0.0, self.seconds)
        frame_times = np.arange(len(self)) / self.rate
        rotations = [
            Slerp(frame_times, Rotation.from_quat(self.rotations[:, k]))(times).as_quat() for k in range(len(PARTS))
        ]
        return Motion(
            rate=rate,
            pelvis=_interpolated(times, frame_times, self.pelvis),
            rotations=np.stack(rotations, axis=1),
            flexions=_interpolated(times, frame_times, self.flexions),
        )

    def mirrored(self) -> "Motion":
        """Return the mirror image of the motion, with left and right exchanged."""
        # A reflection of x turns a rotation vector (x, y, z) into (x, −y, −z).
        return replace(
            self,
            pelvis=self.pelvis * [-1.0, 1.0, 1.0],
            rotations=self.rotations[:, list(_MIRRORED_PARTS)] * [1.0, -1.0, -1.0, 1.0],
            flexions=self.flexions[:, list(_MIRRORED_HINGES)],
        )

    def heading(self) -> Float[np.ndarray, " frames"]:
        """Return the direction that the pelvis faces, as a continuous angle about +Z in radians; 0 faces −Y.

        This is the heading of the canonical pose (the direction of the left hip seen from above), so it stays defined
        when the body pitches, as in a crawl or a flip.
        """
        left = self.part("Pelvis").apply([1.0, 0.0, 0.0])
        return np.unwrap(np.arctan2(left[:, 1], left[:, 0]))

    def turned(self, angles: Float[np.ndarray, " frames"] | float) -> "Motion":
        """Turn the pelvis of each frame about the vertical axis through it; the path stays."""
        angles = np.broadcast_to(np.asarray(angles, dtype=float), (len(self),))
        turn = Rotation.from_rotvec(angles[:, None] * [0.0, 0.0, 1.0])
        rotations = self.rotations.copy()
        rotations[:, 0] = (turn * self.part("Pelvis")).as_quat()
        return replace(self, rotations=rotations)


def _interpolated(
    times: Float[np.ndarray, " new"], frame_times: Float[np.ndarray, " frames"], values: Float[np.ndarray, "frames n"]
) -> Float[np.ndarray, "new n"]:
    return np.stack([np.interp(times, frame_times, column) for column in values.T], axis=1)


def blended(
    a: Float[np.ndarray, "*batch 4"], b: Float[np.ndarray, "*batch 4"], weight: Float[np.ndarray, "*#batch"]
) -> Float[np.ndarray, "*batch 4"]:
    """Blend unit quaternions linearly the short way round and normalise; weight 0 gives `a`, 1 gives `b`."""
    nearer = np.where((a * b).sum(-1, keepdims=True) < 0, -b, b)
    mixed = (1 - weight[..., None]) * a + weight[..., None] * nearer
    unit: Float[np.ndarray, "*batch 4"] = mixed / np.linalg.norm(mixed, axis=-1, keepdims=True)
    return unit


def joined(first: Motion, second: Motion, overlap: int) -> Motion:
    """Join two motions with a cross-fade over `overlap` frames.

    The second motion is moved and turned in the plane so that it continues where, and in the direction in which, the
    first one ends.
    """
    overlap = min(overlap, len(first) - 1, len(second) - 1)
    tail = first.window(len(first) - overlap, len(first))
    second = placed(second, tail.pelvis[0], float(tail.heading()[0]))
    head = second.window(0, overlap)
    x = (np.arange(overlap) + 1) / (overlap + 1)
    weight = x * x * (3 - 2 * x)
    middle = Motion(
        rate=first.rate,
        pelvis=tail.pelvis + weight[:, None] * (head.pelvis - tail.pelvis),
        rotations=blended(tail.rotations, head.rotations, weight[:, None]),
        flexions=tail.flexions + weight[:, None] * (head.flexions - tail.flexions),
    )
    parts = (first.window(0, len(first) - overlap), middle, second.window(overlap, len(second)))
    return Motion(
        rate=first.rate,
        pelvis=np.concatenate([part.pelvis for part in parts]),
        rotations=np.concatenate([part.rotations for part in parts]),
        flexions=np.concatenate([part.flexions for part in parts]),
    )


def placed(motion: Motion, pelvis: Float[np.ndarray, "3"], heading: float) -> Motion:
    """Move a motion, and turn it about the vertical axis, so that it begins at `pelvis` (x, y) with this heading."""
    angle = heading - float(motion.heading()[0])
    turn = Rotation.from_rotvec([0.0, 0.0, angle])
    path = turn.apply(motion.pelvis - motion.pelvis[0] * [1.0, 1.0, 0.0]) + pelvis * [1.0, 1.0, 0.0]
    return replace(motion.turned(angle), pelvis=path)


@cache
def recordings() -> dict[str, Motion]:
    """Load all recordings of the package by name: about three and a half minutes of motion capture at 30 Hz."""
    with as_file(files("mcss.sources.synthetic") / "assets" / "mocap.npz") as path, np.load(path) as table:
        names = [str(name) for name in table["names"]]
        rate = float(table["rate"])
        bounds = [0, *np.cumsum(table["lengths"]).tolist()]
        pelvis = table["pelvis"].astype(np.float64)
        rotations = table["rotations"].astype(np.float64)
        flexions = table["flexions"].astype(np.float64)
    rotations /= np.linalg.norm(rotations, axis=-1, keepdims=True)
    whole = Motion(rate=rate, pelvis=pelvis, rotations=rotations, flexions=flexions)
    return {name: whole.window(bounds[k], bounds[k + 1]) for k, name in enumerate(names)}


def write_recordings(path: str, motions: dict[str, Motion]) -> None:
    """Write the file that `recordings` reads; all motions must have the same rate."""
    rates = {motion.rate for motion in motions.values()}
    if len(rates) != 1:
        raise ValueError(f"expected motions with the same rate, got {sorted(rates)} Hz; resample them first")
    np.savez_compressed(
        path,
        names=np.array(list(motions)),
        lengths=np.array([len(motion) for motion in motions.values()]),
        rate=np.array(rates.pop()),
        pelvis=np.concatenate([m.pelvis for m in motions.values()]).astype(np.float32),
        rotations=np.round(np.concatenate([m.rotations for m in motions.values()]) * 32767).astype(np.int16),
        flexions=np.concatenate([m.flexions for m in motions.values()]).astype(np.float16),
    )
