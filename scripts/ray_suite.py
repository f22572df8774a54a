"""Import, index and evaluate on a Ray cluster of two nodes while workers are killed: docs/results/ray.json.

Both nodes are on this computer. In each of the three, the worker that begins first waits for the other node, and one
worker is killed in the middle of its work. The tables and figures must be those of one process, with nothing twice.

python scripts/ray_suite.py
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "sources")]
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

import ray  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from test_assembly import INFO, DrawnPart, parts  # noqa: E402

import captures_for_tests  # noqa: E402
from mcss.data.capture import Capture  # noqa: E402
from mcss.data.schema import Frame  # noqa: E402
from mcss.data.writer import CaptureWriter  # noqa: E402
from mcss.evaluation import shared_predictor  # noqa: E402
from mcss.evaluation.evaluate import evaluate  # noqa: E402
from mcss.evaluation.shared_predictor import SharedPredictor  # noqa: E402
from mcss.files import write_json  # noqa: E402
from mcss.methods.registry import network_kinds  # noqa: E402
from mcss.models.model import load  # noqa: E402
from mcss.models.prediction import NetworkPredictor  # noqa: E402
from mcss.models.shares import Stored  # noqa: E402
from mcss.search import indexing  # noqa: E402
from mcss.search.index import PoseIndex  # noqa: E402
from mcss.search.indexing import index_capture  # noqa: E402
from mcss.sources.assembly import Note, assemble  # noqa: E402
from mcss.workers import Ray  # noqa: E402
from runs_for_tests import small_run  # noqa: E402

SHARE = 48
"""Images in a share, so that a small capture has several."""

PATIENCE = 60.0


@dataclass(frozen=True)
class Marks:
    """Files by which workers know of each other: which nodes have begun, and whether one was killed."""

    folder: Path

    def both_nodes(self) -> None:
        """Wait until both nodes have begun."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / ray.get_runtime_context().get_node_id()).touch()
        end = time.monotonic() + PATIENCE
        while self.nodes < 2 and time.monotonic() < end:
            time.sleep(0.01)

    def die_once(self) -> None:
        """Kill this worker, if none was killed before."""
        try:
            (self.folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    @property
    def nodes(self) -> int:
        """Number of nodes that have begun."""
        return len(list(self.folder.iterdir())) - self.killed

    @property
    def killed(self) -> int:
        """Number of workers that were killed."""
        return int((self.folder / "killed").exists())


@dataclass(frozen=True)
class Placed(DrawnPart):
    """A drawn sequence whose worker is killed after half of it."""

    marks: Marks = Marks(Path())

    def frames(self, note: Note) -> Iterator[Frame]:
        """Yield the images."""
        self.marks.both_nodes()
        for number, frame in enumerate(super().frames(note)):
            if number == self.images // 2:
                self.marks.die_once()
            yield frame


@dataclass(frozen=True)
class Killing:
    """Does the work on a share, but kills the first worker that has begun."""

    marks: Marks
    work: Any

    def __call__(self, *given: Any) -> Any:
        """Work on a share."""
        self.marks.both_nodes()
        self.marks.die_once()
        return self.work(*given)


def imported(place: Path, workers: Ray) -> dict[str, Any]:
    """Import drawn sequences, one of which has a damaged file."""
    marks = Marks(place / "import")
    given = parts(S2_Waving="file")
    placed = [Placed(part.subject, part.sequence, fault=part.fault, marks=marks) for part in given]
    done = assemble(placed, place / "capture", INFO, processes=workers)
    own = assemble(given, place / "own", INFO, processes=1)
    rows = len(done.capture)
    return {
        "items": len(given),
        "reported": list(done.problems),
        "nodes": marks.nodes,
        "killed": marks.killed,
        "rows": rows,
        "twice": rows - sum(part.images for part in given if not part.fault),
        "identical": done.capture.fingerprint == own.capture.fingerprint,
    }


def indexed(place: Path, capture: Capture, run: Path, workers: Ray) -> dict[str, Any]:
    """Index a capture: its embeddings and poses."""
    marks, model = Marks(place / "index"), load(run)
    work = indexing._poses
    indexing._poses = Killing(marks, work)
    try:
        done = index_capture(capture, model, str(place / "shared"), workers=workers, share=SHARE)
    finally:
        indexing._poses = work
    index_capture(capture, model, str(place / "alone"), share=SHARE)
    columns = ["row", "subject", "sequence", "frame", "view", "vector", "predicted", "true"]
    one, other = (PoseIndex.open(place / name).table(columns).sort_by("row") for name in ("shared", "alone"))
    return {
        "items": -(-len(capture) // SHARE),
        "nodes": marks.nodes,
        "killed": marks.killed,
        "rows": done.added,
        "twice": len(one) - len(set(one["row"].to_pylist())),
        "identical": one.equals(other),
    }


def evaluated(place: Path, capture: Capture, run: Path, workers: Ray) -> dict[str, Any]:
    """Evaluate a run: its poses, and retrieval with its embeddings."""
    marks = Marks(place / "evaluate")
    work = shared_predictor._arrays
    shared_predictor._arrays = Killing(marks, work)
    try:
        predictor = SharedPredictor(Stored.of(capture, run), network_kinds(), workers, SHARE)
        one = evaluate(predictor, capture, "test")
    finally:
        shared_predictor._arrays = work
    other = evaluate(NetworkPredictor(load(run).network, capture), capture, "test")
    return {
        "items": -(-one.images // SHARE),
        "nodes": marks.nodes,
        "killed": marks.killed,
        "rows": one.images,
        "twice": one.images - other.images,
        "identical": one.to_json() == other.to_json(),
    }


def main() -> None:
    """Start a cluster, do all three, and write what happened."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "ray.json")
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mcss-ray-") as folder:
        place = Path(folder)
        writer = CaptureWriter.open(place / "people", info=captures_for_tests.INFO)
        for part in captures_for_tests.stick_parts():
            writer.append(part)
        capture, run = writer.finish(), small_run(place / "run")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            workers = Ray(cluster.address)
            told = {
                "import": imported(place, workers),
                "index": indexed(place, capture, run, workers),
                "evaluate": evaluated(place, capture, run, workers),
            }
            assert not ray.is_initialized()
        finally:
            cluster.shutdown()
    print(json.dumps(told, indent=2))
    write_json(given.out, {"ray": ray.__version__, "seconds": round(time.monotonic() - begun, 1), **told})


if __name__ == "__main__":
    main()
