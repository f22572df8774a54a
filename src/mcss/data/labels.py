"""Which instants count as labelled: chosen when training starts, not when a capture is made."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from mcss.data.instants import Instants
from mcss.files import write_text

COLUMNS = ("subject", "sequence", "frame", "time")
"""Of a CSV that lists instants; the time, in seconds, is for people and is not read."""


@dataclass(frozen=True)
class LabelSpec:
    """Subjects whose poses may be used, and the share of each that may be; or a list of instants."""

    shares: tuple[tuple[str, float], ...]
    """(subject, share in (0, 1]); the subject ``all`` stands for every one; empty for no labels."""
    listed: tuple[tuple[str, str, int], ...] = ()
    """(subject, sequence, frame) of instants named one by one; there are then no shares."""
    file: str = ""
    """Where these were listed."""

    @classmethod
    def parse(cls, text: str) -> "LabelSpec":
        """Read ``S1``, ``S1:0.1``, ``S1,S5:0.5``, ``all``, ``all:0.1``, ``none``, or ``@FILE.csv`` and that file.

        Raises:
            ValueError: The text is none of these, or the file cannot be read.

        Example:
            >>> LabelSpec.parse("S1:0.1,S5").shares
            (('S1', 0.1), ('S5', 1.0))
        """
        if text.strip() == "none":
            return cls(())
        if text.startswith("@"):
            return cls((), read_instants(Path(text[1:])), text[1:])
        shares = []
        for part in text.split(","):
            name, colon, share = part.strip().partition(":")
            if not name or name == "none":
                raise ValueError(f"labels: cannot read {text!r}; {_FORMS}")
            try:
                value = float(share) if colon else 1.0
            except ValueError:
                raise ValueError(f"labels: the share {share!r} of {name} is no number; {_FORMS}") from None
            if not 0 < value <= 1:
                raise ValueError(f"labels: the share of {name} must lie in (0, 1], came {share}; {_FORMS}")
            shares.append((name, value))
        names = [name for name, _ in shares]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice or ("all" in names and len(names) > 1):
            raise ValueError(f"labels: {text!r} names {twice or 'a subject'} twice; name each once, or all")
        return cls(tuple(shares))

    def __str__(self) -> str:
        if self.file:
            return f"@{self.file}"
        shares = (name if share == 1 else f"{name}:{share:g}" for name, share in self.shares)
        return ",".join(shares) or "none"


_FORMS = "write subjects with an optional share such as S1, S1:0.1 or S1,S5, or all, or none, or @FILE.csv"


def read_instants(path: Path) -> tuple[tuple[str, str, int], ...]:
    """The (subject, sequence, frame) of each line of a CSV such as `mcss select` writes.

    Raises:
        ValueError: There is no such file, or it is no such CSV; names the line.
    """
    if not path.is_file():
        raise ValueError(f"labels: there is no file {path}; `mcss select` writes such a CSV")
    found = []
    try:
        lines = csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig")))
        missing = [name for name in COLUMNS[:3] if name not in (lines.fieldnames or ())]
        if missing:
            raise ValueError(
                f"labels: {path} lacks the columns {', '.join(missing)}; expected the header {','.join(COLUMNS)}"
            )
        for line in lines:
            if not (line["subject"] and line["sequence"] and (line["frame"] or "").strip().isdecimal()):
                raise ValueError(
                    f"labels: {path}, line {lines.line_num}: expected a subject, a sequence and the number of a frame, "
                    f"came {[line[name] for name in COLUMNS[:3]]}"
                )
            found.append((line["subject"], line["sequence"], int(line["frame"])))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"labels: {path} is no CSV of text in UTF-8 ({error})") from error
    if not found:
        raise ValueError(f"labels: {path} lists no instants; write none for no labels")
    return tuple(dict.fromkeys(found))


def write_instants(path: Path, instants: Instants) -> None:
    """Write a CSV of instants in their order, which ``--labels @FILE.csv`` reads."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(COLUMNS)
    for i in range(len(instants)):
        subject, sequence = instants.subjects[instants.subject[i]], instants.sequences[instants.sequence[i]]
        lines.writerow([subject, sequence, int(instants.frame[i]), f"{instants.time[i]:.4f}"])
    write_text(path, text.getvalue())


def select_labels(instants: Instants, spec: LabelSpec, views: Sequence[str] | None = None) -> Bool[np.ndarray, " n"]:
    """The instants whose pose may be used as a label; all have a pose with a heading.

    A share is spread evenly in time over the sequences of its subject, the same for every run. Of a list, those
    without a pose are left out.

    Args:
        instants: Those to choose from, as a rule a training split.
        spec: Subjects and shares.
        views: Only instants with an image in one of these views; None for any view.

    Raises:
        ValueError: A subject, listed instant or view that is not there, or a subject without a usable pose.
    """
    usable = instants.heading_valid & (instants.rows[:, label_views(instants, views)] >= 0).any(axis=1)
    if spec.listed:
        return _listed(instants, spec, usable)
    present = instants.present_subjects()
    chosen = np.zeros(len(instants), bool)
    wanted = [(s, share) for name, share in spec.shares for s in (present if name == "all" else (name,))]
    for name, share in wanted:
        if name not in present:
            raise ValueError(
                f"labels: there is no subject {name!r} to take labels from; there are {', '.join(present)}"
            )
        candidates = np.flatnonzero(usable & (instants.subject == instants.subjects.index(name)))
        if not len(candidates):
            if ("all", share) in spec.shares:
                continue
            raise ValueError(
                f"labels: no instant of {name} has a pose with a heading"
                + (f" and an image in the views {', '.join(views)}" if views else "")
                + "; choose other subjects or views, or none"
            )
        order = np.lexsort((instants.time[candidates], instants.sequence[candidates]))
        count = max(1, round(share * len(candidates)))
        middles = ((np.arange(count) + 0.5) * len(candidates) / count).astype(np.int64)
        chosen[candidates[order[middles]]] = True
    if spec.shares and not chosen.any():
        raise ValueError(f"labels: {spec} was asked for, but no instant has a pose; use none")
    return chosen


def _listed(instants: Instants, spec: LabelSpec, usable: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Those of the list that are usable; all of it must be there, and one at least be usable."""
    names = zip(instants.subject, instants.sequence, instants.frame, strict=True)
    place = {(instants.subjects[s], instants.sequences[q], int(f)): i for i, (s, q, f) in enumerate(names)}
    missing = [one for one in spec.listed if one not in place]
    if missing:
        subject, sequence, frame = missing[0]
        raise ValueError(
            f"labels: {len(missing)} of the {len(spec.listed)} instants of {spec.file} are not there to train on, such "
            f"as {subject}/{sequence} frame {frame}; choose instants of this capture and split"
        )
    chosen = np.zeros(len(instants), bool)
    chosen[[place[one] for one in spec.listed]] = True
    chosen &= usable
    if not chosen.any():
        raise ValueError(f"labels: none of the instants of {spec.file} has a pose; label them, and import them, first")
    return chosen


def labelled_images(
    instants: Instants, spec: LabelSpec, views: Sequence[str] | None = None
) -> Bool[np.ndarray, "n views"]:
    """The images of the instants of `select_labels`: those that exist, in `views` only."""
    in_views = np.zeros(len(instants.views), bool)
    in_views[label_views(instants, views)] = True
    return select_labels(instants, spec, views)[:, None] & in_views & (instants.rows >= 0)


def label_views(
    instants: Instants, names: Sequence[str] | None, setting: str = "label views"
) -> Int64[np.ndarray, " chosen"]:
    """Indices of the views called `names`; all of them for None.

    Raises:
        ValueError: A view that is not there.
    """
    if names is None:
        return np.arange(len(instants.views), dtype=np.int64)
    for name in names:
        if name not in instants.views:
            raise ValueError(f"{setting}: there is no view {name!r}; there are {', '.join(instants.views)}")
    if not names:
        raise ValueError(f"{setting}: expected at least one of {', '.join(instants.views)}, came none")
    return np.array([instants.views.index(name) for name in dict.fromkeys(names)], np.int64)
