"""2D keypoints of one view, as COCO, MMPose, OpenPose and DeepLabCut write them, mapped to the 17 joints by name."""

import json
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.formats.deeplabcut import DeepLabCutTable, read_deeplabcut
from mcss.data.formats.joint_names import joint_positions, joints_of
from mcss.data.formats.keypoint_layouts import LAYOUTS, likeliest_names
from mcss.data.image_names import numbers_of_images
from mcss.errors import SourceError, damage_as

SURE = 0.3
"""Keypoints of a smaller confidence are left out."""

FEWEST = 4
"""Sure keypoints that a person needs to be taken for one."""

SMALLEST = 4.0
"""People of fewer pixels are not in pixels at all."""

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
    size: tuple[float, float] | None = None
    """Width and height of the images that they were found in, if the file states them."""

    @property
    def begins_with_one(self) -> str | None:
        """A note on images of a video that may count from 1, None if they do not."""
        if len(self.frames) < 2 or self.frames.min() != 1:
            return None
        return (
            f"{self.path}: its images begin with 1, and are taken as numbers that count from 0, so that the first "
            "image has no keypoints; if they count from 1, as those that ffmpeg writes, subtract 1 from them"
        )

    def joints(self) -> Float64[np.ndarray, "n 17 2"]:
        """Return the 17 joints in pixels; NaN for those that are not known.

        Raises:
            SourceError: The file has no keypoint for a joint.
        """
        flat = np.concatenate([self.points, np.zeros((*self.points.shape[:2], 1))], axis=2)
        return joint_positions(flat, joints_of(self.path, self.names))[..., :2]

    def boxes(self, border: float = 0.1) -> Float64[np.ndarray, "n 4"]:
        """Return the boxes around all sure keypoints, larger by a share of their size; NaN with too few of them."""
        boxes = np.full((len(self.points), 4), np.nan)
        for i, points in enumerate(self.points):
            sure = points[np.isfinite(points).all(axis=1)]
            if len(sure) >= FEWEST:
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
        path: A folder of OpenPose's JSON files, a JSON of COCO, AlphaPose or MMPose, or a CSV or HDF5 file of
            DeepLabCut.

    Raises:
        SourceError: The file is none of these, or its keypoints are not in pixels.
    """
    tabular = path.suffix.lower() in (".csv", ".h5")
    keypoints = _of_deeplabcut(read_deeplabcut(path)) if tabular else _of_json(path)
    extents = _prominence(keypoints.points)
    extents = extents[extents >= 0]
    if len(extents) and (extent := float(np.median(extents))) < SMALLEST:
        raise SourceError(
            f"{path}: expected pixels of the upright image, got people of {extent:.2g} pixels; if these are shares of "
            "the image (0 to 1), multiply x by its width and y by its height in pixels"
        )
    return keypoints


def _of_json(path: Path) -> ViewKeypoints:
    stated: tuple[str, ...] | None = None
    people: list[_Person] = []
    images: dict[str, _Size] = {}
    with damage_as(
        SourceError,
        lambda why: (
            f"{path}: expected keypoints of OpenPose, AlphaPose, COCO or MMPose, got something else ({why}); export "
            "them in one of these formats"
        ),
    ):
        for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
            content = json.loads(file.read_text(encoding="utf-8-sig"))
            stated = _stated_names(content) or stated
            listed = _images(content)
            people += [person for person in _people(content, file, listed) if len(person.points)]
            images |= dict(listed.values()) or ({file.name: None} if path.is_dir() else {})
        numbers = numbers_of_images([person.image for person in people], list(images))
        frames = np.array(sorted(set(numbers)), np.int64)
    if not people:
        raise SourceError(f"{path}: there are no keypoints in it")
    counts = sorted({len(person.points) for person in people})
    if len(counts) > 1:
        raise SourceError(
            f"{path}: expected people with the same keypoints, got some with {counts[0]} and some with {counts[-1]}; "
            "give those of one kind"
        )
    largest: dict[int, Float64[np.ndarray, "k 2"]] = {}
    for number, person in zip(numbers, people, strict=True):
        if number not in largest or _prominence(person.points) > _prominence(largest[number]):
            largest[number] = person.points
    points = np.stack([largest[frame] for frame in frames.tolist()])
    names = stated if stated is not None and len(stated) == counts[0] else likeliest_names(points)
    if names is None:
        raise SourceError(f"{path}: {counts[0]} keypoints without names; the numbers that are understood are {LAYOUTS}")
    sizes = {images.get(person.image) for person in people}
    return ViewKeypoints(path, names, frames, points[:, : len(names)], sizes.pop() if len(sizes) == 1 else None)


_Size = tuple[float, float] | None
"""Width and height of an image, if they are stated."""


@dataclass(frozen=True, eq=False)
class _Person:
    """One person in one image."""

    image: str
    """The image's name, or its number."""
    points: Float64[np.ndarray, "k 2"]
    """NaN where a keypoint is not sure."""


def _stated_names(content: Any) -> tuple[str, ...] | None:
    """Return the names of the keypoints that COCO's categories or MMPose's meta information state."""
    if not isinstance(content, dict):
        return None
    if (category := _category(content)) is not None:
        return tuple(map(str, category["keypoints"]))
    ids = content.get("meta_info", {}).get("keypoint_id2name")
    return tuple(str(ids[key]) for key in sorted(ids, key=int)) if ids else None


def _categories(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the categories in a file of COCO that have keypoints."""
    return [category for category in content.get("categories", ()) if category.get("keypoints")]


def _category(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the category of people in a file of COCO: other ones may be of animals."""
    categories = _categories(content)
    people = [category for category in categories if str(category.get("name", "")).lower() == "person"]
    return next(iter([*people, *categories]), None)


def _images(content: Any) -> dict[Any, tuple[str, _Size]]:
    """Return the name and the size of each image in a file of COCO, by its id.

    Roboflow renames images, and states their names of before.
    """
    images = {}
    for image in content.get("images", ()) if isinstance(content, dict) else ():
        extra = image.get("extra")
        before = extra.get("name") if isinstance(extra, dict) else None
        width, height = image.get("width"), image.get("height")
        size = (float(width), float(height)) if width and height else None
        images[image["id"]] = str(before or image.get("file_name", image["id"])), size
    return images


def _people(content: Any, file: Path, images: Mapping[Any, tuple[str, _Size]]) -> Iterator[_Person]:
    """Yield every person in a JSON file, whose `_images` are given."""
    if _is_of_an_image(content):
        yield from _people_of_openpose(content, file.name)
    elif (images_of_mmpose := _images_of_mmpose(content, file)) is not None:
        for image, instances in images_of_mmpose:
            for person in instances:
                at = np.array(person["keypoints"], np.float64)[:, :2]
                scores = np.array(person.get("keypoint_scores", np.ones(len(at))), np.float64)
                yield _Person(image, _sure(np.concatenate([at, scores[:, None]], axis=1)))
    elif isinstance(content, dict) and content and all(_is_of_an_image(value) for value in content.values()):
        for image, found in content.items():  # AlphaPose's formats cmu and open
            yield from _people_of_openpose(found, image)
    elif isinstance(content, list) or (isinstance(content, dict) and "annotations" in content):
        yield from _people_of_coco(content, images)
    else:
        raise ValueError("it has no people, no annotations and no instances")


def _is_of_an_image(content: Any) -> bool:
    """Whether this is what OpenPose, or AlphaPose after it, writes of an image."""
    return isinstance(content, dict) and ("people" in content or "bodies" in content)


def _people_of_openpose(content: Mapping[str, Any], image: str) -> Iterator[_Person]:
    for person in content["people"] if "people" in content else content["bodies"]:
        # The second is the older name, the third that of AlphaPose's format cmu.
        points = next((person[key] for key in ("pose_keypoints_2d", "pose_keypoints", "joints") if key in person), ())
        yield _Person(image, _sure(np.array(points, np.float64).reshape(-1, 3)))


def _people_of_coco(content: Any, images: Mapping[Any, tuple[str, _Size]]) -> Iterator[_Person]:
    """Yield every person of annotations or results; annotations without keypoints, and of animals, are left out."""
    stated = content if isinstance(content, dict) else {}
    own = _category(stated)
    others = {category["id"] for category in _categories(stated) if own and category["keypoints"] != own["keypoints"]}
    for person in content["annotations"] if stated else content:
        if person.get("keypoints") and person.get("category_id") not in others:
            image, _ = images.get(person["image_id"], (str(person["image_id"]), None))
            yield _Person(image, _sure(np.array(person["keypoints"], np.float64).reshape(-1, 3)))


def _images_of_mmpose(content: Any, file: Path) -> list[tuple[str, list[Any]]] | None:
    """Return the number of each image and the people in it, as MMPose's scripts and its inferencer write them.

    Both write a list of images, under ``instance_info`` or by itself; of a single image the inferencer writes its
    people alone, in a file named after it. None for files of others.
    """
    images = content.get("instance_info") if isinstance(content, dict) else content
    if not isinstance(images, list) or not images:
        return None
    if all(isinstance(image, dict) and "instances" in image for image in images):
        return [(str(int(image["frame_id"])), image["instances"]) for image in images]
    if all(isinstance(person, dict) and "keypoint_scores" in person for person in images):
        return [(file.name, images)]
    return None


def _of_deeplabcut(table: DeepLabCutTable) -> ViewKeypoints:
    """Return the person of each image; parts that belong to nobody (``single``), such as a room's corners, are none."""
    individuals = [who for who in table.individuals if who != "single"] or table.individuals
    people = np.stack([_sure(table.of(individual, ("x", "y", "likelihood"))) for individual in individuals])
    largest = _prominence(people).argmax(axis=0)
    return ViewKeypoints(table.path, table.parts, table.frames, people[largest, np.arange(len(largest))])


def _sure(points: Float64[np.ndarray, "*n k 3"]) -> Float64[np.ndarray, "*n k 2"]:
    """Return the places of keypoints; NaN where the confidence is small, or the place is exactly (0, 0)."""
    lost = ~(np.nan_to_num(points[..., 2], nan=1.0) >= SURE) | (points[..., :2] == 0).all(axis=-1)
    lost |= ~np.isfinite(points[..., :2]).all(axis=-1)
    return np.where(lost[..., None], np.nan, points[..., :2])


def _prominence(points: Float64[np.ndarray, "*n k 2"]) -> Float64[np.ndarray, "*n"]:
    """Return the extent of people in pixels; less than 0 for those with too few sure keypoints."""
    known = np.isfinite(points).all(axis=-1)
    low = np.where(known[..., None], points, np.inf).min(axis=-2)
    high = np.where(known[..., None], points, -np.inf).max(axis=-2)
    count = known.sum(axis=-1)
    return np.asarray(np.where(count >= FEWEST, (high - low).max(axis=-1), count - float(FEWEST)), np.float64)
