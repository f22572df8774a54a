"""How the clocks of a recording's cameras relate (``sync.json``), and which images show the same instant."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mcss.errors import SourceError
from mcss.files import write_json
from mcss.video.reading.decoding import VideoFile
from mcss.video.reading.image_sequences import is_timed_by_names
from mcss.video.reading.stamps import fastest_rate, nearest
from mcss.video.recordings import Recording

SYNC_FILE = "sync.json"

FORMAT = 1

Evidence = Literal["sound", "motion", "hand", "reference", "numbers"]
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
    """The clock of one view: the time t of an image is ``start + pace · t`` seconds on the reference's clock."""

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

    def at(self, seconds: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the reference's time of some times of this camera, in seconds after its first image."""
        return np.asarray(self.start + self.pace * seconds, np.float64)


Clocks = Mapping[str, Clock]
"""The clock of each view of a recording."""


def measured_clock(view: VideoFile, start: float, pace: float, confidence: float, evidence: Evidence) -> Clock:
    """Return the clock of a view with what identifies its file, rounded to what can be measured."""
    return Clock(round(start, 6), round(pace, 9), view.rate, view.count, round(confidence, 4), evidence)


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
    times: Float64[np.ndarray, " taken"]
    """Seconds at which these instants were recorded, on the reference's clock."""
    seen: Mapping[str, Bool[np.ndarray, " taken"]]
    """For each view, whether it has an image of each instant: a picture that a camera lost is a missing view."""

    def shown(self, view: str, places: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Return the numbers of a view's images at some instants taken; the one before stands in for a lost one."""
        place = np.cumsum(self.seen[view])[places] - 1
        return np.asarray(self.images[view][place.clip(0)], np.int64)

    def time_of(self, instants: Int64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Return the times of instants, of those that are not taken by their number."""
        times = instants / self.rate
        place = np.searchsorted(self.frames, instants).clip(0, len(self.frames) - 1)
        taken = self.frames[place] == instants
        times[taken] = self.times[place[taken]]
        return np.asarray(times, np.float64)


def timeline(recording: Recording, clocks: Clocks | None, every: int) -> Timeline:
    """Find the instants of a recording that all views saw, at the rate of the slowest view.

    Every image belongs to the instant that is nearest to its time stamp. So a view that lost a picture lacks that
    instant, and views of different rates stay in step.

    Args:
        recording: The recording.
        clocks: Its clocks; None if all views start together.
        every: Take every n-th instant.

    Raises:
        SourceError: There is no time that all views saw.
    """
    if clocks is None and in_step(recording):
        images = {view.name: np.arange(0, view.count, every) for view in recording.views}
        frames = np.arange(0, recording.count, every)
        seen = {view.name: np.ones(len(frames), bool) for view in recording.views}
        return Timeline(recording.rate, 0, recording.count, images, frames, frames / recording.rate, seen)
    clock_of = clocks or {view.name: Clock(0.0, 1.0, view.rate, view.count, 1.0, "hand") for view in recording.views}
    rate = min(_usual_rate(view) / clock_of[view.name].pace for view in recording.views)
    starts = [clock_of[view.name].start for view in recording.views]
    stops = [clock_of[view.name].at(view.seconds[-1:])[0] for view in recording.views]
    first, last = math.ceil((max(starts) - 1e-6) * rate), math.floor((min(stops) + 1e-6) * rate)
    if last - first < 2 and clocks is None:
        raise SourceError(
            f"{recording.name}: its views have fewer than three instants in common, by their images' time stamps; "
            "use longer recordings, or let `mcss sync` find their offsets"
        )
    if last - first < 2:
        raise SourceError(
            f"{recording.name}: according to {SYNC_FILE} there is no time that all views saw (the last one starts at "
            f"{max(starts):.2f} s, the first one ends at {min(stops):.2f} s); {REMEDY}"
        )
    frames = np.arange(-(-first // every) * every, last + 1, every)
    numbers, seen = {}, {}
    for view in recording.views:
        own = (frames / rate - clock_of[view.name].start) / clock_of[view.name].pace
        if view.evenly_timed:
            numbers[view.name] = np.rint(own * view.rate).astype(np.int64).clip(0, view.count - 1)
            seen[view.name] = np.ones(len(frames), bool)
        else:
            numbers[view.name] = nearest(view.seconds, own)
            apart = np.abs(view.seconds[numbers[view.name]] - own)
            seen[view.name] = apart <= (0.5 + 1e-3) / (rate * clock_of[view.name].pace)
    frames, times, seen, numbers = _with_times(recording, clock_of, rate, frames, numbers, seen)
    images = {name: taken[seen[name]] for name, taken in numbers.items()}
    return Timeline(rate, first, last + 1 - first, images, frames, times, seen)


def in_step(recording: Recording) -> bool:
    """Whether image i of every view shows instant i: evenly timed views whose rates differ by nothing that shows."""
    if not all(view.evenly_timed for view in recording.views):
        return False
    slow, fast = (pick(view.rate for view in recording.views) for pick in (min, max))
    return (fast / slow - 1) * recording.count <= 0.5


def _usual_rate(view: VideoFile) -> float:
    return view.rate if view.evenly_timed else fastest_rate(view.seconds, view.rate)


def _with_times(
    recording: Recording,
    clocks: Clocks,
    rate: float,
    frames: Int64[np.ndarray, " n"],
    numbers: Mapping[str, Int64[np.ndarray, " n"]],
    seen: Mapping[str, Bool[np.ndarray, " n"]],
) -> tuple[
    Int64[np.ndarray, " m"],
    Float64[np.ndarray, " m"],
    dict[str, Bool[np.ndarray, " m"]],
    dict[str, Int64[np.ndarray, " m"]],
]:
    """Leave out instants that no view saw, and state when the others were recorded.

    If a view is not evenly timed, that is the stamp of the first view that saw the instant.
    """
    times = frames / rate
    if not all(view.evenly_timed for view in recording.views):
        for view in reversed(recording.views):
            there = seen[view.name]
            times[there] = clocks[view.name].at(view.seconds[numbers[view.name][there]])
        if (np.diff(times) <= 0).any():
            times = frames / rate
    kept = np.any(list(seen.values()), axis=0)
    return (
        frames[kept],
        times[kept],
        {name: mask[kept] for name, mask in seen.items()},
        {name: taken[kept] for name, taken in numbers.items()},
    )


def clocks_of_numbers(recording: Recording) -> Clocks | None:
    """Return the clocks of folders of images whose numbers are of one clock or one counter; None if nothing says so.

    Numbers are taken for those of one clock if they are times that overlap, and for those of one counter if all views
    end at the same one: a view that begins later then lost its first images.
    """
    views = recording.views
    starts = np.array([view.origins[0] for view in views])
    if not all(view.path.is_dir() for view in views) or np.ptp(starts) < 0.5 / recording.rate:
        return None
    stops = starts + [float(view.seconds[-1]) for view in views]
    if stops.min() <= starts.max():
        return None
    end_together = np.ptp(stops) < 0.5 / recording.rate
    if not end_together and not all(is_timed_by_names(view.path) for view in views):
        return None
    return {
        view.name: measured_clock(view, float(start - starts[0]), 1.0, 1.0, "numbers")
        for view, start in zip(views, starts, strict=True)
    }


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
