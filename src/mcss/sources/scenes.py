"""The empty scene in front of a camera of a data set: the median of images spread over a sequence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mcss.data.instants import evenly_spread
from mcss.images import Image, encode_jpeg

SAMPLES = 15
"""Images of a sequence that are kept for its scene; a person who is never still leaves the median with seven."""


@dataclass(frozen=True)
class Background:
    """What a camera sees without a person, as a whole source image."""

    view: str
    image: bytes
    """JPEG."""


class SceneSamples:
    """Collects images spread over a sequence while its crops are made, and makes the empty scene of them.

    The median is what Rhodin et al. (ECCV 2018) take. A person who stays in one place for more than half of the
    sequence remains in it.
    """

    def __init__(self, count: int) -> None:
        """Expect `count` images, of which `SAMPLES` are kept."""
        self._wanted = frozenset(evenly_spread(count, SAMPLES).tolist())
        self._kept: list[Image] = []

    def see(self, index: int, image: Image) -> None:
        """Keep image number `index` if it is one of those for the scene."""
        if index in self._wanted and (not self._kept or image.shape == self._kept[0].shape):
            self._kept.append(image.copy())

    def scene(self) -> Image | None:
        """Return the scene; None if no image was seen."""
        if not self._kept:
            return None
        middle = len(self._kept) // 2
        scene = np.empty_like(self._kept[0])
        for row in range(len(scene)):  # row by row, since a sorted copy of all samples would take their memory again
            scene[row] = np.partition(np.stack([image[row] for image in self._kept]), middle, axis=0)[middle]
        return scene


def backgrounds_of(samples: Mapping[str, SceneSamples]) -> Iterator[Background]:
    """Yield the empty scene of every view of which images were seen."""
    for view, own in samples.items():
        scene = own.scene()
        if scene is not None:
            yield Background(view, encode_jpeg(scene, 90))
