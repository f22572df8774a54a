"""Measure on a small built-in capture what each choice does that the paper leaves open, for a table of docs/method.md.

    mcss synthetic build captures/choices --instants 384 --outfits 1 --no-new-motion
    python scripts/measure_choices.py captures/choices runs/choices --minutes 30

Every row changes one setting of MCSS as the paper has it: Eq. 2 on 33 pairs, summed L_pose, weight 1. The network is
that of the recipe fast at 64 pixels, so that a run takes a minute, with S1's labels; errors are those of the validation
subject after the last step. Runs are trained one after the other until the minutes are over; the next call goes on, and
the table has the rows of which all seeds are finished. Such short runs on rendered people rank choices only roughly.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcss.data.capture import Capture
from mcss.data.provenance import provenance
from mcss.experiments.runs import Cell, train_cells, validation_of, weights_needed, without_validation
from mcss.experiments.tables import markdown, spread
from mcss.files import write_json
from mcss.methods.mcss import MCSS
from mcss.progress import RichProgress
from mcss.training.settings import TrainSettings, recipe
from write_table import write_between

SEEDS = (0, 1, 2)
MEASURES = ("n_mpjpe", "pa_mpjpe", "hit_at_1")


@dataclass(frozen=True)
class Choice:
    """One row: a setting, what it is changed to, and the changed fields of the method or the network."""

    setting: str
    value: str
    method: Mapping[str, Any]
    network: Mapping[str, Any]


def of_method(setting: str, value: str, **changes: Any) -> Choice:
    """Return a choice that changes the method."""
    return Choice(setting, value, changes, {})


CHOICES = (
    Choice("all as in the recipe `paper`", "", {}, {}),
    of_method("`--pose-loss`", "mean", pose_loss="mean"),
    of_method("`--metric-weight`", "0.2", metric_weight=0.2),
    of_method("`--metric-weight`", "5", metric_weight=5.0),
    of_method("`--alpha`", "0.4", alpha=0.4),
    of_method("`--alpha`", "1", alpha=1.0),
    of_method("`--beta`", "0", beta=0.0),
    of_method("`--beta`", "0.5", beta=0.5),
    of_method("`--instants`", "16", instants=16),
    of_method("`--instants`", "66", instants=66),
    of_method("`--min-gap`", "0 s", min_gap=0.0),
    of_method("`--min-gap`", "1 s", min_gap=1.0),
    Choice("`--dim`", "32", {}, {"dim": 32}),
    Choice("`--dim`", "512", {}, {"dim": 512}),
)


def settings_of(choice: Choice, capture: Capture, steps: int, seed: int) -> TrainSettings:
    """Return the settings of a run."""
    base = recipe("fast", MCSS, capture.uri)
    return replace(
        base,
        method=replace(MCSS(), **choice.method),
        network=replace(base.network, image_size=64, **choice.network),
        optimiser=replace(base.optimiser, steps=steps),
        validate_every=steps,
        keep="last",
        seed=seed,
    )


def main() -> None:
    """Train until the time is over, and write what is finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", help="a capture with the splits train and validation")
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0, help="no run is begun after this time")
    parser.add_argument("--json", type=Path, default=Path("docs/results/choices.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/method.md"))
    given = parser.parse_args()
    capture, started = Capture.open(given.capture), time.monotonic()
    cells = [
        (choice, [Cell(settings_of(choice, capture, given.steps, seed), capture.fingerprint) for seed in SEEDS])
        for choice in CHOICES
    ]
    for choice, own in cells:
        for cell in without_validation(own, given.out, capture):
            if time.monotonic() - started < 60 * given.minutes:
                print(choice.setting, choice.value, f"seed {cell.settings.seed}", flush=True)
                train_cells([cell], given.out, 1, RichProgress(), weights_needed)
    rows = []
    for choice, own in cells:
        if without_validation(own, given.out, capture):
            continue
        points = [validation_of(cell, given.out) for cell in own]
        found = {measure: [round(point[measure], 4) for point in points] for measure in MEASURES}
        rows.append({"setting": choice.setting, "value": choice.value, **found})
    print(f"{len(rows)} of {len(CHOICES)} rows are measured")
    made = provenance(f"python scripts/measure_choices.py CAPTURE RUNS --steps {given.steps}", capture, {})
    about = {"command": made.command, "capture": made.capture, "date": made.date, "machine": made.machine}
    write_json(given.json, {"rows": rows, "steps": given.steps, "seeds": list(SEEDS), **about})
    write_between(given.page, "choices", table(json.loads(given.json.read_text(encoding="utf-8"))))


def table(measured: dict[str, Any]) -> str:
    """Return the table in Markdown, mean ± standard deviation over the seeds."""
    lines = [["setting", "value", "N-MPJPE, mm", "PA-MPJPE, mm", "same instant found first, %"]]
    for row in measured["rows"]:
        hits = [100 * hit for hit in row["hit_at_1"]]
        errors = [spread(row["n_mpjpe"]), spread(row["pa_mpjpe"]), spread(hits)]
        lines.append([row["setting"], row["value"], *errors])
    caption = (
        f"Validation subject of a small built-in capture (`{measured['capture'][:12]}`), {measured['steps']} steps, "
        f"seeds {', '.join(map(str, measured['seeds']))}. Written by `{measured['command']}` on {measured['date']} "
        f"({measured['machine']})."
    )
    return "\n".join([*markdown(lines), "", caption])


if __name__ == "__main__":
    main()
