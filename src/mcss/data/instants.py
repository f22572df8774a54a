"""Instants (multi-view frames): all views of one person at one time, as arrays over a whole capture."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped

from mcss.data.schema import Selector, list_column_values
from mcss.errors import CaptureError

INSTANT_COLUMNS = ("subject", "sequence", "action", "frame", "time", "view", "pose", "heading_valid")
"""The columns of a capture's table that `instants_of` needs."""


@dataclass(frozen=True, eq=False)
class Instants:
    """All views of each (subject, sequence, frame), in that order: everything but the images.

    A selection keeps the names of the whole capture, so an index means the same in every split.
    """

    subjects: tuple[str, ...]
    sequences: tuple[str, ...]
    """Names; two subjects may both have a ``Walking 1``."""
    actions: tuple[str, ...]
    views: tuple[str, ...]
    subject: Int64[np.ndarray, " n"]
    """Index into `subjects`."""
    sequence: Int64[np.ndarray, " n"]
    """Index into `sequences`."""
    action: Int64[np.ndarray, " n"]
    """Index into `actions`."""
    outfit: Int64[np.ndarray, " n"]
    """Number of the outfit: a subject wears the same clothes in all instants with the same number."""
    frame: Int64[np.ndarray, " n"]
    """Frame number within the sequence."""
    time: Float64[np.ndarray, " n"]
    """Seconds within the sequence."""
    rows: Int64[np.ndarray, "n views"]
    """The row of the capture that shows each view; -1 for a missing view."""
    pose: Float32[np.ndarray, "n 17 3"]
    """World millimetres, +Z up; NaN if there is no label."""
    heading_valid: Bool[np.ndarray, " n"]
    """Whether there is a pose that has a heading (see `mcss.skeletons.heading_valid`)."""

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, index: Shaped[np.ndarray, " k"]) -> "Instants":
        """The instants at `index` (positions or a mask), in its order."""
        return replace(
            self,
            subject=self.subject[index],
            sequence=self.sequence[index],
            action=self.action[index],
            outfit=self.outfit[index],
            frame=self.frame[index],
            time=self.time[index],
            rows=self.rows[index],
            pose=self.pose[index],
            heading_valid=self.heading_valid[index],
        )

    def present_subjects(self) -> tuple[str, ...]:
        """Names of the subjects of these instants (`subjects` names all of the capture)."""
        return tuple(self.subjects[i] for i in np.unique(self.subject))

    def selected(self, selectors: Sequence[Selector]) -> Bool[np.ndarray, " n"]:
        """Which instants are picked by any of the `selectors`."""
        chosen = np.zeros(len(self), bool)
        for s in selectors:
            subject = np.array([s.matches_subject(name) for name in self.subjects], bool)
            sequence = np.array([s.matches_sequence(name) for name in self.sequences], bool)
            start, stop = s.frames or (0, np.iinfo(np.int64).max)
            in_range = (self.frame >= start) & (self.frame < stop) if s.frames else True
            chosen |= subject[self.subject] & sequence[self.sequence] & in_range
        return chosen

    def position(self, subject: str, sequence: str, frame: int, view: str) -> tuple[int, int]:
        """The position (instant, view) of an image in `rows`.

        Raises:
            CaptureError: There is no such image.
        """
        if subject in self.subjects and sequence in self.sequences and view in self.views:
            matches = self.subject == self.subjects.index(subject)
            matches &= (self.sequence == self.sequences.index(sequence)) & (self.frame == frame)
            column = self.views.index(view)
            for instant in np.flatnonzero(matches & (self.rows[:, column] >= 0)):
                return int(instant), column
        raise CaptureError(f"there is no image {subject}/{sequence}/{frame}/{view} in this capture")

    def of_each_sequence(self) -> list[Int64[np.ndarray, " n"]]:
        """The positions of the instants of each subject's sequence, in the order of their names."""
        part = self.subject * len(self.sequences) + self.sequence
        return [np.flatnonzero(part == number) for number in np.unique(part)]

    def describe(self, instant: int) -> str:
        """Name one instant in messages, as ``subject/sequence frame f``."""
        subject, sequence = self.subjects[self.subject[instant]], self.sequences[self.sequence[instant]]
        return f"{subject}/{sequence} frame {self.frame[instant]}"


def evenly_spread(count: int, most: int) -> Int64[np.ndarray, " n"]:
    """Return at most `most` of the numbers from 0 to `count` - 1."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))


def ends_of_sequences(instants: Instants, share: float) -> Bool[np.ndarray, " n"]:
    """Which instants lie in the last `share` of their subject's sequence, rounded to whole instants."""
    chosen = np.zeros(len(instants), bool)
    for own in instants.of_each_sequence():
        count = round(share * len(own))
        chosen[own[np.argsort(instants.time[own], kind="stable")][len(own) - count :]] = True
    return chosen


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sorting key that puts ``S2`` before ``S10``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)


def instants_of(table: Any, outfits: Sequence[str] = ("*",)) -> Instants:
    """Group the rows of a capture's table (an Arrow table with `INSTANT_COLUMNS`) into instants.

    Args:
        table: The columns.
        outfits: See `mcss.data.schema.CaptureInfo`; sequences that match no pattern share one further outfit.

    Raises:
        CaptureError: Two rows show the same view of the same instant.
    """
    subjects, subject = _names(table["subject"])
    sequences, sequence = _names(table["sequence"])
    actions, action = _names(table["action"])
    views, view = _names(table["view"])
    frame = table["frame"].to_numpy().astype(np.int64)
    unlabelled = table["pose"].combine_chunks().is_null().to_numpy(zero_copy_only=False)

    # Labelled rows come first, so that an instant has a pose if any of its views has one.
    order = np.lexsort((unlabelled, frame, sequence, subject))
    keys = np.stack([subject[order], sequence[order], frame[order]])
    new = np.ones(len(order), bool)
    new[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    first, instant = order[new], np.cumsum(new) - 1
    rows = np.full((len(first), len(views)), -1, np.int64)
    rows[instant, view[order]] = order
    worn = [next((i for i, glob in enumerate(outfits) if fnmatchcase(s, glob)), len(outfits)) for s in sequences]
    instants = Instants(
        subjects=subjects,
        sequences=sequences,
        actions=actions,
        views=views,
        subject=subject[first],
        sequence=sequence[first],
        action=action[first],
        outfit=np.array(worn, np.int64)[sequence[first]],
        frame=frame[first],
        time=table["time"].to_numpy().astype(np.float64)[first],
        rows=rows,
        pose=list_column_values(table["pose"])[first].reshape(-1, 17, 3),
        heading_valid=table["heading_valid"].combine_chunks().fill_null(False).to_numpy(zero_copy_only=False)[first],
    )
    if (rows >= 0).sum() != len(order):
        second = np.flatnonzero(rows[instant, view[order]] != order)[0]
        raise CaptureError(
            f"{instants.describe(int(instant[second]))} has two images of view {views[view[order[second]]]}; "
            "the capture was not written by mcss, or by two programs at the same time: build it again"
        )
    return instants


def _names(column: Any) -> tuple[tuple[str, ...], Int64[np.ndarray, " rows"]]:
    """The distinct names of a string column in natural order, and each row's index among them."""
    encoded = column.combine_chunks().dictionary_encode()
    unordered = encoded.dictionary.to_pylist()
    names = sorted(unordered, key=natural_order)
    index_of = np.array([names.index(name) for name in unordered], np.int64)
    return tuple(names), index_of[encoded.indices.to_numpy(zero_copy_only=False)]
