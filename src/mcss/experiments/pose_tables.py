"""Tables 1 to 3 and Figure 3: errors of poses."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcss.errors import WeightsError
from mcss.evaluation.predictions import EvaluationSettings
from mcss.evaluation.report import NAMES
from mcss.experiments.landmarks import landmark_rows, mediapipe_rows
from mcss.experiments.paper import RATIOS, TABLE1, TABLE2, TABLE3
from mcss.experiments.runs import Cell, mean_pose_result, started_from
from mcss.experiments.tables import Part, Study, mean_of, mean_pose_row, missing_row, pose_table, values_of
from mcss.models.backbones import BackboneName, build_backbone
from mcss.training.recipes import MethodName
from mcss.viz.figures import GREY, PALETTE
from mcss.viz.plots import MARKS, Line, line_figure

SYSTEMS: tuple[MethodName, ...] = ("mcss", "supervised", "rhodin_cvpr18", "rhodin_eccv18", "chen_cvpr19")

FRAME_NOTE = (
    "Canonical: turned until the hips face a fixed way. Camera: along the axes of the camera, so a system has to tell "
    "which way a person faces. N-MPJPE and MPJPE are other quantities in each; PA-MPJPE is the same in all. * learned "
    "from 2D joints too."
)

PRETRAINED = "backbone first trained on 2D joints"

SHARES = (0.05, 0.1, 0.5)
"""Of the labelled subject's instants, in Fig. 3."""

COLOURS = dict(zip(SYSTEMS, PALETTE, strict=False))


def pretrained_cell(study: Study, seed: int) -> Cell:
    """Multi-view consistency from a backbone that was first trained on 2D joints: the starred row."""
    first = study.budget.cell("points2d", study.capture, "none", seed)
    cell = study.budget.cell("rhodin_cvpr18", study.capture, study.labels, seed, PRETRAINED)
    return started_from(cell, first, study.cells, whole=False)


def table1_cells(study: Study) -> list[Cell]:
    """Every system: one subject's labels, all seeds; all subjects', one seed."""
    budget, capture, seeds = study.budget, study.capture, study.seeds
    one = [budget.cell(system, capture, study.labels, seed) for system in SYSTEMS for seed in seeds]
    return [
        *one,
        *(pretrained_cell(study, seed) for seed in seeds),
        *(budget.cell(system, capture, "all", seeds[0]) for system in SYSTEMS),
    ]


def table1(study: Study) -> Part:
    """The comparison with other systems."""
    rows = [
        mean_pose_row(mean_pose_result(study.capture, study.labels, "test", study.looked, in_cameras=in_cameras))
        for in_cameras in (False, True)
    ]
    rows += [study.row(cell) for cell in table1_cells(study)]
    notes = [FRAME_NOTE]
    ours = table1_cells(study)[0]
    if study.mediapipe:
        rows += mediapipe_rows(study, ours)
    if study.landmarks:
        rows += landmark_rows(study, Path(study.landmarks), study.program, ours)
    error = mean_of(rows, "n_mpjpe", "mcss", study.labels)
    for other, paper in RATIOS.items():
        theirs = mean_of(rows, "n_mpjpe", other, study.labels)
        if error and theirs:
            notes.append(
                f"N-MPJPE of MCSS is {error / theirs:.2f} of that of {NAMES[other]} with the labels of {study.labels}; "
                f"in the paper {paper:.2f}." + _framed(rows, other)
            )
    return Part("table1", "Table 1: MCSS and other systems", rows, pose_table(rows), TABLE1, notes)


def _framed(rows: Sequence[Mapping[str, Any]], other: str) -> str:
    frame = next(row["frame"] for row in rows if row["system"] == other and row["frame"])
    return " The frames differ, so this ratio is not strictly one of like with like." if frame != "canonical" else ""


def label_amounts(study: Study) -> list[str]:
    """From 5 % of one subject to everybody."""
    people = study.capture.instants("train").present_subjects()
    amounts = [*(f"{study.labels}:{share:g}" for share in SHARES), study.labels]
    second = next((name for name in people if name != study.labels), None)
    if second is not None and len(people) > 2:
        amounts.append(f"{study.labels},{second}")
    return [*amounts, "all"]


def _in_words(labels: str) -> str:
    """``S1:0.05`` as 5 % of S1, in two lines."""
    name, colon, share = labels.partition(":")
    return f"{100 * float(share):g} %\nof {name}" if colon else name.replace(",", " + ")


def fig3_cells(study: Study) -> list[Cell]:
    """MCSS and the baseline at every amount of labels."""
    budget = study.budget
    return [
        budget.cell(system, study.capture, labels, seed)
        for labels in label_amounts(study)
        for system in SYSTEMS[:2]
        for seed in (study.seeds if labels.partition(":")[0] == study.labels else study.seeds[:1])
    ]


def fig3(study: Study) -> Part:
    """Error against the amount of labels."""
    rows = [study.row(cell) for cell in fig3_cells(study)]
    measured = {row["labels"] for row in rows if "missing" not in row}
    amounts = [labels for labels in label_amounts(study) if labels in measured]
    lines = []
    for system in SYSTEMS[:2]:
        found = [values_of(rows, "n_mpjpe", system, labels) for labels in amounts]
        y = [statistics.fmean(values) if values else float("nan") for values in found]
        band = [statistics.stdev(values) if len(values) > 1 else float("nan") for values in found]
        mark = MARKS[SYSTEMS.index(system)]
        lines.append(Line(NAMES[system], range(len(amounts)), y, COLOURS[system], band, mark=mark))
    blind = mean_pose_result(study.capture, study.labels, "test", study.looked).evaluation.pose
    assert blind is not None
    floor = [blind.over_poses.n_mpjpe] * len(amounts)
    lines.append(Line(NAMES["mean_pose"], range(len(amounts)), floor, GREY, dashed=True))
    figure = line_figure(
        lines, x_label="3D labels", y_label="N-MPJPE, mm", x_ticks=list(range(len(amounts))),
        tick_labels=[_in_words(labels) for labels in amounts],
    )  # fmt: skip
    notes = [
        f"{len(study.seeds)} seeds with labels of {study.labels}, one elsewhere. The baseline's learning rate and "
        f"number of steps are those that did best with the labels of {study.labels}; with more people's labels it "
        "takes all steps. Bars are standard deviations over seeds."
    ]
    return Part("fig3", "Figure 3: amount of labels", rows, pose_table(rows), (), notes, {"fig3": figure})


def table2_cells(study: Study) -> list[Cell]:
    """MCSS with a canonical target, a global one, and other backbones whose weights are to be had."""
    budget, capture = study.budget, study.capture
    cells = []
    for seed in study.seeds:
        plain = budget.cell("mcss", capture, study.labels, seed, "canonical pose")
        method = replace(plain.settings.method, frame="world")  # type: ignore[arg-type]
        whole = replace(plain, settings=replace(plain.settings, method=method), variant="global pose")
        cells += [plain, whole]
    return [
        *cells,
        *(backbone_cell(study, backbone) for backbone in _other_backbones(study) if _lacking(study, backbone) is None),
    ]


def _other_backbones(study: Study) -> list[BackboneName]:
    return ["resnet34"]


def backbone_cell(study: Study, backbone: BackboneName) -> Cell:
    """MCSS with another backbone, all of whose stages are trained: frozen ones are chosen for the recipe's own."""
    cell = study.budget.cell("mcss", study.capture, study.labels, study.seeds[0], f"canonical pose, {backbone}")
    settings = replace(
        cell.settings,
        network=replace(cell.settings.network, backbone=backbone),
        weights=study.weights.get(backbone, "imagenet"),
        frozen_stages=0,
        variants=0,
    )
    return replace(cell, settings=settings)


def _lacking(study: Study, backbone: BackboneName) -> str | None:
    """Why a backbone's weights cannot be had, or None."""
    cell = backbone_cell(study, backbone)
    network = cell.settings.network
    try:
        build_backbone(backbone, cell.settings.weights, network.batchnorm_affine)
    except WeightsError as error:
        return str(error)
    return None


def table2(study: Study) -> Part:
    """What the target pose and the backbone are worth."""
    rows = [study.row(cell) for cell in table2_cells(study)]
    notes = [
        "A global pose keeps the heading that it has in the room, and is scored with it: the network has to tell from "
        "the image how the camera stands. PA-MPJPE does not see the heading."
    ]
    for backbone in _other_backbones(study):
        if (why := _lacking(study, backbone)) is not None:
            rows.append(missing_row("mcss", study.labels, f"canonical pose, {backbone}", "not measured, see below"))
            notes.append(f"{backbone} is not measured: {why}")
    return Part("table2", "Table 2: target pose and backbone", rows, pose_table(rows), TABLE2, notes)


def _label_views(study: Study) -> list[tuple[str, ...]]:
    """All views; all but the last; the first two."""
    views = study.capture.views
    if len(views) < 3:
        raise ValueError(f"table3: expected three views or more, {study.capture.uri} has {', '.join(views)}.")
    return list(dict.fromkeys([views, views[:-1], views[:2]]))


def table3_cells(study: Study) -> list[Cell]:
    """MCSS and the baseline with labels of fewer views."""
    cells = []
    for system in SYSTEMS[:2]:
        for own in _label_views(study):
            variant = "labels of views " + ", ".join(own)
            cell = study.budget.cell(system, study.capture, study.labels, study.seeds[0], variant)
            some = () if own == study.capture.views else own
            cells.append(replace(cell, settings=replace(cell.settings, label_views=some)))
    return cells


def table3_looked(study: Study) -> EvaluationSettings:
    """At the last view alone, which some labels are not of."""
    return replace(study.looked, views=study.capture.views[-1:])


def table3(study: Study) -> Part:
    """Tested on a view that no label is of."""
    looked = table3_looked(study)
    (last,) = looked.views
    rows = [study.row(cell, looked) for cell in table3_cells(study)]
    notes = [f"Tested on view {last} alone. L_cnstr sees all views always; the baseline sees those with labels."]
    for system in SYSTEMS[:2]:
        own = [row for row in rows if row["system"] == system]
        if own[0]["n_mpjpe"] and own[1]["n_mpjpe"]:
            change = own[1]["n_mpjpe"] / own[0]["n_mpjpe"] - 1
            notes.append(f"{NAMES[system]}: without labels of view {last} the error changes by {100 * change:+.1f} %.")
    return Part("table3", "Table 3: a view without labels", rows, pose_table(rows), TABLE3, notes)
