"""From a file that was sent to what the page shows of it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from mcss.errors import ImageError, SourceError
from mcss.images import Image, cut_out, encode_jpeg
from mcss.inference.locate import Rectangle, in_image
from mcss.inference.pose_sequence import smooth
from mcss.inference.predict import Input, take_of_video
from mcss.inference.smoothing import SmoothingSettings
from mcss.models.model import Model, Poses
from mcss.search.clips import Clip
from mcss.video.decoding import images
from mcss.video.detectors import PersonFinder
from mcss.web.limits import Limits
from mcss.web.uploads import UploadError, copy_video, read_upload, scaled_down

CROP = 224
"""Side in pixels of the crops that the page shows."""

SHOWN = 960
"""Most pixels of an image that the page shows."""


class Refused(ValueError):
    """Why a file cannot be used, for whoever sent it."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What was found in a file."""

    about: dict[str, Any]
    """For the page."""
    embedding: Float32[np.ndarray, "n dim"]
    crops: list[bytes]
    """JPEG of what the model saw, one for each pose."""
    image: bytes
    """JPEG of the image, or of the first one of the video."""


def answer(
    model: Model,
    path: Path,
    kind: str,
    box: Rectangle | None,
    limits: Limits,
    finder: PersonFinder | None = None,
) -> Answer:
    """The poses of the person in an image or video.

    Args:
        model: Predicts.
        path: The file.
        kind: ``image`` or ``video``.
        box: Of the person: x, y, width, height in shares of the image's width and height.
        limits: What is refused.
        finder: Finds the person where no box says where; else images are taken whole, and in videos whoever moves.

    Raises:
        Refused: It cannot be used, whatever is wrong with it.
    """
    try:
        of = _of_image if kind == "image" else _of_video
        return of(model, path, box, limits, finder)
    except (UploadError, ImageError, SourceError) as error:
        raise Refused(for_visitors(str(error))) from error
    except MemoryError as error:
        raise Refused("this file needs more memory than is allowed; make it smaller") from error
    except Exception as error:  # whatever strange files do to decoders must not stop the others' work
        raise Refused("this file cannot be read; it is damaged or of an unusual kind: save it anew") from error


def clip_of(answer: Answer, name: str) -> Clip:
    """A video as a clip, for comparing; its images are not at hand."""
    frames = answer.about["frames"]
    poses = Poses(
        pose=np.array([frame["pose"] for frame in frames], np.float32),
        embedding=answer.embedding,
        error=None,
        orientation=None,
        crop_boxes=np.full((len(frames), 4), np.nan, np.float32),
    )
    time = np.array([frame["time"] for frame in frames], np.float64)
    return Clip(name, time, np.arange(len(frames), dtype=np.int64), poses, lambda frames, size: [])


def _of_image(model: Model, path: Path, box: Rectangle | None, limits: Limits, finder: PersonFinder | None) -> Answer:
    image = read_upload(path, limits)
    height, width = image.shape[:2]
    sighting = in_image(image, "the image", _in_pixels(box, width, height), finder)
    poses = model.predict_crops([cut_out(image, sighting.crop_boxes[0], model.image_size)], sighting.crop_boxes)
    return _answer(
        model,
        "image",
        poses,
        time=np.zeros(1),
        found=sighting.found,
        notes=sighting.notes,
        image=image,
        crops=[encode_jpeg(cut_out(image, sighting.crop_boxes[0], CROP))],
    )


def _of_video(model: Model, path: Path, box: Rectangle | None, limits: Limits, finder: PersonFinder | None) -> Answer:
    copy = path.with_name(f"{path.name}.copy.mp4")
    try:
        copy_video(path, copy, limits)
        first = next(images(copy))
        rectangle = _in_pixels(box, first.shape[1], first.shape[0])
        take = smooth(take_of_video(model, Input(copy, "the video"), rectangle, finder), SmoothingSettings())
        squares = np.rint(take.poses.crop_boxes).astype(np.int64)
        crops = [encode_jpeg(cut_out(p, s, CROP)) for p, s in zip(images(copy), squares, strict=False)]
    finally:
        copy.unlink(missing_ok=True)
    return _answer(model, "video", take.poses, take.time, take.found, take.notes, first, crops)


def _answer(
    model: Model,
    kind: str,
    poses: Poses,
    time: Float64[np.ndarray, " n"],
    found: Bool[np.ndarray, " n"],
    notes: tuple[str, ...],
    image: Image,
    crops: list[bytes],
) -> Answer:
    height, width = image.shape[:2]
    reference = model.parts.uncertainty
    frames = []
    for i in range(len(poses)):
        frame: dict[str, Any] = {
            "time": round(float(time[i]), 3),
            "found": bool(found[i]),
            "pose": rounded(poses.pose[i]),
            "square": [
                round(float(v / side), 4) for v, side in zip(poses.crop_boxes[i], [width, height] * 2, strict=True)
            ],
        }
        if poses.error is not None:
            frame["error"] = round(float(poses.error[i]), 1)
        if (placed := poses.orientation) is not None:
            frame["heading"] = round(float(placed.heading[i]), 1)
            frame["joints"] = rounded(placed.in_crop(poses.pose)[i], 4)
        frames.append(frame)
    about = {
        "kind": kind,
        "width": width,
        "height": height,
        "limit": None if reference is None else round(reference.limit, 3),
        "notes": [for_visitors(note) for note in notes],
        "frames": frames,
    }
    return Answer(about, poses.embedding, crops, encode_jpeg(scaled_down(image, SHOWN)))


def _in_pixels(box: Rectangle | None, width: int, height: int) -> Rectangle | None:
    if box is None:
        return None
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


def rounded(values: Float[np.ndarray, "n k"], digits: int = 1) -> list[list[float]]:
    """Numbers for the page.

    Raises:
        Refused: They are not finite.
    """
    if not np.isfinite(values).all():
        raise Refused("the model makes nothing of this image; choose another")
    found: list[list[float]] = np.round(values.astype(float), digits).tolist()
    return found


def for_visitors(message: str) -> str:
    """A message of the command line in the words of the page, without paths."""
    message = re.sub(r"(/|[A-Za-z]:\\)\S+?\.copy\.mp4", "the video", message)
    message = message.replace("; name a longer time", "; choose a longer video")
    message = re.sub(r"; say where one is with --box \S+", "; draw a box around the person", message)
    message = re.sub(r"; --box \S+ does", "; draw a box around the person if there is room about them", message)
    return re.sub(r"\. Choose(?: another)? with --box", ". Draw a box around the one you mean", message)
