"""A body of bones alone, with Anny's names and a person's proportions, made without Anny."""

import numpy as np

from mcss.sources.synthetic.retargeting import Rig, bone_heads

_MIDDLE = {
    "root": (None, (0.0, -0.005, 0.206)),
    "spine05": ("root", (0.0, -0.005, 0.206)),
    "spine04": ("spine05", (0.0, 0.029, 0.298)),
    "spine03": ("spine04", (0.0, 0.019, 0.373)),
    "spine02": ("spine03", (0.0, 0.026, 0.449)),
    "spine01": ("spine02", (0.0, 0.055, 0.587)),
    "neck01": ("spine01", (0.0, -0.013, 0.806)),
    "neck02": ("neck01", (0.0, -0.018, 0.829)),
    "neck03": ("neck02", (0.003, -0.031, 0.873)),
    "head": ("neck03", (0.0, -0.049, 0.910)),
}
_SIDE = {
    "pelvis": ("root", (0.0, -0.005, 0.206)),
    "upperleg01": ("pelvis", (0.12, 0.006, 0.201)),
    "lowerleg01": ("upperleg01", (0.156, -0.031, -0.268)),
    "foot": ("lowerleg01", (0.213, -0.005, -0.739)),
    "toe1-1": ("foot", (0.181, -0.165, -0.785)),
    "clavicle": ("spine01", (0.024, -0.028, 0.727)),
    "shoulder01": ("clavicle", (0.124, -0.03, 0.745)),
    "upperarm01": ("shoulder01", (0.21, -0.019, 0.696)),
    "lowerarm01": ("upperarm01", (0.403, -0.024, 0.475)),
    "wrist": ("lowerarm01", (0.545, -0.226, 0.338)),
}
JOINT_BONES = (
    "root", "upperleg01.R", "lowerleg01.R", "foot.R", "upperleg01.L", "lowerleg01.L", "foot.L", "spine03", "neck01",
    "head", "head", "upperarm01.L", "lowerarm01.L", "wrist.L", "upperarm01.R", "lowerarm01.R", "wrist.R",
)  # fmt: skip


def stick_body(scale: float = 1.0) -> Rig:
    """A body that is `scale` times as large as the standard one."""
    bones = dict(_MIDDLE)
    for side, sign in (("L", 1.0), ("R", -1.0)):
        for name, (parent, (x, y, z)) in _SIDE.items():
            above = parent if parent in _MIDDLE else f"{parent}.{side}"
            bones[f"{name}.{side}"] = (above, (sign * x, y, z))
    names = list(bones)
    parents = [-1 if parent is None else names.index(parent) for parent, _ in bones.values()]
    return Rig.of(scale * np.array([head for _, head in bones.values()]), names, parents)


def stick_joints(orientations: np.ndarray, pelvis: np.ndarray, body: Rig) -> np.ndarray:
    """The 17 joints in world mm."""
    found = bone_heads(orientations.astype(float), pelvis.astype(float), body, JOINT_BONES)
    found[:, 0] = (found[:, 1] + found[:, 4]) / 2
    found[:, 10] = found[:, 9] + orientations[:, body.index["head"]] @ [0.0, 0.0, 0.19]
    return found * 1000.0
