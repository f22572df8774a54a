"""Pinhole cameras, and where they see points in the world."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera, ``x_camera = rotation @ x_world + translation``, in mm and pixels of the source image."""

    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, " 3"]
    intrinsics: Float[np.ndarray, "3 3"]


@dataclass(frozen=True, eq=False)
class Cameras:
    """The cameras of several images, as arrays; NaN for images whose camera is not known."""

    rotation: Float32[np.ndarray, "n 3 3"]
    translation: Float32[np.ndarray, "n 3"]
    intrinsics: Float32[np.ndarray, "n 3 3"]

    def project(self, points: Float32[np.ndarray, "n points 3"]) -> Float32[np.ndarray, "n points 2"]:
        """Project world points (mm), those of each image by its camera, into pixels of the source images.

        NaN where the point or the camera is not known, and for points behind the camera.
        """
        seen = np.einsum("nij,nkj->nki", self.rotation, points) + self.translation[:, None]
        depth = seen[..., 2:]
        with np.errstate(invalid="ignore", divide="ignore"):
            pixels = np.einsum("nij,nkj->nki", self.intrinsics, seen / np.where(depth > 1, depth, np.nan))
        return np.asarray(pixels[..., :2], np.float32)

    def crop_rotations(self, boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 3 3"]:
        """World to crop: the camera's axes, turned by the least angle so that z runs through the middle of the crop.

        A crop shows a person from the direction of its own viewing ray, not of the camera's axis. Where a camera's
        intrinsics are not known, its own axes are returned.

        Args:
            boxes: Crop boxes (x0, y0, x1, y1) in pixels of the source images.
        """
        middle = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, np.ones((len(boxes), 1))], axis=1)
        known = np.isfinite(self.intrinsics).all(axis=(1, 2))
        rays = np.linalg.solve(
            np.where(known[:, None, None], self.intrinsics, np.eye(3)).astype(np.float64), middle[..., None]
        )
        rays[~known] = [[0.0], [0.0], [1.0]]
        x, y, z = np.moveaxis(rays[..., 0] / np.linalg.norm(rays[..., 0], axis=1, keepdims=True), 1, 0)
        share = 1 / (1 + z)  # Rodrigues' formula for the rotation about (y, -x, 0) that takes (x, y, z) to (0, 0, 1)
        turn = np.stack(
            [1 - x * x * share, -x * y * share, -x, -x * y * share, 1 - y * y * share, -y, x, y, z], axis=1
        ).reshape(-1, 3, 3)
        return np.asarray(turn @ self.rotation, np.float32)


def are_rotations(matrices: Float[np.ndarray, "*batch 3 3"]) -> Bool[np.ndarray, "*batch"]:
    """Whether matrices are rotations: orthonormal within 0.001, and not mirrored. Matrices with NaN are not."""
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    safe = np.where(finite[..., None, None], matrices, 0).astype(np.float64)
    orthonormal = np.abs(safe @ np.swapaxes(safe, -1, -2) - np.eye(3)).max(axis=(-2, -1)) <= 1e-3
    return np.asarray(finite & orthonormal & (np.linalg.det(safe) > 0))


def in_crops(
    pixels: Float32[np.ndarray, "n points 2"], boxes: Float32[np.ndarray, "n 4"]
) -> Float32[np.ndarray, "n points 2"]:
    """Convert pixels of the source images to shares of the crops' width and height; 0 to 1 lies inside."""
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    shares: Float32[np.ndarray, "n points 2"] = (pixels - corner) / np.maximum(size, 1e-6)
    return shares
