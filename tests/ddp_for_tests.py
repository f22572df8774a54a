"""Trains every method in two processes together, and again from a checkpoint: `python ddp_for_tests.py CAPTURE OUT`.

Lightning Fabric starts the second process with the same command; both go through all methods in step.
"""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mcss.training.loop as loop
from mcss.methods.method import Method
from mcss.methods.recipe import OptimiserSettings
from mcss.training.loop import Machine, train
from methods_for_tests import METHODS_BY_NAME, tiny_recipe

saved = loop.save_checkpoint


def train_and_resume(method: Method, capture: str, out: Path) -> None:
    """Train four steps, keep the folder as it was after the second one, and go on from there."""
    whole, resumed = out / method.name / "whole", out / method.name / "resumed"
    settings = tiny_recipe("fast", type(method), capture)
    settings = replace(settings, optimiser=OptimiserSettings(steps=4), checkpoint_every=2, log_every=1)

    def keeping(path: Path, step: int, *given: Any) -> None:
        saved(path, step, *given)
        if path.parent == whole and step == 2:
            shutil.copytree(whole, resumed)

    loop.save_checkpoint = keeping
    machine = Machine(accelerator="cpu", devices=2)
    train(settings, whole, machine=machine)
    loop.save_checkpoint = saved
    train(settings, resumed, resume=True, machine=machine)


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    for each in METHODS_BY_NAME.values():
        train_and_resume(each, sys.argv[1], Path(sys.argv[2]))
