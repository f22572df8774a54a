"""MPI-INF-3DHP as released: sequences filmed by fourteen cameras, and a test set filmed by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.cameras import Camera
from mcss.data.formats.units import Up, find_up, to_z_up, turned
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.errors import ImageError, SourceError
from mcss.images import Image, read_image
from mcss.progress import Progress
from mcss.sources.assembly import Note, SourceSequence
from mcss.sources.held_out import train_and_validation
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
from mcss.sources.mpi_inf_3dhp.faults import annotated_frames, is_flash, may_end_early, with_sides_corrected
from mcss.sources.rows import (
    SequenceInstants,
    SequenceView,
    check_height,
    end_of_video,
    multi_view_rows,
    note_unlabelled,
)
from mcss.sources.scenes import Background, SceneSamples, backgrounds_of
from mcss.sources.source import Dataset, FolderContents
from mcss.video.boxes import steady_crop_boxes
from mcss.video.crops import Crop, crop_of, crops_at, joint_boxes, without_gaps

CHEST_HEIGHT = (0, 2, 4, 7, 8)
"""The cameras at chest height."""

SEQUENCES = {
    ("S1", "Seq1"): (25.0, 6416),
    ("S1", "Seq2"): (50.0, 12430),
    ("S2", "Seq1"): (25.0, 6502),
    ("S2", "Seq2"): (25.0, 6081),
    ("S3", "Seq1"): (50.0, 12488),
    ("S3", "Seq2"): (50.0, 12283),
    ("S4", "Seq1"): (25.0, 6171),
    ("S4", "Seq2"): (25.0, 6675),
    ("S5", "Seq1"): (50.0, 12820),
    ("S5", "Seq2"): (50.0, 12312),
    ("S6", "Seq1"): (25.0, 6188),
    ("S6", "Seq2"): (25.0, 6145),
    ("S7", "Seq1"): (25.0, 6239),
    ("S7", "Seq2"): (25.0, 6320),
    ("S8", "Seq1"): (25.0, 6468),
    ("S8", "Seq2"): (25.0, 6054),
}
"""Images per second and number of frames of each sequence, as the release states them."""

TEST_SUBJECTS = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6")
TEST_RATE = 25.0
"""Images per second of the test set. The release does not state it."""
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
"""If cameras disagree by more than this about the position of a joint, annotation and calibration do not match."""

SPLITS = {"train": ("S1", "S2", "S3", "S4", "S5", "S6"), "test": ("S7", "S8"), "ts": TEST_SUBJECTS}


@dataclass(frozen=True)
class MpiInf3dhp(Dataset):
    """Which cameras, frames and poses of MPI-INF-3DHP are imported, and which known faults are corrected.

    Splits: ``train`` is S1–S6, ``test`` is S7–S8, and ``ts`` is the test set TS1–TS6, as far as they are there. The
    poses of the test set are those of its single camera, which is taken as level, so their up axis is only nearly that
    of the world.
    """

    name: ClassVar[str] = "mpi-inf-3dhp"
    title: ClassVar[str] = "MPI-INF-3DHP as released"
    reads: ClassVar[str] = "the folder with S1 to S8, and TS1 to TS6 or mpi_inf_3dhp_test_set"

    cameras: tuple[int, ...] = CHEST_HEIGHT
    """Cameras to import, from 0 to 13; by default those at chest height."""
    size: int = 256
    """Width and height of the crops in pixels; the recipe paper makes its 224 of them."""
    every: int = 5
    """Take every n-th frame of S1 to S8; of the test set, all valid frames are taken."""
    margin: float = 1.3
    """Side of the crop box divided by the longer side of the box around all joints, which lie within the body."""
    subjects: tuple[str, ...] = ()
    """Import only these subjects, such as S1 S7 TS1; by default all that are there."""
    validation: tuple[str, ...] = ()
    """Hold these training subjects, such as S6, or sequences, such as S6/Seq1, out for the split validation, on which
    `mcss reproduce` chooses settings and learning curves are drawn. The paper has none."""
    backgrounds: bool = True
    """Also keep the empty scene of each camera and sequence, the median of images spread over it, which the method
    rhodin_eccv18 needs."""
    universal: bool = False
    """Use poses on the data set's universal skeleton (univ_annot3) instead of the person's own."""
    up: Up = "y"
    """The world's up axis before it is turned to +Z; checked against the people."""
    put_sides_right: bool = True
    """Exchange left and right in frames 3759 to 5852 of S4/Seq2, where the release has them exchanged."""
    short_video: bool = True
    """Let camera 2 of S6/Seq2 end early; otherwise this sequence fails."""
    clip_annotation: bool = True
    """Use no more annotations than the release states frames (S3/Seq1 has one too many)."""
    drop_flashes: bool = True
    """Leave out nearly white images, in which a flash went off."""

    def __post_init__(self) -> None:
        super().__post_init__()
        every_camera = range(CAMERAS)
        if not self.cameras or len(set(self.cameras)) < len(self.cameras) or not set(self.cameras) <= set(every_camera):
            raise ValueError(f"cameras: expected some of 0 to {CAMERAS - 1}, each once, got {self.cameras}")
        known = (*dict.fromkeys(subject for subject, _ in SEQUENCES), *TEST_SUBJECTS)
        unknown = [subject for subject in self.subjects if subject not in known]
        if unknown:
            raise ValueError(f"subjects: expected some of {', '.join(known)}, got {', '.join(unknown)}")

    def list_contents(self, folder: Path, out: str | Path, progress: Progress) -> FolderContents:
        """Find the sequences in the folder; see `Source.list_contents`."""
        problems: list[str] = []
        sequences = [*self._training_sequences(folder, problems), *self._test_sequences(folder, problems)]
        if not sequences:
            raise SourceError(
                "\n".join(problems)
                or f"{folder}: expected the release of MPI-INF-3DHP with the folders S1/Seq1 … S8/Seq2 or TS1 … TS6, "
                "got none of them; give the folder in which they lie"
            )
        info = CaptureInfo(
            importer=self.name,
            licence="MPI-INF-3DHP: non-commercial research only",
            image_size=self.size,
            splits={
                **{name: (Selector(subjects=subjects),) for name, subjects in SPLITS.items()},
                **train_and_validation(SPLITS["train"], self.validation, SEQUENCES),
            },
            settings=self.content_settings("size", "validation", "backgrounds"),
            outfits=("Seq1*", "Seq2*"),  # every subject changes clothes between the two
        )
        subjects = {sequence.subject for sequence in sequences}
        expected = {subject: 1 if subject in TEST_SUBJECTS else 2 for subject in subjects}
        return FolderContents(sequences, info, problems, expected=expected)

    def _training_sequences(self, folder: Path, problems: list[str]) -> Iterator[SourceSequence]:
        """Yield the sequences of S1 to S8; what is missing goes to `problems`."""
        for (subject, sequence), (_, stated) in SEQUENCES.items():
            wanted = subject in self.subjects if self.subjects else (folder / subject).is_dir()
            if not wanted:
                continue
            path = folder / subject / sequence
            if path.is_dir():
                images = len(range(0, stated, self.every)) * len(self.cameras)
                yield MpiSequence(subject, sequence, images, path, self)
            else:
                problems.append(
                    f"{path}: no such folder; unpack {sequence} of {subject}, or leave {subject} out (--subjects)"
                )

    def _test_sequences(self, folder: Path, problems: list[str]) -> Iterator[SourceSequence]:
        """Yield the sequences of the test set; what is missing goes to `problems`."""
        for subject in TEST_SUBJECTS:
            if self.subjects and subject not in self.subjects:
                continue
            candidates = (folder / parent / subject for parent in TEST_FOLDERS)
            path = next((candidate for candidate in candidates if candidate.is_dir()), None)
            if path is None:
                if self.subjects:
                    problems.append(
                        f"{folder / subject}: no such folder; unpack the test set, or leave {subject} out (--subjects)"
                    )
                continue
            try:
                valid = int(read_test_annotation(path / "annot_data.mat").valid.sum())
                yield MpiTestSequence(subject, "test", max(valid, 1), path, self)
            except SourceError as problem:
                problems.append(str(problem))


@dataclass(frozen=True)
class MpiSequence:
    """One sequence of S1 to S8."""

    subject: str
    sequence: str
    images: int
    folder: Path
    settings: MpiInf3dhp

    def frames(self, note: Note) -> Iterator[Frame | Background]:
        """Yield the rows and the empty scenes; see `mcss.sources.assembly.SourceSequence`."""
        settings = self.settings
        rate, stated = SEQUENCES[self.subject, self.sequence]
        path = self.folder / "annot.mat"
        annotation = read_annotation(path, settings.cameras)
        count = annotated_frames(stated, len(annotation)) if settings.clip_annotation else len(annotation)
        if len(annotation) < stated:
            note(f"{path}: {len(annotation)} frames are annotated, the release has {stated}; the others are left out")
        cameras = self._cameras()
        poses = world_poses(path, annotation, cameras, settings.universal)[:count]
        check_height(str(path), poses)
        find_up(path, poses, settings.up)
        numbers = np.arange(0, count, settings.every)
        poses = to_z_up(poses, settings.up)[numbers]
        if settings.put_sides_right:
            poses = with_sides_corrected(self.subject, self.sequence, poses, numbers)
        note_unlabelled(path, poses, note)
        views, scenes = [], dict[str, SceneSamples]()
        for number in settings.cameras:
            video = self.folder / "imageSequence" / f"video_{number}.avi"
            boxes = without_gaps(path, joint_boxes(annotation.pixels[number][:count]))[numbers]
            scenes[str(number)] = samples = SceneSamples(len(numbers))
            look = partial(_looked_at, samples, settings.drop_flashes)
            crops = crops_at(video, boxes, numbers, rate / settings.every, settings, look)
            known_to_be_short = settings.short_video and may_end_early(self.subject, self.sequence, number)
            check_end = end_of_video(video, count, count if known_to_be_short else settings.max_missing, note)
            views.append(SequenceView(str(number), crops, turned(cameras[number], settings.up), check_end))
        instants = SequenceInstants(numbers, rate, [self.sequence] * len(numbers), poses)
        yield from multi_view_rows(self, instants, views, settings.quality)
        if settings.backgrounds:
            yield from backgrounds_of(scenes)

    def _cameras(self) -> dict[int, Camera]:
        path = self.folder / "camera.calibration"
        cameras = read_calibration(path)
        missing = [str(number) for number in self.settings.cameras if number not in cameras]
        if missing:
            raise SourceError(
                f"{path}: camera {', '.join(missing)} is missing; the file has {', '.join(map(str, sorted(cameras)))}: "
                "unpack it again, or choose other cameras (--cameras)"
            )
        return cameras


@dataclass(frozen=True)
class MpiTestSequence:
    """One sequence of the test set, seen by one camera."""

    subject: str
    sequence: str
    images: int
    folder: Path
    settings: MpiInf3dhp

    def frames(self, note: Note) -> Iterator[Frame]:
        """Yield the rows; see `mcss.sources.assembly.SourceSequence`."""
        path = self.folder / "annot_data.mat"
        annotation = read_test_annotation(path)
        in_camera = annotation.universal if self.settings.universal else annotation.own
        numbers = np.flatnonzero(annotation.valid)
        if not len(numbers):
            raise SourceError(f"{path}: no frame is valid (valid_frame); unpack the test set again")
        poses = to_z_up(in_camera[:, seventeen(TEST_JOINTS_17)], "-y")[numbers]
        check_height(str(path), poses)
        find_up(path, poses, "z")
        boxes = without_gaps(path, joint_boxes(annotation.pixels[numbers]))
        actions = [_activity(number) for number in annotation.activity[numbers].tolist()]
        view = SequenceView("test", self._crops(numbers, boxes, note))
        instants = SequenceInstants(numbers, TEST_RATE, actions, poses)
        yield from multi_view_rows(self, instants, [view], self.settings.quality)

    def _crops(
        self, numbers: Int64[np.ndarray, " n"], boxes: Float64[np.ndarray, "n 4"], note: Note
    ) -> Iterator[Crop | None]:
        for number, box in zip(numbers.tolist(), boxes, strict=True):
            path = self.folder / "imageSequence" / f"img_{number + 1:06d}.jpg"
            try:
                image = read_image(path)
            except ImageError as error:
                raise SourceError(f"{error}; unpack the test set again") from error
            if self.settings.drop_flashes and is_flash(image):
                note(f"{path}: nearly white, so it is left out")
                yield None
                continue
            height, width = image.shape[:2]
            crop_box = steady_crop_boxes(box[None], TEST_RATE, self.settings.margin, width, height)[0]
            yield crop_of(path, image, crop_box, self.settings.size)


def _looked_at(samples: SceneSamples, drop_flashes: bool, index: int, image: Image) -> bool:
    """Return whether a whole image is to be cropped, and keep it for the empty scene where it is one of those."""
    if drop_flashes and is_flash(image):
        return False
    samples.see(index, image)
    return True


def world_poses(
    path: Path, annotation: Annotation, cameras: dict[int, Camera], universal: bool
) -> Float64[np.ndarray, "t 17 3"]:
    """Return the 17 joints in the world of the calibration, as the first camera has them: X = Rᵀ(x − t).

    The universal skeleton is placed with its pelvis where the person's is, as the data set scales it about each
    camera.

    Raises:
        SourceError: Cameras disagree about where the person is.
    """
    joints = seventeen(JOINTS_28)
    worlds: list[Float64[np.ndarray, "t 17 3"]] = []
    for number, in_camera in annotation.own.items():
        camera = cameras[number]
        world = (in_camera[:, joints] - camera.translation) @ camera.rotation
        if universal:
            shape = annotation.universal[number][:, joints]
            world = world[:, :1] + (shape - shape[:, :1]) @ camera.rotation
        worlds.append(world)
    for number, world in zip(annotation.own, worlds, strict=True):
        distance = np.linalg.norm(world - worlds[0], axis=-1)
        if np.isfinite(distance).any() and float(np.nanmedian(distance)) > DISAGREEMENT_MM:
            raise SourceError(
                f"{path}: cameras {next(iter(annotation.own))} and {number} disagree by "
                f"{np.nanmedian(distance):.0f} mm about where the person is; expected millimetres in each camera's "
                "space and the camera.calibration of the same sequence: unpack both again"
            )
    return worlds[0]


def _activity(number: int) -> str:
    return ACTIVITIES[number - 1] if 1 <= number <= len(ACTIVITIES) else "Not stated"
