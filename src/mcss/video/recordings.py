"""Recordings in a folder: which videos show the same person at the same time."""

import filecmp
import itertools
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcss.data.instants import natural_order
from mcss.errors import SourceError, damage_as
from mcss.video.reading.chapters import is_later_chapter
from mcss.video.reading.decoding import VIDEO_SUFFIXES, VideoFile, probe
from mcss.video.reading.image_sequences import RATE, is_image_sequence, not_numbered

BESIDE_VIDEOS = frozenset(
    {".json", ".toml", ".txt", ".md", ".csv", ".yaml", ".yml", ".ini", ".log", ".xml", ".db", ".lnk", ".png", ".jpg"}
    | {".jpeg", ".pdf", ".wav", ".thm", ".lrv", ".srt", ".npz", ".npy", ".c3d", ".trc", ".bvh", ".zip", ".html"}
)
"""Endings of files that may lie beside videos without being taken for views that were forgotten."""

_LABEL_SUFFIXES = frozenset({".trc", ".c3d", ".bvh"})
"""Endings of files that hold nothing but 3D positions or motion."""

_SHEETS = frozenset({".xlsx", ".xls", ".ods"})

SPLIT_CLIPS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<take>DJI_)(\d{14}_)?(?P<number>\d{4})(_\w)?\.\w+",  # DJI_0001.MP4, DJI_20240101120000_0001_D.MP4
        r"(?P<take>DJI_\d{4}_)(?P<number>\d{3})\.\w+",  # DJI_0001_001.MP4
        r"(?P<take>)(?P<number>\d{4,})\.(mts|m2ts)",  # AVCHD: 00001.MTS
        r"(?P<take>C|MVI_|IMG_|DSC_|DSCN|DSCF|MAH)(?P<number>\d{4,5})\.\w+",  # Sony, Canon, phones, Nikon, Fujifilm
        r"(?P<take>(VID|LRV|PRO_VID)_\d{8}_\d{6}_\d\d_)(?P<number>\d{3})\.\w+",  # Insta360: VID_…_00_001.mp4
        r"(?P<take>G[HX])(?P<number>[A-Z]{2})\d{4}\.\w+",  # GoPro's looping: GXAA0001.MP4
    )
)
"""Names of the clips into which cameras split a long take."""

ViewName = tuple[str, str, str]
"""Subject, sequence, view."""


@dataclass(frozen=True)
class Recording:
    """All views of one sequence of one subject."""

    subject: str
    sequence: str
    views: tuple[VideoFile, ...]

    @property
    def name(self) -> str:
        """``subject/sequence``."""
        return f"{self.subject}/{self.sequence}"

    @property
    def count(self) -> int:
        """Number of images that every view has."""
        return min(view.count for view in self.views)

    @property
    def rate(self) -> float:
        """Images per second of the first view."""
        return self.views[0].rate


def find_recordings(folder: Path, problems: list[str] | None = None, image_rate: float = RATE) -> list[Recording]:
    """Find the recordings in a folder, in natural order; every file is opened.

    Args:
        folder: ``subject/sequence/view.mp4``, or the views of one recording; a view may be a folder of images.
        problems: Receives what is wrong with recordings, which are then left out; if None, that is an error.
        image_rate: Images per second of views that are folders of images.

    Raises:
        SourceError: There is no folder, or no video in it, the layout is another one, or a file is not a video; the
            message lists everything that is wrong.
    """
    faults: list[str] = []
    recordings = []
    for (subject, sequence), paths in video_files(folder).items():
        try:
            _check_names(paths, subject, sequence)
            recordings.append(Recording(subject, sequence, tuple(_probed(path, image_rate) for path in paths)))
        except SourceError as problem:
            faults.append(str(problem))
    if faults and (problems is None or not recordings):
        raise SourceError("\n".join(faults))
    if problems is not None:
        problems += faults
    return recordings


def left_out_notes(folder: Path) -> list[str]:
    """Return notes on what is left out of a folder of videos: files of other kinds, labels of other names, images."""
    notes, files, labels, sheets = list[str](), list[str](), list[str](), list[str]()
    for path in everything_in(folder):
        within, suffix = path.relative_to(folder), path.suffix.lower()
        if any(part.startswith(".") for part in within.parts):
            continue
        if path.is_dir():
            if (problem := not_numbered(path)) is not None:
                notes.append(problem)
        elif not path.is_file():  # a broken link
            continue
        elif path.stem.lower() == "poses":
            if suffix in _SHEETS:
                sheets.append(f"{path}: not read; save it as poses.csv for labels")
        elif suffix in _LABEL_SUFFIXES:
            labels.append(str(within))
        elif suffix not in VIDEO_SUFFIXES | BESIDE_VIDEOS:
            files.append(str(within))
    if labels:
        notes.append(
            f"{folder}: not read as labels: {_some(labels)}; 3D labels of a recording lie beside its videos as "
            "poses.trc, poses.c3d and so on"
        )
    notes += sheets
    if files:
        notes.append(
            f"{folder}: left out, as their endings are not those of videos: {_some(files)}; convert them to mp4 if "
            "they are views"
        )
    return notes


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def everything_in(folder: Path) -> list[Path]:
    """Return all files and folders within a folder, in natural order; links are followed, but not round in circles."""
    found, seen = list[Path](), {folder.resolve()}
    for place, folders, files in os.walk(folder, followlinks=True):
        targets = {name: Path(place, name).resolve() for name in folders}
        folders[:] = [name for name in folders if targets[name] not in seen]
        seen.update(targets[name] for name in folders)
        found += [Path(place, name) for name in (*folders, *files)]
    return sorted(found, key=lambda path: natural_order(str(path)))


def _probed(path: Path, image_rate: float) -> VideoFile:
    with damage_as(SourceError, lambda why: f"{path}: cannot be read as a video ({why}); copy it again, or remove it"):
        return probe(path, image_rate)


def video_files(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """List the videos of each subject and sequence, in natural order, without opening them.

    Raises:
        SourceError: There is no folder, or no video in it, or the layout is another one.
    """
    if not folder.is_dir():
        found = "got a file" if folder.exists() else "but there is no such folder"
        raise SourceError(f"{folder}: expected a folder of videos, {found}")
    layout = (
        "expected subject/sequence/view.mp4, or the views of one recording directly in the folder; a folder of "
        "numbered images may be a view too"
    )
    files: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in everything_in(folder):
        within = tuple(unicodedata.normalize("NFC", part) for part in path.relative_to(folder).parts)
        hidden = any(part.startswith(".") for part in within)
        video = path.suffix.lower() in VIDEO_SUFFIXES and not is_later_chapter(path)
        if not hidden and (video or is_image_sequence(path)):
            files[within[:-1]].append(path)
    if not files:
        for path in (folder, *everything_in(folder)):
            if (problem := not_numbered(path)) is not None:
                raise SourceError(problem)
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise SourceError(f"{folder}: there are no videos ({kinds}) in it; {layout}")
    depths = {len(parents) for parents in files}
    if depths == {0}:
        name = unicodedata.normalize("NFC", folder.resolve().name) or "recording"
        return {(name, name): files[()]}
    if depths != {2}:
        misplaced = next(path for parents, paths in files.items() for path in paths if len(parents) != 2)
        raise SourceError(f"{misplaced.relative_to(folder)} in {folder}: the file lies at another depth; {layout}")
    return {(subject, sequence): paths for (subject, sequence), paths in files.items()}


def _check_names(paths: Sequence[Path], subject: str, sequence: str) -> None:
    folder = paths[0].parent
    for name in (subject, sequence, *(path.stem for path in paths)):
        if not name.isprintable() or name != name.strip():
            raise SourceError(
                f"{folder}: the name {name!r} has unprintable characters, or spaces at its ends; rename it"
            )
    if len(paths) < 2:
        raise SourceError(
            f"{folder}: expected two or more synchronised views of the same scene, got only {paths[0].name}; mcss "
            "learns from what the views of one instant have in common"
        )
    _check_not_clips_of_one_camera(paths)
    for a, b in itertools.combinations(paths, 2):
        if a.stem.casefold() == b.stem.casefold():
            raise SourceError(f"{folder}: {a.name} and {b.name} are the same view twice; remove or rename one")
        if a.stat().st_size == b.stat().st_size > 0 and filecmp.cmp(a, b, shallow=False):
            raise SourceError(f"{folder}: {a.name} and {b.name} hold the same video; each view needs its own camera")


def _check_not_clips_of_one_camera(paths: Sequence[Path]) -> None:
    """Refuse clips that one camera seems to have recorded one after the other, such as DJI_0001 and DJI_0002.

    Many cameras split long takes into such clips.
    """
    for pattern in SPLIT_CLIPS:
        parts = {path: part for path in paths if (part := pattern.fullmatch(path.name)) is not None}
        numbers = {path: (part["take"].upper(), _clip_number(part["number"])) for path, part in parts.items()}
        following = {(take, number + step) for take, number in numbers.values() for step in (-1, 1)}
        clips = [path.name for path, number in numbers.items() if number in following]
        if not clips:
            continue
        raise SourceError(
            f"{paths[0].parent}: {', '.join(clips)} are numbered like clips that one camera recorded one after the "
            "other; if they are parts of one take, join them without encoding them again (ffmpeg -f concat -safe 0 -i "
            "LIST -c copy left.mp4, where LIST has a line file 'NAME' for each part); if they are views, name them "
            "after the cameras"
        )


def _clip_number(text: str) -> int:
    """Read digits, or the letters AA, AB and so on."""
    return int(text) if text.isdigit() else int(text, 36)
