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
from write_findings import Measured, printed, rows_of, share_of_gap
from write_table import write_between

PRINTED = f"mcss, {AS_PRINTED}"
ROWS = (
    ("supervised", "S1", "", "baseline (L_pose only)", "baseline, labels of one person"),
    (PRINTED, "S1", "", "MCSS", "MCSS with the loss and heads as printed, labels of one person"),
    ("mcss", "S1", "", None, "**MCSS (recipe `fast`), labels of one person**"),
    ("supervised", "all", "", "baseline (L_pose only)", "baseline, labels of all people"),
    ("supervised+fitted", "S1", "", None, "baseline, labels of one person, then `mcss remember`"),
    ("mcss+fitted", "S1", "", None, "MCSS, labels of one person, then `mcss remember`"),
    ("mcss+fitted", "S1:0.1", "", None, "MCSS, a tenth of these labels, then `mcss remember`"),
    ("supervised", "S1", LONGER_VARIANT, None, "four times as long: baseline, labels of one person"),
    ("mcss", "S1", LONGER_VARIANT, None, "four times as long: MCSS, labels of one person"),
    ("supervised", "all", LONGER_VARIANT, None, "four times as long: baseline, labels of all people"),
    (
        "mcss+fitted",
        "S1",
        LONGER_VARIANT,
        None,
        "four times as long: MCSS, labels of one person, then `mcss remember`",
    ),
)
"""System, labels and variant here, system in the paper, if it is there, and what the row is called. The first row of
each variant is the reference of its others."""
Errors = Mapping[tuple[str, str, str], float]
"""Mean N-MPJPE by system, labels and variant here."""


def headline(rows: Sequence[Mapping[str, Any]], about: str) -> str:
    """The table: mean N-MPJPE over seeds on rendered people, and the paper's on Human3.6M.

    Args:
        rows: Those of the main comparison, which have no variant, of `mcss reproduce longer`, and of the baseline after
            `mcss remember`.
        about: Sentences on how they were measured, with a space at their end.
    """
    table = [["", "rendered people, measured here", "Human3.6M, printed in the paper"]]
    here: dict[tuple[str, str, str], float] = {}
    theirs: dict[tuple[str, str, str], float] = {}
    references: dict[str, float] = {}
    for system, labels, variant, paper, title in ROWS:
        wanted = system, labels, variant
        found = (r["n_mpjpe"] for r in rows if (r["system"], r["labels"], r.get("variant", "")) == wanted)
        errors = tuple(error for error in found if error is not None)  # None: not trained yet
        measured, beside = "not measured yet", "–"
        if errors:
            here[wanted] = fmean(errors)
            measured = _with_ratio(here[wanted], references.setdefault(variant, here[wanted]), _spread(errors))
        elif paper is None:  # nothing to show in either column
            continue
        if paper is not None:
            theirs[wanted] = printed(TABLE1, paper, labels=labels)
            beside = _with_ratio(theirs[wanted], theirs["supervised", "S1", ""])
        table.append([title, measured, beside])
    return "\n".join([*markdown(table), "", about + _gap_closed(here, theirs)]).rstrip()


def _gap_closed(here: Errors, theirs: Errors) -> str:
    """How much of the gap between few and all labels MCSS closes, here and in the paper; empty where a row lacks."""
    as_printed, fast = _share(here, PRINTED), _share(here, "mcss")
    if as_printed is None or fast is None:
        return ""
    longer = _share(here, "mcss", LONGER_VARIANT)
    also = "" if longer is None else f" ({longer} in runs four times as long)"
    return (
        "Of the gap between one person's labels and all people's, the paper's MCSS closes "
        f"{_share(theirs, PRINTED)} on Human3.6M. On the rendered people its loss and heads as printed close "
        f"{as_printed}, and MCSS with the recipe `fast`, which changes both, {fast}{also}."
    )


def _share(errors: Errors, system: str, variant: str = "") -> str | None:
    """The share of the gap that a system closes with one person's labels; None where a row lacks."""
    few, ours, every = ("supervised", "S1", variant), (system, "S1", variant), ("supervised", "all", variant)
    if any(row not in errors for row in (few, ours, every)):
        return None
    return share_of_gap(errors[few], errors[ours], errors[every])


def _spread(errors: tuple[float, ...]) -> str:
    return f"{Measured(errors)} mm" + (" with one seed" if len(errors) == 1 else "")


def _with_ratio(error: float, reference: float, spread: str | None = None) -> str:
    change = "" if reference == error else f" ({100 * (error / reference - 1):+.0f} %)"
    return (spread or f"{error:.1f} mm") + change


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
        f"Mean ± standard deviation over three seeds, measured until {report['date']} ({report['machine']}). "
        "Percentages compare with the baseline that had the labels of one person and was trained for as many steps. "
        "The baseline with the labels of all people saw as many images as MCSS. "
    )
    write_between(options.page, options.name, headline([*report["rows"], *longer, *beyond], about))


if __name__ == "__main__":
    main()
