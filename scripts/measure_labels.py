"""Measure labels that `mcss label` makes of a capture whose true poses are known, and write the table of docs/label.md.

    python scripts/measure_labels.py CAPTURE [--landmarks FILE] [--json docs/results/labels.json]

The error is PA-MPJPE in mm over the 12 joints of arms and legs. It is measured for all views and for every choice of
two and three of them, on the split `train`, on which the settings were chosen, and on `test`. The poses of the capture
are used for measuring alone. Without --landmarks they are found first, which takes minutes.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mcss.data.capture import Capture
from mcss.data.instants import Instants
from mcss.errors import LandmarkError
from mcss.files import write_json
from mcss.labelling.image_sizes import with_guessed_sizes
from mcss.labelling.joints import joints_of_landmarks
from mcss.labelling.make import LabelSettings, MadeLabels, labels_of, landmarks_of
from mcss.landmarks.detection import BATCH_SIZE, DetectionSettings, LandmarkDetector
from mcss.landmarks.view_landmarks import ViewLandmarks
from mcss.metrics import pa_mpjpe
from mcss.progress import RichProgress
from mcss.skeletons import LIMBS
from write_table import write_between

SPLITS = ("train", "test")
TIMED = 48
"""Images that are timed."""


@dataclass(frozen=True)
class Row:
    """The error of labels made in one way."""

    how: str
    views: int
    choices: int
    """Choices of that many views, whose middle is taken."""
    pa: dict[str, float]
    """mm, by split."""
    worst: dict[str, float]
    """The largest over the choices."""
    labelled: dict[str, float]
    """Share of the instants."""


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("capture")
    parser.add_argument("--landmarks", type=Path, help="an .npz that `mcss label --split all --landmarks-out` wrote")
    parser.add_argument("--json", type=Path, default=Path("docs/results/labels.json"))
    parser.add_argument("--page", type=Path, default=Path("docs/label.md"))
    options = parser.parse_args()
    capture, progress = Capture.open(options.capture), RichProgress()
    landmarks = {
        split: landmarks_of(capture, split, LabelSettings(landmarks=options.landmarks), progress) for split in SPLITS
    }
    landmarks = {split: with_guessed_sizes(found, capture) for split, found in landmarks.items()}
    count = len(capture.views)
    rows = [one_view(landmarks)]
    for cameras, how in ((False, "turned onto each other"), (True, "triangulated")):
        for views in range(2, count + 1):
            with progress.task(f"{how}, {views} views", 1) as task:
                rows.append(of_views(landmarks, views, LabelSettings(cameras=cameras), how))
                task.advance()
    result: dict[str, Any] = {
        "command": "python scripts/measure_labels.py CAPTURE",
        "instants": {split: len(found) for split, found in landmarks.items()},
        "views": count,
        "milliseconds_per_image": round(milliseconds(capture), 1),
        "rows": [row.__dict__ for row in rows],
    }
    write_json(options.json, result)
    write_between(options.page, "labels", table(result, rows))


def one_view(landmarks: dict[str, ViewLandmarks]) -> Row:
    """The detector's own 3D landmarks."""
    errors = {
        split: [
            error_of(joints_of_landmarks(found.world[:, view].astype(np.float64)), found.instants)
            for view in range(len(found.views))
        ]
        for split, found in landmarks.items()
    }
    return Row(
        "as the detector says",
        1,
        len(errors["test"]),
        {split: float(np.median(values)) for split, values in errors.items()},
        {split: max(values) for split, values in errors.items()},
        dict.fromkeys(errors, 1.0),
    )


def of_views(landmarks: dict[str, ViewLandmarks], count: int, settings: LabelSettings, how: str) -> Row:
    """Labels of every choice of some views."""
    choices = list(combinations(range(len(landmarks["test"].views)), count))
    errors: dict[str, list[float]] = {split: [] for split in landmarks}
    labelled: dict[str, list[float]] = {split: [] for split in landmarks}
    for split, found in landmarks.items():
        for chosen in choices:
            try:
                made = labels_of(found.of_views(chosen), settings)
            except LandmarkError:
                labelled[split].append(0.0)
                continue
            errors[split].append(error_of(made.poses, true_of(made, found.instants)))
            labelled[split].append(len(made) / made.candidates)
    return Row(
        how,
        count,
        len(choices),
        {split: float(np.median(values)) for split, values in errors.items()},
        {split: max(values) for split, values in errors.items()},
        {split: float(np.mean(values)) for split, values in labelled.items()},
    )


def true_of(made: MadeLabels, instants: Instants) -> Instants:
    """The labelled instants with their true poses."""
    key: Callable[[Instants], Any] = lambda i: list(zip(i.subject, i.sequence, i.frame, strict=True))  # noqa: E731
    place = {instant: at for at, instant in enumerate(key(instants))}
    return instants.take(np.array([place[instant] for instant in key(made.instants)]))


def error_of(poses: Float[np.ndarray, "n 17 3"], instants: Instants) -> float:
    """PA-MPJPE over the joints of arms and legs, in mm."""
    limbs = list(LIMBS)
    true = torch.from_numpy(instants.pose[:, limbs].astype(np.float64))
    return float(pa_mpjpe(torch.from_numpy(poses[:, limbs]), true).mean())


def milliseconds(capture: Capture) -> float:
    """Processor time of finding landmarks in one image."""
    rows = capture.instants().rows
    crops = capture.decode(rows[rows >= 0][:TIMED], capture.info.image_size)
    detector = LandmarkDetector(DetectionSettings())
    detector(crops[:BATCH_SIZE])
    started = time.process_time()
    for begin in range(0, len(crops), BATCH_SIZE):
        detector(crops[begin : begin + BATCH_SIZE])
    return 1000 * (time.process_time() - started) / len(crops)


def table(result: dict[str, Any], rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        f"Written by `scripts/measure_labels.py`: {result['instants']['train']} instants of `train`, on which settings "
        f"were chosen, and {result['instants']['test']} of `test`; {result['views']} views. PA-MPJPE in mm over the 12 "
        "joints of arms and legs; for fewer views, the middle and the worst of all choices. Finding landmarks takes "
        f"{result['milliseconds_per_image']:.0f} ms of processor time an image.",
        "",
        "| labels | views | train | worst | labelled | test | worst | labelled |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            cell
            for split in SPLITS
            for cell in (
                f"{row.pa[split]:.1f}",
                f"{row.worst[split]:.1f}" if row.choices > 1 else "",
                f"{100 * row.labelled[split]:.0f} %",
            )
        ]
        lines.append(f"| {row.how} | {row.views} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
