"""Measure training on this machine's GPU: time of a step, share spent waiting for images, memory, and a comparison.

    python scripts/measure_gpu.py captures/synthetic256 runs/gpu --minutes 7
    python scripts/measure_gpu.py captures/tiny runs/try --accelerator cpu --size 64 --minutes 0.5 --steps 3

First, steps of MCSS as the recipe paper+aug has them are timed, on a GPU in 32 bits, in bf16, compiled, and with JPEGs
that it decodes itself: how long they take, what share of that is spent waiting for the batch, and how much memory they
need. Then MCSS and its baseline, all stages trained
and as many steps each as fit into the remaining minutes, are trained with the labels of one subject and evaluated.
Everything is also written to figures.json in the given folder.
"""

import argparse
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from mcss.data.capture import Capture
from mcss.data.loading.batches import AugmentedPixels, prefetched
from mcss.data.loading.decoding import GPUDecoder, decodes_alike
from mcss.data.loading.pixels import StreamedPixels
from mcss.evaluation.evaluate import evaluate
from mcss.evaluation.predictions import EvaluationSettings
from mcss.files import write_json
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.methods.registry import load_estimator
from mcss.methods.supervised import Supervised
from mcss.models.prediction import NetworkPredictor
from mcss.progress import NO_PROGRESS
from mcss.training.data import TrainingData, images_of
from mcss.training.loop import train
from mcss.training.machine import Machine
from mcss.training.settings import Precision, TrainSettings, recipe

WARM_UP = 5
"""Steps that are not timed: the first ones fill caches and choose algorithms."""


@dataclass(frozen=True)
class StepTimes:
    """How training steps went."""

    precision: Precision
    compiled: bool
    decoder: str
    """Who decoded the images: processors or nvjpeg."""
    seconds_per_step: float
    waiting_share: float
    """Share of the time spent waiting for the next batch."""
    images_per_second: float
    peak_gb: float | None
    """Most memory of the GPU; None on a CPU."""


def settings_of(method: type[Method], capture: Capture, size: int, labels: str) -> TrainSettings:
    """Return the settings of the recipe paper+aug at an input size."""
    settings = recipe("paper+aug", method, capture.uri)
    network = replace(settings.network, image_size=size)
    return replace(settings, network=network, labels=labels, weights="random", validation=None)


def timed(
    settings: TrainSettings, capture: Capture, machine: Machine, steps: int, out: Path, itself: bool = False
) -> StepTimes:
    """Train a few steps without keeping anything, and time them.

    Args:
        settings: What is trained.
        capture: On what.
        machine: Where.
        steps: Steps that are timed.
        out: Folder of the log, if the machine has one.
        itself: Let the GPU decode its images itself.
    """
    fabric = machine.fabric(settings.precision, out)
    fabric.launch()
    data = TrainingData.read(settings, capture, NO_PROGRESS)
    torch.manual_seed(0)
    network = settings.method.build(settings.network, settings.weights)
    network.set_pose_statistics(data.labelled_poses(network.frame))
    network = network.to(fabric.device).to(memory_format=torch.channels_last)
    inputs = images_of(settings, network, capture, data.instants, data.labelled, NO_PROGRESS)
    assert isinstance(inputs, AugmentedPixels)
    if itself:
        inputs = replace(inputs, pixels=StreamedPixels(capture, capture.info.image_size, GPUDecoder(fabric.device)))
    source = data.source(settings, inputs)
    on_gpu = fabric.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    optimiser = torch.optim.AdamW(network.parameters(), fused=on_gpu)
    model, optimiser = fabric.setup(torch.compile(network) if machine.compile else network, optimiser)
    network.train()
    waited, images, started = 0.0, 0, time.perf_counter()
    batches = prefetched(source, range(WARM_UP + steps))
    for step in range(WARM_UP + steps):
        if step == WARM_UP:
            _finish_work(on_gpu)
            waited, images, started = 0.0, 0, time.perf_counter()
        before = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - before
        losses = settings.method.step(model, network, batch.to(fabric.device), None)
        optimiser.zero_grad()
        fabric.backward(losses.total)
        optimiser.step()
        images += len(batch.images)
        float(losses.total.detach())  # waits for the GPU, or the queue of work would hide the waiting
    _finish_work(on_gpu)
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() / 1e9 if on_gpu else None
    decoder = "nvjpeg" if itself else "processors"
    return StepTimes(
        settings.precision, machine.compile, decoder, seconds / steps, waited / seconds, images / seconds, peak
    )


def _finish_work(on_gpu: bool) -> None:
    if on_gpu:
        torch.cuda.synchronize()


def compared(method: type[Method], capture: Capture, machine: Machine, out: Path, given: argparse.Namespace,
             steps: int, precision: Precision) -> dict[str, float]:  # fmt: skip
    """Train a method and return its errors on the test split in mm."""
    settings = settings_of(method, capture, given.size, given.labels)
    settings = replace(settings, precision=precision, optimiser=replace(settings.optimiser, steps=steps))
    run = train(settings, out / method.name, machine=machine)
    network = load_estimator(run)
    network = network.to("cuda" if torch.cuda.is_available() and given.accelerator != "cpu" else "cpu")
    looked = EvaluationSettings(max_instants=given.instants)
    found = evaluate(NetworkPredictor(network, capture), capture, "test", looked)
    assert found.pose is not None
    scores = found.pose.over_poses
    return {"n_mpjpe": scores.n_mpjpe, "mpjpe": scores.mpjpe, "pa_mpjpe": scores.pa_mpjpe}


def main() -> None:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture", help="a capture with the splits train and test")
    parser.add_argument("out", type=Path, help="folder for figures.json and the runs")
    parser.add_argument("--accelerator", default="auto", help="cpu, cuda, mps or auto")
    parser.add_argument("--size", type=int, default=224, help="width and height of the network's input")
    parser.add_argument("--steps", type=int, default=50, help="steps that are timed")
    parser.add_argument("--minutes", type=float, default=7.0, help="time for all of it")
    parser.add_argument("--labels", default="S1", help="the labelled subject")
    parser.add_argument("--instants", type=int, default=500, help="test instants that are evaluated")
    given = parser.parse_args()
    started = time.perf_counter()
    capture, machine = Capture.open(given.capture), Machine(given.accelerator)
    name = "CPU" if given.accelerator == "cpu" or not torch.cuda.is_available() else torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, {given.size} px")
    base = settings_of(MCSS, capture, given.size, given.labels)
    ways: list[tuple[Precision, bool, bool]] = [("32-true", False, False)]
    if name != "CPU":
        ways += [("bf16-mixed", False, False), ("bf16-mixed", True, False)]
        if decodes_alike(GPUDecoder(torch.device("cuda", 0)), capture, capture.info.image_size):
            ways.append(("bf16-mixed", False, True))
    measured = []
    for precision, compiled, itself in ways:
        at = replace(machine, compile=compiled)
        times = timed(replace(base, precision=precision), capture, at, given.steps, given.out, itself)
        measured.append(times)
        peak = "" if times.peak_gb is None else f", {times.peak_gb:.1f} GB at most"
        way = f"{precision}{', compiled' if compiled else ''}, decoded by {times.decoder}"
        print(
            f"{way}: {1000 * times.seconds_per_step:.1f} ms a step, {times.images_per_second:.0f} images a second, "
            f"{100 * times.waiting_share:.1f} % spent waiting{peak}",
            flush=True,
        )
    fastest = min(measured, key=lambda times: times.seconds_per_step)
    left = 60 * given.minutes - (time.perf_counter() - started)
    # A quarter of the time remains for evaluation; the baseline's steps are shorter than MCSS's.
    steps = max(1, int(0.75 * left / (2 * fastest.seconds_per_step)))
    print(f"{steps} steps of each method fit")
    errors = {}
    machine = replace(machine, compile=fastest.compiled)
    for method in (MCSS, Supervised):
        errors[method.name] = compared(method, capture, machine, given.out, given, steps, fastest.precision)
        print(method.name, ", ".join(f"{measure} {value:.1f} mm" for measure, value in errors[method.name].items()))
    figures = {
        "device": name,
        "torch": torch.__version__,
        "size": given.size,
        "capture": capture.fingerprint,
        "times": [asdict(times) for times in measured],
        "steps": steps,
        "errors": errors,
    }
    write_json(given.out / "figures.json", figures)


if __name__ == "__main__":
    main()
