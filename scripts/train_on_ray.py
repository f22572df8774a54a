"""Train on the machines of a Ray cluster, with a process for every GPU: an example to start from.

    python scripts/train_on_ray.py --machines 2 --gpus 4 -- mcss --capture /shared/captures/mine --out /shared/runs/mine

What follows the two dashes is that of `mcss train`. All machines have mcss, and see the capture and the run folder at
the same paths. Each process gets the variables that torchrun would set, and runs the same command.
"""

import argparse
import os
import socket
import subprocess
import sys
from typing import Any

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy


@ray.remote
def meeting_point() -> tuple[str, int]:
    """Return the address of this machine, and a port that is free there."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), probe.getsockname()[1]


@ray.remote(max_retries=0)
def machine(command: list[str], number: int, machines: int, each: int, address: str, port: int) -> list[int]:
    """Run the command once for every GPU of this machine, and return how each has ended."""
    processes = []
    for local in range(each):
        rank = {
            **{"MASTER_ADDR": address, "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "ray", "GROUP_RANK": number},
            **{"WORLD_SIZE": machines * each, "LOCAL_WORLD_SIZE": each, "RANK": number * each + local},
            **{"LOCAL_RANK": local},
        }
        processes.append(subprocess.Popen(command, env={**os.environ, **{k: str(v) for k, v in rank.items()}}))
    return [process.wait() for process in processes]


def main() -> None:
    """Reserve the machines, and train on all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--address", default="auto", help="of the head of the Ray cluster, HOST:PORT")
    parser.add_argument("--machines", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=0, help="of each machine; 0 trains on processors")
    parser.add_argument("--processes", type=int, help="of each machine, by default one for every GPU")
    parser.add_argument("train", nargs="+", help="METHOD and options of `mcss train`")
    given = parser.parse_args()
    each = given.processes or given.gpus or 1
    devices = ["--devices", str(each), "--nodes", str(given.machines)]
    accelerator = ["--accelerator", "cuda" if given.gpus else "cpu"]
    command = [sys.executable, "-m", "mcss", "train", *given.train, *devices, *accelerator]
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that starts here would report to Ray's makers
    ray.init(address=given.address)
    bundle: dict[str, float] = {"CPU": 1, **({"GPU": given.gpus} if given.gpus else {})}
    group = placement_group([bundle] * given.machines, strategy="STRICT_SPREAD")
    ray.get(group.ready())

    def on(number: int) -> dict[str, Any]:
        strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=number)
        return {"scheduling_strategy": strategy, "num_cpus": 1, "num_gpus": given.gpus}

    address, port = ray.get(meeting_point.options(**on(0)).remote())
    running = [
        machine.options(**on(number)).remote(command, number, given.machines, each, address, port)
        for number in range(given.machines)
    ]
    codes = [code for machine_codes in ray.get(running) for code in machine_codes]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    main()
