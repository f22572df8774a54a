import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_assembly import INFO, parts

from mcss.errors import SourceError
from mcss.sources.assembly import assemble
from mcss.sources.workers import Ray, Report, results


def squared(item: int, report: Report) -> int:
    report(1)
    return item * item


def test_one_process_works_in_this_one_and_counts_steps_as_they_are_done() -> None:
    told: list[int] = []
    assert list(results(squared, [3, 4], 1, told.append)) == [(3, 9), (4, 16)]
    assert told == [1, 1]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"--engine ray needs Ray: install it with `pip install 'mcss\[ray\]'`"):
        list(results(squared, [1], Ray(), lambda _: None))


def test_an_address_without_a_cluster_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no Ray cluster at 127\.0\.0\.1:1 \(.*\); start one with `ray start"):
        assemble(parts(), tmp_path / "capture", INFO, processes=Ray("127.0.0.1:1"))
    with pytest.raises(ValueError, match="processes: expected at least 1, got 0"):
        assemble(parts(), tmp_path / "other", INFO, processes=Ray(workers=0))


CLUSTER = """
import json
import os
from dataclasses import dataclass
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from test_assembly import INFO, DrawnPart, parts
from mcss.sources.assembly import assemble
from mcss.sources.workers import Ray

NODES = os.environ["NODES"]

@dataclass(frozen=True)
class Placed(DrawnPart):
    def frames(self, note):
        nodes = Path(NODES)
        (nodes / ray.get_runtime_context().get_node_id()).touch()
        while len(list(nodes.iterdir())) < 2:  # the first one waits for the other machine
            pass
        yield from super().frames(note)

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    faults = {"S1_Walking": "crash", "S2_Waving": "file"}
    placed = [Placed(p.subject, p.sequence, fault=p.fault) for p in parts(**faults)]
    first = assemble(placed, os.path.abspath("capture"), INFO, processes=Ray(cluster.address))
    assert not ray.is_initialized()
    cluster.shutdown()
    with open("found.json", "w") as file:
        json.dump([first.imported, first.problems], file)
"""


@pytest.mark.slow
def test_two_machines_of_a_cluster_share_the_parts_and_a_worker_that_dies_costs_one(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(CLUSTER)
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), str(tmp_path), *sys.path]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # whatever else the machine is doing
        "NODES": str(tmp_path / "nodes"),
    }
    (tmp_path / "nodes").mkdir()
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    imported, problems = json.loads((tmp_path / "found.json").read_text())
    assert len(imported) == 4
    assert len(list((tmp_path / "nodes").iterdir())) == 2
    crash, file = sorted(problems)
    assert crash.startswith("S1/Walking: the cluster lost the worker that read it (")
    assert crash.endswith("run the same command again")
    assert file == "Waving.mp4: expected a video, came a song; copy it again"
    rest = assemble(parts(), tmp_path / "capture", INFO, processes=1)
    assert sorted(rest.imported) == ["S1/Walking", "S2/Waving"]
    assert rest.capture.fingerprint == assemble(parts(), tmp_path / "own", INFO, processes=1).capture.fingerprint
