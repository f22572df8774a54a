"""What each departure of the recipe ``fast`` from the paper contributes: the recipe with that one reverted.

Measured on the validation subject, on which the recipe was chosen, never on the test split. Departures made for speed
alone (the backbone, its size and frozen stages) have no row: without them a run takes days on a processor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mcss.data.capture import Capture
from mcss.data.provenance import Provenance, provenance
from mcss.experiments.runs import Cell, train_cells, validation_of, weights_needed, without_validation
from mcss.experiments.tables import markdown, spread
from mcss.files import write_json, write_text
from mcss.methods.mcss import MCSS
from mcss.progress import NO_PROGRESS, Progress
from mcss.training.settings import TrainSettings, recipe


def _method(**changes: Any) -> Callable[[TrainSettings], TrainSettings]:
    def changed(settings: TrainSettings) -> TrainSettings:
        assert isinstance(settings.method, MCSS)
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
"""Changes of the recipe, by the name of their row."""


@dataclass(frozen=True)
class AblationPlan:
    """How much the ablation does."""

    steps: int = 500
    """Optimiser steps of every run."""
    seeds: int = 3
    """Runs of each variant."""
    processes: int = 2
    """Runs trained in parallel."""

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "processes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")


@dataclass(frozen=True)
class AblationRow:
    """A variant and its errors on the validation subject, a value for each seed."""

    variant: str
    n_mpjpe: list[float]
    pa_mpjpe: list[float]
    hit_at_1: list[float]


@dataclass(frozen=True)
class Ablation:
    """The measured variants."""

    rows: list[AblationRow]
    made: Provenance

    def to_json(self) -> dict[str, Any]:
        """The contents of ``ablation.json``."""
        return {
            "rows": [asdict(row) for row in self.rows],
            "command": self.made.command,
            "capture": self.made.capture,
            "date": self.made.date,
        }

    def to_markdown(self) -> str:
        """A row per variant, mean ± standard deviation over seeds."""
        table = [["", "seeds", "N-MPJPE, mm", "PA-MPJPE, mm", "Hit@1"]]
        table += [
            [
                row.variant,
                str(len(row.n_mpjpe)),
                spread(row.n_mpjpe),
                spread(row.pa_mpjpe),
                spread(row.hit_at_1, digits=2),
            ]
            for row in self.rows
        ]
        caption = (
            f"Validation subject of the synthetic capture (`{self.made.capture[:12]}`), {self.made.settings['steps']} "
            f"steps. Written by `{self.made.command}` on {self.made.date} ({self.made.machine})."
        )
        return "\n".join([*markdown(table), "", caption])


def run_ablation(
    uri: str, out: Path, plan: AblationPlan, progress: Progress = NO_PROGRESS, command: str = ""
) -> Ablation:
    """Train every variant with S1's labels, and write ``ablation.json`` and ``ablation.md`` to `out`.

    Finished runs are kept and interrupted ones resumed.

    Args:
        uri: Address of the capture.
        out: Folder of the results.
        plan: How much is trained.
        progress: Notified of every step.
        command: The command to state with the results, by default the one that does this.

    Raises:
        ValueError: The capture has no validation split.
    """
    capture = Capture.open(uri)
    base = recipe("fast", MCSS, capture.uri)
    if base.validation not in capture.splits:
        raise ValueError(
            f"{uri}: an ablation is measured on the split {base.validation!r}, which this capture does not have "
            f"(it has {', '.join(capture.splits)}). Use a capture with that split, such as that of `mcss synthetic "
            "build`."
        )
    cells = {name: variant_cells(change(base), name, capture, plan) for name, change in VARIANTS.items()}
    left = without_validation([cell for seeds in cells.values() for cell in seeds], out, capture)
    train_cells(left, out, plan.processes, progress, weights_needed)
    command = command or f"mcss ablation --capture {uri} --out {out} --steps {plan.steps} --seeds {plan.seeds}"
    made = provenance(command, capture, {"steps": str(plan.steps)})
    ablation = Ablation([_row(name, seeds, out) for name, seeds in cells.items()], made)
    write_json(out / "ablation.json", ablation.to_json())
    write_text(out / "ablation.md", ablation.to_markdown() + "\n")
    return ablation


def variant_cells(settings: TrainSettings, name: str, capture: Capture, plan: AblationPlan) -> list[Cell]:
    """The cells of a variant, one for each seed."""
    settings = _optimiser(steps=plan.steps)(replace(settings, validate_every=plan.steps))
    return [Cell(replace(settings, seed=seed), capture.fingerprint, name) for seed in range(plan.seeds)]


def _row(name: str, cells: Sequence[Cell], folder: Path) -> AblationRow:
    points = [validation_of(cell, folder) for cell in cells]
    return AblationRow(name, *([point[measure] for point in points] for measure in ("n_mpjpe", "pa_mpjpe", "hit_at_1")))
