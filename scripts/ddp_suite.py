"""Train every method in two processes together, stop and kill them, and compare: docs/results/ddp.json.

The processes use processors, and Gloo between them. A run that goes on from a checkpoint, or after one of its processes
was killed, must get the weights of an undisturbed one; so must one that torchrun, SLURM or Ray has started. SLURM is
simulated: two processes get the variables that srun would set.

python scripts/ddp_suite.py
"""

import argparse
import hashlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "training")]

import torch  # noqa: E402
from test_two_processes import in_two_processes, variables  # noqa: E402

from ddp_for_tests import arguments  # noqa: E402
from mcss.files import write_json  # noqa: E402
from methods_for_tests import METHODS_BY_NAME, made  # noqa: E402

with socket.socket() as _probe:
    _probe.bind(("127.0.0.1", 0))
    PORT = str(_probe.getsockname()[1])


def same(one: Path, other: Path) -> bool:
    """Whether two runs have left the same model, byte for byte."""
    weights = [hashlib.sha256((run / "model.safetensors").read_bytes()).digest() for run in (one, other)]
    return weights[0] == weights[1]


def killed(rank: int, place: Path, capture: str, whole: Path, *options: str) -> dict[str, Any]:
    """Train, have one of the processes killed, and go on."""
    run = place / f"killed-{rank}{''.join(options)}"
    done = in_two_processes(place, capture, str(run), str(rank), *options)
    words = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    again = in_two_processes(place, capture, str(run), "none", *options)
    return {
        "code": done.returncode,
        "tracebacks": done.stderr.count("Traceback"),
        "said": words[0].replace(str(place), "…") if words else "",
        "resumed": again.returncode == 0,
        "identical": again.returncode == 0 and same(run, whole),
    }


def killed_gathering(place: Path, capture: str, whole: Path) -> dict[str, Any]:
    """Kill a training whose processes compare their images with each other's, and go on."""
    gathered, options = place / "gathered", ("--gather", "--min-gap", "0.1")
    if (done := in_two_processes(place, capture, str(gathered), "none", *options)).returncode:
        return {"code": done.returncode, "tracebacks": 0, "said": done.stderr[-1500:], "identical": False}
    return killed(1, place, capture, gathered, *options)


def started_by(name: str, place: Path, capture: str, whole: Path) -> dict[str, Any]:
    """Train in two processes that another program has started."""
    run = place / name
    train, environment = arguments(capture, str(run)), variables(place)
    own = [sys.executable, "-m", "mcss", "train"]
    match name:
        case "torchrun":
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", PORT]
            commands = [([*torchrun, "-m", "mcss", "train", *train], environment)]
        case "ray":
            head = ["--machines", "1", "--processes", "2", "--address", "local"]
            devices = train.index("--devices")  # the script states them
            rest = [*train[: devices - 2], *train[devices + 2 :]]
            commands = [([sys.executable, str(ROOT / "scripts" / "train_on_ray.py"), *head, "--", *rest], environment)]
        case _:
            job = {
                "SLURM_NTASKS": "2",
                "SLURM_NTASKS_PER_NODE": "2",
                "SLURM_JOB_ID": "12345",
                "SLURM_JOB_NAME": "poses",
            }
            node = {"SLURM_NODELIST": "localhost", "SLURM_NODEID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": PORT}
            commands = [
                ([*own, *train], {**environment, **job, **node, "SLURM_PROCID": rank, "SLURM_LOCALID": rank})
                for rank in ("0", "1")
            ]
    processes = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, env in commands
    ]
    words = [process.communicate(timeout=600)[0] for process in processes]
    codes = [process.returncode for process in processes]
    if any(codes):
        return {"codes": codes, "identical": False, "said": words[0][-1500:]}
    return {"codes": codes, "identical": same(run, whole)}


def resumed(place: Path, capture: str, whole: Path) -> dict[str, Any]:
    """Train all methods, and go on from their checkpoints."""
    done = in_two_processes(place, capture, str(place / "runs"))
    if done.returncode:
        return {"methods": len(METHODS_BY_NAME), "identical": 0, "said": done.stderr[-1500:]}
    runs = [place / "runs" / name for name in METHODS_BY_NAME]
    return {"methods": len(runs), "identical": sum(same(run / "whole", run / "resumed") for run in runs)}


PARTS: dict[str, Callable[[Path, str, Path], dict[str, Any]]] = {
    "killed with --gather": killed_gathering,
    "resumed": resumed,
    **{f"started by {name}": partial(started_by, name) for name in ("torchrun", "slurm", "ray")},
    **{f"killed rank {rank}": partial(killed, rank) for rank in (0, 1)},
}
"""What is tried; each gets a folder, the address of a capture and an undisturbed run."""


def main() -> None:
    """Try every part that the results lack, and write what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="begin no part after that")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "ddp.json")
    given = parser.parse_args()
    begun = time.monotonic()
    told = json.loads(given.out.read_text()) if given.out.exists() else {"processes": 2, "torch": torch.__version__}
    with tempfile.TemporaryDirectory(prefix="mcss-ddp-") as folder:
        place = Path(folder)
        capture, whole = made(place / "capture", ("S2", "S3")).uri, place / "whole"
        if (done := in_two_processes(place, capture, str(whole), "none")).returncode:
            raise SystemExit(done.stderr[-3000:])
        for name, part in PARTS.items():
            if name in told:
                continue
            if time.monotonic() - begun > 60 * given.minutes:
                return
            told[name] = part(place, capture, whole)
            print(name, told[name], flush=True)
            write_json(given.out, told)


if __name__ == "__main__":
    main()
