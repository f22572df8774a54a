"""Measure a large index: building, adding to it and searching it, to docs/results/index_10m.json for ten million rows.

    python scripts/measure_index.py CAPTURE --rows 10000000 [--minutes 10]

The vectors are made of the embeddings of a capture as in `benchmarks/searching.py`. Everything is done in stages in a
folder of its own, and the same command goes on with the next stage; stages are named in the results, each with its
processor time and the peak memory of its process:

* *add*: the rows, half a million at a time, and after each million the search structure is brought up to date;
* *structure*: what it is like then;
* *update*: a hundred thousand more rows, and the structure brought up to date;
* *search*: queries that leave out their own view and subject, on disk and in memory (FAISS), with as many partitions as
  a recall of 0.99 at 20 needs, against a comparison with every row.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import numpy as np  # noqa: E402
from searching import PROBES, RECALL, TOP, Allowed, Vectors, embedded, multiplied  # noqa: E402

from mcss.data.capture import Capture  # noqa: E402
from mcss.data.provenance import describe_machine  # noqa: E402
from mcss.files import folder_bytes, write_json  # noqa: E402
from mcss.search.index import PoseIndex  # noqa: E402
from mcss.search.index_table import Entries, ModelIdentity, vectors_of  # noqa: E402
from mcss.search.memory_index import MemoryIndex  # noqa: E402
from mcss.search.structure import Structure  # noqa: E402
from write_table import write_between  # noqa: E402

MILLION = 1_000_000
CHUNK = 500_000
LATER = 100_000
QUERIES = 50
STAGES = ("add", "structure", "update", "truth", "disk", "memory")


class Trial:
    """The folder of a trial: the base vectors, the index, and what has been measured so far."""

    def __init__(self, work: Path, capture: str, rows: int, base: int) -> None:
        self.work, self.rows = work, rows
        self.base = embedded(Capture.open(capture), None, base, work / f"base-{base}.npz")
        self.queries = multiplied(self.base, QUERIES, seed=1)
        self.allowed = Allowed(self.queries, int(self.base.view.max()) + 1, int(self.base.subject.max()) + 1)

    def opened(self) -> PoseIndex:
        """Open the index, or create it."""
        return PoseIndex.create(self.work / "index", ModelIdentity("trial", self.base.x.shape[1], "trial"))

    def chunk(self, start: int) -> Vectors:
        """Make the vectors of the rows from a number on."""
        count = min(CHUNK, self.rows - start) if start < self.rows else LATER
        return multiplied(self.base, count, seed=1000 + start)

    def add(self, index: PoseIndex, start: int) -> None:
        """Add the rows from a number on."""
        vectors = self.chunk(start)
        rows = np.arange(start, start + len(vectors.x))
        views, subjects = [f"{v}" for v in vectors.view], [f"S{s}" for s in vectors.subject]
        index.add(Entries("trial", rows, subjects, ["one"] * len(rows), rows, rows / 10, views, vectors.x))

    def tidy(self, index: PoseIndex) -> None:
        """Remove what only readers of an earlier version would need, of whom there are none."""
        index.dataset().cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)

    def everything(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
        """Yield numbers, vectors, views and subjects of all rows of the index."""
        columns = ["row", "vector", "view", "subject"]
        for batch in self.opened().dataset().to_batches(columns=columns, batch_size=65_536):
            view, subject = (np.array(batch[name].to_pylist()) for name in ("view", "subject"))
            yield batch["row"].to_numpy(), vectors_of(batch["vector"], self.base.x.shape[1]), view, subject


def truth(trial: Trial) -> dict[str, Any]:
    """Find the nearest of every query by comparison with all rows."""
    best = [(np.empty(0), np.empty(0, np.int64)) for _ in range(QUERIES)]
    for row, vectors, view, subject in trial.everything():
        near = vectors @ trial.queries.x.T
        for q in range(QUERIES):
            mask = (view != f"{trial.queries.view[q]}") & (subject != f"S{trial.queries.subject[q]}")
            scores, rows = np.concatenate([best[q][0], near[mask, q]]), np.concatenate([best[q][1], row[mask]])
            order = np.argsort(-scores)[:TOP]
            best[q] = scores[order], rows[order]
    np.save(trial.work / "truth.npy", np.array([rows for _, rows in best]))
    return {"queries": QUERIES}


def searched(trial: Trial, find: Callable[[int, int], list[int]]) -> dict[str, Any]:
    """Search with more and more partitions until the recall is reached; returns that, and the times of a query."""
    right = [set(rows) for rows in np.load(trial.work / "truth.npy").tolist()]
    for probes in PROBES:
        wall, cpu, recall = [], [], []
        for q in range(QUERIES):
            begun = time.perf_counter(), time.process_time()
            found = find(q, probes)
            wall.append(time.perf_counter() - begun[0])
            cpu.append(time.process_time() - begun[1])
            recall.append(len(right[q] & set(found)) / TOP)
        if np.mean(recall) >= RECALL:
            break
    times = {"wall_ms": round(1e3 * float(np.median(wall)), 2), "cpu_ms": round(1e3 * float(np.median(cpu)), 2)}
    return {"probes": probes, "recall": round(float(np.mean(recall)), 4), **times}


def done(trial: Trial, stage: str) -> dict[str, Any]:
    """Do a stage, or the next part of it."""
    index = trial.opened()
    match stage:
        case "add":
            start = index.count()
            if start % MILLION or index.structured_count() == start:
                trial.add(index, start)
            added, count = time.process_time(), index.count()
            if count % MILLION == 0 or count >= trial.rows:
                index.update_structure()
                trial.tidy(index)
            finished = count >= trial.rows
            return {"rows": count, "structure_cpu_s": round(time.process_time() - added, 1), "finished": finished}
        case "structure":
            structure = Structure.of(index.dataset())
            assert structure is not None
            sizes = {name: folder_bytes(trial.work / "index" / "poses.lance" / name) for name in ("data", "_indices")}
            return {"partitions": structure.partitions, "layers": list(structure.layers), "bytes": sizes}
        case "update":
            before = Structure.of(index.dataset())
            trial.add(index, trial.rows)
            added = time.process_time()
            index.update_structure()
            after = Structure.of(index.dataset())
            assert before is not None
            assert after is not None
            layers = {"before": list(before.layers), "after": list(after.layers)}
            return {"rows": LATER, "layers": layers, "structure_cpu_s": round(time.process_time() - added, 1)}
        case "truth":
            return truth(trial)
        case "disk":

            def on_disk(q: int, probes: int) -> list[int]:
                hits = index.search(trial.queries.x[q], TOP, trial.allowed.filter("others", q), probes=probes)
                return [hit.row for hit in hits]

            return searched(trial, on_disk)
        case _:
            memory = MemoryIndex.load(index)
            loaded = round(time.process_time(), 1)

            def in_memory(q: int, probes: int) -> list[int]:
                hits = memory.search(trial.queries.x[q], TOP, trial.allowed.filter("others", q), probes=probes)
                return [hit.row for hit in hits]

            return {"load_cpu_s": loaded, **searched(trial, in_memory)}


def main() -> None:
    """Do one stage after another, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("capture")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--base", type=int, default=2000, help="embeddings from which the vectors are made")
    parser.add_argument("--minutes", type=float, default=10.0, help="begin no stage after that")
    parser.add_argument(
        "--work", type=Path, help="folder of the index, by default runs/index-…m; a row takes about 1 KB"
    )
    parser.add_argument("--json", type=Path, help="by default docs/results/index_…m.json")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    millions = f"{given.rows // MILLION}m"
    given.work = given.work or ROOT / "runs" / f"index-{millions}"
    given.json = given.json or ROOT / "docs" / "results" / f"index_{millions}.json"
    given.work.mkdir(parents=True, exist_ok=True)
    kept = given.work / "stages"
    kept.mkdir(exist_ok=True)
    if given.stage:
        trial = Trial(given.work, given.capture, given.rows, given.base)
        begun = time.process_time(), time.perf_counter()
        told = done(trial, given.stage)
        cpu, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        number = len(list(kept.glob(f"{given.stage}-*.json")))
        clock = {"cpu_s": round(cpu, 1), "wall_s": round(wall, 1), "peak_gb": round(peak / 1e9, 2)}
        write_json(kept / f"{given.stage}-{number:04}.json", {**told, **clock})
        return
    begun_at = time.monotonic()
    for stage in STAGES:
        while not is_finished(kept, stage):
            if time.monotonic() - begun_at > 60 * given.minutes:
                return
            own = [sys.executable, *sys.argv, "--stage", stage]
            subprocess.run(own, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            print(stage, read(kept, stage)[-1], flush=True)
    told = result(kept, given.rows)
    write_json(given.json, told)
    if given.json.resolve().is_relative_to(ROOT / "docs"):
        write_between(ROOT / "docs" / "scale.md", "index10m", table(told))


def read(kept: Path, stage: str) -> list[dict[str, Any]]:
    """Read what the parts of a stage have left."""
    return [json.loads(path.read_text()) for path in sorted(kept.glob(f"{stage}-*.json"))]


def is_finished(kept: Path, stage: str) -> bool:
    """Whether a stage needs no further part."""
    parts = read(kept, stage)
    return bool(parts) and parts[-1].get("finished", True)


def result(kept: Path, rows: int) -> dict[str, Any]:
    """Put the stages together."""
    stages = {stage: read(kept, stage) for stage in STAGES}
    adding = stages.pop("add")
    whole = {name: round(sum(part[name] for part in adding), 1) for name in ("cpu_s", "wall_s", "structure_cpu_s")}
    return {
        "rows": rows,
        "machine": describe_machine(),
        "versions": {name: version(name) for name in ("lancedb", "pylance", "faiss-cpu")},
        "recall": RECALL,
        "top": TOP,
        "peak_gb": max(part["peak_gb"] for parts in (adding, *stages.values()) for part in parts),
        "add": {**whole, "peak_gb": max(part["peak_gb"] for part in adding), "at_a_time": CHUNK},
        **{stage: parts[-1] for stage, parts in stages.items() if stage != "truth"},
    }


def table(told: dict[str, Any]) -> str:
    """Format what was measured as a table."""
    add, structure, update, disk, memory = (told[name] for name in ("add", "structure", "update", "disk", "memory"))
    size = sum(structure["bytes"].values()) / 1e9

    def lasting(seconds: float) -> str:
        return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"

    lines = [
        f"| {told['rows']:,} rows | processor time | peak memory |",
        "|---|---|---|",
        f"| adding them, {add['at_a_time']:,} at a time | {lasting(add['cpu_s'] - add['structure_cpu_s'])} | "
        f"{add['peak_gb']:.1f} GB |",
        f"| the search structure, brought up to date after each million; {structure['partitions']:,} partitions | "
        f"{lasting(add['structure_cpu_s'])} | |",
        f"| adding {update['rows']:,} more, and the structure for them | {update['cpu_s']:.0f} s, of which "
        f"{update['structure_cpu_s']:.0f} s for the structure | {update['peak_gb']:.1f} GB |",
        f"| a search on disk (LanceDB), {disk['probes']} partitions, recall@{told['top']} {disk['recall']:.3f} | "
        f"{disk['cpu_ms']:.1f} ms | {disk['peak_gb']:.1f} GB |",
        f"| reading it into memory (FAISS) | {lasting(memory['load_cpu_s'])} | {memory['peak_gb']:.1f} GB |",
        f"| a search in memory (FAISS), {memory['probes']} partitions, recall@{told['top']} {memory['recall']:.3f} | "
        f"{memory['cpu_ms']:.1f} ms | |",
        "",
        f"{size:.1f} GB on disk. Searches leave out the view and the subject of the query. Written by "
        f"`scripts/measure_index.py` ({told['machine']}, one core; "
        + ", ".join(f"{name} {number}" for name, number in told["versions"].items())
        + ").",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
