"""The results of evaluated systems, as tables and reports take them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcss.evaluation.evaluate import Evaluation

MEAN_POSE = "mean_pose"
"""The system that predicts the mean labelled pose for every image; drawn in grey."""


@dataclass(frozen=True)
class SystemResult:
    """One evaluated system: a row of the tables. Runs that differ only in their seed are averaged."""

    system: str
    """``mean_pose``, the name of a method, or any other name."""
    labels: str
    """The labels as given to the training, such as ``S1:0.1``."""
    seed: int | None
    """None for a system that depends on none."""
    evaluation: Evaluation
    history: Sequence[Mapping[str, float | int]] = ()
    """What was logged during training, in order; see `Curve` for the keys that the page draws."""
    title: str = ""
    """The name of the system in tables; by default `system`."""

    def __post_init__(self) -> None:
        if not self.title:
            object.__setattr__(self, "title", self.system)

    @property
    def key(self) -> tuple[str, str]:
        """What runs that differ only in their seed have in common."""
        return self.system, self.labels

    def to_json(self) -> dict[str, Any]:
        """The row of ``report.json``."""
        pose = self.evaluation.pose
        scores = None if pose is None else pose.over_poses
        plain = self.evaluation.to_json()
        return {
            "system": self.system,
            "labels": self.labels,
            "seed": self.seed,
            "mpjpe": scores and scores.mpjpe,
            "n_mpjpe": scores and scores.n_mpjpe,
            "pa_mpjpe": scores and scores.pa_mpjpe,
            "retrieval": plain["retrieval"],
            "evaluation": plain,
        }


def grouped_results(results: Sequence[SystemResult]) -> list[list[SystemResult]]:
    """Group the results that differ only in their seed, in the order of first appearance."""
    groups: dict[tuple[str, str], list[SystemResult]] = {}
    for result in results:
        groups.setdefault(result.key, []).append(result)
    return list(groups.values())
