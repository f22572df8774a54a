import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mcss.cli import main
from mcss.data.capture import Capture
from mcss.data.loading.batches import Batch
from mcss.methods.mcss import MCSS
from mcss.methods.method import Losses
from mcss.training.machine import Machine
from mcss.training.metrics_log import RunLog, read_metrics


def test_a_device_whose_memory_does_not_suffice_is_told_with_the_settings_that_need_less(
    tiny_capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_large(*_: Any) -> Losses:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.\nGPU 0 has …")

    monkeypatch.setattr(MCSS, "step", too_large)
    sizes = ["--instants", "4", "--pose-images", "4", "--min-gap", "0.2", "--image-size", "32", "--variants", "0"]
    place = ["--out", str(tmp_path / "run"), "--accelerator", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(["train", "mcss", "--capture", tiny_capture.uri, "--weights", "random", *place, *sizes])
    assert stopped.value.code == 1
    assert " ".join(capsys.readouterr().err.split()).endswith(
        "Error cpu: its memory does not suffice for a step of mcss at 32 pixels (CUDA out of memory. Tried to allocate "
        "9 GiB.). Take fewer --instants and --pose-images, a smaller --image-size, or --precision bf16-mixed."
    )


def test_one_device_trains_alone_beside_the_other_tasks_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NTASKS", "4"), ("JOB_NAME", "shares"), ("JOB_ID", "1"), ("PROCID", "2"), ("LOCALID", "2")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    fabric = Machine(accelerator="cpu").fabric("32-true", tmp_path)
    assert (fabric.world_size, fabric.global_rank) == (1, 0)


def test_the_log_says_which_share_of_the_time_was_spent_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def slowly(seconds: float) -> Iterator[Batch]:
        for _ in range(4):
            clock[0] += seconds
            yield Batch(torch.zeros(2, 3, 1, 1), (1, 2), torch.zeros(0, 17, 3), 0)

    log, told = RunLog(tmp_path / "metrics.jsonl", 0, 0.0, True, lambda *_: None), []
    for wait in (1.0, 0.0):
        for step, batch in enumerate(log.awaited(slowly(wait)), start=1):
            clock[0] += 3.0
            log.count(len(batch.images))
            if step % 2 == 0:
                told.append(log.training(step, Losses(torch.tensor(1.0)), 0.1))
    assert told == [
        *["loss 1.000 · 0 images/s, 25% of the time waiting for images"] * 2,
        *["loss 1.000 · 1 images/s"] * 2,
    ]
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["waiting"], line["images_per_second"]) for line in lines] == [(0.25, 0.5)] * 2 + [(0.0, 0.7)] * 2


COMPILING = """
import sys, torch
from mcss.cli import main

with_code = torch.compile
torch.compile = lambda network, **_: print("compiled") or with_code(network, backend="eager")
main([*sys.argv[1:], "--out", "plain"])
main([*sys.argv[1:], "--out", "run", "--compile"])
main([*sys.argv[1:], "--out", "run", "--compile", "--resume"])
"""
"""Trains with graphs, but without machine code, which takes a minute; in a process without the checks of types, which
torch.compile does not understand."""


@pytest.mark.slow
def test_a_compiled_network_is_trained_saved_and_resumed_as_any_other(tiny_capture: Capture, tmp_path: Path) -> None:
    options = [
        "train", "mcss", "--capture", tiny_capture.uri, "--recipe", "paper", "--weights", "random", "--image-size",
        "32", "--instants", "4", "--min-gap", "0.2", "--pose-images", "4", "--steps", "2", "--accelerator", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILING, *options],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "compiled" in done.stdout
    plain, compiled = (load_file(tmp_path / run / "model.safetensors") for run in ("plain", "run"))
    assert plain.keys() == compiled.keys()
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value)
