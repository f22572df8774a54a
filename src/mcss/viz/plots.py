"""Plots: curves, clouds of points and images by matplotlib, in one style, for pages and as files.

Everything is drawn in `INK`, which becomes the text colour where a plot stands in a page. Nothing here touches
matplotlib's global state.
"""

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mcss.files import replacing, write_text
from mcss.viz.figures import GREY, INK, PALETTE

MARKS = ("o", "s", "^", "D", "v", "P")
"""Shapes beside the colours of `PALETTE`, for more kinds than these are, and for those who see no colours."""

RIGHT, WRONG = PALETTE[2], PALETTE[1]
"""Frames of images that were rightly found, and of others."""


@dataclass(frozen=True)
class Line:
    """One curve of a plot."""

    label: str
    x: Sequence[float | int]
    y: Sequence[float | int]
    colour: str = PALETTE[0]
    spread: Sequence[float | int] | None = None
    """Half the height of the band around the curve, or of the bars where there are few points; such as the standard
    deviation over seeds."""
    dashed: bool = False
    mark: str = "o"
    """Of the points where there are few."""


def line_plot(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float | int] | None = None,
    size: tuple[float, float] = (5.2, 3.2),
) -> str:
    """`line_figure` as an SVG element whose ink is the page's text colour."""
    return page_svg(line_figure(lines, x_label=x_label, y_label=y_label, x_ticks=x_ticks, size=size))


def line_figure(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float | int] | None = None,
    tick_labels: Sequence[str] | None = None,
    size: tuple[float, float] = (5.2, 3.2),
) -> Figure:
    """Curves with their names at their ends.

    Args:
        lines: Curves; points that are not finite leave gaps.
        x_label: What is along x, with its unit.
        y_label: What is along y, with its unit; written above the plot.
        x_ticks: Places to mark; chosen by matplotlib otherwise.
        tick_labels: What to write there; the places' own numbers otherwise.
        size: Width and height in inches.
    """
    with _style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            x, y = np.asarray(line.x, float), np.asarray(line.y, float)
            few = line.mark if len(x) <= 8 else ""
            if line.spread is not None:
                band = np.asarray(line.spread, float)
                if few:
                    axes.errorbar(x, y, band, color=line.colour, linestyle="none", capsize=3, linewidth=1.2)
                else:
                    axes.fill_between(x, y - band, y + band, color=line.colour, alpha=0.18, linewidth=0)
            style_of = (0, (3, 2.2)) if line.dashed else "solid"
            axes.plot(x, y, color=line.colour, linestyle=style_of, marker=few, markersize=4, linewidth=1.8)
        _name_lines(axes, lines)
        if x_ticks is not None:
            axes.set_xticks(list(x_ticks), tick_labels or [f"{tick:g}" for tick in x_ticks])
        _dress(axes, x_label, y_label)
        axes.spines["bottom"].set(visible=True, color=INK, alpha=0.35)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
        _see_through(figure)
    return figure


@dataclass(frozen=True, eq=False)
class Cloud:
    """Points of a plane, each of a kind."""

    title: str
    kinds: Sequence[str]
    """Of each point; those beyond what colours and shapes can tell apart are drawn grey."""


def cloud_figure(points: Float[np.ndarray, "n 2"], clouds: Sequence[Cloud]) -> Figure:
    """The same points once for each of `clouds`, coloured and shaped by its kinds."""
    with _style():
        figure = Figure(figsize=(4.1 * len(clouds), 4.6), layout="constrained")
        for axes, cloud in zip(np.atleast_1d(figure.subplots(1, len(clouds))), clouds, strict=True):
            names, counts = np.unique(np.asarray(cloud.kinds), return_counts=True)
            shown = sorted(names[np.argsort(-counts, kind="stable")][: len(PALETTE) * 2].tolist())
            handles = []
            for place, name in enumerate(shown):
                own = np.asarray(cloud.kinds) == name
                colour, mark = PALETTE[place % len(PALETTE)], MARKS[(place // len(PALETTE)) * 2 + place % 2]
                axes.plot(*points[own].T, mark, color=colour, markersize=2.6, alpha=0.75, markeredgewidth=0)
                handles.append(Line2D([], [], color=colour, marker=mark, linestyle="", markersize=5, label=name))
            rest = ~np.isin(np.asarray(cloud.kinds), shown)
            if rest.any():
                axes.plot(*points[rest].T, ".", color=GREY, markersize=2, alpha=0.5, zorder=0)
                handles.append(Line2D([], [], color=GREY, marker=".", linestyle="", label="others"))
            _dress(axes, "", cloud.title)
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.legend(
                handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False,
                labelcolor=INK, fontsize=8, handletextpad=0.1, columnspacing=0.8,
            )  # fmt: skip
        _see_through(figure)
    return figure


@dataclass(frozen=True, eq=False)
class Shown:
    """An image of a sheet."""

    image: UInt8[np.ndarray, "height width 3"]
    caption: str
    right: bool | None = None
    """Framed as rightly or wrongly found; None for no frame."""


def image_figure(rows: Sequence[Sequence[Shown]], heads: Sequence[str]) -> Figure:
    """Rows of images under common headings. A wrong one's frame is dashed, too, for those who see no colours."""
    with _style():
        figure = Figure(figsize=(1.35 * len(heads), 1.62 * len(rows) + 0.3), layout="constrained")
        grid = figure.subplots(len(rows), len(heads), squeeze=False)
        for place, row in enumerate(rows):
            for column, axes in enumerate(grid[place]):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if column >= len(row):
                    continue
                shown = row[column]
                axes.imshow(shown.image, interpolation="antialiased")
                axes.set_xlabel(shown.caption, fontsize=7.5, color=INK, labelpad=2)
                if shown.right is not None:
                    style_of = "solid" if shown.right else (0, (2, 1.5))
                    colour = RIGHT if shown.right else WRONG
                    axes.spines[:].set(visible=True, color=colour, linewidth=2.4, linestyle=style_of)
                if place == 0:
                    axes.set_title(heads[column], fontsize=8.5, color=INK)
        _see_through(figure)
    return figure


def page_svg(figure: Figure) -> str:
    """A figure as an SVG element whose ink is the page's text colour."""
    svg = _svg(figure)
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def write_figure(stem: Path, figure: Figure) -> tuple[Path, Path]:
    """Write a figure as ``stem.svg`` and, on white and fine enough for print, ``stem.png``."""
    svg, png = stem.with_suffix(".svg"), stem.with_suffix(".png")
    write_text(svg, _svg(figure))
    with _style(), replacing(png) as temporary:
        FigureCanvasAgg(figure)
        figure.savefig(temporary, format="png", dpi=200, facecolor="white", metadata={"Software": None})
    return svg, png


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with _style():
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _style() -> AbstractContextManager[None]:
    return rc_context({"svg.fonttype": "none", "svg.hashsalt": "mcss", "font.size": 10.0, "text.parse_math": False})


def _dress(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, color=INK, alpha=0.75)
    axes.set_title(y_label, loc="left", fontsize=10, color=INK, alpha=0.75, pad=10)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.set_axisbelow(True)


def _see_through(figure: Figure) -> None:
    for part in (figure.patch, *(axes.patch for axes in figure.axes)):
        part.set_alpha(0)


def averaged(label: str, runs: Sequence[tuple[Sequence[float | int], Sequence[float | int]]], colour: str) -> Line:
    """The mean of several runs' (x, y) and their standard deviation, at the first run's x where all runs reach."""
    kept = [
        (np.asarray(x, float)[finite], np.asarray(y, float)[finite])
        for x, y in runs
        if (finite := np.isfinite(np.asarray(x, float)) & np.isfinite(np.asarray(y, float))).any()
    ]
    if not kept:
        return Line(label, (), (), colour)
    end = min(x[-1] for x, _ in kept)
    grid = kept[0][0][kept[0][0] <= end]
    values = np.stack([np.interp(grid, x, y) for x, y in kept])
    spread = values.std(axis=0, ddof=1).tolist() if len(kept) > 1 else None
    return Line(label, grid.tolist(), values.mean(axis=0).tolist(), colour, spread)


def _name_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each curve's name at its end, moved apart where they would overlap."""
    ends = [(line, _last(line)) for line in lines]
    low, high = axes.get_ylim()
    gap = (high - low) * 0.075
    placed: float | None = None
    for line, end in sorted(((ln, e) for ln, e in ends if e is not None), key=lambda pair: pair[1][1]):
        y = end[1] if placed is None else max(end[1], placed + gap)
        placed = y
        axes.annotate(
            _short(line.label), end, xytext=(8, (y - end[1]) / (high - low) * 190), textcoords="offset points",
            color=line.colour, va="center", fontsize=9.5, annotation_clip=False,
        )  # fmt: skip


def _last(line: Line) -> tuple[float, float] | None:
    finite = [
        (float(x), float(y)) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)
    ]
    return finite[-1] if finite else None


def _short(label: str) -> str:
    """At most 28 characters, so that the name of a curve never takes the place of the curve."""
    return label if len(label) <= 28 else label[:27] + "…"
