"""Do two processes that train together keep up with one that has both processors? Images a second, on an idle machine.

    python benchmarks/processes.py [--capture CAPTURE] [--recipe fast] [--steps 60] [--json docs/results/ddp_speed.json]

Runs of `mcss train mcss` with --devices 1, and all processors for it, alternate with runs with --devices 2, and one
processor each; only the steps themselves are timed, not the starts of processes and not reading. Each process takes a
batch of its own, so that two see twice the images in a step. The figure is the median of the rounds' ratios; the aim
is at least 0.9. The machine has to be idle: other work takes time from both in different measure.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from loading import made_capture

from mcss.data.provenance import describe_machine
from mcss.files import write_json
from mcss.processes import processors
from mcss.training.metrics_log import read_metrics

WARM_UP = 10
"""Steps that are not timed."""


def images_per_second(capture: str, out: Path, recipe: str, devices: int, steps: int, size: int) -> float:
    """Train in a new process and return the images a second after the first steps."""
    command = [
        str(Path(sys.executable).with_name("mcss")), "train", "mcss", "--capture", capture, "--recipe", recipe,
        "--weights", "random", "--image-size", str(size), "--steps", str(WARM_UP + steps), "--log-every", "1",
        "--validate-every", "1000000", "--accelerator", "cpu", "--devices", str(devices), "--out", str(out),
    ]  # fmt: skip
    threads = str(processors() // devices)
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONWARNINGS": "ignore"}
    environment |= {"MCSS_CACHE": str(out.parent / "cache"), "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    lines = [line for line in read_metrics(out / "metrics.jsonl") if "images_per_second" in line]
    before, last = lines[WARM_UP - 1], lines[-1]
    return float((last["images"] - before["images"]) / (last["seconds"] - before["seconds"]))


def main() -> None:
    """Measure in turns, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", help="a finished capture; without it a temporary one is made")
    parser.add_argument("--recipe", default="fast", choices=("fast", "paper"))
    parser.add_argument("--size", type=int, default=96, help="width and height of the network's input")
    parser.add_argument("--steps", type=int, default=60, help="steps that are timed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=Path("docs/results/ddp_speed.json"))
    given = parser.parse_args()
    rounds: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        capture = given.capture or made_capture(Path(folder) / "capture", 128).uri
        for number in range(given.rounds):
            order = (1, 2) if number % 2 == 0 else (2, 1)
            figures = {
                devices: images_per_second(
                    capture, Path(folder, f"{number}-{devices}"), given.recipe, devices, given.steps, given.size
                )
                for devices in order
            }
            rounds.append({"one": figures[1], "two": figures[2], "ratio": figures[2] / figures[1]})
            print(
                f"one {figures[1]:.1f}, two {figures[2]:.1f} images a second: {figures[2] / figures[1]:.3f}", flush=True
            )
    ratio = statistics.median(each["ratio"] for each in rounds)
    print(f"ratio {ratio:.3f} (aim: at least 0.9)")
    command = f"python benchmarks/processes.py --recipe {given.recipe} --size {given.size} --steps {given.steps}"
    about = {"recipe": given.recipe, "size": given.size, "steps": given.steps, "command": command}
    write_json(given.json, {"ratio": ratio, "rounds": rounds, **about, "machine": describe_machine()})


if __name__ == "__main__":
    main()
