"""Write the README's comparison with the paper: measured here beside printed there.

python scripts/write_headline.py results/report.json README.md headline
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mcss.experiments.paper import TABLE1
from mcss.experiments.pose_tables import AS_PRINTED, LONGER_VARIANT
from mcss.experiments.tables import markdown
from write_findings import Measured, printed, rows_of
from write_table import write_between

ROWS = (
    ("supervised", "S1", "", "baseline (L_pose only)", "baseline, labels of one person"),
    ("mcss", "S1", "", "MCSS", "**MCSS, labels of one person**"),
    ("supervised", "all", "", "baseline (L_pose only)", "baseline, labels of all people"),
    (f"mcss, {AS_PRINTED}", "S1", "", "MCSS", "MCSS with the loss and heads as printed, labels of one person"),
    ("supervised+fitted", "S1", "", None, "baseline, labels of one person, then `mcss remember`"),
    ("mcss+fitted", "S1", "", None, "MCSS, labels of one person, then `mcss remember`"),
    ("mcss+fitted", "S1:0.1", "", None, "MCSS, a tenth of these labels, then `mcss remember`"),
    ("supervised", "S1", LONGER_VARIANT, None, "four times as long: baseline, labels of one person"),
    ("mcss", "S1", LONGER_VARIANT, None, "four times as long: MCSS, labels of one person"),
    (
        "mcss+fitted",
        "S1",
        LONGER_VARIANT,
        None,
        "four times as long: MCSS, labels of one person, then `mcss remember`",
    ),
)
"""System, labels and variant here, system in the paper, if it is there, and what the row is called; the first three
tell the share of the gap. The first row of each variant is the reference of its others."""


def headline(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """The table: mean N-MPJPE over seeds on rendered people, and the paper's on Human3.6M.

    Args:
        rows: Those of the main comparison, which have no variant, of `mcss reproduce longer`, and of the baseline after
            `mcss remember`.
        about: Sentences on how they were measured, with a space at their end.
    """
    table = [["", "rendered people, measured here with the recipe `fast`", "Human3.6M, printed in the paper"]]
    here: dict[str, float] = {}
    theirs: dict[str, float] = {}
    references: dict[str, float] = {}
    for system, labels, variant, paper, title in ROWS:
        wanted = system, labels, variant
        errors = tuple(r["n_mpjpe"] for r in rows if (r["system"], r["labels"], r.get("variant", "")) == wanted)
        measured, beside = "not measured yet", "–"
        if errors:
            here[title] = fmean(errors)
            measured = _with_ratio(here[title], references.setdefault(variant, here[title]), str(Measured(errors)))
        elif paper is None:  # nothing to show in either column
            continue
        if paper is not None:
            theirs[title] = printed(TABLE1, paper, labels=labels)
            beside = _with_ratio(theirs[title], theirs[ROWS[0][-1]])
        table.append([title, measured, beside])
    return "\n".join([*markdown(table), "", about + _share_of_the_gap(here, theirs)]).rstrip()


def _share_of_the_gap(*places: Mapping[str, float]) -> str:
    """How much of the gap between few and all labels MCSS closes, here and in the paper; empty where a row lacks."""
    titles = [title for *_, title in ROWS[:3]]
    if any(title not in errors for errors in places for title in titles):
        return ""
    few, ours, every = titles
    here, paper = (f"{100 * (errors[few] - errors[ours]) / (errors[few] - errors[every]):.0f} %" for errors in places)
    gap = "Of the gap between one person's labels and all people's"
    return f"{gap}, MCSS closes {here} here, and {paper} in the paper."


def _with_ratio(error: float, reference: float, spread: str | None = None) -> str:
    change = "" if reference == error else f" ({100 * (error / reference - 1):+.0f} %)"
    return f"{spread or f'{error:.1f}'} mm{change}"


def main() -> None:
    """Write the table between the marks of a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("name", help="of the marks")
    options = parser.parse_args()
    report = json.loads(options.report.read_text(encoding="utf-8"))
    longer = [row for row in rows_of("longer") if row["variant"]]  # the others are the report's
    beyond = [row for row in rows_of("beyond") if row["system"] == "supervised+fitted"]
    about = (
        f"Mean ± standard deviation over three seeds, last measured on {report['date']} ({report['machine']}). "
        "Percentages are changes from the baseline with the labels of one person and as many steps; the one with the "
        "labels of all people saw as many images as MCSS. "
    )
    write_between(options.page, options.name, headline([*report["rows"], *longer, *beyond], about))


if __name__ == "__main__":
    main()
