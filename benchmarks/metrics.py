"""Are the measures fast enough for Human3.6M's test set, and small enough for a laptop?

    python benchmarks/metrics.py [--queries N] [--json docs/results/metrics.json]

Measures PA-MPJPE of 1,000,000 pairs of poses, which should take less than 20 s on two cores, compared with aligning
pairs one by one with an SVD each; and the exact retrieval oracle for a gallery of 550,000 images in 137,500 instants,
in chunks: the seconds per query, and the peak memory of the process, which should be less than 8 GB.
"""

import argparse
import datetime
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mcss.data.provenance import describe_machine
from mcss.metrics import pa_mpjpe, pairwise_pa_mpjpe
from mcss.retrieval import EmbeddedImages, retrieve_poses

VIEWS = 4


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_set(instants: int) -> EmbeddedImages:
    """Return random poses of two people, with four views of each."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(instants, 17, 3, generator=generator) * 300
    instant = torch.arange(instants).repeat_interleave(VIEWS)
    view = torch.arange(VIEWS).repeat(instants)
    embedding = torch.nn.functional.normalize(torch.randn(len(view), 128, generator=generator), dim=1)
    subject = instant % 2
    return EmbeddedImages(embedding, pose[instant], instant, subject, subject, instant, view)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--images", type=int, default=550_000)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    side = round(options.pairs**0.5)
    poses = torch.randn(2 * side, 16, 3, generator=torch.Generator().manual_seed(1)) * 300
    few = min(20_000, options.pairs)
    one_by_one = torch.randn(2, few, 16, 3, generator=torch.Generator().manual_seed(2)) * 300
    figures: dict[str, Any] = {
        "pairs": side * side,
        "pairwise_seconds": seconds(lambda: pairwise_pa_mpjpe(poses[:side], poses[side:])),
        "one_by_one_seconds_per_million": seconds(lambda: pa_mpjpe(one_by_one[0], one_by_one[1])) * 1e6 / few,
    }
    gallery = test_set(options.images // VIEWS)
    queries = gallery.take(torch.arange(0, len(gallery), max(1, len(gallery) // options.queries))[: options.queries])
    figures["images"], figures["queries"] = len(gallery), len(queries)
    for name, cross in (("all_subjects", False), ("cross_subject", True)):
        taken = seconds(lambda cross=cross: retrieve_poses(queries, gallery, cross_subject=cross))
        figures[f"oracle_{name}_seconds_per_query"] = taken / len(queries)
    figures["peak_gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    figures["threads"] = torch.get_num_threads()
    for name, value in figures.items():
        print(f"{name:36s} {value:,.3f}" if isinstance(value, float) else f"{name:36s} {value:,}")
    if options.json:
        made = {"machine": describe_machine(), "torch": torch.__version__, "date": datetime.date.today().isoformat()}
        busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        command = f"python benchmarks/metrics.py --queries {options.queries}"
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({**figures, **made, "load": busy, "command": command}, indent=2) + "\n")


if __name__ == "__main__":
    main()
