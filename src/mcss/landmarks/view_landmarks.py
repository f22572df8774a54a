"""The landmarks of a body in every image of a capture, in 2D and 3D, and the file that keeps them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from mcss.data.formats.keypoint_layouts import BLAZEPOSE
from mcss.data.instants import Instants

LANDMARKS = BLAZEPOSE
"""BlazePose's 33 landmarks in order; those of other detectors take the places of the same names."""


def _other_side(name: str) -> str:
    return name.replace("left", "\0").replace("right", "left").replace("\0", "right")


MIRROR = tuple(LANDMARKS.index(_other_side(name)) for name in LANDMARKS)
"""The landmark on the other side of the body for each landmark; the nose maps to itself."""


@dataclass(frozen=True, eq=False)
class ViewLandmarks:
    """The 33 landmarks of a person in each view of each of n instants; NaN where a view or a landmark is missing."""

    instants: Instants
    """The instants and views of the capture, in the order of the arrays."""
    image: Float32[np.ndarray, "n views 33 2"]
    """x and y in pixels of the source image, which is the image that the camera took and not the crop."""
    world: Float32[np.ndarray, "n views 33 3"]
    """Millimetres along the axes of the view's camera (x right, y down, z away), the middle of the hips at 0."""
    visibility: Float32[np.ndarray, "n views 33"]
    """Confidence that a landmark lies within the image and is not hidden, from 0 to 1; 0 where it is missing."""
    presence: Float32[np.ndarray, "n views"]
    """Confidence that the image shows a person, from 0 to 1; 0 for a missing view."""
    image_size: Float64[np.ndarray, "views 2"]
    """Width and height in pixels of each view's source images; NaN where they are not known."""
    detector: str = "blazepose"
    """What found the landmarks."""

    def __len__(self) -> int:
        return len(self.instants)

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views."""
        return self.instants.views

    @property
    def seen(self) -> Bool[np.ndarray, "n views"]:
        """Views with landmarks in 3D."""
        seen: Bool[np.ndarray, "n views"] = np.isfinite(self.world).all(axis=3).any(axis=2)
        return seen

    def take(self, index: Shaped[np.ndarray, " k"]) -> "ViewLandmarks":
        """The landmarks of the instants at `index` (positions or a mask), in its order."""
        return replace(
            self,
            instants=self.instants.take(index),
            image=self.image[index],
            world=self.world[index],
            visibility=self.visibility[index],
            presence=self.presence[index],
        )

    def of_views(self, index: Sequence[int]) -> "ViewLandmarks":
        """The landmarks of some of the views, in the given order."""
        views = list(index)
        instants = self.instants
        return replace(
            self,
            instants=replace(instants, views=tuple(instants.views[v] for v in views), rows=instants.rows[:, views]),
            image=self.image[:, views],
            world=self.world[:, views],
            visibility=self.visibility[:, views],
            presence=self.presence[:, views],
            image_size=self.image_size[views],
        )
