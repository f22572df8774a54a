"""How the clocks of a recording's cameras relate (``sync.json``), and which images show the same instant."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from mcss.errors import SourceError
from mcss.files import write_json
from mcss.video.recordings import Recording

SYNC_FILE = "sync.json"

FORMAT = 1

Evidence = Literal["sound", "motion", "hand", "reference"]
"""What a clock was derived from."""

MIN_CONFIDENCE = 0.15
"""A lower confidence is worth a warning."""

REMEDY = (
    "look at sync.png, and film a clap that all cameras see and hear, or give the offset by hand: "
    "mcss sync FOLDER --offsets VIEW=SECONDS"
)
"""What to do about a clock that is not known well."""


@dataclass(frozen=True)
class Clock:
    """The clock of one view: image i was taken at ``start + pace · i / rate`` seconds on the reference's clock."""

    start: float
    """Seconds after the reference's first image; negative if this camera started earlier."""
    pace: float
    """Seconds that pass on the reference's clock in one second of this one: at 1.0001 it loses 0.1 ms per second."""
    rate: float
    """Images per second that the file states."""
    images: int
    """Number of images in the file, by which a replaced file is noticed."""
    confidence: float
    """0 (a guess) to 1."""
    evidence: Evidence


Clocks = Mapping[str, Clock]
"""The clock of each view of a recording."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """Which image of each view shows each instant (multi-view frame)."""

    rate: float
    """Instants per second, before only every n-th is taken."""
    first: int
    """Number of the first instant: time · rate."""
    count: int
    """Number of instants, before only every n-th is taken."""
    images: Mapping[str, Int64[np.ndarray, " _"]]
    """The numbers of the images taken from each view, in order. Without clocks, a longer view has more of them."""
    frames: Int64[np.ndarray, " taken"]
    """The numbers of the instants taken."""


def timeline(recording: Recording, clocks: Clocks | None, every: int) -> Timeline:
    """Find the instants of a recording that all views saw, at the rate of the slowest view.

    Args:
        recording: The recording.
        clocks: Its clocks; None if image i of every view shows the same instant.
        every: Take every n-th instant.

    Raises:
        SourceError: There is no time that all views saw.
    """
    if clocks is None:
        images = {view.name: np.arange(0, view.count, every) for view in recording.views}
        return Timeline(recording.rate, 0, recording.count, images, np.arange(0, recording.count, every))
    rate = min(view.rate / clocks[view.name].pace for view in recording.views)
    starts = [clocks[view.name].start for view in recording.views]
    stops = [
        clocks[view.name].start + clocks[view.name].pace * (view.count - 1) / view.rate for view in recording.views
    ]
    first, last = math.ceil((max(starts) - 1e-6) * rate), math.floor((min(stops) + 1e-6) * rate)
    if last - first < 2:
        raise SourceError(
            f"{recording.name}: according to {SYNC_FILE} there is no time that all views saw (the last one starts at "
            f"{max(starts):.2f} s, the first one ends at {min(stops):.2f} s); {REMEDY}"
        )
    frames = np.arange(-(-first // every) * every, last + 1, every)
    images = {}
    for view in recording.views:
        clock = clocks[view.name]
        at = (frames / rate - clock.start) / clock.pace * view.rate
        images[view.name] = np.rint(at).astype(np.int64).clip(0, view.count - 1)
    return Timeline(rate, first, last + 1 - first, images, frames)


def write_clocks(folder: Path, clocks: Mapping[str, Clocks]) -> Path:
    """Write the clocks of each recording (``subject/sequence``) to ``sync.json``."""
    path = folder / SYNC_FILE
    recordings = {name: {view: asdict(clock) for view, clock in views.items()} for name, views in clocks.items()}
    write_json(path, {"mcss_sync": FORMAT, "recordings": recordings})
    return path


def read_clocks(folder: Path, recordings: list[Recording]) -> dict[str, Clocks]:
    """Read the clocks of each recording in ``sync.json``; none if there is no such file.

    Raises:
        SourceError: The file was not written by `write_clocks`, or for other footage.
    """
    path = folder / SYNC_FILE
    if not path.exists():
        return {}
    remedy = f"run mcss sync {folder} again, remove the file, or import with --ignore-sync"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or content.get("mcss_sync") != FORMAT:
            raise ValueError(f'there is no "mcss_sync": {FORMAT} in it')
        stored = {
            name: {view: _parsed_clock(values) for view, values in views.items()}
            for name, views in content["recordings"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path}: expected the clocks that `mcss sync` writes, got something else ({error}); {remedy}"
        ) from error
    clocks: dict[str, Clocks] = {}
    for recording in recordings:
        views = stored.get(recording.name)
        if views is None:
            continue
        for view in recording.views:
            clock = views.get(view.name)
            if clock is None or clock.images != view.count or abs(clock.rate - view.rate) > 1e-3 * view.rate:
                got = "nothing" if clock is None else f"{clock.images} images at {clock.rate:g} per second"
                raise SourceError(
                    f"{path}: expected {view.count} images at {view.rate:g} per second for {view.path}, got {got}; "
                    f"it was made for other footage: {remedy}"
                )
        clocks[recording.name] = views
    return clocks


def _parsed_clock(values: Mapping[str, Any]) -> Clock:
    start, pace, rate, confidence = numbers = [float(values[k]) for k in ("start", "pace", "rate", "confidence")]
    if not all(map(math.isfinite, numbers)) or not isinstance(values["images"], int):
        raise ValueError("a clock needs finite numbers")
    clock = Clock(start, pace, rate, values["images"], confidence, values["evidence"])
    if not 0.5 < clock.pace < 2 or clock.rate <= 0:
        raise ValueError(f"expected a pace of about 1 and a rate above 0, got {clock.pace} and {clock.rate}")
    return clock
