"""Retargeting: the puppet's motion on a body, by bone rotations, forward kinematics and standing on the floor."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d, maximum_filter1d
from scipy.spatial.transform import Rotation

from mcss.sources.synthetic.mocap import ELBOW_AXIS, HINGES, KNEE_AXIS, PARTS, Motion

_DOWN = np.array([0.0, 0.0, -1.0])

_SPINE = {"spine05": 0.1, "spine04": 0.35, "spine03": 0.6, "spine02": 0.85, "spine01": 1.0}
"""Share of the turn from pelvis to chest that each bone of the spine takes."""
_NECK = {"neck01": 0.3, "neck02": 0.6, "neck03": 0.85}
"""Share of the turn from chest to head that each bone of the neck takes."""
_SHOULDER_GIRDLE = {"clavicle": 0.12, "shoulder01": 0.2}
"""Share of the upper arm's turn that collarbone and shoulder follow."""
_LIMBS = {
    "Shoulder": ("upperarm01", "lowerarm01"),
    "Elbow": ("lowerarm01", "wrist"),
    "Hip": ("upperleg01", "lowerleg01"),
    "Knee": ("lowerleg01", "foot"),
}
"""The bones whose heads are the ends of each limb segment."""
_PREFIXES = (
    ("upperarm", "Shoulder"),
    (("lowerarm", "wrist", "finger", "metacarpal"), "Elbow"),
    ("upperleg", "Hip"),
    ("lowerleg", "Knee"),
    (("foot", "toe"), "Ankle"),
)

_TOUCHING = {
    "toe1-1": 0.02,
    "foot": 0.075,
    "lowerleg01": 0.06,
    "wrist": 0.03,
    "lowerarm01": 0.045,
    "upperarm01": 0.06,
}
"""Bone heads on both sides that may touch the floor, with the thickness of the flesh around them in metres."""
_TOUCHING_MIDDLE = {"root": 0.11, "spine03": 0.10, "spine01": 0.11, "head": 0.09}


@dataclass(frozen=True)
class Rig:
    """The bones of a body at rest.

    Attributes:
        rest_joints: Bone heads at rest in metres, +Z up, facing −Y, left on +X.
        bone_names: Anny's names of the bones, such as "upperarm01.L".
        bone_parents: Index of each bone's parent, −1 for the root; parents come first.
    """

    rest_joints: Float[np.ndarray, "bones 3"]
    bone_names: tuple[str, ...]
    bone_parents: tuple[int, ...]

    def __post_init__(self) -> None:
        missing = {bone + ".L" for pair in _LIMBS.values() for bone in pair} - set(self.bone_names)
        if missing:
            raise ValueError(
                f"bone_names: expected those of Anny's rig 'anny', which has {sorted(missing)[0]!r}, "
                f"got {len(self.bone_names)} names such as {self.bone_names[:3]}"
            )
        if not len(self.rest_joints) == len(self.bone_names) == len(self.bone_parents):
            raise ValueError(
                f"rest_joints, bone_names and bone_parents: expected one entry per bone, got "
                f"{len(self.rest_joints)}, {len(self.bone_names)} and {len(self.bone_parents)}"
            )

    @classmethod
    def of(cls, rest_joints: Float[np.ndarray, "bones 3"], names: Sequence[str], parents: Sequence[int]) -> "Rig":
        """Make a rig of the values of an Anny model."""
        return cls(np.asarray(rest_joints, dtype=np.float64), tuple(names), tuple(int(p) for p in parents))

    @cached_property
    def index(self) -> dict[str, int]:
        """Index of each bone by name."""
        return {name: k for k, name in enumerate(self.bone_names)}

    def rest(self, bone: str) -> Float[np.ndarray, "3"]:
        """Return the head of a bone at rest."""
        return np.array(self.rest_joints[self.index[bone]])

    def length(self, segment: str) -> float:
        """Return the length in metres of a limb segment: "Shoulder" is the upper arm, "Hip" the thigh, and so on."""
        upper, lower = _LIMBS[segment]
        return float(np.linalg.norm(self.rest(lower + ".L") - self.rest(upper + ".L")))

    @cached_property
    def leg(self) -> float:
        """Length of thigh and shin in metres; the unit of `Motion.pelvis`."""
        return self.length("Hip") + self.length("Knee")

    @cached_property
    def pelvis(self) -> Float[np.ndarray, "3"]:
        """Midpoint of the hips at rest."""
        return np.asarray(self.rest("upperleg01.L") + self.rest("upperleg01.R")) / 2

    @cached_property
    def hanging(self) -> dict[str, Rotation]:
        """Smallest rotation from the rest direction to hanging down, for each limb segment and side."""
        return {
            side + segment: Rotation.align_vectors(
                _DOWN[None], (self.rest(f"{lower}.{side}") - self.rest(f"{upper}.{side}"))[None]
            )[0]
            for segment, (upper, lower) in _LIMBS.items()
            for side in "LR"
        }


def world_rotations(motion: Motion) -> dict[str, Rotation]:
    """Return the world rotations of the puppet's parts and, named by `HINGES`, of the segment below each hinge."""
    local = {name: motion.part(name) for name in PARTS}
    world = {"Pelvis": local["Pelvis"]}
    world["Chest"] = world["Pelvis"] * local["Chest"]
    world["Head"] = world["Chest"] * local["Head"]
    for side in "LR":
        world[side + "Hip"] = world["Pelvis"] * local[side + "Hip"]
        world[side + "Shoulder"] = world["Chest"] * local[side + "Shoulder"]
        for upper, hinge, axis in (("Hip", "Knee", KNEE_AXIS), ("Shoulder", "Elbow", ELBOW_AXIS)):
            flexion = motion.flexions[:, HINGES.index(side + hinge), None]
            world[side + hinge] = world[side + upper] * Rotation.from_rotvec(flexion * axis)
        world[side + "Ankle"] = world[side + "Knee"] * local[side + "Ankle"]
    return world


def _between(a: Rotation, b: Rotation, share: float) -> Rotation:
    return a * Rotation.from_rotvec((a.inv() * b).as_rotvec() * share)


def bone_rotations(motion: Motion, rig: Rig) -> Float[np.ndarray, "frames bones 3 3"]:
    """Return the world rotation of every bone relative to its rest, such that limbs point as the puppet's do."""
    world = world_rotations(motion)
    limbs = {name: world[name] * hang for name, hang in rig.hanging.items()}
    limbs |= {side + "Ankle": world[side + "Ankle"] for side in "LR"}
    matrices: dict[str, np.ndarray] = {}
    rotations = np.empty((len(motion), len(rig.bone_names), 3, 3))

    def cached_matrix(key: str, rotation: Rotation) -> np.ndarray:
        if key not in matrices:
            matrices[key] = rotation.as_matrix()
        return matrices[key]

    for k, bone in enumerate(rig.bone_names):
        stem, _, side = bone.partition(".")
        if stem in _SPINE:
            turn = _between(world["Pelvis"], world["Chest"], _SPINE[stem])
            rotations[:, k] = turn.as_matrix()
        elif stem in _NECK:
            rotations[:, k] = _between(world["Chest"], world["Head"], _NECK[stem]).as_matrix()
        elif stem in _SHOULDER_GIRDLE:
            arm = limbs[side + "Shoulder"]
            rotations[:, k] = _between(world["Chest"], arm, _SHOULDER_GIRDLE[stem]).as_matrix()
        elif stem in ("root", "pelvis"):
            rotations[:, k] = cached_matrix("Pelvis", world["Pelvis"])
        else:
            for prefix, part in _PREFIXES:
                if stem.startswith(prefix):
                    rotations[:, k] = cached_matrix(side + part, limbs[side + part])
                    break
            else:
                rotations[:, k] = cached_matrix("Head", world["Head"])
    return rotations


def bone_heads(
    orientations: Float[np.ndarray, "frames bones 3 3"],
    pelvis: Float[np.ndarray, "frames 3"],
    rig: Rig,
    bones: Sequence[str] | None = None,
) -> Float[np.ndarray, "frames heads 3"]:
    """Return the world positions in metres of the heads of the named bones; by default of all."""
    wanted = range(len(rig.bone_names)) if bones is None else [rig.index[bone] for bone in bones]
    heads: dict[int, np.ndarray] = {}

    def head(k: int) -> np.ndarray:
        if k not in heads:
            parent = rig.bone_parents[k]
            if parent < 0:
                heads[k] = np.zeros((len(pelvis), 3))
            else:
                offset = rig.rest_joints[k] - rig.rest_joints[parent]
                heads[k] = head(parent) + orientations[:, parent] @ offset
        return heads[k]

    pelvis_at_origin = (head(rig.index["upperleg01.L"]) + head(rig.index["upperleg01.R"])) / 2
    return np.asarray(np.stack([head(k) for k in wanted], axis=1) + (pelvis - pelvis_at_origin)[:, None])


def lowest_points(
    orientations: Float[np.ndarray, "frames bones 3 3"], pelvis: Float[np.ndarray, "frames 3"], rig: Rig
) -> Float[np.ndarray, " frames"]:
    """Return the height in metres of the body's lowest point in each frame: feet, hands, knees, torso or head."""
    flesh = {f"{bone}.{side}": value for bone, value in _TOUCHING.items() for side in "LR"} | _TOUCHING_MIDDLE
    heads = bone_heads(orientations, pelvis, rig, tuple(flesh))
    lowest: Float[np.ndarray, " frames"] = (heads[..., 2] - list(flesh.values())).min(axis=1)
    return lowest


def stand_on_floor(
    orientations: Float[np.ndarray, "frames bones 3 3"],
    pelvis: Float[np.ndarray, "frames 3"],
    rig: Rig,
    rate: float,
    leaves_floor: bool,
) -> Float[np.ndarray, "frames 3"]:
    """Raise or lower the path so that the body stands on the floor z = 0.

    A motion that leaves the floor gets one height for the whole sequence (a low percentile of its lowest point), plus a
    smooth rise wherever it would sink in. A motion that never leaves it (walking, crawling, steps on a box that is not
    there) follows its lowest point smoothly.
    """
    lowest = lowest_points(orientations, pelvis, rig)
    if leaves_floor:
        level = np.full(len(lowest), np.percentile(lowest, 25.0))
    else:
        level = gaussian_filter1d(lowest, 0.15 * rate, mode="nearest")
    sunk = np.maximum(level - lowest - 0.01, 0.0)
    reach = max(int(0.3 * rate), 1)
    rise = gaussian_filter1d(maximum_filter1d(sunk, reach, mode="nearest"), reach / 3, mode="nearest")
    return np.asarray(pelvis + (rise - level)[:, None] * [0.0, 0.0, 1.0])
