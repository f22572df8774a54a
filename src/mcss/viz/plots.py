"""Plots by matplotlib, in one style, for pages and as files: curves, scattered points, and sheets of images.

Everything is drawn in `INK`, which becomes the text colour of the page that a plot stands in. Nothing here touches
matplotlib's global state.
"""

import io
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, UInt8
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mcss.files import replacing, write_text
from mcss.viz.style import GREY, INK, MARKS, PALETTE

CORRECT, INCORRECT = PALETTE[2], PALETTE[1]
"""Colours of the frames around correct and incorrect search results."""


@dataclass(frozen=True)
class Line:
    """One curve of a plot."""

    label: str
    x: Sequence[float | int]
    y: Sequence[float | int]
    colour: str = PALETTE[0]
    spread: Sequence[float | int] | None = None
    """Half the height of the band around the curve (of the error bars if there are few points), such as the standard
    deviation over seeds."""
    dashed: bool = False
    mark: str = "o"
    """Shape of the points, which are drawn if there are few."""


@dataclass(frozen=True, eq=False)
class ScatterPanel:
    """One panel of a scatter plot: how its points are told apart."""

    title: str
    kinds: Sequence[str]
    """The kind of each point; kinds beyond those that colours and shapes can tell apart are drawn in grey."""


@dataclass(frozen=True, eq=False)
class SheetImage:
    """One image of an image sheet."""

    image: UInt8[np.ndarray, "height width 3"]
    caption: str
    correct: bool | None = None
    """Whether it is framed as correct or as incorrect; None for no frame."""


@dataclass(frozen=True, eq=False)
class AlignedView:
    """One view of a synchronised recording: what it shows at common times, and why it has its offset."""

    label: str
    strip: UInt8[np.ndarray, "height width 3"]
    """Images at common times, side by side."""
    start: float
    """Offset of the view in seconds."""
    offsets: Float64[np.ndarray, " n"]
    """Offsets in seconds that were tried; empty if there was nothing to compare."""
    agreement: Float64[np.ndarray, " n"]
    """How well the other views agree with this one at each offset."""


def line_plot(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float | int] | None = None,
    size: tuple[float, float] = (5.2, 3.2),
) -> str:
    """Draw a `line_figure` as an SVG element for a page."""
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
    """Draw curves with their names at their ends.

    Args:
        lines: Curves; points that are not finite leave gaps.
        x_label: Quantity along x, with its unit.
        y_label: Quantity along y, with its unit; it is written above the plot.
        x_ticks: Positions of ticks along x; chosen by matplotlib if None.
        tick_labels: Labels of these ticks; their own numbers if None.
        size: Width and height in inches.
    """
    with _style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            x, y = np.asarray(line.x, float), np.asarray(line.y, float)
            mark = line.mark if len(x) <= 8 else ""
            if line.spread is not None:
                spread = np.asarray(line.spread, float)
                if mark:
                    axes.errorbar(x, y, spread, color=line.colour, linestyle="none", capsize=3, linewidth=1.2)
                else:
                    axes.fill_between(x, y - spread, y + spread, color=line.colour, alpha=0.18, linewidth=0)
            line_style = (0, (3, 2.2)) if line.dashed else "solid"
            axes.plot(x, y, color=line.colour, linestyle=line_style, marker=mark, markersize=4, linewidth=1.8)
        _write_line_names(axes, lines)
        if x_ticks is not None:
            axes.set_xticks(list(x_ticks), tick_labels or [f"{tick:g}" for tick in x_ticks])
        _label_axes(axes, x_label, y_label)
        axes.spines["bottom"].set(visible=True, color=INK, alpha=0.35)
        axes.grid(axis="y", color=INK, alpha=0.12, linewidth=0.8)
        _make_transparent(figure)
    return figure


def mean_line(label: str, runs: Sequence[tuple[Sequence[float | int], Sequence[float | int]]], colour: str) -> Line:
    """The mean and the standard deviation of several runs' (x, y), at the x of the first run that all runs reach."""
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


def scatter_figure(points: Float[np.ndarray, "n 2"], panels: Sequence[ScatterPanel]) -> Figure:
    """Draw the same points once in each panel, coloured and shaped by the kinds of that panel."""
    with _style():
        figure = Figure(figsize=(4.1 * len(panels), 4.6), layout="constrained")
        for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            kinds = np.asarray(panel.kinds)
            names, counts = np.unique(kinds, return_counts=True)
            shown = sorted(names[np.argsort(-counts, kind="stable")][: len(PALETTE) * 2].tolist())
            handles = []
            for i, name in enumerate(shown):
                colour, mark = PALETTE[i % len(PALETTE)], MARKS[(i // len(PALETTE)) * 2 + i % 2]
                axes.plot(*points[kinds == name].T, mark, color=colour, markersize=2.6, alpha=0.75, markeredgewidth=0)
                handles.append(Line2D([], [], color=colour, marker=mark, linestyle="", markersize=5, label=name))
            others = ~np.isin(kinds, shown)
            if others.any():
                axes.plot(*points[others].T, ".", color=GREY, markersize=2, alpha=0.5, zorder=0)
                handles.append(Line2D([], [], color=GREY, marker=".", linestyle="", label="others"))
            _label_axes(axes, "", panel.title)
            axes.set(xticks=[], yticks=[], aspect="equal")
            axes.legend(
                handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=3, frameon=False,
                labelcolor=INK, fontsize=8, handletextpad=0.1, columnspacing=0.8,
            )  # fmt: skip
        _make_transparent(figure)
    return figure


def image_figure(rows: Sequence[Sequence[SheetImage]], headings: Sequence[str]) -> Figure:
    """Draw rows of images under common headings.

    The frame of an incorrect image is also dashed, for readers who do not see the colours.
    """
    with _style():
        figure = Figure(figsize=(1.35 * len(headings), 1.62 * len(rows) + 0.3), layout="constrained")
        grid = figure.subplots(len(rows), len(headings), squeeze=False)
        for i, row in enumerate(rows):
            for column, axes in enumerate(grid[i]):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if column >= len(row):
                    continue
                axes.imshow(row[column].image, interpolation="antialiased")
                axes.set_xlabel(row[column].caption, fontsize=7.5, color=INK, labelpad=2)
                if row[column].correct is not None:
                    colour, line_style = (CORRECT, "solid") if row[column].correct else (INCORRECT, (0, (2, 1.5)))
                    axes.spines[:].set(visible=True, color=colour, linewidth=2.4, linestyle=line_style)
                if i == 0:
                    axes.set_title(headings[column], fontsize=8.5, color=INK)
        _make_transparent(figure)
    return figure


def alignment_png(path: Path, title: str, views: Sequence[AlignedView]) -> None:
    """Draw a row for each view: images that should show the same instants in every row, and the agreement curve."""
    with rc_context({"font.size": 9.0, "text.parse_math": False}):
        figure = Figure(figsize=(13, 0.6 + 1.7 * len(views)), layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(views), 2, width_ratios=(3, 1), squeeze=False)
        for (left, right), view in zip(grid, views, strict=True):
            left.imshow(view.strip, aspect="equal", interpolation="antialiased")
            left.set_title(view.label, loc="left", fontsize=9)
            left.set_axis_off()
            right.spines[["top", "right", "left"]].set_visible(False)
            right.set_yticks([])
            if len(view.offsets):
                right.plot(view.offsets, view.agreement, color=PALETTE[0], linewidth=1.2)
                right.axvline(view.start, color=PALETTE[1], linewidth=1.2)
            else:
                right.set_visible(False)
        grid[-1][1].set_xlabel("offset, s; height: how well the other views agree")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=90, metadata={"Software": None})


def page_svg(figure: Figure) -> str:
    """Convert a figure to an SVG element whose ink is the text colour of the page."""
    svg = _svg(figure)
    return svg[svg.index("<svg") :].replace(INK, "currentColor")


def write_figure(stem: Path, figure: Figure) -> tuple[Path, Path]:
    """Write a figure as ``stem.svg`` and as ``stem.png``, the latter on white at a resolution for print."""
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


def _label_axes(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label, color=INK, alpha=0.75)
    axes.set_title(y_label, loc="left", fontsize=10, color=INK, alpha=0.75, pad=10)
    axes.spines[:].set_visible(False)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    axes.set_axisbelow(True)


def _make_transparent(figure: Figure) -> None:
    for part in (figure.patch, *(axes.patch for axes in figure.axes)):
        part.set_alpha(0)


def _write_line_names(axes: Axes, lines: Sequence[Line]) -> None:
    """Write the name of each curve at its end; names that would overlap are moved apart."""
    ends = [(line, end) for line in lines if (end := _last_point(line)) is not None]
    low, high = axes.get_ylim()
    gap = (high - low) * 0.075
    previous: float | None = None
    for line, end in sorted(ends, key=lambda pair: pair[1][1]):
        y = end[1] if previous is None else max(end[1], previous + gap)
        previous = y
        axes.annotate(
            _shortened(line.label), end, xytext=(8, (y - end[1]) / (high - low) * 190), textcoords="offset points",
            color=line.colour, va="center", fontsize=9.5, annotation_clip=False,
        )  # fmt: skip


def _last_point(line: Line) -> tuple[float, float] | None:
    finite = [
        (float(x), float(y)) for x, y in zip(line.x, line.y, strict=True) if math.isfinite(x) and math.isfinite(y)
    ]
    return finite[-1] if finite else None


def _shortened(label: str) -> str:
    """At most 28 characters of a label, so that it never takes the space of its curve."""
    return label if len(label) <= 28 else label[:27] + "…"
