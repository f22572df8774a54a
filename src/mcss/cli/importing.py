"""Verbs that make captures: synthetic ones, and those of footage and data sets."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional

from mcss.cli.arguments import Verbs, existing
from mcss.cli.terminal import (
    CaptureAddress,
    JsonFile,
    RunPath,
    WorkerOptions,
    app,
    console,
    finish,
    show_capture,
    show_table,
)
from mcss.data.capture import Capture
from mcss.errors import SourceError
from mcss.models.model import load
from mcss.progress import RichProgress
from mcss.sources.assembly import ImportResult
from mcss.sources.registry import SOURCES
from mcss.sources.source import Source
from mcss.sources.synthetic.build import build
from mcss.sources.synthetic.coverage import COLUMNS, measure_coverage
from mcss.sources.synthetic.sequences import SyntheticSettings
from mcss.video.sync.synchronise import SyncSettings, alignment_image, synchronise

synthetic_app = Verbs()
import_app = Verbs()

app.group(synthetic_app, name="synthetic", word="VERB", help="Build the synthetic multi-view capture, or describe one.")


@synthetic_app.command(name="build")
def synthetic_build(
    out: Positional[str],
    settings: OmitArgPrefixes[SyntheticSettings] = SyntheticSettings(),  # noqa: B008 (frozen)
    processes: int | None = None,
    json: JsonFile = None,
) -> None:
    """Build the synthetic multi-view capture. The same command resumes a build that was stopped.

    Args:
        out: Folder or object-store address of the new capture.
        settings: What the capture holds.
        processes: Number of processes that render, by default one per processor.
        json: Also write a summary to this file.
    """
    capture = build(out, settings, RichProgress(), processes=processes)
    finish(show_capture(capture), json)


@synthetic_app.command(name="describe")
def synthetic_describe(capture: Positional[CaptureAddress], labels: str = "S1", json: JsonFile = None) -> None:
    """Show how well labels cover a capture: distances from its poses to the labelled poses, and the retrieval oracle.

    Args:
        capture: Folder or object-store address of a capture.
        labels: The labelled poses to measure from, such as S1, S1:0.1 or all.
        json: Also write the result to this file.
    """
    coverage = measure_coverage(Capture.open(capture), labels, progress=RichProgress())
    show_table(f"Coverage by the labels of {labels}, mm", COLUMNS, coverage.table())
    oracle = ("split", "K", "poses of everybody", "poses of other people")
    show_table("Retrieval oracle: mean PA-MPJPE of the K nearest, mm", oracle, coverage.oracle_table())
    finish(asdict(coverage), json)


@app.command
def sync(
    folder: Positional[Annotated[Path, existing(Path, "{path}: no such folder; expected a folder of videos")]],
    settings: OmitArgPrefixes[SyncSettings] = SyncSettings(),  # noqa: B008 (frozen)
    run: RunPath | None = None,
    json: JsonFile = None,
) -> None:
    """Find the time offsets between cameras that were started by hand, for `mcss import videos`.

    Writes sync.json, which the import applies, and sync.png, to check by eye.

    Args:
        folder: Folder with subject/sequence/view.mp4, or with the views of one recording.
        settings: How offsets are found.
        run: Run folder or model file whose embeddings refine the offsets.
        json: Also write the result to this file.
    """
    embed_crops = None if run is None else load(run).embed
    alignments = synchronise(folder, settings, embed_crops, RichProgress())
    for alignment in alignments:
        rows = [
            (name, f"{c.start:+.3f}", f"{c.start * c.rate:+.2f}", f"{c.pace:.6f}", c.evidence, f"{c.confidence:.2f}")
            for name, c in alignment.clocks.items()
        ]
        columns = ("view", "starts at, s", "in its images", "pace", "method", "confidence")
        show_table(f"{alignment.recording.name}: clocks relative to {alignment.reference}", columns, rows)
    for warning in [text for alignment in alignments for text in alignment.warnings()]:
        console.print(f"[yellow]Warning[/] {escape(warning)}")
    console.print(
        f"Offsets: {folder / 'sync.json'}; [bold]mcss import videos {folder} OUT[/] applies them.", soft_wrap=True
    )
    for alignment in alignments:
        image = alignment_image(folder, alignment.recording, len(alignments) > 1)
        console.print(f"To check, look at {image}: each column shows one instant.")
    clocks = {a.recording.name: {name: asdict(clock) for name, clock in a.clocks.items()} for a in alignments}
    finish(clocks, json)


app.group(import_app, name="import", word="SOURCE", help="Make a capture from your own footage or from a data set.")


def _add_import_of(source: type[Source]) -> None:
    """Add the verb `mcss import NAME` of a source, whose options are the fields of the source."""

    def import_source(
        folder: Positional[Path],
        out: Positional[str],
        settings: Source = source(),  # noqa: B008 (frozen)
        workers: OmitArgPrefixes[WorkerOptions] = WorkerOptions(),  # noqa: B008 (frozen)
        json: JsonFile = None,
    ) -> None:
        result = settings.import_to(out, folder, RichProgress(), workers.chosen)
        if (sheets := Path(f"{out}.tracks")).is_dir():
            console.print(
                f"The people that were found, and whom the crops follow, are drawn in {escape(str(sheets))}.",
                soft_wrap=True,
            )
        _show_result(result, settings.next_command(result.capture), json)

    folder_read = existing(Path, f"{{path}}: no such folder; expected {source.reads}")
    import_source.__annotations__.update(settings=source, folder=Positional[Annotated[Path, folder_read]])
    import_source.__doc__ = f"""Make a capture of {source.title}.

    The same command resumes an import that was stopped.

    Args:
        folder: {source.reads[0].upper()}{source.reads[1:]}.
        out: Folder or object-store address of the new capture.
        settings: What to import, and how.
        workers: Which processes do the import.
        json: Also write a summary to this file.
    """
    import_app.command(name=source.name)(import_source)


def add_sources() -> None:
    """Add a verb to `mcss import` for each of `SOURCES`."""
    for source in SOURCES:
        _add_import_of(source)


add_sources()


def _show_result(result: ImportResult, then: str, json: Path | None) -> None:
    """Show what was imported of what was expected, and what to do next.

    Args:
        result: What the import did.
        then: The command that makes use of the capture.
        json: Also write a summary to this file.

    Raises:
        SourceError: Sequences are missing.
    """
    for note in result.notes:
        console.print(f"[yellow]Note[/] {escape(note)}", soft_wrap=True)
    about = show_capture(result.capture)
    lines = [
        (c.subject, f"{c.sequences} of {c.expected_sequences}", f"{c.images:,} of {c.expected_images:,}")
        for c in result.counts
    ]
    show_table("Imported, of what was expected", ("subject", "sequences", "images of the sequences found"), lines)
    counts = [asdict(count) for count in result.counts]
    problems = {"notes": result.notes, "problems": result.problems}
    check = f"mcss doctor {result.capture.uri}"
    console.print(f"Next: [bold]{escape(check)}[/] checks it, then [bold]{escape(then)}[/].", soft_wrap=True)
    finish({**about, "imported": result.imported, "kept": result.kept, "counts": counts, **problems}, json)
    if result.problems:
        these = "This" if len(result.problems) == 1 else f"These {len(result.problems)}"
        raise SourceError(
            "\n".join(result.problems) + f"\n{these} could not be imported; everything else is in "
            f"{result.capture.uri} and can be used. Mend the cause and run the same command again."
        )
