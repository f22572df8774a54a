"""Time one image in PyTorch, ONNX Runtime, OpenVINO and MediaPipe Full, on the same images in one run.

    python benchmarks/inference.py RUN --capture C [--docs docs]

Everything is exported anew, as by `mcss export`, so that the errors in the table are those of the files that are timed.
Systems take turns, round by round, and the median over the rounds is reported. *Processor* milliseconds add up all
threads; with one thread on an otherwise idle machine they equal elapsed milliseconds. An image is a decoded crop as the
capture stores it, and scaling it to the network's size is part of the time. MediaPipe also has to find the person,
which has been done for our crops; the table says so.

MediaPipe is installed into an environment of its own at the first run (see scripts/write_mediapipe_landmarks.py). If
that is not possible, the rest is measured without it.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch

from mcss import metrics
from mcss.data.capture import Capture
from mcss.data.provenance import describe_machine
from mcss.evaluation.predictions import EvaluationSettings, evaluated_instants, target_poses
from mcss.inference.export.export import ExportSettings, ImageNetwork, export_run
from mcss.inference.export.runtimes import ENDINGS, ExportedModel
from mcss.models.model_file import load_model
from mcss.processes import processors
from mcss.progress import RichProgress

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from write_mediapipe_landmarks import (
    VERSION,
    MediaPipeError,
    MediaPipeProcess,
    mediapipe,
    shared_joints,
    shared_pa_mpjpe,
)
from write_table import write_between

BATCHES = (1, 32)
MEDIAPIPE = f"MediaPipe Full {VERSION}, finding the person too"
TARGET = 0.2
Network = Callable[[np.ndarray], np.ndarray]


@dataclass
class Row:
    """What is measured of one system."""

    system: str
    megabytes: float | None = None
    n_mpjpe: float | None = None
    pa_mpjpe_shared: float | None = None
    """PA-MPJPE in mm over the joints that MediaPipe has too, in images in which it found somebody."""
    found: float = 1.0
    processor_ms: dict[str, float] = field(default_factory=dict)
    """Processor milliseconds per image, by "batch B, T threads"."""
    elapsed_ms: dict[str, float] = field(default_factory=dict)


def eager(run: Path, channels_last: bool) -> Network:
    graph = ImageNetwork(load_model(run), "nhwc").eval()
    if channels_last:
        graph = graph.to(memory_format=torch.channels_last)

    def predict(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            images = torch.from_numpy(pixels)
            if not channels_last:  # the memory layout of a program that ignores memory formats
                images = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
            return graph(images)[0].numpy()

    return predict


def exported(path: Path, threads: int) -> Network:
    run = ExportedModel.open(path, threads).run
    return lambda images: run(images)[0]


def scaled(images: np.ndarray, size: int) -> np.ndarray:
    return np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in images])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the processor seconds of all threads, and the elapsed seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - processor, time.perf_counter() - wall


@contextlib.contextmanager
def compared() -> Iterator[MediaPipeProcess | None]:
    """Run MediaPipe, or print a note and give None if that is not possible."""
    with contextlib.ExitStack() as stack:
        process = None
        try:
            process = stack.enter_context(mediapipe())
        except MediaPipeError as error:
            print(f"Without MediaPipe: {error}")
        yield process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run, a model file, or shipped")
    parser.add_argument("--capture", required=True)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--instants", type=int, default=250, help="evaluated instants, in all views")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    capture = Capture.open(options.capture)
    instants = evaluated_instants(capture, options.split, EvaluationSettings(max_instants=options.instants))
    instants = instants.take(instants.heading_valid)
    instant, view = np.nonzero(instants.rows >= 0)
    images = capture.decode(instants.rows[instant, view])
    target = target_poses(instants)[torch.from_numpy(instant)]

    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder, compared() as other:
        files = {}
        for format, name in (("onnx", "ONNX Runtime"), ("openvino", "OpenVINO")):
            for int8 in (False, True):
                file = Path(folder) / f"{format}{int8}{ENDINGS[format]}"
                # The table says what is lost, so that also files are timed that an export would refuse.
                settings = ExportSettings(int8=int8, split=options.split, instants=options.instants, max_loss=5)
                result = export_run(options.run, format, file, settings, capture, RichProgress())
                system = f"{name} {'int8' if int8 else 'float32'}"
                rows[system] = Row(system, megabytes=result.megabytes)
                files[system] = file
        size = result.facts.image_size
        small = scaled(images, size)
        there = np.ones(len(images), bool)
        if other is not None:
            landmarks = other.landmarks(images)
            there = landmarks.found
            errors = shared_pa_mpjpe(torch.from_numpy(landmarks.shared()), target)
            rows[MEDIAPIPE] = Row(MEDIAPIPE, pa_mpjpe_shared=errors[there].mean().item(), found=there.mean().item())
        counts = [threads for threads in (1, 2) if threads <= processors()]
        for threads in counts:
            torch.set_num_threads(threads)
            networks = {
                "PyTorch": eager(options.run, False),
                "PyTorch, channels_last": eager(options.run, True),
                **{system: exported(file, threads) for system, file in files.items()},
            }
            if threads == 1:
                for system, network in networks.items():
                    row = rows.setdefault(system, Row(system))
                    pose = torch.from_numpy(
                        np.concatenate([network(small[i : i + 50]) for i in range(0, len(small), 50)])
                    )
                    row.n_mpjpe = metrics.n_mpjpe(pose[:, 1:], target[:, 1:]).mean().item()
                    row.pa_mpjpe_shared = shared_pa_mpjpe(shared_joints(pose), target)[there].mean().item()
            for batch in BATCHES:
                measure(rows, networks, other if threads == 1 else None, images, size, batch, threads, options.rounds)
    report(rows, options, capture, len(images), counts)


def measure(
    rows: dict[str, Row],
    networks: dict[str, Network],
    other: MediaPipeProcess | None,
    images: np.ndarray,
    size: int,
    batch: int,
    threads: int,
    rounds: int,
) -> None:
    found: dict[str, list[tuple[float, float]]] = {}
    for number in range(rounds + 2):  # the first two warm up
        start = number * batch % (len(images) - batch + 1)
        part = images[start : start + batch]
        for system, network in networks.items():
            seconds = timed(lambda network=network, part=part: network(scaled(part, size)))
            found.setdefault(system, []).append((seconds[0] / batch, seconds[1] / batch))
        if other is not None:
            landmarks = other.landmarks(part[:4])  # it takes images one by one, so four are enough
            found.setdefault(MEDIAPIPE, []).append((landmarks.processor.mean(), landmarks.wall.mean()))
    for system, seconds_each in found.items():
        key = f"batch {batch}, {threads} thread{'s' * (threads > 1)}"
        rows[system].processor_ms[key] = 1000 * statistics.median(s[0] for s in seconds_each[2:])
        rows[system].elapsed_ms[key] = 1000 * statistics.median(s[1] for s in seconds_each[2:])


def report(rows: dict[str, Row], options: argparse.Namespace, capture: Capture, images: int, counts: list[int]) -> None:
    order = sorted(rows.values(), key=lambda row: -row.processor_ms["batch 1, 1 thread"])
    base = rows[MEDIAPIPE].processor_ms["batch 1, 1 thread"] if MEDIAPIPE in rows else None
    packages = ("mcss", "torch", "onnxruntime", "openvino", "nncf")
    versions = {name: version(name) for name in packages}
    about = {
        "capture": capture.fingerprint,
        "split": options.split,
        "images": images,
        "rounds": options.rounds,
        "machine": describe_machine(),
        "date": date.today().isoformat(),
        "versions": versions,
        "times_of_mediapipe": {
            row.system: row.processor_ms["batch 1, 1 thread"] / base for row in order if base is not None
        },
    }
    results = options.docs / "results" / "inference.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps({**about, "rows": [asdict(row) for row in order]}, indent=2) + "\n")

    keys = [f"batch {b}, {t} thread{'s' * (t > 1)}" for t in counts for b in BATCHES]
    heads = ["system", "MB", *(f"ms, {key}" for key in keys), "× MediaPipe", "N-MPJPE", "PA-MPJPE, 12 joints"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in order:
        clock = {key: row.processor_ms if key.endswith("1 thread") else row.elapsed_ms for key in keys}
        cells = [row.system, number(row.megabytes, 1), *(number(clock[key].get(key), 2) for key in keys)]
        cells.append("–" if base is None else f"{row.processor_ms['batch 1, 1 thread'] / base:.2f}")
        cells += [number(row.n_mpjpe, 1), number(row.pa_mpjpe_shared, 1)]
        lines.append(f"| {' | '.join(cells)} |")
    best = min(row.processor_ms["batch 1, 1 thread"] for row in order)
    note = (
        f"Milliseconds per image, median of {options.rounds} rounds: of processor time with one thread"
        f"{', elapsed with two' if len(counts) > 1 else ''}. Errors in mm on {images:,} "
        f"images of the split {options.split} of the capture `{capture.fingerprint[:12]}`."
    )
    if base is not None:
        note += (
            f" MediaPipe found somebody in {100 * rows[MEDIAPIPE].found:.1f} % of them; PA-MPJPE is over these, and "
            f"over the limb joints that both have. The quickest takes "
            f"{best / base:.2f} times as long as MediaPipe (aim: {TARGET})."
        )
    note += (
        f" Written by `benchmarks/inference.py` on {about['date']} ({about['machine']}, "
        f"{', '.join(f'{name} {number}' for name, number in versions.items())})."
    )
    text = "\n".join([*lines, "", note])
    print(text)
    write_between(options.docs / "export.md", "inference", text)


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
