"""Verbs that use a trained model: predict, serve, export."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.arguments import existing
from mcss.cli.terminal import (
    CaptureAddress,
    IndexAddress,
    JsonFile,
    RunPath,
    app,
    console,
    finish,
    load_model,
    show_table,
)
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.files import temporary_folder
from mcss.inference.export.export import ExportResult, ExportSettings, export_run
from mcss.inference.export.runtimes import ExportFormat
from mcss.inference.locate import Finders, parsed_box
from mcss.inference.outputs import parsed_formats, write_poses
from mcss.inference.overlays import write_overlay, write_sequence_overlay
from mcss.inference.pose_sequence import PoseAxes, PoseSequence, smooth
from mcss.inference.predict import (
    InputFile,
    capture_sequences,
    input_files,
    is_capture,
    predict_image,
    predict_sequence,
    predict_video,
)
from mcss.inference.rerun_view import write_rerun
from mcss.inference.room import in_room
from mcss.models.model import Model
from mcss.progress import RichProgress
from mcss.search.index import PoseIndex
from mcss.smoothing import SmoothingSettings
from mcss.sources.videos.video_folder import Videos
from mcss.video.detectors import DetectorName
from mcss.web.gallery import Gallery
from mcss.web.handlers import PageHandlers
from mcss.web.limits import Limits
from mcss.web.server import run_server
from mcss.web.worker import WorkerSettings

Detector = Annotated[DetectorName | Literal["whole"] | None, arg(metavar="DETECTOR")]

NO_INPUT = "{path}: no such file or folder; expected an image, a video, a folder of them, or a capture"


@dataclass(frozen=True)
class PredictOptions:
    """How people are found in images and videos, and what is written about them."""

    run: RunPath | None = None
    """Run folder or model file, by default the weights shipped with mcss."""
    formats: str = "json,csv"
    """Files to write for each input, some of json,csv,trc,bvh,npz,angles; angles writes the joint angles over time to
    NAME_angles.csv, for spreadsheets."""
    box: str | None = None
    """Bounding box of the person as X,Y,WIDTH,HEIGHT in pixels, for an image or for every frame of a video, instead of
    finding them."""
    find: Detector = None
    """Find people in images and videos with this detector, or take images `whole`. By default blazepose finds the
    largest person in an image, and in a video mcss follows the person who moves in front of the static camera;
    docs/real_footage.md says more."""
    detector_weights: Path | None = None
    """File with the weights of the detector, .safetensors or .pth. By default they come with mcss (blazepose) or from
    torchvision's hub."""
    fuse: bool = False
    """Treat the videos of the folder as synchronised views, laid out as for `mcss import videos`, and fuse the poses of
    all views of an instant into one. Captures are always fused."""
    turned: PoseAxes = "canonical"
    """Orientation of the written poses: canonical, where everybody faces the same way; view, upright as the camera
    sees the person (not for fused poses); or room, for captures with cameras: where the person is in the room."""
    overlay: bool = True
    """Write an image or video with the skeleton drawn over the person and beside it."""
    rerun: bool = False
    """Write a 3D view, NAME.rrd, which `rerun NAME.rrd` shows (needs the extra `rerun`)."""
    split: str | None = None
    """Predict only this split of a capture."""
    smoothing: SmoothingSettings = field(default_factory=SmoothingSettings)
    """Smoothing of the poses of videos and sequences over time."""


@dataclass(frozen=True)
class PredictedItem:
    """What was predicted and written for an image, a video or a sequence, as `--json` lists it."""

    source: str
    poses: int
    found: int
    """Number of images in which the person was found."""
    expected_error: float | None
    """Mean of the expected errors of the poses in mm; None for models without an uncertainty head."""
    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class FailedItem:
    """An input that could not be predicted, as `--json` lists it."""

    source: str
    failed: str
    """Why it failed."""


Item = PredictedItem | FailedItem


@app.command
def predict(
    source: Positional[Annotated[str, existing(str, NO_INPUT)]],
    out: Annotated[Path, arg(aliases=["-o"], metavar="FOLDER")],
    options: OmitArgPrefixes[PredictOptions] = PredictOptions(),
    json: JsonFile = None,
) -> None:
    """Predict 3D poses and embeddings of people in images and videos. Exit status 1 if any input failed.

    Args:
        source: An image, a video, a folder of them, or a capture.
        out: Folder for everything that is written.
        options: How people are found, and what is written.
        json: Also write a summary to this file.
    """
    parsed_formats(options.formats)
    finders = Finders.named(options.find, options.detector_weights)
    model = load_model(options.run)
    if is_capture(source):
        items = _predict_capture(model, Capture.open(source), out, options)
    elif options.fuse:
        items = _predict_fused(model, Path(source), out, options)
    else:
        items = _predict_files(model, input_files(Path(source)), out, options, finders)
    failed = [item for item in items if isinstance(item, FailedItem)]
    for item in failed:
        console.print(f"[red]Failed[/] {escape(item.failed)}", highlight=False, soft_wrap=True)
    console.print(f"{len(items) - len(failed)} of {len(items)} written to {out}.")
    finish({"model": model.name, "out": str(out), "items": [asdict(item) for item in items]}, json)
    if failed:
        sys.exit(1)


def _predict_files(
    model: Model, inputs: list[InputFile], out: Path, options: PredictOptions, finders: Finders
) -> list[Item]:
    box = None if options.box is None else parsed_box(options.box)

    def predict_file(file: InputFile) -> Item:
        if file.is_video:
            sequence = smooth(predict_video(model, file, box, finders.video, RichProgress()), options.smoothing)
        else:
            sequence = predict_image(model, file, box, finders.image)
        written = _write(sequence, out, options)
        if options.overlay:
            written.append(out / f"{file.name}_overlay{'.mp4' if file.is_video else '.jpg'}")
            write_overlay(sequence, file.path, written[-1])
        return _reported(sequence, written)

    return [_attempted(str(file.path), partial(predict_file, file)) for file in inputs]


def _predict_fused(model: Model, folder: Path, out: Path, options: PredictOptions) -> list[Item]:
    if options.find == "whole":
        raise ValueError("--find whole: not for the views of a moment; leave it out, or choose a detector.")
    with temporary_folder("mcss-views") as temporary:
        size = max(model.image_size, 16)
        settings = Videos(
            size=size,
            quality=95,
            test_fraction=0.0,
            find=options.find or "motion",
            detector_weights=options.detector_weights,
        )
        imported = settings.import_to(f"{temporary}/capture", folder, RichProgress())
        for note in imported.notes:
            console.print(f"[yellow]Note[/] {escape(note)}")
        return _predict_capture(model, imported.capture, out, options)


def _predict_capture(model: Model, capture: Capture, out: Path, options: PredictOptions) -> list[Item]:
    if options.find is not None and not options.fuse:
        raise ValueError("--find: the people in a capture are cropped already; leave it out.")
    if options.turned == "view" or options.box is not None:
        raise ValueError("--turned view, --box: not for captures and fused views; leave them out.")

    def predict_instants(name: str, instants: Instants) -> Item:
        sequence = smooth(predict_sequence(model, capture, name, instants, RichProgress()), options.smoothing)
        if options.turned == "room":
            sequence = in_room(sequence, capture, instants, RichProgress())
        written = _write(sequence, out, options)
        if options.overlay:
            written.append(out / f"{name}_overlay.mp4")
            write_sequence_overlay(sequence, capture, instants, written[-1])
        return _reported(sequence, written)

    sequences = capture_sequences(capture, options.split)
    return [_attempted(name, partial(predict_instants, name, instants)) for name, instants in sequences]


def _attempted(name: str, predict_input: Callable[[], Item]) -> Item:
    """Return what is predicted for an input, or why it failed: one bad file does not stop the others."""
    try:
        return predict_input()
    except ImportError:
        raise  # a package is missing, for the next input too
    except ValueError as error:
        text = str(error)
        return FailedItem(name, text if name in text else f"{name}: {text}")


def _write(sequence: PoseSequence, out: Path, options: PredictOptions) -> list[Path]:
    for note in sequence.notes:
        console.print(f"[yellow]Note[/] {escape(note)}", highlight=False, soft_wrap=True)
    written = write_poses(sequence, out, parsed_formats(options.formats), options.turned)
    if options.rerun:
        written.append(out / f"{sequence.name}.rrd")
        write_rerun(sequence, written[-1])
    return written


def _reported(sequence: PoseSequence, written: list[Path]) -> PredictedItem:
    """Print a line about the poses of an input, and return its entry in the summary."""
    errors, count = sequence.poses.error, len(sequence)
    expected_error = None if errors is None else round(float(errors.mean()), 1)
    said = [f"{escape(sequence.name)}: {count} {'pose' if count == 1 else 'poses'}"]
    x0, y0, x1, y1 = sequence.poses.crop_boxes[0]
    if count == 1 and sequence.found[0] and np.isfinite(x0):
        said.append(f"crop box {x0:.0f},{y0:.0f},{x1 - x0:.0f},{y1 - y0:.0f}")
    if expected_error is not None:
        said.append(f"expected error {expected_error:.0f} mm")
    if sequence.poses.orientation is not None and (unsure := int((~sequence.poses.orientation.sure).sum())):
        said.append("heading uncertain" + (f" in {unsure}" if count > 1 else ""))
    console.print(", ".join(said), highlight=False)
    return PredictedItem(
        source=sequence.source,
        poses=len(sequence),
        found=int(sequence.found.sum()),
        expected_error=expected_error,
        files=tuple(map(str, written)),
        notes=tuple(sequence.notes),
    )


@dataclass(frozen=True)
class ServeOptions:
    """What the web page offers, and where it is served."""

    run: RunPath | None = None
    """Run folder or model file, by default the model that the index was made with, or else the weights shipped with
    mcss."""
    find: Detector = None
    """Find people with this detector, or take images `whole`, as in `mcss predict`. By default blazepose finds the
    largest person in an image, and in a video mcss follows the person who moves in front of the static camera; visitors
    can draw a box in either."""
    detector_weights: Path | None = None
    """File with the weights of the detector, as in `mcss predict`."""
    index: IndexAddress | None = None
    """Index of `mcss index`, made with the same model, in which visitors can search by pose."""
    capture: CaptureAddress | None = None
    """Capture to search in where there is no index. With an index: the new place of a capture of it that was moved."""
    images: int = 6000
    """Number of images of the capture, evenly spread, that are embedded at the start where there is no index."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 admits everybody in your network, without a password."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    allow_host: tuple[str, ...] = ()
    """Other names by which browsers may call this server, such as the one that a proxy in front of it has."""
    limits: Limits = field(default_factory=Limits)
    """Limits on what visitors may upload and compute."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images: expected 1 or more, got {self.images}.")
        if not 0 <= self.port < 65536:
            raise ValueError(f"port: expected 0 to 65535, got {self.port}.")


@app.command
def serve(options: OmitArgPrefixes[ServeOptions] = ServeOptions()) -> None:
    """Serve a web page: drop an image or a video, see the pose in 3D, search by it. Needs no Internet.

    Args:
        options: What the page offers, and where it is served.
    """
    run: Path | str | None = options.run
    if run is None and options.index is not None:
        run = PoseIndex.open(options.index).model.run
    model = load_model(run)
    Finders.named(options.find, options.detector_weights)  # raises an error here rather than for the first visitor
    gallery: Gallery | None = None
    if options.index is not None:
        gallery = Gallery.of_index(options.index, model, options.capture)
    elif options.capture is not None:
        gallery = Gallery.of_capture(model, Capture.open(options.capture), options.images, RichProgress())

    if options.host not in ("127.0.0.1", "localhost", "::1"):
        console.print(
            f"[yellow]Warning[/] Everybody who can reach this computer at {escape(options.host)} can use this page, "
            "without a password and unencrypted, and see the images of the gallery. Only do this in a network where "
            "you trust everybody; without --host only this computer is served.",
            soft_wrap=True,
        )

    def started(address: str) -> None:
        console.print(f"Open [bold]{escape(address)}[/] in a browser. Ctrl-C stops.", soft_wrap=True)

    try:
        worker = WorkerSettings(run, options.find, options.detector_weights)
        handlers = PageHandlers(model.name, worker, gallery, options.limits, started)
        run_server(handlers, options.host, options.port, options.allow_host)
    except KeyboardInterrupt:
        console.print("Stopped; all temporary files are deleted.")


@app.command
def export(
    run: Positional[RunPath],
    format: ExportFormat,
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")],
    capture: CaptureAddress | None = None,
    settings: OmitArgPrefixes[ExportSettings] = ExportSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Export a trained network to a file for ONNX Runtime or OpenVINO, and check that it computes the same.

    Args:
        run: Run folder of `mcss train`, a model file, `hf:USER/NAME`, or `shipped`.
        format: Runtime that will run the file.
        out: The file to write: model.onnx; or model.xml, which model.bin accompanies.
        capture: Capture on whose images the file is checked, by default generated images.
        settings: Properties of the file, and how it is checked.
        json: Also write the result to this file.
    """
    opened = None if capture is None else Capture.open(capture)
    result = export_run(run, format, out, settings, opened, RichProgress())
    _show_export(result)
    finish(result.to_json(), json)


def _show_export(result: ExportResult) -> None:
    facts, parity = result.facts, result.parity
    side = str(facts.image_size)
    axes = ", ".join(("n", side, side, "3") if facts.layout == "nhwc" else ("n", "3", side, side))
    rows = [
        ("input image", f"uint8 ({axes}), RGB"),
        ("output pose", f"(n, {len(facts.joints)}, 3) {facts.unit}, {facts.frame}"),
        ("output embedding", f"(n, {facts.dim}), unit length"),
        ("precision", facts.precision),
        ("size", f"{result.megabytes:.1f} MB"),
        ("licence", facts.licence),
        ("checked on", f"{parity.images:,} images, {parity.source}"),
        ("largest joint difference", f"{parity.pose_difference:.3g} mm"),
        ("largest embedding difference", f"{parity.embedding_difference:.3g}"),
    ]
    if parity.n_mpjpe_original is not None and parity.n_mpjpe_exported is not None:
        rows += [
            ("N-MPJPE, original", f"{parity.n_mpjpe_original:.2f} mm"),
            ("N-MPJPE, exported", f"{parity.n_mpjpe_exported:.2f} mm ({parity.loss:+.2f} %)"),
        ]
    show_table("Export", ("property", "value"), rows)
    console.print(f"Written: {result.path}", soft_wrap=True)
