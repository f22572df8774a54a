"""How figures came about: what every table and page says of itself."""

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
    """How a table or page came about; shown at its end."""

    command: str
    capture: str
    """The capture's fingerprint."""
    capture_name: str
    """Such as the path or ``built-in synthetic capture``."""
    synthetic: bool
    date: str
    machine: str
    versions: Mapping[str, str]
    settings: Mapping[str, str] = field(default_factory=dict)
    """Anything else that a reader needs to repeat it: budget, backbone, learning rate."""


def provenance(command: str, capture: Capture, settings: Mapping[str, str]) -> Provenance:
    """How figures came about: command, capture, date, machine and versions."""
    return replace(
        provenance_without_capture(command, capture.uri),
        capture=capture.fingerprint,
        synthetic=capture.info.importer == "synthetic",
        settings=dict(settings),
    )


def provenance_without_capture(command: str, source: str) -> Provenance:
    """As `provenance`, of what was not made of a capture but of another source."""
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
    """Processors and accelerator, in a line for reports."""
    cores = os.cpu_count()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{platform.system()} {platform.machine()}, {cores} cores, {gpu}"
