"""Find how the clocks of cameras that were started by hand relate: ``sync.json`` and an image of the alignment.

Sound is used where all cameras recorded the same; views without it are aligned by how the person moves, all pairs of
views together. A trained embedding can refine the result: the views' embeddings agree best at the right offset.
"""

import itertools
import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

from mcss.errors import SourceError
from mcss.images import Image, decode_jpeg
from mcss.progress import NO_PROGRESS, Progress, Task
from mcss.video.crops import CropSettings
from mcss.video.person_crops import FrameReader, ViewToCrop, all_crops
from mcss.video.reading.decoding import VideoFile
from mcss.video.reading.image_sequences import RATE
from mcss.video.reading.stamps import nearest
from mcss.video.recordings import Recording, find_recordings
from mcss.video.sync.alignment import Agreement, AgreementCurve, agreement, offsets
from mcss.video.sync.clocks import MIN_CONFIDENCE, REMEDY, Clock, Clocks, measured_clock, timeline, write_clocks
from mcss.video.sync.motion import MotionProfile, motion_profile
from mcss.video.sync.sound_clocks import clocks_by_sound, shifted
from mcss.video.sync.sound_lag import start_and_pace
from mcss.viz.plots import AlignedView, alignment_png

SHOWN_INSTANTS = 10
"""Number of instants in the image of an alignment."""

MOTION_RATE = 60.0
"""Motion is compared at the rate of the fastest camera, but at most this often per second."""

ELSEWHERE = 0.15
"""Offsets at least this many seconds away from the best one count as alternatives to it."""

DRIFT_NEEDS = 40.0
"""Seconds that views must share for the pace of a clock to be estimated from motion."""

MOTION_OFFSET = 30.0
"""Largest offset in seconds that is considered by motion if none is stated."""

REFINE = 0.25
"""Largest change of an offset by an embedding, in seconds."""

CROP_SIZE = 128
"""Side in pixels of the crops that are embedded."""

EmbedCrops = Callable[[Sequence[np.ndarray]], Float[np.ndarray, "n dim"]]
"""Maps square RGB crops (uint8) to their embeddings, such as `Model.embed` of `mcss.load`."""


@dataclass(frozen=True)
class SyncSettings:
    """How the offsets between views are found."""

    by: Literal["auto", "sound", "motion"] = "auto"
    """What to align the views by; auto uses sound where it matches the reference's, and motion for all other views."""
    reference: str | None = None
    """The view on whose clock all times are given; by default the first one."""
    offsets: tuple[str, ...] = ()
    """Known offsets in seconds after the reference: VIEW=SECONDS or SUBJECT/SEQUENCE/VIEW=SECONDS."""
    max_offset: float | None = None
    """The largest offset in seconds that is considered; by default any by sound, and 30 by motion."""
    min_overlap: float = 0.5
    """The share of the shorter of two views that the other one must have recorded too (motion)."""
    seconds: float = 120.0
    """Motion is measured in this many seconds from the start of each video."""

    image_rate: float = RATE
    """Images per second of views that are folders of numbered images."""

    def __post_init__(self) -> None:
        if (
            (self.max_offset is not None and self.max_offset <= 0)
            or not 0.05 <= self.min_overlap <= 1
            or self.seconds < 1
        ):
            raise ValueError(
                "expected max_offset > 0, min_overlap 0.05–1 and seconds ≥ 1, got "
                f"{self.max_offset}, {self.min_overlap} and {self.seconds}"
            )
        for text in self.offsets:
            _parsed_offset(text)


@dataclass(frozen=True, eq=False)
class SyncResult:
    """The clocks of one recording."""

    recording: Recording
    reference: str
    clocks: Clocks
    curves: Mapping[str, AgreementCurve] = field(default_factory=dict)
    """How well all other views agree with each offset, for each view that was aligned by motion."""

    def warnings(self) -> list[str]:
        """Return a warning for each uncertain offset, with the way out."""
        return [
            f"{self.recording.name}: the offset of {name} ({clock.start:+.3f} s, by {clock.evidence}) is uncertain: "
            f"confidence {clock.confidence:.2f}, below {MIN_CONFIDENCE}; {REMEDY}"
            for name, clock in self.clocks.items()
            if clock.confidence < MIN_CONFIDENCE
        ]


def synchronise(
    folder: str | Path,
    settings: SyncSettings | None = None,
    embed_crops: EmbedCrops | None = None,
    progress: Progress = NO_PROGRESS,
) -> list[SyncResult]:
    """Find the clocks of all recordings in a folder and write ``sync.json`` and images of the alignment there.

    Args:
        folder: ``subject/sequence/view.mp4``, or the views of one recording.
        settings: How to find them; None uses the defaults.
        embed_crops: A trained embedding that refines the offsets.
        progress: Counts images.

    Raises:
        SourceError: A file cannot be read, a view has neither motion nor sound, or a name is unknown.
    """
    settings = settings or SyncSettings()
    recordings = find_recordings(Path(folder), image_rate=settings.image_rate)
    _check_names(recordings, settings)
    results = []
    total = sum(min(v.count, math.ceil(settings.seconds * v.rate)) for r in recordings for v in r.views)
    with progress.task("Synchronising views", total) as task:
        for recording in recordings:
            task.note(recording.name)
            result = _synchronised(recording, settings, task)
            results.append(result if embed_crops is None else _refined(result, embed_crops, settings, task))
    write_clocks(Path(folder), {result.recording.name: result.clocks for result in results})
    for result in results:
        _draw(alignment_image(Path(folder), result.recording, len(results) > 1), result, settings)
    return results


def alignment_image(folder: Path, recording: Recording, several: bool) -> Path:
    """Return the path of a recording's alignment image: in the folder, or beside the videos of several recordings."""
    return recording.views[0].path.parent / "sync.png" if several else folder / "sync.png"


def _draw(path: Path, result: SyncResult, settings: SyncSettings) -> None:
    line = timeline(result.recording, result.clocks, 1)
    length = min(len(line.frames), round(settings.seconds * line.rate))
    shown = np.unique(np.linspace(0.04 * length, 0.96 * (length - 1), SHOWN_INSTANTS).astype(int))
    no_curve = AgreementCurve(np.zeros(0), np.zeros(0))
    rows = []
    for view in result.recording.views:
        clock = result.clocks[view.name]
        numbers = line.shown(view.name, shown).tolist()
        strip = np.hstack(_images_of(view, numbers))
        label = f"{view.name}   {clock.start:+.3f} s by {clock.evidence}, confidence {clock.confidence:.2f}"
        curve = result.curves.get(view.name, no_curve)
        rows.append(AlignedView(label, strip, clock.start, curve.offsets, curve.agreement))
    times = ", ".join(f"{line.frames[i] / line.rate:.2f}" for i in shown)
    alignment_png(path, f"{result.recording.name}: every column should show one instant ({times} s)", rows)


def _images_of(view: VideoFile, numbers: Sequence[int]) -> list[Image]:
    """Read some images, in order; for one that cannot be decoded, the next one, or the one before."""
    found: list[Image] = []
    with closing(FrameReader(view)) as reader:
        for number in numbers:
            image = reader.image(number)
            if image is None and not found:
                raise SourceError(f"{view.path}: none of its images can be decoded; copy it again, or remove it")
            found.append(found[-1] if image is None else image.thumbnail(200))
    return found


def _parsed_offset(text: str) -> tuple[str, float]:
    name, _, seconds = text.rpartition("=")
    try:
        value = float(seconds)
    except ValueError:
        value = math.nan
    if not name or not math.isfinite(value):
        raise ValueError(f"offsets: expected VIEW=SECONDS such as left=-0.52, got {text!r}")
    return unicodedata.normalize("NFC", name), value


def _check_names(recordings: list[Recording], settings: SyncSettings) -> None:
    views = {name for r in recordings for v in r.views for name in (v.name, f"{r.name}/{v.name}")}
    for name in (settings.reference, *(_parsed_offset(text)[0] for text in settings.offsets)):
        if name is not None and unicodedata.normalize("NFC", name) not in views:
            known = ", ".join(dict.fromkeys(v.name for r in recordings for v in r.views))
            raise SourceError(f"there is no view {name!r}; the views are: {known}")


def _synchronised(recording: Recording, settings: SyncSettings, task: Task) -> SyncResult:
    names = [view.name for view in recording.views]
    reference = unicodedata.normalize("NFC", settings.reference or "")
    first = names.index(reference) if reference in names else 0
    views = [recording.views[first], *(v for i, v in enumerate(recording.views) if i != first)]
    known_offsets = dict(map(_parsed_offset, settings.offsets))
    clocks = {views[0].name: reference_clock(views[0])}
    for view in views[1:]:
        offset = known_offsets.get(f"{recording.name}/{view.name}", known_offsets.get(view.name))
        if offset is not None:
            clocks[view.name] = measured_clock(view, offset, 1.0, 1.0, "hand")
    groups: tuple[Clocks, ...] = ()
    if settings.by != "motion":
        least = MIN_CONFIDENCE if settings.by == "auto" else 0.0
        heard = clocks_by_sound(views, clocks, settings.max_offset, least)
        clocks |= heard.known
        groups = heard.groups
    remaining = [view for view in views if view.name not in clocks]
    if remaining and settings.by == "sound":
        raise SourceError(
            "\n".join(
                f"{view.path}: its sound has nothing in common with that of {views[0].path.name} (silent, none, or "
                f"{_beyond(settings.max_offset)}); use --by auto to align it by motion, or give its offset by hand: "
                f"--offsets {view.name}=SECONDS"
                for view in remaining
            )
        )
    curves: dict[str, AgreementCurve] = {}
    if remaining:
        by_motion, curves = _measured_by_motion(views, clocks, settings, task)
        clocks |= by_motion
        for group in groups:
            clocks |= shifted(group, by_motion)
    else:
        task.advance(sum(min(v.count, math.ceil(settings.seconds * v.rate)) for v in views))
    return SyncResult(recording, views[0].name, {name: clocks[name] for name in names}, curves)


def _beyond(max_offset: float | None) -> str:
    return "of other moments" if max_offset is None else f"offset by more than --max-offset {max_offset:g}"


def reference_clock(view: VideoFile) -> Clock:
    """Return the clock of the reference view, on which all times are given."""
    return measured_clock(view, 0.0, 1.0, 1.0, "reference")


def _measured_by_motion(
    views: list[VideoFile], known: Clocks, settings: SyncSettings, task: Task
) -> tuple[dict[str, Clock], dict[str, AgreementCurve]]:
    """Measure the motion in all views, and derive the unknown clocks from it."""
    profiles = [motion_profile(view, settings.seconds, task) for view in views]
    for view, profile in zip(views, profiles, strict=True):
        if not profile.moves and (view is views[0] or view.name not in known):
            raise SourceError(
                f"{view.path}: nobody moves in it, and there is no sound that matches, so its offset cannot be found; "
                f"give it by hand (--offsets {view.name}=SECONDS), or remove the view"
            )
    return clocks_by_motion(views, profiles, known, settings)


def clocks_by_motion(
    views: Sequence[VideoFile], profiles: Sequence[MotionProfile], known: Clocks, settings: SyncSettings
) -> tuple[dict[str, Clock], dict[str, AgreementCurve]]:
    """Derive the unknown clocks from how the person moves, using all pairs of views together.

    Args:
        views: The views of one recording, the reference first.
        profiles: How the person moves in each view.
        known: The clocks that are known, including the reference's.
        settings: Which offsets are considered.

    Returns:
        The unknown clocks, and for every view how well the others agree with each of its offsets.
    """
    rate = min(max(view.rate for view in views), MOTION_RATE)
    signals = [profile.quick_at_rate(rate) for profile in profiles]
    reach = min(round((settings.max_offset or MOTION_OFFSET) * rate), max(s.shape[1] for s in signals))
    pairs = {
        (i, j): agreement(signals[i], signals[j], reach, settings.min_overlap)
        for i, j in itertools.combinations(range(len(views)), 2)
        if profiles[i].moves and profiles[j].moves
    }
    fixed = {i: known[view.name].start * rate for i, view in enumerate(views) if view.name in known}
    best = offsets(pairs, len(views), ELSEWHERE * rate, fixed)
    clocks: dict[str, Clock] = {}
    curves: dict[str, AgreementCurve] = {}
    for i, view in enumerate(views):
        if view.name not in known:
            start, pace = best.start[i] / rate, 1.0
            if signals[0].shape[1] >= DRIFT_NEEDS * rate and profiles[0].moves:
                start, pace = _with_drift(signals[0], signals[i], start, rate)
            clocks[view.name] = measured_clock(view, start, pace, float(best.confidence[i]), "motion")
        curves[view.name] = best.curve(pairs, i, rate)
    return clocks, curves


def _with_drift(
    a: Float64[np.ndarray, "rolls n parts"],
    b: Float64[np.ndarray, "rolls m parts"],
    start: float,
    rate: float,
) -> tuple[float, float]:
    """Fit the offset and pace of a view to the offsets of windows of 20 s."""
    length, lag = round(20 * rate), round(start * rate)
    first, last = max(lag, 0), min(a.shape[1], b.shape[1] + lag) - length
    if last - first < (DRIFT_NEEDS - 20) * rate:
        return start, 1.0
    times, lags = [], []
    for begin in np.linspace(first, last, 9).astype(int).tolist():
        window = agreement(
            a[:, begin : begin + length], b[:, begin - lag : begin - lag + length], round(0.5 * rate), 0.5
        )
        best = offsets({(0, 1): window}, 2, ELSEWHERE * rate)
        if best.confidence[1] > MIN_CONFIDENCE:
            times.append((begin - lag + length / 2) / rate)
            lags.append((lag + best.start[1]) / rate)
    return start_and_pace(np.array(times), np.array(lags)) if len(times) >= 4 else (start, 1.0)


def _refined(result: SyncResult, embed_crops: EmbedCrops, settings: SyncSettings, task: Task) -> SyncResult:
    """Move the offsets to those nearby at which the embeddings of the views agree best."""
    views = sorted(result.recording.views, key=lambda view: view.name != result.reference)
    rate = min(view.rate for view in views)
    crop_settings = CropSettings(size=CROP_SIZE, margin=1.15, quality=90, max_missing=5)
    embeddings = []
    for view in views:
        clock = result.clocks[view.name]
        length = min(float(view.seconds[-1]), settings.seconds)
        numbers = nearest(view.seconds, np.arange(int(length * rate * clock.pace)) / rate / clock.pace)
        view_to_crop = ViewToCrop(view, numbers, rate, crop_settings)
        crops = [decode_jpeg(crop) for crop in all_crops(view_to_crop, lambda _: None, task.advance)]
        embeddings.append(embed_crops(crops).astype(np.float64))
    coarse = np.array([result.clocks[view.name].start * rate for view in views])
    reach = round(REFINE * rate)
    pairs = {}
    for i, j in itertools.combinations(range(len(views)), 2):
        pairs[i, j] = embedding_agreement(embeddings[i], embeddings[j], round(coarse[j]) - round(coarse[i]), reach)
    known = {
        i: coarse[i] - round(coarse[i])
        for i, view in enumerate(views)
        if result.clocks[view.name].evidence in ("reference", "hand")
    }
    best = offsets(pairs, len(views), reach / 2, known)
    clocks = dict(result.clocks)
    for i, view in enumerate(views):
        inside = abs(best.start[i]) < reach - 1  # otherwise the true offset may lie beyond the reach
        if i not in known and inside and best.confidence[i] >= MIN_CONFIDENCE:
            start = round(float(round(coarse[i]) + best.start[i]) / rate, 6)
            clocks[view.name] = replace(clocks[view.name], start=start)
    return replace(result, clocks=clocks)


def embedding_agreement(
    a: Float64[np.ndarray, "n dim"], b: Float64[np.ndarray, "m dim"], lag: int, reach: int
) -> Agreement:
    """Compare the embeddings of two views at lags around `lag`, relative to what any two instants have in common."""
    similarity = a @ b.T
    similarity = similarity - similarity.mean(axis=0) - similarity.mean(axis=1)[:, None] + similarity.mean()
    scores = []
    for step in range(lag - reach, lag + reach + 1):
        diagonal = np.diagonal(similarity, -step)
        scores.append(float(diagonal.mean() * np.sqrt(len(diagonal))) if len(diagonal) >= 8 else -1.0)
    return Agreement(np.array(scores))
