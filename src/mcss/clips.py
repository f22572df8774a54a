"""A clip: what one camera saw of one person in a stretch of time, as a trained network sees it."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from mcss.captures import Capture, CaptureError
from mcss.evaluation import Prediction
from mcss.importers import ImportProblem
from mcss.importers.footage import probe
from mcss.importers.people import crop_squares, filled
from mcss.importers.recordings import Recording
from mcss.importers.videos import VideosSettings, crops_of, found_boxes
from mcss.networks import PoseNetwork
from mcss.predict import predicted
from mcss.progress import NO_PROGRESS, Progress


@dataclass(frozen=True, eq=False)
class Clip:
    """Pictures in order of time."""

    name: str
    """Where they come from, for messages."""
    time: Float64[np.ndarray, " n"]
    """Seconds."""
    crops: tuple[bytes, ...]
    """JPEG of the person."""
    vector: Float32[np.ndarray, "n dim"]
    """Embeddings."""
    pose: Float32[np.ndarray, "n 17 3"]
    """Predicted, canonical, mm."""

    def __len__(self) -> int:
        return len(self.time)

    def take(self, index: Shaped[np.ndarray, " k"]) -> "Clip":
        """Some of the pictures, by position or by mask."""
        places = np.arange(len(self))[index]
        return replace(
            self,
            time=self.time[places],
            crops=tuple(self.crops[i] for i in places),
            vector=self.vector[places],
            pose=self.pose[places],
        )


def clip_of_video(
    path: Path, network: PoseNetwork, between: tuple[float, float] | None = None, progress: Progress = NO_PROGRESS
) -> Clip:
    """A video of a camera that stands still, in which one person moves.

    Args:
        path: The video.
        network: Of a run of mcss.
        between: Only what was seen from the first to the second of these times in s; the person is looked for in all.
        progress: Counts pictures, twice.

    Raises:
        ImportProblem: It is no video, nobody is found in it, or it has ended by then.
    """
    footage = probe(path)
    settings = VideosSettings(size=max(128, network.config.image_size))
    recording = Recording(path.parent.name, path.stem, (footage,))
    with progress.task(f"Looking at {path.name}", 2 * footage.count) as task:
        boxes = found_boxes(recording, footage, np.arange(footage.count), settings, task, [])
        squares = crop_squares(filled(boxes), footage.rate, settings.margin, footage.width, footage.height)
        crops = crops_of(footage, np.arange(len(squares)), squares, settings, task)
    time = np.arange(len(crops)) / footage.rate
    kept = _between(time, between)
    if not kept.any():
        raise ImportProblem(f"{path}: nothing from {between} s, its length is {len(crops) / footage.rate:.2f} s")
    return _clip(path.name, time[kept], [crops[i] for i in np.flatnonzero(kept)], network)


def clip_of_sequence(
    capture: Capture, name: str, network: PoseNetwork, between: tuple[float, float] | None = None
) -> Clip:
    """What one view of a capture saw of a sequence.

    Args:
        capture: Where the pictures are.
        name: ``subject/sequence/view``.
        network: Of a run of mcss.
        between: Only what was seen from the first to the second of these times in s.

    Raises:
        CaptureError: No such subject, sequence or view, or nothing at that time.
    """
    parts = name.split("/")
    instants = capture.instants()
    if len(parts) != 3:
        raise CaptureError(f"{name!r}: expected subject/sequence/view, such as {_example(capture)}")
    subject, sequence, view = parts
    for what, asked, known in (
        ("subject", subject, instants.subjects),
        ("sequence", sequence, instants.sequences),
        ("view", view, instants.views),
    ):
        if asked not in known:
            raise CaptureError(f"{what}: there is no {asked!r} in the capture at {capture.uri}; it has {', '.join(known)}")
    own = instants.subject == instants.subjects.index(subject)
    own &= instants.sequence == instants.sequences.index(sequence)
    rows = instants.rows[:, instants.views.index(view)]
    own &= (rows >= 0) & _between(instants.time, between)
    if not own.any():
        when = "" if between is None else f" from {between[0]:g} to {between[1]:g} s"
        raise CaptureError(f"{name}: the capture at {capture.uri} has no pictures of it{when}")
    return _clip(name, instants.time[own], capture.images(rows[own]), network)


def _example(capture: Capture) -> str:
    instants = capture.instants()
    return f"{instants.subjects[instants.subject[0]]}/{instants.sequences[instants.sequence[0]]}/{instants.views[0]}"


def _between(time: Float64[np.ndarray, " n"], between: tuple[float, float] | None) -> Bool[np.ndarray, " n"]:
    since, until = between or (-np.inf, np.inf)
    return (time >= since - 1e-9) & (time <= until + 1e-9)


def _clip(name: str, time: Float64[np.ndarray, " n"], crops: list[bytes], network: PoseNetwork) -> Clip:
    found: Prediction = predicted(network, crops)
    assert found.embedding is not None
    assert found.pose is not None
    return Clip(name, time, tuple(crops), found.embedding.numpy(), found.pose.numpy())
