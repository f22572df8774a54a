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
