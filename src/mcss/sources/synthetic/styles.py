"""Styles: what makes two performances of one action different."""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mcss.sources.synthetic.mocap import HINGES, PARTS, Motion
from mcss.sources.synthetic.retargeting import Rig

INNER_RATE = 30.0
"""Frames per second of the recordings, at which sequences are composed before they are sampled at the final rate."""


@dataclass(frozen=True)
class Variety:
    """How much performances differ, as standard deviations.

    Attributes:
        habit: Constant departures of a subject, relative to `PART_SPREAD`.
        sequence: Constant departures of a sequence, relative to `PART_SPREAD`.
        wobble: Slow departures within a sequence (0.05 to 0.4 Hz), relative to `PART_SPREAD`.
        amplitude: Relative change of the extent of each part's movement about its mean.
        tempo: Relative change of the speed, drawn once for the subject and once for the sequence.
        gesture: Departures from the key poses of procedural actions, relative to the departures given there.
    """

    habit: float = 0.35
    sequence: float = 0.28
    wobble: float = 0.22
    amplitude: float = 0.1
    tempo: float = 0.1
    gesture: float = 0.4


PART_SPREAD = {"Pelvis": 3.0, "Chest": 5.0, "Head": 7.0, "LHip": 5.0, "RHip": 5.0, "LAnkle": 4.0, "RAnkle": 4.0,
               "LShoulder": 12.0, "RShoulder": 12.0}  # fmt: skip
"""Degrees of departure about each axis of a part, one standard deviation at strength 1."""
HINGE_SPREAD = {"LKnee": 6.0, "RKnee": 6.0, "LElbow": 16.0, "RElbow": 16.0}
"""Degrees of departure of each flexion, one standard deviation at strength 1."""
_FLEXION_LIMIT = {"Knee": np.radians(150.0), "Elbow": np.radians(145.0)}


@dataclass(frozen=True)
class Performer:
    """A subject's habits: constant departures, in standard deviations."""

    name: str
    parts: Float[np.ndarray, " angles"]
    hinges: Float[np.ndarray, " hinges"]
    channels: Float[np.ndarray, " channels"]

    @property
    def number(self) -> int:
        """Position among the subjects, 0 for "S1"."""
        digits = "".join(c for c in self.name if c.isdigit())
        return int(digits) - 1 if digits else zlib.crc32(self.name.encode())


def paced(motion: Motion, tempo: float, seconds: float, rng: np.random.Generator) -> Motion:
    """Play a motion at a tempo that varies slowly."""
    frames = round(seconds * INNER_RATE) + 1
    pace = tempo * (1 + 0.12 * slow_noise(frames, 1, rng)[:, 0])
    times = np.concatenate([[0.0], np.cumsum(np.maximum(pace[:-1], 0.4))]) / INNER_RATE
    spare = motion.seconds - times[-1]
    if spare < 0:
        times *= motion.seconds / times[-1]
    return motion.at(times, INNER_RATE)


def slow_noise(frames: int, channels: int, rng: np.random.Generator) -> Float[np.ndarray, "frames channels"]:
    """Return smooth noise of unit variance between 0.05 and 0.4 Hz."""
    time = np.arange(frames) / INNER_RATE
    frequency = rng.uniform(0.05, 0.4, (4, channels))
    phase = rng.uniform(0.0, 2 * np.pi, (4, channels))
    waves = np.cos(2 * np.pi * frequency * time[:, None, None] + phase)
    noise: Float[np.ndarray, "frames channels"] = waves.sum(1) / np.sqrt(2)
    return noise


def styled(motion: Motion, performer: Performer, rng: np.random.Generator, variety: Variety, strength: float) -> Motion:
    """Apply the performer's habits and a random style of the sequence to a motion."""
    n, angles = len(motion), 3 * len(PARTS)
    spread = np.radians(np.repeat([PART_SPREAD[name] for name in PARTS], 3))
    offset = variety.habit * performer.parts + variety.sequence * rng.normal(size=angles)
    offset = (offset + variety.wobble * slow_noise(n, angles, rng)) * spread * strength
    rotations = np.empty_like(motion.rotations)
    for k, name in enumerate(PARTS):
        rotation = motion.part(name)
        if name != "Pelvis":
            # Scales the swing about the mean. The pelvis is left out, as its turns belong to the path.
            gain = float(np.clip(1 + variety.amplitude * rng.normal(), 0.7, 1.25))
            mean = rotation.mean()
            swing = (mean.inv() * rotation).as_rotvec()
            # A turn of more than half a circle has no amplitude that could be scaled.
            gain = gain if np.linalg.norm(swing, axis=1).max() < np.radians(130) else 1.0
            rotation = mean * Rotation.from_rotvec(swing * gain)
        rotations[:, k] = (rotation * Rotation.from_rotvec(offset[:, 3 * k : 3 * k + 3])).as_quat()
    bend = variety.habit * performer.hinges + variety.sequence * rng.normal(size=len(HINGES))
    bend = bend + variety.wobble * slow_noise(n, len(HINGES), rng)
    flexions = motion.flexions + bend * np.radians([HINGE_SPREAD[name] for name in HINGES]) * strength
    limits = np.array([_FLEXION_LIMIT[name[1:]] for name in HINGES])
    # A soft limit at zero, so that straight limbs stay straight instead of bending backwards.
    flexions = np.minimum(0.04 * np.logaddexp(0.0, flexions / 0.04), limits)
    return replace(motion, rotations=rotations, flexions=flexions)


_STAGE_RADIUS = 1.4
"""Metres. The steps of a motion that would leave the stage even when bent are shortened."""


def bent_around_stage(motion: Motion, rig: Rig, rng: np.random.Generator) -> Motion:
    """Bend the path of a motion into a circle about the centre of the stage, with a random heading.

    Every metre of travel turns the body by the same angle, so that a motion stays near however far it goes. Steps and
    poses do not change.
    """
    radius = rng.uniform(0.6, 1.1) / rig.leg * (1 if rng.uniform() < 0.5 else -1)
    step = np.diff(motion.pelvis[:, :2], axis=0, prepend=motion.pelvis[:1, :2])
    # Swaying on the spot is not travel, so distance is measured on a smoothed path.
    window = np.ones(15) / 15
    centre = slice(7, 7 + len(step))  # mode="same" would lengthen sequences shorter than the window
    smooth = np.stack([np.convolve(step[:, k], window)[centre] for k in range(2)], axis=1)
    angle = np.cumsum(np.linalg.norm(smooth, axis=1)) / radius + rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.stack([cos * step[:, 0] - sin * step[:, 1], sin * step[:, 0] + cos * step[:, 1]], axis=1)
    path = np.cumsum(turned, axis=0)
    path -= (path.min(0) + path.max(0)) / 2
    path *= min(1.0, _STAGE_RADIUS / rig.leg / max(float(np.linalg.norm(path, axis=1).max()), 1e-9))
    offset = rng.normal(0.0, 0.15, 2) / rig.leg
    pelvis = np.concatenate([path - offset, motion.pelvis[:, 2:]], axis=1)
    return replace(motion, pelvis=pelvis).turned(angle)
