"""What the cameras saw of the person, as the equations use it, and a guess of cameras and joints that explains it."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from mcss.calibration.body import BONES, OTHER_SIDE, USED
from mcss.calibration.rig import Rig
from mcss.landmarks.view_landmarks import ViewLandmarks


@dataclass(frozen=True, eq=False)
class Sightings:
    """The joints of `mcss.calibration.body.JOINTS` in each view of each of n instants; 0 where they are missing."""

    pixels: Float64[np.ndarray, "n views joints 2"]
    """Pixels of the source images."""
    world: Float64[np.ndarray, "n views joints 3"]
    """What the detector says in 3D: mm along the camera's axes, the middle of the hips at 0."""
    weight: Float64[np.ndarray, "n views joints"]
    """The detector's confidence, from 0 to 1."""
    person: Int64[np.ndarray, " n"]
    """Number of the person; the bones of a person keep their lengths."""

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def seen(self) -> Bool[np.ndarray, "n views"]:
        """Where there is anything."""
        return np.asarray((self.weight > 0).any(axis=2))

    @property
    def depths(self) -> Float64[np.ndarray, "n views bones"]:
        """How much farther away the first end of each bone is than the second, in mm, as the detector says."""
        return np.asarray(self.world[:, :, BONES[:, 0], 2] - self.world[:, :, BONES[:, 1], 2])

    def take(self, index: Shaped[np.ndarray, " k"]) -> "Sightings":
        """Some of the instants."""
        return Sightings(self.pixels[index], self.world[index], self.weight[index], self.person[index])

    def taken(self, views: list[int]) -> "Sightings":
        """Some of the views."""
        return Sightings(self.pixels[:, views], self.world[:, views], self.weight[:, views], self.person)

    def mirrored(self, where: Bool[np.ndarray, "n views joints"]) -> "Sightings":
        """With left and right exchanged where the joint is marked."""

        def exchanged(values: np.ndarray) -> np.ndarray:
            mask = where.reshape(*where.shape, *[1] * (values.ndim - where.ndim))
            return np.where(mask, values[:, :, OTHER_SIDE], values)

        return Sightings(exchanged(self.pixels), exchanged(self.world), exchanged(self.weight), self.person)

    def without(self, views: Bool[np.ndarray, "n views"]) -> "Sightings":
        """Without the marked views."""
        return replace(self, weight=np.where(views[..., None], 0.0, self.weight))


MIN_CONFIDENCE = 0.05
"""A joint that the detector found counts at least this much, however sure it is that the joint is hidden."""


def sightings_of(landmarks: ViewLandmarks) -> Sightings:
    """The joints that count, out of all landmarks."""
    pixels, world = (np.asarray(part[:, :, USED], np.float64) for part in (landmarks.image, landmarks.world))
    known = np.asarray(np.isfinite(pixels).all(axis=-1) & np.isfinite(world).all(axis=-1), bool)
    confidence = np.clip(np.nan_to_num(landmarks.visibility[:, :, USED].astype(np.float64)), MIN_CONFIDENCE, 1.0)
    return Sightings(
        pixels=np.where(known[..., None], pixels, 0.0),
        world=np.where(known[..., None], world, 0.0),
        weight=np.where(known, confidence, 0.0),
        person=landmarks.instants.subject,
    )


@dataclass(frozen=True, eq=False)
class Scene:
    """Cameras, and the joints of the person in their room."""

    rig: Rig
    joints: Float64[np.ndarray, "n joints 3"]
    """mm."""
    lengths: Float64[np.ndarray, "n bones"]
    """The length that each bone usually has in the person of the instant."""
