"""A sequence of Human3.6M as released, and the settings of the import."""

from abc import ABC
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.schema import Frame
from mcss.errors import SourceError
from mcss.skeletons import HUMAN36M_32, ROOT
from mcss.sources.assembly import Note
from mcss.sources.distorted_camera import DistortedCamera
from mcss.sources.human36m.annotations import SILHOUETTE, Poses, mask_boxes, read_poses, read_videopose3d
from mcss.sources.human36m.faults import (
    CORRUPT,
    SHIFTED,
    annotated_length,
    boxes_shifted_back,
    shifted_back,
    without_corrupt_videos,
)
from mcss.sources.human36m.metadata import ListedSequence
from mcss.sources.rows import SequenceInstants, SequenceView, check_complete, multi_view_rows
from mcss.sources.scenes import Background, SceneSamples, backgrounds_of
from mcss.sources.source import Dataset
from mcss.video.boxes import interpolated_boxes
from mcss.video.crops import Crop, crop_of, joint_boxes
from mcss.video.reading.decoding import decoded_count, images, stated_count

RATE = 50.0
"""Images per second of every camera."""

TRAIN = ("S1", "S5", "S6", "S7", "S8")
TEST = ("S9", "S11")
"""The subjects whose poses are public, in the usual split."""


@dataclass(frozen=True)
class Human36MSettings(Dataset, ABC):
    """Which images of Human3.6M are imported, how people are cropped, and which known faults are corrected."""

    size: int = 256
    """Width and height of the crops in pixels; the recipe paper makes its 224 of them."""
    every: int = 5
    """Take every n-th image of the training subjects."""
    test_every: int = 64
    """Take every n-th image of the test subjects."""
    subjects: tuple[str, ...] = ()
    """Import only these subjects: S1 S5 S6 S7 S8 (train), S9 S11 (test); by default all."""
    cameras: tuple[str, ...] = ()
    """Import only these cameras, such as 54138969; by default all four."""
    validation: tuple[str, ...] = ()
    """Hold these training subjects, such as S8, or sequences, such as "S8/Walking*", out for the split validation, on
    which `mcss reproduce` chooses settings and learning curves are drawn. The paper has none."""
    backgrounds: bool = True
    """Also keep the empty scene of each camera and sequence, the median of images spread over it, which the method
    rhodin_eccv18 needs."""
    boxes: Literal["masks", "joints"] = "masks"
    """Where the person is: in the data set's ground-truth boxes, or where each camera sees the joints."""
    margin: float = 1.0
    """Side of the crop box divided by the longer side of the person's bounding box."""
    metadata: Path | None = None
    """The file metadata.xml; by default the one in the folder."""
    poses: Path | None = None
    """VideoPose3D's data_3d_h36m.npz, to be used instead of the D3_Positions files."""
    leave_out_corrupt_videos: bool = True
    """Import S11 Directions without camera 54138969, whose video is corrupt."""
    undo_s9_shift: bool = True
    """Move the poses and boxes of S9 Greeting, SittingDown 1 and Waiting 1 back by 200 mm."""
    clip_to_annotation: bool = True
    """Leave out the end of videos that go on after their annotation; otherwise such a sequence is an error."""
    leave_out_damaged_views: bool = True
    """Import a sequence without the cameras whose video or boxes are missing or damaged; otherwise it is an error."""
    max_missing: int = 5
    """Number of images or boxes that may be missing at the end of a sequence, which is then clipped; more is an
    error."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.test_every < 1:
            raise ValueError(f"expected test_every ≥ 1, got {self.test_every}")
        unknown = [name for name in self.subjects if name not in TRAIN + TEST]
        if unknown:
            raise ValueError(f"subjects: expected some of {', '.join(TRAIN + TEST)}, got {', '.join(unknown)}")

    def content_settings(self, *without: str) -> dict[str, Any]:
        """Return the settings that decide what a capture contains; see `Dataset.content_settings`.

        What is held out for validation is among the splits already.
        """
        return super().content_settings("validation", "backgrounds", "leave_out_damaged_views", *without)

    def step(self, subject: str) -> int:
        """Return n if every n-th image of a subject is taken."""
        return self.test_every if subject in TEST else self.every


@dataclass(frozen=True, eq=False)
class Human36MSequence:
    """One sequence in the files of the release."""

    listed: ListedSequence
    folder: Path
    """The subject's folder, which has the folders Videos, MyPoseFeatures and MySegmentsMat."""
    all_cameras: tuple[DistortedCamera, ...]
    """The cameras that the settings ask for."""
    length: int
    """Number of annotated poses."""
    settings: Human36MSettings

    @property
    def subject(self) -> str:
        """Name of the subject."""
        return self.listed.subject

    @property
    def sequence(self) -> str:
        """Beginning of the names of the files."""
        return self.listed.file

    @property
    def cameras(self) -> tuple[DistortedCamera, ...]:
        """The cameras that are imported."""
        if not self.settings.leave_out_corrupt_videos:
            return self.all_cameras
        return without_corrupt_videos(self.subject, self.sequence, self.all_cameras)

    @property
    def images(self) -> int:
        """Number of rows that the annotation promises."""
        return len(self.frame_numbers) * len(self.cameras)

    @property
    def frame_numbers(self) -> range:
        """Numbers of the images that are taken."""
        return range(0, self.length, self.settings.step(self.subject))

    def frames(self, note: Note) -> Iterator[Frame | Background]:
        """Yield the rows and the empty scenes; the videos of all cameras are decoded side by side, one image at a time.

        Raises:
            SourceError: A file is missing, damaged, or does not fit the others.
        """
        name = f"{self.subject}/{self.sequence}"
        if len(self.cameras) < len(self.all_cameras):
            corrupt = ", ".join(camera for subject, file, camera in CORRUPT if (subject, file) == self._key)
            note(f"{name}: imported without camera {corrupt}, whose video is corrupt")
        annotated = annotated_poses(self.folder, self.listed, self.settings)
        poses = annotated
        if self.settings.undo_s9_shift:
            poses = shifted_back(self.subject, self.sequence, annotated)
            if self._key in SHIFTED:
                note(f"{name}: poses and boxes moved back by 200 mm in world X")
        lost = _LostViews(name, self.settings.leave_out_damaged_views, note)
        crop_boxes: dict[DistortedCamera, Int64[np.ndarray, "n 4"]] = {}
        for camera in self.cameras:
            with lost.one_view(camera.name):
                self._check_video_length(camera, note)
                crop_boxes[camera] = self._crop_boxes(camera, poses, annotated, note)
        lost.check_some_left(len(self.cameras))
        labels = poses[:, HUMAN36M_32]
        unlabelled = int((~np.isfinite(labels).all(axis=(1, 2))).sum())
        if unlabelled:
            note(f"{name}: {unlabelled} of its {len(poses)} poses are not finite; their images have no label")
        numbers = np.arange(len(poses))[self.frame_numbers][: min(map(len, crop_boxes.values()))]
        scenes = {camera.name: SceneSamples(len(numbers)) for camera in crop_boxes if self.settings.backgrounds}
        views = [
            SequenceView(
                camera.name,
                self._crops(camera, boxes[: len(numbers)], scenes.get(camera.name), lost, note),
                camera.pinhole(),
            )
            for camera, boxes in crop_boxes.items()
        ]
        instants = SequenceInstants(numbers, RATE, [self.listed.action] * len(numbers), labels[numbers])
        yield from multi_view_rows(self, instants, views, self.settings.quality, end_together=True)
        lost.check_some_left(len(self.cameras))
        yield from backgrounds_of(scenes)

    @property
    def _key(self) -> tuple[str, str]:
        return self.subject, self.sequence

    def _video(self, camera: DistortedCamera) -> Path:
        return self.folder / "Videos" / f"{self.sequence}.{camera.name}.mp4"

    def _check_video_length(self, camera: DistortedCamera, note: Note) -> None:
        """Compare the number of images that the header of a video states with the number of poses."""
        video = self._video(camera)
        stated = stated_count(video)
        if stated:
            check_complete(video, stated, self.length, "images", self.settings.max_missing, note)
        if stated - self.length <= self.settings.max_missing:
            return
        if not self.settings.clip_to_annotation:
            raise SourceError(
                f"{video}: expected {self.length} images, as many as there are poses, got {stated}; "
                "without --no-clip-to-annotation the images that have poses are used"
            )
        note(f"{video}: clipped from {stated} images to the {annotated_length(self.length, stated)} that have poses")

    def _check_video_end(self, camera: DistortedCamera, note: Note) -> None:
        """Accept a video that lacks a few images at its end."""
        video = self._video(camera)
        check_complete(video, decoded_count(video), self.length, "whole images", self.settings.max_missing, note)

    def _crop_boxes(
        self, camera: DistortedCamera, poses: Poses, annotated: Poses, note: Note
    ) -> Int64[np.ndarray, "n 4"]:
        """Return the crop box in each image taken, in whole pixels; fewer if the boxes end before the poses."""
        if self.settings.boxes == "joints":
            boxes = joint_boxes(camera.pixels(poses[self.frame_numbers]), SILHOUETTE)
            path, mask_size = self._video(camera), None
        else:
            path = self.folder / "MySegmentsMat" / "ground_truth_bb" / f"{self.sequence}.{camera.name}.mat"
            boxes, count, mask_size = mask_boxes(path, self.frame_numbers)
            check_complete(path, count, self.length, "boxes", self.settings.max_missing, note)
            if self.settings.undo_s9_shift:
                roots = annotated[self.frame_numbers][: len(boxes), HUMAN36M_32[ROOT]]
                boxes = boxes_shifted_back(self.subject, self.sequence, camera, boxes, roots)
        empty = int((~np.isfinite(boxes).all(axis=1)).sum())
        if empty == len(boxes):
            raise SourceError(f"{path}: it has no box of the person; take boxes from the other source (--boxes)")
        if empty:
            note(f"{path}: {empty} of {len(boxes)} boxes are empty; interpolated between their neighbours")
        self._check_image_size(camera, mask_size)
        return squares_around(interpolated_boxes(boxes), self.settings.margin)

    def _check_image_size(self, camera: DistortedCamera, mask_size: tuple[int, int] | None) -> None:
        """Check that the images are as large as the masks, and as the camera's principal point suggests."""
        image = next(images(self._video(camera)), None)
        if image is None:
            raise SourceError(f"{self._video(camera)}: no image can be decoded; unpack the file again")
        height, width = image.shape[:2]
        centre = camera.intrinsics[:2, 2]
        is_centred = np.abs(centre / (width, height) - 0.5).max() < 0.1
        if (mask_size is not None and mask_size != (height, width)) or not is_centred:
            expected_height, expected_width = mask_size or (round(2 * centre[1]), round(2 * centre[0]))
            raise SourceError(
                f"{self._video(camera)}: expected images of about {expected_width}×{expected_height} pixels, which its "
                f"boxes and camera are made for, got {width}×{height}; use the videos as released, not scaled or "
                "cropped ones"
            )

    def _crops(
        self,
        camera: DistortedCamera,
        crop_boxes: Int64[np.ndarray, "n 4"],
        scene: SceneSamples | None,
        lost: "_LostViews",
        note: Note,
    ) -> Iterator[Crop | None]:
        """Yield the crops of a view; a view that is damaged from some image on has none from there on."""
        video, done = self._video(camera), 0
        with lost.one_view(camera.name):
            for image, crop_box in zip(images(video, every=self.frame_numbers.step), crop_boxes, strict=False):
                if scene is not None:
                    scene.see(done, image)
                yield crop_of(video, image, crop_box, self.settings.size)
                done += 1
            if done < len(crop_boxes):
                self._check_video_end(camera, note)
                return
        while True:
            yield None


class _LostViews:
    """The views of a sequence that cannot be read, and why."""

    def __init__(self, name: str, accepted: bool, note: Note) -> None:
        self._name, self._accepted, self._note = name, accepted, note
        self._problems: list[SourceError] = []

    @contextmanager
    def one_view(self, view: str) -> Iterator[None]:
        """Note what is wrong with a view, where the settings allow to go on without it."""
        try:
            yield
        except SourceError as problem:
            if not self._accepted:
                raise
            self._problems.append(problem)
            self._note(f"{self._name}: camera {view} is left out, as far as it is damaged: {problem}")

    def check_some_left(self, views: int) -> None:
        """Raise what is wrong with the first view if all of them are lost."""
        if len(self._problems) == views:
            raise self._problems[0]


def annotated_poses(folder: Path, listed: ListedSequence, settings: Human36MSettings) -> Poses:
    """Read the poses of a sequence as annotated, from its CDF or, if the settings say so, from VideoPose3D's file.

    Raises:
        SourceError: They are missing or not as expected.
    """
    if settings.poses is None:
        return read_poses(folder / "MyPoseFeatures" / "D3_Positions" / f"{listed.file}.cdf")
    sequences = read_videopose3d(settings.poses)
    # The file has the names that the files of most subjects have.
    name = listed.file.replace("TakingPhoto", "Photo").replace("WalkingDog", "WalkDog")
    if (listed.subject, name) not in sequences:
        raise SourceError(f"{settings.poses}: it has no {listed.subject}/{name}; use the D3_Positions files instead")
    return sequences[listed.subject, name]


def squares_around(boxes: Float64[np.ndarray, "n 4"], margin: float) -> Int64[np.ndarray, "n 4"]:
    """Return squares about the centres of boxes, `margin` times as large as their longer side, in whole pixels."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.maximum(np.rint(margin * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)), 2)
    corner = np.rint(centre - side / 2)
    return np.concatenate([corner, corner + side], axis=1).astype(np.int64)
