"""Measure how fast a pose is found among a million, with filters by view and subject: on disk, and in memory.

    python benchmarks/searching.py [--capture CAPTURE] [--run RUN] [--json FILE] [--page FILE]

The vectors are embeddings that a run computes for images of the capture, multiplied: each new one lies between a real
one and one of its ten nearest, with noise of a tenth added, so that they cluster as real ones do; it keeps the view and
the subject of the first. The queries are made in the same way and are not in the tables. Each is asked with two
filters: *others* excludes its own view and subject, and *one* admits one other view of one other subject.

Two ways are compared on tables of growing size: LanceDB's search on disk (`PoseIndex`), and FAISS with the same
partitions in memory (`MemoryIndex`). Each examines as many partitions as it needs for a recall of 0.99 at 20, the truth
being a comparison with every vector. Blocks of queries of both alternate, on one core; both the wall clock and the
processor time of the whole process are stated, since other work on the machine slows the clock. The peak memory and
the processor time from opening the index to the first hit are those of a separate process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import faiss
import numpy as np

import mcss
from mcss.data.capture import Capture
from mcss.data.provenance import provenance
from mcss.files import write_json
from mcss.search.index import PoseIndex
from mcss.search.index_table import Entries, Filter, ModelIdentity
from mcss.search.memory_index import MemoryIndex
from mcss.search.structure import PARTITION

TOP = 20
RECALL = 0.99
PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
FILTERS = ("others", "one")
BLOCK = 10
NOISE = 0.1


@dataclass(frozen=True)
class Vectors:
    """Unit vectors, with the view and the subject of each as numbers."""

    x: np.ndarray
    view: np.ndarray
    subject: np.ndarray


def embedded(capture: Capture, run: Path | None, count: int, kept: Path) -> Vectors:
    """Embeddings of evenly spread images, kept in a file."""
    if not kept.exists():
        instants = capture.instants()
        instant, view = np.nonzero(instants.rows >= 0)
        chosen = np.linspace(0, len(instant) - 1, count).round().astype(np.int64)
        model = mcss.load(run)
        poses = model.predict_rows(capture, instants.rows[instant[chosen], view[chosen]])
        np.savez(kept, x=poses.embedding, view=view[chosen], subject=instants.subject[instant[chosen]])
    with np.load(kept) as arrays:
        return Vectors(arrays["x"], arrays["view"], arrays["subject"])


def multiplied(base: Vectors, count: int, seed: int) -> Vectors:
    """Make `count` vectors that cluster as those of `base` do."""
    rng = np.random.default_rng(seed)
    near = np.argsort(-(base.x @ base.x.T), axis=1)[:, 1:11]
    x = np.empty((count, base.x.shape[1]), np.float32)
    first = rng.integers(0, len(base.x), count)
    second = near[first, rng.integers(0, near.shape[1], count)]
    for start in range(0, count, 65_536):
        part = slice(start, min(start + 65_536, count))
        share = rng.random((part.stop - start, 1)).astype(np.float32)
        mixed = base.x[first[part]] * (1 - share) + base.x[second[part]] * share
        mixed += rng.standard_normal(mixed.shape, np.float32) * np.float32(NOISE / np.sqrt(mixed.shape[1]))
        x[part] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return Vectors(x, base.view[first], base.subject[first])


def indexed(folder: Path, vectors: Vectors) -> PoseIndex:
    """Index the vectors, or open an index of them that exists."""
    index = PoseIndex.create(folder, ModelIdentity("benchmark", vectors.x.shape[1], "benchmark"))
    step = 50_000
    for start in range(index.count(), len(vectors.x), step):
        rows = np.arange(start, min(start + step, len(vectors.x)))
        views = [f"{v}" for v in vectors.view[rows]]
        subjects = [f"S{s}" for s in vectors.subject[rows]]
        index.add(Entries("benchmark", rows, subjects, ["one"] * len(rows), rows, rows / 10, views, vectors.x[rows]))
    if index.structured_count() < len(vectors.x) and len(vectors.x) >= PARTITION:
        index.update_structure()
    return index


class Allowed:
    """The filters of the queries."""

    def __init__(self, queries: Vectors, views: int, subjects: int) -> None:
        self.view, self.subject = queries.view, queries.subject
        self.other_view, self.other_subject = (queries.view + 1) % views, (queries.subject + 3) % subjects

    def filter(self, kind: str, q: int) -> Filter:
        """The filter of a query."""
        if kind == "others":
            return Filter(not_view=(f"{self.view[q]}",), not_subject=(f"S{self.subject[q]}",))
        return Filter(view=(f"{self.other_view[q]}",), subject=(f"S{self.other_subject[q]}",))

    def mask(self, kind: str, q: int, vectors: Vectors) -> np.ndarray:
        """Which of the vectors the filter admits."""
        if kind == "others":
            return (vectors.view != self.view[q]) & (vectors.subject != self.subject[q])
        return (vectors.view == self.other_view[q]) & (vectors.subject == self.other_subject[q])


def truth(vectors: Vectors, queries: Vectors, allowed: Allowed, kind: str) -> list[set[int]]:
    """Find the nearest by comparison with every vector."""
    nearest = []
    for q in range(len(queries.x)):
        near = vectors.x @ queries.x[q]
        near[~allowed.mask(kind, q, vectors)] = -9
        nearest.append(set(np.argpartition(-near, TOP)[:TOP].tolist()))
    return nearest


Way = Callable[[int, int], Sequence[int]]
"""Finds rows for a query, examining a number of partitions."""


def ways_of(index: PoseIndex, queries: Vectors, allowed: Allowed, kind: str) -> dict[str, Way]:
    """The ways that are compared."""
    memory = MemoryIndex.load(index)

    def on_disk(q: int, probes: int) -> list[int]:
        return [hit.row for hit in index.search(queries.x[q], TOP, allowed.filter(kind, q), probes=probes)]

    def in_memory(q: int, probes: int) -> list[int]:
        return [hit.row for hit in memory.search(queries.x[q], TOP, allowed.filter(kind, q), probes=probes)]

    return {"LanceDB, on disk": on_disk, "FAISS, in memory": in_memory}


def recall(way: Way, probes: int, right: list[set[int]]) -> float:
    """Mean fraction of the true nearest that is found."""
    return float(np.mean([len(set(way(q, probes)) & right[q]) / TOP for q in range(len(right))]))


def measured(ways: dict[str, Way], right: list[set[int]]) -> list[dict[str, Any]]:
    """For each way, the partitions it needs, its recall, and the median times of a query in ms."""
    rows: dict[str, dict[str, Any]] = {}
    for name, way in ways.items():
        for probes in PROBES:
            reached = recall(way, probes, right)
            if reached >= RECALL:
                break
        rows[name] = {"way": name, "probes": probes, "recall": reached, "wall": [], "cpu": []}
    for start in range(0, len(right), BLOCK):
        for name, way in ways.items():
            for q in range(start, min(start + BLOCK, len(right))):
                wall, cpu = time.perf_counter(), time.process_time()
                way(q, rows[name]["probes"])
                rows[name]["wall"].append(1e3 * (time.perf_counter() - wall))
                rows[name]["cpu"].append(1e3 * (time.process_time() - cpu))
    return [
        {**row, **{f"{clock}_ms": float(np.median(row[clock])) for clock in ("wall", "cpu")}, "wall": None, "cpu": None}
        for row in rows.values()
    ]


SEARCHING = """
import sys
import time
from pathlib import Path
import numpy as np
from mcss.search.index import PoseIndex
from mcss.search.index_table import Filter
from mcss.search.memory_index import MemoryIndex
way, folder, kept = sys.argv[1:]
begun = time.process_time()
index = PoseIndex.open(folder)
searched = index if "LanceDB" in way else MemoryIndex.load(index)
for number, query in enumerate(np.load(kept)["x"][:100]):
    searched.search(query, 20, Filter(not_view=("1",), not_subject=("S3",)))
    if number == 0:
        first = time.process_time() - begun
# Not getrusage, which also counts the memory of the parent at the time of the fork.
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0], first)
"""
"""A program that only searches; it prints its peak memory in KB, and the processor time in s until the first hit."""


def searching_process(way: str, folder: Path, kept: Path) -> dict[str, float]:
    """Peak memory in GB (10⁹ bytes) and processor time in s until the first hit, in a process without a model."""
    command = [sys.executable, "-c", SEARCHING, way, str(folder), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, first = done.stdout.split()[-2:]
    return {"gb": int(kilobytes) * 1024 / 1e9, "first_s": float(first)}


def table(results: list[dict[str, Any]], processes: list[dict[str, Any]], made: str) -> str:
    """Format the tables of the page."""
    head = ("vectors", "filter", "way", "partitions examined", "recall@20", "median, ms", "processor time, ms")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for result in results:
        for row in result["rows"]:
            cells = (
                f"{result['vectors']:,}", result["filter"], row["way"], str(row["probes"]), f"{row['recall']:.4f}",
                f"{row['wall_ms']:.2f}", f"{row['cpu_ms']:.2f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "| vectors | way | opening and first search, processor time, s | peak memory, GB |",
        "|---|---|---|---|",
    ]
    lines += [f"| {p['vectors']:,} | {p['way']} | {p['first_s']:.1f} | {p['gb']:.2f} |" for p in processes]
    return "\n".join([*lines, "", made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", default="captures/synthetic")
    parser.add_argument("--run", type=Path, help="by default the weights shipped with the package")
    parser.add_argument("--base", type=int, default=8000, help="real embeddings from which the others are made")
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/searching"), help="folder in which tables are kept")
    parser.add_argument("--json", type=Path, default=Path("docs/results/searching.json"))
    parser.add_argument("--page", type=Path, help="write the tables between their marks in this page")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core, for all threads
    faiss.omp_set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    capture = Capture.open(options.capture)
    kept = options.work / f"base-{options.base}.npz"
    base = embedded(capture, options.run, options.base, kept)
    queries = multiplied(base, options.queries, seed=1)
    allowed = Allowed(queries, int(base.view.max()) + 1, int(base.subject.max()) + 1)
    results: list[dict[str, Any]] = []
    processes: list[dict[str, Any]] = []
    for size in map(int, options.sizes.split(",")):
        vectors = multiplied(base, size, seed=2)
        folder = options.work / f"index-{size}"
        index = indexed(folder, vectors)
        for kind in FILTERS:
            right = truth(vectors, queries, allowed, kind)
            ways = ways_of(index, queries, allowed, kind)
            rows = measured(ways, right)
            results.append({"vectors": size, "filter": kind, "rows": rows})
            for row in rows:
                print(size, kind, {k: v for k, v in row.items() if v is not None}, flush=True)
        for way in ways:
            processes.append({"vectors": size, "way": way, **searching_process(way, folder, kept)})
            print(processes[-1], flush=True)
    made = provenance("python benchmarks/searching.py" + (f" --run {options.run}" if options.run else ""), capture, {})
    versions = {**made.versions, "lancedb": version("lancedb"), "faiss-cpu": faiss.__version__}
    about = {"base": options.base, "queries": options.queries, "noise": NOISE, "top": TOP, "recall": RECALL}
    write_json(
        options.json,
        {"results": results, "processes": processes, **about, "command": made.command, "capture": made.capture,
         "date": made.date, "machine": made.machine, "versions": versions},
    )  # fmt: skip
    if options.page:
        packages = ", ".join(f"{name} {number}" for name, number in versions.items())
        text = (
            f"Written by `{made.command}` on {made.date} ({made.machine}; one core; {packages}); {options.queries} "
            "queries for each filter."
        )
        _write_block(options.page, table(results, processes, text))


def _write_block(page: Path, text: str) -> None:
    script = Path(__file__).parents[1] / "scripts" / "write_table.py"
    with tempfile.NamedTemporaryFile("w", suffix=".md") as written:
        written.write(text)
        written.flush()
        subprocess.run([sys.executable, str(script), str(page), "searching", written.name], check=True)


if __name__ == "__main__":
    main()
