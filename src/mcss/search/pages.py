"""Show what a search found, as an HTML page or a sheet of images, and what a comparison found, as an HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from mcss.data.capture import Capture
from mcss.data.contact_sheet import captioned, drawn_pose
from mcss.data.instants import evenly_spread
from mcss.data.provenance import Provenance
from mcss.errors import CaptureError
from mcss.images import cut_out, encode_jpeg, read_image
from mcss.inference.clips import PoseClip
from mcss.inference.locate import BoundingBox, locate_in_image
from mcss.models.model import crop_box_of_whole
from mcss.search.compare import Comparison, shown_moments
from mcss.search.index import PoseIndex
from mcss.search.index_table import Hit
from mcss.search.query import ImageQuery, NamedImageQuery, PoseQuery, Query, RowQuery, SequenceQuery, VideoQuery
from mcss.search.search import SearchResult, pose_in_file, view_sequence
from mcss.video.reading.decoding import decoded_times, images_at, probe
from mcss.viz.html import page_environment
from mcss.viz.plots import Line, line_plot
from mcss.viz.style import PALETTE

SEARCH_SIZE = 160
"""Side in pixels of an image on the page of a search."""

_SHOWN = 6
"""Images of a movement on a page, from its beginning to its end."""

COMPARE_SIZE = 224
"""Side in pixels of an image on the page of a comparison."""


@dataclass(frozen=True, eq=False)
class CaptionedImage:
    """An image and its caption."""

    caption: str
    pixels: UInt8[np.ndarray, "side side 3"] | None
    """None if the capture cannot be read."""

    @property
    def jpeg(self) -> bytes | None:
        """The image as JPEG."""
        return None if self.pixels is None else encode_jpeg(self.pixels)


@dataclass(frozen=True, eq=False)
class ResultRow:
    """A hit with the other views of its instant, or images of a movement from beginning to end."""

    title: str
    distance: float | None
    """None for the query itself."""
    images: tuple[CaptionedImage, ...]


def result_rows(
    result: SearchResult, captures: Mapping[str, Capture], asked: Sequence[CaptionedImage] = ()
) -> list[ResultRow]:
    """Read the images of the query and of everything that was found.

    Args:
        result: What was found.
        captures: The captures that can be read, by fingerprint.
        asked: The images of a query that is no indexed image; see `query_images`.
    """
    rows = []
    if result.query is not None:
        rows.append(ResultRow(f"query: {result.query.name}", None, _views(result.query, captures)))
    elif asked:
        rows.append(ResultRow(f"query: {result.asked}", None, tuple(asked)))
    for number, hit in enumerate(result.hits, 1):
        rows.append(ResultRow(f"{number}. {hit.name}", hit.distance, _views(hit, captures)))
    for number, movement in enumerate(result.movements, 1):
        first, last = movement.first, movement.last
        title = f"{number}. {movement.track}, {first.time:.2f} to {last.time:.2f} s"
        rows.append(ResultRow(title, movement.distance, _stretch(first, last, captures)))
    return rows


def query_images(
    query: Query, index: PoseIndex, captures: Mapping[str, Capture], box: BoundingBox | None = None
) -> tuple[CaptionedImage, ...]:
    """Read the images of a query: the crop of an image, six moments of a movement, or the drawing of a pose.

    An indexed image has none here, since its views are read from its capture.
    """
    match query:
        case ImageQuery(path):
            image = read_image(path)
            crop_box = locate_in_image(image, path.name, box).crop_boxes[0]
            return (CaptionedImage(path.name, cut_out(image, crop_box, SEARCH_SIZE)),)
        case VideoQuery(path, span):
            time = decoded_times(probe(path))
            since, until = span or (-np.inf, np.inf)
            within = np.flatnonzero((time >= since - 1e-6) & (time <= until + 1e-6))
            chosen = within[evenly_spread(len(within), _SHOWN)]
            whole = [
                cut_out(i, crop_box_of_whole(i.shape[1], i.shape[0]), SEARCH_SIZE) for i in images_at(path, chosen)
            ]
            return tuple(CaptionedImage(f"{time[n]:.2f} s", image) for n, image in zip(chosen, whole, strict=True))
        case SequenceQuery():
            indexed = view_sequence(index, query)
            return _stretch(indexed.hit(0), indexed.hit(len(indexed) - 1), captures)
        case PoseQuery(path, frame_number):
            return (CaptionedImage(f"frame {frame_number}", drawn_pose(pose_in_file(path, frame_number), SEARCH_SIZE)),)
        case RowQuery() | NamedImageQuery():
            return ()


def search_page(
    result: SearchResult, captures: Mapping[str, Capture], made: Provenance, asked: Sequence[CaptionedImage] = ()
) -> str:
    """Render an HTML page that contains its images."""
    rows = result_rows(result, captures, asked)
    return page_environment().get_template("search.html").render(answer=result, rows=rows, made=made)


def search_sheet(
    result: SearchResult, captures: Mapping[str, Capture], asked: Sequence[CaptionedImage] = ()
) -> UInt8[np.ndarray, "height width 3"]:
    """Draw a sheet of images in RGB: the query, and a row for each hit, which comes first, beside its other views."""
    rows = result_rows(result, captures, asked)
    columns = max(len(row.images) for row in rows)
    blocks = []
    for row in rows:
        cells = [_cell(image) for image in row.images]
        cells += [np.full_like(cells[0], 246)] * (columns - len(cells))
        distance = "" if row.distance is None else f"   {result.by} {row.distance:.3g}"
        blocks.append(captioned(np.concatenate(cells, axis=1), row.title + distance))
    return np.concatenate(blocks, axis=0)


def _cell(image: CaptionedImage) -> UInt8[np.ndarray, "height width 3"]:
    empty = np.full((SEARCH_SIZE, SEARCH_SIZE, 3), 225, np.uint8)
    return captioned(empty if image.pixels is None else image.pixels, image.caption)


def _views(hit: Hit, captures: Mapping[str, Capture]) -> tuple[CaptionedImage, ...]:
    """The image of a hit, followed by the other views of its instant."""
    capture = captures.get(hit.capture)
    if capture is None:
        return (CaptionedImage(f"view {hit.view}", None),)
    instants = capture.instants()
    instant, view = instants.position(hit.subject, hit.sequence, hit.frame, hit.view)
    others = [v for v in range(len(instants.views)) if v != view and instants.rows[instant, v] >= 0]
    views = [view, *others]
    pixels = _decoded(capture, instants.rows[instant, views].tolist())
    return tuple(CaptionedImage(f"view {instants.views[v]}", image) for v, image in zip(views, pixels, strict=True))


def _stretch(first: Hit, last: Hit, captures: Mapping[str, Capture]) -> tuple[CaptionedImage, ...]:
    """Six images of a stretch of one view."""
    capture = captures.get(first.capture)
    if capture is None:
        return (CaptionedImage(f"from {first.time:.2f} s", None),)
    instants = capture.instants()
    instant, view = instants.position(first.subject, first.sequence, first.frame, first.view)
    within = (instants.subject == instants.subject[instant]) & (instants.sequence == instants.sequence[instant])
    within &= (instants.frame >= first.frame) & (instants.frame <= last.frame) & (instants.rows[:, view] >= 0)
    chosen = np.flatnonzero(within)
    chosen = chosen[evenly_spread(len(chosen), _SHOWN)]
    pixels = _decoded(capture, instants.rows[chosen, view].tolist())
    return tuple(CaptionedImage(f"{instants.time[i]:.2f} s", image) for i, image in zip(chosen, pixels, strict=True))


def _decoded(capture: Capture, rows: Sequence[int]) -> list[UInt8[np.ndarray, "side side 3"] | None]:
    """Decode images; None for those that are damaged."""
    images: list[UInt8[np.ndarray, "side side 3"] | None] = []
    for row in rows:
        try:
            images.append(capture.decode(np.array([row]), SEARCH_SIZE)[0])
        except CaptureError:
            images.append(None)
    return images


def comparison_page(comparison: Comparison, a: PoseClip, b: PoseClip, made: Provenance) -> str:
    """Render an HTML page that contains its images: pairs of moments, a table of angles, and curves.

    Args:
        comparison: What was found.
        a: The first clip, whose crops are shown.
        b: The second clip.
        made: How the page was made.
    """
    spread, worst = shown_moments(comparison)
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
                ("Where joints differ most", _pairs(comparison, a, b, worst)),
                ("From beginning to end", _pairs(comparison, a, b, spread)),
            ),
            plots=_plots(comparison),
            angles=_angles(comparison),
            made=made,
        )
    )


def _pairs(comparison: Comparison, a: PoseClip, b: PoseClip, moments: list[int]) -> list[dict[str, object]]:
    """The images, times and poses of some moments, for the template."""
    chosen = np.array(moments, np.int64)
    crops_a = a.crops_of(comparison.a.frame[chosen], COMPARE_SIZE)
    crops_b = b.crops_of(comparison.b.frame[chosen], COMPARE_SIZE)
    joints = comparison.joints[:, 1:].mean(axis=1)
    return [
        {
            "a": encode_jpeg(crops_a[i]),
            "b": encode_jpeg(crops_b[i]),
            "time_a": float(comparison.time_a[moment]),
            "time_b": float(comparison.time_b[moment]),
            "pose_a": comparison.pose_a[moment],
            "pose_b": comparison.pose_b[moment],
            "joints": float(joints[moment]),
        }
        for i, moment in enumerate(moments)
    ]


def _plots(comparison: Comparison) -> list[Markup]:
    time = comparison.time_a.tolist()
    joints = comparison.joints[:, 1:].mean(axis=1).tolist()
    curves = (
        (comparison.time_b.tolist(), "the same moment in B, s"),
        (joints, "mean distance of a joint, mm, without size and heading"),
        (comparison.distance.tolist(), "distance of the embeddings"),
    )
    return [
        Markup(line_plot([Line("", time, values, PALETTE[number])], x_label="time in A, s", y_label=label))
        for number, (values, label) in enumerate(curves)
    ]


def _angles(comparison: Comparison) -> list[Markup]:
    """A plot for each angle; the largest difference comes first."""
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
