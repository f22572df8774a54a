"""A part of the reproduction: rows, figures and notes; as JSON and Markdown, and what all parts are made from."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance
from mcss.evaluation.predictions import EvaluationSettings
from mcss.evaluation.report import NAMES, SystemResult
from mcss.experiments.comparison import spread
from mcss.experiments.paper import PaperRow
from mcss.experiments.runs import Cell, Enough, cell_result, evaluation_file, finished, seconds_of
from mcss.experiments.tuning import Budget
from mcss.files import write_json, write_text
from mcss.methods.method import information_of
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.parallel import Share

PartName = Literal[
    "table1", "signals", "fig3", "table2", "table3", "fig4", "fig5", "table4", "fig6", "tsne", "generalisation"
]

SEEDS = (0, 1, 2)

FRAMES = {"canonical": "canonical", "camera": "camera", "world": "room"}


@dataclass(frozen=True)
class Study:
    """What all parts are measured on and with."""

    capture: Capture
    folder: Path
    """Of the results."""
    cells: Path
    """Folder of the trained cells."""
    budget: Budget
    labels: str
    """The one labelled subject."""
    other: Capture | None = None
    """To generalise to."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """ImageNet weights of backbones that are not the recipe's: a file, or imagenet for the hub."""
    seeds: tuple[int, ...] = SEEDS
    """Of the rows with one subject's labels in Table 1 and Fig. 3."""
    landmarks: str = ""
    """A file of what another program found in the test images, for its row in Table 1; none by default."""
    program: str = ""
    """Its name."""
    mediapipe: bool = False
    """Whether MediaPipe is run, for a row in Table 1."""
    train: bool = True
    """Whether what is not trained will be; else rows of it say that it is not."""
    share: Share | None = None
    """What this machine trains of all runs; None: all, and it writes the results."""
    progress: Progress = NO_PROGRESS

    @property
    def looked(self) -> EvaluationSettings:
        """How much of a split is looked at."""
        return self.budget.evaluation

    def result(
        self, cell: Cell, capture: Capture | None = None, looked: EvaluationSettings | None = None
    ) -> SystemResult:
        """The evaluation of a trained cell on the test split."""
        return cell_result(cell, self.cells, capture or self.capture, "test", looked or self.looked, self.progress)

    def enough(self, capture: Capture | None = None, looked: EvaluationSettings | None = None) -> Enough:
        """That `result` knows the answer without the weights, see `mcss.experiments.runs.Enough`."""
        return lambda cell: escape(evaluation_file(cell, capture or self.capture, "test", looked or self.looked))

    def row(self, cell: Cell, looked: EvaluationSettings | None = None) -> dict[str, Any]:
        """The row of a cell."""
        if not self.train and not finished(cell, self.cells, self.enough(looked=looked)):
            return missing_row(cell.system, cell.settings.labels, cell.variant, "not trained yet", learned_from(cell))
        return row_of(cell, self.result(cell, looked=looked), self.cells)


@dataclass(frozen=True, eq=False)
class Part:
    """What was found."""

    name: PartName
    title: str
    rows: Sequence[Mapping[str, Any]]
    """Plain values, a row for every run; for JSON."""
    table: Sequence[Sequence[str]] = ()
    """As people read it, the header first."""
    paper: Sequence[PaperRow] = ()
    notes: Sequence[str] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By the name of their files."""

    def to_json(self, made: Provenance) -> dict[str, Any]:
        """The contents of ``NAME.json``."""
        return {
            "title": self.title,
            "rows": list(self.rows),
            "table": [list(row) for row in self.table],
            "figures": list(self.figures),
            "paper": [row.to_json() for row in self.paper],
            "paper_table": paper_table(self.paper) if self.paper else [],
            "notes": list(self.notes),
            "made": asdict(made),
            "made_line": made_line(made),
        }

    def to_markdown(self, made: Provenance) -> str:
        """The contents of ``NAME.md``."""
        lines = [f"### {self.title}", ""]
        for name in self.figures:
            lines += [f"![{self.title}]({name}.svg)", ""]
        if self.table:
            lines += markdown(self.table)
        if self.paper:
            lines += ["", "The paper's, on Human3.6M:", "", *markdown(paper_table(self.paper))]
        for note in self.notes:
            lines += ["", note]
        return "\n".join([*lines, "", made_line(made)]) + "\n"

    def write(self, folder: Path, made: Provenance) -> None:
        """``NAME.json`` and ``NAME.md``; the figures are written by whoever draws the page."""
        write_json(folder / f"{self.name}.json", self.to_json(made))
        write_text(folder / f"{self.name}.md", self.to_markdown(made))


def made_line(made: Provenance) -> str:
    """Where and how figures were made, in a line."""
    kind = "Built-in synthetic capture, not Human3.6M" if made.synthetic else made.capture_name
    versions = ", ".join(f"{key} {value}" for key, value in made.versions.items())
    settings = ", ".join(f"{key} {value}" for key, value in made.settings.items())
    return (
        f"{kind} (`{made.capture[:12]}`); mm, 16 joints, mean ± standard deviation over seeds. {settings}. Written by "
        f"`{made.command}` on {made.date} ({made.machine}, {versions})."
    )


def learned_from(cell: Cell) -> dict[str, bool]:
    """What a run is told, as `mcss.methods.method.Information` names it, with what it started from."""
    uses = asdict(information_of(cell.settings.method))
    uses["points"] = uses["points"] or (cell.after is not None and cell.after.system == "points2d")
    uses["labels"] = uses["labels"] and cell.settings.labels != "none"
    return uses


def row_of(cell: Cell, result: SystemResult, folder: Path) -> dict[str, Any]:
    """A run with its figures, what it learned from and the frame it is scored in."""
    settings, pose, retrieval = cell.settings, result.evaluation.pose, result.evaluation.retrieval
    scores = None if pose is None else pose.over_poses
    seconds = seconds_of(cell, folder)
    cross = {
        s.k: s.above_oracle for s in (retrieval.cross_subject.scores if retrieval and retrieval.cross_subject else ())
    }
    return {
        "system": result.system,
        "variant": cell.variant,
        "labels": settings.labels,
        "seed": settings.seed,
        "n_mpjpe": scores and scores.n_mpjpe,
        "mpjpe": scores and scores.mpjpe,
        "pa_mpjpe": scores and scores.pa_mpjpe,
        "n_mpjpe_over_actions": pose and pose.over_actions.n_mpjpe,
        "pck": scores and scores.pck,
        "auc": scores and scores.auc,
        "frame": pose and pose.frame,
        "uses": learned_from(cell),
        "above_oracle_cross_at_10": cross.get(10),
        "hit_at_1": retrieval.same_instant.hit_at_1 if retrieval and retrieval.same_instant else None,
        "backbone": settings.network.backbone,
        "steps": settings.optimiser.steps,
        "learning_rate": settings.optimiser.lr,
        "minutes": None if seconds is None else round(seconds / 60, 1),
        "cell": cell.name,
    }


def mean_pose_row(result: SystemResult) -> dict[str, Any]:
    """The row of the system that has not looked."""
    pose = result.evaluation.pose
    assert pose is not None
    scores = pose.over_poses
    uses = {"labels": True, "views": False, "rotations": False, "backgrounds": False, "points": False}
    return {
        "system": "mean_pose",
        "variant": "" if pose.frame == "canonical" else "in camera space",
        "labels": result.labels,
        "seed": None,
        "n_mpjpe": scores.n_mpjpe,
        "mpjpe": scores.mpjpe,
        "pa_mpjpe": scores.pa_mpjpe,
        "frame": pose.frame,
        "uses": uses,
    }


def missing_row(
    system: str, labels: str, variant: str, why: str, uses: Mapping[str, bool] | None = None
) -> dict[str, Any]:
    """A row that could not be measured, and why."""
    nothing = dict.fromkeys(("seed", "n_mpjpe", "mpjpe", "pa_mpjpe", "frame"))
    return {"system": system, "labels": labels, "variant": variant, **nothing, "uses": uses, "missing": why}


def name_of(row: Mapping[str, Any]) -> str:
    """How a row's system is called, starred where it learned from 2D joints."""
    name = NAMES.get(row["system"], row["system"])
    star = "*" if (row.get("uses") or {}).get("points") else ""
    return f"{name}{star}" + (f", {row['variant']}" if row["variant"] else "")


def uses_of(row: Mapping[str, Any]) -> str:
    """What a row's system learned from, in words."""
    words = {
        "labels": "3D labels",
        "views": "views",
        "rotations": "rotations",
        "backgrounds": "backgrounds",
        "points": "2D",
    }
    uses = row.get("uses") or {}
    return ", ".join(word for key, word in words.items() if uses.get(key)) or "–"


def grouped(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Rows that differ in their seed only, in the order of their first."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((name_of(row), row["labels"]), []).append(row)
    return list(groups.values())


def pose_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Mean and spread of the pose errors of each system and choice of labels."""
    table = [["system", "labels", "learned from", "scored in", "seeds", "N-MPJPE", "MPJPE", "PA-MPJPE"]]
    for own in grouped(rows):
        own = [row for row in own if "missing" not in row] or own
        first = own[0]
        if "missing" in first:
            table.append([name_of(first), first["labels"], first["missing"], "–", "0", "–", "–", "–"])
            continue
        errors = [spread([row[key] for row in own if row[key] is not None]) for key in ("n_mpjpe", "mpjpe", "pa_mpjpe")]
        frame = FRAMES.get(first["frame"], "–")
        table.append([name_of(first), first["labels"], uses_of(first), frame, str(len(own)), *errors])
    return table


def paper_table(rows: Sequence[PaperRow]) -> list[list[str]]:
    """The paper's rows."""
    table = [["system (paper)", "labels", "N-MPJPE", "MPJPE", "PA-MPJPE"]]
    printed = [v for row in rows for v in (row.n_mpjpe, row.mpjpe, row.pa_mpjpe) if v is not None]
    digits = 1 if all(round(v, 1) == v for v in printed) else 2  # as the paper has them
    for row in rows:
        name = row.system + ("*" if row.points else "") + (f", {row.note}" if row.note else "")
        errors = ["–" if v is None else f"{v:.{digits}f}" for v in (row.n_mpjpe, row.mpjpe, row.pa_mpjpe)]
        table.append([name, row.labels, *errors])
    return table


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown; its first row is the header."""
    head, *rows = ["| " + " | ".join(row) + " |" for row in table]
    return [head, "|" + "---|" * len(table[0]), *rows]


def values_of(rows: Sequence[Mapping[str, Any]], key: str, system: str, labels: str) -> list[float]:
    """A figure of every seed of a system that was measured, without variants."""
    own = [row[key] for row in rows if (row["system"], row["labels"], row["variant"]) == (system, labels, "")]
    return [value for value in own if value is not None]


def mean_of(rows: Sequence[Mapping[str, Any]], key: str, system: str, labels: str) -> float | None:
    """The mean of a figure over the seeds of a system; None if there is none."""
    known = values_of(rows, key, system, labels)
    return statistics.fmean(known) if known else None
