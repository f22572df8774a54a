"""The figures of the paper, drawn from measured rows, predictions and examples."""

import statistics
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from mcss.data.instants import Instants
from mcss.evaluation.embedding import DistanceCurve
from mcss.evaluation.examples import PoseExample, RetrievalExample
from mcss.evaluation.predictions import SplitPrediction
from mcss.experiments.rows import CASES, PoseRow, RetrievalRow
from mcss.experiments.tables import values_of
from mcss.images import decode_jpeg
from mcss.viz.plots import Line, ScatterPanel, SheetImage, image_figure, line_figure, mean_line, scatter_figure
from mcss.viz.skeleton import draw_skeleton, front_view
from mcss.viz.style import GREY, MARKS, PALETTE

_IMAGE_SIDE = 112
"""Side in pixels of the images in a figure."""


def error_by_labels(
    rows: Sequence[PoseRow], systems: Sequence[str], budgets: Sequence[str], mean_pose: PoseRow
) -> Figure:
    """Draw N-MPJPE against the label budget (Fig. 3), with bars of one standard deviation over seeds.

    Args:
        rows: Measured runs.
        systems: The systems to draw a curve for.
        budgets: Label budgets, from little to much.
        mean_pose: The error of the mean pose, drawn dashed.
    """
    ticks = range(len(budgets))
    lines = []
    for number, system in enumerate(systems):
        values = [values_of(rows, "n_mpjpe", system, labels) for labels in budgets]
        means = [statistics.fmean(errors) if errors else float("nan") for errors in values]
        deviations = [statistics.stdev(errors) if len(errors) > 1 else float("nan") for errors in values]
        title = next(row.title for row in rows if row.system == system)
        lines.append(Line(title, ticks, means, PALETTE[number], deviations, mark=MARKS[number]))
    assert mean_pose.n_mpjpe is not None
    lines.append(Line(mean_pose.title, ticks, [mean_pose.n_mpjpe] * len(budgets), GREY, dashed=True))
    return line_figure(
        lines,
        x_label="3D labels",
        y_label="N-MPJPE, mm",
        x_ticks=list(ticks),
        tick_labels=[_in_words(labels) for labels in budgets],
    )


def learning_curves(runs: Mapping[str, Sequence[Sequence[Mapping[str, float | int]]]]) -> Figure:
    """Draw N-MPJPE on the validation subject against images seen, with one standard deviation over seeds around it.

    Args:
        runs: The history of every run, see `mcss.evaluation.report.history_of`, by the name of their curve.
    """
    lines = []
    for number, (name, histories) in enumerate(runs.items()):
        curves = [[point for point in history if _ERROR in point] for history in histories]
        seen = [([p["images"] / 1000 for p in curve], [p[_ERROR] for p in curve]) for curve in curves]
        lines.append(mean_line(name, seen, PALETTE[number % len(PALETTE)]))
    return line_figure(lines, x_label="thousands of images seen", y_label="N-MPJPE on the validation subject, mm")


_ERROR = "validation_n_mpjpe"


def loss_curves(runs: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> Figure:
    """Draw the training loss of several runs.

    Args:
        runs: Steps and the loss at them, by the name of the run.
    """
    lines = [Line(name, *curve, PALETTE[number % len(PALETTE)]) for number, (name, curve) in enumerate(runs.items())]
    return line_figure(lines, x_label="training step", y_label="loss")


def _in_words(labels: str) -> str:
    """``S1:0.05`` as 5 % of S1, in two lines."""
    name, colon, share = labels.partition(":")
    return f"{100 * float(share):g} %\nof {name}" if colon else name.replace(",", " + ")


def retrieval_curves(name: str, rows: Sequence[RetrievalRow]) -> dict[str, Figure]:
    """Draw Mean-PA-MPJPE@K of every system beside the oracle's, a figure for each case.

    Returns:
        Figures by file name, which begins with `name`.
    """
    figures = {}
    for case, words in CASES.items():
        of_case = [row for row in rows if row.case == case]
        if not of_case:
            continue
        labels = list(dict.fromkeys(row.label for row in of_case))
        lines = []
        for number, label in enumerate(labels):
            ks, means = _means_by_k([row for row in of_case if row.label == label], "mean_pa_mpjpe")
            lines.append(Line(label, ks, means, PALETTE[number], mark=MARKS[number % len(MARKS)]))
        ks, means = _means_by_k([row for row in of_case if row.label == labels[0]], "oracle")
        lines.append(Line("Oracle", ks, means, GREY, dashed=True))
        figures[f"{name}_{case}"] = line_figure(
            lines,
            x_label="K neighbours",
            y_label=f"Mean-PA-MPJPE@K, mm, {words}",
            x_ticks=sorted({row.k for row in of_case}),
        )
    return figures


def _means_by_k(rows: Sequence[RetrievalRow], measure: str) -> tuple[list[int], list[float]]:
    """Every K, and the mean of a measure over the rows with it."""
    ks = sorted({row.k for row in rows})
    return ks, [float(np.mean([getattr(row.score, measure) for row in rows if row.k == k])) for k in ks]


def retrieved_images(examples: Sequence[RetrievalExample], system: str, neighbours: int) -> Figure:
    """Draw queries and the nearest images that a system finds."""
    sheet = []
    for example in examples:
        found = example.neighbours[system]
        sheet.append(
            [SheetImage(small_image(example.image), "")]
            + [
                SheetImage(small_image(n.image), "" if n.pa_mpjpe is None else f"{n.pa_mpjpe:.0f} mm", n.correct)
                for n in found
            ]
        )
    return image_figure(sheet, ["query", *(str(k + 1) for k in range(neighbours))])


def small_image(image: bytes) -> UInt8[np.ndarray, "side side 3"]:
    """Return an image at the size that it has in a figure."""
    return np.asarray(cv2.resize(decode_jpeg(image), (_IMAGE_SIDE, _IMAGE_SIDE), interpolation=cv2.INTER_AREA))


def distance_curves_figure(
    title: str, curves: Sequence[DistanceCurve], x_label: str = "PA-MPJPE of the two poses, mm"
) -> Figure:
    """Draw distance in the embedding against difference of poses, with one standard deviation around (Fig. 6)."""
    lines = [  # curves of an embedding that ignores the view nearly coincide, so the second one is dashed
        Line(curve.name, curve.pose_mm, curve.mean, PALETTE[i], curve.deviation, dashed=i > 0, mark=MARKS[i])
        for i, curve in enumerate(curves)
    ]
    return line_figure(lines, x_label=x_label, y_label=f"{title}: distance in the embedding")


def relative_curves(rows: Sequence[RetrievalRow]) -> Figure:
    """Draw Mean-PA-MPJPE@K above the oracle's of every system in both cases, as the paper does (Fig. 5)."""
    lines: list[Line] = []
    for case, prefix in (("all_subjects", ""), ("cross_subject", "Cross: ")):
        for label in dict.fromkeys(row.label for row in rows):
            chosen = [row for row in rows if row.label == label and row.case == case]
            if not chosen:
                continue
            ks, means = _means_by_k(chosen, "above_oracle")
            number = len(lines)
            mark = MARKS[number % len(MARKS)]
            lines.append(Line(prefix + label, ks, means, PALETTE[number], dashed=bool(prefix), mark=mark))
    return line_figure(
        lines,
        x_label="K neighbours",
        y_label="Mean-PA-MPJPE@K above the oracle, mm",
        x_ticks=sorted({row.k for row in rows}),
    )


def pose_sheet(examples: Sequence[PoseExample], systems: Mapping[str, str]) -> Figure:
    """Draw images, the true pose and what systems predict, with the N-MPJPE below each (Fig. 4).

    Args:
        examples: The images.
        systems: Title of each system, by name.
    """
    sheet = []
    for example in examples:
        assert example.true is not None
        line = [SheetImage(small_image(example.image), ""), SheetImage(_drawn(example.true, example.true), "")]
        for name in systems:
            predicted = example.predicted[name]
            caption = "" if predicted.n_mpjpe is None else f"{predicted.n_mpjpe:.0f} mm"
            line.append(SheetImage(_drawn(predicted.pose, example.true), caption))
        sheet.append(line)
    return image_figure(sheet, ["image", "true pose", *systems.values()])


def _drawn(pose: Float[np.ndarray, "17 3"], framed: Float[np.ndarray, "17 3"]) -> UInt8[np.ndarray, "side side 3"]:
    """Draw a canonical pose on white; the drawing is centred on the pose `framed`, and 2 m are its width."""
    image = np.full((2 * _IMAGE_SIDE, 2 * _IMAGE_SIDE, 3), 255, np.uint8)
    centre = (framed.min(axis=0) + framed.max(axis=0)) / 2
    draw_skeleton(image, front_view(pose - centre)[0] / 2000 + 0.5)
    return image


def embedding_scatter(
    title: str, points: Float[np.ndarray, "n 2"], predictions: SplitPrediction, chosen: Sequence[int] | np.ndarray
) -> Figure:
    """Draw a projection of embeddings three times, coloured by action, view and subject.

    Args:
        title: Name of the system.
        points: The projection.
        predictions: What the embeddings were taken from.
        chosen: Which image of `predictions` each point is.
    """
    instants: Instants = predictions.instants
    instant = predictions.instant[chosen]
    kinds: Mapping[str, list[str]] = {
        "action": [instants.actions[i] for i in instants.action[instant]],
        "view": [f"view {instants.views[v]}" for v in predictions.view[chosen]],
        "subject": [instants.subjects[i] for i in instants.subject[instant]],
    }
    return scatter_figure(points, [ScatterPanel(f"{title}, by {by}", names) for by, names in kinds.items()])
