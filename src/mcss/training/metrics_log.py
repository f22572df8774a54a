"""The log of a run: ``metrics.jsonl``, a line for every logged training step and every validation."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from mcss.data.loading.batches import Batch
from mcss.errors import CheckpointError, damage_as
from mcss.evaluation.evaluate import Evaluation
from mcss.files import write_text
from mcss.methods.method import Losses

NOTED_WAITING = 0.05
"""Share of the time spent waiting for images from which a shown line says so."""


class RunLog:
    """Writes losses and validation results to ``metrics.jsonl``, with the images and seconds until then."""

    def __init__(
        self, path: Path, images: int, seconds: float, writes: bool, also: Callable[[dict[str, Any], int], None]
    ) -> None:
        """Continue a log.

        Args:
            path: The file.
            images: Images that were trained on before.
            seconds: Seconds that were spent before.
            writes: Whether this process writes.
            also: Called with the numbers of every line and their step, as other loggers take them.
        """
        self._path, self._writes, self._also = path, writes, also
        self._images, self._before, self._begin = images, seconds, time.monotonic()
        self._last, self._waited = (images, self._begin), 0.0
        if writes:
            _remove_half_a_line(path)

    def count(self, images: int) -> None:
        """Count images that were trained on."""
        self._images += images

    def awaited(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield batches, and count the time that passes until each is there."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def training(self, step: int, losses: Losses, rate: float) -> str:
        """Write a line for a training step and return a short form of it to show.

        Args:
            step: Steps done.
            losses: The losses of the step, 0-d tensors.
            rate: The learning rate.
        """
        values = {
            field.name: float(value.detach())
            for field in dataclasses.fields(losses)
            if (value := getattr(losses, field.name)) is not None
        }
        images, then = self._last
        now = time.monotonic()
        speed, waiting = (value / max(now - then, 1e-9) for value in (self._images - images, self._waited))
        self._last, self._waited = (self._images, now), 0.0
        told = {"step": step, "lr": rate, "images_per_second": round(speed, 1), "waiting": round(waiting, 4)}
        self._write({**told, **values})
        shown = {"total": "loss", "positive_distance": "D+", "negative_distance": "D−", "without_negative": "no D−"}
        parts = [f"{shown.get(name, name)} {value:.3f}" for name, value in values.items()]
        slow = f", {waiting:.0%} of the time waiting for images" if waiting > NOTED_WAITING else ""
        return " · ".join([*parts, f"{speed:.0f} images/s{slow}"])

    def validation(self, step: int, evaluation: Evaluation, with_pose: bool) -> None:
        """Write a point of the learning curve, with pose errors if the network learns from labels."""
        line: dict[str, Any] = {"step": step}
        if evaluation.pose is not None and with_pose:
            scores = evaluation.pose.over_poses
            line |= {"mpjpe": scores.mpjpe, "n_mpjpe": scores.n_mpjpe, "pa_mpjpe": scores.pa_mpjpe}
        if evaluation.retrieval is not None and evaluation.retrieval.same_instant is not None:
            line["hit_at_1"] = evaluation.retrieval.same_instant.hit_at_1
        self._write({"step": step, "validation": line})

    def _write(self, line: dict[str, Any]) -> None:
        seconds = self._before + time.monotonic() - self._begin
        finite = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in line.items()}
        if self._writes:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**finite, "images": self._images, "seconds": round(seconds, 2)}) + "\n")
            self._also(_numbers(finite), line["step"])


def _numbers(line: dict[str, Any], prefix: str = "training/") -> dict[str, Any]:
    """The numbers of a line by names for other loggers: ``training/total``, ``validation/n_mpjpe``."""
    numbers: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            numbers |= _numbers(value, f"{name}/")
        elif name != "step" and isinstance(value, int | float):
            numbers[f"{prefix}{name}"] = value
    return numbers


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a ``metrics.jsonl``, without a last line that a killed process left incomplete.

    Raises:
        CheckpointError: Another line is damaged; the message names it.
    """
    texts = path.read_bytes().split(b"\n") if path.exists() else []
    lines = []
    for number, text in enumerate(texts[:-1], start=1):
        with _damage_in(path, number):
            line = json.loads(text)
            if not isinstance(line, dict):
                raise ValueError(f"expected numbers by name, got a {type(line).__name__}")
            lines.append(line)
    return lines


def _damage_in(path: Path, number: int) -> AbstractContextManager[None]:
    return damage_as(
        CheckpointError,
        lambda why: (
            f"{path} line {number}: cannot be read ({why}); remove this line, which costs only a point of the "
            "learning curve, or restore the file from a copy"
        ),
    )


def _remove_half_a_line(path: Path) -> None:
    """Remove a last line that a killed process left incomplete, so that the next one does not continue it."""
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def learning_curve_of(path: Path) -> list[dict[str, Any]]:
    """Return the points of the learning curve in a ``metrics.jsonl``: ``step`` and measures by name."""
    return [line["validation"] for line in read_metrics(path) if "validation" in line]


def rewind(path: Path, step: int) -> tuple[int, float]:
    """Remove the lines after a checkpoint's step; return the images seen and seconds spent until then."""
    lines = [line for line in read_metrics(path) if line["step"] <= step]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return (lines[-1]["images"], lines[-1]["seconds"]) if lines else (0, 0.0)
