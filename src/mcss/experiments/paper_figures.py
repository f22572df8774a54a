"""Figures 1b, 4 and 5 as the paper has them, and what novel-view synthesis draws, from the networks trained here."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from mcss.data.backgrounds import BackgroundCrops
from mcss.data.capture import Capture
from mcss.data.instants import Instants, evenly_spread
from mcss.data.loading.augmentation import normalise, unnormalised
from mcss.data.loading.batches import camera_rotations
from mcss.evaluation.evaluate import gallery_of
from mcss.evaluation.examples import PoseExample, pick_rows, pose_examples
from mcss.evaluation.predictions import SplitPrediction
from mcss.experiments.figures import loss_curves, pose_sheet, relative_curves, small_image
from mcss.experiments.paper import FIG5
from mcss.experiments.retrieval_tables import RETRIEVAL_NOTE, embedding_cells, retrieval_table
from mcss.experiments.rows import DistanceRow, DrawnRow, ExampleRow, RetrievalRow, retrieval_rows
from mcss.experiments.runs import Cell
from mcss.experiments.study import Study
from mcss.experiments.tables import MeasuredPart, spread
from mcss.methods.mcss import MCSS
from mcss.methods.registry import load_estimator
from mcss.methods.rhodin_eccv18 import RhodinECCV18
from mcss.models.novel_view_network import NovelViewNetwork
from mcss.retrieval import embedding_distances, pair_errors
from mcss.skeletons import JOINTS
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import read_metrics
from mcss.training.runs import FIRST_STAGE
from mcss.viz.plots import SheetImage, image_figure

ANCHORS = 4
"""Images in Fig. 1b with whose embeddings others are compared."""

OTHER_POSES = 3
"""Other poses that are shown for each of them."""

EXAMPLES = 4
"""Images in Fig. 4 from the best to the worst, beside those of low poses."""

LOW_POSES = 2
"""Images in Fig. 4 of people who sit, bend or crouch."""

DRAWN_INSTANTS = 60
"""Instants of each subject that are drawn, evenly spread."""

DRAWN_EXAMPLES = 2
"""Instants of each subject that are shown."""

LOGGED = 10
"""Points of a log in each point of the drawn loss, which goes up and down from one person's images to the next's."""

DRAWN_SPLITS = ("train", "test")
"""People whom the network learned from, and others."""


def mcss_cell(study: Study) -> list[Cell]:
    """MCSS with one subject's labels and the first seed, as in Table 1."""
    return [study.cell(MCSS)]


def fig1b(study: Study) -> MeasuredPart:
    """Show distances in the embedding between views of one instant, and between poses seen by one camera."""
    cell = study.cell(MCSS)
    predictions = study.predictions(cell)
    gallery = gallery_of(predictions)
    sheet, rows, shown = [], list[DistanceRow](), 0
    for anchor in _anchors(predictions):
        query = gallery.take(torch.tensor([anchor]))
        distances = embedding_distances(query.embedding, gallery.embedding)[0]
        errors = pair_errors(query, gallery)[0]
        others = np.flatnonzero(predictions.instant == predictions.instant[anchor])
        others = others[others != anchor]
        chosen = [*others.tolist(), *_other_poses(predictions, anchor, errors.numpy())]
        shown = max(shown, len(others))
        images = study.capture.images(predictions.rows[[anchor, *chosen]])
        line = [SheetImage(small_image(images[0]), "")]
        for index, image in zip(chosen, images[1:], strict=True):
            same = bool(predictions.instant[index] == predictions.instant[anchor])
            distance, error = float(distances[index]), float(errors[index])
            line.append(SheetImage(small_image(image), f"{distance:.2f}" + ("" if same else f", {error:.0f} mm")))
            rows.append(DistanceRow(cell.system, int(predictions.rows[anchor]), int(predictions.rows[index]), same,
                                    distance, error, cell.name))  # fmt: skip
        sheet.append(line)
    headings = ["anchor", *[f"view {n + 2}" for n in range(shown)], *[f"pose {n + 2}" for n in range(OTHER_POSES)]]
    width = len(headings)
    sheet = [[*line, *[_blank()] * (width - len(line))] for line in sheet]
    views = [row.distance for row in rows if row.same_instant]
    poses = [row.distance for row in rows if not row.same_instant]
    notes = [
        "Below each image: its distance from the anchor in the embedding, and for other poses their PA-MPJPE to the "
        f"anchor's. Mean distance of the same pose in other views {np.mean(views):.2f}, of other poses in the same "
        f"view {np.mean(poses):.2f}. Anchors and poses are spread evenly, not picked."
    ]
    figures = {"fig1b": image_figure(sheet, headings)}
    return MeasuredPart("fig1b", "Figure 1b: distances between poses and views", rows, (), (), notes, figures)


def _blank() -> SheetImage:
    return SheetImage(np.full((8, 8, 3), 255, np.uint8), "")


def _anchors(predictions: SplitPrediction) -> list[int]:
    """Labelled images spread evenly over the split, in views that take turns."""
    labelled = np.flatnonzero(predictions.instants.heading_valid[predictions.instant])
    chosen = np.linspace(0, len(labelled) - 1, ANCHORS + 2).round().astype(int)[1:-1]
    return [int(image) for image in labelled[chosen]]


def _other_poses(predictions: SplitPrediction, anchor: int, errors: Float[np.ndarray, " n"]) -> list[int]:
    """Images of the anchor's subject and view, from rather near to far in pose."""
    instants, instant = predictions.instants, predictions.instant
    same = instants.subject[instant] == instants.subject[instant[anchor]]
    same &= (predictions.view == predictions.view[anchor]) & (instant != instant[anchor]) & np.isfinite(errors)
    candidates = np.flatnonzero(same)
    ranked = candidates[np.argsort(errors[candidates], kind="stable")]
    places = np.linspace(0, len(ranked) - 1, OTHER_POSES + 1).round().astype(int)[1:]
    return ranked[places].tolist() if len(ranked) else []


def fig4(study: Study) -> MeasuredPart:
    """Show the true pose and those of MCSS and the baseline beside the image, low poses among them."""
    cells = embedding_cells(study)
    predictions = {cell.system: study.predictions(cell) for cell in cells}
    ours = predictions[MCSS.name]
    rows = np.concatenate([pick_rows(ours, EXAMPLES), lowest_rows(ours, LOW_POSES)])
    examples = pose_examples(study.capture, predictions, rows)
    systems = {cell.system: cell.title for cell in cells}
    notes = [
        f"{EXAMPLES} images from the best to the worst of MCSS, and the {LOW_POSES} lowest poses of different "
        "sequences (sitting, bending, crouching). Below each predicted pose: N-MPJPE. Poses are seen from the front, "
        "30° from their left. The paper's are of S9 and S11, with the labels of S1."
    ]
    figures = {"fig4": pose_sheet(examples, systems)}
    measured = [_example_row(example, list(systems)) for example in examples]
    return MeasuredPart("fig4", "Figure 4: predicted poses", measured, (), (), notes, figures)


def lowest_rows(predictions: SplitPrediction, count: int) -> Int64[np.ndarray, " count"]:
    """Rows of the poses whose head is least above their lowest joint, one of each sequence."""
    instants = predictions.instants
    up = instants.pose[:, :, 2]
    height = np.where(instants.heading_valid, up[:, JOINTS.index("Head")] - up.min(axis=1), np.inf)
    chosen: list[int] = []
    for index in np.argsort(height[predictions.instant], kind="stable").tolist():
        instant = predictions.instant[index]
        if not np.isfinite(height[instant]):
            break
        part = (instants.subject[instant], instants.sequence[instant])
        taken = [(instants.subject[i], instants.sequence[i]) for i in predictions.instant[chosen]]
        if part not in taken:
            chosen.append(index)
        if len(chosen) == count:
            break
    rows: Int64[np.ndarray, " count"] = predictions.rows[chosen]
    return rows


def _example_row(example: PoseExample, systems: Sequence[str]) -> ExampleRow:
    errors = {name: example.predicted[name].n_mpjpe for name in systems if name in example.predicted}
    return ExampleRow(example.caption, errors)


def fig5_cells(study: Study) -> list[Cell]:
    """MCSS without any labels, and with those of one subject."""
    return [
        study.cell(MCSS, "none", variant="cnstr"),
        study.cell(MCSS, variant="cnstr + pose"),
    ]


def fig5(study: Study) -> MeasuredPart:
    """Measure retrieval relative to the oracle, with L_cnstr alone and with both losses, in both cases."""
    rows: list[RetrievalRow] = []
    for cell in fig5_cells(study):
        rows += retrieval_rows(study.result(cell), cell.variant, cell.name)
    notes = [
        RETRIEVAL_NOTE,
        "The curves are differences from the oracle, as in the paper. cnstr: L_cnstr on all training images, without "
        f"labels; cnstr + pose: with the labels of {study.labels}. Without labels the last weights are kept, since "
        f"there is no pose error to choose by. The paper: {FIG5}.",
    ]
    title, figures = "Figure 5: retrieval relative to the oracle", {"fig5": relative_curves(rows)}
    return MeasuredPart("fig5", title, rows, retrieval_table(rows), (), notes, figures)


def drawn_cells(study: Study) -> list[Cell]:
    """Novel-view synthesis with one subject's labels and all seeds, as in Table 1."""
    return [study.cell(RhodinECCV18, seed=seed) for seed in study.seeds]


def drawn(study: Study) -> MeasuredPart:
    """Draw each view from another one and from itself, beside the true image and the empty scene."""
    rows: list[DrawnRow] = []
    sheet: list[list[SheetImage]] = []
    cells = drawn_cells(study)
    for cell in cells:
        network = load_estimator(study.cells / cell.name)
        assert isinstance(network, NovelViewNetwork)
        for split in DRAWN_SPLITS:
            for subject in _views_of_each_subject(study.capture, split):
                views = _drawn(network, study.capture, subject, cell)
                rows.append(views.row(cell, split))
                if cell is cells[0] and split == DRAWN_SPLITS[-1]:
                    sheet += views.sheet()
    curves = {f"seed {cell.settings.seed}": _losses(study, cell) for cell in cells}
    figures = {
        "drawn": image_figure(sheet, ["seen", "wanted", "drawn from it", "from itself", "empty scene"]),
        "drawn_loss": loss_curves(curves),
    }
    notes = [
        "Squared differences of colours from the wanted image, as a share of those of the empty scene: 1 is a decoder "
        f"that draws nobody, 0 a perfect one. {DRAWN_INSTANTS} instants of each subject, two views of each; appearance "
        "is taken from another instant of the same person, as in training. The images are those of people under test, "
        "spread evenly over their instants, not picked, at the size at which the decoder draws.",
        "The second figure is the loss of the representation while it learns, colours and features together; each "
        f"point is the mean over {LOGGED} points of the log.",
    ]
    title = "Novel-view synthesis: what it draws"
    return MeasuredPart("drawn", title, rows, _drawn_table(rows), (), notes, figures)


def _drawn_table(rows: list[DrawnRow]) -> list[list[str]]:
    """Errors of every split over seeds; those of its subjects are averaged."""
    table = [["people", "seeds", "drawn from another view", "drawn from itself"]]
    for split in DRAWN_SPLITS:
        seeds = sorted({row.seed for row in rows})
        means = [
            [float(np.mean([getattr(row, of) for row in rows if (row.split, row.seed) == (split, seed)]))
             for seed in seeds]
            for of in ("other_view", "own_view")
        ]  # fmt: skip
        people = "learned from" if split == "train" else "others"
        table.append([people, str(len(seeds)), *(spread(values, 2) for values in means)])
    return table


def _views_of_each_subject(capture: Capture, split: str) -> list[Instants]:
    """Instants of each subject, evenly spread, that two views show."""
    instants = capture.instants(split)
    both = (instants.rows >= 0).sum(axis=1) >= 2
    chosen = []
    for subject in np.unique(instants.subject[both]):
        indices = np.flatnonzero(both & (instants.subject == subject))
        chosen.append(instants.take(indices[evenly_spread(len(indices), DRAWN_INSTANTS)]))
    return chosen


@dataclass(frozen=True, eq=False)
class _Views:
    """Two views of each of several instants of one person, and what a network draws of them; normalised colours."""

    subject: str
    wanted: Float[Tensor, "n 2 3 side side"]
    scene: Float[Tensor, "n 2 3 side side"]
    """The empty scene behind the person."""
    other: Float[Tensor, "n 2 3 side side"]
    """Drawn from the other view."""
    own: Float[Tensor, "n 2 3 side side"]
    """Drawn from the view itself."""

    def row(self, cell: Cell, split: str) -> DrawnRow:
        """How far what is drawn is from what is wanted, relative to the empty scene."""
        scene, other, own = (
            float((drawn - self.wanted).square().mean()) for drawn in (self.scene, self.other, self.own)
        )
        return DrawnRow(cell.system, split, self.subject, cell.settings.seed, other / scene, own / scene, cell.name)

    def sheet(self) -> list[list[SheetImage]]:
        """Lines of the figure: of some instants, the second view drawn from the first."""
        lines = []
        for instant in np.linspace(0, len(self.wanted) - 1, DRAWN_EXAMPLES + 2).round().astype(int)[1:-1]:
            images = (
                self.wanted[instant, 0],
                *(of[instant, 1] for of in (self.wanted, self.other, self.own, self.scene)),
            )
            lines.append([SheetImage(image, "") for image in unnormalised(torch.stack(images))])
        return lines


def _drawn(network: NovelViewNetwork, capture: Capture, instants: Instants, cell: Cell) -> _Views:
    """Draw two views of each instant, all in one batch, since appearance comes from the instant before."""
    views: Int64[np.ndarray, "n 2"] = np.argsort(instants.rows < 0, axis=1, kind="stable")[:, :2]
    every = np.repeat(np.arange(len(instants)), 2)
    rows = instants.rows[every, views.ravel()]
    size = network.synthesis.drawn_size
    rotations = camera_rotations(capture, instants, instants.rows >= 0, cell.system)[every, views.ravel()]
    scene = normalise(BackgroundCrops.read(capture, instants, size, cell.system).take(every, views.ravel()))
    wanted = normalise(_images(capture, rows, size))
    images = normalise(_images(capture, rows, network.config.image_size))
    shape = (len(instants), 2)
    with torch.inference_mode():
        other, own = (
            network(images, shape=shape, rotations=rotations, backgrounds=scene, own=count)
            for count in (0, len(instants))
        )
    of_instants = [each.unflatten(0, shape) for each in (wanted, scene, other, own)]
    return _Views(instants.subjects[instants.subject[0]], *of_instants)


def _images(capture: Capture, rows: Int64[np.ndarray, " n"], size: int) -> UInt8[Tensor, "n 3 size size"]:
    return torch.from_numpy(capture.decode(rows, size)).permute(0, 3, 1, 2)


def _losses(study: Study, cell: Cell) -> tuple[list[int], list[float]]:
    """Steps of the representation, and the mean of its loss over the `LOGGED` points of the log up to each."""
    lines = [line for line in read_metrics(study.cells / cell.name / FIRST_STAGE / METRICS) if "total" in line]
    spans = [lines[start : start + LOGGED] for start in range(0, len(lines), LOGGED)]
    return [span[-1]["step"] for span in spans], [fmean(line["total"] for line in span) for span in spans]
