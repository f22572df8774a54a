"""Puppet motion on a body: bone rotations, forward kinematics, and standing on the floor."""

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
"""How far each bone of the spine has turned from the pelvis to the chest."""
_NECK = {"neck01": 0.3, "neck02": 0.6, "neck03": 0.85}
"""How far each bone of the neck has turned from the chest to the head."""
_SHOULDER_GIRDLE = {"clavicle": 0.12, "shoulder01": 0.2}
"""How far collarbone and shoulder follow the upper arm."""
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
"""Bone heads that may touch the floor, with the flesh around them in metres; both sides."""
_TOUCHING_MIDDLE = {"root": 0.11, "spine03": 0.10, "spine01": 0.11, "head": 0.09}


@dataclass(frozen=True)
class Build:
    """A body's bones at rest, as far as motion needs them.

    Attributes:
        rest_joints: Bone heads at rest in metres, +Z up, facing −Y, left on +X.
        bone_names: Anny's bone names, for example "upperarm01.L".
        bone_parents: Index of each bone's parent, −1 for the root; parents come first.
    """

    rest_joints: Float[np.ndarray, "bones 3"]
    bone_names: tuple[str, ...]
    bone_parents: tuple[int, ...]

    def __post_init__(self) -> None:
        missing = {bone + ".L" for pair in _LIMBS.values() for bone in pair} - set(self.bone_names)
        if missing:
            raise ValueError(
                f"bone_names must be those of Anny's rig 'anny', which has {sorted(missing)[0]!r}; "
                f"got {len(self.bone_names)} names such as {self.bone_names[:3]}"
            )
        if not len(self.rest_joints) == len(self.bone_names) == len(self.bone_parents):
            raise ValueError(
                f"rest_joints, bone_names and bone_parents must have one entry a bone, got "
                f"{len(self.rest_joints)}, {len(self.bone_names)} and {len(self.bone_parents)}"
            )

    @classmethod
    def of(cls, rest_joints: Float[np.ndarray, "bones 3"], names: Sequence[str], parents: Sequence[int]) -> "Build":
        """The build of a body given as an Anny model gives it."""
        return cls(np.asarray(rest_joints, dtype=np.float64), tuple(names), tuple(int(p) for p in parents))

    @cached_property
    def index(self) -> dict[str, int]:
        """Bone indices by name."""
        return {name: k for k, name in enumerate(self.bone_names)}

    def rest(self, bone: str) -> Float[np.ndarray, "3"]:
        """The head of a bone at rest."""
        return np.array(self.rest_joints[self.index[bone]])

    def length(self, segment: str) -> float:
        """The length in metres of a limb segment: "Shoulder" is the upper arm, "Hip" the thigh, and so on."""
        upper, lower = _LIMBS[segment]
        return float(np.linalg.norm(self.rest(lower + ".L") - self.rest(upper + ".L")))

    @cached_property
    def leg(self) -> float:
        """Thigh and shin in metres; the unit of `Motion.pelvis`."""
        return self.length("Hip") + self.length("Knee")

    @cached_property
    def pelvis(self) -> Float[np.ndarray, "3"]:
        """The mean of the hips at rest."""
        return np.asarray(self.rest("upperleg01.L") + self.rest("upperleg01.R")) / 2

    @cached_property
    def hanging(self) -> dict[str, Rotation]:
        """For each limb segment and side the smallest rotation from its rest direction to hanging down."""
        return {
            side + segment: Rotation.align_vectors(
                _DOWN[None], (self.rest(f"{lower}.{side}") - self.rest(f"{upper}.{side}"))[None]
            )[0]
            for segment, (upper, lower) in _LIMBS.items()
            for side in "LR"
        }


def world_rotations(motion: Motion) -> dict[str, Rotation]:
    """World rotations of the puppet's parts and, under `HINGES`' names, of what is below each hinge."""
    own = {name: motion.part(name) for name in PARTS}
    world = {"Pelvis": own["Pelvis"]}
    world["Chest"] = world["Pelvis"] * own["Chest"]
    world["Head"] = world["Chest"] * own["Head"]
    for side in "LR":
        world[side + "Hip"] = world["Pelvis"] * own[side + "Hip"]
        world[side + "Shoulder"] = world["Chest"] * own[side + "Shoulder"]
        for upper, hinge, axis in (("Hip", "Knee", KNEE_AXIS), ("Shoulder", "Elbow", ELBOW_AXIS)):
            flexion = motion.flexions[:, HINGES.index(side + hinge), None]
            world[side + hinge] = world[side + upper] * Rotation.from_rotvec(flexion * axis)
        world[side + "Ankle"] = world[side + "Knee"] * own[side + "Ankle"]
    return world


def _between(a: Rotation, b: Rotation, share: float) -> Rotation:
    return a * Rotation.from_rotvec((a.inv() * b).as_rotvec() * share)


def bone_rotations(motion: Motion, build: Build) -> Float[np.ndarray, "frames bones 3 3"]:
    """World rotation of every bone relative to its rest, such that limbs point as the puppet's do."""
    world = world_rotations(motion)
    limbs = {name: world[name] * hang for name, hang in build.hanging.items()}
    limbs |= {side + "Ankle": world[side + "Ankle"] for side in "LR"}
    matrices: dict[str, np.ndarray] = {}
    result = np.empty((len(motion), len(build.bone_names), 3, 3))

    def matrix(key: str, rotation: Rotation) -> np.ndarray:
        if key not in matrices:
            matrices[key] = rotation.as_matrix()
        return matrices[key]

    for k, bone in enumerate(build.bone_names):
        stem, _, side = bone.partition(".")
        if stem in _SPINE:
            turn = _between(world["Pelvis"], world["Chest"], _SPINE[stem])
            result[:, k] = turn.as_matrix()
        elif stem in _NECK:
            result[:, k] = _between(world["Chest"], world["Head"], _NECK[stem]).as_matrix()
        elif stem in _SHOULDER_GIRDLE:
            arm = limbs[side + "Shoulder"]
            result[:, k] = _between(world["Chest"], arm, _SHOULDER_GIRDLE[stem]).as_matrix()
        elif stem in ("root", "pelvis"):
            result[:, k] = matrix("Pelvis", world["Pelvis"])
        else:
            for prefix, part in _PREFIXES:
                if stem.startswith(prefix):
                    result[:, k] = matrix(side + part, limbs[side + part])
                    break
            else:
                result[:, k] = matrix("Head", world["Head"])
    return result


def bone_heads(
    orientations: Float[np.ndarray, "frames bones 3 3"],
    pelvis: Float[np.ndarray, "frames 3"],
    build: Build,
    bones: Sequence[str] | None = None,
) -> Float[np.ndarray, "frames heads 3"]:
    """World positions in metres of the heads of the named bones (all without names)."""
    wanted = range(len(build.bone_names)) if bones is None else [build.index[bone] for bone in bones]
    heads: dict[int, np.ndarray] = {}

    def head(k: int) -> np.ndarray:
        if k not in heads:
            parent = build.bone_parents[k]
            if parent < 0:
                heads[k] = np.zeros((len(pelvis), 3))
            else:
                offset = build.rest_joints[k] - build.rest_joints[parent]
                heads[k] = head(parent) + orientations[:, parent] @ offset
        return heads[k]

    middle = (head(build.index["upperleg01.L"]) + head(build.index["upperleg01.R"])) / 2
    return np.asarray(np.stack([head(k) for k in wanted], axis=1) + (pelvis - middle)[:, None])


def lowest_points(
    orientations: Float[np.ndarray, "frames bones 3 3"], pelvis: Float[np.ndarray, "frames 3"], build: Build
) -> Float[np.ndarray, " frames"]:
    """Height in metres of the body's lowest point in each frame: feet, hands, knees, torso or head."""
    flesh = {f"{bone}.{side}": value for bone, value in _TOUCHING.items() for side in "LR"} | _TOUCHING_MIDDLE
    heads = bone_heads(orientations, pelvis, build, tuple(flesh))
    lowest: Float[np.ndarray, " frames"] = (heads[..., 2] - list(flesh.values())).min(axis=1)
    return lowest


def stand_on_floor(
    orientations: Float[np.ndarray, "frames bones 3 3"],
    pelvis: Float[np.ndarray, "frames 3"],
    build: Build,
    rate: float,
    leaves_floor: bool,
) -> Float[np.ndarray, "frames 3"]:
    """The path raised or lowered so that the body stands on the floor z = 0.

    A motion that leaves the floor gets one height for the whole sequence (a low percentile of the lowest
    point), plus a smooth rise wherever it would sink in. One that never does (walking, crawling, steps on
    a box that is not there) follows its lowest point smoothly.
    """
    lowest = lowest_points(orientations, pelvis, build)
    if leaves_floor:
        level = np.full(len(lowest), np.percentile(lowest, 25.0))
    else:
        level = gaussian_filter1d(lowest, 0.15 * rate, mode="nearest")
    sunk = np.maximum(level - lowest - 0.01, 0.0)
    reach = max(int(0.3 * rate), 1)
    rise = gaussian_filter1d(maximum_filter1d(sunk, reach, mode="nearest"), reach / 3, mode="nearest")
    return np.asarray(pelvis + (rise - level)[:, None] * [0.0, 0.0, 1.0])
