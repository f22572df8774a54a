"""The images that visitors of the page search: those of an index, or of a capture."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from mcss.data.capture import Capture
from mcss.errors import PoseIndexError
from mcss.models.model import Model
from mcss.progress import NO_PROGRESS, Progress
from mcss.search.index import PoseIndex
from mcss.search.index_table import Entries, Filter
from mcss.search.indexing import CaptureImages, identity_of, indexed_capture, true_canonical_poses
from mcss.search.memory_index import IndexedImage, MemoryIndex
from mcss.search.search import nearest_moments

CanonicalPose = Float32[np.ndarray, "17 3"]


class GalleryError(LookupError):
    """There is no such image in the gallery."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Images that can be searched by pose and shown, as they were when the server started."""

    name: str
    index: MemoryIndex
    captures: Mapping[str, Capture]
    """The captures that the images come from, by fingerprint."""
    entries: Entries | None = None
    """The images with their poses, for a capture without an index; otherwise poses are read from the index."""

    @classmethod
    def of_capture(cls, model: Model, capture: Capture, most: int, progress: Progress = NO_PROGRESS) -> "Gallery":
        """Embed at most `most` images of a capture: all views of instants that are evenly spread over it."""
        images = CaptureImages.of(capture)
        instants = images.instants
        count = min(len(instants), max(1, most // len(instants.views)))
        chosen = np.unique(np.linspace(0, len(instants) - 1, count).round().astype(np.int64))
        images = images.take(np.isin(images.instant, chosen))
        with progress.task("Embedding images to search in", len(images)) as task:
            poses = model.predict_rows(capture, images.rows, task)
        entries = images.entries(poses, true_canonical_poses(instants))
        index = MemoryIndex.of(entries, identity_of(model))
        return cls(_last_part(capture.uri), index, {capture.fingerprint: capture}, entries)

    @classmethod
    def of_index(cls, uri: str, model: Model, capture: str | None = None) -> "Gallery":
        """Load an index that was made with a model.

        Args:
            uri: The address of the index.
            model: The model that embeds visitors' images.
            capture: The present address of one of its captures; the others are where they were when they were indexed.

        Raises:
            PoseIndexError: There is no index, it is empty, or it was made with another model.
            CaptureError: A capture of the index is not at its address, or `capture` is none of them.
        """
        index = PoseIndex.open(uri)
        index.check(identity_of(model))
        if not index.count():
            raise PoseIndexError(f"the index at {uri} is empty; fill it with `mcss index CAPTURE -o {uri}`")
        addresses = index.captures()
        if capture is not None:
            moved = Capture.open(capture)
            if moved.fingerprint not in addresses:
                raise PoseIndexError(
                    f"the index at {uri} holds no images of the capture at {capture}; it holds those of "
                    f"{', '.join(addresses.values())}: add it with `mcss index {capture} -o {uri}`, or leave it out"
                )
            addresses[moved.fingerprint] = capture
        captures = {name: indexed_capture(name, address, uri) for name, address in addresses.items()}
        return cls(_last_part(uri), MemoryIndex.load(index), captures)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def subjects(self) -> tuple[str, ...]:
        """The people in the images."""
        return self.index.columns.subject.names

    @property
    def views(self) -> tuple[str, ...]:
        """The views of the images."""
        return self.index.columns.view.names

    def image(self, position: int) -> IndexedImage:
        """The image at a position.

        Raises:
            GalleryError: There is no image at this position.
        """
        if not 0 <= position < len(self):
            raise GalleryError(f"there is no image {position}; there are {len(self)}")
        return self.index.image(position)

    def neighbours(
        self,
        vector: Float32[np.ndarray, " dim"],
        count: int,
        condition: Filter,
        query: IndexedImage | None = None,
        same_recording: bool = True,
    ) -> list[IndexedImage]:
        """Find the images of the moments nearest to an embedding; see `mcss.search.search.nearest_moments`."""
        return nearest_moments(lambda top: self.index.nearest(vector, top, condition), count, query, same_recording)

    def jpeg(self, position: int) -> bytes:
        """An image as JPEG."""
        image = self.image(position)
        capture = self.captures[image.capture]
        instants = capture.instants()
        # By what it shows: a capture that was written anew has the same fingerprint but may have other row numbers.
        instant, view = instants.position(image.subject, image.sequence, image.frame, image.view)
        return capture.images(instants.rows[instant, view][None])[0]

    def poses(self, position: int) -> tuple[CanonicalPose | None, CanonicalPose | None]:
        """The predicted and the true canonical pose of an image in mm, where they are known."""
        if self.entries is not None:
            assert self.entries.predicted is not None
            assert self.entries.true is not None
            return self.entries.predicted[position], _if_finite(self.entries.true[position])
        assert self.index.source is not None
        image = self.image(position)
        return self.index.source.pose(image, "predicted"), self.index.source.pose(image, "true")


def _last_part(uri: str) -> str:
    return uri.rstrip("/").rsplit("/", 1)[-1]


def _if_finite(pose: CanonicalPose) -> CanonicalPose | None:
    return pose if np.isfinite(pose).all() else None
