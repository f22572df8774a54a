"""One take of Human3.6M in the original files → rows of a capture."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.capture import Frame
from mcss.errors import SourceError
from mcss.images import Image, cut_out, encode_jpeg
from mcss.skeletons import HUMAN36M_32, ROOT
from mcss.sources.assembly import Note
from mcss.sources.human36m.annotations import Poses, joint_boxes, mask_boxes, read_poses, read_videopose3d
from mcss.sources.human36m.faults import (
    CORRUPT,
    SHIFTED,
    annotated_length,
    boxes_shifted_back,
    shifted_back,
    without_corrupt_videos,
)
from mcss.sources.human36m.metadata import Lens, Take
from mcss.video.decoding import decoded_count, images, stated_count
from mcss.video.people import filled

RATE = 50.0
"""Images per second of every camera."""

TRAIN = ("S1", "S5", "S6", "S7", "S8")
TEST = ("S9", "S11")
"""The subjects of which poses are public, in the usual split."""


@dataclass(frozen=True)
class Human36MSettings:
    """How Human3.6M becomes a capture."""

    size: int = 128
    """Width and height of the crops in pixels."""
    every: int = 5
    """Take every n-th image of the training subjects."""
    test_every: int = 64
    """Take every n-th image of the test subjects."""
    subjects: tuple[str, ...] = ()
    """Only these of S1 S5 S6 S7 S8 (train) and S9 S11 (test); by default all."""
    cameras: tuple[str, ...] = ()
    """Only these cameras, such as 54138969; by default all four."""
    boxes: Literal["masks", "joints"] = "masks"
    """Where the person is: the set's ground-truth boxes, or the joints as each camera sees them."""
    margin: float = 1.0
    """Side of the crop over the longer side of the person's box."""
    quality: int = 90
    """JPEG quality of the crops."""
    metadata: Path | None = None
    """The file metadata.xml; by default the one in the folder."""
    poses: Path | None = None
    """VideoPose3D's data_3d_h36m.npz, to be used instead of the D3_Positions files."""
    leave_out_corrupt_videos: bool = True
    """Import S11 Directions without camera 54138969, whose video is corrupt."""
    undo_s9_shift: bool = True
    """Move the poses and boxes of S9 Greeting, SittingDown 1 and Waiting 1 back by 200 mm."""
    clip_to_annotation: bool = True
    """Leave out the end of videos that go on after their annotation; otherwise such a take is an error."""
    max_missing: int = 5
    """So many images or boxes may be missing at the end of a take, which is then clipped; more is an error."""

    def __post_init__(self) -> None:
        if self.size < 16 or self.every < 1 or self.test_every < 1 or not 1 <= self.quality <= 100:
            raise ValueError(
                "expected size ≥ 16, every ≥ 1, test_every ≥ 1 and quality 1–100, came "
                f"size {self.size}, every {self.every}, test_every {self.test_every}, quality {self.quality}"
            )
        if not 1 <= self.margin <= 4 or self.max_missing < 0:
            raise ValueError(
                f"expected margin between 1 (the bare box) and 4 and max_missing ≥ 0, came {self.margin} and "
                f"{self.max_missing}"
            )
        unknown = [name for name in self.subjects if name not in TRAIN + TEST]
        if unknown:
            raise ValueError(f"subjects {', '.join(unknown)}: expected some of {', '.join(TRAIN + TEST)}")

    def step(self, subject: str) -> int:
        """Every how many-th image of a subject is taken."""
        return self.test_every if subject in TEST else self.every


@dataclass(frozen=True)
class TakePart:
    """One take and where its files are."""

    take: Take
    folder: Path
    """Of the subject: it has the folders Videos, MyPoseFeatures and MySegmentsMat."""
    cameras: tuple[Lens, ...]
    length: int
    """Poses of its annotation."""
    settings: Human36MSettings

    @property
    def subject(self) -> str:
        """As in the set."""
        return self.take.subject

    @property
    def sequence(self) -> str:
        """What the names of its files begin with."""
        return self.take.file

    @property
    def lenses(self) -> tuple[Lens, ...]:
        """The cameras that are imported."""
        if not self.settings.leave_out_corrupt_videos:
            return self.cameras
        return without_corrupt_videos(self.subject, self.sequence, self.cameras)

    @property
    def images(self) -> int:
        """Rows that its annotation promises."""
        return len(self.wanted) * len(self.lenses)

    @property
    def wanted(self) -> range:
        """The images that are taken."""
        return range(0, self.length, self.settings.step(self.subject))

    def video(self, lens: Lens) -> Path:
        """The video of one camera."""
        return self.folder / "Videos" / f"{self.sequence}.{lens.name}.mp4"

    def frames(self, note: Note) -> Iterator[Frame]:
        """Its rows; the videos of all cameras are decoded side by side and never held.

        Raises:
            SourceError: A file is missing, damaged, or does not fit the others.
        """
        if self.lenses != self.cameras:
            names = ", ".join(camera for subject, file, camera in CORRUPT if (subject, file) == self._key)
            note(f"{self.subject}/{self.sequence}: imported without camera {names}, whose video is corrupt")
        annotated = take_poses(self.folder, self.take, self.settings)
        poses = annotated
        if self.settings.undo_s9_shift:
            poses = shifted_back(self.subject, self.sequence, annotated)
            if self._key in SHIFTED:
                note(f"{self.subject}/{self.sequence}: poses and boxes moved back by 200 mm in world X")
        for lens in self.lenses:
            self._check_length(lens, note)
        squares = [self._squares(lens, poses, annotated, note) for lens in self.lenses]
        labels = poses[:, HUMAN36M_32]
        unlabelled = int((~np.isfinite(labels).all(axis=(1, 2))).sum())
        if unlabelled:
            note(
                f"{self.subject}/{self.sequence}: {unlabelled} of its {len(poses)} poses are not finite; their "
                "images have no label"
            )
        yield from self._rows(labels, squares, note)

    @property
    def _key(self) -> tuple[str, str]:
        return self.subject, self.sequence

    def _check_length(self, lens: Lens, note: Note) -> None:
        video = self.video(lens)
        stated = stated_count(video)
        if stated:
            self._check_end(video, stated, "images", note)
        if stated - self.length <= self.settings.max_missing:
            return
        if not self.settings.clip_to_annotation:
            raise SourceError(
                f"{video}: it has {stated} images, its annotation {self.length} poses; expected as many: allow "
                "clip_to_annotation to use what has poses, or leave the take out"
            )
        note(f"{video}: clipped from {stated} images to the {annotated_length(self.length, stated)} that have poses")

    def _squares(self, lens: Lens, poses: Poses, annotated: Poses, note: Note) -> Int64[np.ndarray, "n 4"]:
        """The crop in each of the images taken, in whole pixels; fewer where the boxes end before the poses."""
        if self.settings.boxes == "joints":
            boxes = joint_boxes(lens, poses[self.wanted])
            path, size = self.video(lens), None
        else:
            path = self.folder / "MySegmentsMat" / "ground_truth_bb" / f"{self.sequence}.{lens.name}.mat"
            boxes, there, size = mask_boxes(path, self.wanted)
            self._check_end(path, there, "boxes", note)
            if self.settings.undo_s9_shift:
                roots = annotated[self.wanted][: len(boxes), HUMAN36M_32[ROOT]]
                boxes = boxes_shifted_back(self.subject, self.sequence, lens, boxes, roots)
        empty = int((~np.isfinite(boxes).all(axis=1)).sum())
        if empty == len(boxes):
            raise SourceError(f"{path}: not one box of the person; take them from the other source (setting boxes)")
        if empty:
            note(f"{path}: {empty} of {len(boxes)} boxes are empty; interpolated between their neighbours")
        self._check_image(lens, size)
        return squared(filled(boxes), self.settings.margin)

    def _check_end(self, path: Path, there: int, what: str, note: Note) -> None:
        """What a file has less than the annotation: a few are clipped, more is an error."""
        if there >= self.length:
            return
        if self.length - there > self.settings.max_missing:
            raise SourceError(
                f"{path}: it has {there} {what}, the annotation {self.length} poses; expected as many: the file "
                "is damaged or was cut off, unpack it again, or raise max_missing to use its beginning"
            )
        note(f"{path}: it has {there} {what}, the annotation {self.length} poses; clipped")

    def _check_image(self, lens: Lens, mask: tuple[int, int] | None) -> None:
        """The images are as large as the masks, and as the camera's principal point lets expect."""
        image = next(images(self.video(lens)), None)
        if image is None:
            raise SourceError(f"{self.video(lens)}: not one image can be decoded; unpack the file again")
        height, width = image.shape[:2]
        centred = np.abs(np.array(lens.centre) / (width, height) - 0.5).max() < 0.1
        if (mask is not None and mask != (height, width)) or not centred:
            (cx, cy) = lens.centre
            expected = f"{round(2 * cx)}×{round(2 * cy)}" if mask is None else f"{mask[1]}×{mask[0]}"
            raise SourceError(
                f"{self.video(lens)}: expected images of about {expected} pixels, which its boxes and camera are "
                f"made for, came {width}×{height}; use the videos as released, not scaled or cut ones"
            )

    def _rows(
        self, poses: Float64[np.ndarray, "t 17 3"], squares: list[Int64[np.ndarray, "_ 4"]], note: Note
    ) -> Iterator[Frame]:
        usable = min(map(len, squares))
        decoders = [images(self.video(lens), every=self.wanted.step) for lens in self.lenses]
        cameras = [lens.camera() for lens in self.lenses]
        for index in count():
            if index == usable:
                return
            shots = [next(decoder, None) for decoder in decoders]
            frame = self.wanted[index]
            for lens, shot in zip(self.lenses, shots, strict=True):
                if shot is None:
                    self._check_end(self.video(lens), decoded_count(self.video(lens)), "whole images", note)
                    return
            pose = poses[frame].astype(np.float32) if np.isfinite(poses[frame]).all() else None
            for lens, camera, shot, own in zip(self.lenses, cameras, shots, squares, strict=True):
                assert shot is not None
                x0, y0, x1, y1 = own[index].tolist()
                yield Frame(
                    subject=self.subject,
                    sequence=self.sequence,
                    action=self.take.action,
                    frame=frame,
                    time=frame / RATE,
                    view=lens.name,
                    image=self._crop(shot, own[index], lens, frame),
                    box=(float(x0), float(y0), float(x1), float(y1)),
                    pose=pose,
                    camera=camera,
                )

    def _crop(self, image: Image, square: Int64[np.ndarray, " 4"], lens: Lens, frame: int) -> bytes:
        height, width = image.shape[:2]
        x0, y0, x1, y1 = square.tolist()
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            raise SourceError(
                f"{self.video(lens)}: the person's box {x0},{y0},{x1},{y1} in image {frame} lies outside its "
                f"{width}×{height} pixels; boxes, cameras and poses do not belong together: look whether all files "
                "are of this subject"
            )
        return encode_jpeg(cut_out(image, square, self.settings.size), self.settings.quality)


def take_poses(folder: Path, take: Take, settings: Human36MSettings) -> Poses:
    """The poses of a take as annotated, from its CDF or, if the settings say so, from VideoPose3D's file.

    Raises:
        SourceError: They are missing or not as expected.
    """
    if settings.poses is None:
        return read_poses(folder / "MyPoseFeatures" / "D3_Positions" / f"{take.file}.cdf")
    known = read_videopose3d(settings.poses)
    # The file calls takes as most subjects' files do.
    name = take.file.replace("TakingPhoto", "Photo").replace("WalkingDog", "WalkDog")
    if (take.subject, name) not in known:
        raise SourceError(f"{settings.poses}: it has no {take.subject}/{name}; use the D3_Positions files instead")
    return known[take.subject, name]


def squared(boxes: Float64[np.ndarray, "n 4"], margin: float) -> Int64[np.ndarray, "n 4"]:
    """Squares about the centres of boxes, `margin` times as large as the longer side, in whole pixels."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    side = np.maximum(np.rint(margin * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True)), 2)
    corner = np.rint(centre - side / 2)
    return np.concatenate([corner, corner + side], axis=1).astype(np.int64)
