"""Takes of MPI-INF-3DHP, fourteen cameras each and one in the test set, become sequences of a capture."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from mcss.data.capture import Camera, CaptureInfo, Frame, Selector
from mcss.data.formats.units import Up, find_unit, find_up, to_z_up, turned
from mcss.errors import ImageError, SourceError
from mcss.images import Image, cut_out, encode_jpeg, read_image
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.assembly import Assembled, Note, Part, assemble
from mcss.sources.mpi_inf_3dhp.annotations import (
    CAMERAS,
    JOINTS_28,
    TEST_JOINTS_17,
    Annotation,
    read_annotation,
    read_calibration,
    read_test_annotation,
    seventeen,
)
from mcss.sources.mpi_inf_3dhp.faults import annotated_frames, is_flash, may_end_early, sides_put_right
from mcss.sources.workers import Workers
from mcss.video.crops import check_crop_settings, corners, crops, joint_boxes
from mcss.video.people import crop_squares

CHEST_HEIGHT = (0, 2, 4, 7, 8)

TAKES = {
    ("S1", "Seq1"): (25, 6416),
    ("S1", "Seq2"): (50, 12430),
    ("S2", "Seq1"): (25, 6502),
    ("S2", "Seq2"): (25, 6081),
    ("S3", "Seq1"): (50, 12488),
    ("S3", "Seq2"): (50, 12283),
    ("S4", "Seq1"): (25, 6171),
    ("S4", "Seq2"): (25, 6675),
    ("S5", "Seq1"): (50, 12820),
    ("S5", "Seq2"): (50, 12312),
    ("S6", "Seq1"): (25, 6188),
    ("S6", "Seq2"): (25, 6145),
    ("S7", "Seq1"): (25, 6239),
    ("S7", "Seq2"): (25, 6320),
    ("S8", "Seq1"): (25, 6468),
    ("S8", "Seq2"): (25, 6054),
}
"""Images per second and frames of each take, as the release states them."""

TEST_SUBJECTS = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
TEST_RATE = 25.0
"""Images per second of the test set, which does not state it."""
TEST_FOLDERS = ("", "mpi_inf_3dhp_test_set", "mpi_inf_3dhp_test_set/mpi_inf_3dhp_test_set")
"""Where TS1 … may lie in the release's folder."""

ACTIVITIES = (
    "Standing or walking",
    "Exercise",
    "Sitting",
    "Reaching or crouching",
    "On the floor",
    "Sports",
    "Miscellaneous",
)
"""What 1 to 7 mean in ``activity_annotation``."""

DISAGREEMENT_MM = 50.0
"""Cameras may disagree by so much about a joint's place before annotation and calibration count as not of a kind."""

MAX_MISSING = 5
"""A video may be so many images shorter than its annotation."""

SPLITS = {"train": ("S1", "S2", "S3", "S4", "S5", "S6"), "test": ("S7", "S8"), "ts": TEST_SUBJECTS}


@dataclass(frozen=True)
class MpiInf3dhpSettings:
    """How MPI-INF-3DHP becomes a capture."""

    cameras: tuple[int, ...] = CHEST_HEIGHT
    """Of the 14, from 0; by default those at chest height."""
    every: int = 5
    """Take every n-th frame of S1 to S8; of the test set all valid ones are taken."""
    size: int = 128
    """Width and height of the crops in pixels."""
    margin: float = 1.3
    """Side of the crop over the longer side of the box around all annotated joints, which lie within the body."""
    quality: int = 90
    """JPEG quality of the crops."""
    subjects: tuple[str, ...] = ()
    """Only these, such as S1 S7 TS1; by default all that are there."""
    universal: bool = False
    """Poses on the set's universal skeleton (univ_annot3) instead of the person's own."""
    up: Up = "y"
    """The world's up axis before it is turned to +Z; checked against the people."""
    put_sides_right: bool = True
    """Exchange left and right in S4/Seq2, frames 3759 to 5852, where they are exchanged."""
    short_video: bool = True
    """Let camera 2 of S6/Seq2 end early; otherwise that take fails."""
    clip_annotation: bool = True
    """Use no more annotations than the release states frames (S3/Seq1 has one too many)."""
    drop_flashes: bool = True
    """Leave nearly white images out."""

    def __post_init__(self) -> None:
        if (
            not self.cameras
            or len(set(self.cameras)) < len(self.cameras)
            or not set(self.cameras) <= set(range(CAMERAS))
        ):
            raise ValueError(f"cameras: expected some of 0 to {CAMERAS - 1}, each once, came {self.cameras}")
        check_crop_settings(self.every, self.size, self.quality, self.margin)
        known = (*dict.fromkeys(subject for subject, _ in TAKES), *TEST_SUBJECTS)
        odd = [subject for subject in self.subjects if subject not in known]
        if odd:
            raise ValueError(f"subjects: there is no {', '.join(odd)}; expected some of {', '.join(known)}")


def import_mpi_inf_3dhp(
    source: str | Path,
    out: str | Path,
    settings: MpiInf3dhpSettings | None = None,
    progress: Progress = NO_PROGRESS,
    processes: Workers = None,
) -> Assembled:
    """Make a capture (or carry on one) of the original release of MPI-INF-3DHP.

    Splits: ``train`` S1–S6, ``test`` S7–S8, ``ts`` the test set TS1–TS6; of what is there. A
    pose of the test set is that of one camera, taken as level: its up axis is only nearly the world's.

    Args:
        source: Folder with ``S1/Seq1/imageSequence/video_0.avi`` …, ``annot.mat`` and ``camera.calibration``, and
            perhaps ``TS1`` … or ``mpi_inf_3dhp_test_set/TS1`` ….
        out: The capture.
        settings: `MpiInf3dhpSettings`; the defaults if None.
        progress: Counts images.
        processes: How many to work with, or a cluster; by default one per processor.

    Raises:
        SourceError: There is no such release in the folder, or no take of it could be imported.
        mcss.data.capture.CaptureError: The capture at `out` was begun with other settings or cannot be written.
    """
    settings = settings or MpiInf3dhpSettings()
    source = Path(source)
    parts, problems = _found(source, settings)
    if not parts:
        raise SourceError(
            "\n".join(problems)
            or f"{source}: expected the release of MPI-INF-3DHP with the folders S1/Seq1 … S8/Seq2 or TS1 … TS6, came "
            + ("none of them" if source.is_dir() else "no folder")
            + "; give the folder in which they lie"
        )
    present = {part.subject for part in parts}
    about = {name: value for name, value in asdict(settings).items() if name not in ("size", "subjects")}
    info = CaptureInfo(
        importer="mpi-inf-3dhp",
        licence="MPI-INF-3DHP: non-commercial research only",
        image_size=settings.size,
        splits={name: (Selector(subjects=subjects),) for name, subjects in SPLITS.items()},
        settings=about,
        looks=("Seq1*", "Seq2*"),  # every subject changes clothes between the two
    )
    expected = {subject: 1 if subject in TEST_SUBJECTS else 2 for subject in present}
    return assemble(parts, out, info, progress, processes=processes, problems=problems, expected=expected)


def _found(source: Path, settings: MpiInf3dhpSettings) -> tuple[list[Part], list[str]]:
    """The takes in the release's folder, and what is missing of it."""
    parts: list[Part] = []
    problems: list[str] = []
    for (subject, sequence), (_, stated) in TAKES.items():
        wanted = subject in settings.subjects if settings.subjects else (source / subject).is_dir()
        if not wanted:
            continue
        folder = source / subject / sequence
        if folder.is_dir():
            images = len(range(0, stated, settings.every)) * len(settings.cameras)
            parts.append(Take(subject, sequence, images, folder, settings))
        else:
            problems.append(
                f"{folder}: no such folder; unpack {sequence} of {subject}, or leave {subject} out (subjects)"
            )
    for subject in TEST_SUBJECTS:
        found = (source / place / subject for place in TEST_FOLDERS)
        test_folder = next((folder for folder in found if folder.is_dir()), None)
        if settings.subjects and subject not in settings.subjects:
            continue
        if test_folder is None:
            if settings.subjects:
                problems.append(
                    f"{source / subject}: no such folder; unpack the test set, or leave {subject} out (subjects)"
                )
            continue
        try:
            valid = int(read_test_annotation(test_folder / "annot_data.mat").valid.sum())
            parts.append(TestTake(subject, "test", max(valid, 1), test_folder, settings))
        except SourceError as problem:
            problems.append(str(problem))
    return parts, problems


@dataclass(frozen=True)
class Take:
    """One sequence of S1 to S8."""

    subject: str
    sequence: str
    images: int
    folder: Path
    settings: MpiInf3dhpSettings

    def frames(self, note: Note) -> Iterator[Frame]:
        """Its rows; see `mcss.sources.assembly.Part`."""
        settings = self.settings
        rate, stated = TAKES[self.subject, self.sequence]
        path = self.folder / "annot.mat"
        annotation = read_annotation(path, settings.cameras)
        count = annotated_frames(stated, len(annotation)) if settings.clip_annotation else len(annotation)
        if len(annotation) < stated:
            note(f"{path}: {len(annotation)} frames are annotated, the release has {stated}; the others are left out")
        cameras = read_calibration(self.folder / "camera.calibration")
        absent = [str(camera) for camera in settings.cameras if camera not in cameras]
        if absent:
            raise SourceError(
                f"{self.folder / 'camera.calibration'}: camera {', '.join(absent)} is missing; it has "
                f"{', '.join(map(str, sorted(cameras)))}: unpack it again or choose other cameras"
            )
        poses = world_poses(path, annotation, cameras, settings.universal)[:count]
        find_unit(path, poses, "mm")
        find_up(path, poses, settings.up)
        poses = to_z_up(poses, settings.up)
        numbers = np.arange(0, count, settings.every)
        taken = poses[numbers]
        if settings.put_sides_right:
            taken = sides_put_right(self.subject, self.sequence, taken, numbers)
        unknown = int((~np.isfinite(taken).all(axis=(1, 2))).sum())
        if unknown:
            note(f"{path}: {unknown} poses are not finite; those images have no label")
        views = {
            camera: crops(
                self.folder / "imageSequence" / f"video_{camera}.avi",
                joint_boxes(path, annotation.pixels[camera][:count])[numbers],
                rate / settings.every,
                settings.margin,
                settings.size,
                settings.every,
            )
            for camera in settings.cameras
        }
        for index, number in enumerate(numbers.tolist()):
            for camera in list(views):
                crop = next(views[camera], None)
                if crop is None:
                    self._ended(camera, number, count, note)
                    del views[camera]
                elif not (settings.drop_flashes and is_flash(crop[0])):
                    yield Frame(
                        subject=self.subject,
                        sequence=self.sequence,
                        action=self.sequence,
                        frame=number,
                        time=number / rate,
                        view=str(camera),
                        image=encode_jpeg(crop[0], settings.quality),
                        box=crop[1],
                        pose=taken[index] if np.isfinite(taken[index]).all() else None,
                        camera=turned(cameras[camera], settings.up),
                    )

    def _ended(self, camera: int, number: int, count: int, note: Note) -> None:
        path = self.folder / "imageSequence" / f"video_{camera}.avi"
        known = self.settings.short_video and may_end_early(self.subject, self.sequence, camera)
        if not known and count - number > MAX_MISSING + self.settings.every:
            raise SourceError(
                f"{path}: expected {count} images, as annot.mat has, came about {number}; the video is damaged or "
                "was cut short: unpack this sequence again, or leave the camera out (cameras)"
            )
        note(f"{path}: the video ends at about frame {number} of {count}; the other views go on")


@dataclass(frozen=True)
class TestTake:
    """One sequence of the test set, seen by one camera."""

    subject: str
    sequence: str
    images: int
    folder: Path
    settings: MpiInf3dhpSettings

    def frames(self, note: Note) -> Iterator[Frame]:
        """Its rows; see `mcss.sources.assembly.Part`."""
        settings = self.settings
        path = self.folder / "annot_data.mat"
        annotation = read_test_annotation(path)
        own = annotation.universal if settings.universal else annotation.own
        poses = to_z_up(own[:, seventeen(TEST_JOINTS_17)], "-y")
        numbers = np.flatnonzero(annotation.valid)
        if not len(numbers):
            raise SourceError(f"{path}: not one frame is valid (valid_frame); unpack the test set again")
        find_unit(path, poses[numbers], "mm")
        find_up(path, poses[numbers], "z")
        boxes = joint_boxes(path, annotation.pixels[numbers])
        for number, box in zip(numbers.tolist(), boxes, strict=True):
            path = self.folder / "imageSequence" / f"img_{number + 1:06d}.jpg"
            image = _image(path)
            square = crop_squares(box[None], TEST_RATE, settings.margin, image.shape[1], image.shape[0])[0]
            if settings.drop_flashes and is_flash(image):
                note(f"{path}: nearly white, left out")
                continue
            yield Frame(
                subject=self.subject,
                sequence=self.sequence,
                action=_activity(int(annotation.activity[number])),
                frame=number,
                time=number / TEST_RATE,
                view="test",
                image=encode_jpeg(cut_out(image, square, settings.size), settings.quality),
                box=corners(square),
                pose=poses[number] if np.isfinite(poses[number]).all() else None,
            )


def world_poses(
    path: Path, annotation: Annotation, cameras: dict[int, Camera], universal: bool
) -> Float64[np.ndarray, "t 17 3"]:
    """The 17 joints in the world of the calibration, as the first camera has them: X = Rᵀ(x − t).

    The universal skeleton stands with its pelvis where the person's is: the set scales it about each camera.

    Raises:
        SourceError: Cameras disagree about where the person is.
    """
    joints = seventeen(JOINTS_28)
    worlds: list[Float64[np.ndarray, "t 17 3"]] = []
    for number, own in annotation.own.items():
        camera = cameras[number]
        places = (own[:, joints] - camera.translation) @ camera.rotation
        if universal:
            shape = annotation.universal[number][:, joints]
            places = places[:, :1] + (shape - shape[:, :1]) @ camera.rotation
        worlds.append(places)
    for number, places in zip(annotation.own, worlds, strict=True):
        off = np.linalg.norm(places - worlds[0], axis=-1)
        if np.isfinite(off).any() and float(np.nanmedian(off)) > DISAGREEMENT_MM:
            raise SourceError(
                f"{path}: cameras {next(iter(annotation.own))} and {number} disagree by {np.nanmedian(off):.0f} mm "
                "about where the person is; expected millimetres in each camera's space and the camera.calibration of "
                "the same sequence: unpack both again"
            )
    return worlds[0]


def _image(path: Path) -> Image:
    try:
        return read_image(path)
    except ImageError as error:
        raise SourceError(f"{error}; unpack the test set again") from error


def _activity(number: int) -> str:
    return ACTIVITIES[number - 1] if 1 <= number <= len(ACTIVITIES) else "Not stated"
