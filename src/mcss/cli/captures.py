"""Verbs that look into captures: info, doctor, show, select."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from mcss.cli.terminal import (
    CaptureAddress,
    JsonFile,
    app,
    command_line,
    console,
    finish,
    show_capture,
    show_table,
)
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
def info(capture: Positional[CaptureAddress], json: JsonFile = None) -> None:
    """Show what a capture holds: people, actions, views, labels, splits, frame rate, duration, size.

    Args:
        capture: Folder or object-store address of a capture.
        json: Also write the result to this file.
    """
    finish(show_capture(Capture.open(capture)), json)


@app.command
def doctor(
    capture: Positional[CaptureAddress],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FOLDER")] = None,
    settings: OmitArgPrefixes[DoctorSettings] = DoctorSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Check a capture for faults: unsynchronised views, impossible poses, bad images. Exit status 1 if there are any.

    Args:
        capture: Folder or object-store address of a capture.
        out: Folder for doctor.html, which shows the images of the worst cases, and doctor.json. Not written by default.
        settings: What counts as a fault.
        json: Also write the result to this file.
    """
    opened = Capture.open(capture)
    diagnosis = diagnose(opened, settings, RichProgress())
    rows = [
        (check.name, f"{MARKS[check.verdict]} {check.verdict}", check.looked, f"{check.found:,}", check.text)
        for check in diagnosis.checks
    ]
    show_table("Doctor", ("check", "verdict", "examined", "found", "finding and remedy"), rows)
    for check in diagnosis.faults:
        for case in check.cases:
            console.print(f"[red]{check.name}[/] {escape(case.where)}", highlight=False)
    if out is not None:
        page = doctor_page(diagnosis, opened, provenance(command_line(), opened, {}))
        write_json(out / "doctor.json", diagnosis.to_json())
        write_text(out / "doctor.html", page)
        console.print(f"Report: [bold]{out / 'doctor.html'}[/]", soft_wrap=True)
    finish(diagnosis.to_json(), json)
    if diagnosis.faults:
        sys.exit(1)


@dataclass(frozen=True)
class ShowOptions:
    """Which instants `mcss show` draws, and how."""

    subject: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Show this subject only."""
    action: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Show this action only."""
    split: str | None = None
    """Show this split only."""
    instants: int = 8
    """Number of instants, spread over subjects and time."""
    size: int = 128
    """Side of an image in pixels."""
    across: int = 1
    """Number of instants side by side."""
    plain: bool = False
    """Draw the images alone, without skeletons and text."""
    rerun: bool = False
    """Show cameras, poses and images in the Rerun viewer instead (needs the extra `rerun`)."""


@app.command
def show(
    capture: Positional[CaptureAddress],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None,
    options: OmitArgPrefixes[ShowOptions] = ShowOptions(),
    json: JsonFile = None,
) -> None:
    """Show some instants: a contact sheet with a row for each instant and a column for each view, or a 3D view.

    An instant is one moment of a recording, seen by all cameras (a multi-view frame).

    Args:
        capture: Folder or object-store address of a capture.
        out: The contact sheet, .jpg or .png, by default sheet.jpg. With --rerun: an .rrd file instead of the viewer.
        options: Which instants are drawn, and how.
        json: Also write the names of the instants to this file.
    """
    opened = Capture.open(capture)
    instants = chosen_instants(opened, subjects=options.subject, actions=options.action, split=options.split)
    instants = instants.take(spread_instants(instants, options.instants))
    if options.rerun:
        show_in_rerun(opened, instants, out)
    else:
        out = out or Path("sheet.jpg")
        sheet = contact_sheet(opened, instants, size=options.size, across=options.across, plain=options.plain)
        write_image(out, sheet)
    console.print(f"{len(instants)} instants{'' if out is None else f': {out}'}")
    finish({"out": out and str(out), "instants": [instants.describe(i) for i in range(len(instants))]}, json)


_ON_SHEET = 200
"""Chosen instants that are drawn, at most."""


@app.command
def select(
    capture: Positional[CaptureAddress],
    settings: OmitArgPrefixes[SelectSettings] = SelectSettings(),  # noqa: B008 (frozen)
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")] = Path("selected.csv"),
    json: JsonFile = None,
) -> None:
    """Choose the instants that are most worth labelling: a CSV for `mcss train --labels @FILE.csv`, and their images.

    Args:
        capture: Folder or object-store address of a capture.
        settings: The candidates, and how to choose among them.
        out: The CSV, most valuable instants first. A contact sheet of up to 200 of them is written beside it.
        json: Also write a summary to this file.
    """
    opened = Capture.open(capture)
    selection = select_instants(opened, settings, RichProgress())
    write_instants(out, selection.instants)
    sheet, shown = out.with_suffix(".jpg"), selection.instants.take(np.arange(min(settings.budget, _ON_SHEET)))
    write_image(sheet, contact_sheet(opened, shown, across=max(1, 8 // len(shown.views))))
    of_them = "" if len(shown) == settings.budget else f" of the first {len(shown)}"
    console.print(
        f"Chose {settings.budget} of {selection.candidates:,} instants by {selection.space}: {out}, images{of_them} in "
        f"{sheet}. "
        f"No instant is farther than {selection.radius[-1]:.3g} from a chosen one; "
        f"from the first one alone it would be {selection.radius[0]:.3g}."
    )
    if selection.posed and selection.space != "pose":
        console.print(f"[yellow]Note[/] {selection.posed:,} of them have a pose already; --by pose compares poses.")
    radius = [round(float(r), 6) for r in selection.radius]
    finish({"out": str(out), "by": selection.space, "candidates": selection.candidates, "radius": radius}, json)
