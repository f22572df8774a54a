"""The verb that finds cameras: calibrate."""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.calibration.calibrate import CalibrationSettings
from mcss.calibration.camera_files import read_cameras_file, write_cameras_file
from mcss.calibration.footage import (
    PartCalibration,
    calibrate_parts,
    judge_parts,
    refuse_to_replace,
    with_image_sizes,
    write_calibrations,
)
from mcss.calibration.report import write_report
from mcss.cli.terminal import CaptureAddress, JsonFile, app, console, finish, show_table
from mcss.data.capture import Capture
from mcss.landmarks.detection import DetectionSettings, detect_landmarks
from mcss.landmarks.landmark_files import check_places, read_landmarks, write_landmarks
from mcss.landmarks.view_landmarks import ViewLandmarks
from mcss.progress import RichProgress


@dataclass(frozen=True)
class CalibrateOptions:
    """What is known, and what is written."""

    intrinsics: Annotated[Path | None, arg(metavar="FILE")] = None
    """Cameras whose focal lengths and distortion are taken, and nothing else: .toml of Pose2Sim or Anipose, .yml of
    OpenCV, or .json."""
    cameras: Annotated[Path | None, arg(metavar="FILE")] = None
    """Cameras that are known altogether, in the same formats: they are judged and written, and none is searched."""
    image_size: tuple[int, int] | None = None
    """Width and height of the source images in pixels, where the capture does not tell; by default a common size,
    in whose middle the person is."""
    by_sequence: bool = False
    """Find the cameras of each sequence by themselves, for cameras that were moved in between."""
    landmarks: Annotated[Path | None, arg(metavar="FILE")] = None
    """Landmarks to use in place of those that mcss finds: an .npz of an earlier --landmarks-out, or a table of another
    detector (docs/label.md)."""
    landmarks_out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also keep the landmarks, .npz, so that --landmarks can use them again."""
    write: bool = True
    """Write the cameras into the capture."""
    replace: bool = False
    """Replace the cameras that the capture has; otherwise it stays as it is."""
    report: Annotated[Path | None, arg(metavar="FILE")] = None
    """Also write a page, .html, with errors by camera and joint, the room from above, and skeletons over the images."""
    detection: DetectionSettings = field(default_factory=DetectionSettings)
    """How landmarks are found."""

    def __post_init__(self) -> None:
        if self.cameras is not None and self.intrinsics is not None:
            raise ValueError("cameras, intrinsics: give one of them; --cameras has intrinsics of its own.")


@app.command
def calibrate(
    capture: Positional[CaptureAddress],
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE")] = None,
    options: OmitArgPrefixes[CalibrateOptions] = CalibrateOptions(),
    settings: OmitArgPrefixes[CalibrationSettings] = CalibrationSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Find the cameras of a capture from the person who moves: no board, no labels. Exit status 1 if that failed.

    The cameras must be synchronised and stand still, and one person is followed. The cameras are written into the
    capture, with a verdict (good, weak or failed); failed ones are not written.

    Args:
        capture: Folder or object-store address of a capture with two views or more.
        out: Also write the cameras to this file: .toml for Pose2Sim or Anipose, .yml for OpenCV, or .json.
        options: What is known, and what is written.
        settings: How cameras are found.
        json: Also write a summary to this file.
    """
    opened, progress = Capture.open(capture), RichProgress()
    if options.write and not options.replace:
        refuse_to_replace(opened)  # before minutes of work
    given = options.cameras or options.intrinsics
    known = None if given is None else read_cameras_file(given)
    landmarks = with_image_sizes(_landmarks(opened, options, progress), opened, options.image_size)
    if options.cameras is not None and known is not None:
        found = judge_parts(landmarks, known, settings)
    else:
        found = calibrate_parts(landmarks, settings, known, by_sequence=options.by_sequence, progress=progress)
    for part in found:
        _show(part, len(found) > 1)
    grades = [part.calibration.verdict.grade for part in found]
    if options.write and set(grades) != {"failed"}:
        opened = write_calibrations(opened, found, progress)
        console.print(f"Cameras written into {escape(opened.uri)}.", highlight=False, soft_wrap=True)
    if out is not None:
        for part in found:
            path = out if len(found) == 1 else out.with_stem("_".join([out.stem, *part.parts[0]]).replace(" ", "_"))
            write_cameras_file(path, part.calibration.cameras)
            console.print(f"Cameras: {escape(str(path))}", highlight=False, soft_wrap=True)
    if options.report is not None:
        write_report(options.report, found, opened)
        console.print(f"Report: {escape(str(options.report))}", highlight=False, soft_wrap=True)
    finish({"capture": opened.uri, "calibrations": [_plain(part) for part in found]}, json)
    if "failed" in grades:
        sys.exit(1)


def _landmarks(capture: Capture, options: CalibrateOptions, progress: RichProgress) -> ViewLandmarks:
    instants = capture.instants()
    if options.landmarks is not None:
        landmarks = read_landmarks(options.landmarks, instants)
        check_places(options.landmarks, landmarks, capture)
        return landmarks
    landmarks = detect_landmarks(capture, instants, options.detection, progress)
    if options.landmarks_out is not None:
        write_landmarks(options.landmarks_out, landmarks)
        console.print(f"Landmarks: {escape(str(options.landmarks_out))}", highlight=False)
    return landmarks


def _show(part: PartCalibration, named: bool) -> None:
    calibration = part.calibration
    measures, rig = calibration.verdict.measures, calibration.cameras
    colour = {"good": "green", "weak": "yellow", "failed": "red"}[calibration.verdict.grade]
    about = f"{part.name}: " if named else ""
    console.print(f"{escape(about)}[{colour}]{escape(calibration.verdict.text)}[/]", highlight=False, soft_wrap=True)
    for note in calibration.notes:
        console.print(f"[yellow]Note[/] {escape(note)}", highlight=False, soft_wrap=True)
    if named:
        return
    rows = [
        (
            view,
            ", ".join(f"{value:.0f}" for value in rig.positions[v]),
            f"{rig.focal[v]:.0f}",
            f"{measures.by_view_mm[v]:.0f}",
            f"{100 * measures.agreeing[v]:.0f} %",
            f"{1000 * calibration.offsets[v]:.0f}",
        )
        for v, view in enumerate(rig.views)
    ]
    columns = ("camera", "x, y, z (mm)", "focal (px)", "error (mm)", "joints that agree", "clock (ms)")
    show_table("Cameras", columns, rows)
    console.print(
        f"Joints lie {measures.reprojection_px:.1f} px from where they should be, bone lengths vary by "
        f"{100 * measures.bones:.0f} %. The scale rests on {calibration.scale_from}.",
        highlight=False,
    )


def _plain(part: PartCalibration) -> dict[str, Any]:
    calibration = part.calibration
    rig = calibration.cameras
    return {
        "sequences": [list(names) for names in part.parts],
        "verdict": calibration.verdict.grade,
        "reasons": list(calibration.verdict.reasons),
        "measures": asdict(calibration.verdict.measures),
        "faults": [asdict(fault) for fault in calibration.faults],
        "notes": list(calibration.notes),
        "scale_from": calibration.scale_from,
        "cameras": {
            view: {
                "rotation": rig.rotation[v].tolist(),
                "translation_mm": rig.translation[v].tolist(),
                "intrinsics": rig.intrinsics[v].tolist(),
                "distortion": rig.distortion[v].tolist(),
                "clock_offset_s": float(calibration.offsets[v]),
            }
            for v, view in enumerate(rig.views)
        },
    }
