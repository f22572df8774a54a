from collections.abc import Iterator

import pytest

from captures_for_tests import INFO, VIEWS, empty_scene, stick_part, stick_parts
from mcss.data.capture import Capture
from mcss.data.writer import CaptureWriter


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """3 subjects × 2 sequences × 24 instants × 4 views of 64 px stick figures, finished."""
    writer = CaptureWriter.open(tmp_path_factory.mktemp("tiny_capture"), info=INFO)
    for part in stick_parts():
        writer.append(part)
    return writer.finish()


@pytest.fixture(scope="session")
def scenic_capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """One sequence of each of two subjects, with images of the empty scene."""
    writer = CaptureWriter.open(tmp_path_factory.mktemp("scenic_capture"), info=INFO)
    for subject in (0, 2):
        writer.append(stick_part(subject, 0))
    writer.add_backgrounds({view: empty_scene() for view in VIEWS})
    return writer.finish()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep feature maps and landmarks of tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MCSS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
