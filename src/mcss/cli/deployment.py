"""Verbs that carry a trained network elsewhere."""

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from mcss.cli.terminal import JsonFile, app, console, finish, show_table
from mcss.data.capture import Capture
from mcss.inference.export.export import Export, ExportSettings, export_run
from mcss.inference.export.runtimes import ExportFormat
from mcss.progress import RichProgress


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
    _show(result)
    finish(result.to_json(), json)


def _show(result: Export) -> None:
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
