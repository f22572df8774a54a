"""Recordings in a folder: which videos are views of the same person at the same time."""

import filecmp
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcss.data.instants import natural_order
from mcss.errors import SourceError
from mcss.video.decoding import VIDEO_SUFFIXES, Footage, probe


@dataclass(frozen=True)
class Recording:
    """All views of one sequence of one subject."""

    subject: str
    sequence: str
    views: tuple[Footage, ...]

    @property
    def name(self) -> str:
        """``subject/sequence``."""
        return f"{self.subject}/{self.sequence}"

    @property
    def count(self) -> int:
        """Images that every view has."""
        return min(view.count for view in self.views)

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.views[0].rate


def find_recordings(folder: Path, problems: list[str] | None = None) -> list[Recording]:
    """The recordings in a folder, in natural order; every file is opened.

    Args:
        folder: ``subject/sequence/view.mp4``, or the views of one recording.
        problems: Takes what is wrong with recordings that are then left out; by default it is an error.

    Raises:
        SourceError: No folder, no videos, another layout, a file that is no video: all that is wrong, at once.
    """
    faults: list[str] = []
    recordings = []
    for (subject, sequence), paths in video_files(folder).items():
        try:
            _check_names(paths, subject, sequence)
            recordings.append(Recording(subject, sequence, tuple(map(probe, paths))))
        except SourceError as problem:
            faults.append(str(problem))
    if faults and (problems is None or not recordings):
        raise SourceError("\n".join(faults))
    if problems is not None:
        problems += faults
    return recordings


def video_files(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The videos of each subject and sequence, in natural order; none is opened.

    Raises:
        SourceError: No folder, no videos, or another layout.
    """
    if not folder.is_dir():
        raise SourceError(
            f"{folder}: expected a folder of videos, {'came a file' if folder.exists() else 'there is none'}"
        )
    layout = "expected subject/sequence/view.mp4, or the views of one recording directly in the folder"
    files: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*"), key=lambda p: natural_order(str(p))):
        within = path.relative_to(folder).parts
        if path.suffix.lower() in VIDEO_SUFFIXES and not any(part.startswith(".") for part in within):
            files[within[:-1]].append(path)
    if not files:
        kinds = ", ".join(sorted(VIDEO_SUFFIXES))
        raise SourceError(f"{folder}: no videos ({kinds}) in it; {layout}")
    depths = {len(parents) for parents in files}
    if depths == {0}:
        name = folder.resolve().name or "recording"
        return {(name, name): files[()]}
    if depths != {2}:
        odd = next(path for parents, paths in files.items() for path in paths if len(parents) != 2)
        raise SourceError(f"{odd.relative_to(folder)} in {folder}: the file lies at another depth; {layout}")
    return {(subject, sequence): paths for (subject, sequence), paths in files.items()}


def _check_names(paths: Sequence[Path], subject: str, sequence: str) -> None:
    where = paths[0].parent
    for name in (subject, sequence, *(path.stem for path in paths)):
        if not name.isprintable() or name != name.strip():
            raise SourceError(
                f"{where}: the name {name!r} has characters that cannot be shown, or spaces at its ends; rename it"
            )
    if len(paths) < 2:
        raise SourceError(
            f"{where}: only one view ({paths[0].name}); two or more synchronised cameras of the same scene are needed, "
            "since mcss learns from what views of one instant have in common"
        )
    for a, b in itertools.combinations(paths, 2):
        if a.stem.casefold() == b.stem.casefold():
            raise SourceError(f"{where}: {a.name} and {b.name} are the same view twice; remove or rename one")
        if a.stat().st_size == b.stat().st_size > 0 and filecmp.cmp(a, b, shallow=False):
            raise SourceError(f"{where}: {a.name} and {b.name} hold the same video; each view needs its own camera")
