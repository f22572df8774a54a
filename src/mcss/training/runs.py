"""Run folders: begun with their settings, or gone on with under the same ones."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterable
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

import mcss
from mcss.data.capture import Capture
from mcss.data.keypoints import LABELS
from mcss.data.labels import LabelSpec
from mcss.data.provenance import describe_machine
from mcss.errors import CheckpointError
from mcss.files import replacing, write_json
from mcss.methods.method import method_name, points_of
from mcss.models.model_file import MODEL
from mcss.training.checkpoints import CONFIG, METRICS
from mcss.training.settings import IDLE, TrainSettings

FIRST_STAGE = "first"
"""The folder within a run in which a method of two stages trains its first one."""


def begin_run(out: Path, settings: TrainSettings, capture: Capture, resume: bool) -> str:
    """Write ``config.json``, or check that it is this run's; returns the digest that ties a checkpoint to its run.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or one with other settings.
    """
    plain = _described(settings, capture)
    digest = _digest(plain)
    path = out / CONFIG
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        if not resume:
            raise CheckpointError(f"{out}: holds a run already. Add --resume to go on with it, or give another --out.")
        then, now = _with_later_settings(known, settings), json.loads(json.dumps(_decisive(plain)))
        if other := sorted(key for key in now if then.get(key) != now[key]):
            raise CheckpointError(
                f"{out}: that run has other settings ({', '.join(other)}); see {path}. "
                "Resume with the same command, or give another --out."
            )
        return str(known["digest"])
    versions = {"mcss": mcss.__version__, "torch": torch.__version__, "python": platform.python_version()}
    write_json(path, {**plain, "digest": digest, "versions": versions, "machine": describe_machine()})
    return digest


def adopt_first_stage(out: Path, first: TrainSettings, capture: Capture, runs: Iterable[Path]) -> None:
    """Copy to `out` a first stage that another run has finished with the very same settings, if there is one.

    A representation knows no labels, so runs with other labels share it; and no learning is done twice.

    Args:
        out: The run folder that needs it.
        first: The settings of its first stage, see `mcss.training.settings.stages`.
        capture: That is trained on.
        runs: Other run folders.
    """
    if (out / FIRST_STAGE).exists():
        return
    digest = _digest(_described(first, capture))
    for run in runs:
        stage = run / FIRST_STAGE
        if not (stage / MODEL).exists() or not (stage / CONFIG).exists():
            continue
        if json.loads((stage / CONFIG).read_text(encoding="utf-8"))["digest"] == digest:
            for name in (CONFIG, METRICS, MODEL):  # the model last: with it the stage counts as finished
                with replacing(out / FIRST_STAGE / name) as copy:
                    shutil.copyfile(stage / name, copy)
            return


def _described(settings: TrainSettings, capture: Capture) -> dict[str, Any]:
    """What stands in ``config.json`` of the settings and of what they name."""
    plain = {
        **asdict(settings),
        "method_name": method_name(settings.method),
        "capture_fingerprint": capture.fingerprint,
    }
    if listed := LabelSpec.parse(settings.labels).listed:  # the file may change while a run is stopped
        plain["label_instants"] = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    if (source := points_of(settings.method)) not in (None, LABELS) and Path(str(source)).is_file():
        plain["points_file"] = hashlib.sha256(Path(str(source)).read_bytes()).hexdigest()
    return plain


def _digest(plain: dict[str, Any]) -> str:
    """Of all that decides what a run computes."""
    return hashlib.sha256(json.dumps(_decisive(plain), sort_keys=True).encode()).hexdigest()


def _decisive(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in IDLE}


def _with_later_settings(known: dict[str, Any], settings: Any) -> dict[str, Any]:
    """The settings of an older mcss, with those that came since at their defaults, as it was without them."""
    filled = dict(known)
    for field_ in fields(settings):
        name, value = field_.name, getattr(settings, field_.name)
        if name in filled and is_dataclass(value) and isinstance(filled[name], dict):
            filled[name] = _with_later_settings(filled[name], value)
        elif name not in filled and field_.default is not MISSING:
            filled[name] = json.loads(json.dumps(field_.default))
    return filled
