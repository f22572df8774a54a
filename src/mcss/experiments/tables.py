"""Tables of rows, and the files that a measured table or figure is written to: JSON, Markdown and an HTML page."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup
from matplotlib.figure import Figure

from mcss.data.provenance import Provenance
from mcss.evaluation.report import Spread
from mcss.experiments.paper import PaperRow
from mcss.experiments.rows import NOT_AVAILABLE, MissingRow, PoseRow, Row
from mcss.files import write_json, write_text
from mcss.viz.html import page_environment
from mcss.viz.plots import write_figure
from mcss.viz.style import INK

PartName = Literal[
    "table1",
    "signals",
    "fig1b",
    "fig3",
    "table2",
    "table3",
    "fig4",
    "fig5",
    "retrieval",
    "found",
    "table4",
    "fig6",
    "distances",
    "tsne",
    "generalisation",
    "beyond",
    "longer",
    "drawn",
]

FRAMES = {"canonical": "canonical", "camera": "camera", "world": "room"}
"""How tables call the coordinate frames of poses."""


def grouped(rows: Sequence[PoseRow]) -> list[list[PoseRow]]:
    """Group the rows that differ only in their seed, in the order of first appearance."""
    groups: dict[tuple[str, str], list[PoseRow]] = {}
    for row in rows:
        groups.setdefault((row.name, row.labels), []).append(row)
    return list(groups.values())


def pose_table(rows: Sequence[PoseRow]) -> list[list[str]]:
    """Mean and standard deviation of the pose errors of each system and choice of labels, over seeds."""
    table = [["system", "labels", "learned from", "scored in", "seeds", "N-MPJPE", "MPJPE", "PA-MPJPE"]]
    for group in grouped(rows):
        measured = [row for row in group if not isinstance(row, MissingRow)]
        first = group[0]
        if not measured:
            assert isinstance(first, MissingRow)
            why = "not available, see below" if first.missing.startswith(NOT_AVAILABLE) else first.missing
            table.append([first.name, first.labels, why, "–", "0", "–", "–", "–"])
            continue
        first = measured[0]
        errors = [over_seeds(measured, measure) for measure in ("n_mpjpe", "mpjpe", "pa_mpjpe")]
        frame = "–" if first.frame is None else FRAMES[first.frame]
        table.append([first.name, first.labels, first.learned_from, frame, str(len(measured)), *errors])
    return table


def missing_notes(rows: Sequence[Row]) -> list[str]:
    """Why rows are not available, each reason once."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if isinstance(row, MissingRow) and row.missing.startswith(NOT_AVAILABLE):
            names = by_reason.setdefault(row.missing.removeprefix(NOT_AVAILABLE), [])
            names.append(f"{row.name} ({row.labels})")
    return [f"Not available: {', '.join(dict.fromkeys(names))}: {why}" for why, names in by_reason.items()]


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation in words; – for no values."""
    return Spread(tuple(values)).text(digits) if values else "–"


def over_seeds(rows: Sequence[PoseRow], measure: str, digits: int = 1) -> str:
    """Mean ± standard deviation of a measure over the rows in which it was measured."""
    return spread([value for row in rows if (value := getattr(row, measure)) is not None], digits)


def paper_table(rows: Sequence[PaperRow]) -> list[list[str]]:
    """The paper's rows as a table."""
    table = [["system (paper)", "labels", "N-MPJPE", "MPJPE", "PA-MPJPE"]]
    printed = [v for row in rows for v in (row.n_mpjpe, row.mpjpe, row.pa_mpjpe) if v is not None]
    digits = 1 if all(round(v, 1) == v for v in printed) else 2  # as many as the paper prints
    for row in rows:
        name = row.system + ("*" if row.points else "") + (f", {row.note}" if row.note else "")
        errors = ["–" if v is None else f"{v:.{digits}f}" for v in (row.n_mpjpe, row.mpjpe, row.pa_mpjpe)]
        table.append([name, row.labels, *errors])
    return table


def markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown; its first row is the header."""
    head, *rows = ["| " + " | ".join(row) + " |" for row in table]
    return [head, "|" + "---|" * len(table[0]), *rows]


def values_of(rows: Sequence[PoseRow], measure: str, system: str, labels: str) -> list[float]:
    """A measure of every seed of a system's usual run, where it was measured."""
    values = [getattr(row, measure) for row in rows if (row.system, row.labels, row.variant) == (system, labels, "")]
    return [value for value in values if value is not None]


def mean_of(rows: Sequence[PoseRow], measure: str, system: str, labels: str) -> float | None:
    """The mean of `values_of`; None if there are none."""
    values = values_of(rows, measure, system, labels)
    return statistics.fmean(values) if values else None


@dataclass(frozen=True, eq=False)
class MeasuredPart:
    """A measured table or figure of the paper."""

    name: PartName
    title: str
    rows: Sequence[Row]
    """A row for every run, for the JSON file."""
    table: Sequence[Sequence[str]] = ()
    """The table that people read, its header first."""
    paper: Sequence[PaperRow] = ()
    notes: Sequence[str] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By file name without suffix."""

    def to_json(self, made: Provenance) -> dict[str, Any]:
        """The contents of ``NAME.json``."""
        return {
            "title": self.title,
            "rows": [row.to_json() for row in self.rows],
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
        """Write ``NAME.json``, ``NAME.md`` and the figures."""
        for name, figure in self.figures.items():
            write_figure(folder / name, figure)
        write_json(folder / f"{self.name}.json", self.to_json(made))
        write_text(folder / f"{self.name}.md", self.to_markdown(made))


def made_line(made: Provenance) -> str:
    """Where and how a table or figure was made, in a line."""
    kind = "Built-in synthetic capture, not Human3.6M" if made.synthetic else made.capture_name
    versions = ", ".join(f"{key} {value}" for key, value in made.versions.items())
    settings = ", ".join(f"{key} {value}" for key, value in made.settings.items())
    return (
        f"{kind} (`{made.capture[:12]}`); mm, 16 joints, mean ± standard deviation over seeds. {settings}. Written by "
        f"`{made.command}` on {made.date} ({made.machine}, {versions})."
    )


def reproduction_page(folder: Path, names: Sequence[str]) -> str:
    """One self-contained HTML page with the tables and figures in a folder.

    Args:
        folder: Folder of the results, of whatever commands.
        names: Names of the parts in order; those that are not in the folder are left out.
    """
    parts = []
    for name in names:
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        part = json.loads(path.read_text(encoding="utf-8"))
        figures = [
            Markup(_unique((folder / f"{figure}.svg").read_text(encoding="utf-8"), figure))
            for figure in part["figures"]
        ]
        parts.append({**part, "name": name, "drawn": figures})
    synthetic = any(part["made"]["synthetic"] for part in parts)
    return page_environment().get_template("reproduction.html").render(parts=parts, synthetic=synthetic)


def _unique(svg: str, name: str) -> str:
    """An SVG file as an element in the page's text colour, with ids that are unique on the page."""
    element = svg[svg.index("<svg") :].replace(INK, "currentColor")
    for mark in ('id="', "url(#", 'href="#'):
        element = element.replace(mark, f"{mark}{name}-")
    return element
