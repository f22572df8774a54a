"""The check whether the views of a capture run in step."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Int64

from mcss.data.doctor.checks import CASES, Case, Check, unchecked
from mcss.data.doctor.examine import Patient
from mcss.data.doctor.lags import Lag, motion_lags, projection_lag

SHORTEST = 12
"""Instants of a sequence below which nothing can be said."""


def check_sync(patient: Patient, without: Bool[np.ndarray, " n"]) -> tuple[Check, Bool[np.ndarray, "n views"]]:
    """By where labels are seen for sequences with cameras and poses; by what moves for the others.

    Args:
        patient: The capture.
        without: Instants whose labels are known to be wrong.

    Returns:
        The check, and the images of views that are out of step.
    """
    instants = patient.instants
    bad = np.zeros(instants.rows.shape, bool)
    if len(instants.views) < 2:
        return unchecked("sync", "one view alone"), bad
    cases: list[Case] = []
    uncertain: list[str] = []
    unlabelled: dict[int, list[Int64[np.ndarray, " k"]]] = {}
    parts = [np.flatnonzero(patient.part == one) for one in np.unique(patient.part)]
    parts = [place for place in parts if len(place) >= SHORTEST]
    for place in parts:
        use = patient.projected[place] & ~without[place, None]
        if use.sum(axis=0).min() >= SHORTEST:
            cases += _by_projection(patient, place, use, bad)
        else:
            unlabelled.setdefault(int(instants.subject[place[0]]), []).append(place)
    for own in unlabelled.values():
        found, doubts = _by_motion(patient, own, bad)
        cases += found
        uncertain += doubts
    if not parts:
        return unchecked("sync", f"no sequence of {SHORTEST} instants"), bad
    looked = f"{len(parts):,} sequence{'s' * (len(parts) != 1)}, {len(instants.views)} views"
    if cases:
        text = "views do not run in step: shift them by these offsets and import them again"
        return Check("sync", looked, len(cases), "fault", text, tuple(cases[:CASES])), bad
    if uncertain:
        return Check("sync", looked, 0, "note", "too little moves to be certain: " + "; ".join(uncertain)), bad
    return Check("sync", looked, 0, "ok", ""), bad


def _by_projection(
    patient: Patient, place: Int64[np.ndarray, " k"], use: Bool[np.ndarray, "k views"], bad: Bool[np.ndarray, "n views"]
) -> list[Case]:
    """Views of one sequence whose crops move as its labels do at another time; marks them in `bad`."""
    cases = []
    for view in range(use.shape[1]):
        middle = np.where(use[:, view, None], _middle(patient.seen[place, view]), np.nan)
        lag, _, none = projection_lag(middle, patient.boxes[place, view], patient.settings.sync)
        if lag:
            bad[place, view] = True
            cases.append(_case(patient, place, view, lag, f"labels are seen {none:.0%} of a crop away"))
    return cases


def _by_motion(
    patient: Patient, parts: Sequence[Int64[np.ndarray, " _"]], bad: Bool[np.ndarray, "n views"]
) -> tuple[list[Case], list[str]]:
    """Views of one person that move at another time than the others, in all of his sequences or in one; marks them."""
    limits = patient.settings.sync

    def found(group: Sequence[Int64[np.ndarray, " _"]]) -> tuple[list[Case], list[Lag]]:
        lags = motion_lags([patient.facts.motion[place[1:]] for place in group], limits)
        late = [lag for lag in lags if lag.out_of_step(limits)]
        for lag in late:
            bad[np.concatenate(group), lag.view] = True
        why = "motion agrees {0.correlation:.2f} then, {0.at_zero:.2f} without"
        return [_case(patient, group[0], lag.view, lag.lag, why.format(lag)) for lag in late], lags

    cases, lags = found(parts)  # all sequences together say more than each alone
    if not cases and len(parts) > 1:
        cases = [case for place in parts for case in found([place])[0]]
    return cases, [] if cases else _uncertain(patient, lags)


def _case(patient: Patient, place: Int64[np.ndarray, " k"], view: int, lag: int, why: str) -> Case:
    step = float(np.median(np.diff(patient.instants.time[place])))
    side = "behind" if lag > 0 else "ahead"
    middle = int(place[len(place) // 2])
    name = f"{patient.instants.describe(middle).split(' frame')[0]} view {patient.instants.views[view]}"
    return Case(f"{name} runs {abs(lag)} instants ({abs(lag) * step:.2f} s) {side}: {why}", patient.rows(middle))


def _uncertain(patient: Patient, lags: Sequence[Lag]) -> list[str]:
    views = patient.instants.views
    return [
        f"view {views[lag.view]} agrees best {abs(lag.lag)} instants {'behind' if lag.lag > 0 else 'ahead'} "
        f"({lag.correlation:.2f}, in step {lag.at_zero:.2f})"
        for lag in lags
        if lag.lag and lag.correlation - lag.at_zero > 0.05
    ]


def _middle(seen: Float32[np.ndarray, "k 17 2"]) -> Float32[np.ndarray, "k 2"]:
    """Of the labelled person in source pixels; NaN where no joint is seen."""
    middle: Float32[np.ndarray, "k 2"] = (np.fmin.reduce(seen, axis=1) + np.fmax.reduce(seen, axis=1)) / 2
    return middle
