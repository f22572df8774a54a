"""What novel-view synthesis draws of training and test people from other views, and how its loss fell."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from mcss.data.backgrounds import BackgroundCrops
from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.data.loading.augmentation import normalise, unnormalised
from mcss.data.loading.batches import camera_rotations
from mcss.experiments.figures import loss_curves
from mcss.experiments.rows import DrawnRow
from mcss.experiments.runs import Cell
from mcss.experiments.study import Study
from mcss.experiments.tables import MeasuredPart, spread
from mcss.methods.registry import load_estimator
from mcss.methods.rhodin_eccv18 import RhodinECCV18
from mcss.models.novel_view_network import NovelViewNetwork
from mcss.training.checkpoints import METRICS
from mcss.training.metrics_log import read_metrics
from mcss.training.runs import FIRST_STAGE
from mcss.viz.plots import SheetImage, image_figure

INSTANTS = 60
"""Instants of each subject that are drawn, evenly spread."""

EXAMPLES = 2
"""Instants of each subject that are shown."""

SPLITS = ("train", "test")
"""People whom the network learned from, and others."""


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
        for split in SPLITS:
            for subject in _views_of_each_subject(study.capture, split):
                views = _drawn(network, study.capture, subject, cell)
                rows.append(views.row(cell, split))
                if cell is cells[0] and split == SPLITS[-1]:
                    sheet += views.sheet()
    curves = {f"seed {cell.settings.seed}": _losses(study, cell) for cell in cells}
    figures = {
        "drawn": image_figure(sheet, ["seen", "wanted", "drawn from it", "from itself", "empty scene"]),
        "drawn_loss": loss_curves(curves),
    }
    notes = [
        "Squared differences of colours from the wanted image, as a share of those of the empty scene: 1 is a decoder "
        f"that draws nobody, 0 a perfect one. {INSTANTS} instants of each subject, two views of each; appearance is "
        "taken from another instant of the same person, as in training. The images are those of the people under test, "
        "spread evenly over their instants, not picked, at the size at which the decoder draws.",
        "The second figure is the loss of the representation while it learns, colours and features together.",
    ]
    title = "Novel-view synthesis: what it draws"
    return MeasuredPart("drawn", title, rows, _table(rows), (), notes, figures)


def _table(rows: list[DrawnRow]) -> list[list[str]]:
    """Errors of every split over seeds; those of its subjects are averaged."""
    table = [["people", "seeds", "drawn from another view", "drawn from itself"]]
    for split in SPLITS:
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
        places = np.linspace(0, len(indices) - 1, min(INSTANTS, len(indices))).round().astype(int)
        chosen.append(instants.take(indices[places]))
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
        for instant in np.linspace(0, len(self.wanted) - 1, EXAMPLES + 2).round().astype(int)[1:-1]:
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
    """Steps of the representation, and its loss at them."""
    lines = [line for line in read_metrics(study.cells / cell.name / FIRST_STAGE / METRICS) if "total" in line]
    return [line["step"] for line in lines], [line["total"] for line in lines]
