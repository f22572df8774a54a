"""One HTML page that holds all results of a run, or of several systems side by side; it asks nothing of the network."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from mcss.data.provenance import Provenance
from mcss.evaluation.evaluate import Evaluation, PoseScores
from mcss.evaluation.examples import PoseExample, RetrievalExample
from mcss.retrieval import PoseRetrieval
from mcss.viz.figures import GREY, PALETTE
from mcss.viz.html import page_environment
from mcss.viz.plots import Line, averaged, line_plot

NAMES = {
    "mean_pose": "Mean pose",
    "supervised": "Supervised baseline",
    "mcss": "MCSS",
    "rhodin_cvpr18": "Rhodin et al., CVPR 2018",
    "rhodin_eccv18": "Rhodin et al., ECCV 2018",
    "chen_cvpr19": "Chen et al., CVPR 2019",
    "rhodin_cvpr18_initial": "Rhodin et al., CVPR 2018, before consistency",
}
"""How systems are called on the page; others by their own name."""

PAPER = (
    ("Supervised baseline (L_pose only)", "all", 95.07, 97.90, 77.18),
    ("Supervised baseline (L_pose only)", "S1", 149.28, 154.78, 113.69),
    ("Rhodin ECCV'18", "S1", 122.60, 131.70, 98.20),
    ("Rhodin ECCV'18 with ResNet-18", "S1", 136.00, None, None),
    ("MCSS", "all", 92.60, 94.25, 72.48),
    ("MCSS", "S1", 111.94, 120.95, 90.76),
)
"""System, labels, N-MPJPE, MPJPE, PA-MPJPE in mm on Human3.6M: Mitra et al., CVPR 2020, Table 1."""


@dataclass(frozen=True)
class SystemResult:
    """One evaluated system: a row of the tables. Runs that differ in their seed only are averaged."""

    system: str
    """``mean_pose``, ``supervised``, ``mcss`` or any other name."""
    labels: str
    """As given to the training, such as ``S1:0.1``."""
    seed: int | None
    """None for what does not depend on one."""
    evaluation: Evaluation
    history: Sequence[Mapping[str, float | int]] = ()
    """What was logged while training, in order; see `Curve` for the keys that the page draws."""

    def row(self) -> dict[str, Any]:
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


@dataclass(frozen=True)
class Curve:
    """A plot of what was logged: history keys along x and y. Entries without both keys are skipped."""

    x: str
    y: str
    x_label: str
    y_label: str


LEARNING_CURVES = (
    Curve("images", "validation_n_mpjpe", "images seen", "Validation N-MPJPE, mm"),
    Curve("minutes", "validation_n_mpjpe", "minutes of training", "Validation N-MPJPE, mm"),
)
LOSS_CURVES = (
    Curve("step", "pose", "step", "Pose loss"),
    Curve("step", "metric", "step", "Metric loss"),
)


@dataclass(frozen=True)
class _Group:
    """Results that differ in their seed only."""

    system: str
    labels: str
    results: tuple[SystemResult, ...]
    colour: str

    @property
    def name(self) -> str:
        return NAMES.get(self.system, self.system)

    @property
    def title(self) -> str:
        return f"{self.name} · {self.labels}" if self.labels else self.name

    @property
    def seeds(self) -> int:
        return len(self.results)

    @property
    def posed(self) -> bool:
        """Whether there are pose measures."""
        return self.score("mpjpe") is not None

    def over(self, value: Callable[[Evaluation], float | None]) -> "_Spread | None":
        """Mean and standard deviation of a figure over the seeds; None where no run has it."""
        values = [v for r in self.results if (v := value(r.evaluation)) is not None]
        return None if not values else _Spread(tuple(values))

    def score(self, name: str, average: str = "over_poses", action: str | None = None) -> "_Spread | None":
        """A pose measure: over poses, over actions or of one action."""

        def value(e: Evaluation) -> float | None:
            if e.pose is None:
                return None
            scores: PoseScores | None = e.pose.actions.get(action) if action else getattr(e.pose, average)
            return None if scores is None else float(getattr(scores, name))

        return self.over(value)

    def retrieved(self, case: str, name: str, k: int | None = None) -> "_Spread | None":
        """A retrieval figure of a case, at K where it depends on it."""

        def value(e: Evaluation) -> float | None:
            found = None if e.retrieval is None else getattr(e.retrieval, case)
            if found is None or k is None:
                return None if found is None else float(getattr(found, name))
            return next((float(getattr(s, name)) for s in found.scores if s.k == k), None)

        return self.over(value)


@dataclass(frozen=True)
class _Spread:
    """A figure over several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """None for one seed, and for what is the same for every seed, such as the oracle."""
        return statistics.stdev(self.values) if len(set(self.values)) > 1 else None


def history_of(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float | int]]:
    """The lines of a run's ``metrics.jsonl`` as a `SystemResult` holds them.

    Validation figures move up as ``validation_…``, ``seconds`` become ``minutes``; what is no number is left out.
    """
    history = []
    for line in lines:
        flat = {**line, **{f"validation_{name}": value for name, value in (line.get("validation") or {}).items()}}
        if "seconds" in flat:
            flat["minutes"] = flat["seconds"] / 60
        history.append({k: v for k, v in flat.items() if isinstance(v, (int, float)) and not isinstance(v, bool)})
    return history


def run_report(
    result: SystemResult,
    made: Provenance,
    *,
    beside: Sequence[SystemResult] = (),
    poses: Sequence[PoseExample] = (),
    retrieved: Sequence[RetrievalExample] = (),
) -> str:
    """The page of one evaluated run.

    Args:
        result: The run.
        made: How it came about.
        beside: Rows to compare with, such as the mean pose.
        poses: Images with predicted and true poses.
        retrieved: Queries with what was found.
    """
    title = f"{NAMES.get(result.system, result.system)}, labels {result.labels}"
    return _page(title, [*beside, result], made, poses, retrieved)


def comparison_report(
    results: Sequence[SystemResult],
    made: Provenance,
    *,
    title: str = "3D pose from unlabelled views",
    poses: Sequence[PoseExample] = (),
    retrieved: Sequence[RetrievalExample] = (),
    shown: str = "",
) -> str:
    """The page that compares several systems; runs that differ in their seed only become mean ± deviation.

    Args:
        results: What is compared.
        made: How the figures came about.
        title: Of the page.
        poses: Images with predicted and true poses.
        retrieved: Queries with what was found.
        shown: Which labels the runs had that both of these are of.
    """
    if not results:
        raise ValueError("results: expected at least one evaluated system, got none; evaluate a run first.")
    return _page(title, results, made, poses, retrieved, shown)


def report_rows(results: Sequence[SystemResult], made: Provenance) -> dict[str, Any]:
    """The contents of ``report.json``: a row per system, label choice and seed, and how they came about."""
    return {
        "rows": [result.row() for result in results],
        "capture": made.capture,
        "synthetic": made.synthetic,
        "command": made.command,
        "date": made.date,
        "machine": made.machine,
        "versions": dict(made.versions),
        "settings": dict(made.settings),
    }


def _page(
    title: str,
    results: Sequence[SystemResult],
    made: Provenance,
    poses: Sequence[PoseExample],
    retrieved: Sequence[RetrievalExample],
    shown: str = "",
) -> str:
    groups = _grouped(results)
    environment = page_environment()
    environment.filters.update(mm=_millimetres, share=_share)
    first = groups[-1].results[0].evaluation
    cases = [
        ("all_subjects", "All subjects", "Case 1: anybody may be found, from another view than the query's."),
        ("cross_subject", "Other subjects only", "Case 2: the query's own subject is left out as well."),
    ]
    return environment.get_template("report.html").render(
        title=title,
        groups=groups,
        searched=[g for g in groups if any(r.evaluation.retrieval for r in g.results)],
        timed=[g for g in groups if g.retrieved("same_instant", "queries")],
        grey=GREY,
        names=NAMES,
        headline=_headline(groups),
        evaluation=first,
        actions=_actions(groups),
        cases=[
            {"key": key, "name": name, "about": about, "ks": _ks(groups, key), "plot": _retrieval_plot(groups, key)}
            for key, name, about in cases
            if _ks(groups, key)
        ],
        learning=_plots(groups, LEARNING_CURVES),
        losses=_plots(groups, LOSS_CURVES),
        poses=poses,
        retrieved=retrieved,
        shown=shown,
        paper=PAPER,
        made=made,
        seeds=sorted({r.seed for r in results if r.seed is not None}),
    )


def _grouped(results: Sequence[SystemResult]) -> list[_Group]:
    order: dict[tuple[str, str], int] = {}
    for result in results:
        order.setdefault((result.system, result.labels), len(order))
    ranked = sorted(results, key=lambda r: order[r.system, r.labels])
    colours = iter(PALETTE[1:] * (len(order) // 5 + 1))
    groups: list[_Group] = []
    for (system, labels), runs in groupby(ranked, key=lambda r: (r.system, r.labels)):
        taken = {g.system for g in groups}
        own = {"mean_pose": GREY, "mcss": PALETTE[0]}.get(system) if system not in taken else None
        groups.append(_Group(system, labels, tuple(runs), own or next(colours)))
    return groups


def _headline(groups: Sequence[_Group]) -> dict[str, Any] | None:
    """The first MCSS row against the baseline with the same labels."""
    for ours in groups:
        for other in groups:
            if (ours.system, other.system) == ("mcss", "supervised") and ours.labels == other.labels:
                a, b = ours.score("n_mpjpe"), other.score("n_mpjpe")
                if a and b and b.mean > 0:
                    return {"ours": ours, "other": other, "a": a, "b": b, "ratio": a.mean / b.mean}
    return None


def _actions(groups: Sequence[_Group]) -> list[tuple[str, int]]:
    """Actions of all systems and how many images each has."""
    counts: dict[str, int] = {}
    for group in groups:
        for result in group.results:
            if result.evaluation.pose is not None:
                counts.update(result.evaluation.pose.action_images)
    return list(counts.items())


def _ks(groups: Sequence[_Group], case: str) -> list[int]:
    found: set[int] = set()
    for group in groups:
        for result in group.results:
            retrieval = result.evaluation.retrieval
            scored: PoseRetrieval | None = getattr(retrieval, case) if retrieval else None
            found |= {score.k for score in scored.scores} if scored else set()
    return sorted(found)


def _retrieval_plot(groups: Sequence[_Group], case: str) -> Markup:
    ks = _ks(groups, case)
    lines, oracle = [], None
    for group in groups:
        points = [group.retrieved(case, "mean_pa_mpjpe", k) for k in ks]
        if any(point is None for point in points):
            continue
        kept = [point for point in points if point is not None]
        spread = [p.deviation or 0.0 for p in kept] if group.seeds > 1 else None
        lines.append(Line(group.title, ks, [p.mean for p in kept], group.colour, spread))
        best = [group.retrieved(case, "oracle", k) for k in ks]
        oracle = Line("Oracle", ks, [b.mean for b in best if b], GREY, dashed=True)
    every = [*lines, oracle] if oracle else lines
    return Markup(line_plot(every, x_label="K neighbours", y_label="Mean-PA-MPJPE@K, mm", x_ticks=ks))


def _plots(groups: Sequence[_Group], curves: Sequence[Curve]) -> list[Markup]:
    plots = []
    for curve in curves:
        lines = []
        for group in groups:
            runs = []
            for result in group.results:
                points = [(p[curve.x], p[curve.y]) for p in result.history if curve.x in p and curve.y in p]
                if points:
                    runs.append(([x for x, _ in points], [y for _, y in points]))
            if runs:
                lines.append(averaged(group.title, runs, group.colour))
        if lines:
            plots.append(Markup(line_plot(lines, x_label=curve.x_label, y_label=curve.y_label)))
    return plots


def _millimetres(value: "_Spread | float | int | None", digits: int = 1) -> str:
    """A figure, with its deviation over the seeds where there are several."""
    if value is None:
        return "–"
    if isinstance(value, (int, float)):
        return f"{value:.{digits}f}"
    text = f"{value.mean:.{digits}f}"
    return text if value.deviation is None else f"{text} ± {value.deviation:.{digits}f}"


def _share(value: "_Spread | float | int | None") -> str:
    """A share (0 to 1) as a percentage."""
    if value is None:
        return "–"
    if isinstance(value, _Spread):
        return _millimetres(_Spread(tuple(100 * v for v in value.values))) + " %"
    return f"{100 * value:.1f} %"
