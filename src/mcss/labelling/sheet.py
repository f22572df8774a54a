"""A sheet of images on which labels can be checked by eye."""

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from mcss.data.capture import Capture
from mcss.data.contact_sheet import captioned, drawn_pose, spread_instants
from mcss.labelling.joints import joints_of_landmarks
from mcss.labelling.make import MadeLabels
from mcss.viz.skeleton import draw_skeleton

_EMPTY = 245


def label_sheet(
    capture: Capture, made: MadeLabels, count: int = 12, size: int = 192
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw some labelled instants: a row each, with the label's skeleton over every view and from the front.

    The label is turned as each view sees it, and is as large as that view's own landmarks and in their place: it shows
    what the views have agreed on. The least sure instants come last.

    Args:
        capture: Where the images are.
        made: Labels of that capture.
        count: Number of instants: two thirds of them spread over time, and the least sure ones.
        size: Side of an image in pixels.
    """
    spread = spread_instants(made.instants, max(1, min(len(made), round(count * 2 / 3))))
    doubtful = np.argsort(made.confidence, kind="stable")[: max(0, count - len(spread))]
    chosen = np.array(list(dict.fromkeys([*spread.tolist(), *doubtful[::-1].tolist()])), np.int64)
    instants, overlays = made.instants.take(chosen), _in_images(made, chosen)
    blocks = []
    for i in range(len(instants)):
        cells = [np.full((size, size, 3), _EMPTY, np.uint8) for _ in instants.views]
        for view in np.flatnonzero(instants.rows[i] >= 0):
            row = instants.rows[i, view : view + 1]
            cells[view] = capture.decode(row, size)[0]
            box = capture.boxes(row)[0]
            draw_skeleton(cells[view], (overlays[i, view] - box[:2]) / (box[2:] - box[:2]))
        cells.append(drawn_pose(instants.pose[i], size))
        text = f"{instants.describe(i)}, {instants.time[i]:.2f} s: confidence {made.confidence[chosen[i]]:.2f}"
        blocks.append(captioned(np.concatenate(cells, axis=1), text))
    return np.concatenate(blocks, axis=0)


def _in_images(made: MadeLabels, chosen: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k views 17 2"]:
    """Pixels of the labels' joints in the source images: as large as a view's own landmarks, and in their place."""
    landmarks = made.landmarks.take(chosen)
    seen = (made.poses[chosen][:, None] @ made.to_view[chosen])[..., :2]
    flat = np.pad(landmarks.image.astype(np.float64), ((0, 0), (0, 0), (0, 0), (0, 1)))
    views = range(len(landmarks.views))
    image = np.stack([joints_of_landmarks(flat[:, view])[..., :2] for view in views], axis=1)
    centre, middle = image.mean(axis=2, keepdims=True), seen.mean(axis=2, keepdims=True)
    size, true_size = (np.square(part).sum(axis=(2, 3)) for part in (image - centre, seen - middle))
    scale = np.sqrt(size / np.maximum(true_size, 1e-9))[..., None, None]
    pixels: Float32[np.ndarray, "k views 17 2"] = ((seen - middle) * scale + centre).astype(np.float32)
    return pixels
