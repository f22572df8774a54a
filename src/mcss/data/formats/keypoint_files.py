"""2D keypoints of one view, as COCO, MMPose, OpenPose and DeepLabCut write them, mapped to the 17 joints by name."""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.formats.deeplabcut import DeepLabCutTable, image_number, read_deeplabcut
from mcss.data.formats.joint_names import joint_positions, joints_of
from mcss.data.formats.keypoint_layouts import LAYOUTS, names_by_count
from mcss.errors import SourceError

SURE = 0.3
"""Keypoints of a smaller confidence are left out."""

ENDINGS = (".json", ".csv", ".h5")
"""Endings of files of keypoints; OpenPose writes a folder of JSON files."""


@dataclass(frozen=True, eq=False)
class ViewKeypoints:
    """The keypoints of one person in the images of a view."""

    path: Path
    names: tuple[str, ...]
    frames: Int64[np.ndarray, " n"]
    """Numbers of the images, as in the file; they count from 0."""
    points: Float64[np.ndarray, "n names 2"]
    """Pixels of the upright image; NaN where a keypoint is not sure."""

    def joints(self) -> Float64[np.ndarray, "n 17 2"]:
        """Return the 17 joints in pixels; NaN for those that are not known.

        Raises:
            SourceError: The file has no keypoint for a joint.
        """
        flat = np.concatenate([self.points, np.zeros((*self.points.shape[:2], 1))], axis=2)
        return joint_positions(flat, joints_of(self.path, self.names))[..., :2]

    def boxes(self, border: float = 0.1) -> Float64[np.ndarray, "n 4"]:
        """Return the boxes around all sure keypoints, larger by a share of their size; NaN with fewer than four."""
        boxes = np.full((len(self.points), 4), np.nan)
        for i, points in enumerate(self.points):
            sure = points[np.isfinite(points).all(axis=1)]
            if len(sure) >= 4:
                low, high = sure.min(axis=0), sure.max(axis=0)
                room = border * (high - low).max()
                boxes[i] = *(low - room), *(high + room)
        return boxes


def keypoint_file(folder: Path, subject: str, sequence: str, view: str) -> Path | None:
    """Return the keypoints of a view in a folder: ``subject/sequence/view``, or ``view`` for a single recording."""
    for place in (folder / subject / sequence, folder / sequence, folder):
        beside = sorted(place.iterdir()) if place.is_dir() else []
        named = [path for path in beside if _is_named(path, view)]
        folders = [path for path in named if path.is_dir()]
        files = [path for ending in ENDINGS for path in named if path.suffix.lower() == ending and path.is_file()]
        if folders or files:
            return (folders + files)[0]
    return None


def _is_named(path: Path, view: str) -> bool:
    """Whether a folder, or a file without its ending, has the name of a view, however the file system spells it."""
    name = path.name if path.is_dir() else path.stem
    return unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", view)


def read_keypoints(path: Path) -> ViewKeypoints:
    """Read the keypoints of a view; of several people in an image, those of the person with the largest extent.

    Args:
        path: A folder of OpenPose's JSON files, a JSON of COCO or MMPose, or a CSV or HDF5 file of DeepLabCut.

    Raises:
        SourceError: The file is none of these.
    """
    if path.suffix.lower() in (".csv", ".h5"):
        return _of_deeplabcut(read_deeplabcut(path))
    names: tuple[str, ...] | None = None
    people: dict[int, list[Float64[np.ndarray, "k 3"]]] = {}
    try:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        for file in files:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
            names = _stated_names(content) or names
            for frame, points in _people(content, file):
                people.setdefault(frame, []).append(points)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise SourceError(
            f"{path}: expected keypoints of OpenPose, COCO or MMPose, got something else ({error})"
        ) from error
    if not people:
        raise SourceError(f"{path}: there are no keypoints in it")
    count = len(next(iter(people.values()))[0])
    names = names if names is not None and len(names) == count else names_by_count(count)
    if names is None:
        raise SourceError(f"{path}: {count} keypoints without names; the numbers that are understood are {LAYOUTS}")
    frames = np.array(sorted(people), np.int64)
    largest = [max(people[frame], key=_extent)[: len(names)] for frame in frames.tolist()]
    return ViewKeypoints(path, names, frames, _sure(np.stack(largest)))


def _stated_names(content: Any) -> tuple[str, ...] | None:
    """Return the names of the keypoints that COCO's categories or MMPose's meta information state."""
    if isinstance(content, dict) and content.get("categories"):
        return tuple(map(str, content["categories"][0]["keypoints"]))
    ids = content.get("meta_info", {}).get("keypoint_id2name") if isinstance(content, dict) else None
    return tuple(str(ids[key]) for key in sorted(ids, key=int)) if ids else None


def _people(content: Any, file: Path) -> Iterator[tuple[int, Float64[np.ndarray, "k 3"]]]:
    """Yield the number of the image and the keypoints (x, y, confidence) of every person in a JSON file."""
    if isinstance(content, dict) and "people" in content:
        for person in content["people"]:
            points = person.get("pose_keypoints_2d", person.get("pose_keypoints"))  # the older name
            yield image_number(file.stem), np.array(points, np.float64).reshape(-1, 3)
    elif (images_of_mmpose := _images_of_mmpose(content, file)) is not None:
        for frame, instances in images_of_mmpose:
            for person in instances:
                at = np.array(person["keypoints"], np.float64)[:, :2]
                scores = np.array(person.get("keypoint_scores", np.ones(len(at))), np.float64)
                yield frame, np.concatenate([at, scores[:, None]], axis=1)
    else:
        images: Mapping[Any, str] = {}
        if isinstance(content, dict):
            images = {image["id"]: str(image.get("file_name", image["id"])) for image in content.get("images", ())}
        for person in content["annotations"] if isinstance(content, dict) else content:
            name = images.get(person["image_id"], str(person["image_id"]))
            yield image_number(Path(name).stem), np.array(person["keypoints"], np.float64).reshape(-1, 3)


def _images_of_mmpose(content: Any, file: Path) -> list[tuple[int, list[Any]]] | None:
    """Return the number of each image and the people in it, as MMPose's scripts and its inferencer write them.

    Both write a list of images, under ``instance_info`` or by itself; of a single image the inferencer writes its
    people alone, in a file named after it. None for files of others.
    """
    images = content.get("instance_info") if isinstance(content, dict) else content
    if not isinstance(images, list) or not images:
        return None
    if all(isinstance(image, dict) and "instances" in image for image in images):
        return [(int(image["frame_id"]), image["instances"]) for image in images]
    if all(isinstance(person, dict) and "keypoint_scores" in person for person in images):
        return [(image_number(file.stem), images)]
    return None


def _of_deeplabcut(table: DeepLabCutTable) -> ViewKeypoints:
    people = [table.of(individual, ("x", "y", "likelihood")) for individual in table.individuals]
    extents = np.array([[_extent(points) for points in person] for person in people])
    largest = extents.argmax(axis=0)
    points = np.stack(people)[largest, np.arange(len(largest))]
    return ViewKeypoints(table.path, table.parts, table.frames, _sure(points))


def _sure(points: Float64[np.ndarray, "n k 3"]) -> Float64[np.ndarray, "n k 2"]:
    """Return the places of keypoints; NaN where the confidence is small, or the place is exactly (0, 0)."""
    lost = ~(np.nan_to_num(points[..., 2], nan=1.0) >= SURE) | (points[..., :2] == 0).all(axis=-1)
    return np.where(lost[..., None], np.nan, points[..., :2])


def _extent(points: Float64[np.ndarray, "k 3"]) -> float:
    sure = points[points[:, 2] >= SURE, :2]
    return float(np.ptp(sure, axis=0).max()) if len(sure) else 0.0
