"""The diagnosis of a capture: every check in turn, each with what it examined, what it found, and the worst cases."""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from mcss.data.capture import Capture
from mcss.data.doctor.checks import CASES, Case, Check, Diagnosis, SplitCounts, Verdict, check, unchecked
from mcss.data.doctor.examine import ExaminedCapture, examine
from mcss.data.doctor.images import ImageLimits, blank, blurred, dark, repeated
from mcss.data.doctor.poses import LabelLimits, bone_changes, exchanged_sides, jumps, uneven_bones
from mcss.data.doctor.sync import SyncLimits, check_label_times, check_sync
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import HEIGHTS_MM, JOINTS, body_heights


@dataclass(frozen=True)
class DoctorSettings:
    """What counts as a fault."""

    labels: LabelLimits = field(default_factory=LabelLimits)
    """Limits of 3D poses."""
    images: ImageLimits = field(default_factory=ImageLimits)
    """Limits of crops."""
    sync: SyncLimits = field(default_factory=SyncLimits)
    """Limits of the views' agreement in time."""


def diagnose(capture: Capture, settings: DoctorSettings | None = None, progress: Progress = NO_PROGRESS) -> Diagnosis:
    """Examine every image and label of a capture.

    A fault is reported once, by the check that explains it: a pose with impossible bones is not also called a jump, and
    people in a view that is out of step are not also called cut off.

    Raises:
        CaptureError: The capture cannot be read at all.
    """
    settings = settings or DoctorSettings()
    examined = examine(capture, progress)
    bones, bad_bones = _check_bones(examined, settings.labels)
    sides, bad_sides = _check_sides(examined, bad_bones, settings.labels)
    jumping, bad_jumps = _check_jumps(examined, bad_bones | bad_sides, settings.labels)
    sync, out_of_step = check_sync(examined, bad_bones | bad_jumps, settings.sync)
    trusted = examined.known & ~out_of_step & ~(bad_bones | bad_jumps)[:, None]
    projection, astray = _check_projection(examined, trusted)
    checks = (
        _check_splits(examined), _check_times(examined), _check_rate(examined), _check_views(examined),
        _check_labels(examined), sync, check_label_times(examined, bad_bones | bad_jumps, settings.sync), projection,
        bones, jumping, sides, *_check_images(examined, settings.images),
        _check_edges(examined, trusted & ~astray, settings.images), _check_colour(examined, settings.images),
    )  # fmt: skip
    return Diagnosis(capture.fingerprint, _split_counts(examined), checks)


def _split_counts(examined: ExaminedCapture) -> dict[str, SplitCounts]:
    instants = examined.instants
    masks = {"all": np.ones(len(instants), bool)}
    masks |= {name: instants.selected(selectors) for name, selectors in examined.capture.splits.items()}
    labelled = np.zeros(len(instants), bool)
    labelled[examined.labelled] = True
    return {
        name: SplitCounts(
            instants=int(mask.sum()),
            images=int((instants.rows[mask] >= 0).sum()),
            labelled=int((labelled & mask).sum()),
            subjects=instants.take(mask).present_subjects(),
        )
        for name, mask in masks.items()
    }


def _check_splits(examined: ExaminedCapture) -> Check:
    masks = {name: examined.instants.selected(s) for name, s in examined.capture.splits.items()}
    empty = [name for name, mask in masks.items() if not mask.any()]
    shared = [(a, b, masks[a] & masks[b]) for a, b in combinations(masks, 2) if (masks[a] & masks[b]).any()]
    text = [f"the split {name} has no instants" for name in empty]
    text += [f"{a} and {b} share {both.sum():,} instants: the test data are trained on" for a, b, both in shared]
    way_out = "; choose other subjects, sequences or frames where the capture is made"
    return check("splits", f"{len(masks)} splits", len(empty) + len(shared), "; ".join(text) + way_out)


def _check_times(examined: ExaminedCapture) -> Check:
    instants = examined.instants
    back = (examined.part[1:] == examined.part[:-1]) & (np.diff(instants.time) <= 0)
    cases = [
        Case(f"{examined.describe(i)}: not later than the frame before it", examined.rows(i))
        for i in np.flatnonzero(back)[:CASES] + 1
    ]
    text = "times do not grow with the frames; correct the times where the capture is made"
    return check("times", f"{len(instants):,} instants", int(back.sum()), text, cases)


def _check_rate(examined: ExaminedCapture) -> Check:
    """Steps in time that are not multiples of the usual one: a rate that varies, or stamps that are wrong."""
    instants, found, cases = examined.instants, 0, []
    for number in np.unique(examined.part):
        members = np.flatnonzero(examined.part == number)
        steps = np.diff(instants.time[members])
        if len(steps) < 3 or not (steps > 0).all():
            continue
        ratio = steps / np.median(steps)
        odd = np.abs(ratio - np.rint(ratio).clip(1)) > 0.3
        longer = np.rint(ratio) > 1
        if odd.mean() > 0.02 or longer.mean() > 0.02:
            found += 1
            where = examined.describe(members[0]).split(" frame")[0]
            rates = 1 / np.percentile(steps, (5, 95))[::-1]
            what = f"{where}: from {rates[0]:.3g} to {rates[1]:.3g} instants per second"
            cases.append(Case(what, examined.rows(members[int(np.argmax(ratio))])))
    text = (
        f"the rate varies in {found:,} sequences (dropped frames, or a variable frame rate); times are those of the "
        "frames, so labels and views stay in step, but smoothing over time sees uneven steps"
    )
    return check("rate", f"{len(instants):,} instants", found, text, cases[:CASES], "note")


def _check_colour(examined: ExaminedCapture, limits: ImageLimits) -> Check:
    """Views without colours, in which people are told from the scene by brightness alone."""
    colour = np.array([np.nanmedian(c) if np.isfinite(c).any() else np.nan for c in examined.facts.colour.T])
    grey = np.flatnonzero(colour < limits.colour)
    names = ", ".join(examined.instants.views[v] for v in grey[:CASES])
    text = f"there are no colours in the images of {names} (grey-scale, infrared or night cameras)"
    if _is_own_footage(examined):
        text += (
            ", so shadows and grey clothes look alike: see the track sheet beside the capture; if boxes are too small "
            "or too large, find people with a detector (mcss import videos: --find), or give --background or --boxes"
        )
    return check("colour", f"{len(colour)} views", len(grey), text, verdict="note")


def _is_own_footage(examined: ExaminedCapture) -> bool:
    """Whether mcss found the people itself (`mcss import videos`), so that finding them otherwise may help."""
    return examined.capture.info.importer == "videos"


def _check_views(examined: ExaminedCapture) -> Check:
    alone = (examined.instants.rows >= 0).sum(axis=1) < 2
    missing = (examined.instants.rows < 0).sum(axis=0)
    if not alone.any() and missing.any():
        worst = int(missing.argmax())
        text = (
            f"{missing.sum():,} images of instants are missing, most in {examined.instants.views[worst]} "
            f"({missing[worst]:,}): cameras dropped frames there, or views are clipped"
        )
        cases = [
            Case(f"{examined.describe(i)}: without {examined.instants.views[v]}", examined.rows(i))
            for i, v in np.argwhere(examined.instants.rows < 0)[:CASES]
        ]
        return check("views", f"{len(alone):,} instants", int(missing.sum()), text, cases, "note")
    text = (
        f"{alone.sum():,} instants are seen by one view alone, from which nothing is learned without a label; "
        "check that the same moment has the same frame number in all views"
    )
    verdict: Verdict = "fault" if alone.mean() > 0.5 else "note"
    cases = [Case(examined.describe(i), examined.rows(i)) for i in np.flatnonzero(alone)[:CASES]]
    return check("views", f"{len(alone):,} instants", int(alone.sum()), text, cases, verdict)


def _check_labels(examined: ExaminedCapture) -> Check:
    count, labelled = len(examined.instants), len(examined.labelled)
    looked = f"{count:,} instants"
    if not labelled:
        text = "no instant has a pose: train with --labels none, or choose some to label with `mcss select`"
        return Check("labels", looked, count, "note", text)
    without_heading = labelled - int(examined.instants.heading_valid.sum())
    text = f"{labelled:,} poses" + (
        f", {without_heading:,} of which have no heading and are left out" if without_heading else ""
    )
    return check("labels", looked, count - labelled + without_heading, text, verdict="note")


def _check_bones(examined: ExaminedCapture, limits: LabelLimits) -> tuple[Check, Bool[np.ndarray, " n"]]:
    """Bones of impossible length; returns the check and the instants that have one."""
    bad = np.zeros(len(examined.instants), bool)
    if not len(examined.labelled):
        return unchecked("bones", "no poses"), bad
    pose, person = examined.pose, examined.instants.subject[examined.labelled]
    changes = bone_changes(pose, person, limits)
    worst = np.abs(changes).max(axis=1)
    bad[examined.labelled] = worst > 0
    text, cases = [], []
    for subject in np.unique(person):
        of_subject, name = pose[person == subject], examined.instants.subjects[subject]
        first = int(examined.labelled[person == subject][0])
        height = float(np.median(body_heights(of_subject)))
        if not HEIGHTS_MM[0] <= height <= HEIGHTS_MM[1]:
            text.append(f"{name} is {height:,.3g} mm tall along the bones: are the poses in millimetres?")
            cases.append(Case(f"{examined.describe(first)}: {height:,.3g} mm tall", examined.rows(first)))
        for joint, share in uneven_bones(of_subject, limits):
            text.append(f"{name}'s bone to {joint} is {share:+.0%} against the right one: are joints in order?")
            cases.append(Case(f"{examined.describe(first)}: {joint} {share:+.0%}", examined.rows(first)))
    faulty_people = len(text)
    if bad.any():
        text.append(f"{bad.sum():,} poses have a bone of an impossible length; leave their labels out")
    for i in np.argsort(-worst)[:CASES]:
        if worst[i] > 0:
            bone, instant = int(np.abs(changes[i]).argmax()), int(examined.labelled[i])
            where = f"{examined.describe(instant)}: bone to {JOINTS[bone + 1]} {changes[i, bone]:+.0%}"
            cases.append(Case(where, examined.rows(instant)))
    return check("bones", f"{len(pose):,} poses", int(bad.sum()) + faulty_people, "; ".join(text), cases), bad


def _check_sides(
    examined: ExaminedCapture, without: Bool[np.ndarray, " n"], limits: LabelLimits
) -> tuple[Check, Bool[np.ndarray, " n"]]:
    """Poses with left and right exchanged; returns the check and these instants."""
    bad = np.zeros(len(examined.instants), bool)
    use = examined.labelled[~without[examined.labelled]]
    if not len(use):
        return unchecked("left and right", "no poses"), bad
    pose = examined.instants.pose[use].astype(np.float64)
    bad[use] = exchanged_sides(pose, examined.instants.time[use], examined.part[use], limits)
    exchanged = np.flatnonzero(bad)
    cases = []
    if len(exchanged):
        spread = exchanged[np.unique(np.linspace(0, len(exchanged) - 1, CASES).astype(int))]
        cases = [Case(examined.describe(i), examined.rows(i)) for i in spread]
    text = (
        f"{bad.sum():,} poses have left and right exchanged (only then do they fit their neighbours, or do their knees "
        "bend forwards); exchange the joints, or look for an axis that is mirrored"
    )
    return check("left and right", f"{len(use):,} poses", len(exchanged), text, cases), bad


def _check_jumps(
    examined: ExaminedCapture, without: Bool[np.ndarray, " n"], limits: LabelLimits
) -> tuple[Check, Bool[np.ndarray, " n"]]:
    """Poses too far from their neighbours; returns the check and these instants."""
    bad = np.zeros(len(examined.instants), bool)
    use = examined.labelled[~without[examined.labelled]]
    if len(use) < 2:
        return unchecked("jumps", "no poses that follow each other"), bad
    pose = examined.instants.pose[use].astype(np.float64)
    excess = jumps(pose, examined.instants.time[use], examined.part[use], limits)
    bad[use] = excess > 0
    cases = [
        Case(f"{examined.describe(use[i])}: {excess[i]:.1f} × what is possible", examined.rows(use[i]))
        for i in np.argsort(-excess)[: min(CASES, int((excess > 0).sum()))]
    ]
    text = f"{bad.sum():,} poses are farther from their neighbours than a person can move; leave their labels out"
    return check("jumps", f"{len(use):,} poses", int(bad.sum()), text, cases), bad


def _check_projection(
    examined: ExaminedCapture, use: Bool[np.ndarray, "n views"]
) -> tuple[Check, Bool[np.ndarray, "n views"]]:
    """Poses that the cameras do not see in the crops, and matrices that are not rotations; returns these images."""
    if not examined.known.any():
        return unchecked("projection", "no poses together with cameras"), np.zeros(use.shape, bool)
    inside = examined.shares_inside()
    astray = use & ((inside < 0.5) | examined.improper)
    text = (
        f"{astray.sum():,} images do not show the person where pose and camera place them; look for mixed-up cameras, "
        "units, or labels of another person"
    )
    if examined.improper.any():
        text += (
            f"; {examined.improper.sum():,} have a camera whose rotation matrix is not a rotation (mirrored, or scaled)"
        )
    cases = [
        Case(f"{examined.describe(i, v)}: {inside[i, v]:.0%} of the joints in the crop", examined.rows(i, v))
        for i, v in np.argwhere(astray)[np.argsort(inside[astray], kind="stable")][:CASES]
    ]
    return check("projection", f"{use.sum():,} images", int(astray.sum()), text, cases), astray


def _check_edges(examined: ExaminedCapture, use: Bool[np.ndarray, "n views"], limits: ImageLimits) -> Check:
    """People with joints beyond the crop or, where joints are not known, who move across its edge."""
    outside = np.where(use, 1 - examined.shares_inside(), 0.0)
    cut = outside > 0
    edge = np.where(examined.known, np.nan, examined.facts.edge)
    for number in np.unique(examined.part):
        members = np.flatnonzero(examined.part == number)
        for view in range(edge.shape[1]):
            over = edge[members, view] > limits.edge
            if over.any() and over.sum() >= limits.often * np.isfinite(edge[members, view]).sum():
                cut[members[over], view] = True
                outside[members[over], view] = edge[members[over], view]
    cases = []
    for i, v in np.argwhere(cut)[np.argsort(-outside[cut], kind="stable")][:CASES]:
        what = "of the joints are outside" if examined.known[i, v] else "of an edge is covered"
        cases.append(Case(f"{examined.describe(i, v)}: {outside[i, v]:.0%} {what}", examined.rows(i, v)))
    text = f"{cut.sum():,} images cut the person off; make the crops larger "
    if _is_own_footage(examined):
        text += (
            "(mcss import videos: --margin), or, where the track sheet shows boxes around a part of the person, find "
            "people with a detector (--find)"
        )
    else:
        info = examined.capture.info
        text += f"(mcss import {info.importer}: --margin)" if "margin" in info.settings else "where the capture is made"
    return check("cut off", f"{(use | np.isfinite(edge)).sum():,} images", int(cut.sum()), text, cases)


def _check_images(examined: ExaminedCapture, limits: ImageLimits) -> list[Check]:
    facts = examined.facts
    looked = f"{int((examined.instants.rows >= 0).sum()):,} images"
    too_blurred = blurred(facts, examined.part, limits)
    # Name, faulty images, what orders them from the worst, and the end of the text.
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
    broken = [Case(examined.describe(i, v), ()) for i, v in examined.broken[:CASES]]
    text = f"{len(examined.broken):,} images cannot be decoded; restore the capture from a copy or make it again"
    checks = [check("broken", looked, len(examined.broken), text, broken)]
    for name, bad, order, ending in kinds:
        worst = np.argwhere(bad)[np.argsort(order[bad], kind="stable")][:CASES]
        cases = [Case(examined.describe(i, v), examined.rows(i, v)) for i, v in worst]
        checks.append(check(name, looked, int(bad.sum()), f"{bad.sum():,} images {ending}", cases))
    return checks
