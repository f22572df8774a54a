"""A tiny Human3.6M in the formats of the release."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
from cdflib.cdfwrite import CDF
from filming import write_video

from captures_for_tests import stick_pose
from mcss.skeletons import HUMAN36M_32

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
ACTIONS = ("Miscellaneous", "Directions", "Greeting", "TakingPhoto", "Waiting", "WalkingDog")
SUBJECTS = tuple(f"S{n}" for n in range(1, 12))
SIZE = 160
LENGTH = 70

FILES: Mapping[tuple[int, int], str | Mapping[str, str]] = {
    (1, 1): "_ALL 1",
    (2, 1): "Directions 1",
    (2, 2): {"S5": "Directions 2", "": "Directions"},
    (3, 2): "Greeting",
    (6, 1): {"S1": "WalkingDog 1", "": "WalkDog 1"},
}
"""(Action, sub-action) → the beginning of the file names; "" stands for all other subjects."""


def camera(number: int, subject: int) -> dict[str, np.ndarray]:
    """A camera that looks at the centre of the room from its own corner, slightly shifted for every subject."""
    angle = np.pi / 2 * number + 0.4 + 0.02 * subject
    eye = np.array([4800 * np.cos(angle), 4800 * np.sin(angle), 1500.0 + 10 * subject])
    ahead = np.array([0, 0, 900.0]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(ahead, right), ahead])
    inner = np.array([240.0 + number, 241.0, SIZE / 2 + 1, SIZE / 2 - 1, -0.2, 0.24, -0.002, -0.0009, -0.0014])
    return {"rotation": rotation, "eye": eye, "inner": inner}


def euler(rotation: np.ndarray) -> tuple[float, float, float]:
    """Return a, b, c with rotation = Rx(a) · Ry(b) · Rz(c), derived by hand."""
    b = np.arcsin(rotation[0, 2])
    a = np.arctan2(-rotation[1, 2], rotation[2, 2])
    c = np.arctan2(-rotation[0, 1], rotation[0, 0])
    return a, b, c


def seen(number: int, subject: int, points: np.ndarray) -> np.ndarray:
    """Project world points to pixels by the formulas of the data set's own code: radial k1 k2 k3, tangential p1 p2."""
    c = camera(number, subject)
    x = (points - c["eye"]) @ c["rotation"].T
    x, y = x[:, 0] / x[:, 2], x[:, 1] / x[:, 2]
    fx, fy, cx, cy, k1, k2, k3, p1, p2 = c["inner"]
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    bent_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    bent_y = y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
    return np.stack([fx * bent_x + cx, fy * bent_y + cy], axis=1)


def write_metadata(
    path: Path, files: Mapping[tuple[int, int], str | Mapping[str, str]] = FILES, numbers: int | None = None
) -> Path:
    """Write metadata.xml with the first `numbers` of its camera parameters."""
    root = ElementTree.Element("a")

    def row(parent: ElementTree.Element, cells: Sequence[object]) -> None:
        tr = ElementTree.SubElement(parent, "tr")
        for cell in cells:
            ElementTree.SubElement(tr, "td").text = None if cell is None else str(cell)

    mapping = ElementTree.SubElement(root, "mapping")
    row(mapping, ["Action", "subaction", *SUBJECTS])
    for (action, sub), names in files.items():
        own = [names if isinstance(names, str) else names.get(s, names[""]) for s in SUBJECTS]
        row(mapping, [action, sub, *own])
    row(mapping, ["Action", "subaction", *["Irina"] * 11])
    row(mapping, [None, None, *["[1002 1000;1000 1000;1000 1000;1002 1000]"] * 11])
    names_of_actions = ElementTree.SubElement(root, "actionnames")
    for action in ACTIONS:
        ElementTree.SubElement(names_of_actions, "item").text = action
    ids = ElementTree.SubElement(ElementTree.SubElement(root, "dbcameras"), "index2id")
    for name in CAMERAS:
        ElementTree.SubElement(ids, "item").text = name
    outer = [
        [*euler(camera(n, s)["rotation"]), *camera(n, s)["eye"]] for n in range(len(CAMERAS)) for s in range(1, 12)
    ]
    inner = [camera(n, 0)["inner"] for n in range(len(CAMERAS))]
    values = np.concatenate([np.ravel(outer), np.ravel(inner)])[:numbers]
    ElementTree.SubElement(root, "w0").text = "[" + " ".join(f"{v:.15g}" for v in values) + "]"
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)
    return path


def walk(length: int = LENGTH) -> np.ndarray:
    """World positions (length, 32, 3) in mm of a person about 1.7 m tall who crosses the room."""
    rng = np.random.default_rng(7)
    body = np.concatenate([rng.uniform(-250, 250, (32, 2)), rng.uniform(0, 1700, (32, 1))], axis=1)
    body[list(HUMAN36M_32)] = stick_pose(1, 1, 0.0)
    body[0] = 0, 0, 900
    body[6] = 0, 130, 890  # the left hip
    body[15] = 0, 0, 1700
    t = np.linspace(-1, 1, length)
    path = np.stack([600 * t, 200 * np.sin(3 * t), np.zeros(length)], axis=1)
    return body + path[:, None]


def write_cdf(path: Path, poses: np.ndarray, name: str = "Pose", majority: str = "column_major") -> Path:
    """Write the D3_Positions of one sequence: one record of T × 96."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    values = poses.reshape(1, len(poses), -1).astype(np.float32)
    stored = values if majority == "row_major" else np.reshape(values[0].ravel(order="F"), values.shape)
    with CDF(path, cdf_spec={"Majority": majority}) as file:
        spec = {
            "Variable": name,
            "Data_Type": 44,
            "Num_Elements": 1,
            "Rec_Vary": True,
            "Dim_Sizes": list(values.shape[1:]),
            "Compress": 6,
        }
        file.write_var(spec, var_data=stored)
    return path


def write_masks(path: Path, boxes: np.ndarray, size: int = SIZE) -> Path:
    """Write the ground_truth_bb of one view as MATLAB's -v7.3 does: a cell array of masks, empty for NaN boxes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = file.create_dataset("Masks", (len(boxes), 1), dtype=h5py.ref_dtype)
        cells.attrs["MATLAB_class"] = np.bytes_("cell")
        group = file.create_group("#refs#")
        for i, box in enumerate(boxes):
            mask = np.zeros((size, size), np.uint8)
            if np.isfinite(box).all():
                x0, y0, x1, y1 = box.astype(int)
                mask[max(y0, 0) : y1, max(x0, 0) : x1] = 1
            cells[i, 0] = group.create_dataset(f"m{i}", data=mask.T, compression="gzip").ref
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return path


def shots_of(number: int, subject: int, poses: np.ndarray, count: int | None = None) -> list[np.ndarray]:
    """Draw a camera's images: a grey room, a white disc at the pelvis, the frame number as the shade of the edge."""
    roots = seen(number, subject, poses[:, 0])
    shots = []
    for i in range(count or len(poses)):
        image = np.full((SIZE, SIZE, 3), 90, np.uint8)
        image[:12, :12] = 3 * i % 250
        cv2.circle(image, tuple(int(v) for v in roots[min(i, len(roots) - 1)].round()), 5, (255, 255, 255), -1)
        shots.append(image)
    return shots


def around(number: int, subject: int, poses: np.ndarray) -> np.ndarray:
    """The bounding box of the joints as the data set would annotate it, in whole pixels."""
    pixels = seen(number, subject, poses.reshape(-1, 3)).reshape(len(poses), 32, 2)
    return np.concatenate([np.floor(pixels.min(axis=1)), np.ceil(pixels.max(axis=1))], axis=1)


def write_take(
    root: Path,
    subject: str,
    file: str,
    annotated: np.ndarray | None = None,
    truth: np.ndarray | None = None,
    shots: int | None = None,
    cameras: Sequence[str] = CAMERAS,
) -> None:
    """Write all files of a sequence: poses and boxes from `annotated`, videos of `truth` with `shots` images."""
    annotated = walk() if annotated is None else annotated
    truth = annotated if truth is None else truth
    folder, number = root / subject, int(subject[1:])
    write_cdf(folder / "MyPoseFeatures" / "D3_Positions" / f"{file}.cdf", annotated)
    for k, name in enumerate(CAMERAS):
        boxes = around(k, number, np.nan_to_num(annotated))
        write_masks(folder / "MySegmentsMat" / "ground_truth_bb" / f"{file}.{name}.mat", boxes)
        if name in cameras:
            write_video(folder / "Videos" / f"{file}.{name}.mp4", shots_of(k, number, truth, shots), rate=50.0)
