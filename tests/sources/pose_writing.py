"""Write label files as other programs do, with code that shares nothing with the readers."""

import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from captures_for_tests import stick_pose
from mcss.skeletons import JOINTS

_SIDE = ("Hip", "Knee", "Ankle", "BigToe", "SmallToe", "Heel")
_ARM = ("Shoulder", "Elbow", "Wrist")
POSE2SIM = (
    *(side + part for side in "RL" for part in _SIDE),
    *("Neck", "Head", "Nose"),
    *(side + part for side in "RL" for part in _ARM),
)
"""The markers of Pose2Sim's files, in their order."""


def walk(count: int, rate: float, subject: int = 0) -> np.ndarray:
    """Poses (count, 17, 3) in mm, +Z up, of a person who walks in a circle."""
    return np.stack([stick_pose(subject, 0, i / rate) for i in range(count)]).astype(np.float64)


def y_up(places: np.ndarray) -> np.ndarray:
    """Convert +Z up to +Y up, the convention of OpenSim and most animation programs."""
    return places[..., [0, 2, 1]] * [1, 1, -1]


def pose2sim_markers(poses: np.ndarray) -> np.ndarray:
    """Return the 21 markers of `POSE2SIM` for poses of 17 joints, with the feet placed near the ankles."""
    place = {name: poses[:, k] for k, name in enumerate(JOINTS)}
    place |= {"Nose": place["Neck"], "Neck": place["Thorax"], "RAnkle": place["RFoot"], "LAnkle": place["LFoot"]}
    for side in "LR":
        for toe, forward in (("BigToe", 150), ("SmallToe", 120), ("Heel", -50)):
            place[side + toe] = place[side + "Foot"] + [0, forward, -60]
    return np.stack([place[name] for name in POSE2SIM], axis=1)


def write_trc(
    path: Path, names: Sequence[str], places: np.ndarray, rate: float, units: str = "m", frames: int | None = None
) -> Path:
    """Write a TRC as Pose2Sim 0.4 does: tabs, a trailing tab in the header, frames from 1 and times from 1/rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    count = len(places) if frames is None else frames
    lines = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\tOrigNumFrames",
        f"{rate:g}\t{rate:g}\t{count}\t{len(names)}\t{units}\t{rate:g}\t0\t{count}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(f"{axis}{k + 1}" for k in range(len(names)) for axis in "XYZ"),
    ]
    for i, sample in enumerate(places):
        cells = ["" if math.isnan(v) else repr(float(v)) for v in sample.ravel()]
        lines.append("\t".join([str(i + 1), repr((i + 1) / rate), *cells]))
    path.write_text("\n".join(lines) + "\n")
    return path


WRITE_C3D = """
import sys
import ezc3d
import numpy as np
arrays = np.load(sys.argv[1])
file = ezc3d.c3d()
about = file["parameters"]["POINT"]
about["RATE"]["value"], about["LABELS"]["value"] = [float(arrays["rate"])], tuple(map(str, arrays["names"]))
about["UNITS"]["value"] = [str(arrays["units"])]
lost = np.isnan(arrays["places"]).any(axis=-1)
file["data"]["points"] = np.where(lost[..., None], 0, arrays["places"]).transpose(2, 1, 0)
file["data"]["meta_points"]["residuals"] = np.where(lost, -1.0, 0.0).T[None]
if arrays["analog"]:  # channels of a force plate
    file["parameters"]["ANALOG"]["RATE"]["value"] = [float(arrays["rate"]) * int(arrays["analog"])]
    file["parameters"]["ANALOG"]["LABELS"]["value"] = ("Fx", "Fy", "Fz", "Mx")
    file["data"]["analogs"] = np.zeros((1, 4, len(arrays["places"]) * int(arrays["analog"])))
file.write(sys.argv[2])
"""


def write_c3d(
    path: Path, names: Sequence[str], places: np.ndarray, rate: float, units: str = "mm", analog: int = 0
) -> Path:
    """Write a C3D with the package ezc3d (the reader uses c3d); points that are NaN get a residual of −1.

    With `analog` it has four channels with so many samples a frame.

    A process of its own writes it: ezc3d and faiss, both made with SWIG, disturb each other in one process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        arrays = Path(folder) / "arrays.npz"
        np.savez(arrays, names=np.array(names), places=places, rate=rate, units=units, analog=analog)
        subprocess.run([sys.executable, "-c", WRITE_C3D, str(arrays), str(path)], check=True)
    return path


def write_csv(path: Path, names: Sequence[str], places: np.ndarray, clock: Sequence[float], column: str) -> Path:
    """Write the CSV that docs/real_footage.md describes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join([column, *(f"{name}.{axis}" for name in names for axis in "xyz")])]
    for at, sample in zip(clock, places, strict=True):
        lines.append(",".join([f"{at:g}", *("" if math.isnan(v) else f"{v:.6f}" for v in sample.ravel())]))
    path.write_text("\n".join(lines) + "\n")
    return path


BVH_BONES = (
    # name, parent, offset in cm with Y up and the person facing +Z (left is +X), as in CMU's skeleton
    ("Hips", None, (0, 92, 0)),
    ("LHipJoint", "Hips", (0, 0, 0)),
    ("LeftUpLeg", "LHipJoint", (9, -2, 0)),
    ("LeftLeg", "LeftUpLeg", (0, -42, 0)),
    ("LeftFoot", "LeftLeg", (0, -41, 0)),
    ("RHipJoint", "Hips", (0, 0, 0)),
    ("RightUpLeg", "RHipJoint", (-9, -2, 0)),
    ("RightLeg", "RightUpLeg", (0, -42, 0)),
    ("RightFoot", "RightLeg", (0, -41, 0)),
    ("Spine", "Hips", (0, 12, 0)),
    ("Spine1", "Spine", (0, 13, 0)),
    ("Neck", "Spine1", (0, 25, 0)),
    ("Head", "Neck", (0, 9, 2)),
    ("LeftShoulder", "Spine1", (3, 20, 0)),
    ("LeftArm", "LeftShoulder", (14, 3, 0)),
    ("LeftForeArm", "LeftArm", (0, -28, 0)),
    ("LeftHand", "LeftForeArm", (0, -25, 0)),
    ("RightShoulder", "Spine1", (-3, 20, 0)),
    ("RightArm", "RightShoulder", (-14, 3, 0)),
    ("RightForeArm", "RightArm", (0, -28, 0)),
    ("RightHand", "RightForeArm", (0, -25, 0)),
)


def _turn(axis: str, degrees: float) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }
    matrix = np.eye(4)
    matrix[:3, :3] = rows[axis]
    return matrix


def _move(offset: Sequence[float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def write_bvh(path: Path, count: int, rate: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Write a BVH with small random rotations; return the joint positions (cm, Y up), computed with 4×4 matrices."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    order = {name: ("ZYX" if k % 2 else "ZXY") for k, (name, _, _) in enumerate(BVH_BONES)}
    angles = {name: rng.uniform(-12, 12, (count, 3)) for name, _, _ in BVH_BONES}
    for knee in ("LeftLeg", "RightLeg"):  # knees bend backwards about +X
        angles[knee][:, order[knee].index("X")] = rng.uniform(50, 80, count)
    path_of_hips = np.array([0, 92, 0]) + np.cumsum(rng.normal(0, 0.5, (count, 3)), axis=0)
    children: dict[str | None, list[str]] = {}
    for name, parent, _ in BVH_BONES:
        children.setdefault(parent, []).append(name)
    offsets = {name: offset for name, _, offset in BVH_BONES}
    lines, written = ["HIERARCHY"], []

    def joint(name: str, depth: int) -> None:
        tab = "\t" * depth
        written.append(name)
        lines.append(f"{tab}{'JOINT' if depth else 'ROOT'} {name}")
        lines.append(f"{tab}{{")
        lines.append(f"{tab}\tOFFSET {' '.join(f'{v:.4f}' for v in offsets[name])}")
        turns = " ".join(f"{axis}rotation" for axis in order[name])
        lines.append(f"{tab}\tCHANNELS " + (f"3 {turns}" if depth else f"6 Xposition Yposition Zposition {turns}"))
        for child in children.get(name, []):
            joint(child, depth + 1)
        if name not in children:
            lines.append(
                f"{tab}\tEnd Site\n{tab}\t{{\n{tab}\t\tOFFSET 0.0 {14 if name == 'Head' else -5}.0 0.0\n{tab}\t}}"
            )
        lines.append(f"{tab}}}")

    joint("Hips", 0)
    lines += ["MOTION", f"Frames: {count}", f"Frame Time: {1 / rate:.8f}"]
    for i in range(count):
        row = [*path_of_hips[i], *(angle for name in written for angle in angles[name][i])]
        lines.append(" ".join(f"{v:.6f}" for v in row))
    path.write_text("\n".join(lines) + "\n")
    places: dict[str, np.ndarray] = {name: np.empty((count, 3)) for name in [*written, "Head_end"]}
    for i in range(count):
        world: dict[str | None, np.ndarray] = {None: np.eye(4)}
        for name, parent, offset in BVH_BONES:
            matrix = world[parent] @ _move(offset if parent else path_of_hips[i])
            for axis, angle in zip(order[name], angles[name][i], strict=True):
                matrix = matrix @ _turn(axis, angle)
            world[name] = matrix
            places[name][i] = matrix[:3, 3]
        places["Head_end"][i] = (world["Head"] @ [0, 14, 0, 1])[:3]
    return places
