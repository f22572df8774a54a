"""Landmarks of the stick figures, as a detector with known faults would give them."""

from dataclasses import replace

import numpy as np

from captures_for_tests import stick_camera
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.landmarks.view_landmarks import LANDMARKS, MIRROR, ViewLandmarks
from mcss.skeletons import JOINTS

NAMED = {"Hip": "hip", "Knee": "knee", "Foot": "ankle", "Shoulder": "shoulder", "Elbow": "elbow", "Wrist": "wrist"}


def body_of(pose: np.ndarray) -> np.ndarray:
    """33 landmarks (n, 33, 3) of poses (n, 17, 3) in the same axes; what a pose lacks is put near what it has."""
    body = np.empty((len(pose), 33, 3))
    hips = pose[:, JOINTS.index("LHip")] - pose[:, JOINTS.index("RHip")]
    left = hips / np.linalg.norm(hips, axis=1, keepdims=True)
    forward = np.cross(left, [0.0, 0.0, 1.0])
    for i, name in enumerate(LANDMARKS):
        side = name.partition("_")[0] if name[:4] in ("left", "righ") else "mouth"
        sign = {"left": 1, "right": -1}.get(side, 0)
        part = next((joint for joint, landmark in NAMED.items() if name == f"{side}_{landmark}"), None)
        if part is not None:
            body[:, i] = pose[:, JOINTS.index(side[0].upper() + part)]
        elif any(word in name for word in ("pinky", "index", "thumb")) and "foot" not in name:
            body[:, i] = pose[:, JOINTS.index(side[0].upper() + "Wrist")]
        elif "heel" in name or "foot" in name:
            ahead = 150 if "foot" in name else -50
            body[:, i] = pose[:, JOINTS.index(side[0].upper() + "Foot")] + ahead * forward - [0, 0, 60]
        else:
            ear = "ear" in name
            body[:, i] = (
                pose[:, JOINTS.index("Neck")] + sign * (75 if ear else 30) * left + (0 if ear else 90) * forward
            )
    return body


def stick_landmarks(capture: Capture, depth_noise: float = 0.0, noise: float = 0.0) -> ViewLandmarks:
    """The landmarks of all images, with errors (standard deviations in mm) along the depth and in all directions."""
    instants = capture.instants()
    n, views = instants.rows.shape
    random = np.random.default_rng(0)
    cameras = capture.cameras(instants.rows.ravel())
    body = np.repeat(body_of(instants.pose.astype(np.float64)), views, axis=0)
    pixels = cameras.project(body.astype(np.float32)).reshape(n, views, 33, 2)
    seen = np.einsum("nij,nkj->nki", cameras.rotation.astype(np.float64), body)
    seen -= seen[:, [23, 24]].mean(axis=1, keepdims=True)
    seen = seen + noise * random.normal(size=seen.shape)
    seen[..., 2] += depth_noise * random.normal(size=seen.shape[:2])
    return ViewLandmarks(
        instants=instants,
        image=pixels,
        world=seen.reshape(n, views, 33, 3).astype(np.float32),
        visibility=np.ones((n, views, 33), np.float32),
        presence=np.ones((n, views), np.float32),
        image_size=np.full((views, 2), 512.0),
    )


def with_world(landmarks: ViewLandmarks, view: int, world: np.ndarray) -> ViewLandmarks:
    """The same with other landmarks in one view."""
    changed = landmarks.world.copy()
    changed[:, view] = world
    return replace(landmarks, world=changed)


def back_for_front(world: np.ndarray) -> np.ndarray:
    """What a detector says that takes a back for a front."""
    return world[..., list(MIRROR), :] * np.array([1, 1, -1], np.float32)


def without_views(landmarks: ViewLandmarks, instants: slice, views: list[int]) -> ViewLandmarks:
    """The same without some views of some instants."""
    image, world = landmarks.image.copy(), landmarks.world.copy()
    visibility, presence = landmarks.visibility.copy(), landmarks.presence.copy()
    for view in views:
        image[instants, view] = world[instants, view] = np.nan
        visibility[instants, view] = presence[instants, view] = 0
    return replace(landmarks, image=image, world=world, visibility=visibility, presence=presence)


def drawn_landmarks(poses: np.ndarray, rate: float = 10.0, noise: float = 0.0) -> ViewLandmarks:
    """Landmarks of poses (n, 17, 3) of one person in a row, as the four cameras of the stick figures see them.

    Args:
        poses: mm in the room.
        rate: Instants per second.
        noise: Standard deviation in pixels of the 2D landmarks; ten times as many mm of the 3D ones.
    """
    n, views = len(poses), 4
    zeros = np.zeros(n, np.int64)
    instants = Instants(
        subjects=("P",),
        sequences=("walk",),
        actions=("walk",),
        views=tuple(str(view + 1) for view in range(views)),
        subject=zeros,
        sequence=zeros,
        action=zeros,
        outfit=zeros,
        frame=np.arange(n),
        time=np.arange(n) / rate,
        rows=np.arange(n * views).reshape(n, views),
        pose=poses.astype(np.float32),
        heading_valid=np.ones(n, bool),
    )
    random = np.random.default_rng(0)
    body = body_of(poses.astype(np.float64))
    image, world = np.empty((n, views, 33, 2)), np.empty((n, views, 33, 3))
    for view in range(views):
        camera = stick_camera(view)
        seen = body @ camera.rotation.T + camera.translation
        flat = seen @ camera.intrinsics.T
        image[:, view] = flat[..., :2] / flat[..., 2:]
        world[:, view] = seen - seen[:, [23, 24]].mean(axis=1, keepdims=True)
    image += noise * random.normal(size=image.shape)
    world += 10 * noise * random.normal(size=world.shape)
    return ViewLandmarks(
        instants=instants,
        image=image.astype(np.float32),
        world=world.astype(np.float32),
        visibility=np.ones((n, views, 33), np.float32),
        presence=np.ones((n, views), np.float32),
        image_size=np.full((views, 2), 512.0),
    )
