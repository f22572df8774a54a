"""The suites of `make fuzz`, `make torture` and `make siege` in a short form."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def told(script: str, out: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(ROOT / "scripts" / script), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(out.read_text()))


def test_mangled_files_end_in_the_errors_of_their_readers(tmp_path: Path) -> None:
    chosen = (
        "bvh",
        "trc",
        "csv",
        "npz",
        "coco",
        "aist joints",
        "aist cameras",
        "aspset boxes",
        "run config",
        "metrics",
    )
    for files in (3, 6):  # the second call goes on where the first one stopped
        result = told("fuzz.py", tmp_path / "fuzz.json", "--seed", "1", "--files", str(files), "--only", *chosen)
        assert result["files"] == files * len(chosen)
        bad = {kind: result[kind] for kind in ("raw", "tracebacks", "hangs", "crashes", "heavy")}
        faults = [fault for reader in result["readers"].values() for fault in reader["faults"]]
        assert set(bad.values()) == {0}, faults


@pytest.mark.slow
def test_every_reader_takes_mangled_files(tmp_path: Path) -> None:
    result = told("fuzz.py", tmp_path / "fuzz.json", "--seed", "2", "--files", "10")
    faults = [fault for reader in result["readers"].values() for fault in reader["faults"]]
    assert faults == []


@pytest.mark.slow
def test_killed_commands_finish_with_the_same_results_and_leave_nothing(tmp_path: Path) -> None:
    result = told("torture.py", tmp_path / "torture.json", "--rounds", "1", "--only", "import", "train", "select")
    assert result["kills"] > 0
    assert (result["lost"], result["finished"], result["identical"]) == (0, *2 * [result["kills"]]), result["verbs"]
    assert result["other_accidents"]["at_fault"] == 0, result["accidents"]


@pytest.mark.slow
def test_a_besieged_server_goes_on(tmp_path: Path) -> None:
    result = told("siege.py", tmp_path / "siege.json", "--requests", "200")
    assert (result["crashes"], result["server_errors"], result["visitors_files"], result["files_left"]) == (0, 0, 0, 0)
    assert result["others_served"] == result["others_asked"]


@pytest.mark.slow
def test_a_cluster_of_two_nodes_makes_what_one_process_makes_although_workers_are_killed(tmp_path: Path) -> None:
    result = told("ray_suite.py", tmp_path / "ray.json")
    for name in ("import", "index", "evaluate"):
        done = result[name]
        assert (done["nodes"], done["killed"], done["twice"], done["identical"]) == (2, 1, 0, True), name
    assert result["import"]["reported"] == ["Waving.mp4: expected a video, came a song; copy it again"]
