"""Figures 4 to 6, the t-SNE, Table 4 and Section 6.3: the embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from mcss.data.capture import Capture
from mcss.evaluation.embedding import BIN_MM, distance_curves, drawn_queries
from mcss.evaluation.evaluate import gallery_of, whole_instants
from mcss.evaluation.examples import pick_rows, retrieval_examples
from mcss.evaluation.predictions import EvaluationSettings, SplitPrediction
from mcss.evaluation.report import NAMES, SystemResult
from mcss.experiments.paper import FIG5, GENERALISATION, TABLE4
from mcss.experiments.runs import Cell, cell_predictions, started_from
from mcss.experiments.tables import Part, Study
from mcss.images import decode_jpeg
from mcss.retrieval import PoseRetrieval
from mcss.viz.figures import GREY, PALETTE
from mcss.viz.plots import MARKS, Cloud, Line, Shown, cloud_figure, image_figure, line_figure

CASES = {"all_subjects": "all subjects", "cross_subject": "other subjects"}

QUERIES = 200
"""Random queries of each subject, in Fig. 6."""

IMAGES = 20_000
"""At most, that they are compared with."""

NEIGHBOURS = 5

_SIDE = 112
"""Of the images in a figure."""

TSNE_POINTS = 1500


def embedding_cells(study: Study) -> list[Cell]:
    """One MCSS and one baseline with one subject's labels: those of Table 1."""
    return [study.budget.cell(system, study.capture, study.labels, study.seeds[0]) for system in ("mcss", "supervised")]


def fig5_cells(study: Study) -> list[Cell]:
    """As `embedding_cells`, all seeds."""
    return [
        study.budget.cell(system, study.capture, study.labels, seed)
        for system in ("mcss", "supervised")
        for seed in study.seeds
    ]


def _predictions(study: Study, cell: Cell, settings: EvaluationSettings | None = None) -> SplitPrediction:
    looked = settings or study.looked
    return cell_predictions(cell, study.cells, study.capture, "test", looked, study.progress)


def fig4(study: Study) -> Part:
    """What is found, in images."""
    cells = embedding_cells(study)
    predicted: dict[str, SplitPrediction] = {cell.system: _predictions(study, cell) for cell in cells}
    ours = predicted["mcss"]
    rows = pick_rows(ours, 6)
    examples = retrieval_examples(study.capture, predicted, rows, cross_subject=True, neighbours=NEIGHBOURS)
    figures, plain = {}, []
    for system in predicted:
        sheet = []
        for example in examples:
            own = example.found[system]
            shown = [Shown(_small(example.image), "")]
            shown += [
                Shown(_small(n.image), "" if n.pa_mpjpe is None else f"{n.pa_mpjpe:.0f} mm", n.right) for n in own
            ]
            sheet.append(shown)
            errors = [n.pa_mpjpe for n in own]
            plain.append(
                {"system": system, "query": example.caption, "pa_mpjpe": errors, "right": [n.right for n in own]}
            )
        name = "fig4" if system == "mcss" else f"fig4_{system}"
        figures[name] = image_figure(sheet, ["query", *(str(k + 1) for k in range(NEIGHBOURS))])
    notes = [
        "Queries are spread evenly from the best to the worst pose error of MCSS, not picked; the first figure is that "
        "of MCSS, the second the baseline's. Found among other people in other views. Below each: PA-MPJPE to the "
        "query; a solid frame where the pose is the query's (normalised Procrustes error of 0.1 at most), else dashed."
    ]
    return Part("fig4", "Figure 4: what is found", plain, (), (), notes, figures)


def _small(image: bytes) -> UInt8[np.ndarray, "side side 3"]:
    return np.asarray(cv2.resize(decode_jpeg(image), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))


def retrieval_rows(result: SystemResult, variant: str, cell: str) -> list[dict[str, Any]]:
    """A row for each case and K."""
    found = result.evaluation.retrieval
    rows = []
    for case in CASES:
        scores: PoseRetrieval | None = None if found is None else getattr(found, case)
        if scores is None:
            continue
        for score in scores.scores:
            rows.append(
                {
                    "system": result.system,
                    "variant": variant,
                    "labels": result.labels,
                    "seed": result.seed,
                    "case": case,
                    **asdict(score),
                    "above_oracle": score.above_oracle,
                    "random": scores.random,
                    "queries": scores.queries,
                    "gallery": scores.gallery,
                    "cell": cell,
                }
            )
    return rows


def _retrieval_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    table = [["system", "gallery", "K", "Mean-PA-MPJPE@K", "oracle", "above oracle", "Hit@K", "oracle's", "seeds"]]
    keys = dict.fromkeys((r["case"], r["system"], r["variant"], r["k"]) for r in rows)
    for case, system, variant, k in keys:
        own = [r for r in rows if (r["case"], r["system"], r["variant"], r["k"]) == (case, system, variant, k)]

        def mean(key: str, digits: int = 1, own: Sequence[Mapping[str, Any]] = own) -> str:
            return f"{np.mean([r[key] for r in own]):.{digits}f}"

        name = NAMES.get(system, system) + (f", {variant}" if variant else "")
        errors = [mean("mean_pa_mpjpe"), mean("oracle"), mean("above_oracle")]
        hits = [mean("pose_hit", 2), mean("pose_hit_oracle", 2)]
        table.append([name, CASES[case], str(k), *errors, *hits, str(len(own))])
    return table


def _curves(rows: Sequence[Mapping[str, Any]], case: str) -> list[Line]:
    """Mean-PA-MPJPE@K of every system, and the oracle."""
    kinds = list(dict.fromkeys((r["system"], r["variant"]) for r in rows if r["case"] == case))
    lines = []
    for place, (system, variant) in enumerate(kinds):
        own = [r for r in rows if (r["case"], r["system"], r["variant"]) == (case, system, variant)]
        ks = sorted({r["k"] for r in own})
        y = [float(np.mean([r["mean_pa_mpjpe"] for r in own if r["k"] == k])) for k in ks]
        lines.append(Line(variant or NAMES.get(system, system), ks, y, PALETTE[place], mark=MARKS[place % len(MARKS)]))
    oracle = [r for r in rows if r["case"] == case and (r["system"], r["variant"]) == kinds[0]]
    ks = sorted({r["k"] for r in oracle})
    best = [float(np.mean([r["oracle"] for r in oracle if r["k"] == k])) for k in ks]
    return [*lines, Line("Oracle", ks, best, GREY, dashed=True)]


def _retrieval_figures(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    figures = {}
    for case in CASES:
        if any(row["case"] == case for row in rows):
            ks = sorted({row["k"] for row in rows if row["case"] == case})
            title = f"Mean-PA-MPJPE@K, mm, {CASES[case]}"
            lines = _curves(rows, case)
            figures[f"{name}_{case}"] = line_figure(lines, x_label="K neighbours", y_label=title, x_ticks=ks)
    return figures


RETRIEVAL_NOTE = (
    "The gallery never holds the query's own view; “other subjects” leaves out the query's subject, too. Hit@K: a "
    "neighbour with a normalised Procrustes error of 0.1 at most among the K (Pr-VIPE's measure)."
)


def fig5(study: Study) -> Part:
    """Retrieval on the capture itself."""
    rows = [row for cell in fig5_cells(study) for row in retrieval_rows(study.result(cell), "", cell.name)]
    notes = [RETRIEVAL_NOTE, f"The paper: {FIG5}."]
    figures = _retrieval_figures("fig5", rows)
    return Part("fig5", "Figure 5: retrieval", rows, _retrieval_table(rows), (), notes, figures)


def fig6(study: Study) -> Part:
    """Distance in the embedding against distance of poses."""
    figures, rows, notes = {}, [], []
    for cell in embedding_cells(study):
        gallery = gallery_of(_predictions(study, cell))
        gallery = gallery.take((~gallery.pose.isnan().any(-1).any(-1)).nonzero()[:, 0])
        random = np.random.default_rng(study.seeds[0])
        gallery = gallery.take(whole_instants(gallery.instant, IMAGES, random))
        curves = distance_curves(gallery, drawn_queries(gallery, QUERIES, study.seeds[0]))
        lines = [  # nearly the same where an embedding does not see the view, so the second one is dashed
            Line(c.name, c.pose_mm, c.mean, PALETTE[i], c.deviation, dashed=i > 0, mark=MARKS[i])
            for i, c in enumerate(curves)
        ]
        name = "fig6" if cell.system == "mcss" else f"fig6_{cell.system}"
        title = f"{NAMES[cell.system]}: distance in the embedding"
        figures[name] = line_figure(lines, x_label="PA-MPJPE of the two poses, mm", y_label=title)
        rows += [{"system": cell.system, "labels": study.labels, "cell": cell.name, **asdict(c)} for c in curves]
        told = ", ".join(f"{c.name} {c.rho:.2f}" for c in curves)
        notes.append(f"{NAMES[cell.system]}: Spearman's ρ of the two distances: {told}.")
    notes.append(
        f"{QUERIES} random queries of each test subject against {IMAGES:,} images at most; means in bins of "
        f"{BIN_MM:g} mm, the bands are standard deviations."
    )
    table = [["system", "pairs", "Spearman's ρ", "number of pairs"]]
    table += [[NAMES[r["system"]], r["name"], f"{r['rho']:.3f}", f"{r['pairs']:,}"] for r in rows]
    return Part("fig6", "Figure 6: what distances say", rows, table, (), notes, figures)


def tsne(study: Study) -> Part:
    """The embedding in the plane.

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
        predictions = _predictions(study, cell)
        gallery, instants = gallery_of(predictions), predictions.instants
        random = np.random.default_rng(study.seeds[0])
        kept = np.sort(random.permutation(len(gallery))[:TSNE_POINTS])
        vectors = gallery.embedding[torch.from_numpy(kept)].double().numpy()
        perplexity = min(30.0, max(2.0, (len(kept) - 1) / 4))
        points = TSNE(random_state=0, init="pca", perplexity=perplexity).fit_transform(vectors)
        instant = predictions.instant[kept]
        kinds = {
            "action": [instants.actions[i] for i in instants.action[instant]],
            "view": [f"view {instants.views[v]}" for v in predictions.view[kept]],
            "subject": [instants.subjects[i] for i in instants.subject[instant]],
        }
        clouds = [Cloud(f"{NAMES[cell.system]}, by {by}", names) for by, names in kinds.items()]
        name = "tsne" if cell.system == "mcss" else f"tsne_{cell.system}"
        figures[name] = cloud_figure(points.astype(np.float64), clouds)
        rows.append({"system": cell.system, "labels": study.labels, "points": len(kept), "cell": cell.name})
    notes = [
        f"{rows[0]['points']} random test images. What MCSS wants to see: poses of one action together, views and "
        "subjects mixed. A t-SNE shows neighbourhoods, not distances."
    ]
    return Part("tsne", "t-SNE of the embedding", rows, (), (), notes, figures)


def other_cells(study: Study) -> list[Cell]:
    """MCSS as it comes from this capture, and fine-tuned on the other by L_cnstr alone."""
    assert study.other is not None
    before = study.budget.cell("mcss", study.capture, study.labels, study.seeds[0])
    after = study.budget.cell("mcss", study.other, "none", study.seeds[0])
    steps = max(1, after.settings.optimiser.steps // 4)
    settings = replace(after.settings, optimiser=replace(after.settings.optimiser, steps=steps))
    tuned = started_from(replace(after, settings=settings), before, study.cells, whole=True)
    return [before, tuned]


def table4(study: Study) -> Part:
    """Retrieval on the other capture after fine-tuning."""
    rows = _on_the_other(study, other_cells(study)[1:], ["fine-tuned without labels"])
    notes = [RETRIEVAL_NOTE, _about_other(study)]
    for case, values in TABLE4.items():
        told = ", ".join(f"{v:.2f} (K = {k})" for k, v in values.items())
        notes.append(f"The paper, on MPI-INF-3DHP, {CASES[case]}: {told}.")
    figures = _retrieval_figures("table4", rows)
    return Part("table4", "Table 4: retrieval on another capture", rows, _retrieval_table(rows), (), notes, figures)


def generalisation(study: Study) -> Part:
    """Retrieval on the other capture before and after fine-tuning."""
    rows = _on_the_other(study, other_cells(study), ["as it came", "fine-tuned without labels"])
    notes = [RETRIEVAL_NOTE, _about_other(study), f"The paper: {GENERALISATION}."]
    figures = _retrieval_figures("generalisation", rows)
    return Part(
        "generalisation", "Section 6.3: to another capture", rows, _retrieval_table(rows), (), notes, figures,
    )  # fmt: skip


def _on_the_other(study: Study, cells: Sequence[Cell], variants: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for cell, variant in zip(cells, variants, strict=True):
        rows += retrieval_rows(study.result(cell, study.other), variant, cell.name)
    return rows


def _about_other(study: Study) -> str:
    other: Capture | None = study.other
    assert other is not None
    before, tuned = other_cells(study)
    return (
        f"Trained on {study.capture.uri} (`{study.capture.fingerprint[:12]}`), {before.settings.optimiser.steps} "
        f"steps; tested on {other.uri} (`{other.fingerprint[:12]}`); fine-tuned by L_cnstr alone, without labels, for "
        f"{tuned.settings.optimiser.steps} steps on the training split of the latter."
    )
