"""Landmarks of images that were looked at before, kept in the user's cache and found again by the images' bytes.

Labels, cameras and adaptation all start from the landmarks of the same images. What one of them has found the others do
not compute again, nor does a run that was stopped; changes of a capture that leave its images alone do not matter.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32

from mcss.files import default_cache, replacing
from mcss.models.blazepose import WEIGHTS

VALUES = 33 * (2 + 3 + 1) + 1
"""Numbers kept of an image: 2D, 3D and visibility of 33 landmarks, and the presence."""

_FORMAT = 2
"""Raised when the same image and settings give other numbers."""

_BYTES = 16


@dataclass(eq=False)
class KeptLandmarks:
    """What was found in images, as rows of numbers by the digest of the image."""

    path: Path
    _found: dict[bytes, Float32[np.ndarray, " values"]] = field(default_factory=dict)
    _new: int = 0

    @classmethod
    def open(cls, capture: str, settings: Any) -> "KeptLandmarks":
        """Read what is kept of a capture; nothing, if the file is not there or damaged.

        Args:
            capture: Address of the capture.
            settings: The dataclass of settings that the landmarks depend on, besides the image and the weights.
        """
        key = [_FORMAT, capture, asdict(settings), hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()]
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:20]
        kept = cls(default_cache() / f"landmarks-{name}.npz")
        try:
            with kept.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                digests, values = stored["digests"], stored["values"]
            if digests.shape == (len(values), _BYTES) and values.shape == (len(digests), VALUES):
                kept._found = dict(zip(map(bytes, digests.astype(np.uint8)), values.astype(np.float32), strict=True))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        return kept

    def known(self, images: Sequence[bytes]) -> Bool[np.ndarray, " n"]:
        """Which of some images were looked at."""
        return np.array([digest(image) in self._found for image in images], bool)

    def add(self, images: Sequence[bytes], values: Float32[np.ndarray, "n values"]) -> None:
        """Take in what was found in some images."""
        self._found.update(zip(map(digest, images), values, strict=True))
        self._new += len(images)

    def values(self, images: Sequence[bytes]) -> Float32[np.ndarray, "n values"]:
        """What was found in some images, all of which are known."""
        return np.array([self._found[digest(image)] for image in images], np.float32).reshape(-1, VALUES)

    def write(self, least: int = 1) -> None:
        """Write the file if there are at least so many new images; a cache that cannot be written is done without."""
        if self._new < least:
            return
        digests = np.frombuffer(b"".join(self._found), np.uint8).reshape(-1, _BYTES)
        try:
            with replacing(self.path) as temporary, temporary.open("wb") as file:
                np.savez(file, digests=digests, values=np.stack(list(self._found.values())))
        except OSError:
            return
        self._new = 0


def digest(image: bytes) -> bytes:
    """A digest of the bytes of an image."""
    return hashlib.blake2b(image, digest_size=_BYTES).digest()
