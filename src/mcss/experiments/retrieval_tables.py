"""Retrieved images, retrieval scores, the t-SNE, Table 4 and Section 6.3: what the embedding is good for."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from mcss.evaluation.evaluate import gallery_of
from mcss.evaluation.examples import pick_rows, retrieval_examples
from mcss.experiments.figures import embedding_scatter, retrieval_curves, retrieved_images
from mcss.experiments.paper import FIG5, GENERALISATION, TABLE4
from mcss.experiments.rows import CASES, ProjectionRow, QueryRow, RetrievalRow, retrieval_rows
from mcss.experiments.runs import Cell, started_from
from mcss.experiments.study import Study
from mcss.experiments.tables import MeasuredPart
from mcss.methods.mcss import MCSS
from mcss.methods.supervised import Supervised

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


def _file_name(part: str, cell: Cell) -> str:
    """The figure of MCSS has the name of the part, others the system's beside it."""
    return part if cell.system == MCSS.name else f"{part}_{cell.system}"


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
    figures = {_file_name("found", cell): retrieved_images(examples, cell.system, NEIGHBOURS) for cell in cells}
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
        figures[_file_name("tsne", cell)] = embedding_scatter(cell.title, points, predictions, chosen)
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
