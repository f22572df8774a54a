"""What a diagnosis of a capture consists of."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["ok", "note", "fault", "not checked"]

CASES = 6
"""Worst cases that a check shows."""


@dataclass(frozen=True)
class Case:
    """One place where a check found something."""

    where: str
    """Subject, sequence, frame and what is wrong there."""
    rows: tuple[int, ...]
    """Images of the capture that show it."""


@dataclass(frozen=True)
class Check:
    """One check and what came of it."""

    name: str
    looked: str
    """What it looked at, such as ``4,032 poses``."""
    found: int
    """How many of these are at fault."""
    verdict: Verdict
    text: str
    """What was found and the way out, or why nothing could be checked; empty where all is well."""
    cases: tuple[Case, ...] = ()
    """The worst first."""


@dataclass(frozen=True)
class SplitCounts:
    """What a split holds."""

    instants: int
    images: int
    labelled: int
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """All checks of a capture."""

    capture: str
    """Fingerprint."""
    splits: Mapping[str, SplitCounts]
    """By name; the whole capture under ``all``."""
    checks: tuple[Check, ...]

    @property
    def faults(self) -> tuple[Check, ...]:
        """The checks that found a fault."""
        return tuple(check for check in self.checks if check.verdict == "fault")

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {"healthy": not self.faults, **dataclasses.asdict(self)}


def check(
    name: str, looked: str, found: int, text: str, cases: Sequence[Case] = (), verdict: Verdict = "fault"
) -> Check:
    """What a check found, or that all is well."""
    return Check(name, looked, found, verdict, text, tuple(cases)) if found else Check(name, looked, 0, "ok", "")


def unchecked(name: str, why: str) -> Check:
    """A check for which something is missing."""
    return Check(name, "–", 0, "not checked", why)
