import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mcss.training.metrics_log import read_metrics
from methods_for_tests import METHODS_BY_NAME, made

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="gloo without a network needs another set-up there"),
]


TESTS = Path(__file__).parents[1]


def variables(place: Path) -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MCSS_CACHE": str(place / "cache"), "GLOO_SOCKET_IFNAME": "lo"}
    return {**os.environ, **own}


def in_two_processes(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(TESTS / "ddp_for_tests.py"), *arguments]
    return subprocess.run(command, env=variables(place), capture_output=True, text=True, timeout=1200, check=False)


def test_two_processes_train_every_method_together_and_resume_bit_for_bit(tmp_path: Path) -> None:
    capture = made(tmp_path / "capture", ("S2", "S3"))
    done = in_two_processes(tmp_path, capture.uri, str(tmp_path / "runs"))
    assert done.returncode == 0, done.stderr[-3000:]
    for name in METHODS_BY_NAME:
        whole, resumed = tmp_path / "runs" / name / "whole", tmp_path / "runs" / name / "resumed"
        one, other = (load_file(run / "model.safetensors") for run in (whole, resumed))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
        log = read_metrics(whole / "metrics.jsonl")
        assert log[-1]["step"] in (2, 4)  # stages that both see labels share the steps
        assert log[-1]["images"] % 2 == 0, "the images of both processes count"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_process_that_is_left_when_another_is_killed_says_so_and_how_to_go_on(tmp_path: Path, rank: str) -> None:
    capture = made(tmp_path / "capture", ("S2", "S3"))
    done = in_two_processes(tmp_path, capture.uri, str(tmp_path / "run"), rank)
    assert done.returncode == (1 if rank == "1" else -9)
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/run: one of the 2 processes that train together has ended (" in done.stderr
    assert "The last checkpoint is kept: run the same command with --resume." in done.stderr
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_training_that_compares_the_images_of_both_processes_goes_on_to_the_same_weights_after_a_kill(
    tmp_path: Path,
) -> None:
    capture = made(tmp_path / "capture", ("S2", "S3")).uri
    for run, rank, code in (("whole", "none", 0), ("killed", "1", 1), ("killed", "none", 0), ("apart", "none", 0)):
        options = ["--min-gap", "0.1", *([] if run == "apart" else ["--gather"])]
        done = in_two_processes(tmp_path, capture, str(tmp_path / run), rank, *options)
        assert done.returncode == code, done.stderr[-3000:]
    whole, killed, apart = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "killed", "apart"))
    assert killed == whole
    assert apart != whole
    refused = in_two_processes(tmp_path, capture, str(tmp_path / "whole"), "none", "--min-gap", "0.1", "--seed", "1")
    assert refused.returncode == 1
    assert refused.stderr.count("Error ") == 1, refused.stderr
