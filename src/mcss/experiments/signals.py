"""What each semi-supervised system's own signal is worth: the same system without it, all else being equal."""

from dataclasses import replace
from typing import TypeVar

from mcss.evaluation.report import NAMES
from mcss.experiments.pose_tables import FRAME_NOTE, SYSTEMS
from mcss.experiments.runs import Cell
from mcss.experiments.tables import Part, Study, pose_table
from mcss.methods.chen_cvpr19 import ChenCVPR19Settings, SkeletonMapSettings
from mcss.methods.method import Method
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18Settings
from mcss.methods.rhodin_eccv18 import NovelViewSettings, RhodinECCV18Settings

_First = TypeVar("_First", NovelViewSettings, SkeletonMapSettings)


def without_signal(method: Method) -> tuple[Method, str]:
    """A compared system that learns nothing from other views, and what was taken from it, in words.

    An autoencoder sees as many images in a step as the system that draws other views.

    Raises:
        ValueError: A method that is none of the compared systems.
    """
    match method:
        case RhodinCVPR18Settings():
            return replace(method, consistency_weight=0.0, drift_weight=0.0), "views need not agree"
        case RhodinECCV18Settings(views):
            return replace(method, representation=_alone(views)), "each view drawn from itself"
        case ChenCVPR19Settings(maps):
            return replace(method, representation=_alone(maps)), "each view drawn from itself"
        case _:
            raise ValueError(f"{type(method).__name__} has no signal that can be taken away.")


def _alone(first: _First) -> _First:
    return replace(first, views=1, instants=first.instants * first.views)


def signal_pairs(study: Study) -> list[tuple[Cell, Cell]]:
    """Each system with and without its signal, one seed; MCSS without L_cnstr is the baseline."""
    budget, seed = study.budget, study.seeds[0]
    ours, baseline = (budget.cell(system, study.capture, study.labels, seed) for system in SYSTEMS[:2])
    pairs = [(ours, replace(baseline, variant="MCSS without L_cnstr"))]
    for system in SYSTEMS[2:]:
        cell = budget.cell(system, study.capture, study.labels, seed)
        method, what = without_signal(cell.settings.method)
        pairs.append((cell, replace(cell, settings=replace(cell.settings, method=method), variant=what)))
    return pairs


def signals_cells(study: Study) -> list[Cell]:
    """Both of every pair."""
    return [cell for pair in signal_pairs(study) for cell in pair]


def signals(study: Study) -> Part:
    """The table, and a line for each system that says what its signal changed."""
    rows, notes = [], [FRAME_NOTE]
    for cell, lacking in signal_pairs(study):
        own, other = study.row(cell), study.row(lacking)
        rows += [own, other]
        if own["n_mpjpe"] and other["n_mpjpe"]:
            n, pa = (100 * (own[name] / other[name] - 1) for name in ("n_mpjpe", "pa_mpjpe"))
            notes.append(
                f"{NAMES[cell.system]}: with its signal N-MPJPE changes by {n:+.1f} %, PA-MPJPE by {pa:+.1f} %."
            )
    return Part("signals", "Signals: what each system makes of other views", rows, pose_table(rows), (), notes)
