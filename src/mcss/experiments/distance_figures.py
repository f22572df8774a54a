"""Distances in the embedding against differences of poses: Figure 6 as the paper has it, and over everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure

from mcss.evaluation.embedding import BIN_MM, NEAR, DistanceCurve, distance_curves, random_queries
from mcss.evaluation.evaluate import gallery_of, whole_instants
from mcss.experiments.figures import distance_curves_figure
from mcss.experiments.retrieval_tables import retrieval_cells
from mcss.experiments.rows import CurveRow
from mcss.experiments.runs import Cell
from mcss.experiments.study import Study
from mcss.experiments.tables import MeasuredPart, spread
from mcss.methods.mcss import MCSS
from mcss.methods.registry import title_of

QUERIES = 200
"""Random queries of each subject that are compared with other images."""

IMAGES = 20_000
"""Images that they are compared with, at most."""

_NEAREST = f"nearest {100 * NEAR:g} %"


def distances(study: Study) -> MeasuredPart:
    """Compare distances in the embedding with those of poses, across all subjects."""
    rows = _rows(study, within_subject=False)
    note = f"{QUERIES} random queries of each test subject against at most {IMAGES:,} images"
    return MeasuredPart(
        "distances",
        "Distance in the embedding and distance of poses",
        rows,
        _table(rows),
        (),
        [_about(note, "PA-MPJPE")],
        _figures("distances", rows, "PA-MPJPE of the two poses, mm"),
    )


def fig6(study: Study) -> MeasuredPart:
    """Compare distances in the embedding with those of poses among the images of one person, as the paper does."""
    rows = _rows(study, within_subject=True)
    note = f"{QUERIES} random queries of each test subject against at most {IMAGES:,} images, those of the same subject"
    return MeasuredPart(
        "fig6",
        "Figure 6: distance in the embedding and difference of poses of one person",
        rows,
        _table(rows),
        (),
        [_about(note, "MPJPE between the canonical poses")],
        _figures("fig6", rows, "MPJPE of the two canonical poses, mm"),
    )


def _rows(study: Study, within_subject: bool) -> list[CurveRow]:
    """The curves of every run of MCSS and the baseline; all runs are asked for the same pairs of images."""
    return [
        CurveRow(cell.system, study.labels, cell.name, cell.settings.seed, curve)
        for cell in retrieval_cells(study)
        for curve in _curves(study, cell, within_subject)
    ]


def _curves(study: Study, cell: Cell, within_subject: bool) -> tuple[DistanceCurve, ...]:
    gallery = gallery_of(study.predictions(cell))
    gallery = gallery.take((~gallery.pose.isnan().any(-1).any(-1)).nonzero()[:, 0])
    random = np.random.default_rng(study.seeds[0])
    gallery = gallery.take(whole_instants(gallery.instant, IMAGES, random))
    return distance_curves(gallery, random_queries(gallery, QUERIES, study.seeds[0]), within_subject)


def _grouped(rows: Sequence[CurveRow]) -> Mapping[tuple[str, str], list[CurveRow]]:
    """The rows that differ only in their seed, by system and kind of pair."""
    groups: dict[tuple[str, str], list[CurveRow]] = {}
    for row in rows:
        groups.setdefault((row.system, row.curve.name), []).append(row)
    return groups


def _table(rows: Sequence[CurveRow]) -> list[list[str]]:
    """Spearman's ρ of each system and kind of pair, over seeds."""
    table = [["system", "pairs", "seeds", "Spearman's ρ", f"of the {_NEAREST}", "number of pairs"]]
    for (system, name), group in _grouped(rows).items():
        rho, near = (
            spread([value for row in group if (value := getattr(row.curve, of)) is not None], 3)
            for of in ("rho", "rho_near")
        )
        table.append([title_of(system), name, str(len(group)), rho, near, f"{group[0].curve.pairs:,}"])
    return table


def _about(pairs: str, measure: str) -> str:
    return (
        f"{pairs}; means in bins of {BIN_MM:g} mm of {measure}, the bands are standard deviations over the pairs of a "
        f"bin. Of the {_NEAREST}: ρ over that share of the pairs, those whose poses are most alike, which are "
        "the ones that a search has to bring in order."
    )


def _figures(name: str, rows: Sequence[CurveRow], x_label: str) -> dict[str, Figure]:
    """A figure for each system, of the means over its runs; that of MCSS has the name of the part."""
    groups, figures = _grouped(rows), {}
    for system in dict.fromkeys(row.system for row in rows):
        means = [_mean([row.curve for row in group]) for (of, _), group in groups.items() if of == system]
        file_name = name if system == MCSS.name else f"{name}_{system}"
        figures[file_name] = distance_curves_figure(title_of(system), means, x_label)
    return figures


def _mean(curves: Sequence[DistanceCurve]) -> DistanceCurve:
    """The mean of curves over the same pairs of images, whose bins are therefore the same."""
    mean, deviation = (np.mean([getattr(curve, of) for curve in curves], axis=0) for of in ("mean", "deviation"))
    return replace(curves[0], mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))
