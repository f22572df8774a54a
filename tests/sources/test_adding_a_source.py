"""A source of captures is one file and one line in `SOURCES`; this is the file, and a test adds the line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from mcss.cli import importing, main
from mcss.data.capture import Capture
from mcss.data.schema import CaptureInfo, Frame, Selector
from mcss.errors import SourceError
from mcss.images import decode_jpeg, read_image
from mcss.progress import Progress
from mcss.sources import registry
from mcss.sources.assembly import Note
from mcss.sources.registry import SOURCES
from mcss.sources.rows import SequenceInstants, SequenceView, multi_view_rows
from mcss.sources.source import Dataset, FolderContents, Source
from mcss.video.crops import Crop, crop_of

VIEWS = ("left", "right")


@dataclass(frozen=True)
class Flipbook(Dataset):
    """Which pages of flip books are imported."""

    name: ClassVar[str] = "flipbook"
    title: ClassVar[str] = "flip books, a folder of PNG pages for each view"
    reads: ClassVar[str] = "the folder with subject/left/000.png and subject/right/000.png"

    every: int = 2
    """Take every n-th page."""
    rate: float = 12.0
    """Pages per second."""

    def list_contents(self, folder: Path, out: str | Path, progress: Progress) -> FolderContents:
        """Find the books."""
        names = [path.name for path in sorted(folder.iterdir()) if not self.subjects or path.name in self.subjects]
        books = [FlipbookSequence(name, folder / name, self) for name in names]
        splits = {"train": (Selector(subjects=tuple(names)),)}
        info = CaptureInfo(self.name, "CC0-1.0", self.size, splits, self.content_settings("size"))
        return FolderContents(books, info)


@dataclass(frozen=True)
class FlipbookSequence:
    """One book."""

    subject: str
    folder: Path
    settings: Flipbook

    @property
    def sequence(self) -> str:
        """The only sequence of the subject."""
        return "Walking"

    @property
    def page_numbers(self) -> range:
        """Pages that are imported."""
        return range(0, len(list((self.folder / "left").iterdir())), self.settings.every)

    @property
    def images(self) -> int:
        """Number of rows."""
        return len(VIEWS) * len(self.page_numbers)

    def frames(self, note: Note) -> Iterator[Frame]:
        """Yield the rows."""
        views = [SequenceView(view, self._crops(view)) for view in VIEWS]
        numbers = np.array(self.page_numbers)
        instants = SequenceInstants(numbers, self.settings.rate, [self.sequence] * len(numbers))
        yield from multi_view_rows(self, instants, views, self.settings.quality)

    def _crops(self, view: str) -> Iterator[Crop]:
        for number in self.page_numbers:
            path = self.folder / view / f"{number:03d}.png"
            yield crop_of(path, read_image(path), np.array([0, 0, 24, 24]), self.settings.size)


@pytest.fixture(autouse=True)
def _with_the_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Add the source to `SOURCES`, and remove its verb afterwards."""
    sources: tuple[type[Source], ...] = (*SOURCES, Flipbook)
    monkeypatch.setattr(registry, "SOURCES", sources)
    monkeypatch.setattr(importing, "SOURCES", sources)
    verbs = dict(importing.import_app.entries)
    importing.add_sources()
    yield
    importing.import_app.entries = verbs


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """Two books of eight pages; a page shows its number as brightness."""
    for subject in ("S1", "S2"):
        for view in VIEWS:
            (tmp_path / "books" / subject / view).mkdir(parents=True)
            for page in range(8):
                image = np.full((24, 24, 3), 20 + 25 * page, np.uint8)
                cv2.imwrite(str(tmp_path / "books" / subject / view / f"{page:03d}.png"), image)
    return tmp_path / "books"


def test_the_new_source_imports_with_the_settings_that_all_share(books: Path, tmp_path: Path) -> None:
    result = Flipbook(size=16, subjects=("S2",)).import_to(tmp_path / "capture", books, workers=1)
    assert result.imported == ("S2/Walking",)
    instants = result.capture.instants("train")
    assert (instants.subjects, instants.views, instants.frame.tolist()) == (("S2",), VIEWS, [0, 2, 4, 6])
    np.testing.assert_allclose(instants.time, np.array([0, 2, 4, 6]) / 12)
    brightness = [decode_jpeg(image).mean() for image in result.capture.images(instants.rows[:, 1])]
    np.testing.assert_allclose(brightness, [20, 70, 120, 170], atol=2)
    with pytest.raises(ValueError, match="every ≥ 1"):
        Flipbook(every=0)
    with pytest.raises(SourceError, match="nowhere: expected the folder with subject/left"):
        Flipbook().import_to(tmp_path / "other", tmp_path / "nowhere")


def test_the_new_source_resumes(books: Path, tmp_path: Path) -> None:
    page = books / "S2" / "right" / "004.png"
    whole = page.read_bytes()
    page.write_bytes(whole[:50])
    settings = Flipbook(size=16)
    first = settings.import_to(tmp_path / "capture", books, workers=1)
    assert first.imported == ("S1/Walking",)
    assert "004.png" in first.problems[0]
    page.write_bytes(whole)
    second = settings.import_to(tmp_path / "capture", books, workers=1)
    assert (second.kept, second.imported, second.problems) == (("S1/Walking",), ("S2/Walking",), ())
    at_once = settings.import_to(tmp_path / "other", books, workers=1)
    assert second.capture.fingerprint == at_once.capture.fingerprint


def test_the_new_source_appears_in_the_help_of_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    listed = " ".join(capsys.readouterr().out.split())
    assert "flipbook Make a capture of flip books, a folder of PNG pages for each view" in listed
    with pytest.raises(SystemExit):
        main(["import", "flipbook", "--help"])
    options = " ".join(capsys.readouterr().out.split())
    assert "The folder with subject/left/000.png" in options
    assert "Take every n-th page. (default: 2)" in options
    assert "Pages per second. (default: 12.0)" in options
    assert "JPEG quality of the crops, 1 to 100. (default: 90)" in options
    assert "--subjects" in options


def test_the_command_imports_the_new_source(books: Path, tmp_path: Path) -> None:
    main(["import", "flipbook", str(books), str(tmp_path / "capture"), "--size", "16", "--processes", "1"])
    assert len(Capture.open(tmp_path / "capture")) == 2 * 2 * 4
