"""Which instants count as labelled: this is chosen when training starts, not when a capture is made."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64

from mcss.data.formats.csv import CsvRow, original_text, plain_cell, read_csv_table
from mcss.data.instants import Instants
from mcss.errors import SourceError
from mcss.files import write_text
from mcss.skeletons import JOINTS, heading_valid

COLUMNS = ("subject", "sequence", "frame", "time")
"""The header of a CSV that lists instants; the time, in seconds, is for readers and is ignored."""

CONFIDENCE = "confidence"
"""The column, from 0 to 1, of a CSV that gives poses as well."""

POSE_COLUMNS = tuple(f"{joint}.{axis}" for joint in JOINTS for axis in "xyz")
"""The columns of a CSV that gives poses as well: mm, +Z up."""

_FORMS = "write subjects with an optional share such as S1, S1:0.1 or S1,S5, or all, or none, or @FILE.csv"


@dataclass(frozen=True)
class Labels:
    """A label budget: subjects whose poses may be used and the share of each, or a list of instants."""

    shares: tuple[tuple[str, float], ...]
    """(subject, share in (0, 1]); the subject ``all`` stands for every subject; empty for no labels."""
    listed: tuple[tuple[str, str, int], ...] = ()
    """(subject, sequence, frame) of instants listed in a file; there are no shares then."""
    file: str = ""
    """The file that lists the instants."""
    poses: Float32[np.ndarray, "listed 17 3"] | None = field(default=None, compare=False)
    """The poses (mm, +Z up) that the file gives for the listed instants, in place of the capture's; None if it does
    not."""

    @classmethod
    def parse(cls, text: str) -> "Labels":
        """Parse ``S1``, ``S1:0.1``, ``S1,S5:0.5``, ``all``, ``all:0.1``, ``none``, or ``@FILE.csv`` and read that file.

        Raises:
            ValueError: The text is none of these, or the file cannot be read.

        Example:
            >>> Labels.parse("S1:0.1,S5").shares
            (('S1', 0.1), ('S5', 1.0))
        """
        if text.strip() == "none":
            return cls(())
        if text.startswith("@"):
            return _read_file(text[1:])
        shares = []
        for part in text.split(","):
            name, colon, share = part.strip().partition(":")
            if not name or name == "none":
                raise ValueError(f"labels: cannot read {text!r}; {_FORMS}")
            try:
                value = float(share) if colon else 1.0
            except ValueError:
                raise ValueError(f"labels: the share {share!r} of {name} is not a number; {_FORMS}") from None
            if not 0 < value <= 1:
                raise ValueError(f"labels: expected a share of {name} in (0, 1], got {share}; {_FORMS}")
            shares.append((name, value))
        names = [name for name, _ in shares]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated or ("all" in names and len(names) > 1):
            raise ValueError(f"labels: {text!r} names {repeated or 'a subject'} twice; name each once, or all")
        return cls(tuple(shares))

    def __str__(self) -> str:
        if self.file:
            return f"@{self.file}"
        shares = (name if share == 1 else f"{name}:{share:g}" for name, share in self.shares)
        return ",".join(shares) or "none"


def _read_file(name: str) -> Labels:
    """Read a CSV that lists instants, and their poses if it has them.

    Raises:
        ValueError: There is no such file, or it is not such a CSV; the message names the line.
    """
    path = Path(name)
    if not path.is_file():
        raise ValueError(f"labels: there is no file {path}; `mcss select` writes such a CSV, and `mcss label` another")
    try:
        table = read_csv_table(path)
    except SourceError as error:
        raise ValueError(f"labels: {error}") from error
    missing = [name for name in COLUMNS[:3] if name not in table.header]
    if missing:
        raise ValueError(
            f"labels: {path} lacks the columns {', '.join(missing)}; expected the header {','.join(COLUMNS)}"
        )
    absent = [name for name in POSE_COLUMNS if name not in table.header]
    if absent and len(absent) < len(POSE_COLUMNS):
        raise ValueError(
            f"labels: {path} has poses, but lacks the columns {', '.join(absent[:6])}{', …' if absent[6:] else ''}; "
            "expected x, y and z of all 17 joints in mm, +Z up, as `mcss label` writes them, or none of them"
        )
    poses: dict[tuple[str, str, int], list[float]] = {}
    for row in table.rows:
        cells = row.named(table.header)
        cells |= {name: original_text(cells[name]) for name in COLUMNS[:2]}
        if not (cells["subject"] and cells["sequence"] and cells["frame"].isdecimal()):
            raise ValueError(
                f"labels: {path}, line {row.line}: expected a subject, a sequence and a frame number, "
                f"got {[cells[name] for name in COLUMNS[:3]]}"
            )
        instant = (cells["subject"], cells["sequence"], int(cells["frame"]))
        if instant in poses and not absent:
            raise ValueError(
                f"labels: {path}, line {row.line}: {instant[0]}/{instant[1]} frame {instant[2]} has two poses; "
                "leave one out"
            )
        poses[instant] = [] if absent else _coordinates(path, row, table.header)
    if not poses:
        raise ValueError(f"labels: {path} lists no instants; write none for no labels")
    given = None if absent else np.array(list(poses.values()), np.float32).reshape(-1, 17, 3)
    return Labels((), tuple(poses), name, given)


def _coordinates(path: Path, row: CsvRow, header: Sequence[str]) -> list[float]:
    cells = row.named(header)
    try:
        values = [float(cells[name]) for name in POSE_COLUMNS]
    except ValueError:
        values = [math.nan]
    if not np.isfinite(values).all():
        raise ValueError(
            f"labels: {path}, line {row.line}: expected a number of mm for every joint; leave out lines of instants "
            "without a complete pose"
        )
    return values


def with_label_poses(instants: Instants, labels: Labels) -> Instants:
    """Put the poses that a file of labels gives in place of those of the capture; other instants stay as they are.

    Instants of the file that are not among `instants`, such as those of another split, are passed over.
    """
    if labels.poses is None:
        return instants
    index_of = _index_of(instants)
    there = [(index_of[instant], k) for k, instant in enumerate(labels.listed) if instant in index_of]
    at, given = np.array(there, np.int64).reshape(-1, 2).T
    pose, heading = instants.pose.copy(), instants.heading_valid.copy()
    pose[at] = labels.poses[given]
    heading[at] = heading_valid(torch.from_numpy(labels.poses[given])).numpy()
    return replace(instants, pose=pose, heading_valid=heading)


def _index_of(instants: Instants) -> dict[tuple[str, str, int], int]:
    names = zip(instants.subject, instants.sequence, instants.frame, strict=True)
    return {(instants.subjects[s], instants.sequences[q], int(f)): i for i, (s, q, f) in enumerate(names)}


def write_instants(path: Path, instants: Instants) -> None:
    """Write a CSV of instants, in their order, that ``--labels @FILE.csv`` reads."""
    _write(path, instants, COLUMNS, [[] for _ in range(len(instants))])


def write_poses(
    path: Path, instants: Instants, poses: Float[np.ndarray, "n 17 3"], confidence: Float[np.ndarray, " n"]
) -> None:
    """Write a CSV of instants and their poses (mm, +Z up) that ``--labels @FILE.csv`` reads, completely or not at all.

    Args:
        path: The file.
        instants: The labelled instants.
        poses: A pose of each.
        confidence: How sure each pose is, from 0 to 1; for readers.
    """
    cells = [
        [f"{sure:.3f}", *(f"{value:.1f}" for value in pose.ravel())]
        for sure, pose in zip(confidence, poses, strict=True)
    ]
    _write(path, instants, (*COLUMNS, CONFIDENCE, *POSE_COLUMNS), cells)


def _write(path: Path, instants: Instants, header: Sequence[str], more: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    for i, cells in enumerate(more):
        subject, sequence = instants.subjects[instants.subject[i]], instants.sequences[instants.sequence[i]]
        lines.writerow(
            [plain_cell(subject), plain_cell(sequence), int(instants.frame[i]), f"{instants.time[i]:.4f}", *cells]
        )
    write_text(path, text.getvalue())


def select_labels(instants: Instants, labels: Labels, views: Sequence[str] | None = None) -> Bool[np.ndarray, " n"]:
    """Select the instants whose pose may be used as a label; all of them have a pose with a heading.

    A share is spread evenly in time over the sequences of its subject, identically in every run. Listed instants
    without a pose are left out.

    Args:
        instants: The instants to select from, usually a training split.
        labels: The label budget.
        views: Only instants with an image in one of these views are selected; None for any view.

    Raises:
        ValueError: A subject, listed instant or view does not exist, or a subject has no usable pose.
    """
    usable = instants.heading_valid & (instants.rows[:, label_views(instants, views)] >= 0).any(axis=1)
    if labels.listed:
        return _select_listed(instants, labels, usable)
    present = instants.present_subjects()
    selected = np.zeros(len(instants), bool)
    wanted = [(s, share) for name, share in labels.shares for s in (present if name == "all" else (name,))]
    for name, share in wanted:
        if name not in present:
            raise ValueError(
                f"labels: there is no subject {name!r} to take labels from; there are {', '.join(present)}"
            )
        candidates = np.flatnonzero(usable & (instants.subject == instants.subjects.index(name)))
        if not len(candidates):
            if ("all", share) in labels.shares:
                continue
            raise ValueError(
                f"labels: no instant of {name} has a pose with a heading"
                + (f" and an image in the views {', '.join(views)}" if views else "")
                + "; choose other subjects or views, or none"
            )
        order = np.lexsort((instants.time[candidates], instants.sequence[candidates]))
        count = max(1, round(share * len(candidates)))
        middles = ((np.arange(count) + 0.5) * len(candidates) / count).astype(np.int64)
        selected[candidates[order[middles]]] = True
    if labels.shares and not selected.any():
        raise ValueError(f"labels: {labels} was asked for, but no instant has a pose; use none")
    return selected


def _select_listed(instants: Instants, labels: Labels, usable: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Select the usable instants of a list, of which at least one must be usable.

    All instants of a list must exist. A file of poses may have others as well, since it is made for a whole capture.
    """
    index_of = _index_of(instants)
    missing = [instant for instant in labels.listed if instant not in index_of]
    if missing and (labels.poses is None or len(missing) == len(labels.listed)):
        subject, sequence, frame = missing[0]
        raise ValueError(
            f"labels: {len(missing)} of the {len(labels.listed)} instants of {labels.file} are not there to train on, "
            f"such as {subject}/{sequence} frame {frame}; choose instants of this capture and split"
        )
    selected = np.zeros(len(instants), bool)
    selected[[index_of[instant] for instant in labels.listed if instant in index_of]] = True
    selected &= usable
    if not selected.any():
        raise ValueError(
            f"labels: none of the instants of {labels.file} has a pose; label them, and import them, first"
        )
    return selected


def labelled_images(
    instants: Instants, labels: Labels, views: Sequence[str] | None = None
) -> Bool[np.ndarray, "n views"]:
    """Select the existing images, in `views` alone, of the instants that `select_labels` selects."""
    in_views = np.zeros(len(instants.views), bool)
    in_views[label_views(instants, views)] = True
    return select_labels(instants, labels, views)[:, None] & in_views & (instants.rows >= 0)


def label_views(
    instants: Instants, names: Sequence[str] | None, setting: str = "label views"
) -> Int64[np.ndarray, " chosen"]:
    """Indices of the views called `names`, or of all views for None.

    Raises:
        ValueError: A view does not exist; the message begins with `setting`.
    """
    if names is None:
        return np.arange(len(instants.views), dtype=np.int64)
    for name in names:
        if name not in instants.views:
            raise ValueError(f"{setting}: there is no view {name!r}; there are {', '.join(instants.views)}")
    if not names:
        raise ValueError(f"{setting}: expected at least one of {', '.join(instants.views)}, got none")
    return np.array([instants.views.index(name) for name in dict.fromkeys(names)], np.int64)
