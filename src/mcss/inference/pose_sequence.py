"""The predicted poses of one person over time: the images of a video, a single image, or a sequence of a capture."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from mcss.models.model import Poses
from mcss.models.orientation import Orientation
from mcss.smoothing import SmoothingSettings, smoothed

PoseAxes = Literal["canonical", "view", "room"]
"""canonical: everybody faces the same way. view: upright, as seen from the camera: +X to the right of the image, +Y
away from the camera. room: in the room of the capture's cameras, with the path of the root."""


@dataclass(frozen=True, eq=False)
class PoseSequence:
    """Predictions in order of time, one for each image."""

    name: str
    """Name of the files that it is written to, without ending."""
    source: str
    """The file, or the sequence of a capture, that it was predicted from."""
    poses: Poses
    frame: Int64[np.ndarray, " n"]
    """Frame numbers, counted from 0."""
    time: Float64[np.ndarray, " n"]
    """Seconds."""
    found: Bool[np.ndarray, " n"]
    """Whether the person was found in the image. Elsewhere the crop box is interpolated from before and after, or is
    the whole of a single image."""
    rate: float
    """Images per second; 1 for a single image."""
    model: str = ""
    """Name of the model that predicted."""
    notes: tuple[str, ...] = ()
    """Warnings for the user."""
    views: Mapping[str, Poses] = field(default_factory=dict)
    """The predictions that a fused pose was made from, by the name of the view; empty for a single view."""
    others: tuple[tuple[float, float, float, float], ...] = ()
    """Other people who were found in a single image: x, y, width, height in its pixels."""

    room: Float64[np.ndarray, "n 17 3"] | None = None
    """The poses in the room of the capture's cameras in mm, +Z up; None where they were not put there."""

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, index: Shaped[np.ndarray, " k"]) -> "PoseSequence":
        """Select images, by position or by mask."""
        kept = np.arange(len(self))[index]
        return replace(
            self,
            poses=self.poses.take(kept),
            frame=self.frame[kept],
            time=self.time[kept],
            found=self.found[kept],
            views={name: poses.take(kept) for name, poses in self.views.items()},
            room=None if self.room is None else self.room[kept],
        )

    def poses_in(self, axes: PoseAxes) -> Float64[np.ndarray, "n 17 3"]:
        """The poses in mm, +Z up; the pelvis is at the origin, except in the room.

        Raises:
            CheckpointError: View axes were asked for, but the model has no orientation head.
            ValueError: The poses were asked for in a room into which they were not put.
        """
        if axes == "room":
            if self.room is None:
                raise ValueError("--turned room: only for captures whose cameras are known; see mcss calibrate.")
            return self.room
        if axes == "canonical":
            return self.poses.pose.astype(np.float64)
        return self.poses.upright()


def rate_of(time: Float64[np.ndarray, " n"]) -> float:
    """Images per second, from the median step; 1 for a single image or times that do not grow."""
    steps = np.diff(time)
    return float(1 / np.median(steps)) if len(steps) and (steps > 0).all() else 1.0


def smooth(sequence: PoseSequence, settings: SmoothingSettings) -> PoseSequence:
    """Smooth poses, headings and positions in the image over time; embeddings stay as they are."""
    if settings.smooth == "none" or len(sequence) < 3:
        return sequence

    def smoothed32(values: np.ndarray, scale: float = 1.0) -> Float32[np.ndarray, "..."]:
        # The filter's speeds are in mm/s; `scale` is the number of mm that one unit stands for.
        return np.asarray(smoothed(values * scale, sequence.time, settings) / scale, np.float32)

    poses = replace(sequence.poses, pose=smoothed32(sequence.poses.pose))
    if (predicted := sequence.poses.orientation) is not None:
        radians = np.radians(predicted.heading.astype(float))
        unit = np.stack([np.cos(radians), np.sin(radians)], axis=1)
        direction = smoothed32(predicted.certainty[:, None] * unit, 300.0)
        # Positions and sizes are smoothed in pixels of the image, since the crop box moves.
        boxes = sequence.poses.crop_boxes
        corner, side = boxes[:, :2], boxes[:, 2:3] - boxes[:, :1]
        mm_per_pixel = 1 / np.maximum(float(np.median(predicted.scale * side[:, 0])), 1e-6)
        root = smoothed32(corner + side * predicted.root, mm_per_pixel)
        size = smoothed32(predicted.scale * side[:, 0], 1000 * mm_per_pixel)
        orientation = Orientation(
            heading=np.degrees(np.arctan2(direction[:, 1], direction[:, 0])).astype(np.float32),
            certainty=np.linalg.norm(direction, axis=1).clip(max=1).astype(np.float32),
            tilt=smoothed32(predicted.tilt, 10.0),
            root=((root - corner) / side).astype(np.float32),
            scale=(size / side[:, 0]).astype(np.float32),
        )
        poses = replace(poses, orientation=orientation)
    return replace(sequence, poses=poses)
