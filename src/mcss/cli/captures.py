"""Verbs that look at captures."""

import sys
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from mcss.cli.terminal import JsonFile, app, console, finish, show_capture, show_table
from mcss.data.capture import Capture
from mcss.data.contact_sheet import chosen_instants, contact_sheet, spread_instants
from mcss.data.doctor.diagnose import DoctorSettings, diagnose
from mcss.data.doctor.page import MARKS, doctor_page
from mcss.data.labels import write_instants
from mcss.data.provenance import provenance
from mcss.files import write_json, write_text
from mcss.images import write_image
from mcss.inference.label_selection import SelectSettings, select_instants
from mcss.inference.rerun_view import show_in_rerun
from mcss.progress import RichProgress


@app.command
def info(capture: Positional[str], json: JsonFile = None) -> None:
    """Say what a capture holds: people, actions, views, labels, splits.

    Args:
        capture: A capture's folder or object-store address.
        json: Also write the result to this file.
    """
    finish(show_capture(Capture.open(capture)), json)


@app.command
def doctor(
    capture: Positional[str],
    out: Path | None = None,
    settings: OmitArgPrefixes[DoctorSettings] = DoctorSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Look for faults in a capture: views out of step, impossible poses, bad images … Exit status 1 if there are any.

    Args:
        capture: A capture's folder or object-store address.
        out: Folder for doctor.html, with images of the worst cases, and doctor.json; none by default.
        settings: What counts as a fault.
        json: Also write the result to this file.
    """
    opened = Capture.open(capture)
    diagnosis = diagnose(opened, settings, RichProgress())
    rows = [(c.name, f"{MARKS[c.verdict]} {c.verdict}", c.looked, f"{c.found:,}", c.text) for c in diagnosis.checks]
    show_table("Doctor", ("check", "verdict", "looked at", "found", "what, and the way out"), rows)
    for check in diagnosis.faults:
        for case in check.cases:
            console.print(f"[red]{check.name}[/] {escape(case.where)}", highlight=False)
    if out is not None:
        made = provenance(f"mcss doctor {capture} --out {out}", opened, {})
        write_json(out / "doctor.json", diagnosis.to_json())
        write_text(out / "doctor.html", doctor_page(diagnosis, opened, made))
        console.print(f"Report: [bold]{out / 'doctor.html'}[/]")
    finish(diagnosis.to_json(), json)
    if diagnosis.faults:
        sys.exit(1)


Choice = Annotated[tuple[str, ...], UseAppendAction]
"""An option that may be given several times."""


@app.command
def show(
    capture: Positional[str],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None,
    subject: Choice = (),
    action: Choice = (),
    split: str | None = None,
    instants: int = 8,
    size: int = 128,
    across: int = 1,
    plain: bool = False,
    rerun: bool = False,
    json: JsonFile = None,
) -> None:
    """Show some instants: a contact sheet (rows are instants, columns are views), or a 3D view to turn about.

    Args:
        capture: A capture's folder or object-store address.
        out: The sheet, .jpg or .png; sheet.jpg by default. With --rerun an .rrd file instead of the viewer.
        subject: Only of this subject; may be given several times.
        action: Only of this action; may be given several times.
        split: Only of this split.
        instants: How many, spread over subjects and time.
        size: Side of an image in pixels.
        across: Instants beside each other.
        plain: Images alone, without skeletons and text.
        rerun: Show cameras, poses and images in the viewer Rerun (extra rerun).
        json: Also write what was shown to this file.
    """
    opened = Capture.open(capture)
    chosen = chosen_instants(opened, subjects=subject, actions=action, split=split)
    chosen = chosen.take(spread_instants(chosen, instants))
    if rerun:
        show_in_rerun(opened, chosen, out)
    else:
        out = out or Path("sheet.jpg")
        write_image(out, contact_sheet(opened, chosen, size=size, across=across, plain=plain))
    console.print(f"{len(chosen)} instants{'' if out is None else f': {out}'}")
    finish({"out": out and str(out), "instants": [chosen.describe(i) for i in range(len(chosen))]}, json)


@app.command
def select(
    capture: Positional[str],
    settings: OmitArgPrefixes[SelectSettings] = SelectSettings(),  # noqa: B008 (frozen)
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")] = Path("selected.csv"),
    json: JsonFile = None,
) -> None:
    """Choose the instants that are most worth a label: a CSV for `mcss train --labels @FILE.csv`, and their images.

    Args:
        capture: A capture's folder or object-store address.
        settings: What to choose from, and by what.
        out: The CSV, the most needed instants first; a contact sheet is written beside it.
        json: Also write a summary to this file.
    """
    opened = Capture.open(capture)
    selection = select_instants(opened, settings, RichProgress())
    write_instants(out, selection.instants)
    sheet = out.with_suffix(".jpg")
    write_image(sheet, contact_sheet(opened, selection.instants, size=64, across=4, plain=True))
    console.print(
        f"{settings.budget} of {selection.candidates:,} instants by {selection.space}: {out}, images {sheet}. "
        f"The farthest instant is {selection.radius[-1]:.3g} from a chosen one, "
        f"{selection.radius[0]:.3g} from the first."
    )
    if selection.posed and selection.space != "pose":
        console.print(f"[yellow]Note[/] {selection.posed:,} of them have a pose already: --by pose chooses by it.")
    radius = [round(float(r), 6) for r in selection.radius]
    finish({"out": str(out), "by": selection.space, "candidates": selection.candidates, "radius": radius}, json)
