"""The verb to start with: demo."""

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from mcss.cli.terminal import JsonFile, app, console, finish
from mcss.experiments.comparison import DemoPlan, run_demo
from mcss.progress import RichProgress


@app.command
def demo(
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("demo"),
    plan: OmitArgPrefixes[DemoPlan] = DemoPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Run the main experiment in small: build a capture, train the baseline and MCSS on one subject's labels, report.

    Args:
        out: Folder of all results. The same command resumes a demo that was stopped.
        plan: How much to build and train.
        json: Also write the rows of the report to this file.
    """
    finish(run_demo(out, plan, RichProgress()).to_json(), json)
    console.print(f"Report: [bold]{out / 'report.html'}[/]")
