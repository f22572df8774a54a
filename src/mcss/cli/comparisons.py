"""How compared systems are shown, for the verbs that compare some."""

from collections.abc import Sequence
from statistics import fmean

from mcss.cli.terminal import console, show_table
from mcss.evaluation.report import ReportData
from mcss.evaluation.results import grouped_results


def show_comparison(report: ReportData) -> None:
    """Print the figures of compared systems, each the mean over its seeds."""

    def mean(values: Sequence[float | None], digits: int = 1) -> str:
        known = [value for value in values if value is not None]
        return f"{fmean(known):.{digits}f}" if known else "–"

    rows = []
    for group in grouped_results(report.results):
        poses = [pose.over_poses for result in group if (pose := result.evaluation.pose) is not None]
        retrieval = [found for result in group if (found := result.evaluation.retrieval) is not None]
        hits = [found.same_instant.hit_at_1 for found in retrieval if found.same_instant is not None]
        errors = [mean([getattr(scores, name) for scores in poses]) for name in ("n_mpjpe", "mpjpe", "pa_mpjpe")]
        rows.append((group[0].title, group[0].labels, str(len(group)), *errors, mean(hits, 3)))
    columns = ("system", "labels", "seeds", "N-MPJPE", "MPJPE", "PA-MPJPE", "Hit@1")
    show_table("Results on new people: mean joint error in mm, lower is better", columns, rows)
    console.print("Hit@1: how often the first image found from another camera shows the same moment.", style="dim")
