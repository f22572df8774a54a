"""A source of captures: a kind of folder that `mcss import` reads, and the settings with which it does.

To add a source, write its file or folder beside this one and add its class to `mcss.sources.registry.SOURCES`. The
source lists the sequences of a folder (`SourceSequence`), each of which yields its rows; several processes,
resuming and the report of failures are the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mcss.data.capture import Capture
from mcss.data.schema import CaptureInfo
from mcss.errors import SourceError
from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.assembly import ImportResult, SourceSequence, assemble
from mcss.video.crops import CropSettings
from mcss.workers import Workers


@dataclass(frozen=True)
class FolderContents:
    """What a source found in a folder before any image was read."""

    sequences: Sequence[SourceSequence]
    """Sequences to import; their order decides which are imported first."""
    info: CaptureInfo
    """Name, licence, splits and settings of the capture."""
    problems: Sequence[str] = ()
    """Why other sequences cannot be imported."""
    notes: Sequence[str] = ()
    """What is unusual about the folder."""
    expected: Mapping[str, int] | None = None
    """Number of sequences that each subject should have; by default the number found."""


@dataclass(frozen=True)
class Source(CropSettings, ABC):
    """A kind of folder that `mcss import` reads, and the settings with which it does.

    Subclasses are frozen dataclasses whose fields are the options of `mcss import NAME`. They state the three class
    variables and implement `list_contents`.
    """

    name: ClassVar[str]
    """NAME in `mcss import NAME`, and the importer that a capture states."""
    title: ClassVar[str]
    """What is imported, as a noun phrase that completes "Make a capture of …"."""
    reads: ClassVar[str]
    """Which folder is expected, as a noun phrase that begins with "the folder"."""

    @abstractmethod
    def list_contents(self, folder: Path, out: str | Path, progress: Progress) -> FolderContents:
        """Find the sequences in an existing folder without reading their images.

        Args:
            folder: The folder to import.
            out: Folder or object-store address of the capture.
            progress: Reports how many annotations have been read.

        Raises:
            SourceError: The folder holds something else, or the settings ask for something that is not there.
        """

    def import_to(
        self, out: str | Path, folder: str | Path, progress: Progress = NO_PROGRESS, workers: Workers = None
    ) -> ImportResult:
        """Make a capture of a folder, or resume an import that was stopped at any moment.

        A sequence whose files are at fault does not end the import: the others are imported, and the next call tries
        it again.

        Args:
            out: Folder or object-store address of the capture.
            folder: The folder to import, see `reads`.
            progress: Counts images.
            workers: Number of processes, or a cluster; by default one process per processor.

        Raises:
            SourceError: Nothing could be imported; the message gives the reason for every sequence.
            mcss.errors.CaptureError: The capture was begun with other settings, or cannot be written.
            ValueError: Fewer than one process.
        """
        folder = Path(folder)
        if not folder.is_dir():
            found = "a file" if folder.exists() else "nothing: there is no such folder"
            raise SourceError(f"{folder}: expected {self.reads}, got {found}")
        contents = self.list_contents(folder, out, progress)
        result = assemble(
            contents.sequences,
            out,
            contents.info,
            progress,
            processes=workers,
            problems=contents.problems,
            expected=contents.expected,
        )
        return replace(result, notes=(*contents.notes, *result.notes))

    def next_command(self, capture: Capture) -> str:
        """Return the command that makes use of a new capture, for the user to run next."""
        if len(capture.views) < 2:
            return f"mcss predict {capture.uri} -o poses"
        labelled = capture.instants().heading_valid.any()
        return f"mcss adapt {capture.uri}" + (" --labels all" if labelled else "")


@dataclass(frozen=True)
class Dataset(Source):
    """A data set in the form in which it was released."""

    subjects: tuple[str, ...] = ()
    """Import only these subjects; by default all of whom there are files."""

    def content_settings(self, *without: str) -> dict[str, Any]:
        """Return the settings that decide what a capture contains, by name.

        Args:
            without: Further settings that decide only which sequences are imported, so that a later import into the
                same capture may change them.
        """
        left_out = {"subjects", "max_missing", *without}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def next_command(self, capture: Capture) -> str:
        """Return the paper's training with the labels of the first training subject; without one, an evaluation."""
        instants = capture.instants()
        trained, tested = (
            instants.take(instants.heading_valid & instants.selected(capture.splits.get(split, ()))).present_subjects()
            for split in ("train", "test")
        )
        if trained:
            return f"mcss train mcss --capture {capture.uri} --recipe paper --labels {trained[0]}"
        return f"mcss evaluate --capture {capture.uri}" if tested else super().next_command(capture)
