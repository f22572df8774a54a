"""The orientation head: a person's heading relative to the camera, the camera's tilt, and their place in the crop.

The canonical pose leaves the heading out, and the embedding φ is trained to be the same from every side, so neither
contains it. The head reads the feature maps of the backbone before φ. `mcss equip` trains it once the network is
finished, and leaves the network unchanged.

Camera axes: x to the right of the image, y down, z away from the camera, along the line of sight to the person. The
camera is assumed to stand upright (no roll).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor, nn

from mcss.skeletons import LEFT_HIP, ROOT

SURE = 0.6
"""Certainty from which on a heading is shown as such."""

_METRE = 1000.0


@dataclass(frozen=True)
class OrientationConfig:
    """The architecture of the orientation head; stored with its weights."""

    stages: int = 5
    """Backbone stages before the feature map that the head reads."""
    hidden: int = 128
    """Width of the hidden layer."""

    def __post_init__(self) -> None:
        if self.stages < 1 or self.hidden < 1:
            raise ValueError(f"expected stages ≥ 1 and hidden ≥ 1, got {self.stages} and {self.hidden}.")


@dataclass(frozen=True, eq=False)
class Orientation:
    """How n people stand in front of their cameras, and where they are in their crops."""

    heading: Float32[np.ndarray, " n"]
    """Degrees about the vertical, -180 to 180: 0 where the person's left hip points to the right of the image, that is,
    where the person faces the camera; positive as they turn to their left (counter-clockwise from above)."""
    certainty: Float32[np.ndarray, " n"]
    """Certainty of the heading, 0 to 1 (the length of the predicted mean direction)."""
    tilt: Float32[np.ndarray, " n"]
    """Degrees by which the camera looks down on the person."""
    root: Float32[np.ndarray, "n 2"]
    """Position of the pelvis, as fractions of the crop's width and height (0, 0 is the upper left corner)."""
    scale: Float32[np.ndarray, " n"]
    """Fraction of the crop's side that one millimetre covers at the person's distance."""

    def __len__(self) -> int:
        return len(self.heading)

    @property
    def sure(self) -> Bool[np.ndarray, " n"]:
        """Whether each heading is certain enough to be shown as one; see `SURE`."""
        return np.asarray(self.certainty >= SURE, bool)

    def take(self, index: Int64[np.ndarray, " k"]) -> "Orientation":
        """Select people by position, in the order of `index`."""
        return Orientation(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def joined(cls, parts: "Sequence[Orientation]") -> "Orientation":
        """Concatenate several."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def upright(self, pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 3"]:
        """Turn canonical poses about the vertical to the camera's viewpoint: x to the right, y away, z up."""
        heading = np.radians(self.heading.astype(float))
        cos, sin = np.cos(heading)[:, None], np.sin(heading)[:, None]
        x, y, z = np.moveaxis(pose.astype(float), -1, 0)
        return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1)

    def in_camera(self, pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 3"]:
        """Turn canonical poses to the camera's axes, in mm with the pelvis at the origin."""
        right, away, up = np.moveaxis(self.upright(pose), -1, 0)
        tilt = np.radians(self.tilt.astype(float))
        cos, sin = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
        return np.stack([right, -cos * up - sin * away, cos * away - sin * up], axis=-1)

    def in_crop(self, pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 2"]:
        """Project canonical poses, without perspective, to fractions of the crop's width and height."""
        flat = self.in_camera(pose)[..., :2]
        return np.asarray(self.root[:, None] + self.scale[:, None, None] * flat, np.float64)


class OrientationOutput(NamedTuple):
    """The raw output of the head for a batch."""

    direction: Float[Tensor, "batch 2"]
    """cos and sin of the heading, not normalised."""
    tilt: Float[Tensor, " batch"]
    """Radians."""
    root: Float[Tensor, "batch 2"]
    """Position of the pelvis, as fractions of the crop."""
    log_scale: Float[Tensor, " batch"]
    """Natural logarithm of the fraction of the crop's side that one metre covers."""


class OrientationHead(nn.Module):
    """From a feature map of the backbone to heading, tilt, position and size."""

    def __init__(self, config: OrientationConfig, channels: int, side: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.BatchNorm1d(channels * side * side, affine=False),
            nn.Dropout(0.5),
            nn.Linear(channels * side * side, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 6),
        )

    def forward(self, maps: Float[Tensor, "batch channels side side"]) -> OrientationOutput:
        """Predict from feature maps."""
        values = self.layers(maps.flatten(1))
        # An untrained head starts in the middle of the crop, at a usual size, with the camera level.
        tilt, root, log_scale = 0.1 * values[:, 2], 0.5 + 0.1 * values[:, 3:5], 0.2 * values[:, 5] - 0.7
        return OrientationOutput(values[:, :2], tilt, root, log_scale)


def orientation_of(output: OrientationOutput) -> Orientation:
    """Convert the output of the head to degrees and fractions of the crop, on the CPU."""
    direction = output.direction.double()
    return Orientation(
        heading=_numpy(torch.rad2deg(torch.atan2(direction[:, 1], direction[:, 0]))),
        certainty=_numpy(direction.norm(dim=1).clamp(max=1)),
        tilt=_numpy(torch.rad2deg(output.tilt)),
        root=_numpy(output.root),
        scale=_numpy(output.log_scale.exp() / _METRE),
    )


def _numpy(values: Tensor) -> Float32[np.ndarray, "*shape"]:
    return np.asarray(values.detach().float().cpu().clone().numpy())


def true_orientation(
    world: Float[np.ndarray, "n 17 3"],
    rotation: Float[np.ndarray, "n 3 3"],
    translation: Float[np.ndarray, "n 3"],
    seen: Float[np.ndarray, "n 17 2"],
) -> Orientation:
    """Compute the true orientation for labelled images.

    Args:
        world: Poses in mm, +Z up; each must have a heading.
        rotation: World to camera.
        translation: World to camera, mm.
        seen: Where the joints appear, as fractions of the crop.
    """
    world, rotation, translation = world.astype(float), rotation.astype(float), translation.astype(float)
    root = np.einsum("nij,nj->ni", rotation, world[:, ROOT]) + translation
    sight = np.einsum("nji,nj->ni", rotation, root)
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    level = sight[:, :2] / np.maximum(np.linalg.norm(sight[:, :2], axis=1, keepdims=True), 1e-9)
    hip = world[:, LEFT_HIP, :2] - world[:, ROOT, :2]
    right = np.stack([level[:, 1], -level[:, 0]], axis=1)
    heading = np.arctan2((hip * level).sum(1), (hip * right).sum(1))
    count = len(world)
    unplaced = Orientation(
        heading=np.degrees(heading).astype(np.float32),
        certainty=np.ones(count, np.float32),
        tilt=np.degrees(np.arcsin(-sight[:, 2])).astype(np.float32),
        root=np.zeros((count, 2), np.float32),
        scale=np.ones(count, np.float32),
    )
    # Position and size: the least-squares fit of the pose, projected without perspective, to the joints as seen.
    hip_angle = np.arctan2(hip[:, 1], hip[:, 0])
    cos, sin = np.cos(hip_angle)[:, None], np.sin(hip_angle)[:, None]
    relative = world - world[:, ROOT : ROOT + 1]
    x, y, z = np.moveaxis(relative, -1, 0)
    flat = unplaced.in_camera(np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1))[..., :2]
    flat_centred = flat - flat.mean(axis=1, keepdims=True)
    seen_centred = seen - seen.mean(axis=1, keepdims=True)
    scale = (flat_centred * seen_centred).sum(axis=(1, 2)) / np.maximum((flat_centred**2).sum(axis=(1, 2)), 1e-9)
    position = seen.mean(axis=1) - scale[:, None] * flat.mean(axis=1)
    return Orientation(
        unplaced.heading, unplaced.certainty, unplaced.tilt, position.astype(np.float32), scale.astype(np.float32)
    )


def usable(orientation: Orientation) -> Bool[np.ndarray, " n"]:
    """Which labelled images show enough of the person to train on: finite labels, the pelvis in or near the crop."""
    known = np.isfinite(orientation.root).all(axis=1) & np.isfinite(orientation.heading) & (orientation.scale > 0)
    return np.asarray(known & (np.abs(orientation.root - 0.5) < 1).all(axis=1), bool)


def angle_between(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The absolute difference of two headings in degrees, 0 to 180."""
    return np.asarray(np.abs((a.astype(float) - b.astype(float) + 180) % 360 - 180), np.float64)
