"""Verbs that make captures: from nothing, from footage, from data sets."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.arguments import Verbs
from mcss.cli.terminal import JsonFile, app, console, finish, show_capture, show_table
from mcss.data.capture import Capture
from mcss.errors import SourceError
from mcss.models.model import load
from mcss.progress import RichProgress
from mcss.sources.aist.sequences import AistSettings, import_aist
from mcss.sources.aspset import AspsetSettings, import_aspset
from mcss.sources.assembly import Assembled
from mcss.sources.human36m.release import import_human36m
from mcss.sources.human36m.sequences import Human36MSettings
from mcss.sources.mpi_inf_3dhp.sequences import MpiInf3dhpSettings, import_mpi_inf_3dhp
from mcss.sources.synthetic.build import build
from mcss.sources.synthetic.describe import COLUMNS, describe
from mcss.sources.synthetic.scenes import SyntheticSettings
from mcss.sources.videos.importing import VideosSettings, import_videos
from mcss.sources.workers import Ray, Workers
from mcss.video.sync.synchronise import SyncSettings, image_of, synchronise

synthetic_app = Verbs()
import_app = Verbs()

app.group(synthetic_app, name="synthetic", help="Build the synthetic multi-view capture, or describe one.")


@synthetic_app.command(name="build")
def synthetic_build(
    out: Positional[str],
    settings: OmitArgPrefixes[SyntheticSettings] = SyntheticSettings(),  # noqa: B008 (frozen)
    processes: int | None = None,
    json: JsonFile = None,
) -> None:
    """Build the synthetic multi-view capture; the same command carries on after any stop.

    Args:
        out: Folder or object-store address of the new capture.
        settings: What it is like.
        processes: Processes to render with; by default one per processor.
        json: Also write a summary to this file.
    """
    capture = build(out, settings, RichProgress(), processes=processes)
    finish(show_capture(capture), json)


@synthetic_app.command(name="describe")
def synthetic_describe(capture: Positional[str], labels: str = "S1", json: JsonFile = None) -> None:
    """Print how well labels cover a capture: distances in mm from its poses to labelled poses, and the oracle.

    Args:
        capture: A capture's folder or object-store address.
        labels: The labels to measure from: S1, S1:0.1, all …
        json: Also write the result to this file.
    """
    coverage = describe(Capture.open(capture), labels, progress=RichProgress())
    show_table(f"Coverage by the labels of {labels}, mm", COLUMNS, coverage.table())
    oracle = ("split", "K", "anybody's poses", "other people's poses")
    show_table("Retrieval oracle: mean PA-MPJPE of the K nearest, mm", oracle, coverage.oracle_table())
    finish(asdict(coverage), json)


@app.command
def sync(
    folder: Positional[Path],
    settings: OmitArgPrefixes[SyncSettings] = SyncSettings(),  # noqa: B008 (frozen)
    run: Path | None = None,
    json: JsonFile = None,
) -> None:
    """Find the offsets between cameras that were started by hand; writes sync.json, which import applies, and sync.png.

    Args:
        folder: subject/sequence/view.mp4, or the views of one recording.
        settings: How offsets are found.
        run: A trained run whose embedding refines the offsets.
        json: Also write the result to this file.
    """
    embed = None
    if run is not None:
        model = load(run)
        embed = lambda crops: model.predict_crops(crops).embedding  # noqa: E731
    found = synchronise(folder, settings, embed, RichProgress())
    for one in found:
        rows = [
            (name, f"{c.start:+.3f}", f"{c.start * c.rate:+.2f}", f"{c.pace:.6f}", c.evidence, f"{c.confidence:.2f}")
            for name, c in one.clocks.items()
        ]
        columns = ("view", "starts, s", "in its images", "pace", "by", "confidence")
        show_table(f"{one.recording.name}: clocks, seen from {one.reference}", columns, rows)
    for warning in [text for one in found for text in one.warnings()]:
        console.print(f"[yellow]Warning[/] {escape(warning)}")
    console.print(f"Written to {folder / 'sync.json'}, which [bold]mcss import videos {folder} OUT[/] applies.")
    for one in found:
        console.print(f"Look at {image_of(folder, one.recording, len(found) > 1)}: every column shows one instant.")
    finish({one.recording.name: {name: asdict(c) for name, c in one.clocks.items()} for one in found}, json)


app.group(import_app, name="import", help="Make a capture from your own footage or from a data set.")


@dataclass(frozen=True)
class WorkerOptions:
    """Who does the work of an import."""

    processes: int | None = None
    """Processes to work with; by default one per processor."""
    engine: Literal["processes", "ray"] = "processes"
    """Processes of this machine, or the machines of a Ray cluster (needs the extra `ray`)."""
    ray_address: str = "auto"
    """Of the cluster's head, HOST:PORT; auto is the cluster that this machine belongs to."""

    @property
    def chosen(self) -> Workers:
        """As importers take it."""
        return Ray(self.ray_address, self.processes) if self.engine == "ray" else self.processes


@import_app.command(name="videos")
def import_of_videos(
    folder: Positional[Path],
    out: Positional[str],
    settings: Annotated[VideosSettings, arg(name="")] = VideosSettings(),  # noqa: B008 (frozen)
    workers: OmitArgPrefixes[WorkerOptions] = WorkerOptions(),
    json: JsonFile = None,
) -> None:
    """Make a capture of synchronised videos, without calibration or labels.

    Args:
        folder: subject/sequence/view.mp4, or the views of one recording.
        out: Folder or object-store address of the new capture.
        settings: How images are taken and people found.
        workers: Who does the work.
        json: Also write a summary to this file.
    """
    done = import_videos(folder, out, settings, RichProgress(), workers.chosen)
    if (sheets := Path(f"{out}.tracks")).is_dir():
        console.print(f"Who was found and who is followed is drawn in {escape(str(sheets))}.", soft_wrap=True)
    _show_assembled(done, json)


@import_app.command(name="mpi-inf-3dhp")
def import_of_mpi_inf_3dhp(
    source: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[MpiInf3dhpSettings] = MpiInf3dhpSettings(),  # noqa: B008 (frozen)
    workers: OmitArgPrefixes[WorkerOptions] = WorkerOptions(),
    json: JsonFile = None,
) -> None:
    """Make a capture of MPI-INF-3DHP as released; the same command carries on after any stop.

    Args:
        source: The folder with S1 to S8, and TS1 to TS6 or mpi_inf_3dhp_test_set.
        out: Folder or object-store address of the new capture.
        settings: Which cameras, frames and poses are taken, and which known faults are put right.
        workers: Who does the work.
        json: Also write a summary to this file.
    """
    _show_assembled(import_mpi_inf_3dhp(source, out, settings, RichProgress(), workers.chosen), json)


@import_app.command(name="aspset")
def import_of_aspset(
    source: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[AspsetSettings] = AspsetSettings(),  # noqa: B008 (frozen)
    workers: OmitArgPrefixes[WorkerOptions] = WorkerOptions(),
    json: JsonFile = None,
) -> None:
    """Make a capture of ASPset-510 as released; the same command carries on after any stop.

    Args:
        source: The folder with splits.csv, trainval and test.
        out: Folder or object-store address of the new capture.
        settings: Which cameras and images are taken, and how.
        workers: Who does the work.
        json: Also write a summary to this file.
    """
    _show_assembled(import_aspset(source, out, settings, RichProgress(), workers.chosen), json)


@import_app.command(name="aist")
def import_of_aist(
    source: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[AistSettings] = AistSettings(),  # noqa: B008 (frozen)
    workers: OmitArgPrefixes[WorkerOptions] = WorkerOptions(),
    json: JsonFile = None,
) -> None:
    """Make a capture of AIST++ as released; the same command carries on after any stop.

    Args:
        source: The folder with keypoints3d, cameras, splits and ignore_list.txt, and perhaps videos.
        out: Folder or object-store address of the new capture.
        settings: Which cameras, instants and sequences are taken, and which known faults are left out.
        workers: Who does the work.
        json: Also write a summary to this file.
    """
    _show_assembled(import_aist(source, out, settings, RichProgress(), workers.chosen), json)


@import_app.command(name="human36m")
def import_of_human36m(
    folder: Positional[Path],
    out: Positional[str],
    settings: OmitArgPrefixes[Human36MSettings] = Human36MSettings(),  # noqa: B008 (frozen)
    workers: OmitArgPrefixes[WorkerOptions] = WorkerOptions(),
    json: JsonFile = None,
) -> None:
    """Make a capture of Human3.6M as released: videos, D3_Positions, ground-truth boxes and metadata.xml.

    Args:
        folder: Where the archives were unpacked: it has S1, S5, … and metadata.xml.
        out: Folder or object-store address of the new capture.
        settings: Which images are taken, and how.
        workers: Who does the work.
        json: Also write a summary to this file.
    """
    _show_assembled(import_human36m(folder, out, settings, RichProgress(), processes=workers.chosen), json)


def _show_assembled(done: Assembled, json: Path | None) -> None:
    """What was imported against what should be there; ends with 1 if sequences are missing."""
    for note in done.notes:
        console.print(f"[yellow]Note[/] {escape(note)}", soft_wrap=True)
    about = show_capture(done.capture)
    lines = [
        (c.subject, f"{c.sequences} of {c.expected_sequences}", f"{c.images:,} of {c.expected_images:,}")
        for c in done.counts
    ]
    show_table("There, of what is expected", ("subject", "sequences", "images of the sequences found"), lines)
    counts = [asdict(count) for count in done.counts]
    problems = {"notes": done.notes, "problems": done.problems}
    finish({**about, "imported": done.imported, "kept": done.kept, "counts": counts, **problems}, json)
    if done.problems:
        raise SourceError(
            "\n".join(done.problems) + f"\nThese {len(done.problems)} could not be imported; all else is in "
            f"{done.capture.uri} and can be used. Mend them and give the same command again."
        )
