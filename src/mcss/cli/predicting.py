"""The verb that uses a trained model: poses of images, videos, folders and captures."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.terminal import JsonFile, app, console, finish, load_model
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.inference.locate import parsed_rectangle
from mcss.inference.outputs import parsed_formats, write_poses
from mcss.inference.overlays import write_overlay, write_sequence_overlay
from mcss.inference.pose_sequence import Take, Turned, smooth
from mcss.inference.predict import (
    Input,
    inputs_of,
    is_capture,
    sequences_of,
    take_of_image,
    take_of_sequence,
    take_of_video,
)
from mcss.inference.rerun_view import show_take_in_rerun
from mcss.inference.smoothing import SmoothingSettings
from mcss.models.model import Model
from mcss.progress import RichProgress
from mcss.sources.videos.importing import VideosSettings, import_videos
from mcss.video.detectors import DetectorName, person_detector


@dataclass(frozen=True)
class PredictOptions:
    """What is looked at, and what is written."""

    run: Path | None = None
    """A run folder or model file; the weights shipped with mcss by default."""
    formats: str = "json,csv"
    """What to write: some of json,csv,trc,bvh,npz."""
    box: str | None = None
    """x,y,width,height of the person in pixels, for an image or for all images of a video. By default an image is
    taken whole, and in a video whoever moves before the static camera is followed."""
    find: DetectorName | None = None
    """Find people with this detector, in images and videos (docs/real_footage.md says what each needs)."""
    detector_weights: Path | None = None
    """A file of the detector's weights: .safetensors or .pth; .tflite for blazepose. By default torchvision's hub."""
    fuse: bool = False
    """The videos of the folder are synchronised views of the same moments (laid out as for `mcss import videos`): one
    pose is made of all views of a moment. Captures are always fused."""
    turned: Turned = "canonical"
    """How poses are turned in what is written: canonical, everybody facing the same way; or view, as the camera sees
    the person, upright (not for fused poses)."""
    overlay: bool = True
    """Write an image or video with the skeleton over the person and beside it."""
    rerun: bool = False
    """Write a 3D view for the viewer Rerun, NAME.rrd (extra rerun); `rerun NAME.rrd` shows it."""
    split: str | None = None
    """Of a capture: only this split."""
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    """Of videos and sequences."""


@app.command
def predict(
    source: Positional[str],
    out: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")],
    prediction: OmitArgPrefixes[PredictOptions] = PredictOptions(),
    json: JsonFile = None,
) -> None:
    """3D poses and embeddings of people in images and videos, with a trained model. Exit status 1 if any failed.

    Args:
        source: An image, a video, a folder of them, or a capture.
        out: Folder of what is written.
        prediction: What is looked at, and what is written.
        json: Also write a summary to this file.
    """
    parsed_formats(prediction.formats)
    if prediction.detector_weights is not None and prediction.find is None:
        raise ValueError("--detector-weights: there is no detector to load them; choose one with --find")
    model = load_model(prediction.run)
    if is_capture(source):
        summary = _predict_capture(model, Capture.open(source), out, prediction)
    elif prediction.fuse:
        summary = _predict_fused(model, Path(source), out, prediction)
    else:
        summary = _predict_files(model, inputs_of(Path(source)), out, prediction)
    failed = [row for row in summary if "failed" in row]
    for row in failed:
        console.print(f"[red]Failed[/] {escape(row['failed'])}", highlight=False, soft_wrap=True)
    console.print(f"{len(summary) - len(failed)} of {len(summary)} written to {out}.")
    finish({"model": model.name, "out": str(out), "items": summary}, json)
    if failed:
        sys.exit(1)


def _predict_files(model: Model, inputs: list[Input], out: Path, options: PredictOptions) -> list[dict[str, Any]]:
    box = None if options.box is None else parsed_rectangle(options.box)
    finder = None if options.find is None else person_detector(options.find, options.detector_weights)

    def one(source: Input) -> dict[str, Any]:
        if source.is_video:
            take = smooth(take_of_video(model, source, box, finder, RichProgress()), options.smoothing)
        else:
            take = take_of_image(model, source, box, finder)
        written = _write(take, out, options)
        if options.overlay:
            written.append(out / f"{source.name}_overlay{'.mp4' if source.is_video else '.jpg'}")
            write_overlay(take, source.path, written[-1])
        return _summary(take, written)

    return [_tried(str(source.path), lambda source=source: one(source)) for source in inputs]  # type: ignore[misc]


def _predict_fused(model: Model, folder: Path, out: Path, options: PredictOptions) -> list[dict[str, Any]]:
    with TemporaryDirectory() as place:
        size = max(model.image_size, 16)
        settings = VideosSettings(
            size=size,
            quality=95,
            test_fraction=0.0,
            find=options.find or "motion",
            detector_weights=options.detector_weights,
        )
        imported = import_videos(folder, f"{place}/capture", settings, RichProgress())
        for note in imported.notes:
            console.print(f"[yellow]Note[/] {escape(note)}")
        return _predict_capture(model, imported.capture, out, options)


def _predict_capture(model: Model, capture: Capture, out: Path, options: PredictOptions) -> list[dict[str, Any]]:
    if options.find is not None and not options.fuse:
        raise ValueError("--find: a capture has its crops already; leave it out.")
    if options.turned == "view" or options.box is not None:
        raise ValueError("--turned view, --box: not for captures and fused views; leave them out.")

    def one(name: str, instants: Instants) -> dict[str, Any]:
        take = smooth(take_of_sequence(model, capture, name, instants, RichProgress()), options.smoothing)
        written = _write(take, out, options)
        if options.overlay:
            written.append(out / f"{name}_overlay.mp4")
            write_sequence_overlay(take, capture, instants, written[-1])
        return _summary(take, written)

    return [
        _tried(name, lambda name=name, part=part: one(name, part))  # type: ignore[misc]
        for name, part in sequences_of(capture, options.split)
    ]


def _tried(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` returns, or why it failed: one bad file does not stop the others."""
    try:
        return work()
    except ImportError:
        raise  # a package is missing: so it will be for the next
    except ValueError as error:
        text = str(error)
        return {"source": name, "failed": text if name in text else f"{name}: {text}"}


def _write(take: Take, out: Path, options: PredictOptions) -> list[Path]:
    for note in take.notes:
        console.print(f"[yellow]Note[/] {escape(note)}", highlight=False, soft_wrap=True)
    written = write_poses(take, out, parsed_formats(options.formats), options.turned)
    if options.rerun:
        written.append(out / f"{take.name}.rrd")
        show_take_in_rerun(take, written[-1])
    return written


def _summary(take: Take, written: list[Path]) -> dict[str, Any]:
    error = take.poses.error
    expected = None if error is None else round(float(error.mean()), 1)
    doubt = "" if expected is None else f", expected error {expected:.0f} mm"
    console.print(f"{escape(take.name)}: {len(take)} poses{doubt}", highlight=False)
    return {
        "source": take.source,
        "poses": len(take),
        "found": int(take.found.sum()),
        "expected_error": expected,
        "files": [str(path) for path in written],
        "notes": list(take.notes),
    }
