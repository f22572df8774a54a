"""The result of a diagnosis: checks, their verdicts and the worst cases."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["ok", "note", "fault", "not checked"]

CASES = 6
"""The largest number of cases that a check shows."""


@dataclass(frozen=True)
class Case:
    """One place where a check found something."""

    where: str
    """Subject, sequence, frame, and what is wrong there."""
    rows: tuple[int, ...]
    """Images of the capture that show it."""


@dataclass(frozen=True)
class Check:
    """One check and its result."""

    name: str
    looked: str
    """What was examined, such as ``4,032 poses``."""
    found: int
    """How many of them are faulty."""
    verdict: Verdict
    text: str
    """What was found and how to correct it, or why nothing could be checked; empty if all is well."""
    cases: tuple[Case, ...] = ()
    """The worst cases first."""


@dataclass(frozen=True)
class SplitCounts:
    """What a split contains."""

    instants: int
    images: int
    labelled: int
    """Instants with a 3D pose."""
    subjects: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """All checks of a capture."""

    capture: str
    """The fingerprint of the capture."""
    splits: Mapping[str, SplitCounts]
    """Counts by the name of the split; those of the whole capture under ``all``."""
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
    """A check with the given result; "ok", without text and cases, if `found` is 0."""
    return Check(name, looked, found, verdict, text, tuple(cases)) if found else Check(name, looked, 0, "ok", "")


def unchecked(name: str, why: str) -> Check:
    """A check that could not be made because something is missing."""
    return Check(name, "–", 0, "not checked", why)
