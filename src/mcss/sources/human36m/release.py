"""Human3.6M: the import of a release or of an unpacked copy.

Layout: ``S1/Videos/*.mp4``, ``S1/MyPoseFeatures/D3_Positions/*.cdf`` and ``S1/MySegmentsMat/ground_truth_bb/*.mat`` as
the archives unpack, and ``metadata.xml``. The layouts of the copies are described in `mcss.sources.human36m.mirrors`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mcss.data.schema import CaptureInfo, Selector
from mcss.errors import SourceError
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.distorted_camera import DistortedCamera
from mcss.sources.held_out import train_and_validation
from mcss.sources.human36m.annotations import read_videopose3d
from mcss.sources.human36m.faults import left_out_by_videopose3d
from mcss.sources.human36m.metadata import Metadata, read_metadata
from mcss.sources.human36m.mirrors import UnpackedSequence, fetch_root, fetch_sequences, json_root, json_sequences
from mcss.sources.human36m.sequences import TEST, TRAIN, Human36MSequence, Human36MSettings, annotated_poses
from mcss.sources.source import FolderContents

LICENCE = "Human3.6M licence: academic use only, not to be passed on"

POSES = {TRAIN[:1]: 248_376 // 4, TRAIN: 1_559_752 // 4, TEST: 550_644 // 4}
"""Number of poses of subjects, by the published numbers of images of four cameras."""


@dataclass(frozen=True)
class Human36M(Human36MSettings):
    """Which images of Human3.6M are imported, how people are cropped, and which known faults are corrected."""

    name: ClassVar[str] = "human36m"
    title: ClassVar[str] = "Human3.6M as released: videos, D3_Positions, ground-truth boxes and metadata.xml"
    reads: ClassVar[str] = "the folder with S1, S5, … and metadata.xml into which the archives were unpacked"

    def list_contents(self, folder: Path, out: str | Path, progress: Progress) -> FolderContents:
        """Find the sequences in the folder; see `Source.list_contents`."""
        metadata = read_metadata(self.metadata or folder / "metadata.xml")
        subjects = self.subjects or TRAIN + TEST
        expected = {subject: sum(listed.subject == subject for listed in metadata.sequences) for subject in subjects}
        info = self._info(metadata)
        if fetch_root(folder) or json_root(folder):
            unpacked, problems = find_unpacked(folder, metadata, self, progress)
            return FolderContents(unpacked, info, problems, expected=expected)
        released, problems, notes = find_released(folder, metadata, self, progress)
        return FolderContents(released, info, problems, [*notes, *unusual_counts(released)], expected)

    def _info(self, metadata: Metadata) -> CaptureInfo:
        files = [(listed.subject, listed.file) for listed in metadata.sequences]
        splits = {**train_and_validation(TRAIN, self.validation, files), "test": (Selector(subjects=TEST),)}
        settings = self.content_settings("metadata", "clip_to_annotation")
        settings["poses"] = "D3_Positions" if self.poses is None else "VideoPose3D"
        return CaptureInfo(self.name, LICENCE, self.size, splits, settings)


def find_released(
    folder: Path, metadata: Metadata, settings: Human36MSettings, progress: Progress = NO_PROGRESS
) -> tuple[list[Human36MSequence], list[str], list[str]]:
    """Find the sequences of the release that have poses, say what is wrong with the others, and what is unusual.

    Raises:
        SourceError: The settings ask for a camera that there is not, or VideoPose3D's file cannot be read.
    """
    sequences: list[Human36MSequence] = []
    notes: list[str] = []
    subjects = settings.subjects or TRAIN + TEST
    unpacked = [subject for subject in subjects if (folder / subject).is_dir()]
    problems = [
        f"{folder / subject}: no such folder; unpack the archives of {subject} there, or choose other subjects"
        for subject in subjects
        if subject not in unpacked
    ]
    without, faults = without_annotations(folder, unpacked, settings)
    problems += faults
    available = [listed for listed in metadata.sequences if listed.subject in set(unpacked) - without]
    if settings.poses is not None:
        known = read_videopose3d(settings.poses)
        absent = [listed for listed in available if left_out_by_videopose3d(listed.subject, listed.file, known)]
        available = [listed for listed in available if listed not in absent]
        notes += [
            f"{listed.subject}/{listed.file}: left out, since VideoPose3D's preparation leaves it out of "
            f"{settings.poses.name}; the D3_Positions files have it"
            for listed in absent
        ]
    with progress.task("Reading annotations", len(available)) as task:
        for listed in available:
            cameras = _chosen_cameras(metadata.cameras[listed.subject], settings)
            try:
                length = len(annotated_poses(folder / listed.subject, listed, settings))
            except SourceError as problem:
                problems.append(str(problem))
            else:
                sequences.append(Human36MSequence(listed, folder / listed.subject, cameras, length, settings))
            task.advance()
    return sequences, problems, notes


def without_annotations(
    folder: Path, subjects: Sequence[str], settings: Human36MSettings
) -> tuple[set[str], list[str]]:
    """Find subjects who lack all poses or all boxes, and say so once for all of them instead of for each sequence."""

    def lacking(kind: str, ending: str) -> list[str]:
        return [subject for subject in subjects if not any((folder / subject / kind).glob(f"*{ending}"))]

    poses, boxes = "MyPoseFeatures/D3_Positions", "MySegmentsMat/ground_truth_bb"
    poseless = lacking(poses, ".cdf") if settings.poses is None else []
    mono = [subject for subject in poseless if (folder / subject / f"{poses}_mono").is_dir()]
    others = [subject for subject in poseless if subject not in mono]
    boxless = lacking(boxes, ".mat") if settings.boxes == "masks" else []
    found = (
        (mono, f"there is {poses}_mono, whose poses are in the space of each camera, but no {poses}, whose poses are "
               "those in the room that all cameras share: download D3 Positions, not mono, of these subjects, or give "
               "VideoPose3D's data_3d_h36m.npz with --poses"),
        (others, f"there are no poses in {poses}: unpack Poses_D3_Positions of these subjects, or give VideoPose3D's "
                 "data_3d_h36m.npz with --poses"),
        (boxless, f"there are no ground-truth boxes in {boxes}: unpack Segments_mat_gt_bb of these subjects, or take "
                  "boxes from the joints (--boxes joints)"),
    )  # fmt: skip
    return {*poseless, *boxless}, [f"{folder}, {', '.join(who)}: {text}" for who, text in found if who]


def find_unpacked(
    folder: Path, metadata: Metadata, settings: Human36MSettings, progress: Progress = NO_PROGRESS
) -> tuple[list[UnpackedSequence], list[str]]:
    """Find the sequences of an unpacked copy, and say what is wrong with the others."""
    sequences: list[UnpackedSequence] = []
    problems: list[str] = []
    subjects = settings.subjects or TRAIN + TEST
    with progress.task("Reading annotations", len(subjects)) as task:
        for subject in subjects:
            _chosen_cameras(metadata.cameras[subject], settings)
            if (root := fetch_root(folder)) is not None:
                results = list(fetch_sequences(root, subject, metadata, settings))
            else:
                results = list(json_sequences(folder, subject, metadata, settings))
            sequences += [result for result in results if isinstance(result, UnpackedSequence)]
            problems += [str(result) for result in results if isinstance(result, SourceError)]
            if not results:
                problems.append(f"{folder}: there is nothing of {subject}; add it, or choose other subjects")
            task.advance()
    return sequences, problems


def _chosen_cameras(cameras: tuple[DistortedCamera, ...], settings: Human36MSettings) -> tuple[DistortedCamera, ...]:
    known = [camera.name for camera in cameras]
    unknown = [name for name in settings.cameras if name not in known]
    if unknown:
        raise SourceError(f"cameras: expected some of {', '.join(known)}, got {', '.join(unknown)}")
    return tuple(camera for camera in cameras if camera.name in (settings.cameras or known))


def unusual_counts(sequences: Sequence[Human36MSequence]) -> list[str]:
    """Note which complete sets of subjects have another number of poses than published."""
    notes = []
    for subjects, published in POSES.items():
        complete = [sequence for sequence in sequences if sequence.subject in subjects]
        count = sum(sequence.length for sequence in complete)
        if len(complete) == 30 * len(subjects) and count != published:
            notes.append(
                f"{', '.join(subjects)}: {count:,} poses, the published counts make {published:,}; is this another "
                "release?"
            )
    return notes
