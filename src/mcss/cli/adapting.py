"""The verb adapt."""

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.adaptation.adapt import Adapted
from mcss.adaptation.adapt import adapt as adapt_model
from mcss.adaptation.agreement import NEAR_SECONDS
from mcss.adaptation.settings import AdaptSettings
from mcss.cli.terminal import CaptureAddress, JsonFile, RunPath, app, console, finish, show_table
from mcss.models.run_names import SHIPPED_NAME
from mcss.progress import RichProgress
from mcss.training.machine import Machine


@app.command
def adapt(
    capture: Positional[CaptureAddress],
    start: Annotated[RunPath, arg(name="from")] = Path(SHIPPED_NAME),
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    settings: OmitArgPrefixes[AdaptSettings] = AdaptSettings(),  # noqa: B008 (frozen)
    resume: bool = False,
    machine: OmitArgPrefixes[Machine] = Machine(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Make a trained model better on your own footage, by what its views say together.

    Args:
        capture: Capture of your footage, from two or more synchronised cameras.
        start: Model to start from: shipped, or a run folder.
        out: Run folder; by default one in runs/ that is named after the capture.
        settings: What to train on, and how long.
        resume: Go on with the stopped run in that folder.
        machine: Where to compute.
        json: Also write the result to this file.
    """
    run = out or Path("runs") / f"adapted-{Path(capture.rstrip('/')).name}"
    result = adapt_model(capture, start, run, settings, resume, machine, RichProgress())
    _show(result)
    console.print(f"Written: {run}. Next: [bold]mcss evaluate {run} --capture {capture}[/]", soft_wrap=True)
    finish(result.to_json(), json)


def _show(result: Adapted) -> None:
    before, after = result.before, result.after
    rows = [
        ("one view from the references", f"{before.off:.0f} mm", f"{after.off:.0f} mm"),
        ("one view from the mean of the views", f"{before.apart:.0f} mm", f"{after.apart:.0f} mm"),
        (f"same moment found first, within {NEAR_SECONDS:g} s", f"{before.hit_at_1:.0%}", f"{after.hit_at_1:.0%}"),
        ("… by chance", f"{before.chance:.0%}", f"{after.chance:.0%}"),
    ]
    show_table("Held-out instants", ("", "before", "after"), rows)
    console.print(result.in_words(), soft_wrap=True)
