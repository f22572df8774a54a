"""Cameras with lens distortion, as data sets calibrate them; a capture's cameras have none."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float64

from mcss.data.cameras import Camera


@dataclass(frozen=True, eq=False)
class DistortedCamera:
    """A calibrated camera, ``x_camera = rotation @ x_world + translation``, in mm and pixels of the original image."""

    name: str
    rotation: Float64[np.ndarray, "3 3"]
    translation: Float64[np.ndarray, " 3"]
    intrinsics: Float64[np.ndarray, "3 3"]
    distortion: Float64[np.ndarray, " coefficients"]
    """k1, k2, p1, p2, k3 in OpenCV's order."""
    image_size: tuple[int, int] | None = None
    """Width and height of the images in pixels, where the calibration states them."""

    def pinhole(self) -> Camera:
        """Return the camera without its distortion."""
        return Camera(self.rotation, self.translation, self.intrinsics)

    def pixels(self, world: Float[np.ndarray, "*batch 3"]) -> Float64[np.ndarray, "*batch 2"]:
        """Project points of the data set's own world (mm), distortion included.

        A point that is unknown (NaN) or behind the camera is NaN.
        """
        in_camera = np.asarray(world, np.float64).reshape(-1, 3) @ self.rotation.T + self.translation
        visible = np.isfinite(in_camera).all(axis=1) & (in_camera[:, 2] > 1)
        pixels = np.full((len(in_camera), 2), np.nan)
        if visible.any():
            origin = np.zeros(3)
            projected = cv2.projectPoints(in_camera[visible], origin, origin, self.intrinsics, self.distortion)[0]
            pixels[visible] = projected[:, 0]
        return pixels.reshape(*world.shape[:-1], 2)
