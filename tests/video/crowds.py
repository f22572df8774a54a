"""Drawn rooms with several people, for tests of which person is followed."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from filming import Room

Place = Callable[[float], float]


@dataclass(frozen=True)
class Walker:
    """Another person, as a simple figure."""

    place: Place
    """Horizontal position in widths of the image, at times from 0 to 1; outside 0 to 1 the person is not visible."""
    height: float = 0.5
    """Height as a share of the image's height."""
    clothes: tuple[int, int, int] = (40, 60, 160)
    in_front: bool = False

    def box(self, room: Room, i: int) -> np.ndarray:
        """Return the figure's bounding box in image `i`."""
        x, tall = self.place(i / (room.count - 1)) * room.width, self.height * room.height
        foot = (0.97 if self.in_front else 0.84) * room.height
        return np.array([x - 0.14 * tall, foot - tall, x + 0.14 * tall, foot])

    def draw(self, scene: np.ndarray, room: Room, i: int) -> None:
        """Draw the figure into an image."""
        x0, y0, x1, y1 = self.box(room, i).round().astype(int).tolist()
        head = round(0.08 * (y1 - y0))
        cv2.rectangle(scene, (x0, y0 + 2 * head), (x1, y1), self.clothes, -1)
        cv2.circle(scene, ((x0 + x1) // 2, y0 + head), head, (200, 160, 140), -1)


@dataclass(frozen=True)
class Crowd(Room):
    """A room with walkers behind and in front of the person."""

    walkers: tuple[Walker, ...] = ()
    bystander: bool = False
    spoiled: Callable[[np.ndarray, int], np.ndarray] = lambda image, i: image
    """A change that the camera makes to image `i`."""

    def image(self, i: int) -> np.ndarray:
        """Render image `i`."""
        rng = np.random.default_rng((self.seed, i))
        bare = Room(self.seed, self.width, self.height, self.count, self.place, False, self.shadow, 0.0)
        scene = self.empty()
        for walker in self.walkers:
            if not walker.in_front:
                walker.draw(scene, self, i)
        person = bare.image(i).astype(np.float32)
        drawn = np.abs(person - bare.empty()).max(axis=-1) > 14  # without the noise
        scene[drawn] = person[drawn]
        for walker in self.walkers:
            if walker.in_front:
                walker.draw(scene, self, i)
        scene *= 1 + self.flicker * np.sin(1.7 * i)
        scene += rng.normal(0, 3, scene.shape)
        return self.spoiled(np.clip(scene, 0, 255).astype(np.uint8), i)
