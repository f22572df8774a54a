"""The page of a comparison: where two clips of one movement differ, as curves, a table and pairs of images."""

import numpy as np
from markupsafe import Markup

from mcss.data.provenance import Provenance
from mcss.images import encode_jpeg
from mcss.search.compare import Comparison, moments
from mcss.viz.figures import PALETTE
from mcss.viz.html import page_environment
from mcss.viz.plots import Line, line_plot

SIZE = 224
"""Side of an image in pixels."""


def comparison_page(comparison: Comparison, made: Provenance) -> str:
    """An HTML page that holds its images."""
    spread, worst = moments(comparison)
    return (
        page_environment()
        .get_template("compare.html")
        .render(
            names=(comparison.a.name, comparison.b.name),
            differences=comparison.differences(),
            joint=float(comparison.joints[:, 1:].mean()),
            time_a=comparison.time_a,
            time_b=comparison.time_b,
            groups=(
                ("Where joints differ most", _pairs(comparison, worst)),
                ("From beginning to end", _pairs(comparison, spread)),
            ),
            plots=_plots(comparison),
            angles=_angles(comparison),
            made=made,
        )
    )


def _pairs(comparison: Comparison, places: list[int]) -> list[dict[str, object]]:
    """For each moment its two images, times and poses."""
    at = np.array(places, np.int64)
    images_a, images_b = comparison.a.images(at, SIZE), comparison.b.images(at, SIZE)
    joints = comparison.joints[:, 1:].mean(axis=1)
    return [
        {
            "a": encode_jpeg(images_a[i]),
            "b": encode_jpeg(images_b[i]),
            "time_a": float(comparison.time_a[place]),
            "time_b": float(comparison.time_b[place]),
            "pose_a": comparison.pose_a[place],
            "pose_b": comparison.pose_b[place],
            "joints": float(joints[place]),
        }
        for i, place in enumerate(places)
    ]


def _plots(comparison: Comparison) -> list[Markup]:
    time = comparison.time_a.tolist()
    joints = comparison.joints[:, 1:].mean(axis=1).tolist()
    same = Line("", time, comparison.time_b.tolist(), PALETTE[0])
    curves = (
        ([same], "the same moment in B, s"),
        ([Line("", time, joints, PALETTE[1])], "mean distance of a joint, mm, size and heading aside"),
        ([Line("", time, comparison.distance.tolist(), PALETTE[2])], "distance of the embeddings"),
    )
    return [Markup(line_plot(lines, x_label="time in A, s", y_label=label)) for lines, label in curves]


def _angles(comparison: Comparison) -> list[Markup]:
    """A plot for each angle, the largest difference first."""
    a, b = comparison.angles_a, comparison.angles_b
    time = comparison.time_a.tolist()
    return [
        Markup(
            line_plot(
                [Line("A", time, a[d.name].tolist(), PALETTE[0]), Line("B", time, b[d.name].tolist(), PALETTE[1])],
                x_label="time in A, s",
                y_label=f"{d.name}, degrees",
            )
        )
        for d in comparison.differences()
    ]
