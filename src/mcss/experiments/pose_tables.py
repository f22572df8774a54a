"""Tables 1 to 3, Figure 3 and the table of signals: errors of predicted poses."""

import statistics
from collections.abc import Sequence
from dataclasses import replace

from mcss.evaluation.predictions import EvaluationSettings
from mcss.evaluation.report import history_of
from mcss.evaluation.results import MEAN_POSE
from mcss.experiments.figures import error_by_labels, learning_curves
from mcss.experiments.landmarks import landmark_rows
from mcss.experiments.paper import RATIOS, TABLE1, TABLE2, TABLE3
from mcss.experiments.rows import NOT_AVAILABLE, CellRow, MissingRow, PoseRow, mean_pose_row
from mcss.experiments.runs import READINGS, Cell, started_from
from mcss.experiments.study import Study
from mcss.experiments.tables import MeasuredPart, grouped, mean_of, over_seeds, pose_table
from mcss.methods.mcss import MCSS
from mcss.methods.method import Method
from mcss.methods.points2d import Points2D
from mcss.methods.registry import compared_methods, title_of
from mcss.methods.rhodin_cvpr18 import RhodinCVPR18
from mcss.methods.rhodin_eccv18 import RhodinECCV18
from mcss.methods.supervised import Supervised
from mcss.models.backbones import BackboneName
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import read_metrics

MAIN_METHODS: tuple[type[Method], ...] = (MCSS, Supervised)
"""MCSS and its baseline, which all parts compare."""

FIG3_METHODS: tuple[type[Method], ...] = (*MAIN_METHODS, RhodinCVPR18, RhodinECCV18)
"""The systems whose error the paper draws against the amount of labels."""

FRAME_NOTE = (
    "Canonical: the pose is rotated so that the hips face a fixed direction. Camera: along the axes of the camera, "
    "turned to the viewing ray of the crop, so a system also has to predict which way a person faces. N-MPJPE and "
    "MPJPE are different quantities in each frame; PA-MPJPE of a pose is the same in all. The two mean poses differ in "
    "it, since one is of poses that face the same way, the other of poses that face every way. * learned from 2D "
    "joints too."
)

PRETRAINED = "backbone first trained on 2D joints"

AS_PRINTED = "loss and heads as printed"

LONGER = 4
"""How many times as long the longer runs are."""

LONGER_VARIANT = f"{LONGER} × the steps"

LONGER_SYSTEMS: tuple[tuple[type[Method], str | None], ...] = ((MCSS, None), (Supervised, None), (Supervised, "all"))
"""Systems that are trained longer, and their labels; None for those of the one labelled subject."""

SHARES = (0.05, 0.1, 0.5)
"""Shares of the labelled subject's instants in Fig. 3."""


def pretrained_cell(study: Study, seed: int) -> Cell:
    """Multi-view consistency with a backbone first trained on 2D joints: the starred row."""
    first = study.cell(Points2D, "none", seed)
    cell = study.cell(RhodinCVPR18, seed=seed, variant=PRETRAINED)
    return started_from(cell, first, study.cells, whole=False)


def printed_cell(study: Study, seed: int, labels: str | None = None) -> Cell:
    """MCSS with the loss and the heads that the paper prints, and the rest of the recipe.

    That is Eq. 2 on pairs with weight 1, and G and H of a single layer without BatchNorm on φ.
    """
    cell = study.cell(MCSS, labels, seed, AS_PRINTED)
    heads = replace(cell.settings.network, embedding_norm=False, scaled_embedding=False, head_hidden=0)
    assert isinstance(cell.settings.method, MCSS)
    method = replace(cell.settings.method, metric_loss="contrastive", views=2, metric_weight=1.0)
    return replace(cell, settings=replace(cell.settings, method=method, network=heads))


def table1_cells(study: Study) -> list[Cell]:
    """Every method with one subject's labels and all seeds, and with all subjects' labels and one seed."""
    methods = compared_methods()
    return [
        *(study.cell(method, seed=seed) for method in methods for seed in study.seeds),
        *(printed_cell(study, seed) for seed in study.seeds if study.budget.recipe == "fast"),
        *(pretrained_cell(study, seed) for seed in study.seeds),
        *(study.cell(method, "all") for method in methods),
        *([] if study.weights50 is None else [resnet50_cell(study)]),
    ]


def resnet50_cell(study: Study) -> Cell:
    """The geometry-aware representation with ResNet-50, as its authors have it."""
    assert study.weights50 is not None
    return _with_backbone(study.cell(RhodinECCV18, variant="ResNet-50"), "resnet50", study.weights50)


def _with_backbone(cell: Cell, backbone: BackboneName, weights: str) -> Cell:
    """The cell with another backbone, all of whose stages are trained: a recipe freezes stages of its own alone."""
    settings = replace(
        cell.settings,
        network=replace(cell.settings.network, backbone=backbone),
        weights=weights,
        frozen_stages=0,
        variants=0,
    )
    return replace(cell, settings=settings)


def table1(study: Study) -> MeasuredPart:
    """Compare all methods."""
    rows: list[PoseRow] = [_mean_pose(study, in_cameras) for in_cameras in (False, True)]
    rows += [study.row(cell) for cell in table1_cells(study)]
    notes = [FRAME_NOTE]
    try:
        rows += landmark_rows(study, study.cell(MCSS))
    except (ValueError, OSError) as why:  # a file that cannot be compared with does not stop the table
        notes.append(f"Landmarks of another program are left out: {why}")
    error = mean_of(rows, "n_mpjpe", MCSS.name, study.labels)
    for other, paper in RATIOS.items():
        theirs = mean_of(rows, "n_mpjpe", other, study.labels)
        if error and theirs:
            notes.append(
                f"N-MPJPE of MCSS is {error / theirs:.2f} of that of {title_of(other)} with the labels of "
                f"{study.labels}; in the paper {paper:.2f}." + _frame_caveat(rows, other)
            )
    return MeasuredPart("table1", "Table 1: MCSS and other systems", rows, pose_table(rows), TABLE1, notes)


def _mean_pose(study: Study, in_cameras: bool) -> PoseRow:
    """The row of the mean pose, which needs the cameras where it is along their axes."""
    try:
        return mean_pose_row(study.mean_pose(in_cameras=in_cameras))
    except ValueError as error:
        return MissingRow(
            title="Mean pose",
            system=MEAN_POSE,
            variant="in camera space" if in_cameras else "",
            labels=study.labels,
            missing=f"{NOT_AVAILABLE}{error}",
        )


def _frame_caveat(rows: Sequence[PoseRow], other: str) -> str:
    frame = next(row.frame for row in rows if row.system == other and row.frame)
    return " The frames differ, so this ratio does not compare like with like." if frame != "canonical" else ""


def signal_pairs(study: Study) -> list[tuple[Cell, Cell]]:
    """Each method with its signal from other views and without it, one seed."""
    pairs = []
    for method in compared_methods():
        cell = study.cell(method)
        without = cell.settings.method.without_views()
        if without is None:
            continue
        lacking, what = without
        if type(lacking) is method:
            settings = replace(cell.settings, method=lacking)
            pairs.append((cell, replace(cell, settings=settings, variant=what)))
        else:
            pairs.append((cell, study.cell(type(lacking), variant=what)))
    return pairs


def signals_cells(study: Study) -> list[Cell]:
    """Both cells of every pair."""
    return [cell for pair in signal_pairs(study) for cell in pair]


def signals(study: Study) -> MeasuredPart:
    """Measure what each method gains from other views: the same method without that signal, all else being equal."""
    rows, notes = [], [FRAME_NOTE]
    for cell, lacking_cell in signal_pairs(study):
        row, lacking = study.row(cell), study.row(lacking_cell)
        rows += [row, lacking]
        changes = [_change(getattr(row, name), getattr(lacking, name)) for name in ("n_mpjpe", "pa_mpjpe")]
        if None not in changes:
            n, pa = changes
            notes.append(f"{cell.title}: with its signal N-MPJPE changes by {n:+.1f} %, PA-MPJPE by {pa:+.1f} %.")
    title = "Signals: what each system gains from other views"
    return MeasuredPart("signals", title, rows, pose_table(rows), (), notes)


def _mean(rows: Sequence[PoseRow]) -> float | None:
    """The mean N-MPJPE of the rows in which it was measured."""
    errors = [row.n_mpjpe for row in rows if row.n_mpjpe is not None]
    return statistics.fmean(errors) if errors else None


def _change(error: float | None, reference: float | None) -> float | None:
    """Change from a reference, in percent."""
    return None if not error or not reference else 100 * (error / reference - 1)


def label_budgets(study: Study) -> list[str]:
    """The label budgets of Fig. 3, from 5 % of one subject to all subjects."""
    people = study.capture.instants("train").present_subjects()
    budgets = [*(f"{study.labels}:{share:g}" for share in SHARES), study.labels]
    second = next((name for name in people if name != study.labels), None)
    if second is not None and len(people) > 2:
        budgets.append(f"{study.labels},{second}")
    return [*budgets, "all"]


def fig3_cells(study: Study) -> list[Cell]:
    """MCSS, the baseline and both systems of Rhodin et al. with every label budget."""
    return [
        study.cell(method, labels, seed)
        for labels in label_budgets(study)
        for method in FIG3_METHODS
        for seed in (study.seeds if labels.partition(":")[0] == study.labels else study.seeds[:1])
    ]


def fig3(study: Study) -> MeasuredPart:
    """Measure the error against the amount of labels."""
    rows = [study.row(cell) for cell in fig3_cells(study)]
    measured = {row.labels for row in rows if not isinstance(row, MissingRow)}
    budgets = [labels for labels in label_budgets(study) if labels in measured]
    mean_pose = mean_pose_row(study.mean_pose())
    figure = error_by_labels(rows, [method.name for method in FIG3_METHODS], budgets, mean_pose)
    notes = [
        f"{len(study.seeds)} seeds with labels of {study.labels}, one elsewhere. The settings of every system are "
        f"those chosen with the labels of {study.labels}; with several people's labels the baseline sees as many "
        "images as MCSS. Bars are standard deviations over seeds. The systems of Rhodin et al. are scored in camera "
        "space."
    ]
    return MeasuredPart("fig3", "Figure 3: amount of labels", rows, pose_table(rows), (), notes, {"fig3": figure})


def table2_cells(study: Study) -> list[Cell]:
    """MCSS with a canonical and a global target, and with ResNet-34."""
    cells = []
    for seed in study.seeds:
        canonical = study.cell(MCSS, seed=seed, variant="canonical pose")
        method = canonical.settings.method
        assert isinstance(method, MCSS)
        method = replace(method, frame="world")
        cells += [
            canonical,
            replace(canonical, settings=replace(canonical.settings, method=method), variant="global pose"),
        ]
    return [*cells, resnet34_cell(study)]


def resnet34_cell(study: Study) -> Cell:
    """MCSS with ResNet-34."""
    cell = study.cell(MCSS, variant="canonical pose, resnet34")
    return _with_backbone(cell, "resnet34", study.weights34)


def table2(study: Study) -> MeasuredPart:
    """Compare target poses and backbones."""
    rows = [study.row(cell) for cell in table2_cells(study)]
    notes = [
        "A global pose keeps the heading that it has in the room and is scored with it: the network has to infer from "
        "the image how the camera stands. PA-MPJPE ignores the heading."
    ]
    return MeasuredPart("table2", "Table 2: target pose and backbone", rows, pose_table(rows), TABLE2, notes)


def _label_views(study: Study) -> list[tuple[str, ...]]:
    """All views; all but the last; the first two."""
    views = study.capture.views
    if len(views) < 3:
        raise ValueError(f"table3: expected three views or more, got {', '.join(views)} in {study.capture.uri}.")
    return list(dict.fromkeys([views, views[:-1], views[:2]]))


def table3_cells(study: Study) -> list[Cell]:
    """MCSS and the baseline with labels of fewer views, and all seeds."""
    cells = []
    for method in MAIN_METHODS:
        for views in _label_views(study):
            label_views = () if views == study.capture.views else views
            for seed in study.seeds:
                cell = study.cell(method, seed=seed, variant="labels of views " + ", ".join(views))
                cells.append(replace(cell, settings=replace(cell.settings, label_views=label_views)))
    return cells


def table3_evaluation(study: Study) -> EvaluationSettings:
    """Evaluate the last view alone, which some cells have no labels of."""
    return replace(study.budget.evaluation, views=study.capture.views[-1:])


def table3(study: Study) -> MeasuredPart:
    """Test on a view that no label is of."""
    settings = table3_evaluation(study)
    (last,) = settings.views
    rows = [study.row(cell, settings) for cell in table3_cells(study)]
    notes = [f"Tested on view {last} alone. L_cnstr always sees all views; the baseline sees those with labels."]
    notes.append("Which weights of a run are kept is chosen on the validation subject in all views.")
    for method in MAIN_METHODS:
        every_view, but_one, *_ = grouped([row for row in rows if row.system == method.name])
        if (change := _change(_mean(but_one), _mean(every_view))) is not None:
            notes.append(f"{method.title}: without labels of view {last} the error changes by {change:+.1f} %.")
    return MeasuredPart("table3", "Table 3: a view without labels", rows, pose_table(rows), TABLE3, notes)


def beyond_cells(study: Study) -> list[Cell]:
    """MCSS and the baseline."""
    return [study.cell(method, seed=seed) for method in MAIN_METHODS for seed in study.seeds]


def beyond(study: Study) -> MeasuredPart:
    """Measure poses that are read off labelled neighbours in a fitted embedding, not in the paper, part by part."""
    rows = [study.row(cell, reads=reads) for reads in READINGS for cell in beyond_cells(study)]
    notes = [
        "The networks of all rows of a system are the same. Fitting the embedding uses unlabelled views, with the "
        "baseline's networks, too."
    ]
    title = "Poses of neighbours in a fitted embedding"
    return MeasuredPart("beyond", title, rows, _table_with_search(rows), (), notes)


def _table_with_search(rows: Sequence[PoseRow]) -> list[list[str]]:
    """Errors of poses and of search of each system, over seeds."""
    table = [["system", "labels", "seeds", "N-MPJPE", "PA-MPJPE", "above oracle at 10", "Hit@1"]]
    for group in grouped(rows):
        found = [row for row in group if isinstance(row, CellRow)]
        if not found:
            table.append([group[0].name, group[0].labels, "0", *["–"] * 4])
            continue
        measures = {"n_mpjpe": 1, "pa_mpjpe": 1, "above_oracle_cross_at_10": 1, "hit_at_1": 2}
        measured = [over_seeds(found, measure, digits) for measure, digits in measures.items()]
        table.append([found[0].name, found[0].labels, str(len(found)), *measured])
    return table


def longer_cell(study: Study, method: type[Method], seed: int, labels: str | None = None) -> Cell:
    """A cell with `LONGER` times as many steps, and the settings that were chosen for the usual number."""
    cell = study.cell(method, labels, seed, LONGER_VARIANT)
    settings = cell.settings
    optimiser = replace(settings.optimiser, steps=LONGER * settings.optimiser.steps)
    longer = replace(settings, optimiser=optimiser, validate_every=LONGER * settings.validate_every)
    return replace(cell, settings=longer)


def longer_cells(study: Study) -> list[Cell]:
    """MCSS, the baseline, and the baseline with all labels, trained as long as usual, and longer seed by seed."""
    usual = [study.cell(method, labels, seed) for method, labels in LONGER_SYSTEMS for seed in study.seeds]
    more = [longer_cell(study, method, seed, labels) for seed in study.seeds for method, labels in LONGER_SYSTEMS]
    return [*usual, *more]


def longer(study: Study) -> MeasuredPart:
    """Measure what a longer training changes."""
    cells = longer_cells(study)
    ours = [cell for cell in cells if cell.system == MCSS.name]
    read_off = [study.row(cell, reads="fitted") for cell in ours]  # first: without the head's there is more to do
    rows = [*(study.row(cell) for cell in cells), *read_off]
    curves: dict[str, list[list[dict[str, float | int]]]] = {}
    for cell in cells:
        if curve := history_of(read_metrics(study.cells / cell.name / METRICS)):
            labels = "" if cell.settings.labels == study.labels else f", {cell.settings.labels}"
            times = f", {LONGER}×" if cell.variant else ""
            curves.setdefault(f"{cell.title}{labels}{times}", []).append(curve)
    notes = [
        f"Learning rate and the other setting are those chosen at the usual number of steps, {study.budget.steps:,}. "
        "Each run keeps the weights of the best point of its learning curve. The baseline with the labels of all "
        "people sees as many images as MCSS, in the usual runs and in the longer ones."
    ]
    return MeasuredPart(
        "longer", "Longer training", rows, _table_with_search(rows), (), notes, {"longer": learning_curves(curves)}
    )
