"""What each departure of the recipe ``fast`` from the paper is worth: the recipe with that one taken back.

Measured on the validation subject, where the recipe was chosen, never on the test split. Departures that are there
for speed alone (the backbone, its size and frozen stages) have no row: without them a run takes days on a processor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance, provenance
from mcss.experiments.comparison import spread
from mcss.files import write_json, write_text
from mcss.methods.mcss import MCSSSettings
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import last_validation
from mcss.training.parallel import Job, train_all, unfinished
from mcss.training.recipes import recipe
from mcss.training.settings import TrainSettings


def _method(**changes: Any) -> Callable[[TrainSettings], TrainSettings]:
    def changed(settings: TrainSettings) -> TrainSettings:
        assert isinstance(settings.method, MCSSSettings)
        return replace(settings, method=replace(settings.method, **changes))

    return changed


def _network(**changes: Any) -> Callable[[TrainSettings], TrainSettings]:
    return lambda settings: replace(settings, network=replace(settings.network, **changes))


def _optimiser(**changes: Any) -> Callable[[TrainSettings], TrainSettings]:
    return lambda settings: replace(settings, optimiser=replace(settings.optimiser, **changes))


VARIANTS: Mapping[str, Callable[[TrainSettings], TrainSettings]] = {
    "recipe `fast`": lambda settings: settings,
    "Eq. 2 on 33 pairs, weight 1": _method(metric_loss="contrastive", instants=33, views=2, metric_weight=1.0),
    "InfoNCE on 32 pairs": _method(instants=32, views=2),
    "InfoNCE, weight 1": _method(metric_weight=1.0),
    "no BatchNorm before the L2-norm": _network(embedding_norm=False),
    "H sees φ, not √dim · φ": _network(scaled_embedding=False),
    "H without a hidden layer": _network(head_hidden=0),
    "×0.1 at half time, no warm-up": _optimiser(schedule="halves", warmup=0),
    "last weights, no average": _optimiser(average=0.0),
}
"""By the name of their row."""


@dataclass(frozen=True)
class AblationPlan:
    """How much the ablation does."""

    steps: int = 500
    """Optimiser steps of every run."""
    seeds: int = 3
    """Runs of each variant."""
    processes: int = 2
    """Runs that are trained beside each other."""

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")


def run_ablation(uri: str, out: Path, plan: AblationPlan, progress: Progress = NO_PROGRESS) -> dict[str, Any]:
    """Train every variant with S1's labels; ``ablation.json`` and ``ablation.md`` in `out`.

    Finished runs are kept, those that were begun go on.

    Raises:
        ValueError: The capture has no validation split.
    """
    capture = Capture.open(uri)
    base = recipe("fast", "mcss", capture.uri)
    if base.validation not in capture.splits:
        raise ValueError(
            f"{uri}: an ablation is measured on the split {base.validation!r}, which this capture does not have "
            f"(it has {', '.join(capture.splits)}). Use one that has, such as that of `mcss synthetic build`."
        )
    jobs: dict[str, list[Job]] = {}
    for number, (name, change) in enumerate(VARIANTS.items()):
        settings = _optimiser(steps=plan.steps)(change(replace(base, validate_every=plan.steps)))
        jobs[name] = [
            Job(replace(settings, seed=seed), out / f"variant{number}-seed{seed}") for seed in range(plan.seeds)
        ]
    train_all(unfinished([job for own in jobs.values() for job in own], capture), plan.processes, progress)
    command = f"mcss ablation --capture {uri} --out {out} --steps {plan.steps} --seeds {plan.seeds}"
    made = provenance(command, capture, {"steps": str(plan.steps)})
    rows = [{"variant": name, **_last_validation(own)} for name, own in jobs.items()]
    found = {"rows": rows, "command": command, "capture": capture.fingerprint, "date": made.date}
    write_json(out / "ablation.json", found)
    write_text(out / "ablation.md", ablation_table(rows, made) + "\n")
    return found


def _last_validation(jobs: Sequence[Job]) -> dict[str, list[float]]:
    """The last point of each run's learning curve, by measure."""
    points = [last_validation(job.out / METRICS) for job in jobs]
    return {name: [point[name] for point in points] for name in ("n_mpjpe", "pa_mpjpe", "hit_at_1")}


def ablation_table(rows: Sequence[Mapping[str, Any]], made: Provenance) -> str:
    """A row per variant, mean ± standard deviation over seeds."""
    lines = ["| | seeds | N-MPJPE, mm | PA-MPJPE, mm | Hit@1 |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [spread(row["n_mpjpe"]), spread(row["pa_mpjpe"]), spread(row["hit_at_1"], digits=2)]
        lines.append(f"| {row['variant']} | {len(row['n_mpjpe'])} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Validation subject of the synthetic capture (`{made.capture[:12]}`), {made.settings['steps']} steps. Written "
        f"by `{made.command}` on {made.date} ({made.machine}).",
    ]
    return "\n".join(lines)
