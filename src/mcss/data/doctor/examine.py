"""Reading a capture once, from beginning to end, for all checks."""

from dataclasses import dataclass
from typing import SupportsInt

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from mcss.data.cameras import are_rotations, in_crops
from mcss.data.capture import Capture
from mcss.data.doctor.images import ImageFacts
from mcss.data.instants import Instants
from mcss.progress import Progress

Index = SupportsInt
"""Index of an instant or of a view."""


@dataclass(frozen=True, eq=False)
class ExaminedCapture:
    """A capture with everything that the checks need."""

    capture: Capture
    instants: Instants
    part: Int64[np.ndarray, " n"]
    """Number of the part (the sequence of a subject) that each instant belongs to."""
    labelled: Int64[np.ndarray, " m"]
    """Indices of the instants with a pose."""
    boxes: Float32[np.ndarray, "n views 4"]
    """Crop boxes; NaN for missing views."""
    projected: Float32[np.ndarray, "n views 17 2"]
    """Labelled joints in pixels of the source images; NaN if not known."""
    improper: Bool[np.ndarray, "n views"]
    """Whether the matrix of a known camera is not a rotation, but mirrored or scaled."""
    facts: ImageFacts
    broken: tuple[tuple[int, int], ...]
    """(instant, view) of the images that cannot be decoded."""

    @property
    def pose(self) -> Float[np.ndarray, "m 17 3"]:
        """Poses of the labelled instants in mm."""
        pose: Float[np.ndarray, "m 17 3"] = self.instants.pose[self.labelled].astype(np.float64)
        return pose

    @property
    def known(self) -> Bool[np.ndarray, "n views"]:
        """The images in which the position of the person is known from a label and a camera."""
        known: Bool[np.ndarray, "n views"] = np.isfinite(self.projected).any(axis=(2, 3))
        return known

    def shares_inside(self) -> Float[np.ndarray, "n views"]:
        """The share of the labelled joints that lie in each crop; joints behind the camera are outside."""
        n, views = self.instants.rows.shape
        crops = in_crops(self.projected.reshape(-1, 17, 2), self.boxes.reshape(-1, 4))
        with np.errstate(invalid="ignore"):
            inside = ((crops >= 0) & (crops <= 1)).all(axis=2)
        shares: Float[np.ndarray, "n views"] = inside.mean(axis=1).reshape(n, views)
        return shares

    def describe(self, instant: Index, view: Index | None = None) -> str:
        """Name an instant, or the image of one view, in messages: ``subject/sequence frame f view v``."""
        where = self.instants.describe(int(instant))
        return where if view is None else f"{where} view {self.instants.views[int(view)]}"

    def rows(self, instant: Index, view: Index | None = None) -> tuple[int, ...]:
        """The rows of the existing images of an instant, or of one view of it."""
        rows = self.instants.rows[int(instant)] if view is None else self.instants.rows[int(instant), [int(view)]]
        return tuple(int(row) for row in rows if row >= 0)


def examine(capture: Capture, progress: Progress) -> ExaminedCapture:
    """Read a capture sequence by sequence; the images are not kept in memory."""
    instants = capture.instants()
    shape = instants.rows.shape
    present: Bool[np.ndarray, "n views"] = np.asarray(instants.rows >= 0)
    rows, instant = instants.rows[present], np.nonzero(present)[0]
    cameras = capture.cameras(rows)
    boxes = np.full((*shape, 4), np.nan, np.float32)
    boxes[present] = capture.boxes(rows)
    projected = np.full((*shape, 17, 2), np.nan, np.float32)
    projected[present] = cameras.project(instants.pose[instant])
    improper = np.zeros(shape, bool)
    improper[present] = np.isfinite(cameras.rotation).all(axis=(1, 2)) & ~are_rotations(cameras.rotation)
    part = instants.subject * len(instants.sequences) + instants.sequence
    facts, broken = ImageFacts.empty(*shape), []
    unknown = np.asarray(~np.isfinite(projected).any(axis=(2, 3)))
    with progress.task("Reading images", int(present.sum())) as task:
        for number in np.unique(part):
            members = np.flatnonzero(part == number)
            for view in range(shape[1]):
                shown = present[members, view]
                images: list[bytes | None] = [None] * len(members)
                jpegs = capture.images(instants.rows[members[shown], view])
                for i, jpeg in zip(np.flatnonzero(shown), jpegs, strict=True):
                    images[i] = jpeg
                find_edges = bool(unknown[members, view].any())
                bad = facts.measure(members, view, images, boxes[members, view], find_edges)
                broken += [(int(members[i]), view) for i in bad]
                task.advance(int(shown.sum()))
    labelled = np.flatnonzero(np.isfinite(instants.pose).all(axis=(1, 2)))
    return ExaminedCapture(
        capture, instants, part.astype(np.int64), labelled, boxes, projected, improper, facts, tuple(broken)
    )
