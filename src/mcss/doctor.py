"""What is wrong with a capture: every check in turn, each with what it looked at, what it found and the worst cases."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Literal, SupportsInt

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from mcss.captures import Capture
from mcss.instants import Instants
from mcss.label_faults import (
    LabelLimits,
    body_heights,
    bone_changes,
    exchanged_sides,
    jumps,
    uneven_bones,
)
from mcss.picture_faults import PictureFacts, PictureLimits, blank, blurred, dark, repeated
from mcss.progress import NO_PROGRESS, Progress
from mcss.projection import in_crops, seen_joints
from mcss.skeletons import JOINTS
from mcss.synchrony import Lag, SyncLimits, motion_lags, projection_lag

Verdict = Literal["ok", "note", "fault", "not checked"]

Place = SupportsInt
"""Index of an instant or a view."""

CASES = 6
"""Worst cases that a check shows."""

_HEIGHTS = (500.0, 2500.0)
"""Lengths in mm of a body along its bones that a person can have."""


@dataclass(frozen=True)
class DoctorSettings:
    """What counts as a fault."""

    labels: LabelLimits = field(default_factory=LabelLimits)
    """Of 3D poses."""
    pictures: PictureLimits = field(default_factory=PictureLimits)
    """Of crops."""
    sync: SyncLimits = field(default_factory=SyncLimits)
    """Of the views' agreement in time."""


@dataclass(frozen=True)
class Case:
    """One place where a check found something."""

    where: str
    """Subject, sequence, frame and what is wrong there."""
    rows: tuple[int, ...]
    """Pictures of the capture that show it."""


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
    pictures: int
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


@dataclass(frozen=True, eq=False)
class _Patient:
    """A capture with all that the checks need of it."""

    capture: Capture
    instants: Instants
    settings: DoctorSettings
    part: Int64[np.ndarray, " n"]
    labelled: Int64[np.ndarray, " m"]
    """Places of the instants with a pose."""
    boxes: Float32[np.ndarray, "n views 4"]
    seen: Float32[np.ndarray, "n views 17 2"]
    """Labelled joints in source pixels; NaN where not known."""
    improper: Bool[np.ndarray, "n views"]
    """Whether a camera's rotation is none."""
    facts: PictureFacts
    broken: tuple[tuple[int, int], ...]
    """(instant, view)"""

    @property
    def pose(self) -> Float[np.ndarray, "m 17 3"]:
        return self.instants.pose[self.labelled].astype(np.float64)

    @property
    def projected(self) -> Bool[np.ndarray, "n views"]:
        """Which pictures show a person of whom it is known where."""
        known: Bool[np.ndarray, "n views"] = np.isfinite(self.seen).any(axis=(2, 3))
        return known

    def place(self, instant: Place, view: Place | None = None) -> str:
        where = self.instants.describe(int(instant))
        return where if view is None else f"{where} view {self.instants.views[int(view)]}"

    def rows(self, instant: Place, view: Place | None = None) -> tuple[int, ...]:
        rows = self.instants.rows[int(instant)] if view is None else self.instants.rows[int(instant), [int(view)]]
        return tuple(int(row) for row in rows if row >= 0)


def diagnose(
    capture: Capture, settings: DoctorSettings | None = None, progress: Progress = NO_PROGRESS
) -> Diagnosis:
    """Look at every picture and label of a capture.

    A fault is told once, by the check that explains it: a pose with impossible bones is not also called a jump, nor are
    people of a view that is out of step called cut off.

    Raises:
        CaptureError: The capture cannot be read at all.
    """
    patient = _examined(capture, settings or DoctorSettings(), progress)
    bones, bad_bones = _bones(patient)
    sides, bad_sides = _sides(patient, bad_bones)
    jumping, bad_jumps = _jumps(patient, bad_bones, bad_sides)
    sync, out_of_step = _sync(patient, bad_bones | bad_jumps)
    trusted = patient.projected & ~out_of_step & ~(bad_bones | bad_jumps)[:, None]
    projection, astray = _projection(patient, trusted)
    cut = _cut_off(patient, trusted & ~astray)
    checks = (
        _splits(patient), _times(patient), _views(patient), _labels(patient), sync, projection, bones, jumping, sides,
        *_pictures(patient), cut,
    )  # fmt: skip
    return Diagnosis(capture.fingerprint, _counts(patient), checks)


def _examined(capture: Capture, settings: DoctorSettings, progress: Progress) -> _Patient:
    instants = capture.instants()
    shape = instants.rows.shape
    there = instants.rows >= 0
    rows, instant = instants.rows[there], np.nonzero(there)[0]
    boxes = np.full((*shape, 4), np.nan, np.float32)
    boxes[there] = capture.boxes(rows)
    seen = np.full((*shape, 17, 2), np.nan, np.float32)
    seen[there] = seen_joints(capture, rows, instants.pose[instant])
    rotation = capture.cameras(rows).rotation.astype(np.float64)
    known = np.isfinite(rotation).all(axis=(1, 2))
    improper = np.zeros(shape, bool)
    off = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2)) > 0.01
    improper[there] = known & (off | (np.linalg.det(np.where(known[:, None, None], rotation, np.eye(3))) < 0))
    part = instants.subject * len(instants.sequences) + instants.sequence
    facts, broken = PictureFacts.unseen(*shape), []
    blind = ~np.isfinite(seen).any(axis=(2, 3))
    with progress.task("Looking at pictures", int(there.sum())) as task:
        for one in np.unique(part):
            place = np.flatnonzero(part == one)
            for view in range(shape[1]):
                shown = there[place, view]
                images: list[bytes | None] = [None] * len(place)
                for i, image in zip(np.flatnonzero(shown), capture.images(instants.rows[place[shown], view]), strict=True):
                    images[i] = image
                bad = facts.look(place, view, images, boxes[place, view], edges=bool(blind[place, view].any()))
                broken += [(int(place[i]), view) for i in bad]
                task.advance(int(shown.sum()))
    labelled = np.flatnonzero(np.isfinite(instants.pose).all(axis=(1, 2)))
    return _Patient(
        capture, instants, settings, part.astype(np.int64), labelled, boxes, seen, improper, facts, tuple(broken)
    )


def _counts(patient: _Patient) -> dict[str, SplitCounts]:
    instants = patient.instants
    masks = {"all": np.ones(len(instants), bool)}
    masks |= {name: instants.selected(selectors) for name, selectors in patient.capture.splits.items()}
    labelled = np.zeros(len(instants), bool)
    labelled[patient.labelled] = True
    return {
        name: SplitCounts(
            instants=int(mask.sum()),
            pictures=int((instants.rows[mask] >= 0).sum()),
            labelled=int((labelled & mask).sum()),
            subjects=instants.take(mask).present_subjects(),
        )
        for name, mask in masks.items()
    }


def _splits(patient: _Patient) -> Check:
    masks = {name: patient.instants.selected(s) for name, s in patient.capture.splits.items()}
    empty = [name for name, mask in masks.items() if not mask.any()]
    shared = [(a, b, masks[a] & masks[b]) for a, b in combinations(masks, 2) if (masks[a] & masks[b]).any()]
    text = [f"nothing is picked by the split {name}" for name in empty]
    text += [f"{a} and {b} share {both.sum():,} instants: what is tested on is trained on" for a, b, both in shared]
    found = len(empty) + len(shared)
    way = "; choose other subjects, sequences or frames where the capture is made"
    return _check("splits", f"{len(masks)} splits", found, "; ".join(text) + way)


def _times(patient: _Patient) -> Check:
    instants = patient.instants
    back = (patient.part[1:] == patient.part[:-1]) & (np.diff(instants.time) <= 0)
    cases = [Case(f"{patient.place(i)}: not later than the frame before it", patient.rows(i)) for i in
             np.flatnonzero(back)[:CASES] + 1]  # fmt: skip
    text = "times do not grow with the frames; mend the times where the capture is made"
    return _check("times", f"{len(instants):,} instants", int(back.sum()), text, cases)


def _views(patient: _Patient) -> Check:
    seen_by = (patient.instants.rows >= 0).sum(axis=1)
    alone = seen_by < 2
    text = (
        f"{alone.sum():,} instants are seen by one view alone, from which nothing is learned without a label; "
        "check that the views' frames bear the same numbers"
    )
    verdict: Verdict = "fault" if alone.mean() > 0.5 else "note"
    cases = [Case(patient.place(i), patient.rows(i)) for i in np.flatnonzero(alone)[:CASES]]
    return _check("views", f"{len(alone):,} instants", int(alone.sum()), text, cases, verdict)


def _labels(patient: _Patient) -> Check:
    count, labelled = len(patient.instants), len(patient.labelled)
    text = "no instant has a pose: train with --labels none, or choose some to label with `mcss select`"
    if labelled:
        turned = labelled - int(patient.instants.heading_valid.sum())
        text = f"{labelled:,} poses" + (f", {turned:,} of which have no heading and are left out" if turned else "")
        if labelled < count or turned:
            return Check("labels", f"{count:,} instants", count - labelled + turned, "note", text)
        return Check("labels", f"{count:,} instants", 0, "ok", "")
    return Check("labels", f"{count:,} instants", count, "note", text)


def _bones(patient: _Patient) -> tuple[Check, Bool[np.ndarray, " n"]]:
    bad = np.zeros(len(patient.instants), bool)
    if not len(patient.labelled):
        return _unchecked("bones", "no poses"), bad
    pose, person = patient.pose, patient.instants.subject[patient.labelled]
    limits = patient.settings.labels
    changes = bone_changes(pose, person, limits)
    worst = np.abs(changes).max(axis=1)
    bad[patient.labelled] = worst > 0
    text, cases = [], []
    for one in np.unique(person):
        own, name = pose[person == one], patient.instants.subjects[one]
        first = int(patient.labelled[person == one][0])
        height = float(np.median(body_heights(own)))
        if not _HEIGHTS[0] <= height <= _HEIGHTS[1]:
            text.append(f"{name} is {height:,.3g} mm long along the bones: are the poses in millimetres?")
            cases.append(Case(f"{patient.place(first)}: {height:,.3g} mm long", patient.rows(first)))
        for joint, share in uneven_bones(own, limits):
            text.append(f"{name}'s bone to {joint} is {share:+.0%} against the right one: are joints in order?")
            cases.append(Case(f"{patient.place(first)}: {joint} {share:+.0%}", patient.rows(first)))
    people = len(text)
    if bad.any():
        text.append(f"{bad.sum():,} poses have a bone of an impossible length; leave their labels out")
    for i in np.argsort(-worst)[:CASES]:
        if worst[i] > 0:
            bone, at = int(np.abs(changes[i]).argmax()), int(patient.labelled[i])
            cases.append(Case(f"{patient.place(at)}: bone to {JOINTS[bone + 1]} {changes[i, bone]:+.0%}", patient.rows(at)))
    return _check("bones", f"{len(pose):,} poses", int(bad.sum()) + people, "; ".join(text), cases), bad


def _sides(patient: _Patient, without: Bool[np.ndarray, " n"]) -> tuple[Check, Bool[np.ndarray, " n"]]:
    bad = np.zeros(len(patient.instants), bool)
    use = patient.labelled[~without[patient.labelled]]
    if not len(use):
        return _unchecked("left and right", "no poses"), bad
    pose = patient.instants.pose[use].astype(np.float64)
    bad[use] = exchanged_sides(pose, patient.instants.time[use], patient.part[use], patient.settings.labels)
    found = np.flatnonzero(bad)
    cases = [Case(patient.place(i), patient.rows(i)) for i in found[np.unique(np.linspace(0, len(found) - 1, CASES).astype(int))]] if len(found) else []
    text = (
        f"{bad.sum():,} poses have left and right exchanged (they fit their neighbours only so, or their knees bend "
        "backwards); exchange the joints, or look for an axis that is mirrored"
    )
    return _check("left and right", f"{len(use):,} poses", len(found), text, cases), bad


def _jumps(
    patient: _Patient, without: Bool[np.ndarray, " n"], exchanged: Bool[np.ndarray, " n"]
) -> tuple[Check, Bool[np.ndarray, " n"]]:
    bad = np.zeros(len(patient.instants), bool)
    use = patient.labelled[~(without | exchanged)[patient.labelled]]
    if len(use) < 2:
        return _unchecked("jumps", "no poses that follow each other"), bad
    pose = patient.instants.pose[use].astype(np.float64)
    excess = jumps(pose, patient.instants.time[use], patient.part[use], patient.settings.labels)
    bad[use] = excess > 0
    order = np.argsort(-excess)[: min(CASES, int((excess > 0).sum()))]
    cases = [Case(f"{patient.place(use[i])}: {excess[i]:.1f} × what is possible", patient.rows(use[i])) for i in order]
    text = f"{bad.sum():,} poses are farther from their neighbours than a person can move; leave their labels out"
    return _check("jumps", f"{len(use):,} poses", int(bad.sum()), text, cases), bad


def _sync(patient: _Patient, without: Bool[np.ndarray, " n"]) -> tuple[Check, Bool[np.ndarray, "n views"]]:
    """By where labels are seen for views with cameras; by what moves for the others."""
    instants, limits = patient.instants, patient.settings.sync
    bad = np.zeros(instants.rows.shape, bool)
    if len(instants.views) < 2:
        return _unchecked("sync", "one view alone"), bad
    cases: list[Case] = []
    unlabelled: dict[int, list[Int64[np.ndarray, " k"]]] = {}
    checked = 0
    for one in np.unique(patient.part):
        place = np.flatnonzero(patient.part == one)
        use = patient.projected[place] & ~without[place, None]
        if len(place) < 12:
            continue
        checked += 1
        if use.sum(axis=0).min() < 12:
            unlabelled.setdefault(int(instants.subject[place[0]]), []).append(place)
            continue
        for view in range(len(instants.views)):
            seen = patient.seen[place, view]
            middle = np.where(use[:, view, None], (_least(seen) + _most(seen)) / 2, np.nan)
            lag, _, none = projection_lag(middle, patient.boxes[place, view], limits)
            if lag:
                bad[place, view] = True
                cases.append(_lag_case(patient, place, view, lag, f"labels are seen {none:.0%} of a crop away"))
    uncertain: list[str] = []
    for parts in unlabelled.values():
        together = motion_lags([patient.facts.motion[place[1:]] for place in parts], limits)
        late = {lag.view for lag in together if lag.out_of_step(limits)}
        for lag in together:
            if lag.view in late:
                for place in parts:
                    bad[place, lag.view] = True
                cases.append(_lag_case(patient, parts[0], lag.view, lag.lag, f"motion agrees {lag.correlation:.2f} then, {lag.at_zero:.2f} without"))
        if len(parts) > 1 and not late:
            for place in parts:
                for lag in motion_lags([patient.facts.motion[place[1:]]], limits):
                    if lag.out_of_step(limits):
                        bad[place, lag.view] = True
                        cases.append(_lag_case(patient, place, lag.view, lag.lag, f"motion agrees {lag.correlation:.2f} then, {lag.at_zero:.2f} without"))
        if not late:
            uncertain += _uncertain(patient, together)
    if not checked:
        return _unchecked("sync", "no sequence of 12 instants"), bad
    looked = f"{checked:,} sequences, {len(instants.views)} views"
    if cases:
        text = "views do not run in step: shift them by these offsets and import them again"
        return Check("sync", looked, len(cases), "fault", text, tuple(cases[:CASES])), bad
    if uncertain:
        return Check("sync", looked, 0, "note", "too little moves to be certain: " + "; ".join(uncertain)), bad
    return Check("sync", looked, 0, "ok", ""), bad


def _lag_case(patient: _Patient, place: Int64[np.ndarray, " k"], view: int, lag: int, why: str) -> Case:
    step = float(np.median(np.diff(patient.instants.time[place])))
    side = "behind" if lag > 0 else "ahead"
    middle = int(place[len(place) // 2])
    name = f"{patient.instants.describe(middle).split(' frame')[0]} view {patient.instants.views[view]}"
    return Case(f"{name} runs {abs(lag)} instants ({abs(lag) * step:.2f} s) {side}: {why}", patient.rows(middle))


def _uncertain(patient: _Patient, lags: Sequence[Lag]) -> list[str]:
    views = patient.instants.views
    return [
        f"view {views[lag.view]} agrees best {abs(lag.lag)} instants {'behind' if lag.lag > 0 else 'ahead'} "
        f"({lag.correlation:.2f}, in step {lag.at_zero:.2f})"
        for lag in lags
        if lag.lag and lag.correlation - lag.at_zero > 0.05
    ]


def _projection(patient: _Patient, use: Bool[np.ndarray, "n views"]) -> tuple[Check, Bool[np.ndarray, "n views"]]:
    """Poses that the cameras do not see in the crops, and cameras that cannot be."""
    if not patient.projected.any():
        return _unchecked("projection", "no poses together with cameras"), np.zeros(use.shape, bool)
    inside = _inside(patient)
    astray = use & ((inside < 0.5) | patient.improper)
    order = np.argwhere(astray)[np.argsort(inside[astray], kind="stable")][:CASES]
    text = (
        f"{astray.sum():,} pictures do not show the person where pose and camera put it; look for mixed-up cameras, "
        "units, or labels of another person"
    )
    if patient.improper.any():
        text += f"; {patient.improper.sum():,} have a camera whose rotation is none (mirrored, or scaled)"
    cases = [Case(f"{patient.place(i, v)}: {inside[i, v]:.0%} of the joints in the crop", patient.rows(i, v)) for i, v in order]
    return _check("projection", f"{use.sum():,} pictures", int(astray.sum()), text, cases), astray


def _cut_off(patient: _Patient, use: Bool[np.ndarray, "n views"]) -> Check:
    """People with joints beyond the crop; where joints are not known, who moves across its edge."""
    limits = patient.settings.pictures
    outside = np.where(use, 1 - _inside(patient), 0.0)
    cut = outside > 0
    edge = np.where(patient.projected, np.nan, patient.facts.edge)
    for one in np.unique(patient.part):
        place = np.flatnonzero(patient.part == one)
        for view in range(edge.shape[1]):
            over = edge[place, view] > limits.edge
            if over.any() and over.sum() >= limits.often * np.isfinite(edge[place, view]).sum():
                cut[place[over], view] = True
                outside[place[over], view] = edge[place[over], view]
    order = np.argwhere(cut)[np.argsort(-outside[cut], kind="stable")][:CASES]
    known = patient.projected
    cases = [
        Case(
            f"{patient.place(i, v)}: "
            + (f"{outside[i, v]:.0%} of the joints are outside" if known[i, v] else f"{outside[i, v]:.0%} of an edge is covered"),
            patient.rows(i, v),
        )
        for i, v in order
    ]
    text = f"{cut.sum():,} pictures cut the person off; make the crops larger (mcss import videos: --margin)"
    return _check("cut off", f"{(use | np.isfinite(edge)).sum():,} pictures", int(cut.sum()), text, cases)


def _pictures(patient: _Patient) -> list[Check]:
    facts, limits = patient.facts, patient.settings.pictures
    looked = f"{int((patient.instants.rows >= 0).sum()):,} pictures"
    too_blurred = blurred(facts, patient.part, limits)
    kinds: list[tuple[str, Bool[np.ndarray, "n views"], Float[np.ndarray, "n views"], str]] = [
        ("dark", dark(facts, limits), facts.brightness, "are too dark; check exposure, or leave them out"),
        ("white", blank(facts, limits), facts.contrast, "are white or show nothing; leave them out"),
        ("blurred", too_blurred, facts.sharpness, "are blurred; check focus and shutter, or leave them out"),
        ("duplicates", repeated(facts, limits), facts.brightness * 0, "repeat another one byte for byte: did a camera freeze?"),
    ]
    broken = [Case(patient.place(i, v), ()) for i, v in patient.broken[:CASES]]
    text = f"{len(patient.broken):,} pictures cannot be decoded; restore the capture from a copy or make it again"
    checks = [_check("broken", looked, len(patient.broken), text, broken)]
    for name, bad, badness, saying in kinds:
        order = np.argwhere(bad)[np.argsort(badness[bad], kind="stable")][:CASES]
        cases = [Case(patient.place(i, v), patient.rows(i, v)) for i, v in order]
        checks.append(_check(name, looked, int(bad.sum()), f"{bad.sum():,} pictures {saying}", cases))
    return checks


def _inside(patient: _Patient) -> Float[np.ndarray, "n views"]:
    """Share of the joints that lie in the crop; those behind the camera do not."""
    n, views = patient.instants.rows.shape
    crops = in_crops(patient.seen.reshape(-1, 17, 2), patient.boxes.reshape(-1, 4))
    with np.errstate(invalid="ignore"):
        within = ((crops >= 0) & (crops <= 1)).all(axis=2)
    share: Float[np.ndarray, "n views"] = within.mean(axis=1).reshape(n, views)
    return share


def _least(seen: Float32[np.ndarray, "n 17 2"]) -> Float32[np.ndarray, "n 2"]:
    return _edge(seen, np.fmin.reduce)


def _most(seen: Float32[np.ndarray, "n 17 2"]) -> Float32[np.ndarray, "n 2"]:
    return _edge(seen, np.fmax.reduce)


def _edge(seen: Float32[np.ndarray, "n 17 2"], reduce: Callable[..., Any]) -> Float32[np.ndarray, "n 2"]:
    edge: Float32[np.ndarray, "n 2"] = reduce(seen, axis=1)  # NaN only where all joints are
    return edge


def _check(
    name: str, looked: str, found: int, text: str, cases: Sequence[Case] = (), verdict: Verdict = "fault"
) -> Check:
    return Check(name, looked, found, verdict, text, tuple(cases)) if found else Check(name, looked, 0, "ok", "")


def _unchecked(name: str, why: str) -> Check:
    return Check(name, "–", 0, "not checked", why)
