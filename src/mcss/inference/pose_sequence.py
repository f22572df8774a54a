"""What was predicted of one person through time: the frames of a video, one image, or the instants of a sequence."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from mcss.inference.smoothing import SmoothingSettings, smoothed
from mcss.models.model import Poses
from mcss.models.orientation import Orientation

Turned = Literal["canonical", "view"]
"""Everybody faces the same way; or as the camera sees the person, upright: +X to the right of the image, +Y away."""


@dataclass(frozen=True, eq=False)
class Take:
    """Predictions through time, one for each frame."""

    name: str
    """Of the files that it is written to."""
    source: str
    """The file, or sequence of a capture, that was looked at."""
    poses: Poses
    frame: Int64[np.ndarray, " n"]
    """Number of the image, from 0."""
    time: Float64[np.ndarray, " n"]
    """Seconds."""
    found: Bool[np.ndarray, " n"]
    """Whether the person was found there; else the crop is interpolated from before and after."""
    rate: float
    """Frames a second; 1 for single images."""
    model: str = ""
    """The model that predicted."""
    notes: tuple[str, ...] = ()
    """What whoever uses this should know."""
    views: Mapping[str, Poses] = field(default_factory=dict)
    """What the pose was fused from, by the name of the view; empty for a single view."""

    def __len__(self) -> int:
        return len(self.frame)

    def turned(self, how: Turned) -> Float64[np.ndarray, "n 17 3"]:
        """The poses in mm, +Z up, the pelvis at the origin.

        Raises:
            CheckpointError: As the camera sees the person, of a model that does not know.
        """
        if how == "canonical":
            return self.poses.pose.astype(np.float64)
        return self.poses.upright()


def smooth(take: Take, settings: SmoothingSettings) -> Take:
    """The take with its poses, headings and places in the image smoothed; embeddings stay as they are."""
    if settings.smooth == "none" or len(take) < 3:
        return take

    def calm(values: np.ndarray, scale: float = 1.0) -> Float32[np.ndarray, "..."]:
        # The filter's speed is in mm/s; `scale` says how many mm a unit stands for.
        return np.asarray(smoothed(values * scale, take.time, settings) / scale, np.float32)

    poses = replace(take.poses, pose=calm(take.poses.pose))
    if (seen := take.poses.orientation) is not None:
        radians = np.radians(seen.heading.astype(float))
        direction = calm(seen.certainty[:, None] * np.stack([np.cos(radians), np.sin(radians)], axis=1), 300.0)
        # Places and sizes are smoothed in the image, since the crop moves.
        corner, side = take.poses.crop_boxes[:, :2], take.poses.crop_boxes[:, 2:3] - take.poses.crop_boxes[:, :1]
        millimetres = 1 / np.maximum(float(np.median(seen.scale * side[:, 0])), 1e-6)
        root = calm(corner + side * seen.root, millimetres)
        size = calm(seen.scale * side[:, 0], 1000 * millimetres)
        orientation = Orientation(
            heading=np.degrees(np.arctan2(direction[:, 1], direction[:, 0])).astype(np.float32),
            certainty=np.linalg.norm(direction, axis=1).clip(max=1).astype(np.float32),
            tilt=calm(seen.tilt, 10.0),
            root=((root - corner) / side).astype(np.float32),
            scale=(size / side[:, 0]).astype(np.float32),
        )
        poses = replace(poses, orientation=orientation)
    return replace(take, poses=poses)
