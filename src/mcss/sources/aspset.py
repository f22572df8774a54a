"""ASPset-510 as released (public domain): three cameras, C3D joints, JSON cameras, CSV boxes → capture."""

import csv
import glob
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.data.capture import Camera, CaptureInfo, Frame, Selector
from mcss.data.formats.joint_names import joint_places, joints_of
from mcss.data.formats.pose_files import read_pose_file
from mcss.data.formats.units import find_unit, find_up, to_z_up, turned
from mcss.errors import SourceError
from mcss.images import encode_jpeg
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import JOINTS
from mcss.sources.assembly import Assembled, Note, Part, assemble
from mcss.sources.workers import Workers
from mcss.video.crops import check_crop_settings, crops, joint_boxes
from mcss.video.people import filled

CAMERAS = ("left", "mid", "right")
RATE = 50.0
"""Images per second."""

SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}

NAMES = {"Hip": "pelvis", "Spine": "spine", "Thorax": "neck", "Neck": "head", "Head": "head_top"}
"""What the set calls joints on the midline; those of the limbs are known by their usual names."""

MAX_MISSING = 5
"""A video may be so many images shorter than its boxes."""

_NAME = re.compile(r"[0-9A-Za-z]+")


@dataclass(frozen=True)
class AspsetSettings:
    """How ASPset-510 becomes a capture."""

    cameras: tuple[str, ...] = CAMERAS
    """Of left, mid and right; of a test clip those are taken that it has."""
    every: int = 5
    """Take every n-th image, of 50 a second."""
    size: int = 128
    """Width and height of the crops in pixels."""
    margin: float = 1.15
    """Side of the crop over the longer side of the set's box."""
    quality: int = 90
    """JPEG quality of the crops."""
    subjects: tuple[str, ...] = ()
    """Only these, such as 04ac; by default all that are there."""

    def __post_init__(self) -> None:
        if not self.cameras or not set(self.cameras) <= set(CAMERAS) or len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras: expected some of {', '.join(CAMERAS)}, each once, came {self.cameras}")
        check_crop_settings(self.every, self.size, self.quality, self.margin)


def import_aspset(
    source: str | Path,
    out: str | Path,
    settings: AspsetSettings | None = None,
    progress: Progress = NO_PROGRESS,
    processes: Workers = None,
) -> Assembled:
    """Make a capture (or carry on one) of ASPset-510, with the set's own splits.

    Its world is the space of the left camera, which is taken as level: up is −Y.

    Args:
        source: Folder with ``splits.csv``, ``trainval`` and ``test``.
        out: The capture.
        settings: `AspsetSettings`; the defaults if None.
        progress: Counts images.
        processes: How many to work with, or a cluster; by default one per processor.

    Raises:
        SourceError: There is no such release in the folder, or no clip of it could be imported.
        mcss.data.capture.CaptureError: The capture at `out` was begun with other settings or cannot be written.
    """
    settings = settings or AspsetSettings()
    source = Path(source)
    if not (source / "splits.csv").is_file() and (source / "ASPset-510").is_dir():
        source = source / "ASPset-510"
    listed = read_splits(source / "splits.csv")
    parts: list[Part] = []
    problems: list[str] = []
    for subject, clip, split in listed:
        folder = source / ("test" if split == "test" else "trainval")
        if settings.subjects and subject not in settings.subjects:
            continue
        if not settings.subjects and not (folder / "videos" / subject).is_dir():
            continue  # an archive that was not fetched
        try:
            parts.append(_clip(folder, subject, clip, split == "test", settings))
        except SourceError as problem:
            problems.append(str(problem))
    if not parts and not problems:
        raise SourceError(
            f"{source}: expected trainval/videos and test/videos with the subjects of splits.csv, came none"
        )
    splits: dict[str, tuple[Selector, ...]] = {}
    for subject, clip, split in listed:
        name = SPLIT_NAMES[split]
        splits[name] = (*splits.get(name, ()), Selector((subject,), (glob.escape(clip),)))
    about = {name: value for name, value in asdict(settings).items() if name not in ("size", "subjects")}
    info = CaptureInfo("aspset", "ASPset-510: public domain", settings.size, splits, about)
    return assemble(parts, out, info, progress, processes=processes, problems=problems)


def read_splits(path: Path) -> list[tuple[str, str, str]]:
    """Subject, clip and split (train, val or test) of every clip, from ``splits.csv``; a header is left out.

    Raises:
        SourceError: The file is missing or a line is not as expected.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; expected the folder of ASPset-510 with splits.csv, trainval and test")
    listed = []
    rows = csv.reader(path.read_text(encoding="utf-8-sig", errors="replace").splitlines())
    for line, cells in enumerate(rows, start=1):
        subject, clip, split = [*(cell.strip() for cell in cells), "", "", ""][:3]
        if not any(cells) or split == "split":
            continue
        if split not in SPLIT_NAMES or not _NAME.fullmatch(subject) or not _NAME.fullmatch(clip):
            raise SourceError(
                f"{path} line {line}: expected subject,clip,split of letters and digits, the split train, val or test, "
                f"came {','.join(cells)[:80]!r}; unpack common-splits again"
            )
        listed.append((subject, clip, split))
    if not listed:
        raise SourceError(f"{path}: expected lines subject,clip,split, came none; unpack common-splits again")
    return listed


def read_camera(path: Path) -> Camera:
    """A camera's JSON: intrinsic_matrix (3 × 4) and extrinsic_matrix (4 × 4), mm.

    Raises:
        SourceError: The file is missing, is no JSON, or a matrix is not as expected.
    """
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        intrinsic = np.array(table["intrinsic_matrix"], np.float64).reshape(3, 4)
        extrinsic = np.array(table["extrinsic_matrix"], np.float64).reshape(4, 4)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path}: expected JSON with intrinsic_matrix (3 × 4) and extrinsic_matrix (4 × 4), which cannot be read "
            f"({type(error).__name__}: {error}); unpack the cameras again"
        ) from error
    rotation = extrinsic[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
        raise SourceError(f"{path}: expected a rotation in extrinsic_matrix; unpack the cameras again")
    return Camera(rotation, extrinsic[:3, 3], intrinsic[:, :3])


def read_box_table(path: Path) -> Float64[np.ndarray, "t 4"]:
    """The box of every image from the set's CSV: a header, then x1, y1, x2, y2; gaps are filled.

    Raises:
        SourceError: The file is missing or has no boxes, or a line is not as expected.
    """
    if not path.is_file():
        raise SourceError(f"{path}: no such file; unpack the boxes of ASPset-510")
    rows = []
    for line, text in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()[1:], start=2):
        try:
            x0, y0, x1, y1 = map(float, text.split(","))
        except ValueError:
            raise SourceError(
                f"{path} line {line}: expected x1,y1,x2,y2, came {text[:60]!r}; unpack it again"
            ) from None
        if x1 <= x0 or y1 <= y0:
            raise SourceError(f"{path} line {line}: expected x1 < x2 and y1 < y2, came {text[:60]!r}; unpack it again")
        rows.append((x0, y0, x1, y1))
    boxes = np.array(rows, np.float64).reshape(-1, 4)
    if not np.isfinite(boxes).all(axis=1).any():
        raise SourceError(f"{path}: expected a box for every image, came none; unpack it again")
    return filled(boxes)


@dataclass(frozen=True)
class Clip:
    """One clip of one subject."""

    subject: str
    sequence: str
    images: int
    folder: Path
    cameras: tuple[str, ...]
    settings: AspsetSettings

    def file(self, kind: str, name: str) -> Path:
        """One of the clip's files."""
        return self.folder / kind / self.subject / name

    def frames(self, note: Note) -> Iterator[Frame]:
        """Its rows; see `mcss.sources.assembly.Part`."""
        settings = self.settings
        cameras = {name: read_camera(self.file("cameras", f"{self.subject}-{name}.json")) for name in self.cameras}
        world, poses = self._poses(note)
        boxes = {}
        for name, camera in cameras.items():
            path = self.file("boxes", f"{self.subject}-{self.sequence}-{name}.csv")
            boxes[name] = read_box_table(path)
            if world is not None:
                _agree(path, boxes[name], camera, world)
        count = min(map(len, boxes.values()))
        longest = max([*map(len, boxes.values()), count if poses is None else len(poses)])
        if longest - count > MAX_MISSING:
            raise SourceError(
                f"{self.folder}: {self.subject}-{self.sequence} has {count} boxes in one view, {longest} boxes or "
                f"poses elsewhere; expected as many of each: unpack this clip again"
            )
        numbers = range(0, count, settings.every)
        views = {
            name: crops(
                self.file("videos", f"{self.subject}-{self.sequence}-{name}.mkv"),
                boxes[name][:count][:: settings.every],
                RATE / settings.every,
                settings.margin,
                settings.size,
                settings.every,
            )
            for name in self.cameras
        }
        for number in numbers:
            pose = None if poses is None or number >= len(poses) else poses[number]
            for name in list(views):
                crop = next(views[name], None)
                if crop is None:
                    self._ended(name, number, count, note)
                    del views[name]
                    continue
                yield Frame(
                    subject=self.subject,
                    sequence=self.sequence,
                    action=self.sequence,
                    frame=number,
                    time=number / RATE,
                    view=name,
                    image=encode_jpeg(crop[0], settings.quality),
                    box=crop[1],
                    pose=pose if pose is not None and np.isfinite(pose).all() else None,
                    camera=turned(cameras[name], "-y"),
                )

    def _poses(self, note: Note) -> tuple[Float64[np.ndarray, "t 17 3"] | None, Float64[np.ndarray, "t 17 3"] | None]:
        """The joints as they are in the file, and with +Z up; None for a test clip without them."""
        path = self.file("joints_3d", f"{self.subject}-{self.sequence}.c3d")
        if not path.is_file() and self.folder.name == "test":
            note(f"{path}: no such file; the clip has no labels (test-joints_3d is an archive of its own)")
            return None, None
        source = read_pose_file(path)
        world = joint_places(source.points, joints_of(path, source.names, NAMES))
        find_unit(path, world, "mm")
        find_up(path, world, "-y")
        unknown = int((~np.isfinite(world).all(axis=(1, 2))).sum())
        if unknown:
            note(f"{path}: {unknown} of {len(world)} poses are not whole; those images have no label")
        return world, to_z_up(world, "-y")

    def _ended(self, name: str, number: int, count: int, note: Note) -> None:
        path = self.file("videos", f"{self.subject}-{self.sequence}-{name}.mkv")
        if count - number > MAX_MISSING + self.settings.every:
            raise SourceError(
                f"{path}: expected {count} images, as there are boxes, came about {number}; the video is damaged or "
                "was cut short: unpack this clip again, or leave the camera out (cameras)"
            )
        note(f"{path}: the video ends at about image {number} of {count}; the other views go on")


def _clip(folder: Path, subject: str, clip: str, test: bool, settings: AspsetSettings) -> Clip:
    """A clip, with the cameras that it has: a test clip may have one alone."""
    there = [
        name for name in settings.cameras if (folder / "videos" / subject / f"{subject}-{clip}-{name}.mkv").is_file()
    ]
    cameras = tuple(there) if test else settings.cameras
    if not there:
        raise SourceError(
            f"{folder / 'videos' / subject / f'{subject}-{clip}'}-….mkv: no video of the cameras "
            f"{', '.join(settings.cameras)}; unpack this clip again"
        )
    boxes = read_box_table(folder / "boxes" / subject / f"{subject}-{clip}-{there[0]}.csv")
    return Clip(subject, clip, len(range(0, len(boxes), settings.every)) * len(cameras), folder, cameras, settings)


def _agree(path: Path, boxes: Float64[np.ndarray, "t 4"], camera: Camera, world: Float64[np.ndarray, "n 17 3"]) -> None:
    """Refuse boxes in which the camera does not see the person: other columns, another camera, other units."""
    seen = (world @ camera.rotation.T + camera.translation) @ camera.intrinsics.T
    pixels = seen[..., :2] / seen[..., 2:]
    hips = pixels[: len(boxes), JOINTS.index("Hip")]
    within = ((hips >= boxes[: len(hips), :2]) & (hips <= boxes[: len(hips), 2:])).all(axis=1)
    known = np.isfinite(hips).all(axis=1)
    if known.any() and within[known].mean() < 0.5:
        tight = joint_boxes(path, pixels)[0].round().tolist()
        raise SourceError(
            f"{path}: the person's pelvis is inside the box in only {within[known].mean():.0%} of the images (first "
            f"box {boxes[0].round().tolist()}, joints span {tight}); expected x1,y1,x2,y2 of the same clip and camera: "
            "unpack cameras, boxes and joints_3d again"
        )
