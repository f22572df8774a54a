"""One self-contained HTML page with all results of a run, or of several systems side by side."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mcss.data.provenance import Provenance
from mcss.evaluation.evaluate import Evaluation, LimbScores, PoseScores
from mcss.evaluation.examples import PoseExample, RetrievalExample
from mcss.evaluation.results import MEAN_POSE, SystemResult, grouped_results
from mcss.retrieval import PoseRetrieval
from mcss.viz.html import page_environment
from mcss.viz.plots import Line, line_plot, mean_line
from mcss.viz.style import GREY, PALETTE

OURS, BASELINE = "mcss", "supervised"
"""The systems that the headline compares."""


@dataclass(frozen=True)
class ReportData:
    """Evaluated systems and how they were measured."""

    results: Sequence[SystemResult]
    """A result per system, label budget and seed."""
    made: Provenance

    def to_json(self) -> dict[str, Any]:
        """The contents of ``report.json``."""
        return {
            "rows": [result.to_json() for result in self.results],
            "capture": self.made.capture,
            "synthetic": self.made.synthetic,
            "command": self.made.command,
            "date": self.made.date,
            "machine": self.made.machine,
            "versions": dict(self.made.versions),
            "settings": dict(self.made.settings),
        }


@dataclass(frozen=True)
class Spread:
    """A figure measured with several seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def text(self, digits: int = 1) -> str:
        """Mean ± standard deviation, or the mean alone for one seed."""
        mean = f"{self.mean:.{digits}f}"
        return mean if self.deviation is None else f"{mean} ± {self.deviation:.{digits}f}"


@dataclass(frozen=True)
class Curve:
    """A plot of the training log: its keys for x and y. Entries that lack one of them are skipped."""

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
    """Results that differ only in their seed."""

    system: str
    labels: str
    results: tuple[SystemResult, ...]
    colour: str

    @property
    def name(self) -> str:
        return self.results[0].title

    @property
    def title(self) -> str:
        return f"{self.name} · {self.labels}" if self.labels else self.name

    @property
    def seeds(self) -> int:
        return len(self.results)

    @property
    def posed(self) -> bool:
        """Whether the poses were scored."""
        return self.score("mpjpe") is not None

    def over(self, value: Callable[[Evaluation], float | None]) -> Spread | None:
        """A figure of every seed that has it; None if none has."""
        values = [v for r in self.results if (v := value(r.evaluation)) is not None]
        return None if not values else Spread(tuple(values))

    def score(self, name: str, average: str = "over_poses", action: str | None = None) -> Spread | None:
        """A pose measure: over poses, over actions, over the limbs or of one action."""

        def value(e: Evaluation) -> float | None:
            if e.pose is None:
                return None
            scores: PoseScores | LimbScores | None = e.pose.actions.get(action) if action else getattr(e.pose, average)
            return None if scores is None else float(getattr(scores, name))

        return self.over(value)

    def retrieved(self, case: str, name: str, k: int | None = None) -> Spread | None:
        """A retrieval figure of a case, at K if it depends on K."""

        def value(e: Evaluation) -> float | None:
            scores = None if e.retrieval is None else getattr(e.retrieval, case)
            if scores is None or k is None:
                return None if scores is None else float(getattr(scores, name))
            return next((float(getattr(score, name)) for score in scores.scores if score.k == k), None)

        return self.over(value)


def history_of(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float | int]]:
    """Convert the lines of a run's ``metrics.jsonl`` to the history of a `SystemResult`.

    Validation figures become ``validation_…``, ``seconds`` become ``minutes``, and values that are no numbers are left
    out.
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
    paper: Sequence[Sequence[str]] = (),
    poses: Sequence[PoseExample] = (),
    retrieved: Sequence[RetrievalExample] = (),
) -> str:
    """The page of one evaluated run.

    Args:
        result: The run.
        made: How it was made.
        beside: Rows to compare with, such as the mean pose.
        paper: The paper's numbers as a table, its header first.
        poses: Images with predicted and true poses.
        retrieved: Queries with what was found for them.
    """
    learned = {"none": "without 3D labels", "all": "with all 3D labels"}.get(
        result.labels, f"with the 3D labels of {result.labels}"
    )
    posed = result.evaluation.pose is not None  # the paper's table is one of pose errors
    return _page(
        f"{result.title}, trained {learned}", [*beside, result], made, paper if posed else (), poses, retrieved
    )


def comparison_report(
    results: Sequence[SystemResult],
    made: Provenance,
    *,
    title: str = "3D pose from unlabelled views",
    paper: Sequence[Sequence[str]] = (),
    poses: Sequence[PoseExample] = (),
    retrieved: Sequence[RetrievalExample] = (),
    example_labels: str = "",
) -> str:
    """The page that compares several systems; runs that differ only in their seed become mean ± deviation.

    Args:
        results: What is compared.
        made: How the figures were made.
        title: Title of the page.
        paper: The paper's numbers as a table, its header first.
        poses: Images with predicted and true poses.
        retrieved: Queries with what was found for them.
        example_labels: The labels of the runs that `poses` and `retrieved` show.

    Raises:
        ValueError: There are no results.
    """
    if not results:
        raise ValueError("results: expected at least one evaluated system, got none; evaluate a run first.")
    return _page(title, results, made, paper, poses, retrieved, example_labels)


def _page(
    title: str,
    results: Sequence[SystemResult],
    made: Provenance,
    paper: Sequence[Sequence[str]],
    poses: Sequence[PoseExample],
    retrieved: Sequence[RetrievalExample],
    example_labels: str = "",
) -> str:
    groups = _coloured_groups(results)
    environment = page_environment()
    environment.filters.update(mm=_millimetres, share=_percent)
    environment.globals.update(best=_best)
    first = groups[-1].results[0].evaluation
    cases = [
        ("all_subjects", "All subjects", "Case 1: anybody may be retrieved, in another view than the query's."),
        ("cross_subject", "Other subjects only", "Case 2: the query's own subject is left out as well."),
    ]
    return environment.get_template("report.html").render(
        title=title,
        groups=groups,
        searched=[g for g in groups if any(r.evaluation.retrieval for r in g.results)],
        timed=[g for g in groups if g.retrieved("same_instant", "queries")],
        grey=GREY,
        names={result.system: result.title for result in results},
        headline=_headline(groups),
        moment=_moment(groups),
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
        example_labels=example_labels,
        paper=paper,
        made=made,
        seeds=sorted({r.seed for r in results if r.seed is not None}),
    )


def _coloured_groups(results: Sequence[SystemResult]) -> list[_Group]:
    """Groups of results that differ only in their seed, each with a colour of its own."""
    by_key = grouped_results(results)
    colours = iter(PALETTE[1:] * (len(by_key) // 5 + 1))
    groups: list[_Group] = []
    for runs in by_key:
        system, labels = runs[0].key
        is_first = system not in {group.system for group in groups}
        fixed = {MEAN_POSE: GREY, OURS: PALETTE[0]}.get(system) if is_first else None
        groups.append(_Group(system, labels, tuple(runs), fixed or next(colours)))
    return groups


def _headline(groups: Sequence[_Group]) -> dict[str, Any] | None:
    """Compare the first row of MCSS with the baseline's row for the same labels."""
    for ours in groups:
        for other in groups:
            if (ours.system, other.system) == (OURS, BASELINE) and ours.labels == other.labels:
                a, b = ours.score("n_mpjpe"), other.score("n_mpjpe")
                if a and b and b.mean > 0:
                    return {"ours": ours, "other": other, "a": a, "b": b, "ratio": a.mean / b.mean}
    return None


def _moment(groups: Sequence[_Group]) -> dict[str, Spread] | None:
    """How often the last system finds the same moment first; None where poses are scored, which say more."""
    if any(group.posed for group in groups):
        return None
    hit, chance = (groups[-1].retrieved("same_instant", name) for name in ("hit_at_1", "chance_at_1"))
    return None if hit is None or chance is None else {"hit": hit, "chance": chance}


_HIGHER_IS_BETTER = frozenset({"pck", "auc", "hit_at_1", "hit_at_5", "pose_hit"})


def _best(group: _Group, groups: Sequence[_Group], figure: str, *args: Any) -> str:
    """The class that marks the best of several systems in a column of a table; empty for the others.

    Args:
        group: The system of the cell.
        groups: The systems of the column.
        figure: The method of a group that returns the figure.
        *args: What this method is called with; a figure that is one of `_HIGHER_IS_BETTER` is better if it is higher.
    """
    sign = -1 if _HIGHER_IS_BETTER & set(map(str, args)) else 1
    means = {id(g): sign * value.mean for g in groups if (value := getattr(g, figure)(*args)) is not None}
    wins = len(means) > 1 and id(group) in means and means[id(group)] == min(means.values())
    return " best" if wins else ""


def _actions(groups: Sequence[_Group]) -> list[tuple[str, int]]:
    """The actions of all systems and the number of images of each."""
    counts: dict[str, int] = {}
    for group in groups:
        for result in group.results:
            if result.evaluation.pose is not None:
                counts.update(result.evaluation.pose.action_images)
    return list(counts.items())


def _ks(groups: Sequence[_Group], case: str) -> list[int]:
    ks: set[int] = set()
    for group in groups:
        for result in group.results:
            retrieval = result.evaluation.retrieval
            scored: PoseRetrieval | None = getattr(retrieval, case) if retrieval else None
            ks |= {score.k for score in scored.scores} if scored else set()
    return sorted(ks)


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
    """Draw the curves that have more than one point."""
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
                lines.append(mean_line(group.title, runs, group.colour))
        if any(len(line.x) > 1 for line in lines):
            plots.append(Markup(line_plot(lines, x_label=curve.x_label, y_label=curve.y_label)))
    return plots


def _millimetres(value: Spread | float | int | None, digits: int = 1) -> str:
    """A figure, with its deviation over the seeds unless it is the same for all, such as the oracle."""
    if value is None:
        return "–"
    if isinstance(value, Spread):
        return value.text(digits) if len(set(value.values)) > 1 else f"{value.mean:.{digits}f}"
    return f"{value:.{digits}f}"


def _percent(value: Spread | float | int | None) -> str:
    """A share (0 to 1) as a percentage."""
    if value is None:
        return "–"
    if isinstance(value, Spread):
        return _millimetres(Spread(tuple(100 * v for v in value.values))) + " %"
    return f"{100 * value:.1f} %"
