"""Footage of cameras that were started by hand → how their clocks lie: ``sync.json`` and an image of it.

Sound is best where all cameras heard the same; views without it are aligned by how the person moves, all pairs of views
together. A trained embedding can refine the result: it is the offset at which the views agree best.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from mcss.errors import SourceError
from mcss.images import decode_jpeg
from mcss.progress import NO_PROGRESS, Progress, Task
from mcss.video.decoding import Footage, images
from mcss.video.person_crops import Viewing, every_crop
from mcss.video.recordings import Recording, find_recordings
from mcss.video.sync.alignment import Agreement, agreement, offsets
from mcss.video.sync.clocks import OTHERWISE, SURE, Clock, Clocks, Evidence, timeline, write_clocks
from mcss.video.sync.motion import MotionProfile, motion_profile
from mcss.video.sync.sound import Sound, robust_line, sound_lag, sound_of
from mcss.viz.figures import AlignedView, alignment_png

SHOWN = 10
"""So many instants are shown in the image of an alignment."""

MOTION_RATE = 60.0
"""Motion is compared at the rate of the fastest camera, but not more often than this a second."""

ELSEWHERE = 0.15
"""Seconds from the best offset at which another one begins."""

DRIFT_NEEDS = 40.0
"""Seconds that views must share before the pace of a clock is read from them."""

MOST_DRIFT = 2e-3
"""A pace that is further from 1 than this is no clock's but a mistake."""

REFINE = 0.25
"""Seconds around the offset in which an embedding may move it."""


Curve = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]
"""Offsets in seconds, and how well the other views agree with each."""


CROP_SIZE = 128
"""Side in pixels of the crops that an embedding looks at."""

Embed = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Crops (RGB, square, uint8) to embeddings, one row each."""


@dataclass(frozen=True)
class SyncSettings:
    """How offsets between views are found."""

    by: Literal["auto", "sound", "motion"] = "auto"
    """sound, motion, or for each view what is there: sound if it fits, else motion."""
    reference: str | None = None
    """The view whose clock is the common one; by default the first."""
    offsets: tuple[str, ...] = ()
    """Offsets known by hand, in seconds after the reference: VIEW=SECONDS or SUBJECT/SEQUENCE/VIEW=SECONDS."""
    max_offset: float = 30.0
    """The largest offset in seconds that is thought possible."""
    min_overlap: float = 0.5
    """The share of the shorter of two views that the other one must have seen too (motion)."""
    seconds: float = 120.0
    """Motion is looked at so long, from each video's start."""

    def __post_init__(self) -> None:
        if self.max_offset <= 0 or not 0.05 <= self.min_overlap <= 1 or self.seconds < 1:
            raise ValueError(
                "expected max_offset > 0, min_overlap 0.05–1 and seconds ≥ 1, came "
                f"{self.max_offset}, {self.min_overlap} and {self.seconds}"
            )
        for text in self.offsets:
            _by_hand(text)


@dataclass(frozen=True, eq=False)
class Synchronised:
    """What was found out about one recording."""

    recording: Recording
    reference: str
    clocks: Clocks
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """For each view found by motion: offsets in seconds, and how well all other views agree with each."""

    def warnings(self) -> list[str]:
        """What is not sure, with the way out."""
        return [
            f"{self.recording.name}: the offset of {name} ({clock.start:+.3f} s, by {clock.evidence}) is not sure: "
            f"confidence {clock.confidence:.2f}, below {SURE}; {OTHERWISE}"
            for name, clock in self.clocks.items()
            if clock.confidence < SURE
        ]


def synchronise(
    folder: str | Path,
    settings: SyncSettings | None = None,
    embed: Embed | None = None,
    progress: Progress = NO_PROGRESS,
) -> list[Synchronised]:
    """Find the clocks of all recordings in a folder and write ``sync.json`` and images of the alignment there.

    Args:
        folder: ``subject/sequence/view.mp4``, or the views of one recording.
        settings: `SyncSettings`; the defaults if None.
        embed: A trained embedding that refines what sound and motion say, such as that of `mcss.load`.
        progress: Counts images.

    Raises:
        SourceError: Files that cannot be read, a view that neither moves nor can be heard, unknown names.
    """
    settings = settings or SyncSettings()
    recordings = find_recordings(Path(folder))
    _check_names(recordings, settings)
    done = []
    total = sum(min(v.count, math.ceil(settings.seconds * v.rate)) for r in recordings for v in r.views)
    with progress.task("Synchronising views", total) as task:
        for recording in recordings:
            task.note(recording.name)
            found = _synchronised(recording, settings, task)
            done.append(_refined(found, embed, settings, task) if embed is not None else found)
    write_clocks(Path(folder), {found.recording.name: found.clocks for found in done})
    for found in done:
        _draw(image_of(Path(folder), found.recording, len(done) > 1), found, settings)
    return done


def image_of(folder: Path, recording: Recording, several: bool) -> Path:
    """Where the image of a recording's alignment is: in the folder, or beside the videos if there are several."""
    return folder / recording.subject / recording.sequence / "sync.png" if several else folder / "sync.png"


def _draw(path: Path, found: Synchronised, settings: SyncSettings) -> None:
    line = timeline(found.recording, found.clocks, 1)
    length = min(len(line.frames), round(settings.seconds * line.rate))
    at = np.unique(np.linspace(0.04 * length, 0.96 * (length - 1), SHOWN).astype(int))
    rows = []
    for view in found.recording.views:
        clock = found.clocks[view.name]
        wanted = line.images[view.name][at].tolist()
        shots = {i: shot for i, shot in enumerate(islice(images(view.path, 200), wanted[-1] + 1)) if i in wanted}
        last = max(shots)  # a damaged video may end before
        strip = np.hstack([shots.get(i, np.zeros_like(shots[last])) for i in wanted])
        label = f"{view.name}   {clock.start:+.3f} s by {clock.evidence}, confidence {clock.confidence:.2f}"
        offsets_seen, agreed = found.curves.get(view.name, (np.zeros(0), np.zeros(0)))
        rows.append(AlignedView(label, strip, clock.start, offsets_seen, agreed))
    times = ", ".join(f"{line.frames[i] / line.rate:.2f}" for i in at)
    alignment_png(path, f"{found.recording.name}: every column should show one instant ({times} s)", rows)


def _by_hand(text: str) -> tuple[str, float]:
    name, _, seconds = text.rpartition("=")
    try:
        value = float(seconds)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        raise ValueError(f"offsets: expected VIEW=SECONDS such as left=-0.52, came {text!r}")
    return name, value


def _check_names(recordings: list[Recording], settings: SyncSettings) -> None:
    views = {name for r in recordings for v in r.views for name in (v.name, f"{r.name}/{v.name}")}
    for name in (settings.reference, *(_by_hand(text)[0] for text in settings.offsets)):
        if name is not None and name not in views:
            known = ", ".join(dict.fromkeys(v.name for r in recordings for v in r.views))
            raise SourceError(f"there is no view {name!r}; the views are: {known}")


def _synchronised(recording: Recording, settings: SyncSettings, task: Task) -> Synchronised:
    names = [view.name for view in recording.views]
    first = names.index(settings.reference) if settings.reference in names else 0
    views = [recording.views[first], *(v for i, v in enumerate(recording.views) if i != first)]
    given = dict(map(_by_hand, settings.offsets))
    clocks = {views[0].name: reference_clock(views[0])}
    for view in views[1:]:
        hand = given.get(f"{recording.name}/{view.name}", given.get(view.name))
        if hand is not None:
            clocks[view.name] = _clock(view, hand, 1.0, 1.0, "hand")
    if settings.by != "motion":
        clocks |= _heard(views, set(clocks), settings)
    left = [view for view in views if view.name not in clocks]
    if left and settings.by == "sound":
        raise SourceError(
            "\n".join(
                f"{view.path}: its sound and that of {views[0].path.name} have nothing in common (silent, or none); "
                "use --by auto to align it by motion, or give its offset by hand: --offsets "
                f"{view.name}=SECONDS"
                for view in left
            )
        )
    curves: dict[str, Curve] = {}
    if left:
        moved, curves = _moved(views, clocks, settings, task)
        clocks |= moved
    else:
        task.advance(sum(min(v.count, math.ceil(settings.seconds * v.rate)) for v in views))
    return Synchronised(recording, views[0].name, {name: clocks[name] for name in names}, curves)


def reference_clock(view: Footage) -> Clock:
    """The clock that the others are told by."""
    return _clock(view, 0.0, 1.0, 1.0, "reference")


def _clock(view: Footage, start: float, pace: float, confidence: float, evidence: Evidence) -> Clock:
    return Clock(round(start, 6), round(pace, 9), view.rate, view.count, round(confidence, 4), evidence)


def _heard(views: list[Footage], known: set[str], settings: SyncSettings) -> dict[str, Clock]:
    """The clocks that sound tells for sure."""
    clocks: dict[str, Clock] = {}
    wanted = [view for view in views[1:] if view.name not in known]
    reference: Sound | None = sound_of(views[0].path) if wanted else None
    if reference is None:
        return clocks
    for view in wanted:
        sound = sound_of(view.path)
        match = None if sound is None else sound_lag(reference, sound, settings.max_offset)
        if match is None or (match.confidence < SURE and settings.by == "auto"):
            continue
        start, pace = _start_and_pace(match.at - match.lag, match.lag)
        clocks[view.name] = _clock(view, start, pace, match.confidence, "sound")
    return clocks


def _start_and_pace(own: Float64[np.ndarray, " n"], lag: Float64[np.ndarray, " n"]) -> tuple[float, float]:
    """A clock from lags seen at times of its own: common time = start + pace · own time."""
    if len(own) < 4 or np.ptp(own) < DRIFT_NEEDS / 2:
        return float(np.median(lag)), 1.0
    slope, start = robust_line(own, lag)
    return (start, 1.0 + slope) if abs(slope) < MOST_DRIFT else (float(np.median(lag)), 1.0)


def _moved(
    views: list[Footage], known: Clocks, settings: SyncSettings, task: Task
) -> tuple[dict[str, Clock], dict[str, Curve]]:
    """The clocks of the other views by motion."""
    profiles = [motion_profile(view, settings.seconds, task) for view in views]
    for view, profile in zip(views, profiles, strict=True):
        if not profile.moves and (view is views[0] or view.name not in known):
            raise SourceError(
                f"{view.path}: nobody moves in it, and there is no sound that fits, so its offset cannot be found; "
                f"give it by hand (--offsets {view.name}=SECONDS), or remove the view"
            )
    return clocks_by_motion(views, profiles, known, settings)


def clocks_by_motion(
    views: Sequence[Footage], profiles: Sequence[MotionProfile], known: Clocks, settings: SyncSettings
) -> tuple[dict[str, Clock], dict[str, Curve]]:
    """The clocks that are not known yet, from how the person moves, all pairs of views together.

    Args:
        views: Of one recording, the reference first.
        profiles: How the person moves in each.
        known: The clocks that are known, the reference's among them.
        settings: How far to search.
    """
    rate = min(max(view.rate for view in views), MOTION_RATE)
    signals = [profile.quick_at_rate(rate) for profile in profiles]
    reach = min(round(settings.max_offset * rate), max(s.shape[1] for s in signals))
    pairs = {
        (i, j): agreement(signals[i], signals[j], reach, settings.min_overlap)
        for i, j in itertools.combinations(range(len(views)), 2)
        if profiles[i].moves and profiles[j].moves
    }
    fixed = {i: known[view.name].start * rate for i, view in enumerate(views) if view.name in known}
    found = offsets(pairs, len(views), ELSEWHERE * rate, fixed)
    clocks: dict[str, Clock] = {}
    curves: dict[str, Curve] = {}
    for i, view in enumerate(views):
        if view.name not in known:
            start, pace = found.start[i] / rate, 1.0
            if signals[0].shape[1] >= DRIFT_NEEDS * rate and profiles[0].moves:
                start, pace = _drift(signals[0], signals[i], start, rate)
            clocks[view.name] = _clock(view, start, pace, float(found.confidence[i]), "motion")
        curves[view.name] = found.around(pairs, i, rate)
    return clocks, curves


def _drift(
    a: Float64[np.ndarray, "rolls n parts"],
    b: Float64[np.ndarray, "rolls m parts"],
    start: float,
    rate: float,
) -> tuple[float, float]:
    """Offset and pace of a view from the offsets of windows of 20 s."""
    length, lag = round(20 * rate), round(start * rate)
    first, last = max(lag, 0), min(a.shape[1], b.shape[1] + lag) - length
    if last - first < (DRIFT_NEEDS - 20) * rate:
        return start, 1.0
    own, lags = [], []
    for begin in np.linspace(first, last, 9).astype(int).tolist():
        part = agreement(a[:, begin : begin + length], b[:, begin - lag : begin - lag + length], round(0.5 * rate), 0.5)
        found = offsets({(0, 1): part}, 2, ELSEWHERE * rate)
        if found.confidence[1] > SURE:
            own.append((begin - lag + length / 2) / rate)
            lags.append((lag + found.start[1]) / rate)
    return _start_and_pace(np.array(own), np.array(lags)) if len(own) >= 4 else (start, 1.0)


def _refined(found: Synchronised, embed: Embed, settings: SyncSettings, task: Task) -> Synchronised:
    """The offsets near those found at which a trained embedding sees the views agree best."""
    views = sorted(found.recording.views, key=lambda view: view.name != found.reference)
    rate = min(view.rate for view in views)
    signals = []
    for view in views:
        clock = found.clocks[view.name]
        count = min(view.count, round(settings.seconds * view.rate))
        taken = np.rint(np.arange(int((count - 1) / view.rate * rate * clock.pace)) / rate / clock.pace * view.rate)
        numbers = taken.astype(np.int64)
        viewing = Viewing(view, numbers, rate, size=CROP_SIZE, margin=1.15, quality=90, max_missing=5)
        crops_seen = [decode_jpeg(crop) for crop in every_crop(viewing, lambda _: None, task.advance)]
        signals.append(embed(crops_seen).astype(np.float64))
    coarse = np.array([found.clocks[view.name].start * rate for view in views])
    reach = round(REFINE * rate)
    pairs = {}
    for i, j in itertools.combinations(range(len(views)), 2):
        pairs[i, j] = embedding_agreement(signals[i], signals[j], round(coarse[j]) - round(coarse[i]), reach)
    known = {
        i: coarse[i] - round(coarse[i])
        for i, view in enumerate(views)
        if found.clocks[view.name].evidence in ("reference", "hand")
    }
    better = offsets(pairs, len(views), reach / 2, known)
    clocks = dict(found.clocks)
    for i, view in enumerate(views):
        inside = abs(better.start[i]) < reach - 1  # the best offset is not merely the last one looked at
        if i not in known and inside and better.confidence[i] >= SURE:
            clocks[view.name] = replace(
                clocks[view.name], start=round(float(round(coarse[i]) + better.start[i]) / rate, 6)
            )
    return replace(found, clocks=clocks)


def embedding_agreement(
    a: Float64[np.ndarray, "n dim"], b: Float64[np.ndarray, "m dim"], lag: int, reach: int
) -> Agreement:
    """How near the embeddings of two views lie for lags around `lag`, beyond what any two instants have in common."""
    alike = a @ b.T
    alike = alike - alike.mean(axis=0) - alike.mean(axis=1)[:, None] + alike.mean()
    scores = []
    for step in range(lag - reach, lag + reach + 1):
        line = np.diagonal(alike, -step)
        scores.append(float(line.mean() * np.sqrt(len(line))) if len(line) >= 8 else -1.0)
    return Agreement(np.array(scores))
