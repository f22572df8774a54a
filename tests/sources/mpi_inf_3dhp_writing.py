"""A few frames of MPI-INF-3DHP in the release's formats, written without the importer's code."""

from pathlib import Path

import cv2
import h5py
import numpy as np
from filming import write_video
from pose_writing import walk, y_up
from scipy.io import savemat

from captures_for_tests import stick_camera
from mcss.skeletons import JOINTS, PARENTS

SIZE = 128
ORDER = (
    "spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow left_wrist left_hand "
    "right_clavicle right_shoulder right_elbow right_wrist right_hand left_hip left_knee left_ankle left_foot left_toe "
    "right_hip right_knee right_ankle right_foot right_toe"
)
TEST_ORDER = (
    "head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist right_hip right_knee "
    "right_ankle left_hip left_knee left_ankle pelvis spine head"
)
PLACES = {
    "pelvis": "Hip",
    "spine": "Spine",
    "neck": "Thorax",
    "head": "Neck",
    "head_top": "Head",
    "left_clavicle": "Thorax",
    "right_clavicle": "Thorax",
    "left_foot": "LFoot",
    "right_foot": "RFoot",
    "left_toe": "LFoot",
    "right_toe": "RFoot",
    "left_hand": "LWrist",
    "right_hand": "RWrist",
    "left_ankle": "LFoot",
    "right_ankle": "RFoot",
    "spine2": "Spine",
    "spine3": "Spine",
    "spine4": "Thorax",
}


def in_order(poses: np.ndarray, order: str) -> np.ndarray:
    """Put mcss's 17 joints in the order of the data set."""
    names = [
        PLACES.get(name) or {"left": "L", "right": "R"}[name.split("_")[0]] + name.split("_")[1].capitalize()
        for name in order.split()
    ]
    return poses[:, [JOINTS.index(name) for name in names]]


def camera_of(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rotation and translation from a world with Y up, and intrinsics, of a camera on a circle."""
    camera = stick_camera(number)
    rotation = camera.rotation[:, [0, 2, 1]] * [1, 1, -1]
    intrinsics = np.array([[SIZE * 1.3, 0, SIZE / 2], [0, SIZE * 1.3, SIZE / 2], [0, 0, 1]])
    return rotation, camera.translation, intrinsics


def seen_by(number: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transform points of a Y-up world to camera space (mm) and to the image (pixels)."""
    rotation, translation, intrinsics = camera_of(number)
    own = places @ rotation.T + translation
    pixels = own @ intrinsics.T
    return own, pixels[..., :2] / pixels[..., 2:]


def drawn(pixels: np.ndarray) -> np.ndarray:
    """Draw a person whose 17 joints are at `pixels`."""
    image = np.full((SIZE, SIZE, 3), (40, 120, 60), np.uint8)
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            ends = [tuple(int(v) for v in pixels[k].round()) for k in (joint, parent)]
            cv2.line(image, ends[0], ends[1], (220, 60, 50), 3)
    return image


def write_calibration(path: Path, numbers: tuple[int, ...] = tuple(range(14))) -> None:
    """Write ``camera.calibration`` as in the release."""
    lines = ["Skeletool Camera Calibration File V1.0"]
    for number in numbers:
        rotation, translation, intrinsics = camera_of(number)
        inner, outer = np.eye(4), np.eye(4)
        inner[:3, :3], outer[:3, :3], outer[:3, 3] = intrinsics, rotation, translation
        lines += [
            f"name          {number}",
            "  sensor      10 10",
            f"  size        {SIZE} {SIZE}",
            "  animated    0",
            "  intrinsic   " + " ".join(f"{v:.8g}" for v in inner.ravel()) + " ",
            "  extrinsic   " + " ".join(f"{v:.8g}" for v in outer.ravel()) + " ",
            "  radial      0",
        ]
    path.write_text("\n".join(lines) + "\n")


def tables(poses: np.ndarray, scale: float = 1.0) -> dict[str, list[np.ndarray]]:
    """Return annot2, annot3 and univ_annot3 of 14 cameras, T × 56 or T × 84; the universal person's scale is 0.9."""
    places = in_order(y_up(poses), ORDER)
    found: dict[str, list[np.ndarray]] = {"annot2": [], "annot3": [], "univ_annot3": []}
    for number in range(14):
        own, pixels = seen_by(number, places)
        found["annot2"].append(pixels.reshape(len(poses), -1))
        found["annot3"].append(own.reshape(len(poses), -1) * scale)
        found["univ_annot3"].append(0.9 * own.reshape(len(poses), -1) * scale)
    return found


def write_annot(path: Path, found: dict[str, list[np.ndarray]], version: str = "v5") -> None:
    """Write ``annot.mat``: cell arrays of 14 cameras."""
    if version == "v5":
        content = {}
        for name, arrays in found.items():
            content[name] = np.empty((len(arrays), 1), object)
            for number, array in enumerate(arrays):
                content[name][number, 0] = array
        savemat(
            path, {**content, "cameras": np.arange(14)[None], "frames": np.arange(len(found["annot3"][0]))[:, None]}
        )
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, arrays in found.items():
            cell = file.create_dataset(name, (1, len(arrays)), dtype=h5py.ref_dtype)
            for number, array in enumerate(arrays):
                cell[0, number] = file.create_dataset(f"#refs#/{name}{number}", data=array.T).ref
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_take(
    folder: Path, poses: np.ndarray, cameras: tuple[int, ...], rate: float = 25.0, version: str = "v5"
) -> None:
    """Write one sequence of S1 to S8 with videos of some cameras."""
    (folder / "imageSequence").mkdir(parents=True)
    write_calibration(folder / "camera.calibration")
    write_annot(folder / "annot.mat", tables(poses), version)
    for number in cameras:
        pixels = seen_by(number, y_up(poses))[1]
        write_video(folder / "imageSequence" / f"video_{number}.avi", map(drawn, pixels), rate)


def write_test_take(folder: Path, poses: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Write one sequence of the test set; return mcss's joints in camera space."""
    (folder / "imageSequence").mkdir(parents=True)
    own, pixels = seen_by(0, in_order(y_up(poses), TEST_ORDER))
    with h5py.File(folder / "annot_data.mat", "w", userblock_size=512) as file:
        file["annot2"], file["annot3"], file["univ_annot3"] = pixels[:, None], own[:, None], 0.9 * own[:, None]
        file["valid_frame"] = valid[:, None].astype(np.float64)
        file["activity_annotation"] = np.full((len(poses), 1), 3.0)
    with (folder / "annot_data.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    for index, joints in enumerate(seen_by(0, y_up(poses))[1]):
        cv2.imwrite(str(folder / "imageSequence" / f"img_{index + 1:06d}.jpg"), drawn(joints)[..., ::-1])
    return seen_by(0, y_up(poses))[0]


def performance(count: int, rate: float = 25.0) -> np.ndarray:
    """Poses of 17 joints in mm, +Z up."""
    return walk(count, rate)
