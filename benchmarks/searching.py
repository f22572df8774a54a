"""How fast a pose is found among a million, with filters by view and subject, against FAISS, in one run.

    python benchmarks/searching.py [--capture CAPTURE] [--run RUN] [--json FILE] [--page FILE]

The vectors are embeddings that a run gives to images of the capture, multiplied: each new one lies between a real
one and one of its ten nearest, with noise of a tenth added, so that they cluster as real ones do; it keeps the view
and the subject of the first. The queries are made in the same way and are not in the tables. Each is asked with two
filters: *others*, not its own view and not its own subject, and *one*, one other view of one other subject.

Four ways are compared on tables of growing size: LanceDB's search (`PoseIndex`), the same index in memory
(`ResidentIndex`), FAISS IVF-Flat with a bitmap selector that is made of the filter for every query, and the same
with all selectors made beforehand. Each way looks into as many partitions as it needs for a recall of 0.99 at 20,
the truth being a comparison with every vector; FAISS has the better of two numbers of partitions. Blocks of queries
of all ways alternate, on one core; both the wall clock and the processor time of the whole process count, since a
machine that does other work makes the clock slow. Memory is the peak of a process of its own.
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
from mcss.search.entries import Entries, Filter, Origin
from mcss.search.index import PARTITION, PoseIndex
from mcss.search.memory_index import ResidentIndex

TOP = 20
RECALL = 0.99
PROBES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
FILTERS = ("others", "one")
BLOCK = 10
NOISE = 0.1


@dataclass(frozen=True)
class Vectors:
    """Unit vectors, and of each its view and subject as numbers."""

    x: np.ndarray
    view: np.ndarray
    subject: np.ndarray


def embedded(capture: Capture, run: Path | None, count: int, kept: Path) -> Vectors:
    """Real embeddings of evenly spread images; kept in a file."""
    if not kept.exists():
        instants = capture.instants()
        instant, view = np.nonzero(instants.rows >= 0)
        chosen = np.linspace(0, len(instant) - 1, count).round().astype(np.int64)
        model = mcss.load(run)
        parts = []
        for start in range(0, count, 256):
            at = chosen[start : start + 256]
            parts.append(model.embed(capture.decode(instants.rows[instant[at], view[at]], model.image_size)))
        np.savez(kept, x=np.concatenate(parts), view=view[chosen], subject=instants.subject[instant[chosen]])
    with np.load(kept) as found:
        return Vectors(found["x"], found["view"], found["subject"])


def multiplied(base: Vectors, count: int, seed: int) -> Vectors:
    """So many vectors that cluster as those of `base` do."""
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


def indexed(place: Path, vectors: Vectors) -> PoseIndex:
    """An index of the vectors; one that is there is kept."""
    index = PoseIndex.create(place, Origin("benchmark", vectors.x.shape[1], "benchmark"))
    step = 50_000
    for start in range(index.count(), len(vectors.x), step):
        rows = np.arange(start, min(start + step, len(vectors.x)))
        views = [f"{v}" for v in vectors.view[rows]]
        subjects = [f"S{s}" for s in vectors.subject[rows]]
        index.add(Entries("benchmark", rows, subjects, ["one"] * len(rows), rows, rows / 10, views, vectors.x[rows]))
    if index.structured() < len(vectors.x) and len(vectors.x) >= PARTITION:
        index.structure()
    return index


class Allowed:
    """The filters of a query."""

    def __init__(self, queries: Vectors, views: int, subjects: int) -> None:
        self.view, self.subject = queries.view, queries.subject
        self.other_view, self.other_subject = (queries.view + 1) % views, (queries.subject + 3) % subjects

    def filter(self, kind: str, q: int) -> Filter:
        """As mcss takes it."""
        if kind == "others":
            return Filter(not_view=(f"{self.view[q]}",), not_subject=(f"S{self.subject[q]}",))
        return Filter(view=(f"{self.other_view[q]}",), subject=(f"S{self.other_subject[q]}",))

    def key(self, kind: str, q: int) -> tuple[int, int]:
        """What `mask` depends on."""
        return (self.view[q], self.subject[q]) if kind == "others" else (self.other_view[q], self.other_subject[q])

    def mask(self, kind: str, q: int, vectors: Vectors) -> np.ndarray:
        """Which of the vectors it lets through."""
        view, subject = self.key(kind, q)
        if kind == "others":
            return (vectors.view != view) & (vectors.subject != subject)
        return (vectors.view == view) & (vectors.subject == subject)


def truth(vectors: Vectors, queries: Vectors, allowed: Allowed, kind: str) -> list[set[int]]:
    """The nearest, by comparison with every vector."""
    found = []
    for q in range(len(queries.x)):
        near = vectors.x @ queries.x[q]
        near[~allowed.mask(kind, q, vectors)] = -9
        found.append(set(np.argpartition(-near, TOP)[:TOP].tolist()))
    return found


Way = Callable[[int, int], Sequence[int]]
"""From a query and a number of partitions to the rows found."""


def ways_of(
    index: PoseIndex, vectors: Vectors, queries: Vectors, allowed: Allowed, kind: str, faisses: dict[int, Any]
) -> dict[str, Way]:
    """All that is compared."""
    resident = ResidentIndex.load(index)

    def lancedb(q: int, probes: int) -> list[int]:
        return [hit.row for hit in index.search(queries.x[q], TOP, allowed.filter(kind, q), probes=probes)]

    def memory(q: int, probes: int) -> list[int]:
        return [hit.row for hit in resident.search(queries.x[q], TOP, allowed.filter(kind, q), probes=probes)]

    ready = {}
    for q in range(len(queries.x)):
        if allowed.key(kind, q) not in ready:
            bits = np.packbits(allowed.mask(kind, q, vectors), bitorder="little")
            ready[allowed.key(kind, q)] = faiss.IDSelectorBitmap(bits)

    def asked(inverted: Any, q: int, probes: int, selector: Any) -> list[int]:
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        found: list[int] = inverted.search(queries.x[q : q + 1], TOP, params=parameters)[1][0].tolist()
        return found

    def per_query(inverted: Any) -> Way:
        def search(q: int, probes: int) -> list[int]:
            bits = np.packbits(allowed.mask(kind, q, vectors), bitorder="little")
            return asked(inverted, q, probes, faiss.IDSelectorBitmap(bits))

        return search

    def prepared(inverted: Any) -> Way:
        return lambda q, probes: asked(inverted, q, probes, ready[allowed.key(kind, q)])

    ways: dict[str, Way] = {"LanceDB": lancedb, "in memory": memory}
    for lists, inverted in faisses.items():
        ways[f"FAISS, {lists} lists"] = per_query(inverted)
        ways[f"FAISS, {lists} lists, selectors ready"] = prepared(inverted)
    return ways


def recall(way: Way, probes: int, right: list[set[int]]) -> float:
    """Mean share of the true nearest that is found."""
    return float(np.mean([len(set(way(q, probes)) & right[q]) / TOP for q in range(len(right))]))


def measured(ways: dict[str, Way], right: list[set[int]]) -> list[dict[str, Any]]:
    """Of each way the partitions it needs, its recall, and the median times of a query in ms."""
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


def faiss_of(vectors: Vectors, lists: int) -> Any:
    """FAISS IVF-Flat of the same vectors."""
    rng = np.random.default_rng(0)
    inverted = faiss.IndexIVFFlat(faiss.IndexFlatL2(vectors.x.shape[1]), vectors.x.shape[1], lists)
    sample = vectors.x[rng.permutation(len(vectors.x))[: 64 * lists]]
    inverted.train(sample)
    inverted.add(vectors.x)
    return inverted


SEARCHING = """
import sys
from pathlib import Path
import numpy as np
from mcss.entries import Filter
from mcss.index import PoseIndex
from mcss.resident import ResidentIndex
task, place, kept = sys.argv[1:]
index = PoseIndex.open(place)
searched = index if task == "LanceDB" else ResidentIndex.load(index)
for query in np.load(kept)["x"][:100]:
    searched.search(query, 20, Filter(not_view=("1",), not_subject=("S3",)))
# Not getrusage, which counts the memory of the parent at the time of the fork too.
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""
"""A program that does nothing but search; it prints the most memory that it took, in KB."""


def peak_memory(task: str, place: Path, kept: Path) -> float:
    """GB (10⁹ bytes) that a process of its own, which loads no model, takes at most to search."""
    command = [sys.executable, "-c", SEARCHING, task, str(place), str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e9


def table(results: list[dict[str, Any]], memory: list[dict[str, Any]], made: str) -> str:
    """The page's block: a line for each size, filter and way."""
    head = (
        "vectors",
        "filter",
        "way",
        "partitions looked into",
        "recall@20",
        "median, ms",
        "processor time, ms",
        "× FAISS",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for result in results:
        rivals = [row for row in result["rows"] if row["way"].startswith("FAISS") and "ready" not in row["way"]]
        best = min(row["cpu_ms"] for row in rivals)
        for row in result["rows"]:
            cells = (
                f"{result['vectors']:,}", result["filter"], row["way"], str(row["probes"]), f"{row['recall']:.4f}",
                f"{row['wall_ms']:.2f}", f"{row['cpu_ms']:.2f}", f"{row['cpu_ms'] / best:.2f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    peaks = "; ".join(f"{m['vectors']:,} vectors: {m['way']} {m['gb']:.2f} GB" for m in memory)
    return "\n".join([*lines, "", f"Peak memory of a process that searches and does nothing else: {peaks}.", "", made])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capture", default="captures/synthetic")
    parser.add_argument("--run", type=Path, help="by default the weights shipped with the package")
    parser.add_argument("--base", type=int, default=8000, help="real embeddings that the others are made of")
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--work", type=Path, default=Path("runs/searching"), help="tables are kept there")
    parser.add_argument("--json", type=Path, default=Path("docs/results/searching.json"))
    parser.add_argument("--page", type=Path, help="write the table between its marks there")
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
    memory: list[dict[str, Any]] = []
    for size in map(int, options.sizes.split(",")):
        vectors = multiplied(base, size, seed=2)
        place = options.work / f"index-{size}"
        index = indexed(place, vectors)
        lists = {max(2, size // PARTITION), round(4 * size**0.5)}
        faisses = {count: faiss_of(vectors, count) for count in sorted(lists)}
        for kind in FILTERS:
            right = truth(vectors, queries, allowed, kind)
            rows = measured(ways_of(index, vectors, queries, allowed, kind, faisses), right)
            results.append({"vectors": size, "filter": kind, "rows": rows})
            for row in rows:
                print(size, kind, {k: v for k, v in row.items() if v is not None}, flush=True)
        del faisses
        memory += [
            {"vectors": size, "way": way, "gb": peak_memory(way, place, kept)} for way in ("LanceDB", "in memory")
        ]
        print(memory[-2:], flush=True)
    made = provenance("python benchmarks/searching.py" + (f" --run {options.run}" if options.run else ""), capture, {})
    versions = {**made.versions, "lancedb": version("lancedb"), "faiss-cpu": faiss.__version__}
    about = {"base": options.base, "queries": options.queries, "noise": NOISE, "top": TOP, "recall": RECALL}
    write_json(
        options.json,
        {"results": results, "memory": memory, **about, "command": made.command, "capture": made.capture,
         "date": made.date, "machine": made.machine, "versions": versions},
    )  # fmt: skip
    if options.page:
        text = (
            f"Written by `{made.command}` on {made.date} ({made.machine}; one core; "
            f"{', '.join(f'{name} {one}' for name, one in versions.items())}); {options.queries} queries of each "
            "filter."
        )
        _write_block(options.page, table(results, memory, text))


def _write_block(page: Path, text: str) -> None:
    script = Path(__file__).parents[1] / "scripts" / "write_table.py"
    with tempfile.NamedTemporaryFile("w", suffix=".md") as written:
        written.write(text)
        written.flush()
        subprocess.run([sys.executable, str(script), str(page), "searching", written.name], check=True)


if __name__ == "__main__":
    main()
