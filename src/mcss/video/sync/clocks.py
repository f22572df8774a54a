"""How the clocks of a recording's cameras lie to each other (``sync.json``), and which images belong together."""

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
"""What a clock was read from."""

SURE = 0.15
"""A confidence below this is worth a warning."""

OTHERWISE = (
    "look at sync.png, and film a clap that all cameras see and hear, or give the offset by hand: "
    "mcss sync FOLDER --offsets VIEW=SECONDS"
)


@dataclass(frozen=True)
class Clock:
    """The clock of one view: image i was taken at ``start + pace · i / rate`` seconds of the reference's time."""

    start: float
    """Seconds after the reference's first image; negative if this camera started earlier."""
    pace: float
    """Seconds of the reference's clock that pass in one second of this one: 1.0001 is slow by 0.1 ms a second."""
    rate: float
    """Images per second that the file states."""
    images: int
    """Images in the file, by which other footage is noticed."""
    confidence: float
    """0 (a guess) to 1."""
    evidence: Evidence


Clocks = Mapping[str, Clock]
"""The clock of each view of a recording."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """Which image of each view shows each instant."""

    rate: float
    """Instants per second, before only every n-th is taken."""
    first: int
    """Number of the first instant: time · rate."""
    count: int
    """Instants, before only every n-th is taken."""
    images: Mapping[str, Int64[np.ndarray, " _"]]
    """For each view the images taken, in order. Without clocks a longer view has more of them."""
    frames: Int64[np.ndarray, " taken"]
    """The numbers of the instants taken."""


def timeline(recording: Recording, clocks: Clocks | None, every: int) -> Timeline:
    """The instants of a recording: those that all views saw, at the pace of the slowest.

    Args:
        recording: Views that are in step, unless there are clocks.
        clocks: From `read_clocks`; None if image i of every view shows the same instant.
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
            f"{recording.name}: by {SYNC_FILE} there is no time that all views saw (the last starts at "
            f"{max(starts):.2f} s, the first ends at {min(stops):.2f} s); {OTHERWISE}"
        )
    frames = np.arange(-(-first // every) * every, last + 1, every)
    images = {}
    for view in recording.views:
        clock = clocks[view.name]
        at = (frames / rate - clock.start) / clock.pace * view.rate
        images[view.name] = np.rint(at).astype(np.int64).clip(0, view.count - 1)
    return Timeline(rate, first, last + 1 - first, images, frames)


def write_clocks(folder: Path, clocks: Mapping[str, Clocks]) -> Path:
    """Write ``sync.json``: the clocks of each recording (``subject/sequence``) by view."""
    path = folder / SYNC_FILE
    recordings = {name: {view: asdict(clock) for view, clock in of.items()} for name, of in clocks.items()}
    write_json(path, {"mcss_sync": FORMAT, "recordings": recordings})
    return path


def read_clocks(folder: Path, recordings: list[Recording]) -> dict[str, Clocks]:
    """The clocks of each recording that ``sync.json`` names; nothing if there is no such file.

    Raises:
        SourceError: The file is not one of ours, or was made for other footage.
    """
    path = folder / SYNC_FILE
    if not path.exists():
        return {}
    again = f"run mcss sync {folder} again, remove the file, or import with --ignore-sync"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or found.get("mcss_sync") != FORMAT:
            raise ValueError(f'no "mcss_sync": {FORMAT} in it')
        given = {
            name: {view: _clock(values) for view, values in views.items()}
            for name, views in found["recordings"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(
            f"{path}: expected the clocks that `mcss sync` writes, came something else ({error}); {again}"
        ) from error
    clocks: dict[str, Clocks] = {}
    for recording in recordings:
        of = given.get(recording.name)
        if of is None:
            continue
        for view in recording.views:
            clock = of.get(view.name)
            if clock is None or clock.images != view.count or abs(clock.rate - view.rate) > 1e-3 * view.rate:
                came = "nothing" if clock is None else f"{clock.images} images at {clock.rate:g} per second"
                raise SourceError(
                    f"{path}: for {view.path} ({view.count} images at {view.rate:g} per second) it has {came}; it "
                    f"was made for other footage: {again}"
                )
        clocks[recording.name] = of
    return clocks


def _clock(values: Mapping[str, Any]) -> Clock:
    start, pace, rate, confidence = numbers = [float(values[k]) for k in ("start", "pace", "rate", "confidence")]
    if not all(map(math.isfinite, numbers)) or not isinstance(values["images"], int):
        raise ValueError("a clock needs finite numbers")
    clock = Clock(start, pace, rate, values["images"], confidence, values["evidence"])
    if not 0.5 < clock.pace < 2 or clock.rate <= 0:
        raise ValueError(f"expected a pace of about 1 and a rate above 0, came {clock.pace} and {clock.rate}")
    return clock
