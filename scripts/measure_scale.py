"""Write docs/scale.md's tables: bytes, hours and money for captures and indexes of three sizes.

    python scripts/measure_scale.py CAPTURE

The costs of a row are measured: decoding, cropping and writing of images from a video of 1000 × 1000 pixels; reading
and embedding images of the capture with the shipped weights, on one processor core; bytes of the capture. Those of the
index come from the largest that `scripts/measure_index.py` has measured. Everything else follows from them and from the
prices below, which are assumptions.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

import mcss
from mcss.data.capture import Capture
from mcss.data.provenance import describe_machine
from mcss.files import folder_bytes, write_json
from mcss.images import encode_jpeg
from write_table import write_between

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"

SIZES = {"Human3.6M": 2_100_000, "100 million images": 100_000_000, "10 billion images": 10_000_000_000}
"""Human3.6M: every frame of the subjects whose poses are public."""

SHARD = 10_000_000
"""Rows of an index that is searched as one; larger collections are several indexes."""

CORE_HOUR, STORE_MONTH, MEMORY_MONTH = 0.04, 0.023, 3.5
"""Assumed prices in US dollars: a core for an hour, a GB in an object store and a GB of memory for a month."""

PRICES = (
    f"assumed prices of 2026-11: ${CORE_HOUR} for an hour of a core, ${STORE_MONTH} for a GB in an object store and "
    f"${MEMORY_MONTH} for a GB of memory for a month"
)


@dataclass(frozen=True)
class Costs:
    """What one image costs."""

    import_s: float
    """Core seconds of decoding its video, cutting it out and encoding it."""
    embed_s: float
    """Core seconds of reading, decoding and embedding it."""
    capture_bytes: float
    index_bytes: float
    add_s: float
    """Core seconds of adding it to an index."""
    structure_s: float
    """Core seconds of the search structure over a shard, divided among its rows."""
    memory_bytes: float
    """Memory of an index that is searched by FAISS."""


def importing(size: int = 1000, images: int = 100) -> float:
    """Measure core seconds an image of an import: H.264 decoding, a crop of 256 pixels, JPEG."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(
        rng.integers(0, 255, (40, 40, 3), np.uint8), (size + images, size), interpolation=cv2.INTER_CUBIC
    )
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/moving.mp4"
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=50)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            for number in range(images):
                shown = np.ascontiguousarray(texture[:, number : number + size])
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
            container.mux(stream.encode())
        begun = time.process_time()
        with av.open(path) as container:
            for frame in container.decode(video=0):
                crop = cv2.resize(
                    frame.to_ndarray(format="rgb24")[200:700, 200:700], (256, 256), interpolation=cv2.INTER_AREA
                )
                encode_jpeg(crop)
        return (time.process_time() - begun) / images


def embedding(capture: Capture, images: int = 256) -> float:
    """Measure core seconds an image of reading and embedding."""
    model = mcss.load()
    rows = np.linspace(0, len(capture) - 1, images).astype(np.int64)
    model.predict_rows(capture, rows[:32])
    begun = time.process_time()
    model.predict_rows(capture, rows)
    return (time.process_time() - begun) / images


def measured(capture: Capture) -> Costs:
    """Measure what an image costs."""
    known: list[dict[str, Any]] = [json.loads(path.read_text()) for path in RESULTS.glob("index_*m.json")]
    index = max(known, key=lambda told: told["rows"])
    rows = index["rows"]
    return Costs(
        import_s=importing(),
        embed_s=embedding(capture),
        capture_bytes=folder_bytes(Path(capture.uri)) / len(capture),
        index_bytes=sum(index["structure"]["bytes"].values()) / rows,
        add_s=(index["add"]["cpu_s"] - index["add"]["structure_cpu_s"]) / rows,
        structure_s=index["add"]["structure_cpu_s"] / rows,
        memory_bytes=index["memory"]["peak_gb"] * 1e9 / rows,
    )


def bottleneck(images: int, costs: Costs) -> str:
    """Say what is most in the way at a size."""
    memory = images * costs.memory_bytes
    hours = {
        "decoding of the videos": costs.import_s,
        "embedding": costs.embed_s,
        "the search structure": costs.structure_s + costs.add_s,
    }
    longest = max(hours, key=lambda name: hours[name])
    if memory <= 256e9:
        return f"{longest}: the index fits into the memory of one machine"
    if images * costs.capture_bytes <= 20e12:
        return f"{longest}, on many cores; {memory / 1e9:,.0f} GB of memory for searching, or a search on disk"
    machines = -(-memory // 1e12)
    return f"the bytes: {machines:,.0f} machines of 1 TB of memory, each of which answers every search"


def table(costs: Costs) -> str:
    """Format the tables."""
    rows = [
        ("decode, crop and write, core ms", f"{1e3 * costs.import_s:.1f}"),
        ("read and embed, core ms", f"{1e3 * costs.embed_s:.1f}"),
        ("add to an index, core ms", f"{1e3 * costs.add_s:.2f}"),
        ("its share of the search structure, core ms", f"{1e3 * costs.structure_s:.2f}"),
        ("bytes in the capture", f"{costs.capture_bytes:,.0f}"),
        ("bytes in the index", f"{costs.index_bytes:,.0f}"),
        ("bytes of memory when searched in memory", f"{costs.memory_bytes:,.0f}"),
    ]
    lines = ["| what an image costs | measured |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    head = (
        "size",
        "images",
        "capture",
        "index",
        "memory",
        "import",
        "embed",
        "index",
        "computing once",
        "a month",
        "bottleneck",
    )
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, images in SIZES.items():
        stored = images * (costs.capture_bytes + costs.index_bytes)
        hours = [images * s / 3600 for s in (costs.import_s, costs.embed_s, costs.add_s + costs.structure_s)]
        month = stored / 1e9 * STORE_MONTH + images * costs.memory_bytes / 1e9 * MEMORY_MONTH
        cells = (
            name, f"{images:,}", size(images * costs.capture_bytes), size(images * costs.index_bytes),
            size(images * costs.memory_bytes), *(f"{h:,.0f} h" if h >= 1 else f"{60 * h:.0f} min" for h in hours),
            f"${sum(hours) * CORE_HOUR:,.2f}" if sum(hours) < 1e3 else f"${sum(hours) * CORE_HOUR:,.0f}",
            f"${month:,.0f}", bottleneck(images, costs),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def size(count: float) -> str:
    """Format bytes."""
    for unit, one in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9)):
        if count >= one:
            return f"{count / one:,.1f} {unit}"
    return f"{count / 1e6:,.0f} MB"


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("capture")
    given = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    costs = measured(Capture.open(given.capture))
    made = (
        f"Hours are of one core; written by `scripts/measure_scale.py` ({describe_machine()}). Money: {PRICES}. "
        f"Indexes of more than {SHARD:,} images are several."
    )
    write_between(ROOT / "docs" / "scale.md", "scale", f"{table(costs)}\n\n{made}")
    write_json(RESULTS / "scale.json", {"costs": vars(costs), "machine": describe_machine(), "prices": PRICES})


if __name__ == "__main__":
    main()
