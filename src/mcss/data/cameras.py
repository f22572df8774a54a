"""Where labelled joints lie in the crops: poses seen by the cameras of a capture."""

import numpy as np
from jaxtyping import Float32, Int

from mcss.data.capture import Capture
from mcss.data.instants import Instants


def seen_joints(
    capture: Capture, rows: Int[np.ndarray, " n"], pose: Float32[np.ndarray, "n 17 3"]
) -> Float32[np.ndarray, "n 17 2"]:
    """Joints of world poses (mm) in pixels of the source images; NaN without pose or camera, and behind a camera."""
    cameras = capture.cameras(rows)
    points = np.einsum("nij,nkj->nki", cameras.rotation, pose) + cameras.translation[:, None]
    depth = points[..., 2:]
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = np.einsum("nij,nkj->nki", cameras.intrinsics, points / np.where(depth > 1, depth, np.nan))
    seen: Float32[np.ndarray, "n 17 2"] = pixels[..., :2].astype(np.float32)
    return seen


def in_crops(seen: Float32[np.ndarray, "n 17 2"], boxes: Float32[np.ndarray, "n 4"]) -> Float32[np.ndarray, "n 17 2"]:
    """Source pixels as shares of the crop's width and height: 0..1 is inside."""
    corner, size = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    shares: Float32[np.ndarray, "n 17 2"] = (seen - corner) / np.maximum(size, 1e-6)
    return shares


def joints_in_crops(capture: Capture, rows: Int[np.ndarray, " n"], instants: Instants) -> Float32[np.ndarray, "n 17 2"]:
    """`in_crops` for the images `rows`, each of which shows the instant at the same place of `instants`."""
    return in_crops(seen_joints(capture, rows, instants.pose), capture.boxes(rows))
