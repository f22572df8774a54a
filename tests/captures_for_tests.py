"""Stick figures seen by four cameras: real pixels, poses and matrices, made within a second."""

import math

import cv2
import numpy as np

from mcss.data.cameras import Camera
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.skeletons import PARENTS

SIZE = 64
VIEWS = ("1", "2", "3", "4")
SUBJECTS = ("S1", "S2", "S3")
SEQUENCES = ("Walking 1", "Waving 1")
INSTANTS = 24
RATE = 10.0

INFO = CaptureInfo(
    importer="stick figures",
    licence="CC0-1.0",
    image_size=SIZE,
    splits={
        "train": (Selector(subjects=("S1", "S2")),),
        "validation": (Selector(subjects=("S3",), frames=(0, 8)),),
        "test": (Selector(subjects=("S3",), frames=(8, INSTANTS)),),
    },
    settings={"seed": 0, "subjects": 3},
)


def stick_pose(subject: int, sequence: int, time: float) -> np.ndarray:
    """17 joints in world mm of a person who walks in a circle, or stands, turns and waves."""
    height = 0.9 + 0.1 * subject
    swing = math.sin(2 * math.pi * (0.9 + 0.2 * subject) * time + subject)
    leg, lift = (0.5 * swing, 0.3) if sequence == 0 else (0.05 * swing, 1.8 + 0.6 * swing)
    arm = (0.6 * swing, -0.6 * swing) if sequence == 0 else (lift, 0.2)
    joints = np.zeros((17, 3))  # the person faces +Y with their left at -X, and is turned below

    def limb(start: np.ndarray, first: float, second: float, bend: float, angle: float) -> list[np.ndarray]:
        middle = start + first * np.array([0, math.sin(angle), -math.cos(angle)])
        return [middle, middle + second * np.array([0, math.sin(angle + bend), -math.cos(angle + bend)])]

    joints[0] = 0, 0, 900
    for side, (hip, shoulder), sign in ((-1, (4, 11), 1), (1, (1, 14), -1)):
        joints[hip] = side * 120, 0, 900
        joints[hip + 1 : hip + 3] = limb(joints[hip], 430, 420, -0.4 - 0.3 * leg * sign, sign * leg)
        joints[shoulder] = side * 180, 0, 1400
        swung = arm[0] if side < 0 else arm[1]
        joints[shoulder + 1 : shoulder + 3] = limb(joints[shoulder], 290, 260, 0.3 + 0.3 * abs(swung), swung)
    joints[7:11] = [[0, 0, 1150], [0, 0, 1400], [0, 20, 1500], [0, 0, 1650]]
    heading = 0.7 * time + subject + 1.5 * sequence
    c, s = math.cos(heading), math.sin(heading)
    turned = joints @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    place = np.array([600 * math.cos(0.8 * time), 600 * math.sin(0.8 * time), 0]) * (sequence == 0)
    return (turned * height + place).astype(np.float32)


def stick_camera(view: int) -> Camera:
    """One of four cameras on a circle, 1.3 m high, which look at its centre; 512×512 pixels."""
    angle = math.pi / 2 * view + 0.3
    eye = np.array([4500 * math.cos(angle), 4500 * math.sin(angle), 1300.0])
    ahead = np.array([0, 0, 900.0]) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [0, 0, 1])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(ahead, right), ahead])
    intrinsics = np.array([[700.0, 0, 256], [0, 700, 256], [0, 0, 1]])
    return Camera(rotation=rotation, translation=-rotation @ eye, intrinsics=intrinsics)


def stick_image(pose: np.ndarray, camera: Camera, subject: int) -> tuple[bytes, tuple[float, float, float, float]]:
    """The crop of the drawn person, and its box in the source image."""
    seen = (pose @ camera.rotation.T + camera.translation) @ camera.intrinsics.T
    pixels = seen[:, :2] / seen[:, 2:]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    centre, half = (low + high) / 2, 0.6 * (high - low).max()
    corner = centre - half
    scale = SIZE / (2 * half)
    image = np.full((SIZE, SIZE, 3), (200, 190, 180), np.uint8)
    clothes = [(200, 40, 40), (40, 160, 60), (50, 60, 200)][subject % 3]
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            ends = [tuple(int(v) for v in (pixels[j] - corner) * scale) for j in (parent, joint)]
            shade = 1.0 if 4 <= joint <= 6 or 11 <= joint <= 13 else 0.6  # left limbs are brighter
            cv2.line(image, ends[0], ends[1], tuple(int(c * shade) for c in clothes), 4, cv2.LINE_AA)
    ok, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert ok
    return jpeg.tobytes(), (*map(float, corner), *map(float, corner + 2 * half))


def stick_part(subject: int, sequence: int, instants: int = INSTANTS, labelled: bool = True) -> list[Frame]:
    """All frames and views of one sequence of one subject."""
    frames = []
    for number in range(instants):
        pose = stick_pose(subject, sequence, number / RATE)
        for view in range(len(VIEWS)):
            camera = stick_camera(view)
            image, box = stick_image(pose, camera, subject)
            frames.append(
                Frame(
                    subject=SUBJECTS[subject],
                    sequence=SEQUENCES[sequence],
                    action=SEQUENCES[sequence].split()[0],
                    frame=number,
                    time=number / RATE,
                    view=VIEWS[view],
                    image=image,
                    box=box,
                    pose=pose if labelled else None,
                    camera=camera,
                )
            )
    return frames


def stick_parts() -> list[list[Frame]]:
    """Every part of the tiny capture."""
    return [stick_part(s, q) for s in range(len(SUBJECTS)) for q in range(len(SEQUENCES))]


def empty_scene() -> bytes:
    """Images of the scene without people, one per camera."""
    ok, jpeg = cv2.imencode(".jpg", np.full((512, 512, 3), (180, 190, 200), np.uint8))
    assert ok
    return jpeg.tobytes()


def photo(height: int = 400, width: int = 300) -> np.ndarray:
    """A random image of smooth colours, of the size of a photograph."""
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 255, (8, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
