"""Verbs that search by pose: index, search, compare."""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.arguments import existing
from mcss.cli.terminal import (
    CaptureAddress,
    IndexAddress,
    JsonFile,
    PredictionWorkers,
    RunPath,
    app,
    command_line,
    console,
    finish,
    load_model,
    show_table,
)
from mcss.data.capture import Capture
from mcss.data.provenance import provenance_without_capture
from mcss.errors import CaptureError, PoseIndexError
from mcss.files import write_text
from mcss.images import IMAGE_SUFFIXES, WRITTEN_SUFFIXES, write_image
from mcss.inference.clips import PoseClip, clip_of_sequence, clip_of_video
from mcss.inference.locate import parsed_box
from mcss.models.model import Model, load
from mcss.progress import RichProgress
from mcss.search.compare import CompareSettings
from mcss.search.compare import compare as compare_clips
from mcss.search.index import PoseIndex
from mcss.search.indexing import index_capture, indexed_capture, missing_images
from mcss.search.pages import comparison_page, query_images, search_page, search_sheet
from mcss.search.query import SequenceSource, VideoQuery, parsed_clip, parsed_query
from mcss.search.search import SearchResult, SearchSettings, answer

INDEX = "index"
"""The folder of an index where none is given."""

QueryText = Annotated[
    str,
    existing(
        str, "{path}: no such image", elsewhere=lambda text: not text.lower().endswith(tuple(sorted(IMAGE_SUFFIXES)))
    ),
]
"""What is searched for; an image is looked up before anything heavy is loaded."""


@app.command
def index(
    capture: Positional[CaptureAddress],
    out: Annotated[str, arg(aliases=["-o"], metavar="INDEX")] = INDEX,
    run: RunPath | None = None,
    workers: OmitArgPrefixes[PredictionWorkers] = PredictionWorkers(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Add the embeddings of all images of a capture to an index for `mcss search`.

    The same command resumes an indexing that was stopped.

    Args:
        capture: Folder or object-store address of a capture.
        out: The index: a folder or an object-store address. One index can hold several captures.
        run: Run folder or model file, by default the weights shipped with mcss.
        workers: Which processes predict.
        json: Also write a summary to this file.
    """
    done = index_capture(Capture.open(capture), load_model(run), out, RichProgress(), workers.chosen)
    total = PoseIndex.open(out).count()
    if done.removed:
        console.print(
            f"[yellow]Note[/] The capture at {escape(capture)} has changed since it was indexed: {done.removed:,} "
            "images of its former state were removed.",
            soft_wrap=True,
        )
    console.print(
        f"{done.added:,} images added, {done.kept:,} present before: {out} now holds {total:,}. "
        + (f"It is searched in {done.partitions:,} partitions." if done.partitions else "It is searched exhaustively.")
    )
    finish({**asdict(done), "index": out, "count": total}, json)


@app.command
def search(
    query: Positional[QueryText],
    index: IndexAddress = INDEX,
    settings: OmitArgPrefixes[SearchSettings] = SearchSettings(),  # noqa: B008 (frozen)
    run: RunPath | None = None,
    box: str | None = None,
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="PAGE")] = None,
    json: JsonFile = None,
) -> None:
    """Find images of the same pose in all views and of all people, or passages of the same movement.

    Args:
        query: An image file; row:NUMBER or SUBJECT/SEQUENCE/FRAME/VIEW of the index; a movement as VIDEO@T0:T1 or
            SUBJECT/SEQUENCE/VIEW@T0:T1, in seconds; or a 3D pose as FILE@FRAME (csv, trc, bvh, c3d, npz).
        index: Folder or object-store address of an index that `mcss index` made.
        settings: How to search, and what may be found.
        run: Model that the index was made with, for images and videos, if it is no longer where it was then.
        box: Bounding box of the person in the image as X,Y,WIDTH,HEIGHT in pixels, instead of finding them.
        out: Also write the results with their images and other views to this file: .html, .jpg or .png.
        json: Also write the results to this file.
    """
    if out is not None and out.suffix.lower() not in (".html", *WRITTEN_SUFFIXES):
        raise ValueError(f"out: expected a file that ends in .html, .jpg or .png, got {out}.")
    asked = parsed_query(query)
    opened = PoseIndex.open(index)
    person_box = None if box is None else parsed_box(box)
    found = answer(opened, asked, settings, _model_of(opened, run), person_box, RichProgress())
    _show(found)
    captures, problems = _captures(opened)
    for capture in captures.values():
        if missing := missing_images(opened, capture):
            console.print(
                f"[yellow]Note[/] {missing:,} of the {len(capture):,} images of {escape(capture.uri)} are not in this "
                f"index yet: [bold]{escape(opened.command(capture.uri))}[/] adds them.",
                soft_wrap=True,
            )
    if out is not None:
        for problem in problems:
            console.print(f"[yellow]Note[/] Images of a capture are not shown: {escape(problem)}", soft_wrap=True)
        pictures = query_images(asked, opened, captures, person_box)
        if out.suffix.lower() == ".html":
            made = provenance_without_capture(command_line(), index)
            write_text(out, search_page(found, captures, made, pictures))
        else:
            write_image(out, search_sheet(found, captures, pictures))
        console.print(f"Written to [bold]{out}[/]", soft_wrap=True)
    finish(asdict(found), json)


def _model_of(index: PoseIndex, run: Path | None) -> Callable[[], Model]:
    """Return a function that loads the model of an index once, when it is needed."""
    return cache(lambda: load(run or index.model.run))


def _captures(index: PoseIndex) -> tuple[dict[str, Capture], list[str]]:
    """Open the captures of an index; those that are missing or have changed are left out, with a text that says why."""
    found, problems = {}, []
    for fingerprint, place in index.captures().items():
        try:
            found[fingerprint] = indexed_capture(fingerprint, place, index)
        except (CaptureError, PoseIndexError) as error:
            problems.append(str(error))
    return found, problems


def _show(found: SearchResult) -> None:
    if found.movements:
        rows = [
            (str(n), m.track, f"{m.first.time:.2f}–{m.last.time:.2f}", f"{m.distance:.3f}")
            for n, m in enumerate(found.movements, 1)
        ]
        show_table(f"Found for {found.asked}", ("rank", "subject/sequence/view", "s", "mean distance"), rows)
        return
    if not found.hits:
        console.print("Found nothing: no image of another moment passes the filter. --every-image lists all views.")
        return
    hits = [
        (str(n), h.subject, h.sequence, str(h.frame), f"{h.time:.2f}", h.view, str(h.row), f"{h.distance:.3f}")
        for n, h in enumerate(found.hits, 1)
    ]
    columns = ("rank", "subject", "sequence", "frame", "s", "view", "row", found.by)
    show_table(f"Found for {found.asked}", columns, hits)
    if found.recall is not None:
        console.print(f"This approximate search found {found.recall:.2f} of the exact one's hits.")
    elif found.approximate:
        console.print("Searched approximately: --recall measures how many are missed, --exact compares with all.")
    else:
        console.print("Searched exactly.")


@app.command
def compare(
    a: Positional[str],
    b: Positional[str],
    out: Annotated[Path, arg(aliases=["-o"], metavar="PAGE")] = Path("compare.html"),
    settings: OmitArgPrefixes[CompareSettings] = CompareSettings(),  # noqa: B008 (frozen)
    run: RunPath | None = None,
    json: JsonFile = None,
) -> None:
    """Align two videos of the same movement by pose, and show where they differ: angles, joints, pairs of images.

    Args:
        a: VIDEO or CAPTURE:SUBJECT/SEQUENCE/VIEW, with @T0:T1 for a part of it, in seconds.
        b: The video to compare with, given in the same way.
        out: The HTML page to write.
        settings: How the videos are aligned.
        run: Run folder or model file, by default the weights shipped with mcss.
        json: Also write times, angles and distances to this file.
    """
    sources = (parsed_clip(a), parsed_clip(b))
    model = load_model(run)
    clip_a, clip_b = (_clip(source, model) for source in sources)
    found = compare_clips(clip_a.sequence, clip_b.sequence, settings)
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
        ("angle, degrees", "mean in A", "mean in B", "mean difference", "largest, B minus A", "at, s in A"),
        rows,
    )
    console.print(f"Joints lie {found.joints[:, 1:].mean():.0f} mm apart on average, apart from body size and heading.")
    made = provenance_without_capture(command_line(), model.name)
    write_text(out, comparison_page(found, clip_a, clip_b, made))
    console.print(f"Page: [bold]{out}[/]", soft_wrap=True)
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


def _clip(source: VideoQuery | SequenceSource, model: Model) -> PoseClip:
    match source:
        case VideoQuery(path, span):
            return clip_of_video(path, model, span, RichProgress())
        case SequenceSource(capture, name, span):
            return clip_of_sequence(Capture.open(capture), name, model, span)
