"""A capture as the doctor looks at it: everything that the checks need, read once."""

from dataclasses import dataclass, field
from typing import SupportsInt

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from mcss.data.cameras import seen_joints
from mcss.data.capture import Capture
from mcss.data.doctor.images import ImageFacts, ImageLimits
from mcss.data.doctor.lags import SyncLimits
from mcss.data.doctor.poses import LabelLimits
from mcss.data.instants import Instants
from mcss.progress import Progress

Place = SupportsInt
"""Index of an instant or a view."""


@dataclass(frozen=True)
class DoctorSettings:
    """What counts as a fault."""

    labels: LabelLimits = field(default_factory=LabelLimits)
    """Of 3D poses."""
    images: ImageLimits = field(default_factory=ImageLimits)
    """Of crops."""
    sync: SyncLimits = field(default_factory=SyncLimits)
    """Of the views' agreement in time."""


@dataclass(frozen=True, eq=False)
class Patient:
    """A capture with all that the checks need of it."""

    capture: Capture
    instants: Instants
    settings: DoctorSettings
    part: Int64[np.ndarray, " n"]
    labelled: Int64[np.ndarray, " m"]
    """Places of the instants with a pose."""
    boxes: Float32[np.ndarray, "n views 4"]
    seen: Float32[np.ndarray, "n views 17 2"]
    """Labelled joints in source pixels; NaN where not known."""
    improper: Bool[np.ndarray, "n views"]
    """Whether the rotation of a camera is none (mirrored, or scaled)."""
    facts: ImageFacts
    broken: tuple[tuple[int, int], ...]
    """(instant, view)"""

    @property
    def pose(self) -> Float[np.ndarray, "m 17 3"]:
        """Of the labelled instants."""
        pose: Float[np.ndarray, "m 17 3"] = self.instants.pose[self.labelled].astype(np.float64)
        return pose

    @property
    def projected(self) -> Bool[np.ndarray, "n views"]:
        """Which images show a person of whom it is known where."""
        known: Bool[np.ndarray, "n views"] = np.isfinite(self.seen).any(axis=(2, 3))
        return known

    def place(self, instant: Place, view: Place | None = None) -> str:
        """``subject/sequence frame f`` and the view, for messages."""
        where = self.instants.describe(int(instant))
        return where if view is None else f"{where} view {self.instants.views[int(view)]}"

    def rows(self, instant: Place, view: Place | None = None) -> tuple[int, ...]:
        """The images of an instant that there are, or that of one view."""
        rows = self.instants.rows[int(instant)] if view is None else self.instants.rows[int(instant), [int(view)]]
        return tuple(int(row) for row in rows if row >= 0)


def examined(capture: Capture, settings: DoctorSettings, progress: Progress) -> Patient:
    """Read a capture once from beginning to end, sequence by sequence: images are not held."""
    instants = capture.instants()
    shape = instants.rows.shape
    there: Bool[np.ndarray, "n views"] = np.asarray(instants.rows >= 0)
    rows, instant = instants.rows[there], np.nonzero(there)[0]
    boxes = np.full((*shape, 4), np.nan, np.float32)
    boxes[there] = capture.boxes(rows)
    seen = np.full((*shape, 17, 2), np.nan, np.float32)
    seen[there] = seen_joints(capture, rows, instants.pose[instant])
    rotation = capture.cameras(rows).rotation.astype(np.float64)
    known = np.asarray(np.isfinite(rotation).all(axis=(1, 2)))
    improper = np.zeros(shape, bool)
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > 0.01
    improper[there] = known & (off | (np.linalg.det(np.where(known[:, None, None], rotation, np.eye(3))) < 0))
    part = instants.subject * len(instants.sequences) + instants.sequence
    facts, broken = ImageFacts.unseen(*shape), []
    blind = np.asarray(~np.isfinite(seen).any(axis=(2, 3)))
    with progress.task("Looking at images", int(there.sum())) as task:
        for one in np.unique(part):
            place = np.flatnonzero(part == one)
            for view in range(shape[1]):
                shown = there[place, view]
                images: list[bytes | None] = [None] * len(place)
                for i, image in zip(
                    np.flatnonzero(shown), capture.images(instants.rows[place[shown], view]), strict=True
                ):
                    images[i] = image
                bad = facts.look(place, view, images, boxes[place, view], edges=bool(blind[place, view].any()))
                broken += [(int(place[i]), view) for i in bad]
                task.advance(int(shown.sum()))
    labelled = np.flatnonzero(np.isfinite(instants.pose).all(axis=(1, 2)))
    return Patient(
        capture, instants, settings, part.astype(np.int64), labelled, boxes, seen, improper, facts, tuple(broken)
    )
