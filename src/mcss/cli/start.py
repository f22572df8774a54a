"""The verb to start with: demo."""

from pathlib import Path

from tyro.conf import OmitArgPrefixes

from mcss.cli.terminal import JsonFile, app, console, finish
from mcss.experiments.comparison import DemoPlan, run_demo
from mcss.progress import RichProgress


@app.command
def demo(
    out: Path = Path("demo"),
    plan: OmitArgPrefixes[DemoPlan] = DemoPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """The main job: build the capture, train the baseline and MCSS with one subject's labels, compare, report.

    Args:
        out: Folder for everything; the same command carries on after any stop.
        plan: How much of everything.
        json: Also write the report's rows to this file.
    """
    finish(run_demo(out, plan, RichProgress()), json)
    console.print(f"Report: [bold]{out / 'report.html'}[/]")
