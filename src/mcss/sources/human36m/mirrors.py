"""Unpacked copies of Human3.6M in two widely used layouts: images in folders instead of videos.

* h36m-fetch: ``processed/S1/Phoning-1/imageSequence/54138969/img_000001.jpg`` and ``processed/S1/Phoning-1/annot.h5``.
  Of the training subjects it has no regular steps but the images in which a joint has moved by 40 mm since the last
  one, and of S9 and S11 every 64th, unless its users changed that;
* the layout with JSON: ``images/s_01_act_02_subact_01_ca_01/…jpg`` and ``annotations/Human36M_subject1_data.json``,
  ``…_camera.json``, ``…_joint_3d.json``.

Both number sequences by action and sub-action; ``metadata.xml`` says which file of the release that is.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.formats.hdf5 import opened_hdf5
from mcss.data.schema import Frame
from mcss.errors import ImageError, SourceError, damage_as, reason
from mcss.images import read_image
from mcss.skeletons import HUMAN36M_32, ROOT
from mcss.sources.assembly import Note
from mcss.sources.distorted_camera import DistortedCamera
from mcss.sources.human36m.annotations import JOINTS_32, SILHOUETTE, Poses
from mcss.sources.human36m.faults import SHIFTED, boxes_shifted_back, shifted_back
from mcss.sources.human36m.metadata import ListedSequence, Metadata
from mcss.sources.human36m.sequences import RATE, Human36MSettings, squares_around
from mcss.sources.rows import SequenceInstants, SequenceView, check_height, multi_view_rows
from mcss.sources.scenes import Background, SceneSamples, backgrounds_of
from mcss.video.crops import Crop, crop_of, joint_boxes

FETCH_NAMES = {"WalkTogether": "WalkingTogether"}
"""Names of actions in h36m-fetch that differ from the data set's list."""


@dataclass(frozen=True, eq=False)
class ImageView:
    """The images of one camera, one for each instant of the sequence."""

    camera: DistortedCamera
    paths: tuple[Path | None, ...]
    """None where the annotation has no image of this camera."""
    boxes: Float64[np.ndarray, "n 4"]
    """x0, y0, x1, y1 in pixels; NaN where there is no image."""


@dataclass(frozen=True, eq=False)
class UnpackedSequence:
    """One sequence whose images lie in folders."""

    listed: ListedSequence
    frame_numbers: Int64[np.ndarray, " n"]
    """Numbers of the images within the video, from 0."""
    poses: Float64[np.ndarray, "n 17 3"]
    views: tuple[ImageView, ...]
    settings: Human36MSettings

    @property
    def subject(self) -> str:
        """Name of the subject."""
        return self.listed.subject

    @property
    def sequence(self) -> str:
        """Beginning of the names of the sequence's files in the release."""
        return self.listed.file

    @property
    def images(self) -> int:
        """Number of rows that the annotation promises."""
        return sum(path is not None for view in self.views for path in view.paths)

    def frames(self, note: Note) -> Iterator[Frame | Background]:
        """Yield the rows and the empty scenes.

        Raises:
            SourceError: An image is damaged, or more than `max_missing` of them are missing.
        """
        if self.settings.undo_s9_shift and (self.subject, self.sequence) in SHIFTED:
            note(f"{self.subject}/{self.sequence}: poses and boxes moved back by 200 mm in world X")
        missing: list[Path] = []
        scenes = {v.camera.name: SceneSamples(len(v.paths)) for v in self.views}
        views = [
            SequenceView(v.camera.name, self._crops(v, missing, scenes[v.camera.name]), v.camera.pinhole())
            for v in self.views
        ]
        actions = [self.listed.action] * len(self.frame_numbers)
        instants = SequenceInstants(self.frame_numbers, RATE, actions, self.poses)
        yield from multi_view_rows(self, instants, views, self.settings.quality)
        if missing:
            note(f"{missing[0]}: no such file; {len(missing)} images of the sequence are missing and left out")
        if self.settings.backgrounds:
            yield from backgrounds_of(scenes)

    def _crops(self, view: ImageView, missing: list[Path], scene: SceneSamples) -> Iterator[Crop | None]:
        """Yield the crops of a view; paths of missing images are added to `missing`."""
        for index, path in enumerate(view.paths):
            if path is None:
                yield None
                continue
            if not path.is_file():
                missing.append(path)
                if len(missing) > self.settings.max_missing:
                    raise SourceError(
                        f"{missing[0]}: no such file, nor are {len(missing) - 1} other images that the annotation of "
                        f"{self.subject}/{self.sequence} names; unpack the images again, or raise --max-missing"
                    )
                yield None
                continue
            try:
                image = read_image(path)
            except ImageError as error:
                raise SourceError(f"{error}; unpack it again") from error
            scene.see(index, image)
            crop_box = squares_around(view.boxes[index : index + 1], self.settings.margin)[0]
            yield crop_of(path, image, crop_box, self.settings.size)


def fetch_root(folder: Path) -> Path | None:
    """Return the folder of the subjects if `folder` is the output of h36m-fetch, else None."""
    return next((root for root in (folder / "processed", folder) if any(root.glob("S*/*-*/annot.h5"))), None)


def json_root(folder: Path) -> Path | None:
    """Return the folder if it has the layout with JSON, else None."""
    return folder if any(folder.glob("annotations/Human36M_subject*_data.json")) else None


def fetch_sequences(
    root: Path, subject: str, metadata: Metadata, settings: Human36MSettings
) -> Iterator[UnpackedSequence | SourceError]:
    """Yield the sequences of a subject in the output of h36m-fetch, and an error for each that cannot be used."""
    known = {listed.index: listed for listed in metadata.sequences if listed.subject == subject}
    numbers = {name: index for index, name in enumerate(metadata.actions, start=1)}
    for path in sorted((root / subject).glob("*-*/annot.h5")):
        action, _, sub = path.parent.name.rpartition("-")
        index = (numbers.get(FETCH_NAMES.get(action, action), 0), int(sub) if sub.isdecimal() else 0)
        if index not in known:
            yield SourceError(
                f"{path.parent}: expected a sequence of {subject} in metadata.xml, such as Phoning-1, got none"
            )
            continue
        try:
            yield _fetch_sequence(path, known[index], metadata.cameras[subject], settings)
        except SourceError as problem:
            yield problem


def _fetch_sequence(
    path: Path, listed: ListedSequence, cameras: tuple[DistortedCamera, ...], settings: Human36MSettings
) -> UnpackedSequence:
    way_out = "make it again with h36m-fetch, or import the release itself"
    with damage_as(
        SourceError,
        lambda why: (
            f"{path}: expected h36m-fetch's annot.h5 with camera, frame, pose/2d and pose/3d, got something "
            f"that cannot be read ({why}); {way_out}"
        ),
    ):
        with opened_hdf5(path) as file:
            table = {name: file.values(name) for name in ("camera", "frame", "pose/2d", "pose/3d")}
        rows = len(table["frame"])
        pixels = table["pose/2d"].astype(np.float64).reshape(rows, JOINTS_32, 2)
        in_camera = table["pose/3d"].astype(np.float64).reshape(rows, JOINTS_32, 3)
        camera_ids = table["camera"].astype(int).reshape(rows)
        frame_numbers = table["frame"].astype(int).reshape(rows) - 1
    check_height(str(path), in_camera[:, HUMAN36M_32])
    instants = _every(np.unique(frame_numbers), settings.step(listed.subject))
    poses = np.full((len(instants), JOINTS_32, 3), np.nan)
    views = []
    for camera in cameras:
        if settings.cameras and camera.name not in settings.cameras:
            continue
        of_camera = np.flatnonzero(camera_ids == int(camera.name))
        row_of_frame = dict(zip(frame_numbers[of_camera].tolist(), of_camera.tolist(), strict=True))
        row_of_instant = np.array([row_of_frame.get(number, -1) for number in instants.tolist()])
        known = row_of_instant >= 0
        world = (in_camera[row_of_instant] - camera.translation) @ camera.rotation  # Rᵀ (x − t)
        poses = np.where(np.isnan(poses) & known[:, None, None], world, poses)
        boxes = np.where(known[:, None], joint_boxes(pixels[row_of_instant], SILHOUETTE), np.nan)
        folder = path.parent / "imageSequence" / camera.name
        paths = [
            folder / f"img_{number + 1:06d}.jpg" if has_image else None
            for number, has_image in zip(instants.tolist(), known.tolist(), strict=True)
        ]
        views.append(ImageView(camera, tuple(paths), boxes))
    return _sequence(listed, instants, poses, views, settings)


def json_sequences(
    root: Path, subject: str, metadata: Metadata, settings: Human36MSettings
) -> Iterator[UnpackedSequence | SourceError]:
    """Yield the sequences of a subject in the layout with JSON, and an error for each that cannot be used."""
    stem = root / "annotations" / f"Human36M_subject{subject[1:]}"
    try:
        with damage_as(
            SourceError,
            lambda why: (
                f"{stem}_….json: expected images and annotations, cameras with R, t, f and c, and joints, got "
                f"something else ({why}); copy the three files again"
            ),
        ):
            data = _json(Path(f"{stem}_data.json"))
            cameras = _json(Path(f"{stem}_camera.json"))
            joints = _json(Path(f"{stem}_joint_3d.json"))
            images = _images_by_instant(Path(f"{stem}_data.json"), data)
            checked_cameras = {
                str(key): _json_camera(str(key), value, metadata.cameras[subject]) for key, value in cameras.items()
            }
    except SourceError as problem:
        yield problem
        return
    for listed in metadata.sequences:
        if listed.subject == subject and listed.index in images:
            try:
                yield _json_sequence(root, listed, images[listed.index], joints, checked_cameras, settings)
            except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
                yield SourceError(
                    f"{stem}_joint_3d.json: action {listed.index[0]}, sub-action {listed.index[1]}: "
                    + (str(error) if isinstance(error, SourceError) else f"no 17 joints for {error}; copy it again")
                )


def _json(path: Path) -> Any:
    if not path.is_file():
        raise SourceError(f"{path}: no such file; copy the annotations of this subject there")
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(
            f"{path}: expected JSON, got something else or half of it ({reason(error)}); copy it again"
        ) from error


InstantImages = dict[int, dict[str, tuple[str, Float64[np.ndarray, " 4"]]]]
"""File and box (x0, y0, x1, y1) of each image, by number of the instant and by camera."""


def _images_by_instant(path: Path, data: Any) -> dict[tuple[int, int], InstantImages]:
    """Group the images of a subject by (action, sub-action)."""
    boxes = {entry["image_id"]: entry["bbox"] for entry in data["annotations"]}
    sequences: dict[tuple[int, int], InstantImages] = {}
    for image in data["images"]:
        name = str(image["file_name"])
        parts = PurePosixPath(name).parts
        if not all(re.fullmatch(r"[\w-]+(\.\w+)?", part) for part in parts):
            raise SourceError(f"{path}: the name {name!r} leads out of the folder of images; copy the file again")
        if image["id"] in boxes:
            x, y, width, height = map(float, boxes[image["id"]])
            instants = sequences.setdefault((int(image["action_idx"]), int(image["subaction_idx"])), {})
            box = np.array([x, y, x + width, y + height])
            instants.setdefault(int(image["frame_idx"]), {})[str(image["cam_idx"])] = (name, box)
    return sequences


def _json_camera(key: str, entry: Mapping[str, Any], cameras: tuple[DistortedCamera, ...]) -> DistortedCamera:
    """Return the camera ``1`` … ``4`` of metadata.xml after checking that the file's R and t (x = R X + t) agree."""
    if key not in map(str, range(1, len(cameras) + 1)):
        raise SourceError(f"there is no camera {key[:20]!r}; expected 1 to {len(cameras)}")
    camera = cameras[int(key) - 1]
    rotation, translation = np.array(entry["R"], np.float64), np.array(entry["t"], np.float64).reshape(3)
    if np.abs(rotation - camera.rotation).max() > 0.01 or np.abs(translation - camera.translation).max() > 20:
        raise SourceError(
            f"camera {key} of the JSON is not camera {camera.name} of metadata.xml (R or t differ); use files of "
            "one release"
        )
    return camera


def _json_sequence(
    root: Path,
    listed: ListedSequence,
    images: InstantImages,
    joints: Any,
    cameras: Mapping[str, DistortedCamera],
    settings: Human36MSettings,
) -> UnpackedSequence:
    instants = _every(np.array(sorted(images), np.int64), settings.step(listed.subject))
    by_instant = joints[str(listed.index[0])][str(listed.index[1])]
    seventeen = np.stack([np.array(by_instant[str(n)], np.float64).reshape(17, 3) for n in instants.tolist()])
    check_height(f"{root / 'annotations'} ({listed.subject}, {listed.file})", seventeen)
    poses = np.full((len(instants), JOINTS_32, 3), np.nan)
    poses[:, HUMAN36M_32] = seventeen
    views = []
    for key, camera in sorted(cameras.items()):
        if settings.cameras and camera.name not in settings.cameras:
            continue
        of_camera = [images[number].get(key) for number in instants.tolist()]
        boxes = np.array([np.full(4, np.nan) if image is None else image[1] for image in of_camera])
        paths = tuple(None if image is None else root / "images" / image[0] for image in of_camera)
        views.append(ImageView(camera, paths, boxes))
    return _sequence(listed, instants, poses, views, settings)


def _every(frame_numbers: Int64[np.ndarray, " a"], step: int) -> Int64[np.ndarray, " b"]:
    """Return every `step`-th frame, or what comes nearest to it if the copy has been thinned out already."""
    stride = int(np.median(np.diff(frame_numbers))) if len(frame_numbers) > 1 else 1
    chosen: Int64[np.ndarray, " b"] = frame_numbers[:: max(1, round(step / max(stride, 1)))].astype(np.int64)
    return chosen


def _sequence(
    listed: ListedSequence,
    instants: Int64[np.ndarray, " n"],
    poses: Poses,
    views: list[ImageView],
    settings: Human36MSettings,
) -> UnpackedSequence:
    if settings.undo_s9_shift:
        roots = poses[:, HUMAN36M_32[ROOT]]
        key = (listed.subject, listed.file)
        views = [ImageView(v.camera, v.paths, boxes_shifted_back(*key, v.camera, v.boxes, roots)) for v in views]
        poses = shifted_back(*key, poses)
    return UnpackedSequence(listed, instants, poses[:, HUMAN36M_32], tuple(views), settings)
