"""A video in one call; `mcss.predict_video` is this function."""

from pathlib import Path

from mcss.inference.locate import BoundingBox
from mcss.inference.pose_sequence import PoseSequence, smooth
from mcss.inference.predict import InputFile
from mcss.inference.predict import predict_video as predict_file
from mcss.models.model import Model, load
from mcss.progress import NO_PROGRESS, Progress
from mcss.smoothing import SmoothingSettings
from mcss.video.detectors import PersonDetector


def predict_video(
    video: str | Path,
    model: Model | None = None,
    box: BoundingBox | None = None,
    finder: PersonDetector | None = None,
    smoothing: SmoothingSettings | None = None,
    progress: Progress = NO_PROGRESS,
) -> PoseSequence:
    """Predict the poses of one person in a video, and smooth them over time.

    Args:
        video: The file.
        model: A trained model; by default the weights shipped with the package.
        box: The person's bounding box in every frame, x, y, width, height in pixels. By default the person who moves
            in front of the static camera is followed.
        finder: A person detector, see `mcss.video.detectors.person_detector`.
        smoothing: How the poses are smoothed, by default as by `mcss predict`.
        progress: Advanced twice by every image.

    Returns:
        The poses, one for each image: ``sequence.poses.pose`` (n, 17, 3) in mm, ``sequence.time`` in seconds.
        `mcss.inference.outputs.write_poses` writes them to files.

    Raises:
        SourceError: The file is not a readable video, or nobody is found in it.
    """
    path = Path(video)
    found = predict_file(model or load(), InputFile(path, path.stem), box, finder, progress)
    return smooth(found, smoothing or SmoothingSettings())
