"""Dances of AIST++, nine cameras each, become sequences of a capture."""

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int64

from mcss.data.capture import CaptureInfo, Frame, Selector
from mcss.data.formats.units import find_unit, find_up, to_z_up
from mcss.errors import SourceError
from mcss.images import encode_jpeg
from mcss.progress import NO_PROGRESS, Progress
from mcss.skeletons import ROOT
from mcss.sources.aist.annotations import (
    CM,
    UP,
    VIEWS,
    Lens,
    dancer,
    genre,
    read_joints,
    read_lenses,
    read_mapping,
    read_names,
    seventeen,
)
from mcss.sources.aist.faults import full_sized, in_step, without_ignored
from mcss.sources.assembly import Assembled, Note, Part, assemble
from mcss.sources.workers import Workers
from mcss.video.crops import check_crop_settings, crops_at, joint_boxes
from mcss.video.decoding import probe

RATE = 60.0
"""Poses per second, exactly; videos may have a slightly different rate (the download page, "Timestamps")."""

MAX_MISSING = 5
"""A video may be so many images shorter than its annotation."""

SEQUENCES = 1408
"""Of the release, those of the ignore list included."""

SPLIT_FILES = {"train": "train", "validation": "val", "test": "test"}

SPLIT_COUNTS = {
    "pose": {"train": 868, "validation": 70, "test": 470},
    "crossmodal": {"train": 980, "validation": 20, "test": 20},
}
"""Sequences of each split, as the release states them."""


@dataclass(frozen=True)
class AistSettings:
    """How AIST++ becomes a capture."""

    videos: Path | None = None
    """Folder of the videos; by default `videos` within SRC, or SRC itself."""
    cameras: tuple[str, ...] = VIEWS
    """Of c01 to c09."""
    every: int = 6
    """Take every n-th instant, of 60 a second."""
    size: int = 128
    """Width and height of the crops in pixels."""
    margin: float = 1.3
    """Side of the crop over the longer side of the box around all annotated joints, which lie within the body."""
    quality: int = 90
    """JPEG quality of the crops."""
    subjects: tuple[str, ...] = ()
    """Only these dancers, such as d04; by default all of whom there are videos."""
    sequences: tuple[str, ...] = ()
    """Only these, such as gBR_sBM_cAll_d04_mBR0_ch01; patterns such as "gBR_*" are possible."""
    splits: Literal["pose", "crossmodal"] = "pose"
    """The release's splits by dancers (pose), or by music and choreography (crossmodal)."""
    smooth: bool = True
    """Joints made smooth in time and of constant bones (keypoints3d_optim) instead of those of each frame alone."""
    leave_out_ignored: bool = True
    """Leave the sequences of ignore_list.txt out: their joints are poorly reconstructed."""
    leave_out_of_step: bool = True
    """Leave camera c05 of gBR_sBM_cAll_d04_mBR0_ch01 out, which does not run in step."""
    leave_out_small: bool = True
    """Leave camera c07 of gJB_sBM_cAll_d07_mJB3_ch05 out, whose video has another size."""

    def __post_init__(self) -> None:
        if not self.cameras or not set(self.cameras) <= set(VIEWS) or len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras: expected some of {', '.join(VIEWS)}, each once, came {self.cameras}")
        check_crop_settings(self.every, self.size, self.quality, self.margin)


def import_aist(
    source: str | Path,
    out: str | Path,
    settings: AistSettings | None = None,
    progress: Progress = NO_PROGRESS,
    processes: Workers = None,
) -> Assembled:
    """Make a capture (or carry on one) of AIST++, with the set's own splits.

    Args:
        source: Folder of the annotations: ``keypoints3d``, ``cameras``, ``splits`` and ``ignore_list.txt``.
        out: The capture.
        settings: `AistSettings`; the defaults if None.
        progress: Counts images.
        processes: How many to work with, or a cluster; by default one per processor.

    Raises:
        SourceError: There is no such release in the folder, or no sequence of it could be imported.
        mcss.data.capture.CaptureError: The capture at `out` was begun with other settings or cannot be written.
    """
    settings = settings or AistSettings()
    source = Path(source)
    if not (source / "cameras" / "mapping.txt").is_file():
        raise SourceError(
            f"{source / 'cameras' / 'mapping.txt'}: no such file; expected the folder into which the annotations of "
            "AIST++ (fullset.zip) were unpacked, with cameras, keypoints3d, splits and ignore_list.txt"
        )
    videos = settings.videos or next((f for f in (source / "videos",) if f.is_dir()), source)
    mapping = read_mapping(source / "cameras" / "mapping.txt")
    names = tuple(mapping)
    if settings.leave_out_ignored:
        names = without_ignored(names, read_names(source / "ignore_list.txt"))
    splits, notes = _splits(source, settings, mapping)
    wanted, problems = _wanted(names, videos, settings)
    parts: list[Part] = []
    for name in wanted:
        try:
            parts.append(_dance(source, videos, name, mapping[name], settings))
        except SourceError as problem:
            problems.append(str(problem))
    if not parts and not problems:
        raise SourceError(
            f"{videos}: expected videos such as gBR_sBM_c01_d04_mBR0_ch01.mp4 of the sequences of mapping.txt, came "
            "none; download them with the release's downloader.py, or give their folder (videos)"
        )
    left_out = ("size", "subjects", "sequences", "videos")
    about = {name: value for name, value in asdict(settings).items() if name not in left_out}
    licence = "AIST++: annotations CC BY 4.0; videos by the terms of use of the AIST Dance Video Database"
    info = CaptureInfo("aist", licence, settings.size, splits, about)
    present = {part.subject for part in parts}
    expected = {one: sum(dancer(name) == one for name in _chosen(names, settings)) for one in present}
    done = assemble(parts, out, info, progress, processes=processes, problems=problems, expected=expected)
    return replace(done, notes=(*notes, *done.notes))


def _splits(
    source: Path, settings: AistSettings, mapping: Mapping[str, str]
) -> tuple[dict[str, tuple[Selector, ...]], list[str]]:
    """The chosen splits, and notes where lists are not as long as the release states."""
    notes = []
    if len(mapping) != SEQUENCES:
        notes.append(f"{source / 'cameras' / 'mapping.txt'}: {len(mapping)} sequences, of {SEQUENCES} of the release")
    splits = {}
    for split, ending in SPLIT_FILES.items():
        path = source / "splits" / f"{settings.splits}_{ending}.txt"
        listed = read_names(path)
        stated = SPLIT_COUNTS[settings.splits][split]
        if len(listed) != stated:
            notes.append(f"{path}: {len(listed)} sequences, of {stated} that the release states")
        by_dancer: dict[str, list[str]] = {}
        for name in listed:
            by_dancer.setdefault(dancer(name), []).append(name)
        splits[split] = tuple(Selector((subject,), tuple(names)) for subject, names in by_dancer.items())
    return splits, notes


def _chosen(names: Sequence[str], settings: AistSettings) -> list[str]:
    """Sequences that the settings ask for."""
    patterns = settings.sequences or ("*",)
    return [
        name
        for name in names
        if (not settings.subjects or dancer(name) in settings.subjects)
        and any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    ]


def _wanted(names: Sequence[str], videos: Path, settings: AistSettings) -> tuple[list[str], list[str]]:
    """Sequences to import: those asked for, or of dancers with videos; and problems with what was asked for."""
    chosen = _chosen(names, settings)
    problems = [
        f"subjects: there is no dancer {subject} in mapping.txt (less the ignore list), which has "
        + ", ".join(sorted({dancer(name) for name in names}))
        for subject in settings.subjects
        if not any(dancer(name) == subject for name in names)
    ]
    problems += [
        f"sequences: {pattern} is no sequence of mapping.txt (less the ignore list)"
        for pattern in settings.sequences
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names)
    ]
    if settings.subjects or settings.sequences:
        return chosen, problems
    there = {dancer(name) for name in chosen if any(_video(videos, name, view).is_file() for view in settings.cameras)}
    return [name for name in chosen if dancer(name) in there], problems


def _video(videos: Path, name: str, camera: str) -> Path:
    return videos / f"{name.replace('cAll', camera)}.mp4"


def _dance(source: Path, videos: Path, name: str, setting: str, settings: AistSettings) -> "Dance":
    cameras = settings.cameras
    if settings.leave_out_of_step:
        cameras = in_step(name, cameras)
    if settings.leave_out_small:
        cameras = full_sized(name, cameras)
    if not any(_video(videos, name, camera).is_file() for camera in cameras):
        raise SourceError(
            f"{_video(videos, name, 'c..')}: no video of the cameras {', '.join(cameras)}; download them with the "
            "release's downloader.py, or choose other sequences (sequences)"
        )
    count = len(range(0, len(read_joints(_joints(source, name), settings.smooth)), settings.every))
    return Dance(dancer(name), name, count * len(cameras), source, videos, setting, cameras, settings)


def _joints(source: Path, name: str) -> Path:
    return source / "keypoints3d" / f"{name}.pkl"


@dataclass(frozen=True)
class Dance:
    """One sequence."""

    subject: str
    sequence: str
    images: int
    source: Path
    videos: Path
    setting: str
    """Which cameras stood where: the name of a file in ``cameras``."""
    cameras: tuple[str, ...]
    settings: AistSettings

    def frames(self, note: Note) -> Iterator[Frame]:
        """Its rows; see `mcss.sources.assembly.Part`."""
        settings = self.settings
        path = _joints(self.source, self.sequence)
        points = read_joints(path, settings.smooth)
        poses = seventeen(points)
        find_unit(path, poses, "cm")
        _, lies = find_up(path, poses, UP, by_user=True)  # a dancer may be on the floor all the time
        if lies:
            note(f"{path}: {lies}")
        points, poses = points * CM, to_z_up(poses * CM, UP)
        numbers = np.arange(0, len(points), settings.every)
        unknown = int((~np.isfinite(poses[numbers]).all(axis=(1, 2))).sum())
        if unknown:
            note(f"{path}: {unknown} of {len(numbers)} poses are not whole; those images have no label")
        lenses = self._lenses()
        taken = {name: self._images(name, lens, numbers) for name, lens in lenses.items()}
        views = {
            name: crops_at(
                _video(self.videos, self.sequence, name),
                self._boxes(name, lens, points)[numbers],
                taken[name],
                RATE / settings.every,
                settings.margin,
                settings.size,
            )
            for name, lens in lenses.items()
        }
        for index, number in enumerate(numbers.tolist()):
            pose = poses[number]
            for name in list(views):
                crop = next(views[name], None)
                if crop is None:
                    self._ended(name, index, taken[name], note)
                    del views[name]
                    continue
                yield Frame(
                    subject=self.subject,
                    sequence=self.sequence,
                    action=genre(self.sequence),
                    frame=number,
                    time=number / RATE,
                    view=name,
                    image=encode_jpeg(crop[0], settings.quality),
                    box=crop[1],
                    pose=pose if np.isfinite(pose).all() else None,
                    camera=lenses[name].camera(),
                )

    def _lenses(self) -> dict[str, Lens]:
        path = self.source / "cameras" / f"{self.setting}.json"
        lenses = read_lenses(path)
        absent = [name for name in self.cameras if name not in lenses]
        if absent:
            raise SourceError(
                f"{path}: camera {', '.join(absent)} is missing; it has {', '.join(lenses) or 'none'}: unpack "
                "cameras.zip again or choose other cameras (cameras)"
            )
        return {name: lenses[name] for name in self.cameras}

    def _images(self, name: str, lens: Lens, numbers: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The image of the video at each instant: its rate may differ slightly from that of the poses."""
        path = _video(self.videos, self.sequence, name)
        try:
            video = probe(path)
        except SourceError as problem:
            raise SourceError(f"{problem} (download it again with downloader.py, or leave {name} out)") from problem
        if (video.width, video.height) != (lens.width, lens.height):
            raise SourceError(
                f"{path}: expected {lens.width}×{lens.height} pixels, as its camera has, came "
                f"{video.width}×{video.height}; use the video as released, or leave the camera out (cameras)"
            )
        return np.rint(numbers / RATE * video.rate).astype(np.int64)

    def _boxes(self, name: str, lens: Lens, points: Float64[np.ndarray, "t 17 3"]) -> Float64[np.ndarray, "t 4"]:
        """Boxes around all joints; an error if the camera hardly sees the dancer: another setting, or other units."""
        path = self.source / "cameras" / f"{self.setting}.json"
        pixels = lens.pixels(points)
        hips = lens.pixels(seventeen(points))[:, ROOT]
        known = np.isfinite(points).all(axis=(1, 2))
        inside = np.asarray(((hips >= 0) & (hips < (lens.width, lens.height))).all(axis=1), bool)
        if inside[known].mean() < 0.5:
            raise SourceError(
                f"{path}: camera {name} sees the pelvis of {self.sequence} in only {inside[known].mean():.0%} of the "
                "instants; expected centimetres and the setting that mapping.txt names for it: unpack cameras.zip and "
                "keypoints3d.zip again"
            )
        return joint_boxes(path, pixels)

    def _ended(self, name: str, index: int, taken: Int64[np.ndarray, " n"], note: Note) -> None:
        path = _video(self.videos, self.sequence, name)
        if taken[-1] - taken[index] >= MAX_MISSING:
            raise SourceError(
                f"{path}: expected {taken[-1] + 1} images or more, as there are poses, came at most {taken[index]}; "
                "the video is damaged or was cut short: download it again with downloader.py, or leave the camera out "
                "(cameras)"
            )
        note(f"{path}: the video ends before image {taken[index]} of {taken[-1] + 1}; the other views go on")
