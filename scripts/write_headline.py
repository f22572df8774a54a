"""Write the README's comparison with the paper: three rows, measured here beside printed there.

python scripts/write_headline.py results/report.json README.md headline
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mcss.experiments.paper import TABLE1
from mcss.experiments.tables import markdown
from write_table import write_between

ROWS = (
    ("supervised", "S1", "baseline (L_pose only)", "the same network, labels of one person"),
    ("mcss", "S1", "MCSS", "**MCSS, labels of one person**"),
    ("supervised", "all", "baseline (L_pose only)", "the same network, labels of all people"),
)
"""System and labels here, system in the paper, and what the row is called."""


def headline(report: dict[str, Any]) -> str:
    """The table: mean N-MPJPE over seeds on rendered people, and the paper's on Human3.6M."""
    table = [["", "rendered people, measured here", "Human3.6M, printed in the paper"]]
    means: list[tuple[float, float]] = []
    for system, labels, printed, title in ROWS:
        errors = [row["n_mpjpe"] for row in report["rows"] if (row["system"], row["labels"]) == (system, labels)]
        (paper,) = [row.n_mpjpe for row in TABLE1 if (row.system, row.labels, row.points) == (printed, labels, False)]
        assert errors, f"no {system} with the labels {labels} in this report"
        assert paper is not None
        means.append((fmean(errors), paper))
        table.append([title, *(_with_ratio(*pair) for pair in zip(means[-1], means[0], strict=True))])
    here, theirs = (_share_closed([row[column] for row in means]) for column in (0, 1))
    return "\n".join(
        [
            *markdown(table),
            "",
            f"MCSS closes {here:.0%} of the gap between one person's labels and all people's here, and {theirs:.0%} "
            "in the paper.",
        ]
    )


def _share_closed(errors: Sequence[float]) -> float:
    """Which share of the gap between few and all labels MCSS closes, given the three errors in the order of `ROWS`."""
    few, mcss, every = errors
    return (few - mcss) / (few - every)


def _with_ratio(error: float, reference: float) -> str:
    return f"{error:.1f} mm" + ("" if error == reference else f" ({100 * (error / reference - 1):+.0f} %)")


def main() -> None:
    """Write the table between the marks of a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("name", help="of the marks")
    options = parser.parse_args()
    write_between(options.page, options.name, headline(json.loads(options.report.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
