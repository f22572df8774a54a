"""Analyse an uploaded image or video: find the person, and predict what the page shows of them."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from mcss.errors import ImageError, SourceError
from mcss.images import Image, cut_out, encode_jpeg, scaled_down
from mcss.inference.locate import BoundingBox, Finders, locate_in_image
from mcss.inference.pose_sequence import PoseSequence, smooth
from mcss.inference.predict import InputFile, predict_video
from mcss.models.model import Model, Poses
from mcss.progress import NO_PROGRESS, Progress
from mcss.smoothing import SmoothingSettings
from mcss.video.reading.decoding import images
from mcss.web.limits import Limits
from mcss.web.uploads import MediaKind, UploadError, copy_video, read_upload

CROP = 224
"""Side in pixels of the crops that the page shows."""

SHOWN = 960
"""Longer side in pixels of the image that the page shows."""


class StoppedError(Exception):
    """The work on a file was stopped from outside."""


class RejectedFileError(ValueError):
    """A file cannot be used; the message is for the visitor who sent it."""


@dataclass(frozen=True, eq=False)
class AnalysisResult:
    """What was predicted from a file."""

    about: dict[str, Any]
    """The JSON that the page receives."""
    embedding: Float32[np.ndarray, "n dim"]
    crops: list[bytes]
    """The crops that the model saw, as JPEG, one for each pose."""
    image: bytes
    """The image, or the first one of the video, as JPEG."""

    def pose_sequence(self, name: str) -> PoseSequence:
        """The poses over time, for comparing two videos."""
        frames = self.about["frames"]
        count = len(frames)
        time = np.array([frame["time"] for frame in frames], np.float64)
        poses = Poses(
            pose=np.array([frame["pose"] for frame in frames], np.float32),
            embedding=self.embedding,
            error=None,
            orientation=None,
            crop_boxes=np.full((count, 4), np.nan, np.float32),
        )
        found = np.array([frame["found"] for frame in frames], bool)
        return PoseSequence(name, name, poses, np.arange(count, dtype=np.int64), time, found, rate=1.0)


def analyse(
    model: Model,
    path: Path,
    kind: MediaKind,
    box: BoundingBox | None,
    limits: Limits,
    finders: Finders = Finders(),  # noqa: B008 (frozen)
    progress: Progress = NO_PROGRESS,
) -> AnalysisResult:
    """Predict the poses of the person in an image or video.

    Args:
        model: The model.
        path: The file.
        kind: What the file is.
        box: The person's bounding box, x, y, width, height, as fractions of the image's width and height.
        limits: What is refused.
        finders: How people are found in files without a box.
        progress: Advanced by the images of a video; may raise `StoppedError`.

    Raises:
        RejectedFileError: The file cannot be used, for whatever reason.
        StoppedError: The progress said so.
    """
    try:
        if kind == "image":
            return _analyse_image(model, path, box, limits, finders)
        return _analyse_video(model, path, box, limits, finders, progress)
    except (UploadError, ImageError, SourceError) as error:
        raise RejectedFileError(for_visitors(str(error))) from error
    except MemoryError as error:
        raise RejectedFileError("this file needs more memory than is allowed; make it smaller") from error
    except StoppedError:
        raise
    except Exception as error:  # whatever a strange file does to a decoder must not end the work for other visitors
        raise RejectedFileError(
            "this file cannot be read; it is damaged or of an unusual kind: save it again in a common format"
        ) from error


def _analyse_image(
    model: Model, path: Path, box: BoundingBox | None, limits: Limits, finders: Finders
) -> AnalysisResult:
    image = read_upload(path, limits)
    height, width = image.shape[:2]
    location = locate_in_image(image, "the image", _in_pixels(box, width, height), finders.image)
    crop_box = location.crop_boxes[0]
    sequence = PoseSequence(
        name="image",
        source="the image",
        poses=model.predict_crops([cut_out(image, crop_box, model.image_size)], location.crop_boxes),
        frame=np.zeros(1, np.int64),
        time=location.time,
        found=location.found,
        rate=1.0,
        notes=location.notes,
    )
    return _result(model, "image", sequence, image, [encode_jpeg(cut_out(image, crop_box, CROP))])


def _analyse_video(
    model: Model, path: Path, box: BoundingBox | None, limits: Limits, finders: Finders, progress: Progress
) -> AnalysisResult:
    copy = path.with_name(f"{path.name}.copy.mp4")
    try:
        notes = copy_video(path, copy, limits)
        first = next(images(copy))
        box_in_pixels = _in_pixels(box, first.shape[1], first.shape[0])
        predicted = predict_video(model, InputFile(copy, "the video"), box_in_pixels, finders.video, progress)
        sequence = smooth(predicted, SmoothingSettings())
        crop_boxes = np.rint(sequence.poses.crop_boxes).astype(np.int64)
        crops = [
            encode_jpeg(cut_out(image, crop_box, CROP))
            for image, crop_box in zip(images(copy), crop_boxes, strict=False)
        ]
    finally:
        copy.unlink(missing_ok=True)
    return _result(model, "video", replace(sequence, notes=(*notes, *sequence.notes)), first, crops)


def _result(model: Model, kind: MediaKind, sequence: PoseSequence, image: Image, crops: list[bytes]) -> AnalysisResult:
    height, width = image.shape[:2]
    poses, uncertainty = sequence.poses, model.parts.uncertainty
    frames = []
    for i in range(len(poses)):
        sides = [width, height] * 2
        frame: dict[str, Any] = {
            "time": round(float(sequence.time[i]), 3),
            "found": bool(sequence.found[i]),
            "pose": rounded(poses.pose[i]),
            "crop_box": [round(float(v / side), 4) for v, side in zip(poses.crop_boxes[i], sides, strict=True)],
        }
        if poses.error is not None:
            frame["error"] = round(float(poses.error[i]), 1)
        if poses.orientation is not None:
            frame["heading"] = round(float(poses.orientation.heading[i]), 1)
            frame["sure"] = bool(poses.orientation.sure[i])
            frame["joints"] = rounded(poses.orientation.in_crop(poses.pose)[i], 4)
        frames.append(frame)
    about = {
        "kind": kind,
        "width": width,
        "height": height,
        "limit": None if uncertainty is None else round(uncertainty.limit, 3),
        "notes": [for_visitors(note) for note in sequence.notes],
        "frames": frames,
    }
    return AnalysisResult(about, poses.embedding, crops, encode_jpeg(scaled_down(image, SHOWN)))


def _in_pixels(box: BoundingBox | None, width: int, height: int) -> BoundingBox | None:
    if box is None:
        return None
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def rounded(values: Float[np.ndarray, "n k"], digits: int = 1) -> list[list[float]]:
    """Round numbers for the page.

    Raises:
        RejectedFileError: The numbers are not finite.
    """
    if not np.isfinite(values).all():
        raise RejectedFileError("the model cannot make sense of this image; choose another")
    lists: list[list[float]] = np.round(values.astype(float), digits).tolist()
    return lists


def for_visitors(message: str) -> str:
    """Rewrite a message of the command line for the page: without paths and options."""
    message = re.sub(r"(/|[A-Za-z]:\\)\S+?\.copy\.mp4", "the video", message)
    message = message.replace("; name a longer time", "; choose a longer video")
    box = r"; say where (?:they are|the person is) with --box \S+"
    message = re.sub(box, "; draw a box around the person", message)
    return re.sub(r"\. Choose another with --box", ". Draw a box around another one to choose them", message)
