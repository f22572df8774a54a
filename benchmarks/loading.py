"""Does loading slow training down? Compare a step through the real data path with the bare network, in one run.

    python benchmarks/loading.py [--capture CAPTURE] [--json FILE]
    python benchmarks/loading.py --feed --size 224 [--capture CAPTURE] [--json docs/results/feeding.json]

Bare: the forward and backward pass of the network on one batch in memory. Through the data path: the same network,
but every step gets its own batch from a capture, with sampling, the pixel store and augmentation, and with one batch
prepared ahead in the background. Blocks of both alternate, so that other work on the machine affects both; the ratio
of each pair of blocks is taken, and the median of the ratios is reported. The aim is at most 1.05.

With --feed: how many images a second of processor time the streamed path delivers, read and decoded, for a GPU that
augments them itself, and augmented by the processor. A GPU that takes n images a second needs n divided by that many
cores. Then MCSS is trained a few steps by the recipe paper, its images streamed, and the log of that run says which
share of the time it waited for them; the aim is at most 0.05.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from torch import Tensor, nn

from mcss.data.capture import Capture
from mcss.data.labels import Labels, labelled_images
from mcss.data.loading.augmentation import AugmentationSettings, source_size
from mcss.data.loading.batches import AugmentedPixels, BatchSource, prefetched
from mcss.data.loading.decoding import ProcessorDecoder
from mcss.data.loading.pixels import DecodedPixels, StreamedPixels
from mcss.data.loading.sampling import MetricSettings, metric_plan, pose_plan
from mcss.data.provenance import describe_machine
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.data.writer import CaptureWriter
from mcss.files import write_json
from mcss.methods.mcss import MCSS
from mcss.training.checkpoints import METRICS
from mcss.training.loop import train
from mcss.training.machine import Machine
from mcss.training.metrics_log import read_metrics
from mcss.training.settings import recipe

VIEWS = ("1", "2", "3", "4")


def made_capture(folder: Path, size: int, instants: int = 400, subjects: int = 2) -> Capture:
    """Make a capture of smooth random images whose JPEGs are about as large as photographs'."""
    rng = np.random.default_rng(0)
    info = CaptureInfo("benchmark", "CC0-1.0", size, {"train": (Selector(),)})
    writer = CaptureWriter.open(folder, info=info)
    for subject in range(subjects):
        frames = []
        for frame in range(instants):
            pose = rng.normal(0, 300, (17, 3)).astype(np.float32)
            for view in VIEWS:
                coarse = rng.integers(0, 256, (size // 4, size // 4, 3), np.uint8)
                image = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
                jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
                box = (0.0, 0.0, float(size), float(size))
                frames.append(Frame(f"S{subject + 1}", "One", "One", frame, frame / 10, view, jpeg, box, pose))
        writer.append(frames)
    return writer.finish()


def block(network: nn.Module, batches: Iterable[Tensor]) -> float:
    """Return the seconds for a forward and backward pass of every batch, including the making of the batches."""
    start = time.perf_counter()
    for images in batches:
        network.zero_grad(set_to_none=True)
        network(images).square().mean().backward()
    return time.perf_counter() - start


def seconds(make: Callable[[], object], repeats: int = 5) -> float:
    """Return the median seconds of one call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        make()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def fed(capture: Capture, size: int, instants: int, labelled: int, steps: int) -> dict[str, float]:
    """Return images a second of processor time, left to a GPU to augment and augmented here."""
    chosen = capture.instants("train")
    metric = metric_plan(chosen, MetricSettings(instants=instants))
    pose = pose_plan(labelled_images(chosen, Labels.parse("all")))
    pixels = StreamedPixels(capture, source_size(capture.info.image_size, size), ProcessorDecoder(1))
    figures = {}
    for name, on_device in (("raw", True), ("augmented", False)):
        images = AugmentedPixels(pixels, AugmentationSettings(), size, on_device=on_device)
        source = BatchSource(chosen, images, 0, metric, pose, labelled)
        source.batch(0)
        start = time.process_time()
        count = sum(len(source.batch(step).images) for step in range(1, steps + 1))
        figures[f"{name}_images_per_core_s"] = count / (time.process_time() - start)
    return figures


def trained(capture: Capture, size: int, steps: int) -> dict[str, float]:
    """Train by the recipe paper, its images streamed, and return the share of the time spent waiting for them."""
    settings = recipe("paper", MCSS, capture.uri)
    settings = replace(
        settings,
        network=replace(settings.network, image_size=size),
        weights="random",
        validation=None,
        labels="all",
        optimiser=replace(settings.optimiser, steps=1 + steps),  # the first one is not counted
        log_every=1,
    )
    with tempfile.TemporaryDirectory() as folder:
        run = train(settings, Path(folder) / "run", machine=Machine("cpu", memory_gb=0))
        lines = read_metrics(run / METRICS)[1:]
    return {"waiting": statistics.fmean(line["waiting"] for line in lines), "trained_steps": steps}


def measure(capture: Capture, size: int, instants: int, labelled: int, steps: int, rounds: int) -> dict[str, object]:
    """Measure all figures of the benchmark."""
    chosen = capture.instants("train")
    start = time.perf_counter()
    kept = DecodedPixels.decode(capture, chosen.rows, size)
    decoding = time.perf_counter() - start
    metric = metric_plan(chosen, MetricSettings(instants=instants))
    pose = pose_plan(labelled_images(chosen, Labels.parse("all")))

    def source(pixels: DecodedPixels | StreamedPixels) -> BatchSource:
        images = AugmentedPixels(pixels, AugmentationSettings(), size)
        return BatchSource(chosen, images, 0, metric, pose, labelled)

    stores = {"in_memory": source(kept), "streamed": source(StreamedPixels(capture, size))}
    network = timm.create_model("tf_efficientnet_lite0", num_classes=128).to(memory_format=torch.channels_last)
    ready = stores["in_memory"].batch(0).images
    block(network, [ready] * 2)
    bare: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in stores}
    for r in range(rounds):
        for name, batches in stores.items():
            path = prefetched(batches, range(r * steps, (r + 1) * steps))
            # Which goes first alternates, so that a machine that slows down favours neither.
            if r % 2:
                through = block(network, (b.images for b in path))
                bare.append(block(network, [ready] * steps))
            else:
                bare.append(block(network, [ready] * steps))
                through = block(network, (b.images for b in path))
            ratios[name].append(through / bare[-1])
    bare_step, batch = statistics.median(bare) / steps, seconds(lambda: stores["in_memory"].batch(7))
    return {
        "ratio": statistics.median(ratios["in_memory"]),
        "ratio_streamed": statistics.median(ratios["streamed"]),
        "ratios": ratios,
        "ratio_without_overlap": 1 + batch / bare_step,
        "bare_step_s": bare_step,
        "batch_s": batch,
        "batch_streamed_s": seconds(lambda: stores["streamed"].batch(7)),
        "decoding_images_per_s": len(kept.pixels) / decoding,
        "store_mb": kept.pixels.numel() / 1e6,
        "batch": len(ready),
        "size": size,
        "steps": steps,
        "rounds": rounds,
        "network": "tf_efficientnet_lite0",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "processor": platform.processor(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", help="a finished capture; without it a temporary one is made")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--instants", type=int, default=33, help="instants of the metric batch, two views each")
    parser.add_argument("--labelled", type=int, default=22, help="labelled images in a batch")
    parser.add_argument("--steps", type=int, default=2, help="steps in a block")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--feed", action="store_true", help="measure what the streamed path delivers")
    parser.add_argument("--json", type=Path, help="write the figures there")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        capture = Capture.open(a.capture) if a.capture else made_capture(Path(folder), a.size)
        if a.feed:
            delivered = fed(capture, a.size, a.instants, a.labelled, 5 * a.steps)
            made = {"size": a.size, "threads": torch.get_num_threads(), "machine": describe_machine()}
            figures = {**delivered, **trained(capture, a.size, a.steps), **made}
            if a.json:
                write_json(a.json, figures)
            print(json.dumps(figures))
            return
        figures = measure(capture, a.size, a.instants, a.labelled, a.steps, a.rounds)
    if a.json:
        a.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"bare step             {figures['bare_step_s']:.3f} s ({figures['batch']} images of {a.size} px)")
    print(f"making a batch        {figures['batch_s']:.3f} s from memory, {figures['batch_streamed_s']:.3f} s streamed")
    print(f"decoding              {figures['decoding_images_per_s']:.0f} images/s")
    print(f"ratio, from memory    {figures['ratio']:.3f} (aim: at most 1.05)")
    print(f"  had nothing overlapped {figures['ratio_without_overlap']:.3f}")
    print(f"ratio, streamed       {figures['ratio_streamed']:.3f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
