"""Run folders: started with their settings, or resumed with the same ones."""

import hashlib
import json
import platform
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch

import mcss
from mcss.data.capture import Capture
from mcss.data.labels import Labels
from mcss.data.provenance import describe_machine
from mcss.errors import CheckpointError, damage_as
from mcss.files import replacing, write_json
from mcss.models.model_file import CHECKPOINT, MODEL
from mcss.training.checkpoints import CONFIG, METRICS
from mcss.training.settings import IDLE, TrainSettings

FIRST_STAGE = "first"
"""The folder within a run in which a method of two stages trains its first one."""


def check_run(out: Path, settings: TrainSettings, capture: Capture, resume: bool) -> str:
    """Check that a run folder may be started or resumed; return the digest that ties a checkpoint to its run.

    Raises:
        CheckpointError: `out` holds a run and `resume` is off, or a run with other settings.
    """
    plain = _described(settings, capture)
    path = out / CONFIG
    if not resume and any(config.exists() for config in (path, out / FIRST_STAGE / CONFIG)):
        raise CheckpointError(f"{out}: holds a run already. Add --resume to go on with it, or give another --out.")
    if not path.exists():
        return _digest(plain)
    known = read_run_config(path)
    then, now = _with_later_settings(known, settings), json.loads(json.dumps(_decisive(plain)))
    if other := sorted(key for key in now if then.get(key) != now[key]):
        raise CheckpointError(
            f"{out}: expected the settings of the run in it, got others ({', '.join(other)}); see {path}. "
            "Resume with the same command, or give another --out."
        )
    return str(known["digest"])


def read_run_config(path: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a run.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    with damage_as(
        CheckpointError,
        lambda why: (
            f"{path}: expected the settings of a run, got something that cannot be read ({why}). Restore it "
            "from a copy, or train anew in another --out."
        ),
    ):
        known: Any = json.loads(path.read_bytes())
        if not isinstance(known, dict) or not isinstance(known.get("digest"), str):
            raise ValueError("it has no digest of the settings")
        return known


def write_config(out: Path, settings: TrainSettings, capture: Capture) -> None:
    """Write the ``config.json`` of a run that has none."""
    if (out / CONFIG).exists():
        return
    plain = _described(settings, capture)
    versions = {"mcss": mcss.__version__, "torch": torch.__version__, "python": platform.python_version()}
    known = {**plain, "digest": _digest(plain), "versions": versions, "machine": describe_machine()}
    write_json(out / CONFIG, known)


def adopt_first_stage(out: Path, first: TrainSettings, capture: Capture, runs: Iterable[Path]) -> None:
    """Copy to `out` a first stage that another run has finished with the same settings, if there is one.

    A representation does not depend on labels, so runs with other labels share it.

    Args:
        out: The run folder that needs it.
        first: The settings of its first stage, see `mcss.training.settings.stages`.
        capture: The capture that is trained on.
        runs: Other run folders.
    """
    if any((out / FIRST_STAGE / name).exists() for name in (MODEL, CHECKPOINT)):
        return
    digest = _digest(_described(first, capture))
    for run in runs:
        stage = run / FIRST_STAGE
        if not (stage / MODEL).exists() or not (stage / CONFIG).exists():
            continue
        with suppress(CheckpointError):  # a damaged file of another run is no reason to stop
            if read_run_config(stage / CONFIG)["digest"] == digest:
                for name in (CONFIG, METRICS, MODEL):  # the model last: with it the stage counts as finished
                    with replacing(out / FIRST_STAGE / name) as copy:
                        shutil.copyfile(stage / name, copy)
                return


def _described(settings: TrainSettings, capture: Capture) -> dict[str, Any]:
    """Return what ``config.json`` says about the settings and the files that they name."""
    plain = {**asdict(settings), "method_name": settings.method.name, "capture_fingerprint": capture.fingerprint}
    if listed := Labels.parse(settings.labels).listed:  # the file may change while a run is stopped
        plain["label_instants"] = hashlib.sha256(json.dumps(listed).encode()).hexdigest()
    if settings.beside:
        plain["beside_fingerprints"] = [Capture.open(address).fingerprint for address in settings.beside]
    if contents := [hashlib.sha256(file.read_bytes()).hexdigest() for file in settings.method.files if file.is_file()]:
        plain["files"] = contents
    return plain


def _digest(plain: dict[str, Any]) -> str:
    """Return a digest of everything that determines what a run computes."""
    return hashlib.sha256(json.dumps(_decisive(plain), sort_keys=True).encode()).hexdigest()


def _decisive(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key not in IDLE}


def _with_later_settings(known: dict[str, Any], settings: Any) -> dict[str, Any]:
    """Return the settings of an older mcss; settings that are new since then have their defaults."""
    filled = dict(known)
    for field_ in fields(settings):
        name, value = field_.name, getattr(settings, field_.name)
        if name in filled and is_dataclass(value) and isinstance(filled[name], dict):
            filled[name] = _with_later_settings(filled[name], value)
        elif name not in filled and field_.default is not MISSING:
            filled[name] = json.loads(json.dumps(field_.default))
    return filled
