"""How results were made, as every table and page states it."""

import datetime
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

import mcss
from mcss.data.capture import Capture


@dataclass(frozen=True)
class Provenance:
    """How a table or page was made; shown at its end."""

    command: str
    capture: str
    """Fingerprint of the capture; empty without one."""
    capture_name: str
    """The capture's path, or a name such as ``built-in synthetic capture``."""
    synthetic: bool
    """Whether the capture is synthetic."""
    date: str
    machine: str
    versions: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings that a reader needs to reproduce the results, such as budget, backbone and learning rate."""


def provenance(command: str, capture: Capture, settings: Mapping[str, str]) -> Provenance:
    """The provenance of results from a capture, made now on this machine."""
    return replace(
        provenance_without_capture(command, capture.uri),
        capture=capture.fingerprint,
        synthetic=capture.info.importer == "synthetic",
        settings=dict(settings),
    )


def provenance_without_capture(command: str, source: str) -> Provenance:
    """The provenance of results from another source than a capture, made now on this machine."""
    return Provenance(
        command=command,
        capture="",
        capture_name=source,
        synthetic=False,
        date=datetime.date.today().isoformat(),
        machine=describe_machine(),
        versions={"mcss": mcss.__version__, "torch": str(torch.__version__)},
    )


def describe_machine() -> str:
    """One line about the processors and the accelerator, for reports."""
    cores = os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()} {platform.machine()}, {cores} cores, {gpu}"
