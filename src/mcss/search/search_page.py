"""What a search found, with images: an HTML page, or a sheet of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from mcss.data.capture import Capture
from mcss.data.contact_sheet import captioned
from mcss.data.provenance import Provenance
from mcss.errors import CaptureError
from mcss.images import encode_jpeg
from mcss.search.entries import Hit
from mcss.search.search import Answer
from mcss.viz.html import page_environment

SIZE = 160
"""Side of an image in pixels."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One image; None where the capture is out of reach."""

    caption: str
    pixels: UInt8[np.ndarray, "side side 3"] | None

    @property
    def jpeg(self) -> bytes | None:
        """For a page."""
        return None if self.pixels is None else encode_jpeg(self.pixels)


@dataclass(frozen=True, eq=False)
class Row:
    """A hit, what its other views saw at that moment; or a movement from its beginning to its end."""

    title: str
    distance: float | None
    images: tuple[Seen, ...]


def rows_of(answer: Answer, captures: Mapping[str, Capture]) -> list[Row]:
    """The query, if it is an indexed image, and everything that was found.

    Args:
        answer: Of a search.
        captures: By fingerprint; those that are missing are out of reach.
    """
    rows = [] if answer.query is None else [Row(f"asked: {answer.query.name}", None, _views(answer.query, captures))]
    rows += [Row(f"{n}. {hit.name}", hit.distance, _views(hit, captures)) for n, hit in enumerate(answer.hits, 1)]
    for number, movement in enumerate(answer.movements, 1):
        first, last = movement.first, movement.last
        title = f"{number}. {movement.track}, {first.time:.2f} to {last.time:.2f} s"
        rows.append(Row(title, movement.distance, _stretch(first, last, captures)))
    return rows


def search_page(answer: Answer, captures: Mapping[str, Capture], made: Provenance) -> str:
    """An HTML page that holds its images."""
    rows = rows_of(answer, captures)
    return page_environment().get_template("search.html").render(answer=answer, rows=rows, made=made)


def search_sheet(answer: Answer, captures: Mapping[str, Capture]) -> UInt8[np.ndarray, "height width 3"]:
    """A sheet of RGB pixels: a row for each hit, which comes first, its other views beside it."""
    rows = rows_of(answer, captures)
    across = max(len(row.images) for row in rows)
    blocks = []
    for row in rows:
        cells = [_cell(seen) for seen in row.images]
        cells += [np.full_like(cells[0], 246)] * (across - len(cells))
        distance = "" if row.distance is None else f"   {answer.by} {row.distance:.3g}"
        blocks.append(captioned(np.concatenate(cells, axis=1), row.title + distance))
    return np.concatenate(blocks, axis=0)


def _cell(seen: Seen) -> UInt8[np.ndarray, "height width 3"]:
    pixels = np.full((SIZE, SIZE, 3), 225, np.uint8) if seen.pixels is None else seen.pixels
    return captioned(pixels, seen.caption)


def _views(hit: Hit, captures: Mapping[str, Capture]) -> tuple[Seen, ...]:
    """The image that was found, and what the other views show of its moment."""
    capture = captures.get(hit.capture)
    if capture is None:
        return (Seen(f"view {hit.view}", None),)
    instants = capture.instants()
    instant, view = instants.place(hit.subject, hit.sequence, hit.frame, hit.view)
    others = [v for v in range(len(instants.views)) if v != view and instants.rows[instant, v] >= 0]
    shown = [view, *others]
    pixels = _decoded(capture, instants.rows[instant, shown].tolist())
    return tuple(Seen(f"view {instants.views[v]}", image) for v, image in zip(shown, pixels, strict=True))


def _stretch(first: Hit, last: Hit, captures: Mapping[str, Capture]) -> tuple[Seen, ...]:
    """Six images of a stretch of one view."""
    capture = captures.get(first.capture)
    if capture is None:
        return (Seen(f"from {first.time:.2f} s", None),)
    instants = capture.instants()
    instant, view = instants.place(first.subject, first.sequence, first.frame, first.view)
    own = (instants.subject == instants.subject[instant]) & (instants.sequence == instants.sequence[instant])
    own &= (instants.frame >= first.frame) & (instants.frame <= last.frame) & (instants.rows[:, view] >= 0)
    places = np.flatnonzero(own)
    places = places[np.unique(np.linspace(0, len(places) - 1, 6).round().astype(int))]
    pixels = _decoded(capture, instants.rows[places, view].tolist())
    return tuple(Seen(f"{instants.time[p]:.2f} s", image) for p, image in zip(places, pixels, strict=True))


def _decoded(capture: Capture, rows: Sequence[int]) -> list[UInt8[np.ndarray, "side side 3"] | None]:
    """Images; None for those that are broken."""
    found: list[UInt8[np.ndarray, "side side 3"] | None] = []
    for row in rows:
        try:
            found.append(capture.decode(np.array([row]), SIZE)[0])
        except CaptureError:
            found.append(None)
    return found
