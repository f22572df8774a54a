"""Retrieved images, retrieval scores, distances, the t-SNE, Table 4 and Section 6.3: what the embedding is good for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.figure import Figure

from mcss.evaluation.embedding import BIN_MM, NEAR, DistanceCurve, distance_curves, random_queries
from mcss.evaluation.evaluate import gallery_of, whole_instants
from mcss.evaluation.examples import pick_rows, retrieval_examples
from mcss.experiments.figures import distance_curves_figure, embedding_scatter, retrieval_curves, retrieved_images
from mcss.experiments.paper import FIG5, GENERALISATION, TABLE4
from mcss.experiments.rows import CASES, CurveRow, ProjectionRow, QueryRow, RetrievalRow, retrieval_rows
from mcss.experiments.runs import Cell, started_from
from mcss.experiments.study import Study
from mcss.experiments.tables import MeasuredPart, PartName, spread
from mcss.methods.mcss import MCSS
from mcss.methods.registry import title_of
from mcss.methods.supervised import Supervised

QUERIES = 200
"""Random queries of each subject that are compared with other images."""

IMAGES = 20_000
"""Images that they are compared with, at most."""

_NEAREST = f"nearest {100 * NEAR:g} %"

NEIGHBOURS = 5
"""Images found for a query."""

TSNE_POINTS = 1500

RETRIEVAL_NOTE = (
    "The gallery never holds the query's own view; “other subjects” leaves out the query's subject, too. Hit@K: one of "
    "the K neighbours has a normalised Procrustes error of at most 0.1 (Pr-VIPE's measure)."
)


def retrieval_table(rows: Sequence[RetrievalRow]) -> list[list[str]]:
    """Means over seeds."""
    table = [["system", "gallery", "K", "Mean-PA-MPJPE@K", "oracle", "above oracle", "Hit@K", "oracle's", "seeds"]]
    groups: dict[tuple[str, str, int], list[RetrievalRow]] = {}
    for row in rows:
        groups.setdefault((row.case, row.name, row.k), []).append(row)
    for (case, name, k), group in groups.items():
        scores = [row.score for row in group]
        errors = [
            f"{np.mean([getattr(score, measure) for score in scores]):.1f}"
            for measure in ("mean_pa_mpjpe", "oracle", "above_oracle")
        ]
        hits = [
            f"{np.mean([getattr(score, measure) for score in scores]):.2f}"
            for measure in ("pose_hit", "pose_hit_oracle")
        ]
        table.append([name, CASES[case], str(k), *errors, *hits, str(len(group))])
    return table


def embedding_cells(study: Study) -> list[Cell]:
    """MCSS and the baseline with one subject's labels and the first seed, as in Table 1."""
    return [study.cell(method) for method in (MCSS, Supervised)]


def _file_name(part: str, system: str) -> str:
    """The figure of MCSS has the name of the part, others the system's beside it."""
    return part if system == MCSS.name else f"{part}_{system}"


def found(study: Study) -> MeasuredPart:
    """Show what is retrieved, in images."""
    cells = embedding_cells(study)
    predictions = {cell.system: study.predictions(cell) for cell in cells}
    rows = pick_rows(predictions[MCSS.name], 6)
    examples = retrieval_examples(study.capture, predictions, rows, cross_subject=True, neighbours=NEIGHBOURS)
    queries = [
        QueryRow(
            cell.system,
            example.caption,
            [neighbour.pa_mpjpe for neighbour in example.neighbours[cell.system]],
            [neighbour.correct for neighbour in example.neighbours[cell.system]],
        )
        for cell in cells
        for example in examples
    ]
    notes = [
        "Queries are spread evenly from the best to the worst pose error of MCSS, not picked. The first figure is that "
        "of MCSS, the second the baseline's; neighbours are images of other people in other views. Below each: "
        "PA-MPJPE to the query; a solid frame where the pose is the query's (normalised Procrustes error of at most "
        "0.1), else dashed."
    ]
    figures = {_file_name("found", cell.system): retrieved_images(examples, cell.system, NEIGHBOURS) for cell in cells}
    return MeasuredPart("found", "What is found", queries, (), (), notes, figures)


def retrieval_cells(study: Study) -> list[Cell]:
    """MCSS and the baseline with one subject's labels and all seeds."""
    return [study.cell(method, seed=seed) for method in (MCSS, Supervised) for seed in study.seeds]


def retrieval(study: Study) -> MeasuredPart:
    """Measure retrieval on the capture itself."""
    rows = [row for cell in retrieval_cells(study) for row in retrieval_rows(study.result(cell), "", cell.name)]
    notes = [RETRIEVAL_NOTE, f"The paper: {FIG5}."]
    figures = retrieval_curves("retrieval", rows)
    return MeasuredPart("retrieval", "Retrieval", rows, retrieval_table(rows), (), notes, figures)


def distances(study: Study) -> MeasuredPart:
    """Compare distances in the embedding with those of poses, across all subjects."""
    title = "Distance in the embedding and distance of poses"
    rows = _distance_rows(study, within_subject=False)
    return _distances("distances", title, rows, "images", "PA-MPJPE", "PA-MPJPE of the two poses, mm")


def fig6(study: Study) -> MeasuredPart:
    """Compare distances in the embedding with those of poses among the images of one person, as the paper does."""
    title = "Figure 6: distance in the embedding and difference of poses of one person"
    rows = _distance_rows(study, within_subject=True)
    others, measure = "images, those of the same subject", "MPJPE between the canonical poses"
    return _distances("fig6", title, rows, others, measure, "MPJPE of the two canonical poses, mm")


def _distances(
    name: PartName, title: str, rows: Sequence[CurveRow], others: str, measure: str, x_label: str
) -> MeasuredPart:
    note = (
        f"{QUERIES} random queries of each test subject against at most {IMAGES:,} {others}; means in bins of "
        f"{BIN_MM:g} mm of {measure}, the bands are standard deviations over the pairs of a bin. Of the {_NEAREST}: ρ "
        "over that share of the pairs, those whose poses are most alike, which are the ones that a search has to bring "
        "in order."
    )
    figures = _distance_figures(name, rows, x_label)
    return MeasuredPart(name, title, rows, _rho_table(rows), (), [note], figures)


def _distance_rows(study: Study, within_subject: bool) -> list[CurveRow]:
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


def _by_kind(rows: Sequence[CurveRow]) -> Mapping[tuple[str, str], list[CurveRow]]:
    """The rows that differ only in their seed, by system and kind of pair."""
    groups: dict[tuple[str, str], list[CurveRow]] = {}
    for row in rows:
        groups.setdefault((row.system, row.curve.name), []).append(row)
    return groups


def _rho_table(rows: Sequence[CurveRow]) -> list[list[str]]:
    """Spearman's ρ of each system and kind of pair, over seeds."""
    table = [["system", "pairs", "seeds", "Spearman's ρ", f"of the {_NEAREST}", "number of pairs"]]
    for (system, name), group in _by_kind(rows).items():
        rho, near = (
            spread([value for row in group if (value := getattr(row.curve, of)) is not None], 3)
            for of in ("rho", "rho_near")
        )
        table.append([title_of(system), name, str(len(group)), rho, near, f"{group[0].curve.pairs:,}"])
    return table


def _distance_figures(name: str, rows: Sequence[CurveRow], x_label: str) -> dict[str, Figure]:
    """A figure for each system, of the means over its runs; that of MCSS has the name of the part."""
    groups, figures = _by_kind(rows), {}
    for system in dict.fromkeys(row.system for row in rows):
        means = [_mean_curve([row.curve for row in group]) for (of, _), group in groups.items() if of == system]
        figures[_file_name(name, system)] = distance_curves_figure(title_of(system), means, x_label)
    return figures


def _mean_curve(curves: Sequence[DistanceCurve]) -> DistanceCurve:
    """The mean of curves over the same pairs of images, whose bins are therefore the same."""
    mean, deviation = (np.mean([getattr(curve, of) for curve in curves], axis=0) for of in ("mean", "deviation"))
    return replace(curves[0], mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))


def tsne(study: Study) -> MeasuredPart:
    """Project the embedding to the plane.

    Raises:
        ImportError: scikit-learn is not installed; names the extra.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError(
            "tsne needs scikit-learn, which is not installed: `pip install 'mcss[tsne]'`, or leave tsne out."
        ) from error
    figures, rows = {}, []
    for cell in embedding_cells(study):
        predictions = study.predictions(cell)
        gallery = gallery_of(predictions)
        random = np.random.default_rng(study.seeds[0])
        chosen = np.sort(random.permutation(len(gallery))[:TSNE_POINTS])
        vectors = gallery.embedding[torch.from_numpy(chosen)].double().numpy()
        perplexity = min(30.0, max(2.0, (len(chosen) - 1) / 4))
        points = TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(vectors).astype(np.float64)
        figures[_file_name("tsne", cell.system)] = embedding_scatter(cell.title, points, predictions, chosen)
        rows.append(ProjectionRow(cell.system, study.labels, len(chosen), cell.name))
    notes = [
        f"{rows[0].points} random test images. In a good embedding, poses of one action lie together, and views and "
        "subjects are mixed. A t-SNE shows neighbourhoods, not distances."
    ]
    return MeasuredPart("tsne", "t-SNE of the embedding", rows, (), (), notes, figures)


def other_cells(study: Study) -> list[Cell]:
    """MCSS as trained on this capture, and fine-tuned on the other one by L_cnstr alone."""
    assert study.other is not None
    before = study.cell(MCSS)
    after = study.budget.cell(MCSS, study.other, "none", study.seeds[0])
    steps = max(1, after.settings.optimiser.steps // 4)
    settings = replace(after.settings, optimiser=replace(after.settings.optimiser, steps=steps))
    return [before, started_from(replace(after, settings=settings), before, study.cells, whole=True)]


def table4(study: Study) -> MeasuredPart:
    """Measure retrieval on the other capture after fine-tuning."""
    rows = _rows_on_the_other(study, other_cells(study)[1:], ["fine-tuned without labels"])
    notes = [RETRIEVAL_NOTE, _about_the_other(study)]
    for case, values in TABLE4.items():
        printed = ", ".join(f"{value:.2f} (K = {k})" for k, value in values.items())
        notes.append(f"The paper, on MPI-INF-3DHP, {CASES[case]}: {printed}.")
    title, figures = "Table 4: retrieval on another capture", retrieval_curves("table4", rows)
    return MeasuredPart("table4", title, rows, retrieval_table(rows), (), notes, figures)


def generalisation(study: Study) -> MeasuredPart:
    """Measure retrieval on the other capture before and after fine-tuning."""
    rows = _rows_on_the_other(study, other_cells(study), ["as it came", "fine-tuned without labels"])
    notes = [RETRIEVAL_NOTE, _about_the_other(study), f"The paper: {GENERALISATION}."]
    title, figures = "Section 6.3: to another capture", retrieval_curves("generalisation", rows)
    return MeasuredPart("generalisation", title, rows, retrieval_table(rows), (), notes, figures)


def _rows_on_the_other(study: Study, cells: Sequence[Cell], variants: Sequence[str]) -> list[RetrievalRow]:
    rows = []
    for cell, variant in zip(cells, variants, strict=True):
        rows += retrieval_rows(study.result(cell, capture=study.other), variant, cell.name)
    return rows


def _about_the_other(study: Study) -> str:
    assert study.other is not None
    before, tuned = other_cells(study)
    return (
        f"Trained on {study.capture.uri} (`{study.capture.fingerprint[:12]}`), {before.settings.optimiser.steps} "
        f"steps; tested on {study.other.uri} (`{study.other.fingerprint[:12]}`); fine-tuned by L_cnstr alone, without "
        f"labels, for {tuned.settings.optimiser.steps} steps on the training split of the latter."
    )
