"""Verbs that find people by pose, and compare how they move."""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.terminal import JsonFile, app, console, finish, load_model, show_table
from mcss.data.capture import Capture
from mcss.data.provenance import provenance_without_capture
from mcss.errors import CaptureError, PoseIndexError
from mcss.files import write_text
from mcss.images import WRITTEN_SUFFIXES, write_image
from mcss.inference.locate import parsed_rectangle
from mcss.models.model import Model, load
from mcss.progress import RichProgress
from mcss.search.clips import Clip, clip_of_sequence, clip_of_video
from mcss.search.compare import CompareSettings
from mcss.search.compare import compare as compare_clips
from mcss.search.comparison_page import comparison_page
from mcss.search.index import PoseIndex
from mcss.search.indexing import index_capture, indexed_capture
from mcss.search.query import SequenceSource, VideoQuery, parsed_clip, parsed_query
from mcss.search.search import Answer, SearchSettings, answer
from mcss.search.search_page import search_page, search_sheet

INDEX = "index"
"""Where an index is if nothing else is said."""


@app.command
def index(
    capture: Positional[str],
    out: Annotated[str, arg(aliases=["-o"], metavar="INDEX")] = INDEX,
    run: Path | None = None,
    json: JsonFile = None,
) -> None:
    """Put the embeddings of all images of a capture into an index for `mcss search`; goes on after any stop.

    Args:
        capture: A capture's folder or object-store address.
        out: The index: a folder or an object-store address. Several captures can go into one.
        run: A run folder or model file; the weights shipped with mcss by default.
        json: Also write a summary to this file.
    """
    done = index_capture(Capture.open(capture), load_model(run), out, RichProgress())
    total = PoseIndex.open(out).count()
    if done.removed:
        console.print(
            f"[yellow]Note[/] the capture at {escape(capture)} is no longer what was indexed: {done.removed:,} "
            "images of before were taken out.",
            soft_wrap=True,
        )
    console.print(
        f"{done.added:,} images added, {done.kept:,} were there: {out} has {total:,}. "
        + (f"Searched in {done.partitions:,} partitions." if done.partitions else "Searched in full.")
    )
    finish({**asdict(done), "index": out, "count": total}, json)


@app.command
def search(
    query: Positional[str],
    index: str = INDEX,
    settings: OmitArgPrefixes[SearchSettings] = SearchSettings(),  # noqa: B008 (frozen)
    run: Path | None = None,
    box: str | None = None,
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="PAGE")] = None,
    json: JsonFile = None,
) -> None:
    """Find images of the same pose, in all views and of all people, or stretches that show the same movement.

    Args:
        query: An image file; row:NUMBER or SUBJECT/SEQUENCE/FRAME/VIEW of the index; a movement as VIDEO@T0:T1 or
            SUBJECT/SEQUENCE/VIEW@T0:T1, in seconds; a 3D pose as FILE@FRAME (csv, trc, bvh, c3d, npz).
        index: An index of `mcss index`: a folder or an object-store address.
        settings: What may be found, and how it is searched.
        run: For images and videos: the model that the index was made with, if it is not where it was then.
        box: x,y,width,height of the person in an image, in pixels; it is taken whole by default.
        out: Also write what was found with its images and other views: .html, .jpg or .png.
        json: Also write what was found to this file.
    """
    if out is not None and out.suffix.lower() not in (".html", *WRITTEN_SUFFIXES):
        raise ValueError(f"out: {out} should end in .html, .jpg or .png; choose one of them.")
    asked = parsed_query(query)
    opened = PoseIndex.open(index)
    rectangle = None if box is None else parsed_rectangle(box)
    found = answer(opened, asked, settings, _model_of(opened, run), rectangle, RichProgress())
    _show(found)
    if out is not None:
        captures = _captures(opened)
        if out.suffix.lower() == ".html":
            made = provenance_without_capture(f"mcss search {query!r} --index {index}", index)
            write_text(out, search_page(found, captures, made))
        else:
            write_image(out, search_sheet(found, captures))
        console.print(f"Written to [bold]{out}[/]")
    finish(asdict(found), json)


def _model_of(index: PoseIndex, run: Path | None) -> Callable[[], Model]:
    """Loads the model of an index when it is asked for."""
    return cache(lambda: load(run or index.origin.run))


def _captures(index: PoseIndex) -> dict[str, Capture]:
    """The captures that can be opened and are still what was indexed."""
    found = {}
    for fingerprint, place in index.captures().items():
        try:
            found[fingerprint] = indexed_capture(fingerprint, place, index.uri)
        except (CaptureError, PoseIndexError) as error:
            console.print(f"[yellow]Note[/] its images are not shown: {escape(str(error))}", soft_wrap=True)
    return found


def _show(found: Answer) -> None:
    if found.movements:
        rows = [
            (str(n), m.track, f"{m.first.time:.2f}–{m.last.time:.2f}", f"{m.distance:.3f}")
            for n, m in enumerate(found.movements, 1)
        ]
        show_table(f"Found for {found.asked}", ("", "subject/sequence/view", "s", "mean distance"), rows)
        return
    if not found.hits:
        console.print("Nothing: the filter lets no image through.")
        return
    hits = [
        (str(n), h.subject, h.sequence, str(h.frame), f"{h.time:.2f}", h.view, str(h.row), f"{h.distance:.3f}")
        for n, h in enumerate(found.hits, 1)
    ]
    columns = ("", "subject", "sequence", "frame", "s", "view", "row", found.by)
    show_table(f"Found for {found.asked}", columns, hits)
    if found.recall is None:
        console.print("Searched exactly.")
    else:
        console.print(
            f"Recall of this approximate search against the exact one: {found.recall:.2f} (--exact compares with all)."
        )


@app.command
def compare(
    a: Positional[str],
    b: Positional[str],
    out: Annotated[Path, arg(aliases=["-o"], metavar="PAGE")] = Path("compare.html"),
    settings: OmitArgPrefixes[CompareSettings] = CompareSettings(),  # noqa: B008 (frozen)
    run: Path | None = None,
    json: JsonFile = None,
) -> None:
    """Put two videos of one movement in step by pose, and show where they differ: angles, joints, pairs of images.

    Args:
        a: VIDEO or CAPTURE:SUBJECT/SEQUENCE/VIEW, with @T0:T1 for a part of it, in seconds.
        b: The other one.
        out: The HTML page.
        settings: How they are put in step.
        run: A run folder or model file; the weights shipped with mcss by default.
        json: Also write times, angles and distances to this file.
    """
    sources = (parsed_clip(a), parsed_clip(b))
    model = load_model(run)
    found = compare_clips(_clip(sources[0], model), _clip(sources[1], model), settings)
    rows = [
        (
            d.name,
            f"{d.mean_a:.0f}",
            f"{d.mean_b:.0f}",
            f"{d.mean:.0f}",
            f"{d.largest:+.0f}",
            f"{found.time_a[d.at]:.2f}",
        )
        for d in found.differences()
    ]
    show_table(
        f"{found.a.name} (A) and {found.b.name} (B)",
        ("angle, degrees", "mean in A", "mean in B", "mean difference", "largest, B less A", "at, s in A"),
        rows,
    )
    console.print(f"Joints lie {found.joints[:, 1:].mean():.0f} mm apart on average, size and heading aside.")
    made = provenance_without_capture(f"mcss compare {a!r} {b!r} -o {out}", model.name)
    write_text(out, comparison_page(found, made))
    console.print(f"Page: [bold]{out}[/]")
    finish(
        {
            "a": found.a.name,
            "b": found.b.name,
            "differences": [asdict(d) for d in found.differences()],
            "time_a": found.time_a.tolist(),
            "time_b": found.time_b.tolist(),
            "angles_a": {name: values.tolist() for name, values in found.angles_a.items()},
            "angles_b": {name: values.tolist() for name, values in found.angles_b.items()},
            "joints_mm": found.joints.tolist(),
        },
        json,
    )


def _clip(source: VideoQuery | SequenceSource, model: Model) -> Clip:
    match source:
        case VideoQuery(path, span):
            return clip_of_video(path, model, span, RichProgress())
        case SequenceSource(capture, name, span):
            return clip_of_sequence(Capture.open(capture), name, model, span)
