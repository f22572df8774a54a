"""The verb that makes labels: label."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.terminal import CaptureAddress, JsonFile, app, console, finish
from mcss.data.capture import Capture
from mcss.images import write_image
from mcss.labelling.bodies import cameras_of
from mcss.labelling.make import LabelSettings, labels_of, landmarks_of, write_labels
from mcss.labelling.sheet import label_sheet
from mcss.landmarks.landmark_files import write_landmarks
from mcss.progress import RichProgress

ALL = "all"
"""The word for all instants of a capture, where a split can be named."""


@dataclass(frozen=True)
class LabelOptions:
    """Which instants are labelled, and what is written besides the labels."""

    split: str = "train"
    """The split to label, or all for every instant of the capture."""
    sheet: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also draw some labels over the images, .jpg or .png, to be checked by eye."""
    landmarks_out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also keep the landmarks, .npz, so that --landmarks can use them again."""


@app.command
def label(
    capture: Positional[CaptureAddress],
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")] = Path("labels.csv"),
    options: OmitArgPrefixes[LabelOptions] = LabelOptions(),
    settings: OmitArgPrefixes[LabelSettings] = LabelSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Make 3D labels of a capture from its views alone: a CSV for `mcss train --labels @FILE.csv`.

    A landmark detector that is shipped with mcss looks at every image. If the cameras stand still and can be found from
    the person, what it sees is triangulated; otherwise its 3D landmarks of the views are turned onto each other and
    averaged, which needs no cameras.

    Args:
        capture: Folder or object-store address of a capture with two views or more.
        out: The CSV: a pose of 17 joints (mm, +Z up) and a confidence for each labelled instant.
        options: Which instants are labelled, and what is written besides.
        settings: How labels are made.
        json: Also write a summary to this file.
    """
    opened, progress = Capture.open(capture), RichProgress()
    landmarks = landmarks_of(opened, None if options.split == ALL else options.split, settings, progress)
    if options.landmarks_out is not None:
        write_landmarks(options.landmarks_out, landmarks)  # before anything is refused: it took minutes
        console.print(f"Landmarks: {options.landmarks_out}", highlight=False)
    made = labels_of(landmarks, settings, cameras_of(opened, landmarks.instants))
    write_labels(out, made)
    console.print(escape(f"{made.summary()} Labels: {out}"), highlight=False)
    for warning in made.warnings():
        console.print(f"[yellow]Note[/] {escape(warning)}", highlight=False)
    if options.sheet is not None:
        write_image(options.sheet, label_sheet(opened, made))
        console.print(f"Check them by eye: {options.sheet}", highlight=False)
    console.print(
        escape(f"Next: mcss adapt {capture} --labels @{out}, or mcss train mcss --capture {capture} --labels @{out}"),
        highlight=False,
        soft_wrap=True,
    )
    finish({"out": str(out), **made.to_json()}, json)
