"""What is wrong with a capture: every check in turn, each with what it looked at, what it found and the worst cases."""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from mcss.data.cameras import in_crops
from mcss.data.capture import Capture
from mcss.data.doctor.checks import CASES, Case, Check, Diagnosis, SplitCounts, Verdict, check, unchecked
from mcss.data.doctor.examine import DoctorSettings, Patient, examined
from mcss.data.doctor.images import blank, blurred, dark, repeated
from mcss.data.doctor.poses import body_heights, bone_changes, exchanged_sides, jumps, uneven_bones
from mcss.data.doctor.sync import check_sync
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import JOINTS

__all__ = ["DoctorSettings", "diagnose"]

_HEIGHTS = (500.0, 2500.0)
"""Lengths in mm of a body along its bones that a person can have."""


def diagnose(capture: Capture, settings: DoctorSettings | None = None, progress: Progress = NO_PROGRESS) -> Diagnosis:
    """Look at every image and label of a capture.

    A fault is told once, by the check that explains it: a pose with impossible bones is not also called a jump, nor are
    people of a view that is out of step called cut off.

    Raises:
        CaptureError: The capture cannot be read at all.
    """
    patient = examined(capture, settings or DoctorSettings(), progress)
    bones, bad_bones = _bones(patient)
    sides, bad_sides = _sides(patient, bad_bones)
    jumping, bad_jumps = _jumps(patient, bad_bones, bad_sides)
    sync, out_of_step = check_sync(patient, bad_bones | bad_jumps)
    trusted = patient.projected & ~out_of_step & ~(bad_bones | bad_jumps)[:, None]
    projection, astray = _projection(patient, trusted)
    cut = _cut_off(patient, trusted & ~astray)
    checks = (
        _splits(patient), _times(patient), _views(patient), _labels(patient), sync, projection, bones, jumping, sides,
        *_images(patient), cut,
    )  # fmt: skip
    return Diagnosis(capture.fingerprint, _counts(patient), checks)


def _counts(patient: Patient) -> dict[str, SplitCounts]:
    instants = patient.instants
    masks = {"all": np.ones(len(instants), bool)}
    masks |= {name: instants.selected(selectors) for name, selectors in patient.capture.splits.items()}
    labelled = np.zeros(len(instants), bool)
    labelled[patient.labelled] = True
    return {
        name: SplitCounts(
            instants=int(mask.sum()),
            images=int((instants.rows[mask] >= 0).sum()),
            labelled=int((labelled & mask).sum()),
            subjects=instants.take(mask).present_subjects(),
        )
        for name, mask in masks.items()
    }


def _splits(patient: Patient) -> Check:
    masks = {name: patient.instants.selected(s) for name, s in patient.capture.splits.items()}
    empty = [name for name, mask in masks.items() if not mask.any()]
    shared = [(a, b, masks[a] & masks[b]) for a, b in combinations(masks, 2) if (masks[a] & masks[b]).any()]
    text = [f"nothing is picked by the split {name}" for name in empty]
    text += [f"{a} and {b} share {both.sum():,} instants: what is tested on is trained on" for a, b, both in shared]
    found = len(empty) + len(shared)
    way = "; choose other subjects, sequences or frames where the capture is made"
    return check("splits", f"{len(masks)} splits", found, "; ".join(text) + way)


def _times(patient: Patient) -> Check:
    instants = patient.instants
    back = (patient.part[1:] == patient.part[:-1]) & (np.diff(instants.time) <= 0)
    cases = [Case(f"{patient.place(i)}: not later than the frame before it", patient.rows(i)) for i in
             np.flatnonzero(back)[:CASES] + 1]  # fmt: skip
    text = "times do not grow with the frames; mend the times where the capture is made"
    return check("times", f"{len(instants):,} instants", int(back.sum()), text, cases)


def _views(patient: Patient) -> Check:
    seen_by = (patient.instants.rows >= 0).sum(axis=1)
    alone = seen_by < 2
    text = (
        f"{alone.sum():,} instants are seen by one view alone, from which nothing is learned without a label; "
        "check that the views' frames bear the same numbers"
    )
    verdict: Verdict = "fault" if alone.mean() > 0.5 else "note"
    cases = [Case(patient.place(i), patient.rows(i)) for i in np.flatnonzero(alone)[:CASES]]
    return check("views", f"{len(alone):,} instants", int(alone.sum()), text, cases, verdict)


def _labels(patient: Patient) -> Check:
    count, labelled = len(patient.instants), len(patient.labelled)
    text = "no instant has a pose: train with --labels none, or choose some to label with `mcss select`"
    if labelled:
        turned = labelled - int(patient.instants.heading_valid.sum())
        text = f"{labelled:,} poses" + (f", {turned:,} of which have no heading and are left out" if turned else "")
        if labelled < count or turned:
            return Check("labels", f"{count:,} instants", count - labelled + turned, "note", text)
        return Check("labels", f"{count:,} instants", 0, "ok", "")
    return Check("labels", f"{count:,} instants", count, "note", text)


def _bones(patient: Patient) -> tuple[Check, Bool[np.ndarray, " n"]]:
    bad = np.zeros(len(patient.instants), bool)
    if not len(patient.labelled):
        return unchecked("bones", "no poses"), bad
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
            cases.append(
                Case(f"{patient.place(at)}: bone to {JOINTS[bone + 1]} {changes[i, bone]:+.0%}", patient.rows(at))
            )
    return check("bones", f"{len(pose):,} poses", int(bad.sum()) + people, "; ".join(text), cases), bad


def _sides(patient: Patient, without: Bool[np.ndarray, " n"]) -> tuple[Check, Bool[np.ndarray, " n"]]:
    bad = np.zeros(len(patient.instants), bool)
    use = patient.labelled[~without[patient.labelled]]
    if not len(use):
        return unchecked("left and right", "no poses"), bad
    pose = patient.instants.pose[use].astype(np.float64)
    bad[use] = exchanged_sides(pose, patient.instants.time[use], patient.part[use], patient.settings.labels)
    found = np.flatnonzero(bad)
    cases = (
        [
            Case(patient.place(i), patient.rows(i))
            for i in found[np.unique(np.linspace(0, len(found) - 1, CASES).astype(int))]
        ]
        if len(found)
        else []
    )
    text = (
        f"{bad.sum():,} poses have left and right exchanged (they fit their neighbours only so, or their knees bend "
        "backwards); exchange the joints, or look for an axis that is mirrored"
    )
    return check("left and right", f"{len(use):,} poses", len(found), text, cases), bad


def _jumps(
    patient: Patient, without: Bool[np.ndarray, " n"], exchanged: Bool[np.ndarray, " n"]
) -> tuple[Check, Bool[np.ndarray, " n"]]:
    bad = np.zeros(len(patient.instants), bool)
    use = patient.labelled[~(without | exchanged)[patient.labelled]]
    if len(use) < 2:
        return unchecked("jumps", "no poses that follow each other"), bad
    pose = patient.instants.pose[use].astype(np.float64)
    excess = jumps(pose, patient.instants.time[use], patient.part[use], patient.settings.labels)
    bad[use] = excess > 0
    order = np.argsort(-excess)[: min(CASES, int((excess > 0).sum()))]
    cases = [Case(f"{patient.place(use[i])}: {excess[i]:.1f} × what is possible", patient.rows(use[i])) for i in order]
    text = f"{bad.sum():,} poses are farther from their neighbours than a person can move; leave their labels out"
    return check("jumps", f"{len(use):,} poses", int(bad.sum()), text, cases), bad


def _projection(patient: Patient, use: Bool[np.ndarray, "n views"]) -> tuple[Check, Bool[np.ndarray, "n views"]]:
    """Poses that the cameras do not see in the crops, and cameras that cannot be."""
    if not patient.projected.any():
        return unchecked("projection", "no poses together with cameras"), np.zeros(use.shape, bool)
    inside = _inside(patient)
    astray = use & ((inside < 0.5) | patient.improper)
    order = np.argwhere(astray)[np.argsort(inside[astray], kind="stable")][:CASES]
    text = (
        f"{astray.sum():,} images do not show the person where pose and camera put it; look for mixed-up cameras, "
        "units, or labels of another person"
    )
    if patient.improper.any():
        text += f"; {patient.improper.sum():,} have a camera whose rotation is none (mirrored, or scaled)"
    cases = [
        Case(f"{patient.place(i, v)}: {inside[i, v]:.0%} of the joints in the crop", patient.rows(i, v))
        for i, v in order
    ]
    return check("projection", f"{use.sum():,} images", int(astray.sum()), text, cases), astray


def _cut_off(patient: Patient, use: Bool[np.ndarray, "n views"]) -> Check:
    """People with joints beyond the crop; where joints are not known, who moves across its edge."""
    limits = patient.settings.images
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
            + (
                f"{outside[i, v]:.0%} of the joints are outside"
                if known[i, v]
                else f"{outside[i, v]:.0%} of an edge is covered"
            ),
            patient.rows(i, v),
        )
        for i, v in order
    ]
    text = f"{cut.sum():,} images cut the person off; make the crops larger (mcss import videos: --margin)"
    return check("cut off", f"{(use | np.isfinite(edge)).sum():,} images", int(cut.sum()), text, cases)


def _images(patient: Patient) -> list[Check]:
    facts, limits = patient.facts, patient.settings.images
    looked = f"{int((patient.instants.rows >= 0).sum()):,} images"
    too_blurred = blurred(facts, patient.part, limits)
    kinds: list[tuple[str, Bool[np.ndarray, "n views"], Float[np.ndarray, "n views"], str]] = [
        ("dark", dark(facts, limits), facts.brightness, "are too dark; check exposure, or leave them out"),
        ("white", blank(facts, limits), facts.contrast, "are white or show nothing; leave them out"),
        ("blurred", too_blurred, facts.sharpness, "are blurred; check focus and shutter, or leave them out"),
        (
            "duplicates",
            repeated(facts, limits),
            facts.brightness * 0,
            "repeat another one byte for byte: did a camera freeze?",
        ),
    ]
    broken = [Case(patient.place(i, v), ()) for i, v in patient.broken[:CASES]]
    text = f"{len(patient.broken):,} images cannot be decoded; restore the capture from a copy or make it again"
    checks = [check("broken", looked, len(patient.broken), text, broken)]
    for name, bad, badness, saying in kinds:
        order = np.argwhere(bad)[np.argsort(badness[bad], kind="stable")][:CASES]
        cases = [Case(patient.place(i, v), patient.rows(i, v)) for i, v in order]
        checks.append(check(name, looked, int(bad.sum()), f"{bad.sum():,} images {saying}", cases))
    return checks


def _inside(patient: Patient) -> Float[np.ndarray, "n views"]:
    """Share of the joints that lie in the crop; those behind the camera do not."""
    n, views = patient.instants.rows.shape
    crops = in_crops(patient.seen.reshape(-1, 17, 2), patient.boxes.reshape(-1, 4))
    with np.errstate(invalid="ignore"):
        within = ((crops >= 0) & (crops <= 1)).all(axis=2)
    share: Float[np.ndarray, "n views"] = within.mean(axis=1).reshape(n, views)
    return share
