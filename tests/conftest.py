import pytest

from captures_for_tests import INFO, stick_parts
from mcss.captures import Capture, CaptureWriter


@pytest.fixture(scope="session")
def tiny_capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
    """3 subjects × 2 sequences × 24 instants × 4 views of 64 px stick figures, finished."""
    writer = CaptureWriter.open(tmp_path_factory.mktemp("tiny_capture"), info=INFO)
    for part in stick_parts():
        writer.append(part)
    return writer.finish()
