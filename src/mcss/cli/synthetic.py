"""Verbs of the built-in capture."""

from dataclasses import asdict

from tyro.conf import OmitArgPrefixes, Positional
from tyro.extras import SubcommandApp

from mcss.cli.terminal import JsonFile, app, finish, show_capture, show_table
from mcss.cli.verbs import VERBS
from mcss.data.capture import Capture
from mcss.progress import RichProgress
from mcss.sources.synthetic.build import build
from mcss.sources.synthetic.describe import COLUMNS, describe
from mcss.sources.synthetic.scenes import SyntheticSettings

synthetic_app = SubcommandApp()


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


app.command(synthetic_app, name="synthetic", help=VERBS["synthetic"].summary)
