"""How a person stands before the camera: the heading that the canonical pose leaves out, and where the body is seen.

The embedding φ is made to be the same from every side, so none of this can be read off it. It is read off what the
backbone sees before φ, by a small head that is trained once the network is finished and does not change it.

Axes of a camera: x to the right of the image, y down, z away from the camera, along the line of sight to the
person. The camera is taken to stand upright (no roll).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor, nn

from mcss.skeletons import LEFT_HIP, ROOT

_METRE = 1000.0


@dataclass(frozen=True)
class PlacementConfig:
    """What the head is made of; stored with it."""

    stages: int = 5
    """It looks at the map after so many stages of the backbone."""
    hidden: int = 128
    """Width of its hidden layer."""

    def __post_init__(self) -> None:
        if self.stages < 1 or self.hidden < 1:
            raise ValueError(f"expected stages ≥ 1 and hidden ≥ 1, got {self.stages} and {self.hidden}.")


@dataclass(frozen=True, eq=False)
class Placement:
    """How some people stand before their cameras."""

    heading: Float32[np.ndarray, " n"]
    """Degrees, -180 to 180, about the vertical: 0 where the person's left hip points to the right of the image, that
    is, where the person faces the camera; positive as they turn to their left (counter-clockwise from above)."""
    certainty: Float32[np.ndarray, " n"]
    """Of the heading, 0 to 1 (the length of the mean direction)."""
    tilt: Float32[np.ndarray, " n"]
    """Degrees by which the camera looks down on the person."""
    root: Float32[np.ndarray, "n 2"]
    """Where the pelvis is seen, in shares of the crop's width and height (0, 0 is the upper left corner)."""
    scale: Float32[np.ndarray, " n"]
    """Shares of the crop's side that a millimetre takes up at the person's distance."""

    def __len__(self) -> int:
        return len(self.heading)

    def take(self, index: Int64[np.ndarray, " k"]) -> "Placement":
        """Some of them, in the order of `index`."""
        return Placement(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def joined(cls, parts: "Sequence[Placement]") -> "Placement":
        """Several, one after the other."""
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def upright(self, pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 3"]:
        """Canonical poses turned about the vertical as the camera sees them: x to the right, y away, z up."""
        turn = np.radians(self.heading.astype(float))
        cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
        x, y, z = np.moveaxis(pose.astype(float), -1, 0)
        return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=-1)

    def in_camera(self, pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 3"]:
        """Canonical poses turned to the camera's axes, in mm, the pelvis at the origin."""
        right, away, up = np.moveaxis(self.upright(pose), -1, 0)
        tilt = np.radians(self.tilt.astype(float))
        cos, sin = np.cos(tilt)[:, None], np.sin(tilt)[:, None]
        return np.stack([right, -cos * up - sin * away, cos * away - sin * up], axis=-1)

    def in_crop(self, pose: Float[np.ndarray, "n 17 3"]) -> Float64[np.ndarray, "n 17 2"]:
        """Where the joints of canonical poses are seen, in shares of the crop's width and height (no perspective)."""
        flat = self.in_camera(pose)[..., :2]
        return np.asarray(self.root[:, None] + self.scale[:, None, None] * flat, np.float64)


class PlacementOutput(NamedTuple):
    """What the head says of a batch."""

    direction: Float[Tensor, "batch 2"]
    """cos and sin of the heading, not normalised."""
    tilt: Float[Tensor, " batch"]
    """Radians."""
    root: Float[Tensor, "batch 2"]
    """Shares of the crop."""
    log_scale: Float[Tensor, " batch"]
    """Natural logarithm of shares a metre."""


class PlacementHead(nn.Module):
    """A feature map of the backbone → heading, tilt, place and size."""

    def __init__(self, config: PlacementConfig, channels: int, side: int) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.Sequential(
            nn.BatchNorm1d(channels * side * side, affine=False),
            nn.Dropout(0.5),
            nn.Linear(channels * side * side, config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, 6),
        )

    def forward(self, maps: Float[Tensor, "batch channels side side"]) -> PlacementOutput:
        """What the maps show."""
        found = self.layers(maps.flatten(1))
        # So that a new head says: in the middle, as large as the crop, seen a little from above.
        return PlacementOutput(found[:, :2], 0.1 * found[:, 2], 0.5 + 0.1 * found[:, 3:5], 0.2 * found[:, 5] - 0.7)


def placement_of(output: PlacementOutput) -> Placement:
    """The head's words as numbers to work with."""
    direction = output.direction.double()
    return Placement(
        heading=_numpy(torch.rad2deg(torch.atan2(direction[:, 1], direction[:, 0]))),
        certainty=_numpy(direction.norm(dim=1).clamp(max=1)),
        tilt=_numpy(torch.rad2deg(output.tilt)),
        root=_numpy(output.root),
        scale=_numpy(output.log_scale.exp() / _METRE),
    )


def _numpy(values: Tensor) -> Float32[np.ndarray, "*shape"]:
    return np.asarray(values.detach().float().cpu().clone().numpy())


def true_placement(
    world: Float[np.ndarray, "n 17 3"],
    rotation: Float[np.ndarray, "n 3 3"],
    translation: Float[np.ndarray, "n 3"],
    seen: Float[np.ndarray, "n 17 2"],
) -> Placement:
    """The placement of labelled images.

    Args:
        world: Poses in mm, +Z up; with a heading.
        rotation: World to camera.
        translation: Of the camera, mm.
        seen: Where the joints are seen, in shares of the crop.
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
    guess = Placement(
        heading=np.degrees(heading).astype(np.float32),
        certainty=np.ones(count, np.float32),
        tilt=np.degrees(np.arcsin(-sight[:, 2])).astype(np.float32),
        root=np.zeros((count, 2), np.float32),
        scale=np.ones(count, np.float32),
    )
    # The place and size with which the pose, seen without perspective, lies best on what is seen.
    own = np.arctan2(hip[:, 1], hip[:, 0])
    cos, sin = np.cos(own)[:, None], np.sin(own)[:, None]
    relative = world - world[:, ROOT : ROOT + 1]
    x, y, z = np.moveaxis(relative, -1, 0)
    flat = guess.in_camera(np.stack([cos * x + sin * y, cos * y - sin * x, z], axis=-1))[..., :2]
    centred = flat - flat.mean(axis=1, keepdims=True)
    there = seen - seen.mean(axis=1, keepdims=True)
    scale = (centred * there).sum(axis=(1, 2)) / np.maximum((centred**2).sum(axis=(1, 2)), 1e-9)
    place = seen.mean(axis=1) - scale[:, None] * flat.mean(axis=1)
    return Placement(guess.heading, guess.certainty, guess.tilt, place.astype(np.float32), scale.astype(np.float32))


def usable(placement: Placement) -> Bool[np.ndarray, " n"]:
    """Which placements of labelled images are of whole people that the crop shows."""
    known = np.isfinite(placement.root).all(axis=1) & np.isfinite(placement.heading) & (placement.scale > 0)
    return np.asarray(known & (np.abs(placement.root - 0.5) < 1).all(axis=1), bool)


def angle_between(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The absolute difference of two headings in degrees, 0 to 180."""
    return np.asarray(np.abs((a.astype(float) - b.astype(float) + 180) % 360 - 180), np.float64)
