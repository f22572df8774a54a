"""ASPset-510 in its released form (public domain): three cameras, C3D joints, JSON cameras and CSV boxes."""

import glob
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from mcss.data.cameras import Camera, are_rotations
from mcss.data.formats.csv import CsvRow, CsvTable, read_csv_table
from mcss.data.formats.joint_names import joint_positions, joints_of
from mcss.data.formats.pose_files import read_pose_file
from mcss.data.formats.units import find_up, to_z_up, turned
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.errors import SourceError, damage_as
from mcss.progress import Progress
from mcss.skeletons import JOINTS
from mcss.sources.assembly import Note
from mcss.sources.rows import (
    SequenceInstants,
    SequenceView,
    check_height,
    end_of_video,
    multi_view_rows,
    note_unlabelled,
)
from mcss.sources.source import Dataset, FolderContents
from mcss.video.crops import crops_at, joint_boxes, without_gaps

CAMERAS = ("left", "mid", "right")
RATE = 50.0
"""Images per second."""

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}
"""Names of the splits in ``splits.csv`` and in the capture."""

NAMES = {"Hip": "pelvis", "Spine": "spine", "Thorax": "neck", "Neck": "head", "Head": "head_top"}
"""What the data set calls the joints on the midline; the limbs' joints have their usual names."""

_NAME = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True)
class Aspset(Dataset):
    """Which cameras and images of ASPset-510 are imported, and how.

    The world of the capture is the space of the left camera, which is taken as level: up is −Y.
    """

    name: ClassVar[str] = "aspset"
    title: ClassVar[str] = "ASPset-510 as released"
    reads: ClassVar[str] = "the folder with splits.csv, trainval and test"

    cameras: tuple[str, ...] = CAMERAS
    """Cameras to import: left, mid, right. A test clip is imported with the one by which the data set's evaluation
    scores it, as splits.csv states, or with those of them that it has."""
    every: int = 5
    """Take every n-th image, of 50 per second."""
    margin: float = 1.15
    """Side of the crop box divided by the longer side of the data set's bounding box."""
    subjects: tuple[str, ...] = ()
    """Import only these subjects, such as 04ac; by default all of whom there are videos."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cameras or not set(self.cameras) <= set(CAMERAS) or len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras: expected some of {', '.join(CAMERAS)}, each once, got {self.cameras}")

    def list_contents(self, folder: Path, out: str | Path, progress: Progress) -> FolderContents:
        """Find the clips in the folder; see `Source.list_contents`."""
        if not (folder / "splits.csv").is_file() and (folder / "ASPset-510").is_dir():
            folder = folder / "ASPset-510"
        clips = read_splits(folder / "splits.csv")
        sequences: list[AspsetClip] = []
        problems: list[str] = []
        for listed in clips:
            subject, split = listed.subject, listed.split
            subset = folder / ("test" if split == "test" else "trainval")
            if self.subjects and subject not in self.subjects:
                continue
            if not self.subjects and not (subset / "videos" / subject).is_dir():
                continue  # an archive that was not downloaded
            try:
                sequences.append(_clip(subset, listed, self))
            except SourceError as problem:
                problems.append(str(problem))
        if not sequences and not problems:
            raise SourceError(
                f"{folder}: expected trainval/videos and test/videos with the subjects of splits.csv, got none of them"
            )
        splits: dict[str, tuple[Selector, ...]] = {}
        for listed in clips:
            name = SPLIT_NAMES[listed.split]
            splits[name] = (*splits.get(name, ()), Selector((listed.subject,), (glob.escape(listed.clip),)))
        info = CaptureInfo(self.name, "ASPset-510: public domain", self.size, splits, self.content_settings("size"))
        return FolderContents(sequences, info, problems)


@dataclass(frozen=True)
class ListedClip:
    """A line of ``splits.csv``."""

    subject: str
    clip: str
    split: str
    """train, val or test."""
    cameras: tuple[str, ...]
    """The cameras with which the clip is evaluated; early releases do not state them, and all count."""


def read_splits(path: Path) -> list[ListedClip]:
    """Read subject, clip, split (train, val or test) and camera (all, or one) of every clip from ``splits.csv``.

    Raises:
        SourceError: The file is missing, or a line is not as expected.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected the folder of ASPset-510 with splits.csv, trainval and test")
    table = _table(path)
    clips = []
    for row in (CsvRow(1, table.header), *table.rows):  # some copies have no header
        subject, clip, split, camera = (*row.cells, "", "", "", "")[:4]
        if not any(row.cells) or split == "split":
            continue
        if split not in SPLIT_NAMES or not _NAME.fullmatch(subject) or not _NAME.fullmatch(clip):
            raise SourceError(
                f"{path} line {row.line}: expected subject,clip,split of letters and digits, the split train, val or "
                f"test, got {','.join(row.cells)[:80]!r}; unpack common-splits again"
            )
        if camera not in ("", "all", *CAMERAS):
            raise SourceError(
                f"{path} line {row.line}: expected the camera all, {', '.join(CAMERAS)}, got {camera[:80]!r}; unpack "
                "common-splits again"
            )
        clips.append(ListedClip(subject, clip, split, CAMERAS if camera in ("", "all") else (camera,)))
    if not clips:
        raise SourceError(f"{path}: expected lines subject,clip,split, got none; unpack common-splits again")
    return clips


def read_camera(path: Path) -> Camera:
    """Read a camera from JSON with intrinsic_matrix (3 × 4) and extrinsic_matrix (4 × 4), mm.

    Raises:
        SourceError: The file is missing, is not JSON, or a matrix is not as expected.
    """
    with damage_as(
        SourceError,
        lambda why: (
            f"{path}: expected JSON with intrinsic_matrix (3 × 4) and extrinsic_matrix (4 × 4), got something "
            f"that cannot be read ({why}); unpack the cameras again"
        ),
    ):
        table = json.loads(path.read_text(encoding="utf-8"))
        intrinsic = np.array(table["intrinsic_matrix"], np.float64).reshape(3, 4)
        extrinsic = np.array(table["extrinsic_matrix"], np.float64).reshape(4, 4)
    rotation = extrinsic[:3, :3]
    if not are_rotations(rotation):
        raise SourceError(f"{path}: expected a rotation in extrinsic_matrix; unpack the cameras again")
    return Camera(rotation, extrinsic[:3, 3], intrinsic[:, :3])


def read_box_table(path: Path) -> Float64[np.ndarray, "t 4"]:
    """Read the bounding box of every image from CSV: a header, then x1, y1, x2, y2. Gaps are interpolated.

    Raises:
        SourceError: The file is missing or has no boxes, or a line is not as expected.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; unpack the boxes of ASPset-510")
    boxes = []
    for row in _table(path).rows:
        where, text = f"{path} line {row.line}", ",".join(row.cells)[:60]
        try:
            x0, y0, x1, y1 = map(float, row.cells)
        except ValueError:
            raise SourceError(f"{where}: expected x1,y1,x2,y2, got {text!r}; unpack it again") from None
        if x1 <= x0 or y1 <= y0:
            raise SourceError(f"{where}: expected x1 < x2 and y1 < y2, got {text!r}; unpack it again")
        boxes.append((x0, y0, x1, y1))
    return without_gaps(path, np.array(boxes, np.float64).reshape(-1, 4))


def _table(path: Path) -> CsvTable:
    try:
        return read_csv_table(path)
    except SourceError as problem:
        raise SourceError(f"{problem}, or unpack it again") from problem


@dataclass(frozen=True)
class AspsetClip:
    """One clip of one subject."""

    subject: str
    sequence: str
    images: int
    folder: Path
    """``trainval`` or ``test``."""
    cameras: tuple[str, ...]
    settings: Aspset

    def file(self, kind: str, name: str) -> Path:
        """Return the path of a file of this subject; `kind` is the folder, such as ``cameras``."""
        return self.folder / kind / self.subject / name

    def frames(self, note: Note) -> Iterator[Frame]:
        """Yield the rows; see `mcss.sources.assembly.SourceSequence`."""
        settings = self.settings
        cameras = {name: read_camera(self.file("cameras", f"{self.subject}-{name}.json")) for name in self.cameras}
        world = self._joints()
        boxes = {}
        for name, camera in cameras.items():
            path = self.file("boxes", f"{self.subject}-{self.sequence}-{name}.csv")
            boxes[name] = read_box_table(path)
            if world is not None:
                _check_agreement(path, boxes[name], camera, world)
        count = min(map(len, boxes.values()))
        longest = max([*map(len, boxes.values()), count if world is None else len(world)])
        if longest - count > settings.max_missing:
            raise SourceError(
                f"{self.folder}: {self.subject}-{self.sequence} has {count} boxes in one view, {longest} boxes or "
                f"poses elsewhere; expected the same number everywhere: unpack this clip again"
            )
        numbers = np.arange(0, count, settings.every)
        poses = None
        if world is None:
            path = self._joint_file()
            note(f"{path}: no such file; the clip has no labels (test-joints_3d is a separate archive)")
        else:
            note_unlabelled(self._joint_file(), world, note)
            padding = np.full((max(count - len(world), 0), *world.shape[1:]), np.nan)
            poses = np.concatenate([to_z_up(world, "-y"), padding])[numbers]
        views = []
        for name, camera in cameras.items():
            video = self.file("videos", f"{self.subject}-{self.sequence}-{name}.mkv")
            crops = crops_at(video, boxes[name][numbers], numbers, RATE / settings.every, settings)
            check_end = end_of_video(video, count, settings.max_missing, note)
            views.append(SequenceView(name, crops, turned(camera, "-y"), check_end))
        instants = SequenceInstants(numbers, RATE, [self.sequence] * len(numbers), poses)
        yield from multi_view_rows(self, instants, views, settings.quality)

    def _joint_file(self) -> Path:
        return self.file("joints_3d", f"{self.subject}-{self.sequence}.c3d")

    def _joints(self) -> Float64[np.ndarray, "t 17 3"] | None:
        """Read the joints as they are in the file, −Y up; None for a test clip without them."""
        path = self._joint_file()
        if not path.is_file() and self.folder.name == "test":
            return None
        source = read_pose_file(path)
        world = joint_positions(source.points, joints_of(path, source.names, NAMES))
        check_height(str(path), world)
        find_up(path, world, "-y")
        return world


def _clip(folder: Path, listed: ListedClip, settings: Aspset) -> AspsetClip:
    """Find the cameras of a clip; a test clip may have a single one."""
    subject, clip, is_test = listed.subject, listed.clip, listed.split == "test"
    videos = folder / "videos" / subject
    wanted = [name for name in settings.cameras if name in listed.cameras or not is_test]
    available = tuple(name for name in wanted if (videos / f"{subject}-{clip}-{name}.mkv").is_file())
    if not available:
        raise SourceError(
            f"{videos / f'{subject}-{clip}'}-….mkv: no video of the cameras {', '.join(wanted or listed.cameras)}; "
            "unpack this clip again, or import these cameras, too"
        )
    boxes = read_box_table(folder / "boxes" / subject / f"{subject}-{clip}-{available[0]}.csv")
    cameras = available if is_test else settings.cameras
    return AspsetClip(
        subject, clip, len(range(0, len(boxes), settings.every)) * len(cameras), folder, cameras, settings
    )


def _check_agreement(
    path: Path, boxes: Float64[np.ndarray, "t 4"], camera: Camera, world: Float64[np.ndarray, "n 17 3"]
) -> None:
    """Refuse boxes in which the camera does not see the person: other columns, another camera, or other units."""
    projected = (world @ camera.rotation.T + camera.translation) @ camera.intrinsics.T
    pixels = projected[..., :2] / projected[..., 2:]
    pelvis = pixels[: len(boxes), JOINTS.index("Hip")]
    inside = ((pelvis >= boxes[: len(pelvis), :2]) & (pelvis <= boxes[: len(pelvis), 2:])).all(axis=1)
    known = np.isfinite(pelvis).all(axis=1)
    if known.any() and inside[known].mean() < 0.5:
        joints = joint_boxes(pixels[: len(pelvis)][known])[0].round().tolist()
        raise SourceError(
            f"{path}: the person's pelvis is inside the box in only {inside[known].mean():.0%} of the images (first "
            f"box {boxes[0].round().tolist()}, joints span {joints}); expected x1,y1,x2,y2 of the same clip and "
            "camera: unpack cameras, boxes and joints_3d again"
        )
