"""AIST++ as released: dances filmed by nine cameras."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.formats.units import find_up, to_z_up, turned
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.errors import SourceError
from mcss.progress import Progress
from mcss.skeletons import ROOT
from mcss.sources.aist.annotations import (
    CM,
    UP,
    VIEWS,
    dancer,
    genre,
    read_cameras,
    read_joints,
    read_mapping,
    read_names,
    seventeen,
)
from mcss.sources.aist.faults import full_size_cameras, synchronised_cameras, without_ignored
from mcss.sources.assembly import Note
from mcss.sources.distorted_camera import DistortedCamera
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
from mcss.video.reading.decoding import probe

RATE = 60.0
"""Poses per second, exactly; videos may have a slightly different rate (the download page, "Timestamps")."""

SEQUENCES = 1408
"""Number of sequences in the release, including those of the ignore list."""

SPLIT_FILES = {"train": "train", "validation": "val", "test": "test"}
"""Names of the splits in the capture and at the end of the file names."""

SPLIT_COUNTS = {
    "pose": {"train": 868, "validation": 70, "test": 470},
    "crossmodal": {"train": 980, "validation": 20, "test": 20},
}
"""Number of sequences in each split, as the release states them."""

LICENCE = "AIST++: annotations CC BY 4.0; videos by the terms of use of the AIST Dance Video Database"


@dataclass(frozen=True)
class Aist(Dataset):
    """Which cameras, instants and sequences of AIST++ are imported, and which known faults are left out."""

    name: ClassVar[str] = "aist"
    title: ClassVar[str] = "AIST++ as released"
    reads: ClassVar[str] = "the folder with keypoints3d, cameras, splits and ignore_list.txt, and perhaps videos"

    videos: Path | None = None
    """Folder of the videos; by default the folder `videos` beside the annotations, or the folder of the annotations."""
    cameras: tuple[str, ...] = VIEWS
    """Cameras to import, from c01 to c09."""
    every: int = 6
    """Take every n-th instant, of 60 per second."""
    margin: float = 1.3
    """Side of the crop box divided by the longer side of the box around all joints, which lie within the body."""
    subjects: tuple[str, ...] = ()
    """Import only these dancers, such as d04; by default all of whom there are videos."""
    sequences: tuple[str, ...] = ()
    """Import only these sequences, such as gBR_sBM_cAll_d04_mBR0_ch01; patterns such as "gBR_*" are allowed."""
    splits: Literal["pose", "crossmodal"] = "pose"
    """Which of the release's splits to use: by dancer (pose), or by music and choreography (crossmodal)."""
    smooth: bool = True
    """Use joints smoothed in time with constant bone lengths (keypoints3d_optim) instead of each frame's own."""
    leave_out_ignored: bool = True
    """Leave out the sequences of ignore_list.txt, whose joints are poorly reconstructed."""
    leave_out_of_step: bool = True
    """Leave out camera c05 of gBR_sBM_cAll_d04_mBR0_ch01, which is not synchronised."""
    leave_out_small: bool = True
    """Leave out camera c07 of gJB_sBM_cAll_d07_mJB3_ch05, whose video has another size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.cameras or not set(self.cameras) <= set(VIEWS) or len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras: expected some of {', '.join(VIEWS)}, each once, got {self.cameras}")

    def list_contents(self, folder: Path, out: str | Path, progress: Progress) -> FolderContents:
        """Find the sequences in the folder; see `Source.list_contents`."""
        mapping_file = folder / "cameras" / "mapping.txt"
        if not mapping_file.is_file():
            raise SourceError(
                f"{mapping_file}: no such file; expected the folder into which the annotations of AIST++ (fullset.zip) "
                "were unpacked, with cameras, keypoints3d, splits and ignore_list.txt"
            )
        videos = self.videos or (folder / "videos" if (folder / "videos").is_dir() else folder)
        mapping = read_mapping(mapping_file)
        names = tuple(mapping)
        if self.leave_out_ignored:
            names = without_ignored(names, read_names(folder / "ignore_list.txt"))
        splits, notes = _read_splits(folder, self.splits)
        if len(mapping) != SEQUENCES:
            notes.insert(0, f"{mapping_file}: {len(mapping)} sequences; the release has {SEQUENCES}")
        problems = self._unknown_choices(names)
        chosen = self._chosen(names)
        sequences: list[AistSequence] = []
        for name in chosen if self.subjects or self.sequences else self._of_filmed_dancers(chosen, videos):
            try:
                sequences.append(_sequence(folder, videos, name, mapping[name], self))
            except SourceError as problem:
                problems.append(str(problem))
        if not sequences and not problems:
            raise SourceError(
                f"{videos}: expected videos such as gBR_sBM_c01_d04_mBR0_ch01.mp4 of the sequences of mapping.txt, got "
                "none; download them with the release's downloader.py, or give their folder (videos)"
            )
        info = CaptureInfo(self.name, LICENCE, self.size, splits, self.content_settings("size", "sequences", "videos"))
        dancers = {sequence.subject for sequence in sequences}
        expected = {subject: sum(dancer(name) == subject for name in chosen) for subject in dancers}
        return FolderContents(sequences, info, problems, notes, expected)

    def _chosen(self, names: Sequence[str]) -> list[str]:
        """Return the sequences that the settings ask for."""
        patterns = self.sequences or ("*",)
        return [
            name
            for name in names
            if (not self.subjects or dancer(name) in self.subjects)
            and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        ]

    def _unknown_choices(self, names: Sequence[str]) -> list[str]:
        """Return a problem for each subject and pattern that fits no sequence."""
        dancers = sorted({dancer(name) for name in names})
        unknown = [
            f"subjects: there is no dancer {subject} in mapping.txt (without the ignore list); it has "
            + ", ".join(dancers)
            for subject in self.subjects
            if subject not in dancers
        ]
        return unknown + [
            f"sequences: {pattern} fits no sequence of mapping.txt (without the ignore list)"
            for pattern in self.sequences
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names)
        ]

    def _of_filmed_dancers(self, names: Sequence[str], videos: Path) -> list[str]:
        """Return the sequences of the dancers of whom there is any video."""
        filmed = {
            dancer(name) for name in names if any(_video(videos, name, camera).is_file() for camera in self.cameras)
        }
        return [name for name in names if dancer(name) in filmed]


def _read_splits(
    folder: Path, kind: Literal["pose", "crossmodal"]
) -> tuple[dict[str, tuple[Selector, ...]], list[str]]:
    """Read the splits, and note which lists are not as long as the release states."""
    splits, notes = {}, []
    for split, ending in SPLIT_FILES.items():
        path = folder / "splits" / f"{kind}_{ending}.txt"
        names = read_names(path)
        if len(names) != SPLIT_COUNTS[kind][split]:
            notes.append(f"{path}: {len(names)} sequences; the release states {SPLIT_COUNTS[kind][split]}")
        by_dancer: dict[str, list[str]] = {}
        for name in names:
            by_dancer.setdefault(dancer(name), []).append(name)
        splits[split] = tuple(Selector((subject,), tuple(names)) for subject, names in by_dancer.items())
    return splits, notes


def _sequence(folder: Path, videos: Path, name: str, setting: str, settings: Aist) -> "AistSequence":
    cameras = settings.cameras
    if settings.leave_out_of_step:
        cameras = synchronised_cameras(name, cameras)
    if settings.leave_out_small:
        cameras = full_size_cameras(name, cameras)
    if not any(_video(videos, name, camera).is_file() for camera in cameras):
        raise SourceError(
            f"{_video(videos, name, 'c..')}: no video of the cameras {', '.join(cameras)}; download them with the "
            "release's downloader.py, or choose other sequences (sequences)"
        )
    count = len(range(0, len(read_joints(_joint_file(folder, name), settings.smooth)), settings.every))
    return AistSequence(dancer(name), name, count * len(cameras), folder, videos, setting, cameras, settings)


def _video(videos: Path, name: str, camera: str) -> Path:
    return videos / f"{name.replace('cAll', camera)}.mp4"


def _joint_file(folder: Path, name: str) -> Path:
    return folder / "keypoints3d" / f"{name}.pkl"


@dataclass(frozen=True)
class AistSequence:
    """One dance."""

    subject: str
    sequence: str
    images: int
    folder: Path
    """The folder of the annotations."""
    videos: Path
    setting: str
    """How the cameras stood: the name of a file in ``cameras``."""
    cameras: tuple[str, ...]
    settings: Aist

    def frames(self, note: Note) -> Iterator[Frame]:
        """Yield the rows; see `mcss.sources.assembly.SourceSequence`."""
        settings = self.settings
        path = _joint_file(self.folder, self.sequence)
        points = read_joints(path, settings.smooth)
        poses = seventeen(points)
        check_height(str(path), poses * CM, "cm")
        _, lying = find_up(path, poses, UP, by_user=True)  # a dancer may stay on the floor throughout
        if lying:
            note(f"{path}: {lying}")
        points, poses = points * CM, to_z_up(poses * CM, UP)
        numbers = np.arange(0, len(points), settings.every)
        note_unlabelled(path, poses[numbers], note)
        views = []
        for name, camera in self._cameras().items():
            video = _video(self.videos, self.sequence, name)
            image_numbers = self._image_numbers(video, camera, numbers)
            boxes = self._boxes(camera, points)[numbers]
            crops = crops_at(video, boxes, image_numbers, RATE / settings.every, settings)
            check_end = end_of_video(video, int(image_numbers[-1]) + 1, settings.max_missing, note)
            views.append(SequenceView(name, crops, turned(camera.pinhole(), UP), check_end))
        instants = SequenceInstants(numbers, RATE, [genre(self.sequence)] * len(numbers), poses[numbers])
        yield from multi_view_rows(self, instants, views, settings.quality)

    @property
    def _camera_file(self) -> Path:
        return self.folder / "cameras" / f"{self.setting}.json"

    def _cameras(self) -> Mapping[str, DistortedCamera]:
        cameras = read_cameras(self._camera_file)
        missing = [name for name in self.cameras if name not in cameras]
        if missing:
            raise SourceError(
                f"{self._camera_file}: camera {', '.join(missing)} is missing; the file has "
                f"{', '.join(cameras) or 'none'}: unpack cameras.zip again, or choose other cameras (--cameras)"
            )
        return {name: cameras[name] for name in self.cameras}

    def _image_numbers(
        self, path: Path, camera: DistortedCamera, numbers: Int64[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " n"]:
        """Return the video's image at each instant; its rate may differ slightly from that of the poses."""
        try:
            video = probe(path)
        except SourceError as problem:
            raise SourceError(
                f"{problem} (download it again with downloader.py, or leave {camera.name} out)"
            ) from problem
        if (video.width, video.height) != camera.image_size:
            expected = "×".join(map(str, camera.image_size or ()))
            raise SourceError(
                f"{path}: expected {expected} pixels, as the calibration of {camera.name} states, got "
                f"{video.width}×{video.height}; use the video as released, or leave the camera out (--cameras)"
            )
        return np.rint(numbers / RATE * video.rate).astype(np.int64)

    def _boxes(self, camera: DistortedCamera, points: Float64[np.ndarray, "t 17 3"]) -> Float64[np.ndarray, "t 4"]:
        """Return boxes around all joints; refuse a camera that hardly sees the dancer.

        Such a camera belongs to another setting, or the joints are in other units.
        """
        pelvis = camera.pixels(seventeen(points))[:, ROOT]
        known = np.isfinite(points).all(axis=(1, 2))
        inside = np.asarray(((pelvis >= 0) & (pelvis < camera.image_size)).all(axis=1), bool)
        if inside[known].mean() < 0.5:
            raise SourceError(
                f"{self._camera_file}: camera {camera.name} sees the pelvis of {self.sequence} in only "
                f"{inside[known].mean():.0%} of the frames; expected centimetres and the setting that mapping.txt "
                "names for it: unpack cameras.zip and keypoints3d.zip again"
            )
        return without_gaps(self._camera_file, joint_boxes(camera.pixels(points)))
