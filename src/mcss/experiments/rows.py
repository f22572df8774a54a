"""Rows of measured tables: typed values of one run or example, written to a table's JSON file."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mcss.evaluation.embedding import DistanceCurve
from mcss.evaluation.results import SystemResult
from mcss.experiments.runs import Cell, seconds_of
from mcss.methods.method import Information
from mcss.retrieval import PoseRetrieval, ScoreAtK
from mcss.skeletons import PoseFrame


@runtime_checkable
class Row(Protocol):
    """A row of a measured table."""

    def to_json(self) -> dict[str, Any]:
        """Plain values for the table's JSON file."""


@dataclass(frozen=True, kw_only=True)
class PoseRow:
    """Pose errors of one system in mm; None for what was not measured."""

    title: str
    """Name of the system in tables; the JSON file has `system` alone."""
    system: str
    variant: str = ""
    labels: str
    seed: int | None = None
    n_mpjpe: float | None = None
    mpjpe: float | None = None
    pa_mpjpe: float | None = None
    frame: PoseFrame | None = None
    """The coordinate frame in which the poses are scored."""
    uses: Information | None = None
    """What the system learns from, where that is known."""

    @property
    def name(self) -> str:
        """The system in words, starred if it learned from 2D joints."""
        star = "*" if self.uses is not None and self.uses.points else ""
        return f"{self.title}{star}" + (f", {self.variant}" if self.variant else "")

    @property
    def learned_from(self) -> str:
        """What the system learned from, in words."""
        words = {
            "labels": "3D labels",
            "views": "views",
            "rotations": "rotations",
            "backgrounds": "backgrounds",
            "points": "2D",
        }
        if self.uses is None:
            return "–"
        return ", ".join(word for name, word in words.items() if getattr(self.uses, name)) or "–"

    def to_json(self) -> dict[str, Any]:
        """Plain values for a table's JSON file."""
        plain = asdict(self)
        del plain["title"]
        return plain


@dataclass(frozen=True, kw_only=True)
class CellRow(PoseRow):
    """The row of a trained cell."""

    n_mpjpe_over_actions: float | None
    pck: float | None
    auc: float | None
    above_oracle_cross_at_10: float | None
    """Retrieval among other subjects: Mean-PA-MPJPE@10 above the oracle, in mm."""
    hit_at_1: float | None
    """Share of queries whose nearest image of another view shows the same instant."""
    backbone: str
    steps: int
    learning_rate: float
    minutes: float | None
    """Training time on one process."""
    cell: str
    """Name of the cell's folder."""


NOT_AVAILABLE = "not available: "
"""How the reason begins why a row cannot be measured on this capture or machine."""


@dataclass(frozen=True, kw_only=True)
class MissingRow(PoseRow):
    """A row that could not be measured."""

    missing: str
    """Why."""


@dataclass(frozen=True, kw_only=True)
class LandmarkRow(PoseRow):
    """A row measured over the joints that another program finds, in the images in which it finds a person."""

    milliseconds: float | None
    """Median time for one image."""


def cell_row(cell: Cell, result: SystemResult, folder: Path) -> CellRow:
    """The row of a trained cell.

    Args:
        cell: The cell.
        result: Its evaluation.
        folder: Folder of all cells.
    """
    settings, pose, retrieval = cell.settings, result.evaluation.pose, result.evaluation.retrieval
    seconds = seconds_of(cell, folder)
    cross = retrieval.cross_subject.scores if retrieval and retrieval.cross_subject else ()

    def score(measure: str) -> float | None:
        return None if pose is None else getattr(pose.over_poses, measure)

    return CellRow(
        title=result.title,
        system=result.system,
        variant=cell.variant,
        labels=settings.labels,
        seed=settings.seed,
        n_mpjpe=score("n_mpjpe"),
        mpjpe=score("mpjpe"),
        pa_mpjpe=score("pa_mpjpe"),
        n_mpjpe_over_actions=None if pose is None else pose.over_actions.n_mpjpe,
        pck=score("pck"),
        auc=score("auc"),
        frame=None if pose is None else pose.frame,
        uses=cell.information,
        above_oracle_cross_at_10={at_k.k: at_k.above_oracle for at_k in cross}.get(10),
        hit_at_1=retrieval.same_instant.hit_at_1 if retrieval and retrieval.same_instant else None,
        backbone=settings.network.backbone,
        steps=settings.optimiser.steps,
        learning_rate=settings.optimiser.lr,
        minutes=None if seconds is None else round(seconds / 60, 1),
        cell=cell.name,
    )


def missing_row(cell: Cell, why: str) -> MissingRow:
    """The row of a cell that could not be measured."""
    return MissingRow(
        title=cell.title,
        system=cell.system,
        variant=cell.variant,
        labels=cell.settings.labels,
        uses=cell.information,
        missing=why,
    )


def mean_pose_row(result: SystemResult) -> PoseRow:
    """The row of the mean pose."""
    pose = result.evaluation.pose
    assert pose is not None
    return PoseRow(
        title=result.title,
        system=result.system,
        variant="" if pose.frame == "canonical" else "in camera space",
        labels=result.labels,
        n_mpjpe=pose.over_poses.n_mpjpe,
        mpjpe=pose.over_poses.mpjpe,
        pa_mpjpe=pose.over_poses.pa_mpjpe,
        frame=pose.frame,
        uses=Information(labels=True),
    )


CASES = {"all_subjects": "all subjects", "cross_subject": "other subjects"}
"""Whom retrieval may find, and how tables call it."""


@dataclass(frozen=True)
class RetrievalRow:
    """The retrieval scores of one run for one case and K."""

    title: str
    system: str
    variant: str
    labels: str
    seed: int | None
    case: str
    """A key of `CASES`."""
    score: ScoreAtK
    random: float
    """Mean-PA-MPJPE of randomly drawn neighbours, in mm."""
    queries: int
    gallery: int
    cell: str

    @property
    def label(self) -> str:
        """Name of the curve that the row belongs to."""
        return self.variant or self.title

    @property
    def name(self) -> str:
        """The system in words."""
        return self.title + (f", {self.variant}" if self.variant else "")

    @property
    def k(self) -> int:
        """Number of neighbours."""
        return self.score.k

    def to_json(self) -> dict[str, Any]:
        """Plain values, the score's among them."""
        plain = {name: value for name, value in vars(self).items() if name not in ("title", "score")}
        return {**plain, **asdict(self.score), "above_oracle": self.score.above_oracle}


def retrieval_rows(result: SystemResult, variant: str, cell: str) -> list[RetrievalRow]:
    """A row for each case and K of a run."""
    retrieval = result.evaluation.retrieval
    rows = []
    for case in CASES:
        scores: PoseRetrieval | None = None if retrieval is None else getattr(retrieval, case)
        if scores is None:
            continue
        rows += [
            RetrievalRow(
                title=result.title,
                system=result.system,
                variant=variant,
                labels=result.labels,
                seed=result.seed,
                case=case,
                score=score,
                random=scores.random,
                queries=scores.queries,
                gallery=scores.gallery,
                cell=cell,
            )
            for score in scores.scores
        ]
    return rows


@dataclass(frozen=True)
class QueryRow:
    """A query and the errors of what one system finds for it."""

    system: str
    query: str
    """Caption of the query."""
    pa_mpjpe: list[float | None]
    """PA-MPJPE to the query in mm, nearest first."""
    right: list[bool]
    """Whether each neighbour shows the query's pose."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class DistanceRow:
    """A pair of images in Fig. 1b."""

    system: str
    anchor: int
    """Row of the capture."""
    other: int
    same_instant: bool
    """Whether the other image shows the same instant from another view; otherwise another pose from the same view."""
    distance: float
    """In the embedding."""
    pa_mpjpe: float
    cell: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ExampleRow:
    """An image in Fig. 4 and the errors of what each system predicts for it."""

    image: str
    """Caption of the image."""
    n_mpjpe: dict[str, float | None]
    """In mm, by system."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class CurveRow:
    """A curve of distances in the embedding against those of poses."""

    system: str
    labels: str
    cell: str
    seed: int
    curve: DistanceCurve

    def to_json(self) -> dict[str, Any]:
        """Plain values, the curve's among them."""
        about = {"system": self.system, "labels": self.labels, "cell": self.cell, "seed": self.seed}
        return {**about, **asdict(self.curve)}


@dataclass(frozen=True)
class DrawnRow:
    """How well a network draws views of one person, as a share of the error of the empty scene."""

    system: str
    split: str
    subject: str
    seed: int
    other_view: float
    """Of views that are drawn from another one."""
    own_view: float
    """Of views that are drawn from themselves."""
    cell: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ProjectionRow:
    """A projection of embeddings to the plane."""

    system: str
    labels: str
    points: int
    """Number of images."""
    cell: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)
