"""Human3.6M as released → capture.

Layout: ``S1/Videos/*.mp4``, ``S1/MyPoseFeatures/D3_Positions/*.cdf`` and ``S1/MySegmentsMat/ground_truth_bb/*.mat``
as the archives unpack, and ``metadata.xml``.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mcss.data.capture import CaptureInfo, Selector
from mcss.errors import SourceError
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.assembly import Assembled, assemble
from mcss.sources.human36m.metadata import Lens, Metadata, read_metadata
from mcss.sources.human36m.mirrors import ImagesPart, fetch_root, fetch_takes, json_root, json_takes
from mcss.sources.human36m.sequences import TEST, TRAIN, Human36MSettings, TakePart, take_poses
from mcss.sources.workers import Workers

LICENCE = "Human3.6M licence: academic use only, not to be passed on"

POSES = {TRAIN[:1]: 248_376 // 4, TRAIN: 1_559_752 // 4, TEST: 550_644 // 4}
"""Poses of one camera that the set has by its published numbers of images."""


WITHOUT_EFFECT = ("subjects", "metadata", "clip_to_annotation", "max_missing")
"""Settings that decide which takes are there but not what is in them: later calls may change them."""


def import_human36m(
    folder: str | Path,
    out: str | Path,
    settings: Human36MSettings | None = None,
    progress: Progress = NO_PROGRESS,
    *,
    processes: Workers = None,
) -> Assembled:
    """Make a capture (or carry on one) of Human3.6M as released.

    A take whose files are at fault does not end the import; it is told at the end, and tried again by the next call.

    Args:
        folder: Where the archives were unpacked: it has S1, S5, … and metadata.xml.
        out: The capture.
        settings: `Human36MSettings`; the defaults if None.
        progress: Told of every take.
        processes: How many to work with, or a cluster; by default one per processor.

    Raises:
        SourceError: Nothing can be imported; the message says why.
        mcss.data.capture.CaptureError: The capture at `out` was begun with other settings or cannot be written.
    """
    settings = settings or Human36MSettings()
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: expected the folder with S1, S5, … of Human3.6M, "
            f"{'came a file' if folder.exists() else 'there is none'}"
        )
    metadata = read_metadata(settings.metadata or folder / "metadata.xml")
    subjects = settings.subjects or TRAIN + TEST
    parts: list[TakePart] | list[ImagesPart]
    if fetch_root(folder) or json_root(folder):
        parts, problems = find_images(folder, metadata, settings, progress)
    else:
        parts, problems = find_takes(folder, metadata, settings, progress)
    expected = {subject: sum(take.subject == subject for take in metadata.takes) for subject in subjects}
    done = assemble(parts, out, _info(settings), progress, processes=processes, problems=problems, expected=expected)
    whole = [part for part in parts if isinstance(part, TakePart)]
    return replace(done, notes=(*_unusual_counts(whole), *done.notes))


def find_takes(
    folder: Path, metadata: Metadata, settings: Human36MSettings, progress: Progress = NO_PROGRESS
) -> tuple[list[TakePart], list[str]]:
    """The takes that can be begun, their poses being there, and what is wrong with the others.

    Raises:
        SourceError: A camera that is not the set's is asked for.
    """
    parts: list[TakePart] = []
    problems: list[str] = []
    subjects = settings.subjects or TRAIN + TEST
    for subject in subjects:
        if not (folder / subject).is_dir():
            problems.append(
                f"{folder / subject}: no such folder; unpack the archives of {subject} there, or choose other subjects"
            )
    takes = [take for take in metadata.takes if take.subject in subjects and (folder / take.subject).is_dir()]
    with progress.task("Reading annotations", len(takes)) as task:
        for take in takes:
            cameras = _cameras(metadata.lenses[take.subject], settings)
            try:
                length = len(take_poses(folder / take.subject, take, settings))
            except SourceError as problem:
                problems.append(str(problem))
            else:
                parts.append(TakePart(take, folder / take.subject, cameras, length, settings))
            task.advance()
    return parts, problems


def find_images(
    folder: Path, metadata: Metadata, settings: Human36MSettings, progress: Progress = NO_PROGRESS
) -> tuple[list[ImagesPart], list[str]]:
    """The takes of a copy with images instead of videos (`mcss.sources.human36m.mirrors`), and what is wrong."""
    parts: list[ImagesPart] = []
    problems: list[str] = []
    subjects = settings.subjects or TRAIN + TEST
    with progress.task("Reading annotations", len(subjects)) as task:
        for subject in subjects:
            _cameras(metadata.lenses[subject], settings)
            if (root := fetch_root(folder)) is not None:
                found = list(fetch_takes(root, subject, metadata, settings))
            else:
                found = list(json_takes(folder, subject, metadata, settings))
            parts += [take for take in found if isinstance(take, ImagesPart)]
            problems += [str(problem) for problem in found if isinstance(problem, SourceError)]
            if not found:
                problems.append(f"{folder}: there is nothing of {subject}; add it, or choose other subjects")
            task.advance()
    return parts, problems


def _cameras(lenses: tuple[Lens, ...], settings: Human36MSettings) -> tuple[Lens, ...]:
    known = [lens.name for lens in lenses]
    unknown = [name for name in settings.cameras if name not in known]
    if unknown:
        raise SourceError(f"cameras {', '.join(unknown)}: expected some of {', '.join(known)}")
    return tuple(lens for lens in lenses if lens.name in (settings.cameras or known))


def _info(settings: Human36MSettings) -> CaptureInfo:
    splits = {"train": (Selector(subjects=TRAIN),), "test": (Selector(subjects=TEST),)}
    about = {name: value for name, value in asdict(settings).items() if name not in WITHOUT_EFFECT}
    about["poses"] = "D3_Positions" if settings.poses is None else "VideoPose3D"
    return CaptureInfo("human36m", LICENCE, settings.size, splits, about)


def _unusual_counts(parts: Sequence[TakePart]) -> list[str]:
    """Where the annotation of whole subjects has another length than the set's published counts."""
    notes = []
    for subjects, published in POSES.items():
        own = [part for part in parts if part.subject in subjects]
        if len(own) == 30 * len(subjects) and (found := sum(part.length for part in own)) != published:
            names = ", ".join(subjects)
            notes.append(
                f"{names}: {found:,} poses, the published counts make {published:,}; is the release another one?"
            )
    return notes
