"""Sources of captures: what `mcss import` reads."""

from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from mcss.progress import NO_PROGRESS, Progress
from mcss.sources.aist.sequences import Aist
from mcss.sources.aspset import Aspset
from mcss.sources.assembly import ImportResult
from mcss.sources.human36m.release import Human36M
from mcss.sources.mpi_inf_3dhp.sequences import MpiInf3dhp
from mcss.sources.videos.video_folder import Videos
from mcss.sources.workers import Workers


@runtime_checkable
class Source(Protocol):
    """A frozen dataclass of settings that makes a capture of a folder; its fields are the options of `mcss import`.

    `mcss.sources.folder_source.FolderSource` implements `import_to` for a source that can list its sequences.
    """

    name: ClassVar[str]
    """NAME in `mcss import NAME`, and the importer that a capture states."""
    title: ClassVar[str]
    """What is imported, as a noun phrase that completes "Make a capture of …"."""
    reads: ClassVar[str]
    """Which folder is expected, as a noun phrase that begins with "the folder"."""

    def import_to(
        self, out: str | Path, folder: str | Path, progress: Progress = NO_PROGRESS, workers: Workers = None
    ) -> ImportResult:
        """Make a capture of a folder, or resume an import that was stopped."""


SOURCES: tuple[type[Source], ...] = (Videos, MpiInf3dhp, Aspset, Aist, Human36M)
"""All sources, in the order of `mcss import --help`."""
