"""The verb to start with: demo."""

import os
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, arg

from mcss.cli.comparisons import show_comparison
from mcss.cli.terminal import JsonFile, app, command_line, console, finish
from mcss.experiments.comparison import DemoPlan, run_demo
from mcss.progress import RichProgress


@app.command
def demo(
    out: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")] = Path("demo"),
    plan: OmitArgPrefixes[DemoPlan] = DemoPlan(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Run the main experiment in small: build a capture, train the baseline and MCSS on one subject's labels, report.

    Args:
        out: Folder of all results. The same command resumes a demo that was stopped.
        plan: How much to build and train.
        json: Also write the rows of the report to this file.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    least, most = plan.minutes(processors)
    console.print(
        f"This takes {least} to {most} minutes on this machine if it is idle, and more if it is busy. It can be "
        "stopped at any time; the same command goes on.",
        soft_wrap=True,
    )
    report = run_demo(out, plan, RichProgress(), command_line())
    show_comparison(report)
    console.print(
        "The mean pose sees no image, the baseline learns from the labels of S1 alone, and MCSS also from the "
        "unlabelled views of everybody. All poses are of people on whom nothing was trained.",
        soft_wrap=True,
    )
    console.print(f"Report with images and curves: [bold]{out / 'report.html'}[/]", soft_wrap=True)
    finish(report.to_json(), json)
