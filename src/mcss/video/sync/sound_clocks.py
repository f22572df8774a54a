"""The clocks of views that recorded the same sound, found between any two of them.

The reference may have recorded nothing: views that heard the same are then known relative to each other, and one of
them has to be aligned in another way.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mcss.video.reading.decoding import VideoFile
from mcss.video.sync.clocks import MIN_CONFIDENCE, Clock, Clocks, measured_clock
from mcss.video.sync.sound import Sound, sounds_of
from mcss.video.sync.sound_lag import SoundLag, sound_lag, start_and_pace

CLEAR = 0.5
"""Confidence from which on a match of two channels needs no comparison with those of others."""


@dataclass(frozen=True)
class SoundClocks:
    """What sound says about the clocks of a recording."""

    known: Clocks
    """On the reference's clock, without those that were known before."""
    groups: tuple[Clocks, ...]
    """Views that heard the same, but not what a known view heard: each on the clock of the group's first view."""


def clocks_by_sound(
    views: Sequence[VideoFile], known: Clocks, reach: float | None, least: float = MIN_CONFIDENCE
) -> SoundClocks:
    """Find the clocks that sound determines.

    Args:
        views: The views of a recording.
        known: Clocks that are already known, on the reference's clock.
        reach: The largest offset in seconds; None considers all.
        least: Confidence that a match needs.
    """
    if all(view.name in known for view in views):
        return SoundClocks({}, ())
    sounds = {view.name: sounds_of(view) for view in views}
    views_of = {view.name: view for view in views}
    found = _linked(known, views_of, sounds, reach, least)
    groups: list[Clocks] = []
    left = [name for name in views_of if name not in known and name not in found and sounds[name]]
    while len(left) > 1:
        root = left.pop(0)
        start = {root: measured_clock(views_of[root], 0.0, 1.0, 1.0, "sound")}
        group = _linked(start, {name: views_of[name] for name in (root, *left)}, sounds, reach, least)
        left = [name for name in left if name not in group]
        if group:
            groups.append(start | group)
    return SoundClocks(found, tuple(groups))


def shifted(group: Clocks, by: Mapping[str, Clock]) -> dict[str, Clock]:
    """Return a group's clocks on the reference's clock, given clocks of its members that were measured in another way.

    The member that is known best decides. Its confidence is that of all.
    """
    best = max(group, key=lambda name: by[name].confidence)
    start = by[best].start - group[best].start
    return {
        name: replace(clock, start=round(clock.start + start, 6), confidence=min(clock.confidence, by[best].confidence))
        for name, clock in group.items()
    }


def _linked(
    known: Clocks,
    views: Mapping[str, VideoFile],
    sounds: Mapping[str, Sequence[Sound]],
    reach: float | None,
    least: float,
) -> dict[str, Clock]:
    """Link views to known ones, the best match first, as long as there is one."""
    clocks = dict(known)
    matches: dict[tuple[str, str], SoundLag | None] = {}
    while True:
        best: tuple[float, str, str, SoundLag] | None = None
        for name in views:
            for anchor in clocks if name not in clocks else ():
                if (anchor, name) not in matches:
                    matches[anchor, name] = _match(sounds.get(anchor, ()), sounds[name], reach)
                match = matches[anchor, name]
                if match is not None and match.confidence >= least and (best is None or match.confidence > best[0]):
                    best = match.confidence, anchor, name, match
        if best is None:
            return {name: clock for name, clock in clocks.items() if name not in known}
        confidence, anchor, name, match = best
        start, pace = start_and_pace(match.at - match.lag, match.lag)
        base = clocks[anchor]
        clocks[name] = measured_clock(
            views[name], base.start + base.pace * start, base.pace * pace, min(base.confidence, confidence), "sound"
        )


def _match(a: Sequence[Sound], b: Sequence[Sound], reach: float | None) -> SoundLag | None:
    """Return the best match of any channel of one view with any channel of another, or the first that is clear."""
    best: SoundLag | None = None
    for x, y in itertools.product(a, b):
        match = sound_lag(x, y, reach)
        if match is not None and (best is None or match.confidence > best.confidence):
            best = match
            if best.confidence >= CLEAR:
                break
    return best
