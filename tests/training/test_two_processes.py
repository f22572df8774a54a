import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mcss.training.metrics_log import read_metrics
from methods_for_tests import METHODS_BY_NAME, made


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo without a network needs another set-up there")
def test_two_processes_train_every_method_together_and_resume_bit_for_bit(tmp_path: Path) -> None:
    capture = made(tmp_path / "capture", ("S2", "S3"))
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "MCSS_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(tests / "ddp_for_tests.py"), capture.uri, str(tmp_path / "runs")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    for name in METHODS_BY_NAME:
        whole, resumed = tmp_path / "runs" / name / "whole", tmp_path / "runs" / name / "resumed"
        one, other = (load_file(run / "model.safetensors") for run in (whole, resumed))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
        log = read_metrics(whole / "metrics.jsonl")
        assert log[-1]["step"] in (2, 4)  # stages that both see labels share the steps
        assert log[-1]["images"] % 2 == 0, "the images of both processes count"
