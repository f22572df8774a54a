"""Measure how well S1's labels cover the synthetic capture, and write the table into its page.

mcss synthetic build captures/synthetic
python scripts/write_coverage.py captures/synthetic docs/synthetic.md
"""

import argparse
from pathlib import Path

from mcss.data.capture import Capture
from mcss.sources.synthetic.coverage import Coverage, measure_coverage
from write_table import write_between


def main() -> None:
    """Measure, then write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("capture")
    parser.add_argument("page", type=Path)
    parser.add_argument("--labels", default="S1")
    options = parser.parse_args()
    capture = Capture.open(options.capture)
    coverage = measure_coverage(capture, options.labels)
    note = (
        f"Capture `{capture.fingerprint[:12]}`, labels of {coverage.labels} ({coverage.labelled:,} instants), mm. "
        f"Written by `python scripts/write_coverage.py {options.capture} {options.page}`."
    )
    write_between(options.page, "coverage", f"{table(coverage)}\n\n{note}")


def table(coverage: Coverage) -> str:
    """Return a row per split; distances are MPJPE in canonical space, the oracle's PA-MPJPE at K = 10."""
    lines = [
        "| split | subjects | instants | images | nearest labelled pose | nearest training pose |"
        " mean labelled pose | oracle, anybody | oracle, others |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for split in coverage.splits:
        d = split.distances
        distances = (d.nearest_labelled, d.nearest_training, d.mean_pose) if d else (None, None, None)
        oracle = next(((o.anybody, o.others) for o in split.oracle if o.k == 10), (None, None))
        numbers = ["–" if value is None else f"{value:.1f}" for value in (*distances, *oracle)]
        counts = [", ".join(split.subjects), f"{split.instants:,}", f"{split.images:,}"]
        lines.append(f"| {' | '.join([split.split, *counts, *numbers])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
