"""The cameras of a recording as arrays: where they stand, what they see, and the same cameras in another room."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, Float64

from mcss.data.cameras import Camera

MIN_DEPTH = 1.0
"""Points nearer than this many mm in front of a camera are not seen by it."""


@dataclass(frozen=True, eq=False)
class Rig:
    """Cameras that stand still, ``x_camera = rotation @ x_room + translation``, in mm and source pixels."""

    views: tuple[str, ...]
    """Names of the cameras."""
    rotation: Float64[np.ndarray, "views 3 3"]
    translation: Float64[np.ndarray, "views 3"]
    intrinsics: Float64[np.ndarray, "views 3 3"]
    distortion: Float64[np.ndarray, "views 5"]
    """k1, k2, p1, p2, k3 in OpenCV's order."""
    image_size: Float64[np.ndarray, "views 2"]
    """Width and height in pixels; NaN where they are not known."""

    def __len__(self) -> int:
        return len(self.views)

    @property
    def focal(self) -> Float64[np.ndarray, " views"]:
        """Focal lengths in pixels, along x."""
        return self.intrinsics[:, 0, 0]

    @property
    def positions(self) -> Float64[np.ndarray, "views 3"]:
        """Where the cameras are in the room, in mm."""
        return np.asarray(-np.einsum("vji,vj->vi", self.rotation, self.translation), np.float64)

    def camera(self, view: int) -> Camera:
        """One camera as a capture keeps it, which is without distortion."""
        return Camera(self.rotation[view], self.translation[view], self.intrinsics[view])

    def in_camera(self, points: Float[np.ndarray, "n joints 3"]) -> Float64[np.ndarray, "n views joints 3"]:
        """Points of the room along the axes of every camera, in mm."""
        turned = np.einsum("vij,nkj->nvki", self.rotation, points)
        return np.asarray(turned + self.translation[:, None], np.float64)

    def project(self, points: Float[np.ndarray, "n joints 3"]) -> Float64[np.ndarray, "n views joints 2"]:
        """Pixels of points of the room (mm), distortion included; NaN for points that a camera does not see."""
        seen = self.in_camera(points)
        pixels = np.full((*seen.shape[:3], 2), np.nan)
        origin = np.zeros(3)
        for v in range(len(self)):
            ahead = seen[:, v, :, 2] > MIN_DEPTH
            if ahead.any():
                found = cv2.projectPoints(seen[:, v][ahead], origin, origin, self.intrinsics[v], self.distortion[v])[0]
                pixels[:, v][ahead] = found[:, 0]
        return pixels

    def rays(self, pixels: Float[np.ndarray, "n views joints 2"]) -> Float64[np.ndarray, "n views joints 2"]:
        """Where the rays of pixels meet the plane at depth 1 before their camera, without distortion; NaN stays NaN."""
        rays = np.full(pixels.shape, np.nan)
        for v in range(len(self)):
            known = np.isfinite(pixels[:, v]).all(axis=-1)
            if known.any():
                chosen = np.asarray(pixels[:, v][known], np.float64)[:, None]
                rays[:, v][known] = cv2.undistortPoints(chosen, self.intrinsics[v], self.distortion[v])[:, 0]
        return rays

    def taken(self, views: Sequence[int]) -> "Rig":
        """Some of the cameras, in the given order."""
        index = list(views)
        return Rig(
            tuple(self.views[v] for v in index),
            *(part[index] for part in (self.rotation, self.translation)),
            *(part[index] for part in (self.intrinsics, self.distortion, self.image_size)),
        )

    def in_room(self, turn: Float64[np.ndarray, "3 3"], origin: Float64[np.ndarray, " 3"], scale: float = 1.0) -> "Rig":
        """The same cameras in a room whose points are ``scale * turn @ (x - origin)`` of the points x of this one."""
        rotation = self.rotation @ turn.T
        translation = scale * (np.einsum("vij,j->vi", self.rotation, origin) + self.translation)
        return replace(self, rotation=rotation, translation=translation)


def guessed_intrinsics(
    image_size: Float64[np.ndarray, "views 2"], focal: Sequence[float]
) -> Float64[np.ndarray, "views 3 3"]:
    """Pinhole cameras that look through the middle of their images.

    Args:
        image_size: Width and height in pixels.
        focal: Focal length of each view in units of the longer side of its image.
    """
    intrinsics = np.zeros((len(image_size), 3, 3))
    pixels = np.asarray(focal, np.float64) * image_size.max(axis=1)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = pixels
    intrinsics[:, :2, 2] = image_size / 2
    intrinsics[:, 2, 2] = 1
    return intrinsics
