"""Verbs that use a trained model: predict, serve, export."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from rich.markup import escape
from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.terminal import JsonFile, app, console, finish, load_model, show_table
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.inference.export.export import Export, ExportSettings, export_run
from mcss.inference.export.runtimes import ExportFormat
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
from mcss.web.gallery import CaptureGallery, Gallery, IndexGallery
from mcss.web.handlers import Studio
from mcss.web.limits import Limits
from mcss.web.server import run_server
from mcss.web.worker import Means


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


@dataclass(frozen=True)
class ServeOptions:
    """What is served, and where."""

    run: Path | None = None
    """A run folder or model file; the weights shipped with mcss by default."""
    find: DetectorName | None = None
    """Find people with this detector, as for `mcss predict`. By default an image is taken whole, and in a video
    whoever moves before the static camera is followed; visitors can draw a box in either."""
    detector_weights: Path | None = None
    """A file of the detector's weights, as for `mcss predict`."""
    index: str | None = None
    """An index of `mcss index`, made with the same run, whose images can be searched by pose."""
    capture: str | None = None
    """Without an index: a capture to search in. With one: where a capture of it is now, if it has been moved."""
    images: int = 6000
    """Without an index: so many of the capture's images are embedded at the start, evenly spread over it."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everybody in your network in, without a password."""
    port: int = 7860
    """Likewise; 0 takes any that is free."""
    limits: Limits = field(default_factory=Limits)
    """How much visitors may ask for."""

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"images: expected 1 or more, came {self.images}.")
        if not 0 <= self.port < 65536:
            raise ValueError(f"port: expected 0 to 65535, came {self.port}.")


@app.command
def serve(server: OmitArgPrefixes[ServeOptions] = ServeOptions()) -> None:
    """A web page: drop an image or a video, see the pose in 3D, and search by it. Asks nothing of the network.

    Args:
        server: What is served, and where.
    """
    model = load_model(server.run)
    if server.find is not None:
        person_detector(server.find, server.detector_weights)  # so that what is wrong is said here
    gallery: Gallery | None = None
    if server.index is not None:
        gallery = IndexGallery.open(server.index, model, server.capture)
    elif server.capture is not None:
        gallery = CaptureGallery.embedded(model, Capture.open(server.capture), server.images, RichProgress())

    def started(address: str) -> None:
        console.print(f"Open [bold]{escape(address)}[/] in a browser. Ctrl-C stops.", soft_wrap=True)

    try:
        means = Means(server.run, server.find, server.detector_weights)
        run_server(Studio(model.name, means, gallery, server.limits, started), server.host, server.port)
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left behind.")


@app.command
def export(
    run: Positional[Path],
    format: ExportFormat,
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE")],
    capture: str | None = None,
    settings: OmitArgPrefixes[ExportSettings] = ExportSettings(),  # noqa: B008 (frozen)
    json: JsonFile = None,
) -> None:
    """Write a trained network as one file for ONNX Runtime or OpenVINO, if it computes the same as the original.

    Args:
        run: A run folder of `mcss train`.
        format: For which runtime.
        out: The file to write: model.onnx, or model.xml, beside which comes model.bin.
        capture: A capture on whose images the file is checked; without one they are generated.
        settings: What the file is to be, and how it is checked.
        json: Also write the result to this file.
    """
    opened = None if capture is None else Capture.open(capture)
    result = export_run(run, format, out, settings, opened, RichProgress())
    _show_export(result)
    finish(result.to_json(), json)


def _show_export(result: Export) -> None:
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
        ("a joint moves by at most", f"{parity.pose_difference:.3g} mm"),
        ("the embedding by at most", f"{parity.embedding_difference:.3g}"),
    ]
    if parity.n_mpjpe_original is not None and parity.n_mpjpe_exported is not None:
        rows += [
            ("N-MPJPE, original", f"{parity.n_mpjpe_original:.2f} mm"),
            ("N-MPJPE, exported", f"{parity.n_mpjpe_exported:.2f} mm ({parity.loss:+.2f} %)"),
        ]
    show_table("Export", ("", ""), rows)
    console.print(f"Written: {result.path}", soft_wrap=True)
