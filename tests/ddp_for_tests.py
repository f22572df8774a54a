"""Trains every method in two processes together, and again from a checkpoint: `python ddp_for_tests.py CAPTURE OUT`.

Lightning Fabric starts the second process with the same command; both go through all methods in step. With a third
argument, the process of that rank (or none) kills itself in the fourth step of `mcss train --resume`; further ones are
further options.
"""

import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import mcss.training.loop as loop
from mcss.cli import main
from mcss.methods.method import Method
from mcss.methods.recipe import OptimiserSettings
from mcss.training.loop import train
from mcss.training.machine import Machine
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


def arguments(capture: str, out: str) -> list[str]:
    """What follows `mcss train` for a short training on two processors."""
    options = ("--labels", "S1", "--steps", "8", "--backbone", "resnet18", "--weights", "random", "--dim", "8")
    sizes = ("--image-size", "32", "--instants", "3", "--pose-images", "4", "--checkpoint-every", "2")
    where = ("--capture", capture, "--out", out, "--accelerator", "cpu", "--devices", "2", "--resume")
    return ["mcss", *options, *sizes, *where]


def train_and_be_killed(rank: str, capture: str, out: str, *options: str) -> None:
    """Train with the real command, in which the process of a rank ends in the fourth step."""
    seed, steps = loop._step_seed, iter(range(100))

    def ending(*given: int) -> int:
        if next(steps) == 3 and os.environ.get("LOCAL_RANK", "0") == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return seed(*given)

    loop._step_seed = ending
    main(["train", *arguments(capture, out), *options])


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if len(sys.argv) > 3:
        train_and_be_killed(sys.argv[3], *sys.argv[1:3], *sys.argv[4:])
        sys.exit()
    for each in METHODS_BY_NAME.values():
        train_and_resume(each, sys.argv[1], Path(sys.argv[2]))
